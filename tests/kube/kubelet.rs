//! Tests of the `PodResources` client with a fake kubelet, including failures.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mock_nvml::pod_resources::{
    AllocatableResponse, ContainerDevices, ContainerResources, ListResponse, NumaNode,
    PodResources, TopologyInfo,
};
use nvml_exporter::clock::Clock;
use nvml_exporter::kube::assignments::Assignments;
use nvml_exporter::kube::pod_resources::{PodResourcesPoller, PodResourcesState, PollTimings};
use nvml_exporter::kube::source::{FailureReason, SourceState};
use prost::Message;
use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::grpc::{CallCounts, FakeKubelet, LocalServer, Replies, Reply};
use crate::until;

const MS: fn(u64) -> Duration = Duration::from_millis;

/// The task under test and its published state.
struct RunningSource {
    seen: watch::Receiver<PodResourcesState>,
    pods_changed: Arc<Notify>,
    task: JoinHandle<()>,
}

impl RunningSource {
    fn start(socket: &Path, timings: PollTimings) -> Self {
        let (publish, seen) = watch::channel(PodResourcesState::unknown());
        let pods_changed = Arc::new(Notify::new());
        let source =
            PodResourcesPoller { socket: socket.to_owned(), timings, clock: Clock::start() };
        let task = tokio::spawn(source.run(publish, Arc::clone(&pods_changed)));
        Self { seen, pods_changed, task }
    }

    async fn until(
        &mut self,
        what: &str,
        is: impl Fn(&PodResourcesState) -> bool,
    ) -> PodResourcesState {
        until(&mut self.seen, what, is).await
    }

    async fn until_up(&mut self) -> Arc<Assignments> {
        let state = self.until("a response", |state| state.health.state == SourceState::Up).await;
        state.assignments.unwrap()
    }

    async fn until_down(&mut self, failure: FailureReason) -> PodResourcesState {
        let down = SourceState::Down(failure);
        self.until(failure.label(), |state| state.health.state == down).await
    }
}

fn quick() -> PollTimings {
    PollTimings {
        interval: MS(20),
        min_interval: MS(5),
        allocatable_interval: Duration::from_secs(3600),
        response_timeout: Duration::from_secs(20),
        backoff_min: MS(5),
    }
}

fn devices(resource: &str, ids: &[&str]) -> ContainerDevices {
    ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        topology: Some(TopologyInfo { nodes: vec![NumaNode { id: 1 }] }),
    }
}

/// A list of one pod with `devices` allocated to its container `main`.
fn list(pod: &str, devices: Vec<ContainerDevices>) -> Reply {
    let main = ContainerResources {
        name: "main".to_owned(),
        devices,
        cpu_ids: vec![0, 1, 2],
        dynamic_resources: Vec::new(),
    };
    let idle = ContainerResources { name: "idle".to_owned(), ..ContainerResources::default() };
    let pod = PodResources {
        name: pod.to_owned(),
        namespace: "demo".to_owned(),
        containers: vec![idle, main],
        cpu_ids: vec![7],
    };
    Reply::Message(ListResponse { pod_resources: vec![pod] }.encode_to_vec())
}

fn replies() -> Replies {
    let allocatable = AllocatableResponse {
        devices: vec![devices("nvidia.com/gpu", &["GPU-1", "GPU-2"])],
        cpu_ids: vec![0, 1],
    };
    Replies {
        list: list("train", vec![devices("nvidia.com/gpu", &["GPU-1"])]),
        allocatable: Reply::Message(allocatable.encode_to_vec()),
    }
}

fn socket() -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kubelet.sock");
    (directory, socket)
}

fn first_pod(assignments: &Assignments) -> &str {
    &assignments.containers[0].pod
}

#[tokio::test]
async fn assignments_are_read_and_entries_of_a_resource_merged() {
    let (_directory, socket) = socket();
    let mut replies = replies();
    replies.list = list(
        "train",
        vec![
            devices("nvidia.com/gpu", &["GPU-1"]),
            devices("example.com/nic", &["nic-0"]),
            devices("nvidia.com/gpu", &["GPU-2"]),
        ],
    );
    let _kubelet = FakeKubelet::start(&socket, replies);
    let mut source = RunningSource::start(&socket, quick());
    let assignments = source.until_up().await;
    assert_eq!(assignments.containers.len(), 1, "containers without devices are dropped");
    let main = &assignments.containers[0];
    assert_eq!((&*main.namespace, &*main.pod, &*main.container), ("demo", "train", "main"));
    let gpus = ("nvidia.com/gpu".into(), vec!["GPU-1".into(), "GPU-2".into()]);
    assert_eq!(main.devices, [gpus.clone(), ("example.com/nic".into(), vec!["nic-0".into()])]);
    assert_eq!(assignments.allocatable, [gpus].into());
}

#[tokio::test]
async fn pod_changes_trigger_a_request_with_its_own_timestamp() {
    let (_directory, socket) = socket();
    let kubelet = FakeKubelet::start(&socket, replies());
    let timings = PollTimings { interval: Duration::from_secs(3600), ..quick() };
    let mut source = RunningSource::start(&socket, timings);
    let first = source.until_up().await;
    let changed = list("infer", vec![devices("nvidia.com/gpu", &["GPU-2"])]);
    kubelet.set(|replies| replies.list = changed);
    source.pods_changed.notify_one();
    let new = |state: &PodResourcesState| {
        state.assignments.as_ref().is_some_and(|a| first_pod(a) == "infer")
    };
    let second = source.until("the new pod", new).await;
    let stamp = second.assignments.as_ref().unwrap().requested_at;
    assert!(stamp > first.requested_at && stamp <= second.health.last_success.unwrap());
}

#[tokio::test]
async fn restarted_kubelet_is_reached_on_its_new_socket_and_read_completely() {
    let (_directory, socket) = socket();
    let mut old = FakeKubelet::start(&socket, replies());
    let mut source = RunningSource::start(&socket, quick());
    let first = source.until_up().await;
    until(old.calls(), "a second list", |calls| calls.list > 1).await;
    let CallCounts { connections, allocatable, .. } = *old.calls().borrow();
    assert_eq!((connections, allocatable), (1, 1), "one connection is used for all calls");
    old.stop_and_remove_socket();
    let down = source.until_down(FailureReason::Absent).await;
    assert!(
        down.assignments.unwrap().requested_at >= first.requested_at,
        "the last assignments are kept"
    );
    let mut replies = replies();
    replies.list = list("infer", vec![devices("nvidia.com/gpu", &["GPU-3"])]);
    replies.allocatable = Reply::Message(AllocatableResponse::default().encode_to_vec());
    let _new = FakeKubelet::start(&socket, replies);
    let assignments = source.until_up().await;
    assert_eq!(first_pod(&assignments), "infer");
    assert!(assignments.allocatable.is_empty(), "the devices of the old kubelet are dropped");
}

#[tokio::test]
async fn replaced_socket_is_detected_while_the_connection_is_open() {
    let (_directory, socket) = socket();
    let _old = FakeKubelet::start(&socket, replies());
    let mut source = RunningSource::start(&socket, quick());
    source.until_up().await;
    std::fs::remove_file(&socket).unwrap();
    let mut other = replies();
    other.list = list("infer", vec![devices("nvidia.com/gpu", &["GPU-2"])]);
    let _new = FakeKubelet::start(&socket, other);
    let new = |state: &PodResourcesState| {
        state.assignments.as_ref().is_some_and(|a| first_pod(a) == "infer")
    };
    source.until("the response of the new kubelet", new).await;
}

#[tokio::test]
async fn absent_socket_is_one_state_change() {
    let (_directory, socket) = socket();
    let mut source = RunningSource::start(&socket, quick());
    let many = |state: &PodResourcesState| state.health.failures_of(FailureReason::Absent) > 3;
    let absent = source.until("several attempts", many).await;
    assert_eq!(absent.health.state_changes, 1, "an unchanged state is logged once");
    assert!(absent.assignments.is_none());
    let kubelet = FakeKubelet::start(&socket, replies());
    source.until_up().await;
    kubelet.stop();
    let stopped = source.until_down(FailureReason::Absent).await;
    assert!(stopped.assignments.is_some(), "the assignments are kept without a listener");
}

#[tokio::test]
async fn error_statuses_have_reasons_and_keep_the_assignments() {
    let (_directory, socket) = socket();
    let kubelet = FakeKubelet::start(&socket, replies());
    let mut source = RunningSource::start(&socket, quick());
    for (code, message, expected) in [
        (8, "rejected by rate limit", FailureReason::Throttled),
        (8, "grpc: trying to send message larger than max (5 vs. 4)", FailureReason::TooLarge),
        (7, "not you", FailureReason::Denied),
        (12, "unknown method List", FailureReason::Unsupported),
        (13, "the device manager is not ready", FailureReason::Refused),
    ] {
        kubelet.set(|r| r.list = replies().list);
        let before = source.until_up().await;
        kubelet.set(|r| r.list = Reply::Status(code, message));
        let down = source.until_down(expected).await;
        let kept = down.assignments.unwrap();
        assert!(
            first_pod(&kept) == "train" && kept.requested_at >= before.requested_at,
            "{message}"
        );
    }
}

#[tokio::test]
async fn response_of_ten_megabytes_is_read() {
    let (_directory, socket) = socket();
    let ids: Vec<String> = (0..230_000)
        .map(|n| format!("GPU-4d3ad1cd-2a3b-4e2a-9c2f-0a1b2c3d4e5f-_-{n:06}"))
        .collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let many = ids.chunks(50_000).map(|ids| devices("aliyun.com/gpu-mem", ids)).collect();
    let Reply::Message(message) = list("fakes", many) else { unreachable!() };
    assert!(message.len() > 10 << 20);
    let _kubelet =
        FakeKubelet::start(&socket, Replies { list: Reply::Message(message), ..replies() });
    let mut source = RunningSource::start(&socket, quick());
    let assignments = source.until_up().await;
    assert_eq!(assignments.containers[0].devices[0].1.len(), 230_000);
}

#[tokio::test]
async fn response_above_the_limit_is_rejected() {
    let (_directory, socket) = socket();
    let huge = Reply::Message(vec![0; (64 << 20) + 1]);
    let _kubelet = FakeKubelet::start(&socket, Replies { list: huge, ..replies() });
    let mut source = RunningSource::start(&socket, quick());
    source.until_down(FailureReason::TooLarge).await;
}

#[tokio::test]
async fn malformed_responses_are_rejected() {
    let (_directory, socket) = socket();
    // An end-group tag; a pod with a length beyond the end; text that is not UTF-8.
    for malformed in [&b"\x0c"[..], b"\x0a\x7f\x00", b"\x0a\x04\x0a\x02\xff\xfe"] {
        let reply = Reply::Message(malformed.to_vec());
        let kubelet = FakeKubelet::start(&socket, Replies { list: reply, ..replies() });
        let mut source = RunningSource::start(&socket, quick());
        let down = source.until_down(FailureReason::Garbage).await;
        assert!(down.assignments.is_none(), "{malformed:?}");
        kubelet.set(|r| *r = replies());
        source.until_up().await;
        kubelet.stop_and_remove_socket();
    }
}

#[tokio::test]
async fn server_without_grpc_is_down_and_a_later_kubelet_is_read() {
    let (_directory, socket) = socket();
    let server = LocalServer::of_invalid_bytes(&socket);
    let mut source = RunningSource::start(&socket, quick());
    let failed = |state: &PodResourcesState| matches!(state.health.state, SourceState::Down(_));
    let down = source.until("a failure", failed).await;
    assert!(
        matches!(
            down.health.state,
            SourceState::Down(FailureReason::Garbage | FailureReason::Connection)
        ),
        "{down:?}"
    );
    server.stop();
    std::fs::remove_file(&socket).unwrap();
    let _kubelet = FakeKubelet::start(&socket, replies());
    source.until_up().await;
}

#[tokio::test]
async fn hung_kubelet_times_out_and_is_read_again_later() {
    let (_directory, socket) = socket();
    let kubelet = FakeKubelet::start(&socket, replies());
    let mut source =
        RunningSource::start(&socket, PollTimings { response_timeout: MS(500), ..quick() });
    source.until_up().await;
    kubelet.set(|r| r.list = Reply::Hang);
    let down = source.until_down(FailureReason::Timeout).await;
    assert!(down.assignments.is_some());
    kubelet.set(|r| r.list = replies().list);
    source.until_up().await;
}

#[tokio::test]
async fn unsupported_allocatable_devices_are_not_requested_again_at_once() {
    let (_directory, socket) = socket();
    let allocatable = Reply::Status(12, "unknown method GetAllocatableResources");
    let mut kubelet = FakeKubelet::start(&socket, Replies { allocatable, ..replies() });
    let mut source = RunningSource::start(&socket, quick());
    until(kubelet.calls(), "several lists", |calls| calls.list > 4).await;
    let assignments = source.until_up().await;
    assert!(assignments.allocatable.is_empty());
    assert_eq!(kubelet.calls().borrow().allocatable, 1);
}

#[tokio::test]
async fn throttled_allocatable_devices_are_requested_again() {
    let (_directory, socket) = socket();
    let allocatable = Reply::Status(8, "rejected by rate limit");
    let kubelet = FakeKubelet::start(&socket, Replies { allocatable, ..replies() });
    let mut source = RunningSource::start(&socket, quick());
    let throttled =
        |state: &PodResourcesState| state.health.failures_of(FailureReason::Throttled) > 1;
    let state = source.until("throttled requests", throttled).await;
    assert_eq!(state.health.state, SourceState::Up, "the assignments are available");
    kubelet.set(|r| *r = replies());
    let known = |state: &PodResourcesState| {
        state.assignments.as_ref().is_some_and(|a| !a.allocatable.is_empty())
    };
    source.until("the devices", known).await;
}

#[tokio::test]
async fn task_ends_without_receivers() {
    let (_directory, socket) = socket();
    let kubelet = FakeKubelet::start(&socket, Replies { list: Reply::Hang, ..replies() });
    let source = RunningSource::start(&socket, quick());
    drop(source.seen);
    tokio::time::timeout(crate::HANG, source.task).await.unwrap().unwrap();
    kubelet.stop();
}
