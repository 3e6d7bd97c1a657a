//! What is remembered between two calls.

use std::sync::Arc;

use super::{
    Board, Seat,
    events::Events,
    gpm::Samples,
    handles::{Handles, Held, Part},
    session::Session,
    tracks::Tracks,
};
use crate::{
    clock::{self, Now},
    code::{Answer, Code},
    scenario::{Pci, Scenario},
};

/// How a client names a GPU.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named<'a> {
    /// By NVML's index.
    Index(u32),
    /// By UUID.
    Uuid(&'a str),
    /// By PCI bus id in any of its forms.
    PciBusId(&'a str),
    /// By board serial.
    Serial(&'a str),
}

/// The scenario in force, and what calls and time have made of it.
#[derive(Debug)]
pub(super) struct State {
    pub(super) scenario: Arc<Scenario>,
    pub(super) session: Session,
    pub(super) handles: Handles,
    pub(super) tracks: Tracks,
    pub(super) events: Events,
    pub(super) samples: Samples,
    /// World time up to which the state has been brought.
    reached: f64,
}

impl State {
    pub(super) fn new(scenario: Scenario) -> Self {
        // Before zero, so that what begins at zero begins now.
        let reached = -1.0;
        let tracks = Tracks::new(&scenario);
        let (session, handles) = (Session::default(), Handles::default());
        let (scenario, events) = (Arc::new(scenario), Events::default());
        let samples = Samples::default();
        Self { scenario, session, handles, tracks, events, samples, reached }
    }

    pub(super) fn advance(&mut self, time: f64) {
        let Self { scenario, session, tracks, reached, .. } = self;
        if let Some(since) = session.advance(&scenario.driver.reloads, *reached, time) {
            tracks.restart(since);
        }
        tracks.advance(scenario, *reached, time);
        *reached = time;
    }

    /// Goes on with another scenario; what has accumulated stays with each UUID.
    pub(super) fn adopt(&mut self, scenario: Scenario) {
        let now = clock::now(scenario.hold);
        self.tracks.adopt(&scenario, now.world);
        self.scenario = Arc::new(scenario);
    }

    /// What is so named, if it is there.
    pub(super) fn find(&self, named: Named) -> Answer<Held> {
        let (gpu, part) = self.named(named)?;
        let incarnation = self.tracks.present(gpu)?;
        Ok(Held { generation: self.session.generation(), gpu, incarnation, part })
    }

    /// The GPU that is so named or has the MIG device that is, lost or not.
    pub(super) fn named(&self, named: Named) -> Answer<(usize, Part)> {
        let gpus = &self.scenario.gpus;
        let found = match named {
            Named::Index(index) => {
                let index = usize::try_from(index).ok().filter(|&index| index < gpus.len());
                return index.map(|index| (index, Part::Board)).ok_or(Code::INVALID_ARGUMENT);
            }
            Named::Uuid(uuid) if uuid.starts_with("MIG-") => {
                return gpus
                    .iter()
                    .find_map(|gpu| {
                        let mut devices = gpu.layout(self.reached)?.devices();
                        let (_, ci) = devices.find(|(_, ci)| ci.uuid == uuid)?;
                        Some((gpu.index, Part::MigDevice(ci.life)))
                    })
                    .ok_or(Code::NOT_FOUND);
            }
            Named::Uuid(uuid) => gpus.iter().position(|gpu| gpu.uuid == uuid),
            Named::PciBusId(id) => {
                let place = Pci::parse(id).ok_or(Code::INVALID_ARGUMENT)?;
                gpus.iter().position(|gpu| gpu.pci == place)
            }
            Named::Serial(serial) => {
                gpus.iter().position(|gpu| gpu.model.serial && gpu.serial == serial)
            }
        };
        found.map(|gpu| (gpu, Part::Board)).ok_or(Code::NOT_FOUND)
    }

    /// What a handle means, if it is there.
    ///
    /// # Errors
    /// `GPU_IS_LOST`, or `INVALID_ARGUMENT` if its part of the GPU is no more.
    pub(super) fn held(&self, handle: usize) -> Answer<Held> {
        self.session.check()?;
        let held = self.handles.held(handle, self.session.generation())?;
        self.there(held).map(|()| held)
    }

    /// Refuses what is not there now.
    pub(super) fn there(&self, held: Held) -> Answer<()> {
        if held.generation != self.session.generation() {
            return Err(Code::INVALID_ARGUMENT);
        }
        if self.tracks.present(held.gpu)? != held.incarnation {
            return Err(Code::GPU_IS_LOST);
        }
        self.seat(held).map(|_| ())
    }

    /// The GPU of a handle of a whole one.
    pub(super) fn held_by(&self, handle: usize) -> Answer<usize> {
        let held = self.held(handle)?;
        match held.part {
            Part::Board => Ok(held.gpu),
            Part::MigDevice(_) => Err(Code::NOT_SUPPORTED),
            Part::GpuInstance(_) | Part::ComputeInstance(_) => Err(Code::INVALID_ARGUMENT),
        }
    }

    /// The GPU of a handle, or what of it, as it is now.
    pub(super) fn board(&self, handle: usize, now: Now) -> Answer<Board> {
        let held = self.held(handle)?;
        let heat = self.tracks.heat(held.gpu)?;
        let (scenario, since) = (Arc::clone(&self.scenario), self.session.up_since());
        let board = Board::new(scenario, held.gpu, heat, now, since)?;
        Ok(board.seated(self.seat(held)?))
    }

    /// What a part of a GPU is now.
    fn seat(&self, held: Held) -> Answer<Seat> {
        let gpu = self.scenario.gpus.get(held.gpu).ok_or(Code::GPU_IS_LOST)?;
        Seat::of(gpu, held.part, self.reached).ok_or(Code::INVALID_ARGUMENT)
    }
}
