//! What the API server lets us do, in its own words (`SelfSubjectAccessReview`).

use std::time::Duration;

use kube::Client;
use serde::Deserialize;
use serde_json::json;

use super::api::{Fault, post, whole};
use super::source::Failure;

/// Where reviews are asked for; everybody who is known may.
pub const PATH: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// The longest answer.
const ANSWER_MAX: usize = 256 << 10;

/// Something that one may do or not, in the whole cluster unless a namespace is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// Such as `list`.
    pub verb: &'static str,
    /// The group of the API; empty for the core.
    pub group: &'static str,
    /// Such as `pods`.
    pub resource: &'static str,
    /// The one object that is meant: its namespace and name.
    pub object: Option<(String, String)>,
}

impl Right {
    /// In all namespaces.
    #[must_use]
    pub fn everywhere(verb: &'static str, group: &'static str, resource: &'static str) -> Self {
        Self { verb, group, resource, object: None }
    }

    /// As `kubectl auth can-i` is asked.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { verb, group, resource, object } = self;
        let dot = if group.is_empty() { "" } else { "." };
        let object = object.iter().map(|(namespace, name)| format!("/{name} -n {namespace}"));
        format!("{verb} {resource}{dot}{group}{}", object.collect::<String>())
    }
}

#[derive(Deserialize)]
struct Review {
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    allowed: bool,
}

/// Whether we may; the answer comes within `patience`.
///
/// # Errors
/// It cannot be asked.
pub async fn is_allowed(client: &Client, right: &Right, patience: Duration) -> Result<bool, Fault> {
    let body = post(client, PATH, question(right), patience).await?;
    answer(&whole(body, ANSWER_MAX, patience).await?)
}

fn question(right: &Right) -> Vec<u8> {
    let Right { verb, group, resource, object } = right;
    let (namespace, name) =
        object.as_ref().map_or(("", ""), |(namespace, name)| (namespace.as_str(), name.as_str()));
    let attributes = json!({
        "verb": verb, "group": group, "resource": resource, "namespace": namespace, "name": name,
    });
    json!({
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "spec": { "resourceAttributes": attributes },
    })
    .to_string()
    .into_bytes()
}

fn answer(json: &[u8]) -> Result<bool, Fault> {
    let review: Review = serde_json::from_slice(json)
        .map_err(|e| Fault::new(Failure::Garbage, format!("{PATH}: {e}")))?;
    Ok(review.status.allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_asked_for_and_said_as_kubernetes_does() {
        let slices = Right::everywhere("list", "resource.k8s.io", "resourceslices");
        assert_eq!(slices.words(), "list resourceslices.resource.k8s.io");
        let object = Some(("monitoring".to_owned(), "counters".to_owned()));
        let map = Right { object, ..Right::everywhere("get", "", "configmaps") };
        assert_eq!(map.words(), "get configmaps/counters -n monitoring");
        let asked: serde_json::Value = serde_json::from_slice(&question(&map)).unwrap();
        let attributes = &asked["spec"]["resourceAttributes"];
        assert_eq!(
            (&attributes["namespace"], &attributes["name"]),
            (&json!("monitoring"), &json!("counters"))
        );
    }

    #[test]
    fn an_answer_says_whether() {
        assert!(answer(br#"{"status":{"allowed":true}}"#).unwrap());
        assert!(!answer(br#"{"status":{"allowed":false,"reason":"no"}}"#).unwrap());
        assert_eq!(answer(b"{}").unwrap_err().failure, Failure::Garbage);
    }
}
