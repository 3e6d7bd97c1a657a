//! The devices that the DRA drivers of GPUs advertise on this node (`ResourceSlice`).
//!
//! A resource claim contains the driver's device name (`gpu-0`); only the driver's `ResourceSlice`s
//! map it to a UUID. They are read when a container has a claim of such a driver, and never on a
//! node without one.

pub mod slice;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::client::{Body, Client};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use self::slice::SliceCollector;
use super::address::Address;
use super::api::{get, next_chunk};
use super::assignments::{SliceKey, SliceTable};
use super::json_stream::{JsonFrame, ListReader};
use super::node_name::NodeName;
use super::request_error::RequestError;
use super::source::{FailureReason, HealthTracker};
use super::watch_timings::WatchTimings;
use crate::clock::Clock;
use crate::policy;

/// The name of this source in logs and labels.
pub const SOURCE: &str = "resource_slices";

/// Versions of the API `resource.k8s.io`, newest first: stable since Kubernetes 1.34, beta since
/// 1.33 and 1.32.
pub const API_VERSIONS: [&str; 3] = ["v1", "v1beta2", "v1beta1"];

/// State of this source. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct ResourceSlicesState {
    /// Whether the source is up, and its failures.
    pub health: HealthTracker,
    /// The last list; none before the first response.
    pub slices: Option<Arc<SliceTable>>,
}

impl ResourceSlicesState {
    /// The state before the first request.
    #[must_use]
    pub fn unknown() -> Self {
        Self { health: HealthTracker::new(SOURCE), slices: None }
    }

    /// Whether this device is known.
    fn has(&self, key: &SliceKey) -> bool {
        self.slices.as_ref().is_some_and(|slices| slices.devices.contains_key(key))
    }

    /// Replaces the table by a newer one, which keeps what is known of the devices `claimed`.
    fn replace(&mut self, mut slices: SliceTable, claimed: &BTreeSet<SliceKey>) {
        if let Some(before) = &self.slices {
            slices.retain_claimed(before, claimed);
        }
        if self.slices.as_deref() != Some(&slices) {
            self.slices = Some(Arc::new(slices));
        }
    }
}

/// Configuration of the poll.
#[derive(Clone, Debug)]
pub struct ResourceSlicePoller {
    /// Address of the API server.
    pub address: Address,
    /// Name of this node.
    pub node: NodeName,
    /// Poll interval, [`policy::RESOURCE_SLICES_EVERY`] by default.
    pub interval: Duration,
    /// Shortest interval, for new claims, [`policy::RESOURCE_SLICES_PAUSE`] by default.
    pub min_interval: Duration,
    /// Timeouts and retry delays.
    pub timings: WatchTimings,
    /// Clock for the timestamps.
    pub clock: Clock,
}

impl ResourceSlicePoller {
    /// Publishes the slices until all receivers are dropped. `claimed` has the devices of the claims
    /// of this node: while there are none, nothing is read.
    pub async fn run(
        self,
        publish: watch::Sender<ResourceSlicesState>,
        claimed: watch::Receiver<Arc<BTreeSet<SliceKey>>>,
    ) {
        tokio::select! {
            () = publish.closed() => {}
            () = self.poll(&publish, claimed) => {}
        }
    }

    async fn poll(
        &self,
        publish: &watch::Sender<ResourceSlicesState>,
        mut claimed: watch::Receiver<Arc<BTreeSet<SliceKey>>>,
    ) {
        let mut state = ResourceSlicesState::unknown();
        let (mut failures, mut unanswered) = (0, 0);
        loop {
            // The devices of a later claim may have other UUIDs by then.
            if claimed.borrow().is_empty() && state.slices.take().is_some() {
                publish.send_replace(state.clone());
            }
            let keys = claimed.wait_for(|keys| !keys.is_empty()).await;
            let Ok(keys) = keys.map(|keys| Arc::clone(&keys)) else { return };
            let result = self.read_slices(&keys).await.map(|(slices, skipped)| {
                state.health.skipped.undecodable += skipped;
                slices
            });
            let now = self.clock.now().mono;
            match result {
                Ok(slices) => {
                    failures = 0;
                    state.health.record_success(now);
                    state.replace(slices, &keys);
                }
                Err(fault) => {
                    failures += 1;
                    state.health.record_failure(fault.reason, &fault.problem, now);
                }
            }
            publish.send_replace(state.clone());
            if failures > 0 {
                sleep(self.timings.backoff(failures)).await;
                continue;
            }
            unanswered = if keys.iter().all(|key| state.has(key)) { 0 } else { unanswered + 1 };
            let pause = self.pause(unanswered);
            sleep(self.min_interval.min(pause)).await;
            let is_new = |key: &SliceKey| !keys.contains(key) && !state.has(key);
            let new_claim = claimed.wait_for(|keys| keys.iter().any(is_new));
            if timeout(pause.saturating_sub(self.min_interval), new_claim).await.is_ok() {
                unanswered = 0;
            }
        }
    }

    /// Time until the next request, after `unanswered` consecutive ones that lacked a claimed
    /// device. It may never appear, so that requests become rare.
    fn pause(&self, unanswered: u32) -> Duration {
        if unanswered == 0 {
            return self.interval;
        }
        let (min, max) = (self.min_interval * 2, self.interval);
        policy::jittered_backoff(min, max, unanswered, fastrand::f64())
    }

    /// The slices, and how many of them could not be decoded.
    async fn read_slices(
        &self,
        claimed: &BTreeSet<SliceKey>,
    ) -> Result<(SliceTable, u64), RequestError> {
        let client = self.address.client().await?;
        let list = self.list_newest(&client, claimed);
        let timed_out = |_| {
            let seconds = self.timings.list_timeout.as_secs_f64();
            let detail = format!("the ResourceSlice list is not complete within {seconds} s");
            RequestError::new(FailureReason::Timeout, detail)
        };
        timeout(self.timings.list_timeout, list).await.map_err(timed_out)?
    }

    /// Lists in the newest version that the server has. Each request begins with the newest one,
    /// because the server may be upgraded at any time and requests are rare.
    async fn list_newest(
        &self,
        client: &Client,
        claimed: &BTreeSet<SliceKey>,
    ) -> Result<(SliceTable, u64), RequestError> {
        for version in API_VERSIONS {
            match self.list(client, version, claimed).await {
                Err(fault) if fault.status == Some(404) => {}
                result => return result,
            }
        }
        let versions = API_VERSIONS.join(", ");
        let detail = format!("the API server has no ResourceSlices in the versions {versions}");
        Err(RequestError::new(FailureReason::Unsupported, detail))
    }

    /// Lists the slices of this node, and those of no single node only if a claimed device is in
    /// none of the former.
    async fn list(
        &self,
        client: &Client,
        version: &str,
        claimed: &BTreeSet<SliceKey>,
    ) -> Result<(SliceTable, u64), RequestError> {
        let drivers: BTreeSet<&str> = claimed.iter().map(|key| &*key.driver).collect();
        let mut slices = SliceCollector::new(self.node.as_str(), claimed);
        let mut skipped = 0;
        for node in [self.node.as_str(), ""] {
            for driver in &drivers {
                let path = format!(
                    "/apis/resource.k8s.io/{version}/resourceslices\
                     ?fieldSelector=spec.nodeName%3D{node}%2Cspec.driver%3D{driver}"
                );
                let body = get(client, &path, self.timings.response_timeout).await?;
                skipped += self.read(body, &mut slices).await?;
            }
            if slices.is_complete() {
                break;
            }
        }
        Ok((slices.finish(), skipped))
    }

    /// Reads a list. A slice that cannot be decoded is skipped, and counted in the result: its pool is
    /// incomplete then.
    async fn read(
        &self,
        mut body: Body,
        slices: &mut SliceCollector<'_>,
    ) -> Result<u64, RequestError> {
        let malformed = |detail: String| RequestError::new(FailureReason::Garbage, detail);
        let mut skipped = 0;
        let mut items = ListReader::new(policy::KUBE_OBJECT_MAX);
        while let Some(data) = next_chunk(&mut body, self.timings.response_timeout).await? {
            for frame in items.feed(&data) {
                let is_read = match frame {
                    JsonFrame::Value(json) => slices.add(&json).is_ok(),
                    JsonFrame::TooLarge => false,
                };
                skipped += u64::from(!is_read);
            }
        }
        slice::check_list(&items.rest()).map_err(malformed)?;
        Ok(skipped)
    }
}
