//! Any text as a label value or a help: written by the renderer, it comes back from parsers that are not ours, a
//! Prometheus server's and that of Prometheus' library for Python.

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
use nvml_exporter::render::Part;
use nvml_exporter::selection::{Frame, Selection};
use nvml_exporter::serve::{Site, Timeouts, Web, serve};
use nvml_exporter::snapshot::{Entity, Health, Host, Snapshot, Tables};
use nvml_exporter::web_config::WebConfig;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use tokio::sync::watch;

use crate::clients::{brought, scraping};
use crate::exporter::tool;

/// Values that are made beside those that together hold every character there is.
const MADE: usize = 4000;
/// What a label may hold, in bytes.
const VALUE_MAX: usize = 256;

/// Every character, sixty at a time, and texts in which what is escaped stands close together: as they are given,
/// and names of processes that are no UTF-8, as these are read.
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
    values.extend((0..MADE).map(|_| strategy.new_tree(&mut runner).unwrap().current()));
    values
        .extend(["\"", "\\", "\\\"", "\\n", "\\\\n", "a\"} 1\n# HELP x y", "x"].map(str::to_owned));
    values.push("日本".repeat(100_000));
    values
}

/// What a value is to be: without control characters, and cut between two characters.
fn clean(value: &str) -> String {
    let mut cleaned = String::new();
    for c in value.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }) {
        if cleaned.len() + c.len_utf8() > VALUE_MAX {
            break;
        }
        cleaned.push(c);
    }
    cleaned
}

/// A counters file of all families of devices, each with a help of its own, and what these are to be.
fn helps() -> (String, BTreeMap<&'static str, String>) {
    let mut runner = TestRunner::deterministic();
    let strategy = prop_oneof!["[\"\\\\,n# \né]{1,40}", "\\PC{1,60}", ".{1,60}"];
    let (mut file, mut expected) = (String::new(), BTreeMap::new());
    for (n, family) in DEVICE.iter().enumerate() {
        // It begins and ends with a letter: parsers differ about blanks at its ends.
        let help = format!("a{}{n}", strategy.new_tree(&mut runner).unwrap().current());
        let quoted = help.replace('"', "\"\"");
        writeln!(file, "{},gauge,\"{quoted}\"", family.name).unwrap();
        let plain = |c: char| if c.is_control() || c == '\\' { ' ' } else { c };
        expected.insert(family.name, help.chars().map(plain).collect());
    }
    (file, expected)
}

/// A device for each value: it stands first and last among the labels, which are written differently.
fn snapshot(counters: &str, values: &[String]) -> Snapshot {
    let requests = counters::parse(counters.as_bytes()).unwrap().requests;
    let selection = Arc::new(Selection::of(&requests, Frame::default()));
    let device = |(n, value): (usize, &String)| {
        let labels =
            Labels::of([("a", &**value), ("n", &*n.to_string()), ("z", value)].into_iter());
        // The first one has them all, for the sake of their helps.
        let reading =
            |family: usize| if family == 0 || n == 0 { Ok(1.0) } else { Err(Missing::Denied) };
        Entity { labels, readings: (0..selection.device.len()).map(reading).collect() }
    };
    let devices = values.iter().enumerate().map(device).collect();
    Snapshot {
        at: Moment { mono: Duration::ZERO, wall_us: 0 },
        host: Host::default(),
        selection: Arc::clone(&selection),
        nodes: Vec::new(),
        occupancy: Vec::new(),
        tables: Tables { devices, ..Tables::default() },
        health: Health { cycles: 1, ..Health::default() },
    }
}

/// Serves it for as long as the test runs, and says where.
fn served(published: Arc<Published>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_publish, published) = watch::channel(Some(published));
        let day = Duration::from_secs(86400);
        let clock = Clock::start();
        let site = Site {
            published,
            max_age: day,
            clock,
            own_path: None,
            landing: true,
            refused: Arc::default(),
        };
        let timeouts = Timeouts { read: day, write: day };
        let web = Web { config: WebConfig::default(), file: None, timeouts };
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            serve(listener, site, web, pending()).await;
        });
    });
    address
}

/// Each value came back, in both places; an empty label may be none.
fn check(found: &[Value], values: &[String], parser: &str) {
    assert_eq!(found.len(), values.len(), "{parser}");
    let mut seen = BTreeSet::new();
    for labels in found {
        let n: usize = labels["n"].as_str().unwrap().parse().unwrap();
        let expected = clean(&values[n]);
        for key in ["a", "z"] {
            let came_back = labels.get(key).map_or("", |value| value.as_str().unwrap());
            assert_eq!(came_back, expected, "{parser}, label {key} of {:?}", values[n]);
        }
        assert!(seen.insert(n), "{parser}: {n} twice");
    }
}

#[test]
fn any_text_comes_back_from_parsers_that_are_not_ours() {
    let values = values();
    assert!(values.len() > 20_000, "{}", values.len());
    let (counters, helps) = helps();
    let family = DEVICE[0].name;
    let published = Arc::new(Published::new(snapshot(&counters, &values)));
    let page = published.page(Part::Gpus, Duration::ZERO, Duration::MAX, false);
    let page = std::str::from_utf8(&page).unwrap();

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/exposition.py");
    let output = tool(&brought("python/bin/python"), &[script, family], page);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let parsed: Value = serde_json::from_slice(&output.stdout).unwrap();
    check(parsed["labels"].as_array().unwrap(), &values, "Python");
    for (name, help) in &helps {
        assert_eq!(parsed["helps"][name], **help, "Python, the help of {name}");
    }

    let (server, _folder) = scraping(&served(published), 10);
    let query = format!("/api/v1/query?query={family}");
    let answer = server.wait_for(&query, |body| body.contains("\"value\""));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let found = answer["data"]["result"].as_array().unwrap();
    let found: Vec<Value> = found.iter().map(|series| series["metric"].clone()).collect();
    check(&found, &values, "Prometheus");
    let told = server.wait_for("/api/v1/metadata", |body| body.contains(family));
    let told: Value = serde_json::from_str(&told).unwrap();
    for (name, help) in &helps {
        assert_eq!(told["data"][name][0]["help"], **help, "Prometheus, the help of {name}");
    }
}
