//! Attributes the processes of one GPU or MIG device to containers, selects the metric family of
//! each, and emits 0 for idle containers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::activity::{ContainerActivity, DeviceActivity, ProcessActivity};
use super::allocation_table::DeviceAllocation;
use super::family::{AllocationState, ProcessFamily, process_family};
use super::framebuffer_accounting::{FramebufferByOwner, MemoryOwner};
use super::owner::{ContainerIdentity, Owner, Unresolved};
use super::{AttributionContext, ProcessSeries};
use crate::labels::{Labels, ProcessLabelValues, WorkloadLabels};
use crate::model::{
    AllocateMode, DeviceProcesses, EngineUtilization, Gpu, Missing, ProcessSample, Reading,
    StaleProcessEntry, Usage,
};
use crate::policy::is_mps_server;
use crate::sample::partition::PartitionSample;
use crate::snapshot::device_usage::{ContainerUsage, ProcessInfo, ProcessUsage};
use crate::snapshot::{AttributionStats, Tables};

/// Attribution of the processes of one partition.
pub(super) struct ProcessAttribution<'a> {
    context: &'a AttributionContext<'a>,
    gpu: &'a Gpu,
    partition: &'a PartitionSample,
    now: Duration,
    stats: &'a mut AttributionStats,
    /// Containers with an entry in the driver's process list.
    busy: BTreeSet<ContainerIdentity>,
    /// An entry of the process list has an unknown owner or family.
    has_unresolved: bool,
    /// Usages with a series.
    published: Vec<Usage>,
    /// One activity per listed process, in the order of the list.
    activities: Vec<ProcessActivity>,
    info_labels: &'a [(Arc<str>, Arc<str>)],
    /// Usage per container, with one series per container.
    sums: BTreeMap<(ProcessSeriesKey, Option<ContainerIdentity>), Usage>,
}

/// A family and an allocation mode, as a map key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ProcessSeriesKey {
    Process(AllocateMode),
    Illegal,
}

impl<'a> ProcessAttribution<'a> {
    pub(super) fn new(
        context: &'a AttributionContext<'a>,
        gpu: &'a Gpu,
        partition: &'a PartitionSample,
        now: Duration,
        stats: &'a mut AttributionStats,
    ) -> Self {
        Self {
            context,
            gpu,
            partition,
            now,
            stats,
            busy: BTreeSet::new(),
            has_unresolved: false,
            published: Vec::new(),
            activities: Vec::new(),
            info_labels: &[],
            sums: BTreeMap::new(),
        }
    }

    /// Adds the series of the listed processes and of the idle containers. Returns the framebuffer
    /// use by class of owner.
    pub(super) fn add_processes(
        &mut self,
        listing: &DeviceProcesses,
        info_labels: &'a [(Arc<str>, Arc<str>)],
        tables: &mut Tables,
    ) -> FramebufferByOwner {
        self.info_labels = info_labels;
        let mut by_owner = FramebufferByOwner::default();
        let owners: Vec<Owner> =
            listing.processes.iter().map(|process| self.resolve(process)).collect();
        let containers = ContainerSummaries::of(&listing.processes, &owners);
        for (position, (process, owner)) in listing.processes.iter().zip(owners).enumerate() {
            self.add_process(process, owner, containers.get(position), &mut by_owner, tables);
        }
        for entry in &listing.stale_entries {
            self.add_stale_entry(entry, &mut by_owner);
        }
        self.push_sums(tables);
        self.push_idle(tables);
        by_owner
    }

    /// Usages with a process series.
    pub(super) fn usages(&self) -> &[Usage] {
        &self.published
    }

    fn resolve(&mut self, process: &ProcessSample) -> Owner {
        let (owner, evidence) = match &process.location {
            Ok(location) => self.context.owner_resolver.resolve(location, process.first_seen),
            Err(discard) => (Owner::Unknown((*discard).into()), None),
        };
        if let Some(evidence) = evidence {
            let key = (evidence.label(), owner.label());
            *self.stats.attributed.entry(key).or_default() += 1;
        }
        owner
    }

    fn add_process(
        &mut self,
        process: &ProcessSample,
        owner: Owner,
        summary: Option<&ContainerSummary>,
        by_owner: &mut FramebufferByOwner,
        tables: &mut Tables,
    ) {
        let mps_server = is_mps_server(&process.name);
        by_owner.add(memory_owner(&owner, mps_server), process.usage.memory);
        if let Owner::Container(container) = &owner {
            self.busy.insert(container.clone());
        }
        let has_source = !matches!(self.context.allocation, AllocationState::NoSource { .. });
        // An MPS server works for its clients and has no allocation of its own.
        let labels = if mps_server && has_source {
            None
        } else {
            let device = self.partition.device_uuid(self.gpu);
            // The allocations of a container do not change while it runs.
            let seen = summary.map_or(process.first_seen, |summary| summary.first_seen);
            match process_family(&owner, device, seen, self.now, self.context.allocation) {
                Ok(family) => {
                    let usage =
                        summary.map_or(process.usage, |summary| summary.publishable(process.usage));
                    self.push_usage(family, &owner, process, usage, tables)
                }
                Err(unresolved) => {
                    self.count_unresolved(unresolved);
                    None
                }
            }
        };
        self.activities.push(ProcessActivity {
            id: process.id,
            owner,
            usage: process.usage,
            labels,
        });
    }

    fn count_unresolved(&mut self, unresolved: Unresolved) {
        self.has_unresolved = true;
        *self.stats.unresolved.entry(unresolved.label()).or_default() += 1;
    }

    fn push_usage(
        &mut self,
        family: ProcessFamily,
        owner: &Owner,
        process: &ProcessSample,
        usage: Usage,
        tables: &mut Tables,
    ) -> Option<Labels> {
        self.published.push(usage);
        let container = match owner {
            Owner::Container(container) => Some(container),
            Owner::Host | Owner::NonPodContainer | Owner::Unknown(_) => None,
        };
        match self.context.process_series {
            ProcessSeries::PerProcess => {
                let pid = process.id.pid.to_string();
                let kind = process.kind.label();
                let process_labels = ProcessLabelValues { pid: &pid, name: &process.name, kind };
                Some(self.push(family.into(), container, process_labels, usage, tables))
            }
            ProcessSeries::PerContainer => {
                let sum = self.sums.entry((family.into(), container.cloned()));
                sum.and_modify(|sum| *sum = sum.with(usage)).or_insert(usage);
                None
            }
        }
    }

    fn push_sums(&mut self, tables: &mut Tables) {
        for ((key, container), usage) in std::mem::take(&mut self.sums) {
            self.push(key, container.as_ref(), ProcessLabelValues::default(), usage, tables);
        }
    }

    /// Emits 0 for each container that is allocated this device and has no process on it. Only
    /// valid if the process list is complete and every listed process has a known owner.
    fn push_idle(&mut self, tables: &mut Tables) {
        let AllocationState::Known(table) = self.context.allocation else { return };
        if !self.is_complete() {
            return;
        }
        let idle = self.idle();
        let process_labels = match self.context.process_series {
            ProcessSeries::PerProcess => {
                ProcessLabelValues { pid: "0", ..ProcessLabelValues::default() }
            }
            ProcessSeries::PerContainer => ProcessLabelValues::default(),
        };
        for allocation in table.of_device(self.partition.device_uuid(self.gpu)) {
            let runs = allocation.running && allocation.confirmed;
            if runs && !self.busy.iter().any(|busy| busy.matches(&allocation.container)) {
                let key = ProcessSeriesKey::Process(allocation.mode);
                self.push(key, Some(&allocation.container), process_labels, idle, tables);
            }
        }
    }

    fn push(
        &self,
        key: ProcessSeriesKey,
        container: Option<&ContainerIdentity>,
        process_labels: ProcessLabelValues<'_>,
        usage: Usage,
        tables: &mut Tables,
    ) -> Labels {
        let (mode, table) = match key {
            ProcessSeriesKey::Process(mode) => (mode, &mut tables.processes),
            ProcessSeriesKey::Illegal => (AllocateMode::None, &mut tables.illegal),
        };
        let workload = WorkloadLabels {
            mode,
            container: container.map(ContainerIdentity::names),
            process: Some(process_labels),
        };
        let mig = self.partition.mig.as_deref();
        let labels = self.context.schema.workload(self.gpu, mig, &workload, self.info_labels);
        table.push((labels.clone(), usage));
        labels
    }

    /// Usage of a container without a listed process.
    fn idle(&self) -> Usage {
        let utilization = self.partition.utilization.map(|_| EngineUtilization::default());
        Usage { memory: Ok(0), utilization }
    }

    /// Usage of a container; pending unless the process list is complete.
    pub(super) fn container_usage(&self, container: &ContainerIdentity) -> Usage {
        if self.is_complete() { self.usage(container) } else { PENDING }
    }

    /// Usage of the processes that are known to be of a container.
    fn usage(&self, container: &ContainerIdentity) -> Usage {
        let own = |process: &&ProcessActivity| match &process.owner {
            Owner::Container(owner) => owner.matches(container),
            Owner::Host | Owner::NonPodContainer | Owner::Unknown(_) => false,
        };
        let own = self.activities.iter().filter(own).map(|process| process.usage);
        let is_listed = self.busy.iter().any(|busy| busy.matches(container));
        let allocations =
            self.context.allocation.allocations_of(self.partition.device_uuid(self.gpu));
        let allocation =
            allocations.iter().find(|allocation| allocation.container.matches(container));
        let runs = allocation.is_none_or(|allocation| allocation.running && allocation.confirmed);
        let certain = self.is_complete() && !is_listed && runs;
        own.reduce(Usage::with).unwrap_or_else(|| if certain { self.idle() } else { PENDING })
    }

    /// Whether the process list is known to be complete (host PID namespace) and every entry is
    /// resolved.
    fn is_complete(&self) -> bool {
        !self.has_unresolved && self.context.host_pids == Some(true)
    }

    /// Activity of the partition in the cycle that began at `at` (monotonic). `energy` is the
    /// energy counter of its GPU, joules.
    pub(super) fn into_activity(self, at: Duration, energy: Reading) -> DeviceActivity {
        DeviceActivity {
            device: self.partition.device_uuid(self.gpu).into(),
            at,
            window: self.partition.utilization,
            energy,
            complete: self.is_complete(),
            containers: self.containers(),
            processes: self.activities,
            owner_labels: Vec::new(),
        }
    }

    /// The containers that the partition is allocated to, each with its allocation, and those that
    /// have a process on it without an allocation.
    fn users(&self) -> impl Iterator<Item = (&ContainerIdentity, Option<&DeviceAllocation>)> {
        let allocations =
            self.context.allocation.allocations_of(self.partition.device_uuid(self.gpu));
        let known =
            |container| self.busy.iter().find(|busy| busy.matches(container)).unwrap_or(container);
        let allocated = allocations
            .iter()
            .map(move |allocation| (known(&allocation.container), Some(allocation)));
        let has_allocation = |busy: &&ContainerIdentity| {
            allocations.iter().any(|allocation| allocation.container.matches(busy))
        };
        let unallocated = self.busy.iter().filter(move |busy| !has_allocation(busy));
        allocated.chain(unallocated.map(|busy| (busy, None)))
    }

    fn containers(&self) -> Vec<ContainerActivity> {
        let activity =
            |(container, allocation): (&ContainerIdentity, Option<&DeviceAllocation>)| {
                let mode = mode(allocation);
                let workload =
                    WorkloadLabels { mode, container: Some(container.names()), process: None };
                let mig = self.partition.mig.as_deref();
                ContainerActivity {
                    container: container.clone(),
                    usage: self.usage(container),
                    labels: self.context.schema.workload(
                        self.gpu,
                        mig,
                        &workload,
                        self.info_labels,
                    ),
                }
            };
        self.users().map(activity).collect()
    }

    /// Usage of each container that the partition is allocated to or that uses it.
    pub(super) fn container_usages(&self) -> Vec<ContainerUsage> {
        let usage = |(container, allocation): (&ContainerIdentity, Option<&DeviceAllocation>)| {
            ContainerUsage {
                container: container.into(),
                mode: mode(allocation),
                allocation: allocation.map(DeviceAllocation::series_values),
                usage: self.container_usage(container),
            }
        };
        self.users().map(usage).collect()
    }

    /// Usage of each entry of the process list. Call it after [`Self::add_processes`].
    pub(super) fn process_usages(&self, listing: &DeviceProcesses) -> Vec<ProcessUsage> {
        let running = listing.processes.iter().zip(&self.activities).map(|(process, activity)| {
            ProcessUsage {
                process: Some(ProcessInfo {
                    pid: process.id.pid,
                    name: Arc::clone(&process.name),
                    kind: process.kind,
                }),
                owner: (&activity.owner).into(),
                usage: process.usage,
            }
        });
        let stale = listing.stale_entries.iter().map(|entry| ProcessUsage {
            process: None,
            owner: (&self.owner_of(entry)).into(),
            usage: Usage { memory: entry.memory, ..PENDING },
        });
        running.chain(stale).collect()
    }

    fn owner_of(&self, entry: &StaleProcessEntry) -> Owner {
        let location = entry.location.as_deref();
        let owner =
            location.map(|location| self.context.owner_resolver.resolve(location, self.now).0);
        owner.unwrap_or_else(|| Owner::Unknown(entry.reason.into()))
    }

    /// The memory of a stale entry is still in use. Its owner is unknown unless the cgroup of the
    /// exited process is still cached.
    fn add_stale_entry(&mut self, entry: &StaleProcessEntry, by_owner: &mut FramebufferByOwner) {
        let owner = self.owner_of(entry);
        by_owner.add(memory_owner(&owner, false), entry.memory);
        match owner {
            Owner::Container(container) => drop(self.busy.insert(container)),
            Owner::Host | Owner::NonPodContainer => {}
            Owner::Unknown(_) => self.count_unresolved(entry.reason.into()),
        }
    }
}

/// What the processes of each container on one device have in common.
struct ContainerSummaries {
    summaries: Vec<ContainerSummary>,
    /// Position in `summaries` of the container of each process; `None` for processes without one.
    of_process: Vec<Option<usize>>,
}

struct ContainerSummary {
    first_seen: Duration,
    /// The first reason why a process of the container has no memory value.
    memory: Result<(), Missing>,
    /// Likewise for utilization.
    utilization: Result<(), Missing>,
}

impl ContainerSummaries {
    fn of(processes: &[ProcessSample], owners: &[Owner]) -> Self {
        let mut positions = HashMap::<&ContainerIdentity, usize>::new();
        let mut summaries: Vec<ContainerSummary> = Vec::new();
        let mut of_process = Vec::with_capacity(processes.len());
        for (process, owner) in processes.iter().zip(owners) {
            let Owner::Container(container) = owner else {
                of_process.push(None);
                continue;
            };
            let position = *positions.entry(container).or_insert(summaries.len());
            of_process.push(Some(position));
            if position == summaries.len() {
                summaries.push(ContainerSummary::new(process));
            } else if let Some(summary) = summaries.get_mut(position) {
                summary.add(process);
            }
        }
        Self { summaries, of_process }
    }

    /// Summary of the container of the process at `position`.
    fn get(&self, position: usize) -> Option<&ContainerSummary> {
        self.summaries.get((*self.of_process.get(position)?)?)
    }
}

impl ContainerSummary {
    fn new(process: &ProcessSample) -> Self {
        let mut state =
            Self { first_seen: process.first_seen, memory: Ok(()), utilization: Ok(()) };
        state.add(process);
        state
    }

    fn add(&mut self, process: &ProcessSample) {
        self.first_seen = self.first_seen.min(process.first_seen);
        // The use of an MPS server belongs to its clients, which are listed themselves.
        if !is_mps_server(&process.name) {
            self.memory = self.memory.and(process.usage.memory.map(|_| ()));
            self.utilization = self.utilization.and(process.usage.utilization.map(|_| ()));
        }
    }

    /// Usage of a process as it may be published: a value is withheld if another process of the
    /// container lacks it, because a sum or mean over the rest would be wrong.
    fn publishable(&self, usage: Usage) -> Usage {
        Usage {
            memory: self.memory.and(usage.memory),
            utilization: self.utilization.and(usage.utilization),
        }
    }
}

fn mode(allocation: Option<&DeviceAllocation>) -> AllocateMode {
    allocation.map_or(AllocateMode::None, |allocation| allocation.mode)
}

const PENDING: Usage = Usage { memory: Err(Missing::Pending), utilization: Err(Missing::Pending) };

impl From<ProcessFamily> for ProcessSeriesKey {
    fn from(family: ProcessFamily) -> Self {
        match family {
            ProcessFamily::Process(mode) => Self::Process(mode),
            ProcessFamily::Illegal => Self::Illegal,
        }
    }
}

fn memory_owner(owner: &Owner, mps_server: bool) -> MemoryOwner {
    match owner {
        _ if mps_server => MemoryOwner::MpsServer,
        Owner::Container(_) => MemoryOwner::Container,
        Owner::Host | Owner::NonPodContainer => MemoryOwner::Host,
        Owner::Unknown(_) => MemoryOwner::Unknown,
    }
}
