//! Arbitrary names of processes, hosts and extra labels, and the oddest labels of pods that an API
//! server accepts: the exposition parses, and Prometheus stores the names.

use std::fs;

use serde_json::Value;

use crate::clients::{start_prometheus, tool_path};
use crate::exporter::{Exporter, Scenario, run, run_tool};

const NODE: &str = r#"
now = 30
[[gpu]]
model = "T4"
[cluster]
node = "node-1"
[[pod]]
name = "train"
namespace = "team-a"
labels = { "app.kubernetes.io/Na_me-1" = "A.b_c--1", "7" = "0", "x.y--z" = "", longest = "LONGEST" }
containers = [{ name = "main", gpus = 0 }]
[[process]]
pid = 101
name = "p\"y\\ \n) 🦀"
gpus = [0]
memory = "1 GiB"
pod = "team-a/train"
"#;

/// The labels of the only series of a family, as stored by Prometheus.
fn labels(server: &crate::exporter::Client, family: &str) -> Value {
    let query = format!("/api/v1/query?query={family}");
    let response = server.wait_for(&query, |body| body.contains("\"value\""));
    let response: Value = serde_json::from_str(&response).unwrap();
    let found = response["data"]["result"].as_array().unwrap();
    assert_eq!(found.len(), 1, "{response}");
    found[0]["metric"].clone()
}

#[test]
fn quotes_line_ends_and_unicode_survive_a_scrape() {
    let longest = "x".repeat(63);
    let scenario = Scenario::new("names", &NODE.replace("LONGEST", &longest));
    let directory = tempfile::tempdir().unwrap();
    let counters = directory.path().join("counters.csv");
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
        "--extra-label=path=C:\\gpu\\n".to_owned(),
        "--extra-label=script=日本語 🦀".to_owned(),
        "--extra-label=lines=one\ntwo\r\u{1}{}".to_owned(),
        "--extra-label=empty=".to_owned(),
        "--dialect=dcgm-exporter".to_owned(),
        "-k".to_owned(),
        "--kubernetes-enable-pod-labels".to_owned(),
        "--collect-interval=200".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let exporter = Exporter::start(&flags);
    let metrics = exporter.wait_for("the pod", |metrics| metrics.contains("pod=\"train\""));
    let output = run_tool(&tool_path("debian/usr/bin/promtool"), &["check", "metrics"], &metrics);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{stderr}\n{metrics}");

    let (server, _data) = start_prometheus(&exporter);
    let device = labels(&server, "DCGM_FI_DEV_GPU_TEMP");
    let process = labels(&server, "DCGM_CUSTOM_PROCESS_MEM_USED");
    // Control characters are replaced, long values are truncated at a character boundary, and the
    // rest is unchanged.
    for (labels, key, value) in [
        (&device, "modelName", "Tesla T4"),
        (&device, "Hostname", "host \"a\"\\\u{fffd}"),
        (&device, "app_kubernetes_io_Na_me_1", "A.b_c--1"),
        (&device, "_7", "0"),
        (&device, "longest", &longest),
        (&device, "path", "C:\\gpu\\n"),
        (&device, "script", "日本語 🦀"),
        (&device, "lines", "one\u{fffd}two\u{fffd}\u{fffd}{}"),
        (&device, "note", "a=\"b\" {c}\u{fffd}# HELP x"),
        (&device, "long", &"é".repeat(128)),
        (&process, "process_name", "p\"y\\ \u{fffd}) 🦀"),
        (&process, "note", "a=\"b\" {c}\u{fffd}# HELP x"),
    ] {
        assert_eq!(labels[key], value, "{key}: {labels}");
    }
    for empty in ["empty", "x_y__z"] {
        assert!(device.get(empty).is_none(), "Prometheus drops empty labels: {device}");
    }

    let metadata = server
        .wait_for("/api/v1/metadata?metric=DCGM_FI_DEV_GPU_TEMP", |body| body.contains("\"help\""));
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let help = &metadata["data"]["DCGM_FI_DEV_GPU_TEMP"][0]["help"];
    // In HELP, backslashes are replaced by blanks.
    assert_eq!(help, "Degrees \"Celsius\", as C: new über");
}

/// Pod labels with every name that a family, a flag or the scrape job can add to a series.
const RESERVED: &str = r#"
now = 30
[[gpu]]
model = "A100"
count = 2
[cluster]
node = "node-1"
[[pod]]
name = "train"
namespace = "team-a"
labels = { clock_event = "f", xid = "f", vgpu = "f", hpc_job = "f", owner = "f", window_size_in_ms = "f", nvlink = "f", err_code = "f", err_msg = "f", link_status = "f", peer_gpu = "f", health_watch = "f", health_error_code = "f", pod_uid = "f", pool = "f", job = "f", instance = "f", gpu = "f", UUID = "f", Hostname = "f", hostname = "f", namespace = "f", pod = "f", container = "f", dra_claim_name = "f", DCGM_FI_DRIVER_VERSION = "f", process_id = "f", team = "search", "team.x" = "1", "team-x" = "2" }
containers = [{ name = "main", claim = { name = "c", gpus = [0] } }]
[[pod]]
name = "shared"
containers = [{ name = "main", slices = { gpus = 1, replicas = 2 } }]
[[process]]
pid = 101
name = "python"
gpus = [0, 1]
memory = "1 GiB"
pod = "team-a/train"
[[xid]]
gpu = 0
at = 10
code = 31
"#;

/// Lines of an exposition with a label that occurs twice.
fn lines_with_duplicate_labels(metrics: &str) -> Vec<&str> {
    let has_duplicates = |line: &&str| {
        let Some((_, labels)) = line.split_once('{') else { return false };
        let names = labels.split("=\"").filter_map(|part| part.rsplit([',', '"']).next());
        let names: Vec<&str> = names.filter(|name| !name.contains('}')).collect();
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        distinct.len() < names.len()
    };
    metrics.lines().filter(|line| !line.starts_with('#')).filter(has_duplicates).collect()
}

#[test]
fn no_label_occurs_twice_with_any_pod_labels() {
    let scenario = Scenario::new("reserved", RESERVED);
    let directory = tempfile::tempdir().unwrap();
    let counters = directory.path().join("counters.csv");
    let row = |row: nvml_exporter::catalog::CatalogRow| {
        let kind = if row.is_info_label { "label" } else { "gauge" };
        format!("{},{kind},x\n", row.name)
    };
    fs::write(&counters, nvml_exporter::catalog::rows().map(row).collect::<String>()).unwrap();
    fs::write(directory.path().join("0"), "job-7\n").unwrap();
    let file = format!("-f={}", counters.display());
    let jobs = format!("--hpc-job-mapping-dir={}", directory.path().display());
    for dialect in [
        &["--dialect=ack"][..],
        &["--dialect=dcgm-exporter"],
        &["--dialect=dcgm-exporter", "--use-old-namespace"],
        &["--dialect=ack", "--process-series=container"],
        &["--dialect=dcgm-exporter", "--compat=4.8,4.9"],
    ] {
        let more = [
            "-k",
            "--kubernetes-enable-pod-labels",
            "--kubernetes-enable-pod-uid",
            "--kubernetes-enable-dra",
            "--kubernetes-virtual-gpus",
            "--enable-exporter-metrics",
            "--extra-label=pool=a",
            "--collect-interval=200",
        ];
        let flag = scenario.flag();
        let flags = [&[&*flag, &*file, &*jobs], &more[..], dialect].concat();
        let exporter = Exporter::start(&flags);
        let metrics = exporter.wait_for("the pod", |metrics| {
            ["team=\"search\"", "hpc_job=\"job-7\"", "clock_event=\""]
                .iter()
                .all(|label| metrics.contains(label))
        });
        assert_eq!(lines_with_duplicate_labels(&metrics), Vec::<&str>::new(), "{dialect:?}");
        let series = metrics.lines().filter(|line| !line.starts_with('#'));
        let series: Vec<&str> = series.map(|line| line.rsplit_once(' ').unwrap().0).collect();
        let distinct: std::collections::BTreeSet<_> = series.iter().collect();
        assert_eq!(distinct.len(), series.len(), "a series stands twice: {dialect:?}\n{metrics}");
        for name in ["xid", "clock_event", "vgpu", "owner", "hpc_job", "job", "instance", "UUID"] {
            assert!(
                !metrics.contains(&format!("{name}=\"f\"")),
                "{name} is a pod label:\n{metrics}"
            );
        }
        assert!(metrics.contains("team_x=\"2\"") && !metrics.contains("team_x=\"1\""));
        let of = |reason: &str| {
            let labels = [&*format!("reason=\"{reason}\"")];
            crate::exporter::value(&metrics, "nvml_exporter_dropped_pod_labels", &labels)
        };
        assert!(of("reserved").is_some_and(|n| n >= 15.0), "{metrics}");
        assert_eq!(of("duplicate"), Some(1.0));
        let output =
            run_tool(&tool_path("debian/usr/bin/promtool"), &["check", "metrics"], &metrics);
        assert!(
            matches!(output.status.code(), Some(0 | 3)),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let output = run(&["--mock", "--once", "--extra-label=xid=1"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("--extra-label xid"), "{message}");
}

#[test]
fn names_cannot_change_the_text_around_them() {
    // Displayed as 2424 by whatever interprets the mark; the others move the cursor and forge a line.
    let scenario =
        Scenario::new("marks", &NODE.replace(r#"p\"y\\ \n) 🦀"#, r"4\u202e2\u2066\u001b\nX"));
    let shown = "4\u{fffd}2\u{fffd}\u{fffd}\u{fffd}X";
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval=200"]);
    let metrics = exporter.wait_for("the process", |text| text.contains("ProcessId=\"101\""));
    let page = exporter.get("/").text();
    let json: Value = serde_json::from_slice(&exporter.get("/api/v1/node").body).unwrap();
    let terminal = run(&["top", "--once", &scenario.flag()]).stdout;
    let terminal = String::from_utf8(terminal).unwrap();
    assert!(metrics.contains(&format!("ProcessName=\"{shown}\"")), "{metrics}");
    assert!(page.contains(&format!("<bdi>{shown}</bdi>")), "{page}");
    assert!(terminal.contains(&format!("{shown} 101")), "{terminal}");
    let process = &json["gpus"][0]["parts"][0]["containers"][0]["processes"][0];
    assert_eq!(process["name"], shown);
}

#[test]
fn texts_cannot_forge_log_lines() {
    let forged = "--nvml-library=/x\n2026-01-01T00:00:00Z  WARN forged \u{202e}\u{1b}[2J";
    let exporter = Exporter::start(&["--require-gpu", forged]);
    exporter.wait_for_log("driver is down");
    let log = exporter.log();
    assert!(log.lines().all(|line| !line.starts_with("2026-01-01")), "{log}");
    assert!(!log.contains(['\u{202e}', '\u{1b}']), "{log}");
    let ready = exporter.get("/readyz").text();
    assert!(ready.contains("forged") && !ready.contains(['\u{202e}', '\u{1b}']), "{ready}");
    assert_eq!(ready.lines().count(), 1, "{ready}");
    let error = run(&["--once", "--require-gpu", forged]).stderr;
    let error = String::from_utf8(error).unwrap();
    assert!(error.contains("forged") && !error.contains(['\u{202e}', '\u{1b}']), "{error}");
    assert!(error.lines().all(|line| !line.starts_with("2026-01-01")), "{error}");
}
