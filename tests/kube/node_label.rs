//! The label of the node, from an API server in every mood.

use nvml_exporter::clock::Clock;
use nvml_exporter::kube::api::Address;
use nvml_exporter::kube::node_label::{Label, NodeLabel, Taken};
use nvml_exporter::kube::source::{Failure, State};
use tokio::sync::watch;

use crate::api::{node, quick};
use crate::http::{FakeServer, event};
use crate::until;

fn follow(server: &FakeServer, clock: Clock) -> watch::Receiver<Taken> {
    let (publish, seen) = watch::channel(Taken::unknown());
    let label = Label::parse("state=pending").unwrap();
    let address = Address::Url(server.url.clone());
    let source = NodeLabel { address, node: node(), label, pace: quick(), clock };
    tokio::spawn(source.run(publish));
    seen
}

fn named(name: &str, labels: &str) -> String {
    format!(r#"{{"kind":"Node","metadata":{{"name":"{name}","labels":{labels}}}}}"#)
}

const PENDING: &str = r#"{"state":"pending"}"#;

#[tokio::test]
async fn a_label_is_followed_as_it_comes_and_goes() {
    let mut server = FakeServer::start().await;
    let clock = Clock::start();
    let mut seen = follow(&server, clock);
    let is_set = |taken: &Taken| taken.is_set(clock.now().mono);
    let asked = ["/api/v1/nodes?", "fieldSelector=metadata.name%3Dn1", "watch=true"];
    let mut stream = server.next(&asked).await.stream().await;
    stream.line(&event("ADDED", &named("n1", r#"{"state":"success"}"#))).await;
    until(&mut seen, "an answer", |taken| taken.health.state == State::Up && !is_set(taken)).await;
    stream.line(&event("MODIFIED", &named("n1", PENDING))).await;
    until(&mut seen, "the label", is_set).await;

    // A server that does not know the selector tells of other nodes.
    stream.line(&event("MODIFIED", &named("n2", r#"{"state":"success"}"#))).await;
    stream.line(&event("BOOKMARK", r#"{"kind":"Node","metadata":{"name":""}}"#)).await;
    stream.end().await;
    let mut stream = server.next(&asked).await.stream().await;
    assert!(is_set(&seen.borrow()), "a broken watch changes nothing");
    stream.line(&event("ADDED", &named("n1", PENDING))).await;
    stream.line(&event("MODIFIED", &named("n1", "null"))).await;
    until(&mut seen, "no label", |taken| !is_set(taken)).await;
    stream.line(&event("MODIFIED", &named("n1", PENDING))).await;
    until(&mut seen, "the label", is_set).await;
    stream.line(&event("DELETED", &named("n1", PENDING))).await;
    until(&mut seen, "no node", |taken| !is_set(taken)).await;
}

#[tokio::test]
async fn what_a_server_cannot_tell_is_asked_again() {
    let mut server = FakeServer::start().await;
    let clock = Clock::start();
    let mut seen = follow(&server, clock);
    let down = |failure| move |taken: &Taken| taken.health.state == State::Down(failure);
    server.next(&[]).await.refuse(403, "nodes is forbidden").await;
    until(&mut seen, "a refusal", down(Failure::Denied)).await;
    for (line, failure) in [
        ("{\"type\":\n", Failure::Garbage),
        (r#"{"type":"ADDED","object":{"metadata":{"labels":{"state":7}}}}"#, Failure::Garbage),
        (r#"{"type":"ERROR","object":{"kind":"Status","code":410}}"#, Failure::Expired),
    ] {
        let mut stream = server.next(&[]).await.stream().await;
        stream.line(line.trim_end()).await;
        until(&mut seen, line, down(failure)).await;
        assert!(!seen.borrow().is_set(clock.now().mono));
    }
    let mut stream = server.next(&[]).await.stream().await;
    stream.line(&event("ADDED", &named("n1", PENDING))).await;
    until(&mut seen, "the label", |taken| taken.is_set(clock.now().mono)).await;
}
