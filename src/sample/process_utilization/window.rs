//! The mean utilization of each process in a window.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::model::{EngineUtilization, Missing};
use crate::nvml::raw::utilization::UtilizationRow;

/// Use of each engine (SM, memory, encoder, decoder), as percent × µs.
type EngineTime = [u64; 4];

/// Utilization of the processes of one GPU in one cycle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UtilizationWindow {
    pub(super) engine_times: HashMap<u32, EngineTime>,
    /// Pids with an invalid row.
    pub(super) invalid: HashSet<u32>,
    /// Why the utilization of all processes is unknown.
    pub(super) unknown: Option<Missing>,
    pub(super) covered_us: u64,
    pub(super) rows: RowsSeen,
    /// Whether it is the window of an earlier cycle: there is no newer sample.
    pub(super) is_repeated: bool,
}

/// What the rows of a window were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RowsSeen {
    pub(super) valid: bool,
    pub(super) refused: bool,
}

/// Length of a window, and the use that belongs to no listed process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowSummary {
    /// Time that the window adds to the earlier ones; 0 if it is the window of an earlier cycle.
    pub span: Duration,
    /// Mean SM utilization of all pids that are not listed, percent; mostly of processes that have
    /// exited.
    pub unlisted_sm: f64,
}

impl UtilizationWindow {
    /// Summary of the window; `listed` returns whether a pid is in the process list.
    ///
    /// # Errors
    /// [`Missing::Invalid`] if a pid that is not listed has an invalid row.
    pub fn summary(&self, listed: impl Fn(u32) -> bool) -> Result<WindowSummary, Missing> {
        if self.invalid.iter().any(|pid| !listed(*pid)) {
            return Err(Missing::Invalid);
        }
        let unlisted = self.engine_times.iter().filter(|(pid, _)| !listed(**pid));
        let sm = unlisted.map(|(_, [sm, ..])| mean(*sm, self.covered_us)).sum();
        let new_us = if self.is_repeated { 0 } else { self.covered_us };
        Ok(WindowSummary { span: Duration::from_micros(new_us), unlisted_sm: sm })
    }

    /// Mean utilization of each engine by `pid`, percent; 0 for a process without a row.
    ///
    /// # Errors
    /// [`Missing::Invalid`] if the process has an invalid row.
    pub fn utilization(&self, pid: u32) -> Result<EngineUtilization, Missing> {
        if self.invalid.contains(&pid) {
            return Err(Missing::Invalid);
        }
        let [sm, memory, encoder, decoder] = self
            .engine_times
            .get(&pid)
            .map_or([0.0; 4], |times| times.map(|time| mean(time, self.covered_us)));
        Ok(EngineUtilization { sm, memory, encoder, decoder })
    }

    /// Adds rows that are means over `span_us`.
    pub(super) fn add<'a>(&mut self, rows: impl Iterator<Item = &'a UtilizationRow>, span_us: u64) {
        self.covered_us += span_us;
        for row in rows {
            let times = self.engine_times.entry(row.pid).or_default();
            for (sum, percent) in times.iter_mut().zip(row.percent) {
                *sum += u64::from(percent) * span_us;
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a window of a century fits in 2^53 µs")]
fn mean(time: u64, covered_us: u64) -> f64 {
    if covered_us == 0 { 0.0 } else { time as f64 / covered_us as f64 }
}
