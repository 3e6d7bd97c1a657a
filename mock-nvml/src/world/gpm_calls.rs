//! Calls of GPU performance monitoring (GPM).

use std::sync::Arc;

use crate::{
    models::table::HOPPER,
    return_code::{NvmlResult, ReturnCode},
    world::{
        World,
        gpm::{
            SampleInterval,
            metric::{Metric, mean},
        },
        handles::{HandleEntry, HandleTarget},
        state::State,
    },
};

impl World {
    /// Whether a GPU supports GPM.
    pub(crate) fn gpm_support(&self, function: &str, handle: usize) -> NvmlResult<bool> {
        self.board(function, handle, |board| Ok(board.model().architecture >= HOPPER))
    }

    /// Allocates a sample.
    pub(crate) fn gpm_alloc(&self, function: &str) -> NvmlResult<usize> {
        self.call(function, in_session, |state, _| state.samples.alloc(state.session.serial()))
    }

    /// Frees a sample.
    pub(crate) fn gpm_free(&self, function: &str, sample: usize) -> NvmlResult<()> {
        self.call(function, in_session, |state, _| {
            state.samples.free(sample, state.session.serial())
        })
    }

    /// Takes a sample of a GPU, or of one of its GPU instances.
    pub(crate) fn gpm_sample(
        &self,
        function: &str,
        handle: usize,
        instance: Option<u32>,
        sample: usize,
    ) -> NvmlResult<()> {
        let target = |state: &State| state.handle_entry(handle).map(|entry| Some(entry.gpu));
        self.call(function, target, |state, now| {
            let gpu = state.gpu_of_handle(handle)?;
            let gpu = state.scenario.gpus.get(gpu).ok_or(ReturnCode::GPU_IS_LOST)?;
            if gpu.model.architecture < HOPPER {
                return Err(ReturnCode::NOT_SUPPORTED);
            }
            let part = match instance {
                None => HandleTarget::Board,
                Some(id) => {
                    let layout = gpu.layout(now.world).ok_or(ReturnCode::NOT_SUPPORTED)?;
                    let found = layout.instance(id).ok_or(ReturnCode::INVALID_ARGUMENT)?;
                    HandleTarget::GpuInstance(found.generation)
                }
            };
            let entry = HandleEntry { target: part, ..state.handle_entry(handle)? };
            let session = state.session.serial();
            state.samples.take(sample, session, entry, now)
        })
    }

    /// The metrics between two samples, in the order of `ids`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` unless both samples are of the same existing device and in order.
    pub(crate) fn gpm_metrics(
        &self,
        function: &str,
        (first, second): (usize, usize),
        ids: &[u32],
    ) -> NvmlResult<Vec<NvmlResult<Metric>>> {
        let span = self.call(function, in_session, |state, _| interval(state, first, second))?;
        let activity = mean(&span)?;
        Ok(ids.iter().map(|id| activity.metric(*id)).collect())
    }
}

fn interval(state: &mut State, first: usize, second: usize) -> NvmlResult<SampleInterval> {
    let scenario = Arc::clone(&state.scenario);
    let found = state.samples.interval((first, second), state.session.serial(), &scenario)?;
    state.check_exists(found.entry)?;
    Ok(found)
}

fn in_session(state: &State) -> NvmlResult<Option<usize>> {
    state.session.check().map(|()| None)
}
