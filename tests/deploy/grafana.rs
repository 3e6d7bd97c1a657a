//! Dashboards as Grafana evaluates them: variables, queries, legends and columns of tables.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;
use serde_json::Value;

use crate::programs::{Server, read};

/// Names of all dashboards.
pub(crate) const DASHBOARDS: [&str; 3] = ["nodes", "pods", "sharing"];
/// Labels that only series of MIG devices have.
const MIG_LABELS: [&str; 2] = ["GPU_I_ID", "GPU_I_PROFILE"];

pub(crate) fn dashboard(name: &str) -> Value {
    serde_json::from_str(&read(&format!("daemonset/dashboards/{name}.json"))).unwrap()
}

pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A query of a dashboard, with variables.
pub(crate) struct Query {
    /// Dashboard and panel, variable or annotation.
    pub name: String,
    /// The query, or the selector of a variable.
    pub expr: String,
    /// Text with `{{label}}`.
    pub legend: String,
    /// The column of each label, in tables.
    columns: BTreeMap<String, String>,
}

impl Query {
    /// Labels of the legend.
    pub(crate) fn legend_labels(&self) -> impl Iterator<Item = &str> {
        self.legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap())
    }

    /// What has to be present: a result, every label of the legend, and every column of a table.
    pub(crate) fn expected(&self) -> BTreeSet<Fact> {
        let columns = self.columns.iter();
        let columns = columns.filter(|(label, _)| !MIG_LABELS.contains(&label.as_str()));
        let labels = self.legend_labels().filter(|label| !MIG_LABELS.contains(label));
        let labels = labels.map(|label| format!("label {label}"));
        let columns = columns.map(|(_, column)| format!("column {column}"));
        let parts = [self.expr.clone()].into_iter().chain(labels).chain(columns);
        parts.map(|part| (self.name.clone(), part)).collect()
    }

    /// What is present in a result.
    fn present(&self, result: &Value, variables: &Variables) -> BTreeSet<Fact> {
        let has = |label: &str| list(result).any(|series| series["metric"][label].is_string());
        let mut found = BTreeSet::new();
        let mut insert = |part: String| found.insert((self.name.clone(), part));
        if list(result).next().is_some() {
            insert(self.expr.clone());
        }
        for label in self.legend_labels().filter(|label| has(&variables.fill(label))) {
            insert(format!("label {label}"));
        }
        for (_, column) in self.columns.iter().filter(|(label, _)| has(label)) {
            insert(format!("column {column}"));
        }
        found
    }
}

/// A query that has a result, or a label or column that it has; with the name of the query.
pub(crate) type Fact = (String, String);

/// The queries of panels.
pub(crate) fn targets(name: &str) -> Vec<Query> {
    let mut found = Vec::new();
    for panel in list(&dashboard(name)["panels"]) {
        let renamed = list(&panel["transformations"]).find_map(|t| {
            let names = t["options"]["renameByName"].as_object()?;
            let names = names.iter().filter(|(label, _)| !label.starts_with("Value"));
            Some(names.map(|(label, column)| (label.clone(), column.as_str().unwrap().to_owned())))
        });
        let columns: BTreeMap<_, _> = renamed.into_iter().flatten().collect();
        for target in list(&panel["targets"]) {
            let text = |key: &str| target[key].as_str().unwrap().to_owned();
            found.push(Query {
                name: format!("{name}: {}", panel["title"].as_str().unwrap()),
                expr: text("expr"),
                legend: text("legendFormat"),
                columns: columns.clone(),
            });
        }
    }
    assert!(found.len() > 10, "{name}");
    found
}

/// The queries of annotations.
fn annotations(name: &str) -> Vec<Query> {
    let of = |annotation: &Value| {
        let text = |key: &str| annotation[key].as_str().unwrap().to_owned();
        Query {
            name: format!("{name}: {}", text("name")),
            expr: text("expr"),
            legend: text("titleFormat") + &text("textFormat"),
            columns: BTreeMap::new(),
        }
    };
    list(&dashboard(name)["annotations"]["list"]).map(of).collect()
}

/// Name and query of each variable with a query, in the order of the dashboard.
fn variables(dashboard: &Value) -> Vec<(&Value, &str)> {
    let all = list(&dashboard["templating"]["list"]).filter(|v| v["type"] == "query");
    all.map(|variable| (variable, variable["query"]["query"].as_str().unwrap())).collect()
}

/// The selectors of variables with the values of a label.
fn selectors(name: &str) -> Vec<Query> {
    let dashboard = dashboard(name);
    let of = |(variable, query): (&Value, &str)| {
        let variable = variable["name"].as_str().unwrap();
        let inner = query.strip_prefix("label_values(")?.strip_suffix(')').unwrap();
        let (selector, label) = inner.rsplit_once(", ").unwrap();
        // Not every Prometheus has a label for its cluster.
        let legend = if label == "cluster" { String::new() } else { format!("{{{{{label}}}}}") };
        let (name, expr) = (format!("{name}: ${variable}"), selector.to_owned());
        Some(Query { name, expr, legend, columns: BTreeMap::new() })
    };
    let found: Vec<_> = variables(&dashboard).into_iter().filter_map(of).collect();
    assert!(found.len() > 2, "{name}");
    found
}

/// All queries of a dashboard.
pub(crate) fn queries(name: &str) -> Vec<Query> {
    let mut found = targets(name);
    found.extend(annotations(name));
    found.extend(selectors(name));
    found
}

/// Values of the variables of a dashboard.
pub(crate) struct Variables(BTreeMap<String, String>);

impl Variables {
    /// The values that Grafana selects at first: "All", or the first one.
    fn resolve(dashboard: &Value, prometheus: &Server) -> Self {
        let mut variables = Self([("__rate_interval".into(), "1m".into())].into());
        for (variable, query) in self::variables(dashboard) {
            let value = if let Some(all) = variable["allValue"].as_str() {
                all.to_owned()
            } else {
                let options = variables.options(variable, query, prometheus);
                options.first().unwrap_or_else(|| panic!("{query}: no option")).clone()
            };
            variables.0.insert(variable["name"].as_str().unwrap().to_owned(), value);
        }
        variables
    }

    /// The options of a variable with a query result: what the regular expression captures in the text of each series.
    fn options(&self, variable: &Value, query: &str, prometheus: &Server) -> Vec<String> {
        let inner = query.strip_prefix("query_result(").unwrap().strip_suffix(')').unwrap();
        let regex = variable["regex"].as_str().unwrap();
        let regex = regex.strip_prefix('/').unwrap().strip_suffix('/').unwrap();
        let regex = Regex::new(regex).unwrap();
        let result = result_of(prometheus, query, &self.fill(inner));
        let text = |series: &Value| {
            let labels = series["metric"].as_object().unwrap().iter();
            let labels: Vec<_> = labels.map(|(name, value)| format!("{name}={value}")).collect();
            format!("{{{}}} {}", labels.join(","), series["value"][1])
        };
        let captured = |series: &Value| Some(regex.captures(&text(series))?[1].to_owned());
        let mut options: Vec<_> = list(&result).filter_map(captured).collect();
        options.sort();
        options
    }

    /// A text with the values of its variables.
    pub(crate) fn fill(&self, text: &str) -> String {
        let variable = Regex::new(r"\$(\w+)").unwrap();
        let value = |found: &regex_lite::Captures<'_>| {
            self.0.get(&found[1]).unwrap_or_else(|| panic!("{}: {text}", &found[0])).clone()
        };
        variable.replace_all(text, value).into_owned()
    }
}

/// The result of a query, which has to be valid.
pub(crate) fn result_of(prometheus: &Server, name: &str, query: &str) -> Value {
    let body = prometheus.query(query);
    let mut response: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(response["status"], "success", "{name}: {query}: {body}");
    response["data"]["result"].take()
}

/// What the queries of all dashboards return.
pub(crate) fn present(prometheus: &Server) -> BTreeSet<Fact> {
    let mut found = BTreeSet::new();
    for name in DASHBOARDS {
        let variables = Variables::resolve(&dashboard(name), prometheus);
        for query in queries(name) {
            let result = result_of(prometheus, &query.name, &variables.fill(&query.expr));
            found.extend(query.present(&result, &variables));
        }
    }
    found
}
