//! Permissions of the client: `SelfSubjectAccessReview`, and 403 responses consistent with it.

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    cluster_servers::http::api_request::{ApiError, ApiRequest},
    scenario::cluster::Cluster,
};

/// Path of access reviews.
pub(super) const PATH: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// Largest request body, in bytes.
const MAX_REQUEST: usize = 64 << 10;

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

/// Returns the request unless the scenario denies it.
///
/// # Errors
/// The 403 error of an API server.
pub(super) fn authorize(
    request: ApiRequest,
    cluster: Option<&Cluster>,
) -> Result<ApiRequest, ApiError> {
    let Some((verb, resource)) = request.required_permission() else { return Ok(request) };
    if cluster.is_none_or(|cluster| cluster.allows(verb, resource)) {
        return Ok(request);
    }
    let text = format!(
        "{resource} is forbidden: User \"mock\" cannot {verb} resource \"{resource}\" at the cluster scope"
    );
    Err(ApiError { code: 403, reason: "Forbidden", message: text })
}

/// Evaluates an access review and returns it with its status.
///
/// # Errors
/// The body is not an access review.
pub(super) async fn evaluate(body: Incoming, cluster: Option<&Cluster>) -> Result<Value, ApiError> {
    let malformed = |text: String| ApiError { code: 400, reason: "BadRequest", message: text };
    let bytes = Limited::new(body, MAX_REQUEST).collect().await;
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
