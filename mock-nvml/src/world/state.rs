//! What is remembered between two calls.

use std::sync::Arc;

use super::{events::Events, handles::Handles, session::Session, tracks::Tracks};
use crate::{
    clock,
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
        Self { scenario, session, handles, tracks, events, reached }
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

    pub(super) fn find(&self, named: Named) -> Answer<usize> {
        let gpus = &self.scenario.gpus;
        let found = match named {
            Named::Index(index) => {
                let index = usize::try_from(index).ok().filter(|&index| index < gpus.len());
                return index.ok_or(Code::INVALID_ARGUMENT);
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
        found.ok_or(Code::NOT_FOUND)
    }

    /// The GPU whose handle it is, if it is there.
    pub(super) fn held_by(&self, handle: usize) -> Answer<usize> {
        self.session.check()?;
        let held = self.handles.held(handle, self.session.generation())?;
        if self.tracks.present(held.gpu)? == held.incarnation {
            Ok(held.gpu)
        } else {
            Err(Code::GPU_IS_LOST)
        }
    }
}
