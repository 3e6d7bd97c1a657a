//! Tests of the node label watch with a fake API server, including failures.

use nvml_exporter::clock::Clock;
use nvml_exporter::kube::node_label::{LabelRequirement, NodeLabelState, NodeLabelWatch};
use nvml_exporter::kube::source::{FailureReason, SourceState};
use tokio::sync::watch;

use crate::api::{node, quick};
use crate::http::{FakeServer, event};
use crate::until;

fn start(server: &FakeServer, clock: Clock) -> watch::Receiver<NodeLabelState> {
    let (publish, seen) = watch::channel(NodeLabelState::unknown());
    let label = LabelRequirement::parse("state=pending").unwrap();
    let address = server.address();
    let source = NodeLabelWatch { address, node: node(), label, timings: quick(), clock };
    tokio::spawn(source.run(publish));
    seen
}

fn node_object(name: &str, labels: &str) -> String {
    format!(r#"{{"kind":"Node","metadata":{{"name":"{name}","labels":{labels}}}}}"#)
}

const PENDING: &str = r#"{"state":"pending"}"#;

#[tokio::test]
async fn label_changes_are_published() {
    let mut server = FakeServer::start().await;
    let clock = Clock::start();
    let mut seen = start(&server, clock);
    let is_set = |state: &NodeLabelState| state.is_set(clock.now().mono);
    let query =
        ["/api/v1/nodes?", "fieldSelector=metadata.name%3Dn1", "watch=true", "resourceVersion=0"];
    let exchange = server.next(&query).await;
    let accept = "accept: application/json;as=partialobjectmetadata;g=meta.k8s.io;v=v1";
    assert!(exchange.head.to_lowercase().contains(accept), "{}", exchange.head);
    let mut stream = exchange.stream().await;
    stream.line(&event("ADDED", &node_object("n1", r#"{"state":"success"}"#))).await;
    until(&mut seen, "a response", |state| state.health.state == SourceState::Up && !is_set(state))
        .await;
    stream.line(&event("MODIFIED", &node_object("n1", PENDING))).await;
    until(&mut seen, "the label", is_set).await;

    // A server without support for the selector sends other nodes.
    stream.line(&event("MODIFIED", &node_object("n2", r#"{"state":"success"}"#))).await;
    stream.line(&event("BOOKMARK", r#"{"kind":"Node","metadata":{"name":""}}"#)).await;
    stream.end().await;
    let mut stream = server.next(&query).await.stream().await;
    assert!(is_set(&seen.borrow()), "a broken watch changes nothing");
    stream.line(&event("ADDED", &node_object("n1", PENDING))).await;
    stream.line(&event("MODIFIED", &node_object("n1", "null"))).await;
    until(&mut seen, "no label", |state| !is_set(state)).await;
    stream.line(&event("MODIFIED", &node_object("n1", PENDING))).await;
    until(&mut seen, "the label", is_set).await;
    stream.line(&event("DELETED", &node_object("n1", PENDING))).await;
    until(&mut seen, "no node", |state| !is_set(state)).await;
}

#[tokio::test]
async fn failed_watch_is_retried() {
    let mut server = FakeServer::start().await;
    let clock = Clock::start();
    let mut seen = start(&server, clock);
    let down =
        |failure| move |state: &NodeLabelState| state.health.state == SourceState::Down(failure);
    server.next(&[]).await.fail(403, "nodes is forbidden").await;
    until(&mut seen, "a denied request", down(FailureReason::Denied)).await;
    for (line, failure) in [
        ("{\"type\":\n", FailureReason::Garbage),
        (
            r#"{"type":"ADDED","object":{"metadata":{"labels":{"state":7}}}}"#,
            FailureReason::Garbage,
        ),
        (r#"{"type":"ERROR","object":{"kind":"Status","code":410}}"#, FailureReason::Expired),
    ] {
        let mut stream = server.next(&[]).await.stream().await;
        stream.line(line.trim_end()).await;
        until(&mut seen, line, down(failure)).await;
        assert!(!seen.borrow().is_set(clock.now().mono));
    }
    let mut stream = server.next(&[]).await.stream().await;
    stream.line(&event("ADDED", &node_object("n1", PENDING))).await;
    until(&mut seen, "the label", |state| state.is_set(clock.now().mono)).await;
}
