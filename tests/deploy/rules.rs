//! Recording rules, alerts, adapter rules and the autoscaler examples.

use std::collections::BTreeSet;
use std::fs;

use nvml_exporter::catalog::find;
use nvml_exporter::labels::Dialect;
use nvml_exporter::selection::Preset;
use serde_json::{Value, json};

use crate::adapter::Rule;
use crate::exported_families;
use crate::manifests::{documents, render_kustomization, single_of_kind, validate};
use crate::programs::{read, run, stderr_of, tool_path};

fn document(path: &str) -> Value {
    let mut found = documents(&read(path));
    assert_eq!(found.len(), 1, "{path}");
    found.remove(0)
}

pub(crate) fn groups() -> Value {
    document("daemonset/rules/prometheus-rule.yaml")["spec"]["groups"].clone()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("expected a list: {value}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("expected a string: {value}"))
}

/// The rules of all groups.
pub(crate) fn rules() -> Vec<Value> {
    let groups = groups();
    list(&groups).iter().flat_map(|group| list(&group["rules"]).clone()).collect()
}

pub(crate) fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule["alert"].is_string()).collect()
}

/// Names of the exporter's series in a query.
pub(crate) fn series_names(query: &str) -> Vec<String> {
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':';
    let ours = |name: &&str| name.starts_with("DCGM_") || name.starts_with("nvml_exporter_");
    query.split(word).filter(ours).map(str::to_owned).collect()
}

/// Runs promtool's unit tests. `rules` is written as JSON, which is valid YAML.
fn promtool(rules: &Value, tests: &str) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(folder.path().join("rules.yml"), rules.to_string()).unwrap();
    let file = folder.path().join("tests.yml");
    fs::write(&file, tests).unwrap();
    let file = file.display().to_string();
    let output = run(&tool_path("debian/usr/bin/promtool"), &["test", "rules", &file], "");
    let report = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr_of(&output);
    assert!(output.status.success(), "{report}");
}

#[test]
fn alerts_pass_their_unit_tests() {
    let mut groups = groups();
    for group in groups.as_array_mut().unwrap() {
        for rule in group["rules"].as_array_mut().unwrap() {
            if let Some(annotations) = rule["annotations"].as_object_mut() {
                annotations.remove("description");
                annotations.remove("runbook_url");
            }
        }
    }
    promtool(&json!({"groups": groups}), &read("tests/deploy/alerts.yml"));
}

#[test]
fn every_rule_has_unit_tests() {
    let tests = document("tests/deploy/alerts.yml");
    let (mut firing, mut silent) = (BTreeSet::new(), BTreeSet::new());
    let mut recorded = String::new();
    for test in list(&tests["tests"]) {
        for check in test["alert_rule_test"].as_array().into_iter().flatten() {
            let expects_none = list(&check["exp_alerts"]).is_empty();
            let set = if expects_none { &mut silent } else { &mut firing };
            set.insert(text(&check["alertname"]).to_owned());
        }
        for check in test["promql_expr_test"].as_array().into_iter().flatten() {
            recorded += text(&check["expr"]);
        }
    }
    // A recording rule that another rule uses is tested through that rule.
    let used: String = rules().iter().map(|rule| text(&rule["expr"]).to_owned()).collect();
    for rule in rules() {
        if let Some(name) = rule["record"].as_str() {
            assert!(recorded.contains(name) || used.contains(name), "{name} is not tested");
        }
    }
    for alert in alerts() {
        let name = text(&alert["alert"]);
        assert!(firing.contains(name), "no test in which {name} fires");
        assert!(silent.contains(name), "no test in which {name} does not fire");
    }
}

#[test]
fn alerts_are_complete_and_use_existing_series() {
    for rule in rules() {
        let name = rule["alert"].as_str().or(rule["record"].as_str()).expect("a name").to_owned();
        exported_families::check_series(&name, &series_names(text(&rule["expr"])));
    }
    for alert in alerts() {
        let name = text(&alert["alert"]);
        let severity = text(&alert["labels"]["severity"]);
        assert!(["info", "warning", "critical"].contains(&severity), "{name}: {severity}");
        for annotation in ["summary", "description", "runbook_url"] {
            assert!(alert["annotations"][annotation].is_string(), "{name} has no {annotation}");
        }
    }
}

/// The alerts that a matcher of Alertmanager names.
fn matched(matcher: &Value) -> Vec<String> {
    let names = text(matcher).strip_prefix("alertname =").expect("a matcher of alertname");
    names.trim_matches(['~', ' ', '"']).split('|').map(String::from).collect()
}

/// Each pair of alerts exists, and has the labels that have to be equal, in the unit tests in which they fire.
#[test]
fn inhibited_alerts_have_the_labels_of_their_causes() {
    let tests = document("tests/deploy/alerts.yml");
    let labels_of = |alert: &str| -> BTreeSet<String> {
        let checks = list(&tests["tests"]).iter();
        let checks = checks.filter_map(|test| test["alert_rule_test"].as_array()).flatten();
        let fired = checks.filter(|check| check["alertname"] == alert);
        let fired = fired.flat_map(|check| list(&check["exp_alerts"]));
        let mut labels = fired.filter_map(|alert| alert["exp_labels"].as_object());
        let labels = labels.next().unwrap_or_else(|| panic!("{alert} never fires"));
        labels.keys().cloned().collect()
    };
    let rules = document("daemonset/rules/alertmanager-inhibit.yaml");
    for rule in list(&rules["inhibit_rules"]) {
        let [sources, targets] =
            ["source_matchers", "target_matchers"].map(|key| matched(&list(&rule[key])[0]));
        assert!(sources.iter().all(|source| !targets.contains(source)), "{rule}");
        for alert in sources.iter().chain(&targets) {
            let labels = labels_of(alert);
            for label in list(&rule["equal"]) {
                assert!(labels.contains(text(label)), "{alert} has no {label}");
            }
        }
    }
}

#[test]
fn every_xid_is_in_one_class() {
    let codes = |name: &str, operator: &str| -> Vec<String> {
        let alert = alerts().into_iter().find(|alert| alert["alert"] == name).expect("an alert");
        let expr = text(&alert["expr"]).to_owned();
        let (_, rest) = expr.split_once(&format!("xid{operator}\"")).expect("a matcher");
        rest.split('"').next().unwrap().split('|').map(String::from).collect()
    };
    let mut known = codes("GpuXidHardware", "=~");
    known.extend(codes("GpuXidMemory", "="));
    known.extend(codes("GpuXidRecorded", "=~"));
    known.extend(codes("GpuXidApplication", "=~"));
    known.extend(["162", "163"].map(String::from));
    assert_eq!(known.iter().collect::<BTreeSet<_>>().len(), known.len(), "{known:?}");
    assert_eq!(codes("GpuXidOther", "!~"), known);
}

#[test]
fn all_copies_of_the_adapter_rules_agree() {
    let adapter =
        |file: &str| list(&document(&format!("daemonset/rules/adapter/{file}"))["rules"]).clone();
    let (verbatim, corrected) = (adapter("verbatim.yaml"), adapter("corrected.yaml"));
    let values = |file: &str| {
        let values = document(&format!("daemonset/rules/ack-metrics-adapter/{file}"));
        let rules = &values["AlibabaCloudMetricsAdapter"]["prometheus"]["adapter"]["rules"];
        assert_eq!(rules["default"], false);
        list(&rules["custom"]).clone()
    };
    assert_eq!(values("values-verbatim.yaml"), verbatim);
    assert_eq!(values("values.yaml"), corrected);
    let maps = render_kustomization("rules/adapter");
    let data = &single_of_kind(&maps, "ConfigMap")["data"];
    for (key, rules) in [("config.yaml", &corrected), ("verbatim.yaml", &verbatim)] {
        assert_eq!(documents(text(&data[key]))[0]["rules"], json!(rules), "{key}");
    }

    // The corrected rules expose the same metrics of the same resources; two queries differ.
    let (verbatim, corrected) = (Rule::load("verbatim.yaml"), Rule::load("corrected.yaml"));
    assert_eq!((verbatim.len(), corrected.len()), (5, 5));
    let mut differing = Vec::new();
    for (verbatim, corrected) in verbatim.iter().zip(&corrected) {
        assert_eq!(verbatim.name(), corrected.name());
        assert_eq!(verbatim.resources, corrected.resources);
        assert_eq!(verbatim.selector, corrected.selector);
        if verbatim.query != corrected.query {
            differing.push(verbatim.name());
        }
    }
    let wanted = ["DCGM_CUSTOM_PROCESS_SM_UTIL", "DCGM_CUSTOM_PROCESS_GPU_MEM_USED_RATIO"];
    assert_eq!(differing, wanted);
}

#[test]
fn adapter_rules_use_existing_series_and_labels() {
    let exposition = read("tests/product/snapshots/demo.snap");
    for rule in Rule::load("verbatim.yaml").iter().chain(&Rule::load("corrected.yaml")) {
        exported_families::check_series(
            "adapter rules",
            &series_names(&(rule.query.clone() + &rule.selector)),
        );
        let name = format!("{}{{", rule.series());
        let line = exposition.lines().find(|line| line.starts_with(&name)).unwrap();
        for label in rule.resources.keys() {
            assert!(line.contains(&format!("{label}=\"")), "{label}: {line}");
        }
    }
}

#[test]
#[ignore = "needs NVML_EXPORTER_KUBELET_DATA, the original rules of the ACK guide"]
fn verbatim_rules_match_the_guide() {
    let folder = std::env::var("NVML_EXPORTER_KUBELET_DATA").expect("NVML_EXPORTER_KUBELET_DATA");
    let original = fs::read_to_string(format!("{folder}/hpa/adapter-rules.yaml")).unwrap();
    let lines = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(String::from).collect()
    };
    assert_eq!(lines(&read("daemonset/rules/adapter/verbatim.yaml")), lines(&original));
}

/// An input series of promtool, of a process or a container.
fn input_series(family: &str, pod: &str, uuid: &str, process: u32, value: f64) -> Value {
    let (namespace, name) = pod.split_once('/').unwrap();
    let labels = format!(
        r#"NamespaceName="{namespace}",PodName="{name}",NodeName="n",UUID="{uuid}",ProcessId="{process}""#
    );
    json!({"series": format!("DCGM_CUSTOM_{family}{{{labels}}}"), "values": format!("{value}x5")})
}

/// Evaluates the verbatim and the corrected rules for the same pods with promtool.
#[test]
fn corrected_rules_return_the_usage_of_pods() {
    let util =
        |pod, uuid, process, value| input_series("PROCESS_SM_UTIL", pod, uuid, process, value);
    let used = |pod, uuid, value| input_series("PROCESS_MEM_USED", pod, uuid, 1, value);
    let allocated = |pod, uuid| input_series("CONTAINER_MEM_ALLOCATED", pod, uuid, 0, 1024.0);
    let input = json!([
        util("a/bert", "GPU-1", 1, 23.0),
        util("a/idle", "GPU-2", 0, 0.0),
        util("a/workers", "GPU-3", 1, 20.0),
        util("a/workers", "GPU-3", 2, 20.0),
        util("a/workers", "GPU-3", 3, 20.0),
        util("a/workers", "GPU-3", 4, 20.0),
        util("a/pair", "GPU-4", 1, 90.0),
        util("a/pair", "GPU-5", 2, 30.0),
        util("a/twin", "GPU-6", 1, 40.0),
        util("b/twin", "GPU-7", 1, 80.0),
        used("a/twin", "GPU-6", 512.0),
        used("b/twin", "GPU-7", 1024.0),
        allocated("a/twin", "GPU-6"),
        allocated("b/twin", "GPU-7"),
    ]);
    let (verbatim, corrected) = (Rule::load("verbatim.yaml"), Rule::load("corrected.yaml"));
    let mut checks = Vec::new();
    let mut check = |rules: &[Rule], name: &str, pod: &str, value: f64| {
        let rule = rules.iter().find(|rule| rule.name() == name).expect("a rule");
        let (namespace, pod) = pod.split_once('/').unwrap();
        let matchers = format!(r#"NamespaceName="{namespace}",PodName="{pod}""#);
        checks.push(json!({
            "expr": rule.expand(&matchers, "PodName"),
            "eval_time": "3m",
            "exp_samples": [{"labels": format!(r#"{{PodName="{pod}"}}"#), "value": value}],
        }));
    };
    let util = "DCGM_CUSTOM_PROCESS_SM_UTIL";
    for (pod, verbatim_value, corrected_value) in [
        ("a/bert", 23.0, 23.0),
        ("a/idle", 0.0, 0.0),
        ("a/workers", 20.0, 80.0),
        ("a/pair", 60.0, 60.0),
        ("a/twin", 40.0, 40.0),
        ("b/twin", 80.0, 80.0),
    ] {
        check(&verbatim, util, pod, verbatim_value);
        check(&corrected, util, pod, corrected_value);
    }
    let ratio = "DCGM_CUSTOM_PROCESS_GPU_MEM_USED_RATIO";
    for (pod, verbatim_value, corrected_value) in [("a/twin", 0.25, 0.5), ("b/twin", 0.5, 1.0)] {
        check(&verbatim, ratio, pod, verbatim_value);
        check(&corrected, ratio, pod, corrected_value);
    }
    let tests = json!({
        "rule_files": ["rules.yml"],
        "tests": [{"interval": "1m", "input_series": input, "promql_expr_test": checks}],
    });
    promtool(&json!({"groups": []}), &tests.to_string());
}

#[test]
fn autoscaler_examples_use_adapter_metrics() {
    let pods: Vec<String> = Rule::load("corrected.yaml")
        .iter()
        .filter(|rule| rule.resources.values().any(|resource| resource == "pods"))
        .map(Rule::name)
        .collect();
    for file in ["utilization.yaml", "memory-ratio.yaml"] {
        let autoscaler = document(&format!("daemonset/rules/hpa/{file}"));
        validate(file, std::slice::from_ref(&autoscaler));
        let metric = &autoscaler["spec"]["metrics"][0]["pods"];
        assert!(pods.contains(&text(&metric["metric"]["name"]).to_owned()), "{file}");
        assert_eq!(metric["target"]["type"], "AverageValue", "{file}");
    }
    // No schema is available for v2beta1, so the file is compared with the one for v2.
    let newer = document("daemonset/rules/hpa/utilization.yaml");
    let older = document("daemonset/rules/hpa/utilization-v2beta1.yaml");
    assert_eq!(older["apiVersion"], "autoscaling/v2beta1");
    for key in ["scaleTargetRef", "minReplicas", "maxReplicas"] {
        assert_eq!(older["spec"][key], newer["spec"][key]);
    }
    let (old, new) = (&older["spec"]["metrics"][0]["pods"], &newer["spec"]["metrics"][0]["pods"]);
    assert_eq!(old["metricName"], new["metric"]["name"]);
    assert_eq!(old["targetAverageValue"], new["target"]["averageValue"]);
}

/// Families that only a counters file selects.
const OPTIONAL: [&str; 2] =
    ["DCGM_CUSTOM_CONTAINER_SM_ACTIVE", "DCGM_FI_DEV_PWR_SMOOTHING_ENABLED"];

/// The counters file of docs/alerts.md.
pub(crate) fn documented_counters() -> String {
    let page = read("docs/alerts.md");
    let (_, rest) = page.split_once("## Alerts that need a counters file").expect("a section");
    let (_, rest) = rest.split_once("```text\n").expect("an example");
    rest.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn preset_essential_has_the_families_of_every_rule() {
    let essential = Preset::Essential.requests(&Dialect::Ack);
    let essential: BTreeSet<&str> = essential.iter().map(|request| &*request.name).collect();
    let queries = rules().into_iter().map(|rule| text(&rule["expr"]).to_owned());
    let adapter = ["adapter/verbatim.yaml", "adapter/corrected.yaml"]
        .map(|file| read(&format!("daemonset/rules/{file}")));
    let documented = documented_counters();
    let documented: Vec<&str> =
        documented.lines().filter_map(|line| line.split(',').next()).collect();
    // This one is what the adapter renames a ratio to.
    let renamed = "DCGM_CUSTOM_PROCESS_GPU_MEM_USED_RATIO";
    for query in queries.chain(adapter) {
        for name in series_names(&query).into_iter().filter(|name| name.starts_with("DCGM_")) {
            let name = name.trim_end_matches(':');
            let is_optional = OPTIONAL.contains(&name) || documented.contains(&name);
            // A rule may have a series by either of its names.
            let row = find(name).map_or(name, |row| row.name);
            assert!(name == renamed || is_optional || essential.contains(row), "{name} in {query}");
        }
    }
    let used: String = rules().iter().map(|rule| text(&rule["expr"]).to_owned()).collect();
    for name in documented {
        assert!(used.contains(name), "no rule uses {name}");
    }
}
