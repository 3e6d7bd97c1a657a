//! Follows a counters file or a `ConfigMap` on a thread of its own: no cycle waits for a file system
//! or an API server.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use tokio::runtime;

use super::{Counters, CountersError, FILE_MAX, parse};
use crate::kube::api::{Address, Fault, get, whole};
use crate::kube::source::Failure;
use crate::policy;
use crate::selection::{Frame, Selection};

/// Where counters are written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `-f`.
    File(PathBuf),
    /// `--configmap-data`: the key `metrics` of a `ConfigMap`.
    ConfigMap {
        /// The API server that has it.
        address: Address,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// Why there are no counters.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be read.
    #[error("-f {path}: {error}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The file is larger than any counters file.
    #[error("-f {path}: larger than {FILE_MAX} bytes; is this a counters file?", path = path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// The API server does not give it.
    #[error("--configmap-data {name}: {fault}")]
    ConfigMap {
        /// Which.
        name: String,
        /// What it said.
        fault: Fault,
    },
    /// It has no key `metrics`.
    #[error("--configmap-data {name}: it has no key \"metrics\"; put the counters there")]
    NoKey {
        /// Which.
        name: String,
    },
    /// It is read and is no counters file.
    #[error("{place}: {error}")]
    Broken {
        /// Which.
        place: String,
        /// What is wrong.
        error: CountersError,
    },
}

/// What a source was found to say.
#[derive(Debug)]
pub enum News {
    /// Other counters than before.
    Counters(Arc<Selection>),
    /// The same counters, and they can be read.
    Fine,
    /// They cannot be read; those before stay in force.
    Trouble,
}

/// Counters that are followed.
pub struct Followed {
    news: Receiver<News>,
    reload: Sender<()>,
}

/// What is read of a `ConfigMap`.
#[derive(Deserialize)]
struct ConfigMap {
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
struct Data {
    metrics: Option<String>,
}

impl Source {
    /// Reads it once.
    ///
    /// # Errors
    /// It cannot be read, or is no counters file.
    pub fn read(&self) -> Result<Counters, SourceError> {
        let text = self.text()?;
        parse(&text).map_err(|error| SourceError::Broken { place: self.place(), error })
    }

    fn text(&self) -> Result<Vec<u8>, SourceError> {
        match self {
            Self::File(path) => file(path),
            Self::ConfigMap { address, namespace, name } => {
                let full = format!("{namespace}:{name}");
                let failed = |fault| SourceError::ConfigMap { name: full.clone(), fault };
                let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
                let bytes = fetch(address, &path).map_err(failed)?;
                let map: Result<ConfigMap, _> = serde_json::from_slice(&bytes);
                let metrics = map.ok().and_then(|map| map.data.metrics);
                let metrics = metrics.ok_or(SourceError::NoKey { name: full })?;
                Ok(metrics.into_bytes())
            }
        }
    }

    fn place(&self) -> String {
        match self {
            Self::File(path) => format!("-f {}", path.display()),
            Self::ConfigMap { namespace, name, .. } => {
                format!("--configmap-data {namespace}:{name}")
            }
        }
    }

    fn look_every(&self) -> Duration {
        match self {
            Self::File(_) => policy::COUNTERS_FILE_EVERY,
            Self::ConfigMap { .. } => policy::COUNTERS_CONFIG_MAP_EVERY,
        }
    }

    /// Logs what it asks for in vain.
    pub fn log_remarks(&self, counters: &Counters) {
        for remark in &counters.remarks {
            tracing::warn!("{}: {remark}", self.place());
        }
    }
}

fn file(path: &Path) -> Result<Vec<u8>, SourceError> {
    let failed = |error| SourceError::File { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_MAX) {
        return Err(SourceError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

fn fetch(address: &Address, path: &str) -> Result<Vec<u8>, Fault> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Fault::new(Failure::Connection, error.to_string()))?;
    runtime.block_on(async {
        let client = address.connect().await?;
        let body = get(&client, path, policy::KUBE_ANSWER).await?;
        whole(body, policy::KUBE_OBJECT_MAX, policy::KUBE_ANSWER).await
    })
}

impl Followed {
    /// Looks at `source` now and then, and at once when told to, from when it said `known`.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(source: Source, known: Counters, frame: Frame) -> io::Result<Self> {
        let (reload, asked) = mpsc::channel();
        let (tell, news) = mpsc::channel();
        thread::Builder::new().name("counters".to_owned()).spawn(move || {
            Follower { source, known, frame, in_trouble: false }.follow(&asked, &tell);
        })?;
        Ok(Self { news, reload })
    }

    /// What has been found since the last time.
    pub fn news(&self) -> impl Iterator<Item = News> + '_ {
        self.news.try_iter()
    }

    /// Has the source looked at again at once, by sending on what is returned.
    #[must_use]
    pub fn reload(&self) -> Sender<()> {
        self.reload.clone()
    }
}

struct Follower {
    source: Source,
    known: Counters,
    frame: Frame,
    in_trouble: bool,
}

impl Follower {
    fn follow(mut self, asked: &Receiver<()>, tell: &Sender<News>) {
        loop {
            match asked.recv_timeout(self.source.look_every()) {
                Ok(()) => tracing::info!("{}: reading it again", self.source.place()),
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody is left to tell.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if tell.send(self.look()).is_err() {
                return;
            }
        }
    }

    fn look(&mut self) -> News {
        match self.source.read() {
            Ok(counters) => {
                if std::mem::take(&mut self.in_trouble) {
                    tracing::info!("{}: can be read again", self.source.place());
                }
                if counters == self.known {
                    return News::Fine;
                }
                self.source.log_remarks(&counters);
                tracing::info!(
                    families = counters.requests.len(),
                    "{}: has changed and is in force",
                    self.source.place()
                );
                let selection = Selection::of(&counters.requests, self.frame.clone());
                self.known = counters;
                News::Counters(Arc::new(selection))
            }
            Err(error) => {
                if !std::mem::replace(&mut self.in_trouble, true) {
                    tracing::warn!("{error}; the counters before stay in force");
                }
                News::Trouble
            }
        }
    }
}
