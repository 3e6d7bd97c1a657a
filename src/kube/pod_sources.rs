//! The sources of pods in their order: the kubelet's Pods API where it responds, otherwise the API
//! server or the kubelet's list.
//!
//! All of them update the same pods, so that a change of the source neither forgets a pod nor changes
//! what is known of it. The Pods API is used once a watch of it has all pods. If it fails, the pods are
//! kept while the kubelet may be restarting; then they are read from the other source, and the Pods API
//! is tried again meanwhile. With the Pods API alone, nothing else is read.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tracing::info;

use super::kubelet_pods::{self, KubeletPodPoller};
use super::node_name::NodeName;
use super::pod_feed::PodFeed;
use super::pods::PodSnapshot;
use super::pods_api::{self, PodsApi, PodsApiWatch};
use super::request_error::RequestError;
use super::source::HealthTracker;
use super::watch::{self as pod_watch, PodWatch};
use crate::clock::Clock;
use crate::policy;

/// A source of pods besides the Pods API.
#[derive(Clone, Debug)]
pub enum OtherPodSource {
    /// The API server.
    Api(PodWatch),
    /// The kubelet's list.
    Kubelet(KubeletPodPoller),
}

/// The sources of pods that are configured.
#[derive(Clone, Debug)]
pub struct PodSources {
    /// Name of this node; none if only the Pods API is configured and the name is unknown.
    pub node: Option<NodeName>,
    /// The first source.
    pub pods_api: Option<PodsApi>,
    /// The source while the first one does not respond.
    pub other: Option<OtherPodSource>,
    /// Clock for the timestamps.
    pub clock: Clock,
}

impl OtherPodSource {
    fn name(&self) -> &'static str {
        match self {
            Self::Api(_) => pod_watch::SOURCE,
            Self::Kubelet(_) => kubelet_pods::SOURCE,
        }
    }

    /// A restarted kubelet lists no pods at first, without a mark.
    fn keep_unlisted(&self) -> Duration {
        match self {
            Self::Api(_) => Duration::ZERO,
            Self::Kubelet(_) => policy::POD_UNLISTED_MAX,
        }
    }

    async fn follow(&self, feed: &mut PodFeed) {
        match self {
            Self::Api(watch) => watch.follow(feed).await,
            Self::Kubelet(poller) => poller.follow(feed).await,
        }
    }
}

impl PodSources {
    /// The name of the source that is tried first; none if there is no source.
    #[must_use]
    pub fn first(&self) -> Option<&'static str> {
        let other = self.other.as_ref().map(OtherPodSource::name);
        self.pods_api.as_ref().map(|_| pods_api::SOURCE).or(other)
    }

    /// Publishes the pods until all receivers are dropped, and notifies `changed` of every change.
    /// `standby` is the health of the Pods API while another source is in use.
    pub async fn run(
        self,
        publish: watch::Sender<PodSnapshot>,
        standby: watch::Sender<Option<HealthTracker>>,
        changed: Arc<Notify>,
    ) {
        let closed = publish.clone();
        let node = self.node.as_ref().map(NodeName::as_str).unwrap_or_default();
        let mut feed = PodFeed::new(node, self.clock, publish, changed);
        tokio::select! {
            () = closed.closed() => {}
            () = self.follow(&mut feed, &standby) => {}
        }
    }

    async fn follow(&self, feed: &mut PodFeed, standby: &watch::Sender<Option<HealthTracker>>) {
        match (&self.pods_api, &self.other) {
            (None, None) => {}
            (None, Some(other)) => {
                feed.set_source(HealthTracker::new(other.name()), other.keep_unlisted());
                other.follow(feed).await;
            }
            (Some(pods_api), None) => {
                feed.set_source(HealthTracker::new(pods_api::SOURCE), Duration::ZERO);
                let (mut failures, mut next) = (0, pods_api.connect().await);
                loop {
                    let watch = match next {
                        Ok(watch) => watch,
                        Err(error) => {
                            feed.fail(&error);
                            pods_api.reconnect(&mut failures, |error| feed.fail(error)).await
                        }
                    };
                    next = Err(pods_api.follow(watch, feed, &mut failures).await);
                }
            }
            (Some(pods_api), Some(other)) => {
                feed.set_source(HealthTracker::new(pods_api::SOURCE), Duration::ZERO);
                let health = HealthTracker::new(other.name());
                Alternation { pods_api, other, health, failures: 0, feed, standby }.follow().await;
            }
        }
    }
}

/// The Pods API, and the other source while it does not respond.
struct Alternation<'a> {
    pods_api: &'a PodsApi,
    other: &'a OtherPodSource,
    /// Health of the source that is not in use; that of the other is in `feed`.
    health: HealthTracker,
    /// Consecutive failures of the Pods API.
    failures: u32,
    feed: &'a mut PodFeed,
    standby: &'a watch::Sender<Option<HealthTracker>>,
}

impl Alternation<'_> {
    async fn follow(mut self) {
        let (pods_api, other) = (self.pods_api, self.other);
        let mut ready = match pods_api.connect_first().await {
            Ok(watch) => Some(watch),
            Err(error) => {
                let source = other.name();
                info!(source, "the pods are not read from the kubelet's Pods API now: {error}");
                None
            }
        };
        loop {
            let watch = match ready.take() {
                Some(watch) => watch,
                None => self.follow_other().await,
            };
            info!("the pods are read from the kubelet's Pods API");
            let error = pods_api.follow(watch, self.feed, &mut self.failures).await;
            self.feed.fail(&error);
            let reconnect = pods_api.reconnect(&mut self.failures, |error| self.feed.fail(error));
            ready = timeout(pods_api.intervals.grace, reconnect).await.ok();
        }
    }

    /// Reads the pods from the other source until a watch of the Pods API has all pods.
    async fn follow_other(&mut self) -> PodsApiWatch {
        let (pods_api, other, standby) = (self.pods_api, self.other, self.standby);
        self.exchange_health(other.keep_unlisted());
        info!(source = other.name(), "the pods are read from this source");
        let (health, feed) = (&mut self.health, &mut *self.feed);
        standby.send_replace(Some(health.clone()));
        feed.publish();
        let clock = feed.clock;
        let failed = |error: &RequestError| {
            // Most kubelets have no such service.
            if health.last_success.is_some() {
                health.record_failure(error.reason, &error.problem, clock.now().mono);
                standby.send_replace(Some(health.clone()));
            }
        };
        let watch = tokio::select! {
            watch = pods_api.reconnect(&mut self.failures, failed) => watch,
            // It never ends.
            () = other.follow(feed) => pods_api.reconnect(&mut 0, |_| ()).await,
        };
        standby.send_replace(None);
        self.exchange_health(Duration::ZERO);
        watch
    }

    fn exchange_health(&mut self, keep_unlisted: Duration) {
        self.health.restart();
        let next = self.health.clone();
        self.health = self.feed.set_source(next, keep_unlisted);
    }
}
