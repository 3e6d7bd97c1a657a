//! The dashboards: every query is valid and has data in both dialects, and every series in it is exported.

use std::collections::BTreeSet;
use std::fs;

use nvml_exporter::catalog::find;
use nvml_exporter::labels::{Compat, Dialect};
use nvml_exporter::selection::{Preset, preset};
use serde_json::Value;

use crate::adapter::Rule;
use crate::exported_families;
use crate::grafana::{DASHBOARDS, Fact, dashboard, list, present, queries, result_of, targets};
use crate::manifests::{render_kustomization, single_of_kind};
use crate::programs::{Server, kubernetes_job, read, root, tool_path, url_encode};
use crate::rules::{groups, series_names};

/// Permitted labels in legends and variables: those of both dialects, of the exporter's own metrics, and of the scrape
/// target; and variables that hold the name of a label.
const LABELS: [&str; 16] = [
    "$container_label",
    "$namespace_label",
    "$node_label",
    "$pod_label",
    "GPU_I_ID",
    "Hostname",
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
];

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
    assert_eq!(files, ["counters.csv", "kustomization.yaml"].map(str::to_owned).into());
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
    for query in DASHBOARDS.into_iter().flat_map(queries) {
        let names = series_names(&query.expr);
        assert!(!names.is_empty(), "{}", query.name);
        exported_families::check_series(&query.name, &names);
        for label in query.legend_labels() {
            assert!(LABELS.contains(&label) || label == "xid", "{}: {label}", query.name);
        }
    }
}

/// Names of the variables of a dashboard.
fn variable_names(dashboard: &Value) -> BTreeSet<String> {
    let all = list(&dashboard["templating"]["list"]);
    all.map(|variable| variable["name"].as_str().unwrap().to_owned()).collect()
}

/// The texts between `start` and `end`.
fn between<'a>(text: &'a str, start: &'a str, end: char) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).map(move |rest| rest.split(end).next().unwrap())
}

#[test]
fn links_name_dashboards_variables_and_columns_that_exist() {
    let mut linked = BTreeSet::new();
    for name in DASHBOARDS {
        let source = dashboard(name);
        for panel in list(&source["panels"]) {
            let columns = panel["transformations"].to_string();
            let fields = list(&panel["fieldConfig"]["overrides"]);
            let properties = fields.flat_map(|field| list(&field["properties"]));
            let links = properties.filter(|property| property["id"] == "links");
            for link in links.flat_map(|property| list(&property["value"])) {
                let url = link["url"].as_str().unwrap();
                let target =
                    url.strip_prefix("/d/nvml-exporter-").unwrap().split('?').next().unwrap();
                let accepted = variable_names(&dashboard(target));
                for variable in between(url, "var-", '=') {
                    assert!(accepted.contains(variable), "{name}: {url}: {variable}");
                }
                let kept: Vec<_> = between(url, "&${", '}').collect();
                for variable in &kept {
                    let variable = variable.strip_suffix(":queryparam").unwrap().to_owned();
                    assert!(accepted.contains(&variable), "{name}: {url}: {variable}");
                    assert!(variable_names(&source).contains(&variable), "{name}: {variable}");
                }
                assert!(kept.len() >= 3, "{url} loses the data source, cluster or job");
                for column in between(url, "__data.fields.", '}') {
                    assert!(columns.contains(&format!(":\"{column}\"")), "{name}: {column}");
                }
                linked.insert((name, target.to_owned()));
            }
        }
    }
    let expected = [("nodes", "pods"), ("pods", "nodes"), ("pods", "pods")];
    assert_eq!(linked, expected.map(|(from, to)| (from, to.to_owned())).into());
}

/// How an exporter is run and scraped.
struct Setup<'a> {
    flags: &'a [&'a str],
    honor_labels: bool,
}

impl Setup<'_> {
    /// What all dashboards show of these scenarios.
    fn present(&self, scenarios: &[(&str, &str)]) -> BTreeSet<Fact> {
        let shown = |(scenario, awaited): &(&str, &str)| present(&self.start(scenario, awaited).1);
        scenarios.iter().flat_map(shown).collect()
    }

    /// Starts an exporter, and a Prometheus with the rules that has scraped the awaited family several times, which rates
    /// need.
    fn start(&self, scenario: &str, awaited: &str) -> (Server, Server) {
        let mock = format!("--mock={scenario}");
        let base = [mock.as_str(), "--node-name=node-1", "--collect-interval=500"];
        let exporter = Server::start_exporter(&[&base, self.flags].concat());
        let job = kubernetes_job("gpu", exporter.address(), self.honor_labels);
        let program = tool_path("debian/usr/bin/prometheus");
        let prometheus = Server::start_prometheus_with_jobs(&program, &[job], &groups());
        let sampled = format!("/api/v1/query?query=count_over_time({awaited}[1m])>4");
        prometheus.wait_for(&sampled, |body| body.contains(r#""value""#));
        (exporter, prometheus)
    }
}

/// Scenarios that together have something for every panel, and the family of each that comes last.
const SCENARIOS: [(&str, &str); 4] = [
    ("demo", "DCGM_CUSTOM_PROCESS_SM_UTIL"),
    ("old-driver", "DCGM_CUSTOM_PROCESS_MEM_USED"),
    ("faulty", "nvml_exporter_xid_events_total"),
    ("mig-h100", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"),
];
/// The columns of processes without an allocation that only those in a container have: in the scenarios they are
/// processes of the host.
const COLUMNS_OF_CONTAINERS: [&str; 3] = ["column Namespace", "column Pod", "column Container"];

/// What a dashboard expects and no scenario has.
fn missing(setup: &Setup<'_>) -> Vec<Fact> {
    let expected = DASHBOARDS.into_iter().flat_map(queries).flat_map(|query| query.expected());
    let expected: BTreeSet<_> = expected.collect();
    let present = setup.present(&SCENARIOS);
    let is_optional = |(name, part): &Fact| {
        name.ends_with("without an allocation") && COLUMNS_OF_CONTAINERS.contains(&part.as_str())
    };
    expected.difference(&present).filter(|fact| !is_optional(fact)).cloned().collect()
}

/// Families that the dashboards show and that are not on by default in the dialect of ACK.
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
fn dashboards_have_data_in_the_ack_dialect() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let counters = folder.path().join("counters.csv");
    let defaults = preset(&Dialect::Ack).into_iter().map(|request| request.name.to_string());
    let names: Vec<String> = defaults.chain(SELECTED_FAMILIES.map(str::to_owned)).collect();
    fs::write(&counters, names.join(", gauge, x\n") + ", gauge, x\n").unwrap();
    let flags = [&*format!("--collectors={}", counters.display())];
    assert_eq!(missing(&Setup { flags: &flags, honor_labels: false }), []);
}

/// Checks that all panels have data in the dialect of dcgm-exporter, with the counters file of the dashboards.
fn check_dcgm_dialect(honor_labels: bool) {
    let counters = root().join("daemonset/dashboards/counters.csv");
    let counters = format!("--collectors={}", counters.display());
    let dialect = "--dialect=dcgm-exporter";
    let flags = [dialect, "--kubernetes", "--enable-exporter-metrics", &counters];
    assert_eq!(missing(&Setup { flags: &flags, honor_labels }), []);
}

#[test]
fn dashboards_have_data_in_the_dcgm_dialect() {
    check_dcgm_dialect(false);
}

#[test]
fn dashboards_have_data_in_the_dcgm_dialect_with_honored_labels() {
    check_dcgm_dialect(true);
}

/// The workload of each series, as recorded.
fn recorded(prometheus: &Server, rule: &str) -> BTreeSet<String> {
    let path = format!("/api/v1/query?query={}", url_encode(rule));
    prometheus.wait_for(&path, |body| body.contains(r#""value""#));
    let result = result_of(prometheus, rule, rule);
    list(&result).map(|series| series["metric"].to_string()).collect()
}

#[test]
fn recording_rules_have_the_same_labels_in_both_dialects() {
    let counters = root().join("daemonset/dashboards/counters.csv");
    let counters = &*format!("--collectors={}", counters.display());
    let ack: [&str; 1] = [counters];
    let dcgm = [counters, "--dialect=dcgm-exporter", "--kubernetes"];
    let of = |flags: &[&str], honor_labels| {
        let setup = Setup { flags, honor_labels };
        let (_exporter, prometheus) = setup.start("demo", "DCGM_CUSTOM_CONTAINER_SM_ACTIVE");
        [
            "pod_gpu:nvml_sm_util:sum",
            "pod:nvml_memory_used:ratio",
            "pod:nvml_useful_busy:ratio",
            "node:nvml_gpus_allocated:sum",
        ]
        .map(|rule| recorded(&prometheus, rule))
    };
    let expected = of(&ack, false);
    assert!(expected[0].iter().any(|labels| labels.contains(r#""PodName":"train""#)));
    assert_eq!(of(&dcgm, false), expected);
    assert_eq!(of(&dcgm, true), expected);
}

#[test]
fn counters_file_has_the_families_of_the_dialect_the_dashboards_and_the_alerts() {
    let file = read("daemonset/dashboards/counters.csv");
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    let listed: Vec<&str> = lines.map(|line| line.split(',').next().unwrap()).collect();
    let of = |preset: Preset| {
        let dialect = Dialect::DcgmExporter(vec![Compat::V4_8]);
        preset.requests(&dialect).into_iter().map(|request| request.name.to_string())
    };
    let shown = DASHBOARDS.into_iter().flat_map(queries);
    let shown = shown.flat_map(|query| series_names(&query.expr));
    let shown = shown.filter(|name| name.starts_with("DCGM_"));
    let wanted: BTreeSet<_> =
        of(Preset::Dialect).chain(of(Preset::Essential)).chain(shown).collect();
    let names: BTreeSet<_> = listed.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!((names.len(), names), (listed.len(), wanted));
    for name in listed {
        assert!(find(name).is_some(), "{name}");
    }
}

#[test]
fn adapter_rules_are_valid() {
    let setup = Setup { flags: &[], honor_labels: false };
    let (_exporter, prometheus) = setup.start("demo", "DCGM_CUSTOM_PROCESS_SM_UTIL");
    // The adapter rules as expanded for pods, a namespace and a node.
    for file in ["verbatim.yaml", "corrected.yaml"] {
        for rule in Rule::load(file) {
            for (matchers, group) in [
                (r#"NamespaceName="a",PodName=~"p|q""#, "PodName"),
                (r#"NamespaceName="a""#, "NamespaceName"),
                (r#"NodeName="n""#, "NodeName"),
            ] {
                result_of(&prometheus, file, &rule.expand(matchers, group));
            }
            result_of(&prometheus, file, &rule.selector);
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
/// Panels of the dashboards of pods and of sharing with a result of the default families of that dialect.
const PANELS_OF_BOTH: [&str; 2] = ["sharing: Allocation problems", "sharing: Sources"];

#[test]
fn panels_without_data_by_default_are_listed() {
    let flags = ["--dialect=dcgm-exporter", "--kubernetes", "--enable-exporter-metrics"];
    let setup = Setup { flags: &flags, honor_labels: false };
    let present = setup.present(&[
        ("demo", "DCGM_FI_DEV_GPU_UTIL"),
        ("mig-h100", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"),
        ("faulty", "nvml_exporter_xid_events_total"),
    ]);
    let targets = || DASHBOARDS.into_iter().flat_map(targets);
    let empty =
        targets().filter(|query| !present.contains(&(query.name.clone(), query.expr.clone())));
    let empty: BTreeSet<_> = empty.map(|query| query.name).collect();
    let of_nodes = NODE_PANELS_OF_ACK.map(|panel| format!("nodes: {panel}"));
    let others = targets().map(|query| query.name).filter(|name| !name.starts_with("nodes: "));
    let others = others.filter(|name| !PANELS_OF_BOTH.contains(&name.as_str()));
    assert_eq!(empty, others.chain(of_nodes).collect());
    // The migration guide lists them.
    let guide = read("docs/migration.md");
    let row =
        guide.lines().find(|line| line.contains("`daemonset/dashboards/nodes.json`")).unwrap();
    for panel in NODE_PANELS_OF_ACK {
        assert!(row.contains(panel), "{panel}");
    }
}
