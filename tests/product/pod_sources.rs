//! The sources of pods: each alone, their faults, and the changes between them.

use std::collections::BTreeSet;
use std::fs;

use crate::exporter::{Exporter, Scenario, series, value};

const FLAGS: [&str; 4] = ["--collect-interval", "200", "--max-age", "5000"];

fn start(scenario: &Scenario) -> Exporter {
    Exporter::start(&[&[scenario.flag().as_str()], FLAGS.as_slice()].concat())
}

/// Pod `train` uses GPU 0, pod `serve` is idle on GPU 1, and GPU 2 is free.
fn node(now: u32, rest: &str) -> String {
    format!(
        r#"now = {now}
[cluster]
node = "node-7"
[[gpu]]
model = "L20"
count = 3
[[pod]]
name = "train"
namespace = "team-a"
containers = [{{ name = "main", gpus = [0] }}]
[[pod]]
name = "serve"
namespace = "team-b"
containers = [{{ name = "web", gpus = [1] }}]
[[process]]
pid = 101
name = "python"
gpus = [0]
memory = "20 GiB"
sm = 60
pod = "team-a/train"
container = "main"
{rest}"#
    )
}

fn fault(source: &str, effect: &str) -> String {
    format!("[[cluster_fault]]\nsource = \"{source}\"\neffect = \"{effect}\"\n")
}

fn sm(metrics: &str, pod: &str) -> Option<f64> {
    value(metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL", &[&format!("PodName=\"{pod}\"")])
}

fn allocated(metrics: &str, gpu: u32) -> Option<f64> {
    value(metrics, "DCGM_CUSTOM_DEV_FB_ALLOCATED", &[&format!("gpu=\"{gpu}\"")])
}

/// Both pods have their values, and the free GPU is known to be free.
fn is_complete(metrics: &str) -> bool {
    (sm(metrics, "train"), sm(metrics, "serve")) == (Some(60.0), Some(0.0))
        && allocated(metrics, 2) == Some(0.0)
}

fn count(metrics: &str, family: &str, source: &str, reason: &str) -> Option<f64> {
    let labels = [format!("source=\"{source}\""), format!("reason=\"{reason}\"")];
    value(metrics, family, &labels.each_ref().map(String::as_str))
}

#[test]
fn pods_are_attributed_at_the_start_and_not_a_cycle_later() {
    let scenario = Scenario::new("start", &node(60, ""));
    let hour = ["--collect-interval", "3600000"];
    let exporter = Exporter::start(&[&[scenario.flag().as_str()], hour.as_slice()].concat());
    let metrics = exporter.wait_for("both pods", is_complete);
    assert_eq!(series(&metrics, "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL"), Vec::<&str>::new());
}

#[test]
fn pods_are_listed_where_streaming_lists_end_with_an_error() {
    let scenario = Scenario::new("stream", &node(60, &fault("api", "stream_error")));
    let exporter = start(&scenario);
    let metrics = exporter.wait_for("both pods", is_complete);
    let failures = "nvml_exporter_source_failures_total";
    assert_eq!(count(&metrics, failures, "api", "unsupported"), Some(1.0), "lists from then on");
    let late = "[[pod]]\nname = \"late\"\nnamespace = \"team-a\"\n\
                containers = [{ name = \"main\", gpus = [2] }]\n";
    scenario.rewrite(&node(61, &format!("{late}{}", fault("api", "stream_error"))));
    let metrics = exporter.wait_for("a pod of the watch", |metrics| sm(metrics, "late").is_some());
    assert_eq!(value(&metrics, "nvml_exporter_source_up", &["\"api\""]), Some(1.0));
}

#[test]
fn pod_that_cannot_be_decoded_is_skipped_and_counted() {
    let scenario = Scenario::new("invalid", &node(60, &fault("api", "invalid_object")));
    let exporter = start(&scenario);
    let metrics = exporter.wait_for("the pods", |metrics| sm(metrics, "train") == Some(60.0));
    let skipped = "nvml_exporter_source_skipped_objects_total";
    assert_eq!(count(&metrics, skipped, "api", "undecodable"), Some(1.0));
    assert_eq!(value(&metrics, "nvml_exporter_source_up", &["\"api\""]), Some(1.0));
    assert_eq!(allocated(&metrics, 0), Some(1.0));
    assert_eq!(allocated(&metrics, 2), None, "the pod may hold it");
    scenario.rewrite(&node(61, &fault("api", "expired")));
    exporter.wait_for("the expiry", |metrics| {
        count(metrics, "nvml_exporter_source_failures_total", "api", "expired").is_some()
    });
    scenario.rewrite(&node(62, ""));
    exporter.wait_for("a list without it", is_complete);
}

/// The Pods API of this version, and the rest of a scenario.
fn with_pods_api(now: u32, version: &str, rest: &str) -> String {
    let cluster = format!("node = \"node-7\"\npods_api = \"{version}\"\n");
    node(now, rest).replace("node = \"node-7\"\n", &cluster)
}

fn source_in_use(metrics: &str) -> Option<String> {
    let line = series(metrics, "nvml_exporter_pod_source");
    Some(line.first()?.split('"').nth(1)?.to_owned())
}

/// The label sets of processes, containers and allocations.
fn label_sets(metrics: &str) -> BTreeSet<String> {
    let custom = metrics.lines().filter(|line| line.starts_with("DCGM_CUSTOM_"));
    custom.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

/// Pods with containers of every kind, a static one among them, and what they use.
const ALL_KINDS: &str = r#"
[[pod]]
name = "etcd"
namespace = "kube-system"
static = true
containers = [{ name = "main", gpus = [2] }]
[[pod]]
name = "kinds"
namespace = "team-c"
annotations = { "gpu-fraction" = "0.5" }
labels = { app = "kinds" }
containers = [{ name = "init", kind = "init", end = 20 }, { name = "side", kind = "sidecar" },
  { name = "main", start = 21, restarts = [40], slices = { gpus = [3], replicas = 2 } },
  { name = "debug", kind = "ephemeral", start = 45 }]
[[process]]
pid = 301
name = "etcd"
gpus = [2]
memory = "1 GiB"
sm = 5
pod = "kube-system/etcd"
[[process]]
pid = 401
name = "work"
gpus = [3]
memory = "1 GiB"
sm = 10
start = 41
pod = "team-c/kinds"
container = "main"
"#;

fn all_kinds(pods_api: Option<&str>, rest: &str) -> String {
    let rest = format!("{ALL_KINDS}{rest}");
    let text = match pods_api {
        Some(version) => with_pods_api(60, version, &rest),
        None => node(60, &rest),
    };
    text.replace("count = 3", "count = 4")
}

#[test]
fn each_source_alone_attributes_alike() {
    let refused = fault("api", "refuse");
    let no_mask = format!("{refused}{}", fault("pods_api", "no_field_mask"));
    let mut expected: Option<BTreeSet<String>> = None;
    for (source, scenario) in [
        ("api", all_kinds(None, "")),
        ("pods_api", all_kinds(Some("v1beta1"), &refused)),
        ("pods_api", all_kinds(Some("v1alpha1"), &refused)),
        ("pods_api", all_kinds(Some("v1alpha1"), &no_mask)),
    ] {
        let scenario = Scenario::new("alone", &scenario);
        let exporter = start(&scenario);
        let metrics = exporter.wait_for("every pod", |metrics| {
            ["train", "etcd", "kinds"].iter().all(|pod| sm(metrics, pod).is_some())
                && sm(metrics, "serve") == Some(0.0)
        });
        assert_eq!(source_in_use(&metrics).as_deref(), Some(source));
        let found = label_sets(&metrics);
        assert!(found.iter().all(|line| !line.contains("ILLEGAL")), "{source}: {metrics}");
        assert_eq!(expected.get_or_insert_with(|| found.clone()), &found, "{source}");
    }
}

#[test]
fn with_the_pods_api_nothing_is_requested_from_the_api_server() {
    let scenario = Scenario::new("requests", &with_pods_api(60, "v1beta1", ""));
    let directory = tempfile::tempdir().unwrap();
    let calls = directory.path().join("calls");
    let environment = [("MOCK_NVML_CALLS", calls.to_str().unwrap())];
    let flag = scenario.flag();
    let args = [&[flag.as_str()], FLAGS.as_slice()].concat();
    let exporter = Exporter::start_with(&environment, &args);
    let metrics = exporter.wait_for("both pods", is_complete);
    assert_eq!(source_in_use(&metrics).as_deref(), Some("pods_api"));
    assert!(!metrics.contains("source=\"api\""), "{metrics}");
    let node = exporter.get("/api/v1/node").text();
    assert!(node.contains("\"pod_source\":\"pods_api\""), "{node}");
    assert!(exporter.get("/").text().contains("source of the pods"));
    // A pod that comes later is one of the watch.
    let late = "[[pod]]\nname = \"late\"\nnamespace = \"team-a\"\n\
                containers = [{ name = \"main\", gpus = [2] }]\n";
    scenario.rewrite(&with_pods_api(61, "v1beta1", late));
    exporter.wait_for("the later pod", |metrics| sm(metrics, "late") == Some(0.0));
    scenario.rewrite(&with_pods_api(62, "v1beta1", ""));
    exporter.wait_for("its end", is_complete);
    let (status, _) = exporter.terminate();
    assert!(status.success());
    let counted = fs::read_to_string(calls).unwrap();
    assert!(counted.contains("/v1beta1.Pods/WatchPods"), "{counted}");
    assert!(!counted.contains("/api/"), "{counted}");
}

#[test]
fn pods_api_that_does_not_respond_at_the_start_is_not_waited_for() {
    for effect in ["absent", "refuse", "hang", "garbage", "denied", "not_ready", "error"] {
        let faulty = with_pods_api(60, "v1beta1", &fault("pods_api", effect));
        let scenario = Scenario::new("start", &faulty);
        let exporter = start(&scenario);
        let metrics = exporter.wait_for(effect, is_complete);
        assert_eq!(source_in_use(&metrics).as_deref(), Some("api"), "{effect}");
        assert!(!metrics.contains("source=\"pods_api\""), "{effect}: it was never used");
        scenario.rewrite(&with_pods_api(61, "v1beta1", ""));
        let metrics = exporter.wait_for("the Pods API", |metrics| {
            source_in_use(metrics).as_deref() == Some("pods_api") && is_complete(metrics)
        });
        let is_warning = |line: &str| line.contains("WARN") && line.contains("Pods API");
        assert!(!exporter.log().lines().any(is_warning), "{effect}: {}", exporter.log());
        assert!(!metrics.contains("source=\"api\""), "{effect}: {metrics}");
    }
}

#[test]
fn change_of_the_source_changes_no_label() {
    for effect in ["absent", "refuse", "garbage", "denied", "not_ready", "error", "close"] {
        let scenario = Scenario::new("change", &with_pods_api(60, "v1beta1", ""));
        let exporter = start(&scenario);
        let metrics = exporter.wait_for("both pods", is_complete);
        let labels: BTreeSet<String> = label_sets(&metrics);
        let of_pods: BTreeSet<_> = labels.iter().filter(|line| line.contains("team-")).collect();
        // At any time, the series of the pods are some of those: an idle pod has no 0 while no source is
        // current.
        let unchanged = |metrics: &str| {
            let sets = label_sets(metrics);
            let found: BTreeSet<_> = sets.iter().filter(|line| line.contains("team-")).collect();
            assert!(found.is_subset(&of_pods), "{effect}: {found:?}");
            assert_eq!(sm(metrics, "train"), Some(60.0), "{effect}");
            assert!(!metrics.contains("ILLEGAL_PROCESS_SM_UTIL{"), "{effect}: {metrics}");
        };
        for (now, text, source) in
            [(61, fault("pods_api", effect), "api"), (62, String::new(), "pods_api")]
        {
            scenario.rewrite(&with_pods_api(now, "v1beta1", &text));
            exporter.wait_for(&format!("{source} after {effect}"), |metrics| {
                unchanged(metrics);
                source_in_use(metrics).as_deref() == Some(source) && is_complete(metrics)
            });
        }
    }
}

#[test]
fn static_pod_keeps_its_uid_when_the_source_changes() {
    let etcd =
        "[[pod]]\nname = \"etcd\"\nstatic = true\ncontainers = [{ name = \"main\", gpus = [2] }]\n";
    let dcgm = [
        "--dialect=dcgm-exporter",
        "--enable-exporter-metrics",
        "--kubernetes",
        "--kubernetes-enable-pod-uid",
    ];
    let uid = |metrics: &str| -> Option<String> {
        let lines = series(metrics, "DCGM_FI_DEV_GPU_UTIL");
        let line = lines.into_iter().find(|line| line.contains("pod=\"etcd\""))?;
        Some(line.split("pod_uid=\"").nth(1)?.split('"').next()?.to_owned())
    };
    let absent = format!("{etcd}{}", fault("pods_api", "absent"));
    for (first, then, sources) in
        [(etcd, &*absent, ["pods_api", "api"]), (&*absent, etcd, ["api", "pods_api"])]
    {
        let scenario = Scenario::new("static", &with_pods_api(60, "v1beta1", first));
        let flag = scenario.flag();
        let args = [&[flag.as_str()], FLAGS.as_slice(), &dcgm].concat();
        let exporter = Exporter::start(&args);
        let metrics = exporter.wait_for("the pod", |metrics| uid(metrics).is_some());
        assert_eq!(source_in_use(&metrics).as_deref(), Some(sources[0]));
        let before = uid(&metrics);
        scenario.rewrite(&with_pods_api(61, "v1beta1", then));
        exporter.wait_for("the other source", |metrics| {
            assert_eq!(uid(metrics), before);
            source_in_use(metrics).as_deref() == Some(sources[1])
                && value(metrics, "nvml_exporter_source_up", &[&format!("\"{}\"", sources[1])])
                    == Some(1.0)
        });
        assert_eq!(value(&exporter.metrics(), "nvml_exporter_pods", &[]), Some(3.0));
    }
}

#[test]
fn process_that_outlives_its_pod_stays_withheld_when_the_source_changes() {
    let gone = |now: u32, rest: &str| {
        let process = "[[process]]\npid = 201\nname = \"old\"\ngpus = [1]\nmemory = \"1 GiB\"\nsm = 30\n\
                       pod = \"team-b/serve\"\n";
        let text = with_pods_api(now, "v1beta1", &format!("{process}{rest}"));
        text.replace("name = \"serve\"\n", "name = \"serve\"\nforce_deleted = 61\nend = 9000\n")
    };
    let scenario = Scenario::new("outlived", &gone(60, ""));
    let exporter = start(&scenario);
    exporter.wait_for("the process", |metrics| sm(metrics, "serve") == Some(30.0));
    scenario.rewrite(&gone(62, ""));
    let withheld = |metrics: &str| {
        let deleted = ["\"deleted\""];
        value(metrics, "nvml_exporter_unresolved_processes", &deleted) == Some(1.0)
    };
    exporter.wait_for("the end of the pod", withheld);
    scenario.rewrite(&gone(63, &fault("pods_api", "absent")));
    let metrics = exporter.wait_for("the other source", |metrics| {
        source_in_use(metrics).as_deref() == Some("api") && withheld(metrics)
    });
    assert!(!metrics.contains("ILLEGAL_PROCESS_SM_UTIL{"), "{metrics}");
}

/// The directory of the mock environment: library, sockets and addresses.
fn mock_directory(exporter: &Exporter) -> String {
    let log = exporter.log();
    let library = log.split("library=\"").nth(1).and_then(|rest| rest.split('"').next());
    library.and_then(|path| path.strip_suffix("/libnvidia-ml.so.1")).expect(&log).to_owned()
}

#[test]
fn list_of_the_kubelet_replaces_the_pods_api() {
    let scenario = Scenario::new("kubelet", &with_pods_api(60, "v1beta1", ""));
    // This one runs the driver and the cluster of the other one.
    let mock = start(&scenario);
    mock.wait_for("the cluster", is_complete);
    let directory = mock_directory(&mock);
    let kubelet = fs::read_to_string(format!("{directory}/kubelet-url")).unwrap();
    let args = [
        format!("--nvml-library={directory}/libnvidia-ml.so.1"),
        format!("--procfs={directory}/proc"),
        format!("--pods-api-socket={directory}/pods-api/pods-api.sock"),
        format!("--pod-resources-kubelet-socket={directory}/pod-resources/kubelet.sock"),
        format!("--kubelet-pods={kubelet}"),
        "--node-name=node-7".to_owned(),
        "--require-gpu".to_owned(),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).chain(FLAGS).collect();
    let exporter = Exporter::start(&args);
    let metrics = exporter.wait_for("both pods", is_complete);
    assert_eq!(source_in_use(&metrics).as_deref(), Some("pods_api"));
    let expected = label_sets(&metrics);
    for (now, text, source) in
        [(61, fault("pods_api", "absent"), "kubelet_pods"), (62, String::new(), "pods_api")]
    {
        scenario.rewrite(&with_pods_api(now, "v1beta1", &text));
        let metrics = exporter.wait_for(source, |metrics| {
            assert_eq!(sm(metrics, "train"), Some(60.0));
            source_in_use(metrics).as_deref() == Some(source) && is_complete(metrics)
        });
        assert_eq!(label_sets(&metrics), expected, "{source}");
    }
}

#[test]
fn event_that_the_kubelet_drops_is_found_by_the_next_list() {
    let scenario = Scenario::new("dropped", &with_pods_api(60, "v1alpha1", ""));
    let exporter = start(&scenario);
    exporter.wait_for("both pods", is_complete);
    let late = "[[pod]]\nname = \"late\"\nnamespace = \"team-a\"\n\
                containers = [{ name = \"main\", gpus = [2] }]\n";
    let dropped = fault("pods_api", "drop_events");
    scenario.rewrite(&with_pods_api(61, "v1alpha1", &format!("{late}{dropped}")));
    exporter.wait_for("the later pod", |metrics| sm(metrics, "late") == Some(0.0));
    scenario.rewrite(&with_pods_api(62, "v1alpha1", &dropped));
    let metrics = exporter.wait_for("its end", is_complete);
    assert_eq!(source_in_use(&metrics).as_deref(), Some("pods_api"));
}
