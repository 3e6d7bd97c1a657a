//! Queries of public dashboards, rules and autoscaling guides, asked of a real Prometheus in both dialects, with
//! `honorLabels` true and false, on Hopper and before: each has a result, or is empty by nature.

use std::fs;

use nvml_exporter::labels::{Compat, Dialect};
use nvml_exporter::selection::preset;
use serde_json::{Value, json};

use crate::programs::{Server, kubernetes_job, read, tool_path, url_encode};
use crate::rules::{groups, series_names};

/// NVIDIA's dashboard (grafana.com, 12239), with every variable at "All".
const DASHBOARD_12239: [&str; 8] = [
    r#"DCGM_FI_DEV_GPU_TEMP{instance=~".*", gpu=~".*"}"#,
    r#"avg(DCGM_FI_DEV_GPU_TEMP{instance=~".*", gpu=~".*"})"#,
    r#"DCGM_FI_DEV_POWER_USAGE{instance=~".*", gpu=~".*"}"#,
    r#"sum(DCGM_FI_DEV_POWER_USAGE{instance=~".*", gpu=~".*"})"#,
    r#"DCGM_FI_DEV_SM_CLOCK{instance=~".*", gpu=~".*"} * 1000000"#,
    r#"DCGM_FI_DEV_GPU_UTIL{instance=~".*", gpu=~".*"}"#,
    r#"DCGM_FI_DEV_FB_USED{instance=~".*", gpu=~".*"}"#,
    r#"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{instance=~".*", gpu=~".*"}"#,
];

/// The recording rules of the GPU operator.
const GPU_OPERATOR: [&str; 7] = [
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_MEM_COPY_UTIL",
    "DCGM_FI_DEV_FB_TOTAL",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_MEM_CLOCK",
];

/// The console plugin of `OpenShift` for the GPU operator, for any GPU.
const CONSOLE_PLUGIN: [&str; 16] = [
    r#"sum(DCGM_FI_PROF_GR_ENGINE_ACTIVE{UUID=~".+"})"#,
    r#"sum(DCGM_FI_DEV_MEM_COPY_UTIL{UUID=~".+"})"#,
    r#"sum(DCGM_FI_DEV_ENC_UTIL{UUID=~".+"})"#,
    r#"sum(DCGM_FI_DEV_DEC_UTIL{UUID=~".+"})"#,
    r#"avg(DCGM_FI_DEV_POWER_USAGE{UUID=~".+"})"#,
    r#"DCGM_FI_DEV_POWER_MGMT_LIMIT_MAX{UUID=~".+"}"#,
    r#"avg(DCGM_FI_DEV_GPU_TEMP{UUID=~".+"})"#,
    r#"avg(DCGM_FI_DEV_SM_CLOCK{UUID=~".+"})"#,
    r#"DCGM_FI_DEV_MAX_SM_CLOCK{UUID=~".+"}"#,
    r#"DCGM_FI_DEV_MEM_CLOCK{UUID=~".+"}"#,
    r#"DCGM_FI_DEV_MAX_MEM_CLOCK{UUID=~".+"}"#,
    r#"sum (DCGM_FI_PROF_GR_ENGINE_ACTIVE{exported_pod=~".+"}) by (exported_namespace, exported_pod, UUID)"#,
    r#"count(count by (UUID,GPU_I_ID) (DCGM_FI_PROF_GR_ENGINE_ACTIVE{exported_pod=~".+"}))"#,
    "count(count by (UUID,GPU_I_ID) (DCGM_FI_PROF_GR_ENGINE_ACTIVE))",
    "sum(max by (UUID) (DCGM_FI_DEV_POWER_USAGE))",
    "count(count by (UUID,GPU_I_ID) (DCGM_FI_DEV_MEM_COPY_UTIL))",
];

/// Guides for autoscaling on EKS and, by the examples of Kubernetes, on GKE, EKS and AKS; `OpenCost`.
const GUIDES: [&str; 4] = [
    r#"DCGM_FI_DEV_GPU_UTIL{exported_namespace!="",exported_container!="",exported_pod!=""}"#,
    "avg by (exported_namespace, exported_container) (round(avg_over_time(DCGM_FI_DEV_GPU_UTIL[1m])))",
    r#"sum(label_replace(label_replace(DCGM_FI_DEV_GPU_UTIL, "pod", "$1", "exported_pod", "(.+)"), "namespace", "$1", "exported_namespace", "(.+)")) by (pod)"#,
    r#"avg(avg_over_time(DCGM_FI_PROF_GR_ENGINE_ACTIVE{container!=""}[1m])) by (container, pod, namespace)"#,
];

/// How an exporter is run and scraped.
struct Setup {
    is_ack: bool,
    honor_labels: bool,
    is_hopper: bool,
}

impl Setup {
    /// Starts an exporter with `flags` and a Prometheus that scrapes it.
    fn start(&self, flags: &[&str]) -> (Server, Server) {
        let mock = if self.is_hopper { "--mock=demo" } else { "--mock=bert-hpa" };
        let dialect: &[&str] =
            if self.is_ack { &[] } else { &["--dialect=dcgm-exporter", "--kubernetes"] };
        let base = [mock, "--node-name=node-1", "--collect-interval=500"];
        let exporter = Server::start_exporter(&[&base, dialect, flags].concat());
        let job = kubernetes_job("gpu", exporter.address(), self.honor_labels);
        let program = tool_path("debian/usr/bin/prometheus");
        let prometheus = Server::start_prometheus_with_jobs(&program, &[job], &json!([]));
        // Pods are known then, and GPM has two samples.
        let pods = match (self.is_ack, self.honor_labels) {
            (true, _) => "DCGM_CUSTOM_PROCESS_SM_UTIL",
            (false, true) => r#"DCGM_FI_DEV_GPU_UTIL{pod!~"gpu-.*",pod!=""}"#,
            (false, false) => r#"DCGM_FI_DEV_GPU_UTIL{exported_pod!=""}"#,
        };
        wait_for(&prometheus, pods);
        let family =
            if self.is_hopper { "DCGM_FI_PROF_GR_ENGINE_ACTIVE" } else { "DCGM_FI_DEV_FB_USED" };
        wait_for(&prometheus, family);
        (exporter, prometheus)
    }

    /// Why a query has no result.
    fn empty_by_nature(&self, query: &str, families: &[String]) -> Option<&'static str> {
        let series = series_names(query);
        let is_profiling =
            |name: &String| name.starts_with("DCGM_FI_PROF_") && !name.ends_with("_BYTES");
        let needs_exported = ["exported_pod=~", "exported_pod!="];
        if !self.is_hopper && series.iter().any(is_profiling) {
            Some("NVML has no profiling before Hopper")
        } else if series.iter().any(|name| !families.contains(name)) {
            Some("not one of the default families")
        } else if needs_exported.iter().any(|matcher| query.contains(matcher))
            && (self.is_ack || self.honor_labels)
        {
            Some("the labels have other names")
        } else {
            None
        }
    }
}

fn wait_for(prometheus: &Server, query: &str) {
    let path = format!("/api/v1/query?query={}", url_encode(query));
    prometheus.wait_for(&path, |body| body.contains(r#""value""#));
}

fn has_result(prometheus: &Server, query: &str) -> bool {
    let body = prometheus.query(query);
    let response: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(response["status"], "success", "{query}: {body}");
    !response["data"]["result"].as_array().unwrap().is_empty()
}

/// Families of the dialect's defaults.
fn defaults(is_ack: bool) -> Vec<String> {
    let dialect = if is_ack { Dialect::Ack } else { Dialect::DcgmExporter(vec![Compat::V4_8]) };
    preset(&dialect).into_iter().map(|request| request.name.to_string()).collect()
}

fn queries() -> impl Iterator<Item = &'static str> {
    let public = [&DASHBOARD_12239[..], &GPU_OPERATOR, &CONSOLE_PLUGIN, &GUIDES];
    public.into_iter().flatten().copied()
}

#[test]
fn public_queries_have_a_result_or_are_empty_by_nature() {
    for (is_ack, honor_labels, is_hopper) in [
        (false, false, true),
        (false, true, true),
        (true, false, true),
        (true, true, true),
        (false, false, false),
        (true, true, false),
    ] {
        let setup = Setup { is_ack, honor_labels, is_hopper };
        let (_exporter, prometheus) = setup.start(&[]);
        let families = defaults(is_ack);
        for query in queries() {
            let reason = setup.empty_by_nature(query, &families);
            assert_eq!(
                has_result(&prometheus, query),
                reason.is_none(),
                "ack {is_ack}, honorLabels {honor_labels}, Hopper {is_hopper}: {query}: {reason:?}"
            );
        }
        // Labels of the variables of dashboard 12239.
        assert!(has_result(&prometheus, r#"DCGM_FI_DEV_GPU_TEMP{instance!="",gpu!=""}"#));
        // The guide of AKS: no exporter has this label.
        assert!(!has_result(&prometheus, r#"avg(DCGM_FI_DEV_GPU_UTIL{deployment=~".+"})"#));
    }
}

#[test]
fn counters_file_fills_the_panels_without_default_families() {
    let more = ["FB_TOTAL", "POWER_MGMT_LIMIT_MAX", "MAX_SM_CLOCK", "MAX_MEM_CLOCK"];
    let more = more.map(|name| format!("DCGM_FI_DEV_{name}"));
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("counters.csv");
    let lines = more.each_ref().map(|name| format!("{name}, gauge, {name}\n"));
    fs::write(&file, read("daemonset/chart/files/counters.csv") + &lines.concat()).unwrap();
    let setup = Setup { is_ack: false, honor_labels: false, is_hopper: true };
    let (_exporter, prometheus) = setup.start(&["-f", &file.display().to_string()]);
    for query in queries() {
        assert!(has_result(&prometheus, query), "{query}");
    }
    // The migration guide names them.
    let guide = read("docs/migration.md");
    let defaults = defaults(false);
    for name in more {
        assert!(guide.contains(&format!("`{name}`")) && !defaults.contains(&name), "{name}");
    }
}

/// The `PromQL` in a document.
fn promql_blocks(path: &str) -> Vec<String> {
    let text = read(path);
    let blocks = text.split("```promql\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap().trim().to_owned()).collect()
}

/// One GPU in use at 50 %, a share of a quarter of a GPU at 25 %, and an idle GPU.
const COST: &str = r#"
now = 60

[[gpu]]
model = "L20"
count = 3

[[pod]]
name = "half"
containers = [{ name = "c", gpus = [0] }]

[[process]]
pid = 100
name = "p"
pod = "default/half"
gpus = [0]
memory = "9 GiB"
sm = 50

[[pod]]
name = "share"
containers = [{ name = "c", ack = { gpu = 1, gib = 11 } }]

[[process]]
pid = 110
name = "p"
pod = "default/share"
gpus = [1]
memory = "4 GiB"
sm = 25

[[pod]]
name = "idle"
containers = [{ name = "c", gpus = [2] }]
"#;

#[test]
fn cost_queries_return_the_price_of_allocation_and_use() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("scenario.toml");
    fs::write(&file, COST).unwrap();
    let mock = format!("--mock={}", file.display());
    let exporter = Server::start_exporter(&[&mock, "--node-name=node-1", "--collect-interval=500"]);
    let prices = r#"node_gpu_hourly_cost{instance="node-1",node="node-1",gpu_type="L20"} 2"#;
    let open_cost = Server::serve_text(format!("{prices}\n"));
    let jobs = [
        kubernetes_job("gpu", exporter.address(), false),
        kubernetes_job("opencost", open_cost.address(), true),
    ];
    let program = tool_path("debian/usr/bin/prometheus");
    // "for an hour" is "for three seconds" here.
    let rules = groups().to_string().replace("[1h:1m]) >= 60", "[3s:300ms]) >= 9");
    let rules: Value = serde_json::from_str(&rules.replace("[1h]", "[3s]")).unwrap();
    let prometheus = Server::start_prometheus_with_jobs(&program, &jobs, &rules);
    wait_for(&prometheus, "count(pod_gpu:nvml_sm_util:sum) == 3 and on () node_gpu_hourly_cost");
    wait_for(&prometheus, "pod_gpu:nvml_idle:1h");
    let values = |query: &str| -> Vec<(String, f64)> {
        let response: Value = serde_json::from_str(&prometheus.query(query)).unwrap();
        let pair = |sample: &Value| {
            let pod = sample["metric"]["PodName"].as_str().unwrap().to_owned();
            (pod, sample["value"][1].as_str().unwrap().parse().unwrap())
        };
        let mut values: Vec<_> =
            response["data"]["result"].as_array().unwrap().iter().map(pair).collect();
        values.sort_by(|a, b| a.0.cmp(&b.0));
        values
    };
    let [idle, allocated, used]: [String; 3] =
        promql_blocks("docs/autoscaling.md").try_into().unwrap();
    let expected = |list: &[(&str, f64)]| -> Vec<(String, f64)> {
        list.iter().map(|(pod, value)| ((*pod).to_owned(), *value)).collect()
    };
    assert_eq!(values(&idle), expected(&[("idle", 1.0)]));
    assert_eq!(values(&allocated), expected(&[("half", 2.0), ("idle", 2.0), ("share", 0.5)]));
    assert_eq!(values(&used), expected(&[("half", 1.0), ("idle", 0.0), ("share", 0.5)]));
}
