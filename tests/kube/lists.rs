//! Lists that are read again and again: the kubelet's pods, and the slices of a driver.

use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::clock::Clock;
use nvml_exporter::kube::api::Address;
use nvml_exporter::kube::assignments::ClaimedDevice;
use nvml_exporter::kube::kubelet_pods::KubeletPods;
use nvml_exporter::kube::pods::{ByUid, Pods};
use nvml_exporter::kube::resource_slices::{self, ResourceSlices};
use nvml_exporter::kube::source::{Failure, State};
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
async fn the_kubelets_list_is_read_again_and_a_failure_empties_nothing() {
    let mut server = FakeServer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "secret").unwrap();
    let address =
        Address::Kubelet { url: server.url.clone(), ca: None, insecure: true, token: Some(token) };
    let every = Duration::from_millis(5);
    let source = KubeletPods { address, node: node(), every, pace: quick(), clock: Clock::start() };
    let (publish, mut seen) = watch::channel(Pods::unknown("test"));
    let changed = Arc::new(Notify::new());
    tokio::spawn(source.run(publish, Arc::clone(&changed)));
    let hash = "a55e52cb9c4a2d75b46842070b391f86";
    let exchange = server.next(&["/pods"]).await;
    assert!(exchange.head.to_lowercase().contains("authorization: bearer secret"));
    exchange.whole(200, &pod_list(&[pod(hash, "static-n1", 0), pod("b", "b", 0)])).await;
    let live = |uid: &'static str| move |pods: &Pods| matches!(pods.by_uid(uid), ByUid::Live(_));
    let pods = until(&mut seen, "a static pod", live(hash)).await;
    assert!(pods.synced && pods.health.state == State::Up);
    changed.notified().await;
    server.next(&["/pods"]).await.refuse(403, "no").await;
    let down = State::Down(Failure::Denied);
    let pods = until(&mut seen, "a refusal", |pods: &Pods| pods.health.state == down).await;
    assert_eq!(pods.len(), 2);
    server.next(&["/pods"]).await.whole(200, r#"{"kind":"PodList","items":[{"#).await;
    let down = State::Down(Failure::Garbage);
    let pods = until(&mut seen, "garbage", |pods: &Pods| pods.health.state == down).await;
    assert_eq!(pods.len(), 2);
    server.next(&["/pods"]).await.whole(200, &pod_list(&[pod("b", "b", 0)])).await;
    let unlisted = |pods: &Pods| matches!(pods.by_uid(hash), ByUid::Live(known) if !known.listed);
    until(&mut seen, "a list without it, which does not prove its end", unlisted).await;
    let mut ended = pod("b", "b", 0);
    ended = ended.replace(r#""uid""#, r#""deletionTimestamp":"2026-01-01T00:00:00Z","uid""#);
    server.next(&["/pods"]).await.whole(200, &pod_list(&[ended])).await;
    server.next(&["/pods"]).await.whole(200, &pod_list(&[])).await;
    let deleted = |pods: &Pods| matches!(pods.by_uid("b"), ByUid::Deleted(_));
    until(&mut seen, "the deletion of a pod that was to be deleted", deleted).await;
}

fn slice_list(uuid: &str) -> String {
    format!(
        r#"{{"kind":"ResourceSliceList","metadata":{{"resourceVersion":"1"}},"items":[{{"metadata":{{"name":"s"}},"spec":{{"driver":"gpu.nvidia.com","nodeName":"n1","pool":{{"name":"n1","generation":1,"resourceSliceCount":1}},"devices":[{{"name":"gpu-0","basic":{{"attributes":{{"uuid":{{"string":"{uuid}"}}}}}}}}]}}}}]}}"#
    )
}

fn uuid(taken: &resource_slices::Taken) -> Option<String> {
    let claimed = ClaimedDevice {
        claim_namespace: "demo".into(),
        claim_name: "gpu".into(),
        driver: "gpu.nvidia.com".into(),
        pool: "n1".into(),
        device: "gpu-0".into(),
        share: None,
    };
    Some(taken.slices.as_ref()?.get(&claimed)?.uuid.as_ref()?.to_string())
}

#[tokio::test]
async fn slices_are_read_when_claims_turn_up_in_the_version_that_the_server_knows() {
    let mut server = FakeServer::start().await;
    let source = ResourceSlices {
        address: Address::Url(server.url.clone()),
        node: node(),
        every: Duration::from_secs(3600),
        pause: Duration::from_millis(5),
        pace: quick(),
        clock: Clock::start(),
    };
    let (publish, mut seen) = watch::channel(resource_slices::Taken::unknown());
    let claims = Arc::new(Notify::new());
    tokio::spawn(source.run(publish, Arc::clone(&claims)));
    claims.notify_one();
    let all = ["/v1/", "/v1beta2/", "/v1beta1/"];
    for version in all {
        let exchange =
            server.next(&[version, "resourceslices?fieldSelector=spec.nodeName%3Dn1"]).await;
        exchange.refuse(404, "the server could not find the requested resource").await;
    }
    let state = |state: State| move |taken: &resource_slices::Taken| taken.health.state == state;
    until(&mut seen, "no such API", state(State::Down(Failure::Unsupported))).await;
    server.next(&["/v1/"]).await.refuse(404, "no").await;
    server.next(&["/v1beta2/"]).await.refuse(404, "no").await;
    server.next(&["/v1beta1/"]).await.whole(200, &slice_list("GPU-1")).await;
    let taken = until(&mut seen, "slices", state(State::Up)).await;
    assert_eq!(uuid(&taken).as_deref(), Some("GPU-1"));
    claims.notify_one();
    server.next(&["/v1/"]).await.refuse(403, "resourceslices is forbidden").await;
    let taken = until(&mut seen, "a refusal", state(State::Down(Failure::Denied))).await;
    assert_eq!(uuid(&taken).as_deref(), Some("GPU-1"), "what was said last is kept");
    for body in [r#"{"kind":"ResourceSliceList","items":[{"spec":7}]}"#, "{", "<html>"] {
        server.next(&["/v1/"]).await.whole(200, body).await;
    }
    server.next(&["/v1/"]).await.whole(200, &slice_list("GPU-2")).await;
    let new = |taken: &resource_slices::Taken| uuid(taken).as_deref() == Some("GPU-2");
    let taken = until(&mut seen, "new slices", new).await;
    assert_eq!(taken.health.failed_so(Failure::Garbage), 3);
}
