//! Values that the driver should not return, and stamps of a clock that is not that of the node.

use crate::exporter::{Exporter, Scenario, series, value};

const T4: &str = "[[gpu]]\nmodel = \"T4\"\n";
const WORK: &str =
    "[[process]]\npid = 7\nname = \"python\"\ngpus = [0]\nmemory = \"1 GiB\"\nsm = 60\n";

fn substitute(function: &str, number: u32) -> String {
    format!("[[fault]]\nfunction = \"{function}\"\nvalue = {number}\n")
}

#[test]
fn unknown_value_of_an_enumeration_is_no_error_of_the_gpu() {
    let counters = tempfile::NamedTempFile::new().unwrap();
    let rows = ["PSTATE", "COMPUTE_MODE", "POWER_USAGE"];
    let rows = rows.map(|row| format!("DCGM_FI_DEV_{row}, gauge, A row.\n")).concat();
    std::fs::write(counters.path(), rows).unwrap();
    let file = format!("-f={}", counters.path().display());
    // As codes they would be RESET_REQUIRED, DRIVER_NOT_LOADED and GPU_NOT_FOUND.
    for number in [16, 9, 28] {
        let faults = ["nvmlDeviceGetPerformanceState", "nvmlDeviceGetComputeMode"];
        let faults = faults.map(|function| substitute(function, number)).concat();
        let scenario = Scenario::new("enum", &format!("now = 60\n{T4}{faults}"));
        let exporter = Exporter::start(&[&scenario.flag(), &file, "--collect-interval=200"]);
        let metrics = exporter.wait_for("several cycles", |metrics| {
            value(metrics, "nvml_exporter_cycles_total", &[]).is_some_and(|cycles| cycles >= 5.0)
        });
        assert_eq!(value(&metrics, "nvml_exporter_gpu_up", &[]), Some(1.0), "{number}: {metrics}");
        assert_eq!(series(&metrics, "DCGM_FI_DEV_POWER_USAGE").len(), 1, "{number}: {metrics}");
        let invalid = value(&metrics, "nvml_exporter_gpu_missing_readings", &["\"invalid\""]);
        let expected = if number == 9 { 1.0 } else { 2.0 };
        assert_eq!(invalid, Some(expected), "{number}: {metrics}");
        assert!(series(&metrics, "DCGM_FI_DEV_COMPUTE_MODE").is_empty(), "{number}: {metrics}");
        assert_eq!(exporter.log().matches("driver is up").count(), 1, "{}", exporter.log());
    }
}

#[test]
fn ratio_above_one_is_absent() {
    let fault = substitute("nvmlGpmMetricsGet", 129);
    let mig = "mig = [{ from = 0, instances = [{ profile = \"3g.40gb\", count = 2 }] }]\n";
    for mig in ["", mig] {
        let text = format!("[[gpu]]\nmodel = \"H100\"\n{mig}{fault}");
        let metrics = crate::exporter::run_once(&[&Scenario::new("gpm", &text).flag()]);
        assert!(series(&metrics, "DCGM_FI_PROF_SM_ACTIVE").is_empty(), "{metrics}");
        assert!(!series(&metrics, "DCGM_FI_DEV_POWER_USAGE").is_empty(), "{metrics}");
    }
}

#[test]
fn clock_of_the_driver_may_have_an_offset() {
    let unsupported = "[[fault]]\nfunction = \"nvmlDeviceGetSamples\"\ncode = \"NOT_SUPPORTED\"\n";
    for (offset, fault) in [(-8.0, ""), (-3.0, unsupported), (1.5, ""), (1.5, unsupported)] {
        let gpu = format!("{T4}samples = {{ delivery = 0.5, clock = [[0.0, {offset:.1}]] }}\n");
        let scenario = Scenario::new("offset", &format!("{gpu}{WORK}{fault}"));
        let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval=500"]);
        let sm = |metrics: &str| value(metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL", &[]);
        let metrics = exporter.wait_for("several windows", |metrics| {
            let sm = sm(metrics);
            assert!(sm.is_none_or(|sm| sm > 1.0), "{offset}: {sm:?}");
            let cycles = value(metrics, "nvml_exporter_cycles_total", &[]);
            cycles.is_some_and(|cycles| cycles >= 8.0) && sm.is_some()
        });
        assert!((sm(&metrics).unwrap() - 60.0).abs() < 1.5, "{offset}: {metrics}");
        let learnt = value(&metrics, "nvml_exporter_driver_clock_offset_seconds", &[]).unwrap();
        assert!((offset - 1.0..=offset + 0.1).contains(&learnt), "{learnt} of {offset}");
    }
}

#[test]
fn busy_gpu_whose_rows_are_all_refused_is_reported() {
    let hide = "[[fault]]\nfunction = \"nvmlDeviceGetProcessesUtilizationInfo\"\nempty = true\n";
    let scenario = Scenario::new("refused", &format!("{T4}{WORK}{hide}"));
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval=500"]);
    exporter.wait_for("the warning", |metrics| {
        assert!(series(metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL").is_empty(), "{metrics}");
        exporter.get("/readyz").text().contains("no valid utilization row")
    });
    assert_eq!(exporter.get("/readyz").status, 200);
    let log = exporter.log();
    assert_eq!(log.matches("no valid utilization row").count(), 1, "{log}");
}

#[test]
fn rates_of_late_calls_are_true() {
    let work = WORK.replace("sm = 60", "pcie_tx = 200");
    let late = "[[fault]]\nfunction = \"nvmlDeviceGetMigMode\"\ndelay = 0.4\n";
    let scenario = Scenario::new("late", &format!("[[gpu]]\nmodel = \"T4\"\n{work}"));
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval=500"]);
    let rate = |metrics: &str| value(metrics, "DCGM_FI_PROF_PCIE_TX_BYTES", &[]);
    // By the start of the cycle, the first late one reads 360 MiB/s. A busy machine may delay clock readings.
    let is_true = |rate: f64| (130.0..270.0).contains(&(rate / 1_048_576.0));
    exporter.wait_for("a rate", |metrics| rate(metrics).is_some_and(is_true));
    scenario.rewrite(&format!("[[gpu]]\nmodel = \"T4\"\n{work}{late}"));
    let cycles = |metrics: &str| value(metrics, "nvml_exporter_cycles_total", &[]).unwrap();
    let from = cycles(&exporter.wait_for("a cycle", |_| true));
    exporter.wait_for("late cycles", |metrics| {
        let rate = rate(metrics).unwrap();
        assert!(is_true(rate), "{rate}");
        cycles(metrics) >= from + 6.0
    });
}
