//! What is published: labelled, immutable, complete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::labels::Labels;
use crate::model::{Discards, Gpu, Missing, Moment, ProcessSample, Reading};
use crate::sample::DriverState;

/// One cycle's truth about the node.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the cycle began.
    pub at: Moment,
    /// Readings of the node, one per row of the catalogue's node slice.
    pub node: Entity,
    /// Readings of each GPU, one per row of the device slice.
    pub devices: Vec<Entity>,
    /// Readings of each GPU, or of its instances while MIG is on, one per row of the instance slice.
    pub instances: Vec<Entity>,
    /// What each GPU's events tell, one per row of the event slice.
    pub events: Vec<Entity>,
    /// Processes by GPU and pid.
    pub processes: Vec<(Labels, ProcessSample)>,
    /// About the exporter itself.
    pub health: Health,
}

/// Something that has one reading per row of its slice of the catalogue.
#[derive(Clone, Debug)]
pub struct Entity {
    /// Its label set.
    pub labels: Labels,
    /// Its readings, in the order of the rows.
    pub readings: Vec<Reading>,
}

/// What went well and what did not.
#[derive(Clone, Debug)]
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
}

impl Snapshot {
    /// What is left of a snapshot that has grown too old: what is known of the exporter, and no
    /// number of any GPU.
    #[must_use]
    pub fn withheld(&self) -> Self {
        let mut snapshot = self.clone();
        snapshot.devices.clear();
        snapshot.instances.clear();
        snapshot.events.clear();
        snapshot.processes.clear();
        snapshot.node.readings.fill(Err(Missing::Hung));
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

impl GpuHealth {
    fn sentence(&self) -> String {
        let state = self.state.err().map_or("ok".to_owned(), |missing| missing.to_string());
        format!("GPU {} ({}): {state}", self.gpu.index, self.gpu.uuid)
    }
}
