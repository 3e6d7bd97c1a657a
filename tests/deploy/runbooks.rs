//! The annotation `runbook_url` of the alerts.

use serde_json::{Value, json};

use crate::chart::{documents_of_release, render_chart};
use crate::manifests::{render_text, single_of_kind};
use crate::programs::read;

const ADDRESS: &str = "https://wiki.example.com/gpu-alerts";

/// Asserts that each alert links its section at `address`.
fn assert_links(name: &str, documents: &[Value], address: &str) {
    let rule = single_of_kind(documents, "PrometheusRule");
    let groups = rule["spec"]["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    let alerts: Vec<&Value> = rules.filter(|rule| rule["alert"].is_string()).collect();
    assert!(alerts.len() > 20, "{name}");
    for alert in alerts {
        let section = alert["alert"].as_str().unwrap().to_lowercase();
        let expected = format!("{address}#{section}");
        assert_eq!(alert["annotations"]["runbook_url"], expected, "{name}");
    }
}

#[test]
fn address_of_the_runbooks_is_a_value_of_the_chart() {
    let values = json!([
        {"prometheusRule": {"enabled": true}},
        {"prometheusRule": {"enabled": true, "runbookUrl": ADDRESS}},
    ]);
    let releases = render_chart(&values);
    for (release, address, hint) in
        [(&releases[0], "docs/alerts.md", true), (&releases[1], ADDRESS, false)]
    {
        assert_links("chart", &documents_of_release(release), address);
        let notes = release["notes"].as_str().unwrap();
        assert_eq!(notes.contains("set prometheusRule.runbookUrl"), hint, "{notes}");
    }
}

#[test]
fn documented_kustomization_sets_the_address_of_the_runbooks() {
    let page = read("docs/alerts.md");
    let (_, rest) = page.split_once("## Links to this page").unwrap();
    let (_, rest) = rest.split_once("```yaml\n").unwrap();
    let (snippet, _) = rest.split_once("```").unwrap();
    let overlay = "DAEMONSET/overlays/prometheus-operator";
    let documents = render_text(&format!("resources: [{overlay}]\n{snippet}"));
    assert_links("kustomize", &documents, ADDRESS);
    let maps = documents.iter().filter(|document| document["kind"] == "ConfigMap");
    assert_eq!(maps.count(), 0, "the address itself is not deployed");
}
