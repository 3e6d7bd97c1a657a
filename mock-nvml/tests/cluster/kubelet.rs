//! The kubelet's socket.

use prost::Message;
use tonic::Code;

use crate::stage::Stage;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Listed {
    #[prost(message, repeated, tag = "1")]
    pub(crate) pods: Vec<PodResources>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodResources {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) namespace: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) containers: Vec<ContainerResources>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContainerResources {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) devices: Vec<Devices>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Devices {
    #[prost(string, tag = "1")]
    pub(crate) resource: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) ids: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Allocatable {
    #[prost(message, repeated, tag = "1")]
    devices: Vec<Devices>,
}

#[derive(Clone, PartialEq, Message)]
struct Get {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct Got {
    #[prost(message, optional, tag = "1")]
    pod: Option<PodResources>,
}

/// What the kubelet lists, a line for each container: `namespace/pod/container ids`.
fn listed(stage: &Stage) -> Vec<String> {
    let listed: Listed = stage.call("List", Empty {}).unwrap();
    let lines = listed.pods.iter().flat_map(|pod| {
        pod.containers.iter().map(move |container| {
            let ids: Vec<_> = container.devices.iter().flat_map(|each| each.ids.clone()).collect();
            let (namespace, name) = (&pod.namespace, &pod.name);
            format!("{namespace}/{name}/{} {}", container.name, ids.join(" "))
        })
    });
    lines.collect()
}

const PODS: &str = "\
[GPUS]
[[pod]]
name = \"train\"
namespace = \"ml\"
end = 50
containers = [{ name = \"main\", gpus = [0] }, { name = \"log\" }]
[[pod]]
name = \"share\"
count = 2
containers = [{ name = \"main\", slices = { gpus = [1], replicas = 3 } }]
";

#[test]
fn it_lists_what_containers_hold_at_the_present_time() {
    let stage = Stage::playing(&format!("now = 10\n{PODS}"));
    let (first, second) = (stage.uuid(0), stage.uuid(1));
    let shared =
        [format!("default/share-0/main {second}::0"), format!("default/share-1/main {second}::1")];
    let before = [format!("ml/train/main {first}"), "ml/train/log ".to_owned()];
    assert_eq!(listed(&stage), [&before[..], &shared[..]].concat());
    stage.play(&format!("now = 60\n{PODS}"));
    crate::stage::eventually("the pod is gone", || listed(&stage) == shared);
}

#[test]
fn it_tells_what_there_is_to_hold() {
    let stage = Stage::playing(PODS);
    let allocatable: Allocatable = stage.call("GetAllocatableResources", Empty {}).unwrap();
    let ids: Vec<_> = allocatable.devices.iter().flat_map(|each| each.ids.clone()).collect();
    let (first, second) = (stage.uuid(0), stage.uuid(1));
    let replicas = (0..3).map(|n| format!("{second}::{n}"));
    assert_eq!(ids, [first].into_iter().chain(replicas).collect::<Vec<_>>());
    assert!(allocatable.devices.iter().all(|each| each.resource == "nvidia.com/gpu"));
}

#[test]
fn it_gets_one_pod_and_refuses_what_it_does_not_know() {
    let stage = Stage::playing(PODS);
    let get = |name: &str, namespace: &str| {
        let asked = Get { name: name.into(), namespace: namespace.into() };
        stage.call::<_, Got>("Get", asked)
    };
    let names = |pod: PodResources| -> Vec<String> {
        pod.containers.into_iter().map(|container| container.name).collect()
    };
    assert_eq!(names(get("train", "ml").unwrap().pod.unwrap()), ["main", "log"]);
    assert_eq!(get("train", "default").unwrap_err().code(), Code::Unknown);
    let unknown = stage.call::<_, Listed>("Watch", Empty {});
    assert_eq!(unknown.unwrap_err().code(), Code::Unimplemented);
}

#[test]
fn a_list_may_be_larger_than_a_window() {
    let pods = "[[gpu]]\nmodel = \"H100\"\ncount = 16\n[[pod]]\nname = \"p\"\ncount = 300\n\
                containers = [{ name = \"c\", ack = { gpu = \"spread\", gib = 4 } }]\n";
    let stage = Stage::playing(pods);
    let listed: Listed = stage.call("List", Empty {}).unwrap();
    assert!(listed.encoded_len() > 1 << 16);
    assert_eq!(listed.pods.len(), 300);
    assert!(listed.pods.iter().all(|pod| pod.containers[0].devices.len() == 4));
}
