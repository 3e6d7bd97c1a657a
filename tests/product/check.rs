//! `nvml-exporter check`: what is wrong on a node, and the mend.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Output;
use std::thread;

use serde_json::Value;

use crate::exporter::{Exporter, Scenario, run, run_confined, run_with};

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

/// Two GPUs and a cluster, and what else is said of them.
fn node(rest: &str) -> Scenario {
    let gpus = "now = 60\n[[gpu]]\nmodel = \"T4\"\ncount = 2\n";
    Scenario::new("checked", &format!("{gpus}{rest}"))
}

/// On a port that is free.
fn check(args: &[&str]) -> Output {
    run(&[&["check", "--address", "127.0.0.1:0"], args].concat())
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What is found, as JSON.
fn findings(args: &[&str]) -> (bool, Vec<Value>) {
    let output = check(&[&["--output", "json"], args].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["version"], 1);
    let findings = report["findings"].as_array().unwrap().clone();
    let failed = findings.iter().filter(|finding| finding["verdict"] == "failure").count();
    assert_eq!(report["counts"]["failure"], failed);
    assert_eq!(output.status.code(), Some(i32::from(failed > 0)));
    (failed == 0, findings)
}

/// The verdict, the sentence and the mend of the finding about `subject`.
fn about(findings: &[Value], topic: &str, subject: &str) -> (String, String, String) {
    let is = |finding: &&Value| {
        finding["topic"] == topic && finding["subject"].as_str().unwrap().contains(subject)
    };
    let finding = findings.iter().find(is);
    let finding = finding.unwrap_or_else(|| panic!("{topic} {subject}: {findings:#?}"));
    let word = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    (word("verdict"), word("said"), word("mend"))
}

fn faults(source: &str, effect: &str) -> String {
    format!("[[cluster_fault]]\nsource = \"{source}\"\neffect = \"{effect}\"\n")
}

#[test]
fn a_healthy_node_passes_and_every_topic_has_a_line() {
    let output = check(&["--mock=demo"]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let topics: Vec<&str> =
        text.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    for topic in TOPICS {
        assert!(topics.contains(&topic), "{topic} in\n{text}");
    }
    assert!(!text.contains("FAILURE") && !text.contains("warning"), "{text}");
    assert!(text.contains("version 2, driver systemd"), "{text}");
    assert!(text.contains("13 nvidia.com/gpu"), "{text}");
    assert!(text.contains("node-1: the cluster has a node of this name"), "{text}");
}

#[test]
fn a_gpu_that_is_lost_fails_with_its_mend() {
    let (passes, findings) = findings(&["--mock=faulty"]);
    assert!(!passes);
    let (verdict, said, mend) = about(&findings, "gpu", "GPU 1");
    assert_eq!(verdict, "failure");
    assert!(said.contains("lost") && mend.contains("reset the GPU"), "{said} {mend}");
    let (verdict, said, mend) = about(&findings, "gpu", "GPU 3");
    assert_eq!(verdict, "warning");
    assert!(said.contains("denied: DCGM_FI_DEV_POWER_USAGE"), "{said}");
    assert!(mend.contains("run as root"), "{mend}");
    assert_eq!(about(&findings, "clock", "nvmlDeviceGetProcessUtilization").0, "warning");
}

#[test]
fn text_says_what_json_says() {
    let (_, findings) = findings(&["--mock=faulty"]);
    let output = check(&["--mock=faulty"]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    let mut same = 0;
    for finding in &findings {
        let word = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let (subject, said, mend) = (word("subject"), word("said"), word("mend"));
        // Where the stage is, and when it is, differ from run to run.
        if subject.contains('/') || subject == "CLOCK_REALTIME" {
            continue;
        }
        let line = text.lines().find(|line| line.contains(&format!(" {subject}: {said}")));
        let line = line.unwrap_or_else(|| panic!("{subject}: {said} in\n{text}"));
        assert_eq!(line.split_whitespace().nth(1), finding["topic"].as_str());
        assert!(mend.is_empty() || text.contains(&format!(" mend: {mend}")), "{mend} in\n{text}");
        same += 1;
    }
    assert!(same > 12, "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.starts_with(&format!("{} looked at: ", findings.len())), "{last}");
}

#[test]
fn without_a_library_the_place_is_told_and_what_brings_one() {
    let path = "/nowhere/libnvidia-ml.so.1";
    let (passes, findings) = findings(&["--nvml-library", path]);
    assert!(!passes);
    let (verdict, said, mend) = about(&findings, "library", path);
    assert_eq!(verdict, "failure");
    assert!(said.contains("No such file"), "{said}");
    for word in ["runtimeClassName: nvidia", "NVIDIA_VISIBLE_DEVICES=all", "--nvml-library"] {
        assert!(mend.contains(word), "{mend}");
    }
    for topic in TOPICS {
        about(&findings, topic, "");
    }
}

#[test]
fn a_library_that_is_something_else_is_told() {
    let (_, findings) = findings(&["--nvml-library", "libc.so.6"]);
    let (verdict, said, _) = about(&findings, "library", "libc.so.6");
    assert_eq!(verdict, "failure");
    assert!(said.contains("not an NVML library"), "{said}");
}

#[test]
fn a_driver_that_does_not_start_is_told_with_its_mend() {
    for (code, reason, word) in [
        ("DRIVER_NOT_LOADED", "driver_not_loaded", "modprobe nvidia"),
        ("LIB_RM_VERSION_MISMATCH", "version_mismatch", "reboot"),
        ("NO_PERMISSION", "denied", "/dev/nvidiactl"),
    ] {
        let fault = format!("[[fault]]\nfunction = \"nvmlInit_v2\"\ncode = \"{code}\"\n");
        let (passes, findings) = findings(&[&node(&fault).flag()]);
        assert!(!passes, "{code}");
        let (verdict, said, mend) = about(&findings, "driver", "nvmlInit_v2");
        assert_eq!(verdict, "failure");
        assert!(said.contains(reason) && mend.contains(word), "{said} {mend}");
        assert_eq!(about(&findings, "processes", "").0, "skipped", "none is not known");
    }
}

#[test]
fn whoever_hangs_does_not_hang_the_check() {
    let gpu = "[[fault]]\nfunction = \"*\"\ngpu = 1\nhang = true\n";
    let silent = format!("[cluster]\n{gpu}{}{}", faults("api", "hang"), faults("kubelet", "hang"));
    let scenario = node(&silent);
    let output = check(&[&scenario.flag()]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    for line in [
        "FAILURE  gpu        GPU 1: it cannot be identified and has no series: hung",
        "FAILURE  kubelet    ",
        "FAILURE  api        http://127.0.0.1:",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert!(text.contains("GPU 0 (GPU-"), "the other is read:\n{text}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("waiting for the driver"), "{said}");
    assert!(said.contains("waiting for the kubelet and the API server"), "{said}");

    let scenario = node("[[fault]]\nfunction = \"nvmlInit_v2\"\nhang = true\n");
    let (_, findings) = findings(&[&scenario.flag()]);
    let (verdict, said, _) = about(&findings, "driver", "nvmlInit_v2");
    assert!(verdict == "failure" && said.contains("hung"), "{said}");
}

#[test]
fn what_rbac_denies_is_told_with_its_mend() {
    let scenario = node("[cluster]\ndenied = [\"watch pods\", \"watch nodes\"]\n");
    let (passes, findings) = findings(&[&scenario.flag()]);
    assert!(!passes);
    assert_eq!(about(&findings, "rights", "list pods").0, "ok");
    let (verdict, said, mend) = about(&findings, "rights", "watch pods");
    assert!(verdict == "failure" && said.contains("denied"), "{said}");
    assert!(mend.contains("ClusterRole"), "{mend}");
    assert_eq!(about(&findings, "rights", "watch nodes").0, "warning");
    assert_eq!(about(&findings, "node", "node-1").0, "skipped", "it may not be asked");
}

#[test]
fn where_rights_cannot_be_asked_for_they_are_tried() {
    let no_review = "denied = [\"create selfsubjectaccessreviews\"]";
    let scenario = node(&format!("[cluster]\n{no_review}\n"));
    let (passes, found) = findings(&[&scenario.flag()]);
    assert!(passes);
    assert_eq!(about(&found, "rights", "selfsubjectaccessreviews").0, "warning");
    assert_eq!(about(&found, "rights", "/api/v1/pods").0, "ok");
    let scenario = node(&format!("[cluster]\n{}", faults("api", "denied")));
    let (passes, found) = findings(&[&scenario.flag()]);
    assert!(!passes);
    assert_eq!(about(&found, "rights", "/api/v1/pods").0, "failure");
}

#[test]
fn a_name_that_no_node_has_is_told() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = home.path().to_str().unwrap();
    let exporter = Exporter::start_with(&[("TMPDIR", folder)], &["--mock=demo"]);
    exporter.wait_for("pods", |page| page.contains("nvml_exporter_source_up{source=\"api\"} 1"));
    let stage = fs::read_dir(home.path()).unwrap().next().unwrap().unwrap().path();
    let kubeconfig = stage.join("kubeconfig").display().to_string();
    let library = stage.join("libnvidia-ml.so.1").display().to_string();
    let named = |name: &str| {
        let args = ["--kubeconfig", &kubeconfig, "--nvml-library", &library, "--node-name", name];
        about(&findings(&args).1, "node", name)
    };
    assert_eq!(named("node-1").0, "ok");
    let (verdict, said, mend) = named("node-2");
    assert_eq!(verdict, "failure");
    assert!(said.contains("no node of this name") && mend.contains("NODE_NAME"), "{said} {mend}");
}

#[test]
fn without_the_hosts_processes_only_who_wants_them_fails() {
    let gpu = "pid_namespace = \"container\"\n[[gpu]]\nmodel = \"T4\"\n";
    let scenario = Scenario::new("contained", gpu);
    let (passes, found) = findings(&[&scenario.flag()]);
    assert!(!passes);
    let (verdict, _, mend) = about(&found, "pids", "self/ns/pid");
    assert_eq!((&*verdict, &*mend), ("failure", "set hostPID: true"));
    let (passes, found) = findings(&[&scenario.flag(), "--dialect=dcgm-exporter"]);
    assert!(passes, "{found:#?}");
    assert_eq!(about(&found, "pids", "self/ns/pid").0, "note");
}

#[test]
fn what_mig_hides_is_told_with_the_overlay_that_shows_it() {
    let gpu = "now = 60\n[[gpu]]\nmodel = \"H100\"\n\
               mig = [{ instances = [{ profile = \"3g.40gb\", count = 2 }] }]\n";
    let (passes, found) = findings(&[&Scenario::new("mig", gpu).flag()]);
    assert!(passes);
    assert!(about(&found, "mig", "GPU 0").1.contains("2 devices (2 × 3g.40gb)"));
    let fault = "[[fault]]\nfunction = \"nvmlDeviceGetMigDeviceHandleByIndex\"\n\
                 code = \"NO_PERMISSION\"\n";
    let (passes, found) = findings(&[&Scenario::new("mig", &format!("{gpu}{fault}")).flag()]);
    assert!(!passes);
    let (verdict, _, mend) = about(&found, "mig", "GPU 0");
    assert_eq!(verdict, "failure");
    assert!(mend.contains("overlay mig") && mend.contains("SYS_ADMIN"), "{mend}");
}

#[test]
fn who_is_on_the_port_is_told() {
    let port = |address: &str| {
        let args = ["check", "--mock=idle-t4", "--output=json", "--address", address];
        let report: Value = serde_json::from_slice(&run(&args).stdout).unwrap();
        about(report["findings"].as_array().unwrap(), "port", address)
    };
    let exporter = Exporter::start(&["--mock=idle-t4"]);
    exporter.wait_for("a page", |page| page.contains("nvml_exporter_build_info"));
    let (verdict, said, _) = port(exporter.address());
    let version = concat!("nvml-exporter ", env!("CARGO_PKG_VERSION"));
    assert!(verdict == "note" && said.contains(version), "{said}");
    let apart = Exporter::start(&["--mock=idle-t4", "--own-metrics-path=/metrics/own"]);
    apart.wait_for("a page", |page| page.contains("DCGM_"));
    assert_eq!(port(apart.address()).0, "note", "its own series are elsewhere");

    let (verdict, said, mend) = port(&serving("DCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 1\n").to_string());
    assert!(verdict == "warning" && said.contains("another exporter"), "{said}");
    assert!(mend.contains("double"), "{mend}");
    let (verdict, said, _) = port(&serving("hello\n").to_string());
    assert!(verdict == "failure" && said.contains("HTTP/1.0 200 OK"), "{said}");
}

/// Somebody who answers everything so.
fn serving(body: &'static str) -> SocketAddr {
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
fn flags_that_cannot_be_used_are_a_finding() {
    let (passes, found) = findings(&["--kubeconfig", "/x", "--node-name", "A b"]);
    assert!(!passes);
    let (_, said, mend) = about(&found, "flags", "command line");
    assert!(said.contains("node name \"A b\"") && mend.contains("kubectl get nodes"), "{said}");
    let (_, found) = findings(&["--mock=idle-t4", "-f", "/nowhere.csv"]);
    assert!(about(&found, "flags", "counters").1.contains("/nowhere.csv"));
    assert_eq!(about(&found, "gpu", "GPU 0").0, "ok", "the rest is looked at");
}

#[test]
fn the_environment_counts_as_it_does_for_the_exporter() {
    let environment = [("NVML_EXPORTER_MOCK", "consumer-4090"), ("NODE_NAME", "n1")];
    let output = run_with(&environment, &["check", "--address", "127.0.0.1:0", "-k=true"]);
    assert!(text(&output).contains("NVIDIA GeForce RTX 4090"), "{}", text(&output));
}

#[test]
fn nvml_is_not_held_while_it_is_to_be_let_go() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display().to_string();
    let (passes, found) = findings(&["--mock=idle-t4", "--release-file", &path]);
    assert!(passes, "{found:#?}");
    let (verdict, said, _) = about(&found, "driver", "nvmlInit_v2");
    assert!(verdict == "note" && said.contains(&path), "{said}");
    assert_eq!(about(&found, "gpu", "").0, "skipped");
}

#[test]
fn it_looks_at_everything_from_a_pod_that_may_do_nothing_else() {
    let args = ["check", "--mock=demo", "--address=127.0.0.1:0", "--output=json"];
    let output = run_confined(&args);
    let told = text(&output);
    // What starts it is a test, and says so first.
    let report: Value = serde_json::from_str(&told[told.find('{').unwrap()..]).unwrap();
    let free: Value = serde_json::from_slice(&run(&args).stdout).unwrap();
    assert_eq!(report["counts"], free["counts"], "{report:#}");
    assert_eq!(report["counts"]["failure"], 0);
}
