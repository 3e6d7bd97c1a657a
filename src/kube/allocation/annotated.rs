//! What schedulers say they gave, in the annotations of pods.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::assigned::{Held, Holder};
use super::index::{Lookup, Target};
use super::{Evidence, Join, MemoryUnit, Problem, Share, memory};
use crate::kube::annotations::{self, Amount, Given, GpuName, Place, Told};
use crate::kube::device_id::{self, DeviceId};
use crate::kube::pod::{Container, ContainerKind, Pod};
use crate::kube::pods::{ByName, Known, Pods};
use crate::model::AllocateMode;

/// Schedulers that give more memory than there is do not go beyond this many times.
const OVERSUBSCRIPTION_MAX: f64 = 16.0;

/// What is in doubt, if that is known, and why.
type Doubt = (Option<Arc<str>>, Problem);

impl Join<'_> {
    /// Adds what annotations give to pods that `held` does not contradict.
    pub(super) fn annotated(&mut self, held: &Held) {
        // Pods of whose annotations some part was not understood: that is counted already.
        let mut judged = BTreeSet::new();
        if let Some(pods) = self.pods {
            for known in pods.iter().filter(|known| !known.pod.has_ended()) {
                if self.pod(known, held, pods).is_none() {
                    judged.insert(&known.pod.id);
                }
            }
        }
        let holder = |(_, share): &(_, Share)| (share.pod.clone(), Arc::clone(&share.container));
        let told: BTreeSet<_> = self.found.iter().map(holder).collect();
        for holder in held.units.difference(&held.named) {
            if !judged.contains(&holder.0) && !told.contains(holder) {
                self.doubt(None, Problem::NoAnnotation);
            }
        }
    }

    /// None if something that is given here is in doubt.
    fn pod(&mut self, known: &Known, held: &Held, pods: &Pods) -> Option<()> {
        let pod = &known.pod;
        let told = annotations::told(pod);
        if matches!(told, Ok(Told::Nothing | Told::Pending)) {
            return Some(());
        }
        let id = &pod.id;
        let holds = |held: &BTreeSet<Holder>| {
            pod.containers.iter().any(|c| held.contains(&(id.clone(), Arc::clone(&c.name))))
        };
        if !holds(&held.units) {
            // The kubelet has said what it holds, and that no scheduler divided it.
            if holds(&held.named) {
                return Some(());
            }
            if !pod.containers.iter().any(Container::asks_for_gpu) {
                self.count(Problem::UnaskedAnnotation);
                return Some(());
            }
        }
        let alone = matches!(pods.by_name(&id.namespace, &id.name), ByName::One(_));
        let mut whole = Some(());
        match told {
            Ok(Told::Given { parts, oversubscribes }) => {
                for part in parts {
                    // Which of two the units are of, the kubelet does not tell.
                    let share = if alone {
                        self.part(known, &part, oversubscribes, held)
                    } else {
                        Err((self.device(&part).map(|t| Arc::clone(t.uuid)), Problem::AmbiguousPod))
                    };
                    match share {
                        Ok(share) => self.found.extend(
                            share.map(|share| (Evidence::Annotation { oversubscribes }, share)),
                        ),
                        Err((device, problem)) => {
                            self.doubt(device.as_ref(), problem);
                            whole = None;
                        }
                    }
                }
            }
            Ok(Told::Nothing | Told::Pending) => {}
            Err(problem) => {
                self.doubt(None, problem);
                whole = None;
            }
        }
        whole
    }

    fn device(&self, part: &Given) -> Option<Target<'_>> {
        let lookup = match &part.gpu {
            GpuName::Minor(minor) => self.index.minor(*minor),
            GpuName::Uuid(uuid) => self.index.uuid(uuid),
        };
        match lookup {
            Lookup::Found(target) => Some(target),
            Lookup::PartOf(_) | Lookup::Unknown => None,
        }
    }

    /// The share that a part is; none if the kubelet says what this container has.
    fn part(
        &self,
        known: &Known,
        part: &Given,
        oversubscribes: bool,
        held: &Held,
    ) -> Result<Option<Share>, Doubt> {
        let pod = &known.pod;
        let target = self.device(part).ok_or((None, Problem::UnknownDevice))?;
        let device = Arc::clone(target.uuid);
        let doubt = |problem| (Some(Arc::clone(&device)), problem);
        let container = container(pod, part.place).ok_or(doubt(Problem::NoContainer))?;
        let holder = (pod.id.clone(), Arc::clone(&container.name));
        if held.named.contains(&holder) {
            return Ok(None);
        }
        if !container.asks_for_gpu() && !held.units.contains(&holder) {
            return Err(doubt(Problem::UnaskedAnnotation));
        }
        let memory = self.amount(&target, part.memory, oversubscribes).map_err(doubt)?;
        let running = pod.runs(&container.name);
        let (pod, container) = holder;
        let (mode, compute) = (AllocateMode::Share, part.compute);
        Ok(Some(Share {
            pod,
            container,
            device,
            mode,
            memory,
            compute,
            enforced: true,
            replica: None,
            claim: None,
            confirmed: known.listed,
            running,
        }))
    }

    /// In MiB; none if it cannot be told.
    fn amount(
        &self,
        target: &Target<'_>,
        amount: Amount,
        over: bool,
    ) -> Result<Option<f64>, Problem> {
        let mib = match amount {
            Amount::Mib(mib) => Some(mib),
            Amount::Ratio(ratio) => target.framebuffer.map(|whole| whole * ratio),
            Amount::Unknown => None,
            Amount::Units { units, of } => match (target.framebuffer, of) {
                (None, _) => None,
                (Some(whole), Some(of)) => Some(units / of * whole),
                (Some(whole), None) => Some(units / self.units_of(target, whole, units) * whole),
            },
        };
        let most = if over { OVERSUBSCRIPTION_MAX } else { 1.0 + 1e-9 };
        match (mib, target.framebuffer) {
            (Some(mib), Some(whole)) if mib > whole * most => Err(Problem::AbsurdAmount),
            (mib, _) => Ok(memory(mib)),
        }
    }

    /// Into how many units a GPU of `whole` MiB is divided, of which `units` are given.
    fn units_of(&self, target: &Target<'_>, whole: f64, units: f64) -> f64 {
        let ids = self.assignments.allocatable.get("aliyun.com/gpu-mem");
        let of_it = |id: &str| matches!(device_id::parse(id), DeviceId::Fake { gpu } if *gpu == **target.uuid);
        let ids = ids.map_or(0, |ids| ids.iter().filter(|id| of_it(id)).count());
        if let Some(ids) = u32::try_from(ids).ok().filter(|ids| *ids > 0) {
            return f64::from(ids);
        }
        let gib = (whole / 1024.0).floor();
        match self.unit {
            MemoryUnit::Gib => gib,
            MemoryUnit::Auto if units <= gib => gib,
            // Nobody gives a few dozen MiB of a GPU: no context would fit.
            MemoryUnit::Auto | MemoryUnit::Mib => whole.floor(),
        }
    }
}

/// The container that is meant.
fn container(pod: &Pod, place: Place) -> Option<&Container> {
    match place {
        Place::Position(n) => pod.containers.get(n),
        Place::Pod => {
            let ended = |c: &Container| {
                c.terminated && c.kind == (ContainerKind::Init { restartable: false })
            };
            let mut asking = pod.containers.iter().filter(|c| c.asks_for_gpu() && !ended(c));
            asking.next().filter(|_| asking.next().is_none())
        }
    }
}
