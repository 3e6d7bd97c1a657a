//! What people and programs are called: whatever that is, a page parses, and the names come back.

use std::fs;

use serde_json::Value;

use crate::clients::{brought, prometheus};
use crate::exporter::{Exporter, Scenario, tool};

const NODE: &str = r#"
now = 30
[[gpu]]
model = "T4"
[cluster]
node = "node-1"
[[pod]]
name = "train"
namespace = "team-a"
labels = { "app.kubernetes.io/name" = "say \"hi\"", owner = "C:\\gpu\\n", "größe" = "日本語 🦀", lines = "one\ntwo\r\u0000{}" }
containers = [{ name = "main", gpus = 0 }]
[[process]]
pid = 101
name = "p\"y\\ \n) 🦀"
gpus = [0]
memory = "1 GiB"
pod = "team-a/train"
"#;

/// The labels of the only series of a family, as Prometheus has parsed and stored them.
fn labels(server: &crate::exporter::Client, family: &str) -> Value {
    let query = format!("/api/v1/query?query={family}");
    let answer = server.wait_for(&query, |body| body.contains("\"value\""));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let found = answer["data"]["result"].as_array().unwrap();
    assert_eq!(found.len(), 1, "{answer}");
    found[0]["metric"].clone()
}

#[test]
fn quotes_line_ends_and_every_script_come_back_from_a_scrape() {
    let scenario = Scenario::new("names", NODE);
    let folder = tempfile::tempdir().unwrap();
    let counters = folder.path().join("counters.csv");
    let text = "DCGM_FI_DEV_GPU_TEMP,gauge,\"Degrees \"\"Celsius\"\", as C:\\new \u{fc}ber\"\n\
                DCGM_CUSTOM_PROCESS_MEM_USED,gauge,x\n";
    fs::write(&counters, text).unwrap();
    let long = "é".repeat(400);
    let flags = [
        scenario.flag(),
        format!("-f={}", counters.display()),
        "--node-name=node-1".to_owned(),
        "--hostname=host \"a\"\\\n".to_owned(),
        "--extra-label=note=a=\"b\" {c}\n# HELP x".to_owned(),
        format!("--extra-label=long={long}"),
        "--extra-label=empty=".to_owned(),
        "--dialect=dcgm-exporter".to_owned(),
        "-k".to_owned(),
        "--kubernetes-enable-pod-labels".to_owned(),
        "--collect-interval=200".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let exporter = Exporter::start(&flags);
    let page = exporter.wait_for("the pod", |page| page.contains("pod=\"train\""));
    let output = tool(&brought("debian/usr/bin/promtool"), &["check", "metrics"], &page);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}\n{page}");

    let (server, _folder) = prometheus(&exporter);
    let device = labels(&server, "DCGM_FI_DEV_GPU_TEMP");
    let process = labels(&server, "DCGM_CUSTOM_PROCESS_MEM_USED");
    // Control characters are replaced, and a value is cut between two characters; all else is kept.
    for (labels, key, value) in [
        (&device, "modelName", "Tesla T4"),
        (&device, "Hostname", "host \"a\"\\\u{fffd}"),
        (&device, "app_kubernetes_io_name", "say \"hi\""),
        (&device, "owner", "C:\\gpu\\n"),
        (&device, "gr__e", "日本語 🦀"),
        (&device, "lines", "one\u{fffd}two\u{fffd}\u{fffd}{}"),
        (&device, "note", "a=\"b\" {c}\u{fffd}# HELP x"),
        (&device, "long", &"é".repeat(128)),
        (&process, "process_name", "p\"y\\ \u{fffd}) 🦀"),
        (&process, "note", "a=\"b\" {c}\u{fffd}# HELP x"),
    ] {
        assert_eq!(labels[key], value, "{key}: {labels}");
    }
    assert!(device.get("empty").is_none(), "to Prometheus an empty label is none: {device}");

    let metadata = server
        .wait_for("/api/v1/metadata?metric=DCGM_FI_DEV_GPU_TEMP", |body| body.contains("\"help\""));
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let help = &metadata["data"]["DCGM_FI_DEV_GPU_TEMP"][0]["help"];
    // Of a help, backslashes are blanks.
    assert_eq!(help, "Degrees \"Celsius\", as C: new über");
}
