//! Other people's programs agree with us: promtool, a Prometheus server, NVIDIA's Python binding, nvitop, gpustat.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::exporter::{Client, Exporter, Scenario, tool};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SCENARIOS: [&str; 5] = ["demo", "idle-t4", "shared-l20", "consumer-4090", "faulty"];

/// Where `tests/run` puts what it brings.
pub(crate) fn brought(path: &str) -> String {
    Path::new(ROOT).join(".tools").join(path).display().to_string()
}

#[test]
fn promtool_parses_every_golden() {
    let goldens = Path::new(ROOT).join("tests/product/snapshots");
    let mut checked = 0;
    for entry in std::fs::read_dir(goldens).unwrap() {
        let golden = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let page = golden.splitn(3, "---\n").nth(2).expect("a page below its head");
        let masks = ["<time>", "<duration>", "<cycles>", "<rows>"];
        let page = masks.iter().fold(page.to_owned(), |page, mask| page.replace(mask, "1"));
        let output = tool(&brought("debian/usr/bin/promtool"), &["check", "metrics"], &page);
        let said = String::from_utf8_lossy(&output.stderr);
        // 0: clean; 3: lints. Anything else is a page that does not parse.
        assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
        for lint in said.lines() {
            let given = lint.starts_with("DCGM_") || lint.contains("camelCase");
            assert!(given, "only names that are given may be linted: {lint}");
        }
        checked += 1;
    }
    assert!(checked >= 12, "{checked}");
}

#[test]
fn the_python_binding_tells_the_scenarios_truth() {
    let library = executable_folder().join("libmock_nvml.so");
    for name in SCENARIOS.into_iter().chain(["blackwell"]) {
        // The hang of `faulty` begins at 30 s.
        agrees("binding.py", &library, &Scenario::held(name, 20), name);
    }
}

#[test]
fn monitors_show_the_scenarios_truth() {
    let library = executable_folder().join("libmock_nvml.so");
    for name in ["demo", "shared-l20", "blackwell"] {
        agrees("monitors.py", &library, &Scenario::held(name, 20), name);
    }
}

/// Runs a client's script on a scenario; it fails when the client does not tell what the scenario says.
fn agrees(script: &str, library: &Path, scenario: &Scenario, name: &str) {
    let script = Path::new(ROOT).join("tests/clients").join(script);
    let paths = [&script, library, &scenario.path()].map(|p: &Path| p.display().to_string());
    let output = tool(&brought("python/bin/python"), &paths.each_ref().map(String::as_str), "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
}

fn executable_folder() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_nvml-exporter")).parent().expect("a folder").to_owned()
}

/// A Prometheus that scrapes the exporter, and the folder that it works in.
pub(crate) fn prometheus(exporter: &Exporter) -> (Client, tempfile::TempDir) {
    scraping(exporter.address(), 1)
}

/// A Prometheus that scrapes an address every so many seconds, and the folder that it works in.
pub(crate) fn scraping(address: &str, seconds: u32) -> (Client, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("prometheus.yml");
    let scrape = format!(
        "global: {{scrape_interval: {seconds}s, scrape_timeout: {seconds}s}}\nscrape_configs:\n\
         - job_name: gpu\n  static_configs: [{{targets: ['{address}']}}]\n"
    );
    std::fs::write(&config, scrape).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Client::start(
        &brought("debian/usr/bin/prometheus"),
        &[
            &format!("--config.file={}", config.display()),
            &format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            &format!("--web.listen-address={free}"),
        ],
        free,
    );
    (server, folder)
}

#[test]
fn a_prometheus_server_stores_the_series_under_their_exact_names() {
    let exporter =
        Exporter::start(&["--mock=demo", "--collect-interval", "500", "--node-name", "node-1"]);
    let page = exporter.wait_for("process series", |p| p.contains("DCGM_CUSTOM_PROCESS_SM_UTIL"));

    let (server, _folder) = prometheus(&exporter);
    let query = "/api/v1/label/__name__/values";
    // The server adds its own series about a scrape last.
    let answer = server.wait_for(query, |body| body.contains("scrape_series_added"));
    let stored: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let stored: BTreeSet<&str> =
        stored["data"].as_array().unwrap().iter().filter_map(|name| name.as_str()).collect();
    let exposed: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(exposed.len() > 30, "{exposed:?}");
    assert!(exposed.is_subset(&stored), "missing: {:?}", exposed.difference(&stored));
    assert!(!stored.iter().any(|n| n.starts_with("DCGM_") && n.ends_with("_total")), "{stored:?}");

    // The user's own rule, on the label that the adapter maps.
    let rule = "/api/v1/query?query=avg(DCGM_FI_DEV_GPU_UTIL)by(NodeName)";
    let answer = server.wait_for(rule, |body| body.contains("node-1"));
    assert!(answer.contains(r#""metric":{"NodeName":"node-1"}"#), "{answer}");
}
