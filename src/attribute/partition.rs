//! Series of one partition: allocations, instance readings, processes, and shares.

use super::activity::DeviceActivity;
use super::allocation_state::AllocationState;
use super::current_sample::CurrentSample;
use super::device::DeviceAttribution;
use super::framebuffer_balance::InstanceBalances;
use super::memory_account::allocation_values;
use super::missing_counts::MissingCounts;
use super::partition_processes::PartitionProcesses;
use super::partition_usage;
use super::process_series::{AttributedPartition, ProcessTables, published_usages};
use super::series_target::{InfoLabels, SeriesTarget};
use crate::catalog::{DeviceSource, GpuEventInputs};
use crate::labels::{Labels, OWNER, WorkloadLabels};
use crate::model::{
    AllocatedFraction, DeviceAllocation, Missing, OwnerClass, Reading, Usage, ZeroDoubt,
};
use crate::nvml::probe::mebibytes;
use crate::sample::partition::PartitionSample;
use crate::selection::SelectedFamilies;
use crate::snapshot::Entity;
use crate::snapshot::device_usage::PartitionUsage;

/// The series targets of a partition.
#[derive(Default)]
pub(super) struct PartitionTargets<'a> {
    /// The partition itself; `None` if it has no series.
    pub(super) device: Option<SeriesTarget<'a>>,
    /// Whether it has the readings of its GPU, too.
    pub(super) repeats_gpu: bool,
    /// Each container that shares it, if its series are repeated per container.
    pub(super) shares: Vec<(&'a DeviceAllocation, SeriesTarget<'a>)>,
}

/// A partition with its processes and targets.
pub(super) struct AddedPartition<'a> {
    pub(super) current: &'a CurrentSample<'a>,
    pub(super) partition: &'a PartitionSample,
    pub(super) processes: Result<&'a PartitionProcesses<'a>, Missing>,
    pub(super) targets: &'a PartitionTargets<'a>,
    pub(super) info_labels: &'a InfoLabels,
}

impl<'a> AddedPartition<'a> {
    /// UUID by which the partition is allocated.
    fn device(&self) -> &'a str {
        self.partition.device_uuid(&self.current.sample.gpu)
    }
}

impl DeviceAttribution<'_> {
    /// The partition with its processes.
    ///
    /// # Errors
    /// Why its process list is absent.
    fn attributed<'s>(
        &'s self,
        added: &AddedPartition<'s>,
    ) -> Result<AttributedPartition<'s>, Missing> {
        Ok(AttributedPartition {
            context: self.context,
            gpu: &added.current.sample.gpu,
            partition: added.partition,
            processes: added.processes?,
            unallocated_users: self.unallocated_users,
        })
    }

    /// Adds the readings of the GPU instance and the allocations. Returns the readings.
    pub(super) fn push_instance(
        &mut self,
        added: &AddedPartition<'_>,
        missing: &mut MissingCounts,
    ) -> Vec<Reading> {
        let AddedPartition { current, partition, .. } = *added;
        let mut readings = Vec::new();
        if partition.reports_instance {
            readings = current.readings(&partition.readings, &self.context.selection.instance);
            missing.add(readings.iter().copied());
        }
        let Some(target) = &added.targets.device else { return readings };
        if partition.reports_instance {
            let framebuffer = self.allocated_framebuffer(current, partition);
            let labels = target.label_sets(self.context.schema, &[]).into_iter();
            let fraction = AllocatedFraction { framebuffer };
            self.tables.allocated.extend(labels.map(|labels| (labels, fraction)));
            self.tables.instances.extend(self.entities(target, &readings));
        }
        self.push_allocations(added);
        readings
    }

    /// Allocated fraction of the framebuffer of a partition, 0 to 1.
    fn allocated_framebuffer(
        &self,
        current: &CurrentSample<'_>,
        partition: &PartitionSample,
    ) -> Reading {
        current.state?;
        let total = mebibytes(partition.framebuffer?.total);
        let table = match self.context.allocation {
            AllocationState::NoSource { .. } => return Err(Missing::Unsupported),
            AllocationState::Pending => return Err(Missing::Pending),
            AllocationState::Known(table) => table,
        };
        let instance = partition.mig.as_deref().map(|mig| mig.gpu_instance);
        let in_instance =
            |other: &&PartitionSample| other.mig.as_deref().map(|mig| mig.gpu_instance) == instance;
        let partitions = current.sample.partitions.iter().filter(in_instance);
        let fractions = partitions
            .map(|partition| table.allocated(partition.device_uuid(&current.sample.gpu), total));
        let sum: Option<f64> = fractions.sum();
        sum.map(|sum| sum.min(1.0)).ok_or(Missing::Pending)
    }

    /// Adds the series of allocations of a partition, used or not, while the GPU can be read.
    fn push_allocations(&mut self, added: &AddedPartition<'_>) {
        if added.current.state.is_err() {
            return;
        }
        for allocation in self.context.allocation.allocations_of(added.device()) {
            let container = Some(allocation.container.names());
            let workload = WorkloadLabels { mode: allocation.mode, container, process: None };
            let (gpu, mig) = (&added.current.sample.gpu, added.partition.mig.as_deref());
            let labels = self.context.schema.workload(gpu, mig, &workload, added.info_labels);
            let listed = || {
                let attributed = self.attributed(added)?;
                attributed.container_usage(&allocation.container, Some(allocation)).memory
            };
            let values = allocation_values(self.context, added.partition, allocation, listed);
            self.tables.containers.push((labels, values));
        }
    }

    /// Adds the series of the processes and of the idle containers. `readings` are those of the GPU
    /// instance.
    pub(super) fn push_processes(
        &mut self,
        added: &AddedPartition<'_>,
        readings: Vec<Reading>,
        missing: &mut MissingCounts,
        balances: &mut InstanceBalances,
    ) -> PartitionUsage {
        let AddedPartition { current, partition, .. } = *added;
        let mut usage = PartitionUsage {
            mig: partition.mig.clone(),
            framebuffer: current.state.and(partition.framebuffer),
            readings,
            containers: Vec::new(),
            processes: Ok(Vec::new()),
        };
        let attributed = match self.attributed(added) {
            Ok(attributed) => attributed,
            Err(reason) => {
                // Without a list the number of missing series is unknown: each family counts once.
                missing.add_repeated(reason, self.context.selection.process.len());
                balances.mark_incomplete(partition);
                let allocations = self.context.allocation.allocations_of(added.device());
                usage.containers = partition_usage::unknown_usages(allocations, reason);
                usage.processes = Err(reason);
                if self.context.selection.needs_processes() {
                    self.count_withheld_zeros(ZeroDoubt::NoProcessList, allocations.len());
                }
                return usage;
            }
        };
        for published in published_usages(attributed) {
            let families = self.context.selection.process.families().iter();
            missing.add(families.map(|family| (family.metric.source)(&published)));
        }
        balances.add(partition, partition_usage::framebuffer_by_owner(attributed));
        usage.containers = partition_usage::container_usages(attributed);
        usage.processes = Ok(partition_usage::process_usages(attributed));
        let tables = attributed.series(added.info_labels);
        let activity = self.activity(added, attributed, &tables);
        let container_activity = self.container_activity(added, attributed);
        self.activity.extend(activity);
        self.tables.activity.extend(container_activity);
        self.count_owners(added);
        self.push_tables(added, tables);
        usage
    }

    /// Activity of the container that alone holds the device.
    fn container_activity(
        &self,
        added: &AddedPartition<'_>,
        attributed: AttributedPartition<'_>,
    ) -> Option<Entity> {
        let selected = &self.context.selection.activity;
        if selected.is_empty() || added.targets.device.is_none() {
            return None;
        }
        let allocation = attributed.only_user()?;
        let container = Some(allocation.container.names());
        let workload = WorkloadLabels { mode: allocation.mode, container, process: None };
        let (gpu, mig) = (&added.current.sample.gpu, added.partition.mig.as_deref());
        let labels = self.context.schema.workload(gpu, mig, &workload, added.info_labels);
        let readings = added.current.readings(&added.partition.activity, selected);
        Some(Entity { labels, readings })
    }

    fn push_tables(&mut self, added: &AddedPartition<'_>, tables: ProcessTables) {
        for (doubt, n) in tables.withheld_zeros {
            self.count_withheld_zeros(doubt, n);
        }
        if added.targets.device.is_some() {
            self.tables.processes.extend(tables.processes);
            self.tables.illegal.extend(tables.illegal);
        }
    }

    fn count_withheld_zeros(&mut self, doubt: ZeroDoubt, n: usize) {
        if n > 0 {
            let n = u64::try_from(n).unwrap_or(u64::MAX);
            *self.stats.withheld_zeros.entry(doubt).or_default() += n;
        }
    }

    fn count_owners(&mut self, added: &AddedPartition<'_>) {
        let Ok(processes) = added.processes else { return };
        for process in &processes.processes {
            if let Some(evidence) = process.owner_evidence {
                let key = (evidence, process.owner.kind());
                *self.stats.attributed.entry(key).or_default() += 1;
            }
        }
        for reason in processes.unresolved() {
            *self.stats.unresolved.entry(reason).or_default() += 1;
        }
    }

    /// Activity of a partition that has series, if an accumulated family is selected.
    fn activity(
        &self,
        added: &AddedPartition<'_>,
        attributed: AttributedPartition<'_>,
        tables: &ProcessTables,
    ) -> Option<DeviceActivity> {
        let target = added.targets.device.as_ref()?;
        let selection = self.context.selection;
        if selection.accumulated.is_empty() {
            return None;
        }
        let sample = added.current.sample;
        let energy = if added.partition.mig.is_none() { sample.energy } else { None };
        let activity = partition_usage::activity(
            attributed,
            sample.at.mono,
            energy.unwrap_or(Err(Missing::Unsupported)),
            &tables.labels,
            added.info_labels,
        );
        let owner_labels =
            if selection.needs_energy() { self.owner_class_labels(target) } else { Vec::new() };
        Some(DeviceActivity { owner_labels, ..activity })
    }

    /// Label sets of the device series that are divided by owner class.
    fn owner_class_labels(&self, target: &SeriesTarget<'_>) -> Vec<(OwnerClass, Labels)> {
        let sets = |class: &OwnerClass| {
            let sets = target.label_sets(self.context.schema, &[(OWNER, class.label())]);
            sets.into_iter().map(|labels| (*class, labels)).collect::<Vec<_>>()
        };
        OwnerClass::OF_ENERGY.iter().flat_map(sets).collect()
    }

    /// Repeats the series of a shared device for each of its containers.
    pub(super) fn push_shares(
        &mut self,
        added: &AddedPartition<'_>,
        readings: &[Reading],
        inputs: &GpuEventInputs<'_>,
    ) {
        let AddedPartition { current, partition, targets, .. } = *added;
        let selection = self.context.selection;
        for (allocation, target) in &targets.shares {
            let usage = match self.attributed(added) {
                Ok(attributed) => {
                    attributed.container_usage(&allocation.container, Some(allocation))
                }
                Err(reason) => Usage { memory: Err(reason), utilization: Err(reason) },
            };
            if targets.repeats_gpu {
                let readings = per_container_readings(&selection.device, readings, &usage);
                self.push_gpu(target, &readings, inputs);
            }
            if partition.reports_instance {
                let readings = current.readings(&partition.readings, &selection.instance);
                let readings = per_container_readings(&selection.instance, &readings, &usage);
                self.tables.instances.extend(self.entities(target, &readings));
            }
        }
    }
}

/// Readings of a shared GPU for the series of one of its containers: the container's own value
/// where the family has one, else the value of the GPU.
fn per_container_readings(
    selected: &SelectedFamilies<DeviceSource>,
    readings: &[Reading],
    usage: &Usage,
) -> Vec<Reading> {
    let sources = selected.families().iter().map(|family| family.metric.source);
    let reading = |(source, reading): (DeviceSource, &Reading)| {
        source.usage().map_or(*reading, |of| of(usage))
    };
    sources.zip(readings).map(reading).collect()
}
