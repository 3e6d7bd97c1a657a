//! The dashboards: every query is one that Prometheus understands, on series that are exported.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::adapter::Rule;
use crate::exported;
use crate::manifests::{only, rendered};
use crate::programs::{Server, brought, read, root};
use crate::rules::{rules, series};

const DASHBOARDS: [&str; 3] = ["nodes", "pods", "sharing"];
/// Labels that legends may name: those of the ack dialect, of the exporter's own series, and of a scrape.
const LABELS: [&str; 14] = [
    "GPU_I_ID",
    "NamespaceName",
    "NodeName",
    "PodName",
    "ProcessId",
    "UUID",
    "gpu",
    "instance",
    "job",
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

/// Title, query and legend of every target.
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
    for variable in ["node", "gpu", "namespace", "pod"] {
        query = query.replace(&format!("\"${variable}\""), "\".*\"");
    }
    assert!(!query.contains('$'), "{query}");
    query
}

#[test]
fn dashboards_are_whole() {
    let (mut uids, mut files) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir(root().join("daemonset/dashboards")).unwrap() {
        files.insert(entry.unwrap().file_name().into_string().unwrap());
    }
    let maps = rendered("dashboards");
    assert_eq!(only(&maps, "ConfigMap")["data"].as_object().unwrap().len(), DASHBOARDS.len());
    for name in DASHBOARDS {
        assert!(files.remove(&format!("{name}.json")), "{name}");
    }
    assert_eq!(files, BTreeSet::from(["kustomization.yaml".to_owned()]));
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        assert!(uids.insert(dashboard["uid"].to_string()));
        let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
        for panel in list(&dashboard["panels"]) {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {}", panel["id"]);
            let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    assert!(x < 24 && places.insert((x, y)), "{name}: {}", panel["title"]);
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
fn dashboards_ask_for_series_and_labels_that_exist() {
    for name in DASHBOARDS {
        for (panel, query, legend) in targets(name) {
            let asked = series(&query);
            assert!(!asked.is_empty(), "{panel}");
            exported::check_series(&panel, &asked);
            for label in legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap()) {
                assert!(LABELS.contains(&label), "{panel}: {label}");
            }
        }
        for (variable, selector) in variables(name) {
            exported::check_series(&variable, &series(&selector));
        }
    }
}

/// Every query that is shipped: of the dashboards, the alerts, and the adapter's rules as it expands
/// them for pods, a namespace and a node.
fn queries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in DASHBOARDS {
        found.extend(targets(name).into_iter().map(|(panel, query, _)| (panel, filled(&query))));
        found.extend(variables(name).into_iter().map(|(name, query)| (name, filled(&query))));
    }
    for rule in rules() {
        let name = rule["alert"].as_str().or(rule["record"].as_str()).unwrap();
        found.push((name.to_owned(), rule["expr"].as_str().unwrap().to_owned()));
    }
    for file in ["verbatim.yaml", "corrected.yaml"] {
        for rule in Rule::shipped(file) {
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

/// The queries to which Prometheus has an answer when it scrapes an exporter on this scenario, from when
/// this series is there. It understands all of them.
fn answered(scenario: &str, awaited: &str) -> BTreeSet<(String, String)> {
    let mock = format!("--mock={scenario}");
    let exporter = Server::exporter(&[&mock, "--node-name=node-1", "--collect-interval=500"]);
    let prometheus = Server::prometheus(&brought("debian/usr/bin/prometheus"), exporter.address());
    // Some scrapes, so that rates have a rise to tell of.
    let rises = format!("/api/v1/query?query=count_over_time({awaited}[1m])>4");
    prometheus.wait_for(&rises, |body| body.contains(r#""value""#));
    let mut answered = BTreeSet::new();
    for (name, query) in queries() {
        let body = prometheus.query(&query);
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["status"], "success", "{name}: {query}: {body}");
        if !answer["data"]["result"].as_array().unwrap().is_empty() {
            answered.insert((name, query));
        }
    }
    answered
}

#[test]
fn prometheus_understands_every_query_and_answers_those_of_dashboards() {
    let scenarios = [
        ("demo", "DCGM_CUSTOM_PROCESS_SM_UTIL"),
        ("old-driver", "DCGM_CUSTOM_PROCESS_MEM_USED"),
        ("faulty", "nvml_exporter_xid_events_total"),
    ];
    let answered: BTreeSet<_> =
        scenarios.into_iter().flat_map(|(name, awaited)| answered(name, awaited)).collect();
    for name in DASHBOARDS {
        for (panel, query, _) in targets(name) {
            let asked = (panel, filled(&query));
            assert!(answered.contains(&asked), "no scenario has data for {asked:?}");
        }
        for (variable, selector) in variables(name) {
            let asked = (variable, filled(&selector));
            assert!(answered.contains(&asked), "no scenario has data for {asked:?}");
        }
    }
}

/// What the public dashboard for dcgm-exporter (12239) asks for, with every variable at "All".
const PUBLIC: [&str; 8] = [
    r#"DCGM_FI_DEV_GPU_TEMP{instance=~".*", gpu=~".*"}"#,
    r#"avg(DCGM_FI_DEV_GPU_TEMP{instance=~".*", gpu=~".*"})"#,
    r#"DCGM_FI_DEV_POWER_USAGE{instance=~".*", gpu=~".*"}"#,
    r#"sum(DCGM_FI_DEV_POWER_USAGE{instance=~".*", gpu=~".*"})"#,
    r#"DCGM_FI_DEV_SM_CLOCK{instance=~".*", gpu=~".*"} * 1000000"#,
    r#"DCGM_FI_DEV_GPU_UTIL{instance=~".*", gpu=~".*"}"#,
    r#"DCGM_FI_DEV_FB_USED{instance=~".*", gpu=~".*"}"#,
    r#"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{instance=~".*", gpu=~".*"}"#,
];

#[test]
fn the_public_dashboard_has_data_in_both_dialects() {
    for dialect in ["ack", "dcgm-exporter"] {
        let flags =
            ["--mock", "--dialect", dialect, "--node-name=node-1", "--collect-interval=500"];
        let exporter = Server::exporter(&flags);
        let program = brought("debian/usr/bin/prometheus");
        let prometheus = Server::prometheus(&program, exporter.address());
        prometheus.wait_for("/api/v1/query?query=DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", |body| {
            body.contains(r#""value""#)
        });
        for query in PUBLIC {
            let answer: Value = serde_json::from_str(&prometheus.query(query)).unwrap();
            let found = answer["data"]["result"].as_array().unwrap();
            assert!(!found.is_empty(), "{dialect}: {query}");
            // Its variables are the values of these labels.
            if !query.contains('(') {
                let labels = &found[0]["metric"];
                assert!(labels["instance"].is_string() && labels["gpu"].is_string(), "{labels}");
            }
        }
    }
}
