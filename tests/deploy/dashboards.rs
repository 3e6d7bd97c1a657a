//! The dashboards: every query is valid, and every series in it is exported.

use std::collections::BTreeSet;
use std::fs;

use nvml_exporter::labels::Dialect;
use nvml_exporter::selection::preset;
use serde_json::{Value, json};

use crate::adapter::Rule;
use crate::exported_families;
use crate::manifests::{render_kustomization, single_of_kind};
use crate::programs::{Server, kubernetes_job, read, root, tool_path};
use crate::rules::{rules, series_names};

const DASHBOARDS: [&str; 3] = ["nodes", "pods", "sharing"];
/// Permitted labels in legends and variables: those of the ack dialect, of the exporter's own metrics, and of the scrape target.
const LABELS: [&str; 18] = [
    "GPU_I_ID",
    "Hostname",
    "NamespaceName",
    "NodeName",
    "PodName",
    "ProcessId",
    "UUID",
    "cluster",
    "gpu",
    "health_watch",
    "instance",
    "job",
    "modelName",
    "owner",
    "reason",
    "result",
    "source",
    "xid",
];

fn dashboard(name: &str) -> Value {
    serde_json::from_str(&read(&format!("daemonset/dashboards/{name}.json"))).unwrap()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Panel title, query and legend of every target.
fn targets(name: &str) -> Vec<(String, String, String)> {
    let dashboard = dashboard(name);
    let mut found = Vec::new();
    for panel in list(&dashboard["panels"]) {
        for target in list(&panel["targets"]) {
            let text = |key: &str| target[key].as_str().unwrap().to_owned();
            let title = panel["title"].as_str().unwrap();
            found.push((format!("{name}: {title}"), text("expr"), text("legendFormat")));
        }
    }
    assert!(found.len() > 10, "{name}");
    found
}

/// Name and query of every annotation.
fn annotations(name: &str) -> Vec<(String, String)> {
    let dashboard = dashboard(name);
    let of = |annotation: &Value| {
        let text = |key: &str| annotation[key].as_str().unwrap().to_owned();
        (format!("{name}: {}", text("name")), text("expr"))
    };
    list(&dashboard["annotations"]["list"]).map(of).collect()
}

/// The series selector of each variable's `label_values(selector, label)`.
fn variables(name: &str) -> Vec<(String, String)> {
    let dashboard = dashboard(name);
    let mut found = Vec::new();
    for variable in list(&dashboard["templating"]["list"]).filter(|v| v["type"] == "query") {
        let query = variable["query"]["query"].as_str().unwrap();
        let inner = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
        let (selector, label) = inner.rsplit_once(", ").unwrap();
        assert!(LABELS.contains(&label), "{name}: {label}");
        found.push((format!("{name}: ${}", variable["name"].as_str().unwrap()), selector.into()));
    }
    assert!(found.len() > 1, "{name}");
    found
}

/// A query as Grafana sends it with every variable at "All".
fn filled(query: &str) -> String {
    let mut query = query.replace("$__rate_interval", "1m");
    for variable in ["cluster", "job", "node", "gpu", "namespace", "pod"] {
        query = query.replace(&format!("\"${variable}\""), "\".*\"");
    }
    assert!(!query.contains('$'), "{query}");
    query
}

#[test]
fn dashboards_are_complete_and_panels_do_not_overlap() {
    let (mut uids, mut files) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir(root().join("daemonset/dashboards")).unwrap() {
        files.insert(entry.unwrap().file_name().into_string().unwrap());
    }
    let maps = render_kustomization("dashboards");
    assert_eq!(
        single_of_kind(&maps, "ConfigMap")["data"].as_object().unwrap().len(),
        DASHBOARDS.len()
    );
    for name in DASHBOARDS {
        assert!(files.remove(&format!("{name}.json")), "{name}");
    }
    assert_eq!(files, BTreeSet::from(["kustomization.yaml".to_owned()]));
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        assert!(uids.insert(dashboard["uid"].to_string()));
        // Grafana asks for the data source on import; the sidecar's default is the first one.
        assert_eq!(dashboard["__inputs"][0]["name"], "DS_PROMETHEUS");
        assert_eq!(dashboard["templating"]["list"][0]["current"]["value"], "${DS_PROMETHEUS}");
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
        for panel in list(&dashboard["panels"]) {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {}", panel["id"]);
            let position = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            for x in position("x")..position("x") + position("w") {
                for y in position("y")..position("y") + position("h") {
                    assert!(x < 24 && cells.insert((x, y)), "{name}: {}", panel["title"]);
                }
            }
            if panel["type"] != "row" {
                assert!(panel["description"].is_string(), "{name}: {}", panel["title"]);
                assert_eq!(panel["datasource"]["uid"], "${datasource}");
            }
        }
    }
}

#[test]
fn dashboards_use_existing_series_and_labels() {
    for name in DASHBOARDS {
        for (panel, query, legend) in targets(name) {
            let names = series_names(&query);
            assert!(!names.is_empty(), "{panel}");
            exported_families::check_series(&panel, &names);
            for label in legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap()) {
                assert!(LABELS.contains(&label), "{panel}: {label}");
            }
        }
        for (variable, selector) in variables(name) {
            exported_families::check_series(&variable, &series_names(&selector));
        }
    }
}

/// All queries with their names: of the dashboards, the rules, and the adapter rules as expanded for pods, a
/// namespace and a node.
fn queries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in DASHBOARDS {
        found.extend(targets(name).into_iter().map(|(panel, query, _)| (panel, filled(&query))));
        let others = variables(name).into_iter().chain(annotations(name));
        found.extend(others.map(|(name, query)| (name, filled(&query))));
    }
    for rule in rules() {
        let name = rule["alert"].as_str().or(rule["record"].as_str()).unwrap();
        found.push((name.to_owned(), rule["expr"].as_str().unwrap().to_owned()));
    }
    for file in ["verbatim.yaml", "corrected.yaml"] {
        for rule in Rule::load(file) {
            for (matchers, group) in [
                (r#"NamespaceName="a",PodName=~"p|q""#, "PodName"),
                (r#"NamespaceName="a""#, "NamespaceName"),
                (r#"NodeName="n""#, "NodeName"),
            ] {
                found.push((format!("{file}: {}", rule.name()), rule.expand(matchers, group)));
            }
            found.push((format!("{file}: {}", rule.name()), rule.selector));
        }
    }
    found
}

/// The queries with a result when Prometheus scrapes an exporter on this scenario, once this series exists.
/// Checks that all queries are valid.
fn queries_with_data(
    (scenario, awaited): (&str, &str),
    flags: &[&str],
    honor_labels: bool,
) -> BTreeSet<(String, String)> {
    let mock = format!("--mock={scenario}");
    let base = [mock.as_str(), "--node-name=node-1", "--collect-interval=500"];
    let exporter = Server::start_exporter(&[&base, flags].concat());
    let job = kubernetes_job("gpu", exporter.address(), honor_labels);
    let program = tool_path("debian/usr/bin/prometheus");
    let prometheus = Server::start_prometheus_with_jobs(&program, &[job], &json!([]));
    // Rates need several scrapes.
    let sampled = format!("/api/v1/query?query=count_over_time({awaited}[1m])>4");
    prometheus.wait_for(&sampled, |body| body.contains(r#""value""#));
    let mut with_data = BTreeSet::new();
    for (name, query) in queries() {
        let body = prometheus.query(&query);
        let response: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(response["status"], "success", "{name}: {query}: {body}");
        if !response["data"]["result"].as_array().unwrap().is_empty() {
            with_data.insert((name, query));
        }
    }
    with_data
}

/// Families that the dashboards show and that are not on by default.
const SELECTED_FAMILIES: [&str; 10] = [
    "DCGM_CUSTOM_CONTAINER_SM_ACTIVE",
    "DCGM_CUSTOM_CONTAINER_TENSOR_ACTIVE",
    "DCGM_EXP_GPU_HEALTH_STATUS",
    "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",
    "DCGM_FI_DEV_ENFORCED_POWER_LIMIT",
    "DCGM_FI_DEV_ROW_REMAP_FAILURE",
    "DCGM_FI_DEV_SLOWDOWN_TEMP",
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
];

#[test]
fn all_queries_are_valid_and_dashboard_queries_have_data() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let counters = folder.path().join("counters.csv");
    let defaults = preset(&Dialect::Ack).into_iter().map(|request| request.name.to_string());
    let names: Vec<String> = defaults.chain(SELECTED_FAMILIES.map(str::to_owned)).collect();
    fs::write(&counters, names.join(", gauge, x\n") + ", gauge, x\n").unwrap();
    let counters = format!("--collectors={}", counters.display());
    let scenarios = [
        ("demo", "DCGM_CUSTOM_PROCESS_SM_UTIL"),
        ("old-driver", "DCGM_CUSTOM_PROCESS_MEM_USED"),
        ("faulty", "nvml_exporter_xid_events_total"),
        ("mig-h100", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"),
    ];
    let with_data: BTreeSet<_> = scenarios
        .into_iter()
        .flat_map(|scenario| queries_with_data(scenario, &[&counters], false))
        .collect();
    for name in DASHBOARDS {
        for (panel, query, _) in targets(name) {
            let query = (panel, filled(&query));
            assert!(with_data.contains(&query), "no scenario has data for {query:?}");
        }
        for (variable, selector) in variables(name).into_iter().chain(annotations(name)) {
            let query = (variable, filled(&selector));
            assert!(with_data.contains(&query), "no scenario has data for {query:?}");
        }
    }
}

/// Panels of the dashboard of nodes with a query that has no result in the dialect of dcgm-exporter: its families are not
/// among the defaults.
const NODE_PANELS_OF_ACK: [&str; 10] = [
    "Allocated",
    "Health",
    "Clock events",
    "BAR1 used",
    "Power",
    "Temperature",
    "Time throttled",
    "Performance state",
    "Retired pages",
    "ECC errors",
];
/// Panels of the dashboards of pods and of sharing with a result in that dialect.
const PANELS_OF_BOTH: [&str; 2] = ["sharing: Allocation problems", "sharing: Sources"];

#[test]
fn dashboards_have_the_same_data_with_both_honor_labels() {
    let scenarios = [
        ("demo", "DCGM_FI_DEV_GPU_UTIL"),
        ("mig-h100", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"),
        ("faulty", "nvml_exporter_xid_events_total"),
    ];
    let of = |flags: &[&str], honor_labels| -> BTreeSet<_> {
        let with_data = scenarios.map(|scenario| queries_with_data(scenario, flags, honor_labels));
        with_data.into_iter().flatten().collect()
    };
    let dcgm = ["--dialect=dcgm-exporter", "--kubernetes", "--enable-exporter-metrics"];
    let with_data = of(&dcgm, false);
    assert_eq!(of(&dcgm, true), with_data);
    let empty: BTreeSet<String> = DASHBOARDS
        .into_iter()
        .flat_map(targets)
        .map(|(panel, query, _)| (panel, filled(&query)))
        .filter(|query| !with_data.contains(query))
        .map(|(panel, _)| panel)
        .collect();
    let all = DASHBOARDS[1..].iter().flat_map(|name| targets(name)).map(|(panel, ..)| panel);
    let of_ack = all.filter(|panel| !PANELS_OF_BOTH.contains(&panel.as_str()));
    let of_nodes = NODE_PANELS_OF_ACK.map(|panel| format!("nodes: {panel}"));
    assert_eq!(empty, of_ack.chain(of_nodes).collect());
    // The migration guide lists them.
    let guide = read("docs/migration.md");
    let row =
        guide.lines().find(|line| line.contains("`daemonset/dashboards/nodes.json`")).unwrap();
    for panel in NODE_PANELS_OF_ACK {
        assert!(row.contains(panel), "{panel}");
    }
}
