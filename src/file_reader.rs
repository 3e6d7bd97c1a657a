//! Reads files on a thread of their own: a file system may never respond.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::policy;
use crate::worker::Worker;

/// The newest content of a file or directory. While the file system does not respond, the last content
/// is kept.
pub struct FileReader<T> {
    /// Name in the log.
    subject: String,
    worker: Worker<(), T>,
    latest: Option<T>,
    /// When the request for the latest content was sent (monotonic).
    read_at: Option<Duration>,
    is_hung: bool,
}

impl<T: Send + 'static> FileReader<T> {
    /// Starts the thread `name`, which calls `read` on request. `subject` is the name of the file in the log.
    ///
    /// # Errors
    /// Returns the OS error if the thread cannot be created.
    pub fn start(
        name: &str,
        subject: String,
        mut read: impl FnMut() -> T + Send + 'static,
    ) -> io::Result<Self> {
        let worker = Worker::spawn(name.to_owned(), &Arc::default(), move |()| read())?;
        Ok(Self { subject, worker, latest: None, read_at: None, is_hung: false })
    }

    /// Requests the content at `now` (monotonic) and waits for at most [`policy::FILE_TIMEOUT`]. A request
    /// of an earlier call is not waited for. Returns the newest content; `None` before the first.
    pub fn read(&mut self, now: Duration) -> Option<&T> {
        self.receive(Duration::ZERO);
        self.worker.send((), now);
        let is_new = self.worker.pending_since() == Some(now);
        self.receive(if is_new { policy::FILE_TIMEOUT } else { Duration::ZERO });
        let waited =
            self.worker.pending_since().map_or(Duration::ZERO, |at| now.saturating_sub(at));
        let is_hung = waited >= policy::SOURCE_DOWN_AFTER || self.worker.is_dead();
        match (std::mem::replace(&mut self.is_hung, is_hung), is_hung) {
            (false, true) => tracing::warn!(
                "{}: the file system has not responded for {} s; the last content stays in use",
                self.subject,
                waited.as_secs()
            ),
            (true, false) => tracing::info!("{}: the file system responds again", self.subject),
            _ => {}
        }
        self.latest.as_ref()
    }

    /// Whether the file system has not responded for [`policy::SOURCE_DOWN_AFTER`].
    #[must_use]
    pub fn is_hung(&self) -> bool {
        self.is_hung
    }

    /// Age of the content at `now` (monotonic); `None` without content.
    #[must_use]
    pub fn age(&self, now: Duration) -> Option<Duration> {
        Some(now.saturating_sub(self.read_at?))
    }

    fn receive(&mut self, timeout: Duration) {
        let sent_at = self.worker.pending_since();
        if let Some(content) = self.worker.recv_timeout(timeout) {
            self.latest = Some(content);
            self.read_at = sent_at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn last_content_is_kept_while_a_read_does_not_return() {
        let (contents, next) = mpsc::channel();
        contents.send(1).unwrap();
        let mut reader =
            FileReader::start("test", "file".to_owned(), move || next.recv().unwrap()).unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(reader.read(second), Some(&1));
        assert_eq!((reader.age(3 * second), reader.is_hung()), (Some(2 * second), false));
        assert_eq!(reader.read(2 * second), Some(&1));
        let late = 2 * second + policy::SOURCE_DOWN_AFTER;
        assert_eq!(reader.read(late), Some(&1));
        assert!(reader.is_hung());
        assert_eq!(reader.age(late), Some(late.saturating_sub(second)));
        contents.send(2).unwrap();
        contents.send(3).unwrap();
        // The thread responds to the old request, and then to a new one.
        while reader.read(late + second) != Some(&3) {
            contents.send(3).unwrap();
        }
        assert!(!reader.is_hung());
    }

    #[test]
    fn ended_thread_is_hung() {
        let mut reader: FileReader<()> =
            FileReader::start("test", "file".to_owned(), || panic!("on purpose")).unwrap();
        while !reader.is_hung() {
            assert_eq!(reader.read(Duration::ZERO), None);
        }
    }
}
