//! The pods of this node as the kubelet lists them, where the API server is not to be asked.
//!
//! The kubelet has no watch, so its whole list is read again and again. It shows static pods under
//! the UID that stands in their cgroups, and not their mirrors.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::api::{Address, Fault, NodeName, get};
use super::event::Follower;
use super::list;
use super::pods::{PodMap, Pods};
use super::watch::Pace;
use crate::clock::Clock;

/// The name of this source in logs and labels.
pub const SOURCE: &str = "kubelet_pods";

/// Which kubelet to ask, and how often.
#[derive(Clone, Debug)]
pub struct KubeletPods {
    /// The kubelet; usually [`Address::Kubelet`].
    pub address: Address,
    /// The node it runs.
    pub node: NodeName,
    /// From one list to the next, [`crate::policy::KUBELET_PODS_EVERY`] by default.
    pub every: Duration,
    /// How long everything may take.
    pub pace: Pace,
    /// The clock that stamps what is seen.
    pub clock: Clock,
}

impl KubeletPods {
    /// Publishes the pods for as long as anybody listens; `changed` is told of every change.
    pub async fn run(self, publish: watch::Sender<Pods>, changed: Arc<Notify>) {
        tokio::select! {
            () = publish.closed() => {}
            () = self.follow(&publish, &changed) => {}
        }
    }

    async fn follow(&self, publish: &watch::Sender<Pods>, changed: &Notify) {
        let mut follower = Follower::new(PodMap::of_kubelet(SOURCE, self.node.as_str()));
        let mut client = None;
        let mut failures = 0;
        loop {
            let answer = self.once(&mut client, &mut follower).await;
            let now = self.clock.now().mono;
            let pause = match answer {
                Ok(()) => {
                    failures = 0;
                    follower.map.health.answered(now);
                    self.every
                }
                Err(fault) => {
                    failures += 1;
                    follower.map.health.failed(fault.failure, &fault.detail);
                    self.pace.backoff(failures)
                }
            };
            publish.send_replace(follower.map.picture(now));
            if std::mem::take(&mut follower.changed) {
                changed.notify_one();
            }
            sleep(pause).await;
        }
    }

    /// One list. The client is kept for the next one only if it went well: a new one reads
    /// credentials again.
    async fn once(&self, kept: &mut Option<Client>, follower: &mut Follower) -> Result<(), Fault> {
        let client = match kept.take() {
            Some(client) => client,
            None => self.address.connect().await?,
        };
        let body = get(&client, "/pods", self.pace.answer).await?;
        list::read(follower, body, &self.pace, self.clock).await?;
        *kept = Some(client);
        Ok(())
    }
}
