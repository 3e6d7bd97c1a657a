//! Tests of the polled lists: the kubelet's pods and the resource slices.

use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::clock::Clock;
use nvml_exporter::kube::assignments::ClaimedDevice;
use nvml_exporter::kube::endpoint::{Endpoint, EndpointAuth};
use nvml_exporter::kube::kubelet_pods::KubeletPodPoller;
use nvml_exporter::kube::pods::{PodSnapshot, UidLookup};
use nvml_exporter::kube::resource_slices::{self, ResourceSlicePoller};
use nvml_exporter::kube::source::{FailureReason, SourceState};
use tokio::sync::{Notify, watch};

use crate::api::{node, quick};
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
        node: node(),
        interval,
        timings: quick(),
        clock: Clock::start(),
    };
    let (publish, mut seen) = watch::channel(PodSnapshot::unknown("test"));
    let changed = Arc::new(Notify::new());
    tokio::spawn(source.run(publish, Arc::clone(&changed)));
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

fn slice_list(uuid: &str) -> String {
    format!(
        r#"{{"kind":"ResourceSliceList","metadata":{{"resourceVersion":"1"}},"items":[{{"metadata":{{"name":"s"}},"spec":{{"driver":"gpu.nvidia.com","nodeName":"n1","pool":{{"name":"n1","generation":1,"resourceSliceCount":1}},"devices":[{{"name":"gpu-0","basic":{{"attributes":{{"uuid":{{"string":"{uuid}"}}}}}}}}]}}}}]}}"#
    )
}

fn uuid(state: &resource_slices::ResourceSlicesState) -> Option<String> {
    let claimed = ClaimedDevice {
        claim_namespace: "demo".into(),
        claim_name: "gpu".into(),
        driver: "gpu.nvidia.com".into(),
        pool: "n1".into(),
        device: "gpu-0".into(),
        share: None,
    };
    Some(state.slices.as_ref()?.get(&claimed)?.uuid.as_ref()?.to_string())
}

#[tokio::test]
async fn slices_are_read_for_claims_in_the_newest_api_version_of_the_server() {
    let mut server = FakeServer::start().await;
    let source = ResourceSlicePoller {
        address: server.address(),
        node: node(),
        interval: Duration::from_secs(3600),
        min_interval: Duration::from_millis(5),
        timings: quick(),
        clock: Clock::start(),
    };
    let (publish, mut seen) = watch::channel(resource_slices::ResourceSlicesState::unknown());
    let claims = Arc::new(Notify::new());
    tokio::spawn(source.run(publish, Arc::clone(&claims)));
    claims.notify_one();
    for version in ["/v1/", "/v1beta2/", "/v1beta1/"] {
        let exchange =
            server.next(&[version, "resourceslices?fieldSelector=spec.nodeName%3Dn1"]).await;
        exchange.fail(404, "the server could not find the requested resource").await;
    }
    let is = |state: SourceState| {
        move |slices: &resource_slices::ResourceSlicesState| slices.health.state == state
    };
    until(&mut seen, "no such API", is(SourceState::Down(FailureReason::Unsupported))).await;
    server.next(&["/v1/"]).await.fail(404, "no").await;
    server.next(&["/v1beta2/"]).await.fail(404, "no").await;
    server.next(&["/v1beta1/"]).await.respond(200, &slice_list("GPU-1")).await;
    let slices = until(&mut seen, "slices", is(SourceState::Up)).await;
    assert_eq!(uuid(&slices).as_deref(), Some("GPU-1"));
    claims.notify_one();
    server.next(&["/v1/"]).await.fail(403, "resourceslices is forbidden").await;
    let slices =
        until(&mut seen, "a denied request", is(SourceState::Down(FailureReason::Denied))).await;
    assert_eq!(uuid(&slices).as_deref(), Some("GPU-1"), "the last slices are kept");
    for body in [r#"{"kind":"ResourceSliceList","items":[{"spec":7}]}"#, "{", "<html>"] {
        server.next(&["/v1/"]).await.respond(200, body).await;
    }
    server.next(&["/v1/"]).await.respond(200, &slice_list("GPU-2")).await;
    let new =
        |slices: &resource_slices::ResourceSlicesState| uuid(slices).as_deref() == Some("GPU-2");
    let slices = until(&mut seen, "new slices", new).await;
    assert_eq!(slices.health.failures_of(FailureReason::Garbage), 3);
}
