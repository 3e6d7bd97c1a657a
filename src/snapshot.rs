//! The immutable, labelled result of a collection cycle, which is published.

pub mod device_usage;
mod gpu_verdict;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use self::device_usage::DeviceUsage;
pub use self::gpu_verdict::{GpuProblem, GpuVerdict};
use crate::host::own_process::OwnProcessStats;
use crate::labels::Labels;
use crate::model::{
    AllocatedFraction, ContainerAllocation, Discards, DownReason, Gpu, HealthState, Missing,
    Moment, OwnerEvidence, OwnerKind, Reading, Unresolved, Usage, XidState, ZeroDoubt,
};
use crate::sample::DriverState;
use crate::sample::unlisted_use::UnlistedUse;
use crate::sanitize::printable;
use crate::selection::Selection;

/// The state of the node in one collection cycle.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Start of the cycle.
    pub at: Moment,
    /// The names of the node.
    pub identity: NodeIdentity,
    /// The families that the readings belong to, in order.
    pub selection: Arc<Selection>,
    /// Readings of the node, one per family: a single entity, or one per GPU in a dialect that repeats
    /// them.
    pub nodes: Vec<Entity>,
    /// The series of devices, containers and processes.
    pub tables: Tables,
    /// Containers and processes of each GPU, in the order of [`ExporterHealth::gpus`].
    pub device_usages: Vec<DeviceUsage>,
    /// State of the exporter, the driver and the sources.
    pub health: ExporterHealth,
}

impl Snapshot {
    /// Number of series of processes, if each has a value of each selected family.
    #[must_use]
    pub fn process_series(&self) -> u64 {
        let Tables { processes, illegal, .. } = &self.tables;
        let selected = (self.selection.process.families(), self.selection.illegal.families());
        (processes.len() * selected.0.len() + illegal.len() * selected.1.len()) as u64
    }

    /// Whether there are more series of processes than the limit for a warning.
    #[must_use]
    pub fn has_many_process_series(&self) -> bool {
        self.health.process_series_max.is_some_and(|max| self.process_series() > max)
    }
}

/// The names of the node.
#[derive(Clone, Debug, Default)]
pub struct NodeIdentity {
    /// The name of the Kubernetes node; empty without a cluster.
    pub node_name: String,
    /// The host name.
    pub hostname: String,
    /// Label of the exporter's own series: name and value.
    pub exporter_label: Option<(&'static str, String)>,
}

/// The series of devices, containers and processes.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Readings of each GPU, one per family of the device slice.
    pub devices: Vec<Entity>,
    /// Series of the events of each GPU.
    pub events: Vec<Series>,
    /// Readings of each GPU, or of its GPU instances while MIG is on, one per family of the instance
    /// slice.
    pub instances: Vec<Entity>,
    /// The allocated fraction of each GPU, or of its GPU instances while MIG is on.
    pub allocated: Vec<(Labels, AllocatedFraction)>,
    /// The allocation of each container on each device.
    pub containers: Vec<(Labels, ContainerAllocation)>,
    /// Activity of each container that alone holds a device, one reading per family of the activity
    /// slice.
    pub activity: Vec<Entity>,
    /// Usage of each process on each device, or of each container on each device.
    pub processes: Vec<(Labels, Usage)>,
    /// Usage of processes on devices that are not allocated to them.
    pub illegal: Vec<(Labels, Usage)>,
    /// Accumulated usage.
    pub accumulated: Vec<Series>,
}

/// A label set with one reading for each selected family of a slice of the catalog.
#[derive(Clone, Debug)]
pub struct Entity {
    /// The label set.
    pub labels: Labels,
    /// The readings, in the order of the families.
    pub readings: Vec<Reading>,
}

/// One reading of one family.
#[derive(Clone, Debug)]
pub struct Series {
    /// Index among the selected families of a slice of the catalog.
    pub family: usize,
    /// The label set.
    pub labels: Labels,
    /// The reading.
    pub reading: Reading,
}

/// State of the exporter, the driver, the GPUs and the sources.
#[derive(Clone, Debug, Default)]
pub struct ExporterHealth {
    /// The NVML session, or why there is none.
    pub driver: DriverState,
    /// Duration of the last reads on the driver's worker thread.
    pub driver_request_duration: Option<Duration>,
    /// Time between two cycles; set by the pipeline.
    pub interval: Duration,
    /// Duration of the cycle.
    pub cycle_duration: Duration,
    /// Number of cycles since start.
    pub cycles: u64,
    /// Each identified GPU.
    pub gpus: Vec<GpuHealth>,
    /// GPUs that NVML counts but that cannot be identified, and why, by index.
    pub unidentified: BTreeMap<u32, Missing>,
    /// Failed attempts to open the driver, by reason.
    pub open_failures: BTreeMap<&'static str, u64>,
    /// Threads of earlier sessions that are still blocked in a driver call.
    pub abandoned_threads: usize,
    /// Attribution of processes to owners.
    pub attribution: AttributionStats,
    /// Whether the exporter runs in the host's PID namespace; none if unknown.
    pub host_pid_namespace: Option<bool>,
    /// The sources (kubelet, API server, …).
    pub sources: Vec<SourceHealth>,
    /// Number of pods on this node; none before the pod list is complete.
    pub pod_count: Option<u64>,
    /// The source that the pods are read from; none before the pod list is complete.
    pub pod_source: Option<&'static str>,
    /// Number of process series above which there is a warning; none without such a limit.
    pub process_series_max: Option<u64>,
    /// Number of allocations that could not be parsed, by reason.
    pub allocation_problems: BTreeMap<&'static str, u64>,
    /// Pod labels that the series of their devices do not have, by reason.
    pub dropped_pod_labels: BTreeMap<&'static str, u64>,
    /// The exporter's own process, if it can be read.
    pub process: Option<OwnProcessStats>,
    /// Number of rejected connections and requests, by reason.
    pub rejections: Vec<(&'static str, u64)>,
}

/// State of a source.
#[derive(Clone, Debug)]
pub struct SourceHealth {
    /// The name, as in the label `source`.
    pub name: &'static str,
    /// Whether the last request succeeded.
    pub up: bool,
    /// Whether the next request would have the same result.
    pub settled: bool,
    /// Why the last request failed, in plain words.
    pub problem: Option<Arc<str>>,
    /// Time since the last contact; none before the first.
    pub age: Option<Duration>,
    /// Number of failures by reason.
    pub failures: Vec<(&'static str, u64)>,
    /// Number of skipped objects by reason.
    pub skipped: Vec<(&'static str, u64)>,
}

/// Results of the attribution of processes and framebuffer to owners.
#[derive(Clone, Debug, Default)]
pub struct AttributionStats {
    /// Number of processes with a known owner, by evidence and owner class.
    pub attributed: BTreeMap<(OwnerEvidence, OwnerKind), u64>,
    /// Number of processes without series, by reason.
    pub unresolved: BTreeMap<Unresolved, u64>,
    /// Number of containers on devices that have no process and no 0, by reason.
    pub withheld_zeros: BTreeMap<ZeroDoubt, u64>,
    /// Framebuffer by owner class, of each GPU or GPU instance.
    pub framebuffer: Vec<FramebufferBalance>,
}

impl AttributionStats {
    /// Whether newer data of the cluster may resolve a process.
    #[must_use]
    pub fn may_resolve(&self) -> bool {
        self.unresolved.keys().any(|reason| *reason != Unresolved::MpsServer)
    }
}

/// Framebuffer of a GPU or a GPU instance, by owner class.
#[derive(Clone, Debug)]
pub struct FramebufferBalance {
    /// Index of the GPU.
    pub gpu_index: u32,
    /// UUID of the GPU.
    pub uuid: Arc<str>,
    /// ID of the GPU instance; none while MIG is off.
    pub gpu_instance: Option<u32>,
    /// Bytes by owner class; the sum is the used framebuffer.
    pub bytes_by_owner: [(&'static str, i64); 5],
}

/// State of one GPU.
#[derive(Clone, Debug)]
pub struct GpuHealth {
    /// The GPU.
    pub gpu: Arc<Gpu>,
    /// Whether it can be read, or why not.
    pub state: Result<(), Missing>,
    /// Whether the last read finished in time.
    pub responded: bool,
    /// Start of the last read that finished.
    pub sampled_at: Moment,
    /// Duration of the last read that finished.
    pub request_duration: Option<Duration>,
    /// Number of absent readings of the GPU and its processes, by [`Missing::position`].
    pub missing: [u64; Missing::REASONS.len()],
    /// Number of rows that were dropped as invalid, by reason.
    pub discards: Discards,
    /// Offset of the driver's clock from the wall clock, seconds, if known.
    pub driver_clock_offset: Option<f64>,
    /// Whether the GPU was busy in the last windows, and none of their utilization rows was valid.
    pub refuses_all_rows: bool,
    /// Use of the GPU or one of its MIG devices that no listed process accounts for.
    pub unlisted_use: Option<UnlistedUse>,
    /// XID errors.
    pub xids: XidState,
    /// Health readings and their changes.
    pub health: Result<Arc<HealthState>, Missing>,
    /// Readings, one per family of the device slice, even if the GPU itself has no series.
    pub readings: Vec<Reading>,
}

impl Snapshot {
    /// A copy of a stale snapshot that is left to publish: state of the exporter, without any reading of a
    /// GPU.
    #[must_use]
    pub fn without_gpu_data(&self) -> Self {
        let mut snapshot = self.clone();
        snapshot.tables = Tables::default();
        snapshot.health.attribution = AttributionStats::default();
        snapshot.nodes.clear();
        snapshot.device_usages.clear();
        snapshot
    }

    /// Whether the driver is up and at least one GPU can be read. A node without GPUs is ready, with or
    /// without a driver.
    ///
    /// # Errors
    /// Why not, as human-readable text.
    pub fn ready(&self) -> Result<(), String> {
        match &self.health.driver {
            driver if driver.no_gpu().is_some() => return Ok(()),
            DriverState::Down(down) => {
                let reason = format!("driver down ({}): {}", down.reason(), down.problem());
                // It may contain a path of the configuration.
                return Err(printable(&reason).into_owned());
            }
            DriverState::Up(_) => {}
        }
        let (gpus, unidentified) = (&self.health.gpus, &self.health.unidentified);
        let no_gpus = gpus.is_empty() && unidentified.is_empty();
        if no_gpus || gpus.iter().any(|gpu| gpu.state.is_ok()) {
            return Ok(());
        }
        let verdicts = self.gpu_verdicts();
        let sentences = verdicts.values().map(GpuVerdict::sentence);
        Err(sentences.collect::<Vec<_>>().join("\n"))
    }

    /// Number of GPUs that can be read, and of all that NVML counts.
    #[must_use]
    pub fn readable_gpus(&self) -> (usize, usize) {
        let (gpus, unidentified) = (&self.health.gpus, &self.health.unidentified);
        let readable = gpus.iter().filter(|gpu| gpu.state.is_ok()).count();
        (readable, gpus.len() + unidentified.len())
    }
}

impl Snapshot {
    /// Whether the driver is being opened, or no GPU has been read yet. It ends soon: what hangs is
    /// reported as such.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        let pending = Some(Missing::Pending);
        match &self.health.driver {
            DriverState::Down(down) => down.reason() == DownReason::Starting,
            DriverState::Up(_) => {
                let gpus = self.health.gpus.iter().map(|gpu| gpu.state.err());
                let unidentified = self.health.unidentified.values().map(|why| Some(*why));
                let mut states = gpus.chain(unidentified).peekable();
                states.peek().is_some() && states.all(|why| why == pending)
            }
        }
    }

    /// Problems that do not affect readiness, as human-readable text.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.health.host_pid_namespace == Some(false) {
            warnings.push(HIDDEN_PROCESSES.to_owned());
        }
        let refusing = self.health.gpus.iter().filter(|gpu| gpu.refuses_all_rows);
        warnings.extend(refusing.map(|gpu| format!("GPU {}: {REFUSED_ROWS}", gpu.gpu.index)));
        let limited = |gpu: &&GpuHealth| gpu.missing.get(Missing::Limited.position()) > Some(&0);
        let limited = self.health.gpus.iter().filter(limited);
        warnings.extend(limited.map(|gpu| format!("GPU {}: {LIMITED_MEMORY}", gpu.gpu.index)));
        let down = self.health.sources.iter().filter(|source| !source.up);
        warnings.extend(down.map(|source| {
            let problem = source.problem.as_deref().unwrap_or(match source.age {
                Some(_) => "no response",
                None => "no response yet",
            });
            let cached = source.age.map_or_else(String::new, |age| {
                format!("; using data from {} s ago", age.as_secs())
            });
            format!("{}: {problem}{cached}", source.name)
        }));
        warnings
    }
}

/// The warning if the exporter does not run in the host's PID namespace.
pub const HIDDEN_PROCESSES: &str = "not in the host's PID namespace: the driver hides processes, so no \
     container is reported idle; set hostPID: true";

/// The warning if the driver limits the memory of the exporter's cgroup or of one above it, or if that is unknown.
pub const LIMITED_MEMORY: &str = "the driver limits the memory of the exporter's cgroup, or does not report \
     whether it does, and would report that limit as the memory of the GPU: its framebuffer is absent; remove \
     the limits of this cgroup and of those above it, and mount the node's /sys/fs/cgroup in the exporter's \
     container";

/// The warning if a GPU is busy and no row of its processes is valid.
pub const REFUSED_ROWS: &str = "busy, but the driver returns no valid utilization row of a process: the \
     utilization of its processes is absent; see nvml_exporter_discarded_rows_total";
