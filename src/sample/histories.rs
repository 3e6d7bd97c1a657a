//! What is remembered of each GPU between cycles and across sessions, by UUID.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::clock_event_history::ClockEventHistory;
use super::device::DeviceSample;
use super::gpu_retention::GpuRetention;
use super::health_history::HealthHistory;
use super::xid_history::{XidHistories, XidHistory};
use crate::model::{ClockEventCounts, DownReason, HealthState, Missing, XidState};
use crate::policy::HEALTH_WINDOW;
use crate::selection::Selection;

/// Histories of all GPUs, until they have been absent for longer than the retention time.
#[derive(Default)]
pub(super) struct Histories {
    pub(super) xids: XidHistories,
    clock_events: BTreeMap<Arc<str>, ClockEventHistory>,
    health: BTreeMap<Arc<str>, HealthHistory>,
    retention: GpuRetention,
}

impl Histories {
    /// Records the samples of all identified GPUs at `now` (monotonic): the state of the GPU, and
    /// health, and clock event reasons while a family that needs them is selected.
    pub(super) fn record<'a>(
        &mut self,
        identified: impl Iterator<Item = &'a DeviceSample> + Clone,
        selection: &Selection,
        now: Duration,
    ) {
        if !selection.needs_clock_events() {
            self.clock_events.clear();
        }
        for sample in identified.clone() {
            self.record_sample(sample, selection);
        }
        self.retention.mark_present(identified.map(|sample| &sample.gpu.uuid), now);
        self.retention.retain(&mut self.xids);
        self.retention.retain(&mut self.clock_events);
        self.retention.retain(&mut self.health);
    }

    fn record_sample(&mut self, sample: &DeviceSample, selection: &Selection) {
        let (uuid, at) = (&sample.gpu.uuid, sample.at.mono);
        if let Some(xids) = self.xids.get_mut(uuid) {
            xids.observe_state(sample.state());
        }
        if let (Some(bits), true) = (sample.clock_event_reasons, selection.needs_clock_events()) {
            let history = self.clock_events.entry(Arc::clone(uuid)).or_default();
            history.record(bits, at, selection.scope.windows.clock_events);
        }
        if let Some(health) = &sample.health {
            let history = self.health.entry(Arc::clone(uuid)).or_default();
            history.record(health, at, HEALTH_WINDOW);
        }
    }

    /// The session was closed: XID events are not subscribed to.
    pub(super) fn end_session(&mut self, reason: DownReason) {
        for history in self.xids.values_mut() {
            history.subscribed = Err(Missing::Pending);
            // After these, GPUs may have been reset or the driver replaced.
            if matches!(reason, DownReason::DriverGone | DownReason::Releasing) {
                history.reset();
            }
        }
    }

    /// XID errors of each GPU, counted in the `window` before `now` (monotonic).
    pub(super) fn xid_states(
        &self,
        window: Duration,
        now: Duration,
    ) -> BTreeMap<Arc<str>, XidState> {
        let state = |(uuid, history): (&Arc<str>, &XidHistory)| {
            (Arc::clone(uuid), history.state(window, now))
        };
        self.xids.iter().map(state).collect()
    }

    /// Clock event counts of each GPU.
    pub(super) fn clock_event_counts(
        &self,
    ) -> BTreeMap<Arc<str>, Result<ClockEventCounts, Missing>> {
        let histories = self.clock_events.iter();
        histories.map(|(uuid, history)| (Arc::clone(uuid), history.counts())).collect()
    }

    /// Health state of each GPU.
    pub(super) fn health_states(&self) -> BTreeMap<Arc<str>, Arc<HealthState>> {
        let state = |(uuid, history): (&Arc<str>, &HealthHistory)| {
            Some((Arc::clone(uuid), history.state()?))
        };
        self.health.iter().filter_map(state).collect()
    }
}
