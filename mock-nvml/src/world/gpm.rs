//! GPU performance monitoring: samples, and what was between two of them.

mod metric;

use std::{collections::HashMap, sync::Arc};

use self::metric::mean;
pub(crate) use self::metric::{Metric, text};
use super::{World, handles::Held, handles::Part, state::State};
use crate::{
    clock::Now,
    code::{Answer, Code},
    models::HOPPER,
    scenario::Scenario,
};

/// More samples than any client keeps.
const MOST: usize = 65_536;

/// The samples that clients have.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    given: HashMap<usize, Sample>,
    /// How many there have been: none gets the handle of another.
    count: usize,
}

/// A sample, taken or not.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// The session it belongs to.
    session: u32,
    taken: Option<Taken>,
}

/// What was sampled, and when.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// A whole GPU or a GPU instance.
    held: Held,
    now: Now,
}

/// What two samples have between them.
#[derive(Clone, Debug)]
struct Span {
    scenario: Arc<Scenario>,
    held: Held,
    from: Now,
    to: Now,
}

impl Samples {
    fn alloc(&mut self, session: u32) -> Answer<usize> {
        self.given.retain(|_, sample| sample.session == session);
        if self.given.len() >= MOST {
            return Err(Code::MEMORY);
        }
        self.count += 1;
        // Aligned as a pointer to a struct is.
        let handle = self.count * 16;
        self.given.insert(handle, Sample { session, taken: None });
        Ok(handle)
    }

    fn of(&mut self, handle: usize, session: u32) -> Answer<&mut Sample> {
        let sample = self.given.get_mut(&handle).filter(|sample| sample.session == session);
        sample.ok_or(Code::INVALID_ARGUMENT)
    }
}

impl World {
    /// Whether a GPU has such monitoring.
    pub(crate) fn gpm_support(&self, function: &str, handle: usize) -> Answer<bool> {
        self.board(function, handle, |board| Ok(board.model().architecture >= HOPPER))
    }

    /// A new sample, not taken yet.
    pub(crate) fn gpm_alloc(&self, function: &str) -> Answer<usize> {
        self.enter(function, in_session, |state, _| state.samples.alloc(state.session.serial()))
    }

    /// The end of a sample.
    pub(crate) fn gpm_free(&self, function: &str, sample: usize) -> Answer<()> {
        self.enter(function, in_session, |state, _| {
            state.samples.of(sample, state.session.serial())?;
            state.samples.given.remove(&sample);
            Ok(())
        })
    }

    /// Takes a sample of a GPU, or of one of its GPU instances.
    pub(crate) fn gpm_take(
        &self,
        function: &str,
        handle: usize,
        instance: Option<u32>,
        sample: usize,
    ) -> Answer<()> {
        let target = |state: &State| state.held(handle).map(|held| Some(held.gpu));
        self.enter(function, target, |state, now| {
            let gpu = state.held_by(handle)?;
            let gpu = state.scenario.gpus.get(gpu).ok_or(Code::GPU_IS_LOST)?;
            if gpu.model.architecture < HOPPER {
                return Err(Code::NOT_SUPPORTED);
            }
            let part = match instance {
                None => Part::Board,
                Some(id) => {
                    let layout = gpu.layout(now.world).ok_or(Code::NOT_SUPPORTED)?;
                    let found = layout.instance(id).ok_or(Code::INVALID_ARGUMENT)?;
                    Part::GpuInstance(found.life)
                }
            };
            let held = Held { part, ..state.held(handle)? };
            let session = state.session.serial();
            state.samples.of(sample, session)?.taken = Some(Taken { held, now });
            Ok(())
        })
    }

    /// What was between two samples, metric by metric.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` unless both are of one thing that is still there, and in order.
    pub(crate) fn gpm_metrics(
        &self,
        function: &str,
        (first, second): (usize, usize),
        ids: &[u32],
    ) -> Answer<Vec<Answer<Metric>>> {
        let span = self.enter(function, in_session, |state, _| state.span(first, second))?;
        let activity = mean(&span)?;
        Ok(ids.iter().map(|id| activity.metric(*id)).collect())
    }
}

impl State {
    fn span(&mut self, first: usize, second: usize) -> Answer<Span> {
        let session = self.session.serial();
        let mut taken = |sample: usize| {
            let sample = *self.samples.of(sample, session)?;
            sample.taken.ok_or(Code::INVALID_ARGUMENT)
        };
        let (first, second) = (taken(first)?, taken(second)?);
        let backwards = second.now.real < first.now.real || second.now.world < first.now.world;
        if first.held != second.held || backwards {
            return Err(Code::INVALID_ARGUMENT);
        }
        self.there(first.held)?;
        let scenario = Arc::clone(&self.scenario);
        Ok(Span { scenario, held: first.held, from: first.now, to: second.now })
    }
}

fn in_session(state: &State) -> Answer<Option<usize>> {
    state.session.check().map(|()| None)
}
