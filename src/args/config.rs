//! The validated configuration: the result of parsing flags and environment variables.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::dcgm_exporter::LogFormat;
use super::driver_release::ReleaseTriggers;
use super::log_level::LogLevel;
use crate::attribute::{DevicePodLabels, ProcessSeries};
use crate::cluster::Sources;
use crate::counters::watcher::CountersSource;
use crate::kube::allocation::AllocationOptions;
use crate::labels::{Dialect, LabelSchema};
use crate::selection::{Preset, SelectionScope};
use crate::serve::Timeouts;
use crate::serve::routes::Routes;
use crate::web_config::WebConfig;

/// Configuration of the exporter; valid as a whole.
pub struct Config {
    /// Data sources and collection.
    pub read: ReadConfig,
    /// HTTP server.
    pub serve: ServeConfig,
    /// Print the metrics once and exit.
    pub once: bool,
    /// Least severe level that is logged.
    pub log_level: LogLevel,
    /// Format of the log.
    pub log_format: LogFormat,
    /// Warnings to be logged at startup, for example about ignored flags.
    pub warnings: Vec<String>,
}

/// Configuration of data sources and collection.
pub struct ReadConfig {
    /// Time between two collection cycles.
    pub interval: Duration,
    /// Maximum age of a reading that is served.
    pub max_age: Duration,
    /// Label names, and the label values that all series share.
    pub schema: LabelSchema,
    /// Families that are exported without a counters file.
    pub preset: Preset,
    /// Number of process series above which there is a warning.
    pub max_process_series: Option<u64>,
    /// Source of the counters file, which selects families; `None` for the preset.
    pub counters: Option<CountersSource>,
    /// Devices that have series, and windows of the `DCGM_EXP_*_COUNT` families.
    pub selection_scope: SelectionScope,
    /// Pod labels on device series; `None` if device series have no pod labels.
    pub device_pods: Option<DevicePodLabels>,
    /// Directory of the HPC job mapping files.
    pub job_directory: Option<PathBuf>,
    /// Mock scenario to simulate: name of a built-in scenario or path of a file.
    pub mock: Option<String>,
    /// Paths of libnvidia-ml to try, in order; not used with `mock`.
    pub library: Vec<PathBuf>,
    /// Entity that one process series describes.
    pub process_series: ProcessSeries,
    /// Sources of pods and allocations; `None` without a cluster.
    pub cluster: Option<Sources>,
    /// What the flags state of allocations.
    pub allocation_options: AllocationOptions,
    /// Conditions on which NVML is released, in addition to signals.
    pub release_triggers: ReleaseTriggers,
    /// Directory to read as `/proc`, if it was set.
    pub procfs: Option<PathBuf>,
    /// Directory to read as `/sys`, if it was set.
    pub sysfs: Option<PathBuf>,
    /// Whether the driver is reported as down on a node without an NVIDIA GPU.
    pub require_gpu: bool,
}

/// Configuration of the HTTP server.
pub struct ServeConfig {
    /// Addresses to listen on: for each, the socket addresses of which the first is used that can be bound.
    pub addresses: Vec<Vec<SocketAddr>>,
    /// The paths that are served.
    pub routes: Routes,
    /// Timeouts of requests and responses.
    pub timeouts: Timeouts,
    /// TLS, basic authentication, response headers and rate limit.
    pub web_config: WebConfig,
    /// Use the listening sockets that systemd passes instead of `addresses`.
    pub systemd_socket: bool,
}

impl ReadConfig {
    /// The configuration for the node view of `top`: preset families and label names of the ACK
    /// dialect, no pod labels on device series and no HPC jobs.
    #[must_use]
    pub fn for_node_view(self) -> Self {
        Self {
            schema: LabelSchema { dialect: Dialect::Ack, ..self.schema },
            preset: Preset::Dialect,
            counters: None,
            selection_scope: SelectionScope::default(),
            device_pods: None,
            job_directory: None,
            ..self
        }
    }
}
