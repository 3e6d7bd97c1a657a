//! The resource claims of the pods on this node (`ResourceClaim`).
//!
//! The kubelet reports which devices a claim has, but not how: the size of a share, the limits of
//! MPS and whether it is an administrative access are in the claim. A claim does not change while a
//! pod uses it, so it is read once for the pods that use it, and not watched.

pub mod claim;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::client::Client;
use tokio::sync::watch;
use tokio::time::timeout;

use self::claim::AllocatedClaim;
use self::table::{ClaimName, ClaimRequest, ClaimTable};
use super::address::Address;
use super::api::{get, read_body};
use super::assignments::is_dns_name;
use super::request_error::RequestError;
use super::resource_slices::API_VERSIONS;
use super::source::{FailureReason, HealthTracker};
use super::watch_timings::WatchTimings;
use crate::clock::Clock;
use crate::policy;

/// The name of this source in logs and labels.
pub const SOURCE: &str = "resource_claims";

/// State of this source. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct ResourceClaimsState {
    /// Whether the source is up, and its failures.
    pub health: HealthTracker,
    /// The claims that were read.
    pub claims: Arc<ClaimTable>,
}

impl ResourceClaimsState {
    /// The state before the first request.
    #[must_use]
    pub fn unknown() -> Self {
        Self { health: HealthTracker::new(SOURCE), claims: Arc::default() }
    }
}

/// Reads the claims, each one once.
#[derive(Clone, Debug)]
pub struct ResourceClaimReader {
    /// Address of the API server.
    pub address: Address,
    /// Maximum backoff for a claim that the server does not return,
    /// [`policy::RESOURCE_CLAIM_REFUSED_BACKOFF_MAX`] by default.
    pub refused_backoff_max: Duration,
    /// Timeouts and retry delays.
    pub timings: WatchTimings,
    /// Clock for the timestamps.
    pub clock: Clock,
}

/// State between two requests.
struct ReadSession {
    state: ResourceClaimsState,
    /// The requests without a result.
    pending: BTreeMap<ClaimRequest, PendingRead>,
    /// Consecutive times that the server did not respond, and the time of the next attempt
    /// (monotonic).
    failures: u32,
    retry_at: Duration,
}

/// A claim that is still to be read.
#[derive(Default)]
struct PendingRead {
    attempts: u32,
    /// Whether the last attempt failed.
    failed: bool,
    /// Time of the next attempt (monotonic).
    retry_at: Duration,
}

impl ResourceClaimReader {
    /// Publishes the claims of `requests` until all receivers are dropped.
    pub async fn run(
        self,
        publish: watch::Sender<ResourceClaimsState>,
        requests: watch::Receiver<Arc<BTreeSet<ClaimRequest>>>,
    ) {
        tokio::select! {
            () = publish.closed() => {}
            () = self.read_all(&publish, requests) => {}
        }
    }

    async fn read_all(
        &self,
        publish: &watch::Sender<ResourceClaimsState>,
        mut requests: watch::Receiver<Arc<BTreeSet<ClaimRequest>>>,
    ) {
        let mut session = ReadSession {
            state: ResourceClaimsState::unknown(),
            pending: BTreeMap::new(),
            failures: 0,
            retry_at: Duration::ZERO,
        };
        loop {
            let requested = Arc::clone(&requests.borrow_and_update());
            session.set_requests(&requested);
            self.read_due(&mut session).await;
            publish.send_replace(session.state.clone());
            let changed = match session.next_attempt() {
                None => requests.changed().await,
                Some(at) => {
                    let pause = at.saturating_sub(self.clock.now().mono);
                    timeout(pause, requests.changed()).await.unwrap_or(Ok(()))
                }
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Sends the requests that are due, one after the other. If the server does not respond, the
    /// others wait.
    async fn read_due(&self, session: &mut ReadSession) {
        let now = self.clock.now().mono;
        let is_due = |(_, read): &(&ClaimRequest, &PendingRead)| read.retry_at <= now;
        let due: Vec<_> = session.pending.iter().filter(is_due).map(|(r, _)| r.clone()).collect();
        if due.is_empty() || session.retry_at > now {
            return;
        }
        let client = self.address.client().await;
        for request in due {
            // A claim that several pods use may have been read for another one of them.
            if session.state.claims.has(&request) {
                session.pending.remove(&request);
                continue;
            }
            let result = match &client {
                Ok(client) => self.read(client, &request.claim).await,
                Err(error) => Err(RequestError { problem: error.problem.clone(), ..*error }),
            };
            let now = self.clock.now().mono;
            let pause = self.refused_pause(session.attempts(&request) + 1);
            match result {
                Ok(claim) => session.insert(&request, claim, now + pause),
                Err(error) => {
                    session.record_failure(&request, &error, now, now + pause);
                    if !is_response(&error) {
                        session.failures += 1;
                        session.retry_at = now + self.timings.backoff(session.failures);
                        return;
                    }
                }
            }
            session.failures = 0;
        }
        session.record_success(self.clock.now().mono);
    }

    /// Time until the next attempt after the server has responded `attempts` times without a result.
    fn refused_pause(&self, attempts: u32) -> Duration {
        let (min, max) = (self.timings.backoff_min, self.refused_backoff_max);
        policy::jittered_backoff(min, max, attempts, fastrand::f64())
    }

    /// Reads a claim in the newest version that the server has.
    async fn read(
        &self,
        client: &Client,
        (namespace, name): &ClaimName,
    ) -> Result<AllocatedClaim, RequestError> {
        if !is_dns_name(namespace) || !is_dns_name(name) {
            let detail = format!("{namespace}/{name} is not the name of a resource claim");
            return Err(RequestError::new(FailureReason::Garbage, detail));
        }
        let mut missing = None;
        for version in API_VERSIONS {
            let path = format!(
                "/apis/resource.k8s.io/{version}/namespaces/{namespace}/resourceclaims/{name}"
            );
            match get(client, &path, self.timings.response_timeout).await {
                // The server lacks this version or the claim.
                Err(error) if error.status == Some(404) => drop(missing.get_or_insert(error)),
                Err(error) => return Err(with_remedy(error)),
                Ok(body) => {
                    let (limit, idle) = (policy::KUBE_OBJECT_MAX, self.timings.response_timeout);
                    let json = read_body(body, limit, idle).await?;
                    return claim::parse(&json).map_err(|e| {
                        let detail = format!("{path}: the ResourceClaim is malformed: {e}");
                        RequestError::new(FailureReason::Garbage, detail)
                    });
                }
            }
        }
        Err(missing.unwrap_or_else(|| RequestError::new(FailureReason::Unsupported, SOURCE)))
    }
}

/// Whether an error is about one claim, and not about the server.
fn is_response(error: &RequestError) -> bool {
    use FailureReason as Reason;
    match error.reason {
        Reason::Absent
        | Reason::Connection
        | Reason::Timeout
        | Reason::Throttled
        | Reason::NotReady
        | Reason::Config => false,
        Reason::Denied
        | Reason::TooLarge
        | Reason::Garbage
        | Reason::Expired
        | Reason::Unsupported
        | Reason::Refused => true,
    }
}

/// Adds the remedy for a denied permission.
fn with_remedy(mut error: RequestError) -> RequestError {
    if error.reason == FailureReason::Denied {
        let remedy = "allow get on resourceclaims in the API group resource.k8s.io, as \
                      daemonset/base/service-account.yaml does";
        error.problem.remedy = Some(remedy.to_owned());
    }
    error
}

impl ReadSession {
    /// Drops what is no longer requested, and schedules what is new.
    fn set_requests(&mut self, requests: &BTreeSet<ClaimRequest>) {
        self.pending.retain(|request, _| requests.contains(request));
        self.update(|claims| claims.retain(requests));
        for request in requests.iter().filter(|request| !self.state.claims.has(request)) {
            self.pending.entry(request.clone()).or_default();
        }
    }

    /// When the next request is due (monotonic); none if all have a result.
    fn next_attempt(&self) -> Option<Duration> {
        let next = self.pending.values().map(|read| read.retry_at).min()?;
        Some(next.max(self.retry_at))
    }

    fn attempts(&self, request: &ClaimRequest) -> u32 {
        self.pending.get(request).map_or(0, |read| read.attempts)
    }

    /// Sets a claim that was read. If it is not reserved for the pod, it is read again at
    /// `retry_at`.
    fn insert(&mut self, request: &ClaimRequest, claim: AllocatedClaim, retry_at: Duration) {
        self.update(|claims| claims.insert(request, claim));
        if self.state.claims.has(request) {
            self.pending.remove(request);
        } else {
            self.postpone(request, retry_at, false);
        }
    }

    fn record_failure(
        &mut self,
        request: &ClaimRequest,
        error: &RequestError,
        now: Duration,
        retry_at: Duration,
    ) {
        self.state.health.record_failure(error.reason, &error.problem, now);
        if error.reason == FailureReason::Denied {
            self.update(|claims| claims.deny(&request.claim));
        }
        self.postpone(request, retry_at, true);
    }

    /// The source is up once no request has failed, so that one claim does not change its state
    /// back and forth.
    fn record_success(&mut self, now: Duration) {
        if !self.pending.values().any(|read| read.failed) {
            self.state.health.record_success(now);
        }
    }

    fn postpone(&mut self, request: &ClaimRequest, retry_at: Duration, failed: bool) {
        if let Some(read) = self.pending.get_mut(request) {
            *read = PendingRead { attempts: read.attempts + 1, failed, retry_at };
        }
    }

    fn update(&mut self, change: impl FnOnce(&mut ClaimTable)) {
        let mut claims = (*self.state.claims).clone();
        change(&mut claims);
        if claims != *self.state.claims {
            self.state.claims = Arc::new(claims);
        }
    }
}
