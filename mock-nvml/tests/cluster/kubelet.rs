//! The kubelet's `PodResourcesLister` socket.

use prost::Message;
use tonic::Code;

use crate::mock_env::MockEnv;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListResponse {
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
struct GetRequest {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct GetResponse {
    #[prost(message, optional, tag = "1")]
    pod: Option<PodResources>,
}

/// The response to List, one line per container: `namespace/pod/container ids`.
fn listed(env: &MockEnv) -> Vec<String> {
    let listed: ListResponse = env.call("List", Empty {}).unwrap();
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
fn list_contains_the_current_allocations() {
    let env = MockEnv::with_tables(&format!("now = 10\n{PODS}"));
    let (first, second) = (env.uuid(0), env.uuid(1));
    let shared =
        [format!("default/share-0/main {second}::0"), format!("default/share-1/main {second}::1")];
    let before = [format!("ml/train/main {first}"), "ml/train/log ".to_owned()];
    assert_eq!(listed(&env), [&before[..], &shared[..]].concat());
    env.write_tables(&format!("now = 60\n{PODS}"));
    crate::mock_env::eventually("the pod is gone", || listed(&env) == shared);
}

#[test]
fn allocatable_devices_are_listed() {
    let env = MockEnv::with_tables(PODS);
    let allocatable: Allocatable = env.call("GetAllocatableResources", Empty {}).unwrap();
    let ids: Vec<_> = allocatable.devices.iter().flat_map(|each| each.ids.clone()).collect();
    let (first, second) = (env.uuid(0), env.uuid(1));
    let replicas = (0..3).map(|n| format!("{second}::{n}"));
    assert_eq!(ids, [first].into_iter().chain(replicas).collect::<Vec<_>>());
    assert!(allocatable.devices.iter().all(|each| each.resource == "nvidia.com/gpu"));
}

#[test]
fn get_returns_one_pod_and_unknown_requests_are_refused() {
    let env = MockEnv::with_tables(PODS);
    let get = |name: &str, namespace: &str| {
        let request = GetRequest { name: name.into(), namespace: namespace.into() };
        env.call::<_, GetResponse>("Get", request)
    };
    let names = |pod: PodResources| -> Vec<String> {
        pod.containers.into_iter().map(|container| container.name).collect()
    };
    assert_eq!(names(get("train", "ml").unwrap().pod.unwrap()), ["main", "log"]);
    assert_eq!(get("train", "default").unwrap_err().code(), Code::Unknown);
    let unknown = env.call::<_, ListResponse>("Watch", Empty {});
    assert_eq!(unknown.unwrap_err().code(), Code::Unimplemented);
}

#[test]
fn list_may_exceed_the_flow_control_window() {
    let pods = "[[gpu]]\nmodel = \"H100\"\ncount = 16\n[[pod]]\nname = \"p\"\ncount = 300\n\
                containers = [{ name = \"c\", ack = { gpu = \"spread\", gib = 4 } }]\n";
    let env = MockEnv::with_tables(pods);
    let listed: ListResponse = env.call("List", Empty {}).unwrap();
    assert!(listed.encoded_len() > 1 << 16);
    assert_eq!(listed.pods.len(), 300);
    assert!(listed.pods.iter().all(|pod| pod.containers[0].devices.len() == 4));
}

#[test]
fn http_port_has_the_pods_with_the_faults_of_the_kubelet() {
    let pods = |now: u32| {
        format!(
            "now = {now}\n{PODS}[[pod]]\nname = \"static\"\nstatic = true\n\
             containers = [{{ name = \"c\" }}]\n\
             [[cluster_fault]]\nsource = \"api\"\neffect = \"absent\"\n\
             [[cluster_fault]]\nsource = \"kubelet\"\neffect = \"absent\"\nfrom = 20\nto = 30\n\
             [[cluster_fault]]\nsource = \"kubelet\"\neffect = \"no_pods\"\nfrom = 30\nto = 40\n\
             [[cluster_fault]]\nsource = \"kubelet\"\neffect = \"denied\"\nfrom = 40\nto = 45\n"
        )
    };
    let names = |env: &MockEnv| -> Vec<String> {
        let list = env.get_from_kubelet("/pods").unwrap().json();
        assert_eq!((&list["kind"], &list["apiVersion"]), (&"PodList".into(), &"v1".into()));
        let items = list["items"].as_array().unwrap();
        items.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let env = MockEnv::with_tables(&pods(10));
    assert_eq!(names(&env), ["train", "share-0", "share-1", "static"]);
    assert!(!env.path("kubeconfig").exists(), "the API server is down");
    assert_eq!(env.get_from_kubelet("/metrics").unwrap().status, 404);
    env.write_tables(&pods(20));
    crate::mock_env::eventually("the kubelet is down", || {
        !env.path("kubelet-url").exists() && !env.socket().exists()
    });
    env.write_tables(&pods(30));
    crate::mock_env::eventually("the kubelet is back", || {
        env.path("kubelet-url").exists() && env.socket().exists()
    });
    assert!(names(&env).is_empty() && listed(&env).is_empty());
    env.write_tables(&pods(40));
    crate::mock_env::eventually("it refuses", || {
        env.get_from_kubelet("/pods").unwrap().status == 403
    });
    env.write_tables(&pods(60));
    crate::mock_env::eventually("it responds", || {
        env.get_from_kubelet("/pods").unwrap().status == 200
    });
    assert_eq!(names(&env), ["share-0", "share-1", "static"]);
}
