//! Series, usage and health of one GPU with its partitions.

use std::sync::Arc;

use super::current_sample::CurrentSample;
use super::device::DeviceAttribution;
use super::framebuffer_balance::InstanceBalances;
use super::missing_counts::MissingCounts;
use super::partition::{AddedPartition, PartitionTargets};
use super::partition_processes::PartitionProcesses;
use super::series_target::{GpuTargets, SeriesTarget};
use crate::catalog::GpuEventInputs;
use crate::labels::Dialect;
use crate::model::{
    AllocateMode, DeviceAllocation, HealthState, LinkStates, Missing, Reading, XidState,
};
use crate::sample::Sample;
use crate::sample::device::DeviceSample;
use crate::sample::partition::PartitionSample;
use crate::sample::unlisted_use::UnlistedUse;
use crate::snapshot::GpuHealth;
use crate::snapshot::device_usage::{DeviceUsage, PartitionUsage};

/// A GPU with the processes of each of its partitions.
pub(super) struct AttributedGpu<'a> {
    pub(super) current: CurrentSample<'a>,
    /// In the order of the partitions.
    pub(super) processes: Vec<Result<PartitionProcesses<'a>, Missing>>,
}

impl DeviceAttribution<'_> {
    /// Adds a GPU, with its events in the sample of the node.
    pub(super) fn add(&mut self, gpu: &AttributedGpu<'_>, node: &Sample) {
        let (current, sample) = (&gpu.current, gpu.current.sample);
        let xids = node.xids.get(&sample.gpu.uuid).cloned().unwrap_or_default();
        let inputs = self.event_inputs(current, &xids, node);
        let info_labels = self.gpu_labels(current, &inputs);
        let targets = GpuTargets {
            context: self.context,
            pod_labels: self.pod_labels,
            info_labels: &info_labels,
            sample,
        };
        let readings = current.readings(&sample.readings, &self.context.selection.device);
        let mut missing = self.missing_of_gpu(current, &readings, &inputs);
        self.push_whole_gpu(current, &targets, &readings, &inputs);
        let mut balances = InstanceBalances::default();
        let mut partition_usages = Vec::with_capacity(sample.partitions.len());
        for (partition, processes) in sample.partitions.iter().zip(&gpu.processes) {
            let info_labels = self.partition_labels(current, partition, &info_labels);
            let of_gpu = GpuTargets { info_labels: &info_labels, ..targets };
            let targets = self.partition_targets(&of_gpu, partition);
            let added = AddedPartition {
                current,
                partition,
                processes: processes.as_ref().map_err(|missing| *missing),
                targets: &targets,
                info_labels: &info_labels,
            };
            if targets.device.as_ref().is_some_and(SeriesTarget::waits_for_pod) {
                let known = readings.iter().filter(|reading| reading.is_ok()).count();
                missing.add_repeated(Missing::Pending, known);
            }
            if targets.repeats_gpu && partition.mig.is_some() {
                targets.device.iter().for_each(|target| self.push_gpu(target, &readings, &inputs));
            }
            let instance = self.push_instance(&added, &mut missing);
            let usage = self.push_processes(&added, instance, &mut missing, &mut balances);
            partition_usages.push(usage);
            self.push_shares(&added, &readings, &inputs);
        }
        self.stats.framebuffer.extend(balances.into_balances(&sample.gpu));
        self.device_usages.push(device_usage(current, partition_usages));
        self.health.push(GpuHealth {
            gpu: Arc::clone(&sample.gpu),
            state: current.state,
            responded: current.gpu.pending_since.is_none(),
            sampled_at: sample.at,
            request_duration: current.gpu.request_duration,
            missing: missing.counts(),
            discards: sample.discards,
            driver_clock_offset: sample.driver_clock_offset.filter(|_| current.state.is_ok()),
            refuses_all_rows: sample.refuses_all_rows && current.state.is_ok(),
            unlisted_use: unlisted_use(current),
            xids,
            health: health(current, node).cloned(),
            readings,
        });
    }

    /// Events of a GPU as inputs of its event families.
    fn event_inputs<'s>(
        &self,
        current: &CurrentSample<'s>,
        xids: &'s XidState,
        node: &'s Sample,
    ) -> GpuEventInputs<'s> {
        let uuid = &current.sample.gpu.uuid;
        let clock_events = node.clock_events.get(uuid).copied();
        let labeled = &current.sample.labeled;
        GpuEventInputs {
            xids,
            // Earlier counts of a GPU that cannot be read are not its current state.
            clock_events: current.state.and(clock_events.unwrap_or(Err(Missing::Pending))),
            peers: if current.state.is_ok() { &current.sample.peers } else { &[] },
            links: current.state.and(links(current.sample)),
            nvlink_fields: current.state.and(shared(labeled.nvlink_fields.as_ref())),
            nvlink_rates: current.state.and(shared(labeled.nvlink_rates.as_ref())),
            nvlink_errors: current.state.and(shared(labeled.nvlink_errors.as_ref())),
            c2c_fields: current.state.and(shared(labeled.c2c_fields.as_ref())),
            platform: current.state.and(shared(labeled.platform.as_ref())),
            health: health(current, node).map(Arc::as_ref),
            state: current.state,
            windows: self.context.selection.scope.windows,
            label_last_xid: matches!(self.context.schema.dialect, Dialect::DcgmExporter(_)),
        }
    }

    /// Missing readings of a GPU without those of its partitions.
    fn missing_of_gpu(
        &self,
        current: &CurrentSample<'_>,
        readings: &[Reading],
        inputs: &GpuEventInputs<'_>,
    ) -> MissingCounts {
        let mut missing = MissingCounts::default();
        missing.add(readings.iter().copied());
        if let Err(reason) = current.sample.partitions_complete {
            missing.add_repeated(reason, self.context.selection.instance.len());
        }
        for family in self.context.selection.event.families() {
            let samples = family.metric.samples(inputs).into_iter();
            missing.add(samples.map(|sample| sample.reading));
        }
        missing
    }

    /// Adds the series of the whole GPU, if it has any.
    fn push_whole_gpu(
        &mut self,
        current: &CurrentSample<'_>,
        targets: &GpuTargets<'_>,
        readings: &[Reading],
        inputs: &GpuEventInputs<'_>,
    ) {
        let sample = current.sample;
        let mig_enabled = sample.partitions.iter().any(|partition| partition.mig.is_some());
        let scope = &self.context.selection.scope.devices;
        if !scope.selects_gpu(sample.gpu.index, mig_enabled) {
            return;
        }
        let target = targets.device(None);
        self.push_gpu(&target, readings, inputs);
        if let Some(cached) = &sample.mig_parent_readings {
            let readings = current.readings(cached, &self.context.selection.instance);
            self.tables.instances.extend(self.entities(&target, &readings));
        }
    }

    /// The series targets of a partition. Also counts the GPU instances.
    fn partition_targets<'s>(
        &mut self,
        targets: &GpuTargets<'s>,
        partition: &'s PartitionSample,
    ) -> PartitionTargets<'s> {
        let scope = &self.context.selection.scope;
        let is_selected = if partition.mig.is_none() {
            scope.devices.selects_gpu(targets.sample.gpu.index, false)
        } else {
            self.instances += u32::from(partition.reports_instance);
            scope.devices.selects_instance(self.instances.saturating_sub(1))
        };
        if !is_selected {
            return PartitionTargets::default();
        }
        let shared = |allocation: &&DeviceAllocation| {
            scope.virtual_gpus && allocation.mode == AllocateMode::Share
        };
        let device = partition.device_uuid(&targets.sample.gpu);
        let allocations = targets.context.allocation.allocations_of(device).iter();
        PartitionTargets {
            device: Some(targets.device(Some(partition))),
            repeats_gpu: partition.mig.is_none()
                || (partition.reports_instance && scope.devices.repeats_gpu_readings()),
            shares: allocations
                .filter(shared)
                .map(|allocation| {
                    (allocation, targets.container(Some(partition), Some(allocation)))
                })
                .collect(),
        }
    }
}

fn device_usage(current: &CurrentSample<'_>, partitions: Vec<PartitionUsage>) -> DeviceUsage {
    DeviceUsage {
        limits: current.sample.limits,
        partitions_complete: current.state.and(current.sample.partitions_complete),
        partitions,
    }
}

/// Health of a GPU that can be read.
fn health<'s>(
    current: &CurrentSample<'_>,
    node: &'s Sample,
) -> Result<&'s Arc<HealthState>, Missing> {
    current.state.and(node.health.get(&current.sample.gpu.uuid).ok_or(Missing::Pending))
}

/// Use that no listed process of the GPU accounts for.
fn unlisted_use(current: &CurrentSample<'_>) -> Option<UnlistedUse> {
    current.state.ok()?;
    current.sample.partitions.iter().find_map(|partition| partition.unlisted_use)
}

/// A reading that is shared between cycles; pending if it is not selected.
fn shared<T>(reading: Option<&Result<Arc<T>, Missing>>) -> Result<&T, Missing> {
    reading.ok_or(Missing::Pending)?.as_deref().map_err(|missing| *missing)
}

fn links(sample: &DeviceSample) -> Result<&LinkStates, Missing> {
    let links = sample.links.as_ref().ok_or(Missing::Pending)?;
    links.as_ref().map_err(|missing| *missing)
}
