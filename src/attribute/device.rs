//! Series, usage and health of each GPU and its partitions.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::activity::{DeviceActivity, OwnerClass};
use super::allocation_table::DeviceAllocation;
use super::current_sample::CurrentSample;
use super::family::AllocationState;
use super::framebuffer_balance::InstanceBalances;
use super::owner::ContainerIdentity;
use super::processes::ProcessAttribution;
use super::{AttributionContext, DevicePodLabels, node_readings};
use crate::catalog::{DeviceSource, GpuEventInputs, InfoLabelSource};
use crate::kube::pods::UidLookup;
use crate::labels::{
    DeviceLabelInput, Dialect, HPC_JOB, Labels, OWNER, OwnerLabels, WorkloadLabels,
};
use crate::model::{
    AllocateMode, AllocatedFraction, ClockEventCounts, Gpu, HealthState, LinkStates, MigDevice,
    Missing, NO_CLAIM, NodeSample, Reading, Usage, XidState,
};
use crate::nvml::inventory::DriverInfo;
use crate::nvml::probe::mebibytes;
use crate::pod_labels::PodLabels;
use crate::sample::device::DeviceSample;
use crate::sample::partition::PartitionSample;
use crate::selection::{SelectedFamilies, SelectedFamily};
use crate::snapshot::device_usage::{ContainerUsage, DeviceUsage, PartitionUsage};
use crate::snapshot::{AttributionStats, Entity, GpuHealth, Series, Tables};

/// Attribution results of all GPUs; they are added one by one.
pub(super) struct DeviceAttribution<'a> {
    context: &'a AttributionContext<'a>,
    driver: &'a DriverInfo,
    node: &'a NodeSample,
    now: Duration,
    /// Number of GPU instances so far, over all GPUs of the node.
    instances: u32,
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
    /// Pod labels by pod UID.
    pod_labels: BTreeMap<Arc<str>, PodLabels>,
}

/// The GPU or GPU instance that a series describes, with the values of its labels.
struct SeriesTarget<'a> {
    gpu: &'a Gpu,
    mig: Option<&'a MigDevice>,
    info_labels: Cow<'a, InfoLabelPairs>,
    owner: Option<OwnerLabels<'a>>,
    jobs: &'a [Arc<str>],
}

/// Events of a GPU since the exporter started.
pub(super) struct GpuEvents<'a> {
    /// XID errors.
    pub(super) xids: &'a XidState,
    /// Counts of clock event reasons.
    pub(super) clocks: Result<ClockEventCounts, Missing>,
    /// Health watches.
    pub(super) health: Result<&'a HealthState, Missing>,
}

impl<'a> DeviceAttribution<'a> {
    pub(super) fn new(
        context: &'a AttributionContext<'a>,
        driver: &'a DriverInfo,
        node: &'a NodeSample,
        now: Duration,
    ) -> Self {
        Self {
            context,
            driver,
            node,
            now,
            instances: 0,
            nodes: Vec::new(),
            tables: Tables::default(),
            activity: Vec::new(),
            device_usages: Vec::new(),
            health: Vec::new(),
            stats: AttributionStats::default(),
            pod_labels: BTreeMap::new(),
        }
    }

    /// Number of pod labels that are not on the pod's device series, by reason.
    pub(super) fn dropped_pod_labels(&self) -> BTreeMap<&'static str, u64> {
        let dropped = self.pod_labels.values().flat_map(|labels| labels.dropped);
        let mut counts = BTreeMap::new();
        for (reason, n) in dropped.filter(|(_, n)| *n > 0) {
            *counts.entry(reason).or_default() += n;
        }
        counts
    }

    /// Adds a GPU and its events.
    pub(super) fn add(&mut self, current: &CurrentSample<'_>, events: &GpuEvents<'_>) {
        self.collect_pod_labels(&current.sample.gpu, &current.sample.partitions);
        let GpuEvents { xids, clocks, health } = *events;
        let selection = self.context.selection;
        let gpu = &*current.sample.gpu;
        let mut missing = MissingCounts::default();
        let readings = current.readings(&current.sample.readings, &selection.device);
        missing.add(&readings);
        if let Err(reason) = current.sample.partitions_complete {
            missing.add(&vec![Err(reason); selection.instance.len()]);
        }
        let inputs = GpuEventInputs {
            xids,
            // Earlier counts of a GPU that cannot be read are not its current state.
            clock_events: current.state.and(clocks),
            peers: if current.state.is_ok() { &current.sample.peers } else { &[] },
            links: current.state.and(links(current.sample)),
            health: current.state.and(health),
            state: current.state,
            windows: selection.scope.windows,
            label_last_xid: matches!(self.context.schema.dialect, Dialect::DcgmExporter(_)),
        };
        for family in selection.event.families() {
            let samples = (family.metric.source.read)(&inputs).into_iter();
            missing.add(&samples.map(|sample| sample.reading).collect::<Vec<_>>());
        }
        let info_labels = info_labels(&selection.info_labels, self.driver, current.sample);
        let mig_enabled = current.sample.partitions.iter().any(|partition| partition.mig.is_some());
        if selection.scope.devices.selects_gpu(gpu.index, mig_enabled) {
            let target = self.target(current, None, &info_labels);
            self.push_gpu(&target, &readings, &inputs);
            if let Some(cached) = &current.sample.mig_parent_readings {
                let readings = current.readings(cached, &selection.instance);
                self.tables.instances.extend(self.entities(&target, &readings));
            }
        }
        let mut balances = InstanceBalances::default();
        let mut partition_usages = Vec::with_capacity(current.sample.partitions.len());
        for partition in &current.sample.partitions {
            let is_selected = self.is_selected(gpu, partition);
            let repeats_gpu =
                partition.reports_instance && selection.scope.devices.repeats_gpu_readings();
            if is_selected && partition.mig.is_some() && repeats_gpu {
                self.push_gpu(
                    &self.target(current, Some(partition), &info_labels),
                    &readings,
                    &inputs,
                );
            }
            let selected_labels = is_selected.then_some(&info_labels);
            let (shared_usages, partition_usage) = self.add_partition(
                current,
                partition,
                selected_labels,
                &mut missing,
                &mut balances,
            );
            partition_usages.push(partition_usage);
            for (allocation, usage) in shared_usages.iter().filter(|_| is_selected) {
                let target =
                    self.target_of(current, Some(partition), &info_labels, Some(allocation));
                if partition.mig.is_none() || repeats_gpu {
                    let readings = per_container_readings(&selection.device, &readings, usage);
                    self.push_gpu(&target, &readings, &inputs);
                }
                if partition.reports_instance {
                    let readings = current.readings(&partition.readings, &selection.instance);
                    let readings = per_container_readings(&selection.instance, &readings, usage);
                    self.tables.instances.extend(self.entities(&target, &readings));
                }
            }
        }
        self.stats.framebuffer.extend(balances.into_balances(gpu));
        self.device_usages.push(DeviceUsage {
            limits: current.sample.limits,
            partitions_complete: current.state.and(current.sample.partitions_complete),
            partitions: partition_usages,
        });
        self.health.push(GpuHealth {
            gpu: Arc::clone(&current.sample.gpu),
            state: current.state,
            responded: current.gpu.pending_since.is_none(),
            sampled_at: current.sample.at,
            request_duration: current.gpu.request_duration,
            missing: missing.0,
            discards: current.sample.discards,
            xids: xids.counts.clone(),
            readings,
        });
    }

    /// Whether a partition has series. Also counts the GPU instances.
    fn is_selected(&mut self, gpu: &Gpu, partition: &PartitionSample) -> bool {
        let scope = &self.context.selection.scope.devices;
        if partition.mig.is_none() {
            return scope.selects_gpu(gpu.index, false);
        }
        self.instances += u32::from(partition.reports_instance);
        scope.selects_instance(self.instances.saturating_sub(1))
    }

    fn target<'s>(
        &self,
        current: &'s CurrentSample<'_>,
        partition: Option<&'s PartitionSample>,
        info_labels: &'s InfoLabelPairs,
    ) -> SeriesTarget<'s>
    where
        'a: 's,
    {
        let gpu = &*current.sample.gpu;
        let mig = partition.and_then(|partition| partition.mig.as_deref());
        let instance = mig.map(|mig| mig.gpu_instance);
        let exclusive = self.context.device_pods.and_then(|_| {
            let in_instance = |partition: &&PartitionSample| {
                partition.mig.as_deref().map(|mig| mig.gpu_instance) == instance
            };
            let partitions = current.sample.partitions.iter().filter(in_instance);
            let devices: Vec<&str> =
                partitions.map(|partition| partition.device_uuid(gpu)).collect();
            exclusive_allocation(self.context.allocation, &devices)
        });
        self.target_of(current, partition, info_labels, exclusive)
    }

    /// A target with the labels of the container of `allocation`.
    fn target_of<'s>(
        &self,
        current: &'s CurrentSample<'_>,
        partition: Option<&'s PartitionSample>,
        info_labels: &'s InfoLabelPairs,
        allocation: Option<&'s DeviceAllocation>,
    ) -> SeriesTarget<'s>
    where
        'a: 's,
    {
        let gpu = &*current.sample.gpu;
        let mig = partition.and_then(|partition| partition.mig.as_deref());
        let instance = mig.map(|mig| mig.gpu_instance);
        let replicas = self.context.selection.scope.virtual_gpus;
        let owner = self.context.device_pods.map(|pods| owner_labels(allocation, pods, replicas));
        let labels =
            allocation.and_then(|allocation| self.pod_labels.get(&allocation.container.pod.uid));
        let labels = labels.map_or(&[][..], |labels| &labels.shown);
        let info_labels = if labels.is_empty() {
            Cow::Borrowed(info_labels)
        } else {
            let mut all = [labels, info_labels].concat();
            all.sort();
            Cow::Owned(all)
        };
        let jobs = self.context.jobs.get(&(gpu.index, instance)).map_or(&[][..], Vec::as_slice);
        SeriesTarget { gpu, mig, info_labels, owner, jobs }
    }

    /// Collects the labels of the pods that the partitions of a GPU are allocated to.
    fn collect_pod_labels(&mut self, gpu: &Gpu, partitions: &[PartitionSample]) {
        let allowed = self.context.device_pods.and_then(|pods| pods.labels.as_ref());
        let (Some(allowed), Some(pods)) = (allowed, self.context.owner_resolver.pods) else {
            return;
        };
        let allocations = partitions.iter().flat_map(|partition| {
            self.context.allocation.allocations_of(partition.device_uuid(gpu))
        });
        for uid in allocations.map(|allocation| &allocation.container.pod.uid) {
            if let UidLookup::Live(tracked) = pods.by_uid(uid) {
                let labels = || {
                    let labels = tracked.pod.labels.iter().map(|(key, value)| (&**key, &**value));
                    allowed.allowed_labels(labels, self.context.reserved)
                };
                self.pod_labels.entry(Arc::clone(uid)).or_insert_with(labels);
            }
        }
    }

    /// Adds the series of a GPU, and those of the node where the dialect repeats them per GPU.
    fn push_gpu(
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
            for sample in (family.metric.source.read)(inputs) {
                let more: Vec<(&str, &str)> =
                    sample.labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
                let series = self.label_sets(target, &more).into_iter();
                let reading = sample.reading;
                let series = series.map(|labels| Series { family: index, labels, reading });
                self.tables.events.extend(series);
            }
        }
    }

    fn entities(
        &self,
        target: &SeriesTarget<'_>,
        readings: &[Reading],
    ) -> impl Iterator<Item = Entity> + use<> {
        let readings = readings.to_vec();
        let sets = self.label_sets(target, &[]).into_iter();
        sets.map(move |labels| Entity { labels, readings: readings.clone() })
    }

    /// Label sets of a target: one, or one per HPC job that runs on it.
    fn label_sets(&self, target: &SeriesTarget<'_>, more: &[(&str, &str)]) -> Vec<Labels> {
        let set = |more: &[(&str, &str)]| {
            let input = DeviceLabelInput {
                info_labels: &target.info_labels,
                owner: target.owner,
                extra_labels: more,
            };
            self.context.schema.device(target.gpu, target.mig, &input)
        };
        if target.jobs.is_empty() {
            return vec![set(more)];
        }
        let for_job = |job: &Arc<str>| set(&[more, &[(HPC_JOB, &**job)]].concat());
        target.jobs.iter().map(for_job).collect()
    }

    /// Adds a partition. `info_labels` are the info labels of the GPU; `None` if the partition has
    /// no series. Also returns the usage of each container that shares the device, if its series
    /// are repeated per container.
    fn add_partition(
        &mut self,
        current: &CurrentSample<'_>,
        partition: &PartitionSample,
        info_labels: Option<&InfoLabelPairs>,
        missing: &mut MissingCounts,
        balances: &mut InstanceBalances,
    ) -> (Vec<(&'a DeviceAllocation, Usage)>, PartitionUsage) {
        let (gpu, selection) = (&*current.sample.gpu, self.context.selection);
        let mut partition_usage = PartitionUsage {
            mig: partition.mig.clone(),
            framebuffer: current.state.and(partition.framebuffer),
            readings: Vec::new(),
            containers: Vec::new(),
            processes: Ok(Vec::new()),
        };
        if partition.reports_instance {
            let readings = current.readings(&partition.readings, &selection.instance);
            missing.add(&readings);
            if let Some(info_labels) = info_labels {
                let target = self.target(current, Some(partition), info_labels);
                let fraction = AllocatedFraction {
                    framebuffer: self.allocated_framebuffer(current, partition),
                };
                let labels = self.label_sets(&target, &[]).into_iter();
                self.tables.allocated.extend(labels.map(|labels| (labels, fraction)));
                self.tables.instances.extend(self.entities(&target, &readings));
            }
            partition_usage.readings = readings;
        }
        if let Some(info_labels) = info_labels {
            self.add_allocations(current, partition, info_labels);
        }
        let shared = selection
            .scope
            .virtual_gpus
            .then(|| shared_allocations(self.context.allocation, partition.device_uuid(gpu)));
        let shared = shared.into_iter().flatten();
        match current.process_list(partition) {
            Ok(listing) => {
                let mut processes = ProcessAttribution::new(
                    self.context,
                    gpu,
                    partition,
                    self.now,
                    &mut self.stats,
                );
                let mut hidden = Tables::default();
                let tables = if info_labels.is_some() { &mut self.tables } else { &mut hidden };
                let by_owner = processes.add_processes(
                    listing,
                    info_labels.map_or(&[], Vec::as_slice),
                    tables,
                );
                for usage in processes.usages() {
                    for family in selection.process.families() {
                        missing.add(&[(family.metric.source)(usage)]);
                    }
                }
                balances.add(partition, by_owner);
                partition_usage.containers = processes.container_usages();
                partition_usage.processes = Ok(processes.process_usages(listing));
                let shared_usages = shared
                    .map(|allocation| {
                        (allocation, processes.container_usage(&allocation.container))
                    })
                    .collect();
                if let (Some(info_labels), false) = (info_labels, selection.accumulated.is_empty())
                {
                    let energy = if partition.mig.is_none() { current.sample.energy } else { None };
                    let energy = energy.unwrap_or(Err(Missing::Unsupported));
                    let activity = processes.into_activity(current.sample.at.mono, energy);
                    let target = || self.target(current, Some(partition), info_labels);
                    let owner_labels =
                        selection.needs_energy().then(|| self.owner_class_labels(&target()));
                    let owner_labels = owner_labels.unwrap_or_default();
                    self.activity.push(DeviceActivity { owner_labels, ..activity });
                }
                (shared_usages, partition_usage)
            }
            // Without a list the number of missing series is unknown: each family counts once.
            Err(reason) => {
                missing.add(&vec![Err(reason); selection.process.len()]);
                balances.mark_incomplete(partition);
                let unknown = Usage { memory: Err(reason), utilization: Err(reason) };
                let container_usage = |allocation: &DeviceAllocation| ContainerUsage {
                    container: (&allocation.container).into(),
                    mode: allocation.mode,
                    allocation: Some(allocation.series_values()),
                    usage: unknown,
                };
                let allocations =
                    self.context.allocation.allocations_of(partition.device_uuid(gpu));
                partition_usage.containers = allocations.iter().map(container_usage).collect();
                partition_usage.processes = Err(reason);
                (shared.map(|allocation| (allocation, unknown)).collect(), partition_usage)
            }
        }
    }

    /// Label sets of the device series that are divided by owner class.
    fn owner_class_labels(&self, target: &SeriesTarget<'_>) -> Vec<(OwnerClass, Labels)> {
        let sets = |class: &OwnerClass| {
            let sets = self.label_sets(target, &[(OWNER, class.label())]).into_iter();
            sets.map(|labels| (*class, labels)).collect::<Vec<_>>()
        };
        OwnerClass::ALL.iter().flat_map(sets).collect()
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
    fn add_allocations(
        &mut self,
        current: &CurrentSample<'_>,
        partition: &PartitionSample,
        info_labels: &InfoLabelPairs,
    ) {
        let (Ok(()), AllocationState::Known(table)) = (current.state, self.context.allocation)
        else {
            return;
        };
        let gpu = &*current.sample.gpu;
        for allocation in table.of_device(partition.device_uuid(gpu)) {
            let container = Some(allocation.container.names());
            let workload = WorkloadLabels { mode: allocation.mode, container, process: None };
            let labels =
                self.context.schema.workload(gpu, partition.mig.as_deref(), &workload, info_labels);
            self.tables.containers.push((labels, allocation.series_values()));
        }
    }
}

/// Info labels of all series of a GPU: name and value, sorted by name.
pub(super) type InfoLabelPairs = Vec<(Arc<str>, Arc<str>)>;

fn info_labels(
    selected: &SelectedFamilies<InfoLabelSource>,
    driver: &DriverInfo,
    sample: &DeviceSample,
) -> InfoLabelPairs {
    let text = |family: &SelectedFamily<InfoLabelSource>| -> Option<Arc<str>> {
        match family.metric.source {
            InfoLabelSource::Driver(of) => Some(of(driver).into()),
            InfoLabelSource::Gpu(of) => Some(of(&sample.gpu).into()),
            InfoLabelSource::Read(_) => sample.info_labels.get(family.row)?.clone()?.ok(),
        }
    };
    let pair =
        |family: &SelectedFamily<InfoLabelSource>| Some((Arc::clone(&family.name), text(family)?));
    let known = selected.families().iter().filter_map(pair);
    let mut info_labels: InfoLabelPairs = known.filter(|(_, text)| !text.is_empty()).collect();
    info_labels.sort();
    info_labels
}

/// The exclusive allocation of the only device in `devices`; `None` if there is more than one
/// device, or if the device is shared, not allocated, or its allocations are unknown.
fn exclusive_allocation<'a>(
    state: AllocationState<'a>,
    devices: &[&str],
) -> Option<&'a DeviceAllocation> {
    let ([device], AllocationState::Known(table)) = (devices, state) else { return None };
    match table.of_device(device) {
        [allocation] if allocation.mode == AllocateMode::Exclusive => Some(allocation),
        _ => None,
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

/// Allocations of a device in mode [`AllocateMode::Share`].
fn shared_allocations<'a>(
    state: AllocationState<'a>,
    device: &str,
) -> impl Iterator<Item = &'a DeviceAllocation> {
    state.allocations_of(device).iter().filter(|allocation| allocation.mode == AllocateMode::Share)
}

/// Pod labels of a device series. They are empty without an allocation, not absent: otherwise a
/// scrape with `honor_labels` would add the labels of the exporter's own pod.
fn owner_labels<'a>(
    allocation: Option<&'a DeviceAllocation>,
    pods: &DevicePodLabels,
    replicas: bool,
) -> OwnerLabels<'a> {
    let identity = allocation.map(|allocation| &allocation.container);
    let (namespace, pod, container) = identity.map(ContainerIdentity::names).unwrap_or_default();
    let claim =
        || allocation.and_then(|allocation| allocation.claim.as_deref()).unwrap_or(&NO_CLAIM);
    OwnerLabels {
        namespace,
        pod,
        container,
        uid: pods.uid.then(|| identity.map_or("", |identity| &*identity.pod.uid)),
        claim: pods.claims.then(claim),
        replica: replicas.then(|| allocation.map_or("", |allocation| &*allocation.replica)),
    }
}

fn links(sample: &DeviceSample) -> Result<&LinkStates, Missing> {
    let links = sample.links.as_ref().ok_or(Missing::Pending)?;
    links.as_ref().map_err(|missing| *missing)
}

/// Number of absent readings by reason, indexed by [`Missing::position`].
#[derive(Default)]
struct MissingCounts([u64; Missing::REASONS.len()]);

impl MissingCounts {
    fn add(&mut self, readings: &[Reading]) {
        for missing in readings.iter().filter_map(|reading| reading.err()) {
            if let Some(n) = self.0.get_mut(missing.position()) {
                *n += 1;
            }
        }
    }
}
