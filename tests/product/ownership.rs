//! Ownership through the life of a pod: while it is deleted, while its kubelet restarts, and where the
//! driver does not report what it does.

use crate::exporter::{Exporter, Scenario, series, value};

const UTILIZATION: &str = "DCGM_CUSTOM_PROCESS_SM_UTIL";
const ILLEGAL: &str = "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL";
const MEMORY: &str = "DCGM_CUSTOM_PROCESS_MEM_USED";
const ALLOCATED: &str = "DCGM_CUSTOM_DEV_FB_ALLOCATED";
const CYCLES: &str = "nvml_exporter_cycles_total";

/// Flags, and the name of the pod label that follows from them.
type Form = (&'static [&'static str], &'static str);

/// The two dialects and the two granularities.
const FORMS: [Form; 3] = [
    (&["--dialect=ack"], "PodName"),
    (&["--dialect=ack", "--process-series=container"], "PodName"),
    (&["--dialect=dcgm-exporter", "-k", "--process-series=container"], "pod"),
];

/// An exporter of a scenario with the series that these tests read, in one of the [`FORMS`].
struct Node {
    exporter: Exporter,
    pod_label: &'static str,
    _counters: tempfile::NamedTempFile,
}

impl Node {
    fn start(scenario: &Scenario, (flags, pod_label): Form) -> Self {
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
        let quick = ["--collect-interval=200", "--max-age=5000"];
        let flags = [&[&*mock, &*file], &quick[..], flags].concat();
        Self { exporter: Exporter::start(&flags), pod_label, _counters: counters }
    }

    fn of_pod(&self, metrics: &str, family: &str, pod: &str) -> Option<f64> {
        value(metrics, family, &[&format!("{}=\"{pod}\"", self.pod_label)])
    }

    /// Waits for so many more cycles.
    fn later(&self, cycles: f64) -> String {
        let of = |metrics: &str| value(metrics, CYCLES, &[]).unwrap_or(0.0);
        let from = of(&self.exporter.metrics());
        self.exporter.wait_for("more cycles", |metrics| of(metrics) >= from + cycles)
    }
}

/// Two pods in a sharing mode, one busy and one idle; the busy one is `life`.
fn pair(mode: &str, life: &str) -> String {
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
{life}containers = [{{ name = "main", {first} }}]
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
fn a_pod_that_is_being_deleted_keeps_its_series_and_its_allocation() {
    in_each_mode(|mode, form| {
        let at = |now: u32, life: &str| format!("now = {now}\n{}", pair(mode, life));
        let scenario = Scenario::new("deleted", &at(60, ""));
        let node = Node::start(&scenario, form);
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
            let metrics = node.later(1.0);
            assert!(is_attributed(&metrics), "{mode}:\n{metrics}");
        }
        // Its process outlives it: it is of no pod, and not yet unallocated use.
        let gone = at(64, "deleting = 61\nend = 63\n");
        scenario.rewrite(&gone.replace("pod = \"default/busy\"\n", CGROUP));
        let metrics = node
            .exporter
            .wait_for("its end", |metrics| node.of_pod(metrics, UTILIZATION, "busy").is_none());
        assert_eq!(series(&metrics, ILLEGAL).len(), 0, "{mode}: {metrics}");
    });
}

/// Runs a test in all sharing modes at once, which wait for the kubelet's next List most of the time.
fn in_each_mode(test: impl Fn(&str, Form) + Sync) {
    std::thread::scope(|scope| {
        for (n, mode) in MODES.into_iter().enumerate() {
            let test = &test;
            scope.spawn(move || test(mode, FORMS[n % FORMS.len()]));
        }
    });
}

/// A process of a pod that the API server does not know.
const CGROUP: &str = "cgroup = \"0::/kubepods.slice/kubepods-besteffort.slice/\
    kubepods-besteffort-pod000000b1_1111_4222_8333_0000000000b1.slice/\
    cri-containerd-00000000000000000000000000000000000000000000000000000000000000c1.scope\"\n";

#[test]
fn a_process_that_outlives_its_pod_keeps_the_next_holder_from_zero() {
    let stuck = |now: u32| {
        format!("now = {now}\n{}", pair("exclusive", ""))
            .replace("pod = \"default/busy\"\n", CGROUP)
    };
    let scenario = Scenario::new("stuck", &stuck(60));
    let node = Node::start(&scenario, FORMS[0]);
    node.exporter
        .wait_for("the pods", |metrics| node.of_pod(metrics, UTILIZATION, "idle") == Some(0.0));
    let metrics = node.later(3.0);
    assert_eq!(node.of_pod(&metrics, UTILIZATION, "busy"), None, "another's process is on its GPU");
    assert_eq!(series(&metrics, ILLEGAL).len(), 0, "{metrics}");
}

#[test]
fn a_kubelet_that_restarts_changes_nothing() {
    in_each_mode(|mode, form| {
        let restarting = |now: u32, effect: &str| {
            let fault = format!("[[cluster_fault]]\nsource = \"kubelet\"\neffect = \"{effect}\"\n");
            format!("now = {now}\n{}{fault}", pair(mode, ""))
        };
        let scenario = Scenario::new("restart", &format!("now = 60\n{}", pair(mode, "")));
        let node = Node::start(&scenario, form);
        let of = |metrics: &str| {
            [UTILIZATION, MEMORY, ALLOCATED, "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED", ILLEGAL]
                .map(|family| series(metrics, family).join("\n"))
        };
        let steady = node.exporter.wait_for(&format!("both pods of {mode}"), |metrics| {
            node.of_pod(metrics, UTILIZATION, "busy") == Some(60.0)
                && node.of_pod(metrics, UTILIZATION, "idle") == Some(0.0)
                && !series(metrics, ALLOCATED).is_empty()
        });
        let answers = |metrics: &str| {
            let contact = "nvml_exporter_source_contact_timestamp_seconds";
            value(metrics, contact, &["source=\"pod_resources\""]).unwrap_or(0.0)
        };
        for (now, effect) in [(61, "absent"), (62, "no_pods"), (63, "static_pods"), (64, "no_pods")]
        {
            let before = answers(&node.exporter.metrics());
            scenario.rewrite(&restarting(now, effect));
            for _ in 0..5 {
                let metrics = node.later(1.0);
                assert_eq!(of(&metrics), of(&steady), "{mode}, {effect}");
            }
            if effect != "absent" {
                let metrics = node.exporter.wait_for("a List", |metrics| answers(metrics) > before);
                assert_eq!(of(&metrics), of(&steady), "{mode}, {effect}");
            }
        }
    });
}

#[test]
fn a_pod_that_no_list_has_named_is_neither_illegal_nor_is_its_gpu_free() {
    let fault = "[[cluster_fault]]\nsource = \"kubelet\"\neffect = \"static_pods\"\n";
    let scenario =
        Scenario::new("unlisted", &format!("now = 60\n{}{fault}", pair("exclusive", "")));
    for form in FORMS {
        let node = Node::start(&scenario, form);
        node.exporter.wait_for("a List", |metrics| {
            value(metrics, "nvml_exporter_source_up", &["source=\"pod_resources\""]) == Some(1.0)
        });
        let metrics = node.later(3.0);
        for family in [ILLEGAL, UTILIZATION, MEMORY, ALLOCATED, "DCGM_CUSTOM_ALLOCATE_MODE"] {
            assert_eq!(series(&metrics, family).len(), 0, "{family}: {metrics}");
        }
        let problem = ["reason=\"unlisted_pod\""];
        assert_eq!(value(&metrics, "nvml_exporter_allocation_problems", &problem), Some(2.0));
    }
    scenario.rewrite(&format!("now = 61\n{}", pair("exclusive", "")));
    let node = Node::start(&scenario, FORMS[0]);
    node.exporter.wait_for("all pods", |metrics| {
        node.of_pod(metrics, UTILIZATION, "busy") == Some(60.0)
            && node.of_pod(metrics, UTILIZATION, "idle") == Some(0.0)
    });
}

#[test]
fn an_init_container_uses_what_its_pod_was_allocated() {
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
    for form in FORMS {
        let node = Node::start(&scenario, form);
        let metrics = node.exporter.wait_for("its process", |metrics| {
            node.of_pod(metrics, UTILIZATION, "train") == Some(88.0)
        });
        assert!(series(&metrics, UTILIZATION)[0].contains("\"warm-up\""), "{metrics}");
        assert_eq!(series(&metrics, ILLEGAL).len(), 0);
    }
}

#[test]
fn process_lists_that_are_not_supported_are_not_empty() {
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
            Scenario::new("lists", &format!("now = 60\n{}{faults}", pair("exclusive", "")));
        for form in FORMS {
            let node = Node::start(&scenario, form);
            node.exporter.wait_for("allocations", |metrics| !series(metrics, ALLOCATED).is_empty());
            let metrics = node.later(3.0);
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
fn a_process_of_a_refused_row_is_absent_and_not_idle() {
    let worker = |pid: u32, pod: &str, gpu: u32| {
        format!(
            "[[process]]\npid = {pid}\nname = \"w\"\ngpus = [{gpu}]\nmemory = \"1 GiB\"\nsm = 20\n\
             pod = \"default/{pod}\"\n"
        )
    };
    let more = worker(102, "busy", 0) + &worker(103, "idle", 1);
    let node_with = |rows: &str| {
        let garbage = format!("[[garbage]]\ngpu = 0\nrows = [{rows}]\n");
        format!("now = 60\n{}{more}{garbage}", pair("exclusive", ""))
    };
    for form in FORMS {
        for rows in [
            "{ pid = 101, sm = 101 }",
            "{ pid = 102, dec = 999 }",
            "{ pid = 101, sm = 9, age = -30 }",
        ] {
            let scenario = Scenario::new("rows", &node_with(rows));
            let node = Node::start(&scenario, form);
            node.exporter.wait_for("the other pod", |metrics| {
                node.of_pod(metrics, UTILIZATION, "idle") == Some(20.0)
            });
            let metrics = node.later(3.0);
            let of_busy = series(&metrics, UTILIZATION);
            assert!(!of_busy.iter().any(|line| line.contains("\"busy\"")), "{rows}: {metrics}");
            let memory =
                series(&metrics, MEMORY).into_iter().filter(|line| line.contains("\"busy\""));
            assert!(memory.count() > 0, "{rows}: its memory is known");
        }
        for harmless in ["{ pid = 0, sm = 50 }", "{ pid = 101, sm = 999, age = 30 }"] {
            let scenario = Scenario::new("rows", &node_with(harmless));
            let node = Node::start(&scenario, form);
            node.exporter.wait_for("both pods", |metrics| {
                series(metrics, UTILIZATION).iter().any(|line| line.contains("\"busy\""))
                    && node.of_pod(metrics, UTILIZATION, "idle") == Some(20.0)
            });
        }
    }
}

#[test]
fn a_use_of_an_impossible_process_withholds_all_of_its_gpu() {
    let garbage = "[[garbage]]\ngpu = 0\nrows = [{ pid = 4294967295, sm = 3 }]\n";
    let scenario =
        Scenario::new("device", &format!("now = 60\n{}{garbage}", pair("exclusive", "")));
    let node = Node::start(&scenario, FORMS[0]);
    node.exporter.wait_for("the other GPU", |metrics| {
        node.of_pod(metrics, UTILIZATION, "idle") == Some(0.0)
    });
    let metrics = node.later(3.0);
    assert_eq!(node.of_pod(&metrics, UTILIZATION, "busy"), None);
    assert_eq!(node.of_pod(&metrics, MEMORY, "busy"), Some(2048.0));
}
