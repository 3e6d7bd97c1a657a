//! The series about the exporter itself.

use super::Kind::{self, Counter, Gauge};

/// A series about the exporter itself.
pub struct Own {
    /// Which one.
    pub series: OwnSeries,
    /// The family's name.
    pub name: &'static str,
    /// Gauge or counter.
    pub kind: Kind,
    /// Label keys, in order.
    pub labels: &'static [&'static str],
    /// HELP text, one line.
    pub help: &'static str,
}

/// The exporter's own series; `telemetry` says what each is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnSeries {
    /// Constant 1.
    BuildInfo,
    /// Whether there is a session with the driver.
    DriverUp,
    /// Versions; only while the driver is up.
    DriverInfo,
    /// Whether NVML has been let go on request.
    Released,
    /// Failed attempts to open a session.
    DriverOpenFailures,
    /// When the page's snapshot was taken.
    SnapshotTimestamp,
    /// Time from asking to publishing.
    CycleDuration,
    /// Cycles since start.
    Cycles,
    /// Whether a source answered its last question.
    SourceUp,
    /// How long a source took.
    SourceDuration,
    /// Whether a GPU can be read.
    GpuUp,
    /// Readings that are absent, and why.
    GpuMissing,
    /// When a GPU last answered.
    GpuTimestamp,
    /// Rubbish that was not published.
    Discarded,
    /// A GPU that is counted and cannot be named.
    GpuUnidentified,
    /// Threads that wait for a driver that does not answer.
    ThreadsAbandoned,
    /// Connections and requests that were refused.
    HttpRefused,
    /// XIDs by GPU and code.
    XidEvents,
    /// Whether the driver hides processes from us.
    HostPidNamespace,
    /// Processes whose owner is known, and how.
    Attributed,
    /// Processes whose owner is not known, and why.
    Unresolved,
    /// Where the framebuffer is.
    Framebuffer,
    /// When a source of the cluster last spoke.
    SourceContact,
    /// How often a source of the cluster failed, and how.
    SourceFailures,
    /// Pods of the node.
    Pods,
    /// What is wrong with allocations.
    AllocationProblems,
    /// Labels of pods that series do not have, and why.
    DroppedPodLabels,
}

/// Every row about the exporter itself, in the order of the page.
pub const OWN: &[Own] = &[
    Own {
        series: OwnSeries::BuildInfo,
        name: "nvml_exporter_build_info",
        kind: Gauge,
        labels: &["version"],
        help: "Constant 1, labelled with the exporter's version.",
    },
    Own {
        series: OwnSeries::DriverUp,
        name: "nvml_exporter_driver_up",
        kind: Gauge,
        labels: &[],
        help: "1 while NVML is initialised and answers.",
    },
    Own {
        series: OwnSeries::DriverInfo,
        name: "nvml_exporter_driver_info",
        kind: Gauge,
        labels: &["driver_version", "nvml_version", "library"],
        help: "Constant 1 while the driver is up, labelled with its versions and the path of its library.",
    },
    Own {
        series: OwnSeries::Released,
        name: "nvml_exporter_released",
        kind: Gauge,
        labels: &[],
        help: "1 if NVML has been let go on request and nothing of it is held, else 0.",
    },
    Own {
        series: OwnSeries::DriverOpenFailures,
        name: "nvml_exporter_driver_open_failures_total",
        kind: Counter,
        labels: &["reason"],
        help: "Attempts to load and initialise NVML that failed, by reason.",
    },
    Own {
        series: OwnSeries::SnapshotTimestamp,
        name: "nvml_exporter_snapshot_timestamp_seconds",
        kind: Gauge,
        labels: &[],
        help: "When the numbers of this page were put together; its age is time() minus this.",
    },
    Own {
        series: OwnSeries::CycleDuration,
        name: "nvml_exporter_cycle_duration_seconds",
        kind: Gauge,
        labels: &[],
        help: "How long the last cycle took, from the first question to the driver to the snapshot.",
    },
    Own {
        series: OwnSeries::Cycles,
        name: "nvml_exporter_cycles_total",
        kind: Counter,
        labels: &[],
        help: "Cycles since the exporter started.",
    },
    Own {
        series: OwnSeries::SourceUp,
        name: "nvml_exporter_source_up",
        kind: Gauge,
        labels: &["source"],
        help: "1 if the source answered its last question in time and without an error.",
    },
    Own {
        series: OwnSeries::SourceDuration,
        name: "nvml_exporter_source_duration_seconds",
        kind: Gauge,
        labels: &["source"],
        help: "How long the source took to answer the last question that it answered.",
    },
    Own {
        series: OwnSeries::GpuUp,
        name: "nvml_exporter_gpu_up",
        kind: Gauge,
        labels: &["gpu", "UUID"],
        help: "1 while the GPU answers; 0 when it is lost, hung, or every reading of it fails.",
    },
    Own {
        series: OwnSeries::GpuMissing,
        name: "nvml_exporter_gpu_missing_readings",
        kind: Gauge,
        labels: &["gpu", "UUID", "reason"],
        help: "Series of the GPU that are absent now, by reason; reasons that apply to none are left out.",
    },
    Own {
        series: OwnSeries::GpuTimestamp,
        name: "nvml_exporter_gpu_sample_timestamp_seconds",
        kind: Gauge,
        labels: &["gpu", "UUID"],
        help: "When the GPU was asked for the numbers that it last answered with.",
    },
    Own {
        series: OwnSeries::Discarded,
        name: "nvml_exporter_discarded_rows_total",
        kind: Counter,
        labels: &["gpu", "UUID", "reason"],
        help: "Process rows that were not believed, since the session began; reasons that never applied are left out.",
    },
    Own {
        series: OwnSeries::GpuUnidentified,
        name: "nvml_exporter_gpu_unidentified",
        kind: Gauge,
        labels: &["gpu", "reason"],
        help: "1 for a GPU that the driver counts and that cannot be identified, with the reason; without a UUID it has no other series.",
    },
    Own {
        series: OwnSeries::ThreadsAbandoned,
        name: "nvml_exporter_threads_abandoned",
        kind: Gauge,
        labels: &[],
        help: "Threads of closed sessions that still wait for the driver and were left behind.",
    },
    Own {
        series: OwnSeries::XidEvents,
        name: "nvml_exporter_xid_events_total",
        kind: Counter,
        labels: &["gpu", "UUID", "xid"],
        help: "XIDs that befell the GPU since the exporter started, by code; codes that never came are left out.",
    },
    Own {
        series: OwnSeries::HostPidNamespace,
        name: "nvml_exporter_host_pid_namespace",
        kind: Gauge,
        labels: &[],
        help: "1 in the machine's first PID namespace; in any other (0) the driver hides processes, and no container is called idle. Absent where that is not known, and where no process is looked for.",
    },
    Own {
        series: OwnSeries::Attributed,
        name: "nvml_exporter_attributed_processes",
        kind: Gauge,
        labels: &["source", "result"],
        help: "Processes on GPUs whose owner is known, by how it is known and what it is; combinations of none are left out.",
    },
    Own {
        series: OwnSeries::Unresolved,
        name: "nvml_exporter_unresolved_processes",
        kind: Gauge,
        labels: &["reason"],
        help: "Processes on GPUs that are in no family because it is not known whose they are; reasons that apply to none are left out.",
    },
    Own {
        series: OwnSeries::Framebuffer,
        name: "nvml_exporter_framebuffer_bytes",
        kind: Gauge,
        labels: &["gpu", "UUID", "GPU_I_ID", "owner"],
        help: "Framebuffer used, by who holds it; in all, what the driver calls used. What nobody accounts for is negative if more is held than used.",
    },
    Own {
        series: OwnSeries::SourceContact,
        name: "nvml_exporter_source_contact_timestamp_seconds",
        kind: Gauge,
        labels: &["source"],
        help: "When a source of the cluster's knowledge last spoke; its age is time() minus this.",
    },
    Own {
        series: OwnSeries::SourceFailures,
        name: "nvml_exporter_source_failures_total",
        kind: Counter,
        labels: &["source", "reason"],
        help: "Questions to a source of the cluster's knowledge that failed, by reason; reasons that never applied are left out.",
    },
    Own {
        series: OwnSeries::Pods,
        name: "nvml_exporter_pods",
        kind: Gauge,
        labels: &[],
        help: "Pods of this node that are known; absent until all are.",
    },
    Own {
        series: OwnSeries::AllocationProblems,
        name: "nvml_exporter_allocation_problems",
        kind: Gauge,
        labels: &["reason"],
        help: "Allocations that could not be understood, by reason; reasons that apply to none are left out.",
    },
    Own {
        series: OwnSeries::DroppedPodLabels,
        name: "nvml_exporter_dropped_pod_labels",
        kind: Gauge,
        labels: &["reason"],
        help: "Labels of pods that the series of their devices do not have: their name is reserved, or two labels of a pod come to one name.",
    },
    Own {
        series: OwnSeries::HttpRefused,
        name: "nvml_exporter_http_refused_total",
        kind: Counter,
        labels: &["reason"],
        help: "Connections and requests that were refused, by reason; reasons that never applied are left out.",
    },
];
