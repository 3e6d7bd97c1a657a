//! The pods of this node through the API server.
//!
//! A streaming watch tells all pods and marks the end of that. Servers that refuse it (up to 1.31,
//! and 1.33), or do not know it (before 1.27), are asked for a list out of their cache and for a
//! watch from its version. A broken watch goes on from the last version; only when that history is
//! gone, or a line was garbage, is everything told again, and nobody is forgotten before the end.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use super::api::{Address, Fault, NodeName, chunk, get};
use super::event::Follower;
use super::framing::Lines;
use super::list;
use super::pods::{PodMap, Pods};
use super::source::Failure;
use crate::clock::Clock;
use crate::policy;

/// The durations of a watch; by default those of [`policy`].
#[derive(Clone, Debug)]
pub struct Pace {
    /// The start is put off by a random part of this.
    pub start: Duration,
    /// First pause after a failure.
    pub backoff_min: Duration,
    /// Longest pause after failures.
    pub backoff_max: Duration,
    /// An answer begins within this.
    pub answer: Duration,
    /// A stream that is silent for this long is dead.
    pub idle: Duration,
    /// Initial events have ended within this.
    pub initial: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            start: policy::KUBE_START_JITTER,
            backoff_min: policy::KUBE_BACKOFF_MIN,
            backoff_max: policy::KUBE_BACKOFF_MAX,
            answer: policy::KUBE_ANSWER,
            idle: policy::WATCH_IDLE,
            initial: policy::WATCH_INITIAL_EVENTS,
        }
    }
}

impl Pace {
    /// The pause after the `failures`th failure in a row.
    #[must_use]
    pub fn backoff(&self, failures: u32) -> Duration {
        policy::jittered_backoff(self.backoff_min, self.backoff_max, failures, fastrand::f64())
    }

    /// A random part of the start's delay.
    #[must_use]
    pub fn start_delay(&self) -> Duration {
        self.start.mul_f64(fastrand::f64())
    }
}

/// The name of this source in logs and labels.
pub const SOURCE: &str = "api";

/// What to watch, and how.
#[derive(Clone, Debug)]
pub struct PodWatch {
    /// The API server.
    pub address: Address,
    /// The node whose pods are watched.
    pub node: NodeName,
    /// How long everything may take.
    pub pace: Pace,
    /// The clock that stamps what is seen.
    pub clock: Clock,
}

/// How everything is told anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Streaming,
    List,
}

struct Session<'a> {
    watch: &'a PodWatch,
    follower: Follower,
    method: Method,
    /// The present connection has told something.
    told: bool,
    publish: watch::Sender<Pods>,
    changed: Arc<Notify>,
}

impl PodWatch {
    /// Publishes the pods for as long as anybody listens; `changed` is told of every change.
    pub async fn run(self, publish: watch::Sender<Pods>, changed: Arc<Notify>) {
        let closed = publish.clone();
        tokio::select! {
            () = closed.closed() => {}
            () = self.sessions(publish, changed) => {}
        }
    }

    async fn sessions(&self, publish: watch::Sender<Pods>, changed: Arc<Notify>) {
        sleep(self.pace.start_delay()).await;
        let mut failures = 0;
        let map = PodMap::new(SOURCE, self.node.as_str());
        let mut session = Session {
            watch: self,
            follower: Follower::new(map),
            method: Method::Streaming,
            told: false,
            publish,
            changed,
        };
        loop {
            session.told = false;
            let end = session.once().await;
            // Whoever tells nothing, or rubbish, is asked less and less often.
            let rubbish = end.as_ref().is_err_and(|fault| fault.failure == Failure::Garbage);
            failures = if session.told && !rubbish { 1 } else { failures + 1 };
            // The server ends every watch after a while, which is no failure.
            if let Err(fault) = end {
                session.fail(&fault);
            }
            sleep(self.pace.backoff(failures)).await;
        }
    }

    fn pods(&self, query: &str) -> String {
        let node = self.node.as_str();
        format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}{query}")
    }

    fn watch_query(&self, query: &str) -> String {
        let lifetime = policy::WATCH_LIFETIME.as_secs();
        self.pods(&format!("&watch=true&allowWatchBookmarks=true&timeoutSeconds={lifetime}{query}"))
    }
}

impl Session<'_> {
    /// One connection, to its end.
    async fn once(&mut self) -> Result<(), Fault> {
        let client = self.watch.address.connect().await?;
        if self.follower.version.is_none() {
            match self.method {
                Method::Streaming => match self.stream(&client).await {
                    Err(fault) if not_here(&fault) => {
                        self.method = Method::List;
                        self.follower.map.health.count(Failure::Unsupported);
                    }
                    end => return end,
                },
                Method::List => {}
            }
            self.list(&client).await?;
        }
        self.go_on(&client).await
    }

    async fn stream(&mut self, client: &Client) -> Result<(), Fault> {
        let query = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0";
        let path = self.watch.watch_query(query);
        let body = get(client, &path, self.watch.pace.answer).await?;
        self.follower.begin_initial();
        self.follow(body).await
    }

    async fn list(&mut self, client: &Client) -> Result<(), Fault> {
        let pace = &self.watch.pace;
        let body = get(client, &self.watch.pods("&resourceVersion=0"), pace.answer).await?;
        list::read(&mut self.follower, body, pace, self.watch.clock).await?;
        self.spoke();
        if self.follower.version.is_none() {
            return Err(Fault::new(Failure::Garbage, "a list without a version"));
        }
        Ok(())
    }

    async fn go_on(&mut self, client: &Client) -> Result<(), Fault> {
        let version = self.follower.version.clone().unwrap_or_default();
        let path = self.watch.watch_query(&format!("&resourceVersion={version}"));
        let body = get(client, &path, self.watch.pace.answer).await?;
        self.follower.initial = false;
        // Where nothing changes, the first word may be a bookmark in a minute.
        self.spoke();
        self.follow(body).await
    }

    async fn follow(&mut self, mut body: kube::client::Body) -> Result<(), Fault> {
        let pace = &self.watch.pace;
        let initial_end = Instant::now() + pace.initial;
        let mut lines = Lines::new(policy::KUBE_OBJECT_MAX);
        loop {
            let patience = if self.follower.initial {
                initial_end.saturating_duration_since(Instant::now()).min(pace.idle)
            } else {
                pace.idle
            };
            let data = match chunk(&mut body, patience).await {
                Err(fault) if fault.failure == Failure::Timeout && self.follower.initial => {
                    let detail = "initial events without an end";
                    return Err(Fault::new(Failure::Unsupported, detail));
                }
                data => data?,
            };
            let Some(data) = data else { break };
            let now = self.watch.clock.now().mono;
            for frame in lines.feed(&data) {
                self.follower.line(&frame, now)?;
            }
            self.told = true;
            self.spoke();
        }
        if self.follower.initial {
            return Err(Fault::new(Failure::Connection, "the initial events broke off"));
        }
        Ok(())
    }

    /// The server said something. Whoever listens may know, but a list they get as a whole.
    fn spoke(&mut self) {
        self.follower.map.health.answered(self.watch.clock.now().mono);
        if !self.follower.initial {
            self.publish();
        }
    }

    fn fail(&mut self, fault: &Fault) {
        let Fault { failure, status, detail } = fault;
        let health = &mut self.follower.map.health;
        if *failure == Failure::Expired {
            // Nothing is wrong with the server, it only asks for a new start.
            health.count(Failure::Expired);
        } else {
            health.failed(*failure, detail);
        }
        // A version that the server does not know, or that is ahead of it (a restored backup).
        if *failure == Failure::Expired || matches!(status, Some(400 | 504)) {
            self.follower.version = None;
        }
        self.publish();
    }

    fn publish(&mut self) {
        let now = self.watch.clock.now().mono;
        self.publish.send_replace(self.follower.map.picture(now));
        if std::mem::take(&mut self.follower.changed) {
            self.changed.notify_one();
        }
    }
}

/// Whether the server has no streaming list, rather than a fault of another kind.
fn not_here(fault: &Fault) -> bool {
    match fault.status {
        Some(status) => matches!(status, 400 | 404 | 405 | 406 | 415 | 422),
        None => fault.failure == Failure::Unsupported,
    }
}
