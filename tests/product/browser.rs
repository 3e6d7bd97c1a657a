//! The web page in a browser.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::clients::tool_path;
use crate::exporter::{Exporter, Scenario, run_tool};

/// Opens the page with tests/clients/browser.py and these flags, and returns its report.
fn open_in_browser(exporter: &Exporter, flags: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/browser.py");
    let url = format!("http://{}/", exporter.address());
    let python = tool_path("python/bin/python");
    let script = script.display().to_string();
    let output = run_tool(&python, &[&[script.as_str(), &url], flags].concat(), "");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Names of all views of these states: two schemes, three widths.
fn all_views(states: &[&str]) -> BTreeSet<String> {
    let schemes = ["light", "dark"];
    let views = states.iter().flat_map(|state| schemes.map(|scheme| format!("{state} {scheme}")));
    views.flat_map(|view| [360, 1080, 1920].map(|width| format!("{view} {width}"))).collect()
}

/// No console messages, accessibility violations or overflow in all views, and all links are reachable by keyboard.
fn assert_accessible(report: &Value, states: &[&str]) {
    assert_accessible_in(report, &all_views(states));
}

/// As [`assert_accessible`], in these views.
fn assert_accessible_in(report: &Value, expected: &BTreeSet<String>) {
    assert_eq!(report["console"], serde_json::json!([]));
    for check in ["violations", "overflow"] {
        let views = report[check].as_object().unwrap();
        assert_eq!(views.keys().cloned().collect::<BTreeSet<_>>(), *expected);
        for (view, found) in views {
            let none = if check == "overflow" { Value::from(0) } else { serde_json::json!([]) };
            assert_eq!(*found, none, "{check} {view}");
        }
    }
    let old = &report["old"];
    for state in ["stale", "dead"] {
        let text = old[state]["text"].as_str().unwrap();
        assert!(text.starts_with("Old data: "), "{state}: {old}");
        assert_eq!(old[state]["grey"], true, "{state}: {old}");
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
    let report = open_in_browser(&exporter, &[]);
    assert_accessible(&report, &["closed", "open"]);
    assert_eq!(report["in_place"], true, "numbers are updated without reloading the page");
    assert_ne!(report["text"], report["later"]);
    for text in [&report["text"], &report["without_script"]] {
        let text = text.as_str().unwrap();
        for expected in ["GPU 0", "ok", "memory", "6.0 GiB", "python 42 C", "host process"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }
}

/// Opens the page of a scenario, and asserts that it contains these texts.
fn assert_shows(scenario: &str, expected: [&str; 3], states: &[&str]) {
    let exporter = Exporter::start(&[&format!("--mock={scenario}"), "--collect-interval", "1000"]);
    exporter.wait_for("pods", |text| text.contains("PodName=\""));
    let flags = if states.contains(&"stale") { vec!["--old"] } else { vec![] };
    let report = open_in_browser(&exporter, &flags);
    assert_accessible(&report, states);
    let text = report["later"].as_str().unwrap();
    for expected in expected {
        assert!(text.contains(expected), "{scenario}: {expected} in {text}");
    }
    let names =
        |key: &str| -> Vec<String> { serde_json::from_value(report["pods"][key].clone()).unwrap() };
    // `infer-10` is after `infer-9`.
    let mut sorted = names("all");
    sorted.sort_by_key(|name| {
        let text = name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        let number = name[text.len()..].parse::<u32>().ok();
        (text, number)
    });
    assert_eq!(names("sorted"), sorted, "{scenario}");
    let first = names("all")[0].clone();
    assert!(names("filtered").iter().all(|name| name.contains(&first)), "{scenario}");
    assert_eq!(names("kept"), names("filtered"), "{scenario}: order and filter are kept");
}

#[test]
fn browser_shows_a_healthy_node_and_old_numbers() {
    let expected = ["8 ok", "ml/train", "– unsupported"];
    assert_shows("demo", expected, &["closed", "open", "stale", "dead"]);
}

#[test]
fn browser_shows_shares() {
    let expected = ["tenant-a/infer-0", "share", "10 % of the SMs"];
    assert_shows("shared-l20", expected, &["closed", "open"]);
}

#[test]
fn browser_shows_mig_devices() {
    let expected = ["MIG 2g.20gb", "serving/triton", "– unsupported"];
    assert_shows("mig-h100", expected, &["closed", "open"]);
}

#[test]
fn browser_shows_faults() {
    let expected = ["lost", "could not be remapped", "only 3 of 4 GPUs"];
    assert_shows("faulty", expected, &["closed", "open"]);
}

#[test]
fn thousand_processes_fit_a_screen_before_anything_is_opened() {
    let exporter = Exporter::start(&["--mock=huge", "--collect-interval", "2000"]);
    exporter.wait_for("processes", |text| text.contains("DCGM_CUSTOM_PROCESS_MEM_USED{"));
    let report = open_in_browser(&exporter, &[]);
    let mut views = all_views(&["closed", "first"]);
    views.insert("open light 1080".to_owned());
    assert_accessible_in(&report, &views);
    let height = report["height"].as_u64().unwrap();
    assert!(height <= 900, "{height} px at 1080 px width");
    let text = report["closed"].as_str().unwrap();
    assert!(text.contains("GPU 15") && !text.contains("worker"), "{text}");
    let page = exporter.get("/").text();
    // All MIG devices, and a bounded number of the processes of each.
    assert_eq!(page.matches("MIG 1g.10gb").count(), 112);
    assert!(page.len() < 700_000, "{} bytes", page.len());
}

#[test]
fn browser_shows_why_there_is_no_driver() {
    let exporter =
        Exporter::start(&["--require-gpu", "--nvml-library", "/nowhere/libnvidia-ml.so.1"]);
    exporter.wait_for_at("/readyz", "a reason", |text| text.contains("library_not_found"));
    let report = open_in_browser(&exporter, &[]);
    assert_accessible(&report, &["closed", "open"]);
    let text = report["later"].as_str().unwrap();
    assert!(text.contains("Not ready: "), "{text}");
    assert_eq!(text.matches("no libnvidia-ml at").count(), 1, "once: {text}");
}
