//! Series of all GPUs of a node.

use std::collections::BTreeSet;

use super::activity::DeviceActivity;
use super::series_target::{PodLabelCache, SeriesTarget};
use super::{AttributionContext, node_readings};
use crate::catalog::GpuEventInputs;
use crate::labels::Dialect;
use crate::model::{ContainerIdentity, NodeSample, Reading};
use crate::nvml::inventory::DriverInfo;
use crate::snapshot::device_usage::DeviceUsage;
use crate::snapshot::{AttributionStats, Entity, GpuHealth, Series, Tables};

/// Attribution results of all GPUs; they are added one by one.
pub(super) struct DeviceAttribution<'a> {
    pub(super) context: &'a AttributionContext<'a>,
    pub(super) driver: &'a DriverInfo,
    pub(super) node: &'a NodeSample,
    /// Containers with a process on a device that it is not allocated to, or not certainly.
    pub(super) unallocated_users: &'a BTreeSet<ContainerIdentity>,
    pub(super) pod_labels: &'a PodLabelCache,
    /// Number of GPU instances so far, over all GPUs of the node.
    pub(super) instances: u32,
    /// Readings of the node: once per GPU where the dialect repeats them, else empty.
    pub(super) nodes: Vec<Entity>,
    /// Series of devices, containers and processes.
    pub(super) tables: Tables,
    /// Activity of the devices that have series; empty unless an accumulated family is selected.
    pub(super) activity: Vec<DeviceActivity>,
    /// Containers and processes of each GPU.
    pub(super) device_usages: Vec<DeviceUsage>,
    /// Health of each GPU.
    pub(super) health: Vec<GpuHealth>,
    /// Statistics of process attribution.
    pub(super) stats: AttributionStats,
}

impl<'a> DeviceAttribution<'a> {
    pub(super) fn new(
        context: &'a AttributionContext<'a>,
        driver: &'a DriverInfo,
        node: &'a NodeSample,
        unallocated_users: &'a BTreeSet<ContainerIdentity>,
        pod_labels: &'a PodLabelCache,
    ) -> Self {
        Self {
            context,
            driver,
            node,
            unallocated_users,
            pod_labels,
            instances: 0,
            nodes: Vec::new(),
            tables: Tables::default(),
            activity: Vec::new(),
            device_usages: Vec::new(),
            health: Vec::new(),
            stats: AttributionStats::default(),
        }
    }

    /// Adds the series of a GPU, and those of the node where the dialect repeats them per GPU.
    pub(super) fn push_gpu(
        &mut self,
        target: &SeriesTarget<'_>,
        readings: &[Reading],
        inputs: &GpuEventInputs<'_>,
    ) {
        self.tables.devices.extend(self.entities(target, readings));
        if matches!(self.context.schema.dialect, Dialect::DcgmExporter(_)) {
            let node = node_readings(&self.context.selection.node, self.node);
            self.nodes.extend(self.entities(target, &node));
        }
        // Past events remain valid while the GPU cannot be read.
        for (index, family) in self.context.selection.event.families().iter().enumerate() {
            for sample in family.metric.samples(inputs) {
                let more: Vec<(&str, &str)> =
                    sample.labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
                let series = target.label_sets(self.context.schema, &more).into_iter();
                let reading = sample.reading;
                let series = series.map(|labels| Series { family: index, labels, reading });
                self.tables.events.extend(series);
            }
        }
    }

    pub(super) fn entities(
        &self,
        target: &SeriesTarget<'_>,
        readings: &[Reading],
    ) -> impl Iterator<Item = Entity> + use<> {
        let readings = readings.to_vec();
        let sets = target.label_sets(self.context.schema, &[]).into_iter();
        sets.map(move |labels| Entity { labels, readings: readings.clone() })
    }
}
