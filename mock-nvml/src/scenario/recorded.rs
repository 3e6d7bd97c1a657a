//! What the sources of a recorded cluster returned.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Objects and allocations of a recorded cluster, in place of pods of the scenario.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordedCluster {
    /// Objects of the API server: `Pod`, `ResourceSlice`, `ResourceClaim`.
    pub(crate) objects: Vec<Value>,
    /// The pods that the kubelet's `PodResources` service lists.
    pub(crate) listed: Vec<ListedPod>,
    /// The device ids that device plugins offer, by resource.
    pub(crate) allocatable: BTreeMap<String, Vec<String>>,
    /// Containers in the log directories.
    pub(crate) logs: Vec<LoggedContainer>,
}

/// A container in the log directories.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoggedContainer {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    /// UID of the pod, if the pod log directory has it.
    pub(crate) uid: Option<String>,
    /// Id of the container, if the container log directory has a link to its log.
    pub(crate) id: Option<String>,
}

/// A pod in the list of the kubelet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListedPod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The containers with devices.
    #[serde(default)]
    pub(crate) containers: Vec<ListedContainer>,
}

/// A container in the list of the kubelet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListedContainer {
    pub(crate) name: String,
    /// Device ids by resource.
    #[serde(default)]
    pub(crate) devices: Vec<(String, Vec<String>)>,
    #[serde(default)]
    pub(crate) claims: Vec<ListedClaim>,
}

/// A device of a resource claim in the list of the kubelet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListedClaim {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) pool: String,
    pub(crate) device: String,
    pub(crate) share: Option<String>,
}

impl RecordedCluster {
    /// The objects of a kind.
    pub(crate) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object.get("kind").is_some_and(|is| is == kind))
    }
}
