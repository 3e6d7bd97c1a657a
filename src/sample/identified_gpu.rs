//! Reads an identified GPU and keeps what belongs to its identity.

use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper_sys::bindings::field_id;

use super::device::DeviceSample;
use super::gpm::GpmReader;
use super::gpu_utilization::GpuUtilizationSampler;
use super::health_reader::{self, Cached, HealthReader, is_fresh_slow};
use super::info_labels::InfoLabelReader;
use super::limits::LimitReader;
use super::mig_mode::MigMode;
use super::partition::{PartitionSample, ProcfsLookup, ReadContext};
use super::partitions::Partitions;
use super::peer_links::PeerLinks;
use super::process_utilization::UtilizationCursor;
use super::reading_cache::{CachedReading, ReadingCache};
use crate::host::ProcRoot;
use crate::host::cgroup_cache::CgroupCache;
use crate::model::{Discards, Gpu, Missing, Moment, Reading};
use crate::nvml::Session;
use crate::nvml::probe::{GpmReadings, Probe};
use crate::nvml::raw::Handle;
use crate::nvml::raw::clocks::clock_event_reasons;
use crate::nvml::raw::fields::Field;
use crate::nvml::raw::samples::{SampleBuffer, gpu_utilization};
use crate::nvml::raw::utilization::{UtilizationBuffers, process_utilization};
use crate::selection::Selection;

/// Energy consumption since the driver was loaded, mJ.
const ENERGY: Field = Field::of(field_id::NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION);

/// What a GPU thread keeps when the identity of its GPU changes.
pub(super) struct ReaderContext {
    pub(super) session: Arc<Session>,
    /// The families to read, of the last request.
    pub(super) selection: Arc<Selection>,
    proc_root: ProcRoot,
    cgroup_cache: CgroupCache,
    utilization_buffers: UtilizationBuffers,
    sample_buffer: SampleBuffer,
    discards: Discards,
}

impl ReaderContext {
    pub(super) fn new(session: Arc<Session>, proc_root: ProcRoot) -> Self {
        Self {
            session,
            selection: Arc::default(),
            proc_root,
            cgroup_cache: CgroupCache::default(),
            utilization_buffers: UtilizationBuffers::default(),
            sample_buffer: SampleBuffer::default(),
            discards: Discards::default(),
        }
    }
}

/// A GPU, its handle, and all that was read with this handle. Replaced as a whole when the handle or
/// the MIG mode changes.
pub(super) struct IdentifiedGpu {
    gpu: Arc<Gpu>,
    handle: Handle,
    /// Whether the last sample could not be read.
    is_down: bool,
    mig: MigMode,
    process_utilization: UtilizationCursor,
    gpu_utilization: GpuUtilizationSampler,
    readings: ReadingCache,
    parent_readings: ReadingCache,
    gpm: GpmReader,
    limits: LimitReader,
    compute_mode: Cached<Reading>,
    info_labels: InfoLabelReader,
    peer_links: PeerLinks,
    health: HealthReader,
    partitions: Partitions,
}

impl IdentifiedGpu {
    /// Nothing is read yet.
    pub(super) fn new(gpu: Arc<Gpu>, handle: Handle, session: &Arc<Session>) -> Self {
        Self {
            gpu,
            handle,
            is_down: false,
            mig: MigMode::Unknown,
            process_utilization: UtilizationCursor::default(),
            gpu_utilization: GpuUtilizationSampler::default(),
            readings: ReadingCache::default(),
            parent_readings: ReadingCache::default(),
            gpm: GpmReader::new(Arc::clone(session), None),
            limits: LimitReader::default(),
            compute_mode: Cached::default(),
            info_labels: InfoLabelReader::default(),
            peer_links: PeerLinks::default(),
            health: HealthReader::default(),
            partitions: Partitions::default(),
        }
    }

    /// Whether the last sample could not be read.
    pub(super) fn is_down(&self) -> bool {
        self.is_down
    }

    pub(super) fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Reads the utilization ring buffers.
    pub(super) fn read_utilization(&mut self, context: &mut ReaderContext, now: Moment) {
        self.read_process_utilization(context, now);
        self.read_gpu_utilization(context, now);
    }

    /// Reads all selected families that are due.
    pub(super) fn sample(
        &mut self,
        context: &mut ReaderContext,
        now: Moment,
        peers: &[(u32, Handle)],
    ) -> DeviceSample {
        let session = Arc::clone(&context.session);
        let selection = Arc::clone(&context.selection);
        let handle = self.handle;
        let partitions_complete = self.enumerate_partitions(&session);
        if selection.needs_processes() {
            self.read_process_utilization(context, now);
        } else {
            self.process_utilization.mark_failed(Missing::Pending);
        }
        self.gpu_utilization.set_enabled(selection.needs_utilization_samples());
        self.read_gpu_utilization(context, now);
        self.readings.set_video_idle(self.process_utilization.video_idle());
        let fields = self.fields(&selection, now.mono);
        let ids = self.gpm_metrics(&selection);
        let readings = self.gpm.read(handle, &ids, now.mono).map(<[_]>::to_vec);
        let gpm =
            GpmReadings { ids: &ids, readings: readings.as_deref().map_err(|missing| *missing) };
        let probe = Probe::new(&session, handle, &fields)
            .with_gpm(gpm)
            .with_sampled_utilization(self.gpu_utilization.take_min_mean_max());
        self.readings.refresh(&selection.device, &probe, now.mono);
        let limits = self.limits.read(&probe);
        let energy = selection.needs_energy().then(|| Ok(probe.field(ENERGY)? / 1000.0));
        let clock_event_reasons = (selection.needs_clock_events() || selection.needs_health())
            .then(|| clock_event_reasons(session.nvml(), handle));
        let links = self.health.link_states(&selection, &session, handle, now.mono);
        let health = selection.needs_health().then_some(links.clone()).flatten();
        let health = health
            .zip(clock_event_reasons)
            .map(|(links, reasons)| self.health.read_health(&probe, links, reasons, now.mono));
        self.info_labels.read(&selection.info_labels, &session, handle);
        let sample = DeviceSample {
            gpu: Arc::clone(&self.gpu),
            handle,
            limits,
            compute_mode: self.read_compute_mode(&selection, &probe, now.mono),
            at: now,
            readings: self.readings.to_vec(),
            mig_parent_readings: self.read_mig_parent(context, now, gpm),
            info_labels: self.info_labels.to_vec(),
            clock_event_reasons,
            peers: self.peer_statuses(context, now, peers),
            links,
            health,
            energy,
            partitions: self.sample_partitions(context, now, &probe),
            partitions_complete,
            discards: context.discards,
        };
        self.is_down = sample.state().is_err();
        sample
    }

    /// Compute mode, which shows whether NVIDIA's device plugin shares the GPU by MPS.
    fn read_compute_mode(
        &mut self,
        selection: &Selection,
        probe: &Probe<'_>,
        now: Duration,
    ) -> Reading {
        if !selection.has_container_families() {
            return Err(Missing::Pending);
        }
        self.compute_mode.get_or_read(now, is_fresh_slow, || probe.compute_mode())
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

    /// Enumerates the partitions of the GPU in each cycle: MIG devices are created and destroyed at
    /// any time, and their ids are reused at once.
    ///
    /// # Errors
    /// Some partitions could not be enumerated.
    fn enumerate_partitions(&mut self, session: &Arc<Session>) -> Result<(), Missing> {
        let mode = self.mig.read(session, self.handle);
        let mode = mode.inspect_err(|_| self.partitions.clear())?;
        if mode.differs_from(self.mig) {
            *self = Self::new(Arc::clone(&self.gpu), self.handle, session);
        }
        self.mig = mode;
        self.partitions.enumerate(session, self.handle, mode)
    }

    fn peer_statuses(
        &mut self,
        context: &ReaderContext,
        now: Moment,
        peers: &[(u32, Handle)],
    ) -> Vec<(u32, Result<u32, Missing>)> {
        if !context.selection.needs_peer_status() {
            self.peer_links = PeerLinks::default();
            return Vec::new();
        }
        self.peer_links.statuses(&context.session, (self.gpu.index, self.handle), peers, now.mono)
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
        context: &ReaderContext,
        now: Moment,
        gpm: GpmReadings<'_>,
    ) -> Option<Vec<Option<CachedReading>>> {
        let ReaderContext { session, selection, .. } = context;
        if self.mig != MigMode::On || !selection.scope.devices.reads_mig_gpu_as_whole() {
            self.parent_readings.clear();
            return None;
        }
        let fields = self.parent_readings.due_fields(&selection.instance, now.mono);
        let probe = Probe::new(session, self.handle, &fields).with_gpm(gpm);
        self.parent_readings.refresh(&selection.instance, &probe, now.mono);
        Some(self.parent_readings.to_vec())
    }

    fn read_process_utilization(&mut self, context: &mut ReaderContext, now: Moment) {
        if self.mig == MigMode::On {
            // Drivers do not support this call while MIG is enabled.
            self.process_utilization.mark_failed(Missing::Unsupported);
            return;
        }
        let since = self.process_utilization.last_seen_us(now);
        let (nvml, buffers) = (context.session.nvml(), &mut context.utilization_buffers);
        match process_utilization(nvml, self.handle, since, buffers) {
            Ok(rows) => self.process_utilization.add_rows(&rows, now, &mut context.discards),
            Err(missing) => self.process_utilization.mark_failed(missing),
        }
    }

    fn read_gpu_utilization(&mut self, context: &mut ReaderContext, now: Moment) {
        if self.gpu_utilization.is_enabled() {
            let (nvml, since) = (context.session.nvml(), self.gpu_utilization.last_seen_us(now));
            let samples = gpu_utilization(nvml, self.handle, since, &mut context.sample_buffer);
            self.gpu_utilization.add_samples(samples, now);
        }
    }

    fn sample_partitions(
        &mut self,
        context: &mut ReaderContext,
        now: Moment,
        probe: &Probe<'_>,
    ) -> Vec<PartitionSample> {
        context.cgroup_cache.begin_cycle(now.mono);
        let window = self.process_utilization.finish_window();
        let window = window.as_ref().map_err(|missing| *missing);
        let mut context = ReadContext {
            session: &context.session,
            selection: &context.selection,
            gpu: self.handle,
            gpm: probe.gpm_readings(),
            process_lookup: ProcfsLookup {
                root: &context.proc_root,
                cgroup_cache: &mut context.cgroup_cache,
            },
            discards: &mut context.discards,
        };
        let utilization = if self.mig == MigMode::On {
            Err(Missing::Unsupported)
        } else if context.selection.needs_processes() {
            probe.gpu_utilization()
        } else {
            Err(Missing::Pending)
        };
        self.partitions.sample(now, window, utilization, &mut context)
    }
}
