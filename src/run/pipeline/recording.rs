//! Cycles for a recording.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::{Pipeline, wait_for_window};
use crate::catalog;
use crate::policy;
use crate::publish::Published;
use crate::record::cluster::ClusterRecord;
use crate::selection::{FamilyRequest, Selection};

impl Pipeline {
    /// Records the node: runs cycles for `time` at least and until driver and cluster are ready, and returns the
    /// snapshot of the last one. `progress` receives the time that is left.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(in crate::run) fn record(
        &mut self,
        time: Duration,
        mut progress: impl FnMut(Duration),
    ) -> anyhow::Result<Arc<Published>> {
        self.selection =
            Arc::new(Selection::of(&all_families(), self.config.selection_scope.clone()));
        let end = self.clock.now().mono + time;
        let published = self.sample_until_ready()?;
        if time.is_zero() {
            return Ok(published);
        }
        let (_never, pause) = mpsc::channel::<()>();
        while self.clock.now().mono < end {
            progress(end.saturating_sub(self.clock.now().mono));
            let next = self.clock.now().mono + self.config.interval;
            let _ = pause.recv_timeout(self.clock.until(next.min(end)));
            self.cycle();
        }
        // The window of a command that prints once, so that it has the same rates.
        wait_for_window();
        Ok(self.cycle())
    }

    /// What the sources of the cluster returned last, and the name of the node; `None` without a cluster.
    pub(in crate::run) fn cluster_record(&self) -> Option<ClusterRecord> {
        let (_, node) = self.config.cluster.as_ref()?.pods.as_ref()?;
        let cluster = self.cluster.as_ref()?;
        Some(ClusterRecord::new(node.as_str(), cluster.record()))
    }

    /// Ends the NVML session.
    pub(in crate::run) fn close(mut self) {
        self.sampler.quiesce(self.clock.now().mono + policy::QUIESCE_GRACE);
    }
}

/// Requests for all families.
fn all_families() -> Vec<FamilyRequest> {
    catalog::rows().filter_map(|row| FamilyRequest::named(row.name)).collect()
}
