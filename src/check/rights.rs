//! What the API server lets us do, and what hangs on it.

use super::{Finding, Topic};
use crate::kube::api::Fault;
use crate::kube::self_review::{self, Right};
use crate::kube::source::Failure;

/// What else than pods and the node is asked for here.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    /// Devices are claimed dynamically, so slices are listed.
    pub claims: bool,
    /// The node's label is looked out for.
    pub label: bool,
    /// Namespace and name of the `ConfigMap` with the counters.
    pub config_map: Option<(String, String)>,
}

/// What gives the rights.
const ROLE: &str = "give the service account the ClusterRole of daemonset/base/service-account.yaml, and see \
     that its binding names the right namespace";

/// How much hangs on a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// Without it the exporter does not do what it is for.
    Needed,
    /// Without it something is missing.
    Useful,
    /// Nobody asks for it here.
    Idle,
}

/// A right, and what is done with it.
pub(super) struct Need {
    pub(super) right: Right,
    weight: Weight,
    purpose: &'static str,
}

/// What is needed, in the order in which it is asked for.
pub(super) fn needs(uses: &Uses) -> Vec<Need> {
    let need = |verb, group, resource, weight, purpose| Need {
        right: Right::everywhere(verb, group, resource),
        weight,
        purpose,
    };
    let useful_if = |asked_for| if asked_for { Weight::Useful } else { Weight::Idle };
    let pods = "names of pods";
    let mut needs = vec![
        need("list", "", "pods", Weight::Needed, pods),
        need("watch", "", "pods", Weight::Needed, pods),
        need(
            "watch",
            "",
            "nodes",
            useful_if(uses.label),
            "the label that asks for NVML to be let go",
        ),
        need(
            "list",
            "resource.k8s.io",
            "resourceslices",
            useful_if(uses.claims),
            "devices that are claimed (DRA)",
        ),
    ];
    if let Some(object) = &uses.config_map {
        let right =
            Right { object: Some(object.clone()), ..Right::everywhere("get", "", "configmaps") };
        needs.push(Need {
            right,
            weight: Weight::Needed,
            purpose: "the counters of --configmap-data",
        });
    }
    needs
}

/// One for each right that was asked for, and one more where asking is not possible.
pub(super) fn rights(needs: &[Need], reviews: &[Result<bool, Fault>]) -> Vec<Finding> {
    let of = |(need, review): (&Need, &Result<bool, Fault>)| match review {
        Ok(allowed) => right(need, *allowed),
        Err(fault) => {
            let said = format!("what we may do cannot be asked ({})", fault.detail);
            Finding::warning(Topic::Rights, self_review::PATH, said).mended_by(
                "kubectl auth can-i list pods --as=system:serviceaccount:NAMESPACE:nvml-exporter tells",
            )
        }
    };
    needs.iter().zip(reviews).map(of).collect()
}

fn right(need: &Need, allowed: bool) -> Finding {
    let (words, purpose) = (need.right.words(), need.purpose);
    if allowed {
        return Finding::ok(Topic::Rights, words, format!("allowed: {purpose}"));
    }
    let said = format!("denied: {purpose}");
    match need.weight {
        Weight::Needed => Finding::failure(Topic::Rights, words, said).mended_by(ROLE),
        Weight::Useful => Finding::warning(Topic::Rights, words, said).mended_by(ROLE),
        Weight::Idle => {
            Finding::note(Topic::Rights, words, format!("{said}, which nobody asks for here"))
        }
    }
}

/// Where one may not ask what one may do, one tries.
pub(super) fn pods(url: &str, list: &Result<(), Fault>) -> Finding {
    let subject = format!("{url}api/v1/pods");
    match list {
        Ok(()) => Finding::ok(Topic::Rights, subject, "allowed: the pods of this node are listed"),
        Err(fault) if fault.failure == Failure::Denied => {
            Finding::failure(Topic::Rights, subject, &fault.detail).mended_by(ROLE)
        }
        Err(fault) => Finding::warning(Topic::Rights, subject, &fault.detail),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn denied(status: u16) -> Fault {
        Fault { failure: Failure::Denied, status: Some(status), detail: "no".to_owned() }
    }

    fn verdicts(uses: &Uses, reviews: &[Result<bool, Fault>]) -> Vec<Verdict> {
        rights(&needs(uses), reviews).iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn what_is_denied_weighs_by_what_hangs_on_it() {
        let no = || [Ok(false), Ok(false), Ok(false), Ok(false), Ok(false)];
        let idle = verdicts(&Uses::default(), &no());
        assert_eq!(idle, [Verdict::Failure, Verdict::Failure, Verdict::Note, Verdict::Note]);
        let config_map = Some(("a".to_owned(), "b".to_owned()));
        let all = Uses { claims: true, label: true, config_map };
        assert_eq!(
            verdicts(&all, &no()),
            [
                Verdict::Failure,
                Verdict::Failure,
                Verdict::Warning,
                Verdict::Warning,
                Verdict::Failure
            ]
        );
        assert_eq!(verdicts(&Uses::default(), &[Ok(true)]), [Verdict::Ok]);
        assert_eq!(verdicts(&Uses::default(), &[Err(denied(403))]), [Verdict::Warning]);
    }
}
