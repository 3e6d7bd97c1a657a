//! The resources of device plugins, by their names.

/// Whether a scheduler, not the kubelet, selects the GPUs of this resource. Its ids then have no
/// meaning.
pub(super) fn is_shared_by_scheduler(resource: &str) -> bool {
    let (domain, name) = resource.split_once('/').unwrap_or_default();
    matches!(domain, "aliyun.com" | "volcano.sh" | "koordinator.sh") && name.contains("gpu")
}

/// Whether this is a resource of NVIDIA: of GPUs, or of network devices.
pub(super) fn is_of_nvidia(resource: &str) -> bool {
    resource.starts_with("nvidia.com/")
}

/// Whether this is a GPU resource of NVIDIA's device plugin. Network devices have the same domain.
pub(super) fn is_nvidia_resource(resource: &str) -> bool {
    let name = resource.strip_prefix("nvidia.com/").unwrap_or_default();
    name.contains("gpu") || name.starts_with("mig-")
}
