//! How the scheduler and the device plugin of a node state what a container is allocated.

use fastrand::Rng;

use super::super::timeline::{Allocation, Container, Device, Gpu, Instance, RESOURCES, World};
use super::claims::claim;

/// How GPUs without MIG are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    Exclusive,
    TimeSlicing,
    AckV1,
    AckV2,
    Hami,
    VolcanoVgpu,
    VolcanoMemory,
    Koordinator,
    Kai,
    /// Whole devices by resource claims.
    Claims,
    /// Shares of GPUs by resource claims.
    ClaimShares,
}

/// A part of a device that one container can hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) device: Device,
    pub(super) replica: u32,
    /// Number of slots of the device.
    pub(super) count: u32,
}

impl Sharing {
    pub(super) fn random(rng: &mut Rng) -> Self {
        match rng.u8(0..19) {
            0..=3 => Self::Exclusive,
            4 | 5 => Self::TimeSlicing,
            6 => Self::AckV1,
            7 => Self::AckV2,
            8 | 9 => Self::Hami,
            10 | 11 => Self::VolcanoVgpu,
            12 => Self::VolcanoMemory,
            13 => Self::Koordinator,
            14 | 15 => Self::Kai,
            16 => Self::Claims,
            _ => Self::ClaimShares,
        }
    }

    pub(super) fn slots_per_gpu(self) -> u32 {
        if matches!(self, Self::Exclusive | Self::Claims) { 1 } else { 3 }
    }

    /// Whether the scheduler does not allocate more of a GPU than it has.
    pub(super) fn is_enforced(self) -> bool {
        matches!(
            self,
            Self::AckV1 | Self::AckV2 | Self::VolcanoMemory | Self::Koordinator | Self::Kai
        )
    }

    pub(super) fn is_by_claim(self) -> bool {
        matches!(self, Self::Claims | Self::ClaimShares)
    }

    /// Whether MIG devices are allocated by other means than ids.
    pub(super) fn divides_mig(self) -> bool {
        self.is_by_claim() || matches!(self, Self::Hami | Self::VolcanoVgpu)
    }

    /// Whether a container may hold slots of several devices, and a pod those of several containers.
    pub(super) fn is_by_container(self) -> bool {
        self.is_by_claim() || matches!(self, Self::Exclusive | Self::TimeSlicing)
    }
}

/// Gives `slot` to `container`, number `position` of the app containers of `apps`. Returns the annotations.
pub(super) fn allocate(
    rng: &mut Rng,
    world: &World,
    (sharing, slot): (Sharing, Slot),
    container: &mut Container,
    (position, apps): (usize, usize),
) -> Vec<(String, String)> {
    let gpu = &world.gpus[slot.device.gpu];
    container.allocations.push(Allocation {
        device: slot.device,
        shared: slot.count > 1,
        memory: f64::from(world.total_mib(slot.device)),
        reserved: true,
        compute: 0.0,
        hidden: false,
    });
    // Ids of units name any GPU of the node; each is allocated once.
    let any = world.gpus[(slot.device.gpu + 1) % world.gpus.len()].uuid.clone();
    let unit = slot.replica + 3 * u32::try_from(slot.device.instance.unwrap_or_default()).unwrap();
    match sharing {
        Sharing::Claims | Sharing::ClaimShares => {
            claim(rng, slot, world.total_mib(slot.device), container);
            Vec::new()
        }
        Sharing::Hami | Sharing::VolcanoVgpu if slot.device.instance.is_some() => {
            let is_hami = sharing == Sharing::Hami;
            let resource = if is_hami { "nvidia.com/gpu" } else { "volcano.sh/vgpu-number" };
            list(container, resource, vec![format!("{any}-{unit}")]);
            hami_mig(rng, gpu, slot, is_hami, (position, apps))
        }
        _ if slot.device.instance.is_some() => by_instance(gpu, slot, container),
        Sharing::Exclusive | Sharing::TimeSlicing => by_id(world, slot, container),
        Sharing::AckV1 => ack_v1(gpu, slot, &any, container),
        Sharing::AckV2 => ack_v2(rng, gpu, slot, &any, (container, position)),
        Sharing::Hami | Sharing::VolcanoVgpu => {
            let (mib, percent) = share(rng, gpu, slot, container);
            let mut entry = format!("{},NVIDIA,{mib},{percent}:;", gpu.uuid);
            entry.insert_str(0, &";".repeat(position));
            entry.push_str(&";".repeat(apps - 1 - position));
            let id = vec![format!("{any}-{unit}")];
            if sharing == Sharing::VolcanoVgpu {
                list(container, "volcano.sh/vgpu-number", id);
                return vec![text("volcano.sh/vgpu-ids-new", entry)];
            }
            list(container, "nvidia.com/gpu", id);
            vec![
                text("hami.io/vgpu-devices-allocated", entry),
                text("hami.io/bind-phase", "success"),
            ]
        }
        Sharing::VolcanoMemory => {
            let (mib, _) = share(rng, gpu, slot, container);
            allocation(container).compute = 0.0;
            list(container, "volcano.sh/gpu-memory", vec![format!("{any}-{unit}")]);
            container.requests = vec![("volcano.sh/gpu-memory", mib.to_string())];
            vec![text("volcano.sh/gpu-index", gpu.minor.to_string())]
        }
        Sharing::Kai => kai(rng, gpu, slot, container),
        Sharing::Koordinator => {
            let (mib, percent) = share(rng, gpu, slot, container);
            list(container, "koordinator.sh/gpu", vec![gpu.minor.to_string()]);
            let json = format!(
                "{{\"gpu\":[{{\"minor\":{},\"resources\":{{\"koordinator.sh/gpu-core\":\"{percent}\",\
                 \"koordinator.sh/gpu-memory\":\"{mib}Mi\"}}}}]}}",
                gpu.minor
            );
            vec![text("scheduling.koordinator.sh/device-allocated", json)]
        }
    }
}

/// The form of a GPU's ids, 0 to 4: a device plugin uses one.
fn form(gpu: &Gpu) -> u8 {
    gpu.uuid.as_bytes()[4] % 5
}

fn by_instance(gpu: &Gpu, slot: Slot, container: &mut Container) -> Vec<(String, String)> {
    let instance = &gpu.instances[slot.device.instance.unwrap_or_default()];
    let (form, is_replica) = (form(gpu), slot.count > 1);
    allocation(container).reserved = !is_replica;
    let mut id = match form {
        0 => format!("MIG-{}/{}/0", gpu.uuid, instance.id),
        1 => format!("nvidia{}/gi{}", gpu.minor, instance.id),
        _ => instance.uuid.clone(),
    };
    if is_replica {
        let separator = if form == 1 { "/vgpu" } else { "::" };
        id = format!("{id}{separator}{}", slot.replica);
    }
    list(container, RESOURCES[usize::from(form) % RESOURCES.len()], vec![id]);
    Vec::new()
}

/// A MIG device by its index, or by the ids of its instances.
fn hami_mig(
    rng: &mut Rng,
    gpu: &Gpu,
    slot: Slot,
    is_hami: bool,
    (position, apps): (usize, usize),
) -> Vec<(String, String)> {
    let index = slot.device.instance.unwrap_or_default();
    let Instance { uuid, id, profile, .. } = &gpu.instances[index];
    let template = if *profile == "1g.10gb" { 10_240 } else { 20_480 };
    let entry = |suffix: String| {
        let entry = format!("{}{suffix},NVIDIA,{template},0:;", gpu.uuid);
        format!("{}{entry}{}", ";".repeat(position), ";".repeat(apps - 1 - position))
    };
    if !is_hami {
        return vec![text("volcano.sh/vgpu-ids-new", entry(format!("[group1-{index}]")))];
    }
    if rng.bool() {
        return vec![text("hami.io/vgpu-devices-allocated", entry(format!("[0-{index}]")))];
    }
    let json = format!(
        "[{{\"containerIndex\":{position},\"deviceIndex\":0,\"gpuUUID\":\"{}\",\"migUUID\":\"{uuid}\",\
         \"gpuInstanceID\":{id},\"computeInstanceID\":0}}]",
        gpu.uuid
    );
    vec![
        text("hami.io/vgpu-devices-allocated", entry(String::new())),
        text("hami.io/vgpu-mig-allocations", json),
    ]
}

fn by_id(world: &World, slot: Slot, container: &mut Container) -> Vec<(String, String)> {
    let gpu = &world.gpus[slot.device.gpu];
    let (is_gke, replica) = (form(gpu) == 0, slot.replica);
    let held = allocation(container);
    held.reserved = slot.count == 1 || world.has_mps_replicas;
    if slot.count > 1 && world.has_mps_replicas {
        held.compute = 1.0 / f64::from(slot.count);
        held.memory *= held.compute;
    }
    let name = if let [only] = world.gpus.as_slice()
        && !world.has_mps_replicas
        && form(only) > 2
    {
        // Of WSL, and of Jetson.
        if form(only) == 3 { "all" } else { "tegra" }
    } else {
        &gpu.uuid
    };
    let id = match (slot.count, is_gke) {
        (1, false) => name.to_owned(),
        (1, true) => format!("nvidia{}", gpu.minor),
        (_, false) => format!("{name}::{replica}"),
        (_, true) => format!("nvidia{}/vgpu{replica}", gpu.minor),
    };
    list(container, "nvidia.com/gpu", vec![id]);
    Vec::new()
}

/// The kubelet lists nothing: a reservation pod holds the GPU.
fn kai(rng: &mut Rng, gpu: &Gpu, slot: Slot, container: &mut Container) -> Vec<(String, String)> {
    let name = text("gpu-fraction-container-name", container.name.clone());
    let total = f64::from(gpu.total_mib);
    let (memory, share) = if rng.bool() {
        (0.3 * total, text("gpu-fraction", "0.3"))
    } else {
        let mib = gpu.total_mib / slot.count;
        (f64::from(mib), text("gpu-memory", mib.to_string()))
    };
    allocation(container).memory = memory;
    [Some(share), rng.bool().then_some(name)].into_iter().flatten().collect()
}

/// The units of a GPU and of a slot; lists those of the slot.
fn units(gpu: &Gpu, slot: Slot, any: &str, container: &mut Container) -> (u32, u32) {
    let of_gpu = gpu.total_mib / 1024;
    let units = of_gpu / slot.count;
    allocation(container).memory *= f64::from(units) / f64::from(of_gpu);
    let id = |n: u32| format!("{any}-_-{}", 100 * slot.replica + n);
    list(container, "aliyun.com/gpu-mem", (0..units).map(id).collect());
    (of_gpu, units)
}

fn ack_v1(gpu: &Gpu, slot: Slot, any: &str, container: &mut Container) -> Vec<(String, String)> {
    let (of_gpu, units) = units(gpu, slot, any, container);
    vec![
        text("ALIYUN_COM_GPU_MEM_DEV", of_gpu.to_string()),
        text("ALIYUN_COM_GPU_MEM_IDX", gpu.minor.to_string()),
        text("ALIYUN_COM_GPU_MEM_POD", units.to_string()),
        text("ALIYUN_COM_GPU_MEM_ASSIGNED", "true"),
    ]
}

fn ack_v2(
    rng: &mut Rng,
    gpu: &Gpu,
    slot: Slot,
    any: &str,
    (container, position): (&mut Container, usize),
) -> Vec<(String, String)> {
    let (of_gpu, units) = units(gpu, slot, any, container);
    let matrix = |n: u32| format!("{{\"{position}\":{{\"{}\":{n}}}}}", gpu.minor);
    let mut all = vec![
        text("scheduler.framework.gpushare.allocation", matrix(units)),
        text("scheduler.framework.gpushare.assigned", "true"),
    ];
    let percent = percent(rng);
    if percent > 0 {
        allocation(container).compute = f64::from(percent) / 100.0;
        all.push(text("gpushare.alibabacloud.com/core-percentage", matrix(percent)));
    }
    all.extend(rng.bool().then(|| text("ALIYUN_COM_GPU_MEM_DEV", of_gpu.to_string())));
    all
}

/// Gives a slot by MiB and percent, and returns both.
fn share(rng: &mut Rng, gpu: &Gpu, slot: Slot, container: &mut Container) -> (u32, u32) {
    let (mib, percent) = (gpu.total_mib / slot.count, percent(rng));
    let allocation = allocation(container);
    (allocation.memory, allocation.compute) = (f64::from(mib), f64::from(percent) / 100.0);
    (mib, percent)
}

fn percent(rng: &mut Rng) -> u32 {
    [0, 25, 30][rng.usize(0..3)]
}

/// The newest allocation of a container.
pub(super) fn allocation(container: &mut Container) -> &mut Allocation {
    container.allocations.last_mut().unwrap()
}

pub(super) fn text(key: &str, value: impl Into<String>) -> (String, String) {
    (key.to_owned(), value.into())
}

/// Adds ids to the kubelet's List, and the request of as many.
fn list(container: &mut Container, resource: &'static str, ids: Vec<String>) {
    container.requests.push((resource, ids.len().to_string()));
    container.listed.push((resource, ids));
}
