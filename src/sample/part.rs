//! What a GPU is divided into: itself as a whole, or its MIG devices while MIG is on.

use std::sync::Arc;

use super::cells::{Cell, Cells};
use super::processes::{ProcessTable, RunningLists};
use super::ring::Window;
use crate::catalog::INSTANCE;
use crate::host::ProcRoot;
use crate::model::{Discards, MigDevice, Missing, Moment, ProcessSample};
use crate::nvml::Session;
use crate::nvml::probe::Probe;
use crate::nvml::raw::Handle;
use crate::nvml::raw::processes::{ProcessBuffers, ProcessList, running_processes};

/// What one part answered in one cycle.
#[derive(Clone, Debug)]
pub struct PartSample {
    /// Which MIG device; none for a GPU as a whole.
    pub mig: Option<Arc<MigDevice>>,
    /// One cell per row of [`INSTANCE`], in its order; empty for a MIG device whose framebuffer is
    /// told by another one of the same GPU instance.
    pub cells: Vec<Cell>,
    /// Its processes, unless a list failed.
    pub processes: Result<Vec<ProcessSample>, Missing>,
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
    pub proc_root: &'a ProcRoot,
    /// Where rows that are not believed are counted.
    pub discards: &'a mut Discards,
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
        let total = probe.memory().ok().map(|memory| memory.total);
        let window = if self.mig.is_some() { Err(Missing::Unsupported) } else { window };
        let lists = self.lists(tools.session, total);
        let processes = self.processes.merge(
            lists,
            window,
            total,
            |pid| tools.proc_root.identify(pid),
            tools.discards,
        );
        let cells = if self.owns_framebuffer { self.cells.to_vec() } else { Vec::new() };
        PartSample { mig: self.mig.clone(), cells, processes }
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
