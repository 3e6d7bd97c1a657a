//! Tests the cgroup parser with files of real nodes, which are not part of the repository.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use nvml_exporter::host::cgroup;
use nvml_exporter::model::CgroupLocation;

/// Pod UID and container id of a process in the notation of the data tables: empty if there is none,
/// `CONFLICT` if the file is contradictory.
fn innermost(text: &str) -> (String, String) {
    match cgroup::parse(text.as_bytes()) {
        CgroupLocation::Host => (String::new(), String::new()),
        CgroupLocation::Conflict => ("CONFLICT".to_owned(), "CONFLICT".to_owned()),
        CgroupLocation::Container(id) => (String::new(), id.to_string()),
        CgroupLocation::Pod(pods) => {
            let pod = pods.first().expect("a pod");
            let id = pod.container.as_ref().map(ToString::to_string);
            (pod.uid.to_string(), id.unwrap_or_default())
        }
    }
}

fn path_in(variable: &str) -> PathBuf {
    std::env::var_os(variable).expect(variable).into()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
#[ignore = "needs the corpus at NVML_EXPORTER_CGROUP_CORPUS; .ci/run runs it if it is set"]
fn corpus_files_are_parsed_as_expected() {
    let path = path_in("NVML_EXPORTER_CGROUP_CORPUS");
    let mut table = csv::Reader::from_path(&path).expect("the corpus");
    let mut rows = 0;
    for row in table.deserialize() {
        let (text, uid, id, _runtime, notes): (String, String, String, String, String) =
            row.expect("a row of five fields");
        let found = innermost(&text);
        // Two containers of one pod: the pod is certain, the container is not.
        let one_pod_two_containers = id == "CONFLICT" && uid != "CONFLICT";
        let id = if one_pod_two_containers { String::new() } else { id };
        assert_eq!(found, (uid, id), "{text}\n{notes}");
        rows += 1;
    }
    assert_eq!(rows, 248, "{}", path.display());
}

/// Paths of all files or directories `name` in the recordings, one directory per node.
fn recordings(name: &str) -> Vec<PathBuf> {
    let root = path_in("NVML_EXPORTER_KUBELET_DATA");
    let entries = fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    entries.map(|entry| entry.expect("an entry").path().join(name)).filter(|p| p.exists()).collect()
}

#[test]
#[ignore = "needs the recordings at NVML_EXPORTER_KUBELET_DATA; .ci/run runs it if it is set"]
fn recorded_processes_are_in_their_container() {
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
#[ignore = "needs the recordings at NVML_EXPORTER_KUBELET_DATA; .ci/run runs it if it is set"]
fn recorded_cgroups_are_a_pod_or_the_host() {
    let root = path_in("NVML_EXPORTER_KUBELET_DATA");
    let mut table = csv::Reader::from_path(root.join("all-processes.csv")).expect("a table");
    let headers = table.headers().expect("a header row").clone();
    let column = |name: &str| headers.iter().position(|header| header == name).expect("a column");
    let columns = ["last_cgroup_line", "uid_in_cgroup_labels", "container_id"].map(column);
    let mut rows = 0;
    for row in table.records() {
        let row = row.expect("a row");
        let [line, uid, id] = columns.map(|column| row.get(column).expect("a field").to_owned());
        assert_eq!(innermost(&line), (uid, id), "{line}");
        rows += 1;
    }
    assert!(rows > 156, "{rows} rows");

    let mut host_processes = 0;
    for folder in recordings("cgroup") {
        for entry in fs::read_dir(folder).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let (uid, id) = innermost(&read(&path));
            let host = name.starts_with('_');
            assert_eq!((uid.is_empty(), id.is_empty()), (host, host), "{}", path.display());
            host_processes += u32::from(host);
        }
    }
    assert!(host_processes > 0, "no host process was recorded");
}
