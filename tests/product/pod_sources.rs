//! The sources of pods: each alone, their faults, and the changes between them.

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
