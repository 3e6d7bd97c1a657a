//! Reads an identified GPU and keeps what belongs to its identity.

use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper_sys::bindings::field_id;

use super::cached::{Cached, is_fresh_slow};
use super::device::DeviceSample;
use super::gpm::GpmReader;
use super::gpu_utilization::GpuUtilizationSampler;
use super::health_reader::{self, HealthReader};
use super::info_labels::InfoLabelReader;
use super::limits::LimitReader;
use super::link_fields::LabeledReader;
use super::mig_mode::MigMode;
use super::own_limit::OwnLimit;
use super::partition::{PartitionSample, ProcfsLookup, ReadContext};
use super::partitions::Partitions;
use super::peer_links::PeerLinks;
use super::process_utilization::UtilizationCursor;
use super::reading_cache::{CachedReading, ReadingCache};
use super::utilization_source::{NvmlUtilization, RingBuffers};
use crate::clock::Clock;
use crate::host::ProcRoot;
use crate::host::cgroup_cache::CgroupCache;
use crate::model::{Discards, Gpu, Missing, Moment, Reading};
use crate::nvml::Session;
use crate::nvml::probe::{GpmReadings, Probe};
use crate::nvml::raw::Handle;
use crate::nvml::raw::fields::Field;
use crate::selection::Selection;

/// Energy consumption since the driver was loaded, mJ.
const ENERGY: Field = Field::of(field_id::NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION);

/// What a GPU thread keeps when the identity of its GPU changes.
pub(super) struct ReaderContext {
    pub(super) session: Arc<Session>,
    /// The families to read, of the last request.
    pub(super) selection: Arc<Selection>,
    clock: Clock,
    proc_root: ProcRoot,
    cgroup_cache: CgroupCache,
    ring_buffers: RingBuffers,
    discards: Discards,
}

impl ReaderContext {
    pub(super) fn new(session: Arc<Session>, proc_root: ProcRoot, clock: Clock) -> Self {
        Self {
            session,
            clock,
            selection: Arc::default(),
            proc_root,
            cgroup_cache: CgroupCache::default(),
            ring_buffers: RingBuffers::default(),
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
    own_limit: OwnLimit,
    compute_mode: Cached<Reading>,
    info_labels: InfoLabelReader,
    peer_links: PeerLinks,
    health: HealthReader,
    labeled: LabeledReader,
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
            own_limit: OwnLimit::default(),
            compute_mode: Cached::default(),
            info_labels: InfoLabelReader::default(),
            peer_links: PeerLinks::default(),
            health: HealthReader::default(),
            labeled: LabeledReader::default(),
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

    /// Reads the utilization ring buffers, as far as selected families need them.
    pub(super) fn read_utilization(&mut self, context: &mut ReaderContext) {
        let mut source = NvmlUtilization {
            session: &context.session,
            handle: self.handle,
            buffers: &mut context.ring_buffers,
            clock: context.clock,
        };
        let (processes, sampler) = (&mut self.process_utilization, &mut self.gpu_utilization);
        if self.mig != MigMode::On && context.selection.needs_processes() {
            processes.read(&mut source, sampler, &mut context.discards);
            return;
        }
        // Drivers do not support the rows of processes while MIG is enabled.
        let is_mig = self.mig == MigMode::On;
        processes.reset(if is_mig { Missing::Unsupported } else { Missing::Pending });
        if context.selection.needs_utilization_samples() {
            let _progress = sampler.read(&mut source);
        } else {
            *sampler = GpuUtilizationSampler::default();
        }
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
        self.read_utilization(context);
        let reads_health = self.health.is_due(&selection, now.mono);
        let fields = self.fields(&selection, reads_health, now.mono);
        let ids = self.gpm_metrics(&selection);
        let taken_at = context.clock.now().mono;
        let readings = self.gpm.read(handle, &ids, taken_at).map(<[_]>::to_vec);
        let gpm =
            GpmReadings { ids: &ids, readings: readings.as_deref().map_err(|missing| *missing) };
        let probe = Probe::new(&session, handle, &fields, context.clock)
            .with_gpm(gpm)
            .with_sampled_utilization(self.gpu_utilization.take_min_mean_max());
        self.readings.refresh(&selection.device, &probe, now.mono);
        let limits = self.limits.read(&probe, now.mono);
        let energy = selection.needs_energy().then(|| Ok(probe.field(ENERGY)? / 1000.0));
        let clock_event_reasons =
            (selection.needs_clock_events() || reads_health).then(|| probe.clock_event_bits());
        let links = self.health.link_states(reads_health, &selection, &session, handle, now.mono);
        let health = reads_health.then_some(links.clone()).flatten();
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
            labeled: self.labeled.read(&selection, &session, handle, context.clock, now.mono),
            health,
            energy,
            partitions: self.sample_partitions(context, now, &probe),
            partitions_complete,
            discards: context.discards,
            driver_clock_offset: self.process_utilization.clock_offset(),
            refuses_all_rows: self.process_utilization.refuses_all_rows(),
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
    fn fields(&self, selection: &Selection, reads_health: bool, now: Duration) -> Vec<Field> {
        let mut fields = self.readings.due_fields(&selection.device, now);
        if reads_health {
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
            ids.extend(selection.instance_gpm_metrics());
        }
        ids
    }

    fn read_mig_parent(
        &mut self,
        context: &ReaderContext,
        now: Moment,
        gpm: GpmReadings<'_>,
    ) -> Option<Vec<Option<CachedReading>>> {
        let ReaderContext { session, selection, clock, proc_root, .. } = context;
        if self.mig != MigMode::On || !selection.scope.devices.reads_mig_gpu_as_whole() {
            self.parent_readings.clear();
            return None;
        }
        let fields = self.parent_readings.due_fields(&selection.instance, now.mono);
        let own_limit = self.own_limit.read(session, self.handle, proc_root, now.mono);
        let probe = Probe::new(session, self.handle, &fields, *clock)
            .with_gpm(gpm)
            .with_own_limit(own_limit);
        self.parent_readings.refresh(&selection.instance, &probe, now.mono);
        Some(self.parent_readings.to_vec())
    }

    fn sample_partitions(
        &mut self,
        context: &mut ReaderContext,
        now: Moment,
        probe: &Probe<'_>,
    ) -> Vec<PartitionSample> {
        context.cgroup_cache.begin_cycle(now.mono);
        let own_limit =
            self.own_limit.read(&context.session, self.handle, &context.proc_root, now.mono);
        let window = self.process_utilization.finish_window();
        let window = window.as_ref().map_err(|missing| *missing);
        let mut context = ReadContext {
            session: &context.session,
            clock: context.clock,
            selection: &context.selection,
            gpu: self.handle,
            gpm: probe.gpm_readings(),
            own_limit,
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
