//! Random pods: what each is allocated, and what happens to it.

use fastrand::Rng;

use super::super::timeline::{Allocation, Container, Device, Kind, Ms, Pod, Run, World};
use super::chance;
use super::claims::{administer, share_claim};
use super::forgery::forge;
use super::groups::reserve;
use super::rare_cases::RareCase;
use super::sharing::{Sharing, Slot, allocate, text};

/// Creates pods in the order of their creation times.
pub(super) struct PodGenerator<'a> {
    rng: &'a mut Rng,
    world: &'a World,
    sharing: Sharing,
    case: Option<RareCase>,
    /// Each slot, and when it is free.
    slots: Vec<(Slot, Ms)>,
    pods: Vec<Pod>,
    ids: u64,
}

/// How a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Runs,
    /// Deleted with a grace period.
    Terminates,
    /// Succeeded or failed, and perhaps deleted later.
    Completes,
    ForceDeleted,
}

impl<'a> PodGenerator<'a> {
    pub(super) fn new(rng: &'a mut Rng, world: &'a World, case: Option<RareCase>) -> Self {
        let sharing = case.and_then(|case| case.sharing(rng));
        let sharing = sharing.unwrap_or_else(|| Sharing::random(rng));
        // The device plugin has MPS for whole GPUs only.
        let divides_mig = sharing == Sharing::TimeSlicing && !world.has_mps_replicas && rng.bool();
        let slots = |device: Device| {
            let is_one = device.instance.is_some() && !divides_mig;
            let count = if is_one { 1 } else { sharing.slots_per_gpu() };
            (0..count).map(move |replica| (Slot { device, replica, count }, 0))
        };
        let slots = world.devices().into_iter().flat_map(slots).collect();
        Self { rng, world, sharing, case, slots, pods: Vec::new(), ids: 0 }
    }

    /// The pods, and how GPUs are shared.
    pub(super) fn generate(mut self) -> (Vec<Pod>, Sharing) {
        let least = if self.case.is_some() { 3 } else { 1 };
        let count = self.rng.usize(least..=7);
        let mut times: Vec<Ms> =
            (0..count).map(|_| self.rng.u64(0..self.world.length * 4 / 5)).collect();
        // Some pods are older than the exporter.
        let early = self.rng.usize(0..=count);
        times.iter_mut().take(early).for_each(|at| *at /= 20);
        times.sort_unstable();
        if self.is_first_replaced() {
            times[0] = times[0].min(self.world.length / 8);
        }
        let mut replacement: Option<(Ms, String)> = None;
        for at in times {
            let name = replacement.take().filter(|(gone, _)| *gone < self.world.length);
            let (created, name) = match name {
                Some((gone, name)) if self.is_successor() => (gone, name),
                Some((gone, name)) => (gone.max(at), name),
                None => (at, format!("pod-{}", self.pods.len())),
            };
            let is_replaced = self.is_first_replaced() || chance(self.rng, 60);
            let pod = self.pod(created, name);
            replacement =
                pod.gone.filter(|_| is_replaced).map(|gone| (gone + 300, pod.name.clone()));
            self.pods.push(pod);
        }
        if self.sharing == Sharing::Kai {
            let is_lost = self.case == Some(RareCase::LostReservation);
            let reservations = reserve(self.rng, self.world, &mut self.pods, is_lost);
            self.pods.extend(reservations);
        }
        forge(self.rng, self.world, (self.sharing, self.case), &mut self.pods);
        (self.pods, self.sharing)
    }

    fn has(&self, case: RareCase) -> bool {
        self.case == Some(case)
    }

    /// Whether the next pod is the first of a world in which it has a successor.
    fn is_first_replaced(&self) -> bool {
        self.pods.is_empty() && self.case.is_some_and(RareCase::has_successor)
    }

    /// Whether the next pod is that successor.
    fn is_successor(&self) -> bool {
        self.pods.len() == 1 && self.case.is_some_and(RareCase::has_successor)
    }

    /// Whether the next pod has a container with a late status.
    fn is_late(&self) -> bool {
        self.pods.is_empty() && self.has(RareCase::LateStatus)
    }

    fn pod(&mut self, created: Ms, name: String) -> Pod {
        let number = self.pods.len() as u64;
        let uid = format!("{:08x}-1111-4111-8111-{number:012x}", self.rng.u32(..));
        let is_special = self.is_first_replaced() || self.is_successor() || self.is_late();
        let is_static = chance(self.rng, 6) && !is_special;
        let hash = is_static.then(|| format!("{:032x}", self.rng.u128(..)));
        let sandboxed = chance(self.rng, 8) && !is_special;
        let delay = if self.is_successor() { 1_800..4_000 } else { 100..1_500 };
        let runtime_class = if sandboxed { Some("gvisor") } else { None };
        let is_late = self.is_late();
        let runtime_class =
            runtime_class.or_else(|| (is_late || chance(self.rng, 5)).then_some("crun"));
        let mut pod = Pod {
            uid,
            hash,
            namespace: format!("team-{}", self.rng.u8(0..2)),
            name,
            labels: Vec::new(),
            annotations: Vec::new(),
            forges: false,
            changes_amounts: false,
            sandboxed,
            runtime_class,
            reserves: false,
            created,
            admitted: created + self.rng.u64(delay),
            deleted: None,
            gone: None,
            completed: None,
            lag: self.rng.u64(if is_late { 2_500 } else { 300 }..3_000),
            status_held: None,
            containers: self.containers(),
        };
        if let Some(same) = self.pods.iter().find(|earlier| earlier.name == pod.name) {
            pod.namespace.clone_from(&same.namespace);
        }
        let taken = self.allocate(&mut pod);
        // The API server creates claims for pods that it has scheduled.
        if pod.containers.iter().any(|container| !container.claims.is_empty()) {
            pod.hash = None;
        }
        self.schedule(&mut pod);
        let released = pod.released();
        for slot in taken {
            let free = released.max(pod.gone.or(pod.completed).unwrap_or(released));
            self.slots[slot].1 = free.saturating_add(500);
        }
        pod
    }

    fn containers(&mut self) -> Vec<Container> {
        let empty = |name: &str, kind| Container {
            name: name.to_owned(),
            kind,
            runs: Vec::new(),
            foreign_id: None,
            network: None,
            requests: Vec::new(),
            listed: Vec::new(),
            claims: Vec::new(),
            allocations: Vec::new(),
        };
        let mut all = vec![empty("main", Kind::App)];
        let second = if self.is_late() { 100 } else { 25 };
        let init = if self.has(RareCase::InitContainers) { 80 } else { 30 };
        for (name, kind, percent) in [
            ("second", Kind::App, second),
            ("init", Kind::Init, init),
            ("sidecar", Kind::Sidecar, 15),
            ("debug", Kind::Ephemeral, 10),
        ] {
            if chance(self.rng, percent) {
                all.push(empty(name, kind));
            }
        }
        all
    }

    /// Gives devices to the containers of a pod; returns the slots.
    fn allocate(&mut self, pod: &mut Pod) -> Vec<usize> {
        let is_replacement = self.pods.iter().any(|earlier| earlier.name == pod.name);
        let is_replaced = self.is_first_replaced();
        let is_without = is_replaced && self.has(RareCase::ReplacedByHolder);
        let is_ordinary = !is_replacement && !is_replaced && !self.is_late();
        if is_without || is_ordinary && chance(self.rng, 12) {
            return Vec::new();
        }
        if self.sharing.is_by_claim() && chance(self.rng, 15) {
            administer(self.rng, self.world, &mut pod.containers[0]);
            return Vec::new();
        }
        let is_whole = self.has(RareCase::WholeGpus) && chance(self.rng, 40);
        let is_undivided = !self.sharing.divides_mig() && is_ordinary && chance(self.rng, 4);
        if (is_whole || is_undivided)
            && let Some(taken) = self.allocate_gpu(pod, !is_whole)
        {
            return taken;
        }
        let apps = pod.containers.iter().filter(|container| container.kind == Kind::App).count();
        let mut taken: Vec<usize> = Vec::new();
        for position in 0..apps {
            let wanted = match position {
                0 => 1 + usize::from(self.sharing.is_by_container() && chance(self.rng, 15)),
                _ if self.is_late() => 0,
                _ => usize::from(self.sharing.is_by_container() && chance(self.rng, 50)),
            };
            for _ in 0..wanted {
                let container = &mut pod.containers[position];
                let own: Vec<Device> = container.allocations.iter().map(|a| a.device).collect();
                let all = taken.iter().map(|slot| self.slots[*slot].0.device);
                // Two containers of a pod may share a GPU.
                let others =
                    all.filter(|_| !self.sharing.is_by_container() || chance(self.rng, 70));
                let devices: Vec<Device> = others.chain(own).collect();
                let Some(slot) = self.free_slot(pod.created, (&taken, &devices)) else { continue };
                let place = (position, apps);
                let chosen = (self.sharing, self.slots[slot].0);
                let annotations = allocate(self.rng, self.world, chosen, container, place);
                pod.annotations.extend(annotations);
                taken.push(slot);
            }
        }
        self.allocate_to_init(pod);
        self.allocate_second_fraction(pod, &mut taken);
        if self.sharing.is_by_claim() && apps > 1 && chance(self.rng, 40) {
            share_claim(&mut pod.containers);
        }
        taken
    }

    /// Gives some pods with a fraction of a GPU the same fraction of another one.
    fn allocate_second_fraction(&mut self, pod: &mut Pod, taken: &mut Vec<usize>) {
        let [first] = pod.containers[0].allocations.as_slice() else { return };
        if self.sharing != Sharing::Kai || !first.shared || !chance(self.rng, 30) {
            return;
        }
        let share = first.clone();
        let all = self.world.devices().into_iter();
        let others = all.filter(|device| device.instance.is_some() || *device == share.device);
        let Some(slot) = self.free_slot(pod.created, (taken, &others.collect::<Vec<_>>())) else {
            return;
        };
        taken.push(slot);
        let device = self.slots[slot].0.device;
        pod.containers[0].allocations.push(Allocation { device, ..share });
        pod.annotations.push(text("gpu-fraction-num-devices", "2"));
    }

    /// A free slot that is not one of `taken` or of `devices`.
    fn free_slot(&mut self, at: Ms, (taken, devices): (&[usize], &[Device])) -> Option<usize> {
        let is_free =
            |(slot, free_at): &(Slot, Ms)| *free_at <= at && !devices.contains(&slot.device);
        let free = (0..self.slots.len()).filter(|slot| is_free(&self.slots[*slot]));
        let free: Vec<usize> = free.filter(|slot| !taken.contains(slot)).collect();
        (!free.is_empty()).then(|| free[self.rng.usize(0..free.len())])
    }

    /// An init container that requests a GPU gets that of the app container, or keeps it for itself. The
    /// kubelet does not list it.
    fn allocate_to_init(&mut self, pod: &mut Pod) {
        if self.sharing != Sharing::Exclusive {
            return;
        }
        let main = pod.containers[0].clone();
        // App containers get the devices of the init container before others.
        let mut others = pod.containers.iter().skip(1);
        let percent = if self.has(RareCase::InitContainers) { 70 } else { 15 };
        let alone =
            chance(self.rng, percent) && others.all(|container| container.requests.is_empty());
        let Some(init) = pod.containers.iter_mut().find(|c| c.kind == Kind::Init) else { return };
        init.requests.clone_from(&main.requests);
        if alone {
            init.allocations = main.allocations.iter().map(hidden).collect();
            let main = &mut pod.containers[0];
            (main.requests, main.listed, main.allocations) = (Vec::new(), Vec::new(), Vec::new());
        }
    }

    /// Allocates a GPU by its own UUID, with MIG devices if `divided`.
    fn allocate_gpu(&mut self, pod: &mut Pod, divided: bool) -> Option<Vec<usize>> {
        let slots = &self.slots;
        let of_gpu = |gpu: usize| {
            let all = 0..slots.len();
            all.filter(move |slot| slots[*slot].0.device.gpu == gpu)
        };
        let is_free = |gpu: &usize| {
            self.world.gpus[*gpu].instances.is_empty() != divided
                && of_gpu(*gpu).all(|slot| slots[slot].1 <= pod.created)
        };
        let gpu = (0..self.world.gpus.len()).find(is_free)?;
        let slots: Vec<usize> = of_gpu(gpu).collect();
        let device = Device { gpu, instance: None };
        let memory = f64::from(self.world.gpus[gpu].total_mib);
        let main = &mut pod.containers[0];
        main.requests.push(("nvidia.com/gpu", "1".to_owned()));
        main.listed.push(("nvidia.com/gpu", vec![self.world.gpus[gpu].uuid.clone()]));
        main.allocations.push(Allocation {
            device,
            shared: false,
            memory,
            reserved: true,
            compute: 0.0,
            hidden: divided,
        });
        Some(slots)
    }

    /// Sets what happens to a pod.
    fn schedule(&mut self, pod: &mut Pod) {
        let forever = self.world.length * 10;
        let mut ready = pod.admitted + self.rng.u64(300..3_000);
        for container in pod.containers.iter_mut().filter(|c| c.kind == Kind::Init) {
            let end = ready + self.rng.u64(2_000..40_000);
            container.runs.push(run(&mut self.ids, ready, end));
            ready = end + self.rng.u64(200..2_000);
        }
        let is_replaced = self.is_first_replaced();
        let fate = match self.rng.u8(0..11) {
            _ if is_replaced => Fate::ForceDeleted,
            _ if self.is_successor() || self.is_late() => Fate::Runs,
            0..=3 => Fate::Runs,
            4..=6 => Fate::Terminates,
            7 | 8 => Fate::Completes,
            _ => Fate::ForceDeleted,
        };
        let life = self.rng.u64(10_000..if is_replaced { 30_000 } else { 200_000 });
        let (deleted, stop) = match fate {
            Fate::Runs => (None, forever),
            Fate::Completes => (None, ready + life),
            Fate::Terminates | Fate::ForceDeleted => {
                let least = if is_replaced { 15_000 } else { 500 };
                (Some(ready + life), ready + life + self.rng.u64(least..35_000))
            }
        };
        let is_late = self.is_late();
        let pause = match is_late.then(|| self.rng.bool()) {
            Some(true) => 500..1_500,
            Some(false) => 4_000..8_000,
            None => 500..10_000,
        };
        for container in pod.containers.iter_mut().filter(|c| c.kind != Kind::Init) {
            let mut start = ready + self.rng.u64(0..2_000);
            if container.kind == Kind::Ephemeral {
                start += self.rng.u64(2_000..30_000);
            }
            if start >= stop {
                continue;
            }
            // Some containers crash again and again.
            let (restarts, percent) = if is_late {
                if container.name == "second" { (5, 100) } else { (0, 0) }
            } else if chance(self.rng, 10) {
                (6, 80)
            } else {
                (3, 15)
            };
            while container.kind == Kind::App
                && container.runs.len() < restarts
                && chance(self.rng, percent)
            {
                let end = start + self.rng.u64(3_000..60_000);
                if end + 12_000 >= deleted.unwrap_or(stop) {
                    break;
                }
                container.runs.push(run(&mut self.ids, start, end));
                start = end + self.rng.u64(pause.clone());
            }
            container.runs.push(run(&mut self.ids, start, stop));
        }
        pod.deleted = deleted;
        let last = pod.last_run_end();
        match fate {
            Fate::Runs => {}
            Fate::Terminates => pod.gone = Some(last + pod.lag + self.rng.u64(300..1_000)),
            Fate::ForceDeleted => pod.gone = deleted,
            Fate::Completes => {
                pod.completed = Some(last);
                if self.rng.bool() {
                    let deleted = last + self.rng.u64(5_000..60_000);
                    (pod.deleted, pod.gone) = (Some(deleted), Some(deleted + 500));
                }
            }
        }
    }
}

fn hidden(allocation: &Allocation) -> Allocation {
    Allocation { hidden: true, ..allocation.clone() }
}

fn run(ids: &mut u64, start: Ms, end: Ms) -> Run {
    *ids += 1;
    Run { id: format!("{:016x}{:048x}", *ids * 0x9e37_79b9, *ids), start, end }
}
