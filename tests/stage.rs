//! The proc tree that the mock shows, read as any other.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use nvml_exporter::host::ProcRoot;
use nvml_exporter::model::{ContainerId, Placement, PodPath, PodUid};
use nvml_exporter::nvml::raw::stage::stage_mock;

const POD: &str = "3f6a1c58-90de-4b27-a1f4-0c9d5e7b2a63";

/// Sets a scenario up and looks at its tree.
fn on_stage<T>(scenario: &str, look: impl FnOnce(&ProcRoot) -> T) -> T {
    let binary = Path::new(env!("CARGO_BIN_EXE_nvml-exporter"));
    let library = binary.parent().unwrap().join("libmock_nvml.so");
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("scenario.toml");
    fs::write(&script, scenario).unwrap();
    let stage = home.path().join("stage");
    fs::create_dir(&stage).unwrap();
    stage_mock(&library, script.to_str().unwrap(), &stage)
        .unwrap_or_else(|e| panic!("{e}; was cargo build --workspace run first?"));
    look(&ProcRoot::new(&stage.join("proc")))
}

#[test]
fn a_scenario_says_whose_pid_namespace_is_ours() {
    let gpu = "[[gpu]]\nmodel = \"T4\"\n";
    let judged = |scenario: &str| on_stage(scenario, ProcRoot::in_init_pid_namespace);
    assert_eq!(judged(gpu), Some(true));
    assert_eq!(judged(&format!("pid_namespace = \"host\"\n{gpu}")), Some(true));
    assert_eq!(judged(&format!("pid_namespace = \"container\"\n{gpu}")), Some(false));
}

#[test]
fn a_scenario_says_where_a_process_runs() {
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
    let placed = on_stage(&scenario, |proc| {
        [4242, 4243].map(|pid| proc.placement(proc.identify(pid).unwrap().id))
    });
    assert_eq!(placed, [Ok(Placement::Pod(vec![pod])), Ok(Placement::Host)]);
}
