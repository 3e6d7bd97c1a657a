//! The containers of a pod.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The list of the pod spec that contains a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    /// `spec.containers`.
    App,
    /// `spec.initContainers`.
    Init {
        /// A sidecar (`restartPolicy: Always`): it runs as long as the pod.
        restartable: bool,
    },
    /// `spec.ephemeralContainers`.
    Ephemeral,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name, unique in the pod.
    pub name: Arc<str>,
    /// The list of the pod spec that contains it.
    pub kind: ContainerKind,
    /// Quantities of GPU resources ([`is_gpu_resource`]): the limit, or the request if there is no
    /// limit.
    pub resources: BTreeMap<Box<str>, Box<str>>,
    /// The claims it uses, by their name in the pod.
    pub claims: Vec<Box<str>>,
    /// Container ids without the prefix of the runtime: of the current run, then of the last one.
    pub ids: Vec<Arc<str>>,
    /// Whether its current run has ended (`state.terminated`).
    pub terminated: bool,
    /// Whether its status is `state.running`.
    pub running: bool,
}

impl Container {
    /// Whether its run has ended, or it is an init or ephemeral container that never ran. Only
    /// valid for a pod that is being deleted: in any other, an ended container may be restarted.
    pub(super) fn has_ended(&self) -> bool {
        self.terminated || (self.kind != ContainerKind::App && self.ids.is_empty())
    }

    /// Whether it requests a GPU resource with a quantity other than 0.
    #[must_use]
    pub fn requests_gpu(&self) -> bool {
        self.resources.values().any(|quantity| &**quantity != "0")
    }
}

/// Whether this is the name of a GPU resource.
#[must_use]
pub fn is_gpu_resource(resource: &str) -> bool {
    let domains = ["nvidia.com/", "aliyun.com/", "koordinator.sh/", "volcano.sh/"];
    domains.iter().any(|domain| resource.contains(domain))
        || resource.contains("gpu")
        || resource.contains("mig")
}
