//! The driver as a whole, read by a thread of its own: opening it and counting its GPUs.

use std::path::PathBuf;
use std::sync::Arc;

use crate::host::ProcRoot;
use crate::model::Reading;
use crate::nvml::inventory::Driver;
use crate::nvml::{End, LibraryError, Session};

/// What the driver's thread is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Let go of the session, if there is one, and open a new one.
    Open,
    /// Read what belongs to no GPU in particular.
    Read,
    /// Let go of the session, if there is one.
    Release,
}

/// What it answers.
pub enum Answer {
    /// A new session.
    Opened {
        /// To be shared with the GPUs' threads.
        session: Arc<Session>,
        /// Versions.
        driver: Driver,
        /// Tells when the session has ended.
        end: End,
    },
    /// No session.
    Closed(LibraryError),
    /// How many GPUs the open session counts.
    Read(Reading),
    /// The driver's thread has no session any more.
    Released,
}

/// Opens the driver and counts its GPUs.
pub struct NodeReader {
    paths: Vec<PathBuf>,
    proc_root: ProcRoot,
    session: Option<Arc<Session>>,
}

impl NodeReader {
    /// A reader that will look for the library at `paths`, in their order.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, proc_root: ProcRoot) -> Self {
        Self { paths, proc_root, session: None }
    }

    /// Answers one question.
    pub fn answer(&mut self, question: Question) -> Answer {
        match (question, &self.session) {
            (Question::Read, Some(session)) => Answer::Read(session.gpu_count().map(f64::from)),
            (Question::Release, _) => {
                self.session = None;
                Answer::Released
            }
            (Question::Open, _) | (Question::Read, None) => self.open(),
        }
    }

    fn open(&mut self) -> Answer {
        // The old session has to be gone before the library is loaded anew.
        self.session = None;
        match Session::open(&self.paths, self.proc_root.path()) {
            Ok((session, end)) => {
                let session = Arc::new(session);
                self.session = Some(Arc::clone(&session));
                Answer::Opened { driver: session.driver(), session, end }
            }
            Err(error) => Answer::Closed(error),
        }
    }
}
