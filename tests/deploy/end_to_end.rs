//! End-to-end autoscaling: the exporter on a scenario, a real Prometheus that scrapes it, the adapter rules and the
//! autoscaler.

use std::fs;

use tempfile::TempDir;

use crate::adapter::{EXPOSED_METRICS, Rule, discover, namespace_value, node_value, pod_values};
use crate::autoscaler::{ScalingError, Values, desired_replicas};
use crate::programs::{Server, read, tool_path, url_encode};

const UTILIZATION: &str = "DCGM_CUSTOM_PROCESS_SM_UTIL";
const USED: &str = "DCGM_CUSTOM_PROCESS_MEM_USED";
const RATIO: &str = "DCGM_CUSTOM_PROCESS_GPU_MEM_USED_RATIO";
/// Target and bounds of `daemonset/rules/hpa/utilization.yaml`: 20 %, in thousandths of a percent.
const TARGET: i64 = 20_000;
const BOUNDS: (usize, usize) = (1, 10);

/// An exporter on a mock node, and a Prometheus that scrapes it.
struct TestSetup {
    folder: TempDir,
    prometheus: Server,
    _exporter: Server,
}

impl TestSetup {
    fn start(scenario: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let file = folder.path().join("scenario.toml");
        fs::write(&file, scenario).unwrap();
        let mock = format!("--mock={}", file.display());
        let arguments = [mock.as_str(), "--collect-interval=200", "--max-age=5000"];
        let exporter = Server::start_exporter(&[arguments.as_slice(), flags].concat());
        let prometheus =
            Server::start_prometheus(&tool_path("debian/usr/bin/prometheus"), exporter.address());
        Self { folder, prometheus, _exporter: exporter }
    }

    /// Replaces the scenario.
    fn set_scenario(&self, scenario: &str) {
        // Renamed, so that the mock never reads an incomplete file.
        let next = self.folder.path().join("next.toml");
        fs::write(&next, scenario).unwrap();
        fs::rename(next, self.folder.path().join("scenario.toml")).unwrap();
    }

    /// Waits until the query returns exactly `count` samples.
    fn wait_for_count(&self, query: &str, count: usize) {
        let path = format!("/api/v1/query?query={}", url_encode(query));
        self.prometheus.wait_for(&path, |body| body.matches("\"value\":").count() == count);
    }

    fn pod_values(&self, rules: &[Rule], name: &str, namespace: &str, pods: &[&str]) -> Values {
        pod_values(rules, name, (namespace, pods), &self.prometheus)
    }
}

fn values<const N: usize>(list: [(&str, i64); N]) -> Values {
    list.into_iter().map(|(pod, value)| (pod.to_owned(), value)).collect()
}

#[test]
fn service_scales_out_under_load_and_in_when_idle() {
    let scenario = read("mock-nvml/scenarios/bert-hpa.toml");
    let at = |now: u32| format!("now = {now}\n{scenario}");
    let (first, second) =
        ("bert-intent-detection-7c9f6d5b8-4xk2p", "bert-intent-detection-7c9f6d5b8-qv7zd");
    let setup = TestSetup::start(&at(30), &["--node-name=node-1"]);
    let rules = Rule::load("verbatim.yaml");
    let decide = |pods: &[&str], wanted: Values| {
        let got = setup.pod_values(&rules, UTILIZATION, "default", pods);
        assert_eq!(got, wanted);
        desired_replicas(pods, &got, TARGET, BOUNDS)
    };

    // Idle: 0/20.
    setup.wait_for_count(&format!("{UTILIZATION} == 0"), 1);
    assert_eq!(discover(&rules, &setup.prometheus), EXPOSED_METRICS.map(String::from).into());
    assert_eq!(decide(&[first], values([(first, 0)])), Ok(1));

    // 23/20: ceil(1 × 23 / 20).
    setup.set_scenario(&at(90));
    setup.wait_for_count(&format!("{UTILIZATION} == 23"), 1);
    assert_eq!(decide(&[first], values([(first, 23_000)])), Ok(2));
    let node = node_value(&rules, "DCGM_FI_DEV_GPU_UTIL", "node-1", &setup.prometheus);
    assert_eq!(node, Some(11_500), "23 % of one of two GPUs");

    // The second replica has no process yet: it is idle, not missing.
    setup.set_scenario(&at(119));
    setup.wait_for_count(UTILIZATION, 2);
    assert_eq!(decide(&[first, second], values([(first, 23_000), (second, 0)])), Ok(2));

    // Both are busy: 12/20 keeps two replicas.
    setup.set_scenario(&at(180));
    setup.wait_for_count(&format!("{UTILIZATION} == 12"), 2);
    assert_eq!(decide(&[first, second], values([(first, 12_000), (second, 12_000)])), Ok(2));

    // Idle again: scaled in to one.
    setup.set_scenario(&at(300));
    setup.wait_for_count(&format!("{UTILIZATION} == 0"), 2);
    assert_eq!(decide(&[first, second], values([(first, 0), (second, 0)])), Ok(1));
}

/// Pods with every kind of allocation, and those for which the verbatim rules return wrong values.
const ALL_ALLOCATION_KINDS: &str = r#"
now = 60

[[gpu]]
model = "L20"
count = 9

[[gpu]]
model = "A100"
mig = [{ instances = [{ profile = "1g.10gb", gi = 1 }] }]

[[pod]]
name = "exclusive"
containers = [{ name = "c", gpus = [0] }]

[[process]]
pid = 100
name = "p"
pod = "default/exclusive"
gpus = [0]
memory = "9 GiB"
sm = 40

[[pod]]
name = "slice"
count = 2
containers = [{ name = "c", slices = { gpus = 1, replicas = 4 } }]

[[process]]
pid = 110
name = "p"
pod = "default/slice"
gpus = [1]
count = 2
memory = "3 GiB"
sm = 15

[[pod]]
name = "share"
containers = [{ name = "c", ack = { gpu = 2, gib = 11 } }]

[[process]]
pid = 120
name = "p"
pod = "default/share"
gpus = [2]
memory = "4 GiB"
sm = 25

[[pod]]
name = "mig"
containers = [{ name = "c", mig = ["9/1"] }]

[[process]]
pid = 130
name = "p"
pod = "default/mig"
gpus = [9]
gi = 1
memory = "2 GiB"
sm = 90

[[pod]]
name = "twin"
namespace = "a"
containers = [{ name = "c", gpus = [3] }]

[[process]]
pid = 140
name = "p"
pod = "a/twin"
gpus = [3]
memory = "30 GiB"
sm = 60

[[pod]]
name = "twin"
namespace = "b"
containers = [{ name = "c", gpus = [4] }]

[[process]]
pid = 150
name = "p"
pod = "b/twin"
gpus = [4]
memory = "10 GiB"
sm = 10

[[pod]]
name = "workers"
containers = [{ name = "c", gpus = [5] }]

[[process]]
pid = 160
name = "p"
pod = "default/workers"
gpus = [5]
count = 4
memory = "2 GiB"
sm = 20

[[pod]]
name = "pair"
containers = [{ name = "c", gpus = [6, 7] }]

[[process]]
pid = 170
name = "p"
pod = "default/pair"
gpus = [6]
count = 2
memory = "2 GiB"
sm = 30

[[process]]
pid = 180
name = "p"
pod = "default/pair"
gpus = [7]
memory = "2 GiB"
sm = 20
"#;

#[test]
fn rules_return_expected_values_for_every_kind_of_allocation() {
    let setup = TestSetup::start(ALL_ALLOCATION_KINDS, &["--node-name=node-1"]);
    // 13 processes have a utilization; the one on the MIG device has none.
    setup.wait_for_count(&format!("{UTILIZATION} > 0"), 13);
    let verbatim = Rule::load("verbatim.yaml");
    let corrected = Rule::load("corrected.yaml");
    let each = |name: &str, (namespace, pod): (&str, &str)| {
        [&verbatim, &corrected]
            .map(|rules| setup.pod_values(rules, name, namespace, &[pod]).get(pod).copied())
    };
    let both = |value: i64| [Some(value); 2];
    let of_default = |name: &str, pod: &str| each(name, ("default", pod));

    for (pod, value) in [("exclusive", 40), ("slice-0", 15), ("slice-1", 15), ("share", 25)] {
        assert_eq!(of_default(UTILIZATION, pod), both(value * 1000), "{pod}");
    }
    // Four workers at 20 % use 80 % of a GPU. The verbatim rule keeps one replica, the corrected one scales to four.
    assert_eq!(of_default(UTILIZATION, "workers"), [Some(20_000), Some(80_000)]);
    // 60 % and 20 % of two GPUs.
    assert_eq!(of_default(UTILIZATION, "pair"), [Some(26_666), Some(40_000)]);
    let wanted = [&verbatim, &corrected].map(|rules| {
        let values = setup.pod_values(rules, UTILIZATION, "default", &["workers"]);
        desired_replicas(&["workers"], &values, TARGET, BOUNDS)
    });
    assert_eq!(wanted, [Ok(1), Ok(4)]);

    // A MIG device has no utilization: without metrics, the autoscaler does not scale.
    assert_eq!(of_default(UTILIZATION, "mig"), [None, None]);
    let nothing = setup.pod_values(&verbatim, UTILIZATION, "default", &["mig"]);
    assert_eq!(desired_replicas(&["mig"], &nothing, TARGET, BOUNDS), Err(ScalingError::NoMetrics));
    assert_eq!(of_default(USED, "mig"), both(2_048_000));

    // Pods with the same name in two namespaces are separate.
    assert_eq!(each(UTILIZATION, ("a", "twin")), both(60_000));
    assert_eq!(each(UTILIZATION, ("b", "twin")), both(10_000));
    assert_eq!(each(USED, ("a", "twin")), both(30_720_000));
    // The verbatim ratio divides by the allocations of both.
    assert_eq!(each(RATIO, ("a", "twin")), [Some(333), Some(666)]);
    assert_eq!(each(RATIO, ("b", "twin")), [Some(111), Some(222)]);

    // The ratio of a share refers to the share's memory, that of a time slice to the whole GPU.
    assert_eq!(of_default(RATIO, "share"), both(355));
    assert_eq!(of_default(RATIO, "slice-0"), both(66));
    assert_eq!(of_default(RATIO, "pair"), both(66));

    let node = |name: &str| {
        [&verbatim, &corrected].map(|rules| node_value(rules, name, "node-1", &setup.prometheus))
    };
    let [one, other] = node("DCGM_FI_DEV_GPU_UTIL");
    assert!(one.is_some() && one == other, "a GPU in MIG mode is not included: {one:?} {other:?}");
    let [one, other] = node("DCGM_FI_DEV_FB_USED");
    assert!(one.is_some() && one == other, "{one:?} {other:?}");

    // Per namespace: the mean over its processes (verbatim) or its GPUs (corrected).
    let per_namespace = |name: &str, namespace: &str| {
        [&verbatim, &corrected]
            .map(|rules| namespace_value(rules, name, namespace, &setup.prometheus))
    };
    assert_eq!(per_namespace(UTILIZATION, "a"), both(60_000));
    assert_eq!(per_namespace(UTILIZATION, "default"), [Some(23_181), Some(42_500)]);
    assert_eq!(per_namespace(USED, "b"), both(10_240_000));
    assert_eq!(per_namespace(RATIO, "b"), both(222));
}

#[test]
fn verbatim_rule_is_correct_with_series_per_container() {
    let flags = ["--node-name=node-1", "--process-series=container"];
    let setup = TestSetup::start(ALL_ALLOCATION_KINDS, &flags);
    setup.wait_for_count(&format!("{UTILIZATION} > 0"), 9);
    for rules in ["verbatim.yaml", "corrected.yaml"].map(Rule::load) {
        let of = |pod: &str| setup.pod_values(&rules, UTILIZATION, "default", &[pod]);
        assert_eq!(of("workers"), values([("workers", 80_000)]));
        assert_eq!(of("pair"), values([("pair", 40_000)]));
    }
}
