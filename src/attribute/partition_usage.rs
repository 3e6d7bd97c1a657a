//! Usage and activity of one device, for the web page, the API and the accumulators.

use std::sync::Arc;
use std::time::Duration;

use super::activity::{ContainerActivity, DeviceActivity, ProcessActivity};
use super::framebuffer_accounting::FramebufferByOwner;
use super::memory_account::allocation_values;
use super::partition_processes::AttributedProcess;
use super::process_series::{AttributedPartition, DeviceUser, PENDING};
use super::series_target::InfoLabels;
use super::verdict::Verdict;
use crate::labels::Labels;
use crate::model::{
    DeviceAllocation, Missing, OwnerClass, ProcessSample, Reading, Unresolved, Usage,
};
use crate::snapshot::device_usage::{ContainerUsage, ProcessInfo, ProcessUsage};

/// Framebuffer use of a device by class of owner.
pub(super) fn framebuffer_by_owner(partition: AttributedPartition<'_>) -> FramebufferByOwner {
    let mut by_owner = FramebufferByOwner::default();
    for (sample, process) in partition.processes.iter() {
        by_owner.add(owner_class(process), sample.usage.memory);
    }
    // The memory of a stale entry is still in use.
    for (entry, owner) in partition.processes.stale_entries() {
        by_owner.add(owner.into(), entry.memory);
    }
    by_owner
}

fn owner_class(process: &AttributedProcess) -> OwnerClass {
    match process.verdict {
        Verdict::Withheld(Unresolved::MpsServer) => OwnerClass::MpsServer,
        Verdict::Process(_) | Verdict::Illegal | Verdict::Withheld(_) => (&process.owner).into(),
    }
}

/// Usage of each container that the device is allocated to or that uses it.
pub(super) fn container_usages(partition: AttributedPartition<'_>) -> Vec<ContainerUsage> {
    let usage = |user: DeviceUser<'_>| ContainerUsage {
        container: user.container.clone(),
        mode: user.mode,
        allocation: user.allocation.map(|allocation| {
            let listed = || partition.container_usage(user.container, user.allocation).memory;
            allocation_values(partition.context, partition.partition, allocation, listed)
        }),
        usage: partition.container_usage(user.container, user.allocation),
    };
    partition.users().into_iter().map(usage).collect()
}

/// Usage of the containers that a device without a readable process list is allocated to.
pub(super) fn unknown_usages(
    allocations: &[DeviceAllocation],
    reason: Missing,
) -> Vec<ContainerUsage> {
    let usage = |allocation: &DeviceAllocation| ContainerUsage {
        container: allocation.container.clone(),
        mode: Some(allocation.mode),
        allocation: Some(allocation.series_values()),
        usage: Usage { memory: Err(reason), utilization: Err(reason) },
    };
    allocations.iter().map(usage).collect()
}

/// Usage of each entry of the process list.
pub(super) fn process_usages(partition: AttributedPartition<'_>) -> Vec<ProcessUsage> {
    let running = |(sample, process): (&ProcessSample, &AttributedProcess)| ProcessUsage {
        process: Some(ProcessInfo {
            pid: sample.id.pid,
            name: Arc::clone(&sample.name),
            kind: sample.kind,
        }),
        owner: process.owner.clone(),
        usage: sample.usage,
    };
    let entries = partition.processes.stale_entries().map(|(entry, owner)| ProcessUsage {
        process: None,
        owner: owner.clone(),
        usage: Usage { memory: entry.memory, ..PENDING },
    });
    partition.processes.iter().map(running).chain(entries).collect()
}

/// Activity of the device in the cycle in which it was read at `at` (monotonic). `energy` is the
/// energy counter of its GPU, joules; `labels` are those of the series of each process.
pub(super) fn activity(
    partition: AttributedPartition<'_>,
    at: Duration,
    energy: Reading,
    labels: &[Option<Labels>],
    info_labels: &InfoLabels,
) -> DeviceActivity {
    let process =
        |((sample, process), labels): ((&ProcessSample, &AttributedProcess), &Option<Labels>)| {
            let labels = Clone::clone(labels);
            ProcessActivity {
                id: sample.id,
                owner: process.owner.clone(),
                usage: sample.usage,
                labels,
            }
        };
    let users = partition.users();
    // A pod and its successor can have one name: a series must not occur twice.
    let is_unique = |user: &DeviceUser<'_>| {
        let same = users.iter().filter(|other| other.container.names() == user.container.names());
        same.count() == 1
    };
    let container = |user: &DeviceUser<'_>| ContainerActivity {
        container: user.container.clone(),
        usage: partition.usage(*user),
        labels: user
            .mode
            .filter(|_| is_unique(user))
            .map(|mode| partition.container_labels(user.container, mode, info_labels)),
    };
    DeviceActivity {
        device: partition.device().into(),
        at,
        window: partition.partition.utilization,
        energy,
        complete: partition.processes.is_complete(),
        containers: users.iter().map(container).collect(),
        processes: partition.processes.iter().zip(labels).map(process).collect(),
        owner_labels: Vec::new(),
    }
}
