//! What is published: labelled, immutable, complete.

pub mod occupancy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use self::occupancy::Occupancy;
use crate::labels::Labels;
use crate::model::{Allotted, Discards, Gpu, Grant, Missing, Moment, Reading, Usage};
use crate::sample::DriverState;
use crate::selection::Selection;

/// One cycle's truth about the node.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the cycle began.
    pub at: Moment,
    /// What the node is called.
    pub host: Host,
    /// Which families the readings are of.
    pub selection: Arc<Selection>,
    /// Readings of the node, one per family: once, or in a dialect that repeats them, by GPU.
    pub nodes: Vec<Entity>,
    /// The series of devices, containers and processes.
    pub tables: Tables,
    /// Who is on each GPU, in the order of [`Health::gpus`].
    pub occupancy: Vec<Occupancy>,
    /// About the exporter itself.
    pub health: Health,
}

/// What a node is called.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The Kubernetes node's name, empty where there is no cluster.
    pub node: String,
    /// The host's name.
    pub name: String,
}

/// The series of devices, containers and processes.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Readings of each GPU, one per family of the device slice.
    pub devices: Vec<Entity>,
    /// What each GPU's events tell.
    pub events: Vec<Series>,
    /// Readings of each GPU, or of its instances while MIG is on, one per
    /// family of the instance slice.
    pub instances: Vec<Entity>,
    /// What was given away of each GPU, or of its instances while MIG is on.
    pub allocated: Vec<(Labels, Allotted)>,
    /// What containers were given, by device.
    pub containers: Vec<(Labels, Grant)>,
    /// What processes use, by device and pid; or containers, by device.
    pub processes: Vec<(Labels, Usage)>,
    /// What processes use of a device that nobody gave them.
    pub illegal: Vec<(Labels, Usage)>,
    /// What was used in all.
    pub accounts: Vec<Series>,
}

/// Something that has one reading per family that is chosen of its slice of the catalogue.
#[derive(Clone, Debug)]
pub struct Entity {
    /// Its label set.
    pub labels: Labels,
    /// Its readings, in the order of the families.
    pub readings: Vec<Reading>,
}

/// One number of one family.
#[derive(Clone, Debug)]
pub struct Series {
    /// Which of the families that are chosen of its slice of the catalogue.
    pub family: usize,
    /// Its label set.
    pub labels: Labels,
    /// The number.
    pub reading: Reading,
}

/// What went well and what did not.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Whether there is a session.
    pub driver: DriverState,
    /// How long the driver's own thread took over its last answer.
    pub driver_took: Option<Duration>,
    /// How long the cycle took.
    pub cycle_took: Duration,
    /// Cycles so far.
    pub cycles: u64,
    /// Each identified GPU.
    pub gpus: Vec<GpuHealth>,
    /// GPUs that are counted and cannot be identified, by index.
    pub unidentified: BTreeMap<u32, Missing>,
    /// Failed attempts to open the driver, by reason.
    pub open_failures: BTreeMap<&'static str, u64>,
    /// Threads of earlier sessions that still wait for the driver.
    pub abandoned: usize,
    /// How well it is known whose the processes are.
    pub census: Census,
    /// Whether the exporter is in the machine's first PID namespace, where that is known.
    pub host_pids: Option<bool>,
    /// The sources of the cluster's knowledge.
    pub sources: Vec<SourceHealth>,
    /// Pods of this node, if all are known.
    pub pods: Option<u64>,
    /// Allocations that could not be understood, by reason.
    pub problems: BTreeMap<&'static str, u64>,
    /// Labels of pods that the series of their devices do not have, by reason.
    pub dropped_pod_labels: BTreeMap<&'static str, u64>,
    /// Connections and requests that were refused, by reason.
    pub refusals: Vec<(&'static str, u64)>,
}

/// A source of the cluster's knowledge.
#[derive(Clone, Debug)]
pub struct SourceHealth {
    /// Its name.
    pub name: &'static str,
    /// It answered the last question.
    pub up: bool,
    /// How old its last word is.
    pub age: Option<Duration>,
    /// Failures by reason.
    pub failures: Vec<(&'static str, u64)>,
}

impl SourceHealth {
    /// A source of which no more is known than that.
    #[must_use]
    pub fn plain(name: &'static str, up: bool) -> Self {
        Self { name, up, age: None, failures: Vec::new() }
    }
}

/// How well it is known whose the processes on GPUs are.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Processes whose owner is known, by how and what.
    pub attributed: BTreeMap<(&'static str, &'static str), u64>,
    /// Processes that are in no family, by reason.
    pub unresolved: BTreeMap<&'static str, u64>,
    /// Where the framebuffer is.
    pub balances: Vec<Balanced>,
}

/// Where the framebuffer of a GPU or a GPU instance is.
#[derive(Clone, Debug)]
pub struct Balanced {
    /// The GPU's index.
    pub gpu: u32,
    /// The GPU's UUID.
    pub uuid: Arc<str>,
    /// The GPU instance, while MIG is on.
    pub instance: Option<u32>,
    /// Who holds how many bytes; in all, the framebuffer used.
    pub balance: [(&'static str, i64); 5],
}

/// One GPU's health.
#[derive(Clone, Debug)]
pub struct GpuHealth {
    /// Which GPU.
    pub gpu: Arc<Gpu>,
    /// Whether it can be read, and why not.
    pub state: Result<(), Missing>,
    /// Whether its last question was answered in time.
    pub answered: bool,
    /// When it was asked for what it last answered.
    pub sampled_at: Moment,
    /// How long its last answer took.
    pub took: Option<Duration>,
    /// Absent readings of it and its processes, by [`Missing::position`].
    pub missing: [u64; Missing::REASONS.len()],
    /// Rows that were not believed.
    pub discards: Discards,
    /// XIDs since the exporter started, by code.
    pub xids: BTreeMap<u32, u64>,
    /// Its readings, one per family of the device slice, whether it has series of its own or not.
    pub readings: Vec<Reading>,
}

impl Snapshot {
    /// What is left of a snapshot that has grown too old: what is known of the exporter, and no
    /// number of any GPU.
    #[must_use]
    pub fn withheld(&self) -> Self {
        let mut snapshot = self.clone();
        snapshot.tables = Tables::default();
        snapshot.health.census = Census::default();
        snapshot.nodes.clear();
        snapshot.occupancy.clear();
        snapshot
    }

    /// Whether a scrape of this snapshot says what an operator expects of the node.
    ///
    /// # Errors
    /// What is missing, as a sentence for people.
    pub fn ready(&self) -> Result<(), String> {
        match &self.health.driver {
            DriverState::Down { reason, detail } => {
                return Err(format!("driver down ({reason}): {detail}"));
            }
            DriverState::Up(_) => {}
        }
        let (gpus, unidentified) = (&self.health.gpus, &self.health.unidentified);
        let nothing_to_read = gpus.is_empty() && unidentified.is_empty();
        if nothing_to_read || gpus.iter().any(|gpu| gpu.state.is_ok()) {
            return Ok(());
        }
        let known = gpus.iter().map(GpuHealth::sentence);
        let unknown = unidentified.iter().map(|(gpu, why)| format!("GPU {gpu}: {why}"));
        Err(known.chain(unknown).collect::<Vec<_>>().join("; "))
    }
}

impl Snapshot {
    /// What an operator should know although scrapes are good, as sentences.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.health.host_pids == Some(false) {
            warnings.push(HIDDEN_PROCESSES.to_owned());
        }
        let down = self.health.sources.iter().filter(|source| !source.up);
        warnings.extend(down.map(|source| {
            let since = source.age.map_or("has never answered".to_owned(), |age| {
                format!("has not answered for {} s; what it said last is kept", age.as_secs())
            });
            format!("{} {since}", source.name)
        }));
        warnings
    }
}

/// What it means to be in another PID namespace than the machine's first.
pub const HIDDEN_PROCESSES: &str = "not in the host's PID namespace: the driver hides processes, and \
     no container is called idle; set hostPID: true";

impl GpuHealth {
    fn sentence(&self) -> String {
        let state = self.state.err().map_or("ok".to_owned(), |missing| missing.to_string());
        format!("GPU {} ({}): {state}", self.gpu.index, self.gpu.uuid)
    }
}
