//! What a GPU is divided into: itself as a whole, or its MIG devices while MIG is on.

use std::sync::Arc;

use super::cells::{Cell, Cells};
use super::processes::{Census, ProcessTable, RunningLists};
use super::ring::Window;
use crate::catalog::INSTANCE;
use crate::host::placements::Placements;
use crate::host::{Identity, ProcRoot};
use crate::model::{Discard, Discards, Listing, MigDevice, Missing, Moment, Placement, ProcessId};
use crate::nvml::Session;
use crate::nvml::probe::Probe;
use crate::nvml::raw::Handle;
use crate::nvml::raw::memory::Memory;
use crate::nvml::raw::processes::{ProcessBuffers, ProcessList, running_processes};

/// What one part answered in one cycle.
#[derive(Clone, Debug)]
pub struct PartSample {
    /// Which MIG device; none for a GPU as a whole.
    pub mig: Option<Arc<MigDevice>>,
    /// One cell per row of [`INSTANCE`], in its order; empty for a MIG device whose framebuffer is
    /// told by another one of the same GPU instance.
    pub cells: Vec<Cell>,
    /// Its framebuffer.
    pub framebuffer: Result<Memory, Missing>,
    /// Who is on it, unless a list failed.
    pub listing: Result<Listing, Missing>,
    /// Whether the utilization of its processes is known; one without a row was idle then.
    pub utilization: Result<(), Missing>,
}

/// Reads one part and remembers what has to outlive a cycle.
pub struct PartReader {
    mig: Option<Arc<MigDevice>>,
    handle: Handle,
    owns_framebuffer: bool,
    cells: Cells,
    processes: ProcessTable,
    buffers: ProcessBuffers,
}

/// What all parts of a GPU are read with.
pub struct Tools<'a> {
    /// The session that the handles belong to.
    pub session: &'a Session,
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
            owns_framebuffer: true,
            cells: Cells::new(INSTANCE),
            processes: ProcessTable::default(),
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

    /// Goes on with another handle of the same part. `owns_framebuffer`: whether this part, of all
    /// that share it, tells of the framebuffer.
    pub fn take_up(&mut self, handle: Handle, owns_framebuffer: bool) {
        self.handle = handle;
        self.owns_framebuffer = owns_framebuffer;
    }

    /// Reads what is due. `window` is what the GPU's utilization ring told; rings tell nothing of
    /// what runs on a MIG device.
    pub fn sample(
        &mut self,
        now: Moment,
        window: Result<&Window, Missing>,
        tools: &mut Tools<'_>,
    ) -> PartSample {
        let probe = Probe::new(tools.session, self.handle, &[]);
        if self.owns_framebuffer {
            self.cells.read(&probe, now.mono);
        }
        let framebuffer = probe.memory();
        let total = framebuffer.ok().map(|memory| memory.total);
        let window = if self.mig.is_some() { Err(Missing::Unsupported) } else { window };
        let lists = self.lists(tools.session, total);
        let listing = self.processes.merge(lists, window, total, now.mono, &mut tools.people);
        for residue in listing.iter().flat_map(|listing| &listing.residues) {
            tools.discards.count(residue.why);
        }
        let cells = if self.owns_framebuffer { self.cells.to_vec() } else { Vec::new() };
        let utilization = window.map(|_| ());
        PartSample { mig: self.mig.clone(), cells, framebuffer, listing, utilization }
    }

    fn lists(&mut self, session: &Session, total: Option<u64>) -> RunningLists {
        let mut list =
            |which| running_processes(session.nvml(), self.handle, which, total, &mut self.buffers);
        RunningLists {
            compute: list(ProcessList::Compute),
            graphics: list(ProcessList::Graphics),
            mps: list(ProcessList::Mps),
        }
    }
}
