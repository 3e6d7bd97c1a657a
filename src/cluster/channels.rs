//! The channels between the tasks that read the sources and the sampling thread.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::host::pod_logs::{LoggedContainers, LoggedPods};
use crate::kube::allocation::DraRequests;
use crate::kube::assignments::SliceKey;
use crate::kube::node_label::{LabelRequirement, NodeLabelState};
use crate::kube::pod_resources::PodResourcesState;
use crate::kube::pods::PodSnapshot;
use crate::kube::resource_claims::ResourceClaimsState;
use crate::kube::resource_claims::table::ClaimRequest;
use crate::kube::resource_slices::ResourceSlicesState;
use crate::kube::source::{HealthTracker, SourceState};

/// Receivers of the newest state of each source, and the requests for an early poll.
pub struct SourceChannels {
    /// The pods; `None` if no source of pods is configured.
    pub pods: Option<watch::Receiver<PodSnapshot>>,
    /// Health of the kubelet's Pods API while the pods are read from another source.
    pub pods_api: Option<watch::Receiver<Option<HealthTracker>>>,
    /// The kubelet's device assignments; `None` if not configured.
    pub pod_resources: Option<watch::Receiver<PodResourcesState>>,
    /// The objects of dynamic resource allocation; `None` if no API server is configured.
    pub dra: Option<DraChannels>,
    /// The node label on which NVML is released; `None` if not configured.
    pub label: Option<(LabelRequirement, watch::Receiver<NodeLabelState>)>,
    /// Names from the log directories.
    pub logs: watch::Receiver<Arc<PodLogNames>>,
    /// Health of the log directories, if there are any.
    pub logs_health: Option<watch::Receiver<Option<HealthTracker>>>,
    /// Notified when the assignments should be read early.
    pub refresh: Arc<Notify>,
    /// Notified when the log directories should be read early.
    pub refresh_logs: Arc<Notify>,
}

/// Resource slices and claims, and which of them the node needs.
pub struct DraChannels {
    /// The resource slices.
    pub slices: watch::Receiver<ResourceSlicesState>,
    /// The resource claims.
    pub claims: watch::Receiver<ResourceClaimsState>,
    /// The devices of claims.
    pub needed_devices: watch::Sender<Arc<BTreeSet<SliceKey>>>,
    /// The claims that pods use.
    pub needed_claims: watch::Sender<Arc<BTreeSet<ClaimRequest>>>,
}

impl DraChannels {
    /// Health of the sources that were used, or are to be.
    pub fn used_sources(&self) -> impl Iterator<Item = HealthTracker> {
        let health = |needed: bool, health: HealthTracker| {
            (needed || health.state != SourceState::Starting).then_some(health)
        };
        let devices = !self.needed_devices.borrow().is_empty();
        let claims = !self.needed_claims.borrow().is_empty();
        let slices = health(devices, self.slices.borrow().health.clone());
        slices.into_iter().chain(health(claims, self.claims.borrow().health.clone()))
    }

    /// Requests what the claims of the node refer to. Does nothing if that has not changed.
    pub fn request(&self, needed: &DraRequests) {
        set(&self.needed_devices, &needed.devices);
        set(&self.needed_claims, &needed.claims);
    }
}

fn set<T: Clone + PartialEq>(sender: &watch::Sender<Arc<T>>, value: &T) {
    sender.send_if_modified(|current| {
        let changed = **current != *value;
        if changed {
            *current = Arc::new(value.clone());
        }
        changed
    });
}

/// Pod and container names from the kubelet's log directories.
#[derive(Debug, Default)]
pub struct PodLogNames {
    /// From the pod log directory; `None` if it does not exist.
    pub pods: Option<LoggedPods>,
    /// From the container log directory; `None` if it does not exist.
    pub containers: Option<LoggedContainers>,
}
