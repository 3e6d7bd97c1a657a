//! The channels between the tasks that read the sources and the sampling thread.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::host::pod_logs::{LoggedContainers, LoggedPods};
use crate::kube::node_label::{LabelRequirement, NodeLabelState};
use crate::kube::pod_resources::PodResourcesState;
use crate::kube::pods::PodSnapshot;
use crate::kube::resource_slices::ResourceSlicesState;

/// Receivers of the newest state of each source, and the requests for an early poll.
pub struct SourceChannels {
    /// The pods; `None` if no source of pods is configured.
    pub pods: Option<watch::Receiver<PodSnapshot>>,
    /// The kubelet's device assignments; `None` if not configured.
    pub pod_resources: Option<watch::Receiver<PodResourcesState>>,
    /// The resource slices; `None` if no source of pods is configured.
    pub slices: Option<watch::Receiver<ResourceSlicesState>>,
    /// The node label on which NVML is released; `None` if not configured.
    pub label: Option<(LabelRequirement, watch::Receiver<NodeLabelState>)>,
    /// Names from the log directories.
    pub logs: watch::Receiver<Arc<PodLogNames>>,
    /// Notified when the assignments should be read early.
    pub refresh: Arc<Notify>,
    /// Notified when the log directories should be read early.
    pub refresh_logs: Arc<Notify>,
    /// Notified when the resource slices should be read early.
    pub refresh_slices: Arc<Notify>,
}

/// Pod and container names from the kubelet's log directories.
#[derive(Debug, Default)]
pub struct PodLogNames {
    /// From the pod log directory; `None` if it does not exist.
    pub pods: Option<LoggedPods>,
    /// From the container log directory; `None` if it does not exist.
    pub containers: Option<LoggedContainers>,
}
