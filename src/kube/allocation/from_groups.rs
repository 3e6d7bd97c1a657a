//! Shares of GPUs that reservation pods hold for GPU groups (KAI Scheduler, Run:ai).
//!
//! The scheduler creates a reservation pod in its own namespace, to which the kubelet allocates a
//! whole GPU, and binds the pods of the group after that. These request nothing of the kubelet: their
//! labels name the group, their annotations the share. Both can be forged, reservation pods cannot:
//! without one that holds a GPU, a pod was allocated nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::from_annotations::Uncertainty;
use super::resolved_container::{AssignedDevice, ResolvedContainer};
use super::{AllocationDoubt, AllocationJoin, AllocationOrigin, AllocationProblem, pod_name};
use crate::kube::annotations::kai::{self, GroupShare};
use crate::kube::annotations::{GpuName, GpuShare};
use crate::kube::assignments::ClaimedDevice;
use crate::kube::pod::Pod;
use crate::kube::pod::container::Container;
use crate::kube::pods::{NameLookup, PodSnapshot, TrackedPod, UidLookup};
use crate::model::{AllocateMode, DeviceAllocation, PodRef};
use crate::policy;

/// What the kubelet allocates to a container of a reservation pod.
#[derive(Debug)]
pub(super) struct Reservation {
    pub(super) pod: PodRef,
    /// All devices that are known.
    pub(super) devices: Vec<Arc<str>>,
    /// The device, if it is the only one and a whole GPU.
    pub(super) gpu: Option<Arc<str>>,
    /// Whether the pod is known to still exist.
    pub(super) confirmed: bool,
}

/// The GPU of a group.
#[derive(Clone, Debug)]
enum GroupGpu {
    /// A reservation pod holds it.
    Held { device: Arc<str>, confirmed: bool, has_members: bool },
    /// It is one of these, or any if there are none.
    Unknown(BTreeSet<Arc<str>>),
}

type GpuGroups<'a> = BTreeMap<&'a str, GroupGpu>;

impl AllocationJoin<'_> {
    /// Whether this is a reservation pod. As long as its labels are unknown, its namespace decides.
    pub(super) fn is_reservation(&self, pod: &PodRef) -> bool {
        let in_group = || match self.pods.map(|pods| pods.by_uid(&pod.uid)) {
            Some(UidLookup::Live(tracked)) => !tracked.pod.gpu_groups().is_empty(),
            Some(UidLookup::Deleted(_) | UidLookup::Ambiguous | UidLookup::Unknown) | None => true,
        };
        self.options.is_reservation_namespace(&pod.namespace) && in_group()
    }

    /// Records the assignment to a container of a reservation pod.
    pub(super) fn add_reservation(&mut self, pod: &PodRef, resolved: &ResolvedContainer) {
        for (device, problem) in &resolved.unresolved {
            self.mark_unknown(pod_name(pod), device.as_ref(), *problem);
        }
        let is_whole = |assigned: &AssignedDevice| {
            assigned.evidence == AllocationOrigin::Id
                && assigned.mode == AllocateMode::Exclusive
                && self.index.is_gpu(&assigned.device)
        };
        let mut devices = resolved.devices.values();
        let only = devices.next().filter(|_| {
            devices.next().is_none()
                && resolved.claimed.is_empty()
                && resolved.unresolved.is_empty()
                && resolved.units.is_empty()
        });
        self.reservations.push(Reservation {
            pod: pod.clone(),
            devices: resolved
                .devices
                .values()
                .chain(&resolved.claimed)
                .map(|assigned| Arc::clone(&assigned.device))
                .collect(),
            gpu: only.filter(|only| is_whole(only)).map(|only| Arc::clone(&only.device)),
            confirmed: self.is_confirmed(pod),
        });
    }

    /// Adds the shares of pods in GPU groups. Call it after the assignments are joined.
    pub(super) fn join_groups(&mut self) {
        let reservations = std::mem::take(&mut self.reservations);
        for reservation in &reservations {
            // Its GPU is allocated to it, but not for its own use.
            for device in &reservation.devices {
                let doubt = AllocationDoubt::Device(Arc::clone(device));
                self.add_pod_doubt(pod_name(&reservation.pod), doubt);
            }
        }
        let Some(pods) = self.pods.filter(|pods| pods.synced) else {
            return self.doubt_listed_pods(&reservations);
        };
        let mut groups = self.gpu_groups(pods, &reservations);
        for tracked in pods.iter().filter(|tracked| !tracked.pod.has_ended()) {
            self.join_member(tracked, pods, &mut groups);
        }
        for gpu in groups.values() {
            // The first pod is not bound yet, or the last one is gone.
            if let GroupGpu::Held { device, has_members: false, .. } = gpu {
                self.mark_uncertain(device, AllocationProblem::NoMember);
            }
        }
    }

    /// Any pod may share the reserved GPUs while the labels of the pods are unknown.
    fn doubt_listed_pods(&mut self, reservations: &[Reservation]) {
        let assignments = self.assignments;
        for device in reservations.iter().flat_map(|reservation| &reservation.devices) {
            self.mark_uncertain(device, AllocationProblem::UnknownPod);
            for name in &assignments.pods {
                self.add_pod_doubt(name.clone(), AllocationDoubt::Device(Arc::clone(device)));
            }
        }
    }

    /// The groups that have a reservation pod.
    fn gpu_groups<'p>(
        &mut self,
        pods: &'p PodSnapshot,
        reservations: &[Reservation],
    ) -> GpuGroups<'p> {
        let mut groups = GpuGroups::new();
        let reserves = |tracked: &&TrackedPod| {
            self.options.is_reservation_namespace(&tracked.pod.id.namespace)
        };
        let mut reserving: Vec<_> = pods.iter().filter(reserves).collect();
        reserving.sort_unstable_by_key(|tracked| (tracked.pod.has_ended(), &tracked.pod.id.uid));
        for tracked in reserving {
            let own = reservations.iter().filter(|r| r.pod.uid == tracked.pod.id.uid);
            let gpu = self.group_gpu(tracked, &own.collect::<Vec<_>>());
            for group in tracked.pod.gpu_groups() {
                match groups.remove(group) {
                    None => groups.insert(group, gpu.clone()),
                    Some(earlier) if tracked.pod.has_ended() => groups.insert(group, earlier),
                    Some(earlier) => {
                        let devices: BTreeSet<_> = earlier.devices().chain(gpu.devices()).collect();
                        for device in &devices {
                            self.mark_uncertain(device, AllocationProblem::InvalidReservation);
                        }
                        groups.insert(group, GroupGpu::Unknown(devices))
                    }
                };
            }
        }
        groups
    }

    /// The GPU that a reservation pod holds.
    fn group_gpu(&mut self, tracked: &TrackedPod, reservations: &[&Reservation]) -> GroupGpu {
        let stated = kai::reserved_gpu(&tracked.pod).filter(|gpu| self.index.is_gpu(gpu));
        match reservations {
            [] => GroupGpu::Unknown(BTreeSet::new()),
            [Reservation { gpu: Some(gpu), confirmed, .. }]
                if stated.is_none_or(|stated| *stated == **gpu) =>
            {
                let device = Arc::clone(gpu);
                GroupGpu::Held { device, confirmed: *confirmed, has_members: false }
            }
            _ => {
                let held = reservations.iter().flat_map(|r| r.devices.iter().cloned());
                let devices: BTreeSet<_> = held.chain(stated.map(Arc::from)).collect();
                for device in &devices {
                    self.mark_uncertain(device, AllocationProblem::InvalidReservation);
                }
                GroupGpu::Unknown(devices)
            }
        }
    }

    /// Adds the shares of a pod, if it is in groups.
    fn join_member(
        &mut self,
        tracked: &TrackedPod,
        pods: &PodSnapshot,
        groups: &mut GpuGroups<'_>,
    ) {
        let pod = &tracked.pod;
        let names = pod.gpu_groups();
        if names.is_empty() || self.options.is_reservation_namespace(&pod.id.namespace) {
            return;
        }
        // The scheduler refuses such a pod.
        if self.has_own_gpus(pod) {
            return self.count_problem(AllocationProblem::UnrequestedAnnotation);
        }
        // A kubelet that ends a pod may have its successor of the same name, too: they have the same series.
        let PodRef { namespace, name, .. } = &pod.id;
        let share = match pods.by_name(namespace, name) {
            NameLookup::Ambiguous => Err(AllocationProblem::AmbiguousPod),
            NameLookup::One(_) | NameLookup::Deleted(_) | NameLookup::Unknown => kai::parse(pod),
        };
        for group in names {
            let gpu = groups.get_mut(group);
            let Some(GroupGpu::Held { device, confirmed, has_members }) = gpu else {
                self.count_problem(AllocationProblem::NoReservation);
                self.doubt_member(tracked, group, gpu.as_deref(), pods);
                continue;
            };
            *has_members = true;
            match share
                .map_err(|problem| (Some(Arc::clone(device)), problem))
                .and_then(|share| self.member_allocation(tracked, share, device, *confirmed))
            {
                Ok(allocation) => {
                    self.candidates.push((AllocationOrigin::Group, allocation));
                }
                Err((device, problem)) => {
                    self.mark_unknown(pod_name(&pod.id), device.as_ref(), problem);
                }
            }
        }
    }

    /// Whether a pod requests GPUs, or uses a listed claim of some: the spec does not state the driver of a claim.
    fn has_own_gpus(&self, pod: &Pod) -> bool {
        let assigned = self.assignments.containers.iter();
        let mut own = assigned.filter(|assigned| {
            (&assigned.namespace, &assigned.pod) == (&pod.id.namespace, &pod.id.name)
        });
        pod.containers.iter().any(Container::requests_gpu)
            || own.any(|assigned| assigned.claims.iter().any(ClaimedDevice::may_be_gpu))
    }

    fn member_allocation(
        &self,
        tracked: &TrackedPod,
        share: GroupShare,
        device: &Arc<str>,
        confirmed: bool,
    ) -> Result<DeviceAllocation, Uncertainty> {
        let GroupShare { container, memory } = share;
        let share =
            GpuShare { container, gpu: GpuName::Uuid((**device).into()), memory, compute: 0.0 };
        let allocation = self.share_allocation(tracked, &share, false)?;
        Ok(DeviceAllocation { confirmed: confirmed && allocation.confirmed, ..allocation })
    }

    /// Records that it is not known what a pod was allocated as a member of a group. The amounts of
    /// its devices are known to be unknown from the reservation pods.
    fn doubt_member(
        &mut self,
        tracked: &TrackedPod,
        group: &str,
        gpu: Option<&GroupGpu>,
        pods: &PodSnapshot,
    ) {
        let name = pod_name(&tracked.pod.id);
        if gpu.is_none() {
            let (known_from, may_hold) = self.unreserved_from(tracked, group, pods);
            let completeness = &mut self.result.completeness;
            if may_hold {
                let until = &mut completeness.reservation_lost_until;
                *until = known_from.max(*until);
            }
            if pods.is_current() && !self.hidden_reservation {
                completeness.unreserved.insert(name, known_from);
                return;
            }
        }
        let doubts = gpu.into_iter().flat_map(GroupGpu::devices).map(AllocationDoubt::Device);
        let doubts: Vec<_> = doubts.collect();
        if doubts.is_empty() {
            self.add_pod_doubt(name, AllocationDoubt::Any);
        } else {
            for doubt in doubts {
                self.add_pod_doubt(name.clone(), doubt);
            }
        }
    }

    /// When a pod of a group without a reservation pod counts as one without an allocation
    /// (monotonic), and whether it may hold a device until then: the pod that had a share of a reservation
    /// pod that was deleted may be ending. One that is known since a gap may have had it before.
    fn unreserved_from(
        &self,
        tracked: &TrackedPod,
        group: &str,
        pods: &PodSnapshot,
    ) -> (Duration, bool) {
        let deleted = pods
            .group_deleted_at(group, &self.options.reservation_namespaces)
            .filter(|deleted| tracked.annotated <= *deleted)
            .map(|deleted| deleted + policy::POD_OUTLIVED_MAX);
        let delayed = tracked.first_seen + policy::RESERVATION_DELAY;
        let may_hold = deleted.is_some() || tracked.annotated_in_gap;
        (deleted.unwrap_or_default().max(delayed), may_hold)
    }
}

impl GroupGpu {
    /// The devices that it may be; none if it may be any.
    fn devices(&self) -> impl Iterator<Item = Arc<str>> {
        let (held, candidates) = match self {
            Self::Held { device, .. } => (Some(device), None),
            Self::Unknown(devices) => (None, Some(devices)),
        };
        held.into_iter().chain(candidates.into_iter().flatten()).cloned()
    }
}
