//! The devices that NVIDIA's DRA driver advertises on this node (`ResourceSlice`).
//!
//! A resource claim contains the driver's device name (`gpu-0`); only the driver's `ResourceSlice`s
//! map it to a UUID. They are read when a container has a claim, and never on a node without claims.

pub mod slice;

use std::sync::Arc;
use std::time::Duration;

use kube::client::{Body, Client};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use self::slice::SliceCollector;
use super::address::Address;
use super::api::{get, next_chunk};
use super::assignments::SliceTable;
use super::json_stream::{JsonFrame, ListReader};
use super::node_name::NodeName;
use super::request_error::RequestError;
use super::source::{FailureReason, HealthTracker};
use super::watch_timings::WatchTimings;
use crate::clock::Clock;
use crate::policy;

/// The name of this source in logs and labels.
pub const SOURCE: &str = "resource_slices";

/// Versions of the API, newest first: stable since Kubernetes 1.34, beta since 1.33 and 1.32.
const VERSIONS: [&str; 3] = ["v1", "v1beta2", "v1beta1"];

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
    /// Publishes the slices until all receivers are dropped. The first request is sent when `claims`
    /// is notified for the first time.
    pub async fn run(self, publish: watch::Sender<ResourceSlicesState>, claims: Arc<Notify>) {
        tokio::select! {
            () = publish.closed() => {}
            () = self.poll(&publish, &claims) => {}
        }
    }

    async fn poll(&self, publish: &watch::Sender<ResourceSlicesState>, claims: &Notify) {
        let mut state = ResourceSlicesState::unknown();
        let mut failures = 0;
        claims.notified().await;
        loop {
            match self.read_slices().await {
                Ok(slices) => {
                    failures = 0;
                    state.health.record_success(self.clock.now().mono);
                    state.slices = Some(Arc::new(slices));
                }
                Err(fault) => {
                    failures += 1;
                    state.health.record_failure(fault.reason, &fault.problem);
                }
            }
            publish.send_replace(state.clone());
            if failures > 0 {
                sleep(self.timings.backoff(failures)).await;
                continue;
            }
            sleep(self.min_interval).await;
            // The next request is due in either case.
            let _notified =
                timeout(self.interval.saturating_sub(self.min_interval), claims.notified()).await;
        }
    }

    async fn read_slices(&self) -> Result<SliceTable, RequestError> {
        let client = self.address.client().await?;
        let list = self.list_newest(&client);
        let timed_out = |_| {
            let seconds = self.timings.list_timeout.as_secs_f64();
            let detail = format!("the ResourceSlice list is not complete within {seconds} s");
            RequestError::new(FailureReason::Timeout, detail)
        };
        timeout(self.timings.list_timeout, list).await.map_err(timed_out)?
    }

    /// Lists in the newest version that the server has. Each request begins with the newest one,
    /// because the server may be upgraded at any time and requests are rare.
    async fn list_newest(&self, client: &Client) -> Result<SliceTable, RequestError> {
        let node = self.node.as_str();
        for version in VERSIONS {
            let path = format!(
                "/apis/resource.k8s.io/{version}/resourceslices?fieldSelector=spec.nodeName%3D{node}"
            );
            match get(client, &path, self.timings.response_timeout).await {
                Err(fault) if fault.status == Some(404) => {}
                Err(fault) => return Err(fault),
                Ok(body) => return self.read(body).await,
            }
        }
        let versions = VERSIONS.join(", ");
        let detail = format!("the API server has no ResourceSlices in the versions {versions}");
        Err(RequestError::new(FailureReason::Unsupported, detail))
    }

    async fn read(&self, mut body: Body) -> Result<SliceTable, RequestError> {
        let malformed = |detail: String| RequestError::new(FailureReason::Garbage, detail);
        let mut slices = SliceCollector::new(self.node.as_str());
        let mut items = ListReader::new(policy::KUBE_OBJECT_MAX);
        while let Some(data) = next_chunk(&mut body, self.timings.response_timeout).await? {
            for frame in items.feed(&data) {
                let JsonFrame::Value(json) = frame else {
                    let detail = "a ResourceSlice is above the size limit";
                    return Err(RequestError::new(FailureReason::TooLarge, detail));
                };
                slices
                    .add(&json)
                    .map_err(|e| malformed(format!("a ResourceSlice is malformed: {e}")))?;
            }
        }
        slice::check_list(&items.rest()).map_err(malformed)?;
        Ok(slices.finish())
    }
}
