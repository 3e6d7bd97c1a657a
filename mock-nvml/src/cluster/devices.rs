//! The device plugins of the node: the devices they offer, and which of them the kubelet allocates to
//! each container.

use std::sync::Arc;

use crate::{
    cluster::resources::{ACK_MEMORY, GPU_RESOURCE, MigStrategy, VOLCANO, gib_units},
    scenario::{
        Gpu,
        cluster::{GpuAllocation, OfferedDevice, PluginDevice},
        mig::{MigForm, unpartitioned_windows},
    },
    window::Window,
};

/// Devices per GPU that `HAMi` and Volcano offer (their default).
const DEVICES_PER_GPU: u32 = 10;

/// How a GPU is offered as [`GPU_RESOURCE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SharingMode {
    Whole,
    Slices(u32, bool),
    Gke,
    Hami,
    Claimed,
}

impl SharingMode {
    fn text(self) -> String {
        match self {
            Self::Whole => "as a whole GPU".into(),
            Self::Slices(replicas, false) => format!("in {replicas} slices"),
            Self::Slices(replicas, true) => format!("in {replicas} slices with MPS"),
            Self::Gke => "by the GKE plugin".into(),
            Self::Hami => "by HAMi".into(),
            Self::Claimed => "by a resource claim".into(),
        }
    }
}

/// A device and its allocations.
#[derive(Debug)]
struct DeviceState {
    device: PluginDevice,
    /// Index of its GPU; `None` if only its id selects it.
    gpu: Option<usize>,
    allocated: Vec<Window>,
    offered: Vec<Window>,
    /// An init container of the pod that is being admitted had it, and no later container has it yet.
    reusable: bool,
}

impl DeviceState {
    fn new(device: PluginDevice, gpu: Option<usize>, offered: Window) -> Self {
        Self { device, gpu, allocated: vec![], offered: vec![offered], reusable: false }
    }

    fn is_free(&self, life: Window) -> bool {
        self.reusable || !self.allocated.iter().any(|allocated| allocated.overlaps(life))
    }
}

/// The device plugins of a node, their devices and allocations.
#[derive(Debug)]
pub(crate) struct DevicePlugins {
    modes: Vec<Option<SharingMode>>,
    strategy: MigStrategy,
    devices: Vec<DeviceState>,
}

impl DevicePlugins {
    /// The plugins of a node with `gpus` GPUs, before any allocation is registered.
    pub(crate) fn new(gpus: usize, strategy: MigStrategy) -> Self {
        Self { modes: vec![None; gpus], strategy, devices: vec![] }
    }

    /// Registers the allocation of a container, which decides the sharing mode of its GPUs.
    ///
    /// # Errors
    /// The GPU already has another sharing mode.
    pub(crate) fn register(&mut self, allocation: &GpuAllocation) -> Result<(), String> {
        let all = 0..self.modes.len();
        match allocation {
            GpuAllocation::Whole(gpus) => self.set_mode(gpus.iter().copied(), SharingMode::Whole),
            GpuAllocation::Slices(gpus, replicas, mps) => {
                self.set_mode(gpus.iter().copied(), SharingMode::Slices(*replicas, *mps))
            }
            GpuAllocation::Gke(_) => self.set_mode(all, SharingMode::Gke),
            GpuAllocation::Hami(_)
            | GpuAllocation::SchedulerMig(MigForm::HamiIdentity | MigForm::HamiIndex, _) => {
                self.set_mode(all, SharingMode::Hami)
            }
            GpuAllocation::Claim(claim) => self.set_mode(
                claim.devices.iter().filter_map(|device| device.gpu),
                SharingMode::Claimed,
            ),
            GpuAllocation::Nothing
            | GpuAllocation::Mig(_)
            | GpuAllocation::Ack(..)
            | GpuAllocation::AckV1(..)
            | GpuAllocation::Koordinator(_)
            | GpuAllocation::Volcano(_)
            | GpuAllocation::SchedulerMig(MigForm::Volcano, _) => Ok(()),
        }
    }

    fn set_mode(
        &mut self,
        gpus: impl Iterator<Item = usize>,
        mode: SharingMode,
    ) -> Result<(), String> {
        for gpu in gpus {
            let Some(current) = self.modes.get_mut(gpu) else { continue };
            if let Some(other) = current.filter(|other| *other != mode) {
                let (mode, other) = (mode.text(), other.text());
                return Err(format!(
                    "GPU {gpu} is allocated {mode} here and {other} elsewhere, but a device plugin \
                     offers a GPU in one way: allocate it the same way everywhere"
                ));
            }
            *current = Some(mode);
        }
        Ok(())
    }

    /// Offers all devices. Call it after all allocations have been registered; `others` are further
    /// devices as resource and id.
    pub(crate) fn offer_devices<'a>(
        &mut self,
        gpus: &[Gpu],
        allocations: impl Iterator<Item = &'a GpuAllocation> + Clone,
        others: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        let any = |is: fn(&GpuAllocation) -> bool| allocations.clone().any(is);
        let ack = any(|allocation| {
            matches!(allocation, GpuAllocation::Ack(..) | GpuAllocation::AckV1(..))
        });
        let volcano = any(|allocation| {
            use GpuAllocation::{SchedulerMig, Volcano};
            matches!(allocation, Volcano(_) | SchedulerMig(MigForm::Volcano, _))
        });
        let koordinator = any(|allocation| matches!(allocation, GpuAllocation::Koordinator(_)));
        let partitioned = any(|allocation| matches!(allocation, GpuAllocation::Mig(_)));
        let plain = self.modes.iter().any(Option::is_some);
        if plain || partitioned || !(ack || volcano || koordinator) {
            self.offer_gpus(gpus, allocations);
        }
        for (resource, used) in [(ACK_MEMORY, ack), (VOLCANO, volcano)] {
            let resource: Arc<str> = resource.into();
            for gpu in gpus.iter().filter(|_| used) {
                let unit = |n: u64| match &*resource {
                    ACK_MEMORY => format!("{}-_-{n}", gpu.uuid),
                    _ => format!("{}-{n}", gpu.uuid),
                };
                let count = if &*resource == ACK_MEMORY {
                    gib_units(gpu)
                } else {
                    u64::from(DEVICES_PER_GPU)
                };
                (0..count).for_each(|n| self.add_device(&resource, unit(n), Some(gpu.index), None));
            }
        }
        for (resource, id) in others {
            let known =
                |state: &DeviceState| &*state.device.resource == resource && state.device.id == id;
            if !self.devices.iter().any(known) {
                self.add_device(&resource.into(), id.to_owned(), None, None);
            }
        }
    }

    fn offer_gpus<'a>(
        &mut self,
        gpus: &[Gpu],
        allocations: impl Iterator<Item = &'a GpuAllocation>,
    ) {
        let resource: Arc<str> = GPU_RESOURCE.into();
        let gke: Vec<&str> = allocations
            .filter_map(|allocation| {
                let GpuAllocation::Gke(ids) = allocation else { return None };
                Some(ids.iter().map(String::as_str))
            })
            .flatten()
            .collect();
        let replica_count = |id: &str| Some(id.rsplit_once("/vgpu")?.1.parse::<u32>().ok()? + 1);
        let gke_replicas = gke.iter().copied().filter_map(replica_count).max().unwrap_or_default();
        for gpu in gpus {
            let numa = Some(i64::from(2 * gpu.index >= gpus.len().max(2)));
            let mode = self.modes.get(gpu.index).copied().flatten().unwrap_or(SharingMode::Whole);
            let name = format!("nvidia{}", gpu.minor);
            let ids_of_gpu: Vec<_> =
                gke.iter().filter(|id| id.starts_with(&format!("{name}/"))).collect();
            let ids: Vec<String> = match mode {
                SharingMode::Whole => vec![gpu.uuid.clone()],
                SharingMode::Slices(replicas, _) => {
                    (0..replicas).map(|n| format!("{}::{n}", gpu.uuid)).collect()
                }
                SharingMode::Claimed => vec![],
                SharingMode::Hami => {
                    (0..DEVICES_PER_GPU).map(|n| format!("{}-{n}", gpu.uuid)).collect()
                }
                SharingMode::Gke if ids_of_gpu.is_empty() => vec![name],
                SharingMode::Gke
                    if ids_of_gpu
                        .iter()
                        .all(|id| replica_count(id).is_some() && !id.contains("/gi")) =>
                {
                    (0..gke_replicas).map(|n| format!("{name}/vgpu{n}")).collect()
                }
                SharingMode::Gke => ids_of_gpu.into_iter().map(|id| (*id).to_owned()).collect(),
            };
            let first = self.devices.len();
            for id in ids {
                self.add_device(&resource, id, Some(gpu.index), numa);
            }
            // HAMi's plugin offers the same devices in MIG mode, and creates MIG devices on demand.
            if mode == SharingMode::Hami {
                continue;
            }
            for state in self.devices.iter_mut().skip(first) {
                state.offered = unpartitioned_windows(&gpu.mig);
            }
            self.offer_mig_devices(gpu, numa);
        }
    }

    /// Offers the MIG devices of a GPU, each while one of its layouts is in force.
    fn offer_mig_devices(&mut self, gpu: &Gpu, numa: Option<i64>) {
        for layout in &*gpu.mig {
            for (gi, ci) in layout.devices() {
                let resource = self.strategy.resource(&gi.device_profile(ci)).into();
                let device = PluginDevice { resource, id: ci.uuid.clone(), numa };
                match self.devices.iter_mut().find(|state| state.device == device) {
                    Some(state) => state.offered.push(layout.during),
                    None => self.devices.push(DeviceState::new(device, None, layout.during)),
                }
            }
        }
    }

    fn add_device(
        &mut self,
        resource: &Arc<str>,
        id: String,
        gpu: Option<usize>,
        numa: Option<i64>,
    ) {
        let device = PluginDevice { resource: Arc::clone(resource), id, numa };
        let known = self.devices.iter().any(|state| state.device == device);
        if !known {
            self.devices.push(DeviceState::new(device, gpu, Window::ALWAYS));
        }
    }

    /// Begins to admit another pod.
    pub(crate) fn begin_pod(&mut self) {
        self.devices.iter_mut().for_each(|state| state.reusable = false);
    }

    /// Lets the later containers of the pod use the devices of one of its init containers, which ends
    /// before they start.
    pub(crate) fn reuse(&mut self, devices: &[PluginDevice]) {
        let of_init = |state: &&mut DeviceState| devices.contains(&state.device);
        self.devices.iter_mut().filter(of_init).for_each(|state| state.reusable = true);
    }

    /// Allocates the devices of a container for the time window `life`.
    ///
    /// # Errors
    /// The node has too few devices, or another pod has them at some time of the window.
    pub(crate) fn allocate(
        &mut self,
        allocation: &GpuAllocation,
        life: Window,
    ) -> Result<Vec<PluginDevice>, String> {
        let mut devices = vec![];
        let mut of_gpu =
            |gpu| self.allocate_first(GPU_RESOURCE, life, |state| state.gpu == Some(gpu));
        match allocation {
            GpuAllocation::Nothing | GpuAllocation::Koordinator(_) | GpuAllocation::Claim(_) => {}
            GpuAllocation::Whole(gpus) | GpuAllocation::Slices(gpus, ..) => {
                for index in gpus {
                    devices.push(of_gpu(*index).ok_or_else(|| {
                        format!(
                            "GPU {index} has no free device for the whole lifetime of this pod: end \
                             another pod earlier or allocate another GPU"
                        )
                    })?);
                }
            }
            GpuAllocation::Mig(ids) => {
                for (resource, id) in ids {
                    devices.push(self.allocate_by_id(resource, id, life)?);
                }
            }
            GpuAllocation::Gke(ids) => {
                for id in ids {
                    devices.push(self.allocate_by_id(GPU_RESOURCE, id, life)?);
                }
            }
            GpuAllocation::Ack(gpus, gib, _) => {
                for _ in 0..gpus.len() as u64 * u64::from(*gib) {
                    devices.push(self.allocate_any(ACK_MEMORY, life)?);
                }
            }
            GpuAllocation::AckV1(_, gib) => {
                for _ in 0..*gib {
                    devices.push(self.allocate_any(ACK_MEMORY, life)?);
                }
            }
            GpuAllocation::Hami(shares) => {
                for _ in shares {
                    devices.push(self.allocate_any(GPU_RESOURCE, life)?);
                }
            }
            GpuAllocation::SchedulerMig(form, migs) => {
                let volcano = *form == MigForm::Volcano;
                let resource = if volcano { VOLCANO } else { GPU_RESOURCE };
                for _ in migs {
                    devices.push(self.allocate_any(resource, life)?);
                }
            }
            GpuAllocation::Volcano(shares) => {
                for _ in shares {
                    devices.push(self.allocate_any(VOLCANO, life)?);
                }
            }
        }
        Ok(devices)
    }

    /// Allocates a device by its id.
    ///
    /// # Errors
    /// The device is not offered, or another pod has it at some time of the window.
    pub(crate) fn allocate_by_id(
        &mut self,
        resource: &str,
        id: &str,
        life: Window,
    ) -> Result<PluginDevice, String> {
        self.allocate_first(resource, life, |state| state.device.id == id).ok_or_else(|| {
            format!(
                "{id} is allocated to another pod at some time in the lifetime of this one, or is \
                 not offered: end one pod earlier or allocate another device"
            )
        })
    }

    /// Allocates the last free unit. The plugins of GPU sharing schedulers allocate units regardless of
    /// the GPU that the scheduler chose; taking the last GPU makes that visible.
    fn allocate_any(&mut self, resource: &str, life: Window) -> Result<PluginDevice, String> {
        let mut free = self
            .devices
            .iter()
            .rev()
            .filter(|state| &*state.device.resource == resource && state.is_free(life));
        let reused = free.clone().find(|state| state.reusable);
        let id = reused.or_else(|| free.next()).map(|state| state.device.id.clone());
        let device =
            id.and_then(|id| self.allocate_first(resource, life, |state| state.device.id == id));
        device.ok_or_else(|| {
            format!(
                "the node has too little {resource} for the whole lifetime of this pod: allocate less"
            )
        })
    }

    fn allocate_first(
        &mut self,
        resource: &str,
        life: Window,
        matches: impl Fn(&DeviceState) -> bool,
    ) -> Option<PluginDevice> {
        let mut free: Vec<_> = self
            .devices
            .iter_mut()
            .filter(|state| &*state.device.resource == resource && matches(state))
            .filter(|state| state.is_free(life))
            .collect();
        let reused = free.iter().position(|state| state.reusable).unwrap_or_default();
        let state = free.get_mut(reused)?;
        if !std::mem::take(&mut state.reusable) {
            state.allocated.push(life);
        }
        Some(state.device.clone())
    }

    /// All offered devices, as `GetAllocatableResources` returns them.
    pub(crate) fn allocatable(self) -> Vec<OfferedDevice> {
        let offer =
            |state: DeviceState| OfferedDevice { device: state.device, offered: state.offered };
        self.devices.into_iter().map(offer).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::cluster::{
        devices::OfferedDevice,
        tests::{cluster, scenario},
    };
    use crate::scenario::{Scenario, cluster::Cluster};

    fn ids(devices: &[super::PluginDevice]) -> Vec<&str> {
        devices.iter().map(|device| device.id.as_str()).collect()
    }

    fn offered_ids(cluster: &Cluster, time: f64) -> Vec<&str> {
        let offered =
            |offer: &&OfferedDevice| offer.offered.iter().any(|window| window.contains(time));
        let offers = cluster.allocatable.iter().filter(offered);
        offers.map(|offer| offer.device.id.as_str()).collect()
    }

    #[test]
    fn mig_devices_are_offered_while_their_layout_is_in_force() {
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
            let container = &cluster.pods[0].containers[0];
            assert_eq!(ids(&container.devices), [migs[0], migs[2]]);
            let allocated: Vec<_> =
                container.devices.iter().map(|device| &*device.resource).collect();
            assert_eq!(allocated, resources);
            assert_eq!(
                crate::cluster::resources::limits(&container.allocation)[resources[0]].parse(),
                Ok(if strategy == "single" { 2 } else { 1 })
            );
        }
    }

    #[test]
    fn node_offers_whole_gpus_and_time_slices_of_different_gpus() {
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
        let allocated = |pod: usize| ids(&cluster.pods[pod].containers[0].devices)[0].to_owned();
        assert_eq!(allocated(0), second);
        assert_eq!([allocated(1), allocated(2)], [format!("{first}::0"), format!("{first}::1")]);
    }

    #[test]
    fn ack_units_come_from_the_last_gpu_and_are_allocated_once() {
        let scenario = scenario(
            "[[pod]]\nname = \"a\"\n\
             containers = [{ name = \"c\", ack = { gpu = 0, gib = 2, cores = 30 } }]\n\
             [[pod]]\nname = \"b\"\ncontainers = [{ name = \"c\", ack = { gpu = 0, gib = 1 } }]\n",
        );
        let cluster = cluster(&scenario);
        let last = &scenario.gpus[1].uuid;
        assert_eq!(cluster.allocatable.len(), 30, "15 GiB on each of two GPUs");
        let allocated = |pod: usize| ids(&cluster.pods[pod].containers[0].devices).join(" ");
        assert_eq!(allocated(0), format!("{last}-_-14 {last}-_-13"));
        assert_eq!(allocated(1), format!("{last}-_-12"));
    }

    #[test]
    fn device_of_an_ended_pod_is_allocated_again() {
        let scenario = scenario(
            "[[pod]]\nname = \"a\"\nend = 10\ncontainers = [{ name = \"c\", gpus = [0] }]\n\
             [[pod]]\nname = \"b\"\nstart = 10\ncontainers = [{ name = \"c\", gpus = [0] }]\n",
        );
        let devices = |pod: usize| &cluster(&scenario).pods[pod].containers[0].devices;
        assert_eq!(devices(0), devices(1));
    }

    #[test]
    fn device_ids_have_the_formats_of_gke_and_hami() {
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
        let last = format!("{}-9", hami.gpus[1].uuid);
        assert_eq!(ids(&cluster.pods[0].containers[0].devices), [last.as_str()]);
    }

    #[test]
    fn later_containers_of_a_pod_get_the_devices_of_its_init_containers() {
        let pod =
            |containers: &str| format!("[[pod]]\nname = \"a\"\ncontainers = [{containers}]\n");
        let init = "{ name = \"i\", kind = \"init\", end = 5, gpus = [0, 1] }";
        let text = format!("{{ name = \"c\", gpus = 0 }}, {init}, {{ name = \"d\", gpus = 1 }}");
        let scenario = scenario(&pod(&text));
        let devices: Vec<_> =
            cluster(&scenario).pods[0].containers.iter().map(|one| ids(&one.devices)).collect();
        let [first, second] = [0, 1].map(|at| scenario.gpus[at].uuid.as_str());
        assert_eq!(devices, [vec![first], vec![first, second], vec![second]]);
        let units = "{ name = \"i\", kind = \"init\", end = 5, ack = { gpu = 0, gib = 30 } }, \
                     { name = \"c\", ack = { gpu = 0, gib = 30 } }";
        let scenario = super::tests::scenario(&pod(units));
        let containers = &cluster(&scenario).pods[0].containers;
        assert_eq!(containers[0].devices.len(), containers[1].devices.len());

        let error = |text: &str| {
            let gpus = "[[gpu]]\nmodel = \"T4\"\ncount = 2\n";
            Scenario::parse("test", &format!("{gpus}{}", pod(text))).unwrap_err().to_string()
        };
        for twice in [
            format!("{init}, {{ name = \"c\", gpus = 0 }}, {{ name = \"d\", gpus = 0 }}"),
            format!(
                "{init}, {{ name = \"s\", kind = \"sidecar\", gpus = 0 }}, {{ name = \"c\", gpus = 0 }}"
            ),
            "{ name = \"c\", gpus = 0 }, { name = \"s\", kind = \"sidecar\", gpus = 0 }".to_owned(),
        ] {
            let error = error(&twice);
            assert!(error.contains("GPU 0 has no free device"), "{twice}: {error}");
        }
    }

    #[test]
    fn mig_uuid_with_another_profile_is_a_device_of_another_resource() {
        let uuid = "MIG-00000000-0000-4000-8000-000000000001";
        let layout = |profile: &str| {
            format!("instances = [{{ profile = \"{profile}\", gi = 3, uuid = \"{uuid}\" }}]")
        };
        let text = format!(
            "[[gpu]]\nmodel = \"A100\"\nmig = [{{ to = 50, {} }}, {{ from = 50, {} }}]\n\
             [cluster]\nmig_strategy = \"mixed\"\n\
             [[pod]]\nname = \"p\"\ncontainers = [{{ name = \"c\", mig = [\"{uuid}\"] }}]\n",
            layout("1g.10gb"),
            layout("3g.40gb"),
        );
        let scenario = Scenario::parse("test", &text).unwrap();
        let cluster = cluster(&scenario);
        let offered = |time: f64| {
            let in_force =
                |offer: &&OfferedDevice| offer.offered.iter().any(|one| one.contains(time));
            let offers = cluster.allocatable.iter().filter(in_force);
            offers.map(|one| (&*one.device.resource, one.device.id.as_str())).collect::<Vec<_>>()
        };
        assert_eq!(offered(0.0), [("nvidia.com/mig-1g.10gb", uuid)]);
        assert_eq!(offered(50.0), [("nvidia.com/mig-3g.40gb", uuid)]);
        assert_eq!(ids(&cluster.pods[0].containers[0].devices), [uuid]);
    }

    #[test]
    fn pod_may_hold_ids_that_name_a_divided_gpu_in_part_or_not_at_all() {
        let scenario = Scenario::parse(
            "test",
            "[[gpu]]\nmodel = \"A100\"\nuuid = \"GPU-00000000-0000-4000-8000-000000000001\"\n\
             mig = [{ instances = [{ profile = \"1g.10gb\", gi = 9 }] }]\n\
             [[pod]]\nname = \"gke\"\ncontainers = [{ name = \"c\", gke = [\"nvidia0/gi9\"] }]\n\
             [[pod]]\nname = \"old\"\ncontainers = [{ name = \"c\", devices = { \"nvidia.com/gpu\" = [\n\
             \"MIG-GPU-00000000-0000-4000-8000-000000000001/9/0\",\n\
             \"GPU-00000000-0000-4000-8000-000000000001\",\n\
             \"GPU-00000000-0000-4000-8000-000000000001::0\",\n\
             \"MIG-00000000-0000-4000-8000-00000000000f\",\n] } }]\n",
        );
        let scenario = scenario.unwrap();
        let devices = |pod: usize| ids(&cluster(&scenario).pods[pod].containers[0].devices);
        assert_eq!(devices(0), ["nvidia0/gi9"]);
        assert_eq!(devices(1).len(), 4);
    }
}
