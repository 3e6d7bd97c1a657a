//! Calls of event sets.

use std::time::Duration;

use crate::{
    clock::{self, Now},
    return_code::{NvmlResult, ReturnCode},
    world::{
        World,
        events::{DeliveredEvent, Registration, supported_event_types},
        state::State,
    },
};

/// How often a call that waits for an event checks for one.
const EVENT_POLL: Duration = Duration::from_millis(50);

impl World {
    /// Creates an event set.
    pub(crate) fn create_set(&self, function: &str) -> NvmlResult<usize> {
        let target = |state: &State| state.session.check().map(|()| None);
        self.call(function, target, |state, _| Ok(state.events.create(state.session.serial())))
    }

    /// Frees an event set.
    pub(crate) fn free_set(&self, function: &str, set: usize) -> NvmlResult<()> {
        let target = |state: &State| state.session.check().map(|()| None);
        self.call(function, target, |state, _| state.events.free(set, state.session.serial()))
    }

    /// Registers an event set for events of some types of a GPU, from now on.
    pub(crate) fn register(
        &self,
        function: &str,
        handle: usize,
        types: u64,
        set: usize,
    ) -> NvmlResult<()> {
        let target = |state: &State| state.gpu_of_handle(handle).map(Some);
        self.call(function, target, |state, now| {
            let gpu = state.gpu_of_handle(handle)?;
            let model = state.scenario.gpus.get(gpu).ok_or(ReturnCode::GPU_IS_LOST)?.model;
            if types & !supported_event_types(model) != 0 {
                return Err(ReturnCode::NOT_SUPPORTED);
            }
            let serial = state.session.serial();
            state.events.register(
                set,
                serial,
                Registration { gpu, handle, types, since: now.world },
            )
        })
    }

    /// Waits for the next event of a set.
    ///
    /// # Errors
    /// `TIMEOUT` if no event occurs within the timeout.
    pub(crate) fn wait(
        &self,
        function: &str,
        set: usize,
        timeout: Duration,
    ) -> NvmlResult<DeliveredEvent> {
        let target = |state: &State| state.session.check().map(|()| None);
        let next = |state: &mut State, now: Now| {
            state.events.next(set, state.session.serial(), &state.scenario, now.world)
        };
        self.calls.count(function);
        let deadline = clock::now(None).real + timeout.as_secs_f64();
        let mut delayed = false;
        loop {
            if let Some(event) = self.call_uncounted(function, delayed, target, next)? {
                return Ok(event);
            }
            delayed = true;
            let left = deadline - clock::now(None).real;
            if left <= 0.0 {
                return Err(ReturnCode::TIMEOUT);
            }
            clock::sleep(EVENT_POLL.min(Duration::try_from_secs_f64(left).unwrap_or(EVENT_POLL)));
        }
    }
}
