//! The JSON of `/api/v1/node`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::documents::read_file;
use crate::exporter::{Exporter, Scenario};

fn node(exporter: &Exporter) -> Value {
    serde_json::from_str(&exporter.get("/api/v1/node").text()).unwrap()
}

/// Waits until the node satisfies `condition`, and returns it.
pub(crate) fn wait_for_node(
    exporter: &Exporter,
    what: &str,
    condition: impl Fn(&Value) -> bool,
) -> Value {
    exporter.wait_for_at("/api/v1/node", what, |text| {
        serde_json::from_str(text).is_ok_and(|node| condition(&node))
    });
    node(exporter)
}

fn containers(node: &Value, gpu: usize) -> &Vec<Value> {
    node["gpus"][gpu]["parts"][0]["containers"].as_array().unwrap()
}

#[test]
fn node_has_containers_processes_and_units() {
    let exporter = Exporter::start(&["--mock=demo", "--collect-interval", "500"]);
    let node = wait_for_node(&exporter, "a busy and an idle pod", |node| {
        let sm_percent = |gpu: usize| &node["gpus"][gpu]["parts"][0]["containers"][0]["sm_percent"];
        *sm_percent(0) == 97.0 && *sm_percent(7) == 0.0
    });
    assert_eq!(node["version"], 3);
    assert_eq!(node["ready"], true);
    assert_eq!(node["gpus"].as_array().unwrap().len(), 8);
    let gpu = &node["gpus"][0];
    assert_eq!((&gpu["status"], &gpu["power_limit_watts"]), (&"ok".into(), &700.0.into()));
    let trainer = &containers(&node, 0)[0];
    assert_eq!((&trainer["namespace"], &trainer["pod"]), (&"ml".into(), &"train".into()));
    assert_eq!(trainer["mode"], "exclusive");
    assert_eq!(trainer["processes"].as_array().unwrap().len(), 2);
    // A pod with a GPU and without processes is idle; the utilization of an MPS client is unsupported.
    let idle = &containers(&node, 7)[0];
    assert_eq!((&idle["sm_percent"], &idle["memory_used_mib"]), (&0.0.into(), &0.0.into()));
    let client = &containers(&node, 5)[0];
    assert_eq!(client["sm_percent"], serde_json::json!({ "absent": "unsupported" }));
    let other = node["gpus"][6]["parts"][0]["other_processes"].as_array().unwrap();
    assert!(other.iter().any(|process| process["owner"] == "host"), "{other:?}");
}

#[test]
fn gpu_with_mig_lists_its_mig_devices() {
    let exporter = Exporter::start(&["--mock=mig-h100", "--collect-interval", "500"]);
    let node = wait_for_node(&exporter, "a busy MIG device", |node| {
        let part = &node["gpus"][0]["parts"][0];
        part["utilization_percent"].is_number() && part["containers"][0].is_object()
    });
    let gpu = &node["gpus"][0];
    assert_eq!(gpu["mig"], true);
    assert_eq!(gpu["utilization_percent"], serde_json::json!({ "absent": "unsupported" }));
    assert_eq!(gpu["parts"][0]["mig"]["profile"], "2g.20gb");
    assert_eq!(containers(&node, 0)[0]["pod"], "triton");
}

#[test]
fn hung_gpu_has_no_numbers_but_its_containers() {
    let exporter =
        Exporter::start(&["--mock=faulty", "--collect-interval", "500", "--max-age", "1500"]);
    let hung = |node: &Value| {
        node["gpus"].as_array().unwrap().iter().position(|gpu| gpu["status"] == "hung")
    };
    let node = wait_for_node(&exporter, "a hung GPU", |node| hung(node).is_some());
    let at = hung(&node).unwrap();
    let gpu = &node["gpus"][at];
    assert_eq!(gpu["power_watts"], serde_json::json!({ "absent": "hung" }));
    assert_eq!(gpu["parts"][0]["memory_used_mib"], serde_json::json!({ "absent": "hung" }));
    assert_eq!(gpu["parts"][0]["process_list_error"], "hung");
    assert_eq!(gpu["mig_error"], Value::Null, "it has no MIG");
    let container = &containers(&node, at)[0];
    assert_eq!(container["sm_percent"], serde_json::json!({ "absent": "hung" }));
    assert!(node["unidentified"].as_array().unwrap().iter().any(|gpu| gpu["status"] == "lost"));
}

#[test]
fn processes_are_not_collected_unless_selected() {
    let exporter =
        Exporter::start(&["--mock=demo", "--dialect=dcgm-exporter", "--collect-interval", "500"]);
    let node = wait_for_node(&exporter, "GPUs", |node| node["gpus"][0]["power_watts"].is_number());
    assert_eq!(node["gpus"][0]["parts"][0]["process_list_error"], "not_collected");
}

/// Collects all keys of a JSON value.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                found.insert(key.clone());
                keys(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn documented_fields_match_the_json() {
    let mut found = BTreeSet::new();
    let mut collect = |mock: &str, what: &str, condition: fn(&Value) -> bool| {
        let exporter = Exporter::start(&[mock, "--collect-interval", "500"]);
        keys(&wait_for_node(&exporter, what, condition), &mut found);
    };
    collect("--mock=demo", "a process", |node| {
        node["gpus"][0]["parts"][0]["containers"][0]["processes"][0].is_object()
    });
    collect("--mock=mig-h100", "MIG devices", |node| node["gpus"][0]["mig"] == true);
    collect("--mock=faulty", "a lost GPU", |node| node["unidentified"][0]["status"].is_string());
    let xid =
        Scenario::new("xid", "[[gpu]]\nmodel = \"T4\"\n[[xid]]\ngpu = 0\ncode = 31\nat = 3.0\n");
    collect(&xid.flag(), "an XID", |node| node["gpus"][0]["xids"][0].is_object());
    let document = read_file("docs/node-api.md");
    let (_, rest) = document.split_once("<!-- fields: begin -->").unwrap();
    let (table, _) = rest.split_once("<!-- fields: end -->").unwrap();
    let values = [
        "DCGM_EXP_GPU_HEALTH_STATUS",
        "ok",
        "lost",
        "hung",
        "denied",
        "exclusive",
        "share",
        "none",
        "host",
        "container_without_pod",
        "unknown",
        "/readyz",
    ];
    let documented: BTreeSet<String> = table
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .filter(|word| !values.contains(&&**word))
        .collect();
    // `absent` replaces a number, and is documented above the table.
    found.remove("absent");
    assert_eq!(found, documented);
}
