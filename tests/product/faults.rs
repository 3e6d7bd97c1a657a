//! Faults of GPUs, driver and library, injected by the mock under a running exporter.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::exporter::{Exporter, Response, Scenario, built_in_scenario, series, value};

const FLAGS: [&str; 6] =
    ["--collect-interval", "200", "--max-age", "1000", "--node-name", "node-1"];

fn start(scenario: &Scenario) -> Exporter {
    Exporter::start(&[&[scenario.flag().as_str()], FLAGS.as_slice()].concat())
}

fn up(metrics: &str, gpu: u32) -> Option<f64> {
    value(metrics, "nvml_exporter_gpu_up", &[&format!("gpu=\"{gpu}\"")])
}

fn util(metrics: &str, gpu: u32) -> Option<f64> {
    value(metrics, "DCGM_FI_DEV_GPU_UTIL", &[&format!("gpu=\"{gpu}\"")])
}

fn cycles(metrics: &str) -> f64 {
    value(metrics, "nvml_exporter_cycles_total", &[]).unwrap_or(0.0)
}

const TWO_T4: &str = "now = 60\n[[gpu]]\nmodel = \"T4\"\ncount = 2\n";
const WORK: &str =
    "[[process]]\npid = 7\nname = \"python\"\ngpus = [1]\nmemory = \"1 GiB\"\nsm = 40\n";
const HANG: &str = "[[fault]]\nfunction = \"*\"\ngpu = 1\nhang = true\n";

#[test]
fn hung_gpu_affects_only_itself_and_recovers() {
    let scenario = Scenario::new("hang", &format!("{TWO_T4}{WORK}"));
    let exporter = start(&scenario);
    exporter.wait_for("work on GPU 1", |metrics| {
        util(metrics, 1) == Some(40.0)
            && value(metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL", &[]).is_some()
    });

    scenario.rewrite(&format!("{TWO_T4}{WORK}{HANG}"));
    let metrics = exporter.wait_for("loss of GPU 1", |metrics| up(metrics, 1) == Some(0.0));
    assert_eq!(util(&metrics, 1), None, "its values are withheld");
    assert_eq!(series(&metrics, "DCGM_CUSTOM_PROCESS_MEM_USED"), Vec::<&str>::new());
    assert_eq!(
        (up(&metrics, 0), util(&metrics, 0)),
        (Some(1.0), Some(0.0)),
        "the other GPU is current"
    );
    assert!(
        value(&metrics, "nvml_exporter_gpu_missing_readings", &["gpu=\"1\"", "\"hung\""]).is_some()
    );
    assert_eq!(exporter.get("/readyz").status, 200, "one of two GPUs is readable");

    // The hung thread is neither joined nor replaced while cycles continue.
    let threads = thread_count(&exporter);
    let from = cycles(&metrics);
    exporter.wait_for("more cycles", |metrics| cycles(metrics) > from + 5.0);
    assert_eq!(thread_count(&exporter), threads);

    scenario.rewrite(&format!("{TWO_T4}{WORK}"));
    exporter.wait_for("recovery of GPU 1", |metrics| util(metrics, 1) == Some(40.0));
    let log = exporter.log();
    assert_eq!(log.matches("GPU is down").count(), 1, "{log}");
}

fn thread_count(exporter: &Exporter) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", exporter.pid())).unwrap().count()
}

#[test]
fn exporter_responds_while_all_gpus_hang() {
    let scenario = Scenario::new("hang", TWO_T4);
    let exporter = start(&scenario);
    exporter.wait_for("both GPUs", |metrics| util(metrics, 1).is_some());
    scenario.rewrite(&format!("{TWO_T4}[[fault]]\nfunction = \"*\"\nhang = true\n"));
    let metrics = exporter.wait_for("loss of both", |metrics| {
        (up(metrics, 0), up(metrics, 1)) == (Some(0.0), Some(0.0))
    });
    assert_eq!(series(&metrics, "DCGM_FI_DEV_GPU_UTIL"), Vec::<&str>::new());
    let readiness = exporter.get("/readyz");
    assert_eq!(readiness.status, 503);
    assert!(
        readiness.text().contains("GPU 0") && readiness.text().contains("hung"),
        "{}",
        readiness.text()
    );
    assert_eq!(exporter.get("/healthz").status, 200, "a hang must not become a restart loop");
}

#[test]
fn gpu_hung_from_the_start_is_counted_as_unidentified() {
    let scenario = Scenario::new("hang", &format!("{TWO_T4}{HANG}"));
    let exporter = start(&scenario);
    let metrics = exporter.wait_for("a hung GPU", |metrics| {
        value(metrics, "nvml_exporter_gpu_unidentified", &["gpu=\"1\",reason=\"hung\""])
            == Some(1.0)
    });
    assert_eq!(util(&metrics, 0), Some(0.0));
    assert_eq!(value(&metrics, "DCGM_FI_DEV_COUNT", &[]), Some(2.0));
}

#[test]
fn series_of_a_lost_gpu_disappear_and_return() {
    let at = |now: u32| {
        format!(
            "now = {now}\n[[gpu]]\nmodel = \"T4\"\n[[gpu]]\nmodel = \"H100\"\nlost = [{{ from = 10, to = 20 }}]\n"
        )
    };
    let scenario = Scenario::new("lost", &at(5));
    let exporter = start(&scenario);
    exporter.wait_for("both GPUs", |metrics| util(metrics, 1).is_some());
    scenario.rewrite(&at(15));
    let metrics = exporter.wait_for("the loss", |metrics| up(metrics, 1) == Some(0.0));
    let is_of_lost_gpu = |line: &&str| line.starts_with("DCGM_") && line.contains("gpu=\"1\"");
    let remaining: Vec<&str> = metrics.lines().filter(is_of_lost_gpu).collect();
    // Only its last XID error is kept.
    assert!(
        remaining.iter().all(|line| line.starts_with("DCGM_FI_DEV_XID_ERRORS")),
        "{remaining:?}"
    );
    assert_eq!(value(&metrics, "DCGM_FI_DEV_COUNT", &[]), Some(2.0), "the driver still counts it");
    assert_eq!(util(&metrics, 0), Some(0.0));
    scenario.rewrite(&at(25));
    exporter.wait_for("the recovery", |metrics| {
        up(metrics, 1) == Some(1.0) && util(metrics, 1).is_some()
    });
}

#[test]
fn reloaded_driver_is_opened_again() {
    let at = |now: u32| {
        format!(
            "now = {now}\n[driver]\nreload = [{{ from = 10, to = 20 }}]\n[[gpu]]\nmodel = \"T4\"\n"
        )
    };
    let scenario = Scenario::new("reload", &at(5));
    let exporter = start(&scenario);
    let driver_up = |metrics: &str| value(metrics, "nvml_exporter_driver_up", &[]);
    exporter.wait_for("the driver", |metrics| driver_up(metrics) == Some(1.0));

    scenario.rewrite(&at(15));
    let metrics = exporter.wait_for("the unload", |metrics| {
        value(metrics, "nvml_exporter_driver_open_failures_total", &["\"driver_not_loaded\""])
            .is_some()
    });
    assert_eq!(driver_up(&metrics), Some(0.0));
    assert!(!metrics.lines().any(|line| line.starts_with("DCGM_")), "{metrics}");
    let readiness = exporter.get("/readyz");
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains("driver_not_loaded"), "{}", readiness.text());

    scenario.rewrite(&at(25));
    exporter.wait_for("the reload", |metrics| {
        driver_up(metrics) == Some(1.0) && util(metrics, 0).is_some()
    });
    assert_eq!(exporter.get("/readyz").status, 200);
}

#[test]
fn library_replaced_on_disk_is_reloaded() {
    let directory = tempfile::tempdir().unwrap();
    let library = directory.path().join("libnvidia-ml.so.1");
    let mock = std::path::Path::new(env!("CARGO_BIN_EXE_nvml-exporter"))
        .with_file_name("deps/libmock_nvml.so");
    // As a package manager does: a new file replaces the old one by rename.
    let install = || {
        let draft = directory.path().join("draft");
        std::fs::copy(&mock, &draft).unwrap();
        std::fs::rename(draft, &library).unwrap();
    };
    install();
    let at = |driver: &str| format!("{TWO_T4}[driver]\n{driver}\n");
    let scenario = Scenario::new("upgrade", &at("version = \"550.54.15\""));
    let path = scenario.path();
    let exporter = Exporter::start_with(
        &[("MOCK_NVML_SCENARIO", path.to_str().unwrap())],
        &[
            "--require-gpu",
            "--nvml-library",
            library.to_str().unwrap(),
            "--collect-interval",
            "200",
        ],
    );
    let runs = |version: &'static str| {
        move |metrics: &str| {
            util(metrics, 1).is_some()
                && value(metrics, "nvml_exporter_driver_info", &[version]).is_some()
        }
    };
    exporter.wait_for("the driver", runs("\"550.54.15\""));
    scenario.rewrite(&at("reload = [{ from = 50, to = 70 }]"));
    exporter.wait_for("the unload", |metrics| {
        value(metrics, "nvml_exporter_driver_up", &[]) == Some(0.0)
    });
    install();
    scenario.rewrite(&at("version = \"570.86.15\""));
    exporter.wait_for("the new driver", runs("\"570.86.15\""));
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", exporter.pid())).unwrap();
    let name = library.to_str().unwrap();
    assert!(maps.lines().any(|line| line.ends_with(name)), "the new file is mapped:\n{maps}");
}

#[test]
fn values_with_all_bits_set_are_absent_and_start_no_threads() {
    let scenario = Scenario::new("ones", TWO_T4);
    let exporter = start(&scenario);
    exporter.wait_for("both GPUs", |metrics| util(metrics, 1).is_some());
    let threads = thread_count(&exporter);
    let ones = ["nvmlDeviceGetCount_v2", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetClockInfo"];
    let fault = |function| format!("[[fault]]\nfunction = \"{function}\"\nones = true\n");
    scenario.rewrite(&format!("{TWO_T4}{}", ones.map(fault).concat()));
    let metrics = exporter.wait_for("their absence", |metrics| {
        let absent = ["DCGM_FI_DEV_COUNT", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_SM_CLOCK"];
        absent.iter().all(|family| series(metrics, family).is_empty())
    });
    let invalid = ["gpu=\"1\"", "\"invalid\""];
    assert!(
        value(&metrics, "nvml_exporter_gpu_missing_readings", &invalid) >= Some(2.0),
        "{metrics}"
    );
    assert_eq!((util(&metrics, 0), util(&metrics, 1)), (Some(0.0), Some(0.0)));
    assert_eq!(thread_count(&exporter), threads);
}

#[test]
fn texts_without_an_end_are_absent() {
    let ones = |function| format!("[[fault]]\nfunction = \"{function}\"\nones = true\n");
    let texts = ["nvmlDeviceGetSerial", "nvmlDeviceGetVbiosVersion", "nvmlSystemGetDriverVersion"];
    let uuid = "[[fault]]\nfunction = \"nvmlDeviceGetUUID\"\ngpu = 1\nones = true\n";
    let faults = texts.map(ones).concat() + uuid;
    let scenario = Scenario::new("texts", &format!("{TWO_T4}{faults}"));
    let exporter = start(&scenario);
    let metrics = exporter.wait_for("GPU 0", |metrics| util(metrics, 0).is_some());
    let unidentified = ["gpu=\"1\"", "reason=\"invalid\""];
    assert!(
        value(&metrics, "nvml_exporter_gpu_unidentified", &unidentified).is_some(),
        "without a UUID it has no series: {metrics}"
    );
    assert_eq!(util(&metrics, 1), None);
    assert!(!metrics.contains('\u{fffd}'), "no text beyond a buffer: {metrics}");
    scenario.rewrite(TWO_T4);
    exporter.wait_for("GPU 1", |metrics| util(metrics, 1).is_some());
}

#[test]
fn without_a_library_it_serves_and_reports_the_cause() {
    let exporter =
        Exporter::start(&["--require-gpu", "--nvml-library", "/nowhere/libnvidia-ml.so.1"]);
    let metrics = exporter
        .wait_for("the driver state", |metrics| metrics.contains("nvml_exporter_driver_up 0"));
    assert!(!metrics.contains("DCGM_"), "{metrics}");
    assert_eq!(exporter.get("/readyz").status, 503);
    assert_eq!(exporter.get("/healthz").status, 200);
    let log = exporter.log();
    assert_eq!(log.matches("driver is down").count(), 1, "{log}");
    assert!(log.contains("/nowhere/libnvidia-ml.so.1") && log.contains("--nvml-library"), "{log}");
}

#[test]
fn failed_reading_is_the_only_one_absent() {
    let fault = "[[fault]]\nfunction = \"nvmlDeviceGetPowerUsage\"\ngpu = 1\ncode = \"UNKNOWN\"\n";
    let scenario = Scenario::new("power", TWO_T4);
    let exporter = start(&scenario);
    exporter.wait_for("both GPUs", |metrics| series(metrics, "DCGM_FI_DEV_POWER_USAGE").len() == 2);
    scenario.rewrite(&format!("{TWO_T4}{fault}"));
    let metrics = exporter
        .wait_for("the failure", |metrics| series(metrics, "DCGM_FI_DEV_POWER_USAGE").len() == 1);
    assert_eq!((up(&metrics, 1), util(&metrics, 1)), (Some(1.0), Some(0.0)));
    assert_eq!(
        value(&metrics, "nvml_exporter_gpu_missing_readings", &["gpu=\"1\"", "\"failed\""]),
        Some(1.0)
    );
    scenario.rewrite(TWO_T4);
    exporter
        .wait_for("the recovery", |metrics| series(metrics, "DCGM_FI_DEV_POWER_USAGE").len() == 2);
    let log = exporter.log();
    assert_eq!(log.matches("reading is missing").count(), 1, "{log}");
    assert!(log.contains("DCGM_FI_DEV_POWER_USAGE") && log.contains("NVML_ERROR_UNKNOWN"), "{log}");
    assert!(log.contains("reading is available again"), "{log}");
}

#[test]
fn series_of_an_ended_process_disappear() {
    let scenario = Scenario::new("end", &format!("{TWO_T4}{WORK}"));
    let exporter = start(&scenario);
    exporter.wait_for("the process", |metrics| {
        value(metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL", &["ProcessId=\"7\""]) == Some(40.0)
    });
    scenario.rewrite(TWO_T4);
    let metrics = exporter.wait_for("its end", |metrics| !metrics.contains("ProcessId=\"7\""));
    assert_eq!(util(&metrics, 1), Some(0.0));
}

#[test]
fn energy_grows_with_time_and_never_decreases() {
    let at = |now: u32| format!("now = {now}\n[[gpu]]\nmodel = \"T4\"\n");
    let energy = |metrics: &str| value(metrics, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", &[]);
    let scenario = Scenario::new("energy", &at(100));
    let exporter = start(&scenario);
    let metrics = exporter.wait_for("energy", |metrics| energy(metrics).is_some());
    let (first, watts) =
        (energy(&metrics).unwrap(), value(&metrics, "DCGM_FI_DEV_POWER_USAGE", &[]).unwrap());
    scenario.rewrite(&at(200));
    let metrics = exporter.wait_for("growth", |metrics| energy(metrics) > Some(first));
    let increase = energy(&metrics).unwrap() - first;
    assert!(
        (increase - 100_000.0 * watts).abs() < 1_000.0 * watts,
        "{increase} mJ in 100 s at {watts} W"
    );
    scenario.rewrite(&at(50));
    let from = cycles(&metrics);
    let metrics = exporter.wait_for("more cycles", |metrics| cycles(metrics) > from + 3.0);
    assert!(energy(&metrics) >= Some(first + increase));
}

#[test]
fn invalid_scenario_change_keeps_the_last_valid_scenario() {
    let scenario = Scenario::new("broken", TWO_T4);
    let exporter = start(&scenario);
    let metrics = exporter.wait_for("both GPUs", |metrics| util(metrics, 1).is_some());
    scenario.rewrite("now = ");
    let from = cycles(&metrics);
    let metrics = exporter.wait_for("more cycles", |metrics| cycles(metrics) > from + 3.0);
    assert_eq!(util(&metrics, 1), Some(0.0));
    assert!(exporter.log().contains("broken.toml:1"), "{}", exporter.log());
}

#[test]
fn faulty_scenario_combines_all_faults() {
    let scenario = Scenario::new("faulty", &format!("now = 60\n{}", built_in_scenario("faulty")));
    let exporter = start(&scenario);
    let metrics = exporter.wait_for("the healthy GPU's process", |metrics| {
        value(metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL", &["gpu=\"0\""]) == Some(75.0)
            && value(metrics, "DCGM_CUSTOM_PROCESS_MEM_USED", &["gpu=\"3\""]).is_some()
    });
    let refused = value(&metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL", &["gpu=\"3\""]);
    assert_eq!(refused, None, "another row of its process is refused");
    assert_eq!(series(&metrics, "DCGM_FI_DEV_BAR1_USED"), Vec::<&str>::new(), "no such symbol");
    assert_eq!(series(&metrics, "DCGM_FI_DEV_GPU_TEMP").len(), 1, "only GPU 0 returns it");
    assert!(!metrics.contains("214748363") && !metrics.contains("ProcessId=\"3999\""), "{metrics}");
    for reason in ["pid", "percentage", "old_stamp", "future_stamp"] {
        let reason = format!("reason=\"{reason}\"");
        assert!(
            value(&metrics, "nvml_exporter_discarded_rows_total", &["gpu=\"3\"", &reason])
                .is_some(),
            "{reason} in {metrics}"
        );
    }
}

#[test]
fn startup_is_not_reported_as_down() {
    let hang = "[[fault]]\nfunction = \"nvmlInit_v2\"\nhang = true\n";
    let scenario = Scenario::new("start", &format!("{TWO_T4}{hang}"));
    let exporter = start(&scenario);
    exporter.wait_for_at("/readyz", "the first cycle", |text| text.contains("(starting)"));
    // The startup probe waits for the driver.
    let mut probe = TcpStream::connect(exporter.address()).unwrap();
    probe.write_all(b"GET /startupz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    exporter.wait_for("more cycles", |metrics| cycles(metrics) > 3.0);
    probe.set_nonblocking(true).unwrap();
    assert_eq!(probe.peek(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    probe.set_nonblocking(false).unwrap();
    scenario.rewrite(TWO_T4);
    let mut response = Vec::new();
    probe.read_to_end(&mut response).unwrap();
    assert_eq!(Response::parse(&response).status, 200);
    assert_eq!(exporter.get("/readyz").status, 200);
    let log = exporter.log();
    assert!(!log.contains("WARN") && log.contains("driver is up"), "{log}");
}

#[test]
fn startup_ends_without_a_driver() {
    let exporter = Exporter::start(&["--require-gpu", "--nvml-library=/nonexistent"]);
    let started = exporter.get("/startupz");
    assert_eq!((started.status, exporter.get("/readyz").status), (200, 503), "not restarted");
}

#[test]
fn hang_in_nvml_init_is_reported_and_recovers() {
    let hang = "[[fault]]\nfunction = \"nvmlInit_v2\"\nhang = true\n";
    let scenario = Scenario::new("init", &format!("{TWO_T4}{hang}"));
    let exporter = start(&scenario);
    let metrics = exporter.wait_for("cycles", |metrics| cycles(metrics) > 2.0);
    assert_eq!(value(&metrics, "nvml_exporter_driver_up", &[]), Some(0.0));
    // First it counts as starting; after the timeout the hanging call is named.
    assert!(exporter.get("/readyz").text().contains("(starting)"));
    let readiness = exporter.wait_for_at("/readyz", "a hang", |text| text.contains("(hung)"));
    assert!(readiness.contains("nvmlInit_v2"), "{readiness}");
    let metrics = exporter.metrics();
    let threads = thread_count(&exporter);
    let from = cycles(&metrics);
    exporter.wait_for("more cycles", |metrics| cycles(metrics) > from + 3.0);
    assert_eq!(thread_count(&exporter), threads, "no second attempt while the first one hangs");
    scenario.rewrite(TWO_T4);
    exporter.wait_for("both GPUs", |metrics| util(metrics, 1).is_some());
}
