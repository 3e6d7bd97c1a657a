//! The pods that the source in use reads, and their publication.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::pods::PodSnapshot;
use super::pods::store::PodStore;
use super::request_error::RequestError;
use super::source::HealthTracker;
use super::watch_event::PodWatchState;
use crate::clock::Clock;

/// The pods of the node, whichever source they are read from.
#[derive(Debug)]
pub struct PodFeed {
    /// The pods. They are kept when the source changes, until a complete list of the next one.
    pub state: PodWatchState,
    /// Clock for the timestamps.
    pub clock: Clock,
    publish: watch::Sender<PodSnapshot>,
    changed: Arc<Notify>,
}

impl PodFeed {
    /// No pods so far of `node`; it is empty if a source has the pods of one node only. Every change
    /// notifies `changed`.
    #[must_use]
    pub fn new(
        node: &str,
        clock: Clock,
        publish: watch::Sender<PodSnapshot>,
        changed: Arc<Notify>,
    ) -> Self {
        let source = publish.borrow().health.source;
        let state = PodWatchState::new(PodStore::new(source, node));
        Self { state, clock, publish, changed }
    }

    /// Takes the pods from another source, with this health. Pods that are missing in its lists and have
    /// not ended are kept for `keep_unlisted`. Returns the health of the source before.
    pub fn set_source(&mut self, health: HealthTracker, keep_unlisted: Duration) -> HealthTracker {
        self.state.resource_version = None;
        self.state.in_initial_events = false;
        self.state.store.keep_unlisted = keep_unlisted;
        std::mem::replace(&mut self.state.store.health, health)
    }

    /// Present time (monotonic).
    #[must_use]
    pub fn now(&self) -> Duration {
        self.clock.now().mono
    }

    /// Records a response of the source.
    pub fn record_success(&mut self) {
        let now = self.now();
        self.state.store.health.record_success(now);
    }

    /// Records a failure of the source, and publishes its state.
    pub fn fail(&mut self, error: &RequestError) {
        let now = self.now();
        self.state.store.health.record_failure(error.reason, &error.problem, now);
        self.publish();
    }

    /// Publishes the pods.
    pub fn publish(&mut self) {
        let now = self.now();
        self.publish.send_replace(self.state.store.snapshot(now));
        if std::mem::take(&mut self.state.changed) {
            self.changed.notify_one();
        }
    }
}
