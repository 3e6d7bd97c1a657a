//! Whether this node has a certain label, through a watch of the node.
//!
//! NVIDIA's MIG manager says so what it is about to do: it sets `nvidia.com/mig.config.state` to
//! `pending` before it partitions the GPUs anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::api::{Address, Fault, NodeName, chunk, get};
use super::framing::{Frame, Lines};
use super::node::{self, News, Node};
use super::source::{Failure, Health};
use super::watch::Pace;
use crate::clock::Clock;
use crate::policy;

/// The name of this source in logs and labels.
pub const SOURCE: &str = "node_label";

/// What to do about a server that refuses.
const MEND: &str = "; let the service account watch nodes, or give --release-label=";

/// A label with the value that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// `KEY=VALUE`.
    pub text: Arc<str>,
    key: Box<str>,
    value: Box<str>,
}

impl Label {
    /// Reads `KEY=VALUE`; none if the text is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let (key, value) = text.split_once('=')?;
        let is_label = !key.is_empty() && key.chars().chain(value.chars()).all(legal);
        is_label.then(|| Self { text: text.into(), key: key.into(), value: value.into() })
    }
}

/// The last answer, and how the source fares.
#[derive(Clone, Debug)]
pub struct Taken {
    /// How the source fares.
    pub health: Health,
    set: bool,
}

impl Taken {
    /// Before anything was said.
    #[must_use]
    pub fn unknown() -> Self {
        Self { health: Health::new(SOURCE), set: false }
    }

    /// Whether the node has the label at `now` (monotonic). The last word is believed for
    /// [`policy::NODE_LABEL_MAX_AGE`].
    #[must_use]
    pub fn is_set(&self, now: Duration) -> bool {
        let recent = |age| age <= policy::NODE_LABEL_MAX_AGE;
        self.set && self.health.age(now).is_some_and(recent)
    }
}

/// What to watch, and how.
#[derive(Clone, Debug)]
pub struct NodeLabel {
    /// The API server.
    pub address: Address,
    /// The node that is watched.
    pub node: NodeName,
    /// The label that is looked for.
    pub label: Label,
    /// How long everything may take.
    pub pace: Pace,
    /// The clock that stamps what is seen.
    pub clock: Clock,
}

impl NodeLabel {
    /// Publishes what is known for as long as anybody listens.
    pub async fn run(self, publish: watch::Sender<Taken>) {
        tokio::select! {
            () = publish.closed() => {}
            () = self.watches(&publish) => {}
        }
    }

    async fn watches(&self, publish: &watch::Sender<Taken>) {
        sleep(self.pace.start_delay()).await;
        let mut failures = 0;
        loop {
            // The server ends every watch after a while, which is no failure.
            match self.once(publish).await {
                Ok(()) => failures = 1,
                Err(Fault { failure, detail, .. }) => {
                    failures += 1;
                    let mend = if failure == Failure::Denied { MEND } else { "" };
                    let detail = format!("{detail}{mend}");
                    publish.send_modify(|taken| taken.health.failed(failure, &detail));
                }
            }
            sleep(self.pace.backoff(failures)).await;
        }
    }

    /// One watch, which begins with the node as it is, to its end.
    async fn once(&self, publish: &watch::Sender<Taken>) -> Result<(), Fault> {
        let client = self.address.connect().await?;
        let (node, lifetime) = (self.node.as_str(), policy::WATCH_LIFETIME.as_secs());
        let path = format!(
            "/api/v1/nodes?fieldSelector=metadata.name%3D{node}&watch=true\
             &allowWatchBookmarks=true&timeoutSeconds={lifetime}"
        );
        let mut body = get(&client, &path, self.pace.answer).await?;
        let mut lines = Lines::new(policy::KUBE_OBJECT_MAX);
        while let Some(data) = chunk(&mut body, self.pace.idle).await? {
            for frame in lines.feed(&data) {
                let set = self.read(&frame)?;
                publish.send_modify(|taken| taken.set = set.unwrap_or(taken.set));
            }
            publish.send_modify(|taken| taken.health.answered(self.clock.now().mono));
        }
        Ok(())
    }

    /// Whether the node has the label, if the line tells.
    fn read(&self, frame: &Frame) -> Result<Option<bool>, Fault> {
        let labelled = |node: Node| {
            let value = node.labels.get(&*self.label.key);
            value.map(String::as_str) == Some(&*self.label.value)
        };
        Ok(match node::read(frame)? {
            News::Is(node) if node.name == self.node.as_str() => Some(labelled(node)),
            News::Gone(name) if name == self.node.as_str() => Some(false),
            News::Is(_) | News::Gone(_) | News::None => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_a_key_and_a_value() {
        let label = Label::parse("nvidia.com/mig.config.state=pending").unwrap();
        assert_eq!((&*label.key, &*label.value), ("nvidia.com/mig.config.state", "pending"));
        assert!(Label::parse("released=").is_some(), "labels may be empty");
        for text in ["", "pending", "=pending", "a=b c", "a=b=c"] {
            assert_eq!(Label::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_last_word_is_believed_for_a_while() {
        let mut taken = Taken { set: true, ..Taken::unknown() };
        assert!(!taken.is_set(Duration::ZERO), "nobody has said so");
        taken.health.answered(Duration::from_secs(1));
        let end = Duration::from_secs(1) + policy::NODE_LABEL_MAX_AGE;
        assert!(taken.is_set(end));
        assert!(!taken.is_set(end + Duration::from_secs(1)));
    }
}
