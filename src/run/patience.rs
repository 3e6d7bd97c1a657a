//! A word about what takes long.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::say;
use crate::policy;

/// Says on standard error what is waited for, unless it is dropped soon.
pub(super) struct Patience {
    _over: mpsc::Sender<Infallible>,
}

impl Patience {
    /// What is waited for, and how long at the most.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn for_others(what: &'static str, most: Duration) -> io::Result<Self> {
        let (over, is_over) = mpsc::channel();
        thread::Builder::new().name("patience".to_owned()).spawn(move || {
            let waited: Result<Infallible, _> = is_over.recv_timeout(policy::SILENCE);
            if waited == Err(RecvTimeoutError::Timeout) {
                say(&format!("waiting for {what}: up to {} s", most.as_secs()));
            }
        })?;
        Ok(Self { _over: over })
    }
}
