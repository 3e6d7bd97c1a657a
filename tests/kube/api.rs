//! Tests of the pod watch with a fake API server, including failures.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::clock::Clock;
use nvml_exporter::kube::address::Address;
use nvml_exporter::kube::endpoint::{Endpoint, EndpointAuth};
use nvml_exporter::kube::node_name::NodeName;
use nvml_exporter::kube::pod_sources::{OtherPodSource, PodSources};
use nvml_exporter::kube::pods::{ContainerLookup, PodSnapshot, UidLookup};
use nvml_exporter::kube::source::{FailureReason, HealthTracker, SourceState};
use nvml_exporter::kube::watch::PodWatch;
use nvml_exporter::kube::watch_timings::WatchTimings;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::http::{FakeServer, Stream, event, kubeconfig, pod};
use crate::{HANG, until};

const STREAMING: &str = "sendInitialEvents=true";
const WATCH: &str = "watch=true";

pub(crate) fn quick() -> WatchTimings {
    WatchTimings {
        reconnect_jitter: Duration::ZERO,
        backoff_min: Duration::from_millis(2),
        backoff_max: Duration::from_millis(10),
        response_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(20),
        list_timeout: Duration::from_secs(20),
    }
}

/// Without the Pods API.
pub(crate) fn only(other: OtherPodSource) -> PodSources {
    PodSources { node: Some(node()), pods_api: None, other: Some(other), clock: Clock::start() }
}

pub(crate) fn no_standby() -> watch::Sender<Option<HealthTracker>> {
    watch::channel(None).0
}

pub(crate) fn node() -> NodeName {
    NodeName::new("n1").unwrap()
}

/// The task under test and its published state.
struct RunningWatch {
    seen: watch::Receiver<PodSnapshot>,
    changed: Arc<Notify>,
    task: JoinHandle<()>,
}

impl RunningWatch {
    fn start(address: Address, timings: WatchTimings) -> Self {
        let (publish, seen) = watch::channel(PodSnapshot::unknown("test"));
        let changed = Arc::new(Notify::new());
        let source = OtherPodSource::Api(PodWatch { address, node: node(), timings });
        let task = tokio::spawn(only(source).run(publish, no_standby(), Arc::clone(&changed)));
        Self { seen, changed, task }
    }

    fn of(server: &FakeServer) -> Self {
        Self::start(server.address(), quick())
    }

    async fn until(&mut self, what: &str, is: impl Fn(&PodSnapshot) -> bool) -> PodSnapshot {
        until(&mut self.seen, what, is).await
    }

    async fn until_live(&mut self, uid: &str) -> PodSnapshot {
        self.until(uid, |pods| live(pods, uid)).await
    }
}

fn live(pods: &PodSnapshot, uid: &str) -> bool {
    matches!(pods.by_uid(uid), UidLookup::Live(_))
}

fn end_of_initial(version: u32) -> String {
    let object = format!(
        r#"{{"kind":"Pod","metadata":{{"resourceVersion":"{version}","annotations":{{"k8s.io/initial-events-end":"true"}}}},"spec":{{"containers":null}},"status":{{}}}}"#
    );
    event("BOOKMARK", &object)
}

/// Responds to the first request with a streaming list of these pods. The stream continues as a watch.
async fn send_initial_pods(server: &mut FakeServer, uids: &[&str], version: u32) -> Stream {
    let exchange = server.next(&[STREAMING, WATCH, "resourceVersion=0"]).await;
    let mut stream = exchange.stream().await;
    for uid in uids {
        stream.line(&event("ADDED", &pod(uid, uid, 1))).await;
    }
    stream.line(&end_of_initial(version)).await;
    stream
}

#[tokio::test]
async fn streaming_list_ends_with_a_bookmark_and_continues_as_a_watch() {
    let mut server = FakeServer::start().await;
    let mut source = RunningWatch::of(&server);
    let exchange = server.next(&[STREAMING, "fieldSelector=spec.nodeName%3Dn1"]).await;
    assert!(exchange.path().contains("allowWatchBookmarks=true"));
    let mut stream = exchange.stream().await;
    stream.line(&event("ADDED", &pod("a", "train", 1))).await;
    stream.line(&end_of_initial(5)).await;
    let pods = source.until("a complete list", |pods| pods.synced).await;
    assert!(live(&pods, "a") && pods.health.state == SourceState::Up);
    let by_id = pods.by_container("c-a");
    assert!(matches!(by_id, ContainerLookup::One(_, name) if &**name == "main"));
    timeout(HANG, source.changed.notified()).await.unwrap();
    stream.line(&event("ADDED", &pod("b", "infer", 7))).await;
    source.until_live("b").await;
    stream.line(&event("DELETED", &pod("b", "infer", 8))).await;
    let deleted = |pods: &PodSnapshot| matches!(pods.by_uid("b"), UidLookup::Deleted(id) if &*id.name == "infer");
    let pods = source.until("a tombstone", deleted).await;
    assert!(live(&pods, "a"));
}

#[tokio::test]
async fn interrupted_watch_continues_from_the_last_version() {
    let mut server = FakeServer::start().await;
    let mut source = RunningWatch::of(&server);
    let stream = send_initial_pods(&mut server, &["a"], 5).await;
    source.until_live("a").await;
    stream.end().await;
    let mut stream = server.next(&[WATCH, "resourceVersion=5"]).await.stream().await;
    let bookmark =
        r#"{"kind":"Pod","metadata":{"resourceVersion":"9"},"spec":{"containers":null}}"#;
    stream.line(&event("BOOKMARK", bookmark)).await;
    let whole = event("ADDED", &pod("b", "infer", 10));
    stream.raw(&whole[..40]).await;
    drop(stream);
    let exchange = server.next(&[WATCH, "resourceVersion=9"]).await;
    assert_eq!(source.seen.borrow().health.state, SourceState::Down(FailureReason::Connection));
    let mut stream = exchange.stream().await;
    source.until("up without events", |pods| pods.health.state == SourceState::Up).await;
    stream.raw(&whole[..40]).await;
    stream.raw(&format!("{}\n", &whole[40..])).await;
    let pods = source.until_live("b").await;
    assert!(live(&pods, "a") && pods.health.state == SourceState::Up);
}

#[tokio::test]
async fn server_without_streaming_lists_gets_a_list_request() {
    for status in [400, 422] {
        let mut server = FakeServer::start().await;
        let mut source = RunningWatch::of(&server);
        server.next(&[STREAMING]).await.fail(status, "sendInitialEvents is forbidden").await;
        let list = server.next(&["resourceVersion=0"]).await;
        assert!(!list.path().contains(WATCH), "{}", list.path());
        // List items have no kind.
        let a = pod("a", "train", 1).replace(r#""kind":"Pod","apiVersion":"v1","#, "");
        let body = format!(
            r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{"resourceVersion":"11"}},"items":[{a}]}}"#
        );
        list.respond(200, &body).await;
        let mut stream = server.next(&[WATCH, "resourceVersion=11"]).await.stream().await;
        let pods = source.until_live("a").await;
        assert!(pods.synced);
        assert_eq!(pods.health.failures_of(FailureReason::Unsupported), 1);
        let expired = r#"{"kind":"Status","code":410,"message":"too old resource version"}"#;
        stream.line(&event("ERROR", expired)).await;
        let again = server.next(&["resourceVersion=0"]).await;
        assert!(!again.path().contains(STREAMING), "a streaming list is not requested again");
    }
}

#[tokio::test]
async fn server_without_an_end_of_initial_events_gets_a_list_request() {
    let mut server = FakeServer::start().await;
    let timings = WatchTimings { list_timeout: Duration::from_millis(300), ..quick() };
    let mut source = RunningWatch::start(server.address(), timings);
    let mut stream = server.next(&[STREAMING]).await.stream().await;
    stream.line(&event("ADDED", &pod("a", "train", 1))).await;
    let list = server.next(&["resourceVersion=0"]).await;
    assert!(!list.path().contains(WATCH));
    list.respond(200, r#"{"kind":"PodList","metadata":{"resourceVersion":"2"},"items":null}"#)
        .await;
    let pods = source.until("a complete list", |pods| pods.synced).await;
    assert!(matches!(pods.by_uid("a"), UidLookup::Deleted(_)));
}

#[tokio::test]
async fn first_stream_that_fails_is_followed_by_a_list() {
    // Kubernetes 1.36 on etcd 3.4 sends the first one.
    let refused = r#"{"kind":"Status","code":500,"message":"required storage feature RequestWatchProgress is disabled"}"#;
    for line in [event("ERROR", refused), "<html>502</html>".to_owned(), String::new()] {
        let mut server = FakeServer::start().await;
        let mut source = RunningWatch::of(&server);
        let mut stream = server.next(&[STREAMING]).await.stream().await;
        stream.line(&event("ADDED", &pod("a", "train", 1))).await;
        stream.line(&line).await;
        drop(stream);
        let list = server.next(&["resourceVersion=0"]).await;
        assert!(!list.path().contains(WATCH), "{line}: {}", list.path());
        let items = [pod("a", "train", 1), r#"{"metadata":{"uid":"x","name":7}}"#.to_owned()];
        let body = format!(
            r#"{{"kind":"PodList","metadata":{{"resourceVersion":"2"}},"items":[{}]}}"#,
            items.join(",")
        );
        list.respond(200, &body).await;
        let mut stream = server.next(&[WATCH, "resourceVersion=2"]).await.stream().await;
        let pods = source.until_live("a").await;
        assert!(pods.synced && !pods.is_current(), "{line}: one pod is not decoded");
        assert_eq!(pods.health.skipped.undecodable, u64::from(line.starts_with('<')) + 1);
        stream.line(&event("ADDED", &pod("x", "later", 3))).await;
        let pods = source.until_live("x").await;
        assert!(pods.is_current(), "{line}: the pod is decoded now");
    }
}

#[tokio::test]
async fn watch_that_ends_with_an_error_at_once_is_followed_by_a_list() {
    let mut server = FakeServer::start().await;
    let mut source = RunningWatch::of(&server);
    let stream = send_initial_pods(&mut server, &["a"], 5).await;
    source.until_live("a").await;
    stream.end().await;
    let compacted = r#"{"kind":"Status","code":500,"message":"revision has been compacted"}"#;
    let mut stream = server.next(&[WATCH, "resourceVersion=5"]).await.stream().await;
    stream.line(&event("ERROR", compacted)).await;
    let _stream = send_initial_pods(&mut server, &["b"], 9).await;
    source.until_live("b").await;
}

#[tokio::test]
async fn expired_history_is_listed_again_and_pods_are_kept_meanwhile() {
    let mut server = FakeServer::start().await;
    let mut source = RunningWatch::of(&server);
    let mut stream = send_initial_pods(&mut server, &["a", "b"], 5).await;
    source.until_live("b").await;
    let expired = r#"{"kind":"Status","code":410,"reason":"Expired","message":"too old"}"#;
    stream.line(&event("ERROR", expired)).await;
    let exchange = server.next(&[STREAMING]).await;
    let counted = |pods: &PodSnapshot| pods.health.failures_of(FailureReason::Expired) == 1;
    let pods = source.until("the expired version", counted).await;
    assert!(live(&pods, "a") && live(&pods, "b") && pods.synced);
    assert_eq!(pods.health.state, SourceState::Up, "this is not a failure of the server");
    let mut stream = exchange.stream().await;
    stream.line(&event("ADDED", &pod("b", "b", 20))).await;
    assert!(live(&source.seen.borrow(), "a"), "the list is incomplete");
    stream.line(&end_of_initial(21)).await;
    source.until("a is deleted", |pods| matches!(pods.by_uid("a"), UidLookup::Deleted(_))).await;
    assert!(live(&source.seen.borrow(), "b"));
    // The same with the status of the response to a new watch.
    stream.end().await;
    server.next(&[WATCH, "resourceVersion=21"]).await.fail(410, "too old").await;
    let _stream = send_initial_pods(&mut server, &["b", "c"], 30).await;
    source.until_live("c").await;
}

#[tokio::test]
async fn version_newer_than_the_server_is_dropped() {
    let mut server = FakeServer::start().await;
    let mut source = RunningWatch::of(&server);
    let stream = send_initial_pods(&mut server, &["a"], 5000).await;
    source.until_live("a").await;
    stream.end().await;
    let message = "Timeout: Too large resource version: 5000, current: 7";
    server.next(&["resourceVersion=5000"]).await.fail(504, message).await;
    let _stream = send_initial_pods(&mut server, &["b"], 8).await;
    let pods = source.until_live("b").await;
    assert!(matches!(pods.by_uid("a"), UidLookup::Deleted(_)));
}

#[tokio::test]
async fn malformed_event_requires_a_new_list_and_unknown_objects_do_not() {
    let mut server = FakeServer::start().await;
    let mut source = RunningWatch::of(&server);
    let mut stream = send_initial_pods(&mut server, &["a"], 5).await;
    source.until_live("a").await;
    let node = r#"{"kind":"Node","metadata":{"uid":"n","name":"n1","resourceVersion":"6"}}"#;
    stream.line(&event("ADDED", node)).await;
    stream.line(&event("SOMETHING", node)).await;
    stream.line(&event("ADDED", &pod("b", "b", 7).replace("\"n1\"", "\"n2\""))).await;
    stream.line(&event("MODIFIED", r#"{"kind":"Pod","metadata":{"uid":"a","namespace":7}}"#)).await;
    stream.line(&event("ADDED", &pod("c", "c", 9))).await;
    let pods = source.until_live("c").await;
    assert_eq!(
        (pods.health.skipped.unknown, pods.health.skipped.foreign, pods.health.skipped.undecodable),
        (2, 1, 1)
    );
    assert!(live(&pods, "a") && !live(&pods, "b") && pods.health.state == SourceState::Up);
    stream.line("<html>502 Bad Gateway</html>").await;
    let down = SourceState::Down(FailureReason::Garbage);
    let pods = source.until("a malformed event", |pods| pods.health.state == down).await;
    assert!(live(&pods, "a") && live(&pods, "c"), "the pods are kept");
    let _stream = send_initial_pods(&mut server, &["a", "c", "d"], 20).await;
    let pods = source.until_live("d").await;
    assert_eq!((pods.len(), pods.health.state), (3, SourceState::Up));
}

#[tokio::test]
async fn malformed_lists_keep_the_pods() {
    let mut server = FakeServer::start().await;
    let mut source = RunningWatch::of(&server);
    let mut stream = send_initial_pods(&mut server, &["a"], 5).await;
    source.until_live("a").await;
    stream.line("garbage").await;
    server.next(&[STREAMING]).await.fail(400, "no").await;
    let list = server.next(&["resourceVersion=0"]).await;
    list.respond(200, r#"{"kind":"PodList","metadata":{"resourceVersion":"9"},"items":["#).await;
    for body in ["", "<html>", r#"{"kind":"Status","code":200}"#, r#"{"items":[]}"#] {
        server.next(&["resourceVersion=0"]).await.respond(200, body).await;
    }
    let list = server.next(&["resourceVersion=0"]).await;
    assert!(live(&source.seen.borrow(), "a"));
    list.respond(200, r#"{"kind":"PodList","metadata":{"resourceVersion":"9"},"items":[]}"#).await;
    source.until("an empty list", PodSnapshot::is_empty).await;
}

#[tokio::test]
async fn denied_is_one_state_change_and_a_new_token_is_read() {
    let mut server = FakeServer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "old").unwrap();
    let mut source = RunningWatch::start(kubelet_like(&server, token.clone()), quick());
    for _ in 0..3 {
        let exchange = server.next(&[STREAMING]).await;
        assert!(exchange.head.to_lowercase().contains("authorization: bearer old"));
        exchange.fail(403, "pods is forbidden").await;
    }
    let third = |pods: &PodSnapshot| pods.health.failures_of(FailureReason::Denied) == 3;
    let pods = source.until("three denied requests", third).await;
    assert_eq!(
        (pods.health.state, pods.health.state_changes),
        (SourceState::Down(FailureReason::Denied), 1)
    );
    assert!(!pods.synced);
    std::fs::write(&token, "new").unwrap();
    let mut exchange = server.next(&[STREAMING]).await;
    while exchange.head.to_lowercase().contains("bearer old") {
        exchange.fail(401, "expired").await;
        exchange = server.next(&[STREAMING]).await;
    }
    assert!(exchange.head.to_lowercase().contains("authorization: bearer new"));
    let mut stream = exchange.stream().await;
    stream.line(&end_of_initial(1)).await;
    source
        .until("a complete list", |pods| pods.synced && pods.health.state == SourceState::Up)
        .await;
}

/// An address that sends a token.
fn kubelet_like(server: &FakeServer, token: PathBuf) -> Address {
    Address::Kubelet(Endpoint {
        url: server.url.clone(),
        ca: None,
        insecure: false,
        auth: EndpointAuth::TokenFile(token),
    })
}

#[tokio::test]
async fn hung_or_absent_server_is_down_and_reached_again_later() {
    let mut server = FakeServer::start().await;
    let timings = WatchTimings { response_timeout: Duration::from_millis(300), ..quick() };
    let mut source = RunningWatch::start(server.address(), timings);
    let hung = server.next(&[STREAMING]).await;
    let state = |state: SourceState| move |pods: &PodSnapshot| pods.health.state == state;
    source.until("a timeout", state(SourceState::Down(FailureReason::Timeout))).await;
    drop(hung);
    // Some of the requests have timed out before their response.
    let mut streams = Vec::new();
    loop {
        tokio::select! {
            exchange = server.next(&[WATCH]) => {
                let mut stream = exchange.stream().await;
                stream.line(&end_of_initial(1)).await;
                streams.push(stream);
            }
            _ = source.until("a complete list", |pods| pods.synced) => break,
        }
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let address = kubeconfig(directory.path(), &format!("http://{free}"));
    let mut absent = RunningWatch::start(address, quick());
    absent.until("an absent server", state(SourceState::Down(FailureReason::Absent))).await;
}

#[tokio::test]
async fn idle_watch_is_restarted() {
    let mut server = FakeServer::start().await;
    let timings = WatchTimings { idle_timeout: Duration::from_secs(1), ..quick() };
    let mut source = RunningWatch::start(server.address(), timings);
    let _idle = send_initial_pods(&mut server, &["a"], 5).await;
    source.until_live("a").await;
    server.next(&[WATCH, "resourceVersion=5"]).await;
    let timed_out = |pods: &PodSnapshot| pods.health.failures_of(FailureReason::Timeout) > 0;
    assert!(live(&source.until("the idle timeout", timed_out).await, "a"));
}

#[tokio::test]
async fn task_ends_without_receivers() {
    let mut server = FakeServer::start().await;
    let mut source = RunningWatch::of(&server);
    let _stream = send_initial_pods(&mut server, &["a"], 5).await;
    source.until_live("a").await;
    drop(source.seen);
    timeout(HANG, source.task).await.unwrap().unwrap();
}
