//! Tests of the polled list of the kubelet's pods.

use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::clock::Clock;
use nvml_exporter::kube::endpoint::{Endpoint, EndpointAuth};
use nvml_exporter::kube::kubelet_pods::KubeletPodPoller;
use nvml_exporter::kube::pod_sources::{OtherPodSource, PodSources};
use nvml_exporter::kube::pods::{PodSnapshot, UidLookup};
use nvml_exporter::kube::source::{FailureReason, SourceState};
use tokio::sync::{Notify, watch};

use crate::api::{no_standby, only, quick};
use crate::http::{FakeServer, pod};
use crate::until;

fn pod_list(pods: &[String]) -> String {
    format!(
        r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{}},"items":[{}]}}"#,
        pods.join(",")
    )
}

#[tokio::test]
async fn kubelet_list_is_polled_and_kept_on_failures() {
    let mut server = FakeServer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "secret").unwrap();
    let auth = EndpointAuth::TokenFile(token);
    let interval = Duration::from_millis(5);
    let source = KubeletPodPoller {
        kubelet: Endpoint { url: server.url.clone(), ca: None, insecure: true, auth },
        interval,
        timings: quick(),
    };
    let source = only(OtherPodSource::Kubelet(source));
    let (publish, mut seen) = watch::channel(PodSnapshot::unknown("test"));
    let changed = Arc::new(Notify::new());
    tokio::spawn(source.run(publish, no_standby(), Arc::clone(&changed)));
    let hash = "a55e52cb9c4a2d75b46842070b391f86";
    let exchange = server.next(&["/pods"]).await;
    assert!(exchange.head.to_lowercase().contains("authorization: bearer secret"));
    exchange.respond(200, &pod_list(&[pod(hash, "static-n1", 0), pod("b", "b", 0)])).await;
    let live = |uid: &'static str| {
        move |pods: &PodSnapshot| matches!(pods.by_uid(uid), UidLookup::Live(_))
    };
    let pods = until(&mut seen, "a static pod", live(hash)).await;
    assert!(pods.synced && pods.health.state == SourceState::Up);
    changed.notified().await;
    server.next(&["/pods"]).await.fail(403, "no").await;
    let down = SourceState::Down(FailureReason::Denied);
    let pods =
        until(&mut seen, "a denied request", |pods: &PodSnapshot| pods.health.state == down).await;
    assert_eq!(pods.len(), 2);
    server.next(&["/pods"]).await.respond(200, r#"{"kind":"PodList","items":[{"#).await;
    let down = SourceState::Down(FailureReason::Garbage);
    let pods =
        until(&mut seen, "a malformed list", |pods: &PodSnapshot| pods.health.state == down).await;
    assert_eq!(pods.len(), 2);
    server.next(&["/pods"]).await.respond(200, &pod_list(&[pod("b", "b", 0)])).await;
    let unlisted =
        |pods: &PodSnapshot| matches!(pods.by_uid(hash), UidLookup::Live(known) if !known.listed);
    until(&mut seen, "a list without it, which does not prove its end", unlisted).await;
    let mut ended = pod("b", "b", 0);
    ended = ended.replace(r#""uid""#, r#""deletionTimestamp":"2026-01-01T00:00:00Z","uid""#);
    server.next(&["/pods"]).await.respond(200, &pod_list(&[ended])).await;
    server.next(&["/pods"]).await.respond(200, &pod_list(&[])).await;
    let deleted = |pods: &PodSnapshot| matches!(pods.by_uid("b"), UidLookup::Deleted(_));
    until(&mut seen, "the end of a pod with a deletion timestamp", deleted).await;
}

#[tokio::test]
async fn token_of_a_file_is_read_again_by_the_next_client() {
    let mut server = FakeServer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "old\n").unwrap();
    let auth = EndpointAuth::TokenFile(token.clone());
    let source = KubeletPodPoller {
        kubelet: Endpoint { url: server.url.clone(), ca: None, insecure: true, auth },
        interval: Duration::from_millis(5),
        timings: quick(),
    };
    // Its client is too old after a millisecond.
    let clock = Clock::with_rate(60_000);
    let source = PodSources { clock, ..only(OtherPodSource::Kubelet(source)) };
    let (publish, _seen) = watch::channel(PodSnapshot::unknown("test"));
    tokio::spawn(source.run(publish, no_standby(), Arc::new(Notify::new())));
    let exchange = server.next(&["/pods"]).await;
    assert!(exchange.head.to_lowercase().contains("authorization: bearer old\r\n"));
    std::fs::write(&token, "new").unwrap();
    exchange.respond(200, &pod_list(&[])).await;
    let exchange = server.next(&["/pods"]).await;
    assert!(exchange.head.to_lowercase().contains("authorization: bearer new\r\n"));
}
