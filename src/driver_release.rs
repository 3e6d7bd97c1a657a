//! Releases NVML on request: an open session blocks GPU reset, MIG changes and driver replacement.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::file_reader::FileReader;
use crate::policy;

/// A command of the operator to the sampling thread, sent by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseCommand {
    /// SIGUSR1: release the driver.
    Release,
    /// SIGUSR2: open the driver again.
    Reacquire,
}

/// An active request to release the driver. `Display` names its origin and how it ends, for logs
/// and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseRequest {
    /// From SIGUSR1.
    Signal,
    /// From the existence of this file.
    File(Arc<PathBuf>),
    /// From this node label, as `KEY=VALUE`.
    NodeLabel(Arc<str>),
}

impl fmt::Display for ReleaseRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = policy::RELEASE_SIGNAL.as_secs() / 60;
        match self {
            Self::Signal => write!(f, "requested by SIGUSR1, until SIGUSR2 or for {limit} minutes"),
            Self::File(path) => write!(f, "requested by the file {}", path.display()),
            Self::NodeLabel(label) => write!(f, "requested by the node label {label}"),
        }
    }
}

/// The sources of release requests and their state.
pub struct ReleaseRequests {
    file: Option<(Arc<PathBuf>, FileReader<io::Result<()>>)>,
    file_unreadable: bool,
    signalled_at: Option<Duration>,
}

impl ReleaseRequests {
    /// No request yet. `file` is the path of `--release-file`, if set, which a thread looks up.
    ///
    /// # Errors
    /// Returns the OS error if the thread cannot be created.
    pub fn start(file: Option<PathBuf>) -> io::Result<Self> {
        let start = |path: PathBuf| {
            let subject = format!("--release-file {}", path.display());
            let file = path.clone();
            let find = move || fs::symlink_metadata(&file).map(drop);
            Ok::<_, io::Error>((Arc::new(path), FileReader::start("release", subject, find)?))
        };
        let file = file.map(start).transpose()?;
        Ok(Self { file, file_unreadable: false, signalled_at: None })
    }

    /// Applies a command received at `now` (monotonic).
    pub fn apply(&mut self, command: ReleaseCommand, now: Duration) {
        self.signalled_at = match command {
            ReleaseCommand::Release => Some(now),
            ReleaseCommand::Reacquire => None,
        };
    }

    /// The active request at `now` (monotonic). `labelled` is the release label, if the node has
    /// it.
    pub fn active(&mut self, labelled: Option<Arc<str>>, now: Duration) -> Option<ReleaseRequest> {
        // A forgotten release must not leave an autoscaler without metrics.
        self.signalled_at.take_if(|at| now.saturating_sub(*at) >= policy::RELEASE_SIGNAL);
        if self.signalled_at.is_some() {
            return Some(ReleaseRequest::Signal);
        }
        self.by_file(now).or_else(|| labelled.map(ReleaseRequest::NodeLabel))
    }

    /// Whether the file can be looked up at `now` (monotonic), and the time since it was; `None` without a file.
    #[must_use]
    pub fn file_health(&self, now: Duration) -> Option<(bool, Option<Duration>)> {
        let (_, reader) = self.file.as_ref()?;
        Some((!self.file_unreadable && !reader.is_hung(), reader.age(now)))
    }

    fn by_file(&mut self, now: Duration) -> Option<ReleaseRequest> {
        let (file, reader) = self.file.as_mut()?;
        let found = reader.read(now)?;
        let unreadable = found.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
        if let (Err(error), true) = (found, unreadable && !self.file_unreadable) {
            let file = file.display();
            tracing::warn!("--release-file {file}: {error}; treated as absent");
        }
        self.file_unreadable = unreadable;
        found.is_ok().then(|| ReleaseRequest::File(Arc::clone(file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn signal_request_expires() {
        let mut requests = ReleaseRequests::start(None).unwrap();
        assert_eq!(requests.active(None, SECOND), None);
        requests.apply(ReleaseCommand::Release, SECOND);
        assert_eq!(requests.active(None, 2 * SECOND), Some(ReleaseRequest::Signal));
        requests.apply(ReleaseCommand::Reacquire, 2 * SECOND);
        assert_eq!(requests.active(None, 2 * SECOND), None);
        requests.apply(ReleaseCommand::Release, 3 * SECOND);
        let end = 2 * SECOND + policy::RELEASE_SIGNAL;
        assert_eq!(requests.active(None, end), Some(ReleaseRequest::Signal));
        assert_eq!(requests.active(None, end + SECOND), None);
    }

    #[test]
    fn file_and_label_request_while_present() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("release");
        let mut requests = ReleaseRequests::start(Some(file.clone())).unwrap();
        assert_eq!(requests.active(None, SECOND), None);
        let label: Arc<str> = "k=v".into();
        let labelled = requests.active(Some(Arc::clone(&label)), SECOND);
        assert_eq!(labelled, Some(ReleaseRequest::NodeLabel(label)));
        fs::write(&file, "").unwrap();
        let request = requests.active(None, SECOND).unwrap();
        assert_eq!(request.to_string(), format!("requested by the file {}", file.display()));
        fs::remove_file(&file).unwrap();
        assert_eq!(requests.active(None, SECOND), None);
    }

    #[test]
    fn unreadable_file_is_no_request() {
        let plain = tempfile::NamedTempFile::new().unwrap();
        let file = plain.path().join("below/a/file");
        let mut requests = ReleaseRequests::start(Some(file)).unwrap();
        assert_eq!(requests.active(None, SECOND), None);
        assert!(requests.file_unreadable);
    }
}
