//! The API server: reachability, permissions, and whether the node exists.

use kube::Client;
use tokio::time::timeout;

use super::rights::{FeaturesInUse, pod_list_finding, required_permissions, review_findings};
use super::{Finding, Topic};
use crate::kube::address::Address;
use crate::kube::api::{get, read_body};
use crate::kube::node_exists;
use crate::kube::node_name::NodeName;
use crate::kube::request_error::RequestError;
use crate::kube::self_review;
use crate::kube::source::FailureReason;
use crate::policy;

/// Maximum size of the `/version` response, in bytes.
const VERSION_MAX: usize = 64 << 10;

/// The result of probing the API server.
pub enum ApiProbe {
    /// No API server is configured.
    NotConfigured,
    /// No response from this URL or address.
    Unreachable(String, RequestError),
    /// The kubelet at this URL, which is queried instead of the API server.
    Kubelet(String, Result<(), RequestError>),
    /// The API server at this URL.
    Server(String, ServerProbe),
}

/// The responses of the API server.
pub struct ServerProbe {
    /// `gitVersion` of `/version`.
    version: Result<String, RequestError>,
    /// Whether each required permission is allowed, in the order of `required_permissions`; ends at the
    /// first review that fails.
    reviews: Vec<Result<bool, RequestError>>,
    /// A trial list of pods, reported where permissions cannot be reviewed.
    pod_list: Result<(), RequestError>,
    /// Whether a node of the configured name exists.
    node_exists: Result<bool, RequestError>,
}

/// Probes the API server, or the kubelet if pods are read from there, for at most
/// [`policy::CHECK_API_TIMEOUT`].
pub async fn probe(target: Option<&(Address, NodeName)>, features: &FeaturesInUse) -> ApiProbe {
    let Some((address, node)) = target else { return ApiProbe::NotConfigured };
    let url = match address.server_url().await {
        Ok(url) => url,
        Err(fault) => return ApiProbe::Unreachable(address.to_string(), fault),
    };
    match timeout(policy::CHECK_API_TIMEOUT, query(address, node, &url, features)).await {
        Ok(Ok(probe)) => probe,
        Ok(Err(fault)) => ApiProbe::Unreachable(url, fault),
        Err(_) => {
            let fault = RequestError::new(FailureReason::Timeout, "the responses take too long");
            ApiProbe::Unreachable(url, fault)
        }
    }
}

async fn query(
    address: &Address,
    node: &NodeName,
    url: &str,
    features: &FeaturesInUse,
) -> Result<ApiProbe, RequestError> {
    let client = address.client().await?;
    if let Address::Kubelet { .. } = address {
        let pods = get(&client, "/pods", policy::CHECK_TIMEOUT).await.map(drop);
        return Ok(ApiProbe::Kubelet(format!("{url}pods"), pods));
    }
    let version = match server_version(&client).await {
        // No HTTP response: the other requests would fail as well.
        Err(fault) if fault.status.is_none() => return Err(fault),
        version => version,
    };
    let (reviews, pod_list, node_exists) = tokio::join!(
        reviews(&client, features),
        list_pods(&client, node),
        node_exists::exists(&client, node, policy::CHECK_TIMEOUT)
    );
    let probe = ServerProbe { version, reviews, pod_list, node_exists };
    Ok(ApiProbe::Server(url.to_owned(), probe))
}

async fn reviews(client: &Client, features: &FeaturesInUse) -> Vec<Result<bool, RequestError>> {
    let mut reviews = Vec::new();
    for permission in required_permissions(features) {
        let review =
            self_review::is_allowed(client, &permission.right, policy::CHECK_TIMEOUT).await;
        let failed = review.is_err();
        reviews.push(review);
        // Further reviews would fail for the same reason.
        if failed {
            break;
        }
    }
    reviews
}

/// Findings about the API server, the permissions and the node. `features` must require at least the
/// permissions that were reviewed.
#[must_use]
pub fn findings(
    node: Option<&NodeName>,
    probe: &ApiProbe,
    features: &FeaturesInUse,
) -> Vec<Finding> {
    let without_reviews = |first: Finding, reason: &str| {
        let subject = first.subject.clone();
        let skipped = |topic| Finding::skipped(topic, &subject, reason);
        vec![first, skipped(Topic::Rights), skipped(Topic::Node)]
    };
    match (probe, node) {
        (ApiProbe::Unreachable(location, fault), _) => without_reviews(
            unreachable_finding(location, fault),
            "not checked: the API server is unreachable",
        ),
        (ApiProbe::Kubelet(url, pods), _) => without_reviews(
            kubelet_finding(url, pods),
            "not checked: pods are read from the kubelet, not from the API server",
        ),
        (ApiProbe::Server(url, probe), Some(node)) => {
            let mut findings = vec![version_finding(url, &probe.version)];
            findings.extend(review_findings(&required_permissions(features), &probe.reviews));
            if probe.reviews.iter().any(Result::is_err) {
                findings.push(pod_list_finding(url, &probe.pod_list));
            }
            findings.push(node_finding(node, &probe.node_exists));
            findings
        }
        (ApiProbe::NotConfigured, _) | (ApiProbe::Server(..), None) => without_reviews(
            not_configured_finding(in_pod()),
            "not checked: no API server is configured",
        ),
    }
}

/// Whether this process runs in a pod, by the environment that Kubernetes sets.
fn in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn not_configured_finding(in_pod: bool) -> Finding {
    let subject = "service account, --kubeconfig";
    if in_pod {
        let message = "running in a pod without a service account token or without a node name: pods are \
                       not watched";
        return Finding::warning(Topic::Api, subject, message).with_remedy(
            "set automountServiceAccountToken: true, and NODE_NAME from spec.nodeName",
        );
    }
    Finding::skipped(Topic::Api, subject, "not in a cluster: there are no pod names")
}

async fn server_version(client: &Client) -> Result<String, RequestError> {
    let body = get(client, "/version", policy::CHECK_TIMEOUT).await?;
    let json = read_body(body, VERSION_MAX, policy::CHECK_TIMEOUT).await?;
    let version: serde_json::Value = serde_json::from_slice(&json)
        .map_err(|e| RequestError::new(FailureReason::Garbage, format!("/version: {e}")))?;
    Ok(version.get("gitVersion").and_then(|v| v.as_str()).unwrap_or_default().to_owned())
}

fn version_finding(url: &str, version: &Result<String, RequestError>) -> Finding {
    match version {
        Ok(version) => Finding::ok(Topic::Api, url, format!("reachable: Kubernetes {version}")),
        Err(fault) if fault.status == Some(401) => {
            Finding::failure(Topic::Api, url, format!("authentication failed: {fault}"))
                .with_remedy(
                    "renew the token of the service account, or the credentials of the kubeconfig",
                )
        }
        Err(fault) if fault.status.is_some() => Finding::note(
            Topic::Api,
            url,
            format!("reachable, but /version cannot be read: {fault}"),
        ),
        Err(fault) => unreachable_finding(url, fault),
    }
}

fn unreachable_finding(url: &str, fault: &RequestError) -> Finding {
    let message = format!("{}: {}", fault.reason.label(), fault.problem.message);
    let remedy = if let Some(remedy) = &fault.problem.remedy {
        remedy
    } else if fault.reason == FailureReason::Config {
        "fix the file or the address that the message names"
    } else if matches!(fault.reason, FailureReason::Garbage | FailureReason::TooLarge) {
        "check that the address is that of an API server"
    } else {
        "check network policies (egress to the API server's port), DNS and the service network; \
         without the API server there are no pod names"
    };
    Finding::failure(Topic::Api, url, message).with_remedy(remedy)
}

fn kubelet_finding(url: &str, pods: &Result<(), RequestError>) -> Finding {
    match pods {
        Ok(()) => Finding::ok(
            Topic::Api,
            url,
            "reachable: pods are read from the kubelet, not from the API server",
        ),
        Err(fault) => {
            let message = format!("{}: {}", fault.reason.label(), fault.problem.message);
            let remedy = if let Some(remedy) = &fault.problem.remedy {
                remedy
            } else if fault.reason == FailureReason::Denied {
                "allow the service account to get nodes/proxy (or nodes/pods)"
            } else {
                "check --kubelet-pods, --kubelet-ca and --kubelet-insecure-tls"
            };
            Finding::failure(Topic::Api, url, message).with_remedy(remedy)
        }
    }
}

async fn list_pods(client: &Client, node: &NodeName) -> Result<(), RequestError> {
    let node = node.as_str();
    let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&limit=1");
    get(client, &path, policy::CHECK_TIMEOUT).await.map(drop)
}

fn node_finding(node: &NodeName, exists: &Result<bool, RequestError>) -> Finding {
    let subject = node.as_str();
    match exists {
        Ok(true) => Finding::ok(Topic::Node, subject, "the cluster has a node of this name"),
        Ok(false) => {
            let message = "the cluster has no node of this name, so no pods are found";
            Finding::failure(Topic::Node, subject, message).with_remedy(
                "set NODE_NAME through the downward API (fieldPath: spec.nodeName), or set --node-name to \
                 a name that kubectl get nodes lists",
            )
        }
        Err(fault) => {
            let message = format!("cannot check whether this node exists: {fault}");
            Finding::skipped(Topic::Node, subject, message)
        }
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

    #[test]
    fn server_that_denies_its_version_is_reachable() {
        assert_eq!(version_finding("u", &Err(denied(401))).verdict, Outcome::Failure);
        assert_eq!(version_finding("u", &Err(denied(403))).verdict, Outcome::Note);
        let finding = version_finding("u", &Ok("v1.34.0".to_owned()));
        assert_eq!(finding.message, "reachable: Kubernetes v1.34.0");
    }

    #[test]
    fn unreachable_server_has_a_finding_for_each_topic() {
        let probe =
            ApiProbe::Unreachable("u".to_owned(), RequestError::new(FailureReason::Timeout, "x"));
        let found = findings(None, &probe, &FeaturesInUse::default());
        let found: Vec<_> = found.iter().map(|finding| (finding.topic, finding.verdict)).collect();
        assert_eq!(
            found,
            [
                (Topic::Api, Outcome::Failure),
                (Topic::Rights, Outcome::Skipped),
                (Topic::Node, Outcome::Skipped)
            ]
        );
    }

    #[test]
    fn pods_are_listed_where_permissions_cannot_be_reviewed() {
        let probe = |status| {
            let server = ServerProbe {
                version: Ok("v1".to_owned()),
                reviews: vec![Err(denied(403))],
                pod_list: Err(RequestError {
                    reason: FailureReason::from_status(status),
                    ..denied(status)
                }),
                node_exists: Ok(true),
            };
            ApiProbe::Server("u/".to_owned(), server)
        };
        let node = NodeName::new("n1").unwrap();
        let tried =
            |status| findings(Some(&node), &probe(status), &FeaturesInUse::default()).remove(2);
        assert_eq!((tried(403).verdict, &*tried(403).subject), (Outcome::Failure, "u/api/v1/pods"));
        assert_eq!(tried(429).verdict, Outcome::Warning);
    }

    #[test]
    fn unknown_node_name_fails_with_a_remedy() {
        let node = NodeName::new("n1").unwrap();
        assert_eq!(node_finding(&node, &Ok(true)).verdict, Outcome::Ok);
        let finding = node_finding(&node, &Ok(false));
        assert_eq!(finding.verdict, Outcome::Failure);
        assert!(finding.remedy.unwrap().contains("spec.nodeName"));
        assert_eq!(node_finding(&node, &Err(denied(403))).verdict, Outcome::Skipped);
    }

    #[test]
    fn pod_without_token_is_a_warning() {
        assert_eq!(not_configured_finding(true).verdict, Outcome::Warning);
        assert_eq!(not_configured_finding(false).verdict, Outcome::Skipped);
    }
}
