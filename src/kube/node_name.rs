//! Whether the cluster has a node of a name.
//!
//! The exporter may watch nodes and not list them, so it watches for a moment: a watch begins with
//! what there is.

use std::time::Duration;

use kube::Client;
use serde::Deserialize;

use super::api::{Fault, NodeName, chunk, get};
use super::framing::{Frame, Lines};
use super::source::Failure;
use crate::policy;

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: Object,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    metadata: Metadata,
    code: u16,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
}

/// Whether the API server knows the node; each part of the answer comes within `patience`.
///
/// # Errors
/// It cannot be asked, or does not say.
pub async fn is_known(client: &Client, node: &NodeName, patience: Duration) -> Result<bool, Fault> {
    let (name, lifetime) = (node.as_str(), policy::NODE_NAME_WATCH.as_secs());
    let path = format!(
        "/api/v1/nodes?fieldSelector=metadata.name%3D{name}&watch=true&timeoutSeconds={lifetime}"
    );
    let mut body = get(client, &path, patience).await?;
    let mut lines = Lines::new(policy::KUBE_OBJECT_MAX);
    while let Some(data) = chunk(&mut body, patience.max(2 * policy::NODE_NAME_WATCH)).await? {
        for frame in lines.feed(&data) {
            if names(&frame, name)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether a line of the watch tells of the node.
fn names(frame: &Frame, node: &str) -> Result<bool, Fault> {
    let Frame::Value(json) = frame else {
        return Err(Fault::new(Failure::TooLarge, "a node above the limit"));
    };
    let Line { kind, object } = serde_json::from_slice(json)
        .map_err(|e| Fault::new(Failure::Garbage, format!("a line about a node: {e}")))?;
    if kind == "ERROR" {
        let Object { code, message, .. } = object;
        let detail = format!("{code} {message}");
        return Err(Fault { failure: Failure::of_status(code), status: Some(code), detail });
    }
    Ok(matches!(kind.as_str(), "ADDED" | "MODIFIED") && object.metadata.name == node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_of_the_node_or_of_a_refusal() {
        let read = |json: &str| names(&Frame::Value(json.as_bytes().to_vec()), "n1");
        let line = |kind: &str, name: &str| {
            read(&format!(r#"{{"type":"{kind}","object":{{"metadata":{{"name":"{name}"}}}}}}"#))
        };
        assert!(line("ADDED", "n1").unwrap() && line("MODIFIED", "n1").unwrap());
        assert!(!line("ADDED", "n2").unwrap() && !line("DELETED", "n1").unwrap());
        let refused = read(r#"{"type":"ERROR","object":{"code":403,"message":"no"}}"#);
        assert_eq!(refused.unwrap_err().failure, Failure::Denied);
        assert_eq!(read("{").unwrap_err().failure, Failure::Garbage);
    }
}
