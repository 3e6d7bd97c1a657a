//! A notice on standard error about waits that take long.

use std::convert::Infallible;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::Context;

use super::{NO_THREAD, eprint_line};
use crate::policy;
use crate::worker;

/// Prints a notice if it is not dropped within [`policy::SLOW_NOTICE_AFTER`].
pub(super) struct SlowNotice {
    _done: mpsc::Sender<Infallible>,
}

impl SlowNotice {
    /// Starts the timer; the notice names `what` is waited for, and the `timeout` of that wait.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(super) fn start(what: &'static str, timeout: Duration) -> anyhow::Result<Self> {
        let (done, is_done) = mpsc::channel();
        let timer = worker::spawn("notice".to_owned(), move || {
            let waited: Result<Infallible, _> = is_done.recv_timeout(policy::SLOW_NOTICE_AFTER);
            if waited == Err(RecvTimeoutError::Timeout) {
                eprint_line(&format!("waiting for {what}: up to {} s", timeout.as_secs()));
            }
        });
        timer.context(NO_THREAD)?;
        Ok(Self { _done: done })
    }
}
