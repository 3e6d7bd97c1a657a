//! Watches the pods of this node through the API server.
//!
//! A streaming list sends all pods and a bookmark at their end. If it fails, for whatever reason, the
//! server gets a list request, served from its cache, and a watch from its `resourceVersion`; from then
//! on only list requests. Servers reject streaming lists (up to 1.31, and 1.33), do not mark their end
//! (before 1.27), or end them with an error (on an etcd that does not report progress). An interrupted
//! watch continues from the last `resourceVersion`. If that version has expired or is not accepted, or
//! an event was malformed, all pods are read again; pods are removed only at the end of the new list.

use kube::Client;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::address::Address;
use super::api::{get, next_chunk};
use super::json_stream::LineReader;
use super::node_name::NodeName;
use super::pod_feed::PodFeed;
use super::pod_list;
use super::request_error::RequestError;
use super::source::FailureReason;
use super::watch_timings::WatchTimings;
use crate::policy;

/// The name of this source in logs and labels.
pub const SOURCE: &str = "api";

/// Configuration of the watch.
#[derive(Clone, Debug)]
pub struct PodWatch {
    /// Address of the API server.
    pub address: Address,
    /// Name of this node.
    pub node: NodeName,
    /// Timeouts and retry delays.
    pub timings: WatchTimings,
}

/// How all pods are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListMethod {
    Streaming,
    List,
}

struct WatchSession<'a> {
    watch: &'a PodWatch,
    feed: &'a mut PodFeed,
    method: ListMethod,
    /// The present watch has begun: its response has status 200.
    begun: bool,
    /// The present watch has received events.
    received: bool,
}

impl PodWatch {
    /// Reads the pods into `feed`, for ever.
    pub async fn follow(&self, feed: &mut PodFeed) {
        let mut failures = 0;
        let mut session = WatchSession {
            watch: self,
            feed,
            method: ListMethod::Streaming,
            begun: false,
            received: false,
        };
        loop {
            (session.begun, session.received) = (false, false);
            let result = session.watch_once().await;
            // The delay grows while a server sends no events or malformed ones.
            let malformed =
                result.as_ref().is_err_and(|fault| fault.reason == FailureReason::Garbage);
            failures = if session.received && !malformed { 1 } else { failures + 1 };
            // All watches of a server that goes away break at once; it ends none of them then.
            let broken = session.begun
                && result.as_ref().is_err_and(|fault| fault.reason == FailureReason::Connection);
            // The server ends every watch after its timeout; this is not a failure.
            if let Err(fault) = result {
                session.fail(&fault);
            }
            sleep(self.timings.reconnect_delay(failures, broken)).await;
        }
    }

    fn list_path(&self, query: &str) -> String {
        let node = self.node.as_str();
        format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}{query}")
    }

    fn watch_path(&self, query: &str) -> String {
        let lifetime = policy::watch_lifetime(fastrand::f64()).as_secs();
        self.list_path(&format!(
            "&watch=true&allowWatchBookmarks=true&timeoutSeconds={lifetime}{query}"
        ))
    }
}

impl WatchSession<'_> {
    /// One watch until its end, with a list before it if there is no `resourceVersion`.
    async fn watch_once(&mut self) -> Result<(), RequestError> {
        let client = self.watch.address.client().await?;
        if self.feed.state.resource_version.is_none() {
            if self.method == ListMethod::Streaming {
                match self.stream(&client).await {
                    Err(fault) if self.is_list_due(&fault) => self.use_lists(&fault),
                    result => return result,
                }
            }
            self.list(&client).await?;
        }
        self.resume(&client).await
    }

    async fn stream(&mut self, client: &Client) -> Result<(), RequestError> {
        let query = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0";
        let path = self.watch.watch_path(query);
        let body = get(client, &path, self.watch.timings.response_timeout).await?;
        self.begun = true;
        self.feed.state.begin_initial_events();
        self.read_events(body).await
    }

    /// Whether a list follows after the streaming list failed with `fault`: the server has responded,
    /// and a list may succeed.
    fn is_list_due(&self, fault: &RequestError) -> bool {
        let refused = [FailureReason::Denied, FailureReason::Throttled].contains(&fault.reason);
        if self.begun {
            self.feed.state.in_initial_events
        } else {
            fault.status.is_some() && !refused
        }
    }

    fn use_lists(&mut self, fault: &RequestError) {
        info!(source = SOURCE, "the pods are listed, because the streaming list failed: {fault}");
        self.method = ListMethod::List;
        (self.begun, self.received) = (false, false);
        self.feed.state.store.health.count_failure(FailureReason::Unsupported);
    }

    async fn list(&mut self, client: &Client) -> Result<(), RequestError> {
        let timings = &self.watch.timings;
        let path = self.watch.list_path("&resourceVersion=0");
        let body = get(client, &path, timings.response_timeout).await?;
        pod_list::read(&mut self.feed.state, body, timings, self.feed.clock).await?;
        self.record_response();
        if self.feed.state.resource_version.is_none() {
            return Err(RequestError::new(
                FailureReason::Garbage,
                "the pod list has no resourceVersion",
            ));
        }
        Ok(())
    }

    async fn resume(&mut self, client: &Client) -> Result<(), RequestError> {
        let version = self.feed.state.resource_version.clone().unwrap_or_default();
        let path = self.watch.watch_path(&format!("&resourceVersion={version}"));
        let body = get(client, &path, self.watch.timings.response_timeout).await?;
        self.begun = true;
        self.feed.state.in_initial_events = false;
        // Without changes the first event may be a bookmark after a minute.
        self.record_response();
        self.read_events(body).await
    }

    async fn read_events(&mut self, mut body: kube::client::Body) -> Result<(), RequestError> {
        let timings = &self.watch.timings;
        let initial_end = Instant::now() + timings.list_timeout;
        let mut lines = LineReader::new(policy::KUBE_OBJECT_MAX);
        loop {
            let timeout = if self.feed.state.in_initial_events {
                initial_end.saturating_duration_since(Instant::now()).min(timings.idle_timeout)
            } else {
                timings.idle_timeout
            };
            let data = match next_chunk(&mut body, timeout).await {
                Err(fault)
                    if fault.reason == FailureReason::Timeout
                        && self.feed.state.in_initial_events =>
                {
                    let seconds = timings.list_timeout.as_secs_f64();
                    let detail = format!("the initial events have no end within {seconds} s");
                    return Err(RequestError::new(FailureReason::Unsupported, detail));
                }
                data => data?,
            };
            let Some(data) = data else { break };
            let now = self.feed.now();
            for frame in lines.feed(&data) {
                self.feed.state.apply_event(&frame, now)?;
            }
            self.received = true;
            self.record_response();
        }
        if self.feed.state.in_initial_events {
            let detail = "the connection ended before the end of the initial events";
            return Err(RequestError::new(FailureReason::Connection, detail));
        }
        Ok(())
    }

    /// Records a response and publishes the pods. An incomplete initial list is not published.
    fn record_response(&mut self) {
        self.feed.record_success();
        if !self.feed.state.in_initial_events {
            self.feed.publish();
        }
    }

    fn fail(&mut self, fault: &RequestError) {
        let RequestError { reason: failure, status, problem } = fault;
        let now = self.feed.now();
        let health = &mut self.feed.state.store.health;
        if *failure == FailureReason::Expired {
            // This is not a failure of the server: a new list is required.
            health.count_failure(FailureReason::Expired);
        } else {
            health.record_failure(*failure, problem, now);
        }
        // The version has expired, is invalid, or is newer than the server's (a restored backup); or the
        // watch from it ends with an error at once, and would do so again.
        let is_refused = self.begun && !self.received && status.is_some();
        if *failure == FailureReason::Expired || matches!(status, Some(400 | 504)) || is_refused {
            self.feed.state.resource_version = None;
        }
        self.feed.publish();
    }
}
