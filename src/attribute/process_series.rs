//! Series and usage of the processes and containers of one device.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::partition_processes::{AttributedProcess, PartitionProcesses};
use super::verdict::{self, HolderState, IdleEvidence, Verdict};
use super::{AttributionContext, ProcessSeries};
use crate::labels::{Labels, ProcessLabelValues, WorkloadLabels};
use crate::model::{
    AllocateMode, ContainerIdentity, DeviceAllocation, EngineUtilization, Gpu, Missing, Owner,
    ProcessSample, Usage, ZeroDoubt,
};
use crate::sample::partition::PartitionSample;

/// A device with its processes.
#[derive(Clone, Copy)]
pub(super) struct AttributedPartition<'a> {
    pub(super) context: &'a AttributionContext<'a>,
    pub(super) gpu: &'a Gpu,
    pub(super) partition: &'a PartitionSample,
    pub(super) processes: &'a PartitionProcesses<'a>,
    /// Containers with a process on a device that it is not allocated to, or not certainly.
    pub(super) unallocated_users: &'a BTreeSet<ContainerIdentity>,
}

/// A container that a device is allocated to, or that uses it.
#[derive(Clone, Copy)]
pub(super) struct DeviceUser<'a> {
    pub(super) container: &'a ContainerIdentity,
    pub(super) allocation: Option<&'a DeviceAllocation>,
    /// How the device is allocated to it or to its pod; `None` while that is unknown.
    pub(super) mode: Option<AllocateMode>,
}

/// Series of the processes of a device, and of its idle containers.
#[derive(Default)]
pub(super) struct ProcessTables {
    /// `DCGM_CUSTOM_PROCESS_*`.
    pub(super) processes: Vec<(Labels, Usage)>,
    /// `DCGM_CUSTOM_ILLEGAL_PROCESS_*`.
    pub(super) illegal: Vec<(Labels, Usage)>,
    /// Labels of the series of each process, in the order of the list; `None` without one.
    pub(super) labels: Vec<Option<Labels>>,
    /// Number of idle containers without a 0, by reason.
    pub(super) withheld_zeros: BTreeMap<ZeroDoubt, usize>,
}

/// Usage without a value.
pub(super) const PENDING: Usage =
    Usage { memory: Err(Missing::Pending), utilization: Err(Missing::Pending) };

impl<'a> AttributedPartition<'a> {
    /// UUID by which the device is allocated.
    pub(super) fn device(&self) -> &'a str {
        self.partition.device_uuid(self.gpu)
    }

    /// The allocation of the container to which all use of the device, or of its GPU instance,
    /// belongs: it is allocated the whole device, and nothing else is known or possible on it.
    pub(super) fn only_user(&self) -> Option<&'a DeviceAllocation> {
        let [allocation] = self.context.allocation.allocations_of(self.device()) else {
            return None;
        };
        let mig = self.partition.mig.as_deref();
        let is_whole = allocation.mode == AllocateMode::Exclusive
            && self.partition.reports_instance
            && !mig.is_some_and(|mig| mig.shares_instance);
        let is_own = |owner: &Owner| {
            owner.container().is_some_and(|owner| owner.matches(&allocation.container))
        };
        let processes = self.processes;
        let all_own = processes.processes.iter().all(|process| is_own(&process.owner))
            && processes.stale_owners.iter().all(is_own);
        (is_whole && allocation.confirmed && processes.is_complete() && all_own)
            .then_some(allocation)
    }

    /// Series of the processes and of the idle containers, with these info labels.
    pub(super) fn series(&self, info_labels: &[(Arc<str>, Arc<str>)]) -> ProcessTables {
        let mut tables = ProcessTables::default();
        // One series per container: the sum of its processes. Illegal ones have no mode.
        let mut sums = BTreeMap::<(Option<AllocateMode>, Option<&ContainerIdentity>), Usage>::new();
        for (sample, process) in self.processes.iter() {
            let mode = match process.verdict {
                Verdict::Process(mode) => Some(mode),
                Verdict::Illegal => None,
                Verdict::Withheld(_) => {
                    tables.labels.push(None);
                    continue;
                }
            };
            let container = process.owner.container();
            let usage = self.processes.containers.publishable(&process.owner, sample.usage);
            let labels = match self.context.process_series {
                ProcessSeries::PerProcess => {
                    let pid = sample.id.pid.to_string();
                    let labels = ProcessLabelValues {
                        pid: &pid,
                        name: &sample.name,
                        kind: sample.kind.label(),
                    };
                    let labels = self.labels(mode, container, Some(labels), info_labels);
                    tables.of(mode).push((labels.clone(), usage));
                    Some(labels)
                }
                ProcessSeries::PerContainer => {
                    let sum = sums.entry((mode, container));
                    sum.and_modify(|sum| *sum = sum.with(usage)).or_insert(usage);
                    None
                }
            };
            tables.labels.push(labels);
        }
        for ((mode, container), usage) in sums {
            let labels = ProcessLabelValues::default();
            let labels = self.labels(mode, container, Some(labels), info_labels);
            tables.of(mode).push((labels, usage));
        }
        self.add_zeros(info_labels, &mut tables);
        tables
    }

    /// Adds 0 for each container that is allocated the device and certainly idle on it.
    fn add_zeros(&self, info_labels: &[(Arc<str>, Arc<str>)], tables: &mut ProcessTables) {
        let pid = match self.context.process_series {
            ProcessSeries::PerProcess => "0",
            ProcessSeries::PerContainer => "",
        };
        let labels = ProcessLabelValues { pid, ..ProcessLabelValues::default() };
        for allocation in self.context.allocation.allocations_of(self.device()) {
            if self.is_listed(&allocation.container) {
                continue;
            }
            match self.idle(allocation) {
                Ok(usage) => {
                    let container = Some(&allocation.container);
                    let labels =
                        self.labels(Some(allocation.mode), container, Some(labels), info_labels);
                    tables.processes.push((labels, usage));
                }
                Err(doubt) => *tables.withheld_zeros.entry(doubt).or_default() += 1,
            }
        }
    }

    /// Labels of a process or container; without a mode it has no allocation.
    fn labels(
        &self,
        mode: Option<AllocateMode>,
        container: Option<&ContainerIdentity>,
        process: Option<ProcessLabelValues<'_>>,
        info_labels: &[(Arc<str>, Arc<str>)],
    ) -> Labels {
        let workload = WorkloadLabels {
            mode: mode.unwrap_or_default(),
            container: container.map(ContainerIdentity::names),
            process,
        };
        let mig = self.partition.mig.as_deref();
        self.context.schema.workload(self.gpu, mig, &workload, info_labels)
    }

    /// Labels of the series of a container.
    pub(super) fn container_labels(
        &self,
        container: &ContainerIdentity,
        mode: AllocateMode,
        info_labels: &[(Arc<str>, Arc<str>)],
    ) -> Labels {
        self.labels(Some(mode), Some(container), None, info_labels)
    }

    /// Whether the driver lists an entry of `container`.
    fn is_listed(&self, container: &ContainerIdentity) -> bool {
        self.listed_owners().any(|listed| listed.matches(container))
    }

    /// The containers of all entries in the process list, those of MPS servers included.
    fn listed_owners(&self) -> impl Iterator<Item = &'a ContainerIdentity> + use<'a> {
        let live = self.processes.processes.iter().map(|process| &process.owner);
        live.chain(&self.processes.stale_owners).filter_map(Owner::container)
    }

    /// Usage of a container without a listed process: 0 if that is certain.
    fn idle(&self, allocation: &DeviceAllocation) -> Result<Usage, ZeroDoubt> {
        let (users, resolver) = (self.unallocated_users, &self.context.owner_resolver);
        let evidence = IdleEvidence {
            // The state of a container is that of the last pod list.
            state: match (allocation.confirmed && resolver.has_all_pods(), allocation.running) {
                (false, _) => HolderState::Unconfirmed,
                (true, false) => HolderState::NotRunning,
                (true, true) => HolderState::Running,
            },
            listed_since: self.partition.listed_at > allocation.known_since,
            works_elsewhere: users.iter().any(|user| user.matches(&allocation.container)),
        };
        let device = self.processes.evidence_for(&allocation.container.pod.uid);
        verdict::idle(evidence, device)?;
        let utilization = self.partition.utilization.map(|_| EngineUtilization::default());
        Ok(Usage { memory: Ok(0), utilization })
    }

    /// Usage of the processes that are known to be of a container.
    fn known_usage(
        &self,
        container: &ContainerIdentity,
        allocation: Option<&DeviceAllocation>,
    ) -> Usage {
        match (self.processes.containers.get(container), allocation) {
            (Some(summary), _) => summary.usage,
            (None, Some(allocation)) if !self.is_listed(container) => {
                self.idle(allocation).unwrap_or(PENDING)
            }
            (None, _) => PENDING,
        }
    }

    /// Usage of the processes that are known to be of a user.
    pub(super) fn usage(&self, user: DeviceUser<'_>) -> Usage {
        self.known_usage(user.container, user.allocation)
    }

    /// Usage of a container; pending unless all processes of the device are known.
    pub(super) fn container_usage(
        &self,
        container: &ContainerIdentity,
        allocation: Option<&DeviceAllocation>,
    ) -> Usage {
        if self.processes.is_complete() { self.known_usage(container, allocation) } else { PENDING }
    }

    /// The containers that the device is allocated to, and those that have an entry in its process
    /// list without an allocation.
    pub(super) fn users(&self) -> Vec<DeviceUser<'a>> {
        let allocations = self.context.allocation.allocations_of(self.device());
        let listed: BTreeSet<_> = self.listed_owners().collect();
        let allocated = allocations.iter().map(|allocation| {
            let own = listed.iter().copied().find(|listed| listed.matches(&allocation.container));
            DeviceUser {
                container: own.unwrap_or(&allocation.container),
                allocation: Some(allocation),
                mode: Some(allocation.mode),
            }
        });
        let is_allocated = |container: &ContainerIdentity| {
            allocations.iter().any(|allocation| allocation.container.matches(container))
        };
        let others = listed.iter().filter(|listed| !is_allocated(listed)).map(|container| {
            let mode = match self.processes.verdict_on(container) {
                Some(Verdict::Process(mode)) => Some(mode),
                Some(Verdict::Illegal) => Some(AllocateMode::None),
                Some(Verdict::Withheld(_)) | None => None,
            };
            DeviceUser { container, allocation: None, mode }
        });
        allocated.chain(others).collect()
    }
}

impl ProcessTables {
    /// The family of processes with this mode; without one, they are illegal.
    fn of(&mut self, mode: Option<AllocateMode>) -> &mut Vec<(Labels, Usage)> {
        if mode.is_some() { &mut self.processes } else { &mut self.illegal }
    }
}

/// Values that count as published or missing: the usage of each process with a series.
pub(super) fn published_usages(partition: AttributedPartition<'_>) -> impl Iterator<Item = Usage> {
    let published = |(_, process): &(&ProcessSample, &AttributedProcess)| {
        !matches!(process.verdict, Verdict::Withheld(_))
    };
    let processes = partition.processes;
    processes.iter().filter(published).map(move |(sample, process)| {
        processes.containers.publishable(&process.owner, sample.usage)
    })
}
