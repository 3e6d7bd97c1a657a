//! The state kept between calls.

use std::sync::Arc;

use crate::{
    clock::{self, Now},
    return_code::{NvmlResult, ReturnCode},
    scenario::{Pci, Scenario},
    world::{
        board::{Board, view::BoardView},
        events::EventSets,
        gpm::GpmSamples,
        gpu_states::GpuStates,
        handles::{HandleEntry, HandleTarget, Handles},
        session::Session,
    },
};

/// How a client identifies a device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DeviceLookup<'a> {
    /// By NVML's index.
    Index(u32),
    /// By UUID.
    Uuid(&'a str),
    /// By PCI bus id in any format.
    PciBusId(&'a str),
    /// By board serial.
    Serial(&'a str),
}

/// The current scenario, the session, and the state of GPUs, handles, events and samples.
#[derive(Debug)]
pub(super) struct State {
    pub(super) scenario: Arc<Scenario>,
    pub(super) session: Session,
    pub(super) handles: Handles,
    pub(super) gpu_states: GpuStates,
    pub(super) events: EventSets,
    pub(super) samples: GpmSamples,
    /// World time to which the state has been advanced.
    advanced_to: f64,
}

impl State {
    pub(super) fn new(scenario: Scenario) -> Self {
        // Before 0, so that windows that start at 0 are detected.
        let advanced_to = -1.0;
        let tracks = GpuStates::new(&scenario);
        let (session, handles) = (Session::default(), Handles::default());
        let (scenario, events) = (Arc::new(scenario), EventSets::default());
        let samples = GpmSamples::default();
        Self { scenario, session, handles, gpu_states: tracks, events, samples, advanced_to }
    }

    pub(super) fn advance(&mut self, time: f64) {
        let Self { scenario, session, gpu_states: tracks, advanced_to, .. } = self;
        if let Some(since) = session.advance(&scenario.driver.reloads, *advanced_to, time) {
            tracks.reset_counters(since);
        }
        tracks.advance(scenario, *advanced_to, time);
        *advanced_to = time;
    }

    /// Replaces the scenario; accumulated counters are kept by UUID.
    pub(super) fn replace_scenario(&mut self, scenario: Scenario) {
        let now = clock::now(scenario.held_at);
        self.gpu_states.replace_scenario(&scenario, now.world);
        self.scenario = Arc::new(scenario);
    }

    /// The handle entry of a device that is present.
    pub(super) fn find(&self, named: DeviceLookup) -> NvmlResult<HandleEntry> {
        let (gpu, part) = self.resolve(named)?;
        let incarnation = self.gpu_states.incarnation(gpu)?;
        Ok(HandleEntry { generation: self.session.generation(), gpu, incarnation, target: part })
    }

    /// The GPU and the target of an identifier, also if the GPU is lost.
    pub(super) fn resolve(&self, named: DeviceLookup) -> NvmlResult<(usize, HandleTarget)> {
        let gpus = &self.scenario.gpus;
        let found = match named {
            DeviceLookup::Index(index) => {
                let index = usize::try_from(index).ok().filter(|&index| index < gpus.len());
                return index
                    .map(|index| (index, HandleTarget::Board))
                    .ok_or(ReturnCode::INVALID_ARGUMENT);
            }
            DeviceLookup::Uuid(uuid) if uuid.starts_with("MIG-") => {
                return gpus
                    .iter()
                    .find_map(|gpu| {
                        let mut devices = gpu.layout(self.advanced_to)?.devices();
                        let (_, ci) = devices.find(|(_, ci)| ci.uuid == uuid)?;
                        Some((gpu.index, HandleTarget::MigDevice(ci.generation)))
                    })
                    .ok_or(ReturnCode::NOT_FOUND);
            }
            DeviceLookup::Uuid(uuid) => gpus.iter().position(|gpu| gpu.uuid == uuid),
            DeviceLookup::PciBusId(id) => {
                let address = Pci::parse(id).ok_or(ReturnCode::INVALID_ARGUMENT)?;
                gpus.iter().position(|gpu| gpu.pci == address)
            }
            DeviceLookup::Serial(serial) => {
                gpus.iter().position(|gpu| gpu.model.serial && gpu.serial == serial)
            }
        };
        found.map(|gpu| (gpu, HandleTarget::Board)).ok_or(ReturnCode::NOT_FOUND)
    }

    /// The entry of a handle.
    ///
    /// # Errors
    /// `GPU_IS_LOST`, or `INVALID_ARGUMENT` if the MIG device or instance no longer exists.
    pub(super) fn handle_entry(&self, handle: usize) -> NvmlResult<HandleEntry> {
        self.session.check()?;
        let entry = self.handles.entry(handle, self.session.generation())?;
        self.check_exists(entry).map(|()| entry)
    }

    /// Checks that the device or instance exists.
    ///
    /// # Errors
    /// As for [`Self::handle_entry`].
    pub(super) fn check_exists(&self, entry: HandleEntry) -> NvmlResult<()> {
        if entry.generation != self.session.generation() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        if self.gpu_states.incarnation(entry.gpu)? != entry.incarnation {
            return Err(ReturnCode::GPU_IS_LOST);
        }
        self.view(entry).map(|_| ())
    }

    /// The index of the GPU of a whole GPU's handle.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` for a MIG device, `INVALID_ARGUMENT` for an instance.
    pub(super) fn gpu_of_handle(&self, handle: usize) -> NvmlResult<usize> {
        let entry = self.handle_entry(handle)?;
        match entry.target {
            HandleTarget::Board => Ok(entry.gpu),
            HandleTarget::MigDevice(_) => Err(ReturnCode::NOT_SUPPORTED),
            HandleTarget::GpuInstance(_) | HandleTarget::ComputeInstance(_) => {
                Err(ReturnCode::INVALID_ARGUMENT)
            }
        }
    }

    /// The device or instance of a handle, at the current time.
    pub(super) fn board(&self, handle: usize, now: Now) -> NvmlResult<Board> {
        let entry = self.handle_entry(handle)?;
        let heat = self.gpu_states.thermal(entry.gpu)?;
        let (scenario, since) = (Arc::clone(&self.scenario), self.session.up_since());
        let board = Board::new(scenario, entry.gpu, heat, now, since)?;
        Ok(board.with_view(self.view(entry)?))
    }

    /// The MIG instances of an entry, at the current time.
    fn view(&self, entry: HandleEntry) -> NvmlResult<BoardView> {
        let gpu = self.scenario.gpus.get(entry.gpu).ok_or(ReturnCode::GPU_IS_LOST)?;
        BoardView::of(gpu, entry.target, self.advanced_to).ok_or(ReturnCode::INVALID_ARGUMENT)
    }
}
