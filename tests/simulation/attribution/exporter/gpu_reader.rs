//! The thread of one GPU without NVML: what the driver and `/proc` return becomes a sample.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::catalog::DEVICE;
use nvml_exporter::host::cgroup_cache::CgroupCache;
use nvml_exporter::host::{ProcessIdentity, cgroup};
use nvml_exporter::model::{
    CgroupLocation, DeviceProcesses, Discard, Discards, Gpu, Limits, MigDevice, MigPlacement,
    Missing, Moment, ProcessId, Reading,
};
use nvml_exporter::nvml::raw::Handle;
use nvml_exporter::nvml::raw::memory::Memory;
use nvml_exporter::nvml::raw::processes::RunningProcess;
use nvml_exporter::nvml::raw::samples::UtilizationSample;
use nvml_exporter::nvml::raw::utilization::UtilizationRow;
use nvml_exporter::sample::SampledGpu;
use nvml_exporter::sample::device::DeviceSample;
use nvml_exporter::sample::gpu_utilization::GpuUtilizationSampler;
use nvml_exporter::sample::link_fields::LabeledReadings;
use nvml_exporter::sample::partition::PartitionSample;
use nvml_exporter::sample::process_utilization::{UtilizationCursor, UtilizationWindow};
use nvml_exporter::sample::processes::{ProcessLookup, ProcessTable, RunningLists};
use nvml_exporter::sample::reading_cache::CachedReading;
use nvml_exporter::sample::unlisted_use::{DeviceUse, UnlistedUseDetector};
use nvml_exporter::sample::utilization_source::UtilizationSource;
use nvml_exporter::selection::Selection;

use super::WALL_US;
use crate::attribution::node::{CallError, Node, ProcError, Row, ticks};
use crate::attribution::timeline::{Device, Ms, ProcessList, World};

const MIB: u64 = 1 << 20;

/// What the thread of one GPU keeps.
#[derive(Default)]
pub(super) struct GpuReader {
    utilization: UtilizationCursor,
    sampler: GpuUtilizationSampler,
    cgroups: CgroupCache,
    processes: BTreeMap<Device, ProcessTable>,
    detectors: BTreeMap<Device, UnlistedUseDetector>,
    discards: Discards,
    pub(super) sampled: SampledGpu,
}

impl GpuReader {
    pub(super) fn read(
        &mut self,
        index: usize,
        node: &Node<'_>,
        at: Moment,
        selection: &Selection,
    ) {
        if node.hangs(index) {
            self.sampled.pending_since.get_or_insert(at.mono);
            return;
        }
        let gpu = &node.world.gpus[index];
        let mut ring = NodeRing { node, index, at };
        self.utilization.read(&mut ring, &mut self.sampler, &mut self.discards);
        self.cgroups.begin_cycle(at.mono);
        let window = self.utilization.finish_window();
        let window = window.as_ref().map_err(|missing| *missing);
        let of_gpu = |device: &Device| device.gpu == index;
        let partitions = node.world.devices().into_iter().filter(of_gpu);
        let mut partitions: Vec<_> =
            partitions.map(|device| self.partition(device, node, at, window, selection)).collect();
        let utilization = f64::from(node.utilization(index));
        let of_gpu = |device: &Device| device.gpu == index;
        for (part, device) in
            partitions.iter_mut().zip(node.world.devices().into_iter().filter(of_gpu))
        {
            let whole = device.instance.is_none();
            let detector = self.detectors.entry(device).or_default();
            part.unlisted_use = detector.add(&DeviceUse {
                utilization: if whole { Ok(utilization) } else { Err(Missing::Unsupported) },
                framebuffer: part.framebuffer,
                listings: vec![&part.listing],
            });
        }
        let mut readings = vec![None; DEVICE.len()];
        for family in selection.device.families() {
            readings[family.row] = Some(CachedReading { reading: Ok(utilization), at: at.mono });
        }
        let identity = Gpu {
            index: u32::try_from(index).unwrap(),
            minor: Some(gpu.minor),
            uuid: gpu.uuid.as_str().into(),
            name: "NVIDIA L20".into(),
            pci_bus_id: "".into(),
        };
        let sample = DeviceSample {
            gpu: Arc::new(identity),
            handle: Handle::none(),
            limits: Limits::default(),
            compute_mode: Ok(0.0),
            at,
            readings,
            mig_parent_readings: None,
            info_labels: Vec::new(),
            clock_event_reasons: None,
            peers: Vec::new(),
            links: None,
            labeled: LabeledReadings::default(),
            health: None,
            energy: None,
            partitions,
            partitions_complete: Ok(()),
            discards: self.discards,
            driver_clock_offset: self.utilization.clock_offset(),
            refuses_all_rows: self.utilization.refuses_all_rows(),
        };
        self.sampled = SampledGpu {
            latest: Some(Ok(Arc::new(sample))),
            pending_since: None,
            request_duration: Some(Duration::ZERO),
        };
    }

    fn partition(
        &mut self,
        device: Device,
        node: &Node<'_>,
        at: Moment,
        window: Result<&UtilizationWindow, Missing>,
        selection: &Selection,
    ) -> PartitionSample {
        let (total, used) = node.framebuffer(device);
        let bytes = |mib: u32| u64::from(mib) * MIB;
        let (total, used) = (bytes(total), bytes(used));
        let free = total.saturating_sub(used);
        let framebuffer = Memory { total, used, free, reserved: Some(0) };
        let window = if device.instance.is_some() { Err(Missing::Unsupported) } else { window };
        let entry =
            |(pid, mib): &(u32, Option<u32>)| RunningProcess { pid: *pid, memory: mib.map(bytes) };
        let running = |list| {
            let list = node.running(device, list).map_err(missing)?;
            Ok(list.iter().map(entry).collect())
        };
        let lists = RunningLists {
            compute: running(ProcessList::Compute),
            graphics: running(ProcessList::Graphics),
            mps: running(ProcessList::Mps),
        };
        let later = Node { at: node.at + node.world.proc_delay, ..*node };
        let mut procfs = Procfs { node: &later, listed: node.at, cgroups: &mut self.cgroups };
        let table = self.processes.entry(device).or_default();
        let listing = table.merge(lists, window, at.mono, &mut procfs);
        let listed = |pid| {
            let mut processes = listing.iter().flat_map(|listing| &listing.processes);
            processes.any(|process| process.id.pid == pid)
        };
        let utilization = window.and_then(|window| window.summary(listed));
        let unread: Reading = Err(Missing::Unsupported);
        PartitionSample {
            mig: device.instance.map(|instance| Arc::new(mig_device(node.world, device, instance))),
            readings: vec![
                Some(CachedReading { reading: unread, at: at.mono });
                selection.instance.len()
            ],
            activity: Vec::new(),
            reports_instance: true,
            framebuffer: plausible(framebuffer, &listing),
            listed_at: at.mono,
            listing,
            utilization,
            unlisted_use: None,
            memory_accounts: Vec::new(),
        }
    }
}

/// The ring buffers of a GPU of the node.
struct NodeRing<'a, 'n> {
    node: &'a Node<'n>,
    index: usize,
    at: Moment,
}

impl NodeRing<'_, '_> {
    fn since(last_seen_us: u64) -> u64 {
        last_seen_us.saturating_sub(WALL_US) / 1000
    }
}

impl UtilizationSource for NodeRing<'_, '_> {
    fn samples(&mut self, last_seen_us: u64) -> Result<Vec<UtilizationSample>, Missing> {
        let samples = self.node.samples(self.index, Self::since(last_seen_us)).map_err(missing)?;
        let sample = |(at, percent): (u64, u32)| UtilizationSample {
            stamp_us: WALL_US + at * 1000,
            percent,
        };
        Ok(samples.into_iter().map(sample).collect())
    }

    fn rows(&mut self, last_seen_us: u64) -> Result<Vec<UtilizationRow>, Missing> {
        let row = |row: &Row| UtilizationRow {
            pid: row.pid,
            stamp_us: WALL_US + row.at * 1000,
            percent: [row.sm, 0, 0, 0],
        };
        let rows = self.node.rows(self.index, Self::since(last_seen_us)).map_err(missing)?;
        Ok(rows.iter().map(row).collect())
    }

    fn is_busy(&mut self) -> Result<bool, Missing> {
        Ok(self.node.utilization(self.index) > 0)
    }

    fn now(&self) -> Moment {
        self.at
    }
}

/// A total that is 0 or less than a process uses is invalid.
fn plausible(
    memory: Memory,
    listing: &Result<DeviceProcesses, Missing>,
) -> Result<Memory, Missing> {
    let processes = listing.iter().flat_map(|listing| &listing.processes);
    let largest = processes.filter_map(|process| process.usage.memory.ok()).max();
    let is_valid = memory.total > 0 && memory.total >= largest.unwrap_or_default();
    if is_valid { Ok(memory) } else { Err(Missing::Invalid) }
}

fn mig_device(world: &World, device: Device, instance: usize) -> MigDevice {
    let index = u32::try_from(instance).unwrap_or(u32::MAX);
    let instance = &world.gpus[device.gpu].instances[instance];
    MigDevice {
        uuid: instance.uuid.as_str().into(),
        profile: instance.profile.into(),
        index,
        gpu_instance: instance.id,
        compute_instance: 0,
        multiprocessors: None,
        shares_instance: false,
        placement: Some(MigPlacement {
            profile_id: instance.profile_id,
            start: instance.memory_slice,
        }),
    }
}

fn missing(error: CallError) -> Missing {
    match error {
        CallError::Failed => Missing::Failed(999),
        CallError::Unsupported => Missing::Unsupported,
    }
}

/// `/proc` of the node.
struct Procfs<'a, 'n> {
    node: &'a Node<'n>,
    /// When the driver has listed the processes.
    listed: Ms,
    cgroups: &'a mut CgroupCache,
}

impl ProcessLookup for Procfs<'_, '_> {
    fn identify(&mut self, pid: u32) -> Result<ProcessIdentity, Discard> {
        let entry = self.node.process(pid).map_err(discard)?;
        let id = ProcessId { pid, started: entry.started };
        Ok(ProcessIdentity { id, name: entry.name.into(), zombie: false })
    }

    fn locate(&mut self, id: ProcessId) -> Result<Arc<CgroupLocation>, Discard> {
        let read = |id: ProcessId| {
            let entry = self.node.process(id.pid).map_err(discard)?;
            Ok(cgroup::parse(entry.cgroup.as_bytes()))
        };
        self.cgroups.get_or_read(id, read)
    }

    fn locate_exiting(&mut self, id: ProcessId) -> Option<Arc<CgroupLocation>> {
        self.cgroups.get_exiting(id)
    }

    fn uptime_ticks(&self) -> Option<u64> {
        Some(ticks(self.listed))
    }

    fn recently_exited(&self, pid: u32) -> Option<Arc<CgroupLocation>> {
        Some(self.cgroups.recently_exited(pid)?.1)
    }
}

fn discard(error: ProcError) -> Discard {
    match error {
        ProcError::Gone => Discard::Gone,
        ProcError::Denied => Discard::Denied,
    }
}
