//! The pods of this node from the kubelet (`/pods`), as an alternative to the API server.
//!
//! The kubelet has no watch, so its complete list is polled. It contains static pods with the UID of
//! their cgroups, and no mirror pods.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::api::get;
use super::endpoint::Endpoint;
use super::node_name::NodeName;
use super::pod_list;
use super::pods::PodSnapshot;
use super::pods::store::PodStore;
use super::request_error::RequestError;
use super::watch_event::PodWatchState;
use super::watch_timings::WatchTimings;
use crate::clock::Clock;

/// The name of this source in logs and labels.
pub const SOURCE: &str = "kubelet_pods";

/// Configuration of the poll.
#[derive(Clone, Debug)]
pub struct KubeletPodPoller {
    /// The kubelet's authenticated port.
    pub kubelet: Endpoint,
    /// Name of this node.
    pub node: NodeName,
    /// Poll interval, [`crate::policy::KUBELET_PODS_EVERY`] by default.
    pub interval: Duration,
    /// Timeouts and retry delays.
    pub timings: WatchTimings,
    /// Clock for the timestamps.
    pub clock: Clock,
}

impl KubeletPodPoller {
    /// Publishes the pods until all receivers are dropped, and notifies `changed` of every change.
    pub async fn run(self, publish: watch::Sender<PodSnapshot>, changed: Arc<Notify>) {
        tokio::select! {
            () = publish.closed() => {}
            () = self.poll(&publish, &changed) => {}
        }
    }

    async fn poll(&self, publish: &watch::Sender<PodSnapshot>, changed: &Notify) {
        let mut state = PodWatchState::new(PodStore::of_kubelet(SOURCE, self.node.as_str()));
        let mut client = None;
        let mut failures = 0;
        loop {
            let result = self.read_list(&mut client, &mut state).await;
            let now = self.clock.now().mono;
            let pause = match result {
                Ok(()) => {
                    failures = 0;
                    state.store.health.record_success(now);
                    self.interval
                }
                Err(fault) => {
                    failures += 1;
                    state.store.health.record_failure(fault.reason, &fault.problem, now);
                    self.timings.backoff(failures)
                }
            };
            publish.send_replace(state.store.snapshot(now));
            if std::mem::take(&mut state.changed) {
                changed.notify_one();
            }
            sleep(pause).await;
        }
    }

    /// Reads one list. The client is reused after a success only: a new one reads the credentials
    /// again.
    async fn read_list(
        &self,
        cached: &mut Option<Client>,
        state: &mut PodWatchState,
    ) -> Result<(), RequestError> {
        let client = match cached.take() {
            Some(client) => client,
            None => self.kubelet.client()?,
        };
        let body = get(&client, "/pods", self.timings.response_timeout).await?;
        pod_list::read(state, body, &self.timings, self.clock).await?;
        *cached = Some(client);
        Ok(())
    }
}
