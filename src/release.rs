//! Letting go of NVML on request. While anybody holds it, GPUs can be neither reset nor partitioned,
//! and their driver cannot be replaced.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::policy;

/// What an operator tells the sampling thread by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// SIGUSR1: let go.
    LetGo,
    /// SIGUSR2: take it up again.
    TakeUp,
}

/// A request that stands, and how it ends: a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// By SIGUSR1.
    Signal,
    /// By the existence of this file.
    File(Arc<PathBuf>),
    /// By this label of the node, as `KEY=VALUE`.
    NodeLabel(Arc<str>),
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = policy::RELEASE_SIGNAL.as_secs() / 60;
        match self {
            Self::Signal => write!(f, "SIGUSR1 asked for it, until SIGUSR2 or for {limit} minutes"),
            Self::File(path) => write!(f, "the file {} asks for it", path.display()),
            Self::NodeLabel(label) => write!(f, "the node's label {label} asks for it"),
        }
    }
}

/// Whoever may ask, and who does.
#[derive(Debug)]
pub struct Requests {
    file: Option<Arc<PathBuf>>,
    file_fails: bool,
    signalled: Option<Duration>,
}

impl Requests {
    /// Nobody has asked yet; later `file` does by being there.
    #[must_use]
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file: file.map(Arc::new), file_fails: false, signalled: None }
    }

    /// An order that came at `now` (monotonic).
    pub fn take(&mut self, order: Order, now: Duration) {
        self.signalled = match order {
            Order::LetGo => Some(now),
            Order::TakeUp => None,
        };
    }

    /// What stands at `now` (monotonic). `labelled` is the label that the node has, if it has it.
    pub fn standing(&mut self, labelled: Option<Arc<str>>, now: Duration) -> Option<Request> {
        // An operator who forgets it must not leave an autoscaler blind.
        self.signalled.take_if(|at| now.saturating_sub(*at) >= policy::RELEASE_SIGNAL);
        if self.signalled.is_some() {
            return Some(Request::Signal);
        }
        self.by_file().or_else(|| labelled.map(Request::NodeLabel))
    }

    fn by_file(&mut self) -> Option<Request> {
        let file = self.file.as_ref()?;
        let looked = fs::symlink_metadata(&**file);
        let fails = looked.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
        if let (Err(error), true) = (&looked, fails && !self.file_fails) {
            let file = file.display();
            tracing::warn!("--release-file {file}: {error}; it counts as not there");
        }
        self.file_fails = fails;
        looked.is_ok().then(|| Request::File(Arc::clone(file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_signal_is_forgotten_in_time() {
        let mut requests = Requests::new(None);
        assert_eq!(requests.standing(None, SECOND), None);
        requests.take(Order::LetGo, SECOND);
        assert_eq!(requests.standing(None, 2 * SECOND), Some(Request::Signal));
        requests.take(Order::TakeUp, 2 * SECOND);
        assert_eq!(requests.standing(None, 2 * SECOND), None);
        requests.take(Order::LetGo, 3 * SECOND);
        let end = 2 * SECOND + policy::RELEASE_SIGNAL;
        assert_eq!(requests.standing(None, end), Some(Request::Signal));
        assert_eq!(requests.standing(None, end + SECOND), None);
    }

    #[test]
    fn a_file_asks_while_it_is_there_and_a_label_while_it_is_set() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("release");
        let mut requests = Requests::new(Some(file.clone()));
        assert_eq!(requests.standing(None, SECOND), None);
        let label: Arc<str> = "k=v".into();
        let labelled = requests.standing(Some(Arc::clone(&label)), SECOND);
        assert_eq!(labelled, Some(Request::NodeLabel(label)));
        fs::write(&file, "").unwrap();
        let asked = requests.standing(None, SECOND).unwrap();
        assert_eq!(asked.to_string(), format!("the file {} asks for it", file.display()));
        fs::remove_file(&file).unwrap();
        assert_eq!(requests.standing(None, SECOND), None);
    }

    #[test]
    fn a_file_that_cannot_be_looked_at_asks_for_nothing() {
        let plain = tempfile::NamedTempFile::new().unwrap();
        let mut requests = Requests::new(Some(plain.path().join("below/a/file")));
        assert_eq!(requests.standing(None, SECOND), None);
        assert!(requests.file_fails);
    }
}
