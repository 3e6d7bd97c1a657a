//! SM utilization and framebuffer of each GPU in the last ten minutes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::GpuView;
use crate::policy::{RECENT_USE_POINTS, RECENT_USE_STEP};
use crate::snapshot::Snapshot;

/// The finished steps of each GPU, by UUID.
pub type RecentUse = BTreeMap<Arc<str>, VecDeque<UsePoint>>;

/// The means of one step, percent; none without a reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsePoint {
    /// GPU utilization.
    pub sm: Option<u8>,
    /// Used framebuffer.
    pub memory: Option<u8>,
}

/// Records the use of each GPU: at most [`RECENT_USE_POINTS`] points of four bytes each.
#[derive(Debug, Default)]
pub struct UseRecorder {
    /// Start of the present step (monotonic).
    step_start: Duration,
    present: BTreeMap<Arc<str>, [Mean; 2]>,
    finished: Arc<RecentUse>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl UseRecorder {
    /// Records the readings of a cycle, and returns the finished steps.
    pub fn record(&mut self, snapshot: &Snapshot) -> Arc<RecentUse> {
        let now = snapshot.at.mono;
        let step = RECENT_USE_STEP.max(snapshot.health.interval);
        let passed = now.saturating_sub(self.step_start).as_secs_f64() / step.as_secs_f64();
        if passed >= 1.0 {
            self.finish(passed);
            self.step_start = now;
        }
        for (health, usage) in snapshot.health.gpus.iter().zip(&snapshot.device_usages) {
            let means = self.present.entry(Arc::clone(&health.gpu.uuid)).or_default();
            let (sm, memory) = GpuView::use_percent(snapshot, health, usage);
            for (mean, reading) in means.iter_mut().zip([sm, memory]) {
                if let Some(percent) = reading {
                    mean.sum += percent;
                    mean.count += 1;
                }
            }
        }
        Arc::clone(&self.finished)
    }

    /// Ends the present step, after `passed` steps. GPUs that had no reading in it are dropped.
    fn finish(&mut self, passed: f64) {
        let present = std::mem::take(&mut self.present);
        let mut finished = RecentUse::default();
        for (uuid, [sm, memory]) in present {
            let mut points = self.finished.get(&uuid).cloned().unwrap_or_default();
            points.push_back(UsePoint { sm: sm.percent(), memory: memory.percent() });
            // Steps without a cycle: the exporter was suspended, or a cycle was late.
            let mut missed = passed - 1.0;
            while missed >= 1.0 && points.len() < 2 * RECENT_USE_POINTS {
                points.push_back(UsePoint::default());
                missed -= 1.0;
            }
            while points.len() > RECENT_USE_POINTS {
                points.pop_front();
            }
            finished.insert(uuid, points);
        }
        self.finished = Arc::new(finished);
    }
}

impl Mean {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
    fn percent(self) -> Option<u8> {
        let mean = self.sum / f64::from(self.count);
        (self.count > 0).then(|| mean.round().clamp(0.0, 100.0) as u8)
    }
}
