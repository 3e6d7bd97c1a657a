//! The kubelet: its socket, which tells who was given which device, and the names of its logs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Finding, Topic, counted};
use crate::cluster::Sources;
use crate::kube::api::Fault;
use crate::kube::assignments::Assigned;
use crate::kube::pod_resources::kubelet::Kubelet;
use crate::kube::source::Failure;
use crate::policy;

/// Where the socket is on most nodes.
const USUAL: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";

/// What the kubelet said, if it was asked.
pub type Said = Option<Result<Vec<Assigned>, Fault>>;

/// Asks the kubelet.
pub async fn ask(socket: Option<&PathBuf>) -> Said {
    let socket = socket?;
    let answer = async {
        Kubelet::connect(socket, policy::CHECK_ANSWER).await?.list(policy::CHECK_ANSWER).await
    };
    Some(answer.await.map(|list| list.containers))
}

/// Whether devices were claimed dynamically.
#[must_use]
pub fn has_claims(said: &Said) -> bool {
    matches!(said, Some(Ok(containers)) if containers.iter().any(|one| !one.claims.is_empty()))
}

/// What is found of the socket.
#[must_use]
pub fn socket(sources: Option<&Sources>, said: &Said) -> Finding {
    let socket = sources.and_then(|sources| sources.pod_resources.as_ref());
    match (socket, said) {
        (Some(socket), Some(said)) => answered(&socket.display().to_string(), said),
        _ if sources.is_some() => {
            let said = "there is no such folder, so it is not known who was given which GPU";
            Finding::warning(Topic::Kubelet, USUAL, said).mended_by(MOUNT)
        }
        _ => {
            let said =
                "there is no such folder: this is no node of a cluster, or it is not mounted";
            Finding::skipped(Topic::Kubelet, USUAL, said)
        }
    }
}

const MOUNT: &str = "mount the folder of the socket, not the socket itself: hostPath \
     /var/lib/kubelet/pod-resources, read-only; where the kubelet's root is elsewhere name it with \
     --pod-resources-kubelet-socket";

fn answered(socket: &str, said: &Result<Vec<Assigned>, Fault>) -> Finding {
    match said {
        Ok(containers) => {
            let containers: Vec<&Assigned> = containers
                .iter()
                .filter(|one| !one.devices.is_empty() || !one.claims.is_empty())
                .collect();
            let mut devices = BTreeMap::<&str, usize>::new();
            for (resource, ids) in containers.iter().flat_map(|one| &one.devices) {
                *devices.entry(resource).or_default() += ids.len();
            }
            let claims: usize = containers.iter().map(|one| one.claims.len()).sum();
            let mut given: Vec<String> =
                devices.iter().map(|(resource, n)| format!("{n} {resource}")).collect();
            if claims > 0 {
                given.push(format!("{} (DRA)", counted(claims, "claimed device")));
            }
            let given =
                if given.is_empty() { String::new() } else { format!(": {}", given.join(", ")) };
            let holders = counted(containers.len(), "container");
            let said = format!("List answers: {holders} with devices{given}");
            Finding::ok(Topic::Kubelet, socket, said)
        }
        Err(fault) => {
            let said = format!("{}: {}", fault.failure.reason(), fault.detail);
            Finding::failure(Topic::Kubelet, socket, said).mended_by(mend(fault.failure))
        }
    }
}

fn mend(failure: Failure) -> &'static str {
    match failure {
        Failure::Absent => MOUNT,
        Failure::Denied => "the kubelet lets in root alone: runAsUser: 0",
        Failure::Throttled => "other clients ask the kubelet too often; it passes",
        Failure::Unsupported => "PodResources v1 needs Kubernetes 1.20 or newer",
        Failure::Connection
        | Failure::Timeout
        | Failure::TooLarge
        | Failure::Garbage
        | Failure::Expired
        | Failure::Refused
        | Failure::Config => "look at the kubelet's log (journalctl -u kubelet)",
    }
}

/// Looks at the names of logs.
#[must_use]
pub fn logs(sources: Option<&Sources>) -> Vec<Finding> {
    let Some(Sources { pod_logs, container_logs, .. }) = sources else {
        let said = "without a cluster nobody looks there";
        return vec![Finding::skipped(Topic::Logs, "/var/log/pods", said)];
    };
    vec![names(pod_logs), names(container_logs)]
}

fn names(folder: &Path) -> Finding {
    let place = folder.display().to_string();
    match fs::read_dir(folder) {
        Ok(entries) => {
            let n = entries.filter_map(Result::ok).count();
            Finding::ok(Topic::Logs, place, counted(n, "name"))
        }
        Err(error) => {
            let said =
                format!("{error}; containers that the API server does not know yet have to wait");
            Finding::note(Topic::Logs, &place, said)
                .mended_by(format!("mount it read-only: hostPath {place}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn assigned(devices: &[(&str, &[&str])]) -> Assigned {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).into()).collect();
        Assigned {
            namespace: "a".into(),
            pod: "b".into(),
            container: "c".into(),
            devices: devices.iter().map(|(resource, all)| ((*resource).into(), ids(all))).collect(),
            claims: Vec::new(),
        }
    }

    #[test]
    fn what_the_kubelet_gave_is_counted() {
        let list = vec![
            assigned(&[("nvidia.com/gpu", &["GPU-1", "GPU-2"])]),
            assigned(&[("nvidia.com/gpu", &["GPU-3"])]),
            assigned(&[]),
        ];
        let finding = answered("/s", &Ok(list));
        assert_eq!(finding.said, "List answers: 2 containers with devices: 3 nvidia.com/gpu");
        assert_eq!(answered("/s", &Ok(Vec::new())).said, "List answers: 0 containers with devices");
    }

    #[test]
    fn a_kubelet_that_does_not_answer_fails_with_its_mend() {
        for (failure, word) in
            [(Failure::Absent, "mount"), (Failure::Denied, "root"), (Failure::Timeout, "log")]
        {
            let finding = answered("/s", &Err(Fault::new(failure, "x")));
            assert_eq!(finding.verdict, Verdict::Failure);
            assert!(finding.mend.unwrap().contains(word), "{failure:?}");
        }
        assert_eq!(socket(None, &None).verdict, Verdict::Skipped);
    }

    #[test]
    fn logs_that_are_not_there_are_noted() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(names(folder.path()).said, "0 names");
        assert_eq!(names(&folder.path().join("x")).verdict, Verdict::Note);
    }
}
