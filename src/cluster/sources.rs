//! Whom to ask about pods and allocations.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::kube::allocation::MemoryUnit;
use crate::kube::api::{Address, NodeName};
use crate::kube::node_label::Label;
use crate::kube::watch::Pace;
use crate::policy;

/// Whom to ask.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Who knows the pods of this node, and how the node is called.
    pub pods: Option<(Address, NodeName)>,
    /// The kubelet's socket for device assignments.
    pub pod_resources: Option<PathBuf>,
    /// A directory like `/var/log/pods`.
    pub pod_logs: PathBuf,
    /// A directory like `/var/log/containers`.
    pub container_logs: PathBuf,
    /// What a unit of ACK's GPU memory is.
    pub memory_unit: MemoryUnit,
    /// A label of the node to look out for.
    pub label: Option<Label>,
    /// How long everything may take.
    pub pace: Pace,
    /// So long a source's file may take to appear before the source counts as absent.
    pub stage_patience: Duration,
}

impl Sources {
    /// The sources of the cluster that the mock plays on a stage; none if its scenario has none.
    ///
    /// # Errors
    /// The stage does not say how its node is called.
    pub fn staged(stage: &Path, label: Option<Label>) -> anyhow::Result<Option<Self>> {
        let socket = stage.join("pod-resources");
        if !socket.is_dir() {
            return Ok(None);
        }
        let node = fs::read_to_string(stage.join("node")).context("the stage's node")?;
        Ok(Some(Self {
            pods: Some((
                Address::Kubeconfig(stage.join("kubeconfig")),
                NodeName::new(node.trim())?,
            )),
            pod_resources: Some(socket.join("kubelet.sock")),
            pod_logs: stage.join("pods-log"),
            container_logs: stage.join("containers-log"),
            memory_unit: MemoryUnit::Auto,
            label,
            pace: Pace { start: Duration::ZERO, ..Pace::default() },
            stage_patience: policy::STAGE_PATIENCE,
        }))
    }
}
