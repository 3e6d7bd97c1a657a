//! One verdict about each GPU in all views of the node.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::exporter::{Exporter, Scenario, run, run_with, series};

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

/// The worst status among the findings about each GPU: `failed: …`, `cannot be read: lost …`, `all health watches pass`.
fn of_check(mock: &str) -> Statuses {
    const WORST_FIRST: [&str; 5] = ["lost", "hung", "failed", "warning", "ok"];
    let report = run(&["check", "--address=127.0.0.1:0", "--output=json", mock]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let mut ranks = BTreeMap::<u64, usize>::new();
    for finding in report["findings"].as_array().unwrap() {
        let word = |key: &str| finding[key].as_str().unwrap();
        let Some(subject) = word("subject").strip_prefix("GPU ") else { continue };
        let index = subject.split(' ').next().unwrap().parse().unwrap();
        let message = word("message").replace("all health watches pass", "ok: ");
        let begins = |status: &&str| {
            let reasons = [": cannot be read", "cannot be identified and has no series"];
            message.starts_with(&format!("{status}: "))
                || reasons.iter().any(|reason| message.contains(&format!("{reason}: {status}")))
        };
        let Some(rank) = WORST_FIRST.iter().position(begins) else { continue };
        let is_failure = ["lost", "hung", "failed"].contains(&WORST_FIRST[rank]);
        assert_eq!(word("verdict") == "failure", is_failure, "{finding}");
        let worst = ranks.entry(index).or_insert(rank);
        *worst = rank.min(*worst);
    }
    ranks.into_iter().map(|(index, rank)| (index, WORST_FIRST[rank].to_owned())).collect()
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

/// Starts the exporter with the health series.
fn start(mock: &str) -> Exporter {
    let directory = tempfile::tempdir().unwrap();
    let counters = directory.path().join("counters.csv");
    fs::write(&counters, "DCGM_EXP_GPU_HEALTH_STATUS, gauge, x\nDCGM_FI_DEV_GPU_UTIL, gauge, x\n")
        .unwrap();
    let file = format!("-f={}", counters.display());
    Exporter::start(&[mock, &file, "--collect-interval", "500", "--max-age", "1500"])
}

/// Waits until each GPU has its expected status in the JSON, and asserts that each other view has the same
/// statuses, reasons and remedies. Returns the JSON.
fn assert_views_agree(exporter: &Exporter, expected: &[(u64, &str)]) -> Value {
    let expected: Statuses =
        expected.iter().map(|(index, status)| (*index, (*status).to_owned())).collect();
    exporter.wait_for_at("/api/v1/node", "the statuses", |text| {
        serde_json::from_str(text).is_ok_and(|node| of_json(&node) == expected)
    });
    let node: Value = serde_json::from_str(&exporter.get("/api/v1/node").text()).unwrap();
    let page = exporter.get("/").text();
    assert_eq!(of_page(&page), expected, "{page}");
    let ready = exporter.get("/readyz").text();
    assert_eq!(of_readiness(&ready, expected.len() as u64), expected, "{ready}");
    let url = format!("--url=http://{}", exporter.address());
    let top = run_with(&[("COLUMNS", "140")], &["top", "--once", &url]);
    let top = String::from_utf8(top.stdout).unwrap();
    assert_eq!(of_top(&top), expected, "{top}");
    assert_series_agree(&exporter.get("/metrics").text(), &node, &expected);

    let unwrapped = top.split_whitespace().collect::<Vec<_>>().join(" ");
    for gpu in ["gpus", "unidentified"].into_iter().flat_map(|key| node[key].as_array().unwrap()) {
        for (n, problem) in gpu["problems"].as_array().unwrap().iter().enumerate() {
            let text = |key: &str| problem[key].as_str().unwrap();
            for view in [&ready, &unwrapped, &page] {
                assert!(view.contains(text("message")), "{} in {view}", text("message"));
            }
            // `/readyz` has the remedy of the worst problem.
            let escaped = text("remedy").replace('\'', "&#39;");
            assert!(
                page.contains(text("remedy")) || page.contains(&escaped),
                "{problem} in {page}"
            );
            assert!(unwrapped.contains(text("remedy")), "{problem} in {unwrapped}");
            assert!(n > 0 || ready.contains(text("remedy")), "{problem} in {ready}");
        }
    }
    node
}

/// Asserts that the health series have the statuses, and each problem with its watch and code.
fn assert_series_agree(metrics: &str, node: &Value, expected: &Statuses) {
    let all = series(metrics, "DCGM_EXP_GPU_HEALTH_STATUS");
    let find = |index: u64, watch: &str| {
        let labels = [format!("gpu=\"{index}\""), format!("health_watch=\"{watch}\"")];
        all.iter().find(|line| labels.iter().all(|label| line.contains(label)))
    };
    let number = |line: &&str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    for (index, status) in expected {
        let line = find(*index, "ALL");
        assert!(allowed(status).contains(&line.map(number)), "GPU {index} {status}: {line:?}");
    }
    for gpu in node["gpus"].as_array().unwrap() {
        let problems = gpu["problems"].as_array().unwrap();
        let mut by_watch = BTreeMap::<&str, Vec<&Value>>::new();
        for problem in problems.iter().filter(|problem| problem["watch"].is_string()) {
            by_watch.entry(problem["watch"].as_str().unwrap()).or_default().push(problem);
        }
        for (watch, problems) in by_watch {
            let line = find(gpu["index"].as_u64().unwrap(), watch).unwrap();
            let severity = if problems[0]["status"] == "failed" { 20.0 } else { 10.0 };
            assert_eq!(Some(number(line)), Some(severity), "{line} {problems:?}");
            let has_code = |problem: &&Value| line.contains(problem["code"].as_str().unwrap());
            assert!(problems.iter().any(has_code), "{line} {problems:?}");
        }
    }
}

fn messages(node: &Value, gpu: usize) -> Vec<&str> {
    let problems = node["gpus"][gpu]["problems"].as_array().unwrap();
    problems.iter().map(|problem| problem["message"].as_str().unwrap()).collect()
}

#[test]
fn all_views_have_the_same_verdict_about_each_gpu() {
    let exporter = start("--mock=faulty");
    let expected = [(0, "ok"), (1, "lost"), (2, "hung"), (3, "failed")];
    let node = assert_views_agree(&exporter, &expected);
    assert_eq!(node["totals"]["status"], "lost");
    let ready = exporter.get("/readyz").text();
    assert!(ready.starts_with("ready, but only 2 of 4 GPUs can be read\n"), "{ready}");
    // The XID and the memory error occur later than a check takes.
    let failed = node["gpus"].as_array().unwrap().iter().find(|gpu| gpu["index"] == 3).unwrap();
    let problems = failed["problems"].as_array().unwrap();
    let is_remap = |problem: &&Value| problem["code"] == "DCGM_FR_ROW_REMAP_FAILURE";
    let message = problems.iter().find(is_remap).unwrap()["message"].as_str().unwrap();
    let report = run(&["check", "--address=127.0.0.1:0", "--mock=faulty"]);
    let report = String::from_utf8(report.stdout).unwrap();
    assert!(report.contains(&format!("failed: {message}")), "{message} in {report}");
    assert!(report.contains("GPU 1: "), "{report}");
}

/// GPU 1 is lost and GPU 2 hangs from the start; the driver requests actions for GPUs 3 and 4.
const BROKEN: &str = r#"
driver = { version = "615.71" }

[[gpu]]
model = "H200"

[[gpu]]
model = "H200"
lost = [{ from = 0.0 }]

[[gpu]]
model = "H200"

[[gpu]]
model = "H200"
repair = { action = 1 }

[[gpu]]
model = "H200"
repair = { action = 3 }

[[fault]]
function = "*"
gpu = 2
hang = true
"#;

#[test]
fn check_has_the_verdict_of_all_other_views() {
    let broken = Scenario::new("broken", BROKEN);
    let healthy = |gpus: u64| (0..gpus).map(|gpu| (gpu, "ok")).collect();
    let statuses = [(0, "ok"), (1, "lost"), (2, "hung"), (3, "failed"), (4, "warning")];
    let scenarios: [(String, Vec<(u64, &str)>); 4] = [
        ("--mock=demo".to_owned(), healthy(8)),
        ("--mock=mig-h100".to_owned(), healthy(2)),
        ("--mock=shared-l20".to_owned(), healthy(4)),
        (broken.flag(), statuses.to_vec()),
    ];
    for (mock, expected) in scenarios {
        let node = assert_views_agree(&start(&mock), &expected);
        assert_eq!(of_check(&mock), of_json(&node), "{mock}");
    }
}

#[test]
fn recovery_actions_and_xids_of_the_power_watch_are_in_all_views() {
    let gpu = "[[gpu]]\nmodel = \"H200\"\n";
    let xid = |gpu: u32, code: u32| format!("[[xid]]\ngpu = {gpu}\ncode = {code}\nat = 2.0\n");
    let scenario = [
        "driver = { version = \"615.71\" }\n".to_owned(),
        gpu.to_owned(),
        format!("{gpu}repair = {{ action = 1 }}\n"),
        format!("{gpu}repair = {{ action = 3 }}\n"),
        gpu.repeat(2),
        xid(3, 163),
        xid(4, 165),
    ];
    let scenario = Scenario::new("actions", &scenario.concat());
    let exporter = start(&scenario.flag());
    let expected = [(0, "ok"), (1, "failed"), (2, "warning"), (3, "warning"), (4, "failed")];
    let node = assert_views_agree(&exporter, &expected);
    assert_eq!(messages(&node, 1), ["the driver requests a reset of the GPU"]);
    assert_eq!(messages(&node, 2), ["the driver requests that peer-to-peer work ends"]);
    assert_eq!(messages(&node, 3), ["XID 163: Power Smoothing HW Circuitry Disengaged"]);
    assert_eq!(messages(&node, 4), ["XID 165: Power Smoothing HW Circuitry Lifetime Exhausted"]);
    assert!(node["gpus"][1]["recovery_action"].is_string(), "{node}");
}

#[test]
fn power_cap_under_load_is_not_a_warning_and_the_enforced_limit_is_the_denominator() {
    let scenario = Scenario::new(
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
