//! The pods of this node from the kubelet's Pods API (Kubernetes 1.36 and later).
//!
//! The service is local: it needs neither the API server nor a network. A watch begins with all pods.
//! The kubelet answers "failed precondition" until it knows all pods itself. It has no bookmarks, and
//! an early version drops events of a watch that is behind, so that the pods are listed as well, every
//! minute.

pub mod messages;

use std::path::PathBuf;
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::metadata::MetadataValue;
use tonic::{Request, Streaming};

use self::messages::{ListPodsResponse, PodEvent, WatchPodsEvent};
use super::kubelet_socket::{KubeletSocket, status_error};
use super::pod::protobuf::{self, DecodedPod, FIELD_MASK};
use super::pod_feed::PodFeed;
use super::pod_resources::messages::Empty;
use super::request_error::RequestError;
use super::source::FailureReason;
use super::watch_timings::WatchTimings;
use crate::policy;

/// The name of this source in logs and labels.
pub const SOURCE: &str = "pods_api";

/// The key of the field mask in the metadata of a request.
const FIELD_MASK_KEY: &str = "x-kubernetes-fieldmask";

/// Paths of `WatchPods` and `ListPods`, of the newest version first.
const METHODS: [[&str; 2]; 2] = [
    ["/v1beta1.Pods/WatchPods", "/v1beta1.Pods/ListPods"],
    ["/v1alpha1.Pods/WatchPods", "/v1alpha1.Pods/ListPods"],
];

/// Client of the Pods API.
#[derive(Clone, Debug)]
pub struct PodsApi {
    /// Socket of the kubelet. Mount its directory, because a mounted socket file is stale after a
    /// restart of the kubelet.
    pub socket: PathBuf,
    /// Timeouts and retry delays.
    pub timings: WatchTimings,
    /// Intervals of its own.
    pub intervals: PodsApiIntervals,
}

/// Intervals of the Pods API; the defaults are in [`policy`].
#[derive(Clone, Copy, Debug)]
pub struct PodsApiIntervals {
    /// Time for it to respond again before the pods are read from elsewhere.
    pub grace: Duration,
    /// Time between two lists.
    pub list: Duration,
}

impl Default for PodsApiIntervals {
    fn default() -> Self {
        Self { grace: policy::PODS_API_GRACE, list: policy::PODS_API_LIST_EVERY }
    }
}

/// A watch of which the initial pods are complete.
#[derive(Debug)]
pub struct PodsApiWatch {
    socket: KubeletSocket,
    events: Streaming<WatchPodsEvent>,
    method: PodsMethod,
    /// The pods at its beginning.
    pub initial: Vec<DecodedPod>,
}

/// How the service is called.
#[derive(Clone, Copy, Debug)]
struct PodsMethod {
    watch: &'static str,
    list: &'static str,
    masked: bool,
}

impl PodsMethod {
    fn request(self) -> Request<Empty> {
        let mut request = Request::new(Empty {});
        if self.masked {
            let mask = MetadataValue::from_static(FIELD_MASK);
            request.metadata_mut().insert(FIELD_MASK_KEY, mask);
        }
        request
    }
}

impl PodsApi {
    /// Connects, and reads the initial pods.
    ///
    /// # Errors
    /// The socket is absent or does not respond, the kubelet does not know its pods yet, or it has no
    /// such service.
    pub async fn connect(&self) -> Result<PodsApiWatch, RequestError> {
        let limit = policy::KUBE_OBJECT_MAX;
        let socket =
            KubeletSocket::connect(&self.socket, limit, self.timings.response_timeout).await?;
        let mut unsupported = None;
        for [watch, list] in METHODS {
            // A kubelet that does not know a field of the mask refuses it.
            for masked in [true, false] {
                let method = PodsMethod { watch, list, masked };
                match self.watch(socket.clone(), method).await {
                    Err(error) if error.reason == FailureReason::Unsupported => {
                        unsupported = Some(error);
                        break;
                    }
                    Err(error) if error.reason == FailureReason::Refused && masked => {}
                    result => return result,
                }
            }
        }
        let no_service = || RequestError::new(FailureReason::Unsupported, "no Pods service");
        Err(unsupported.unwrap_or_else(no_service))
    }

    async fn watch(
        &self,
        mut socket: KubeletSocket,
        method: PodsMethod,
    ) -> Result<PodsApiWatch, RequestError> {
        let timings = &self.timings;
        let end = Instant::now() + timings.list_timeout;
        let path = PathAndQuery::from_static(method.watch);
        let request = method.request();
        let mut events: Streaming<WatchPodsEvent> =
            socket.stream(path, request, timings.response_timeout).await?;
        let mut initial = Vec::new();
        loop {
            let event = tokio::time::timeout_at(end, next_event(&mut events, method));
            let event = event.await.map_err(|_| {
                let seconds = timings.list_timeout.as_secs_f64();
                let detail = format!("the initial pods have no end within {seconds} s");
                RequestError::new(FailureReason::Timeout, detail)
            })??;
            match event {
                PodEvent::Synced => return Ok(PodsApiWatch { socket, events, method, initial }),
                PodEvent::Applied(pod) if initial.len() < policy::PODS_MAX => initial.push(pod),
                // Events may overtake the initial pods of others.
                PodEvent::Deleted(uid) => initial.retain(|pod| pod.uid() != &*uid),
                PodEvent::Applied(_) | PodEvent::Unknown => {}
            }
        }
    }

    /// Applies the pods of `watch` and its events to `feed` until the watch ends; returns why. A watch that
    /// lasts ends the row of `failures`.
    pub async fn follow(
        &self,
        watch: PodsApiWatch,
        feed: &mut PodFeed,
        failures: &mut u32,
    ) -> RequestError {
        let begun = Instant::now();
        let error = self.follow_events(watch, feed).await;
        if begun.elapsed() >= self.timings.backoff_max {
            *failures = 0;
        }
        error
    }

    async fn follow_events(&self, mut watch: PodsApiWatch, feed: &mut PodFeed) -> RequestError {
        apply_list(std::mem::take(&mut watch.initial), feed);
        let mut next_list = Instant::now() + self.intervals.list;
        loop {
            // A list is only certain to be newer than the events if there are none meanwhile: an event ends
            // its request, which is then sent again at once.
            let result = tokio::select! {
                event = next_event(&mut watch.events, watch.method) => {
                    event.map(|event| apply_event(event, feed))
                }
                list = self.list_at(next_list, watch.socket.clone(), watch.method) => {
                    next_list = Instant::now() + self.intervals.list;
                    list.map(|pods| apply_list(pods, feed))
                }
            };
            if let Err(error) = result {
                if error.reason != FailureReason::Throttled {
                    return error;
                }
                feed.state.store.health.count_failure(error.reason);
            }
        }
    }

    async fn list_at(
        &self,
        at: Instant,
        mut socket: KubeletSocket,
        method: PodsMethod,
    ) -> Result<Vec<DecodedPod>, RequestError> {
        sleep_until(at).await;
        let path = PathAndQuery::from_static(method.list);
        let timeout = self.timings.response_timeout;
        let list: ListPodsResponse = socket.call(path, method.request(), timeout).await?;
        Ok(list.pods.iter().take(policy::PODS_MAX).map(|pod| protobuf::decode(pod)).collect())
    }

    /// Connects after a failure, again and again until it succeeds. `failures` is the number of
    /// consecutive ones so far, and `failed` gets each error.
    pub async fn reconnect(
        &self,
        failures: &mut u32,
        mut failed: impl FnMut(&RequestError),
    ) -> PodsApiWatch {
        loop {
            *failures += 1;
            sleep(self.timings.backoff(*failures)).await;
            match self.connect().await {
                Ok(watch) => return watch,
                Err(error) => failed(&error),
            }
        }
    }

    /// The first attempt. A kubelet that has the service and is ready responds at once; the pods are read
    /// from elsewhere otherwise, and not later than without this service.
    ///
    /// # Errors
    /// As for [`PodsApi::connect`].
    pub async fn connect_first(&self) -> Result<PodsApiWatch, RequestError> {
        let first = timeout(policy::PODS_API_FIRST_TIMEOUT, self.connect()).await;
        let late =
            |_| RequestError::new(FailureReason::Timeout, "the kubelet does not respond yet");
        first.map_err(late)?
    }
}

async fn next_event(
    events: &mut Streaming<WatchPodsEvent>,
    method: PodsMethod,
) -> Result<PodEvent, RequestError> {
    let event = events.message().await.map_err(|status| status_error(method.watch, &status))?;
    let ended = || {
        let detail = format!("{}: the kubelet ended the watch", method.watch);
        RequestError::new(FailureReason::Connection, detail)
    };
    Ok(event.ok_or_else(ended)?.decode_pod())
}

fn apply_list(pods: Vec<DecodedPod>, feed: &mut PodFeed) {
    let now = feed.now();
    feed.state.begin_list();
    for pod in pods {
        feed.state.apply_decoded(pod, now);
    }
    feed.state.changed |= feed.state.store.end_list(now);
    feed.record_success();
    feed.publish();
}

fn apply_event(event: PodEvent, feed: &mut PodFeed) {
    let now = feed.now();
    match event {
        PodEvent::Applied(pod) => feed.state.apply_decoded(pod, now),
        PodEvent::Deleted(uid) => feed.state.changed |= feed.state.store.delete(&uid, now),
        PodEvent::Unknown => feed.state.store.health.skipped.unknown += 1,
        PodEvent::Synced => {}
    }
    feed.record_success();
    feed.publish();
}
