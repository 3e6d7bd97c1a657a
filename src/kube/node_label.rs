//! Watches the labels of the node: for one label with one value, and for its sharing strategy.
//!
//! The server sends the metadata of the node only, without its status, and from its cache.
//!
//! NVIDIA's MIG manager sets `nvidia.com/mig.config.state` to `pending` before it changes the MIG
//! configuration.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::address::Address;
use super::api::{get_metadata, next_chunk};
use super::json_stream::{JsonFrame, LineReader};
use super::node_event::{self, Node, NodeEvent};
use super::node_name::NodeName;
use super::request_error::RequestError;
use super::sharing::SharingStrategy;
use super::source::{FailureReason, HealthTracker, SourceState};
use super::watch_timings::WatchTimings;
use crate::clock::Clock;
use crate::policy;

/// The name of this source in logs and labels.
pub const SOURCE: &str = "node_label";

/// Remedy if the API server denies the watch.
const REMEDY: &str = "grant watch on nodes to the service account, or pass --release-label=";

/// A label key and the value to watch for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRequirement {
    /// `KEY=VALUE`.
    pub text: Arc<str>,
    key: Box<str>,
    value: Box<str>,
}

impl LabelRequirement {
    /// Parses `KEY=VALUE`; none if the text has another format.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_valid = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let (key, value) = text.split_once('=')?;
        let is_label = !key.is_empty() && key.chars().chain(value.chars()).all(is_valid);
        is_label.then(|| Self { text: text.into(), key: key.into(), value: value.into() })
    }
}

/// State of this source.
#[derive(Clone, Debug)]
pub struct NodeLabelState {
    /// Whether the source is up, and its failures.
    pub health: HealthTracker,
    /// How the GPUs are shared, according to the last labels of the node. They hardly change, and are
    /// valid while the source is down.
    pub sharing: Option<SharingStrategy>,
    set: bool,
}

impl NodeLabelState {
    /// The state before the first response.
    #[must_use]
    pub fn unknown() -> Self {
        Self { health: HealthTracker::new(SOURCE), sharing: None, set: false }
    }

    /// Whether the node has the label at `now` (monotonic). The last state is valid for
    /// [`policy::NODE_LABEL_MAX_AGE`].
    #[must_use]
    pub fn is_set(&self, now: Duration) -> bool {
        let recent = |age| age <= policy::NODE_LABEL_MAX_AGE;
        self.set && self.health.age(now).is_some_and(recent)
    }
}

/// Configuration of the watch.
#[derive(Clone, Debug)]
pub struct NodeLabelWatch {
    /// Address of the API server.
    pub address: Address,
    /// Name of this node.
    pub node: NodeName,
    /// The label to watch for.
    pub label: LabelRequirement,
    /// Timeouts and retry delays.
    pub timings: WatchTimings,
    /// Clock for the timestamps.
    pub clock: Clock,
}

impl NodeLabelWatch {
    /// Publishes the state until all receivers are dropped.
    pub async fn run(self, publish: watch::Sender<NodeLabelState>) {
        tokio::select! {
            () = publish.closed() => {}
            () = self.watch_repeatedly(&publish) => {}
        }
    }

    async fn watch_repeatedly(&self, publish: &watch::Sender<NodeLabelState>) {
        let mut failures = 0;
        loop {
            let mut broken = false;
            // The server ends every watch after its timeout; this is not a failure.
            match self.watch_once(publish).await {
                Ok(()) => failures = 1,
                Err(RequestError { reason: failure, mut problem, .. }) => {
                    failures += 1;
                    let was_up = publish.borrow().health.state == SourceState::Up;
                    broken = was_up && failure == FailureReason::Connection;
                    if failure == FailureReason::Denied {
                        problem.remedy = Some(REMEDY.to_owned());
                    }
                    let now = self.clock.now().mono;
                    publish.send_modify(|state| {
                        state.health.record_failure(failure, &problem, now);
                    });
                }
            }
            sleep(self.timings.reconnect_delay(failures, broken)).await;
        }
    }

    /// One watch until its end. It begins with the present state of the node.
    async fn watch_once(
        &self,
        publish: &watch::Sender<NodeLabelState>,
    ) -> Result<(), RequestError> {
        let client = self.address.client().await?;
        let node = self.node.as_str();
        let lifetime = policy::watch_lifetime(fastrand::f64()).as_secs();
        let path = format!(
            "/api/v1/nodes?fieldSelector=metadata.name%3D{node}&watch=true\
             &allowWatchBookmarks=true&timeoutSeconds={lifetime}&resourceVersion=0"
        );
        let mut body = get_metadata(&client, &path, self.timings.response_timeout).await?;
        let mut lines = LineReader::new(policy::KUBE_OBJECT_MAX);
        while let Some(data) = next_chunk(&mut body, self.timings.idle_timeout).await? {
            for frame in lines.feed(&data) {
                if let Some((set, sharing)) = self.read(&frame)? {
                    publish.send_modify(|state| (state.set, state.sharing) = (set, sharing));
                }
            }
            publish.send_modify(|state| state.health.record_success(self.clock.now().mono));
        }
        Ok(())
    }

    /// Whether the node has the label, and its sharing strategy; none if the event is not about this
    /// node.
    fn read(
        &self,
        frame: &JsonFrame,
    ) -> Result<Option<(bool, Option<SharingStrategy>)>, RequestError> {
        let read = |node: &Node| {
            let value = node.labels.get(&*self.label.key).map(String::as_str);
            (value == Some(&*self.label.value), SharingStrategy::from_labels(&node.labels))
        };
        Ok(match node_event::parse(frame)? {
            NodeEvent::Applied(node) if node.name == self.node.as_str() => Some(read(&node)),
            NodeEvent::Deleted(name) if name == self.node.as_str() => Some((false, None)),
            NodeEvent::Applied(_) | NodeEvent::Deleted(_) | NodeEvent::Other => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_has_a_key_and_a_value() {
        let label = LabelRequirement::parse("nvidia.com/mig.config.state=pending").unwrap();
        assert_eq!((&*label.key, &*label.value), ("nvidia.com/mig.config.state", "pending"));
        assert!(LabelRequirement::parse("released=").is_some(), "the value may be empty");
        for text in ["", "pending", "=pending", "a=b c", "a=b=c"] {
            assert_eq!(LabelRequirement::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn last_state_expires() {
        let mut state = NodeLabelState { set: true, ..NodeLabelState::unknown() };
        assert!(!state.is_set(Duration::ZERO), "no response yet");
        state.health.record_success(Duration::from_secs(1));
        let end = Duration::from_secs(1) + policy::NODE_LABEL_MAX_AGE;
        assert!(state.is_set(end));
        assert!(!state.is_set(end + Duration::from_secs(1)));
    }
}
