//! Metrics of the exporter itself.

use super::Kind::{self, Counter, Gauge};

/// A metric family of the exporter itself.
pub struct ExporterMetric {
    /// Identifies the family in `telemetry`.
    pub id: ExporterMetricId,
    /// Name of the family.
    pub name: &'static str,
    /// Gauge or counter.
    pub kind: Kind,
    /// Label names, in order.
    pub labels: &'static [&'static str],
    /// HELP text, one line.
    pub help: &'static str,
}

/// The families of the exporter itself; `telemetry` computes their samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExporterMetricId {
    /// Constant 1.
    BuildInfo,
    /// Whether an NVML session is open.
    DriverUp,
    /// Whether the node has no NVIDIA GPU.
    NodeWithoutGpu,
    /// Versions of the driver and NVML; absent while the driver is down.
    DriverInfo,
    /// Whether NVML is released on request.
    Released,
    /// Failed attempts to open a session.
    DriverOpenFailures,
    /// Time of the snapshot.
    SnapshotTimestamp,
    /// Duration of the last collection cycle.
    CycleDuration,
    /// Collection cycles since the exporter started.
    Cycles,
    /// Whether the last request to a source succeeded.
    SourceUp,
    /// Duration of the last successful request to a source.
    SourceDuration,
    /// Whether a GPU can be read.
    GpuUp,
    /// Number of missing readings, by reason.
    GpuMissing,
    /// Time of the last sample of a GPU.
    GpuTimestamp,
    /// Number of discarded rows, by reason.
    Discarded,
    /// GPUs that cannot be identified.
    GpuUnidentified,
    /// Threads that wait for a driver call of a closed session.
    ThreadsAbandoned,
    /// Number of series of processes.
    ProcessSeries,
    /// The limit of that number.
    ProcessSeriesMax,
    /// Number of rejected connections and requests, by reason.
    HttpRejected,
    /// Number of XID errors, by GPU and code.
    XidEvents,
    /// Whether the exporter runs in the host's PID namespace.
    HostPidNamespace,
    /// Number of processes with a known owner, by source and kind of owner.
    Attributed,
    /// Number of processes without a known owner, by reason.
    Unresolved,
    /// Number of containers without a process and without a 0, by reason.
    WithheldZeros,
    /// Offset of the driver's clock of a GPU.
    DriverClockOffset,
    /// Use of a GPU that no listed process accounts for.
    UnlistedUse,
    /// Framebuffer memory by owner.
    Framebuffer,
    /// Time of the last contact with a cluster source.
    SourceContact,
    /// Number of failed requests to a cluster source, by reason.
    SourceFailures,
    /// Number of objects of a cluster source that were skipped, by reason.
    SourceSkipped,
    /// Number of pods of the node.
    Pods,
    /// The source of pods in use.
    PodSource,
    /// Number of invalid allocations, by reason.
    AllocationProblems,
    /// Labels of pods that series do not have, and why.
    DroppedPodLabels,
    /// A resource of the exporter's own process.
    Process(ProcessMetric),
}

/// A resource of the exporter's own process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessMetric {
    /// CPU time.
    CpuTime,
    /// Resident memory.
    ResidentMemory,
    /// Virtual memory.
    VirtualMemory,
    /// Start time.
    StartTime,
    /// Open file descriptors.
    OpenFiles,
    /// Maximum number of open file descriptors.
    MaxFiles,
}

/// All families of the exporter itself, in the order of the exposition.
pub const EXPORTER_METRICS: &[ExporterMetric] = &[
    ExporterMetric {
        id: ExporterMetricId::BuildInfo,
        name: "nvml_exporter_build_info",
        kind: Gauge,
        labels: &["version", "revision", "features"],
        help: "Constant 1, labelled with the exporter's version, the revision of its source and its optional features.",
    },
    ExporterMetric {
        id: ExporterMetricId::DriverUp,
        name: "nvml_exporter_driver_up",
        kind: Gauge,
        labels: &[],
        help: "1 while NVML is initialized and responds.",
    },
    ExporterMetric {
        id: ExporterMetricId::NodeWithoutGpu,
        name: "nvml_exporter_node_without_gpu",
        kind: Gauge,
        labels: &[],
        help: "1 on a node without an NVIDIA GPU on its PCI bus, which has no nvml_exporter_driver_up; absent on other nodes.",
    },
    ExporterMetric {
        id: ExporterMetricId::DriverInfo,
        name: "nvml_exporter_driver_info",
        kind: Gauge,
        labels: &["driver_version", "nvml_version", "library"],
        help: "Constant 1 while the driver is up, labelled with its versions and the path of its library.",
    },
    ExporterMetric {
        id: ExporterMetricId::Released,
        name: "nvml_exporter_released",
        kind: Gauge,
        labels: &[],
        help: "1 if NVML was released on request and nothing of it is in use, otherwise 0.",
    },
    ExporterMetric {
        id: ExporterMetricId::DriverOpenFailures,
        name: "nvml_exporter_driver_open_failures_total",
        kind: Counter,
        labels: &["reason"],
        help: "Failed attempts to load and initialize NVML, by reason.",
    },
    ExporterMetric {
        id: ExporterMetricId::SnapshotTimestamp,
        name: "nvml_exporter_snapshot_timestamp_seconds",
        kind: Gauge,
        labels: &[],
        help: "Time of the snapshot that this scrape returns; its age is time() minus this.",
    },
    ExporterMetric {
        id: ExporterMetricId::CycleDuration,
        name: "nvml_exporter_cycle_duration_seconds",
        kind: Gauge,
        labels: &[],
        help: "Duration of the last collection cycle, from the first request to the driver to the snapshot (in seconds).",
    },
    ExporterMetric {
        id: ExporterMetricId::Cycles,
        name: "nvml_exporter_cycles_total",
        kind: Counter,
        labels: &[],
        help: "Collection cycles since the exporter started.",
    },
    ExporterMetric {
        id: ExporterMetricId::SourceUp,
        name: "nvml_exporter_source_up",
        kind: Gauge,
        labels: &["source"],
        help: "1 while the source responds, and 0 once it is reported as down.",
    },
    ExporterMetric {
        id: ExporterMetricId::SourceDuration,
        name: "nvml_exporter_source_duration_seconds",
        kind: Gauge,
        labels: &["source"],
        help: "Duration of the last successful request to the source (in seconds).",
    },
    ExporterMetric {
        id: ExporterMetricId::GpuUp,
        name: "nvml_exporter_gpu_up",
        kind: Gauge,
        labels: &["gpu", "UUID"],
        help: "1 while the GPU can be read; 0 if it is lost, hung, or all its readings fail.",
    },
    ExporterMetric {
        id: ExporterMetricId::GpuMissing,
        name: "nvml_exporter_gpu_missing_readings",
        kind: Gauge,
        labels: &["gpu", "UUID", "reason"],
        help: "Series of the GPU that are absent now, by reason; reasons without such series are omitted.",
    },
    ExporterMetric {
        id: ExporterMetricId::GpuTimestamp,
        name: "nvml_exporter_gpu_sample_timestamp_seconds",
        kind: Gauge,
        labels: &["gpu", "UUID"],
        help: "Time at which the last readings of the GPU were requested.",
    },
    ExporterMetric {
        id: ExporterMetricId::Discarded,
        name: "nvml_exporter_discarded_rows_total",
        kind: Counter,
        labels: &["gpu", "UUID", "reason"],
        help: "Process rows that were discarded as invalid since the session began, by reason; reasons that never occurred are omitted.",
    },
    ExporterMetric {
        id: ExporterMetricId::GpuUnidentified,
        name: "nvml_exporter_gpu_unidentified",
        kind: Gauge,
        labels: &["gpu", "reason"],
        help: "1 for a GPU that the driver counts but that cannot be identified, with the reason; without a UUID it has no other series.",
    },
    ExporterMetric {
        id: ExporterMetricId::ThreadsAbandoned,
        name: "nvml_exporter_threads_abandoned",
        kind: Gauge,
        labels: &[],
        help: "Threads of closed sessions that were abandoned because they still wait for the driver.",
    },
    ExporterMetric {
        id: ExporterMetricId::XidEvents,
        name: "nvml_exporter_xid_events_total",
        kind: Counter,
        labels: &["gpu", "UUID", "xid"],
        help: "XID errors reported for the GPU since the exporter started, by code; codes that never occurred are omitted.",
    },
    ExporterMetric {
        id: ExporterMetricId::HostPidNamespace,
        name: "nvml_exporter_host_pid_namespace",
        kind: Gauge,
        labels: &[],
        help: "1 if the exporter runs in the host PID namespace; in any other (0) the driver hides processes, and no container is reported as idle. Absent if unknown, and if processes are not collected.",
    },
    ExporterMetric {
        id: ExporterMetricId::Attributed,
        name: "nvml_exporter_attributed_processes",
        kind: Gauge,
        labels: &["source", "result"],
        help: "Processes on GPUs with a known owner, by source and kind of owner; combinations without processes are omitted.",
    },
    ExporterMetric {
        id: ExporterMetricId::Unresolved,
        name: "nvml_exporter_unresolved_processes",
        kind: Gauge,
        labels: &["reason"],
        help: "Processes on GPUs that have no series because their owner or its allocation is unknown, by reason; reasons without processes are omitted.",
    },
    ExporterMetric {
        id: ExporterMetricId::WithheldZeros,
        name: "nvml_exporter_withheld_zeros",
        kind: Gauge,
        labels: &["reason"],
        help: "Containers without a process on a GPU or MIG device that they are allocated, and not certainly idle there, by reason; reasons without containers are omitted.",
    },
    ExporterMetric {
        id: ExporterMetricId::DriverClockOffset,
        name: "nvml_exporter_driver_clock_offset_seconds",
        kind: Gauge,
        labels: &["gpu", "UUID"],
        help: "Clock of the driver's utilization samples minus the wall clock, too low by the delay of the samples (up to 2 s); absent until it is known.",
    },
    ExporterMetric {
        id: ExporterMetricId::UnlistedUse,
        name: "nvml_exporter_unlisted_use",
        kind: Gauge,
        labels: &["gpu", "UUID", "use"],
        help: "1 while a GPU reports a use (utilization or framebuffer) that no process in the driver's list accounts for; absent otherwise.",
    },
    ExporterMetric {
        id: ExporterMetricId::Framebuffer,
        name: "nvml_exporter_framebuffer_bytes",
        kind: Gauge,
        labels: &["gpu", "UUID", "GPU_I_ID", "owner"],
        help: "Framebuffer memory by owner; the sum is what the driver reports as used. The owner unaccounted is negative if processes use more than that.",
    },
    ExporterMetric {
        id: ExporterMetricId::SourceContact,
        name: "nvml_exporter_source_contact_timestamp_seconds",
        kind: Gauge,
        labels: &["source"],
        help: "Time of the last contact with a source; its age is time() minus this.",
    },
    ExporterMetric {
        id: ExporterMetricId::SourceFailures,
        name: "nvml_exporter_source_failures_total",
        kind: Counter,
        labels: &["source", "reason"],
        help: "Failed requests to a cluster source, by reason; reasons that never occurred are omitted.",
    },
    ExporterMetric {
        id: ExporterMetricId::SourceSkipped,
        name: "nvml_exporter_source_skipped_objects_total",
        kind: Counter,
        labels: &["source", "reason"],
        help: "Objects of a cluster source that were skipped, by reason; reasons that never occurred are omitted.",
    },
    ExporterMetric {
        id: ExporterMetricId::Pods,
        name: "nvml_exporter_pods",
        kind: Gauge,
        labels: &[],
        help: "Known pods of this node; absent until the pod list is complete.",
    },
    ExporterMetric {
        id: ExporterMetricId::PodSource,
        name: "nvml_exporter_pod_source",
        kind: Gauge,
        labels: &["source"],
        help: "1 for the source that the pods are read from; absent until the pod list is complete.",
    },
    ExporterMetric {
        id: ExporterMetricId::AllocationProblems,
        name: "nvml_exporter_allocation_problems",
        kind: Gauge,
        labels: &["reason"],
        help: "Allocations that could not be interpreted, by reason; reasons without allocations are omitted.",
    },
    ExporterMetric {
        id: ExporterMetricId::DroppedPodLabels,
        name: "nvml_exporter_dropped_pod_labels",
        kind: Gauge,
        labels: &["reason"],
        help: "Labels of pods that the series of their devices do not have: their name is reserved, or two labels of a pod come to one name.",
    },
    ExporterMetric {
        id: ExporterMetricId::ProcessSeries,
        name: "nvml_exporter_process_series",
        kind: Gauge,
        labels: &[],
        help: "Series of processes, including those of idle containers and of processes without an allocation; only with --max-process-series.",
    },
    ExporterMetric {
        id: ExporterMetricId::ProcessSeriesMax,
        name: "nvml_exporter_process_series_limit",
        kind: Gauge,
        labels: &[],
        help: "Number of series of processes above which the exporter warns (--max-process-series); nothing is dropped.",
    },
    ExporterMetric {
        id: ExporterMetricId::HttpRejected,
        name: "nvml_exporter_http_refused_total",
        kind: Counter,
        labels: &["reason"],
        help: "Rejected connections and requests, by reason; reasons that never occurred are omitted.",
    },
    ExporterMetric {
        id: ExporterMetricId::Process(ProcessMetric::CpuTime),
        name: "process_cpu_seconds_total",
        kind: Counter,
        labels: &[],
        help: "CPU time of the exporter's process, user and system (in seconds).",
    },
    ExporterMetric {
        id: ExporterMetricId::Process(ProcessMetric::ResidentMemory),
        name: "process_resident_memory_bytes",
        kind: Gauge,
        labels: &[],
        help: "Resident memory of the exporter's process (in bytes).",
    },
    ExporterMetric {
        id: ExporterMetricId::Process(ProcessMetric::VirtualMemory),
        name: "process_virtual_memory_bytes",
        kind: Gauge,
        labels: &[],
        help: "Virtual memory of the exporter's process (in bytes).",
    },
    ExporterMetric {
        id: ExporterMetricId::Process(ProcessMetric::StartTime),
        name: "process_start_time_seconds",
        kind: Gauge,
        labels: &[],
        help: "Start time of the exporter's process since the Unix epoch (in seconds).",
    },
    ExporterMetric {
        id: ExporterMetricId::Process(ProcessMetric::OpenFiles),
        name: "process_open_fds",
        kind: Gauge,
        labels: &[],
        help: "Open file descriptors of the exporter's process.",
    },
    ExporterMetric {
        id: ExporterMetricId::Process(ProcessMetric::MaxFiles),
        name: "process_max_fds",
        kind: Gauge,
        labels: &[],
        help: "Maximum number of open file descriptors of the exporter's process; absent without a limit.",
    },
];
