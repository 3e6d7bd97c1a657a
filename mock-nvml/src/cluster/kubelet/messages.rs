//! Messages of the `PodResources` service (v1).

use prost::Message;

/// `PodResources`
#[derive(Clone, PartialEq, Message)]
pub struct PodResources {
    /// Name of the pod.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Namespace of the pod.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Its containers and sidecars.
    #[prost(message, repeated, tag = "3")]
    pub containers: Vec<ContainerResources>,
    /// CPUs of the pod alone; none with the CPU policy of a scenario.
    #[prost(int64, repeated, tag = "4")]
    pub cpu_ids: Vec<i64>,
}

/// `ContainerResources`
#[derive(Clone, PartialEq, Message)]
pub struct ContainerResources {
    /// Name of the container.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Devices of device plugins.
    #[prost(message, repeated, tag = "2")]
    pub devices: Vec<ContainerDevices>,
    /// CPUs of the container alone; none with the CPU policy of a scenario.
    #[prost(int64, repeated, tag = "3")]
    pub cpu_ids: Vec<i64>,
    /// Resource claims.
    #[prost(message, repeated, tag = "5")]
    pub dynamic_resources: Vec<DynamicResource>,
}

/// `DynamicResource`
#[derive(Clone, PartialEq, Message)]
pub struct DynamicResource {
    /// Name of the claim.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Namespace of the claim.
    #[prost(string, tag = "3")]
    pub namespace: String,
    /// Its devices.
    #[prost(message, repeated, tag = "4")]
    pub devices: Vec<ClaimResource>,
}

/// `ClaimResource`
#[derive(Clone, PartialEq, Message)]
pub struct ClaimResource {
    /// DRA driver.
    #[prost(string, tag = "2")]
    pub driver: String,
    /// Pool of the driver.
    #[prost(string, tag = "3")]
    pub pool: String,
    /// Device of the pool.
    #[prost(string, tag = "4")]
    pub device: String,
    /// Id of the share of the device.
    #[prost(string, optional, tag = "5")]
    pub share_id: Option<String>,
}

/// `ContainerDevices`
#[derive(Clone, PartialEq, Message)]
pub struct ContainerDevices {
    /// Such as `nvidia.com/gpu`.
    #[prost(string, tag = "1")]
    pub resource_name: String,
    /// Ids of the device plugin.
    #[prost(string, repeated, tag = "2")]
    pub device_ids: Vec<String>,
    /// NUMA nodes of the devices.
    #[prost(message, optional, tag = "3")]
    pub topology: Option<TopologyInfo>,
}

/// `TopologyInfo`
#[derive(Clone, PartialEq, Message)]
pub struct TopologyInfo {
    /// The NUMA nodes.
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<NumaNode>,
}

/// `NUMANode`
#[derive(Clone, PartialEq, Message)]
pub struct NumaNode {
    /// Number of the node.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// `ListPodResourcesResponse`
#[derive(Clone, PartialEq, Message)]
pub struct ListResponse {
    /// All pods of the node.
    #[prost(message, repeated, tag = "1")]
    pub pod_resources: Vec<PodResources>,
}

/// `AllocatableResourcesResponse`
#[derive(Clone, PartialEq, Message)]
pub struct AllocatableResponse {
    /// One or more entries for each resource.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<ContainerDevices>,
    /// CPUs that can be allocated; none with the CPU policy of a scenario.
    #[prost(int64, repeated, tag = "2")]
    pub cpu_ids: Vec<i64>,
}

/// `GetPodResourcesRequest`
#[derive(Clone, PartialEq, Message)]
pub(super) struct GetRequest {
    #[prost(string, tag = "1")]
    pub(super) pod_name: String,
    #[prost(string, tag = "2")]
    pub(super) pod_namespace: String,
}

/// `GetPodResourcesResponse`
#[derive(Clone, PartialEq, Message)]
pub(super) struct GetResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) pod_resources: Option<PodResources>,
}
