//! Files that cannot be read under a running exporter: a FIFO blocks its reader as a file of a mount does that
//! has no server, and a [`HangingPath`] blocks each call.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::exporter::{Exporter, Scenario, run, value};
use crate::hanging_path::HangingPath;

const FLAGS: [&str; 2] = ["--mock=idle-t4", "--collect-interval=200"];

/// The time after which a hang is reported at the latest on an idle machine, with the pauses of the source.
const REPORTED_AFTER: Duration = Duration::from_secs(60);

/// Replaces a file by a FIFO without a writer.
fn hang(path: &Path) {
    let fifo = path.with_extension("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::rename(fifo, path).unwrap();
}

fn cycles(metrics: &str) -> f64 {
    value(metrics, "nvml_exporter_cycles_total", &[]).unwrap_or_default()
}

fn source_up(metrics: &str, source: &str) -> Option<f64> {
    value(metrics, "nvml_exporter_source_up", &[&format!("source=\"{source}\"")])
}

/// Waits until the exporter has run some cycles more, and returns the exposition.
fn wait_for_cycles(exporter: &Exporter) -> String {
    let from = cycles(&exporter.metrics());
    let metrics = exporter.wait_for("more cycles", |metrics| cycles(metrics) > from + 5.0);
    assert!(value(&metrics, "DCGM_FI_DEV_GPU_TEMP", &["gpu=\"0\""]).is_some(), "{metrics}");
    metrics
}

/// SIGTERM ends the exporter.
fn terminate(exporter: Exporter) {
    let (status, log) = exporter.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn job_directory_that_hangs_keeps_its_jobs_and_delays_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("0");
    fs::write(&file, "job-7\n").unwrap();
    let flag = format!("--hpc-job-mapping-dir={}", directory.path().display());
    let exporter = Exporter::start(&[&FLAGS[..], &[&flag]].concat());
    exporter.wait_for("a job", |text| text.contains("hpc_job=\"job-7\""));
    hang(&file);
    let metrics = wait_for_cycles(&exporter);
    assert!(metrics.contains("hpc_job=\"job-7\""), "the last content is kept");
    let contact = |metrics: &str| {
        let labels = ["source=\"hpc_jobs\""];
        value(metrics, "nvml_exporter_source_contact_timestamp_seconds", &labels)
    };
    let last = contact(&metrics);
    assert!(last.is_some());
    assert_eq!(exporter.get("/healthz").status, 200);
    let metrics = exporter
        .wait_for("the health of the source", |text| source_up(text, "hpc_jobs") == Some(0.0));
    assert!((contact(&metrics).unwrap() - last.unwrap()).abs() < 1.0, "the age grows");
    exporter.wait_for_log("the file system has not responded for 30 s");
    wait_for_cycles(&exporter);
    terminate(exporter);
}

#[test]
fn counters_file_that_hangs_keeps_its_counters() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counters.csv");
    fs::write(&file, "DCGM_FI_DEV_GPU_TEMP, gauge, help\n").unwrap();
    let flag = format!("-f={}", file.display());
    let exporter = Exporter::start(&[&FLAGS[..], &[&flag]].concat());
    wait_for_cycles(&exporter);
    assert_eq!(source_up(&exporter.metrics(), "counters"), Some(1.0));
    hang(&file);
    exporter.send_sighup();
    exporter.wait_for("the health of the source", |text| source_up(text, "counters") == Some(0.0));
    wait_for_cycles(&exporter);
    assert!(exporter.log().contains("the previous counters stay in effect"), "{}", exporter.log());
    terminate(exporter);
}

#[test]
fn web_configuration_that_hangs_stays_active() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yml");
    let hash = bcrypt::hash("secret", 4).unwrap();
    fs::write(&file, format!("basic_auth_users:\n  alice: {hash}\n")).unwrap();
    let flag = format!("--web-config-file={}", file.display());
    let exporter = Exporter::start(&[&FLAGS[..], &[&flag]].concat());
    hang(&file);
    exporter.wait_for_log("the previous configuration stays active");
    let get = |password: &str| {
        let credentials = STANDARD.encode(format!("alice:{password}"));
        let head = format!(
            "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {credentials}\r\n\r\n"
        );
        exporter.request(&head)
    };
    let statuses = ["wrong", "secret"].map(|password| get(password).status);
    assert_eq!(statuses, [401, 200], "a thread checks passwords");
    while source_up(&get("secret").text(), "web_config") != Some(0.0) {
        std::thread::yield_now();
    }
    assert_eq!(exporter.get("/healthz").status, 200);
    terminate(exporter);
}

#[test]
fn exporter_does_not_start_with_a_file_that_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    hang(&file);
    for flag in ["-f", "--web-config-file"] {
        let output = run(&[&FLAGS[..], &[&format!("{flag}={}", file.display())]].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("the file system does not respond"), "{error}");
    }
}

#[test]
fn exporter_does_not_start_with_a_directory_that_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let hanging = HangingPath::new(directory.path().to_str().unwrap());
    hanging.hang();
    for flag in ["--procfs", "--sysfs"] {
        let flag = format!("{flag}={}", directory.path().display());
        let output = hanging.run(&[&FLAGS[..], &[&flag]].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        let expected = format!("{}: the file system does not respond", flag.replace('=', " "));
        assert!(error.contains(&expected), "{error}");
    }
}

/// A pod, and a process that cannot be read, so that the log directories are read each second.
const CLUSTER: &str = r#"
[[gpu]]
model = "T4"
[cluster]
node = "node-1"
[[pod]]
name = "serve"
namespace = "web"
containers = [{ name = "main", gpus = 0 }]
[[process]]
pid = 7
name = "python"
gpus = [0]
memory = "1 GiB"
pod = "web/serve"
sm = 20
[[process]]
pid = 8
name = "x"
gpus = [0]
memory = "1 GiB"
proc = "unreadable"
"#;

#[test]
fn log_directories_that_hang_have_health_and_delay_nothing() {
    let scenario = Scenario::new("node", CLUSTER);
    let hanging = HangingPath::new("/pods-log");
    let exporter = hanging.start(&[&scenario.flag(), "--collect-interval=200"]);
    exporter.wait_for("the log directories", |text| source_up(text, "pod_logs") == Some(1.0));
    hanging.hang();
    let metrics =
        exporter.wait_for_longer("a log directory that is down", REPORTED_AFTER, |text| {
            source_up(text, "pod_logs") == Some(0.0)
        });
    let failures = ["source=\"pod_logs\"", "reason=\"timeout\""];
    assert!(value(&metrics, "nvml_exporter_source_failures_total", &failures) >= Some(1.0));
    assert_eq!(source_up(&metrics, "api"), Some(1.0), "no other source waits");
    exporter.wait_for_log("the file system of the log directories does not respond");
    let ready = exporter.get("/readyz");
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("warning: pod_logs: the file system of"), "{}", ready.text());
    assert_eq!(exporter.get("/healthz").status, 200);
    wait_for_cycles(&exporter);
    hanging.respond();
    exporter.wait_for("the log directories", |text| source_up(text, "pod_logs") == Some(1.0));
    hanging.hang();
    terminate(exporter);
}

#[test]
fn kubeconfig_that_hangs_takes_its_source_down_and_delays_nothing() {
    let text = |now: u32, rest: &str| format!("now = {now}\n{CLUSTER}{rest}");
    let scenario = Scenario::new("node", &text(60, ""));
    let hanging = HangingPath::new("/kubeconfig");
    let exporter = hanging.start(&[&scenario.flag(), "--collect-interval=200"]);
    exporter.wait_for("the pods", |text| text.contains("PodName=\"serve\""));
    hanging.hang();
    // A client of a watch that ended reads the file again.
    scenario.rewrite(&text(61, "[[cluster_fault]]\nsource = \"api\"\neffect = \"close\"\n"));
    exporter.wait_for_longer("an API server that is down", REPORTED_AFTER, |text| {
        source_up(text, "api") == Some(0.0)
    });
    exporter.wait_for_log("kubeconfig: the file system does not respond");
    let metrics = wait_for_cycles(&exporter);
    assert!(metrics.contains("PodName=\"serve\""), "cached pods stay in use:\n{metrics}");
    assert_eq!(source_up(&metrics, "pod_resources"), Some(1.0), "no other source waits");
    scenario.rewrite(&text(62, ""));
    hanging.respond();
    exporter.wait_for_longer("the API server", REPORTED_AFTER, |text| {
        source_up(text, "api") == Some(1.0)
    });
    terminate(exporter);
}

/// A kubeconfig with the token in the file `token` beside it.
const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
current-context: c
clusters: [{ name: c, cluster: { server: 'http://127.0.0.1:1' } }]
contexts: [{ name: c, context: { cluster: c, user: u } }]
users: [{ name: u, user: { tokenFile: token } }]
";

#[test]
fn exporter_does_not_start_with_a_kubeconfig_that_hangs() {
    for file in ["kubeconfig", "token"] {
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        fs::write(&kubeconfig, KUBECONFIG).unwrap();
        hang(&directory.path().join(file));
        let flag = format!("--kubeconfig={}", kubeconfig.display());
        let flags = ["--require-gpu", "--node-name=n", "--configmap-data=monitoring:counters"];
        let output = run(&[&flags[..], &[&flag]].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{file}: {error}");
        assert!(error.contains("--configmap-data monitoring:counters: --kubeconfig "), "{error}");
        assert!(error.contains("the file system does not respond"), "{file}: {error}");
    }
}

#[test]
fn check_ends_although_directories_and_files_hang() {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    hang(&kubeconfig);
    let logs = directory.path().join("logs");
    let hanging = HangingPath::new(logs.to_str().unwrap());
    hanging.hang();
    let output = hanging.run(&[
        "check",
        "--require-gpu",
        "--node-name=n",
        &format!("--kubeconfig={}", kubeconfig.display()),
        &format!("--pod-logs={}", logs.display()),
        &format!("--container-logs={}", logs.display()),
        "--address=127.0.0.1:0",
    ]);
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{report}");
    for subject in [&kubeconfig, &logs] {
        let subject = subject.display().to_string();
        let is_reported = |line: &str| {
            line.contains(&subject) && line.contains("the file system does not respond")
        };
        assert!(report.lines().any(is_reported), "{subject}:\n{report}");
    }
}

#[test]
fn release_file_that_hangs_has_health_and_delays_nothing() {
    let hanging = HangingPath::new("/release-request");
    let directory = tempfile::tempdir().unwrap();
    let flag = format!("--release-file={}", directory.path().join("release-request").display());
    let exporter = hanging.start(&[&FLAGS[..], &[&flag]].concat());
    exporter.wait_for("a file system", |text| source_up(text, "release_file") == Some(1.0));
    hanging.hang();
    exporter
        .wait_for("the health of the source", |text| source_up(text, "release_file") == Some(0.0));
    exporter.wait_for_log("the file system has not responded for 30 s");
    wait_for_cycles(&exporter);
    assert_eq!(exporter.get("/healthz").status, 200);
    terminate(exporter);
}

#[test]
fn release_file_is_found_by_a_thread_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let flag = format!("--release-file={}", directory.path().join("release").display());
    let exporter = Exporter::start(&[&FLAGS[..], &[&flag]].concat());
    wait_for_cycles(&exporter);
    let tasks = fs::read_dir(format!("/proc/{}/task", exporter.pid())).unwrap();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap();
    let names: Vec<_> = tasks.map(|task| name(task.unwrap())).collect();
    assert!(names.contains(&"release\n".to_owned()), "{names:?}");
    terminate(exporter);
}
