//! From the driver to the number of replicas: the exporter on a scenario, a real Prometheus that scrapes
//! it, the adapter's rules and the autoscaler.

use std::fs;

use tempfile::TempDir;

use crate::adapter::{OFFERED, Rule, discover, of_namespace, of_node, of_pods};
use crate::autoscaler::{Hold, Values, replicas};
use crate::programs::{Server, brought, encoded, read};

const UTILIZATION: &str = "DCGM_CUSTOM_PROCESS_SM_UTIL";
const USED: &str = "DCGM_CUSTOM_PROCESS_MEM_USED";
const RATIO: &str = "DCGM_CUSTOM_PROCESS_GPU_MEM_USED_RATIO";
/// 20 %, in thousandths of a per cent, for one to ten replicas: `daemonset/rules/hpa/utilization.yaml`.
const TARGET: i64 = 20_000;
const BOUNDS: (usize, usize) = (1, 10);

/// A node, its exporter, and a Prometheus that scrapes it.
struct Pipeline {
    folder: TempDir,
    prometheus: Server,
    _exporter: Server,
}

impl Pipeline {
    fn start(scenario: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let file = folder.path().join("scenario.toml");
        fs::write(&file, scenario).unwrap();
        let mock = format!("--mock={}", file.display());
        let quick = [mock.as_str(), "--collect-interval=200", "--max-age=5000"];
        let exporter = Server::exporter(&[quick.as_slice(), flags].concat());
        let prometheus =
            Server::prometheus(&brought("debian/usr/bin/prometheus"), exporter.address());
        Self { folder, prometheus, _exporter: exporter }
    }

    /// Lets the world go on to another moment.
    fn play(&self, scenario: &str) {
        // In one step: half a scenario is none.
        let next = self.folder.path().join("next.toml");
        fs::write(&next, scenario).unwrap();
        fs::rename(next, self.folder.path().join("scenario.toml")).unwrap();
    }

    /// Waits until Prometheus has exactly so many samples of the query.
    fn until(&self, query: &str, count: usize) {
        let path = format!("/api/v1/query?query={}", encoded(query));
        self.prometheus.wait_for(&path, |body| body.matches("\"value\":").count() == count);
    }

    fn of(&self, rules: &[Rule], name: &str, namespace: &str, pods: &[&str]) -> Values {
        of_pods(rules, name, (namespace, pods), &self.prometheus)
    }
}

fn values<const N: usize>(list: [(&str, i64); N]) -> Values {
    list.into_iter().map(|(pod, value)| (pod.to_owned(), value)).collect()
}

#[test]
fn a_service_under_load_gets_a_second_replica_and_loses_it_when_idle() {
    let story = read("mock-nvml/scenarios/bert-hpa.toml");
    let at = |now: u32| format!("now = {now}\n{story}");
    let (first, second) =
        ("bert-intent-detection-7c9f6d5b8-4xk2p", "bert-intent-detection-7c9f6d5b8-qv7zd");
    let pipeline = Pipeline::start(&at(30), &["--node-name=node-1"]);
    let rules = Rule::shipped("verbatim.yaml");
    let decide = |pods: &[&str], wanted: Values| {
        let got = pipeline.of(&rules, UTILIZATION, "default", pods);
        assert_eq!(got, wanted);
        replicas(pods, &got, TARGET, BOUNDS)
    };

    // Idle, and known to be: 0/20.
    pipeline.until(&format!("{UTILIZATION} == 0"), 1);
    assert_eq!(discover(&rules, &pipeline.prometheus), OFFERED.map(String::from).into());
    assert_eq!(decide(&[first], values([(first, 0)])), Ok(1));

    // 23/20: ceil(1 × 23 / 20).
    pipeline.play(&at(90));
    pipeline.until(&format!("{UTILIZATION} == 23"), 1);
    assert_eq!(decide(&[first], values([(first, 23_000)])), Ok(2));
    let node = of_node(&rules, "DCGM_FI_DEV_GPU_UTIL", "node-1", &pipeline.prometheus);
    assert_eq!(node, Some(11_500), "23 % of one of two GPUs");

    // The second replica is there and has no process yet: it is idle, not missing.
    pipeline.play(&at(119));
    pipeline.until(UTILIZATION, 2);
    assert_eq!(decide(&[first, second], values([(first, 23_000), (second, 0)])), Ok(2));

    // Both work: 12/20 keeps them.
    pipeline.play(&at(180));
    pipeline.until(&format!("{UTILIZATION} == 12"), 2);
    assert_eq!(decide(&[first, second], values([(first, 12_000), (second, 12_000)])), Ok(2));

    // Idle again: back to one.
    pipeline.play(&at(300));
    pipeline.until(&format!("{UTILIZATION} == 0"), 2);
    assert_eq!(decide(&[first, second], values([(first, 0), (second, 0)])), Ok(1));
}

/// One pod for each way to have a GPU, and for each way to read it wrongly.
const ALL_SORTS: &str = r#"
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
fn each_rule_on_each_way_to_have_a_gpu() {
    let pipeline = Pipeline::start(ALL_SORTS, &["--node-name=node-1"]);
    // Thirteen processes have a utilization, and the one on the MIG device has not.
    pipeline.until(&format!("{UTILIZATION} > 0"), 13);
    let verbatim = Rule::shipped("verbatim.yaml");
    let corrected = Rule::shipped("corrected.yaml");
    let each = |name: &str, (namespace, pod): (&str, &str)| {
        [&verbatim, &corrected]
            .map(|rules| pipeline.of(rules, name, namespace, &[pod]).get(pod).copied())
    };
    let both = |value: i64| [Some(value); 2];
    let of_default = |name: &str, pod: &str| each(name, ("default", pod));

    for (pod, value) in [("exclusive", 40), ("slice-0", 15), ("slice-1", 15), ("share", 25)] {
        assert_eq!(of_default(UTILIZATION, pod), both(value * 1000), "{pod}");
    }
    // Four workers at 20 % keep a GPU 80 % busy. The verbatim rule holds, the right one asks for four.
    assert_eq!(of_default(UTILIZATION, "workers"), [Some(20_000), Some(80_000)]);
    // 60 % and 20 % of two GPUs.
    assert_eq!(of_default(UTILIZATION, "pair"), [Some(26_666), Some(40_000)]);
    let wanted = [&verbatim, &corrected].map(|rules| {
        let values = pipeline.of(rules, UTILIZATION, "default", &["workers"]);
        replicas(&["workers"], &values, TARGET, BOUNDS)
    });
    assert_eq!(wanted, [Ok(1), Ok(4)]);

    // No figure of a MIG device is made up: the autoscaler has nothing to go by, and holds.
    assert_eq!(of_default(UTILIZATION, "mig"), [None, None]);
    let nothing = pipeline.of(&verbatim, UTILIZATION, "default", &["mig"]);
    assert_eq!(replicas(&["mig"], &nothing, TARGET, BOUNDS), Err(Hold::NoMetrics));
    assert_eq!(of_default(USED, "mig"), both(2_048_000));

    // Each pod has its namespace's number, though the names are the same.
    assert_eq!(each(UTILIZATION, ("a", "twin")), both(60_000));
    assert_eq!(each(UTILIZATION, ("b", "twin")), both(10_000));
    assert_eq!(each(USED, ("a", "twin")), both(30_720_000));
    // The verbatim ratio divides by what both were given.
    assert_eq!(each(RATIO, ("a", "twin")), [Some(333), Some(666)]);
    assert_eq!(each(RATIO, ("b", "twin")), [Some(111), Some(222)]);

    // Of a share, memory is a ratio of the share; of a slice, of the whole GPU.
    assert_eq!(of_default(RATIO, "share"), both(355));
    assert_eq!(of_default(RATIO, "slice-0"), both(66));
    assert_eq!(of_default(RATIO, "pair"), both(66));

    let node = |name: &str| {
        [&verbatim, &corrected].map(|rules| of_node(rules, name, "node-1", &pipeline.prometheus))
    };
    let [one, other] = node("DCGM_FI_DEV_GPU_UTIL");
    assert!(
        one.is_some() && one == other,
        "the GPU that is cut has no say in it: {one:?} {other:?}"
    );
    let [one, other] = node("DCGM_FI_DEV_FB_USED");
    assert!(one.is_some() && one == other, "{one:?} {other:?}");

    // Of a namespace: the mean over its processes, or over its GPUs.
    let space = |name: &str, namespace: &str| {
        [&verbatim, &corrected]
            .map(|rules| of_namespace(rules, name, namespace, &pipeline.prometheus))
    };
    assert_eq!(space(UTILIZATION, "a"), both(60_000));
    assert_eq!(space(UTILIZATION, "default"), [Some(23_181), Some(42_500)]);
    assert_eq!(space(USED, "b"), both(10_240_000));
    assert_eq!(space(RATIO, "b"), both(222));
}

#[test]
fn with_one_series_per_container_the_verbatim_rule_is_right() {
    let flags = ["--node-name=node-1", "--process-series=container"];
    let pipeline = Pipeline::start(ALL_SORTS, &flags);
    pipeline.until(&format!("{UTILIZATION} > 0"), 9);
    for rules in ["verbatim.yaml", "corrected.yaml"].map(Rule::shipped) {
        let of = |pod: &str| pipeline.of(&rules, UTILIZATION, "default", &[pod]);
        assert_eq!(of("workers"), values([("workers", 80_000)]));
        assert_eq!(of("pair"), values([("pair", 40_000)]));
    }
}
