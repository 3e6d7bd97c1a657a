//! The page for people, and what it is made of.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::clients::brought;
use crate::exporter::{Exporter, Scenario, tool};
use crate::pages::read;

fn node(exporter: &Exporter) -> Value {
    serde_json::from_str(&exporter.get("/api/v1/node").text()).unwrap()
}

/// The node as soon as it is as `wanted`.
fn settled(exporter: &Exporter, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    exporter.wait_for_at("/api/v1/node", what, |text| {
        serde_json::from_str(text).is_ok_and(|node| wanted(&node))
    });
    node(exporter)
}

fn containers(node: &Value, gpu: usize) -> &Vec<Value> {
    node["gpus"][gpu]["parts"][0]["containers"].as_array().unwrap()
}

#[test]
fn the_node_is_told_with_its_pods_and_in_units() {
    let exporter = Exporter::start(&["--mock=demo", "--collect-interval", "500"]);
    let node = settled(&exporter, "a busy pod", |node| {
        node["gpus"][0]["parts"][0]["containers"][0]["sm_percent"] == 97.0
    });
    assert_eq!(node["version"], 1);
    assert_eq!(node["ready"], true);
    assert_eq!(node["gpus"].as_array().unwrap().len(), 8);
    let gpu = &node["gpus"][0];
    assert_eq!((&gpu["state"], &gpu["power_limit_watts"]), (&"ok".into(), &700.0.into()));
    let trainer = &containers(&node, 0)[0];
    assert_eq!((&trainer["namespace"], &trainer["pod"]), (&"ml".into(), &"train".into()));
    assert_eq!(trainer["mode"], "exclusive");
    assert_eq!(trainer["processes"].as_array().unwrap().len(), 2);
    // A pod that has a GPU and no process on it is idle; a client of MPS is not known.
    let idle = &containers(&node, 7)[0];
    assert_eq!((&idle["sm_percent"], &idle["memory_used_mib"]), (&0.0.into(), &0.0.into()));
    let client = &containers(&node, 5)[0];
    assert_eq!(client["sm_percent"], serde_json::json!({ "absent": "unsupported" }));
    // Who is no pod's is there, too.
    let whose = |process: &Value| process["whose"].as_str().unwrap().to_owned();
    let others = node["gpus"][6]["parts"][0]["others"].as_array().unwrap();
    assert!(others.iter().any(|process| whose(process) == "host"), "{others:?}");
}

#[test]
fn a_divided_gpu_is_told_by_its_instances() {
    let exporter = Exporter::start(&["--mock=mig-h100", "--collect-interval", "500"]);
    let node = settled(&exporter, "an instance at work", |node| {
        node["gpus"][0]["parts"][0]["utilization_percent"].is_number()
    });
    let gpu = &node["gpus"][0];
    assert_eq!(gpu["mig"], true);
    assert_eq!(gpu["utilization_percent"], serde_json::json!({ "absent": "unsupported" }));
    assert_eq!(gpu["parts"][0]["mig"]["profile"], "2g.20gb");
    assert_eq!(containers(&node, 0)[0]["pod"], "triton");
}

#[test]
fn a_gpu_that_hangs_shows_no_number_and_whose_it_is() {
    let exporter =
        Exporter::start(&["--mock=faulty", "--collect-interval", "500", "--max-age", "1500"]);
    let hung = |node: &Value| {
        node["gpus"].as_array().unwrap().iter().position(|gpu| gpu["state"] == "hung")
    };
    let node = settled(&exporter, "a hung GPU", |node| hung(node).is_some());
    let at = hung(&node).unwrap();
    let gpu = &node["gpus"][at];
    assert_eq!(gpu["power_watts"], serde_json::json!({ "absent": "hung" }));
    assert_eq!(gpu["parts"][0]["memory_used_mib"], serde_json::json!({ "absent": "hung" }));
    assert_eq!(gpu["parts"][0]["unlisted"], "hung");
    let holder = &containers(&node, at)[0];
    assert_eq!(holder["sm_percent"], serde_json::json!({ "absent": "hung" }));
    assert!(node["unidentified"].as_array().unwrap().iter().any(|gpu| gpu["reason"] == "lost"));
}

#[test]
fn what_is_not_chosen_is_not_shown_as_nothing() {
    let exporter =
        Exporter::start(&["--mock=demo", "--dialect=dcgm-exporter", "--collect-interval", "500"]);
    let node = settled(&exporter, "GPUs", |node| node["gpus"][0]["power_watts"].is_number());
    assert_eq!(node["gpus"][0]["parts"][0]["unlisted"], "not_chosen");
}

#[test]
fn without_a_driver_the_page_says_why() {
    let exporter = Exporter::start(&["--nvml-library", "/nowhere/libnvidia-ml.so.1"]);
    let node = settled(&exporter, "a reason", |node| node["ready"] == false);
    assert_eq!(node["driver"]["reason"], "library_not_found");
    let page = exporter.get("/").text();
    assert!(page.contains("Not ready: ") && page.contains("/nowhere/libnvidia-ml.so.1"), "{page}");
}

#[test]
fn people_can_be_kept_out() {
    let exporter = Exporter::start(&["--mock=idle-t4", "--no-landing-page"]);
    for path in ["/", "/api/v1/node"] {
        assert_eq!(exporter.get(path).status, 404, "{path}");
    }
    assert_eq!(exporter.get("/healthz").status, 200);
}

/// What tests/clients/browser.py says of the page.
fn seen(exporter: &Exporter) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/browser.py");
    let url = format!("http://{}/", exporter.address());
    let python = brought("python/bin/python");
    let output = tool(&python, &[&script.display().to_string(), &url], "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn assert_sound(seen: &Value) {
    assert_eq!(seen["console"], serde_json::json!([]));
    for view in ["light", "dark", "phone"] {
        assert_eq!(seen["objections"][view], serde_json::json!([]), "{view}");
        assert_eq!(seen["overflow"][view], 0, "{view}");
    }
    let reached = seen["reached"].to_string();
    assert!(reached.contains("/metrics") && reached.contains("/api/v1/node"), "{reached}");
}

#[test]
fn a_browser_shows_a_shared_node_and_keeps_it_up_to_date() {
    // Nothing but numbers changes.
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
    exporter.wait_for("a utilization", |page| page.contains("DCGM_CUSTOM_PROCESS_SM_UTIL{"));
    let seen = seen(&exporter);
    assert_sound(&seen);
    assert_eq!(seen["in_place"], true, "numbers move without drawing the page anew");
    assert_ne!(seen["text"], seen["later"]);
    for text in [&seen["text"], &seen["without_script"]] {
        let text = text.as_str().unwrap();
        for expected in ["GPU 0", "healthy", "Memory", "6144 MiB", "python 42 C", "of the host"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }
}

#[test]
fn a_browser_shows_nodes_with_pods_instances_and_faults() {
    for (scenario, expected) in [
        ("shared-l20", ["tenant-a/infer-0", "share", "10 % of the SMs"]),
        ("mig-h100", ["MIG 2g.20gb, GPU instance 1", "serving/triton", "absent: unsupported"]),
        ("faulty", ["lost", "absent: denied", "only 3 of 4 GPUs"]),
    ] {
        let exporter =
            Exporter::start(&[&format!("--mock={scenario}"), "--collect-interval", "1000"]);
        exporter.wait_for("pods", |page| page.contains("PodName=\""));
        let seen = seen(&exporter);
        assert_sound(&seen);
        let text = seen["later"].as_str().unwrap();
        for expected in expected {
            assert!(text.contains(expected), "{scenario}: {expected} in {text}");
        }
    }
}

/// Every key of an answer.
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
fn every_field_is_documented_and_no_other() {
    let mut told = BTreeSet::new();
    let mut take = |mock: &str, what: &str, wanted: fn(&Value) -> bool| {
        let exporter = Exporter::start(&[mock, "--collect-interval", "500"]);
        keys(&settled(&exporter, what, wanted), &mut told);
    };
    take("--mock=demo", "a process", |node| {
        node["gpus"][0]["parts"][0]["containers"][0]["processes"][0].is_object()
    });
    take("--mock=mig-h100", "instances", |node| node["gpus"][0]["mig"] == true);
    take("--mock=faulty", "a lost GPU", |node| node["unidentified"][0]["reason"].is_string());
    let xid =
        Scenario::new("xid", "[[gpu]]\nmodel = \"T4\"\n[[xid]]\ngpu = 0\ncode = 31\nat = 3.0\n");
    take(&xid.flag(), "an XID", |node| node["gpus"][0]["xids"][0].is_object());
    let page = read("daemonset/docs/node-api.md");
    let (_, rest) = page.split_once("<!-- fields: begin -->").unwrap();
    let (table, _) = rest.split_once("<!-- fields: end -->").unwrap();
    let words = [
        "ok",
        "lost",
        "hung",
        "denied",
        "exclusive",
        "share",
        "none",
        "host",
        "stray",
        "unknown",
        "/readyz",
    ];
    let documented: BTreeSet<String> = table
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .filter(|word| !words.contains(&&**word))
        .collect();
    // It stands in the place of a number and is told of above the table.
    told.remove("absent");
    assert_eq!(told, documented);
}
