//! What the kubelet says it gave: ids that name devices, ids that do not, and claims.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::index::Lookup;
use super::{Evidence, Join, Problem, Share};
use crate::kube::assignments::{Assigned, Assignments, ClaimedDevice, SliceDevice};
use crate::kube::device_id::{self, DeviceId};
use crate::kube::pods::{ByName, ByUid};
use crate::model::{AllocateMode, Claim, PodRef};

/// A container.
pub(super) type Holder = (PodRef, Arc<str>);

/// Containers by what the kubelet gave them.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Those with ids or claims that name their devices.
    pub(super) named: BTreeSet<Holder>,
    /// Those with units of divided GPUs.
    pub(super) units: BTreeSet<Holder>,
}

/// One device of one container.
struct Given {
    evidence: Evidence,
    device: Arc<str>,
    mode: AllocateMode,
    memory: Option<f64>,
    enforced: bool,
    replica: Option<u32>,
    claim: Option<Arc<Claim>>,
}

/// What one container was given.
#[derive(Default)]
struct Found {
    given: BTreeMap<Arc<str>, Given>,
    units: bool,
    /// Devices, or none if that is not known, of which it has something that we do not see.
    unseen: Vec<(Option<Arc<str>>, Problem)>,
}

type Claimed<'a> = (&'a str, &'a str, &'a str);
type Claims<'a> = BTreeMap<Claimed<'a>, Claimants<'a>>;

/// Who has a claimed device.
#[derive(Default)]
struct Claimants<'a> {
    /// Claims that have it whole. Without shares that is one, or the others are of administrative
    /// access and hold nothing, and which they are is not told here.
    claims: BTreeSet<(&'a str, &'a str)>,
    /// Containers that use it: all of one claim may.
    containers: BTreeSet<(&'a str, &'a str, &'a str)>,
}

impl Join<'_> {
    pub(super) fn assigned(&mut self) -> Held {
        let mut held = Held::default();
        let assignments = self.assignments;
        let mut entries = BTreeMap::<_, u32>::new();
        for one in &assignments.containers {
            *entries.entry((&one.namespace, &one.pod, &one.container)).or_default() += 1;
        }
        let claims = claims(assignments);
        for assigned in &assignments.containers {
            let found = self.find(assigned, &claims);
            if found.given.is_empty() && !found.units && found.unseen.is_empty() {
                continue;
            }
            let entry = (&assigned.namespace, &assigned.pod, &assigned.container);
            let holder = match entries.get(&entry) {
                // An ended pod and the one that took its name.
                Some(2..) => Err(Problem::AmbiguousPod),
                _ => self.holder(assigned),
            };
            match holder {
                Ok(Some(pod)) => self.give(&pod, &assigned.container, found, &mut held),
                Ok(None) => {}
                Err(problem) => self.doubt_all(&found, problem),
            }
        }
        held
    }

    /// The pod that is meant; none if it holds nothing any more.
    fn holder(&self, assigned: &Assigned) -> Result<Option<PodRef>, Problem> {
        let Assigned { namespace, pod: name, .. } = assigned;
        let Some(pods) = self.pods else {
            let (namespace, name) = (Arc::clone(namespace), Arc::clone(name));
            return Ok(Some(PodRef { uid: "".into(), namespace, name }));
        };
        let taken = self.assignments.taken;
        let freed = pods.name_freed(namespace, name);
        match pods.by_name(namespace, name) {
            // The answer may still speak of the one that bore the name before.
            ByName::One(_) if freed.is_some_and(|freed| freed >= taken) => {
                Err(Problem::AmbiguousPod)
            }
            ByName::One(known) if known.pod.has_ended() => Ok(None),
            ByName::One(known) if known.container(&assigned.container).is_none() => {
                Err(Problem::NoContainer)
            }
            ByName::One(known) => Ok(Some(known.pod.id.clone())),
            ByName::Ambiguous => Err(Problem::AmbiguousPod),
            // Asked after that: it may be the next one, of which we have not heard yet.
            ByName::Deleted(_) if freed.is_some_and(|freed| freed < taken) => {
                Err(Problem::UnknownPod)
            }
            ByName::Deleted(_) => Ok(None),
            ByName::Unknown => Err(Problem::UnknownPod),
        }
    }

    fn give(&mut self, pod: &PodRef, container: &Arc<str>, found: Found, held: &mut Held) {
        for (device, problem) in &found.unseen {
            self.doubt(device.as_ref(), *problem);
        }
        if found.units {
            held.units.insert((pod.clone(), Arc::clone(container)));
        }
        if !found.given.is_empty() {
            held.named.insert((pod.clone(), Arc::clone(container)));
        }
        let name = (Arc::clone(&pod.namespace), Arc::clone(&pod.name));
        let confirmed = !self.assignments.unconfirmed.contains(&name);
        let known = self.pods.map(|pods| pods.by_uid(&pod.uid));
        let running = matches!(known, Some(ByUid::Live(known)) if known.pod.runs(container));
        for given in found.given.into_values() {
            let Given { evidence, device, mode, memory, enforced, replica, claim } = given;
            let share = Share {
                pod: pod.clone(),
                container: Arc::clone(container),
                device,
                mode,
                memory,
                compute: 0.0,
                enforced,
                replica,
                claim,
                confirmed,
                running,
            };
            self.found.push((evidence, share));
        }
    }

    /// Somebody holds all this, and nobody knows who.
    fn doubt_all(&mut self, found: &Found, problem: Problem) {
        self.count(problem);
        self.out.doubtful.extend(found.given.keys().cloned());
        self.out.doubtful.extend(found.unseen.iter().filter_map(|(device, _)| device.clone()));
        self.out.doubtful_node |= found.units || found.unseen.iter().any(|(d, _)| d.is_none());
    }

    fn find(&self, assigned: &Assigned, claims: &Claims<'_>) -> Found {
        let mut found = Found::default();
        for (resource, ids) in &assigned.devices {
            for id in ids {
                self.find_id(resource, id, &mut found);
            }
        }
        for claimed in &assigned.claims {
            self.find_claimed(claimed, claims.get(&claimed_by(claimed)), &mut found);
        }
        found
    }

    fn find_id(&self, resource: &str, id: &str, found: &mut Found) {
        match device_id::parse(id) {
            _ if is_divided(resource) => found.units = true,
            DeviceId::Fake { .. } => found.units = true,
            DeviceId::Real { named, replica } => match self.index.named(named) {
                Lookup::Found(target) => {
                    let replicas = found.given.get(target.uuid).and_then(|before| before.replica);
                    let shared = replica.is_some();
                    let given = Given {
                        evidence: Evidence::Id,
                        device: Arc::clone(target.uuid),
                        mode: if shared { AllocateMode::Share } else { AllocateMode::Exclusive },
                        memory: target.framebuffer,
                        enforced: !shared,
                        replica: replicas.into_iter().chain(replica).min(),
                        claim: None,
                    };
                    found.given.insert(Arc::clone(target.uuid), given);
                }
                Lookup::PartOf(gpu) => {
                    found.unseen.push((Some(Arc::clone(gpu)), Problem::UnknownDevice));
                }
                Lookup::Unknown => found.unseen.push((None, Problem::UnknownDevice)),
            },
            DeviceId::Unknown if is_nvidias(resource) => {
                found.unseen.push((None, Problem::UnknownDevice));
            }
            // Another vendor's, or one that is passed through and that the driver sees no more.
            DeviceId::Unknown | DeviceId::Pci => {}
        }
    }

    fn find_claimed(
        &self,
        claimed: &ClaimedDevice,
        claimants: Option<&Claimants<'_>>,
        found: &mut Found,
    ) {
        let contested = claimants.is_some_and(|all| all.claims.len() > 1);
        let several = claimants.is_some_and(|all| all.containers.len() > 1);
        let nvidias = &*claimed.driver == "gpu.nvidia.com";
        let slice = self.slices.and_then(|slices| slices.get(claimed));
        let Some(slice) = slice else {
            if nvidias {
                found.unseen.push((None, Problem::NoSlice));
            }
            return;
        };
        let SliceDevice { uuid, kind, parent, .. } = slice;
        if kind.as_deref() == Some("vfio") {
            return;
        }
        let lookup = |uuid: &Option<Box<str>>| {
            uuid.as_deref().map_or(Lookup::Unknown, |uuid| self.index.uuid(uuid))
        };
        match (lookup(uuid), lookup(parent)) {
            (Lookup::Found(target), _) if contested => {
                found.unseen.push((Some(Arc::clone(target.uuid)), Problem::ContestedDevice));
            }
            (Lookup::Found(target), _) => {
                let shared = claimed.share.is_some() || several;
                let given = Given {
                    evidence: Evidence::Claim,
                    device: Arc::clone(target.uuid),
                    mode: if shared { AllocateMode::Share } else { AllocateMode::Exclusive },
                    // How much a share has is written in the claim only.
                    memory: target.framebuffer.filter(|_| claimed.share.is_none()),
                    enforced: !shared,
                    replica: None,
                    claim: Some(Arc::new(claim(claimed, slice))),
                };
                found.given.insert(Arc::clone(target.uuid), given);
            }
            (_, Lookup::Found(parent)) => {
                found.unseen.push((Some(Arc::clone(parent.uuid)), Problem::UnknownDevice));
            }
            _ if nvidias => found.unseen.push((None, Problem::UnknownDevice)),
            _ => {}
        }
    }
}

fn claim(claimed: &ClaimedDevice, slice: &SliceDevice) -> Claim {
    let is_mig = slice.kind.as_deref() == Some("mig");
    let of_mig = |text: &Option<Box<str>>| match text {
        Some(text) if is_mig => text.to_string(),
        _ => String::new(),
    };
    Claim {
        name: claimed.claim_name.to_string(),
        namespace: claimed.claim_namespace.to_string(),
        driver: claimed.driver.to_string(),
        pool: claimed.pool.to_string(),
        device: claimed.device.to_string(),
        mig_profile: of_mig(&slice.profile),
        mig_uuid: of_mig(&slice.uuid),
    }
}

fn claims(assignments: &Assignments) -> Claims<'_> {
    let mut claims = Claims::new();
    for assigned in &assignments.containers {
        for claimed in &assigned.claims {
            let claimants = claims.entry(claimed_by(claimed)).or_default();
            let Assigned { namespace, pod, container, .. } = assigned;
            claimants.containers.insert((namespace, pod, container));
            if claimed.share.is_none() {
                claimants.claims.insert((&claimed.claim_namespace, &claimed.claim_name));
            }
        }
    }
    claims
}

fn claimed_by(claimed: &ClaimedDevice) -> Claimed<'_> {
    (&claimed.driver, &claimed.pool, &claimed.device)
}

/// Resources whose GPUs a scheduler chooses and not the kubelet, whatever their ids look like.
fn is_divided(resource: &str) -> bool {
    let (domain, name) = resource.split_once('/').unwrap_or_default();
    matches!(domain, "aliyun.com" | "volcano.sh" | "koordinator.sh") && name.contains("gpu")
}

/// Resources of NVIDIA's device plugin; network cards share its domain.
fn is_nvidias(resource: &str) -> bool {
    let name = resource.strip_prefix("nvidia.com/").unwrap_or_default();
    name.contains("gpu") || name.starts_with("mig-")
}
