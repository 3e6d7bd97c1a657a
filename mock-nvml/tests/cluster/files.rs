//! The files of a stage: cgroups, logs, and who serves it.

use std::{collections::BTreeSet, fs, path::Path};

use nvml_wrapper::Nvml;

use crate::stage::{Stage, eventually};

fn names(directory: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_node_without_a_cluster_has_none_until_its_scenario_says_so() {
    let stage = Stage::playing("[GPUS]\n");
    for name in ["kubeconfig", "pod-resources", "pods-log", "containers-log"] {
        assert!(!stage.path(name).exists(), "{name}");
    }
    stage.play("[GPUS]\n[[pod]]\nname = \"p\"\ncontainers = [{ name = \"c\" }]\n");
    eventually("it is served", || {
        stage.nvml.device_count().unwrap();
        stage.path("kubeconfig").exists()
    });
    assert_eq!(stage.pods().len(), 1);
    stage.play("[GPUS]\n");
    eventually("nothing is left of it", || {
        ["kubeconfig", "pod-resources/kubelet.sock", "pods-log", "containers-log"]
            .iter()
            .all(|name| !stage.path(name).exists())
    });
}

#[test]
fn a_process_a_status_and_a_log_agree_on_the_container() {
    let stage = Stage::playing(
        "now = 60\n[GPUS]\n[[pod]]\nname = \"p\"\nnamespace = \"n\"\nqos = \"Burstable\"\n\
         containers = [{ name = \"c\", gpus = [0], restarts = [50] }]\n\
         [[process]]\npid = 77\nname = \"w\"\ngpus = [0]\nmemory = \"1 GiB\"\nstart = 55\n\
         pod = \"n/p\"\n\
         [[process]]\npid = 78\nname = \"w\"\ngpus = [0]\nmemory = \"1 GiB\"\npod = \"n/p\"\n",
    );
    let pod = &stage.pods()[0];
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let status = &pod["status"]["containerStatuses"][0];
    let id = status["containerID"].as_str().unwrap().strip_prefix("containerd://").unwrap();
    assert_eq!(
        fs::read_to_string(stage.path("proc/77/cgroup")).unwrap(),
        format!(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/\
             cri-containerd-{id}.scope\n",
            uid.replace('-', "_")
        )
    );
    assert!(!stage.path("proc/78").exists(), "it went with the first run");
    eventually("the logs are there", || !names(&stage.path("containers-log")).is_empty());
    assert_eq!(names(&stage.path("containers-log")), [format!("p_n_c-{id}.log")].into());
    assert_eq!(names(&stage.path("pods-log")), [format!("n_p_{uid}")].into());
    assert!(stage.path(&format!("pods-log/n_p_{uid}/c/1.log")).is_file());
}

#[test]
fn the_pid_namespace_is_told_as_the_kernel_tells_it() {
    for (namespace, init) in [("host", true), ("container", false)] {
        let stage = Stage::playing(&format!("pid_namespace = \"{namespace}\"\n[GPUS]\n"));
        let link = fs::read_link(stage.path("proc/self/ns/pid")).unwrap();
        assert_eq!(link == Path::new("pid:[4026531836]"), init, "{}", link.display());
    }
}

#[test]
fn the_first_of_several_processes_serves() {
    let stage = Stage::playing("[GPUS]\n[[pod]]\nname = \"p\"\ncontainers = [{ name = \"c\" }]\n");
    let port = stage.port();
    // Another file is another image of the library, with a world of its own.
    let other = stage.path("other.so");
    fs::copy(stage.path("libnvidia-ml.so.1"), &other).unwrap();
    let other = Nvml::builder().lib_path(other.as_os_str()).init().unwrap();
    assert_eq!(other.device_count().unwrap(), 2);
    assert_eq!(stage.port(), port);
    assert_eq!(stage.pods().len(), 1);
}

#[test]
fn built_in_nodes_of_a_cluster_have_pods_and_others_have_none() {
    for (scenario, is) in [
        ("demo", true),
        ("shared-l20", true),
        ("faulty", true),
        ("idle-t4", false),
        ("consumer-4090", false),
    ] {
        let stage = Stage::of(scenario);
        assert_eq!(stage.path("kubeconfig").exists(), is, "{scenario}");
        assert_eq!(stage.socket().exists(), is, "{scenario}");
        assert!(!is || !stage.pods().is_empty(), "{scenario}");
    }
}

/// What a process's cgroup names: a pod of the API server's and a container of that, or neither.
#[test]
fn every_process_of_a_built_in_is_in_a_container_of_its_pod_or_in_none() {
    for scenario in ["demo", "shared-l20", "faulty"] {
        let stage = Stage::of(scenario);
        let pods = stage.pods();
        let mut inside = 0;
        for pid in names(&stage.path("proc")).iter().filter(|name| name.parse::<u32>().is_ok()) {
            let text = fs::read_to_string(stage.path(&format!("proc/{pid}/cgroup"))).unwrap();
            if !text.contains("kubepods") {
                continue;
            }
            inside += 1;
            let own = pods.iter().find(|pod| {
                let uid = pod["metadata"]["uid"].as_str().unwrap().replace('-', "_");
                text.contains(&uid)
            });
            let statuses = own.unwrap()["status"]["containerStatuses"].as_array().unwrap().clone();
            let ids: Vec<_> = statuses
                .iter()
                .filter_map(|status| status["containerID"].as_str()?.strip_prefix("containerd://"))
                .collect();
            assert!(ids.iter().any(|id| text.contains(id)), "{scenario} {pid}: {text}");
        }
        assert!(inside > 3, "{scenario}: {inside}");
    }
}
