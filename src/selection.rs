//! Selects the rows of the catalogue that are read and exported, and their names: the preset of a
//! dialect, or the records of a counters file.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::preset::{
    ACK, ACK_GAUGES, ACTIONS, ACTIONS_4_9, DCGM_4_8, DCGM_4_9, ESSENTIAL, GAUGES_SINCE_4_8_4,
};
use crate::catalog::{
    ACCUMULATED, ACTIVITY, ALLOCATED_FRACTION, AccumulatedMetric, AllocatedFractionSource,
    CONTAINER, ContainerSource, DEVICE, DeviceSource, EVENT, EventInput, EventSource, ILLEGAL,
    INFO_LABELS, INSTANCE, InfoLabelSource, Kind, MEMORY_ACCOUNT, Metric, NODE, NodeSource,
    PROCESS, ProcessSource, find,
};
use crate::device_selector::DeviceSelector;
use crate::labels::{Compat, Dialect};
use crate::model::Windows;

/// A set of families for use without a counters file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// Those of the exporter that the dialect emulates.
    #[default]
    Dialect,
    /// What autoscaling, alerts and recording rules need.
    Essential,
}

impl Preset {
    /// Its families in a dialect.
    #[must_use]
    pub fn requests(self, dialect: &Dialect) -> Vec<FamilyRequest> {
        match self {
            Self::Dialect => preset(dialect),
            Self::Essential => match dialect {
                Dialect::Ack => with_gauges(named(ESSENTIAL, ACTIONS), ACK_GAUGES),
                Dialect::DcgmExporter(_) => named(ESSENTIAL, ACTIONS),
            },
        }
    }
}

fn named(names: &[&str], actions: &[&str]) -> Vec<FamilyRequest> {
    names.iter().chain(actions).filter_map(|name| FamilyRequest::named(name)).collect()
}

fn with_gauges(requests: Vec<FamilyRequest>, gauges: &[&str]) -> Vec<FamilyRequest> {
    requests.into_iter().map(|request| request.with_gauges(gauges)).collect()
}

/// The families that a dialect selects without a counters file.
#[must_use]
pub fn preset(dialect: &Dialect) -> Vec<FamilyRequest> {
    match dialect {
        Dialect::Ack => with_gauges(named(ACK, ACTIONS), ACK_GAUGES),
        Dialect::DcgmExporter(compat) => {
            let of = |compat: &Compat| match compat {
                Compat::V4_8 => named(DCGM_4_8, ACTIONS),
                Compat::V4_8_4 => with_gauges(named(DCGM_4_8, ACTIONS), GAUGES_SINCE_4_8_4),
                Compat::V4_9 => named(DCGM_4_9, ACTIONS_4_9),
            };
            compat.iter().flat_map(of).collect()
        }
    }
}

/// A request to export one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyRequest {
    /// Name of the row in the catalogue.
    pub row: &'static str,
    /// Exported name.
    pub name: Arc<str>,
    /// Exported TYPE; `None` for a row that is exported as a label of every series of a GPU.
    pub kind: Option<Kind>,
    /// Exported HELP.
    pub help: Arc<str>,
}

impl FamilyRequest {
    /// A request for the row or alias `name`, with the catalogue's TYPE and HELP; `None` if there
    /// is no such row.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let row = find(name)?;
        Some(Self {
            row: row.name,
            name: name.into(),
            kind: (!row.is_info_label).then_some(row.kind),
            help: row.help.into(),
        })
    }

    /// The request, as a gauge if its row is one of `gauges`.
    fn with_gauges(self, gauges: &[&str]) -> Self {
        let is_gauge = gauges.contains(&self.row);
        Self { kind: if is_gauge { Some(Kind::Gauge) } else { self.kind }, ..self }
    }
}

/// Devices and options that apply to all selected families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectionScope {
    /// Devices that have series.
    pub devices: DeviceSelector,
    /// Windows over which events are counted.
    pub windows: Windows,
    /// Whether the series of a shared GPU are repeated for each container.
    pub virtual_gpus: bool,
}

/// The rows that are read and exported. Immutable: a reload creates a new one.
#[derive(Debug, Default)]
pub struct Selection {
    /// Devices and options.
    pub scope: SelectionScope,
    /// Families with one series per node.
    pub node: SelectedFamilies<NodeSource>,
    /// Families with one series per GPU.
    pub device: SelectedFamilies<DeviceSource>,
    /// Families of a GPU's events, topology and health.
    pub event: SelectedFamilies<EventSource>,
    /// Families with one series per GPU, or per GPU instance while MIG is enabled.
    pub instance: SelectedFamilies<DeviceSource>,
    /// Families of the allocated fraction of a GPU or GPU instance.
    pub allocated_fraction: SelectedFamilies<AllocatedFractionSource>,
    /// Families with one series per container and device that is allocated to it.
    pub container: SelectedFamilies<ContainerSource>,
    /// Families of the driver's account of the memory of a container.
    pub memory_account: SelectedFamilies<ContainerSource>,
    /// Families of the activity of a container that alone holds a device.
    pub activity: SelectedFamilies<DeviceSource>,
    /// Families with one series per process and device.
    pub process: SelectedFamilies<ProcessSource>,
    /// Families with one series per process without an allocation and device.
    pub illegal: SelectedFamilies<ProcessSource>,
    /// Families of accumulated usage.
    pub accumulated: SelectedFamilies<AccumulatedMetric>,
    /// Texts that are labels of every series of a GPU.
    pub info_labels: SelectedFamilies<InfoLabelSource>,
}

/// What selected families need of the links of a GPU, without duplicates.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LinkInputs {
    /// Fields of each `NVLink`.
    pub nvlink_fields: Vec<u32>,
    /// Fields of each `NVLink` of which the increase is needed.
    pub nvlink_rates: Vec<u32>,
    /// Error counters of each `NVLink`.
    pub nvlink_errors: Vec<u32>,
    /// Fields of each C2C link.
    pub c2c_fields: Vec<u32>,
}

/// The selected families of one slice of the catalogue.
#[derive(Debug)]
pub struct SelectedFamilies<S: 'static> {
    slice: &'static [Metric<S>],
    families: Vec<SelectedFamily<S>>,
    labels: Vec<SelectedFamily<S>>,
    /// By row of the slice, up to the last selected one.
    selected: Vec<bool>,
}

/// A row of the catalogue with its exported name, TYPE and HELP.
#[derive(Debug)]
pub struct SelectedFamily<S: 'static> {
    /// Exported name.
    pub name: Arc<str>,
    /// Exported TYPE.
    pub kind: Kind,
    /// Exported HELP.
    pub help: Arc<str>,
    /// Index of the row in its slice.
    pub row: usize,
    /// The row of the catalogue.
    pub metric: &'static Metric<S>,
}

impl Selection {
    /// Selects the rows of `requests`, in their order within each slice. A name that is requested
    /// twice is exported once.
    #[must_use]
    pub fn of(requests: &[FamilyRequest], frame: SelectionScope) -> Self {
        let mut names = BTreeSet::new();
        let requests: Vec<&FamilyRequest> =
            requests.iter().filter(|request| names.insert(&*request.name)).collect();
        Self {
            scope: frame,
            node: SelectedFamilies::of(NODE, &requests),
            device: SelectedFamilies::of(DEVICE, &requests),
            event: SelectedFamilies::of(EVENT, &requests),
            instance: SelectedFamilies::of(INSTANCE, &requests),
            allocated_fraction: SelectedFamilies::of(ALLOCATED_FRACTION, &requests),
            container: SelectedFamilies::of(CONTAINER, &requests),
            memory_account: SelectedFamilies::of(MEMORY_ACCOUNT, &requests),
            activity: SelectedFamilies::of(ACTIVITY, &requests),
            process: SelectedFamilies::of(PROCESS, &requests),
            illegal: SelectedFamilies::of(ILLEGAL, &requests),
            accumulated: SelectedFamilies::of(ACCUMULATED, &requests),
            info_labels: SelectedFamilies::of(INFO_LABELS, &requests),
        }
    }

    /// Ids of the GPM metrics of a GPU or GPU instance, without duplicates.
    #[must_use]
    pub fn instance_gpm_metrics(&self) -> Vec<u32> {
        let mut ids = self.instance.gpm_metrics();
        if !self.activity.is_empty() {
            ids.extend(self.activity.gpm_metrics());
            ids.sort_unstable();
            ids.dedup();
        }
        ids
    }

    /// Whether clock event reasons are counted, so that they have to be read every cycle.
    #[must_use]
    pub fn needs_clock_events(&self) -> bool {
        self.needs(EventInput::ClockEvents)
    }

    /// Whether the peer-to-peer status of GPU pairs is selected.
    #[must_use]
    pub fn needs_peer_status(&self) -> bool {
        self.needs(EventInput::Peers)
    }

    /// Whether the states of `NVLink` links are selected.
    #[must_use]
    pub fn needs_link_states(&self) -> bool {
        self.needs(EventInput::Links)
    }

    /// Whether GPU health is selected, so that its readings have to be taken every cycle.
    #[must_use]
    pub fn needs_health(&self) -> bool {
        self.needs(EventInput::Health)
    }

    /// What selected families need of the links of a GPU.
    #[must_use]
    pub fn link_inputs(&self) -> LinkInputs {
        fn add(list: &mut Vec<u32>, numbers: &[u32]) {
            let new: Vec<u32> = numbers.iter().filter(|n| !list.contains(n)).copied().collect();
            list.extend(new);
        }
        let mut inputs = LinkInputs::default();
        for family in self.event.families() {
            match family.metric.source.needs {
                EventInput::NvLinkField(field) => add(&mut inputs.nvlink_fields, &[field]),
                EventInput::NvLinkRate(fields) => add(&mut inputs.nvlink_rates, fields),
                EventInput::NvLinkErrors(counter) => add(&mut inputs.nvlink_errors, &[counter]),
                EventInput::C2cField(field) => add(&mut inputs.c2c_fields, &[field]),
                EventInput::Xids
                | EventInput::ClockEvents
                | EventInput::Peers
                | EventInput::Links
                | EventInput::Platform
                | EventInput::Health
                | EventInput::SlowHealth => {}
            }
        }
        inputs
    }

    /// Whether the place of the GPU in its rack is selected.
    #[must_use]
    pub fn needs_platform(&self) -> bool {
        self.needs(EventInput::Platform)
    }

    fn needs(&self, input: EventInput) -> bool {
        self.event.all().any(|family| family.metric.source.needs == input)
    }

    /// Whether minimum, mean or maximum of the GPU utilization within a cycle are selected.
    #[must_use]
    pub fn needs_utilization_samples(&self) -> bool {
        let mut families = self.device.all();
        families.any(|family| matches!(family.metric.source, DeviceSource::Sampled(_)))
    }

    /// Whether energy by owner is selected, so that the energy counter has to be read every cycle.
    #[must_use]
    pub fn needs_energy(&self) -> bool {
        self.accumulated.families().iter().any(|family| family.metric.source.is_energy())
    }

    /// Whether a selected family or option needs the process lists.
    #[must_use]
    pub fn needs_processes(&self) -> bool {
        self.has_process_families() || self.scope.virtual_gpus
    }

    fn has_process_families(&self) -> bool {
        !self.process.is_empty()
            || !self.illegal.is_empty()
            || !self.accumulated.is_empty()
            || !self.memory_account.is_empty()
            || !self.activity.is_empty()
    }

    /// Whether a selected family depends on containers: their usage or their allocations.
    #[must_use]
    pub fn has_container_families(&self) -> bool {
        self.has_process_families()
            || !self.container.is_empty()
            || !self.allocated_fraction.is_empty()
    }
}

impl<S> SelectedFamilies<S> {
    fn of(rows: &'static [Metric<S>], requests: &[&FamilyRequest]) -> Self {
        let mut selected = vec![false; rows.len()];
        let (mut families, mut labels) = (Vec::new(), Vec::new());
        for request in requests {
            let found = rows.iter().enumerate().find(|(_, metric)| metric.name == request.row);
            let Some((row, metric)) = found else { continue };
            if let Some(selected) = selected.get_mut(row) {
                *selected = true;
            }
            let group = if request.kind.is_some() { &mut families } else { &mut labels };
            group.push(SelectedFamily {
                name: Arc::clone(&request.name),
                kind: request.kind.unwrap_or(metric.kind),
                help: Arc::clone(&request.help),
                row,
                metric,
            });
        }
        let end = selected.iter().rposition(|selected| *selected).map_or(0, |last| last + 1);
        selected.truncate(end);
        Self { slice: rows, families, labels, selected }
    }

    /// The families that have series, in the order of the exposition.
    #[must_use]
    pub fn families(&self) -> &[SelectedFamily<S>] {
        &self.families
    }

    /// The rows that are labels of other series.
    #[must_use]
    pub fn labels(&self) -> &[SelectedFamily<S>] {
        &self.labels
    }

    /// All selected rows: those with series and those that are labels.
    pub fn all(&self) -> impl Iterator<Item = &SelectedFamily<S>> {
        self.families.iter().chain(&self.labels)
    }

    /// Number of families that have series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.families.len()
    }

    /// Whether no family has series.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.families.is_empty()
    }

    /// Number of rows of the slice up to the last selected one.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.selected.len()
    }

    /// The row at index `row` of the slice, if it is selected.
    #[must_use]
    pub fn metric(&self, row: usize) -> Option<&'static Metric<S>> {
        if *self.selected.get(row)? { self.slice.get(row) } else { None }
    }
}

impl SelectedFamilies<DeviceSource> {
    /// Ids of the GPM metrics of all selected rows, without duplicates. They are read every cycle:
    /// a metric is a mean since the previous GPM sample.
    #[must_use]
    pub fn gpm_metrics(&self) -> Vec<u32> {
        let ids = self.all().filter_map(|family| family.metric.source.gpm());
        let mut ids: Vec<u32> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

impl<S> Default for SelectedFamilies<S> {
    fn default() -> Self {
        Self { slice: &[], families: Vec::new(), labels: Vec::new(), selected: Vec::new() }
    }
}
