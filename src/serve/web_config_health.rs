//! Whether `--web-config-file` can be read while it is in use.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The result of the last read; `None` without a file.
#[derive(Debug, Default)]
pub struct WebConfigHealth(Mutex<Option<LastRead>>);

/// The last read of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRead {
    /// Whether the file is valid, and its file system responds.
    pub is_up: bool,
    /// When the file was last read (monotonic).
    pub read_at: Duration,
}

impl WebConfigHealth {
    /// The last read.
    #[must_use]
    pub fn last(&self) -> Option<LastRead> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a read at `now` (monotonic).
    pub(super) fn record_read(&self, is_valid: bool, now: Duration) {
        self.set(LastRead { is_up: is_valid, read_at: now });
    }

    /// Records that the file system does not respond.
    pub(super) fn record_hang(&self) {
        if let Some(last) = self.last() {
            self.set(LastRead { is_up: false, ..last });
        }
    }

    fn set(&self, last: LastRead) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }
}

#[test]
fn hang_keeps_the_time_of_the_last_read() {
    let (health, second) = (WebConfigHealth::default(), Duration::from_secs(1));
    health.record_hang();
    assert_eq!(health.last(), None);
    health.record_read(true, second);
    health.record_hang();
    assert_eq!(health.last(), Some(LastRead { is_up: false, read_at: second }));
}
