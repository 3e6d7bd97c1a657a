//! Letting go of NVML on request, and taking it up again.

use std::collections::BTreeMap;
use std::fs;

use crate::exporter::{Exporter, Scenario, series, value};

const QUICK: [&str; 4] = ["--collect-interval", "200", "--max-age", "1000"];
const TWO_T4: &str = "now = 60\n[[gpu]]\nmodel = \"T4\"\ncount = 2\n";

fn start(environment: &[(&str, &str)], scenario: &Scenario, args: &[&str]) -> Exporter {
    let flag = scenario.flag();
    let args = [&[flag.as_str()], QUICK.as_slice(), args].concat();
    let exporter = Exporter::start_with(environment, &args);
    exporter.wait_for("GPUs", is_held);
    exporter
}

fn is_held(page: &str) -> bool {
    series(page, "DCGM_FI_DEV_GPU_UTIL").len() == 2
        && value(page, "nvml_exporter_released", &[]) == Some(0.0)
}

/// Waits until it says that nothing is held any more, and sees that it holds to that.
fn wait_for_release(exporter: &Exporter, asked: &str) {
    let page = exporter
        .wait_for("its release", |page| value(page, "nvml_exporter_released", &[]) == Some(1.0));
    assert_eq!(value(&page, "nvml_exporter_driver_up", &[]), Some(0.0));
    assert!(!page.lines().any(|line| line.starts_with("DCGM_FI_")), "{page}");
    let readiness = exporter.get("/readyz");
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains("(released)"), "{}", readiness.text());
    assert!(readiness.text().contains(asked), "{}", readiness.text());
    assert_eq!(exporter.get("/healthz").status, 200);
}

fn wait_for_cycles(exporter: &Exporter, more: f64) {
    let cycles = |page: &str| value(page, "nvml_exporter_cycles_total", &[]).unwrap();
    let from = cycles(&exporter.metrics());
    exporter.wait_for("more cycles", |page| cycles(page) >= from + more);
}

#[test]
fn a_signal_lets_nvml_go_and_another_takes_it_up() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("calls");
    let calls = || {
        let text = fs::read_to_string(&file).unwrap();
        let pairs = text.lines().map(|line| line.split_once(' ').unwrap());
        pairs.map(|(n, name)| (name.to_owned(), n.parse().unwrap())).collect::<BTreeMap<_, u64>>()
    };
    let scenario = Scenario::new("signal", TWO_T4);
    let exporter = start(&[("MOCK_NVML_CALLS", file.to_str().unwrap())], &scenario, &[]);
    exporter.kill("-USR1");
    wait_for_release(&exporter, "SIGUSR1 asked for it, until SIGUSR2");
    let before = calls();
    wait_for_cycles(&exporter, 5.0);
    assert_eq!(calls(), before, "it asks the driver for nothing");

    // Asking again changes nothing.
    exporter.kill("-USR1");
    wait_for_cycles(&exporter, 2.0);
    wait_for_release(&exporter, "SIGUSR1");

    // Meanwhile the driver is replaced: what was known of the old one is not used.
    scenario.rewrite(&format!("{TWO_T4}[driver]\nversion = \"570.86.15\"\n"));
    exporter.kill("-USR2");
    let page = exporter.wait_for("its return", is_held);
    assert_eq!(value(&page, "nvml_exporter_driver_info", &["\"570.86.15\""]), Some(1.0), "{page}");
    wait_for_cycles(&exporter, 5.0);
    let calls = calls();
    assert_eq!(calls["nvmlInit_v2"], calls["nvmlShutdown"] + 1, "{calls:?}");
    assert_eq!(value(&exporter.metrics(), "nvml_exporter_threads_abandoned", &[]), Some(0.0));
    let log = exporter.log();
    assert_eq!(log.matches("NVML has been let go").count(), 1, "{log}");
}

#[test]
fn a_file_lets_nvml_go_for_as_long_as_it_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("release");
    let scenario = Scenario::new("file", TWO_T4);
    let exporter = start(&[], &scenario, &["--release-file", file.to_str().unwrap()]);
    for _ in 0..2 {
        fs::write(&file, "").unwrap();
        wait_for_release(&exporter, &format!("the file {} asks for it", file.display()));
        fs::remove_file(&file).unwrap();
        exporter.wait_for("its return", is_held);
    }
}

#[test]
fn a_label_of_the_node_lets_nvml_go_while_gpus_are_partitioned() {
    let whole = "[[gpu]]\nmodel = \"A100\"\nmig = [{ from = 30, instances = [{ profile = \"3g.40gb\", count = 2 }] }]\n";
    let cluster = "[cluster]\nlabels = [{ key = \"nvidia.com/mig.config.state\", value = \"pending\", from = 20, to = 40 }, { key = \"nvidia.com/mig.config.state\", value = \"success\", from = 40 }]\n";
    let at = |now: u32| format!("now = {now}\n{whole}{cluster}");
    let scenario = Scenario::new("label", &at(10));
    let flag = scenario.flag();
    let exporter = Exporter::start(&[&[flag.as_str()], QUICK.as_slice()].concat());
    let instances = |page: &str| series(page, "DCGM_FI_DEV_FB_USED").len();
    let page = exporter.wait_for("the GPU, and word of the node", |page| {
        instances(page) == 1
            && value(page, "nvml_exporter_source_up", &["\"node_label\""]) == Some(1.0)
    });
    assert!(!page.contains("GPU_I_ID=\"1\""), "{page}");

    for now in [20, 30] {
        scenario.rewrite(&at(now));
        wait_for_release(&exporter, "the node's label nvidia.com/mig.config.state=pending");
    }
    scenario.rewrite(&at(40));
    exporter.wait_for("its MIG devices", |page| page.contains("GPU_I_ID=\"1\""));
}

#[test]
fn what_is_held_by_a_call_that_hangs_is_not_called_released() {
    let scenario = Scenario::new("hung", TWO_T4);
    let exporter = start(&[], &scenario, &[]);
    let hang = "[[fault]]\nfunction = \"*\"\ngpu = 1\nhang = true\n";
    scenario.rewrite(&format!("{TWO_T4}{hang}"));
    exporter.wait_for("the hang", |page| {
        value(page, "nvml_exporter_gpu_up", &["gpu=\"1\""]) == Some(0.0)
    });
    exporter.kill("-USR1");
    let page = exporter.wait_for("the driver to be down", |page| {
        value(page, "nvml_exporter_driver_up", &[]) == Some(0.0)
    });
    assert_eq!(value(&page, "nvml_exporter_released", &[]), Some(0.0));
    wait_for_cycles(&exporter, 3.0);
    let readiness = exporter.get("/readyz").text();
    assert!(
        readiness.contains("(releasing)") && readiness.contains("yet to return"),
        "{readiness}"
    );

    scenario.rewrite(TWO_T4);
    wait_for_release(&exporter, "SIGUSR1");
}

#[test]
fn what_an_earlier_session_holds_is_not_called_released() {
    let gpus = |count: u32| format!("now = 60\n[[gpu]]\nmodel = \"T4\"\ncount = {count}\n");
    let scenario = Scenario::new("earlier", &gpus(3));
    let exporter = Exporter::start(&[&[&*scenario.flag()], QUICK.as_slice()].concat());
    let told = |page: &str| series(page, "DCGM_FI_DEV_GPU_UTIL").len();
    exporter.wait_for("GPUs", |page| told(page) == 3);
    // A call that is not back for long, whatever becomes of its GPU.
    let late = "[[fault]]\nfunction = \"nvmlDeviceGetPowerUsage\"\ngpu = 1\ndelay = 12\n";
    scenario.rewrite(&format!("{}{late}", gpus(3)));
    exporter.wait_for("a GPU that hangs", |page| told(page) == 2);
    // A session ends when a GPU is removed.
    scenario.rewrite(&gpus(2));
    exporter.wait_for("the next session", |page| {
        told(page) == 2 && value(page, "nvml_exporter_threads_abandoned", &[]) == Some(1.0)
    });
    exporter.kill("-USR1");
    exporter.wait_for("the driver to be down", |page| {
        value(page, "nvml_exporter_driver_up", &[]) == Some(0.0)
    });
    wait_for_cycles(&exporter, 8.0);
    assert_eq!(value(&exporter.metrics(), "nvml_exporter_released", &[]), Some(0.0));
    wait_for_release(&exporter, "SIGUSR1");
}

#[test]
fn a_release_that_cannot_be_asked_for_is_refused_before_serving() {
    let output = crate::exporter::run(&["--mock", "--release-label", "pending"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(error.contains("--release-label pending: give KEY=VALUE"), "{error}");
}
