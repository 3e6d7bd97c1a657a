//! What a GPU is divided into: itself as a whole, or its MIG devices while MIG is on.

use std::sync::Arc;
use std::time::Duration;

use super::cells::{Cell, Cells};
use super::gpm::GpmReader;
use super::processes::{Census, ProcessTable, RunningLists};
use super::ring::{Watched, Window};
use crate::host::placements::Placements;
use crate::host::{Identity, ProcRoot};
use crate::model::{
    Discard, Discards, Listing, MigDevice, Missing, Moment, Placement, ProcessId, Reading,
};
use crate::nvml::Session;
use crate::nvml::probe::{Gpm, Probe};
use crate::nvml::raw::Handle;
use crate::nvml::raw::memory::Memory;
use crate::nvml::raw::processes::{ProcessBuffers, ProcessList, running_processes};
use crate::policy::Tier;
use crate::selection::Selection;

/// What one part answered in one cycle.
#[derive(Clone, Debug)]
pub struct PartSample {
    /// Which MIG device; none for a GPU as a whole.
    pub mig: Option<Arc<MigDevice>>,
    /// One cell per row of the catalogue's instance slice, in its order; none for what is not chosen.
    pub cells: Vec<Option<Cell>>,
    /// Whether it tells of its GPU instance; not so a MIG device beside another one of the same.
    pub tells_of_instance: bool,
    /// Its framebuffer.
    pub framebuffer: Result<Memory, Missing>,
    /// Who is on it, unless a list failed.
    pub listing: Result<Listing, Missing>,
    /// Whether the utilization of its processes is known, and over which time; one without a row was
    /// idle then.
    pub utilization: Result<Watched, Missing>,
}

/// Reads one part and remembers what has to outlive a cycle.
pub struct PartReader {
    mig: Option<Arc<MigDevice>>,
    handle: Handle,
    tells_of_instance: bool,
    cells: Cells,
    gpm: Option<GpmReader>,
    processes: ProcessTable,
    /// When clients of an MPS server were last asked for (monotonic), if there were none.
    no_clients: Option<Duration>,
    buffers: ProcessBuffers,
}

/// What all parts of a GPU are read with.
pub struct Tools<'a> {
    /// The session that the handles belong to.
    pub session: &'a Arc<Session>,
    /// The GPU that the parts are of.
    pub gpu: Handle,
    /// What GPM measured of the GPU as a whole.
    pub gpm: Gpm<'a>,
    /// Where processes are looked up.
    pub people: People<'a>,
    /// Where rows that are not believed are counted.
    pub discards: &'a mut Discards,
}

/// The processes under a proc root.
pub struct People<'a> {
    /// The proc root.
    pub root: &'a ProcRoot,
    /// Where they run, as far as remembered.
    pub placements: &'a mut Placements,
}

impl Census for People<'_> {
    fn identify(&mut self, pid: u32) -> Result<Identity, Discard> {
        self.root.identify(pid)
    }

    fn place(&mut self, id: ProcessId) -> Result<Arc<Placement>, Discard> {
        self.placements.of(id, |id| self.root.placement(id))
    }

    fn departed(&self, pid: u32) -> Option<Arc<Placement>> {
        Some(self.placements.departed(pid)?.1)
    }
}

impl PartReader {
    /// A reader of the GPU as a whole, or of one of its MIG devices.
    #[must_use]
    pub fn new(mig: Option<Arc<MigDevice>>, handle: Handle) -> Self {
        Self {
            mig,
            handle,
            tells_of_instance: true,
            cells: Cells::default(),
            gpm: None,
            processes: ProcessTable::default(),
            no_clients: None,
            buffers: ProcessBuffers::default(),
        }
    }

    /// Whether it reads `mig`, as it is now.
    #[must_use]
    pub fn reads(&self, mig: Option<&MigDevice>) -> bool {
        self.mig.as_deref() == mig
    }

    /// The MIG device that it reads, if that is the one with this UUID.
    #[must_use]
    pub fn mig_device(&self, uuid: &str) -> Option<MigDevice> {
        self.mig.as_deref().filter(|mig| &*mig.uuid == uuid).cloned()
    }

    /// Goes on with another handle of the same part. `tells_of_instance`: whether this part, of
    /// all that share a GPU instance, tells of it.
    pub fn take_up(&mut self, handle: Handle, tells_of_instance: bool) {
        self.handle = handle;
        self.tells_of_instance = tells_of_instance;
    }

    /// Reads what is due. `window` is what the GPU's utilization ring told; rings tell nothing of
    /// what runs on a MIG device.
    pub fn sample(
        &mut self,
        now: Moment,
        selection: &Selection,
        window: Result<&Window, Missing>,
        tools: &mut Tools<'_>,
    ) -> PartSample {
        let fields = self.cells.due_fields(&selection.instance, now.mono);
        let ids = selection.instance.gpm_metrics();
        let readings = self.read_gpm(tools, &ids, now.mono);
        let gpm = match &readings {
            Some(readings) => Gpm { ids: &ids, readings: readings.as_deref().map_err(|m| *m) },
            None => tools.gpm,
        };
        let probe = Probe::new(tools.session, self.handle, &fields).with_gpm(gpm);
        if self.tells_of_instance {
            self.cells.read(&selection.instance, &probe, now.mono);
        } else {
            self.cells.clear();
        }
        let framebuffer = probe.memory();
        let total = framebuffer.ok().map(|memory| memory.total);
        let window = if self.mig.is_some() { Err(Missing::Unsupported) } else { window };
        let listing = if selection.wants_processes() {
            let lists = self.lists(tools.session, total, now.mono);
            self.processes.merge(lists, window, total, now.mono, &mut tools.people)
        } else {
            Err(Missing::Pending)
        };
        for residue in listing.iter().flat_map(|listing| &listing.residues) {
            tools.discards.count(residue.why);
        }
        let listed = |pid| {
            let mut processes = listing.iter().flat_map(|listing| &listing.processes);
            processes.any(|process| process.id.pid == pid)
        };
        let utilization = window.and_then(|window| window.watched(listed));
        PartSample {
            mig: self.mig.clone(),
            cells: self.cells.to_vec(),
            tells_of_instance: self.tells_of_instance,
            framebuffer,
            listing,
            utilization,
        }
    }

    /// What GPM measured of a GPU instance; none for the GPU as a whole, which has been measured.
    fn read_gpm(
        &mut self,
        tools: &Tools<'_>,
        ids: &[u32],
        now: Duration,
    ) -> Option<Result<Vec<Reading>, Missing>> {
        let instance = self.mig.as_deref()?.gpu_instance;
        if !self.tells_of_instance {
            self.gpm = None;
            return Some(Err(Missing::Pending));
        }
        let new = || GpmReader::new(Arc::clone(tools.session), Some(instance));
        let reader = self.gpm.get_or_insert_with(new);
        Some(reader.read(tools.gpu, ids, now).map(<[_]>::to_vec))
    }

    fn lists(&mut self, session: &Session, total: Option<u64>, now: Duration) -> RunningLists {
        let mut list =
            |which| running_processes(session.nvml(), self.handle, which, total, &mut self.buffers);
        let (compute, graphics) = (list(ProcessList::Compute), list(ProcessList::Graphics));
        let no_server = compute.as_ref().is_ok_and(|running| {
            running.iter().all(|process| self.processes.is_plain(process.pid))
        });
        let mps = if no_server && self.no_clients.is_some_and(|at| !Tier::Slow.due(Some(at), now)) {
            Ok(Vec::new())
        } else {
            let clients = list(ProcessList::Mps);
            let none = matches!(&clients, Ok(clients) if clients.is_empty())
                || matches!(clients, Err(Missing::Unsupported));
            self.no_clients = none.then_some(now);
            clients
        };
        RunningLists { compute, graphics, mps }
    }
}
