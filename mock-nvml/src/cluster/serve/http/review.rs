//! What whoever asks may do: `SelfSubjectAccessReview`, and refusals that agree with it.

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{Ask, Refusal};
use crate::scenario::cluster::Cluster;

/// Where reviews are asked for.
pub(super) const PATH: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// The longest question.
const MOST: usize = 64 << 10;

#[derive(Deserialize)]
struct Review {
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    resource_attributes: Attributes,
}

#[derive(Deserialize)]
struct Attributes {
    verb: String,
    resource: String,
}

/// Lets a request pass that the scenario does not deny.
///
/// # Errors
/// As an API server refuses it.
pub(super) fn permitted(ask: Ask, cluster: Option<&Cluster>) -> Result<Ask, Refusal> {
    let Some((verb, resource)) = ask.right() else { return Ok(ask) };
    if cluster.is_none_or(|cluster| cluster.allows(verb, resource)) {
        return Ok(ask);
    }
    let said = format!(
        "{resource} is forbidden: User \"mock\" cannot {verb} resource \"{resource}\" at the cluster scope"
    );
    Err(Refusal { code: 403, reason: "Forbidden", said })
}

/// Answers a review.
///
/// # Errors
/// It is none.
pub(super) async fn answer(body: Incoming, cluster: Option<&Cluster>) -> Result<Value, Refusal> {
    let malformed = |said: String| Refusal { code: 400, reason: "BadRequest", said };
    let bytes = Limited::new(body, MOST).collect().await;
    let bytes = bytes.map_err(|error| malformed(error.to_string()))?.to_bytes();
    let review: Review =
        serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    let Attributes { verb, resource } = review.spec.resource_attributes;
    let allowed = cluster.is_none_or(|cluster| cluster.allows(&verb, &resource));
    Ok(json!({
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": { "resourceAttributes": { "verb": verb, "resource": resource } },
        "status": { "allowed": allowed },
    }))
}
