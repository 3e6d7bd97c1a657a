//! The monitors of the Prometheus operator and of managed services, and the configuration for Amazon's collectors.

use serde_json::{Value, json};

use crate::manifests::{
    Variant, check_command, check_privileges, check_references, documents, of_kind,
    render_kustomization, render_text, single_of_kind, validate,
};
use crate::programs::{read, stdout_of, tool_path};

/// The fields of a kind that have no schema in Kubernetes, as their API references list them.
struct MonitorKind {
    groups: &'static [&'static str],
    spec: &'static [&'static str],
    endpoints: &'static str,
    endpoint: &'static [&'static str],
    relabelings: &'static [&'static str],
}

const OPERATOR_GROUPS: &[&str] = &["monitoring.coreos.com", "azmonitoring.coreos.com"];
const OPERATOR_ENDPOINT: &[&str] = &[
    "port",
    "targetPort",
    "path",
    "scheme",
    "params",
    "interval",
    "scrapeTimeout",
    "tlsConfig",
    "honorLabels",
    "honorTimestamps",
    "trackTimestampsStaleness",
    "basicAuth",
    "oauth2",
    "authorization",
    "metricRelabelings",
    "relabelings",
    "proxyUrl",
    "followRedirects",
    "enableHttp2",
    "filterRunning",
];
const POD_MONITOR: MonitorKind = MonitorKind {
    groups: OPERATOR_GROUPS,
    spec: &[
        "jobLabel",
        "podTargetLabels",
        "podMetricsEndpoints",
        "selector",
        "namespaceSelector",
        "sampleLimit",
        "targetLimit",
        "labelLimit",
        "labelNameLengthLimit",
        "labelValueLengthLimit",
        "attachMetadata",
    ],
    endpoints: "podMetricsEndpoints",
    endpoint: OPERATOR_ENDPOINT,
    relabelings: &["relabelings", "metricRelabelings"],
};
const SERVICE_MONITOR: MonitorKind = MonitorKind {
    spec: &[
        "jobLabel",
        "targetLabels",
        "podTargetLabels",
        "endpoints",
        "selector",
        "namespaceSelector",
        "sampleLimit",
        "targetLimit",
        "labelLimit",
        "labelNameLengthLimit",
        "labelValueLengthLimit",
        "attachMetadata",
    ],
    endpoints: "endpoints",
    ..POD_MONITOR
};
const POD_MONITORING: MonitorKind = MonitorKind {
    groups: &["monitoring.googleapis.com"],
    spec: &["selector", "endpoints", "targetLabels", "limits", "filterRunning"],
    endpoints: "endpoints",
    endpoint: &[
        "port",
        "scheme",
        "path",
        "params",
        "interval",
        "timeout",
        "metricRelabeling",
        "tls",
        "basicAuth",
        "authorization",
        "oauth2",
        "proxyUrl",
    ],
    relabelings: &["metricRelabeling"],
};
/// The fields of a rule that changes labels.
const RULE: &[&str] =
    &["sourceLabels", "separator", "targetLabel", "regex", "modulus", "replacement", "action"];

fn check_fields(name: &str, value: &Value, known: &[&str]) {
    for field in value.as_object().unwrap_or_else(|| panic!("{name}: {value}")).keys() {
        assert!(known.contains(&field.as_str()), "{name}: unknown field {field}");
    }
}

/// Seconds of a duration in the notation of Prometheus.
fn seconds(duration: &Value) -> f64 {
    let text = duration.as_str().unwrap_or_else(|| panic!("{duration} is not a duration"));
    let number = text.trim_end_matches(|c: char| c.is_alphabetic());
    let unit = match &text[number.len()..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        unit => panic!("{text}: unit {unit}"),
    };
    number.parse::<f64>().unwrap() * unit
}

/// Checks the API group, the fields and the times of every monitor.
pub(crate) fn check_monitors(name: &str, documents: &[Value]) {
    for (kind, fields) in [
        ("PodMonitor", POD_MONITOR),
        ("ServiceMonitor", SERVICE_MONITOR),
        ("PodMonitoring", POD_MONITORING),
    ] {
        for monitor in of_kind(documents, kind) {
            let name = format!("{name}: {kind}");
            let (group, version) = monitor["apiVersion"].as_str().unwrap().split_once('/').unwrap();
            assert!(fields.groups.contains(&group) && version == "v1", "{name}: {group}");
            check_fields(&name, monitor, &["apiVersion", "kind", "metadata", "spec"]);
            check_fields(&name, &monitor["spec"], fields.spec);
            let endpoints = monitor["spec"][fields.endpoints].as_array().unwrap();
            assert!(!endpoints.is_empty(), "{name}");
            for endpoint in endpoints {
                check_endpoint(&name, endpoint, &fields);
            }
            if group == "azmonitoring.coreos.com" {
                let limits = ["labelLimit", "labelNameLengthLimit", "labelValueLengthLimit"];
                assert_eq!(limits.map(|limit| monitor["spec"][limit].clone()), [63, 511, 1023]);
            }
        }
    }
}

fn check_endpoint(name: &str, endpoint: &Value, fields: &MonitorKind) {
    check_fields(name, endpoint, fields.endpoint);
    let timeout = ["timeout", "scrapeTimeout"].into_iter().find_map(|key| endpoint.get(key));
    let (interval, timeout) = (seconds(&endpoint["interval"]), seconds(timeout.expect(name)));
    assert!(timeout <= interval, "{name}: a timeout of {timeout} s every {interval} s");
    for rules in fields.relabelings.iter().filter_map(|key| endpoint.get(key)) {
        for rule in rules.as_array().unwrap() {
            check_fields(name, rule, RULE);
        }
    }
}

#[test]
fn unknown_field_of_a_monitor_is_rejected() {
    let text = "resources: [DAEMONSET/base]\ncomponents: [DAEMONSET/components/pod-monitor]\n";
    let mut documents = render_text(text);
    let monitor = documents.iter_mut().find(|document| document["kind"] == "PodMonitor").unwrap();
    monitor["spec"]["podMetricsEndpoints"][0]["timeout"] = json!("10s");
    let rejected = std::panic::catch_unwind(|| check_monitors("changed", &documents));
    let message = rejected.unwrap_err().downcast::<String>().unwrap();
    assert_eq!(*message, "changed: PodMonitor: unknown field timeout");
}

/// The component of each monitor, and its kind.
const COMPONENTS: [(&str, &str); 4] = [
    ("pod-monitor", "PodMonitor"),
    ("service-monitor", "ServiceMonitor"),
    ("google-managed-prometheus", "PodMonitoring"),
    ("azure-managed-prometheus", "PodMonitor"),
];

#[test]
fn every_monitor_selects_the_pods_of_every_overlay() {
    let mut all = Vec::new();
    for (component, kind) in COMPONENTS {
        for overlay in ["base", "overlays/dcgm-exporter", "overlays/mock"] {
            let name = format!("{overlay} with {component}");
            let documents = render_text(&format!(
                "resources: [DAEMONSET/{overlay}]\ncomponents: [DAEMONSET/components/{component}]\n"
            ));
            check_references(&name, &documents);
            check_command(&name, &documents);
            let variant = Variant {
                devices_only: overlay == "overlays/dcgm-exporter",
                mock: overlay == "overlays/mock",
                ..Variant::default()
            };
            check_privileges(&name, &documents, variant);
            single_of_kind(&documents, kind);
            all.extend(documents);
        }
    }
    validate("monitors", &all);
}

#[test]
fn own_metrics_are_scraped_beside_those_of_the_gpus() {
    for (component, kind) in COMPONENTS {
        let documents = render_text(&format!(
            "resources: [DAEMONSET/overlays/dcgm-exporter]\n\
             components: [DAEMONSET/components/{component}, DAEMONSET/components/own-metrics]\n"
        ));
        validate(component, &documents);
        check_monitors(component, &documents);
        let spec = &single_of_kind(&documents, kind)["spec"];
        let endpoints = spec.get("endpoints").unwrap_or(&spec["podMetricsEndpoints"]);
        let paths = endpoints.as_array().unwrap().iter().map(|endpoint| &endpoint["path"]);
        assert_eq!(paths.collect::<Vec<_>>(), ["/metrics", "/metrics/own"], "{component}");
    }
}

/// In the dcgm-exporter dialect pod and container are labels of the workload.
#[test]
fn google_adds_no_labels_of_the_exporters_own_pod() {
    let component = "components/google-managed-prometheus/pod-monitoring.yaml";
    let monitor = documents(&read(&format!("daemonset/{component}"))).remove(0);
    assert_eq!(monitor["spec"]["targetLabels"], json!({"metadata": ["node"]}));
}

#[test]
fn configuration_for_amazon_is_valid_and_selects_the_pods() {
    let file = "daemonset/aws-managed-prometheus/scrape-configuration.yaml";
    let configuration = documents(&read(file)).remove(0);
    let mut checked = configuration.clone();
    // Debian's Prometheus is built without the discovery of Kubernetes.
    let job = checked["scrape_configs"][0].as_object_mut().unwrap();
    assert_eq!(job.remove("kubernetes_sd_configs"), Some(json!([{"role": "pod"}])));
    job.insert("static_configs".to_owned(), json!([{"targets": ["node-1:9400"]}]));
    let copy = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(copy.path(), checked.to_string()).unwrap();
    let promtool = tool_path("debian/usr/bin/promtool");
    stdout_of(&promtool, &["check", "config", &copy.path().display().to_string()], "");
    let job = &configuration["scrape_configs"][0];
    // The shortest interval of the managed collectors.
    assert_eq!(configuration["global"]["scrape_interval"], "30s");

    let keep = &job["relabel_configs"][0];
    let sources = keep["source_labels"].as_array().unwrap();
    let regex =
        regex_lite::Regex::new(&format!("^(?:{})$", keep["regex"].as_str().unwrap())).unwrap();
    for overlay in ["base", "overlays/ack", "overlays/dcgm-exporter", "overlays/mock"] {
        let documents = render_kustomization(overlay);
        let template = &single_of_kind(&documents, "DaemonSet")["spec"]["template"];
        let part_of = template["metadata"]["labels"]["app.kubernetes.io/part-of"].as_str().unwrap();
        let port = template["spec"]["containers"][0]["ports"][0]["name"].as_str().unwrap();
        assert_eq!(sources[0], "__meta_kubernetes_pod_label_app_kubernetes_io_part_of");
        assert_eq!(sources[1], "__meta_kubernetes_pod_container_port_name");
        assert!(regex.is_match(&format!("{part_of};{port}")), "{overlay}");
    }
}
