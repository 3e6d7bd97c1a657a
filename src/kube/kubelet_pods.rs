//! The pods of this node from the kubelet (`/pods`), as an alternative to the API server.
//!
//! The kubelet has no watch, so its complete list is polled. It contains static pods with the UID of
//! their cgroups, and no mirror pods.

use std::time::Duration;

use kube::Client;
use tokio::time::sleep;

use super::address::Address;
use super::api::get;
use super::endpoint::Endpoint;
use super::pod_feed::PodFeed;
use super::pod_list;
use super::request_error::RequestError;
use super::watch_timings::WatchTimings;
use crate::policy;

/// The name of this source in logs and labels.
pub const SOURCE: &str = "kubelet_pods";

/// Configuration of the poll.
#[derive(Clone, Debug)]
pub struct KubeletPodPoller {
    /// The kubelet's authenticated port.
    pub kubelet: Endpoint,
    /// Poll interval, [`crate::policy::KUBELET_PODS_EVERY`] by default.
    pub interval: Duration,
    /// Timeouts and retry delays.
    pub timings: WatchTimings,
}

impl KubeletPodPoller {
    /// Reads the pods into `feed`, for ever.
    pub async fn follow(&self, feed: &mut PodFeed) {
        let mut client = None;
        let mut failures = 0;
        loop {
            let pause = match self.read_list(&mut client, feed).await {
                Ok(()) => {
                    failures = 0;
                    feed.record_success();
                    feed.publish();
                    self.interval
                }
                Err(error) => {
                    failures += 1;
                    feed.fail(&error);
                    self.timings.backoff(failures)
                }
            };
            sleep(pause).await;
        }
    }

    /// Reads one list. The client is reused after a success, and for a while: a new one reads the
    /// credentials again.
    async fn read_list(
        &self,
        cached: &mut Option<(Client, Duration)>,
        feed: &mut PodFeed,
    ) -> Result<(), RequestError> {
        let now = feed.clock.now().mono;
        let is_new = |(_, since): &(Client, Duration)| {
            now.saturating_sub(*since) < policy::CREDENTIALS_MAX_AGE
        };
        let (client, since) = match cached.take().filter(is_new) {
            Some(cached) => cached,
            None => (Address::Kubelet(self.kubelet.clone()).client().await?, now),
        };
        let body = get(&client, "/pods", self.timings.response_timeout).await?;
        pod_list::read(&mut feed.state, body, &self.timings, feed.clock).await?;
        *cached = Some((client, since));
        Ok(())
    }
}
