//! The device assignments, from a kubelet in every mood.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::clock::Clock;
use nvml_exporter::kube::assignments::Assignments;
use nvml_exporter::kube::pod_resources::{Pace, PodResources, Taken};
use nvml_exporter::kube::source::{Failure, State};
use prost::Message;
use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::grpc::{
    Allocatable, Asked, Container, Devices, FakeKubelet, List, Manners, NumaNode, Pod, Reply,
    Topology, babble,
};
use crate::until;

const MS: fn(u64) -> Duration = Duration::from_millis;

/// The task under test, and what it publishes.
struct Follower {
    seen: watch::Receiver<Taken>,
    hasten: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Follower {
    fn start(socket: &Path, pace: Pace) -> Self {
        let (publish, seen) = watch::channel(Taken::unknown());
        let hasten = Arc::new(Notify::new());
        let source = PodResources { socket: socket.to_owned(), pace, clock: Clock::start() };
        let task = tokio::spawn(source.run(publish, Arc::clone(&hasten)));
        Self { seen, hasten, task }
    }

    async fn until(&mut self, what: &str, is: impl Fn(&Taken) -> bool) -> Taken {
        until(&mut self.seen, what, is).await
    }

    async fn until_up(&mut self) -> Arc<Assignments> {
        let taken = self.until("an answer", |taken| taken.health.state == State::Up).await;
        taken.assignments.unwrap()
    }

    async fn until_down(&mut self, failure: Failure) -> Taken {
        let down = State::Down(failure);
        self.until(failure.reason(), |taken| taken.health.state == down).await
    }
}

fn quick() -> Pace {
    Pace {
        every: MS(20),
        pause: MS(5),
        allocatable: Duration::from_secs(3600),
        answer: Duration::from_secs(20),
        backoff: MS(5),
    }
}

fn devices(resource: &str, ids: &[&str]) -> Devices {
    Devices {
        resource: resource.to_owned(),
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        topology: Some(Topology { nodes: vec![NumaNode { id: 1 }] }),
    }
}

/// One pod whose container `main` was given these.
fn list(pod: &str, devices: Vec<Devices>) -> Reply {
    let main = Container { name: "main".to_owned(), devices, cpu_ids: vec![0, 1, 2] };
    let idle = Container { name: "idle".to_owned(), ..Container::default() };
    let pod = Pod {
        name: pod.to_owned(),
        namespace: "demo".to_owned(),
        containers: vec![idle, main],
        cpu_ids: vec![7],
    };
    Reply::Message(List { pods: vec![pod] }.encode_to_vec())
}

fn manners() -> Manners {
    let allocatable = Allocatable {
        devices: vec![devices("nvidia.com/gpu", &["GPU-1", "GPU-2"])],
        cpu_ids: vec![0, 1],
    };
    Manners {
        list: list("train", vec![devices("nvidia.com/gpu", &["GPU-1"])]),
        allocatable: Reply::Message(allocatable.encode_to_vec()),
    }
}

fn socket() -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kubelet.sock");
    (directory, socket)
}

fn holder(assignments: &Assignments) -> &str {
    &assignments.containers[0].pod
}

#[tokio::test]
async fn what_was_given_is_read_with_several_entries_of_a_resource_as_one() {
    let (_directory, socket) = socket();
    let mut manners = manners();
    manners.list = list(
        "train",
        vec![
            devices("nvidia.com/gpu", &["GPU-1"]),
            devices("example.com/nic", &["nic-0"]),
            devices("nvidia.com/gpu", &["GPU-2"]),
        ],
    );
    let _kubelet = FakeKubelet::start(&socket, manners);
    let mut follower = Follower::start(&socket, quick());
    let assignments = follower.until_up().await;
    assert_eq!(assignments.containers.len(), 1, "containers without devices are left out");
    let main = &assignments.containers[0];
    assert_eq!((&*main.namespace, &*main.pod, &*main.container), ("demo", "train", "main"));
    let gpus = ("nvidia.com/gpu".into(), vec!["GPU-1".into(), "GPU-2".into()]);
    assert_eq!(main.devices, [gpus.clone(), ("example.com/nic".into(), vec!["nic-0".into()])]);
    assert_eq!(assignments.allocatable, [gpus].into());
}

#[tokio::test]
async fn changes_of_pods_hasten_the_next_question_and_it_is_stamped_when_asked() {
    let (_directory, socket) = socket();
    let kubelet = FakeKubelet::start(&socket, manners());
    let pace = Pace { every: Duration::from_secs(3600), ..quick() };
    let mut follower = Follower::start(&socket, pace);
    let first = follower.until_up().await;
    let given = list("infer", vec![devices("nvidia.com/gpu", &["GPU-2"])]);
    kubelet.behave(|manners| manners.list = given);
    follower.hasten.notify_one();
    let new = |taken: &Taken| taken.assignments.as_ref().is_some_and(|a| holder(a) == "infer");
    let second = follower.until("the new pod", new).await;
    let stamp = second.assignments.as_ref().unwrap().taken;
    assert!(stamp > first.taken && stamp <= second.health.contact.unwrap());
}

#[tokio::test]
async fn a_kubelet_that_restarts_is_found_on_its_new_socket_and_asked_everything() {
    let (_directory, socket) = socket();
    let mut old = FakeKubelet::start(&socket, manners());
    let mut follower = Follower::start(&socket, quick());
    let first = follower.until_up().await;
    until(old.asked(), "a second list", |asked| asked.list > 1).await;
    let Asked { connections, allocatable, .. } = *old.asked().borrow();
    assert_eq!((connections, allocatable), (1, 1), "one connection serves for all questions");
    old.vanish().await;
    let down = follower.until_down(Failure::Absent).await;
    assert!(down.assignments.unwrap().taken >= first.taken, "what was said last is kept");
    let mut manners = manners();
    manners.list = list("infer", vec![devices("nvidia.com/gpu", &["GPU-3"])]);
    manners.allocatable = Reply::Message(Allocatable::default().encode_to_vec());
    let _new = FakeKubelet::start(&socket, manners);
    let assignments = follower.until_up().await;
    assert_eq!(holder(&assignments), "infer");
    assert!(assignments.allocatable.is_empty(), "the old kubelet's devices are not the new one's");
}

#[tokio::test]
async fn a_socket_that_was_replaced_behind_an_open_connection_is_noticed() {
    let (_directory, socket) = socket();
    let _old = FakeKubelet::start(&socket, manners());
    let mut follower = Follower::start(&socket, quick());
    follower.until_up().await;
    std::fs::remove_file(&socket).unwrap();
    let mut other = manners();
    other.list = list("infer", vec![devices("nvidia.com/gpu", &["GPU-2"])]);
    let _new = FakeKubelet::start(&socket, other);
    let new = |taken: &Taken| taken.assignments.as_ref().is_some_and(|a| holder(a) == "infer");
    follower.until("the new kubelet's answer", new).await;
}

#[tokio::test]
async fn a_socket_that_appears_later_is_one_change_and_not_a_storm() {
    let (_directory, socket) = socket();
    let mut follower = Follower::start(&socket, quick());
    let many = |taken: &Taken| taken.health.failed_so(Failure::Absent) > 3;
    let absent = follower.until("several looks", many).await;
    assert_eq!(absent.health.changes, 1, "a state that lasts is logged once");
    assert!(absent.assignments.is_none());
    let kubelet = FakeKubelet::start(&socket, manners());
    follower.until_up().await;
    kubelet.stop().await;
    let left_behind = follower.until_down(Failure::Absent).await;
    assert!(left_behind.assignments.is_some(), "a socket without a listener empties nothing");
}

#[tokio::test]
async fn refusals_are_told_apart_and_empty_nothing() {
    let (_directory, socket) = socket();
    let kubelet = FakeKubelet::start(&socket, manners());
    let mut follower = Follower::start(&socket, quick());
    for (code, words, expected) in [
        (8, "rejected by rate limit", Failure::Throttled),
        (8, "grpc: trying to send message larger than max (5 vs. 4)", Failure::TooLarge),
        (7, "not you", Failure::Denied),
        (12, "unknown method List", Failure::Unsupported),
        (13, "the device manager is not ready", Failure::Refused),
    ] {
        kubelet.behave(|m| m.list = manners().list);
        let before = follower.until_up().await;
        kubelet.behave(|m| m.list = Reply::Status(code, words));
        let down = follower.until_down(expected).await;
        let kept = down.assignments.unwrap();
        assert!(holder(&kept) == "train" && kept.taken >= before.taken, "{words}");
    }
}

#[tokio::test]
async fn ten_megabytes_are_taken() {
    let (_directory, socket) = socket();
    let ids: Vec<String> = (0..230_000)
        .map(|n| format!("GPU-4d3ad1cd-2a3b-4e2a-9c2f-0a1b2c3d4e5f-_-{n:06}"))
        .collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let many = ids.chunks(50_000).map(|ids| devices("aliyun.com/gpu-mem", ids)).collect();
    let Reply::Message(answer) = list("fakes", many) else { unreachable!() };
    assert!(answer.len() > 10 << 20);
    let _kubelet =
        FakeKubelet::start(&socket, Manners { list: Reply::Message(answer), ..manners() });
    let mut follower = Follower::start(&socket, quick());
    let assignments = follower.until_up().await;
    assert_eq!(assignments.containers[0].devices[0].1.len(), 230_000);
}

#[tokio::test]
async fn more_than_the_limit_is_refused_before_it_is_read() {
    let (_directory, socket) = socket();
    let huge = Reply::Message(vec![0; (64 << 20) + 1]);
    let _kubelet = FakeKubelet::start(&socket, Manners { list: huge, ..manners() });
    let mut follower = Follower::start(&socket, quick());
    follower.until_down(Failure::TooLarge).await;
}

#[tokio::test]
async fn garbage_is_no_answer() {
    let (_directory, socket) = socket();
    // A tag of group end; a pod whose length runs past its end; text that is no UTF-8.
    for rubbish in [&b"\x0c"[..], b"\x0a\x7f\x00", b"\x0a\x04\x0a\x02\xff\xfe"] {
        let reply = Reply::Message(rubbish.to_vec());
        let kubelet = FakeKubelet::start(&socket, Manners { list: reply, ..manners() });
        let mut follower = Follower::start(&socket, quick());
        let down = follower.until_down(Failure::Garbage).await;
        assert!(down.assignments.is_none(), "{rubbish:?}");
        kubelet.behave(|m| *m = manners());
        follower.until_up().await;
        kubelet.vanish().await;
    }
}

#[tokio::test]
async fn whoever_does_not_speak_grpc_is_no_kubelet_and_the_next_one_is_heard() {
    let (_directory, socket) = socket();
    let mut stranger = babble(&socket);
    let mut follower = Follower::start(&socket, quick());
    let failed = |taken: &Taken| matches!(taken.health.state, State::Down(_));
    let down = follower.until("a failure", failed).await;
    assert!(
        matches!(down.health.state, State::Down(Failure::Garbage | Failure::Connection)),
        "{down:?}"
    );
    stranger.shutdown().await;
    std::fs::remove_file(&socket).unwrap();
    let _kubelet = FakeKubelet::start(&socket, manners());
    follower.until_up().await;
}

#[tokio::test]
async fn a_kubelet_that_hangs_is_given_up_and_heard_again() {
    let (_directory, socket) = socket();
    let kubelet = FakeKubelet::start(&socket, manners());
    let mut follower = Follower::start(&socket, Pace { answer: MS(500), ..quick() });
    follower.until_up().await;
    kubelet.behave(|manners| manners.list = Reply::Hang);
    let down = follower.until_down(Failure::Timeout).await;
    assert!(down.assignments.is_some());
    kubelet.behave(|m| m.list = manners().list);
    follower.until_up().await;
}

#[tokio::test]
async fn a_kubelet_without_allocatable_devices_is_up_and_not_asked_again_at_once() {
    let (_directory, socket) = socket();
    let allocatable = Reply::Status(12, "unknown method GetAllocatableResources");
    let mut kubelet = FakeKubelet::start(&socket, Manners { allocatable, ..manners() });
    let mut follower = Follower::start(&socket, quick());
    until(kubelet.asked(), "several lists", |asked| asked.list > 4).await;
    let assignments = follower.until_up().await;
    assert!(assignments.allocatable.is_empty());
    assert_eq!(kubelet.asked().borrow().allocatable, 1);
}

#[tokio::test]
async fn allocatable_devices_that_were_refused_are_asked_for_again() {
    let (_directory, socket) = socket();
    let allocatable = Reply::Status(8, "rejected by rate limit");
    let kubelet = FakeKubelet::start(&socket, Manners { allocatable, ..manners() });
    let mut follower = Follower::start(&socket, quick());
    let refused = |taken: &Taken| taken.health.failed_so(Failure::Throttled) > 1;
    let taken = follower.until("refusals", refused).await;
    assert_eq!(taken.health.state, State::Up, "the assignments themselves are there");
    kubelet.behave(|m| *m = manners());
    let known =
        |taken: &Taken| taken.assignments.as_ref().is_some_and(|a| !a.allocatable.is_empty());
    follower.until("the devices", known).await;
}

#[tokio::test]
async fn it_ends_when_nobody_listens() {
    let (_directory, socket) = socket();
    let kubelet = FakeKubelet::start(&socket, Manners { list: Reply::Hang, ..manners() });
    let follower = Follower::start(&socket, quick());
    drop(follower.seen);
    tokio::time::timeout(crate::HANG, follower.task).await.unwrap().unwrap();
    kubelet.stop().await;
}
