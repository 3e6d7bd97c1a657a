//! Bad days, played by the mock under a running exporter.

use crate::exporter::{Exporter, Scenario, built_in, series, value};

const QUICK: [&str; 6] =
    ["--collect-interval", "200", "--max-age", "1000", "--node-name", "node-1"];

fn start(scenario: &Scenario) -> Exporter {
    Exporter::start(&[&[scenario.flag().as_str()], QUICK.as_slice()].concat())
}

fn up(page: &str, gpu: u32) -> Option<f64> {
    value(page, "nvml_exporter_gpu_up", &[&format!("gpu=\"{gpu}\"")])
}

fn util(page: &str, gpu: u32) -> Option<f64> {
    value(page, "DCGM_FI_DEV_GPU_UTIL", &[&format!("gpu=\"{gpu}\"")])
}

fn cycles(page: &str) -> f64 {
    value(page, "nvml_exporter_cycles_total", &[]).unwrap_or(0.0)
}

const TWO_T4: &str = "now = 60\n[[gpu]]\nmodel = \"T4\"\ncount = 2\n";
const WORK: &str =
    "[[process]]\npid = 7\nname = \"python\"\ngpus = [1]\nmemory = \"1 GiB\"\nsm = 40\n";
const HANG: &str = "[[fault]]\nfunction = \"*\"\ngpu = 1\nhang = true\n";

#[test]
fn a_gpu_that_hangs_costs_only_itself_and_comes_back() {
    let scenario = Scenario::new("hang", &format!("{TWO_T4}{WORK}"));
    let exporter = start(&scenario);
    exporter.wait_for("work on GPU 1", |page| {
        util(page, 1) == Some(40.0) && value(page, "DCGM_CUSTOM_PROCESS_SM_UTIL", &[]).is_some()
    });

    scenario.rewrite(&format!("{TWO_T4}{WORK}{HANG}"));
    let page = exporter.wait_for("loss of GPU 1", |page| up(page, 1) == Some(0.0));
    assert_eq!(util(&page, 1), None, "its numbers are withheld");
    assert_eq!(series(&page, "DCGM_CUSTOM_PROCESS_MEM_USED"), Vec::<&str>::new());
    assert_eq!((up(&page, 0), util(&page, 0)), (Some(1.0), Some(0.0)), "the other one is fresh");
    assert!(
        value(&page, "nvml_exporter_gpu_missing_readings", &["gpu=\"1\"", "\"hung\""]).is_some()
    );
    assert_eq!(exporter.get("/readyz").status, 200, "one GPU of two is well");

    // The thread is neither joined nor multiplied while cycles go on.
    let threads = thread_count(&exporter);
    let from = cycles(&page);
    exporter.wait_for("more cycles", |page| cycles(page) > from + 5.0);
    assert_eq!(thread_count(&exporter), threads);

    scenario.rewrite(&format!("{TWO_T4}{WORK}"));
    exporter.wait_for("return of GPU 1", |page| util(page, 1) == Some(40.0));
    let log = exporter.log();
    assert_eq!(log.matches("GPU is down").count(), 1, "{log}");
}

fn thread_count(exporter: &Exporter) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", exporter.pid())).unwrap().count()
}

#[test]
fn all_gpus_hang_and_the_exporter_still_answers() {
    let scenario = Scenario::new("hang", TWO_T4);
    let exporter = start(&scenario);
    exporter.wait_for("both GPUs", |page| util(page, 1).is_some());
    scenario.rewrite(&format!("{TWO_T4}[[fault]]\nfunction = \"*\"\nhang = true\n"));
    let page = exporter
        .wait_for("loss of both", |page| (up(page, 0), up(page, 1)) == (Some(0.0), Some(0.0)));
    assert_eq!(series(&page, "DCGM_FI_DEV_GPU_UTIL"), Vec::<&str>::new());
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
fn a_gpu_that_hangs_from_the_start_is_counted_and_not_named() {
    let scenario = Scenario::new("hang", &format!("{TWO_T4}{HANG}"));
    let exporter = start(&scenario);
    let page = exporter.wait_for("a hung GPU", |page| {
        value(page, "nvml_exporter_gpu_unidentified", &["gpu=\"1\",reason=\"hung\""]) == Some(1.0)
    });
    assert_eq!(util(&page, 0), Some(0.0));
    assert_eq!(value(&page, "DCGM_FI_DEV_COUNT", &[]), Some(2.0));
}

#[test]
fn a_lost_gpu_is_gone_at_once_and_found_again() {
    let at = |now: u32| {
        format!(
            "now = {now}\n[[gpu]]\nmodel = \"T4\"\n[[gpu]]\nmodel = \"H100\"\nlost = [{{ from = 10, to = 20 }}]\n"
        )
    };
    let scenario = Scenario::new("lost", &at(5));
    let exporter = start(&scenario);
    exporter.wait_for("both GPUs", |page| util(page, 1).is_some());
    scenario.rewrite(&at(15));
    let page = exporter.wait_for("the loss", |page| up(page, 1) == Some(0.0));
    let of_it = |line: &&str| line.starts_with("DCGM_") && line.contains("gpu=\"1\"");
    let left: Vec<&str> = page.lines().filter(of_it).collect();
    // What has befallen it is still true, and is all that is.
    assert!(left.iter().all(|line| line.starts_with("DCGM_FI_DEV_XID_ERRORS")), "{left:?}");
    assert_eq!(value(&page, "DCGM_FI_DEV_COUNT", &[]), Some(2.0), "the driver still counts it");
    assert_eq!(util(&page, 0), Some(0.0));
    scenario.rewrite(&at(25));
    exporter.wait_for("the return", |page| up(page, 1) == Some(1.0) && util(page, 1).is_some());
}

#[test]
fn a_driver_that_is_reloaded_is_taken_up_again() {
    let at = |now: u32| {
        format!(
            "now = {now}\n[driver]\nreload = [{{ from = 10, to = 20 }}]\n[[gpu]]\nmodel = \"T4\"\n"
        )
    };
    let scenario = Scenario::new("reload", &at(5));
    let exporter = start(&scenario);
    let driver_up = |page: &str| value(page, "nvml_exporter_driver_up", &[]);
    exporter.wait_for("the driver", |page| driver_up(page) == Some(1.0));

    scenario.rewrite(&at(15));
    let page = exporter.wait_for("the unload", |page| {
        value(page, "nvml_exporter_driver_open_failures_total", &["\"driver_not_loaded\""])
            .is_some()
    });
    assert_eq!(driver_up(&page), Some(0.0));
    assert!(!page.lines().any(|line| line.starts_with("DCGM_")), "{page}");
    let readiness = exporter.get("/readyz");
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains("driver_not_loaded"), "{}", readiness.text());

    scenario.rewrite(&at(25));
    exporter.wait_for("the reload", |page| driver_up(page) == Some(1.0) && util(page, 0).is_some());
    assert_eq!(exporter.get("/readyz").status, 200);
}

#[test]
fn a_library_that_was_replaced_on_disk_is_loaded_anew() {
    let directory = tempfile::tempdir().unwrap();
    let library = directory.path().join("libnvidia-ml.so.1");
    let mock = std::path::Path::new(env!("CARGO_BIN_EXE_nvml-exporter"))
        .with_file_name("deps/libmock_nvml.so");
    // A package manager puts a new file in the old one's place.
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
        &["--nvml-library", library.to_str().unwrap(), "--collect-interval", "200"],
    );
    let runs = |version: &'static str| {
        move |page: &str| {
            util(page, 1).is_some()
                && value(page, "nvml_exporter_driver_info", &[version]).is_some()
        }
    };
    exporter.wait_for("the driver", runs("\"550.54.15\""));
    scenario.rewrite(&at("reload = [{ from = 50, to = 70 }]"));
    exporter
        .wait_for("the unload", |page| value(page, "nvml_exporter_driver_up", &[]) == Some(0.0));
    install();
    scenario.rewrite(&at("version = \"570.86.15\""));
    exporter.wait_for("the new driver", runs("\"570.86.15\""));
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", exporter.pid())).unwrap();
    let name = library.to_str().unwrap();
    assert!(maps.lines().any(|line| line.ends_with(name)), "the new file is mapped:\n{maps}");
}

#[test]
fn numbers_with_all_bits_set_are_absent_and_start_no_threads() {
    let scenario = Scenario::new("ones", TWO_T4);
    let exporter = start(&scenario);
    exporter.wait_for("both GPUs", |page| util(page, 1).is_some());
    let threads = thread_count(&exporter);
    let ones = ["nvmlDeviceGetCount_v2", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetClockInfo"];
    let fault = |function| format!("[[fault]]\nfunction = \"{function}\"\nones = true\n");
    scenario.rewrite(&format!("{TWO_T4}{}", ones.map(fault).concat()));
    let page = exporter.wait_for("their absence", |page| {
        let gone = ["DCGM_FI_DEV_COUNT", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_SM_CLOCK"];
        gone.iter().all(|family| series(page, family).is_empty())
    });
    let invalid = ["gpu=\"1\"", "\"invalid\""];
    assert!(value(&page, "nvml_exporter_gpu_missing_readings", &invalid) >= Some(2.0), "{page}");
    assert_eq!((util(&page, 0), util(&page, 1)), (Some(0.0), Some(0.0)));
    assert_eq!(thread_count(&exporter), threads);
}

#[test]
fn without_a_library_it_serves_and_says_so() {
    let exporter = Exporter::start(&["--nvml-library", "/nowhere/libnvidia-ml.so.1"]);
    let page = exporter.wait_for("a page", |page| page.contains("nvml_exporter_driver_up 0"));
    assert!(!page.contains("DCGM_"), "{page}");
    assert_eq!(exporter.get("/readyz").status, 503);
    assert_eq!(exporter.get("/healthz").status, 200);
    let log = exporter.log();
    assert_eq!(log.matches("driver is down").count(), 1, "{log}");
    assert!(log.contains("/nowhere/libnvidia-ml.so.1") && log.contains("--nvml-library"), "{log}");
}

#[test]
fn a_single_reading_that_fails_is_the_only_one_absent() {
    let fault = "[[fault]]\nfunction = \"nvmlDeviceGetPowerUsage\"\ngpu = 1\ncode = \"UNKNOWN\"\n";
    let scenario = Scenario::new("power", TWO_T4);
    let exporter = start(&scenario);
    exporter.wait_for("both GPUs", |page| series(page, "DCGM_FI_DEV_POWER_USAGE").len() == 2);
    scenario.rewrite(&format!("{TWO_T4}{fault}"));
    let page =
        exporter.wait_for("the failure", |page| series(page, "DCGM_FI_DEV_POWER_USAGE").len() == 1);
    assert_eq!((up(&page, 1), util(&page, 1)), (Some(1.0), Some(0.0)));
    assert_eq!(
        value(&page, "nvml_exporter_gpu_missing_readings", &["gpu=\"1\"", "\"failed\""]),
        Some(1.0)
    );
    scenario.rewrite(TWO_T4);
    exporter.wait_for("the return", |page| series(page, "DCGM_FI_DEV_POWER_USAGE").len() == 2);
    let log = exporter.log();
    assert_eq!(log.matches("reading is missing").count(), 1, "{log}");
    assert!(log.contains("DCGM_FI_DEV_POWER_USAGE") && log.contains("nvmlReturn_t 999"), "{log}");
    assert!(log.contains("reading is back"), "{log}");
}

#[test]
fn a_process_that_ends_takes_its_series_with_it() {
    let scenario = Scenario::new("end", &format!("{TWO_T4}{WORK}"));
    let exporter = start(&scenario);
    exporter.wait_for("the process", |page| {
        value(page, "DCGM_CUSTOM_PROCESS_SM_UTIL", &["ProcessId=\"7\""]) == Some(40.0)
    });
    scenario.rewrite(TWO_T4);
    let page = exporter.wait_for("its end", |page| !page.contains("ProcessId=\"7\""));
    assert_eq!(util(&page, 1), Some(0.0));
}

#[test]
fn energy_grows_with_the_clock_and_never_goes_back() {
    let at = |now: u32| format!("now = {now}\n[[gpu]]\nmodel = \"T4\"\n");
    let energy = |page: &str| value(page, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", &[]);
    let scenario = Scenario::new("energy", &at(100));
    let exporter = start(&scenario);
    let page = exporter.wait_for("energy", |page| energy(page).is_some());
    let (first, watts) =
        (energy(&page).unwrap(), value(&page, "DCGM_FI_DEV_POWER_USAGE", &[]).unwrap());
    scenario.rewrite(&at(200));
    let page = exporter.wait_for("growth", |page| energy(page) > Some(first));
    let grown = energy(&page).unwrap() - first;
    assert!(
        (grown - 100_000.0 * watts).abs() < 1_000.0 * watts,
        "{grown} mJ in 100 s at {watts} W"
    );
    scenario.rewrite(&at(50));
    let from = cycles(&page);
    let page = exporter.wait_for("more cycles", |page| cycles(page) > from + 3.0);
    assert!(energy(&page) >= Some(first + grown));
}

#[test]
fn a_scenario_that_becomes_invalid_leaves_the_last_good_one_in_force() {
    let scenario = Scenario::new("broken", TWO_T4);
    let exporter = start(&scenario);
    let page = exporter.wait_for("both GPUs", |page| util(page, 1).is_some());
    scenario.rewrite("now = ");
    let from = cycles(&page);
    let page = exporter.wait_for("more cycles", |page| cycles(page) > from + 3.0);
    assert_eq!(util(&page, 1), Some(0.0));
    assert!(exporter.log().contains("broken.toml:1"), "{}", exporter.log());
}

#[test]
fn the_faulty_scenario_plays_every_fault_at_once() {
    let scenario = Scenario::new("faulty", &format!("now = 60\n{}", built_in("faulty")));
    let exporter = start(&scenario);
    let page = exporter.wait_for("the healthy GPU's process", |page| {
        value(page, "DCGM_CUSTOM_PROCESS_SM_UTIL", &["gpu=\"0\""]) == Some(75.0)
            && value(page, "DCGM_CUSTOM_PROCESS_MEM_USED", &["gpu=\"3\""]).is_some()
    });
    let refused = value(&page, "DCGM_CUSTOM_PROCESS_SM_UTIL", &["gpu=\"3\""]);
    assert_eq!(
        refused, None,
        "one of its process's rows is refused, so that the other proves nothing"
    );
    assert_eq!(series(&page, "DCGM_FI_DEV_BAR1_USED"), Vec::<&str>::new(), "no such symbol");
    assert_eq!(series(&page, "DCGM_FI_DEV_GPU_TEMP").len(), 1, "GPU 0 alone tells it");
    assert!(!page.contains("214748363") && !page.contains("ProcessId=\"3999\""), "{page}");
    for reason in ["pid", "percentage", "old_stamp", "future_stamp"] {
        let reason = format!("reason=\"{reason}\"");
        assert!(
            value(&page, "nvml_exporter_discarded_rows_total", &["gpu=\"3\"", &reason]).is_some(),
            "{reason} in {page}"
        );
    }
}

#[test]
fn a_driver_that_hangs_at_init_is_named_and_taken_up_when_it_answers() {
    let hang = "[[fault]]\nfunction = \"nvmlInit_v2\"\nhang = true\n";
    let scenario = Scenario::new("init", &format!("{TWO_T4}{hang}"));
    let exporter = start(&scenario);
    let page = exporter.wait_for("a page", |page| cycles(page) > 2.0);
    assert_eq!(value(&page, "nvml_exporter_driver_up", &[]), Some(0.0));
    // It may take its time; then it is named.
    assert!(exporter.get("/readyz").text().contains("(starting)"));
    let readiness = exporter.wait_for_at("/readyz", "a hang", |text| text.contains("(hung)"));
    assert!(readiness.contains("nvmlInit_v2"), "{readiness}");
    let page = exporter.metrics();
    let threads = thread_count(&exporter);
    let from = cycles(&page);
    exporter.wait_for("more cycles", |page| cycles(page) > from + 3.0);
    assert_eq!(thread_count(&exporter), threads, "no second attempt beside the first");
    scenario.rewrite(TWO_T4);
    exporter.wait_for("both GPUs", |page| util(page, 1).is_some());
}
