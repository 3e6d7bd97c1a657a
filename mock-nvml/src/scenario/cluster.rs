//! The Kubernetes node of a scenario: its pods, and the devices that they are allocated.

mod fault;

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    scenario::{
        claim::{DraFormat, ResourceClaim},
        config_map::ConfigMap,
        mig::{MigForm, SchedulerMig},
        recorded::RecordedCluster,
    },
    window::Window,
};

pub(crate) use self::fault::{ClusterFault, Server, ServerFault};

/// The node and the cluster around it.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    /// Name of the node.
    pub(crate) node: String,
    pub(crate) cgroups: CgroupFormat,
    pub(crate) runtime: Runtime,
    /// Whether the API server has streaming lists.
    pub(crate) streaming_lists: bool,
    /// Version of the kubelet's Pods API; none if it has no such service.
    pub(crate) pods_api: Option<&'static str>,
    /// How the DRA driver publishes its devices.
    pub(crate) dra: DraFormat,
    /// Labels of the node, besides the standard ones.
    pub(crate) labels: Vec<NodeLabel>,
    /// Permissions that the API server denies.
    pub(crate) denied: Vec<Permission>,
    /// The `ConfigMap` objects that the API server has.
    pub(crate) config_maps: Vec<ConfigMap>,
    /// One entry per pod; `count` is expanded.
    pub(crate) pods: Vec<Pod>,
    /// The devices that the device plugins offer.
    pub(crate) allocatable: Vec<OfferedDevice>,
    /// Faults of the kubelet and the API server; the first one in force applies.
    pub(crate) faults: Vec<ClusterFault>,
    /// What its sources returned, if the scenario is a recording.
    pub(crate) recorded: RecordedCluster,
}

/// Name of the runtime class of gVisor.
const GVISOR: &str = "gvisor";

/// A label of the node.
#[derive(Clone, Debug)]
pub(crate) struct NodeLabel {
    pub(crate) key: String,
    pub(crate) value: String,
    /// Of several labels in force with the same key, the last applies.
    pub(crate) during: Window,
}

/// A permission at the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permission {
    /// For example `list`.
    pub(crate) verb: &'static str,
    /// For example `pods`.
    pub(crate) resource: &'static str,
}

impl Permission {
    /// All permissions that a scenario can deny.
    pub(crate) const ALL: [Self; 8] = [
        Self::new("list", "pods"),
        Self::new("watch", "pods"),
        Self::new("list", "nodes"),
        Self::new("watch", "nodes"),
        Self::new("list", "resourceslices"),
        Self::new("get", "resourceclaims"),
        Self::new("get", "configmaps"),
        Self::new("create", "selfsubjectaccessreviews"),
    ];

    pub(crate) const fn new(verb: &'static str, resource: &'static str) -> Self {
        Self { verb, resource }
    }
}

/// Cgroup driver and version of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CgroupFormat {
    /// The cgroup driver is systemd, not cgroupfs.
    pub(crate) systemd: bool,
    /// Cgroup v1: one hierarchy per controller.
    pub(crate) v1: bool,
}

/// Container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// containerd
    Containerd,
    /// CRI-O
    Crio,
    /// Docker through cri-dockerd.
    Docker,
}

/// Quality-of-service class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qos {
    /// All containers have equal requests and limits of CPU and memory.
    Guaranteed,
    /// Some containers have requests or limits.
    Burstable,
    /// No container has requests or limits.
    BestEffort,
}

impl Qos {
    /// Value of `status.qosClass`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    /// Name in the scenario, without the number that `count` appends.
    pub(crate) base_name: String,
    pub(crate) namespace: String,
    /// UID at the API server.
    pub(crate) uid: String,
    /// Hash of the manifest of a static pod, which the kubelet uses as its UID.
    pub(crate) config_hash: Option<String>,
    /// Annotations in the scenario.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Labels in the scenario.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) qos: Qos,
    /// `spec.runtimeClassName`
    pub(crate) runtime_class: Option<String>,
    /// Container id of its sandbox: 64 hexadecimal digits.
    pub(crate) sandbox_id: String,
    /// From creation until its containers have been removed.
    pub(crate) lifetime: Window,
    /// World time of the deletion timestamp.
    pub(crate) deletion_time: Option<f64>,
    /// World time at which its object is removed, although its processes are still alive.
    pub(crate) forced_deletion_time: Option<f64>,
    /// World time at which all containers have terminated.
    pub(crate) completion_time: Option<f64>,
    /// Whether the pod ends in phase `Failed`.
    pub(crate) failed: bool,
    /// Containers of all kinds, in the order of the scenario.
    pub(crate) containers: Vec<Container>,
}

impl Pod {
    /// The UID in its cgroup path and log file names.
    pub(crate) fn kubelet_uid(&self) -> &str {
        self.config_hash.as_deref().unwrap_or(&self.uid)
    }

    /// The longest status lag of its containers, in seconds.
    pub(crate) fn status_lag(&self) -> f64 {
        self.containers.iter().map(|container| container.status_lag).fold(0.0, f64::max)
    }

    /// Whether its processes are in the cgroup of its sandbox.
    pub(crate) fn is_sandboxed(&self) -> bool {
        self.runtime_class.as_deref() == Some(GVISOR)
    }

    pub(crate) fn containers_of_kind(
        &self,
        kind: ContainerKind,
    ) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(move |container| container.kind == kind)
    }

    /// While it exists as an object, at the API server and at the kubelet.
    pub(crate) fn object_lifetime(&self) -> Window {
        self.lifetime.until(self.forced_deletion_time)
    }

    /// While the kubelet lists it as active, and its devices are allocated: until it has completed.
    pub(crate) fn active_lifetime(&self) -> Window {
        self.object_lifetime().until(self.completion_time)
    }
}

/// The list of a pod that contains a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContainerKind {
    /// `spec.containers`
    App,
    /// `spec.initContainers`
    Init,
    /// `spec.initContainers`, with `restartPolicy: Always`.
    Sidecar,
    /// `spec.ephemeralContainers`
    Ephemeral,
}

#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) kind: ContainerKind,
    /// Its runs, each with its own container id.
    pub(crate) runs: Vec<ContainerRun>,
    /// Seconds after which a change appears in the status of the container.
    pub(crate) status_lag: f64,
    /// GPUs that it is allocated.
    pub(crate) allocation: GpuAllocation,
    /// Limits in the scenario.
    pub(crate) limits: BTreeMap<String, String>,
    /// Devices that the kubelet has allocated to it.
    pub(crate) devices: Vec<PluginDevice>,
}

impl Container {
    /// Whether the spec of its pod has it: ephemeral containers are added to a pod that exists.
    pub(crate) fn is_in_spec(&self, time: f64) -> bool {
        let first = self.runs.first().map(|run| run.during.from);
        self.kind != ContainerKind::Ephemeral || first.is_some_and(|first| first <= time)
    }
}

/// One run of a container, from start to exit; a restart begins another one.
#[derive(Clone, Debug)]
pub(crate) struct ContainerRun {
    /// Container id: 64 hexadecimal digits.
    pub(crate) id: String,
    pub(crate) during: Window,
}

/// The GPU allocation of a container, by mechanism.
#[derive(Clone, Debug)]
pub(crate) enum GpuAllocation {
    /// No GPU.
    Nothing,
    /// Whole GPUs.
    Whole(Vec<usize>),
    /// One replica of each of these GPUs, the number of replicas, and whether they are those of MPS.
    Slices(Vec<usize>, u32, bool),
    /// MIG devices: resource and UUID.
    Mig(Vec<(String, String)>),
    /// Device ids of the GKE plugin.
    Gke(Vec<String>),
    /// ACK GPU sharing, version 2: GiB and percent of each of these GPUs.
    Ack(Vec<usize>, u32, Option<u32>),
    /// ACK GPU sharing, version 1: GiB of one GPU.
    AckV1(usize, u32),
    /// `HAMi`
    Hami(Vec<GpuShare>),
    /// koordinator
    Koordinator(Vec<GpuShare>),
    /// Volcano
    Volcano(Vec<GpuShare>),
    /// MIG devices that one of these schedulers allocates.
    SchedulerMig(MigForm, Vec<SchedulerMig>),
    /// DRA: a resource claim in the namespace of the pod.
    Claim(ResourceClaim),
}

impl GpuAllocation {
    /// Its resource claim, if it has one.
    pub(crate) fn claim(&self) -> Option<&ResourceClaim> {
        let Self::Claim(claim) = self else { return None };
        Some(claim)
    }
}

/// A share of a GPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GpuShare {
    /// Index of the GPU.
    pub(crate) gpu: usize,
    /// Framebuffer in MiB.
    pub(crate) mib: u32,
    /// Percent of its compute capacity; 0 is no limit.
    pub(crate) cores: u32,
}

/// A device of a device plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PluginDevice {
    /// Resource name, for example `nvidia.com/gpu`.
    pub(crate) resource: Arc<str>,
    /// Device id.
    pub(crate) id: String,
    /// NUMA node, if the plugin reports one.
    pub(crate) numa: Option<i64>,
}

/// A device and the times at which its plugin offers it.
#[derive(Clone, Debug)]
pub(crate) struct OfferedDevice {
    pub(crate) device: PluginDevice,
    pub(crate) offered: Vec<Window>,
}

impl Cluster {
    /// Whether the device plugin shares this GPU by MPS.
    pub(crate) fn uses_mps(&self, gpu: usize) -> bool {
        let mut containers = self.pods.iter().flat_map(|pod| &pod.containers);
        containers.any(|container| {
            matches!(&container.allocation, GpuAllocation::Slices(gpus, _, true) if gpus.contains(&gpu))
        })
    }

    /// Whether the API server permits this verb on this resource.
    pub(crate) fn allows(&self, verb: &str, resource: &str) -> bool {
        !self.denied.iter().any(|right| right.verb == verb && right.resource == resource)
    }

    /// The fault of a server at `time`; the first one in the scenario applies.
    pub(crate) fn fault_at(&self, server: Server, time: f64) -> Option<ServerFault> {
        if server == Server::PodsApi && self.pods_api.is_none() {
            return Some(ServerFault::Absent);
        }
        let at = |fault: &&ClusterFault| fault.server == server && fault.during.contains(time);
        self.faults.iter().find(at).map(|fault| fault.fault)
    }

    /// Whether the kubelet knows a pod that exists: right after a restart, it does not.
    pub(crate) fn is_known_to_kubelet(&self, pod: &Pod, time: f64) -> bool {
        match self.fault_at(Server::Kubelet, time) {
            Some(ServerFault::NoPods) => false,
            Some(ServerFault::StaticPods) => pod.config_hash.is_some(),
            _ => true,
        }
    }

    /// The pods with the name `namespace/name`, or those of a `count` with that name; by name. Several
    /// pods of one name follow each other.
    pub(crate) fn pods_named(&self, name: &str) -> Vec<Vec<&Pod>> {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        let named = |own: fn(&Pod) -> &str| {
            let mut by_name = Vec::<Vec<&Pod>>::new();
            let is = |pod: &&Pod| pod.namespace == namespace && own(pod) == name;
            for pod in self.pods.iter().filter(is) {
                let same = |pods: &&mut Vec<&Pod>| pods.iter().any(|other| other.name == pod.name);
                match by_name.iter_mut().find(same) {
                    Some(pods) => pods.push(pod),
                    None => by_name.push(vec![pod]),
                }
            }
            by_name
        };
        let one = named(|pod| &pod.name);
        if one.is_empty() { named(|pod| &pod.base_name) } else { one }
    }
}
