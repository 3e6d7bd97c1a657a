//! The API server: whether it is reached, what it lets us do, and whether it knows the node.

use kube::Client;
use tokio::time::timeout;

use super::rights::{Uses, needs, pods, rights};
use super::{Finding, Topic};
use crate::kube::api::{Address, Fault, NodeName, get, whole};
use crate::kube::node_name;
use crate::kube::self_review;
use crate::kube::source::Failure;
use crate::policy;

/// The longest `/version`.
const VERSION_MAX: usize = 64 << 10;

/// What was answered.
pub enum Answers {
    /// There is nobody to ask.
    Nobody,
    /// Nobody answers at this URL or address.
    Unreached(String, Fault),
    /// The kubelet at this URL, which is asked in the API server's place.
    Kubelet(String, Result<(), Fault>),
    /// The API server at this URL.
    Server(String, Server),
}

/// What the API server answered.
pub struct Server {
    version: Result<String, Fault>,
    /// Whether we may do what is needed, in that order.
    reviews: Vec<Result<bool, Fault>>,
    /// A list of pods: where one may not ask what one may do, one tries.
    pods: Result<(), Fault>,
    /// Whether there is a node of our name.
    node: Result<bool, Fault>,
}

/// Asks the API server, or the kubelet in its place, for no longer than [`policy::CHECK_CLUSTER`].
pub async fn ask(asked: Option<&(Address, NodeName)>, uses: &Uses) -> Answers {
    let Some((address, node)) = asked else { return Answers::Nobody };
    let url = match address.server().await {
        Ok(url) => url,
        Err(fault) => return Answers::Unreached(place(address), fault),
    };
    match timeout(policy::CHECK_CLUSTER, questions(address, node, &url, uses)).await {
        Ok(Ok(answers)) => answers,
        Ok(Err(fault)) => Answers::Unreached(url, fault),
        Err(_) => {
            let fault = Fault::new(Failure::Timeout, "it takes too long over its answers");
            Answers::Unreached(url, fault)
        }
    }
}

/// Where an address is written down.
fn place(address: &Address) -> String {
    match address {
        Address::InCluster => "service account".to_owned(),
        Address::Kubeconfig(path) => format!("--kubeconfig {}", path.display()),
        Address::Url(url) | Address::Kubelet { url, .. } | Address::Exporter { url, .. } => {
            url.clone()
        }
    }
}

async fn questions(
    address: &Address,
    node: &NodeName,
    url: &str,
    uses: &Uses,
) -> Result<Answers, Fault> {
    let client = address.connect().await?;
    if let Address::Kubelet { .. } = address {
        let pods = get(&client, "/pods", policy::CHECK_ANSWER).await.map(drop);
        return Ok(Answers::Kubelet(format!("{url}pods"), pods));
    }
    let version = match version(&client).await {
        // Nobody is there who could say more.
        Err(fault) if fault.status.is_none() => return Err(fault),
        version => version,
    };
    let (reviews, pods, node) = tokio::join!(
        reviews(&client, uses),
        list_pods(&client, node),
        node_name::is_known(&client, node, policy::CHECK_ANSWER)
    );
    Ok(Answers::Server(url.to_owned(), Server { version, reviews, pods, node }))
}

async fn reviews(client: &Client, uses: &Uses) -> Vec<Result<bool, Fault>> {
    let mut reviews = Vec::new();
    for need in needs(uses) {
        let review = self_review::is_allowed(client, &need.right, policy::CHECK_ANSWER).await;
        let cannot_ask = review.is_err();
        reviews.push(review);
        // One that cannot be asked will not be asked better the next time.
        if cannot_ask {
            break;
        }
    }
    reviews
}

/// What is found of the API server, its rights and the node; `uses` has to need what was asked for.
#[must_use]
pub fn findings(node: Option<&NodeName>, answers: &Answers, uses: &Uses) -> Vec<Finding> {
    let unasked = |first: Finding, why: &str| {
        let subject = first.subject.clone();
        let skipped = |topic| Finding::skipped(topic, &subject, why);
        vec![first, skipped(Topic::Rights), skipped(Topic::Node)]
    };
    match (answers, node) {
        (Answers::Unreached(place, fault), _) => {
            unasked(unreached(place, fault), "it cannot be asked")
        }
        (Answers::Kubelet(url, pods), _) => {
            unasked(kubelet(url, pods), "the kubelet is asked instead, and tells no such thing")
        }
        (Answers::Server(url, answers), Some(node)) => {
            let mut findings = vec![server(url, &answers.version)];
            findings.extend(rights(&needs(uses), &answers.reviews));
            if answers.reviews.iter().any(Result::is_err) {
                findings.push(pods(url, &answers.pods));
            }
            findings.push(name(node, &answers.node));
            findings
        }
        (Answers::Nobody, _) | (Answers::Server(..), None) => {
            unasked(nobody(in_pod()), "there is no API server to ask")
        }
    }
}

/// Whether Kubernetes says that this is a pod.
fn in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn nobody(in_pod: bool) -> Finding {
    let subject = "service account, --kubeconfig";
    if in_pod {
        let said = "this is a pod without the token of a service account, or of an unknown node: its pods \
                    are not watched";
        return Finding::warning(Topic::Api, subject, said)
            .mended_by("set automountServiceAccountToken: true, and NODE_NAME from spec.nodeName");
    }
    Finding::skipped(Topic::Api, subject, "not in a cluster, so nobody knows of pods")
}

async fn version(client: &Client) -> Result<String, Fault> {
    let body = get(client, "/version", policy::CHECK_ANSWER).await?;
    let json = whole(body, VERSION_MAX, policy::CHECK_ANSWER).await?;
    let version: serde_json::Value = serde_json::from_slice(&json)
        .map_err(|e| Fault::new(Failure::Garbage, format!("/version: {e}")))?;
    Ok(version.get("gitVersion").and_then(|v| v.as_str()).unwrap_or_default().to_owned())
}

fn server(url: &str, version: &Result<String, Fault>) -> Finding {
    match version {
        Ok(version) => Finding::ok(Topic::Api, url, format!("it answers: Kubernetes {version}")),
        Err(fault) if fault.status == Some(401) => {
            Finding::failure(Topic::Api, url, format!("it does not know us: {}", fault.detail))
                .mended_by(
                    "renew the token of the service account, or the credentials of the kubeconfig",
                )
        }
        Err(fault) if fault.status.is_some() => Finding::note(
            Topic::Api,
            url,
            format!("it answers, and not its version: {}", fault.detail),
        ),
        Err(fault) => unreached(url, fault),
    }
}

fn unreached(url: &str, fault: &Fault) -> Finding {
    let said = format!("{}: {}", fault.failure.reason(), fault.detail);
    let mend = if fault.failure == Failure::Config {
        "see what it says of the file or the address"
    } else if matches!(fault.failure, Failure::Garbage | Failure::TooLarge) {
        "see that the address is an API server's"
    } else {
        "look at network policies (egress to the API server's port), DNS and the service network; \
         without it pods have no names"
    };
    Finding::failure(Topic::Api, url, said).mended_by(mend)
}

fn kubelet(url: &str, pods: &Result<(), Fault>) -> Finding {
    match pods {
        Ok(()) => Finding::ok(Topic::Api, url, "the kubelet answers in the API server's place"),
        Err(fault) => {
            let said = format!("{}: {}", fault.failure.reason(), fault.detail);
            let mend = if fault.failure == Failure::Denied {
                "allow get of nodes/proxy (or nodes/pods) to the service account"
            } else {
                "see --kubelet-pods, --kubelet-ca and --kubelet-insecure-tls"
            };
            Finding::failure(Topic::Api, url, said).mended_by(mend)
        }
    }
}

async fn list_pods(client: &Client, node: &NodeName) -> Result<(), Fault> {
    let node = node.as_str();
    let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&limit=1");
    get(client, &path, policy::CHECK_ANSWER).await.map(drop)
}

fn name(node: &NodeName, known: &Result<bool, Fault>) -> Finding {
    let subject = node.as_str();
    match known {
        Ok(true) => Finding::ok(Topic::Node, subject, "the cluster has a node of this name"),
        Ok(false) => {
            let said = "the cluster has no node of this name, so no pod is found on it";
            Finding::failure(Topic::Node, subject, said).mended_by(
                "set NODE_NAME through the downward API (fieldPath: spec.nodeName), or --node-name as \
                 kubectl get nodes spells it",
            )
        }
        Err(fault) => {
            let said = format!("whether there is such a node cannot be asked: {}", fault.detail);
            Finding::skipped(Topic::Node, subject, said)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn denied(status: u16) -> Fault {
        Fault { failure: Failure::Denied, status: Some(status), detail: "no".to_owned() }
    }

    #[test]
    fn a_server_that_answers_is_reached_whatever_it_says() {
        assert_eq!(server("u", &Err(denied(401))).verdict, Verdict::Failure);
        assert_eq!(server("u", &Err(denied(403))).verdict, Verdict::Note);
        assert_eq!(server("u", &Ok("v1.34.0".to_owned())).said, "it answers: Kubernetes v1.34.0");
    }

    #[test]
    fn what_cannot_be_asked_has_a_line_all_the_same() {
        let gone = Answers::Unreached("u".to_owned(), Fault::new(Failure::Timeout, "x"));
        let found = findings(None, &gone, &Uses::default());
        let told: Vec<_> = found.iter().map(|finding| (finding.topic, finding.verdict)).collect();
        assert_eq!(
            told,
            [
                (Topic::Api, Verdict::Failure),
                (Topic::Rights, Verdict::Skipped),
                (Topic::Node, Verdict::Skipped)
            ]
        );
    }

    #[test]
    fn who_may_not_ask_what_it_may_tries() {
        let answers = |status| {
            let server = Server {
                version: Ok("v1".to_owned()),
                reviews: vec![Err(denied(403))],
                pods: Err(Fault { failure: Failure::of_status(status), ..denied(status) }),
                node: Ok(true),
            };
            Answers::Server("u/".to_owned(), server)
        };
        let node = NodeName::new("n1").unwrap();
        let tried = |status| findings(Some(&node), &answers(status), &Uses::default()).remove(2);
        assert_eq!((tried(403).verdict, &*tried(403).subject), (Verdict::Failure, "u/api/v1/pods"));
        assert_eq!(tried(429).verdict, Verdict::Warning);
    }

    #[test]
    fn a_name_that_no_node_has_fails_with_its_mend() {
        let node = NodeName::new("n1").unwrap();
        assert_eq!(name(&node, &Ok(true)).verdict, Verdict::Ok);
        let finding = name(&node, &Ok(false));
        assert_eq!(finding.verdict, Verdict::Failure);
        assert!(finding.mend.unwrap().contains("spec.nodeName"));
        assert_eq!(name(&node, &Err(denied(403))).verdict, Verdict::Skipped);
    }

    #[test]
    fn a_pod_without_a_token_is_warned_of() {
        assert_eq!(nobody(true).verdict, Verdict::Warning);
        assert_eq!(nobody(false).verdict, Verdict::Skipped);
    }
}
