//! Cgroup paths of containers, as `/proc/<pid>/cgroup` shows them.

use crate::scenario::cluster::{CgroupFormat, Pod, Qos, Runtime};

/// Controllers of cgroup v1, one hierarchy each, from the highest hierarchy id to the lowest.
const CONTROLLERS: [&str; 9] =
    ["name=systemd", "pids", "blkio", "freezer", "devices", "memory", "cpuset", "cpuacct", "cpu"];

/// Content of `/proc/<pid>/cgroup` for a process in the container `id` of a pod, without the final
/// newline.
pub(crate) fn text(cgroups: CgroupFormat, runtime: Runtime, pod: &Pod, id: &str) -> String {
    let path = if pod.is_sandboxed() {
        sandbox_path(cgroups.systemd, runtime, pod)
    } else {
        path(cgroups.systemd, runtime, pod, id)
    };
    if !cgroups.v1 {
        return format!("0::{path}");
    }
    let lines = CONTROLLERS.iter().zip((1..=CONTROLLERS.len()).rev());
    let lines = lines.map(|(name, at)| format!("{at}:{name}:{path}"));
    lines.chain([format!("0::{path}")]).collect::<Vec<_>>().join("\n")
}

/// The cgroup of all processes of a gVisor sandbox: that of the sandbox as systemd has it, else that of
/// the pod.
fn sandbox_path(systemd: bool, runtime: Runtime, pod: &Pod) -> String {
    let path = path(systemd, runtime, pod, &pod.sandbox_id);
    match path.rsplit_once('/') {
        Some((pod, _)) if !systemd => pod.to_owned(),
        _ => path,
    }
}

fn path(systemd: bool, runtime: Runtime, pod: &Pod, id: &str) -> String {
    let uid = pod.kubelet_uid();
    let level = match pod.qos {
        Qos::Guaranteed => None,
        Qos::Burstable => Some("burstable"),
        Qos::BestEffort => Some("besteffort"),
    };
    if !systemd {
        let level = level.map(|level| format!("/{level}")).unwrap_or_default();
        let prefix = if runtime == Runtime::Crio { "crio-" } else { "" };
        return format!("/kubepods{level}/pod{uid}/{prefix}{id}");
    }
    let prefix = match runtime {
        Runtime::Containerd => "cri-containerd",
        Runtime::Crio => "crio",
        Runtime::Docker => "docker",
    };
    let uid = uid.replace('-', "_");
    let (slice, parent) = match level {
        None => ("kubepods".to_owned(), String::new()),
        Some(level) => (format!("kubepods-{level}"), format!("/kubepods-{level}.slice")),
    };
    format!("/kubepods.slice{parent}/{slice}-pod{uid}.slice/{prefix}-{id}.scope")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{cluster, scenario};

    fn cgroup_of(keys: &str, pod: &str) -> String {
        let scenario = scenario(&format!(
            "[cluster]\n{keys}\n[[pod]]\nname = \"p\"\n{pod}\n\
             uid = \"11111111-2222-4333-8444-555555555555\"\ncontainers = [{{ name = \"c\" }}]\n"
        ));
        let cluster = cluster(&scenario);
        text(cluster.cgroups, cluster.runtime, &cluster.pods[0], "ID")
    }

    #[test]
    fn path_depends_on_cgroup_driver_and_runtime() {
        for (keys, pod, expected) in [
            (
                "",
                "",
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-\
                 pod11111111_2222_4333_8444_555555555555.slice/cri-containerd-ID.scope",
            ),
            (
                "runtime = \"crio\"",
                "qos = \"Guaranteed\"",
                "0::/kubepods.slice/kubepods-pod11111111_2222_4333_8444_555555555555.slice/\
                 crio-ID.scope",
            ),
            (
                "cgroups = \"cgroupfs-v2\"\nruntime = \"docker\"",
                "qos = \"Burstable\"",
                "0::/kubepods/burstable/pod11111111-2222-4333-8444-555555555555/ID",
            ),
            (
                "cgroups = \"cgroupfs-v2\"",
                "qos = \"Guaranteed\"",
                "0::/kubepods/pod11111111-2222-4333-8444-555555555555/ID",
            ),
        ] {
            assert_eq!(cgroup_of(keys, pod), expected);
        }
        let sandbox = cgroup_of("", "runtime_class = \"gvisor\"");
        let (pod, scope) = sandbox.rsplit_once('/').unwrap();
        assert!(pod.ends_with("pod11111111_2222_4333_8444_555555555555.slice"), "{sandbox}");
        assert!(scope.starts_with("cri-containerd-") && !scope.contains("ID"), "{sandbox}");
        assert_eq!(
            cgroup_of("cgroups = \"cgroupfs-v2\"", "runtime_class = \"gvisor\""),
            "0::/kubepods/besteffort/pod11111111-2222-4333-8444-555555555555",
        );
        let text = cgroup_of("cgroups = \"cgroupfs-v1\"", "");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 10);
        let path = "/kubepods/besteffort/pod11111111-2222-4333-8444-555555555555/ID";
        assert_eq!(lines[0], format!("9:name=systemd:{path}"));
        assert_eq!((lines[4], lines[9]), (&*format!("5:devices:{path}"), &*format!("0::{path}")));
    }
}
