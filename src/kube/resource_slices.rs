//! The devices that NVIDIA's driver for dynamic allocation offers on this node.
//!
//! A claim names a device as its driver does (`gpu-0`), and only the driver's `ResourceSlice`s say
//! which GPU that is. They are read when claims turn up, and on a node without any never.

pub mod object;

use std::sync::Arc;
use std::time::Duration;

use kube::client::{Body, Client};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use self::object::Gathering;
use super::api::{Address, Fault, NodeName, chunk, get};
use super::assignments::Slices;
use super::framing::{Frame, Items};
use super::source::{Failure, Health};
use super::watch::Pace;
use crate::clock::Clock;
use crate::policy;

/// The name of this source in logs and labels.
pub const SOURCE: &str = "resource_slices";

/// Versions of the API, best first: stable since Kubernetes 1.34, beta since 1.33 and 1.32.
const VERSIONS: [&str; 3] = ["v1", "v1beta2", "v1beta1"];

/// The last answer, and how the source fares. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Taken {
    /// How the source fares.
    pub health: Health,
    /// What was said last; none before the first answer.
    pub slices: Option<Arc<Slices>>,
}

impl Taken {
    /// Before anything was said, or asked.
    #[must_use]
    pub fn unknown() -> Self {
        Self { health: Health::new(SOURCE), slices: None }
    }
}

/// Whose slices to read, and how often.
#[derive(Clone, Debug)]
pub struct ResourceSlices {
    /// The API server.
    pub address: Address,
    /// The node whose slices are read.
    pub node: NodeName,
    /// From one reading to the next, [`policy::RESOURCE_SLICES_EVERY`] by default.
    pub every: Duration,
    /// The same when claims have turned up, [`policy::RESOURCE_SLICES_PAUSE`] by default.
    pub pause: Duration,
    /// How long everything may take.
    pub pace: Pace,
    /// The clock that stamps what is seen.
    pub clock: Clock,
}

impl ResourceSlices {
    /// Publishes the slices for as long as anybody listens, from when `claims` first tells of one.
    pub async fn run(self, publish: watch::Sender<Taken>, claims: Arc<Notify>) {
        tokio::select! {
            () = publish.closed() => {}
            () = self.follow(&publish, &claims) => {}
        }
    }

    async fn follow(&self, publish: &watch::Sender<Taken>, claims: &Notify) {
        let mut taken = Taken::unknown();
        let mut failures = 0;
        claims.notified().await;
        loop {
            match self.once().await {
                Ok(slices) => {
                    failures = 0;
                    taken.health.answered(self.clock.now().mono);
                    taken.slices = Some(Arc::new(slices));
                }
                Err(fault) => {
                    failures += 1;
                    taken.health.failed(fault.failure, &fault.detail);
                }
            }
            publish.send_replace(taken.clone());
            if failures > 0 {
                sleep(self.pace.backoff(failures)).await;
                continue;
            }
            sleep(self.pause).await;
            // Either way the next reading is due.
            let _asked = timeout(self.every.saturating_sub(self.pause), claims.notified()).await;
        }
    }

    async fn once(&self) -> Result<Slices, Fault> {
        let client = self.address.connect().await?;
        let reading = self.newest(&client);
        let endless = |_| Fault::new(Failure::Timeout, "a list of slices without an end");
        timeout(self.pace.initial, reading).await.map_err(endless)?
    }

    /// In the newest version that the server knows. It may be upgraded at any time, and readings
    /// are rare: each begins with the best.
    async fn newest(&self, client: &Client) -> Result<Slices, Fault> {
        let node = self.node.as_str();
        for version in VERSIONS {
            let path = format!(
                "/apis/resource.k8s.io/{version}/resourceslices?fieldSelector=spec.nodeName%3D{node}"
            );
            match get(client, &path, self.pace.answer).await {
                Err(fault) if fault.status == Some(404) => {}
                Err(fault) => return Err(fault),
                Ok(body) => return self.read(body).await,
            }
        }
        let detail = format!("the API server knows no resource slices ({})", VERSIONS.join(", "));
        Err(Fault::new(Failure::Unsupported, detail))
    }

    async fn read(&self, mut body: Body) -> Result<Slices, Fault> {
        let garbage = |detail: String| Fault::new(Failure::Garbage, detail);
        let mut gathering = Gathering::new(self.node.as_str());
        let mut items = Items::new(policy::KUBE_OBJECT_MAX);
        while let Some(data) = chunk(&mut body, self.pace.answer).await? {
            for frame in items.feed(&data) {
                let Frame::Value(json) = frame else {
                    return Err(Fault::new(Failure::TooLarge, "a resource slice above the limit"));
                };
                gathering.add(&json).map_err(|e| garbage(format!("a resource slice: {e}")))?;
            }
        }
        object::check_list(&items.rest()).map_err(garbage)?;
        Ok(gathering.finish())
    }
}
