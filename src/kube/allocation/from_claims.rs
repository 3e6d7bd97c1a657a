//! Allocations by resource claims (DRA): of devices, shares of devices, and administrative access.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::index::{DeviceMatch, IndexedDevice};
use super::resolved_container::{AssignedDevice, LocatedContainer, ResolvedContainer};
use super::{AllocationDoubt, AllocationJoin, AllocationOrigin, AllocationProblem, positive_mib};
use crate::kube::assignments::{ClaimedDevice, ContainerAssignment, NVIDIA_DRIVER, SliceDevice};
use crate::kube::resource_claims::claim::{AllocatedDevice, DeviceSharing, MemoryLimit};
use crate::kube::resource_claims::table::{ClaimLookup, ClaimName, ClaimRequest};
use crate::model::{AllocateMode, Claim, MigPlacement, PodRef};

/// Driver, pool and name of a device.
type DeviceKey<'a> = (&'a str, &'a str, &'a str);
/// Namespace, pod and name of a container.
type ContainerNames<'a> = (&'a str, &'a str, &'a str);

/// The claims and containers of the claimed devices.
#[derive(Default)]
pub(super) struct Claimants<'a> {
    by_device: BTreeMap<DeviceKey<'a>, DeviceClaimants<'a>>,
    /// The containers that use a device of a claim; all containers of the claim may.
    containers: BTreeMap<&'a ClaimedDevice, BTreeSet<ContainerNames<'a>>>,
}

/// The claims of one device that have no share id. Only one of them can allocate the device; the
/// others have administrative access, and are left out once they were read.
#[derive(Default)]
struct DeviceClaimants<'a> {
    allocating: BTreeSet<(&'a str, &'a str)>,
    unread: BTreeSet<(&'a str, &'a str)>,
    /// Whether a claim allocates a share of the device, which excludes its allocation as a whole.
    is_shared: bool,
}

/// What is known of a claimed device from its claim.
#[derive(Clone, Copy)]
enum ClaimedAs<'a> {
    Allocated(&'a AllocatedDevice),
    AdminAccess,
    Unread,
    /// The claim cannot be read here: no permission, or no source of claims.
    Unreadable {
        denied: bool,
    },
}

/// How much of a device a claim allocates to a container.
#[derive(Clone, Copy)]
struct ClaimedAmount {
    mode: AllocateMode,
    memory: Option<f64>,
    compute: Option<f64>,
    reserved: bool,
}

impl<'a> Claimants<'a> {
    fn add(
        &mut self,
        assigned: &'a ContainerAssignment,
        claimed: &'a ClaimedDevice,
        known: ClaimedAs<'_>,
    ) {
        if let ClaimedAs::AdminAccess = known {
            return;
        }
        let users = self.containers.entry(claimed).or_default();
        users.insert((&assigned.namespace, &assigned.pod, &assigned.container));
        let claimants = self.by_device.entry(device_key(claimed)).or_default();
        if claimed.share.is_some() {
            claimants.is_shared |= matches!(known, ClaimedAs::Allocated(_));
            return;
        }
        let claims = match known {
            ClaimedAs::Allocated(_) => &mut claimants.allocating,
            ClaimedAs::AdminAccess | ClaimedAs::Unread | ClaimedAs::Unreadable { .. } => {
                &mut claimants.unread
            }
        };
        claims.insert((&claimed.claim_namespace, &claimed.claim_name));
    }

    /// Whether several containers use the device, or this share of it.
    fn are_several(&self, claimed: &ClaimedDevice) -> bool {
        self.containers.get(claimed).is_some_and(|containers| containers.len() > 1)
    }

    /// Whether several claims may allocate the device as a whole.
    fn are_contested(&self, claimed: &ClaimedDevice) -> bool {
        self.of(claimed).is_some_and(|claims| match claims.allocating.len() {
            0 => claims.unread.len() > 1 && !claims.is_shared,
            allocating => allocating > 1,
        })
    }

    /// Whether another claim is known to allocate the device, or shares of it.
    fn is_taken(&self, claimed: &ClaimedDevice) -> bool {
        self.of(claimed).is_some_and(|claims| claims.is_shared || claims.allocating.len() == 1)
    }

    fn of<'b>(&'b self, claimed: &'b ClaimedDevice) -> Option<&'b DeviceClaimants<'a>> {
        self.by_device.get(&device_key(claimed)).filter(|_| claimed.share.is_none())
    }
}

impl AllocationJoin<'_> {
    /// Records which objects the claims of the node refer to.
    pub(super) fn request_claims(&mut self, located: &[LocatedContainer<'_>]) {
        let requests = &mut self.result.requests;
        for (assigned, pod) in located {
            for claimed in assigned.claims.iter().filter(|claimed| claimed.may_be_gpu()) {
                requests.devices.insert(claimed.key());
                if let Ok(Some(pod)) = pod
                    && !pod.uid.is_empty()
                {
                    let claim = claim_name(claimed);
                    requests.claims.insert(ClaimRequest { claim, pod: Arc::clone(&pod.uid) });
                }
            }
        }
    }

    /// The claims and containers of each claimed device.
    pub(super) fn claimants<'l>(&self, located: &'l [LocatedContainer<'_>]) -> Claimants<'l> {
        let mut claimants = Claimants::default();
        for (assigned, pod) in located {
            let pod = pod.as_ref().ok().and_then(Option::as_ref);
            for claimed in &assigned.claims {
                claimants.add(assigned, claimed, self.claimed_as(claimed, pod));
            }
        }
        claimants
    }

    /// `pod` is `None` if the pod is not known.
    fn claimed_as(&self, claimed: &ClaimedDevice, pod: Option<&PodRef>) -> ClaimedAs<'_> {
        let (Some(claims), Some(_)) = (self.dra.claims, self.pods) else {
            return ClaimedAs::Unreadable { denied: false };
        };
        let Some(pod) = pod else { return ClaimedAs::Unread };
        match claims.get(claimed, &pod.uid) {
            ClaimLookup::Read(device) if device.admin_access => ClaimedAs::AdminAccess,
            ClaimLookup::Read(device) => ClaimedAs::Allocated(device),
            ClaimLookup::Unread => ClaimedAs::Unread,
            ClaimLookup::Denied => ClaimedAs::Unreadable { denied: true },
        }
    }

    /// Resolves a device of a claim of `pod`, which is `None` if the pod is not known.
    pub(super) fn resolve_claimed(
        &self,
        claimed: &ClaimedDevice,
        pod: Option<&PodRef>,
        claimants: &Claimants<'_>,
        resolved: &mut ResolvedContainer,
    ) {
        let known = self.claimed_as(claimed, pod);
        let slice = self.dra.slices.and_then(|slices| slices.get(claimed));
        let Some(slice) = slice else {
            let problem = match (self.dra.slices, self.dra.claims) {
                (None, None) => AllocationProblem::NoApiServer,
                (Some(_), _) | (_, Some(_)) => AllocationProblem::NoSlice,
            };
            resolve_unknown(claimed, known, problem, resolved);
            return;
        };
        if slice.kind.as_deref() == Some("vfio") {
            return;
        }
        match (self.find_claimed(claimed, slice), known) {
            (DeviceMatch::Found(device), ClaimedAs::AdminAccess) => {
                resolved.admin_access.insert(Arc::clone(device.uuid));
            }
            (DeviceMatch::PartitionOf(gpu), ClaimedAs::AdminAccess) => {
                resolved.admin_access.extend(self.index.with_partitions(gpu));
            }
            (DeviceMatch::Unknown, _) => {
                resolve_unknown(claimed, known, AllocationProblem::UnknownDevice, resolved);
            }
            (DeviceMatch::PartitionOf(gpu), _) => {
                let problem = AllocationProblem::UnknownDevice;
                resolved.unresolved.push((Some(Arc::clone(gpu)), problem));
            }
            (DeviceMatch::Found(device), _) => match problem(claimed, known, claimants) {
                // The device is that of the other claim, which this one must not make uncertain.
                Some(AllocationProblem::UnreadClaim) if claimants.is_taken(claimed) => {
                    let doubt = AllocationDoubt::Device(Arc::clone(device.uuid));
                    resolved.pod_doubts.insert(doubt);
                    resolved.counted.push(AllocationProblem::UnreadClaim);
                }
                Some(problem) => {
                    resolved.unresolved.push((Some(Arc::clone(device.uuid)), problem));
                }
                None => {
                    if let ClaimedAs::Unreadable { denied: true } = known {
                        resolved.counted.push(AllocationProblem::UnreadClaim);
                    }
                    let amount = amount(claimed, known, device, claimants.are_several(claimed));
                    resolved.claimed.push(assigned_device(claimed, slice, device, amount));
                }
            },
        }
    }

    /// The device that a slice describes. A MIG device that is created for the claim has no UUID in
    /// the slice; its name has the placement of its GPU instance.
    fn find_claimed(&self, claimed: &ClaimedDevice, slice: &SliceDevice) -> DeviceMatch<'_> {
        let lookup = |uuid: &str| self.index.by_uuid(uuid);
        match (slice.uuid.as_deref().map(lookup), slice.parent.as_deref()) {
            (Some(DeviceMatch::Unknown) | None, Some(parent)) => {
                let placement = placement(&claimed.device).filter(|_| slice.uuid.is_none());
                let found = placement.map(|placement| self.index.by_placement(parent, placement));
                match (found, lookup(parent)) {
                    (Some(DeviceMatch::Found(device)), _) => DeviceMatch::Found(device),
                    (_, DeviceMatch::Found(IndexedDevice { uuid: gpu, .. })) => {
                        DeviceMatch::PartitionOf(gpu)
                    }
                    (_, parent) => parent,
                }
            }
            (found, _) => found.unwrap_or(DeviceMatch::Unknown),
        }
    }
}

/// Records a claimed device of which not even the GPU is known. Another driver's device may be
/// of another vendor, and an administrative access allocates nothing.
fn resolve_unknown(
    claimed: &ClaimedDevice,
    known: ClaimedAs<'_>,
    problem: AllocationProblem,
    resolved: &mut ResolvedContainer,
) {
    let is_admin = matches!(known, ClaimedAs::AdminAccess);
    let is_listed = problem == AllocationProblem::UnknownDevice;
    if *claimed.driver == *NVIDIA_DRIVER && !is_admin {
        resolved.unresolved.push((None, problem));
    } else if claimed.may_be_gpu() && !is_listed {
        resolved.pod_doubts.insert(AllocationDoubt::Any);
        resolved.counted.push(problem);
    }
}

/// Why a device is not allocated by this claim.
fn problem(
    claimed: &ClaimedDevice,
    known: ClaimedAs<'_>,
    claimants: &Claimants<'_>,
) -> Option<AllocationProblem> {
    match known {
        _ if claimants.are_contested(claimed) => Some(AllocationProblem::ContestedDevice),
        ClaimedAs::Unread => Some(AllocationProblem::UnreadClaim),
        ClaimedAs::Unreadable { .. } if claimants.is_taken(claimed) => {
            Some(AllocationProblem::UnreadClaim)
        }
        ClaimedAs::Allocated(_) | ClaimedAs::AdminAccess | ClaimedAs::Unreadable { .. } => None,
    }
}

/// What a container is allocated of `device`, which `several` containers use.
fn amount(
    claimed: &ClaimedDevice,
    known: ClaimedAs<'_>,
    device: IndexedDevice<'_>,
    several: bool,
) -> ClaimedAmount {
    let is_share = claimed.share.is_some();
    let share = |memory| ClaimedAmount {
        mode: AllocateMode::Share,
        memory,
        compute: Some(0.0),
        reserved: false,
    };
    let ClaimedAs::Allocated(allocated) = known else {
        let mode = if is_share || several { AllocateMode::Share } else { AllocateMode::Exclusive };
        // The size of a share is in its claim.
        let memory = device.framebuffer.filter(|_| !is_share);
        return ClaimedAmount { mode, reserved: mode == AllocateMode::Exclusive, ..share(memory) };
    };
    let (configured, compute) = match &allocated.sharing {
        DeviceSharing::Default | DeviceSharing::TimeSlicing => (device.framebuffer, Some(0.0)),
        DeviceSharing::Mps { compute, memory } => match memory.of(device.uuid) {
            MemoryLimit::Unlimited => (device.framebuffer, Some(*compute)),
            // A limit above the size of the device does not limit anything.
            MemoryLimit::Mib(limit) => {
                (device.framebuffer.map(|total| limit.min(total)), Some(*compute))
            }
            MemoryLimit::Unknown => (None, Some(*compute)),
        },
        DeviceSharing::Unknown => (None, None),
    };
    match (is_share, allocated.consumed_memory) {
        // A share that several containers use has one size for all of them.
        (true, Some(size)) if size > 0.0 => ClaimedAmount {
            memory: positive_mib(Some(size)).filter(|_| !several),
            compute,
            reserved: true,
            ..share(None)
        },
        (true, Some(_)) => ClaimedAmount { compute, ..share(configured) },
        (true, None) => ClaimedAmount { compute, ..share(None) },
        (false, _) if several || allocated.sharing != DeviceSharing::Default => {
            ClaimedAmount { compute, ..share(configured) }
        }
        (false, _) => ClaimedAmount {
            mode: AllocateMode::Exclusive,
            reserved: true,
            ..share(device.framebuffer)
        },
    }
}

fn assigned_device(
    claimed: &ClaimedDevice,
    slice: &SliceDevice,
    device: IndexedDevice<'_>,
    amount: ClaimedAmount,
) -> AssignedDevice {
    let ClaimedAmount { mode, memory, compute, reserved } = amount;
    let is_mig = slice.kind.as_deref() == Some("mig");
    let of_mig = |text: &str| if is_mig { text.to_owned() } else { String::new() };
    let claim = Claim {
        name: claimed.claim_name.to_string(),
        namespace: claimed.claim_namespace.to_string(),
        driver: claimed.driver.to_string(),
        pool: claimed.pool.to_string(),
        device: claimed.device.to_string(),
        mig_profile: of_mig(slice.profile.as_deref().unwrap_or_default()),
        mig_uuid: of_mig(device.uuid),
    };
    AssignedDevice {
        evidence: AllocationOrigin::Claim,
        device: Arc::clone(device.uuid),
        mode,
        memory,
        compute,
        reserved,
        replica: None,
        claim: Some(Arc::new(claim)),
    }
}

/// The placement in the name of a MIG device:
/// `gpu-<minor>-mig-<profile>-<profile id>-<first memory slice>`.
fn placement(name: &str) -> Option<MigPlacement> {
    let (_, mig) = name.strip_prefix("gpu-")?.split_once("-mig-")?;
    let (rest, start) = mig.rsplit_once('-')?;
    let (_, profile_id) = rest.rsplit_once('-')?;
    Some(MigPlacement { profile_id: profile_id.parse().ok()?, start: start.parse().ok()? })
}

fn claim_name(claimed: &ClaimedDevice) -> ClaimName {
    (Arc::clone(&claimed.claim_namespace), Arc::clone(&claimed.claim_name))
}

fn device_key(claimed: &ClaimedDevice) -> DeviceKey<'_> {
    (&claimed.driver, &claimed.pool, &claimed.device)
}
