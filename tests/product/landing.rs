//! The web page and the JSON of `/api/v1/node`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::clients::tool_path;
use crate::documents::read_file;
use crate::exporter::{Exporter, Scenario, run_tool};

fn node(exporter: &Exporter) -> Value {
    serde_json::from_str(&exporter.get("/api/v1/node").text()).unwrap()
}

/// Waits until the node satisfies `condition`, and returns it.
fn wait_for_node(exporter: &Exporter, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
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

#[test]
fn page_shows_why_there_is_no_driver() {
    let exporter =
        Exporter::start(&["--require-gpu", "--nvml-library", "/nowhere/libnvidia-ml.so.1"]);
    let node = wait_for_node(&exporter, "a reason", |node| node["ready"] == false);
    assert_eq!(node["driver"]["reason"], "library_not_found");
    let page = exporter.get("/").text();
    assert!(page.contains("Not ready: ") && page.contains("/nowhere/libnvidia-ml.so.1"), "{page}");
}

#[test]
fn landing_page_can_be_disabled() {
    let exporter = Exporter::start(&["--mock=idle-t4", "--no-landing-page"]);
    for path in ["/", "/api/v1/node"] {
        assert_eq!(exporter.get(path).status, 404, "{path}");
    }
    assert_eq!(exporter.get("/healthz").status, 200);
}

/// Opens the page with tests/clients/browser.py, and returns its report.
fn open_in_browser(exporter: &Exporter) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/browser.py");
    let url = format!("http://{}/", exporter.address());
    let python = tool_path("python/bin/python");
    let output = run_tool(&python, &[&script.display().to_string(), &url], "");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// No console messages, accessibility violations or overflow, and all links are reachable by keyboard.
fn assert_accessible(report: &Value) {
    assert_eq!(report["console"], serde_json::json!([]));
    for check in ["violations", "overflow"] {
        let views = report[check].as_object().unwrap();
        assert!(views.len() >= 6, "two schemes, three widths, closed and usually open");
        for (view, found) in views {
            let none = if check == "overflow" { Value::from(0) } else { serde_json::json!([]) };
            assert_eq!(*found, none, "{check} {view}");
        }
    }
    let reached = report["reached"].to_string();
    assert!(reached.contains("/metrics") && reached.contains("/api/v1/node"), "{reached}");
}

#[test]
fn browser_shows_a_gpu_and_updates_its_numbers() {
    // Only numbers change in this scenario.
    let scenario = Scenario::new(
        "steady",
        r#"
        [[gpu]]
        model = "T4"
        [[process]]
        pid = 42
        name = "python"
        gpus = [0]
        memory = "6 GiB"
        sm = { wave = "sine", low = 10, high = 90, period = 7.0 }
        "#,
    );
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval", "500"]);
    exporter.wait_for("a utilization", |text| text.contains("DCGM_CUSTOM_PROCESS_SM_UTIL{"));
    let report = open_in_browser(&exporter);
    assert_accessible(&report);
    assert_eq!(report["in_place"], true, "numbers are updated without reloading the page");
    assert_ne!(report["text"], report["later"]);
    let stale = &report["stale"];
    assert_eq!((&stale["before"], &stale["grey"]), (&false.into(), &true.into()), "{stale}");
    assert!(stale["text"].as_str().unwrap().starts_with("Old data: "), "{stale}");
    for text in [&report["text"], &report["without_script"]] {
        let text = text.as_str().unwrap();
        for expected in ["GPU 0", "ok", "memory", "6.0 GiB", "python 42 C", "host process"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }
}

#[test]
fn browser_shows_pods_mig_devices_and_faults() {
    for (scenario, expected) in [
        ("shared-l20", ["tenant-a/infer-0", "share", "10 % of the SMs"]),
        ("mig-h100", ["MIG 2g.20gb", "serving/triton", "– unsupported"]),
        ("faulty", ["lost", "could not be remapped", "only 3 of 4 GPUs"]),
    ] {
        let exporter =
            Exporter::start(&[&format!("--mock={scenario}"), "--collect-interval", "1000"]);
        exporter.wait_for("pods", |text| text.contains("PodName=\""));
        let report = open_in_browser(&exporter);
        assert_accessible(&report);
        let text = report["later"].as_str().unwrap();
        for expected in expected {
            assert!(text.contains(expected), "{scenario}: {expected} in {text}");
        }
        let names = |key: &str| -> Vec<String> {
            serde_json::from_value(report["pods"][key].clone()).unwrap()
        };
        let mut sorted = names("all");
        sorted.sort();
        assert_eq!(names("sorted"), sorted, "{scenario}");
        let first = names("all")[0].clone();
        assert!(names("filtered").iter().all(|name| name.contains(&first)), "{scenario}");
        assert_eq!(names("kept"), names("filtered"), "{scenario}: order and filter are kept");
    }
}

#[test]
fn thousand_processes_fit_a_screen_before_anything_is_opened() {
    let exporter = Exporter::start(&["--mock=huge", "--collect-interval", "2000"]);
    exporter.wait_for("processes", |text| text.contains("DCGM_CUSTOM_PROCESS_MEM_USED{"));
    let report = open_in_browser(&exporter);
    assert_accessible(&report);
    let height = report["height"].as_u64().unwrap();
    assert!(height <= 900, "{height} px at 1080 px width");
    let text = report["closed"].as_str().unwrap();
    assert!(text.contains("GPU 15") && !text.contains("worker"), "{text}");
    let page = exporter.get("/").text();
    // All MIG devices, and a bounded number of the processes of each.
    assert_eq!(page.matches("MIG 1g.10gb").count(), 112);
    assert!(page.len() < 700_000, "{} bytes", page.len());
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
