//! Sample and cluster → Snapshot: labels everything, says whose it is, and withholds what is too old
//! or too doubtful to be told.

pub mod activity;
pub mod conservation;
pub mod family;
pub mod fresh;
pub mod holdings;
pub mod owner;

mod balances;
mod device;
mod people;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use self::activity::Activity;
use self::device::{Befallen, Devices};
use self::family::Allocation;
use self::fresh::Fresh;
use self::owner::Directory;
use crate::catalog::NodeSource;
use crate::host::hpc_jobs::Jobs;
use crate::labels::{Dialect, Schema};
use crate::model::{AllocateMode, Missing, NodeSample, Reading};
use crate::nvml::inventory::Driver;
use crate::pod_labels::Allowlist;
use crate::reserved_labels::ReservedLabels;
use crate::sample::{DriverState, Sample};
use crate::selection::{Chosen, Selection};
use crate::snapshot::{Entity, Health, Host, Snapshot, SourceHealth};

/// Everything but the sample that a snapshot depends on.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// What is shown.
    pub selection: &'a Arc<Selection>,
    /// Label names, and the values that all series share.
    pub schema: &'a Schema,
    /// Whether the series of devices name the pods that hold them.
    pub device_pods: Option<&'a DevicePods>,
    /// Names that labels of pods may not have.
    pub reserved: &'a ReservedLabels,
    /// Which jobs of a batch system run on which device.
    pub jobs: &'a Jobs,
    /// How old an unanswered reading may be.
    pub max_age: Duration,
    /// One series a process, or one a container.
    pub grain: Grain,
    /// Who lives on the node.
    pub directory: Directory<'a>,
    /// Who was given what.
    pub allocation: Allocation<'a>,
    /// Whether the exporter is in the machine's first PID namespace, where the driver hides nobody.
    pub host_pids: Option<bool>,
    /// How those who know of the cluster fare.
    pub sources: &'a [SourceHealth],
    /// Allocations that could not be understood, by reason.
    pub problems: &'a BTreeMap<&'static str, u64>,
}

/// What the series of devices tell of the pods that hold them.
#[derive(Clone, Debug, Default)]
pub struct DevicePods {
    /// The pod's UID, too.
    pub uid: bool,
    /// Those of the pod's labels, too.
    pub labels: Option<Allowlist>,
    /// The claim that it was given by, too.
    pub claims: bool,
}

/// What one series of a process family is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grain {
    /// A process.
    #[default]
    Process,
    /// All processes of a container.
    Container,
}

/// Turns what was read into what is published, and into what is reckoned up.
#[must_use]
pub fn attribute(sample: Sample, terms: &Terms<'_>) -> (Snapshot, Vec<Activity>) {
    let driver = match &sample.driver {
        DriverState::Up(driver) => driver.clone(),
        DriverState::Down { .. } => Driver::default(),
    };
    let node = node(&sample, terms);
    let mut devices = Devices::new(terms, &driver, &node, sample.at.mono);
    let mut unidentified = BTreeMap::new();
    for (index, sampled) in (0..).zip(&sample.gpus) {
        match Fresh::of(sampled, sample.at, terms.max_age) {
            Ok(fresh) => {
                let uuid = &fresh.answer.gpu.uuid;
                let xids = sample.xids.get(uuid).cloned().unwrap_or_default();
                let clocks = sample.clocks.get(uuid).copied().unwrap_or(Err(Missing::Pending));
                let vitals = sample.vitals.get(uuid).ok_or(Missing::Pending);
                devices.add(&fresh, &Befallen { xids: &xids, clocks, vitals });
            }
            Err(missing) => {
                unidentified.insert(index, missing);
            }
        }
    }
    let dropped_pod_labels = devices.dropped_pod_labels();
    let snapshot = Snapshot {
        at: sample.at,
        host: Host { node: terms.schema.node_name.clone(), name: terms.schema.hostname.clone() },
        selection: Arc::clone(terms.selection),
        nodes: match terms.schema.dialect {
            Dialect::Ack => {
                let readings = node_readings(&terms.selection.node, &node);
                vec![Entity { labels: terms.schema.node(), readings }]
            }
            Dialect::DcgmExporter(_) => devices.nodes,
        },
        tables: devices.tables,
        occupancy: devices.occupancy,
        health: Health {
            driver: sample.driver,
            driver_took: sample.node_took,
            cycle_took: sample.took,
            cycles: sample.cycles,
            gpus: devices.health,
            unidentified,
            open_failures: sample.open_failures,
            abandoned: sample.abandoned,
            census: devices.census,
            host_pids: terms.host_pids,
            sources: terms.sources.to_vec(),
            pods: terms.directory.pods.filter(|pods| pods.synced).map(|pods| to_u64(pods.len())),
            dropped_pod_labels,
            problems: terms.problems.clone(),
            refusals: Vec::new(),
        },
    };
    (snapshot, devices.activity)
}

fn node(sample: &Sample, terms: &Terms<'_>) -> NodeSample {
    let gpu_count = match (sample.gpu_count, &sample.driver) {
        (None, DriverState::Down { .. }) => Err(Missing::DriverGone),
        (None, DriverState::Up(_)) => Err(Missing::Pending),
        (Some((_, asked)), _) if sample.at.mono.saturating_sub(asked.mono) > terms.max_age => {
            Err(Missing::Hung)
        }
        (Some((count, _)), _) => count,
    };
    let allocate_mode = match terms.allocation {
        Allocation::Nobody { .. } => Err(Missing::Unsupported),
        Allocation::Pending => Err(Missing::Pending),
        Allocation::Known(holdings) => {
            holdings.mode().map(AllocateMode::value).ok_or(Missing::Pending)
        }
    };
    NodeSample { gpu_count, allocate_mode }
}

fn node_readings(chosen: &Chosen<NodeSource>, node: &NodeSample) -> Vec<Reading> {
    chosen.families().iter().map(|family| (family.metric.source)(node)).collect()
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
