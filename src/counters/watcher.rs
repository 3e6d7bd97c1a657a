//! Watches a counters file or a `ConfigMap` on a dedicated thread: no cycle waits for a file system
//! or an API server.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use serde::Deserialize;
use tokio::runtime;

use super::{Counters, CountersError, FILE_MAX, parse};
use crate::kube::address::Address;
use crate::kube::api::{get, read_body};
use crate::kube::request_error::RequestError;
use crate::kube::source::FailureReason;
use crate::model::Problem;
use crate::policy;
use crate::selection::{Selection, SelectionScope};
use crate::worker;

/// Where counters are configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CountersSource {
    /// `-f`.
    File(PathBuf),
    /// `--configmap-data`: the key `metrics` of a `ConfigMap`.
    ConfigMap {
        /// Address of the API server.
        address: Address,
        /// `metadata.namespace`.
        namespace: String,
        /// `metadata.name`.
        name: String,
    },
}

/// Why counters cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.problem())]
pub enum CountersSourceError {
    /// The file cannot be read.
    File {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        error: io::Error,
    },
    /// The file is larger than [`FILE_MAX`].
    TooLarge {
        /// Path of the file.
        path: PathBuf,
    },
    /// The API server does not return the `ConfigMap`.
    ConfigMap {
        /// `NAMESPACE:NAME`.
        name: String,
        /// Cause.
        fault: RequestError,
    },
    /// The `ConfigMap` has no key `metrics`.
    MissingKey {
        /// `NAMESPACE:NAME`.
        name: String,
    },
    /// The text is not a valid counters file.
    Invalid {
        /// Flag and location of the source.
        location: String,
        /// Errors by line.
        error: CountersError,
    },
}

impl CountersSourceError {
    /// Message and remedy.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::File { path, error } => Problem::new(
                format!("-f {}: the file cannot be read ({error})", path.display()),
                "check its path and permissions",
            ),
            Self::TooLarge { path } => Problem::new(
                format!("-f {}: the file is larger than {FILE_MAX} bytes", path.display()),
                "give a counters file, with one family per line",
            ),
            Self::ConfigMap { name, fault } => {
                fault.problem.clone().at(format!("--configmap-data {name}"))
            }
            Self::MissingKey { name } => Problem::new(
                format!("--configmap-data {name}: the key \"metrics\" is missing"),
                "add it with the counters",
            ),
            Self::Invalid { location, error } => error.problem().at(location),
        }
    }
}

/// Result of one reading of the source.
#[derive(Debug)]
pub enum CountersUpdate {
    /// The counters changed.
    Changed(Arc<Selection>),
    /// The counters are unchanged.
    Unchanged,
    /// The source cannot be read or parsed; the previous counters stay in effect.
    Failed,
}

/// Handle of the thread that watches a source.
pub struct CountersHandle {
    updates: Receiver<CountersUpdate>,
    reload: Sender<()>,
    /// A result is late after this time.
    late_after: Duration,
    /// The last result, and when it was received (monotonic).
    has_failed: bool,
    received_at: Duration,
    /// The warning about a late result was logged.
    is_late: bool,
}

/// The fields of a `ConfigMap` that are read.
#[derive(Deserialize)]
struct ConfigMap {
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
struct Data {
    metrics: Option<String>,
}

impl CountersSource {
    /// Reads and parses the source once; a file within [`policy::FILE_STARTUP_TIMEOUT`].
    ///
    /// # Errors
    /// The source cannot be read or is not a valid counters file.
    pub fn read(&self) -> Result<Counters, CountersSourceError> {
        let Self::File(path) = self else { return self.wait_and_read() };
        let source = self.clone();
        let read = move || source.wait_and_read();
        worker::call_in_time(policy::FILE_STARTUP_TIMEOUT, read).unwrap_or_else(|| {
            let error = io::Error::new(io::ErrorKind::TimedOut, "the file system does not respond");
            Err(CountersSourceError::File { path: path.clone(), error })
        })
    }

    /// Waits for the file system as long as it takes.
    fn wait_and_read(&self) -> Result<Counters, CountersSourceError> {
        self.parse(&self.text()?)
    }

    fn parse(&self, text: &[u8]) -> Result<Counters, CountersSourceError> {
        parse(text)
            .map_err(|error| CountersSourceError::Invalid { location: self.location(), error })
    }

    fn text(&self) -> Result<Vec<u8>, CountersSourceError> {
        match self {
            Self::File(path) => read_file(path),
            Self::ConfigMap { address, namespace, name } => {
                let full = format!("{namespace}:{name}");
                let failed = |fault| CountersSourceError::ConfigMap { name: full.clone(), fault };
                let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
                let bytes = fetch_object(address, &path).map_err(failed)?;
                let map: Result<ConfigMap, _> = serde_json::from_slice(&bytes);
                let metrics = map.ok().and_then(|map| map.data.metrics);
                let metrics = metrics.ok_or(CountersSourceError::MissingKey { name: full })?;
                Ok(metrics.into_bytes())
            }
        }
    }

    /// Waits until the API server of a simulated node serves: it starts with the library of the mock.
    pub fn wait_for_mock(&self) {
        let Self::ConfigMap { address: Address::Kubeconfig(file), .. } = self else { return };
        let (_never, pause) = mpsc::channel::<()>();
        let mut waited = Duration::ZERO;
        while !file.exists() && waited < policy::MOCK_STARTUP_TIMEOUT {
            let _ = pause.recv_timeout(policy::MOCK_STARTUP_POLL);
            waited += policy::MOCK_STARTUP_POLL;
        }
    }

    fn location(&self) -> String {
        match self {
            Self::File(path) => format!("-f {}", path.display()),
            Self::ConfigMap { namespace, name, .. } => {
                format!("--configmap-data {namespace}:{name}")
            }
        }
    }

    fn poll_interval(&self) -> Duration {
        match self {
            Self::File(_) => policy::COUNTERS_FILE_EVERY,
            Self::ConfigMap { .. } => policy::COUNTERS_CONFIG_MAP_EVERY,
        }
    }

    /// The records that were left out, each as a sentence with source and line.
    pub fn remarks(&self, counters: &Counters) -> impl Iterator<Item = String> {
        let location = self.location();
        counters.warnings.iter().map(move |remark| format!("{location}: {remark}"))
    }

    /// Logs the records that were left out.
    pub fn log_remarks(&self, counters: &Counters) {
        self.remarks(counters).for_each(|remark| tracing::warn!("{remark}"));
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, CountersSourceError> {
    let failed = |error| CountersSourceError::File { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_MAX) {
        return Err(CountersSourceError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

fn fetch_object(address: &Address, path: &str) -> Result<Vec<u8>, RequestError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| RequestError::new(FailureReason::Connection, error.to_string()))?;
    let object = runtime.block_on(async {
        let client = address.client().await?;
        let body = get(&client, path, policy::KUBE_TIMEOUT).await?;
        read_body(body, policy::KUBE_OBJECT_MAX, policy::KUBE_TIMEOUT).await
    });
    // A file that does not respond is left behind.
    runtime.shutdown_background();
    object
}

impl CountersHandle {
    /// Starts a thread that reads `source` periodically and on request; `known` is its content at `now`
    /// (monotonic).
    ///
    /// # Errors
    /// The thread cannot be created.
    pub fn start(
        source: CountersSource,
        known: Counters,
        frame: SelectionScope,
        now: Duration,
    ) -> io::Result<Self> {
        let (reload, reloads) = mpsc::channel();
        let (sender, updates) = mpsc::channel();
        let late_after = source.poll_interval() + policy::SOURCE_DOWN_AFTER;
        worker::spawn("counters".to_owned(), move || {
            let watcher = CountersWatcher { source, known, text: None, frame, failing: false };
            watcher.run(&reloads, &sender);
        })?;
        let (has_failed, is_late) = (false, false);
        Ok(Self { updates, reload, late_after, has_failed, received_at: now, is_late })
    }

    /// The results since the last call, at `now` (monotonic).
    pub fn updates(&mut self, now: Duration) -> Vec<CountersUpdate> {
        let updates: Vec<_> = self.updates.try_iter().collect();
        if let Some(last) = updates.last() {
            self.received_at = now;
            self.has_failed = matches!(last, CountersUpdate::Failed);
        }
        let is_late = self.age(now) > self.late_after;
        if is_late && !std::mem::replace(&mut self.is_late, is_late) {
            let seconds = self.age(now).as_secs();
            tracing::warn!(
                "the counters could not be read for {seconds} s; the previous counters stay in effect"
            );
        }
        self.is_late = is_late;
        updates
    }

    /// Whether the last result is in time and no failure.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.has_failed && !self.is_late
    }

    /// Time since the last result, at `now` (monotonic).
    #[must_use]
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.received_at)
    }

    /// Sender of reload requests: each message makes the thread read the source at once.
    #[must_use]
    pub fn reload(&self) -> Sender<()> {
        self.reload.clone()
    }
}

struct CountersWatcher {
    source: CountersSource,
    known: Counters,
    /// The text of `known`, once it was read by this thread.
    text: Option<Vec<u8>>,
    frame: SelectionScope,
    /// The last reading failed, so the failure is logged already.
    failing: bool,
}

impl CountersWatcher {
    fn run(mut self, reloads: &Receiver<()>, updates: &Sender<CountersUpdate>) {
        loop {
            match reloads.recv_timeout(self.source.poll_interval()) {
                Ok(()) => tracing::info!("{}: reloading", self.source.location()),
                Err(RecvTimeoutError::Timeout) => {}
                // The handle was dropped.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if updates.send(self.poll()).is_err() {
                return;
            }
        }
    }

    fn poll(&mut self) -> CountersUpdate {
        let text = match self.source.text() {
            Ok(text) if !self.failing && self.text.as_ref() == Some(&text) => {
                return CountersUpdate::Unchanged;
            }
            text => text,
        };
        let read = text.and_then(|text| Ok((self.source.parse(&text)?, text)));
        match read {
            Ok((counters, text)) => {
                self.text = Some(text);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("{}: readable again", self.source.location());
                }
                if counters == self.known {
                    return CountersUpdate::Unchanged;
                }
                self.source.log_remarks(&counters);
                tracing::info!(
                    families = counters.requests.len(),
                    "{}: changed; the new counters are in effect",
                    self.source.location()
                );
                let selection = Selection::of(&counters.requests, self.frame.clone());
                self.known = counters;
                CountersUpdate::Changed(Arc::new(selection))
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!("{error}; the previous counters stay in effect");
                }
                CountersUpdate::Failed
            }
        }
    }
}
