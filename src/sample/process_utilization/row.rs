//! Classification of the rows of a window.

use crate::model::{Discard, micros};
use crate::nvml::raw::utilization::UtilizationRow;
use crate::policy::{PID_MAX, STAMP_TOLERANCE};

/// Begin and end of a window, in the driver's time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) since_us: u64,
    /// Stamp of the newest sample.
    pub(super) newest_us: u64,
}

/// Classification of a row.
#[derive(Clone, Copy)]
pub(super) enum RowClass {
    /// Valid utilization of its process.
    Valid,
    /// No information: an empty slot, older than the window, or a duplicate.
    Ignored(Discard),
    /// Invalid: the process was active in the window, its utilization is unknown.
    UnknownProcess(Discard),
    /// Invalid: an unknown process was active, so the utilization of all processes is unknown.
    UnknownDevice(Discard),
}

impl RowClass {
    pub(super) fn discard(self) -> Option<Discard> {
        match self {
            Self::Valid => None,
            Self::Ignored(reason) | Self::UnknownProcess(reason) | Self::UnknownDevice(reason) => {
                Some(reason)
            }
        }
    }
}

/// Classifies a row. `same` is an earlier row of the same process.
pub(super) fn classify(
    row: &UtilizationRow,
    bounds: Bounds,
    same: Option<&UtilizationRow>,
) -> RowClass {
    if row.pid == 0 {
        RowClass::Ignored(Discard::Pid)
    } else if row.stamp_us <= bounds.since_us {
        RowClass::Ignored(Discard::OldStamp)
    } else if row.pid > PID_MAX {
        let used = row.percent.iter().any(|percent| *percent > 0);
        if used { RowClass::UnknownDevice(Discard::Pid) } else { RowClass::Ignored(Discard::Pid) }
    } else if row.stamp_us > bounds.newest_us.saturating_add(micros(STAMP_TOLERANCE)) {
        RowClass::UnknownProcess(Discard::FutureStamp)
    } else if row.percent.iter().any(|percent| *percent > 100) {
        RowClass::UnknownProcess(Discard::Percentage)
    } else {
        match same {
            None => RowClass::Valid,
            Some(same) if same.percent == row.percent => RowClass::Ignored(Discard::Duplicate),
            Some(_) => RowClass::UnknownProcess(Discard::Duplicate),
        }
    }
}

/// The newest stamp of the rows that are possible but for their stamps.
pub(super) fn newest_plausible(rows: &[UtilizationRow]) -> Option<u64> {
    let is_possible = |row: &&UtilizationRow| {
        (1..=PID_MAX).contains(&row.pid) && row.percent.iter().all(|percent| *percent <= 100)
    };
    rows.iter().filter(is_possible).map(|row| row.stamp_us).max()
}
