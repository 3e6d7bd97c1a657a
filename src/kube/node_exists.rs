//! Checks whether the cluster has a node with the configured name.
//!
//! The exporter has permission to watch nodes and not to list them. A short watch is sufficient: it
//! begins with the existing objects.

use std::time::Duration;

use kube::Client;

use super::api::{get, next_chunk};
use super::json_stream::LineReader;
use super::node_event::{self, NodeEvent};
use super::node_name::NodeName;
use super::request_error::RequestError;
use crate::policy;

/// Whether the node exists. `timeout` applies to each part of the response.
///
/// # Errors
/// The request fails or the response is malformed.
pub async fn exists(
    client: &Client,
    node: &NodeName,
    timeout: Duration,
) -> Result<bool, RequestError> {
    let (name, lifetime) = (node.as_str(), policy::NODE_NAME_WATCH.as_secs());
    let path = format!(
        "/api/v1/nodes?fieldSelector=metadata.name%3D{name}&watch=true&timeoutSeconds={lifetime}"
    );
    let mut body = get(client, &path, timeout).await?;
    let mut lines = LineReader::new(policy::KUBE_OBJECT_MAX);
    while let Some(data) = next_chunk(&mut body, timeout.max(2 * policy::NODE_NAME_WATCH)).await? {
        for frame in lines.feed(&data) {
            if matches!(node_event::parse(&frame)?, NodeEvent::Applied(node) if node.name == name) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
