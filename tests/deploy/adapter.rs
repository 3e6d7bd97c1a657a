//! A custom metrics adapter over a real Prometheus: it discovers series, names resources, expands the
//! queries of rules and converts what they say, as prometheus-adapter and ACK's adapter do.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::autoscaler::{Values, replicas};
use crate::manifests::documents;
use crate::programs::{Server, brought, read};

/// One rule.
pub(crate) struct Rule {
    /// What it looks for.
    pub(crate) selector: String,
    /// What it asks, with places to fill in.
    pub(crate) query: String,
    /// Label → resource, in the plural that the API uses.
    pub(crate) resources: BTreeMap<String, String>,
    /// Ending of a series' name, and what stands in its place.
    rename: Option<(String, String)>,
}

impl Rule {
    /// The rules of a file that is shipped.
    pub(crate) fn shipped(file: &str) -> Vec<Self> {
        Self::list(&read(&format!("daemonset/rules/adapter/{file}")))
    }

    /// The rules of a file's text.
    fn list(text: &str) -> Vec<Self> {
        let rules = documents(text).remove(0)["rules"].as_array().expect("rules").clone();
        rules.iter().map(Self::new).collect()
    }

    fn new(rule: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned();
        let overrides = rule["resources"]["overrides"].as_object().expect("overrides");
        let plural = |to: &Value| format!("{}s", text(&to["resource"]));
        let rename = rule["name"]["matches"].as_str().map(|pattern| {
            let ending = pattern.strip_prefix("^(.*)").expect("a pattern of an ending");
            let name = text(&rule["name"]["as"]);
            (ending.to_owned(), name.strip_prefix("${1}").expect("a new ending").to_owned())
        });
        Self {
            selector: text(&rule["seriesQuery"]),
            query: text(&rule["metricsQuery"]),
            resources: overrides.iter().map(|(label, to)| (label.clone(), plural(to))).collect(),
            rename,
        }
    }

    /// The name under which a series is offered.
    fn offered(&self, series: &str) -> Option<String> {
        match &self.rename {
            None => Some(series.to_owned()),
            Some((from, to)) => Some(format!("{}{to}", series.strip_suffix(from.as_str())?)),
        }
    }

    /// The series that it is about.
    pub(crate) fn series(&self) -> &str {
        self.selector.split('{').next().unwrap_or_default()
    }

    /// The name under which its own series is offered.
    pub(crate) fn name(&self) -> String {
        self.offered(self.series()).unwrap_or_else(|| panic!("{} is not renamed", self.selector))
    }

    fn label(&self, resource: &str) -> &str {
        let found = self.resources.iter().find(|(_, to)| *to == resource);
        found.unwrap_or_else(|| panic!("{} is not offered on {resource}", self.series())).0
    }

    /// The query for these matchers, grouped by this label.
    pub(crate) fn expand(&self, matchers: &str, group: &str) -> String {
        self.query
            .replace("<<.Series>>", self.series())
            .replace("<<.LabelMatchers>>", matchers)
            .replace("<<.GroupBy>>", group)
    }
}

/// What the adapter offers now, as `pods/NAME` and the like.
pub(crate) fn discover(rules: &[Rule], prometheus: &Server) -> BTreeSet<String> {
    let mut offered = BTreeSet::new();
    for rule in rules {
        let found: Value = serde_json::from_str(&prometheus.series(&rule.selector)).unwrap();
        assert_eq!(found["status"], "success", "{}: one bad rule stops all", rule.selector);
        for series in found["data"].as_array().unwrap() {
            let Some(name) = rule.offered(series["__name__"].as_str().unwrap()) else { continue };
            let present = rule.resources.iter().filter(|(label, _)| series[label].is_string());
            offered.extend(present.map(|(_, resource)| format!("{resource}/{name}")));
        }
    }
    offered
}

/// Thousandths; what is no number is 0, and more than any number comes out as the least there is.
fn thousandths(value: &str) -> i64 {
    let value: f64 = value.parse().unwrap_or_else(|_| panic!("{value}"));
    if value.is_infinite() {
        return i64::MIN;
    }
    #[expect(clippy::cast_possible_truncation, reason = "as the adapter does")]
    let thousandths = (value * 1000.0) as i64;
    thousandths
}

fn evaluate(rule: &Rule, matchers: &str, label: &str, prometheus: &Server) -> Values {
    let body = prometheus.query(&rule.expand(matchers, label));
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["status"], "success", "{body}");
    let entry = |sample: &Value| {
        let name = sample["metric"][label].as_str()?.to_owned();
        Some((name, thousandths(sample["value"][1].as_str()?)))
    };
    answer["data"]["result"].as_array().unwrap().iter().filter_map(entry).collect()
}

fn rule<'a>(rules: &'a [Rule], name: &str) -> &'a Rule {
    rules.iter().find(|rule| rule.name() == name).unwrap_or_else(|| panic!("{name} is not offered"))
}

/// `namespaces/NAMESPACE/pods/*/NAME` for some pods.
pub(crate) fn of_pods(
    rules: &[Rule],
    name: &str,
    (namespace, pods): (&str, &[&str]),
    prometheus: &Server,
) -> Values {
    let rule = rule(rules, name);
    let (space, pod) = (rule.label("namespaces"), rule.label("pods"));
    let operator = if pods.len() == 1 { "=" } else { "=~" };
    let matchers = format!(r#"{space}="{namespace}",{pod}{operator}"{}""#, pods.join("|"));
    evaluate(rule, &matchers, pod, prometheus)
}

/// `namespaces/NAMESPACE/metrics/NAME`.
pub(crate) fn of_namespace(
    rules: &[Rule],
    name: &str,
    namespace: &str,
    prometheus: &Server,
) -> Option<i64> {
    let rule = rule(rules, name);
    let label = rule.label("namespaces");
    evaluate(rule, &format!(r#"{label}="{namespace}""#), label, prometheus).remove(namespace)
}

/// `nodes/NODE/NAME`.
pub(crate) fn of_node(rules: &[Rule], name: &str, node: &str, prometheus: &Server) -> Option<i64> {
    let rule = rule(rules, name);
    let label = rule.label("nodes");
    evaluate(rule, &format!(r#"{label}="{node}""#), label, prometheus).remove(node)
}

/// Everything that the five rules offer when a GPU pod runs.
pub(crate) const OFFERED: [&str; 10] = [
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

fn prometheus_of(page: String) -> (Server, Server) {
    let target = Server::page(page);
    let prometheus = Server::prometheus(&brought("debian/usr/bin/prometheus"), target.address());
    let ready = "/api/v1/query?query=DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED";
    prometheus.wait_for(ready, |body| body.contains(r#""value""#));
    (target, prometheus)
}

#[test]
fn adapters_offer_and_convert_what_a_page_says() {
    let page = r#"
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
    let (_target, prometheus) = prometheus_of(page.to_owned());
    let (util, used) = ("DCGM_CUSTOM_PROCESS_SM_UTIL", "DCGM_CUSTOM_PROCESS_MEM_USED");
    let ratio = "DCGM_CUSTOM_PROCESS_GPU_MEM_USED_RATIO";
    let values = |list: &[(&str, i64)]| -> Values {
        list.iter().map(|(pod, value)| ((*pod).to_owned(), *value)).collect()
    };
    for (file, bert_util, bert_ratio) in
        [("verbatim.yaml", 30_500, 187), ("corrected.yaml", 61_000, 375)]
    {
        let rules = Rule::shipped(file);
        assert_eq!(discover(&rules, &prometheus), OFFERED.map(String::from).into(), "{file}");
        let of = |name, pods: &[&str]| of_pods(&rules, name, ("a", pods), &prometheus);
        let both = ["bert", "idle"];
        assert_eq!(of(util, &both), values(&[("bert", bert_util), ("idle", 0)]), "{file}");
        assert_eq!(of(used, &both), values(&[("bert", 1_500_000), ("idle", 0)]), "{file}");
        assert_eq!(of(ratio, &both), values(&[("bert", bert_ratio), ("idle", 0)]), "{file}");
        assert_eq!(of(util, &["bert"]), values(&[("bert", bert_util)]), "{file}");
        assert_eq!(of(util, &["nobody"]), Values::new(), "{file}");
        let node = |name| of_node(&rules, name, "n1", &prometheus);
        assert_eq!(node("DCGM_FI_DEV_GPU_UTIL"), Some(40_500), "{file}");
        assert_eq!(node("DCGM_FI_DEV_FB_USED"), Some(3_500_000), "{file}");
        assert_eq!(of_node(&rules, "DCGM_FI_DEV_FB_USED", "n9", &prometheus), None, "{file}");
    }
    assert_eq!(thousandths("NaN"), 0);
    assert_eq!(thousandths("+Inf"), i64::MIN);
}

/// A quantity as the API writes it, in thousandths.
fn quantity(text: &str) -> i64 {
    let (number, factor) = match text.strip_suffix('m') {
        Some(number) => (number, 1),
        None => text.strip_suffix('k').map_or((text, 1000), |number| (number, 1_000_000)),
    };
    number.parse::<i64>().unwrap() * factor
}

#[test]
#[ignore = "needs NVML_EXPORTER_KUBELET_DATA, recorded answers of a real adapter and autoscaler"]
fn adapters_and_autoscalers_answer_as_the_real_ones_did() {
    let folder = std::env::var("NVML_EXPORTER_KUBELET_DATA").expect("the folder of the recordings");
    let recorded = |file: &str| std::fs::read_to_string(format!("{folder}/hpa/{file}")).unwrap();
    let answer = |file: &str| -> Value { serde_json::from_str(&recorded(file)).unwrap() };

    let rules = Rule::list(&recorded("adapter-rules.yaml"));
    let (_target, prometheus) = prometheus_of(recorded("metrics.txt"));
    let list = answer("custom-metrics-list.alibaba-adapter.json");
    let names = list["resources"].as_array().unwrap().iter();
    let names: BTreeSet<String> = names.map(|r| r["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(discover(&rules, &prometheus), names);

    let mut utilization = Values::new();
    for name in [
        "DCGM_CUSTOM_PROCESS_SM_UTIL",
        "DCGM_CUSTOM_PROCESS_MEM_USED",
        "DCGM_CUSTOM_PROCESS_GPU_MEM_USED_RATIO",
    ] {
        let items = answer(&format!("namespaces_demo_pods___{name}.json"))["items"].clone();
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
        let got = of_pods(&rules, name, ("demo", &pods), &prometheus);
        assert_eq!(got, wanted, "{name}");
        if name.ends_with("SM_UTIL") {
            utilization = got;
        }
    }
    let node = answer("nodes_gpu-node-1_DCGM_FI_DEV_GPU_UTIL.json")["items"][0].clone();
    let wanted = quantity(node["value"].as_str().unwrap());
    let got = of_node(&rules, "DCGM_FI_DEV_GPU_UTIL", "gpu-node-1", &prometheus);
    assert_eq!(got, Some(wanted));

    // One replica at 46, target 20: the real one went to three.
    let autoscaler = answer("hpa.json")["items"][0].clone();
    let spec = &autoscaler["spec"];
    let target = quantity(spec["metrics"][0]["pods"]["target"]["averageValue"].as_str().unwrap());
    let bound = |key: &str| usize::try_from(spec[key].as_u64().unwrap()).unwrap();
    let pods: Vec<&str> = utilization.keys().map(String::as_str).collect();
    let bounds = (bound("minReplicas"), bound("maxReplicas"));
    let decided = replicas(&pods, &utilization, target, bounds);
    assert_eq!(json!(decided.unwrap()), autoscaler["status"]["desiredReplicas"]);
}
