//! Reads one GPU, on its own thread.

use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper_sys::bindings::field_id;

use super::gpm::GpmReader;
use super::gpu_utilization::GpuUtilizationSampler;
use super::health_reader::{self, HealthReader};
use super::info_labels::InfoLabelReader;
use super::limits::LimitReader;
use super::partition::{PartitionReader, PartitionSample, ProcfsLookup, ReadContext};
use super::process_utilization::UtilizationCursor;
use super::reading_cache::{CachedReading, ReadingCache};
use crate::host::ProcRoot;
use crate::host::cgroup_cache::CgroupCache;
use crate::model::{
    Discards, Gpu, HealthSample, Limits, LinkStates, MigDevice, Missing, Moment, Reading,
};
use crate::nvml::Session;
use crate::nvml::probe::{GpmReadings, Probe};
use crate::nvml::raw::Handle;
use crate::nvml::raw::clocks::clock_event_reasons;
use crate::nvml::raw::fields::Field;
use crate::nvml::raw::samples::{SampleBuffer, gpu_utilization};
use crate::nvml::raw::topology::nvlink_status;
use crate::nvml::raw::utilization::{UtilizationBuffers, process_utilization};
use crate::policy::Tier;
use crate::selection::Selection;

/// Readings of one GPU in one cycle.
#[derive(Clone, Debug)]
pub struct DeviceSample {
    /// Identity of the GPU.
    pub gpu: Arc<Gpu>,
    /// Current NVML handle.
    pub handle: Handle,
    /// Power and temperature limits.
    pub limits: Limits,
    /// When the read began.
    pub at: Moment,
    /// One cached reading per row of the device slice of the catalog, in its order; `None` for rows
    /// that are not selected.
    pub readings: Vec<Option<CachedReading>>,
    /// Readings of the instance slice from the whole GPU while MIG is enabled; only if the device
    /// selector includes the whole GPU.
    pub mig_parent_readings: Option<Vec<Option<CachedReading>>>,
    /// One value per row of the info label slice; `None` for rows that are not selected or need no
    /// read.
    pub info_labels: Vec<Option<Result<Arc<str>, Missing>>>,
    /// Clock event (throttle) reasons, if a family that needs them is selected.
    pub clock_event_reasons: Option<Result<u64, Missing>>,
    /// `NVLink` peer-to-peer status (`nvmlGpuP2PStatus_t`) by index of the other GPU; empty if not
    /// selected.
    pub peers: Vec<(u32, Result<u32, Missing>)>,
    /// `NVLink` states, if a link or health family is selected.
    pub links: Option<Result<LinkStates, Missing>>,
    /// Health sample, if a health family is selected.
    pub health: Option<HealthSample>,
    /// Energy since the driver was loaded, joules (`NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION`); only if
    /// energy is accumulated per container.
    pub energy: Option<Reading>,
    /// The whole GPU, or its MIG devices while MIG is enabled.
    pub partitions: Vec<PartitionSample>,
    /// Whether the list of partitions is complete, or why not.
    pub partitions_complete: Result<(), Missing>,
    /// Discarded rows since the session began.
    pub discards: Discards,
}

impl DeviceSample {
    /// State of the whole GPU.
    ///
    /// # Errors
    /// The GPU or the driver is lost, or nothing of the GPU can be read.
    pub fn state(&self) -> Result<(), Missing> {
        // Cached readings of earlier cycles are not evidence of the current state.
        let cells =
            self.readings.iter().chain(self.partitions.iter().flat_map(|part| &part.readings));
        let present = cells.flatten().filter(|cell| cell.at == self.at.mono);
        let framebuffers = self.partitions.iter().map(|part| part.framebuffer.map(drop));
        let all = present.map(|cell| cell.reading.map(drop)).chain(framebuffers);
        let now = || all.clone();
        let failures = || now().filter_map(Result::err);
        let fatal = |m: &Missing| matches!(m, Missing::Lost | Missing::DriverGone);
        if let Some(missing) = failures().find(fatal) {
            return Err(missing);
        }
        if now().any(|read| read.is_ok()) {
            return Ok(());
        }
        Err(failures().find(|m| *m != Missing::Unsupported).unwrap_or(Missing::Unsupported))
    }
}

/// Energy consumption since the driver was loaded, mJ.
const ENERGY: Field = Field::of(field_id::NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION);

/// A request to a GPU thread.
#[derive(Clone, Debug)]
pub enum GpuRequest {
    /// Only read the utilization ring buffers.
    ReadUtilization(Moment),
    /// Read all selected families that are due; with index and handle of all GPUs, for peer-to-peer
    /// queries.
    Sample(Moment, Arc<Selection>, Arc<[(u32, Handle)]>),
}

/// Reads one GPU and keeps the state between cycles.
pub struct DeviceReader {
    session: Arc<Session>,
    index: u32,
    identified: Option<(Arc<Gpu>, Handle)>,
    proc_root: ProcRoot,
    utilization_buffers: UtilizationBuffers,
    process_utilization: UtilizationCursor,
    sample_buffer: SampleBuffer,
    gpu_utilization: GpuUtilizationSampler,
    readings: ReadingCache,
    gpm: GpmReader,
    limits: LimitReader,
    parent_readings: ReadingCache,
    info_labels: InfoLabelReader,
    peer_links: PeerLinks,
    health: HealthReader,
    partitions: Vec<PartitionReader>,
    mig: MigMode,
    cgroup_cache: CgroupCache,
    discards: Discards,
    down: bool,
}

/// Cached `NVLink` peer-to-peer status of a GPU.
#[derive(Default)]
struct PeerLinks {
    read_at: Option<Duration>,
    peers: Vec<(u32, Handle)>,
    statuses: Vec<(u32, Result<u32, Missing>)>,
}

/// MIG mode of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MigMode {
    Unknown,
    Unsupported,
    Off,
    On,
}

impl DeviceReader {
    /// Creates a reader of the GPU at `index`; the GPU is not identified yet.
    #[must_use]
    pub fn new(session: Arc<Session>, index: u32, proc_root: ProcRoot) -> Self {
        Self {
            gpm: GpmReader::new(Arc::clone(&session), None),
            session,
            index,
            identified: None,
            proc_root,
            utilization_buffers: UtilizationBuffers::default(),
            process_utilization: UtilizationCursor::default(),
            sample_buffer: SampleBuffer::default(),
            gpu_utilization: GpuUtilizationSampler::default(),
            readings: ReadingCache::default(),
            limits: LimitReader::default(),
            parent_readings: ReadingCache::default(),
            info_labels: InfoLabelReader::default(),
            peer_links: PeerLinks::default(),
            health: HealthReader::default(),
            partitions: Vec::new(),
            mig: MigMode::Unknown,
            cgroup_cache: CgroupCache::default(),
            discards: Discards::default(),
            down: false,
        }
    }

    /// Handles one request; [`GpuRequest::ReadUtilization`] has no result.
    ///
    /// # Errors
    /// The GPU cannot be identified.
    pub fn handle(&mut self, request: GpuRequest) -> Option<Result<DeviceSample, Missing>> {
        match (request, &self.identified) {
            (GpuRequest::ReadUtilization(_), None) => None,
            (GpuRequest::ReadUtilization(now), Some((_, handle))) => {
                let handle = *handle;
                self.read_process_utilization(handle, now);
                self.read_gpu_utilization(handle, now);
                None
            }
            (GpuRequest::Sample(now, selection, peers), _) => {
                Some(self.sample(now, &selection, &peers))
            }
        }
    }

    fn sample(
        &mut self,
        now: Moment,
        selection: &Selection,
        peers: &[(u32, Handle)],
    ) -> Result<DeviceSample, Missing> {
        let (gpu, handle) = self.identity()?;
        let division = self.enumerate_partitions(handle);
        if selection.needs_processes() {
            self.read_process_utilization(handle, now);
        } else {
            self.process_utilization.mark_failed(Missing::Pending);
        }
        self.gpu_utilization.set_enabled(selection.needs_utilization_samples());
        self.read_gpu_utilization(handle, now);
        self.readings.set_video_idle(self.process_utilization.video_idle());
        let fields = self.fields(selection, now.mono);
        let ids = self.gpm_metrics(selection);
        let readings = self.gpm.read(handle, &ids, now.mono).map(<[_]>::to_vec);
        let gpm =
            GpmReadings { ids: &ids, readings: readings.as_deref().map_err(|missing| *missing) };
        let min_mean_max = self.gpu_utilization.take_min_mean_max();
        let probe = Probe::new(&self.session, handle, &fields)
            .with_gpm(gpm)
            .with_sampled_utilization(min_mean_max);
        self.readings.refresh(&selection.device, &probe, now.mono);
        let limits = self.limits.read(&probe);
        let energy = selection.needs_energy().then(|| Ok(probe.field(ENERGY)? / 1000.0));
        let clock_event_reasons = (selection.needs_clock_events() || selection.needs_health())
            .then(|| clock_event_reasons(self.session.nvml(), handle));
        let links = self.health.link_states(selection, &self.session, handle, now.mono);
        let signs = match (links.clone(), clock_event_reasons) {
            (Some(links), Some(reasons)) if selection.needs_health() => Some(
                self.health.read_health(&self.session, handle, &probe, links, reasons, now.mono),
            ),
            _ => None,
        };
        let undivided = self.read_mig_parent(handle, now, selection, gpm);
        self.info_labels.read(&selection.info_labels, &self.session, handle);
        let parts = self.sample_partitions(handle, now, selection, gpm);
        let sample = DeviceSample {
            gpu,
            handle,
            limits,
            at: now,
            readings: self.readings.to_vec(),
            mig_parent_readings: undivided,
            info_labels: self.info_labels.to_vec(),
            clock_event_reasons,
            peers: self.peer_statuses(handle, now, selection, peers),
            links,
            health: signs,
            energy,
            partitions: parts,
            partitions_complete: division,
            discards: self.discards,
        };
        self.down = sample.state().is_err();
        Ok(sample)
    }

    fn identity(&mut self) -> Result<(Arc<Gpu>, Handle), Missing> {
        let (gpu, handle) = match self.identified.clone() {
            Some((gpu, handle)) if self.down => {
                let handle = self.reacquire_handle(&gpu).unwrap_or(handle);
                (gpu, handle)
            }
            Some(identified) => identified,
            None => {
                let (gpu, handle) = self.session.identify(self.index)?;
                (Arc::new(gpu), handle)
            }
        };
        self.identified = Some((Arc::clone(&gpu), handle));
        Ok((gpu, handle))
    }

    /// A GPU that was reset needs a new handle, and its cached state is invalid. If there is no new
    /// handle, the old one stays in use, so that its errors are reported.
    fn reacquire_handle(&mut self, gpu: &Gpu) -> Option<Handle> {
        let handle = self.session.handle(gpu).ok()?;
        self.mig = MigMode::Unknown;
        self.reset();
        Some(handle)
    }

    /// The field ids for one batch: those of rows that are due, and those for health and energy.
    fn fields(&self, selection: &Selection, now: Duration) -> Vec<Field> {
        let mut fields = self.readings.due_fields(&selection.device, now);
        if selection.needs_health() {
            fields.extend(health_reader::FIELDS);
        }
        fields.extend(selection.needs_energy().then_some(ENERGY));
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    fn reset(&mut self) {
        self.process_utilization = UtilizationCursor::default();
        self.gpu_utilization = GpuUtilizationSampler::default();
        self.readings.clear();
        self.parent_readings.clear();
        self.gpm = GpmReader::new(Arc::clone(&self.session), None);
        self.limits = LimitReader::default();
        self.info_labels = InfoLabelReader::default();
        self.health = HealthReader::default();
        self.partitions.clear();
    }

    /// Enumerates the partitions of the GPU in each cycle: MIG devices are created and destroyed at
    /// any time, and their ids are reused at once.
    ///
    /// # Errors
    /// Some partitions could not be enumerated.
    fn enumerate_partitions(&mut self, handle: Handle) -> Result<(), Missing> {
        let before = self.mig;
        if before != MigMode::Unsupported {
            self.mig = match self.session.mig_mode(handle) {
                Ok(true) => MigMode::On,
                Ok(false) => MigMode::Off,
                Err(Missing::Unsupported) => MigMode::Unsupported,
                Err(missing) => {
                    self.partitions.clear();
                    return Err(missing);
                }
            };
        }
        if self.mig != before && before != MigMode::Unknown {
            self.reset();
        }
        if self.mig == MigMode::On {
            let known = |uuid: &str| {
                self.partitions.iter().find_map(|partition| partition.mig_device(uuid))
            };
            let (found, complete) = self.session.mig_devices(handle, known);
            self.update_partitions(found);
            complete
        } else {
            if self.partitions.is_empty() {
                self.partitions.push(PartitionReader::new(None, handle));
            }
            self.partitions.iter_mut().for_each(|partition| partition.set_handle(handle, true));
            Ok(())
        }
    }

    /// Keeps the readers of MIG devices that still exist, drops those of removed ones and adds new
    /// ones.
    fn update_partitions(&mut self, found: Vec<(MigDevice, Handle)>) {
        let mut before = std::mem::take(&mut self.partitions);
        let mut instances = Vec::new();
        for (mig, handle) in found {
            let known = before.iter().position(|partition| partition.is_for(Some(&mig)));
            let first = !instances.contains(&mig.gpu_instance);
            instances.push(mig.gpu_instance);
            let mut partition = known.map_or_else(
                || PartitionReader::new(Some(Arc::new(mig)), handle),
                |at| before.swap_remove(at),
            );
            partition.set_handle(handle, first);
            self.partitions.push(partition);
        }
    }

    /// `NVLink` peer-to-peer status of the GPU; read at the rate of the slow tier and when the
    /// peers change.
    fn peer_statuses(
        &mut self,
        handle: Handle,
        now: Moment,
        selection: &Selection,
        peers: &[(u32, Handle)],
    ) -> Vec<(u32, Result<u32, Missing>)> {
        if !selection.needs_peer_status() {
            self.peer_links = PeerLinks::default();
            return Vec::new();
        }
        if Tier::Slow.due(self.peer_links.read_at, now.mono) || self.peer_links.peers != peers {
            let nvml = self.session.nvml();
            let others = peers.iter().filter(|(index, _)| *index != self.index);
            let read = |(index, peer): &(u32, Handle)| (*index, nvlink_status(nvml, handle, *peer));
            let statuses = others.map(read).collect();
            self.peer_links =
                PeerLinks { read_at: Some(now.mono), peers: peers.to_vec(), statuses };
        }
        self.peer_links.statuses.clone()
    }

    /// The GPM metric ids of the whole GPU, for one call.
    fn gpm_metrics(&self, selection: &Selection) -> Vec<u32> {
        let mut ids = selection.device.gpm_metrics();
        if self.mig != MigMode::On || selection.scope.devices.reads_mig_gpu_as_whole() {
            ids.extend(selection.instance.gpm_metrics());
        }
        ids
    }

    fn read_mig_parent(
        &mut self,
        handle: Handle,
        now: Moment,
        selection: &Selection,
        gpm: GpmReadings<'_>,
    ) -> Option<Vec<Option<CachedReading>>> {
        if self.mig != MigMode::On || !selection.scope.devices.reads_mig_gpu_as_whole() {
            self.parent_readings.clear();
            return None;
        }
        let fields = self.parent_readings.due_fields(&selection.instance, now.mono);
        let probe = Probe::new(&self.session, handle, &fields).with_gpm(gpm);
        self.parent_readings.refresh(&selection.instance, &probe, now.mono);
        Some(self.parent_readings.to_vec())
    }

    fn read_process_utilization(&mut self, handle: Handle, now: Moment) {
        if self.mig == MigMode::On {
            // Drivers do not support this call while MIG is enabled.
            self.process_utilization.mark_failed(Missing::Unsupported);
            return;
        }
        let since = self.process_utilization.last_seen_us(now);
        let nvml = self.session.nvml();
        match process_utilization(nvml, handle, since, &mut self.utilization_buffers) {
            Ok(rows) => self.process_utilization.add_rows(&rows, now, &mut self.discards),
            Err(missing) => self.process_utilization.mark_failed(missing),
        }
    }

    fn read_gpu_utilization(&mut self, handle: Handle, now: Moment) {
        if self.gpu_utilization.is_enabled() {
            let (nvml, since) = (self.session.nvml(), self.gpu_utilization.last_seen_us(now));
            let samples = gpu_utilization(nvml, handle, since, &mut self.sample_buffer);
            self.gpu_utilization.add_samples(samples, now);
        }
    }

    fn sample_partitions(
        &mut self,
        gpu: Handle,
        now: Moment,
        selection: &Selection,
        gpm: GpmReadings<'_>,
    ) -> Vec<PartitionSample> {
        self.cgroup_cache.begin_cycle(now.mono);
        let window = self.process_utilization.finish_window();
        let window = window.as_ref().map_err(|missing| *missing);
        let mut context = ReadContext {
            session: &self.session,
            gpu,
            gpm,
            process_lookup: ProcfsLookup {
                root: &self.proc_root,
                cgroup_cache: &mut self.cgroup_cache,
            },
            discards: &mut self.discards,
        };
        let sample = |partition: &mut PartitionReader| {
            partition.sample(now, selection, window, &mut context)
        };
        self.partitions.iter_mut().map(sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Reading;

    fn sample(readings: &[Reading]) -> DeviceSample {
        let at = Moment { mono: Duration::ZERO, wall_us: 0 };
        let gpu = Arc::new(Gpu {
            index: 0,
            minor: None,
            uuid: "GPU-0".into(),
            name: "".into(),
            pci_bus_id: "".into(),
        });
        let cells =
            readings.iter().map(|r| Some(CachedReading { reading: *r, at: at.mono })).collect();
        DeviceSample {
            gpu,
            handle: Handle::none(),
            limits: Limits::default(),
            at,
            readings: cells,
            mig_parent_readings: None,
            info_labels: Vec::new(),
            clock_event_reasons: None,
            peers: Vec::new(),
            links: None,
            health: None,
            energy: None,
            partitions: Vec::new(),
            partitions_complete: Ok(()),
            discards: Discards::default(),
        }
    }

    #[test]
    fn gpu_is_up_while_one_reading_succeeds() {
        let failed = Err(Missing::Failed(999));
        assert_eq!(sample(&[failed, Ok(1.0)]).state(), Ok(()));
        assert_eq!(sample(&[failed, Err(Missing::Unsupported)]).state(), Err(Missing::Failed(999)));
        assert_eq!(sample(&[Ok(1.0), Err(Missing::Lost)]).state(), Err(Missing::Lost));
    }
}
