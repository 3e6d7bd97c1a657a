//! Third-party programs as clients: promtool and a Prometheus server read the exporter; NVIDIA's Python binding,
//! nvitop and gpustat read the mock library.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::exporter::{Client, Exporter, Scenario, run_tool};
use crate::exposition::expand_common_labels;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SCENARIOS: [&str; 5] = ["demo", "idle-t4", "shared-l20", "consumer-4090", "faulty"];

/// Path of a program that `tests/run` has installed in `.tools`.
pub(crate) fn tool_path(path: &str) -> String {
    Path::new(ROOT).join(".tools").join(path).display().to_string()
}

#[test]
fn promtool_parses_every_golden() {
    let goldens = Path::new(ROOT).join("tests/product/snapshots");
    let mut checked = 0;
    for entry in std::fs::read_dir(goldens).unwrap() {
        let golden = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let metrics =
            golden.splitn(3, "---\n").nth(2).expect("the exposition after the snapshot header");
        let placeholders = ["<time>", "<duration>", "<cycles>", "<rows>", "<offset>"];
        let metrics =
            placeholders.iter().fold(expand_common_labels(metrics), |metrics, placeholder| {
                metrics.replace(placeholder, "1")
            });
        let output =
            run_tool(&tool_path("debian/usr/bin/promtool"), &["check", "metrics"], &metrics);
        let stderr = String::from_utf8_lossy(&output.stderr);
        // 0: no findings; 3: lint findings. Anything else means that the exposition does not parse.
        assert!(matches!(output.status.code(), Some(0 | 3)), "{stderr}");
        for lint in stderr.lines() {
            let is_predefined = lint.starts_with("DCGM_") || lint.contains("camelCase");
            assert!(is_predefined, "findings are accepted only for predefined names: {lint}");
        }
        checked += 1;
    }
    assert!(checked >= 12, "{checked}");
}

#[test]
fn python_binding_returns_the_values_of_the_scenario() {
    let library = executable_directory().join("libmock_nvml.so");
    for name in SCENARIOS.into_iter().chain(["blackwell"]) {
        // In `faulty`, the hang begins at 30 s.
        run_client("binding.py", &library, &Scenario::built_in_at(name, 20), name);
    }
}

#[test]
fn nvitop_and_gpustat_show_the_values_of_the_scenario() {
    let library = executable_directory().join("libmock_nvml.so");
    for name in ["demo", "shared-l20", "blackwell"] {
        run_client("monitors.py", &library, &Scenario::built_in_at(name, 20), name);
    }
}

/// Runs a client script on a scenario; the script fails if the client's values differ from the scenario.
fn run_client(script: &str, library: &Path, scenario: &Scenario, name: &str) {
    let script = Path::new(ROOT).join("tests/clients").join(script);
    let paths = [&script, library, &scenario.path()].map(|p: &Path| p.display().to_string());
    let output =
        run_tool(&tool_path("python/bin/python"), &paths.each_ref().map(String::as_str), "");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {stderr}");
}

fn executable_directory() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_nvml-exporter")).parent().expect("a directory").to_owned()
}

/// A Prometheus server that scrapes the exporter every second, and its data directory.
pub(crate) fn start_prometheus(exporter: &Exporter) -> (Client, tempfile::TempDir) {
    start_prometheus_for(exporter.address(), 1)
}

/// A Prometheus server that scrapes `address` every `seconds` seconds, and its data directory.
pub(crate) fn start_prometheus_for(address: &str, seconds: u32) -> (Client, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("prometheus.yml");
    let scrape = format!(
        "global: {{scrape_interval: {seconds}s, scrape_timeout: {seconds}s}}\nscrape_configs:\n\
         - job_name: gpu\n  static_configs: [{{targets: ['{address}']}}]\n"
    );
    std::fs::write(&config, scrape).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Client::start(
        &tool_path("debian/usr/bin/prometheus"),
        &[
            &format!("--config.file={}", config.display()),
            &format!("--storage.tsdb.path={}", directory.path().join("data").display()),
            &format!("--web.listen-address={free}"),
        ],
        free,
    );
    (server, directory)
}

#[test]
fn prometheus_stores_the_series_under_their_exact_names() {
    let exporter =
        Exporter::start(&["--mock=demo", "--collect-interval", "500", "--node-name", "node-1"]);
    exporter.wait_for("process series", |p| p.contains("DCGM_CUSTOM_PROCESS_SM_UTIL"));

    let (server, _directory) = start_prometheus(&exporter);
    let query = "/api/v1/label/__name__/values";
    // The server adds its own scrape series last.
    let response = server.wait_for(query, |body| body.contains("scrape_series_added"));
    let stored: serde_json::Value = serde_json::from_str(&response).unwrap();
    let stored: BTreeSet<&str> =
        stored["data"].as_array().unwrap().iter().filter_map(|name| name.as_str()).collect();
    let metrics = exporter.metrics();
    let exposed: BTreeSet<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    assert!(exposed.len() > 30, "{exposed:?}");
    assert!(exposed.is_subset(&stored), "missing: {:?}", exposed.difference(&stored));
    assert!(!stored.iter().any(|n| n.starts_with("DCGM_") && n.ends_with("_total")), "{stored:?}");

    // The rule of an existing user, grouped by the label that the adapter maps.
    let rule = "/api/v1/query?query=avg(DCGM_FI_DEV_GPU_UTIL)by(NodeName)";
    let response = server.wait_for(rule, |body| body.contains("node-1"));
    assert!(response.contains(r#""metric":{"NodeName":"node-1"}"#), "{response}");
}
