//! The release of NVML on request.

use std::time::Duration;

use super::driver_state::DriverState;
use crate::clock::Clock;
use crate::driver_release::ReleaseRequest;
use crate::model::DownReason;
use crate::nvml::SessionClosed;

/// The active request, and the sessions that are to be closed for it.
#[derive(Default)]
pub(super) struct ReleaseState {
    request: Option<ReleaseRequest>,
    /// Sessions that some thread may still hold.
    held_sessions: Vec<SessionClosed>,
}

impl ReleaseState {
    pub(super) fn is_requested(&self) -> bool {
        self.request.is_some()
    }

    /// Sets or clears the request. Returns whether a release begins or ends.
    pub(super) fn set_request(&mut self, request: Option<ReleaseRequest>) -> bool {
        let changed = self.request.is_some() != request.is_some();
        self.request = request;
        changed
    }

    /// Adds an opened session.
    pub(super) fn add_session(&mut self, closed: SessionClosed) {
        self.held_sessions.retain(|session| !session.wait(Duration::ZERO));
        self.held_sessions.push(closed);
    }

    /// Waits until `deadline` for all sessions to be closed. Returns the state of the driver, which
    /// is released only if its thread is not in a call either.
    pub(super) fn wait(
        &mut self,
        clock: &Clock,
        deadline: Duration,
        is_in_call: bool,
    ) -> DriverState {
        self.held_sessions.retain(|session| !session.wait(clock.until(deadline)));
        let request = self.request.iter().map(ReleaseRequest::to_string).collect::<String>();
        if !is_in_call && self.held_sessions.is_empty() {
            DriverState::closed(DownReason::Released, format!("NVML is released, {request}"))
        } else {
            let detail =
                format!("NVML is being released, {request}; waiting for driver calls to return");
            DriverState::closed(DownReason::Releasing, detail)
        }
    }
}
