//! A model of a custom metrics adapter (prometheus-adapter, ACK's adapter) on a real Prometheus: it discovers
//! series, maps labels to resources, expands the queries of its rules and converts their results.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::autoscaler::{Values, desired_replicas};
use crate::manifests::documents;
use crate::programs::{Server, read, tool_path};

/// One rule of the adapter's configuration.
pub(crate) struct Rule {
    /// `seriesQuery`: the selector of the series to discover.
    pub(crate) selector: String,
    /// `metricsQuery`: the query template.
    pub(crate) query: String,
    /// Label → resource, in the plural form of the API.
    pub(crate) resources: BTreeMap<String, String>,
    /// Suffix of a series name and its replacement.
    suffixes: Option<(String, String)>,
}

impl Rule {
    /// The rules of a file in `daemonset/rules/adapter`.
    pub(crate) fn load(file: &str) -> Vec<Self> {
        Self::parse(&read(&format!("daemonset/rules/adapter/{file}")))
    }

    /// Parses the rules of a YAML text.
    fn parse(text: &str) -> Vec<Self> {
        let rules = documents(text).remove(0)["rules"].as_array().expect("rules").clone();
        rules.iter().map(Self::new).collect()
    }

    fn new(rule: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned();
        let overrides = rule["resources"]["overrides"].as_object().expect("overrides");
        let plural = |to: &Value| format!("{}s", text(&to["resource"]));
        let suffixes = rule["name"]["matches"].as_str().map(|pattern| {
            let suffix = pattern.strip_prefix("^(.*)").expect("a pattern for a suffix");
            let name = text(&rule["name"]["as"]);
            (suffix.to_owned(), name.strip_prefix("${1}").expect("a new suffix").to_owned())
        });
        Self {
            selector: text(&rule["seriesQuery"]),
            query: text(&rule["metricsQuery"]),
            resources: overrides.iter().map(|(label, to)| (label.clone(), plural(to))).collect(),
            suffixes,
        }
    }

    /// The metric name of a series; `None` if the name pattern does not match.
    fn metric_name(&self, series: &str) -> Option<String> {
        match &self.suffixes {
            None => Some(series.to_owned()),
            Some((from, to)) => Some(format!("{}{to}", series.strip_suffix(from.as_str())?)),
        }
    }

    /// The series name in the selector.
    pub(crate) fn series(&self) -> &str {
        self.selector.split('{').next().unwrap_or_default()
    }

    /// The metric name of [`Rule::series`].
    pub(crate) fn name(&self) -> String {
        self.metric_name(self.series())
            .unwrap_or_else(|| panic!("{} does not match the name pattern", self.selector))
    }

    fn label(&self, resource: &str) -> &str {
        let found = self.resources.iter().find(|(_, to)| *to == resource);
        found.unwrap_or_else(|| panic!("{} has no label for {resource}", self.series())).0
    }

    /// The query with these label matchers, grouped by this label.
    pub(crate) fn expand(&self, matchers: &str, group: &str) -> String {
        self.query
            .replace("<<.Series>>", self.series())
            .replace("<<.LabelMatchers>>", matchers)
            .replace("<<.GroupBy>>", group)
    }
}

/// The metrics that the adapter exposes now, as `RESOURCE/NAME`.
pub(crate) fn discover(rules: &[Rule], prometheus: &Server) -> BTreeSet<String> {
    let mut metrics = BTreeSet::new();
    for rule in rules {
        let found: Value = serde_json::from_str(&prometheus.series(&rule.selector)).unwrap();
        assert_eq!(
            found["status"], "success",
            "{}: an invalid rule disables the adapter",
            rule.selector
        );
        for series in found["data"].as_array().unwrap() {
            let Some(name) = rule.metric_name(series["__name__"].as_str().unwrap()) else {
                continue;
            };
            let present = rule.resources.iter().filter(|(label, _)| series[label].is_string());
            metrics.extend(present.map(|(_, resource)| format!("{resource}/{name}")));
        }
    }
    metrics
}

/// A sample value in thousandths. Like the adapter, converts NaN to 0 and an infinity to the minimum.
fn thousandths(value: &str) -> i64 {
    let value: f64 = value.parse().unwrap_or_else(|_| panic!("{value}"));
    if value.is_infinite() {
        return i64::MIN;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the adapter truncates")]
    let thousandths = (value * 1000.0) as i64;
    thousandths
}

fn evaluate(rule: &Rule, matchers: &str, label: &str, prometheus: &Server) -> Values {
    let body = prometheus.query(&rule.expand(matchers, label));
    let response: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(response["status"], "success", "{body}");
    let entry = |sample: &Value| {
        let name = sample["metric"][label].as_str()?.to_owned();
        Some((name, thousandths(sample["value"][1].as_str()?)))
    };
    response["data"]["result"].as_array().unwrap().iter().filter_map(entry).collect()
}

fn rule<'a>(rules: &'a [Rule], name: &str) -> &'a Rule {
    rules
        .iter()
        .find(|rule| rule.name() == name)
        .unwrap_or_else(|| panic!("no rule exposes {name}"))
}

/// Values of `namespaces/NAMESPACE/pods/*/NAME` for these pods.
pub(crate) fn pod_values(
    rules: &[Rule],
    name: &str,
    (namespace, pods): (&str, &[&str]),
    prometheus: &Server,
) -> Values {
    let rule = rule(rules, name);
    let (namespace_label, pod) = (rule.label("namespaces"), rule.label("pods"));
    let operator = if pods.len() == 1 { "=" } else { "=~" };
    let matchers =
        format!(r#"{namespace_label}="{namespace}",{pod}{operator}"{}""#, pods.join("|"));
    evaluate(rule, &matchers, pod, prometheus)
}

/// Value of `namespaces/NAMESPACE/metrics/NAME`.
pub(crate) fn namespace_value(
    rules: &[Rule],
    name: &str,
    namespace: &str,
    prometheus: &Server,
) -> Option<i64> {
    let rule = rule(rules, name);
    let label = rule.label("namespaces");
    evaluate(rule, &format!(r#"{label}="{namespace}""#), label, prometheus).remove(namespace)
}

/// Value of `nodes/NODE/NAME`.
pub(crate) fn node_value(
    rules: &[Rule],
    name: &str,
    node: &str,
    prometheus: &Server,
) -> Option<i64> {
    let rule = rule(rules, name);
    let label = rule.label("nodes");
    evaluate(rule, &format!(r#"{label}="{node}""#), label, prometheus).remove(node)
}

/// The metrics that the five rules expose while a GPU pod runs.
pub(crate) const EXPOSED_METRICS: [&str; 10] = [
    "namespaces/DCGM_CUSTOM_PROCESS_GPU_MEM_USED_RATIO",
    "namespaces/DCGM_CUSTOM_PROCESS_MEM_USED",
    "namespaces/DCGM_CUSTOM_PROCESS_SM_UTIL",
    "nodes/DCGM_CUSTOM_PROCESS_MEM_USED",
    "nodes/DCGM_CUSTOM_PROCESS_SM_UTIL",
    "nodes/DCGM_FI_DEV_FB_USED",
    "nodes/DCGM_FI_DEV_GPU_UTIL",
    "pods/DCGM_CUSTOM_PROCESS_GPU_MEM_USED_RATIO",
    "pods/DCGM_CUSTOM_PROCESS_MEM_USED",
    "pods/DCGM_CUSTOM_PROCESS_SM_UTIL",
];

fn prometheus_of(exposition: String) -> (Server, Server) {
    let target = Server::serve_text(exposition);
    let prometheus =
        Server::start_prometheus(&tool_path("debian/usr/bin/prometheus"), target.address());
    let ready = "/api/v1/query?query=DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED";
    prometheus.wait_for(ready, |body| body.contains(r#""value""#));
    (target, prometheus)
}

#[test]
fn adapter_exposes_and_converts_the_series_of_an_exposition() {
    let exposition = r#"
DCGM_FI_DEV_GPU_UTIL{UUID="GPU-1",NodeName="n1"} 61
DCGM_FI_DEV_GPU_UTIL{UUID="GPU-2",NodeName="n1"} 20
DCGM_FI_DEV_FB_USED{UUID="GPU-1",NodeName="n1"} 3000
DCGM_FI_DEV_FB_USED{UUID="GPU-2",NodeName="n1"} 500
DCGM_CUSTOM_PROCESS_SM_UTIL{NamespaceName="a",PodName="bert",NodeName="n1",UUID="GPU-1",ProcessId="1"} 40
DCGM_CUSTOM_PROCESS_SM_UTIL{NamespaceName="a",PodName="bert",NodeName="n1",UUID="GPU-1",ProcessId="2"} 21
DCGM_CUSTOM_PROCESS_SM_UTIL{NamespaceName="a",PodName="idle",NodeName="n1",UUID="GPU-2",ProcessId="0"} 0
DCGM_CUSTOM_PROCESS_SM_UTIL{NamespaceName="",PodName="",NodeName="n1",UUID="GPU-2",ProcessId="3"} 20
DCGM_CUSTOM_PROCESS_MEM_USED{NamespaceName="a",PodName="bert",NodeName="n1",UUID="GPU-1",ProcessId="1"} 1000
DCGM_CUSTOM_PROCESS_MEM_USED{NamespaceName="a",PodName="bert",NodeName="n1",UUID="GPU-1",ProcessId="2"} 500
DCGM_CUSTOM_PROCESS_MEM_USED{NamespaceName="a",PodName="idle",NodeName="n1",UUID="GPU-2",ProcessId="0"} 0
DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED{NamespaceName="a",PodName="bert",NodeName="n1",UUID="GPU-1"} 4000
DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED{NamespaceName="a",PodName="idle",NodeName="n1",UUID="GPU-2"} 4000
DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED{NamespaceName="b",PodName="bert",NodeName="n2",UUID="GPU-3"} 4000
"#;
    let (_target, prometheus) = prometheus_of(exposition.to_owned());
    let (util, used) = ("DCGM_CUSTOM_PROCESS_SM_UTIL", "DCGM_CUSTOM_PROCESS_MEM_USED");
    let ratio = "DCGM_CUSTOM_PROCESS_GPU_MEM_USED_RATIO";
    let values = |list: &[(&str, i64)]| -> Values {
        list.iter().map(|(pod, value)| ((*pod).to_owned(), *value)).collect()
    };
    for (file, bert_util, bert_ratio) in
        [("verbatim.yaml", 30_500, 187), ("corrected.yaml", 61_000, 375)]
    {
        let rules = Rule::load(file);
        assert_eq!(
            discover(&rules, &prometheus),
            EXPOSED_METRICS.map(String::from).into(),
            "{file}"
        );
        let of = |name, pods: &[&str]| pod_values(&rules, name, ("a", pods), &prometheus);
        let both = ["bert", "idle"];
        assert_eq!(of(util, &both), values(&[("bert", bert_util), ("idle", 0)]), "{file}");
        assert_eq!(of(used, &both), values(&[("bert", 1_500_000), ("idle", 0)]), "{file}");
        assert_eq!(of(ratio, &both), values(&[("bert", bert_ratio), ("idle", 0)]), "{file}");
        assert_eq!(of(util, &["bert"]), values(&[("bert", bert_util)]), "{file}");
        assert_eq!(of(util, &["absent"]), Values::new(), "{file}");
        let node = |name| node_value(&rules, name, "n1", &prometheus);
        assert_eq!(node("DCGM_FI_DEV_GPU_UTIL"), Some(40_500), "{file}");
        assert_eq!(node("DCGM_FI_DEV_FB_USED"), Some(3_500_000), "{file}");
        assert_eq!(node_value(&rules, "DCGM_FI_DEV_FB_USED", "n9", &prometheus), None, "{file}");
    }
    assert_eq!(thousandths("NaN"), 0);
    assert_eq!(thousandths("+Inf"), i64::MIN);
}

/// Parses a Kubernetes quantity, in thousandths.
fn quantity(text: &str) -> i64 {
    let (number, factor) = match text.strip_suffix('m') {
        Some(number) => (number, 1),
        None => text.strip_suffix('k').map_or((text, 1000), |number| (number, 1_000_000)),
    };
    number.parse::<i64>().unwrap() * factor
}

#[test]
#[ignore = "needs NVML_EXPORTER_KUBELET_DATA, recorded responses of a real adapter and autoscaler"]
fn adapter_and_autoscaler_models_match_recordings() {
    let folder = std::env::var("NVML_EXPORTER_KUBELET_DATA").expect("NVML_EXPORTER_KUBELET_DATA");
    let recorded = |file: &str| std::fs::read_to_string(format!("{folder}/hpa/{file}")).unwrap();
    let json_of = |file: &str| -> Value { serde_json::from_str(&recorded(file)).unwrap() };

    let rules = Rule::parse(&recorded("adapter-rules.yaml"));
    let (_target, prometheus) = prometheus_of(recorded("metrics.txt"));
    let list = json_of("custom-metrics-list.alibaba-adapter.json");
    let names = list["resources"].as_array().unwrap().iter();
    let names: BTreeSet<String> = names.map(|r| r["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(discover(&rules, &prometheus), names);

    let mut utilization = Values::new();
    for name in [
        "DCGM_CUSTOM_PROCESS_SM_UTIL",
        "DCGM_CUSTOM_PROCESS_MEM_USED",
        "DCGM_CUSTOM_PROCESS_GPU_MEM_USED_RATIO",
    ] {
        let items = json_of(&format!("namespaces_demo_pods___{name}.json"))["items"].clone();
        let wanted: Values = items
            .as_array()
            .unwrap()
            .iter()
            .map(|item| {
                let pod = item["describedObject"]["name"].as_str().unwrap().to_owned();
                (pod, quantity(item["value"].as_str().unwrap()))
            })
            .collect();
        let pods: Vec<&str> = wanted.keys().map(String::as_str).collect();
        let got = pod_values(&rules, name, ("demo", &pods), &prometheus);
        assert_eq!(got, wanted, "{name}");
        if name.ends_with("SM_UTIL") {
            utilization = got;
        }
    }
    let node = json_of("nodes_gpu-node-1_DCGM_FI_DEV_GPU_UTIL.json")["items"][0].clone();
    let wanted = quantity(node["value"].as_str().unwrap());
    let got = node_value(&rules, "DCGM_FI_DEV_GPU_UTIL", "gpu-node-1", &prometheus);
    assert_eq!(got, Some(wanted));

    // One replica at 46 with target 20: the recorded autoscaler scaled to three.
    let autoscaler = json_of("hpa.json")["items"][0].clone();
    let spec = &autoscaler["spec"];
    let target = quantity(spec["metrics"][0]["pods"]["target"]["averageValue"].as_str().unwrap());
    let bound = |key: &str| usize::try_from(spec[key].as_u64().unwrap()).unwrap();
    let pods: Vec<&str> = utilization.keys().map(String::as_str).collect();
    let bounds = (bound("minReplicas"), bound("maxReplicas"));
    let desired = desired_replicas(&pods, &utilization, target, bounds);
    assert_eq!(json!(desired.unwrap()), autoscaler["status"]["desiredReplicas"]);
}
