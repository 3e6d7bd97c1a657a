//! What a scenario says of the Kubernetes node around the GPUs: its pods, and what they hold.

use std::{collections::BTreeMap, sync::Arc};

use super::Window;

/// The node as the cluster knows it.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    /// Its name.
    pub(crate) node: String,
    /// How the kubelet names cgroups.
    pub(crate) cgroups: Cgroups,
    /// What runs its containers.
    pub(crate) runtime: Runtime,
    /// Whether the API server has streaming lists.
    pub(crate) streaming_lists: bool,
    /// Labels that the scenario gives the node.
    pub(crate) labels: Vec<NodeLabel>,
    /// What its users may not do.
    pub(crate) denied: Vec<Right>,
    /// The pods, clones written out.
    pub(crate) pods: Vec<Pod>,
    /// What device plugins offer to pods.
    pub(crate) allocatable: Vec<Offer>,
    /// What goes wrong with its servers.
    pub(crate) faults: Vec<ClusterFault>,
}

/// A label that the node has for a time.
#[derive(Clone, Debug)]
pub(crate) struct NodeLabel {
    /// Its key.
    pub(crate) key: String,
    /// Its value.
    pub(crate) value: String,
    /// When the node has it; of several with one key the last counts.
    pub(crate) during: Window,
}

/// Something that the API server lets its users do, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Right {
    /// Such as `list`.
    pub(crate) verb: &'static str,
    /// Such as `pods`.
    pub(crate) resource: &'static str,
}

impl Right {
    /// Everything that can be denied.
    pub(crate) const ALL: [Self; 7] = [
        Self::of("list", "pods"),
        Self::of("watch", "pods"),
        Self::of("list", "nodes"),
        Self::of("watch", "nodes"),
        Self::of("list", "resourceslices"),
        Self::of("get", "configmaps"),
        Self::of("create", "selfsubjectaccessreviews"),
    ];

    /// A right by its words.
    pub(crate) const fn of(verb: &'static str, resource: &'static str) -> Self {
        Self { verb, resource }
    }
}

/// How the kubelet names cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cgroups {
    /// The driver is systemd, not cgroupfs.
    pub(crate) systemd: bool,
    /// Each controller of version 1 has a hierarchy of its own.
    pub(crate) v1: bool,
}

/// What runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// containerd
    Containerd,
    /// CRI-O
    Crio,
    /// Docker through cri-dockerd.
    Docker,
}

/// Quality of service of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qos {
    /// All containers have equal requests and limits of CPU and memory.
    Guaranteed,
    /// Some have some.
    Burstable,
    /// None has any.
    BestEffort,
}

impl Qos {
    /// As the API writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// One pod.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    /// Its name.
    pub(crate) name: String,
    /// The name that the scenario gives it: of all clones alike.
    pub(crate) family: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its UID, as the API server says it.
    pub(crate) uid: String,
    /// Hash of its manifest if it is a static pod: its UID as the kubelet says it.
    pub(crate) config_hash: Option<String>,
    /// Annotations that the scenario gives it.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Labels that the scenario gives it.
    pub(crate) labels: BTreeMap<String, String>,
    /// Quality of service.
    pub(crate) qos: Qos,
    /// From its creation to its removal.
    pub(crate) life: Window,
    /// When it is told to go.
    pub(crate) deleting: Option<f64>,
    /// When its containers have all done their work.
    pub(crate) completed: Option<f64>,
    /// Whether that was a failure.
    pub(crate) failed: bool,
    /// Its containers of all kinds, in the scenario's order.
    pub(crate) containers: Vec<Container>,
}

impl Pod {
    /// The UID in its cgroup and in the names of its logs.
    pub(crate) fn kubelet_uid(&self) -> &str {
        self.config_hash.as_deref().unwrap_or(&self.uid)
    }

    /// The containers of one kind.
    pub(crate) fn of_kind(&self, kind: ContainerKind) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(move |container| container.kind == kind)
    }

    /// Whether the kubelet takes it for active: there, and not at its end.
    pub(crate) fn is_active(&self, time: f64) -> bool {
        self.life.contains(time) && self.completed.is_none_or(|end| time < end)
    }
}

/// Where in a pod a container stands.
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

/// One container.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    /// Its name.
    pub(crate) name: String,
    /// Its kind.
    pub(crate) kind: ContainerKind,
    /// Its runs, each with an id of its own.
    pub(crate) runs: Vec<Run>,
    /// How many seconds after the fact its status says so.
    pub(crate) lag: f64,
    /// What it holds of GPUs.
    pub(crate) holding: Holding,
    /// Limits that the scenario gives it.
    pub(crate) limits: BTreeMap<String, String>,
    /// Devices as the kubelet has given them to it.
    pub(crate) devices: Vec<Device>,
}

/// One run of a container: a restart makes another.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Container id: 64 hexadecimal digits.
    pub(crate) id: String,
    /// When it runs.
    pub(crate) during: Window,
}

/// What a container holds, and how that was given.
#[derive(Clone, Debug)]
pub(crate) enum Holding {
    /// Nothing.
    Nothing,
    /// Whole GPUs.
    Whole(Vec<usize>),
    /// One of so many replicas of each of these GPUs.
    Slices(Vec<usize>, u32),
    /// MIG devices: resources and UUIDs.
    Mig(Vec<(String, String)>),
    /// Devices as GKE names them.
    Gke(Vec<String>),
    /// ACK share, version 2: GiB and percent of each of these GPUs.
    Ack(Vec<usize>, u32, Option<u32>),
    /// ACK share, version 1: GiB of one GPU.
    AckV1(usize, u32),
    /// `HAMi`
    Hami(Vec<Share>),
    /// koordinator
    Koordinator(Vec<Share>),
    /// Volcano
    Volcano(Vec<Share>),
    /// Devices by a claim of this name in the pod's namespace: dynamic allocation.
    Claimed(String, Vec<Claimed>),
}

impl Holding {
    /// The claim that it is given by, and the devices of that.
    pub(crate) fn claim(&self) -> Option<(&str, &[Claimed])> {
        let Self::Claimed(claim, devices) = self else { return None };
        Some((claim, devices))
    }
}

/// A device of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    /// The GPU, where it is a whole one.
    pub(crate) whole: Option<usize>,
    /// As the driver names it in the node's pool.
    pub(crate) name: String,
}

/// A part of a GPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// The GPU's index.
    pub(crate) gpu: usize,
    /// Framebuffer.
    pub(crate) mib: u32,
    /// Percent of its SM; 0 is no limit.
    pub(crate) cores: u32,
}

/// A device of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// The resource, such as `nvidia.com/gpu`.
    pub(crate) resource: Arc<str>,
    /// Its id.
    pub(crate) id: String,
    /// The NUMA node, where the plugin tells.
    pub(crate) numa: Option<i64>,
}

/// A device that a plugin offers while it is there.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    /// The device.
    pub(crate) device: Device,
    /// When.
    pub(crate) there: Vec<Window>,
}

/// One of the cluster's servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The kubelet's `PodResources` socket.
    Kubelet,
    /// The API server.
    Api,
}

/// What goes wrong with a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trouble {
    /// It is not there: no socket, no kubeconfig.
    Absent,
    /// Nobody listens.
    Refuse,
    /// It takes requests and does not answer.
    Hang,
    /// What it answers makes no sense.
    Garbage,
    /// It forbids.
    Denied,
    /// It wants to be asked less often.
    Throttled,
    /// The history of its objects is gone.
    Expired,
    /// The kubelet lists no pods, as right after it was restarted.
    NoPods,
    /// The kubelet lists static pods only, as after a restart until the API server answers it.
    StaticPods,
    /// It closes connections.
    Close,
    /// It answers so many seconds late.
    Slow(f64),
}

/// A time in which something is wrong with a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClusterFault {
    /// Which.
    pub(crate) server: Server,
    /// What.
    pub(crate) trouble: Trouble,
    /// When.
    pub(crate) during: Window,
}

impl Cluster {
    /// Whether its users may do this.
    pub(crate) fn allows(&self, verb: &str, resource: &str) -> bool {
        !self.denied.iter().any(|right| right.verb == verb && right.resource == resource)
    }

    /// What is wrong with a server at `time`; the scenario's first fault counts.
    pub(crate) fn trouble(&self, server: Server, time: f64) -> Option<Trouble> {
        let at = |fault: &&ClusterFault| fault.server == server && fault.during.contains(time);
        self.faults.iter().find(at).map(|fault| fault.trouble)
    }

    /// Whether the kubelet lists a pod.
    pub(crate) fn lists(&self, pod: &Pod, time: f64) -> bool {
        let by_restart = match self.trouble(Server::Kubelet, time) {
            Some(Trouble::NoPods) => false,
            Some(Trouble::StaticPods) => pod.config_hash.is_some(),
            _ => true,
        };
        by_restart && pod.is_active(time)
    }

    /// The pods that are meant by `namespace/name`: one by its own name, or all clones.
    pub(crate) fn meant(&self, said: &str) -> Vec<&Pod> {
        let (namespace, name) = said.split_once('/').unwrap_or(("default", said));
        let named = |own: fn(&Pod) -> &str| {
            let is = move |pod: &&Pod| pod.namespace == namespace && own(pod) == name;
            self.pods.iter().filter(is).collect::<Vec<_>>()
        };
        let one = named(|pod| &pod.name);
        if one.is_empty() { named(|pod| &pod.family) } else { one }
    }
}
