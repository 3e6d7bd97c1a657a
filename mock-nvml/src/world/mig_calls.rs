//! Calls that return the handles of MIG devices and instances.

use crate::{
    return_code::{NvmlResult, ReturnCode},
    world::{
        World,
        board::Board,
        handles::{HandleEntry, HandleTarget},
        state::State,
    },
};

impl World {
    /// A call with any handle that returns handles of the same GPU's devices and instances, and a
    /// value.
    pub(crate) fn target_handles<T>(
        &self,
        function: &str,
        handle: usize,
        pick: impl FnOnce(&Board) -> NvmlResult<(T, Vec<HandleTarget>)>,
    ) -> NvmlResult<(T, Vec<usize>)> {
        let target = |state: &State| state.handle_entry(handle).map(|entry| Some(entry.gpu));
        self.call(function, target, |state, now| {
            let (value, parts) = pick(&state.board(handle, now)?)?;
            let entry = state.handle_entry(handle)?;
            let handle_of = |part| state.handles.get(HandleEntry { target: part, ..entry });
            Ok((value, parts.into_iter().map(handle_of).collect()))
        })
    }

    /// As [`Self::target_handles`], for one handle.
    pub(crate) fn target_handle<T>(
        &self,
        function: &str,
        handle: usize,
        pick: impl FnOnce(&Board) -> NvmlResult<(HandleTarget, T)>,
    ) -> NvmlResult<(usize, T)> {
        let one = |board: &Board| pick(board).map(|(part, value)| (value, vec![part]));
        let (value, handles) = self.target_handles(function, handle, one)?;
        handles.first().map(|handle| (*handle, value)).ok_or(ReturnCode::UNKNOWN)
    }
}
