//! The kubelet: its `PodResources` socket (devices allocated to containers) and its log directories.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Finding, Topic, count_noun};
use crate::cluster::Sources;
use crate::kube::assignments::{ClaimedDevice, ContainerAssignment};
use crate::kube::pod_resources::kubelet::KubeletClient;
use crate::kube::request_error::RequestError;
use crate::kube::source::FailureReason;
use crate::policy;
use crate::worker::call_in_time;

/// The path of the socket on most nodes.
const DEFAULT_SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";

/// The response to `List` of `PodResources`; none if there is no socket.
pub type ListResult = Option<Result<Vec<ContainerAssignment>, RequestError>>;

/// Calls `List` of the kubelet.
pub async fn list(socket: Option<&PathBuf>) -> ListResult {
    let socket = socket?;
    let response = async {
        KubeletClient::connect(socket, policy::CHECK_TIMEOUT)
            .await?
            .list(policy::CHECK_TIMEOUT)
            .await
    };
    Some(response.await.map(|list| list.containers))
}

/// Whether a container has a DRA claim of a driver of GPUs.
#[must_use]
pub fn has_claims(list: &ListResult) -> bool {
    let containers = list.as_ref().and_then(|list| list.as_ref().ok()).into_iter().flatten();
    containers.flat_map(|container| &container.claims).any(ClaimedDevice::may_be_gpu)
}

/// The finding about the socket.
#[must_use]
pub fn socket_finding(sources: Option<&Sources>, response: &ListResult) -> Finding {
    let socket = sources.and_then(|sources| sources.pod_resources.as_ref());
    match (socket, response) {
        (Some(socket), Some(response)) => list_finding(&socket.display().to_string(), response),
        _ if sources.is_some() => {
            let message = "the directory does not exist, so device allocations are unknown";
            Finding::warning(Topic::Kubelet, DEFAULT_SOCKET, message).with_remedy(MOUNT_SOCKET)
        }
        _ => {
            let message = "the directory does not exist: not a cluster node, or not mounted";
            Finding::skipped(Topic::Kubelet, DEFAULT_SOCKET, message)
        }
    }
}

const MOUNT_SOCKET: &str = "mount the directory of the socket, not the socket itself: hostPath \
     /var/lib/kubelet/pod-resources, read-only; if the kubelet has another root directory, set \
     --pod-resources-kubelet-socket";

fn list_finding(
    socket: &str,
    response: &Result<Vec<ContainerAssignment>, RequestError>,
) -> Finding {
    match response {
        Ok(containers) => {
            let containers: Vec<&ContainerAssignment> = containers
                .iter()
                .filter(|container| !container.devices.is_empty() || !container.claims.is_empty())
                .collect();
            let mut devices = BTreeMap::<&str, usize>::new();
            for (resource, ids) in containers.iter().flat_map(|container| &container.devices) {
                *devices.entry(resource).or_default() += ids.len();
            }
            let claims: usize = containers.iter().map(|container| container.claims.len()).sum();
            let mut allocated: Vec<String> =
                devices.iter().map(|(resource, n)| format!("{n} {resource}")).collect();
            if claims > 0 {
                allocated.push(format!("{} (DRA)", count_noun(claims, "claimed device")));
            }
            let allocated = if allocated.is_empty() {
                String::new()
            } else {
                format!(": {}", allocated.join(", "))
            };
            let containers = count_noun(containers.len(), "container");
            let message = format!("List succeeded: {containers} with devices{allocated}");
            Finding::ok(Topic::Kubelet, socket, message)
        }
        Err(fault) => {
            let message = format!("{}: {fault}", fault.reason.label());
            Finding::failure(Topic::Kubelet, socket, message).with_remedy(remedy(fault.reason))
        }
    }
}

fn remedy(failure: FailureReason) -> &'static str {
    match failure {
        FailureReason::Absent => MOUNT_SOCKET,
        FailureReason::Denied => "the socket is accessible only to root: set runAsUser: 0",
        FailureReason::Throttled => {
            "other clients send too many requests to the kubelet; this is usually temporary"
        }
        FailureReason::Unsupported => "PodResources v1 needs Kubernetes 1.20 or newer",
        FailureReason::Connection
        | FailureReason::Timeout
        | FailureReason::TooLarge
        | FailureReason::Garbage
        | FailureReason::Expired
        | FailureReason::NotReady
        | FailureReason::Refused
        | FailureReason::Config => "see the log of the kubelet (journalctl -u kubelet)",
    }
}

/// Findings about the log directories (their entries are named after pods and containers).
#[must_use]
pub fn log_findings(sources: Option<&Sources>) -> Vec<Finding> {
    let Some(Sources { pod_logs, container_logs, .. }) = sources else {
        let message = "not in a cluster: not read";
        return vec![Finding::skipped(Topic::Logs, "/var/log/pods", message)];
    };
    vec![directory(pod_logs), directory(container_logs)]
}

fn directory(directory: &Path) -> Finding {
    let path = directory.display().to_string();
    let read = directory.to_owned();
    let count = move || fs::read_dir(read).map(|entries| entries.filter_map(Result::ok).count());
    match call_in_time(policy::CHECK_TIMEOUT, count) {
        Some(Ok(n)) => Finding::ok(Topic::Logs, path, count_noun(n, "name")),
        None => {
            let message = "the file system does not respond; new containers stay unresolved \
                           until the API server reports them";
            Finding::note(Topic::Logs, &path, message).with_remedy("check its mount")
        }
        Some(Err(error)) => {
            let message = format!(
                "{error}; new containers stay unresolved until the API server reports them"
            );
            Finding::note(Topic::Logs, &path, message)
                .with_remedy(format!("mount it read-only: hostPath {path}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    fn assigned(devices: &[(&str, &[&str])]) -> ContainerAssignment {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).into()).collect();
        ContainerAssignment {
            namespace: "a".into(),
            pod: "b".into(),
            container: "c".into(),
            devices: devices.iter().map(|(resource, all)| ((*resource).into(), ids(all))).collect(),
            claims: Vec::new(),
        }
    }

    #[test]
    fn allocated_devices_are_counted_by_resource() {
        let list = vec![
            assigned(&[("nvidia.com/gpu", &["GPU-1", "GPU-2"])]),
            assigned(&[("nvidia.com/gpu", &["GPU-3"])]),
            assigned(&[]),
        ];
        let message = |list| list_finding("/s", &Ok(list)).message;
        assert_eq!(message(list), "List succeeded: 2 containers with devices: 3 nvidia.com/gpu");
        assert_eq!(message(Vec::new()), "List succeeded: 0 containers with devices");
    }

    #[test]
    fn failed_list_call_has_a_remedy() {
        for (failure, word) in [
            (FailureReason::Absent, "mount"),
            (FailureReason::Denied, "root"),
            (FailureReason::Timeout, "log"),
        ] {
            let finding = list_finding("/s", &Err(RequestError::new(failure, "x")));
            assert_eq!(finding.verdict, Outcome::Failure);
            assert!(finding.remedy.unwrap().contains(word), "{failure:?}");
        }
        assert_eq!(socket_finding(None, &None).verdict, Outcome::Skipped);
    }

    #[test]
    fn missing_log_directory_is_a_note() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(directory(home.path()).message, "0 names");
        assert_eq!(directory(&home.path().join("x")).verdict, Outcome::Note);
    }
}
