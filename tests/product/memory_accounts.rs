//! The driver's account of the memory of containers (driver 615).

use std::fs;

use crate::exporter::{Exporter, Scenario, run_once, series, value};

/// Two containers share a GPU; the cgroup of one is limited.
const NODE: &str = r#"
now = 60
[driver]
version = "615.71"
[[gpu]]
model = "H100"
memory_limits = [{ cgroup = "default/a/main", hard = "20 GiB", used = "5 GiB" }]
[[pod]]
name = "a"
containers = [{ name = "main", slices = { gpus = 0, replicas = 2 } }]
[[pod]]
name = "b"
containers = [{ name = "main", slices = { gpus = 0, replicas = 2 } }]
[[process]]
pid = 7
name = "python"
pod = "default/a"
gpus = [0]
memory = "4 GiB"
sm = 40
[[process]]
pid = 8
name = "python"
pod = "default/b"
gpus = [0]
memory = "1 GiB"
sm = 40
"#;
const ALLOCATED: &str = "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED";
const CHARGED: &str = "DCGM_CUSTOM_CONTAINER_MEM_CHARGED";
const UNLISTED: &str = "DCGM_CUSTOM_CONTAINER_MEM_UNLISTED";
const ALL: [&str; 3] = [ALLOCATED, CHARGED, UNLISTED];

/// The exposition of the accounts and of the memory of the GPU.
fn metrics(node: &str) -> String {
    let counters = tempfile::NamedTempFile::new().unwrap();
    let lines = ALL.map(|name| format!("{name}, gauge, A row.\n")).concat();
    fs::write(counters.path(), lines + "DCGM_CUSTOM_DEV_FB_TOTAL, gauge, A row.\n").unwrap();
    let file = format!("-f={}", counters.path().display());
    run_once(&[&Scenario::new("accounts", node).flag(), &file, "--node-name=node-1"])
}

/// Allocated, charged and unlisted memory of a pod.
fn of(metrics: &str, pod: &str) -> [Option<f64>; 3] {
    ALL.map(|name| value(metrics, name, &[&format!("PodName=\"{pod}\"")]))
}

#[test]
fn container_has_the_drivers_account_beside_its_processes() {
    let metrics = metrics(NODE);
    assert_eq!(of(&metrics, "a"), [Some(20_480.0), Some(5_120.0), Some(1_024.0)], "{metrics}");
    let [allocated, charged, unlisted] = of(&metrics, "b");
    assert_eq!(allocated, Some(81_559.0), "that of the kubelet: {metrics}");
    assert_eq!((charged, unlisted), (None, None), "no limit, so no account: {metrics}");
    assert_eq!(value(&metrics, "DCGM_CUSTOM_DEV_FB_TOTAL", &[]), Some(81_559.0));
    let less = NODE.replace("used = \"5 GiB\"", "used = \"3 GiB\"");
    assert_eq!(of(&self::metrics(&less), "a")[2], Some(-1_024.0), "the list has more");
    let exact = NODE.replace(", used = \"5 GiB\"", "");
    assert_eq!(of(&self::metrics(&exact), "a")[1..], [Some(4_096.0), Some(0.0)]);
}

#[test]
fn account_is_absent_where_the_driver_has_none() {
    let fault = "[[fault]]\nfunction = \"nvmlDeviceGetMemoryLimits_v1\"\n";
    for (name, node) in [
        ("before driver 615", NODE.replace("615.71", "610.43.02")),
        ("without the function", format!("{NODE}{fault}missing = true\n")),
        ("without support", format!("{NODE}{fault}code = \"NOT_SUPPORTED\"\n")),
        ("a call that fails", format!("{NODE}{fault}code = \"UNKNOWN\"\n")),
    ] {
        let metrics = metrics(&node);
        let [allocated, charged, unlisted] = of(&metrics, "a");
        // If the exporter's own limit is unknown, so is the memory that the container may use.
        let expected = if name == "a call that fails" { None } else { Some(81_559.0) };
        assert_eq!([allocated, charged, unlisted], [expected, None, None], "{name}: {metrics}");
    }
}

#[test]
fn account_of_a_mig_device_is_absent() {
    let instances = "mig = [{ from = 0, instances = [{ profile = \"3g.40gb\", gi = 1 }] }]\n";
    let (node, _) = NODE.split_once("[[pod]]\nname = \"b\"").unwrap();
    let process = "[[process]]\npid = 7\nname = \"p\"\npod = \"default/a\"\ngpus = [0]\ngi = 1\nmemory = \"4 GiB\"\n";
    let node = node
        .replace("model = \"H100\"\n", &format!("model = \"H100\"\n{instances}"))
        .replace("slices = { gpus = 0, replicas = 2 }", "mig = [\"0/1\"]");
    let metrics = metrics(&(node + process));
    let [allocated, charged, unlisted] = of(&metrics, "a");
    assert!(allocated.is_some_and(|mib| (38_000.0..41_000.0).contains(&mib)), "{metrics}");
    assert_eq!((charged, unlisted), (None, None), "{metrics}");
}

/// The framebuffer of the GPU, and the hard limit of a container on it.
fn total_and_limit(node: &str) -> [Option<f64>; 2] {
    let metrics = metrics(node);
    [value(&metrics, "DCGM_CUSTOM_DEV_FB_TOTAL", &[]), of(&metrics, "a")[0]]
}

#[test]
fn cgroups_are_found_in_every_namespace() {
    let node = |view: &str| {
        NODE.replacen("now = 60\n", &format!("now = 60\ncgroup_namespace = \"{view}\"\n"), 1)
    };
    let found = [Some(81_559.0), Some(20_480.0)];
    assert_eq!(total_and_limit(&node("host")), found);
    assert_eq!(total_and_limit(&node("mounted")), found, "paths relative to a namespace");
    // Whether a cgroup above the exporter's is limited is unknown, and so is the memory of the GPU.
    assert_eq!(total_and_limit(&node("private")), [None, None]);
    let older = node("private").replace("615.71", "610.43.02");
    assert_eq!(total_and_limit(&older), [Some(81_559.0); 2], "no limits, so nothing to ask");
}

#[test]
fn limit_of_a_cgroup_above_the_exporter_withholds_the_framebuffer() {
    let above = "memory_limits = [{ cgroup = \"/kubepods.slice\", hard = \"10 GiB\" }, ";
    for view in ["host", "mounted", "private"] {
        let head = format!("now = 60\ncgroup_namespace = \"{view}\"\n");
        let node = NODE.replacen("now = 60\n", &head, 1).replace("memory_limits = [", above);
        let metrics = metrics(&node);
        assert_eq!(value(&metrics, "DCGM_CUSTOM_DEV_FB_TOTAL", &[]), None, "{view}: {metrics}");
        assert!(metrics.contains("reason=\"limited\""), "{view}: {metrics}");
    }
}

/// A limit that the driver does not report any more is not replaced by what the scheduler allocated, whether
/// the container has a process on the GPU or not.
#[test]
fn limit_that_cannot_be_read_is_absent() {
    let at = |now: u32, fault: &str| {
        let share = "ack = { gpu = 0, gib = 30 }";
        NODE.replace("now = 60", &format!("now = {now}"))
            .replace("pid = 7\n", "pid = 7\nend = 90\n")
            .replace("slices = { gpus = 0, replicas = 2 }", share)
            + fault
    };
    let fault =
        "[[fault]]\nfunction = \"nvmlDeviceGetMemoryLimits_v1\"\ncode = \"UNKNOWN\"\nfrom = 95.0\n";
    let scenario = Scenario::new("unread-limit", &at(60, fault));
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval=200"]);
    let allocated = |metrics: &str| of(metrics, "a")[0];
    exporter.wait_for("the limit", |metrics| allocated(metrics) == Some(20_480.0));
    scenario.rewrite(&at(94, fault));
    let idle = ["PodName=\"a\"", "ProcessId=\"0\""];
    let is_idle = |metrics: &str| value(metrics, "DCGM_CUSTOM_PROCESS_MEM_USED", &idle).is_some();
    exporter.wait_for("the end of the process", is_idle);
    scenario.rewrite(&at(100, fault));
    exporter.wait_for("the unknown limit", |metrics| {
        let found = allocated(metrics);
        assert!(matches!(found, None | Some(20_480.0)), "{found:?}: {metrics}");
        found.is_none()
    });
    scenario.rewrite(&at(120, ""));
    exporter.wait_for("the limit again", |metrics| allocated(metrics) == Some(20_480.0));
}

/// The limit is on by default, and stays when the processes of the container have ended.
#[test]
fn limit_of_an_idle_container_stays() {
    let at = |now: u32, end: u32| {
        let process = format!("pid = 7\nend = {end}\n");
        NODE.replace("now = 60", &format!("now = {now}")).replace("pid = 7\n", &process)
    };
    let scenario = Scenario::new("idle", &at(60, 90));
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval=200"]);
    let allocated = |metrics: &str| of(metrics, "a")[0];
    exporter.wait_for("the limit", |metrics| allocated(metrics) == Some(20_480.0));
    scenario.rewrite(&at(100, 90));
    let idle = ["PodName=\"a\"", "ProcessId=\"0\""];
    let is_idle = |metrics: &str| value(metrics, "DCGM_CUSTOM_PROCESS_MEM_USED", &idle).is_some();
    let metrics = exporter.wait_for("the end of the process", is_idle);
    assert_eq!(allocated(&metrics), Some(20_480.0), "{metrics}");
    assert!(series(&metrics, CHARGED).is_empty(), "for counters files only");
}
