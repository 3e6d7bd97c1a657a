//! Tests of the objects of dynamic resource allocation: resource slices and claims.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::clock::Clock;
use nvml_exporter::kube::assignments::{ClaimedDevice, SliceKey};
use nvml_exporter::kube::resource_claims::table::{ClaimLookup, ClaimRequest};
use nvml_exporter::kube::resource_claims::{ResourceClaimReader, ResourceClaimsState};
use nvml_exporter::kube::resource_slices::{ResourceSlicePoller, ResourceSlicesState};
use nvml_exporter::kube::source::{FailureReason, SourceState};
use tokio::sync::watch;

use crate::api::{node, quick};
use crate::http::FakeServer;
use crate::until;

type DeviceSender = watch::Sender<Arc<BTreeSet<SliceKey>>>;
type RequestSender = watch::Sender<Arc<BTreeSet<ClaimRequest>>>;

/// A selector of the slices of the node, and of those of no single node.
const OF_NODE: &str =
    "resourceslices?fieldSelector=spec.nodeName%3Dn1%2Cspec.driver%3Dgpu.nvidia.com";
const OF_NO_NODE: &str =
    "resourceslices?fieldSelector=spec.nodeName%3D%2Cspec.driver%3Dgpu.nvidia.com";

fn slice_list(node: &str, pool: &str, devices: &[(&str, &str)]) -> String {
    let device = |(name, uuid): &(&str, &str)| {
        format!(r#"{{"name":"{name}","basic":{{"attributes":{{"uuid":{{"string":"{uuid}"}}}}}}}}"#)
    };
    let devices = devices.iter().map(device).collect::<Vec<_>>().join(",");
    format!(
        r#"{{"kind":"ResourceSliceList","metadata":{{"resourceVersion":"1"}},"items":[{{"metadata":{{"name":"s"}},"spec":{{"driver":"gpu.nvidia.com",{node},"pool":{{"name":"{pool}","generation":1,"resourceSliceCount":1}},"devices":[{devices}]}}}}]}}"#
    )
}

fn of_node(devices: &[(&str, &str)]) -> String {
    slice_list(r#""nodeName":"n1""#, "n1", devices)
}

const NO_SLICES: &str = r#"{"kind":"ResourceSliceList","metadata":{},"items":[]}"#;

fn claimed(pool: &str, device: &str) -> ClaimedDevice {
    ClaimedDevice {
        claim_namespace: "demo".into(),
        claim_name: "gpu".into(),
        driver: "gpu.nvidia.com".into(),
        pool: pool.into(),
        device: device.into(),
        share: None,
    }
}

fn uuid(state: &ResourceSlicesState, pool: &str, device: &str) -> Option<String> {
    let slices = state.slices.as_ref()?;
    Some(slices.get(&claimed(pool, device))?.uuid.as_ref()?.to_string())
}

fn claim_devices(sender: &DeviceSender, devices: &[(&str, &str)]) {
    let keys = devices.iter().map(|(pool, device)| claimed(pool, device).key());
    sender.send_replace(Arc::new(keys.collect()));
}

fn start_slices(server: &FakeServer) -> (DeviceSender, watch::Receiver<ResourceSlicesState>) {
    let poller = ResourceSlicePoller {
        address: server.address(),
        node: node(),
        interval: Duration::from_secs(3600),
        min_interval: Duration::from_millis(2),
        timings: quick(),
        clock: Clock::start(),
    };
    let (publish, seen) = watch::channel(ResourceSlicesState::unknown());
    let (claims, receiver) = watch::channel(Arc::default());
    tokio::spawn(poller.run(publish, receiver));
    (claims, seen)
}

fn slices_are(state: SourceState) -> impl FnMut(&ResourceSlicesState) -> bool {
    move |slices: &ResourceSlicesState| slices.health.state == state
}

#[tokio::test]
async fn slices_are_read_for_claims_in_the_newest_api_version_of_the_server() {
    let mut server = FakeServer::start().await;
    let (claims, mut seen) = start_slices(&server);
    claim_devices(&claims, &[("n1", "gpu-0")]);
    for version in ["/v1/", "/v1beta2/", "/v1beta1/"] {
        let exchange = server.next(&[version, OF_NODE]).await;
        exchange.fail(404, "the server could not find the requested resource").await;
    }
    let down = SourceState::Down(FailureReason::Unsupported);
    until(&mut seen, "no such API", slices_are(down)).await;
    server.next(&["/v1/"]).await.fail(404, "no").await;
    server.next(&["/v1beta2/"]).await.fail(404, "no").await;
    server.next(&["/v1beta1/"]).await.respond(200, &of_node(&[("gpu-0", "GPU-1")])).await;
    let slices = until(&mut seen, "slices", slices_are(SourceState::Up)).await;
    assert_eq!(uuid(&slices, "n1", "gpu-0").as_deref(), Some("GPU-1"));
    // A new claim causes an early request, a device that is known already does not.
    claim_devices(&claims, &[("n1", "gpu-0"), ("n1", "gpu-1")]);
    server.next(&["/v1/"]).await.fail(403, "resourceslices is forbidden").await;
    let down = SourceState::Down(FailureReason::Denied);
    let slices = until(&mut seen, "a denied request", slices_are(down)).await;
    assert_eq!(uuid(&slices, "n1", "gpu-0").as_deref(), Some("GPU-1"), "the last ones are kept");
    for body in ["{", "<html>"] {
        server.next(&["/v1/"]).await.respond(200, body).await;
    }
    let list = of_node(&[("gpu-0", "GPU-2"), ("gpu-1", "GPU-3")]);
    let list = list.replace(r#""items":["#, r#""items":[{"spec":7},"#);
    server.next(&["/v1/"]).await.respond(200, &list).await;
    let new =
        |slices: &ResourceSlicesState| uuid(slices, "n1", "gpu-0").as_deref() == Some("GPU-2");
    let slices = until(&mut seen, "new slices", new).await;
    assert_eq!(slices.health.failures_of(FailureReason::Garbage), 2);
    assert_eq!(slices.health.skipped.undecodable, 1);
}

#[tokio::test]
async fn slices_of_several_nodes_are_read_only_for_a_device_that_the_node_lacks() {
    let mut server = FakeServer::start().await;
    let (claims, mut seen) = start_slices(&server);
    claim_devices(&claims, &[("n1", "gpu-0")]);
    server.next(&["/v1/", OF_NODE]).await.respond(200, &of_node(&[("gpu-0", "GPU-1")])).await;
    until(&mut seen, "slices", slices_are(SourceState::Up)).await;
    claim_devices(&claims, &[("n1", "gpu-0"), ("rack", "gpu-0")]);
    server.next(&["/v1/", OF_NODE]).await.respond(200, &of_node(&[("gpu-0", "GPU-1")])).await;
    let shared = slice_list(r#""allNodes":true"#, "rack", &[("gpu-0", "GPU-9")]);
    server.next(&["/v1/", OF_NO_NODE]).await.respond(200, &shared).await;
    let both = |slices: &ResourceSlicesState| {
        uuid(slices, "n1", "gpu-0").is_some() && uuid(slices, "rack", "gpu-0").is_some()
    };
    until(&mut seen, "both", both).await;
}

#[tokio::test]
async fn claimed_device_is_kept_while_its_slice_is_absent_and_forgotten_with_its_claim() {
    let mut server = FakeServer::start().await;
    let (claims, mut seen) = start_slices(&server);
    claim_devices(&claims, &[("n1", "gpu-0")]);
    server.next(&[OF_NODE]).await.respond(200, &of_node(&[("gpu-0", "GPU-1")])).await;
    until(&mut seen, "slices", slices_are(SourceState::Up)).await;
    claim_devices(&claims, &[("n1", "gpu-0"), ("n1", "gpu-7")]);
    // The driver is restarted: the unknown device is asked for again and again, less and less often.
    for _ in 0..3 {
        server.next(&[OF_NODE]).await.respond(200, NO_SLICES).await;
        server.next(&[OF_NO_NODE]).await.respond(200, NO_SLICES).await;
    }
    let slices = seen.borrow_and_update().clone();
    assert_eq!(uuid(&slices, "n1", "gpu-0").as_deref(), Some("GPU-1"));
    claim_devices(&claims, &[]);
    until(&mut seen, "no slices", |slices| slices.slices.is_none()).await;
}

fn claim_json(uid: &str, pod: &str, admin: bool) -> String {
    format!(
        r#"{{"kind":"ResourceClaim","metadata":{{"uid":"{uid}"}},"status":{{"reservedFor":[{{"resource":"pods","name":"x","uid":"{pod}"}}],"allocation":{{"devices":{{"results":[{{"request":"gpu","driver":"gpu.nvidia.com","pool":"n1","device":"gpu-0","adminAccess":{admin}}}]}}}}}}}}"#
    )
}

fn request(claim: &str, pod: &str) -> ClaimRequest {
    ClaimRequest { claim: ("demo".into(), claim.into()), pod: pod.into() }
}

fn lookup<'a>(state: &'a ResourceClaimsState, claim: &str, pod: &str) -> ClaimLookup<'a> {
    let name = claim.into();
    state.claims.get(&ClaimedDevice { claim_name: name, ..claimed("n1", "gpu-0") }, pod)
}

fn is_read(state: &ResourceClaimsState, claim: &str, pod: &str) -> bool {
    matches!(lookup(state, claim, pod), ClaimLookup::Read(_))
}

fn need(sender: &RequestSender, requests: &[(&str, &str)]) {
    let requests = requests.iter().map(|(claim, pod)| request(claim, pod));
    sender.send_replace(Arc::new(requests.collect()));
}

fn start_claims(server: &FakeServer) -> (RequestSender, watch::Receiver<ResourceClaimsState>) {
    let reader = ResourceClaimReader {
        address: server.address(),
        refused_backoff_max: Duration::from_millis(5),
        timings: quick(),
        clock: Clock::start(),
    };
    let (publish, seen) = watch::channel(ResourceClaimsState::unknown());
    let (needed, receiver) = watch::channel(Arc::default());
    tokio::spawn(reader.run(publish, receiver));
    (needed, seen)
}

#[tokio::test]
async fn claim_is_read_once_for_its_pods_and_again_for_the_pod_of_its_successor() {
    let mut server = FakeServer::start().await;
    let (needed, mut seen) = start_claims(&server);
    need(&needed, &[("a", "p-1")]);
    let path = "/v1/namespaces/demo/resourceclaims/a";
    server.next(&[path]).await.respond(200, &claim_json("c-1", "p-1", false)).await;
    let read = |claim: &'static str, pod: &'static str| {
        move |state: &ResourceClaimsState| is_read(state, claim, pod)
    };
    let state = until(&mut seen, "the claim", read("a", "p-1")).await;
    assert_eq!(state.health.state, SourceState::Up);
    // The next request is for the new claim: the known one is not read again.
    need(&needed, &[("a", "p-1"), ("b", "p-2")]);
    let exchange = server.next(&["/v1/namespaces/demo/resourceclaims/b"]).await;
    exchange.respond(200, &claim_json("c-2", "p-2", true)).await;
    let state = until(&mut seen, "another claim", read("b", "p-2")).await;
    let ClaimLookup::Read(device) = lookup(&state, "b", "p-2") else { panic!("it was read") };
    assert!(device.admin_access);
    // The claim was deleted with its pod, and created again for another one.
    need(&needed, &[("a", "p-3"), ("b", "p-2")]);
    server.next(&[path]).await.respond(200, &claim_json("c-1", "p-1", false)).await;
    let exchange = server.next(&[path]).await;
    assert!(!is_read(&seen.borrow(), "a", "p-3"), "the old claim is not that of the new pod");
    exchange.respond(200, &claim_json("c-3", "p-3", false)).await;
    let state = until(&mut seen, "the new claim", read("a", "p-3")).await;
    assert!(!is_read(&state, "a", "p-1"));
    need(&needed, &[]);
    until(&mut seen, "no claims", |state| !is_read(state, "b", "p-2")).await;
}

#[tokio::test]
async fn failed_requests_are_retried_and_a_denied_permission_is_reported() {
    let mut server = FakeServer::start().await;
    let (needed, mut seen) = start_claims(&server);
    need(&needed, &[("a", "p-1")]);
    let denied = |state: &ResourceClaimsState| lookup(state, "a", "p-1") == ClaimLookup::Denied;
    server.next(&["/v1/"]).await.fail(403, "resourceclaims is forbidden").await;
    let state = until(&mut seen, "a denied request", denied).await;
    assert_eq!(state.health.state, SourceState::Down(FailureReason::Denied));
    for version in ["/v1/", "/v1beta2/", "/v1beta1/"] {
        server.next(&[version]).await.fail(404, "not found").await;
    }
    server.next(&["/v1/"]).await.fail(500, "etcd").await;
    server.next(&["/v1/"]).await.fail(429, "later").await;
    server.next(&["/v1/"]).await.respond(200, r#"{"metadata":{}}"#).await;
    server.next(&["/v1/"]).await.fail(404, "not found").await;
    server.next(&["/v1beta2/"]).await.respond(200, &claim_json("c-1", "p-1", false)).await;
    let state = until(&mut seen, "the claim", |state| is_read(state, "a", "p-1")).await;
    assert_eq!(state.health.state, SourceState::Up);
    for failure in [
        FailureReason::Denied,
        FailureReason::Unsupported,
        FailureReason::Refused,
        FailureReason::Throttled,
        FailureReason::Garbage,
    ] {
        assert_eq!(state.health.failures_of(failure), 1, "{failure:?}");
    }
}

#[tokio::test]
async fn claim_that_the_server_refuses_does_not_delay_the_others() {
    let mut server = FakeServer::start().await;
    let (needed, mut seen) = start_claims(&server);
    need(&needed, &[("a", "p-1"), ("b", "p-2"), ("../x", "p-3")]);
    server.next(&["resourceclaims/a"]).await.fail(500, "etcd").await;
    let exchange = server.next(&["resourceclaims/b"]).await;
    exchange.respond(200, &claim_json("c-2", "p-2", false)).await;
    let state = until(&mut seen, "the other claim", |state| is_read(state, "b", "p-2")).await;
    assert_eq!(state.health.failures_of(FailureReason::Garbage), 1, "no name, and no request");
    assert!(matches!(state.health.state, SourceState::Down(_)));
    server.next(&["resourceclaims/a"]).await.respond(200, &claim_json("c-1", "p-1", false)).await;
    until(&mut seen, "the first claim", |state| is_read(state, "a", "p-1")).await;
}
