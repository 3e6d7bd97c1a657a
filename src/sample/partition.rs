//! Reads the partitions of a GPU: the whole GPU, or its MIG devices while MIG is enabled.

use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use super::gpm::GpmReader;
use super::memory_accounts::MemoryAccounts;
use super::process_utilization::{UtilizationWindow, WindowSummary};
use super::processes::{ProcessLookup, ProcessTable, RunningLists};
use super::reading_cache::{CachedReading, ReadingCache};
use super::unlisted_use::UnlistedUse;
use crate::clock::Clock;
use crate::host::cgroup_cache::CgroupCache;
use crate::host::{ProcRoot, ProcessIdentity};
use crate::model::{
    CgroupLocation, DeviceProcesses, Discard, Discards, Gpu, MemoryAccount, MigDevice, Missing,
    Moment, ProcessId, Reading,
};
use crate::nvml::Session;
use crate::nvml::probe::{GpmReadings, Probe};
use crate::nvml::raw::Handle;
use crate::nvml::raw::memory::Memory;
use crate::nvml::raw::memory_limits::cgroup_memory;
use crate::nvml::raw::processes::{ProcessBuffers, ProcessList, running_processes};
use crate::policy::Tier;
use crate::selection::Selection;

/// Readings and processes of one partition in one cycle.
#[derive(Clone, Debug)]
pub struct PartitionSample {
    /// The MIG device; `None` for the whole GPU.
    pub mig: Option<Arc<MigDevice>>,
    /// One cached reading per row of the instance slice of the catalog, in its order; `None` for
    /// rows that are not selected.
    pub readings: Vec<Option<CachedReading>>,
    /// As `readings`, of the activity slice.
    pub activity: Vec<Option<CachedReading>>,
    /// Whether it has the readings of its GPU instance; false if another MIG device of the same GPU
    /// instance has them.
    pub reports_instance: bool,
    /// Framebuffer, bytes.
    pub framebuffer: Result<Memory, Missing>,
    /// When the reading of its processes began (monotonic).
    pub listed_at: Duration,
    /// Processes on it; an error if one of the lists cannot be read.
    pub listing: Result<DeviceProcesses, Missing>,
    /// Utilization window of its processes; an error if their utilization is unknown. A process
    /// without a row was idle in the window.
    pub utilization: Result<WindowSummary, Missing>,
    /// Use that no listed process accounts for.
    pub unlisted_use: Option<UnlistedUse>,
    /// The driver's accounts of containers; none of a MIG device.
    pub memory_accounts: Vec<MemoryAccount>,
}

impl PartitionSample {
    /// UUID by which the partition of `gpu` is allocated to containers.
    #[must_use]
    pub fn device_uuid<'a>(&'a self, gpu: &'a Gpu) -> &'a str {
        self.mig.as_deref().map_or(&gpu.uuid, |mig| &mig.uuid)
    }
}

/// Reads one partition and keeps its state between cycles.
pub struct PartitionReader {
    mig: Option<Arc<MigDevice>>,
    handle: Handle,
    reports_instance: bool,
    /// Total framebuffer at the first reading, bytes.
    total: Option<u64>,
    /// Whether the total framebuffer has changed: another MIG device has the UUID now.
    is_resized: bool,
    readings: ReadingCache,
    activity: ReadingCache,
    gpm: Option<GpmReader>,
    processes: ProcessTable,
    memory_accounts: MemoryAccounts,
    /// When the list of MPS clients was last read (monotonic), if it was empty.
    no_mps_clients_since: Option<Duration>,
    buffers: ProcessBuffers,
}

/// Context for reading all partitions of a GPU.
pub struct ReadContext<'a> {
    /// The NVML session of the handles.
    pub session: &'a Arc<Session>,
    /// For the times of readings.
    pub clock: Clock,
    /// The families to read.
    pub selection: &'a Selection,
    /// Handle of the GPU.
    pub gpu: Handle,
    /// GPM readings of the whole GPU.
    pub gpm: GpmReadings<'a>,
    /// Whether the memory that the driver reports to the exporter is that of the GPU, or why not.
    pub own_limit: Result<(), Missing>,
    /// Looks up processes in `/proc`.
    pub process_lookup: ProcfsLookup<'a>,
    /// Counts of discarded rows.
    pub discards: &'a mut Discards,
}

/// Looks up processes in `/proc`, with a cache of their cgroups.
pub struct ProcfsLookup<'a> {
    /// The `/proc` directory of the host.
    pub root: &'a ProcRoot,
    /// Cached cgroups of processes.
    pub cgroup_cache: &'a mut CgroupCache,
}

impl ProcessLookup for ProcfsLookup<'_> {
    fn identify(&mut self, pid: u32) -> Result<ProcessIdentity, Discard> {
        self.root.identify(pid)
    }

    fn locate(&mut self, id: ProcessId) -> Result<Arc<CgroupLocation>, Discard> {
        self.cgroup_cache.get_or_read(id, |id| self.root.cgroup_location(id))
    }

    fn locate_exiting(&mut self, id: ProcessId) -> Option<Arc<CgroupLocation>> {
        self.cgroup_cache.get_exiting(id)
    }

    fn uptime_ticks(&self) -> Option<u64> {
        self.root.uptime_ticks()
    }

    fn recently_exited(&self, pid: u32) -> Option<Arc<CgroupLocation>> {
        Some(self.cgroup_cache.recently_exited(pid)?.1)
    }
}

impl PartitionReader {
    /// A reader of the whole GPU, or of one of its MIG devices.
    #[must_use]
    pub fn new(mig: Option<Arc<MigDevice>>, handle: Handle) -> Self {
        Self {
            mig,
            handle,
            reports_instance: true,
            total: None,
            is_resized: false,
            readings: ReadingCache::default(),
            activity: ReadingCache::default(),
            gpm: None,
            processes: ProcessTable::default(),
            memory_accounts: MemoryAccounts::default(),
            no_mps_clients_since: None,
            buffers: ProcessBuffers::default(),
        }
    }

    /// Whether it reads `mig`, with unchanged attributes.
    #[must_use]
    pub fn is_for(&self, mig: Option<&MigDevice>) -> bool {
        self.mig.as_deref() == mig && !self.is_resized
    }

    /// Its MIG device, if that has this UUID and handle and seems unchanged: a MIG device that is
    /// created again can have the UUID of an earlier one.
    #[must_use]
    pub fn mig_device(&self, uuid: &str, handle: Handle) -> Option<MigDevice> {
        let mig = self.mig.as_deref().filter(|mig| &*mig.uuid == uuid)?;
        (self.handle == handle && !self.is_resized).then(|| mig.clone())
    }

    /// Sets a new handle of the same partition, and whether this partition has the readings of its
    /// GPU instance.
    pub fn set_handle(&mut self, handle: Handle, reports_instance: bool) {
        self.handle = handle;
        self.reports_instance = reports_instance;
    }

    /// Reads all families that are due. `window` is the utilization window of the GPU; MIG devices
    /// have no per-process utilization.
    pub fn sample(
        &mut self,
        now: Moment,
        window: Result<&UtilizationWindow, Missing>,
        context: &mut ReadContext<'_>,
    ) -> PartitionSample {
        let selection = context.selection;
        let fields = self.readings.due_fields(&selection.instance, now.mono);
        let ids = selection.instance_gpm_metrics();
        let readings = self.read_gpm(context, &ids, context.clock.now().mono);
        let gpm = match &readings {
            Some(readings) => {
                GpmReadings { ids: &ids, readings: readings.as_deref().map_err(|m| *m) }
            }
            None => context.gpm,
        };
        // The memory of a MIG device is not limited.
        let own_limit = if self.mig.is_some() { Ok(()) } else { context.own_limit };
        let probe = Probe::new(context.session, self.handle, &fields, context.clock)
            .with_gpm(gpm)
            .with_own_limit(own_limit);
        let total = probe.memory().ok().map(|memory| memory.total);
        let window = if self.mig.is_some() { Err(Missing::Unsupported) } else { window };
        if self.mig.is_some() {
            self.is_resized |= total.zip(self.total).is_some_and(|(now, before)| now != before);
            self.total = self.total.or(total);
        }
        let listed_at = context.clock.now().mono;
        let listing = if self.is_resized {
            Err(Missing::Pending)
        } else if selection.needs_processes() {
            let lists = self.read_lists(context.session, total, now.mono);
            let seen_at = context.clock.now().mono;
            self.processes.merge(lists, window, seen_at, &mut context.process_lookup)
        } else {
            Err(Missing::Pending)
        };
        count_discards(&listing, context.discards);
        let probe = probe.with_memory_floor(largest_process(&listing));
        self.refresh_readings(selection, &probe, now.mono);
        let listed = |pid| {
            let mut processes = listing.iter().flat_map(|listing| &listing.processes);
            processes.any(|process| process.id.pid == pid)
        };
        let utilization = window.and_then(|window| window.summary(listed));
        PartitionSample {
            mig: self.mig.clone(),
            readings: self.readings.to_vec(),
            activity: self.activity.to_vec(),
            reports_instance: self.reports_instance,
            framebuffer: if self.is_resized { Err(Missing::Pending) } else { probe.memory() },
            listed_at,
            memory_accounts: self.read_memory_accounts(context, &listing, total, now.mono),
            listing,
            utilization,
            unlisted_use: None,
        }
    }

    /// Reads the accounts of the listed containers.
    fn read_memory_accounts(
        &mut self,
        context: &ReadContext<'_>,
        listing: &Result<DeviceProcesses, Missing>,
        total: Option<u64>,
        now: Duration,
    ) -> Vec<MemoryAccount> {
        let (session, selection) = (context.session, context.selection);
        let tier = match (selection.memory_account.is_empty(), selection.container.is_empty()) {
            (false, _) => Tier::Cycle,
            (true, false) => Tier::Slow,
            (true, true) => return Vec::new(),
        };
        if self.mig.is_some() || !session.newer().limits_memory() {
            return Vec::new();
        }
        let processes = listing.as_ref().map_or(&[][..], |listing| &listing.processes);
        let read = |cgroup: &CString| cgroup_memory(session.newer(), self.handle, cgroup);
        let root = context.process_lookup.root;
        self.memory_accounts.read(root, processes, (tier, now), total, read)
    }

    /// Reads the families of the instance that are due.
    fn refresh_readings(&mut self, selection: &Selection, probe: &Probe<'_>, now: Duration) {
        if self.reports_instance && !self.is_resized {
            self.readings.refresh(&selection.instance, probe, now);
            self.activity.refresh(&selection.activity, probe, now);
        } else {
            self.readings.clear();
            self.activity.clear();
        }
    }

    /// GPM readings of the GPU instance; `None` for the whole GPU; its readings are in `context`.
    fn read_gpm(
        &mut self,
        context: &ReadContext<'_>,
        ids: &[u32],
        now: Duration,
    ) -> Option<Result<Vec<Reading>, Missing>> {
        let instance = self.mig.as_deref()?.gpu_instance;
        if !self.reports_instance {
            self.gpm = None;
            return Some(Err(Missing::Pending));
        }
        let new = || GpmReader::new(Arc::clone(context.session), Some(instance));
        let reader = self.gpm.get_or_insert_with(new);
        Some(reader.read(context.gpu, ids, now).map(<[_]>::to_vec))
    }

    fn read_lists(&mut self, session: &Session, total: Option<u64>, now: Duration) -> RunningLists {
        let mut list =
            |which| running_processes(session.nvml(), self.handle, which, total, &mut self.buffers);
        let (compute, graphics) = (list(ProcessList::Compute), list(ProcessList::Graphics));
        let no_server = compute.as_ref().is_ok_and(|running| {
            running.iter().all(|process| self.processes.is_listed_non_mps_server(process.pid))
        });
        let mps = if no_server
            && self.no_mps_clients_since.is_some_and(|at| !Tier::Slow.due(Some(at), now))
        {
            Ok(Vec::new())
        } else {
            let clients = list(ProcessList::Mps);
            let none = matches!(&clients, Ok(clients) if clients.is_empty())
                || matches!(clients, Err(Missing::Unsupported));
            self.no_mps_clients_since = none.then_some(now);
            clients
        };
        RunningLists { compute, graphics, mps }
    }
}

fn count_discards(listing: &Result<DeviceProcesses, Missing>, discards: &mut Discards) {
    let Ok(DeviceProcesses { processes, stale_entries, .. }) = listing else { return };
    for entry in stale_entries {
        discards.count(entry.reason);
    }
    let memory = processes.iter().map(|process| process.usage.memory);
    let invalid = memory.filter(|memory| *memory == Err(Missing::Invalid));
    invalid.for_each(|_| discards.count(Discard::Memory));
}

/// The largest framebuffer of a process, bytes. A total below it is invalid.
fn largest_process(listing: &Result<DeviceProcesses, Missing>) -> u64 {
    let processes = listing.iter().flat_map(|listing| &listing.processes);
    processes.filter_map(|process| process.usage.memory.ok()).max().unwrap_or_default()
}
