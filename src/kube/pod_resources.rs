//! Polls the devices that the kubelet has allocated to containers, from its `PodResources` service.
//!
//! The service is local and does not depend on the API server. The kubelet limits the request rate
//! of all clients together, so the poller sends a request every few seconds, earlier when pods have
//! changed, and never per scrape. A restarted kubelet listens on a new socket.

pub mod kubelet;
pub mod messages;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use self::kubelet::KubeletClient;
use self::messages::{Allocatable, PodResourcesList};
use super::assignments::Assignments;
use super::request_error::RequestError;
use super::source::{FailureReason, HealthTracker};
use crate::clock::Clock;
use crate::model::Moment;
use crate::policy;

/// The name of this source in logs and labels.
pub const SOURCE: &str = "pod_resources";

/// State of this source: its last response and its health. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct PodResourcesState {
    /// Health of the source.
    pub health: HealthTracker,
    /// The last response, whatever its age; None before the first one.
    pub assignments: Option<Arc<Assignments>>,
}

impl PodResourcesState {
    /// The state before the first response.
    #[must_use]
    pub fn unknown() -> Self {
        Self { health: HealthTracker::new(SOURCE), assignments: None }
    }
}

/// Intervals and timeouts of the requests; the defaults are in [`policy`].
#[derive(Clone, Debug)]
pub struct PollTimings {
    /// Time between two List requests.
    pub interval: Duration,
    /// Minimum time between two List requests, when pods have changed.
    pub min_interval: Duration,
    /// Time between two `GetAllocatableResources` requests.
    pub allocatable_interval: Duration,
    /// Timeout of a complete response.
    pub response_timeout: Duration,
    /// First backoff after a failure; it doubles up to `interval`.
    pub backoff_min: Duration,
}

impl Default for PollTimings {
    fn default() -> Self {
        Self {
            interval: policy::POD_RESOURCES_EVERY,
            min_interval: policy::POD_RESOURCES_PAUSE,
            allocatable_interval: policy::ALLOCATABLE_EVERY,
            response_timeout: policy::POD_RESOURCES_TIMEOUT,
            backoff_min: policy::KUBE_BACKOFF_MIN,
        }
    }
}

/// Poller of the `PodResources` service.
#[derive(Clone, Debug)]
pub struct PodResourcesPoller {
    /// Socket of the kubelet. Mount its directory, because a mounted socket file is stale after a
    /// restart of the kubelet.
    pub socket: PathBuf,
    /// Intervals and timeouts.
    pub timings: PollTimings,
    /// Clock for the times of requests and responses.
    pub clock: Clock,
}

/// State between two requests.
struct PollSession {
    config: PodResourcesPoller,
    kubelet: Option<KubeletClient>,
    /// The allocatable devices, and when they were requested (monotonic).
    allocatable: Option<(Allocatable, Duration)>,
    state: PodResourcesState,
}

impl PodResourcesPoller {
    /// Publishes the assignments until `publish` has no receivers. `refresh` is notified when pods
    /// have changed.
    pub async fn run(self, publish: watch::Sender<PodResourcesState>, refresh: Arc<Notify>) {
        let closed = publish.clone();
        tokio::select! {
            () = closed.closed() => {}
            () = self.poll(&publish, &refresh) => {}
        }
    }

    async fn poll(self, publish: &watch::Sender<PodResourcesState>, refresh: &Notify) {
        let timings = self.timings.clone();
        let mut session = PollSession {
            config: self,
            kubelet: None,
            allocatable: None,
            state: PodResourcesState::unknown(),
        };
        let mut failures = 0;
        loop {
            let result = session.request().await;
            let failed = result.as_ref().err().map(|error| error.reason);
            session.record(result);
            publish.send_replace(session.state.clone());
            failures = if failed.is_none() { 0 } else { failures + 1 };
            match failed {
                None => {
                    sleep(timings.min_interval).await;
                    let remaining = timings.interval.saturating_sub(timings.min_interval);
                    // The next request is due whether or not the notification came first.
                    let _early = timeout(remaining, refresh.notified()).await;
                }
                // Checking for a socket is cheap, and there may be no kubelet at all: no backoff.
                Some(FailureReason::Absent) => sleep(timings.interval).await,
                Some(_) => {
                    let random = fastrand::f64();
                    let backoff_max = timings.interval.max(timings.backoff_min);
                    sleep(policy::jittered_backoff(
                        timings.backoff_min,
                        backoff_max,
                        failures,
                        random,
                    ))
                    .await;
                }
            }
        }
    }
}

impl PollSession {
    /// Sends the List request, and the one for the allocatable devices if it is due.
    async fn request(&mut self) -> Result<Assignments, RequestError> {
        let response_timeout = self.config.timings.response_timeout;
        let Moment { mono: requested_at, wall_us: requested_at_wall_us } = self.config.clock.now();
        // The connection is kept only after a success; after a failure a new one is opened.
        let mut kubelet = match self.kubelet.take() {
            Some(kubelet) if kubelet.is_current(&self.config.socket) => kubelet,
            Some(_) | None => {
                let kubelet = KubeletClient::connect(&self.config.socket, response_timeout).await?;
                // A restarted kubelet may have other device plugins.
                self.allocatable = None;
                kubelet
            }
        };
        let PodResourcesList { pods, ambiguous, containers } =
            kubelet.list(response_timeout).await?;
        let usable = self.refresh_allocatable(&mut kubelet, requested_at).await;
        self.kubelet = usable.then_some(kubelet);
        let allocatable = self.allocatable.as_ref().map(|(devices, _)| devices.clone());
        Ok(Assignments {
            pods,
            ambiguous,
            unconfirmed: BTreeSet::new(),
            unlisted: BTreeMap::new(),
            containers,
            allocatable: allocatable.unwrap_or_default(),
            requested_at,
            requested_at_wall_us,
        })
    }

    /// Requests the allocatable devices if they are due. Returns whether the connection is still
    /// usable. After a failure the last ones are kept for one more period; the assignments are not
    /// affected.
    async fn refresh_allocatable(&mut self, kubelet: &mut KubeletClient, now: Duration) -> bool {
        let PollTimings { allocatable_interval: period, response_timeout, .. } =
            self.config.timings;
        let age =
            self.allocatable.as_ref().map(|(_, requested_at)| now.saturating_sub(*requested_at));
        if age.is_some_and(|age| age < period) {
            return true;
        }
        match kubelet.allocatable(response_timeout).await {
            Ok(devices) => self.allocatable = Some((devices, now)),
            Err(error) => {
                self.state.health.count_failure(error.reason);
                if error.reason == FailureReason::Unsupported {
                    self.allocatable = Some((Allocatable::new(), now));
                } else if age.is_some_and(|age| age >= 2 * period) {
                    self.allocatable = None;
                }
                return !matches!(error.reason, FailureReason::Connection | FailureReason::Timeout);
            }
        }
        true
    }

    fn record(&mut self, result: Result<Assignments, RequestError>) {
        let now = self.config.clock.now().mono;
        match result {
            Ok(assignments) => {
                self.state.health.record_success(now);
                self.state.assignments = Some(Arc::new(assignments));
            }
            Err(error) => self.state.health.record_failure(error.reason, &error.problem, now),
        }
    }
}
