//! Round trip of arbitrary text in label values and HELP: written by the renderer, parsed by a Prometheus server and by
//! Prometheus' Python client library.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::catalog::DEVICE;
use nvml_exporter::clock::Clock;
use nvml_exporter::counters;
use nvml_exporter::labels::Labels;
use nvml_exporter::model::{Missing, Moment};
use nvml_exporter::publish::Published;
use nvml_exporter::render::PageScope;
use nvml_exporter::selection::{Selection, SelectionScope};
use nvml_exporter::serve::routes::Routes;
use nvml_exporter::serve::{AppState, Timeouts, serve};
use nvml_exporter::snapshot::{Entity, ExporterHealth, NodeIdentity, Snapshot, Tables};
use nvml_exporter::web_config::WebConfig;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use tokio::sync::watch;

use crate::clients::{start_prometheus_for, tool_path};
use crate::exporter::run_tool;

/// Number of generated values, in addition to those that contain every character.
const GENERATED: usize = 4000;
/// Maximum length of a label value in bytes.
const VALUE_MAX: usize = 256;

/// Every character, sixty per value; texts with many characters that need escaping; and invalid UTF-8, decoded as
/// process names are.
fn values() -> Vec<String> {
    let all: Vec<char> = ('\0'..=char::MAX).collect();
    let mut values: Vec<String> = all.chunks(60).map(|some| some.iter().collect()).collect();
    let strategy = prop_oneof![
        "[\"\\\\,={}n \n#é]{0,300}",
        ".{0,90}",
        "\\PC{0,80}",
        "[\"\\\\]{0,12}",
        "[a-c \t\r\u{b}\u{85}\u{a0}\u{2028}\u{feff}]{0,20}",
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        prop::collection::vec(
            prop::sample::select(vec![b'"', b'\\', b'\n', 0xff, 0xe6, b'a']),
            0..15
        )
        .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ];
    let mut runner = TestRunner::deterministic();
    values.extend((0..GENERATED).map(|_| strategy.new_tree(&mut runner).unwrap().current()));
    values
        .extend(["\"", "\\", "\\\"", "\\n", "\\\\n", "a\"} 1\n# HELP x y", "x"].map(str::to_owned));
    values.push("日本".repeat(100_000));
    values
}

/// Marks of bidirectional text, and separators of lines and paragraphs.
const MARKS: &str = "\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\
                     \u{2068}\u{2069}";

/// The expected value: control characters and marks replaced, truncated at a character boundary.
fn sanitized(value: &str) -> String {
    let mut sanitized = String::new();
    let replaced = |c: char| if c.is_control() || MARKS.contains(c) { '\u{fffd}' } else { c };
    for c in value.chars().map(replaced) {
        if sanitized.len() + c.len_utf8() > VALUE_MAX {
            break;
        }
        sanitized.push(c);
    }
    sanitized
}

/// A counters file with all device families, each with its own HELP text, and the expected HELP texts.
fn helps() -> (String, BTreeMap<&'static str, String>) {
    let mut runner = TestRunner::deterministic();
    let strategy = prop_oneof!["[\"\\\\,n# \né]{1,40}", "\\PC{1,60}", ".{1,60}"];
    let (mut file, mut expected) = (String::new(), BTreeMap::new());
    for (n, family) in DEVICE.iter().enumerate() {
        // Starts and ends with a letter: parsers differ in their treatment of leading and trailing blanks.
        let help = format!("a{}{n}", strategy.new_tree(&mut runner).unwrap().current());
        let quoted = help.replace('"', "\"\"");
        writeln!(file, "{},gauge,\"{quoted}\"", family.name).unwrap();
        let plain = |c: char| if c.is_control() || c == '\\' { ' ' } else { c };
        expected.insert(family.name, help.chars().map(plain).collect());
    }
    (file, expected)
}

/// One device per value. The value is in the first and in the last label, which the renderer writes differently.
fn snapshot(counters: &str, values: &[String]) -> Snapshot {
    let requests = counters::parse(counters.as_bytes()).unwrap().requests;
    let selection = Arc::new(Selection::of(&requests, SelectionScope::default()));
    let device = |(n, value): (usize, &String)| {
        let labels =
            Labels::from_pairs([("a", &**value), ("n", &*n.to_string()), ("z", value)].into_iter());
        // The first device has all families, so that all HELP texts are written.
        let reading =
            |family: usize| if family == 0 || n == 0 { Ok(1.0) } else { Err(Missing::Denied) };
        Entity { labels, readings: (0..selection.device.len()).map(reading).collect() }
    };
    let devices = values.iter().enumerate().map(device).collect();
    Snapshot {
        at: Moment { mono: Duration::ZERO, wall_us: 0 },
        identity: NodeIdentity::default(),
        selection: Arc::clone(&selection),
        nodes: Vec::new(),
        device_usages: Vec::new(),
        tables: Tables { devices, ..Tables::default() },
        health: ExporterHealth { cycles: 1, ..ExporterHealth::default() },
    }
}

/// Serves the snapshot until the test ends; returns the address.
fn serve_snapshot(published: Arc<Published>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_publish, published) = watch::channel(Some(published));
        let day = Duration::from_secs(86400);
        let clock = Clock::start();
        let site = AppState {
            published,
            max_age: day,
            liveness_max_age: Duration::MAX,
            clock,
            routes: Routes {
                telemetry_path: None,
                own_path: None,
                are_own_on_metrics: true,
                landing: true,
            },
            timeouts: Timeouts { read: day, write: day },
            rejected: Arc::default(),
            web_config_health: Arc::default(),
        };
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            serve(vec![listener], site, WebConfig::default(), pending()).await;
        });
    });
    address
}

/// Each value was parsed as expected in both labels; an empty label may be absent.
fn check(found: &[Value], values: &[String], parser: &str) {
    assert_eq!(found.len(), values.len(), "{parser}");
    let mut seen = BTreeSet::new();
    for labels in found {
        let n: usize = labels["n"].as_str().unwrap().parse().unwrap();
        let expected = sanitized(&values[n]);
        for key in ["a", "z"] {
            let parsed = labels.get(key).map_or("", |value| value.as_str().unwrap());
            assert_eq!(parsed, expected, "{parser}, label {key} of {:?}", values[n]);
        }
        assert!(seen.insert(n), "{parser}: {n} twice");
    }
}

#[test]
fn arbitrary_text_survives_a_round_trip_through_other_parsers() {
    let values = values();
    assert!(values.len() > 20_000, "{}", values.len());
    let (counters, helps) = helps();
    let family = DEVICE[0].name;
    let published = Arc::new(Published::new(snapshot(&counters, &values)));
    let metrics = published.exposition(PageScope::Gpus, Duration::ZERO, Duration::MAX, false);
    let metrics = std::str::from_utf8(&metrics).unwrap();

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/exposition.py");
    let output = run_tool(&tool_path("python/bin/python"), &[script, family], metrics);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let parsed: Value = serde_json::from_slice(&output.stdout).unwrap();
    check(parsed["labels"].as_array().unwrap(), &values, "Python");
    for (name, help) in &helps {
        assert_eq!(parsed["helps"][name], **help, "Python, HELP of {name}");
    }

    let (server, _directory) = start_prometheus_for(&serve_snapshot(published), 10);
    let query = format!("/api/v1/query?query={family}");
    let response = server.wait_for(&query, |body| body.contains("\"value\""));
    let response: Value = serde_json::from_str(&response).unwrap();
    let found = response["data"]["result"].as_array().unwrap();
    let found: Vec<Value> = found.iter().map(|series| series["metric"].clone()).collect();
    check(&found, &values, "Prometheus");
    let metadata = server.wait_for("/api/v1/metadata", |body| body.contains(family));
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    for (name, help) in &helps {
        assert_eq!(metadata["data"][name][0]["help"], **help, "Prometheus, HELP of {name}");
    }
}
