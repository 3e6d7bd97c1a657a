//! The files of a mock environment: cgroups, logs, kubeconfig and sockets.

use std::{collections::BTreeSet, fs, path::Path};

use nvml_wrapper::Nvml;

use crate::mock_env::{MockEnv, eventually};

fn names(directory: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn cluster_files_exist_while_the_scenario_has_a_cluster() {
    let env = MockEnv::with_tables("[GPUS]\n");
    for name in ["kubeconfig", "pod-resources", "pods-log", "containers-log"] {
        assert!(!env.path(name).exists(), "{name}");
    }
    env.write_tables("[GPUS]\n[[pod]]\nname = \"p\"\ncontainers = [{ name = \"c\" }]\n");
    eventually("the API server runs", || {
        env.nvml.device_count().unwrap();
        env.path("kubeconfig").exists()
    });
    assert_eq!(env.pods().len(), 1);
    env.write_tables("[GPUS]\n");
    eventually("the cluster files are removed", || {
        ["kubeconfig", "pod-resources/kubelet.sock", "pods-log", "containers-log"]
            .iter()
            .all(|name| !env.path(name).exists())
    });
}

#[test]
fn cgroup_pod_status_and_logs_agree_on_the_container() {
    let env = MockEnv::with_tables(
        "now = 60\n[GPUS]\n[[pod]]\nname = \"p\"\nnamespace = \"n\"\nqos = \"Burstable\"\n\
         containers = [{ name = \"c\", gpus = [0], restarts = [50] }]\n\
         [[process]]\npid = 77\nname = \"w\"\ngpus = [0]\nmemory = \"1 GiB\"\nstart = 55\n\
         pod = \"n/p\"\n\
         [[process]]\npid = 78\nname = \"w\"\ngpus = [0]\nmemory = \"1 GiB\"\npod = \"n/p\"\n",
    );
    let pod = &env.pods()[0];
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let status = &pod["status"]["containerStatuses"][0];
    let id = status["containerID"].as_str().unwrap().strip_prefix("containerd://").unwrap();
    assert_eq!(
        fs::read_to_string(env.path("proc/77/cgroup")).unwrap(),
        format!(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/\
             cri-containerd-{id}.scope\n",
            uid.replace('-', "_")
        )
    );
    assert!(!env.path("proc/78").exists(), "process 78 ended with the first run of its container");
    eventually("the logs exist", || !names(&env.path("containers-log")).is_empty());
    assert_eq!(names(&env.path("containers-log")), [format!("p_n_c-{id}.log")].into());
    assert_eq!(names(&env.path("pods-log")), [format!("n_p_{uid}")].into());
    assert!(env.path(&format!("pods-log/n_p_{uid}/c/1.log")).is_file());
}

#[test]
fn pid_namespace_link_is_that_of_the_kernel() {
    for (namespace, init) in [("host", true), ("container", false)] {
        let env = MockEnv::with_tables(&format!("pid_namespace = \"{namespace}\"\n[GPUS]\n"));
        let link = fs::read_link(env.path("proc/self/ns/pid")).unwrap();
        assert_eq!(link == Path::new("pid:[4026531836]"), init, "{}", link.display());
    }
}

#[test]
fn first_of_several_processes_runs_the_servers() {
    let env =
        MockEnv::with_tables("[GPUS]\n[[pod]]\nname = \"p\"\ncontainers = [{ name = \"c\" }]\n");
    let port = env.port();
    // A copy of the file is loaded as another library, with its own state.
    let other = env.path("other.so");
    fs::copy(env.path("libnvidia-ml.so.1"), &other).unwrap();
    let other = Nvml::builder().lib_path(other.as_os_str()).init().unwrap();
    assert_eq!(other.device_count().unwrap(), 2);
    assert_eq!(env.port(), port);
    assert_eq!(env.pods().len(), 1);
}

#[test]
fn built_in_scenarios_with_a_cluster_have_pods() {
    for (scenario, has_cluster) in [
        ("demo", true),
        ("shared-l20", true),
        ("faulty", true),
        ("idle-t4", false),
        ("consumer-4090", false),
    ] {
        let env = MockEnv::built_in(scenario);
        assert_eq!(env.path("kubeconfig").exists(), has_cluster, "{scenario}");
        assert_eq!(env.socket().exists(), has_cluster, "{scenario}");
        assert!(!has_cluster || !env.pods().is_empty(), "{scenario}");
    }
}

/// The cgroup of each process contains the UID of a listed pod and the id of its container, or
/// neither.
#[test]
fn processes_of_built_in_scenarios_are_in_a_container_of_their_pod_or_in_none() {
    for scenario in ["demo", "shared-l20", "faulty"] {
        let env = MockEnv::built_in(scenario);
        let pods = env.pods();
        let mut inside = 0;
        for pid in names(&env.path("proc")).iter().filter(|name| name.parse::<u32>().is_ok()) {
            let text = fs::read_to_string(env.path(&format!("proc/{pid}/cgroup"))).unwrap();
            if !text.contains("kubepods") {
                continue;
            }
            inside += 1;
            let pod = pods.iter().find(|pod| {
                let uid = pod["metadata"]["uid"].as_str().unwrap().replace('-', "_");
                text.contains(&uid)
            });
            let statuses = pod.unwrap()["status"]["containerStatuses"].as_array().unwrap().clone();
            let ids: Vec<_> = statuses
                .iter()
                .filter_map(|status| status["containerID"].as_str()?.strip_prefix("containerd://"))
                .collect();
            assert!(ids.iter().any(|id| text.contains(id)), "{scenario} {pid}: {text}");
        }
        assert!(inside > 3, "{scenario}: {inside}");
    }
}
