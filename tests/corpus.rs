//! The cgroup parser against files of real nodes, which are not part of the project.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use nvml_exporter::host::cgroup;
use nvml_exporter::model::Placement;

/// The pod and the container that a process belongs to, as the tables of the data write them:
/// empty where there is none, `CONFLICT` where the file contradicts itself.
fn innermost(text: &str) -> (String, String) {
    match cgroup::parse(text.as_bytes()) {
        Placement::Host => (String::new(), String::new()),
        Placement::Conflict => ("CONFLICT".to_owned(), "CONFLICT".to_owned()),
        Placement::Container(id) => (String::new(), id.to_string()),
        Placement::Pod(pods) => {
            let pod = pods.first().expect("a pod");
            let id = pod.container.as_ref().map(ToString::to_string);
            (pod.uid.to_string(), id.unwrap_or_default())
        }
    }
}

fn named(variable: &str) -> PathBuf {
    std::env::var_os(variable).expect(variable).into()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
#[ignore = "reads the corpus that NVML_EXPORTER_CGROUP_CORPUS names; .ci/run runs it where there is one"]
fn every_file_of_the_corpus_is_read_as_it_says() {
    let path = named("NVML_EXPORTER_CGROUP_CORPUS");
    let mut table = csv::Reader::from_path(&path).expect("the corpus");
    let mut rows = 0;
    for row in table.deserialize() {
        let (text, uid, id, _runtime, notes): (String, String, String, String, String) =
            row.expect("a row of five fields");
        let found = innermost(&text);
        // One pod with two containers: the pod is known, its container is not.
        let one_pod_two_containers = id == "CONFLICT" && uid != "CONFLICT";
        let id = if one_pod_two_containers { String::new() } else { id };
        assert_eq!(found, (uid, id), "{text}\n{notes}");
        rows += 1;
    }
    assert_eq!(rows, 248, "{}", path.display());
}

/// The folders of a node's recordings that have the file or folder `name`.
fn recordings(name: &str) -> Vec<PathBuf> {
    let root = named("NVML_EXPORTER_KUBELET_DATA");
    let entries = fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    entries.map(|entry| entry.expect("an entry").path().join(name)).filter(|p| p.exists()).collect()
}

#[test]
#[ignore = "reads the recordings that NVML_EXPORTER_KUBELET_DATA names; .ci/run runs it where there are some"]
fn every_process_of_a_real_node_is_in_its_own_container() {
    let mut processes = 0;
    for path in recordings("procs.jsonl") {
        for line in read(&path).lines() {
            let process: serde_json::Value = serde_json::from_str(line).expect("a process");
            let field = |name: &str| process[name].as_str().unwrap_or_default().to_owned();
            let lines = process["cgroup"].as_array().expect("its cgroup file");
            let lines: Vec<_> = lines.iter().filter_map(serde_json::Value::as_str).collect();
            let own = (field("uid"), field("containerID"));
            assert_eq!(innermost(&lines.join("\n")), own, "{}: {line}", path.display());
            processes += 1;
        }
    }
    assert_eq!(processes, 156);
}

#[test]
#[ignore = "reads the recordings that NVML_EXPORTER_KUBELET_DATA names; .ci/run runs it where there are some"]
fn every_recorded_cgroup_of_a_real_node_is_one_pod_or_the_host() {
    let root = named("NVML_EXPORTER_KUBELET_DATA");
    let mut table = csv::Reader::from_path(root.join("all-processes.csv")).expect("a table");
    let headers = table.headers().expect("its head").clone();
    let column = |name: &str| headers.iter().position(|head| head == name).expect("a column");
    let columns = ["last_cgroup_line", "uid_in_cgroup_labels", "container_id"].map(column);
    let mut rows = 0;
    for row in table.records() {
        let row = row.expect("a row");
        let [line, uid, id] = columns.map(|column| row.get(column).expect("a field").to_owned());
        assert_eq!(innermost(&line), (uid, id), "{line}");
        rows += 1;
    }
    assert!(rows > 156, "{rows} rows");

    let mut daemons = 0;
    for folder in recordings("cgroup") {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let (uid, id) = innermost(&read(&path));
            let host = name.starts_with('_');
            assert_eq!((uid.is_empty(), id.is_empty()), (host, host), "{}", path.display());
            daemons += u32::from(host);
        }
    }
    assert!(daemons > 0, "no host process was recorded");
}
