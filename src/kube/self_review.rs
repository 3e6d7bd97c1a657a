//! Checks the exporter's own permissions with `SelfSubjectAccessReview`s.

use std::time::Duration;

use kube::Client;
use serde::Deserialize;
use serde_json::json;

use super::api::{post, read_body};
use super::request_error::RequestError;
use super::source::FailureReason;

/// Path of the reviews; every authenticated client has access.
pub const PATH: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// Largest response, in bytes.
const RESPONSE_MAX: usize = 256 << 10;

/// A permission, in the whole cluster unless `object` is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiPermission {
    /// Verb, such as `list`.
    pub verb: &'static str,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resource, such as `pods`.
    pub resource: &'static str,
    /// Namespace and name, if the permission is for one object.
    pub object: Option<(String, String)>,
}

impl ApiPermission {
    /// A permission in all namespaces.
    #[must_use]
    pub fn cluster_wide(verb: &'static str, group: &'static str, resource: &'static str) -> Self {
        Self { verb, group, resource, object: None }
    }

    /// The arguments of `kubectl auth can-i` for this permission.
    #[must_use]
    pub fn kubectl_args(&self) -> String {
        let Self { verb, group, resource, object } = self;
        let dot = if group.is_empty() { "" } else { "." };
        let object = object.iter().map(|(namespace, name)| format!("/{name} -n {namespace}"));
        format!("{verb} {resource}{dot}{group}{}", object.collect::<String>())
    }
}

#[derive(Deserialize)]
struct Review {
    status: ReviewStatus,
}

#[derive(Deserialize)]
struct ReviewStatus {
    allowed: bool,
}

/// Whether the exporter has the permission. `timeout` applies to each part of the response.
///
/// # Errors
/// The request fails or the response is malformed.
pub async fn is_allowed(
    client: &Client,
    right: &ApiPermission,
    timeout: Duration,
) -> Result<bool, RequestError> {
    let body = post(client, PATH, review_request(right), timeout).await?;
    parse_review(&read_body(body, RESPONSE_MAX, timeout).await?)
}

fn review_request(right: &ApiPermission) -> Vec<u8> {
    let ApiPermission { verb, group, resource, object } = right;
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

fn parse_review(json: &[u8]) -> Result<bool, RequestError> {
    let review: Review = serde_json::from_slice(json).map_err(|e| {
        RequestError::new(FailureReason::Garbage, format!("{PATH}: the response is malformed: {e}"))
    })?;
    Ok(review.status.allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permission_is_requested_and_formatted_like_kubectl() {
        let slices = ApiPermission::cluster_wide("list", "resource.k8s.io", "resourceslices");
        assert_eq!(slices.kubectl_args(), "list resourceslices.resource.k8s.io");
        let object = Some(("monitoring".to_owned(), "counters".to_owned()));
        let map = ApiPermission { object, ..ApiPermission::cluster_wide("get", "", "configmaps") };
        assert_eq!(map.kubectl_args(), "get configmaps/counters -n monitoring");
        let request: serde_json::Value = serde_json::from_slice(&review_request(&map)).unwrap();
        let attributes = &request["spec"]["resourceAttributes"];
        assert_eq!(
            (&attributes["namespace"], &attributes["name"]),
            (&json!("monitoring"), &json!("counters"))
        );
    }

    #[test]
    fn review_is_parsed() {
        assert!(parse_review(br#"{"status":{"allowed":true}}"#).unwrap());
        assert!(!parse_review(br#"{"status":{"allowed":false,"reason":"no"}}"#).unwrap());
        assert_eq!(parse_review(b"{}").unwrap_err().reason, FailureReason::Garbage);
    }
}
