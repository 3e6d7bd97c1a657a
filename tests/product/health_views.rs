//! One verdict about each GPU in all views of the node.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::exporter::{Exporter, run, run_with, series};

/// Status by index of the GPU.
type Statuses = BTreeMap<u64, String>;

fn of_json(node: &Value) -> Statuses {
    let all = ["gpus", "unidentified"].into_iter().flat_map(|key| node[key].as_array().unwrap());
    let status =
        |gpu: &Value| (gpu["index"].as_u64().unwrap(), gpu["status"].as_str().unwrap().to_owned());
    all.map(status).collect()
}

/// From `data-gpu="1" data-status="lost"`.
fn of_page(page: &str) -> Statuses {
    let attribute = |text: &str| text.split('"').next().unwrap().to_owned();
    let gpu = |text: &str| {
        let (_, status) = text.split_once("data-status=\"").unwrap();
        (attribute(text).parse().unwrap(), attribute(status))
    };
    page.split("data-gpu=\"").skip(1).map(gpu).collect()
}

/// From `GPU 1 … lost …`.
fn of_top(text: &str) -> Statuses {
    const STATUSES: [&str; 6] = ["ok", "warning", "failed", "lost", "hung", "unknown"];
    let lines = text.lines().filter_map(|line| line.strip_prefix("GPU "));
    let gpu = |line: &str| {
        let mut words = line.split_whitespace();
        let index = words.next()?.parse().ok()?;
        Some((index, words.find(|word| STATUSES.contains(word))?.to_owned()))
    };
    lines.filter_map(gpu).collect()
}

/// From `GPU 1: lost: …`; a GPU without a line is ok.
fn of_readiness(text: &str, gpus: u64) -> Statuses {
    let mut statuses: Statuses = (0..gpus).map(|index| (index, "ok".to_owned())).collect();
    for line in text.lines().filter_map(|line| line.strip_prefix("GPU ")) {
        let (index, rest) = line.split_once(": ").unwrap();
        statuses.insert(index.parse().unwrap(), rest.split(':').next().unwrap().to_owned());
    }
    statuses
}

/// The values that `ALL` of `DCGM_EXP_GPU_HEALTH_STATUS` may have with this status.
fn allowed(status: &str) -> &'static [Option<f64>] {
    match status {
        "ok" => &[Some(0.0)],
        "warning" => &[Some(10.0)],
        "failed" => &[Some(20.0)],
        // A GPU that is lost from the start has no UUID; one that hangs may have failed before.
        "lost" | "hung" => &[Some(20.0), None],
        "unknown" => &[None],
        other => panic!("{other}"),
    }
}

#[test]
fn all_views_have_the_same_verdict_about_each_gpu() {
    let directory = tempfile::tempdir().unwrap();
    let counters = directory.path().join("counters.csv");
    let families = ["DCGM_EXP_GPU_HEALTH_STATUS", "DCGM_FI_DEV_GPU_UTIL"];
    fs::write(&counters, families.join(", gauge, x\n") + ", gauge, x\n").unwrap();
    let file = format!("-f={}", counters.display());
    let args = ["--mock=faulty", &file, "--collect-interval", "500", "--max-age", "1500"];
    let exporter = Exporter::start(&args);
    let expected = [(0, "ok"), (1, "lost"), (2, "hung"), (3, "failed")];
    let expected: Statuses =
        expected.into_iter().map(|(index, status)| (index, status.to_owned())).collect();
    exporter.wait_for_at("/api/v1/node", "a hung GPU", |text| {
        serde_json::from_str(text).is_ok_and(|node| of_json(&node) == expected)
    });

    let node: Value = serde_json::from_str(&exporter.get("/api/v1/node").text()).unwrap();
    assert_eq!(node["totals"]["status"], "lost");
    let page = exporter.get("/").text();
    assert_eq!(of_page(&page), expected, "{page}");
    let ready = exporter.get("/readyz").text();
    assert!(ready.starts_with("ready, but only 2 of 4 GPUs can be read\n"), "{ready}");
    assert_eq!(of_readiness(&ready, 4), expected, "{ready}");
    let url = format!("--url=http://{}", exporter.address());
    let top = run_with(&[("COLUMNS", "120")], &["top", "--once", &url]);
    let top = String::from_utf8(top.stdout).unwrap();
    assert_eq!(of_top(&top), expected, "{top}");

    let metrics = exporter.get("/metrics").text();
    for (index, status) in &expected {
        let labels = [format!("gpu=\"{index}\""), "health_watch=\"ALL\"".to_owned()];
        let all = series(&metrics, "DCGM_EXP_GPU_HEALTH_STATUS");
        let line = all.iter().find(|line| labels.iter().all(|label| line.contains(label)));
        let value = line.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap());
        assert!(allowed(status).contains(&value), "GPU {index} {status}: {line:?}");
    }

    // The reason and the remedy are the same, too.
    let failed = node["gpus"].as_array().unwrap().iter().find(|gpu| gpu["index"] == 3).unwrap();
    let problem = &failed["problems"][0];
    let message = problem["message"].as_str().unwrap();
    let remedy = problem["remedy"].as_str().unwrap();
    for text in [&ready, &top, &page] {
        assert!(text.contains(message), "{message} in {text}");
    }
    assert!(ready.contains(remedy) && page.contains(remedy), "{remedy}");
    // The XID and the memory error occur later than a check takes.
    let problems = failed["problems"].as_array().unwrap();
    let is_remap = |problem: &&Value| problem["code"] == "DCGM_FR_ROW_REMAP_FAILURE";
    let message = problems.iter().find(is_remap).unwrap()["message"].as_str().unwrap();
    let report = run(&["check", "--address=127.0.0.1:0", "--mock=faulty"]);
    let report = String::from_utf8(report.stdout).unwrap();
    assert!(report.contains(&format!("failed: {message}")), "{message} in {report}");
    assert!(report.contains("GPU 1: "), "{report}");
}

#[test]
fn power_cap_under_load_is_not_a_warning_and_the_enforced_limit_is_the_denominator() {
    let scenario = crate::exporter::Scenario::new(
        "capped",
        r#"
        now = 60
        [[gpu]]
        model = "H100"
        power_limit = 400
        [[process]]
        pid = 42
        name = "python"
        gpus = [0]
        memory = "6 GiB"
        sm = 100
        mem = 100
        "#,
    );
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval", "200"]);
    exporter.wait_for_at("/api/v1/node", "a capped GPU", |text| {
        serde_json::from_str(text).is_ok_and(|node: Value| {
            let gpu = &node["gpus"][0];
            gpu["status"] == "ok"
                && gpu["power_limit_watts"] == 400.0
                && gpu["throttled_by"] == serde_json::json!(["power_cap"])
        })
    });
    assert_eq!(exporter.get("/readyz").text(), "ready\n");
}
