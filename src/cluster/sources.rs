//! Where pods and device allocations are read from.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::kube::address::Address;
use crate::kube::node_label::LabelRequirement;
use crate::kube::node_name::NodeName;
use crate::kube::pods_api::PodsApiIntervals;
use crate::kube::watch_timings::WatchTimings;
use crate::model::Problem;
use crate::policy;

/// Endpoints, files and timeouts of all cluster sources.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The API server or kubelet that lists the pods while the Pods API does not respond, and the name of
    /// this node.
    pub pods: Option<(Address, NodeName)>,
    /// Socket of the kubelet's Pods API, from which the pods are read first.
    pub pods_api: Option<PathBuf>,
    /// Socket of the kubelet's `PodResources` service.
    pub pod_resources: Option<PathBuf>,
    /// Directory of pod logs, such as `/var/log/pods`.
    pub pod_logs: PathBuf,
    /// Directory of links to container logs, such as `/var/log/containers`.
    pub container_logs: PathBuf,
    /// Node label on which NVML is released.
    pub release_label: Option<LabelRequirement>,
    /// Timeouts and retry delays of API requests.
    pub timings: WatchTimings,
    /// Intervals of the Pods API.
    pub intervals: PodsApiIntervals,
    /// Time that a source's file may take to appear before the source counts as absent.
    pub startup_timeout: Duration,
}

impl Sources {
    /// The sources of the cluster that the mock serves in the directory `environment`; none if its
    /// scenario has no cluster.
    ///
    /// # Errors
    /// The node name in that directory cannot be read or is not valid.
    pub fn from_mock_env(
        environment: &Path,
        label: Option<LabelRequirement>,
    ) -> Result<Option<Self>, Problem> {
        let socket = environment.join("pod-resources");
        if !socket.is_dir() {
            return Ok(None);
        }
        let node = fs::read_to_string(environment.join("node")).map_err(|error| {
            Problem::without_remedy(format!(
                "the node name of the mock environment cannot be read: {error}"
            ))
        })?;
        let node = NodeName::new(node.trim()).map_err(|error| error.problem())?;
        Ok(Some(Self {
            pods: Some((Address::Kubeconfig(environment.join("kubeconfig")), node)),
            pods_api: Some(environment.join("pods-api/pods-api.sock")),
            pod_resources: Some(socket.join("kubelet.sock")),
            pod_logs: environment.join("pods-log"),
            container_logs: environment.join("containers-log"),
            release_label: label,
            timings: WatchTimings { reconnect_jitter: Duration::ZERO, ..WatchTimings::default() },
            intervals: PodsApiIntervals {
                grace: policy::MOCK_PODS_API_GRACE,
                list: policy::MOCK_PODS_API_LIST_EVERY,
            },
            startup_timeout: policy::MOCK_STARTUP_TIMEOUT,
        }))
    }
}
