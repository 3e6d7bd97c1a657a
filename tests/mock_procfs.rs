//! Reads the `/proc` tree that the mock creates.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use nvml_exporter::host::ProcRoot;
use nvml_exporter::model::{CgroupLocation, ContainerId, PodPath, PodUid};
use nvml_exporter::nvml::raw::mock_env::set_up_mock;

const POD: &str = "3f6a1c58-90de-4b27-a1f4-0c9d5e7b2a63";

/// Creates the mock environment of a scenario and reads its `/proc` tree.
fn with_mock_proc<T>(scenario: &str, read: impl FnOnce(&ProcRoot) -> T) -> T {
    let binary = Path::new(env!("CARGO_BIN_EXE_nvml-exporter"));
    let library = binary.parent().unwrap().join("libmock_nvml.so");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("scenario.toml");
    fs::write(&file, scenario).unwrap();
    let environment = directory.path().join("environment");
    fs::create_dir(&environment).unwrap();
    set_up_mock(&library, file.to_str().unwrap(), &environment)
        .unwrap_or_else(|e| panic!("{e}; run cargo build --workspace first"));
    read(&ProcRoot::new(&environment.join("proc")))
}

#[test]
fn scenario_sets_the_pid_namespace() {
    let gpu = "[[gpu]]\nmodel = \"T4\"\n";
    let in_host = |scenario: &str| with_mock_proc(scenario, ProcRoot::in_init_pid_namespace);
    assert_eq!(in_host(gpu), Some(true));
    assert_eq!(in_host(&format!("pid_namespace = \"host\"\n{gpu}")), Some(true));
    assert_eq!(in_host(&format!("pid_namespace = \"container\"\n{gpu}")), Some(false));
}

#[test]
fn scenario_sets_the_cgroup_of_a_process() {
    let id = "ab".repeat(32);
    let cgroup = format!("5:memory:/kubepods/burstable/pod{POD}/{id}\\n0::/system.slice/x.service");
    let scenario = format!(
        "[[gpu]]\nmodel = \"T4\"\n\
         [[process]]\npid = 4242\nname = \"python\"\ngpus = [0]\nmemory = \"1 GiB\"\ncgroup = \"{cgroup}\"\n\
         [[process]]\npid = 4243\nname = \"Xorg\"\ngpus = [0]\nmemory = \"64 MiB\"\n"
    );
    let pod = PodPath {
        uid: PodUid::parse(POD.as_bytes()).unwrap(),
        container: ContainerId::parse(id.as_bytes()),
    };
    let placements = with_mock_proc(&scenario, |proc| {
        [4242, 4243].map(|pid| proc.cgroup_location(proc.identify(pid).unwrap().id))
    });
    assert_eq!(placements, [Ok(CgroupLocation::Pod(vec![pod])), Ok(CgroupLocation::Host)]);
}
