//! Who holds what: the kubelet's assignments, the pods and their annotations, and the node's
//! devices, joined. No I/O, no clock.
//!
//! Three kinds of evidence, the stronger first: an id that names its device; a claim whose
//! device a slice names; an annotation of the scheduler that divided the GPU. An id of a divided
//! GPU ([`DeviceId::Fake`]) says only that there must be an annotation. Whatever is given and
//! cannot be told to whom or of what makes its device (or, if that is not known either, the node)
//! doubtful: nobody may then be said to hold nothing.
//!
//! What cannot be seen from here: whether replicas are of time-slicing or of MPS (they are taken
//! for the first, which limits nothing), whether a claim is one of administrative access (a device
//! of two claims is therefore contested), and what was given without any device plugin while the
//! pods are not known.
//!
//! [`DeviceId::Fake`]: super::device_id::DeviceId::Fake

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::assignments::{Assignments, PodName, Slices};
use super::pods::{ByUid, Pods};
use super::problem::Problem;
use crate::model::{AllocateMode, Claim, PodRef};

mod annotated;
mod assigned;
mod index;

use index::Index;

/// A GPU of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceFacts {
    /// `nvmlDeviceGetUUID`.
    pub uuid: Arc<str>,
    /// Minor number of its device file.
    pub minor: Option<u32>,
    /// Its whole framebuffer, MiB.
    pub framebuffer_mib: Option<f64>,
    /// Its MIG devices.
    pub migs: Vec<MigFacts>,
}

/// A MIG device of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct MigFacts {
    /// `nvmlDeviceGetUUID` of the MIG device.
    pub uuid: Arc<str>,
    /// Its GPU instance.
    pub gpu_instance: u32,
    /// Its compute instance.
    pub compute_instance: u32,
    /// The memory of its GPU instance, MiB.
    pub framebuffer_mib: Option<f64>,
    /// Its part of the GPU's SMs, 0 to 1.
    pub compute: Option<f64>,
}

/// What a unit of `aliyun.com/gpu-mem` is where neither annotations nor ids tell how many a GPU has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryUnit {
    /// GiB, unless more of them are given than the GPU has: then MiB.
    #[default]
    Auto,
    /// GiB.
    Gib,
    /// MiB.
    Mib,
}

/// What a container holds of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// The pod; its UID is empty if the pods are not known.
    pub pod: PodRef,
    /// The container.
    pub container: Arc<str>,
    /// UUID of the GPU or MIG device.
    pub device: Arc<str>,
    /// Whether others may hold parts of the device too.
    pub mode: AllocateMode,
    /// Memory that it may use, MiB; unknown rather than 0.
    pub memory: Option<f64>,
    /// Part of the device's compute, 0 to 1; 0 is unlimited.
    pub compute: f64,
    /// The memory is set aside for it: such parts of a device add up. Otherwise everybody may use
    /// the whole of it.
    pub enforced: bool,
    /// Which replica of the device it is, or the first of several.
    pub replica: Option<u32>,
    /// The claim that it was given by.
    pub claim: Option<Arc<Claim>>,
    /// Whether the pod is known to exist still.
    pub confirmed: bool,
    /// Whether the container is known to run, with none running that has to end before it.
    pub running: bool,
}

/// Who holds what, and where that is not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocations {
    /// By pod, container and device; each of those once.
    pub shares: Vec<Share>,
    /// Devices of which something is given, and it is not known to whom or how much.
    pub doubtful: BTreeSet<Arc<str>>,
    /// Something is given, and it is not known of which device.
    pub doubtful_node: bool,
    /// Of which pods it is known what they were allocated.
    pub coverage: Coverage,
    /// What could not be taken at its word, by [`Problem::reason`].
    pub problems: BTreeMap<&'static str, u64>,
}

/// Of which pods it is known what they were allocated.
#[derive(Clone, Debug, PartialEq)]
pub enum Coverage {
    /// The pods are not known: of those that the kubelet's List names.
    Listed(BTreeSet<PodName>),
    /// Of all but these, by UID: they request GPUs, and the List does not name them.
    AllBut {
        /// The pods of which nothing is known, or something that may have changed.
        unlisted: BTreeSet<Arc<str>>,
        /// One of them may hold any device that is not allocated whole to another.
        holders: bool,
    },
}

impl Default for Coverage {
    fn default() -> Self {
        Self::AllBut { unlisted: BTreeSet::new(), holders: false }
    }
}

/// Joins everything that is known.
#[must_use]
pub fn allocate(
    devices: &[DeviceFacts],
    assignments: &Assignments,
    pods: Option<&Pods>,
    slices: Option<&Slices>,
    unit: MemoryUnit,
) -> Allocations {
    let mut join = Join {
        index: Index::new(devices),
        assignments,
        pods,
        slices,
        unit,
        found: Vec::new(),
        out: Allocations::default(),
    };
    // Pods that are not yet told of may hold parts that only their annotations name.
    join.out.doubtful_node = pods.is_some_and(|pods| !pods.synced);
    let held = join.assigned();
    join.annotated(&held);
    join.out.coverage = join.coverage();
    join.settle()
}

/// What a share rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Evidence {
    Id,
    Claim,
    Annotation { oversubscribes: bool },
}

struct Join<'a> {
    index: Index<'a>,
    assignments: &'a Assignments,
    pods: Option<&'a Pods>,
    slices: Option<&'a Slices>,
    unit: MemoryUnit,
    found: Vec<(Evidence, Share)>,
    out: Allocations,
}

impl Join<'_> {
    fn count(&mut self, problem: Problem) {
        *self.out.problems.entry(problem.reason()).or_default() += 1;
    }

    fn doubt(&mut self, device: Option<&Arc<str>>, problem: Problem) {
        self.count(problem);
        match device {
            Some(device) => {
                self.out.doubtful.insert(Arc::clone(device));
            }
            None => self.out.doubtful_node = true,
        }
    }

    fn coverage(&mut self) -> Coverage {
        let assignments = self.assignments;
        let Some(pods) = self.pods else { return Coverage::Listed(assignments.pods.clone()) };
        let name = |pod: &PodRef| (Arc::clone(&pod.namespace), Arc::clone(&pod.name));
        let retained = |(namespace, name): &PodName| {
            assignments.containers.iter().any(|c| c.namespace == *namespace && c.pod == *name)
        };
        let allocated: BTreeSet<_> =
            self.found.iter().map(|(_, share)| Arc::clone(&share.pod.uid)).collect();
        let (mut unlisted, mut holders) = (BTreeSet::new(), false);
        let live = pods.iter().map(|known| &known.pod).filter(|pod| !pod.has_ended());
        for pod in live.filter(|pod| pod.requests_gpus()) {
            let name = name(&pod.id);
            if !assignments.pods.contains(&name) {
                unlisted.insert(Arc::clone(&pod.id.uid));
                if !retained(&name) && !allocated.contains(&pod.id.uid) {
                    holders = true;
                    self.count(Problem::UnlistedPod);
                }
            }
        }
        Coverage::AllBut { unlisted, holders }
    }

    /// Looks at each device's shares together.
    fn settle(mut self) -> Allocations {
        let mut by_device = BTreeMap::<_, Vec<_>>::new();
        for (evidence, share) in std::mem::take(&mut self.found) {
            by_device.entry(Arc::clone(&share.device)).or_default().push((evidence, share));
        }
        for (device, shares) in by_device {
            self.settle_device(&device, shares);
        }
        let key = |s: &Share| (s.pod.clone(), Arc::clone(&s.container), Arc::clone(&s.device));
        self.out.shares.sort_by_cached_key(key);
        self.out
    }

    fn settle_device(&mut self, device: &Arc<str>, shares: Vec<(Evidence, Share)>) {
        let named = |evidence: Evidence| matches!(evidence, Evidence::Id | Evidence::Claim);
        let kubelet_says = shares.iter().any(|(evidence, _)| named(*evidence));
        let mut kept = BTreeMap::<_, Share>::new();
        let (mut strict, mut ids, mut claims) = (true, false, false);
        for (evidence, share) in shares {
            match evidence {
                Evidence::Annotation { .. } if kubelet_says => {
                    self.count(Problem::ContradictedAnnotation);
                    continue;
                }
                Evidence::Annotation { oversubscribes } => strict &= !oversubscribes,
                Evidence::Id => ids = true,
                Evidence::Claim => claims = true,
            }
            let holder = (share.pod.clone(), Arc::clone(&share.container));
            kept.entry(holder).and_modify(|same| merge(same, &share)).or_insert(share);
        }
        let exclusive = kept.values().any(|share| share.mode == AllocateMode::Exclusive);
        if (ids && claims) || (exclusive && kept.len() > 1) {
            return self.doubt(Some(device), Problem::ContestedDevice);
        }
        // A scheduler may give away already what a pod holds that is being deleted.
        let stays = |share: &&Share| share.enforced && !self.is_deleting(&share.pod);
        let sum: f64 = kept.values().filter(stays).filter_map(|s| s.memory).sum();
        let framebuffer = self.index.framebuffer(device);
        if strict && framebuffer.is_some_and(|whole| sum > whole * (1.0 + 1e-6)) {
            self.doubt(Some(device), Problem::Overcommitted);
        }
        if kept.values().any(|share| !share.confirmed) {
            self.doubt(Some(device), Problem::UnlistedPod);
        }
        self.out.shares.extend(kept.into_values());
    }

    fn is_deleting(&self, pod: &PodRef) -> bool {
        let found = self.pods.map(|pods| pods.by_uid(&pod.uid));
        matches!(found, Some(ByUid::Live(known)) if known.pod.deleting)
    }
}

/// Two parts of one device in one container are one part.
fn merge(into: &mut Share, other: &Share) {
    into.memory = match (into.memory, other.memory) {
        (Some(a), Some(b)) if into.enforced && other.enforced => Some(a + b),
        (Some(a), Some(b)) => Some(a.max(b)),
        _ => None,
    };
    let limited = into.compute > 0.0 && other.compute > 0.0;
    into.compute = if limited { (into.compute + other.compute).min(1.0) } else { 0.0 };
    into.mode = into.mode.max(other.mode);
    into.enforced &= other.enforced;
    into.replica = into.replica.into_iter().chain(other.replica).min();
}

/// A number that may stand for memory.
fn memory(mib: Option<f64>) -> Option<f64> {
    mib.filter(|mib| mib.is_finite() && *mib > 0.0)
}

#[cfg(test)]
mod tests;
