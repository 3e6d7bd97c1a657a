//! Process attribution through the lifecycle of a pod: while it is deleted, while the kubelet
//! restarts, and if the driver does not report its processes or their utilization.

use crate::exporter::{Exporter, Scenario, series, value};

const UTILIZATION: &str = "DCGM_CUSTOM_PROCESS_SM_UTIL";
const ILLEGAL: &str = "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL";
const MEMORY: &str = "DCGM_CUSTOM_PROCESS_MEM_USED";
const ALLOCATED: &str = "DCGM_CUSTOM_DEV_FB_ALLOCATED";
const CYCLES: &str = "nvml_exporter_cycles_total";

/// Flags, and the resulting name of the pod label.
type Variant = (&'static [&'static str], &'static str);

/// Both dialects, and both granularities of process series.
const VARIANTS: [Variant; 4] = [
    (&["--dialect=ack"], "PodName"),
    (&["--dialect=ack", "--process-series=container"], "PodName"),
    (&["--dialect=dcgm-exporter", "--enable-exporter-metrics", "-k"], "pod"),
    (
        &[
            "--dialect=dcgm-exporter",
            "--enable-exporter-metrics",
            "-k",
            "--process-series=container",
        ],
        "pod",
    ),
];

/// An exporter with the series that these tests read, in one of the [`VARIANTS`].
struct Node {
    exporter: Exporter,
    pod_label: &'static str,
    _counters: tempfile::NamedTempFile,
}

impl Node {
    fn start(scenario: &Scenario, (flags, pod_label): Variant) -> Self {
        let counters = tempfile::NamedTempFile::new().unwrap();
        let row = |name: &str| format!("{name}, gauge, x\n");
        let names = [
            UTILIZATION,
            ILLEGAL,
            MEMORY,
            "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_USED",
            ALLOCATED,
            "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED",
            "DCGM_CUSTOM_ALLOCATE_MODE",
            "DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL",
            "DCGM_CUSTOM_DEV_ENERGY_JOULES_TOTAL",
        ];
        std::fs::write(counters.path(), names.map(row).concat()).unwrap();
        let (mock, file) = (scenario.flag(), format!("-f={}", counters.path().display()));
        let timing = ["--collect-interval=200", "--max-age=5000"];
        let flags = [&[&*mock, &*file], &timing[..], flags].concat();
        Self { exporter: Exporter::start(&flags), pod_label, _counters: counters }
    }

    fn of_pod(&self, metrics: &str, family: &str, pod: &str) -> Option<f64> {
        value(metrics, family, &[&format!("{}=\"{pod}\"", self.pod_label)])
    }

    /// The exposition after this many more cycles.
    fn after_cycles(&self, cycles: f64) -> String {
        let of = |metrics: &str| value(metrics, CYCLES, &[]).unwrap_or(0.0);
        let from = of(&self.exporter.metrics());
        self.exporter.wait_for("more cycles", |metrics| of(metrics) >= from + cycles)
    }
}

/// Two pods in a sharing mode, `busy` and `idle`. `lifecycle` is inserted into the table of `busy`.
fn two_pods(mode: &str, lifecycle: &str) -> String {
    let [first, second] = match mode {
        "exclusive" => ["gpus = 0", "gpus = 1"],
        "slices" => ["slices = { gpus = 0, replicas = 2 }", "slices = { gpus = 0, replicas = 2 }"],
        "ack" => ["ack = { gpu = 0, gib = 4 }", "ack = { gpu = 0, gib = 4 }"],
        "ack_v1" => ["ack_v1 = { gpu = 0, gib = 4 }", "ack_v1 = { gpu = 0, gib = 4 }"],
        "hami" => ["hami = [{ gpu = 0, mib = 3000 }]", "hami = [{ gpu = 0, mib = 3000 }]"],
        "volcano" => ["volcano = [{ gpu = 0, mib = 3000 }]", "volcano = [{ gpu = 0, mib = 3000 }]"],
        "koordinator" => {
            ["koordinator = [{ gpu = 0, mib = 3000 }]", "koordinator = [{ gpu = 0, mib = 3000 }]"]
        }
        "claim" => ["claim = { name = \"a\", gpus = [0] }", "claim = { name = \"b\", gpus = [1] }"],
        other => panic!("{other}"),
    };
    format!(
        r#"[[gpu]]
model = "T4"
count = 2
[cluster]
node = "node-1"
[[pod]]
name = "busy"
{lifecycle}containers = [{{ name = "main", {first} }}]
[[pod]]
name = "idle"
containers = [{{ name = "main", {second} }}]
[[process]]
pid = 101
name = "python"
gpus = [0]
memory = "2 GiB"
sm = 60
pod = "default/busy"
"#
    )
}

const MODES: [&str; 8] =
    ["exclusive", "slices", "ack", "ack_v1", "hami", "volcano", "koordinator", "claim"];

#[test]
fn pod_being_deleted_keeps_its_series_and_allocation() {
    in_each_mode(|mode, variant| {
        let at = |now: u32, lifecycle: &str| format!("now = {now}\n{}", two_pods(mode, lifecycle));
        let scenario = Scenario::new("deleted", &at(60, ""));
        let node = Node::start(&scenario, variant);
        let steady = node.exporter.wait_for(&format!("both pods of {mode}"), |metrics| {
            node.of_pod(metrics, UTILIZATION, "busy") == Some(60.0)
                && node.of_pod(metrics, UTILIZATION, "idle") == Some(0.0)
                && !series(metrics, ALLOCATED).is_empty()
        });
        let is_attributed = |metrics: &str| {
            series(metrics, ILLEGAL).is_empty()
                && node.of_pod(metrics, UTILIZATION, "busy") == Some(60.0)
                && series(metrics, ALLOCATED) == series(&steady, ALLOCATED)
        };
        scenario.rewrite(&at(62, "deleting = 61\nend = 300\n"));
        for _ in 0..10 {
            let metrics = node.after_cycles(1.0);
            assert!(is_attributed(&metrics), "{mode}:\n{metrics}");
        }
        // The process outlives the pod. It has no pod then, and is not reported as unallocated use
        // yet.
        let gone = at(64, "deleting = 61\nend = 63\n");
        scenario.rewrite(&gone.replace("pod = \"default/busy\"\n", CGROUP));
        let metrics = node.exporter.wait_for("the end of the pod", |metrics| {
            node.of_pod(metrics, UTILIZATION, "busy").is_none()
        });
        assert_eq!(series(&metrics, ILLEGAL).len(), 0, "{mode}: {metrics}");
    });
}

/// Runs a test in all sharing modes in parallel; most of the time they wait for the kubelet's next
/// List.
fn in_each_mode(test: impl Fn(&str, Variant) + Sync) {
    std::thread::scope(|scope| {
        for (n, mode) in MODES.into_iter().enumerate() {
            let test = &test;
            scope.spawn(move || test(mode, VARIANTS[n % VARIANTS.len()]));
        }
    });
}

/// Cgroup of a process of a pod that is not in the API server.
const CGROUP: &str = "cgroup = \"0::/kubepods.slice/kubepods-besteffort.slice/\
    kubepods-besteffort-pod000000b1_1111_4222_8333_0000000000b1.slice/\
    cri-containerd-00000000000000000000000000000000000000000000000000000000000000c1.scope\"\n";

#[test]
fn process_that_outlives_its_pod_withholds_the_idle_series_of_the_next_pod() {
    let stuck = |now: u32| {
        format!("now = {now}\n{}", two_pods("exclusive", ""))
            .replace("pod = \"default/busy\"\n", CGROUP)
    };
    let scenario = Scenario::new("stuck", &stuck(60));
    let node = Node::start(&scenario, VARIANTS[0]);
    node.exporter
        .wait_for("the pods", |metrics| node.of_pod(metrics, UTILIZATION, "idle") == Some(0.0));
    let metrics = node.after_cycles(3.0);
    assert_eq!(
        node.of_pod(&metrics, UTILIZATION, "busy"),
        None,
        "its GPU has a process of another pod"
    );
    assert_eq!(series(&metrics, ILLEGAL).len(), 0, "{metrics}");
}

#[test]
fn kubelet_restart_changes_no_series() {
    in_each_mode(|mode, variant| {
        let restarting = |now: u32, effect: &str| {
            let fault = format!("[[cluster_fault]]\nsource = \"kubelet\"\neffect = \"{effect}\"\n");
            format!("now = {now}\n{}{fault}", two_pods(mode, ""))
        };
        let scenario = Scenario::new("restart", &format!("now = 60\n{}", two_pods(mode, "")));
        let node = Node::start(&scenario, variant);
        let of = |metrics: &str| {
            [UTILIZATION, MEMORY, ALLOCATED, "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED", ILLEGAL]
                .map(|family| series(metrics, family).join("\n"))
        };
        let steady = node.exporter.wait_for(&format!("both pods of {mode}"), |metrics| {
            node.of_pod(metrics, UTILIZATION, "busy") == Some(60.0)
                && node.of_pod(metrics, UTILIZATION, "idle") == Some(0.0)
                && !series(metrics, ALLOCATED).is_empty()
        });
        let last_contact = |metrics: &str| {
            let contact = "nvml_exporter_source_contact_timestamp_seconds";
            value(metrics, contact, &["source=\"pod_resources\""]).unwrap_or(0.0)
        };
        // A List that is older than the pods may be about their predecessors.
        let listed = last_contact(&steady);
        node.exporter
            .wait_for("a List after the pods", |metrics| last_contact(metrics) > listed + 0.5);
        for (now, effect) in [(61, "absent"), (62, "no_pods"), (63, "static_pods"), (64, "no_pods")]
        {
            let before = last_contact(&node.exporter.metrics());
            scenario.rewrite(&restarting(now, effect));
            for _ in 0..5 {
                let metrics = node.after_cycles(1.0);
                assert_eq!(of(&metrics), of(&steady), "{mode}, {effect}");
            }
            if effect != "absent" {
                let metrics =
                    node.exporter.wait_for("a List", |metrics| last_contact(metrics) > before);
                assert_eq!(of(&metrics), of(&steady), "{mode}, {effect}");
            }
        }
    });
}

#[test]
fn unlisted_pod_is_not_illegal_and_its_gpu_is_not_free() {
    let fault = "[[cluster_fault]]\nsource = \"kubelet\"\neffect = \"static_pods\"\n";
    let scenario =
        Scenario::new("unlisted", &format!("now = 60\n{}{fault}", two_pods("exclusive", "")));
    for variant in VARIANTS {
        let node = Node::start(&scenario, variant);
        node.exporter.wait_for("a List", |metrics| {
            value(metrics, "nvml_exporter_source_up", &["source=\"pod_resources\""]) == Some(1.0)
        });
        let metrics = node.after_cycles(3.0);
        for family in [ILLEGAL, UTILIZATION, MEMORY, ALLOCATED, "DCGM_CUSTOM_ALLOCATE_MODE"] {
            assert_eq!(series(&metrics, family).len(), 0, "{family}: {metrics}");
        }
        let problem = ["reason=\"unlisted_pod\""];
        assert_eq!(value(&metrics, "nvml_exporter_allocation_problems", &problem), Some(2.0));
    }
    scenario.rewrite(&format!("now = 61\n{}", two_pods("exclusive", "")));
    let node = Node::start(&scenario, VARIANTS[0]);
    node.exporter.wait_for("all pods", |metrics| {
        node.of_pod(metrics, UTILIZATION, "busy") == Some(60.0)
            && node.of_pod(metrics, UTILIZATION, "idle") == Some(0.0)
    });
}

#[test]
fn init_container_uses_the_allocation_of_its_pod() {
    let scenario = Scenario::new(
        "init",
        r#"now = 60
[[gpu]]
model = "T4"
[cluster]
node = "node-1"
[[pod]]
name = "train"
containers = [{ name = "warm-up", kind = "init", end = 600 }, { name = "trainer", gpus = 0 }]
[[process]]
pid = 500
name = "python"
pod = "default/train"
container = "warm-up"
gpus = [0]
memory = "3 GiB"
sm = 88
"#,
    );
    for variant in VARIANTS {
        let node = Node::start(&scenario, variant);
        let metrics = node.exporter.wait_for("its process", |metrics| {
            node.of_pod(metrics, UTILIZATION, "train") == Some(88.0)
        });
        assert!(series(&metrics, UTILIZATION)[0].contains("\"warm-up\""), "{metrics}");
        assert_eq!(series(&metrics, ILLEGAL).len(), 0);
    }
}

#[test]
fn unsupported_process_lists_are_not_empty() {
    for functions in [&["nvmlDeviceGetComputeRunningProcesses_v3"][..], &["*Running*"]] {
        let lists = if functions[0] == "*Running*" {
            &[
                "nvmlDeviceGetComputeRunningProcesses_v3",
                "nvmlDeviceGetGraphicsRunningProcesses_v3",
                "nvmlDeviceGetMPSComputeRunningProcesses_v3",
            ][..]
        } else {
            functions
        };
        let fault =
            |name: &&str| format!("[[fault]]\nfunction = \"{name}\"\ncode = \"NOT_SUPPORTED\"\n");
        let faults = lists.iter().map(fault).collect::<String>();
        let scenario =
            Scenario::new("lists", &format!("now = 60\n{}{faults}", two_pods("exclusive", "")));
        for variant in VARIANTS {
            let node = Node::start(&scenario, variant);
            node.exporter.wait_for("allocations", |metrics| !series(metrics, ALLOCATED).is_empty());
            let metrics = node.after_cycles(3.0);
            for family in [
                UTILIZATION,
                MEMORY,
                ILLEGAL,
                "DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL",
                "DCGM_CUSTOM_DEV_ENERGY_JOULES_TOTAL",
            ] {
                assert_eq!(series(&metrics, family).len(), 0, "{family}: {metrics}");
            }
        }
    }
}

#[test]
fn process_with_an_invalid_row_is_absent_not_idle() {
    let worker = |pid: u32, pod: &str, gpu: u32| {
        format!(
            "[[process]]\npid = {pid}\nname = \"w\"\ngpus = [{gpu}]\nmemory = \"1 GiB\"\nsm = 20\n\
             pod = \"default/{pod}\"\n"
        )
    };
    let more = worker(102, "busy", 0) + &worker(103, "idle", 1);
    let node_with = |rows: &str| {
        let garbage = format!("[[garbage]]\ngpu = 0\nrows = [{rows}]\n");
        format!("now = 60\n{}{more}{garbage}", two_pods("exclusive", ""))
    };
    for variant in VARIANTS {
        for rows in [
            "{ pid = 101, sm = 101 }",
            "{ pid = 102, dec = 999 }",
            "{ pid = 101, sm = 9, age = -30 }",
        ] {
            let scenario = Scenario::new("rows", &node_with(rows));
            let node = Node::start(&scenario, variant);
            node.exporter.wait_for("the other pod", |metrics| {
                node.of_pod(metrics, UTILIZATION, "idle") == Some(20.0)
            });
            let metrics = node.after_cycles(3.0);
            let of_busy = series(&metrics, UTILIZATION);
            assert!(!of_busy.iter().any(|line| line.contains("\"busy\"")), "{rows}: {metrics}");
            let memory =
                series(&metrics, MEMORY).into_iter().filter(|line| line.contains("\"busy\""));
            assert!(memory.count() > 0, "{rows}: its memory is known");
        }
        for harmless in ["{ pid = 0, sm = 50 }", "{ pid = 101, sm = 999, age = 30 }"] {
            let scenario = Scenario::new("rows", &node_with(harmless));
            let node = Node::start(&scenario, variant);
            node.exporter.wait_for("both pods", |metrics| {
                series(metrics, UTILIZATION).iter().any(|line| line.contains("\"busy\""))
                    && node.of_pod(metrics, UTILIZATION, "idle") == Some(20.0)
            });
        }
    }
}

#[test]
fn use_of_an_impossible_pid_withholds_utilization_of_its_gpu() {
    let garbage = "[[garbage]]\ngpu = 0\nrows = [{ pid = 4294967295, sm = 3 }]\n";
    let scenario =
        Scenario::new("device", &format!("now = 60\n{}{garbage}", two_pods("exclusive", "")));
    let node = Node::start(&scenario, VARIANTS[0]);
    node.exporter.wait_for("the other GPU", |metrics| {
        node.of_pod(metrics, UTILIZATION, "idle") == Some(0.0)
    });
    let metrics = node.after_cycles(3.0);
    assert_eq!(node.of_pod(&metrics, UTILIZATION, "busy"), None);
    assert_eq!(node.of_pod(&metrics, MEMORY, "busy"), Some(2048.0));
}
