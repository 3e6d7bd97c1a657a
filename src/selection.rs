//! Which rows of the catalogue are read and shown, and under which names: the defaults of a dialect,
//! or what a counters file asks for.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::preset::{ACK, DCGM_4_8, DCGM_4_9, GAUGES_SINCE_4_8_4};
use crate::catalog::{
    ACCOUNT, ALLOTTED, Account, AllottedSource, CLOCK_EVENT_SYMBOL, CONTAINER, ContainerSource,
    DEVICE, DeviceSource, EVENT, EventSource, HEALTH, ILLEGAL, INSTANCE, Kind, LINK_SYMBOL, Metric,
    NODE, NodeSource, PEER_SYMBOL, PROCESS, ProcessSource, SAMPLES_SYMBOL, TEXT, TextSource, find,
};
use crate::labels::{Compat, Dialect};
use crate::model::Windows;
use crate::scope::Scope;

/// What a dialect shows unless it is told otherwise.
#[must_use]
pub fn preset(dialect: &Dialect) -> Vec<Request> {
    let all = |names: &[&str]| names.iter().filter_map(|name| Request::named(name)).collect();
    match dialect {
        Dialect::Ack => all(ACK),
        Dialect::DcgmExporter(compat) => {
            let of = |compat: &Compat| match compat {
                Compat::V4_8 => all(DCGM_4_8),
                Compat::V4_8_4 => all(DCGM_4_8).into_iter().map(Request::since_4_8_4).collect(),
                Compat::V4_9 => all(DCGM_4_9),
            };
            compat.iter().flat_map(of).collect()
        }
    }
}

/// One family as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its name in the catalogue.
    pub row: &'static str,
    /// The name to print.
    pub name: Arc<str>,
    /// How to type it; none for the text of a row that becomes a label of every series.
    pub kind: Option<Kind>,
    /// The help to print.
    pub help: Arc<str>,
}

impl Request {
    /// The family of this name, as the catalogue describes it; none if there is no such row.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let row = find(name)?;
        Some(Self {
            row: row.name,
            name: name.into(),
            kind: (!row.is_text).then_some(row.kind),
            help: row.help.into(),
        })
    }

    fn since_4_8_4(self) -> Self {
        let gauge = GAUGES_SINCE_4_8_4.contains(&self.row);
        Self { kind: if gauge { Some(Kind::Gauge) } else { self.kind }, ..self }
    }
}

/// What is shown beside families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Which devices have series.
    pub scope: Scope,
    /// How far back counts of a window look.
    pub windows: Windows,
    /// Whether the series of a shared GPU are repeated for those who share it.
    pub virtual_gpus: bool,
}

/// What is read and shown. Immutable: a change is another one.
#[derive(Debug, Default)]
pub struct Selection {
    /// Of which devices, and over which windows.
    pub frame: Frame,
    /// Families with one series a node.
    pub node: Chosen<NodeSource>,
    /// Families with one series a GPU.
    pub device: Chosen<DeviceSource>,
    /// Families of what the driver tells by itself.
    pub event: Chosen<EventSource>,
    /// Families with one series a GPU, or a GPU instance while MIG is on.
    pub instance: Chosen<DeviceSource>,
    /// Families of what was given away of a GPU or an instance.
    pub allotted: Chosen<AllottedSource>,
    /// Families with one series a container and device.
    pub container: Chosen<ContainerSource>,
    /// Families with one series a process and device.
    pub process: Chosen<ProcessSource>,
    /// The same of processes without an allocation.
    pub illegal: Chosen<ProcessSource>,
    /// Families of what was used in all.
    pub account: Chosen<Account>,
    /// Texts that become labels of every series of a GPU.
    pub text: Chosen<TextSource>,
}

/// The families that are chosen of one slice of the catalogue.
#[derive(Debug)]
pub struct Chosen<S: 'static> {
    slice: &'static [Metric<S>],
    families: Vec<Family<S>>,
    wanted: Vec<bool>,
}

/// A row of the catalogue under the name it is shown by.
#[derive(Debug)]
pub struct Family<S: 'static> {
    /// The name to print.
    pub name: Arc<str>,
    /// How to type it.
    pub kind: Kind,
    /// The help to print.
    pub help: Arc<str>,
    /// Where the row stands in its slice.
    pub row: usize,
    /// The row.
    pub metric: &'static Metric<S>,
}

impl Selection {
    /// What `requests` ask for, in their order within each slice. A name that is asked for twice is
    /// shown once.
    #[must_use]
    pub fn of(requests: &[Request], frame: Frame) -> Self {
        let mut names = BTreeSet::new();
        let requests: Vec<&Request> =
            requests.iter().filter(|request| names.insert(&*request.name)).collect();
        Self {
            frame,
            node: Chosen::of(NODE, &requests),
            device: Chosen::of(DEVICE, &requests),
            event: Chosen::of(EVENT, &requests),
            instance: Chosen::of(INSTANCE, &requests),
            allotted: Chosen::of(ALLOTTED, &requests),
            container: Chosen::of(CONTAINER, &requests),
            process: Chosen::of(PROCESS, &requests),
            illegal: Chosen::of(ILLEGAL, &requests),
            account: Chosen::of(ACCOUNT, &requests),
            text: Chosen::of(TEXT, &requests),
        }
    }

    /// Whether reasons of lower clocks are counted, so that they have to be read every cycle.
    #[must_use]
    pub fn wants_clock_events(&self) -> bool {
        self.event.families().iter().any(|family| family.metric.symbol == CLOCK_EVENT_SYMBOL)
    }

    /// Whether it is told how GPUs reach each other.
    #[must_use]
    pub fn wants_peers(&self) -> bool {
        self.event.families().iter().any(|family| family.metric.symbol == PEER_SYMBOL)
    }

    /// Whether the states of links are told.
    #[must_use]
    pub fn wants_links(&self) -> bool {
        self.event.families().iter().any(|family| family.metric.symbol == LINK_SYMBOL)
    }

    /// Whether the GPUs' health is told, so that its signs have to be read every cycle.
    #[must_use]
    pub fn wants_health(&self) -> bool {
        self.event.families().iter().any(|family| family.metric.name == HEALTH)
    }

    /// Whether it is told how much the GPUs' utilization varies within a cycle.
    #[must_use]
    pub fn wants_extent(&self) -> bool {
        self.device.families().iter().any(|family| family.metric.symbol == SAMPLES_SYMBOL)
    }

    /// Whether the GPUs' energy is shared out, so that it has to be read every cycle.
    #[must_use]
    pub fn wants_energy(&self) -> bool {
        self.account.families().iter().any(|family| family.metric.source.is_energy())
    }

    /// Whether anything is shown of processes, so that they have to be looked for.
    #[must_use]
    pub fn wants_processes(&self) -> bool {
        self.tells_of_processes() || self.frame.virtual_gpus
    }

    fn tells_of_processes(&self) -> bool {
        !self.process.is_empty() || !self.illegal.is_empty() || !self.account.is_empty()
    }

    /// Whether anything is shown of containers: of what they use, hold or were given.
    #[must_use]
    pub fn tells_of_containers(&self) -> bool {
        self.tells_of_processes() || !self.container.is_empty() || !self.allotted.is_empty()
    }
}

impl<S> Chosen<S> {
    fn of(rows: &'static [Metric<S>], requests: &[&Request]) -> Self {
        let mut wanted = vec![false; rows.len()];
        let mut families = Vec::new();
        for request in requests {
            let found = rows.iter().enumerate().find(|(_, metric)| metric.name == request.row);
            let Some((row, metric)) = found else { continue };
            if let Some(wanted) = wanted.get_mut(row) {
                *wanted = true;
            }
            families.push(Family {
                name: Arc::clone(&request.name),
                kind: request.kind.unwrap_or(metric.kind),
                help: Arc::clone(&request.help),
                row,
                metric,
            });
        }
        Self { slice: rows, families, wanted }
    }

    /// The families, in the order of the page.
    #[must_use]
    pub fn families(&self) -> &[Family<S>] {
        &self.families
    }

    /// How many families there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.families.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.families.is_empty()
    }

    /// How many rows the slice has, chosen or not.
    #[must_use]
    pub fn slice_len(&self) -> usize {
        self.slice.len()
    }

    /// The row at `row` of the slice, if it is chosen.
    #[must_use]
    pub fn metric(&self, row: usize) -> Option<&'static Metric<S>> {
        if *self.wanted.get(row)? { self.slice.get(row) } else { None }
    }
}

impl Chosen<DeviceSource> {
    /// The metrics of GPM of all rows that are chosen, each once. Such rows are read every cycle: what
    /// a metric is the mean of begins with the sample before.
    #[must_use]
    pub fn gpm_metrics(&self) -> Vec<u32> {
        let ids = self.families.iter().filter_map(|family| family.metric.source.gpm());
        let mut ids: Vec<u32> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

impl<S> Default for Chosen<S> {
    fn default() -> Self {
        Self { slice: &[], families: Vec::new(), wanted: Vec::new() }
    }
}
