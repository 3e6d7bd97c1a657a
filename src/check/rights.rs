//! RBAC permissions at the API server, and the features that need them.

use super::{Finding, Topic};
use crate::kube::request_error::RequestError;
use crate::kube::self_review::{self, ApiPermission};
use crate::kube::source::FailureReason;

/// Features in use that need more permissions than the lookup of pods does.
#[derive(Clone, Debug, Default)]
pub struct FeaturesInUse {
    /// The kubelet reports DRA claims of GPUs: `ResourceSlice`s and `ResourceClaim`s are read.
    pub claims: bool,
    /// `--release-label` is set: the node is watched.
    pub release_label: bool,
    /// Namespace and name of the `ConfigMap` with the counters.
    pub config_map: Option<(String, String)>,
}

/// The remedy for a denied permission.
const BIND_ROLE: &str = "bind the service account to the ClusterRole of daemonset/base/service-account.yaml, \
     and check the namespace in the binding";

/// The effect of a permission on the exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Importance {
    /// A main function does not work without it.
    Required,
    /// Some data is missing without it.
    Optional,
    /// No feature in use needs it.
    Unused,
}

/// A permission, and the data that needs it.
pub(super) struct Permission {
    pub(super) right: ApiPermission,
    importance: Importance,
    purpose: &'static str,
}

/// The permissions of the exporter, in the order of the reviews.
pub(super) fn required_permissions(features: &FeaturesInUse) -> Vec<Permission> {
    let permission = |verb, group, resource, importance, purpose| Permission {
        right: ApiPermission::cluster_wide(verb, group, resource),
        importance,
        purpose,
    };
    let optional_if = |used| if used { Importance::Optional } else { Importance::Unused };
    let pods = "pod names";
    let mut permissions = vec![
        permission("list", "", "pods", Importance::Required, pods),
        permission("watch", "", "pods", Importance::Required, pods),
        permission(
            "watch",
            "",
            "nodes",
            optional_if(features.release_label),
            "the node label that requests a driver release (--release-label)",
        ),
        permission(
            "list",
            "resource.k8s.io",
            "resourceslices",
            optional_if(features.claims),
            "claimed devices (DRA)",
        ),
        permission(
            "get",
            "resource.k8s.io",
            "resourceclaims",
            optional_if(features.claims),
            "shares, MPS limits and administrative access of claims (DRA)",
        ),
    ];
    if let Some(object) = &features.config_map {
        let right = ApiPermission {
            object: Some(object.clone()),
            ..ApiPermission::cluster_wide("get", "", "configmaps")
        };
        permissions.push(Permission {
            right,
            importance: Importance::Required,
            purpose: "the counters of --configmap-data",
        });
    }
    permissions
}

/// One finding for each review; a review that failed is a warning.
pub(super) fn review_findings(
    permissions: &[Permission],
    reviews: &[Result<bool, RequestError>],
) -> Vec<Finding> {
    let finding = |(permission, review): (&Permission, &Result<bool, RequestError>)| match review {
        Ok(allowed) => permission_finding(permission, *allowed),
        Err(fault) => {
            let message = format!("permissions cannot be reviewed ({fault})");
            Finding::warning(Topic::Rights, self_review::PATH, message).with_remedy(
                "check with kubectl auth can-i list pods \
                 --as=system:serviceaccount:NAMESPACE:nvml-exporter",
            )
        }
    };
    permissions.iter().zip(reviews).map(finding).collect()
}

fn permission_finding(permission: &Permission, allowed: bool) -> Finding {
    let (subject, purpose) = (permission.right.kubectl_args(), permission.purpose);
    if allowed {
        return Finding::ok(Topic::Rights, subject, format!("allowed: {purpose}"));
    }
    let message = format!("denied: {purpose}");
    match permission.importance {
        Importance::Required => {
            Finding::failure(Topic::Rights, subject, message).with_remedy(BIND_ROLE)
        }
        Importance::Optional => {
            Finding::warning(Topic::Rights, subject, message).with_remedy(BIND_ROLE)
        }
        Importance::Unused => {
            Finding::note(Topic::Rights, subject, format!("{message}, which is not used here"))
        }
    }
}

/// A trial list of pods, for servers where permissions cannot be reviewed.
pub(super) fn pod_list_finding(url: &str, list: &Result<(), RequestError>) -> Finding {
    let subject = format!("{url}api/v1/pods");
    match list {
        Ok(()) => Finding::ok(Topic::Rights, subject, "allowed: listing the pods of this node"),
        Err(fault) if fault.reason == FailureReason::Denied => {
            Finding::failure(Topic::Rights, subject, fault.to_string()).with_remedy(BIND_ROLE)
        }
        Err(fault) => Finding::warning(Topic::Rights, subject, fault.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use crate::model::Problem;

    fn denied(status: u16) -> RequestError {
        RequestError {
            reason: FailureReason::Denied,
            status: Some(status),
            problem: Problem::without_remedy("no"),
        }
    }

    fn verdicts(features: &FeaturesInUse, reviews: &[Result<bool, RequestError>]) -> Vec<Outcome> {
        let findings = review_findings(&required_permissions(features), reviews);
        findings.iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn denied_permission_is_as_severe_as_its_importance() {
        let no = || [(); 6].map(|()| Ok(false));
        let unused = verdicts(&FeaturesInUse::default(), &no());
        let (failure, note) = (Outcome::Failure, Outcome::Note);
        assert_eq!(unused, [failure, failure, note, note, note]);
        let config_map = Some(("a".to_owned(), "b".to_owned()));
        let all = FeaturesInUse { claims: true, release_label: true, config_map };
        assert_eq!(
            verdicts(&all, &no()),
            [
                Outcome::Failure,
                Outcome::Failure,
                Outcome::Warning,
                Outcome::Warning,
                Outcome::Warning,
                Outcome::Failure
            ]
        );
        assert_eq!(verdicts(&FeaturesInUse::default(), &[Ok(true)]), [Outcome::Ok]);
        assert_eq!(verdicts(&FeaturesInUse::default(), &[Err(denied(403))]), [Outcome::Warning]);
    }
}
