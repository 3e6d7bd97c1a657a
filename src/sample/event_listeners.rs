//! The event threads of the current session and of closed ones.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::device::DeviceSample;
use super::events::{DrainingListener, EventListener};
use super::xid_history::XidHistories;
use crate::clock::Clock;
use crate::nvml::Session;

/// Listeners of XID events.
pub(super) struct EventListeners {
    clock: Clock,
    live: Arc<AtomicUsize>,
    current: Option<EventListener>,
    draining: Vec<DrainingListener>,
}

impl EventListeners {
    /// No listener yet; `live` counts their threads.
    pub(super) fn new(clock: Clock, live: Arc<AtomicUsize>) -> Self {
        Self { clock, live, current: None, draining: Vec::new() }
    }

    /// Whether the current session has a listener.
    pub(super) fn is_listening(&self) -> bool {
        self.current.is_some()
    }

    /// Subscribes identified GPUs to the events of `session` and records in `xids` the events
    /// received since the last call, at `now` (monotonic).
    pub(super) fn record<'a>(
        &mut self,
        xids: &mut XidHistories,
        session: Option<&Arc<Session>>,
        identified: impl Iterator<Item = &'a DeviceSample>,
        now: Duration,
    ) {
        self.draining.retain_mut(|listener| listener.drain(xids, now));
        if self.current.as_ref().is_none_or(EventListener::has_ended) {
            self.current = session.and_then(|session| self.start(session));
        }
        let Some(listener) = &mut self.current else { return };
        for sample in identified {
            listener.subscribe(&sample.gpu, sample.handle);
        }
        listener.drain(xids, now);
    }

    /// Ends the current listener; its last events are still recorded.
    pub(super) fn stop(&mut self) {
        self.draining.extend(self.current.take().map(EventListener::stop));
    }

    fn start(&self, session: &Arc<Session>) -> Option<EventListener> {
        EventListener::start(Arc::clone(session), self.clock, &self.live)
            .inspect_err(|error| tracing::error!(%error, "cannot start the event thread"))
            .ok()
    }
}
