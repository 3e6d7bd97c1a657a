//! The node as people look at it: what `/api/v1/node` answers, what the page at `/` and `top` show.
//!
//! Numbers are in the units that their names end in. A number that is not known is an object that says
//! why, `{"absent": "hung"}`, and never 0.

mod of_snapshot;

use serde::{Deserialize, Serialize};

/// Which shape this is: another number for every change that a reader could stumble over. New fields are
/// none.
pub const VERSION: u32 = 1;

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// [`VERSION`].
    pub version: u32,
    /// The exporter's version.
    pub exporter: String,
    /// The Kubernetes node's name, empty where there is no cluster.
    pub node: String,
    /// The host's name.
    pub hostname: String,
    /// When the cycle began that this tells of, seconds since the Unix epoch.
    pub timestamp_seconds: f64,
    /// Whether that is so long ago that nothing is told of GPUs.
    pub stale: bool,
    /// Whether at least one GPU can be read, as `/readyz` says it.
    pub ready: bool,
    /// Why not.
    pub trouble: Option<String>,
    /// What an operator should know although scrapes are good.
    pub warnings: Vec<String>,
    /// The driver.
    pub driver: DriverView,
    /// Each GPU that is identified.
    pub gpus: Vec<GpuView>,
    /// Each GPU that is counted and cannot be identified.
    pub unidentified: Vec<UnidentifiedView>,
    /// Those who know of the cluster, and other sources.
    pub sources: Vec<SourceView>,
    /// Threads of earlier sessions that still wait for the driver.
    pub abandoned_threads: usize,
}

/// The driver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DriverView {
    /// Whether there is a session with it.
    pub up: bool,
    /// Why not, one word.
    pub reason: Option<String>,
    /// Why not, a sentence.
    pub detail: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The version of NVML.
    pub nvml_version: Option<String>,
    /// The path of its library.
    pub library: Option<String>,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GpuView {
    /// NVML's index.
    pub index: u32,
    /// Its UUID.
    pub uuid: String,
    /// Its model.
    pub model: String,
    /// Its place on the bus.
    pub pci_bus_id: String,
    /// `ok`, or why nothing can be read of it, as `lost` or `hung`.
    pub state: String,
    /// Why its clocks are lower than they could be, as far as that slows work down; none where that is
    /// not known.
    pub throttled_by: Option<Vec<String>>,
    /// Share of the time in which a kernel ran.
    pub utilization_percent: Number,
    /// Power draw.
    pub power_watts: Number,
    /// The highest limit of it that can be set.
    pub power_limit_watts: Number,
    /// Temperature.
    pub temperature_celsius: Number,
    /// The one above which clocks are lowered.
    pub temperature_limit_celsius: Number,
    /// XIDs since the exporter started.
    pub xids: Vec<XidView>,
    /// Whether MIG is on.
    pub mig: bool,
    /// Why not all of its MIG devices are here.
    pub division: Option<String>,
    /// Itself, or its MIG devices while MIG is on.
    pub parts: Vec<PartView>,
}

/// An XID, and how often it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct XidView {
    /// Which one.
    pub xid: u32,
    /// What it means.
    pub name: String,
    /// How often it came.
    pub count: u64,
}

/// A GPU as a whole, or a MIG device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartView {
    /// Which MIG device; none for a GPU as a whole.
    pub mig: Option<MigView>,
    /// Share of the time in which a kernel ran.
    pub utilization_percent: Number,
    /// Framebuffer in use.
    pub memory_used_mib: Number,
    /// All of it.
    pub memory_total_mib: Number,
    /// Containers that it was given to, or that use it all the same.
    pub containers: Vec<ContainerView>,
    /// Processes of no container of a pod, and those of which it is not known whose they are.
    pub others: Vec<ProcessView>,
    /// Why nobody knows who is on it.
    pub unlisted: Option<String>,
}

/// A MIG device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigView {
    /// Its UUID.
    pub uuid: String,
    /// Profile of its GPU instance, as `1g.10gb`.
    pub profile: String,
    /// The GPU instance.
    pub gpu_instance: u32,
    /// The compute instance in it.
    pub compute_instance: u32,
}

/// A container on a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerView {
    /// Namespace of its pod.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its name.
    pub container: String,
    /// `exclusive` or `share`; `none`, where it uses what it was not given.
    pub mode: String,
    /// Framebuffer that it was given; none where it was given nothing.
    pub memory_granted_mib: Option<Number>,
    /// Share of the compute that it was given, 0 to 1, where that is limited.
    pub compute_granted_ratio: Option<Number>,
    /// Share of the SMs' time that it uses.
    pub sm_percent: Number,
    /// Framebuffer that it holds.
    pub memory_used_mib: Number,
    /// Its processes on the part.
    pub processes: Vec<ProcessView>,
}

/// Something that the driver lists on a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessView {
    /// `container`, `host`, `stray` (a container of no pod) or `unknown`.
    pub whose: String,
    /// Why it is not known whose it is.
    pub reason: Option<String>,
    /// Its process id; none for what is no process any more.
    pub pid: Option<u32>,
    /// Its name.
    pub name: String,
    /// How it uses the GPU, as `nvidia-smi` writes it: C, G, C+G or M.
    pub kind: String,
    /// Share of the SMs' time that it uses.
    pub sm_percent: Number,
    /// Framebuffer that it holds.
    pub memory_used_mib: Number,
}

/// A GPU that is counted and cannot be identified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnidentifiedView {
    /// NVML's index.
    pub index: u32,
    /// Why.
    pub reason: String,
}

/// A source of what is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceView {
    /// Its name.
    pub name: String,
    /// It answered the last question.
    pub up: bool,
    /// How old its last word was when the cycle began.
    pub age_seconds: Option<f64>,
    /// Failures by reason.
    pub failures: Vec<FailureView>,
}

/// How often something failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureView {
    /// Why.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// A number, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Number {
    /// It.
    Known(f64),
    /// Why there is none.
    Absent {
        /// One word.
        absent: String,
    },
}

impl Number {
    /// The number, if there is one.
    #[must_use]
    pub fn known(&self) -> Option<f64> {
        match self {
            Self::Known(value) => Some(*value),
            Self::Absent { .. } => None,
        }
    }
}
