//! `nvml-exporter check`: problems of a node, with remedies.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Output;
use std::thread;

use serde_json::Value;

use crate::exporter::{Exporter, Scenario, WATCH_NODE, run, run_sandboxed, run_with};

const TOPICS: [&str; 15] = [
    "flags",
    "library",
    "driver",
    "gpu",
    "mig",
    "pids",
    "processes",
    "cgroups",
    "kubelet",
    "logs",
    "api",
    "rights",
    "node",
    "port",
    "clock",
];

/// A node with two GPUs, and the rest of its scenario.
fn node(rest: &str) -> Scenario {
    let gpus = "now = 60\n[[gpu]]\nmodel = \"T4\"\ncount = 2\n";
    Scenario::new("checked", &format!("{gpus}{rest}"))
}

/// Runs `check` with a free port.
fn check(args: &[&str]) -> Output {
    run(&[&["check", "--address", "127.0.0.1:0"], args].concat())
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Whether the check passes, and its findings from the JSON report.
fn findings(args: &[&str]) -> (bool, Vec<Value>) {
    let output = check(&[&["--output", "json"], args].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["version"], 2);
    let findings = report["findings"].as_array().unwrap().clone();
    let failed = findings.iter().filter(|finding| finding["verdict"] == "failure").count();
    assert_eq!(report["counts"]["failure"], failed);
    assert_eq!(output.status.code(), Some(i32::from(failed > 0)));
    (failed == 0, findings)
}

/// Outcome, message and remedy of the first finding of `topic` about `subject`.
fn about(findings: &[Value], topic: &str, subject: &str) -> (String, String, String) {
    let is = |finding: &&Value| {
        finding["topic"] == topic && finding["subject"].as_str().unwrap().contains(subject)
    };
    let finding = findings.iter().find(is);
    let finding = finding.unwrap_or_else(|| panic!("{topic} {subject}: {findings:#?}"));
    let word = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    (word("verdict"), word("message"), word("remedy"))
}

fn cluster_fault(source: &str, effect: &str) -> String {
    format!("[[cluster_fault]]\nsource = \"{source}\"\neffect = \"{effect}\"\n")
}

#[test]
fn healthy_node_passes_and_every_topic_has_a_line() {
    let output = check(&["--mock=demo"]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    for topic in TOPICS {
        let is_about = |line: &str| {
            let words =
                line.split_whitespace().skip(1).map(|word| word.trim_end_matches([',', ':']));
            words.take(60).any(|word| word == topic)
        };
        assert!(text.lines().any(is_about), "{topic} in\n{text}");
    }
    assert!(!text.contains("FAILURE") && !text.contains("warning"), "{text}");
    assert!(text.contains("version 2, driver systemd"), "{text}");
    assert!(text.contains("13 nvidia.com/gpu"), "{text}");
    assert!(text.contains("node-1: the cluster has a node of this name"), "{text}");
}

#[test]
fn lost_gpu_fails_with_a_remedy() {
    let (passes, findings) = findings(&["--mock=faulty"]);
    assert!(!passes);
    let (verdict, message, remedy) = about(&findings, "gpu", "GPU 1");
    assert_eq!(verdict, "failure");
    assert!(message.contains("lost") && remedy.contains("reset the GPU"), "{message} {remedy}");
    let (verdict, message, remedy) = about(&findings, "gpu", "GPU 3");
    assert_eq!(verdict, "warning");
    assert!(message.contains("denied: DCGM_FI_DEV_POWER_USAGE"), "{message}");
    assert!(remedy.contains("run as root"), "{remedy}");
    assert_eq!(about(&findings, "clock", "nvmlDeviceGetProcessUtilization").0, "warning");
}

#[test]
fn text_and_json_have_the_same_findings() {
    let (_, findings) = findings(&["--mock=faulty"]);
    let output = check(&["--mock=faulty"]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    let mut same = 0;
    for finding in &findings {
        let word = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let (subject, message, remedy) = (word("subject"), word("message"), word("remedy"));
        // Paths in the mock environment and the current time differ from run to run.
        // What was not checked is grouped by reason.
        let is_skipped = finding["verdict"] == "skipped";
        if subject.contains('/') || subject == "CLOCK_REALTIME" || is_skipped {
            continue;
        }
        let line = text.lines().find(|line| line.contains(&format!(" {subject}: {message}")));
        let line = line.unwrap_or_else(|| panic!("{subject}: {message} in\n{text}"));
        assert_eq!(line.split_whitespace().nth(1), finding["topic"].as_str());
        let has_remedy = text.contains(&format!(" remedy: {remedy}"));
        assert!(remedy.is_empty() || has_remedy, "{remedy} in\n{text}");
        same += 1;
    }
    assert!(same > 12, "{text}");
    let verdicts: Vec<&str> =
        text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let at = |verdict: &str| verdicts.iter().position(|word| *word == verdict).unwrap();
    assert!(at("FAILURE") < at("warning") && at("warning") < at("ok"), "{text}");
    let problems = check(&["--mock=faulty", "--problems"]);
    assert!(!String::from_utf8(problems.stdout).unwrap().contains("\nok "));
    let last: Vec<&str> = text.lines().rev().take(2).collect();
    assert!(last[0].ends_with("nvml-exporter record --output node.toml"), "{last:?}");
    assert!(last[1].starts_with(&format!("{} findings: ", findings.len())), "{last:?}");
}

#[test]
fn missing_library_fails_with_a_remedy() {
    let path = "/nowhere/libnvidia-ml.so.1";
    let (passes, findings) = findings(&["--require-gpu", "--nvml-library", path]);
    assert!(!passes);
    let (verdict, message, remedy) = about(&findings, "library", path);
    assert_eq!(verdict, "failure");
    assert!(message.contains("No such file"), "{message}");
    for word in ["runtimeClassName: nvidia", "NVIDIA_VISIBLE_DEVICES=all", "--nvml-library"] {
        assert!(remedy.contains(word), "{remedy}");
    }
    for topic in TOPICS {
        about(&findings, topic, "");
    }
}

#[test]
fn library_without_nvml_fails() {
    let (_, findings) = findings(&["--require-gpu", "--nvml-library", "libc.so.6"]);
    let (verdict, message, _) = about(&findings, "library", "libc.so.6");
    assert_eq!(verdict, "failure");
    assert!(message.contains("not an NVML library"), "{message}");
}

#[test]
fn driver_that_fails_to_initialize_has_a_remedy() {
    for (code, reason, word) in [
        ("DRIVER_NOT_LOADED", "driver_not_loaded", "modprobe nvidia"),
        ("LIB_RM_VERSION_MISMATCH", "version_mismatch", "reboot"),
        ("NO_PERMISSION", "denied", "/dev/nvidiactl"),
    ] {
        let fault = format!("[[fault]]\nfunction = \"nvmlInit_v2\"\ncode = \"{code}\"\n");
        let (passes, findings) = findings(&[&node(&fault).flag()]);
        assert!(!passes, "{code}");
        let (verdict, message, remedy) = about(&findings, "driver", "nvmlInit_v2");
        assert_eq!(verdict, "failure");
        assert!(message.contains(reason) && remedy.contains(word), "{message} {remedy}");
        assert_eq!(about(&findings, "processes", "").0, "skipped", "processes are unknown");
    }
}

#[test]
fn hanging_dependency_does_not_block_the_check() {
    let gpu = "[[fault]]\nfunction = \"*\"\ngpu = 1\nhang = true\n";
    let faults = [cluster_fault("api", "hang"), cluster_fault("kubelet", "hang")].concat();
    let scenario = node(&format!("[cluster]\n{gpu}{faults}"));
    let output = check(&[&scenario.flag()]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    for line in [
        "FAILURE  gpu        GPU 1: cannot be identified and has no series: hung",
        "FAILURE  kubelet    ",
        "FAILURE  api        http://127.0.0.1:",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert!(text.contains("GPU 0 (GPU-"), "the other GPU is read:\n{text}");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("waiting for the driver"), "{log}");
    assert!(log.contains("waiting for the kubelet and the API server"), "{log}");

    let scenario = node("[[fault]]\nfunction = \"nvmlInit_v2\"\nhang = true\n");
    let (_, findings) = findings(&[&scenario.flag()]);
    let (verdict, message, _) = about(&findings, "driver", "nvmlInit_v2");
    assert!(verdict == "failure" && message.contains("hung"), "{message}");
}

#[test]
fn permission_denied_by_rbac_has_a_remedy() {
    let scenario = node("[cluster]\ndenied = [\"watch pods\", \"watch nodes\"]\n");
    let (passes, findings) = findings(&[&scenario.flag(), WATCH_NODE]);
    assert!(!passes);
    assert_eq!(about(&findings, "rights", "list pods").0, "ok");
    let (verdict, message, remedy) = about(&findings, "rights", "watch pods");
    assert!(verdict == "failure" && message.contains("denied"), "{message}");
    assert!(remedy.contains("ClusterRole"), "{remedy}");
    assert_eq!(about(&findings, "rights", "watch nodes").0, "warning");
    assert_eq!(about(&findings, "node", "node-1").0, "skipped", "reading nodes is denied");
}

#[test]
fn pods_are_listed_where_permissions_cannot_be_reviewed() {
    let no_review = "denied = [\"create selfsubjectaccessreviews\"]";
    let scenario = node(&format!("[cluster]\n{no_review}\n"));
    let (passes, found) = findings(&[&scenario.flag()]);
    assert!(passes);
    assert_eq!(about(&found, "rights", "selfsubjectaccessreviews").0, "warning");
    assert_eq!(about(&found, "rights", "/api/v1/pods").0, "ok");
    let scenario = node(&format!("[cluster]\n{}", cluster_fault("api", "denied")));
    let (passes, found) = findings(&[&scenario.flag()]);
    assert!(!passes);
    assert_eq!(about(&found, "rights", "/api/v1/pods").0, "failure");
}

#[test]
fn unknown_node_name_fails() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let directory = home.path().to_str().unwrap();
    let exporter = Exporter::start_with(&[("TMPDIR", directory)], &["--mock=demo"]);
    exporter.wait_for("pods", |metrics| {
        metrics.contains("nvml_exporter_source_up{source=\"api\",NodeName=\"node-1\"} 1")
    });
    let environment = fs::read_dir(home.path()).unwrap().next().unwrap().unwrap().path();
    let kubeconfig = environment.join("kubeconfig").display().to_string();
    let library = environment.join("libnvidia-ml.so.1").display().to_string();
    let node_finding = |name: &str| {
        let driver = ["--require-gpu", "--nvml-library", &library];
        let args = [&driver[..], &["--kubeconfig", &kubeconfig, "--node-name", name]].concat();
        about(&findings(&args).1, "node", name)
    };
    assert_eq!(node_finding("node-1").0, "ok");
    let (verdict, message, remedy) = node_finding("node-2");
    assert_eq!(verdict, "failure");
    assert!(message.contains("no node of this name"), "{message}");
    assert!(remedy.contains("NODE_NAME"), "{remedy}");
}

#[test]
fn container_pid_namespace_fails_only_if_process_series_are_selected() {
    let gpu = "pid_namespace = \"container\"\n[[gpu]]\nmodel = \"T4\"\n";
    let scenario = Scenario::new("contained", gpu);
    let (passes, found) = findings(&[&scenario.flag()]);
    assert!(!passes);
    let (verdict, _, remedy) = about(&found, "pids", "self/ns/pid");
    assert_eq!((&*verdict, &*remedy), ("failure", "set hostPID: true"));
    let (passes, found) = findings(&[&scenario.flag(), "--dialect=dcgm-exporter"]);
    assert!(passes, "{found:#?}");
    assert_eq!(about(&found, "pids", "self/ns/pid").0, "note");
}

#[test]
fn denied_mig_access_names_the_overlay_as_remedy() {
    let gpu = "now = 60\n[[gpu]]\nmodel = \"H100\"\n\
               mig = [{ instances = [{ profile = \"3g.40gb\", count = 2 }] }]\n";
    let (passes, found) = findings(&[&Scenario::new("mig", gpu).flag()]);
    assert!(passes);
    assert!(about(&found, "mig", "GPU 0").1.contains("2 devices (2 × 3g.40gb)"));
    let fault = "[[fault]]\nfunction = \"nvmlDeviceGetMigDeviceHandleByIndex\"\n\
                 code = \"NO_PERMISSION\"\n";
    let (passes, found) = findings(&[&Scenario::new("mig", &format!("{gpu}{fault}")).flag()]);
    assert!(!passes);
    let (verdict, _, remedy) = about(&found, "mig", "GPU 0");
    assert_eq!(verdict, "failure");
    assert!(remedy.contains("overlay mig") && remedy.contains("SYS_ADMIN"), "{remedy}");
}

#[test]
fn program_that_uses_the_port_is_identified() {
    let port = |address: &str| {
        let args = ["check", "--mock=idle-t4", "--output=json", "--address", address];
        let report: Value = serde_json::from_slice(&run(&args).stdout).unwrap();
        about(report["findings"].as_array().unwrap(), "port", address)
    };
    let exporter = Exporter::start(&["--mock=idle-t4"]);
    exporter.wait_for("a sample", |metrics| metrics.contains("nvml_exporter_build_info"));
    let (verdict, message, _) = port(exporter.address());
    let version = concat!("nvml-exporter ", env!("CARGO_PKG_VERSION"));
    assert!(verdict == "note" && message.contains(version), "{message}");
    let separate = Exporter::start(&["--mock=idle-t4", "--own-metrics-path=/metrics/own"]);
    separate.wait_for("a sample", |metrics| metrics.contains("DCGM_"));
    assert_eq!(port(separate.address()).0, "note", "its own series are on another path");

    let other = start_server("DCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 1\n").to_string();
    let (verdict, message, remedy) = port(&other);
    assert!(verdict == "warning" && message.contains("another GPU exporter"), "{message}");
    assert!(remedy.contains("double"), "{remedy}");
    let (verdict, message, _) = port(&start_server("hello\n").to_string());
    assert!(verdict == "failure" && message.contains("HTTP/1.0 200 OK"), "{message}");
}

/// Starts a server that responds to every request with `body`.
fn start_server(body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                head.extend_from_slice(&byte);
            }
            write!(stream, "HTTP/1.0 200 OK\r\n\r\n{body}").unwrap();
        }
    });
    address
}

#[test]
fn invalid_flags_are_a_finding() {
    let (passes, found) = findings(&["--kubeconfig", "/x", "--node-name", "A b"]);
    assert!(!passes);
    let (_, message, remedy) = about(&found, "flags", "command line");
    assert!(message.contains("node name \"A b\""), "{message}");
    assert!(remedy.contains("kubectl get nodes"), "{remedy}");
    let (_, found) = findings(&["--mock=idle-t4", "-f", "/nowhere.csv"]);
    assert!(about(&found, "flags", "counters").1.contains("/nowhere.csv"));
    assert_eq!(about(&found, "gpu", "GPU 0").0, "ok", "the rest is checked");
}

#[test]
fn environment_variables_set_flags() {
    let environment = [("NVML_EXPORTER_MOCK", "consumer-4090"), ("NODE_NAME", "n1")];
    let output = run_with(&environment, &["check", "--address", "127.0.0.1:0", "-k=true"]);
    assert!(text(&output).contains("NVIDIA GeForce RTX 4090"), "{}", text(&output));
}

#[test]
fn driver_is_not_opened_while_its_release_is_requested() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display().to_string();
    let (passes, found) = findings(&["--mock=idle-t4", "--release-file", &path]);
    assert!(passes, "{found:#?}");
    let (verdict, message, _) = about(&found, "driver", "nvmlInit_v2");
    assert!(verdict == "note" && message.contains(&path), "{message}");
    assert_eq!(about(&found, "gpu", "").0, "skipped");
}

#[test]
fn check_is_complete_in_an_unprivileged_pod() {
    let args = ["check", "--mock=demo", "--address=127.0.0.1:0", "--output=json"];
    let output = run_sandboxed(&args);
    let stdout = text(&output);
    // The test harness, which starts the program in the sandbox, writes to standard output first.
    let report: Value = serde_json::from_str(&stdout[stdout.find('{').unwrap()..]).unwrap();
    let unconfined: Value = serde_json::from_slice(&run(&args).stdout).unwrap();
    assert_eq!(report["counts"], unconfined["counts"], "{report:#}");
    assert_eq!(report["counts"]["failure"], 0);
}
