//! The pods of the node, from an API server in every mood.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::clock::Clock;
use nvml_exporter::kube::api::{Address, NodeName};
use nvml_exporter::kube::pods::{ByUid, Pods};
use nvml_exporter::kube::source::{Failure, State};
use nvml_exporter::kube::watch::{Pace, PodWatch};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::http::{FakeServer, Stream, event, pod};
use crate::{HANG, until};

const STREAMING: &str = "sendInitialEvents=true";
const WATCH: &str = "watch=true";

pub(crate) fn quick() -> Pace {
    Pace {
        start: Duration::ZERO,
        backoff_min: Duration::from_millis(2),
        backoff_max: Duration::from_millis(10),
        answer: Duration::from_secs(20),
        idle: Duration::from_secs(20),
        initial: Duration::from_secs(20),
    }
}

pub(crate) fn node() -> NodeName {
    NodeName::new("n1").unwrap()
}

/// The task under test, and what it publishes.
struct Follower {
    seen: watch::Receiver<Pods>,
    changed: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Follower {
    fn start(address: Address, pace: Pace) -> Self {
        let (publish, seen) = watch::channel(Pods::unknown("test"));
        let changed = Arc::new(Notify::new());
        let source = PodWatch { address, node: node(), pace, clock: Clock::start() };
        let task = tokio::spawn(source.run(publish, Arc::clone(&changed)));
        Self { seen, changed, task }
    }

    fn of(server: &FakeServer) -> Self {
        Self::start(Address::Url(server.url.clone()), quick())
    }

    async fn until(&mut self, what: &str, is: impl Fn(&Pods) -> bool) -> Pods {
        until(&mut self.seen, what, is).await
    }

    async fn until_live(&mut self, uid: &str) -> Pods {
        self.until(uid, |pods| live(pods, uid)).await
    }
}

fn live(pods: &Pods, uid: &str) -> bool {
    matches!(pods.by_uid(uid), ByUid::Live(_))
}

fn end_of_initial(version: u32) -> String {
    let object = format!(
        r#"{{"kind":"Pod","metadata":{{"resourceVersion":"{version}","annotations":{{"k8s.io/initial-events-end":"true"}}}},"spec":{{"containers":null}},"status":{{}}}}"#
    );
    event("BOOKMARK", &object)
}

/// Answers the first request with a streaming list of these pods; it goes on as a watch.
async fn tell(server: &mut FakeServer, uids: &[&str], version: u32) -> Stream {
    let exchange = server.next(&[STREAMING, WATCH, "resourceVersion=0"]).await;
    let mut stream = exchange.stream().await;
    for uid in uids {
        stream.line(&event("ADDED", &pod(uid, uid, 1))).await;
    }
    stream.line(&end_of_initial(version)).await;
    stream
}

#[tokio::test]
async fn a_streaming_list_ends_with_its_bookmark_and_goes_on_as_a_watch() {
    let mut server = FakeServer::start().await;
    let mut follower = Follower::of(&server);
    let exchange = server.next(&[STREAMING, "fieldSelector=spec.nodeName%3Dn1"]).await;
    assert!(exchange.path().contains("allowWatchBookmarks=true"));
    let mut stream = exchange.stream().await;
    stream.line(&event("ADDED", &pod("a", "train", 1))).await;
    stream.line(&end_of_initial(5)).await;
    let pods = follower.until("a whole list", |pods| pods.synced).await;
    assert!(live(&pods, "a") && pods.health.state == State::Up);
    assert_eq!(&**pods.by_container("c-a").unwrap().1, "main");
    timeout(HANG, follower.changed.notified()).await.unwrap();
    stream.line(&event("ADDED", &pod("b", "infer", 7))).await;
    follower.until_live("b").await;
    stream.line(&event("DELETED", &pod("b", "infer", 8))).await;
    let deleted =
        |pods: &Pods| matches!(pods.by_uid("b"), ByUid::Deleted(id) if &*id.name == "infer");
    let pods = follower.until("a tombstone", deleted).await;
    assert!(live(&pods, "a"));
}

#[tokio::test]
async fn a_watch_that_ends_or_breaks_goes_on_from_the_last_version() {
    let mut server = FakeServer::start().await;
    let mut follower = Follower::of(&server);
    let stream = tell(&mut server, &["a"], 5).await;
    follower.until_live("a").await;
    stream.end().await;
    let mut stream = server.next(&[WATCH, "resourceVersion=5"]).await.stream().await;
    let bookmark =
        r#"{"kind":"Pod","metadata":{"resourceVersion":"9"},"spec":{"containers":null}}"#;
    stream.line(&event("BOOKMARK", bookmark)).await;
    let whole = event("ADDED", &pod("b", "infer", 10));
    stream.raw(&whole[..40]).await;
    drop(stream);
    let exchange = server.next(&[WATCH, "resourceVersion=9"]).await;
    assert_eq!(follower.seen.borrow().health.state, State::Down(Failure::Connection));
    let mut stream = exchange.stream().await;
    follower.until("up, with nothing to tell", |pods| pods.health.state == State::Up).await;
    stream.raw(&whole[..40]).await;
    stream.raw(&format!("{}\n", &whole[40..])).await;
    let pods = follower.until_live("b").await;
    assert!(live(&pods, "a") && pods.health.state == State::Up);
}

#[tokio::test]
async fn a_server_without_streaming_lists_is_asked_for_a_list() {
    for status in [400, 422] {
        let mut server = FakeServer::start().await;
        let mut follower = Follower::of(&server);
        server.next(&[STREAMING]).await.refuse(status, "sendInitialEvents is forbidden").await;
        let list = server.next(&["resourceVersion=0"]).await;
        assert!(!list.path().contains(WATCH), "{}", list.path());
        // Elements of a list do not say their kind.
        let a = pod("a", "train", 1).replace(r#""kind":"Pod","apiVersion":"v1","#, "");
        let body = format!(
            r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{"resourceVersion":"11"}},"items":[{a}]}}"#
        );
        list.whole(200, &body).await;
        let mut stream = server.next(&[WATCH, "resourceVersion=11"]).await.stream().await;
        let pods = follower.until_live("a").await;
        assert!(pods.synced);
        assert_eq!(pods.health.failed_so(Failure::Unsupported), 1);
        let gone = r#"{"kind":"Status","code":410,"message":"too old resource version"}"#;
        stream.line(&event("ERROR", gone)).await;
        let again = server.next(&["resourceVersion=0"]).await;
        assert!(!again.path().contains(STREAMING), "it is not tried twice");
    }
}

#[tokio::test]
async fn a_server_that_never_ends_its_initial_events_is_asked_for_a_list() {
    let mut server = FakeServer::start().await;
    let pace = Pace { initial: Duration::from_millis(300), ..quick() };
    let mut follower = Follower::start(Address::Url(server.url.clone()), pace);
    let mut stream = server.next(&[STREAMING]).await.stream().await;
    stream.line(&event("ADDED", &pod("a", "train", 1))).await;
    let list = server.next(&["resourceVersion=0"]).await;
    assert!(!list.path().contains(WATCH));
    list.whole(200, r#"{"kind":"PodList","metadata":{"resourceVersion":"2"},"items":null}"#).await;
    let pods = follower.until("a whole list", |pods| pods.synced).await;
    assert!(matches!(pods.by_uid("a"), ByUid::Deleted(_)));
}

#[tokio::test]
async fn gone_history_is_told_anew_and_nobody_is_forgotten_meanwhile() {
    let mut server = FakeServer::start().await;
    let mut follower = Follower::of(&server);
    let mut stream = tell(&mut server, &["a", "b"], 5).await;
    follower.until_live("b").await;
    let gone = r#"{"kind":"Status","code":410,"reason":"Expired","message":"too old"}"#;
    stream.line(&event("ERROR", gone)).await;
    let exchange = server.next(&[STREAMING]).await;
    let counted = |pods: &Pods| pods.health.failed_so(Failure::Expired) == 1;
    let pods = follower.until("the gap", counted).await;
    assert!(live(&pods, "a") && live(&pods, "b") && pods.synced);
    assert_eq!(pods.health.state, State::Up, "it is no failure of the server");
    let mut stream = exchange.stream().await;
    stream.line(&event("ADDED", &pod("b", "b", 20))).await;
    assert!(live(&follower.seen.borrow(), "a"), "the list has not ended");
    stream.line(&end_of_initial(21)).await;
    follower.until("a is gone", |pods| matches!(pods.by_uid("a"), ByUid::Deleted(_))).await;
    assert!(live(&follower.seen.borrow(), "b"));
    // The same as the status of a watch that was to go on.
    stream.end().await;
    server.next(&[WATCH, "resourceVersion=21"]).await.refuse(410, "too old").await;
    let _stream = tell(&mut server, &["b", "c"], 30).await;
    follower.until_live("c").await;
}

#[tokio::test]
async fn a_version_ahead_of_the_server_is_given_up() {
    let mut server = FakeServer::start().await;
    let mut follower = Follower::of(&server);
    let stream = tell(&mut server, &["a"], 5000).await;
    follower.until_live("a").await;
    stream.end().await;
    let words = "Timeout: Too large resource version: 5000, current: 7";
    server.next(&["resourceVersion=5000"]).await.refuse(504, words).await;
    let _stream = tell(&mut server, &["b"], 8).await;
    let pods = follower.until_live("b").await;
    assert!(matches!(pods.by_uid("a"), ByUid::Deleted(_)));
}

#[tokio::test]
async fn garbage_asks_for_everything_anew_and_strange_objects_do_not() {
    let mut server = FakeServer::start().await;
    let mut follower = Follower::of(&server);
    let mut stream = tell(&mut server, &["a"], 5).await;
    follower.until_live("a").await;
    let node = r#"{"kind":"Node","metadata":{"uid":"n","name":"n1","resourceVersion":"6"}}"#;
    stream.line(&event("ADDED", node)).await;
    stream.line(&event("SOMETHING", node)).await;
    stream.line(&event("ADDED", &pod("b", "b", 7).replace("\"n1\"", "\"n2\""))).await;
    stream.line(&event("MODIFIED", r#"{"kind":"Pod","metadata":{"uid":"a","namespace":7}}"#)).await;
    stream.line(&event("ADDED", &pod("c", "c", 9))).await;
    let pods = follower.until_live("c").await;
    assert_eq!(
        (pods.discards.unknown, pods.discards.foreign, pods.discards.undecodable),
        (2, 1, 1)
    );
    assert!(live(&pods, "a") && !live(&pods, "b") && pods.health.state == State::Up);
    stream.line("<html>502 Bad Gateway</html>").await;
    let down = State::Down(Failure::Garbage);
    let pods = follower.until("garbage", |pods| pods.health.state == down).await;
    assert!(live(&pods, "a") && live(&pods, "c"), "nobody is forgotten");
    let _stream = tell(&mut server, &["a", "c", "d"], 20).await;
    let pods = follower.until_live("d").await;
    assert_eq!((pods.len(), pods.health.state), (3, State::Up));
}

#[tokio::test]
async fn lists_that_are_no_lists_empty_nothing() {
    let mut server = FakeServer::start().await;
    let mut follower = Follower::of(&server);
    let mut stream = tell(&mut server, &["a"], 5).await;
    follower.until_live("a").await;
    stream.line("garbage").await;
    server.next(&[STREAMING]).await.refuse(400, "no").await;
    let list = server.next(&["resourceVersion=0"]).await;
    list.whole(200, r#"{"kind":"PodList","metadata":{"resourceVersion":"9"},"items":["#).await;
    for body in ["", "<html>", r#"{"kind":"Status","code":200}"#, r#"{"items":[]}"#] {
        server.next(&["resourceVersion=0"]).await.whole(200, body).await;
    }
    let list = server.next(&["resourceVersion=0"]).await;
    assert!(live(&follower.seen.borrow(), "a"));
    list.whole(200, r#"{"kind":"PodList","metadata":{"resourceVersion":"9"},"items":[]}"#).await;
    follower.until("an empty list", Pods::is_empty).await;
}

#[tokio::test]
async fn denied_is_said_once_and_a_new_token_is_read() {
    let mut server = FakeServer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "old").unwrap();
    let mut follower = Follower::start(kubelet_like(&server, token.clone()), quick());
    for _ in 0..3 {
        let exchange = server.next(&[STREAMING]).await;
        assert!(exchange.head.to_lowercase().contains("authorization: bearer old"));
        exchange.refuse(403, "pods is forbidden").await;
    }
    let third = |pods: &Pods| pods.health.failed_so(Failure::Denied) == 3;
    let pods = follower.until("three refusals", third).await;
    assert_eq!((pods.health.state, pods.health.changes), (State::Down(Failure::Denied), 1));
    assert!(!pods.synced);
    std::fs::write(&token, "new").unwrap();
    let mut exchange = server.next(&[STREAMING]).await;
    while exchange.head.to_lowercase().contains("bearer old") {
        exchange.refuse(401, "expired").await;
        exchange = server.next(&[STREAMING]).await;
    }
    assert!(exchange.head.to_lowercase().contains("authorization: bearer new"));
    let mut stream = exchange.stream().await;
    stream.line(&end_of_initial(1)).await;
    follower.until("a whole list", |pods| pods.synced && pods.health.state == State::Up).await;
}

/// An address that sends a token.
fn kubelet_like(server: &FakeServer, token: PathBuf) -> Address {
    Address::Kubelet { url: server.url.clone(), ca: None, insecure: false, token: Some(token) }
}

#[tokio::test]
async fn a_server_that_hangs_or_is_not_there_is_down_and_found_again() {
    let mut server = FakeServer::start().await;
    let pace = Pace { answer: Duration::from_millis(300), ..quick() };
    let mut follower = Follower::start(Address::Url(server.url.clone()), pace);
    let hung = server.next(&[STREAMING]).await;
    let state = |state: State| move |pods: &Pods| pods.health.state == state;
    follower.until("a timeout", state(State::Down(Failure::Timeout))).await;
    drop(hung);
    // Some of the questions have been given up before they are answered.
    let mut streams = Vec::new();
    loop {
        tokio::select! {
            exchange = server.next(&[WATCH]) => {
                let mut stream = exchange.stream().await;
                stream.line(&end_of_initial(1)).await;
                streams.push(stream);
            }
            _ = follower.until("a whole list", |pods| pods.synced) => break,
        }
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut nobody = Follower::start(Address::Url(format!("http://{free}")), quick());
    nobody.until("nobody there", state(State::Down(Failure::Absent))).await;
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_begun_anew() {
    let mut server = FakeServer::start().await;
    let pace = Pace { idle: Duration::from_secs(1), ..quick() };
    let mut follower = Follower::start(Address::Url(server.url.clone()), pace);
    let _silent = tell(&mut server, &["a"], 5).await;
    follower.until_live("a").await;
    server.next(&[WATCH, "resourceVersion=5"]).await;
    let silent = |pods: &Pods| pods.health.failed_so(Failure::Timeout) > 0;
    assert!(live(&follower.until("silence", silent).await, "a"));
}

#[tokio::test]
async fn it_ends_when_nobody_listens() {
    let mut server = FakeServer::start().await;
    let mut follower = Follower::of(&server);
    let _stream = tell(&mut server, &["a"], 5).await;
    follower.until_live("a").await;
    drop(follower.seen);
    timeout(HANG, follower.task).await.unwrap().unwrap();
}
