//! Devices as plugins offer them and the kubelet gives them, and what is asked for to get them.

use std::{collections::BTreeMap, sync::Arc};

use crate::scenario::{
    Gpu, Window,
    cluster::{Device, Holding, Offer},
};

/// What the plugins of NVIDIA, GKE and `HAMi` offer.
pub(crate) const GPU: &str = "nvidia.com/gpu";
/// What ACK's plugin for shared GPUs offers: units of 1 GiB.
pub(crate) const ACK_MEMORY: &str = "aliyun.com/gpu-mem";
const ACK_CORES: &str = "aliyun.com/gpu-core.percentage";
const VOLCANO: &str = "volcano.sh/vgpu-number";
/// How many containers can share a GPU under `HAMi` and Volcano, unless told otherwise.
const SPLIT: u32 = 10;

/// How the plugin offers MIG devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// As [`GPU`].
    Single,
    /// Each profile as a resource of its own.
    Mixed,
}

impl Strategy {
    /// The resource of a MIG device.
    pub(crate) fn resource(self, profile: &str) -> String {
        match self {
            Self::Single => GPU.to_owned(),
            Self::Mixed => format!("nvidia.com/mig-{}", profile.replace('+', ".")),
        }
    }
}

/// How a GPU is offered as [`GPU`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Whole,
    Slices(u32),
    Gke,
    Hami,
    Claimed,
}

impl Mode {
    fn text(self) -> String {
        match self {
            Self::Whole => "whole".into(),
            Self::Slices(replicas) => format!("in {replicas} slices"),
            Self::Gke => "by GKE's plugin".into(),
            Self::Hami => "by HAMi".into(),
            Self::Claimed => "by a claim".into(),
        }
    }
}

/// A device, and when it is held.
#[derive(Debug)]
struct Slot {
    device: Device,
    gpu: Option<usize>,
    held: Vec<Window>,
    there: Vec<Window>,
}

const ALWAYS: Window = Window { from: f64::NEG_INFINITY, to: f64::INFINITY };

/// The plugins of a node: what they offer and have given.
#[derive(Debug)]
pub(crate) struct Plugins {
    modes: Vec<Option<Mode>>,
    strategy: Strategy,
    slots: Vec<Slot>,
}

impl Plugins {
    /// Those of a node of `gpus` GPUs, of which nothing is known yet.
    pub(crate) fn new(gpus: usize, strategy: Strategy) -> Self {
        Self { modes: vec![None; gpus], strategy, slots: vec![] }
    }

    /// Takes notice of a holding.
    ///
    /// # Errors
    /// No node can have that beside what it has already.
    pub(crate) fn notice(&mut self, holding: &Holding) -> Result<(), String> {
        let all = 0..self.modes.len();
        match holding {
            Holding::Whole(gpus) => self.offer(gpus.iter().copied(), Mode::Whole),
            Holding::Slices(gpus, replicas) => {
                self.offer(gpus.iter().copied(), Mode::Slices(*replicas))
            }
            Holding::Gke(_) => self.offer(all, Mode::Gke),
            Holding::Hami(_) => self.offer(all, Mode::Hami),
            Holding::Claimed(_, devices) => {
                self.offer(devices.iter().filter_map(|device| device.whole), Mode::Claimed)
            }
            Holding::Nothing
            | Holding::Mig(_)
            | Holding::Ack(..)
            | Holding::AckV1(..)
            | Holding::Koordinator(_)
            | Holding::Volcano(_) => Ok(()),
        }
    }

    fn offer(&mut self, gpus: impl Iterator<Item = usize>, mode: Mode) -> Result<(), String> {
        for gpu in gpus {
            let Some(slot) = self.modes.get_mut(gpu) else { continue };
            if let Some(other) = slot.filter(|other| *other != mode) {
                let (mode, other) = (mode.text(), other.text());
                return Err(format!(
                    "GPU {gpu} is given {mode} here and {other} elsewhere: \
                                    a plugin gives a GPU in one way"
                ));
            }
            *slot = Some(mode);
        }
        Ok(())
    }

    /// Offers everything, once all holdings and all other devices are known.
    pub(crate) fn open<'a>(
        &mut self,
        gpus: &[Gpu],
        holdings: impl Iterator<Item = &'a Holding> + Clone,
        others: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        let any = |is: fn(&Holding) -> bool| holdings.clone().any(is);
        let shared = any(|holding| matches!(holding, Holding::Ack(..) | Holding::AckV1(..)));
        let volcano = any(|holding| matches!(holding, Holding::Volcano(_)));
        let koordinator = any(|holding| matches!(holding, Holding::Koordinator(_)));
        let partitioned = any(|holding| matches!(holding, Holding::Mig(_)));
        let plain = self.modes.iter().any(Option::is_some);
        if plain || partitioned || !(shared || volcano || koordinator) {
            self.open_gpus(gpus, holdings);
        }
        for (resource, wanted) in [(ACK_MEMORY, shared), (VOLCANO, volcano)] {
            let resource: Arc<str> = resource.into();
            for gpu in gpus.iter().filter(|_| wanted) {
                let unit = |n: u64| match &*resource {
                    ACK_MEMORY => format!("{}-_-{n}", gpu.uuid),
                    _ => format!("{}-{n}", gpu.uuid),
                };
                let count = if &*resource == ACK_MEMORY { units(gpu) } else { u64::from(SPLIT) };
                (0..count).for_each(|n| self.slot(&resource, unit(n), Some(gpu.index), None));
            }
        }
        for (resource, id) in others {
            let known = |slot: &Slot| &*slot.device.resource == resource && slot.device.id == id;
            if !self.slots.iter().any(known) {
                self.slot(&resource.into(), id.to_owned(), None, None);
            }
        }
    }

    fn open_gpus<'a>(&mut self, gpus: &[Gpu], holdings: impl Iterator<Item = &'a Holding>) {
        let resource: Arc<str> = GPU.into();
        let gke: Vec<&str> = holdings
            .filter_map(|holding| {
                let Holding::Gke(ids) = holding else { return None };
                Some(ids.iter().map(String::as_str))
            })
            .flatten()
            .collect();
        let virtual_of = |id: &str| Some(id.rsplit_once("/vgpu")?.1.parse::<u32>().ok()? + 1);
        let virtuals = gke.iter().copied().filter_map(virtual_of).max().unwrap_or_default();
        for gpu in gpus {
            let numa = Some(i64::from(2 * gpu.index >= gpus.len().max(2)));
            let mode = self.modes.get(gpu.index).copied().flatten().unwrap_or(Mode::Whole);
            let name = format!("nvidia{}", gpu.minor);
            let parts: Vec<_> =
                gke.iter().filter(|id| id.starts_with(&format!("{name}/"))).collect();
            let ids: Vec<String> = match mode {
                Mode::Whole => vec![gpu.uuid.clone()],
                Mode::Slices(replicas) => {
                    (0..replicas).map(|n| format!("{}::{n}", gpu.uuid)).collect()
                }
                Mode::Claimed => vec![],
                Mode::Hami => (0..SPLIT).map(|n| format!("{}-{n}", gpu.uuid)).collect(),
                Mode::Gke if parts.is_empty() => vec![name],
                Mode::Gke
                    if parts.iter().all(|id| virtual_of(id).is_some() && !id.contains("/gi")) =>
                {
                    (0..virtuals).map(|n| format!("{name}/vgpu{n}")).collect()
                }
                Mode::Gke => parts.into_iter().map(|id| (*id).to_owned()).collect(),
            };
            let first = self.slots.len();
            for id in ids {
                self.slot(&resource, id, Some(gpu.index), numa);
            }
            for slot in self.slots.iter_mut().skip(first) {
                slot.there = whole(gpu);
            }
            self.open_instances(gpu, numa);
        }
    }

    /// Offers the MIG devices of a GPU, each in the time of its layouts.
    fn open_instances(&mut self, gpu: &Gpu, numa: Option<i64>) {
        for layout in &*gpu.mig {
            for (gi, ci) in layout.devices() {
                let known = self.slots.iter_mut().find(|slot| slot.device.id == ci.uuid);
                if let Some(slot) = known {
                    slot.there.push(layout.during);
                    continue;
                }
                let resource = self.strategy.resource(&gi.device_profile(ci)).into();
                let device = Device { resource, id: ci.uuid.clone(), numa };
                let there = vec![layout.during];
                self.slots.push(Slot { device, gpu: None, held: vec![], there });
            }
        }
    }

    fn slot(&mut self, resource: &Arc<str>, id: String, gpu: Option<usize>, numa: Option<i64>) {
        let device = Device { resource: Arc::clone(resource), id, numa };
        let known = self.slots.iter().any(|slot| slot.device == device);
        if !known {
            self.slots.push(Slot { device, gpu, held: vec![], there: vec![ALWAYS] });
        }
    }

    /// Gives a container what its holding says, for `life`.
    ///
    /// # Errors
    /// There is not so much, or somebody has it.
    pub(crate) fn give(&mut self, holding: &Holding, life: Window) -> Result<Vec<Device>, String> {
        let mut devices = vec![];
        let mut gpu = |resource, gpu| self.take(resource, life, |slot| slot.gpu == Some(gpu));
        match holding {
            Holding::Nothing | Holding::Koordinator(_) | Holding::Claimed(..) => {}
            Holding::Whole(gpus) | Holding::Slices(gpus, _) => {
                for index in gpus {
                    devices.push(gpu(GPU, *index).ok_or_else(|| {
                        format!(
                            "GPU {index} has nothing left for this pod at some time of its life: \
                                 end another pod earlier or hold another GPU"
                        )
                    })?);
                }
            }
            Holding::Mig(ids) => {
                for (resource, id) in ids {
                    devices.push(self.named(resource, id, life)?);
                }
            }
            Holding::Gke(ids) => {
                for id in ids {
                    devices.push(self.named(GPU, id, life)?);
                }
            }
            Holding::Ack(gpus, gib, _) => {
                for _ in 0..gpus.len() as u64 * u64::from(*gib) {
                    devices.push(self.last(ACK_MEMORY, life)?);
                }
            }
            Holding::AckV1(_, gib) => {
                for _ in 0..*gib {
                    devices.push(self.last(ACK_MEMORY, life)?);
                }
            }
            Holding::Hami(shares) => {
                for _ in shares {
                    devices.push(self.last(GPU, life)?);
                }
            }
            Holding::Volcano(shares) => {
                for _ in shares {
                    devices.push(self.last(VOLCANO, life)?);
                }
            }
        }
        Ok(devices)
    }

    /// Gives a device by its id.
    ///
    /// # Errors
    /// Somebody has it.
    pub(crate) fn named(
        &mut self,
        resource: &str,
        id: &str,
        life: Window,
    ) -> Result<Device, String> {
        self.take(resource, life, |slot| slot.device.id == id).ok_or_else(|| {
            format!(
                "{id} is held by another pod at some time of this one's life, or is not \
                     offered: end one earlier or hold another"
            )
        })
    }

    /// Gives a unit that is as good as any other: plugins of shares do not care which GPU's it is, so
    /// here they come from the last one.
    fn last(&mut self, resource: &str, life: Window) -> Result<Device, String> {
        let gpu = self.slots.iter().rev().find(|slot| {
            &*slot.device.resource == resource && !slot.held.iter().any(|held| held.overlaps(life))
        });
        let id = gpu.map(|slot| slot.device.id.clone());
        let given = id.and_then(|id| self.take(resource, life, |slot| slot.device.id == id));
        given.ok_or_else(|| {
            format!(
                "the node has no {resource} left for this pod at some time of its life: \
                     hold less"
            )
        })
    }

    fn take(&mut self, resource: &str, life: Window, is: impl Fn(&Slot) -> bool) -> Option<Device> {
        let free = |slot: &&mut Slot| {
            &*slot.device.resource == resource
                && is(slot)
                && !slot.held.iter().any(|held| held.overlaps(life))
        };
        let slot = self.slots.iter_mut().find(free)?;
        slot.held.push(life);
        Some(slot.device.clone())
    }

    /// All that is offered.
    pub(crate) fn allocatable(self) -> Vec<Offer> {
        let offer = |slot: Slot| Offer { device: slot.device, there: slot.there };
        self.slots.into_iter().map(offer).collect()
    }
}

/// When a GPU is not partitioned.
fn whole(gpu: &Gpu) -> Vec<Window> {
    let mut from = f64::NEG_INFINITY;
    let mut gaps = vec![];
    for layout in &*gpu.mig {
        gaps.push(Window { from, to: layout.during.from });
        from = layout.during.to;
    }
    gaps.push(Window { from, to: f64::INFINITY });
    gaps.retain(|gap| gap.from < gap.to);
    gaps
}

/// Units of [`ACK_MEMORY`] that a GPU has.
pub(crate) fn units(gpu: &Gpu) -> u64 {
    gpu.model.total_mib / 1_024
}

/// What a container must ask for to hold this.
pub(crate) fn limits(holding: &Holding) -> BTreeMap<String, String> {
    let whole = |count: usize| vec![(GPU, count.to_string())];
    let sum = |of: &mut dyn Iterator<Item = u32>| of.map(u64::from).sum::<u64>().to_string();
    let limits = match holding {
        Holding::Nothing | Holding::Claimed(..) => vec![],
        Holding::Whole(gpus) | Holding::Slices(gpus, _) => whole(gpus.len()),
        Holding::Gke(ids) => whole(ids.len()),
        Holding::Mig(ids) => return of_profiles(ids),
        Holding::Ack(gpus, gib, cores) => {
            let memory = sum(&mut gpus.iter().map(|_| *gib));
            let cores = cores.map(|cores| (ACK_CORES, sum(&mut gpus.iter().map(|_| cores))));
            [(ACK_MEMORY, memory)].into_iter().chain(cores).collect()
        }
        Holding::AckV1(_, gib) => vec![(ACK_MEMORY, gib.to_string())],
        Holding::Hami(shares) => {
            let first = shares.first();
            let each = |of: fn(&crate::scenario::cluster::Share) -> u32| {
                first.map(of).unwrap_or_default().to_string()
            };
            vec![
                (GPU, shares.len().to_string()),
                ("nvidia.com/gpumem", each(|share| share.mib)),
                ("nvidia.com/gpucores", each(|share| share.cores)),
            ]
        }
        Holding::Koordinator(shares) => vec![
            ("koordinator.sh/gpu-core", sum(&mut shares.iter().map(|share| share.cores))),
            ("koordinator.sh/gpu-memory", sum(&mut shares.iter().map(|share| share.mib)) + "Mi"),
        ],
        Holding::Volcano(shares) => vec![
            (VOLCANO, shares.len().to_string()),
            ("volcano.sh/vgpu-memory", sum(&mut shares.iter().map(|share| share.mib))),
            ("volcano.sh/vgpu-cores", sum(&mut shares.iter().map(|share| share.cores))),
        ],
    };
    limits.into_iter().map(|(resource, amount)| (resource.to_owned(), amount)).collect()
}

/// How many MIG devices of each resource.
fn of_profiles(devices: &[(String, String)]) -> BTreeMap<String, String> {
    let count = |resource: &String| devices.iter().filter(|(other, _)| other == resource).count();
    devices.iter().map(|(resource, _)| (resource.clone(), count(resource).to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{cluster, scenario},
        Offer,
    };
    use crate::scenario::{Scenario, cluster::Cluster};

    fn ids(devices: &[super::Device]) -> Vec<&str> {
        devices.iter().map(|device| device.id.as_str()).collect()
    }

    fn offered_ids(cluster: &Cluster, time: f64) -> Vec<&str> {
        let there = |offer: &&Offer| offer.there.iter().any(|there| there.contains(time));
        let offers = cluster.allocatable.iter().filter(there);
        offers.map(|offer| offer.device.id.as_str()).collect()
    }

    #[test]
    fn mig_devices_are_offered_in_the_time_of_their_layout() {
        let text = |strategy: &str| {
            format!(
                "[[gpu]]\nmodel = \"A100\"\n\
                 mig = [{{ to = 50, instances = [{{ profile = \"1g.10gb+me\" }}, \
                 {{ profile = \"3g.40gb\", compute = [\"1c.3g.40gb\", \"2c.3g.40gb\"] }}] }}]\n\
                 [cluster]\nmig_strategy = \"{strategy}\"\n\
                 [[pod]]\nname = \"p\"\nend = 50\n\
                 containers = [{{ name = \"c\", mig = [\"0/1\", \"0/2/1\"] }}]\n"
            )
        };
        for (strategy, resources) in [
            ("single", ["nvidia.com/gpu", "nvidia.com/gpu"]),
            ("mixed", ["nvidia.com/mig-1g.10gb.me", "nvidia.com/mig-2c.3g.40gb"]),
        ] {
            let scenario = Scenario::parse("test", &text(strategy)).unwrap();
            let cluster = cluster(&scenario);
            let [gpu] = &scenario.gpus[..] else { panic!("one GPU") };
            let migs: Vec<_> = gpu.mig[0].devices().map(|(_, ci)| ci.uuid.as_str()).collect();
            assert_eq!(offered_ids(cluster, 49.0), migs);
            assert_eq!(offered_ids(cluster, 50.0), [gpu.uuid.as_str()]);
            let held = &cluster.pods[0].containers[0];
            assert_eq!(ids(&held.devices), [migs[0], migs[2]]);
            let asked: Vec<_> = held.devices.iter().map(|device| &*device.resource).collect();
            assert_eq!(asked, resources);
            assert_eq!(
                super::limits(&held.holding)[resources[0]].parse(),
                Ok(if strategy == "single" { 2 } else { 1 })
            );
        }
    }

    #[test]
    fn whole_gpus_and_slices_stand_beside_each_other() {
        let scenario = scenario(
            "[[pod]]\nname = \"a\"\ncontainers = [{ name = \"c\", gpus = [1] }]\n\
             [[pod]]\nname = \"b\"\ncount = 2\n\
             containers = [{ name = \"c\", slices = { gpus = [0], replicas = 3 } }]\n",
        );
        let [first, second] = [0, 1].map(|at| scenario.gpus[at].uuid.as_str());
        let cluster = cluster(&scenario);
        let offered = [format!("{first}::0"), format!("{first}::1"), format!("{first}::2")];
        let mut offered: Vec<_> = offered.iter().map(String::as_str).collect();
        offered.push(second);
        assert_eq!(offered_ids(cluster, 0.0), offered);
        assert_eq!(cluster.allocatable[0].device.numa, Some(0));
        assert_eq!(cluster.allocatable[3].device.numa, Some(1));
        let held = |pod: usize| ids(&cluster.pods[pod].containers[0].devices)[0].to_owned();
        assert_eq!(held(0), second);
        assert_eq!([held(1), held(2)], [format!("{first}::0"), format!("{first}::1")]);
    }

    #[test]
    fn units_of_a_share_name_the_wrong_gpu_and_are_given_once() {
        let scenario = scenario(
            "[[pod]]\nname = \"a\"\n\
             containers = [{ name = \"c\", ack = { gpu = 0, gib = 2, cores = 30 } }]\n\
             [[pod]]\nname = \"b\"\ncontainers = [{ name = \"c\", ack = { gpu = 0, gib = 1 } }]\n",
        );
        let cluster = cluster(&scenario);
        let last = &scenario.gpus[1].uuid;
        assert_eq!(cluster.allocatable.len(), 30, "15 GiB on each of two GPUs");
        let held = |pod: usize| ids(&cluster.pods[pod].containers[0].devices).join(" ");
        assert_eq!(held(0), format!("{last}-_-14 {last}-_-13"));
        assert_eq!(held(1), format!("{last}-_-12"));
    }

    #[test]
    fn what_has_been_given_back_can_be_given_again() {
        let scenario = scenario(
            "[[pod]]\nname = \"a\"\nend = 10\ncontainers = [{ name = \"c\", gpus = [0] }]\n\
             [[pod]]\nname = \"b\"\nstart = 10\ncontainers = [{ name = \"c\", gpus = [0] }]\n",
        );
        let devices = |pod: usize| &cluster(&scenario).pods[pod].containers[0].devices;
        assert_eq!(devices(0), devices(1));
    }

    #[test]
    fn devices_are_named_as_gke_and_hami_name_them() {
        let gke = scenario(
            "[[pod]]\nname = \"a\"\ncontainers = [{ name = \"c\", gke = [\"nvidia0/vgpu1\"] }]\n",
        );
        assert_eq!(offered_ids(cluster(&gke), 0.0), ["nvidia0/vgpu0", "nvidia0/vgpu1", "nvidia1"]);
        let hami = scenario(
            "[[pod]]\nname = \"a\"\n\
             containers = [{ name = \"c\", hami = [{ gpu = 0, mib = 3000, cores = 30 }] }]\n",
        );
        let cluster = cluster(&hami);
        assert_eq!(cluster.allocatable.len(), 20);
        let wrong = format!("{}-9", hami.gpus[1].uuid);
        assert_eq!(ids(&cluster.pods[0].containers[0].devices), [wrong.as_str()]);
    }
}
