//! Methods of the kubelet's `PodResources` service (v1).

pub(crate) mod messages;
mod pod_message;
pub(crate) mod pods_api;
mod recorded;

use prost::Message;

use crate::{
    cluster::kubelet::messages::{
        AllocatableResponse, ClaimResource, ContainerDevices, ContainerResources, DynamicResource,
        GetRequest, GetResponse, ListResponse, NumaNode, PodResources, TopologyInfo,
    },
    scenario::{
        claim::{ClaimedDevice, ResourceClaim},
        cluster::{Cluster, Container, ContainerKind, OfferedDevice, PluginDevice, Pod},
    },
};

/// A gRPC status other than OK: its code and message.
pub type GrpcStatus = (u8, String);

const UNKNOWN: u8 = 2;
const UNIMPLEMENTED: u8 = 12;
const INVALID_ARGUMENT: u8 = 3;

/// Calls the method `path` at world time `time`; returns the encoded response message.
///
/// # Errors
/// The status that the kubelet returns for an unknown method, an invalid request or an unknown pod.
pub(crate) fn call(
    cluster: &Cluster,
    time: f64,
    path: &str,
    request: &[u8],
) -> Result<Vec<u8>, GrpcStatus> {
    match path {
        "/v1.PodResourcesLister/List" => {
            let listed = cluster.pods.iter().filter(|pod| is_listed(cluster, pod, time));
            let listed = listed.map(|pod| resources(cluster, pod));
            let pod_resources = listed.chain(recorded::listed(&cluster.recorded)).collect();
            Ok(ListResponse { pod_resources }.encode_to_vec())
        }
        "/v1.PodResourcesLister/GetAllocatableResources" => {
            let offered =
                |offer: &&OfferedDevice| offer.offered.iter().any(|window| window.contains(time));
            let offers = cluster.allocatable.iter().filter(offered);
            let offers = offers.map(|offer| entry(&offer.device));
            let devices = offers.chain(recorded::allocatable(&cluster.recorded)).collect();
            Ok(AllocatableResponse { devices, cpu_ids: Vec::new() }.encode_to_vec())
        }
        "/v1.PodResourcesLister/Get" => {
            let wanted = GetRequest::decode(request)
                .map_err(|error| (INVALID_ARGUMENT, error.to_string()))?;
            let is = |pod: &&Pod| {
                pod.name == wanted.pod_name
                    && pod.namespace == wanted.pod_namespace
                    && is_listed(cluster, pod, time)
            };
            let pod = cluster.pods.iter().find(is).ok_or_else(|| {
                let text = format!(
                    "pod {} in namespace {} not found",
                    wanted.pod_name, wanted.pod_namespace
                );
                (UNKNOWN, text)
            })?;
            Ok(GetResponse { pod_resources: Some(resources(cluster, pod)) }.encode_to_vec())
        }
        _ => Err((UNIMPLEMENTED, format!("unknown method {path}"))),
    }
}

fn is_listed(cluster: &Cluster, pod: &Pod, time: f64) -> bool {
    pod.active_lifetime().contains(time) && cluster.is_known_to_kubelet(pod, time)
}

/// Sidecars, then containers. The kubelet lists neither init nor ephemeral containers.
fn resources(cluster: &Cluster, pod: &Pod) -> PodResources {
    let sidecars = pod.containers_of_kind(ContainerKind::Sidecar);
    let listed = sidecars.chain(pod.containers_of_kind(ContainerKind::App));
    let containers = listed.map(|one| container(cluster, pod, one)).collect();
    let (name, namespace) = (pod.name.clone(), pod.namespace.clone());
    PodResources { name, namespace, containers, cpu_ids: Vec::new() }
}

/// One entry per device, as the kubelet lists the devices of plugins.
fn container(cluster: &Cluster, pod: &Pod, container: &Container) -> ContainerResources {
    let devices = container.devices.iter().map(entry).collect();
    let claim = |claim: &ResourceClaim| DynamicResource {
        name: claim.name.clone(),
        namespace: pod.namespace.clone(),
        devices: claim.devices.iter().map(|device| claimed(cluster, claim, device)).collect(),
    };
    let dynamic_resources = container.allocation.claim().map(claim).into_iter().collect();
    let name = container.name.clone();
    ContainerResources { name, devices, cpu_ids: Vec::new(), dynamic_resources }
}

fn claimed(cluster: &Cluster, claim: &ResourceClaim, device: &ClaimedDevice) -> ClaimResource {
    ClaimResource {
        driver: claim.driver.clone(),
        pool: cluster.node.clone(),
        device: device.name.clone(),
        share_id: device.share.clone(),
    }
}

fn entry(device: &PluginDevice) -> ContainerDevices {
    ContainerDevices {
        resource_name: device.resource.to_string(),
        device_ids: vec![device.id.clone()],
        topology: device.numa.map(|id| TopologyInfo { nodes: vec![NumaNode { id }] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{cluster, scenario};
    use crate::scenario::Scenario;

    const LIST: &str = "/v1.PodResourcesLister/List";

    #[test]
    fn active_pods_are_listed_with_their_containers_and_sidecars() {
        let scenario = scenario(
            "[[pod]]\nname = \"p\"\nstart = 5\ncompleted = 9\nend = 20\ncontainers = [\n\
             { name = \"init\", kind = \"init\", gpus = [0], end = 6 },\n\
             { name = \"main\", gpus = [1] },\n\
             { name = \"side\", kind = \"sidecar\" },\n]\n",
        );
        let cluster = cluster(&scenario);
        let at = |time| {
            ListResponse::decode(&*call(cluster, time, LIST, &[]).unwrap()).unwrap().pod_resources
        };
        assert!(at(4.9).is_empty() && at(9.0).is_empty());
        let [pod] = &at(5.0)[..] else { panic!("one pod") };
        let names: Vec<_> = pod.containers.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["side", "main"]);
        assert_eq!(pod.containers[1].devices[0].device_ids, [scenario.gpus[1].uuid.clone()]);
        assert_eq!(pod.containers[1].devices[0].topology.as_ref().unwrap().nodes[0].id, 1);
        let offered = call(cluster, 5.0, "/v1.PodResourcesLister/GetAllocatableResources", &[]);
        let offered = AllocatableResponse::decode(&*offered.unwrap()).unwrap().devices;
        assert_eq!(offered.len(), 2);
        assert!(offered.iter().all(|one| one.resource_name == "nvidia.com/gpu"));
    }

    #[test]
    fn restarted_kubelet_lists_static_pods_before_the_others() {
        let scenario = scenario(
            "[[pod]]\nname = \"p\"\ncontainers = [{ name = \"c\" }]\n\
             [[pod]]\nname = \"s\"\nstatic = true\ncontainers = [{ name = \"c\" }]\n\
             [[cluster_fault]]\nsource = \"kubelet\"\neffect = \"no_pods\"\nfrom = 5\nto = 6\n\
             [[cluster_fault]]\nsource = \"kubelet\"\neffect = \"static_pods\"\nfrom = 6\nto = 7\n",
        );
        for (time, expected) in
            [(4.0, &["p", "s"][..]), (5.0, &[]), (6.0, &["s"]), (7.0, &["p", "s"])]
        {
            let listed = call(cluster(&scenario), time, LIST, &[]).unwrap();
            let listed = ListResponse::decode(&*listed).unwrap().pod_resources;
            let names: Vec<_> = listed.iter().map(|pod| pod.name.as_str()).collect();
            assert_eq!(names, expected, "at {time} s");
        }
    }

    #[test]
    fn claim_is_listed_with_the_namespace_of_its_pod() {
        let scenario = scenario(
            "[[pod]]\nname = \"p\"\nnamespace = \"n\"\n\
             containers = [{ name = \"c\", claim = { name = \"two\", gpus = [1, 0] } }]\n",
        );
        let listed = call(cluster(&scenario), 0.0, LIST, &[]).unwrap();
        let listed = ListResponse::decode(&*listed).unwrap().pod_resources;
        let container = &listed[0].containers[0];
        assert!(container.devices.is_empty());
        let [claim] = &container.dynamic_resources[..] else { panic!("one claim") };
        assert_eq!((&*claim.namespace, &*claim.name), ("n", "two"));
        let device = |one: &ClaimResource| format!("{}/{}/{}", one.driver, one.pool, one.device);
        assert_eq!(
            claim.devices.iter().map(device).collect::<Vec<_>>(),
            ["gpu.nvidia.com/node-1/gpu-1", "gpu.nvidia.com/node-1/gpu-0"]
        );
    }

    #[test]
    fn get_finds_a_pod_by_name_and_namespace() {
        let scenario =
            scenario("[[pod]]\nname = \"p\"\nnamespace = \"n\"\ncontainers = [{ name = \"c\" }]\n");
        let cluster = cluster(&scenario);
        let get = |namespace: &str| {
            let request = GetRequest { pod_name: "p".into(), pod_namespace: namespace.into() };
            call(cluster, 0.0, "/v1.PodResourcesLister/Get", &request.encode_to_vec())
        };
        let found = GetResponse::decode(&*get("n").unwrap()).unwrap();
        assert_eq!(found.pod_resources.unwrap().containers.len(), 1);
        assert_eq!(get("m").unwrap_err(), (2, "pod p in namespace m not found".to_owned()));
        assert_eq!(call(cluster, 0.0, "/v1.PodResourcesLister/X", &[]).unwrap_err().0, 12);
        let invalid = call(cluster, 0.0, "/v1.PodResourcesLister/Get", &[0xff]);
        assert_eq!(invalid.unwrap_err().0, 3);
    }

    /// The pods that are listed at each time: `name/container ids`.
    fn listed(scenario: &Scenario, time: f64) -> Vec<String> {
        let list = call(cluster(scenario), time, LIST, &[]).unwrap();
        let pods = ListResponse::decode(&*list).unwrap().pod_resources;
        let line = |pod: &PodResources, container: &ContainerResources| {
            let ids: Vec<_> =
                container.devices.iter().flat_map(|device| device.device_ids.clone()).collect();
            format!("{}/{} {}", pod.name, container.name, ids.join(" "))
        };
        let of_pod = |pod: PodResources| {
            let lines = pod.containers.iter().map(|one| line(&pod, one));
            lines.collect::<Vec<_>>()
        };
        pods.into_iter().flat_map(of_pod).collect()
    }

    #[test]
    fn pod_is_listed_from_its_admission_until_it_ends() {
        let scenario = scenario(
            "[[pod]]\nname = \"p\"\nstart = 10\ndeleting = 60\ncompleted = 70\nend = 80\n\
             containers = [{ name = \"i\", kind = \"init\", end = 20, gpus = 0 }, \
             { name = \"side\", kind = \"sidecar\", gpus = 1 }, \
             { name = \"main\", start = 25, gpus = 0 }, \
             { name = \"debug\", kind = \"ephemeral\", start = 30 }]\n",
        );
        let [first, second] = [0, 1].map(|at| &scenario.gpus[at].uuid);
        let expected = [format!("p/side {second}"), format!("p/main {first}")];
        // Pending, initializing, running, terminating: the init container is never listed.
        for time in [10.0, 15.0, 22.0, 40.0, 65.0] {
            assert_eq!(listed(&scenario, time), expected, "at {time} s");
        }
        assert!([9.9, 70.0, 79.0].iter().all(|time| listed(&scenario, *time).is_empty()));
    }

    #[test]
    fn kubelet_drops_a_pod_deleted_by_force_and_allocates_its_device_again() {
        let scenario = scenario(
            "[[pod]]\nname = \"p\"\nforce_deleted = 30\nend = 90\n\
             containers = [{ name = \"old\", gpus = 0 }]\n\
             [[pod]]\nname = \"p\"\nstart = 40\ncontainers = [{ name = \"new\", gpus = 0 }]\n",
        );
        let uuid = &scenario.gpus[0].uuid;
        assert_eq!(listed(&scenario, 29.0), [format!("p/old {uuid}")]);
        assert!(listed(&scenario, 35.0).is_empty());
        assert_eq!(listed(&scenario, 50.0), [format!("p/new {uuid}")]);
    }
}
