//! Whether the cluster has a node of a name.
//!
//! The exporter may watch nodes and not list them, so it watches for a moment: a watch begins with
//! what there is.

use std::time::Duration;

use kube::Client;

use super::api::{Fault, NodeName, chunk, get};
use super::framing::Lines;
use super::node::{self, News};
use crate::policy;

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
            if matches!(node::read(&frame)?, News::Is(node) if node.name == name) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
