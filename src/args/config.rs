//! What flags and environment amount to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::dcgm_exporter::LogFormat;
use super::release::Askers;
use crate::attribute::{DevicePods, Grain};
use crate::cluster::Sources;
use crate::counters::follow::Source;
use crate::labels::{Dialect, Schema};
use crate::selection::Frame;
use crate::serve::Web;

/// What the exporter is told to do; valid as a whole.
pub struct Config {
    /// What is read, and what is made of it.
    pub read: ReadConfig,
    /// How that is handed out.
    pub serve: ServeConfig,
    /// Print one page and exit.
    pub once: bool,
    /// Log more.
    pub debug: bool,
    /// How to write the log.
    pub log_format: LogFormat,
    /// What is asked for in vain, to be logged.
    pub remarks: Vec<String>,
}

/// What is read, and what is made of it.
pub struct ReadConfig {
    /// Time between two cycles.
    pub interval: Duration,
    /// Oldest reading that is served.
    pub max_age: Duration,
    /// Label names and the values that all series share.
    pub schema: Schema,
    /// Where it is written down what is shown; none for the dialect's own.
    pub counters: Option<Source>,
    /// Which devices have series, and how far back counts of a window look.
    pub frame: Frame,
    /// What the series of devices tell of the pods that hold them.
    pub device_pods: Option<DevicePods>,
    /// Directory of the jobs of a batch system.
    pub job_directory: Option<PathBuf>,
    /// Scenario to simulate.
    pub mock: Option<String>,
    /// Library paths to try, in order, when nothing is simulated.
    pub library: Vec<PathBuf>,
    /// What one series of a process family is about.
    pub grain: Grain,
    /// Whom to ask about pods and allocations; none where there is no cluster.
    pub cluster: Option<Sources>,
    /// What may ask for NVML to be let go.
    pub askers: Askers,
    /// Where to read processes, if not where it follows from the rest.
    pub procfs: Option<PathBuf>,
}

/// How what was read is handed out.
pub struct ServeConfig {
    /// Addresses to try, in order.
    pub addresses: Vec<SocketAddr>,
    /// Where the exporter's own series are, if not at `/metrics`.
    pub own_path: Option<Arc<str>>,
    /// Whether the node is shown to people, too.
    pub landing: bool,
    /// How the exporter is reached.
    pub web: Web,
    /// Whether on the socket that systemd hands over.
    pub systemd_socket: bool,
}

impl ReadConfig {
    /// The same, but that everything is read that people look at, and nothing that they do not.
    #[must_use]
    pub fn for_people(self) -> Self {
        Self {
            schema: Schema { dialect: Dialect::Ack, ..self.schema },
            counters: None,
            frame: Frame::default(),
            device_pods: None,
            job_directory: None,
            ..self
        }
    }
}
