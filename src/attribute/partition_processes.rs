//! The processes of one GPU or MIG device, with their owners and verdicts.

use std::time::Duration;

use super::AttributionContext;
use super::allocation_state::AllocationState;
use super::container_summary::ContainerSummaries;
use super::owner::OwnerResolver;
use super::verdict::{self, DeviceEvidence, MpsClients, ProcessEvidence, Verdict};
use crate::model::{
    ContainerIdentity, DeviceProcesses, Discard, Gpu, Missing, Owner, OwnerEvidence, PodRef,
    ProcessKind, ProcessSample, StaleProcessEntry, Unresolved, Usage,
};
use crate::policy::{MPS_SERVER_FRAMEBUFFER_MAX, NON_POD_CONTAINER_DELAY, is_mps_server};
use crate::sample::partition::PartitionSample;

/// The processes of one device.
pub(super) struct PartitionProcesses<'a> {
    pub(super) listing: &'a DeviceProcesses,
    /// In the order of the list.
    pub(super) processes: Vec<AttributedProcess>,
    /// Owner of each stale entry, in the order of the list.
    pub(super) stale_owners: Vec<Owner>,
    pub(super) containers: ContainerSummaries,
    evidence: DeviceEvidence,
    /// Whether the pod of a process or entry is not certain.
    has_unknown_pod: bool,
    /// UIDs of pods with a process of an unknown container.
    uncertain_pods: Vec<Box<str>>,
}

/// Owner and verdict of a process.
pub(super) struct AttributedProcess {
    pub(super) owner: Owner,
    /// How the owner was resolved; `None` if it is unknown.
    pub(super) owner_evidence: Option<OwnerEvidence>,
    pub(super) verdict: Verdict,
}

impl AttributedProcess {
    /// Whether its owner is not certain.
    fn is_uncertain(&self) -> bool {
        match self.verdict {
            Verdict::Process(_)
            | Verdict::Illegal
            | Verdict::Withheld(Unresolved::MpsServer | Unresolved::Allocation) => false,
            Verdict::Withheld(_) => true,
        }
    }

    /// UID of its pod, if only its container is not certain.
    fn known_pod<'s>(
        &self,
        process: &'s ProcessSample,
        resolver: &'s OwnerResolver<'_>,
    ) -> Option<&'s str> {
        let location = process.location.as_ref().ok()?;
        let is_known = self.verdict == Verdict::Withheld(Unresolved::NoContainer);
        resolver.pod_uid(location).filter(|_| is_known)
    }
}

impl<'a> PartitionProcesses<'a> {
    /// Attributes the processes of `partition`.
    pub(super) fn new(
        context: &AttributionContext<'_>,
        gpu: &Gpu,
        partition: &'a PartitionSample,
        listing: &'a DeviceProcesses,
    ) -> Self {
        let resolver = &context.owner_resolver;
        let device = partition.device_uuid(gpu);
        let owners = owners(context, listing, device);
        let stale_owners: Vec<_> =
            listing.stale_entries.iter().map(|entry| stale_owner(resolver, entry)).collect();
        let mut evidence = device_evidence(context, partition, listing, (&owners, &stale_owners));
        let containers = summaries(resolver, listing, &owners, &stale_owners, evidence);
        let attribute = |process: &ProcessSample, owner: Owner, owner_evidence| {
            let allocation = match &owner {
                // The allocations of a container do not change while it runs.
                Owner::Container(container) => context.allocation.evidence(
                    container,
                    device,
                    containers
                        .get(container)
                        .map_or(process.first_seen, |summary| summary.first_seen),
                ),
                Owner::Host | Owner::NonPodContainer | Owner::Unknown(_) => {
                    context.allocation.without_container()
                }
            };
            let process = process_evidence(process, resolver.now);
            let verdict = verdict::verdict(process, &owner, allocation, evidence);
            AttributedProcess { owner, owner_evidence, verdict }
        };
        let processes: Vec<_> = (listing.processes.iter().zip(owners))
            .map(|(process, (owner, owner_evidence))| attribute(process, owner, owner_evidence))
            .collect();
        let uncertain = listing.processes.iter().zip(&processes);
        let uncertain: Vec<Option<&str>> = uncertain
            .filter(|(_, attributed)| attributed.is_uncertain())
            .map(|(process, attributed)| attributed.known_pod(process, resolver))
            .collect();
        let has_unknown_pod = uncertain.contains(&None)
            || stale_owners.iter().any(|owner| matches!(owner, Owner::Unknown(_)));
        let uncertain_pods: Vec<_> = uncertain.into_iter().flatten().map(Box::from).collect();
        evidence.unresolved_process = has_unknown_pod || !uncertain_pods.is_empty();
        Self {
            listing,
            processes,
            stale_owners,
            containers,
            evidence,
            has_unknown_pod,
            uncertain_pods,
        }
    }

    /// The evidence on which an idle container of the pod with this UID rests: a process of an unknown
    /// container is one of its own pod.
    pub(super) fn evidence_for(&self, pod_uid: &str) -> DeviceEvidence {
        let is_of_pod = self.uncertain_pods.iter().any(|uid| **uid == *pod_uid);
        DeviceEvidence { unresolved_process: self.has_unknown_pod || is_of_pod, ..self.evidence }
    }

    /// Whether each process on the device is known, and its owner.
    pub(super) fn is_complete(&self) -> bool {
        let DeviceEvidence { mps_clients, lists_all_processes, unresolved_process, unlisted_use } =
            self.evidence;
        let hides_clients = mps_clients == MpsClients::Hidden;
        lists_all_processes && !unresolved_process && !hides_clients && unlisted_use.is_none()
    }

    /// Verdict on the processes of `container`; `None` if the device has none of it that runs.
    pub(super) fn verdict_on(&self, container: &ContainerIdentity) -> Option<Verdict> {
        let is_own = |process: &&AttributedProcess| {
            process.owner.container().is_some_and(|owner| owner.matches(container))
        };
        self.processes.iter().find(is_own).map(|process| process.verdict)
    }

    /// Containers with a process on the device that it is not allocated to, or not certainly.
    pub(super) fn unallocated_users(&self) -> impl Iterator<Item = &ContainerIdentity> {
        self.processes.iter().filter_map(|process| match (&process.owner, process.verdict) {
            (
                Owner::Container(container),
                Verdict::Illegal | Verdict::Withheld(Unresolved::Allocation),
            ) => Some(container),
            _ => None,
        })
    }

    /// Why entries of the list have no series.
    pub(super) fn unresolved(&self) -> impl Iterator<Item = Unresolved> {
        let processes = self.processes.iter().filter_map(|process| match process.verdict {
            Verdict::Withheld(reason) => Some(reason),
            Verdict::Process(_) | Verdict::Illegal => None,
        });
        let entries = self.stale_entries().filter(|(_, owner)| matches!(owner, Owner::Unknown(_)));
        let entries = entries.map(|(entry, _)| entry.reason.into());
        processes.chain(entries)
    }

    /// Processes with their owners and verdicts.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a ProcessSample, &AttributedProcess)> {
        self.listing.processes.iter().zip(&self.processes)
    }

    /// Stale entries with their owners.
    pub(super) fn stale_entries(&self) -> impl Iterator<Item = (&'a StaleProcessEntry, &Owner)> {
        self.listing.stale_entries.iter().zip(&self.stale_owners)
    }
}

type ResolvedOwner = (Owner, Option<OwnerEvidence>);

/// The owners of the processes of `device`, in their order.
fn owners(
    context: &AttributionContext<'_>,
    listing: &DeviceProcesses,
    device: &str,
) -> Vec<ResolvedOwner> {
    let resolver = &context.owner_resolver;
    let resolve = |process: &ProcessSample| match &process.location {
        Ok(location) => resolver.resolve(location),
        Err(discard) => (Owner::Unknown((*discard).into()), None),
    };
    let mut owners: Vec<_> = listing.processes.iter().map(resolve).collect();
    for (index, process) in listing.processes.iter().enumerate() {
        let unknown = Owner::Unknown(Unresolved::NoContainer);
        if owners.get(index).is_some_and(|(owner, _)| *owner == unknown)
            && let Some(container) = sandboxed_owner(context, process, device)
            && !owners.iter().any(|owner| has_own_cgroup(owner, &container.pod))
            && let Some(owner) = owners.get_mut(index)
        {
            *owner = (Owner::Container(container), Some(OwnerEvidence::Inferred));
        }
    }
    owners
}

/// Whether a process is in the cgroup of a container of `pod`, which has then no sandbox.
fn has_own_cgroup((owner, evidence): &ResolvedOwner, pod: &PodRef) -> bool {
    *evidence != Some(OwnerEvidence::Inferred)
        && owner.container().is_some_and(|container| container.pod.uid == pod.uid)
}

/// The only container of a sandboxed pod that holds the device.
fn sandboxed_owner(
    context: &AttributionContext<'_>,
    process: &ProcessSample,
    device: &str,
) -> Option<ContainerIdentity> {
    let AllocationState::Known(table) = context.allocation else { return None };
    let resolver = &context.owner_resolver;
    if !process_evidence(process, resolver.now).settled {
        return None;
    }
    let sandboxed = resolver.sandboxed_pod(process.location.as_ref().ok()?)?;
    table.only_holder(&sandboxed.pod.id, device).cloned()
}

fn stale_owner(resolver: &OwnerResolver<'_>, entry: &StaleProcessEntry) -> Owner {
    match entry.location.as_deref() {
        Some(location) => resolver.resolve(location).0,
        None => Owner::Unknown(entry.reason.into()),
    }
}

/// The processes of each container, without MPS servers: their use is that of their clients.
fn summaries(
    resolver: &OwnerResolver<'_>,
    listing: &DeviceProcesses,
    owners: &[ResolvedOwner],
    stale_owners: &[Owner],
    evidence: DeviceEvidence,
) -> ContainerSummaries {
    let own = listing.processes.iter().zip(owners).filter(|(process, (owner, _))| {
        !verdict::serves_mps_clients(process_evidence(process, resolver.now), owner, evidence)
    });
    let mut containers = ContainerSummaries::of(own.map(|(process, (owner, _))| (process, owner)));
    for (entry, owner) in listing.stale_entries.iter().zip(stale_owners) {
        // The process is alive, and what it uses is unknown.
        if matches!(entry.reason, Discard::Denied | Discard::Unreadable) {
            let (memory, utilization) = (Err(Missing::Denied), Err(Missing::Denied));
            containers.add(owner, resolver.now, Usage { memory, utilization });
            if matches!(owner, Owner::Unknown(_)) {
                containers.withhold(None, Missing::Denied);
            }
        }
    }
    let unknown =
        |(_, (owner, _)): &(&ProcessSample, &ResolvedOwner)| matches!(owner, Owner::Unknown(_));
    for (process, _) in listing.processes.iter().zip(owners).filter(unknown) {
        match &process.location {
            Err(Discard::Denied | Discard::Unreadable) => {
                containers.withhold(None, Missing::Denied);
            }
            Ok(location) => {
                if let Some(uid) = resolver.pod_uid(location) {
                    containers.withhold(Some(uid), Missing::Pending);
                }
            }
            Err(_) => {}
        }
    }
    containers
}

fn process_evidence(process: &ProcessSample, now: Duration) -> ProcessEvidence {
    ProcessEvidence {
        mps_server: is_mps_server(&process.name),
        settled: now.saturating_sub(process.first_seen) >= NON_POD_CONTAINER_DELAY,
    }
}

/// The evidence of a device; whether a process is unresolved is added later.
fn device_evidence(
    context: &AttributionContext<'_>,
    partition: &PartitionSample,
    listing: &DeviceProcesses,
    (owners, stale_owners): (&[ResolvedOwner], &[Owner]),
) -> DeviceEvidence {
    let mut processes = listing.processes.iter().zip(owners);
    let has_clients = processes.clone().any(|(process, _)| process.kind == ProcessKind::Mps);
    // A process in a pod with the name of a server is not known to be one.
    let server = processes
        .find(|(process, (owner, _))| is_mps_server(&process.name) && *owner == Owner::Host);
    // A process of the host with a name that cannot be read may be a server.
    let is_unnamed = |(entry, owner): (&StaleProcessEntry, &Owner)| {
        *owner == Owner::Host && matches!(entry.reason, Discard::Denied | Discard::Unreadable)
    };
    let hides_clients = server
        .is_some_and(|(server, _)| !listing.lists_mps_clients || is_at_work(&server.usage))
        || listing.stale_entries.iter().zip(stale_owners).any(is_unnamed);
    DeviceEvidence {
        mps_clients: match (has_clients, hides_clients) {
            (true, _) => MpsClients::Listed,
            (false, true) => MpsClients::Hidden,
            (false, false) => MpsClients::None,
        },
        lists_all_processes: context.host_pids == Some(true),
        unresolved_process: false,
        unlisted_use: partition.unlisted_use,
    }
}

/// Whether an MPS server uses more than an idle server does. Before Volta the driver lists the
/// work and the memory of clients as those of the server.
fn is_at_work(usage: &Usage) -> bool {
    let holds = usage.memory.map_or(true, |memory| memory > MPS_SERVER_FRAMEBUFFER_MAX);
    let works = match usage.utilization {
        Ok(engines) => engines.sm > 0.0,
        // MIG devices have no utilization per process.
        Err(missing) => missing != Missing::Unsupported,
    };
    holds || works
}
