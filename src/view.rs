//! The human-readable view of the node: the JSON of `/api/v1/node`, and the data of the web page at `/` and
//! of `top`.
//!
//! The unit of a number is the suffix of its key. An absent number is an object with the reason,
//! `{"absent": "hung"}`, never 0.

mod absence;
mod from_snapshot;
mod pod_totals;
pub mod recent_use;
pub mod text;
mod totals;

use serde::{Deserialize, Serialize};

pub use self::absence::Absence;
pub use self::pod_totals::{Allocation, PodTotals};
use crate::model::AllocateMode;
pub use crate::model::{HealthStatus, OwnerKind};

/// The version of the JSON format, incremented for every incompatible change. A new field is compatible.
pub const VERSION: u32 = 3;

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// [`VERSION`].
    pub version: u32,
    /// The exporter's version.
    pub exporter: String,
    /// The name of the Kubernetes node; empty without a cluster.
    pub node: String,
    /// The host name.
    pub hostname: String,
    /// Start of the collection cycle, in seconds since the Unix epoch.
    pub timestamp_seconds: f64,
    /// Time between two collection cycles.
    pub interval_seconds: f64,
    /// Whether the cycle is older than the maximum age. GPUs are omitted then.
    pub stale: bool,
    /// Whether at least one GPU can be read, as in `/readyz`.
    pub ready: bool,
    /// Why `ready` is false; none if it is true.
    pub not_ready_reason: Option<String>,
    /// How it is known that the node has no NVIDIA GPU and needs no driver; none if it has one or may have one.
    #[serde(default)]
    pub no_gpu_reason: Option<String>,
    /// Problems that do not affect readiness.
    pub warnings: Vec<String>,
    /// The driver.
    pub driver: DriverView,
    /// All GPUs together.
    pub totals: NodeTotals,
    /// Each GPU that is identified.
    pub gpus: Vec<GpuView>,
    /// Each GPU that NVML counts but that cannot be identified.
    pub unidentified: Vec<UnidentifiedView>,
    /// The sources of cluster state, and other sources.
    pub sources: Vec<SourceView>,
    /// The name of the source that the pods are read from; none before the pod list is complete.
    #[serde(default)]
    pub pod_source: Option<String>,
    /// Number of threads of earlier sessions that are still blocked in a driver call.
    pub abandoned_threads: usize,
}

/// All GPUs of a node together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeTotals {
    /// The worst status of all GPUs; `unknown` if there is none.
    pub status: HealthStatus,
    /// Number of GPUs by status, worst first; without those that no GPU has.
    pub gpus_by_status: Vec<StatusCount>,
    /// Used framebuffer of the GPUs with a known one.
    pub memory_used_mib: Number,
    /// Total framebuffer of the same GPUs.
    pub memory_total_mib: Number,
    /// Number of these GPUs.
    pub memory_gpu_count: usize,
    /// Power draw of the GPUs with a known power draw and limit.
    pub power_watts: Number,
    /// Enforced power limits of the same GPUs.
    pub power_limit_watts: Number,
    /// Number of these GPUs.
    pub power_gpu_count: usize,
}

/// The number of GPUs of one status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCount {
    /// The status.
    pub status: HealthStatus,
    /// The number of GPUs.
    pub gpu_count: usize,
}

/// Why a GPU is not ok.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemView {
    /// The status that it causes.
    pub status: HealthStatus,
    /// The health watch, as in `DCGM_EXP_GPU_HEALTH_STATUS`; none if the GPU cannot be read.
    pub watch: Option<String>,
    /// The error code of the watch (`DCGM_FR_…`).
    pub code: Option<String>,
    /// What is wrong, in plain words.
    pub message: String,
    /// What to do; none if nothing has to be done.
    pub remedy: Option<String>,
    /// Whether it ends by itself, since readings are still missing.
    pub temporary: bool,
}

/// The driver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DriverView {
    /// Whether there is an NVML session.
    pub up: bool,
    /// Why there is no session, as a fixed label.
    pub reason: Option<String>,
    /// Why there is no session, as a sentence.
    pub detail: Option<String>,
    /// The driver version.
    pub version: Option<String>,
    /// The NVML version.
    pub nvml_version: Option<String>,
    /// The newest CUDA version that the driver supports.
    pub cuda_version: Option<String>,
    /// The path of the NVML library.
    pub library: Option<String>,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GpuView {
    /// NVML's index.
    pub index: u32,
    /// The UUID.
    pub uuid: String,
    /// The model name.
    pub model: String,
    /// The PCI bus ID.
    pub pci_bus_id: String,
    /// Whether the GPU can be read.
    pub readable: bool,
    /// The health of the GPU.
    pub status: HealthStatus,
    /// Why `status` is not `ok`, worst first.
    pub problems: Vec<ProblemView>,
    /// Reasons for reduced clocks that slow down work; none if unknown.
    pub throttled_by: Option<Vec<String>>,
    /// What the driver asks an operator to do to recover the GPU; none if nothing, or unknown.
    #[serde(default)]
    pub recovery_action: Option<String>,
    /// Percent of the time in which a kernel ran.
    pub utilization_percent: Number,
    /// Power draw.
    pub power_watts: Number,
    /// The enforced power limit.
    pub power_limit_watts: Number,
    /// Temperature.
    pub temperature_celsius: Number,
    /// The temperature above which clocks are reduced.
    pub temperature_limit_celsius: Number,
    /// XID errors since the exporter started.
    pub xids: Vec<XidView>,
    /// Whether MIG is on.
    pub mig: bool,
    /// Why not all MIG devices are listed; none if they are.
    pub mig_error: Option<String>,
    /// The GPU itself, or its MIG devices while MIG is on.
    pub parts: Vec<PartitionView>,
}

/// The number of occurrences of an XID error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct XidView {
    /// The XID.
    pub xid: u32,
    /// The meaning of the XID.
    pub name: String,
    /// Occurrences since the exporter started.
    pub count: u64,
}

/// A GPU, or a MIG device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionView {
    /// The MIG device; none for a GPU.
    pub mig: Option<MigView>,
    /// Percent of the time in which a kernel ran.
    pub utilization_percent: Number,
    /// Used framebuffer.
    pub memory_used_mib: Number,
    /// Total framebuffer.
    pub memory_total_mib: Number,
    /// Containers that the device is allocated to, or that use it without an allocation.
    pub containers: Vec<ContainerView>,
    /// Processes of the host, of containers without a pod, and of unknown owner.
    pub other_processes: Vec<ProcessView>,
    /// Why the processes of the device are unknown; none if they are known.
    pub process_list_error: Option<Absence>,
}

/// A MIG device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigView {
    /// The UUID.
    pub uuid: String,
    /// Profile of the GPU instance, such as `1g.10gb`.
    pub profile: String,
    /// ID of the GPU instance.
    pub gpu_instance: u32,
    /// ID of the compute instance within the GPU instance.
    pub compute_instance: u32,
}

/// Use of a device by a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerView {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// `exclusive` or `share`; `none` if the container uses the device without an allocation. None
    /// while it is unknown whether it has one.
    pub mode: Option<AllocateMode>,
    /// Allocated framebuffer; none without an allocation.
    pub memory_granted_mib: Option<Number>,
    /// Allocated fraction of the compute, 0 to 1; none if it is not limited.
    pub compute_granted_ratio: Option<Number>,
    /// Percent of the SM time that the container uses.
    pub sm_percent: Number,
    /// Framebuffer that the container uses.
    pub memory_used_mib: Number,
    /// Processes of the container on the device.
    pub processes: Vec<ProcessView>,
}

/// An entry of the driver's process list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessView {
    /// `container` (of a pod), `host`, `container_without_pod` or `unknown`.
    pub owner: OwnerKind,
    /// Why the owner is unknown.
    pub reason: Option<String>,
    /// The pid; none for a stale entry (the process has ended).
    pub pid: Option<u32>,
    /// The name (`comm`).
    pub name: String,
    /// How the process uses the GPU, in the notation of `nvidia-smi`: C, G, C+G or M.
    pub kind: String,
    /// Percent of the SM time that the process uses.
    pub sm_percent: Number,
    /// Framebuffer that the process uses.
    pub memory_used_mib: Number,
}

/// A GPU that NVML counts but that cannot be identified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnidentifiedView {
    /// NVML's index.
    pub index: u32,
    /// `lost`, `hung` or `unknown`.
    pub status: HealthStatus,
    /// Why it cannot be identified.
    pub problems: Vec<ProblemView>,
}

/// State of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceView {
    /// The name, as in the label `source`.
    pub name: String,
    /// Whether the last request succeeded.
    pub up: bool,
    /// Why the last request failed; none if it succeeded.
    pub problem: Option<String>,
    /// Time from the last contact to the start of the cycle; none before the first contact.
    pub age_seconds: Option<f64>,
    /// Failures by reason.
    pub failures: Vec<FailureView>,
}

/// The number of failures of one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureView {
    /// The reason, as a fixed label.
    pub reason: String,
    /// The number of failures.
    pub count: u64,
}

/// A number, or the reason why it is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Number {
    /// The number.
    Known(f64),
    /// The number is absent.
    Absent {
        /// The reason.
        absent: Absence,
    },
}

impl Number {
    /// The number, unless it is absent.
    #[must_use]
    pub fn known(&self) -> Option<f64> {
        match self {
            Self::Known(value) => Some(*value),
            Self::Absent { .. } => None,
        }
    }
}
