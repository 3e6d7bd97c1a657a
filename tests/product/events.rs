//! NVML events (XID errors), clock event reasons, and rates, which need a time window.

use crate::exporter::{Exporter, Scenario, value};

const FLAGS: [&str; 2] = ["--collect-interval", "200"];

fn start(scenario: &Scenario) -> Exporter {
    Exporter::start(&[&[scenario.flag().as_str()], FLAGS.as_slice()].concat())
}

fn last_xid(metrics: &str, gpu: u32) -> Option<f64> {
    value(metrics, "DCGM_FI_DEV_XID_ERRORS", &[&format!("gpu=\"{gpu}\"")])
}

fn count(metrics: &str, gpu: u32, xid: u32) -> Option<f64> {
    let labels = [format!("gpu=\"{gpu}\""), format!("xid=\"{xid}\"")];
    value(metrics, "nvml_exporter_xid_events_total", &labels.each_ref().map(String::as_str))
}

fn cycles(metrics: &str) -> f64 {
    value(metrics, "nvml_exporter_cycles_total", &[]).unwrap_or(0.0)
}

fn cpu_ticks(exporter: &Exporter) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", exporter.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// A scenario with two T4 at `now` seconds, and further sections.
fn two_t4(now: u32, rest: &str) -> String {
    format!("now = {now}\n{rest}\n[[gpu]]\nmodel = \"T4\"\ncount = 2\n")
}

fn xid(gpu: u32, at: u32, code: u32) -> String {
    format!("[[xid]]\ngpu = {gpu}\nat = {at}\ncode = {code}\n")
}

#[test]
fn xid_is_reported_at_once_and_counted_once() {
    let scenario = Scenario::new("xid", &two_t4(60, ""));
    let exporter = start(&scenario);
    exporter.wait_for("the subscription", |metrics| {
        (last_xid(metrics, 0), last_xid(metrics, 1)) == (Some(0.0), Some(0.0))
    });

    let first = xid(1, 61, 31);
    scenario.rewrite(&two_t4(61, &first));
    exporter.wait_for("the XID", |metrics| last_xid(metrics, 1) == Some(31.0));

    // Simultaneous events are delivered one by one, and none is lost.
    let more = [xid(1, 62, 43), xid(1, 62, 43), xid(1, 62, 13)].concat();
    scenario.rewrite(&two_t4(62, &format!("{first}{more}")));
    let metrics = exporter.wait_for("three more", |metrics| count(metrics, 1, 13) == Some(1.0));
    let counts = |metrics: &str| [31, 43, 13].map(|code| count(metrics, 1, code));
    assert_eq!(counts(&metrics), [Some(1.0), Some(2.0), Some(1.0)]);
    assert_eq!(last_xid(&metrics, 1), Some(13.0));

    // No event is counted twice, and the other GPU is not affected.
    let from = cycles(&metrics);
    let metrics = exporter.wait_for("more cycles", |metrics| cycles(metrics) > from + 10.0);
    assert_eq!(counts(&metrics), [Some(1.0), Some(2.0), Some(1.0)]);
    assert_eq!((last_xid(&metrics, 0), count(&metrics, 0, 31)), (Some(0.0), None));
    let log = exporter.log();
    assert_eq!(log.matches(" XID ").count(), 3, "one log line per code: {log}");
}

#[test]
fn lost_gpu_reports_xid_79() {
    let lost = "model = \"T4\"\nlost = [{ from = 61 }]";
    let scenario = Scenario::new("lost", &two_t4(60, ""));
    let exporter = start(&scenario);
    exporter.wait_for("the subscription", |metrics| last_xid(metrics, 1) == Some(0.0));
    scenario.rewrite(&format!("now = 61\n[[gpu]]\nmodel = \"T4\"\n[[gpu]]\n{lost}\n"));
    let metrics = exporter.wait_for("XID 79", |metrics| last_xid(metrics, 1) == Some(79.0));
    let up = |metrics: &str| value(metrics, "nvml_exporter_gpu_up", &["gpu=\"1\""]);
    let metrics = if up(&metrics) == Some(0.0) {
        metrics
    } else {
        exporter.wait_for("the loss", |metrics| up(metrics) == Some(0.0))
    };
    assert_eq!(value(&metrics, "DCGM_FI_DEV_GPU_UTIL", &["gpu=\"1\""]), None);
    assert_eq!(last_xid(&metrics, 1), Some(79.0), "the last XID is kept");
    assert_eq!(last_xid(&metrics, 0), Some(0.0));
}

#[test]
fn xids_are_kept_across_a_driver_reload() {
    let scenario = Scenario::new("reload", &two_t4(60, ""));
    let exporter = start(&scenario);
    exporter.wait_for("the subscription", |metrics| last_xid(metrics, 0) == Some(0.0));
    let event = xid(0, 61, 48);
    scenario.rewrite(&two_t4(61, &event));
    exporter.wait_for("the XID", |metrics| last_xid(metrics, 0) == Some(48.0));
    exporter.wait_for_log("XID error: Double Bit ECC Error; remedy: drain the node");

    let reloading = "[driver]\nreload = [{ from = 70, to = 80 }]\n";
    scenario.rewrite(&two_t4(71, &format!("{event}{reloading}")));
    let metrics =
        exporter.wait_for("no driver", |p| value(p, "nvml_exporter_driver_up", &[]) == Some(0.0));
    assert_eq!(last_xid(&metrics, 0), None, "no GPU is available");
    scenario.rewrite(&two_t4(81, &format!("{event}{reloading}")));
    let metrics = exporter.wait_for("the driver", |metrics| last_xid(metrics, 0).is_some());
    assert_eq!((last_xid(&metrics, 0), count(&metrics, 0, 48)), (Some(48.0), Some(1.0)));

    let second = xid(0, 90, 48);
    scenario.rewrite(&two_t4(90, &format!("{event}{second}{reloading}")));
    exporter.wait_for("another one", |metrics| count(metrics, 0, 48) == Some(2.0));
}

/// A counters file that selects the event families.
fn event_counters() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counters.csv");
    let families = "DCGM_EXP_XID_ERRORS_COUNT, gauge, x\n\
                    DCGM_EXP_XID_ERRORS_TOTAL, counter, x\n\
                    DCGM_EXP_CLOCK_EVENTS_COUNT, gauge, x\n\
                    DCGM_EXP_CLOCK_EVENTS_TOTAL, counter, x\n\
                    DCGM_EXP_P2P_STATUS, gauge, x\n\
                    DCGM_FI_DEV_XID_ERRORS, gauge, x\n";
    std::fs::write(&file, families).unwrap();
    let flag = format!("-f={}", file.display());
    (directory, flag)
}

fn total(metrics: &str, gpu: u32, xid: u32) -> Option<f64> {
    let labels = [format!("gpu=\"{gpu}\""), format!("xid=\"{xid}\"")];
    value(metrics, "DCGM_EXP_XID_ERRORS_TOTAL", &labels.each_ref().map(String::as_str))
}

/// Also across a failed `nvmlEventSetWait_v2`, and across a driver reload, which starts a new listener thread.
#[test]
fn every_xid_is_counted_exactly_once() {
    let (_directory, file) = event_counters();
    let dcgm = ["--dialect", "dcgm-exporter", "--enable-exporter-metrics"];
    let failing = "[[fault]]\nfunction = \"nvmlEventSetWait_v2\"\ncode = \"UNKNOWN\"\n";
    let reload = "[driver]\nreload = [{ from = 70, to = 80 }]\n";
    let scenario = Scenario::new("once", &two_t4(60, reload));
    let flags = [scenario.flag(), file];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let exporter = Exporter::start(&[&flags, FLAGS.as_slice(), &dcgm].concat());
    let no_error = "err_code=\"0\",err_msg=\"No Error\"";
    let metrics = exporter.wait_for("the subscription", |metrics| {
        value(metrics, "DCGM_FI_DEV_XID_ERRORS", &["gpu=\"0\"", no_error]) == Some(0.0)
    });
    let window = ["gpu=\"0\"", "window_size_in_ms=\"300000\"}"];
    assert_eq!(
        value(&metrics, "DCGM_EXP_XID_ERRORS_COUNT", &window),
        Some(0.0),
        "0 without an XID"
    );
    assert_eq!(total(&metrics, 0, 48), None);

    let mut events = xid(0, 61, 48);
    let at = |now: u32, events: &str, fault: &str| two_t4(now, &format!("{reload}{events}{fault}"));
    scenario.rewrite(&at(61, &events, ""));
    exporter.wait_for("the first", |metrics| total(metrics, 0, 48) == Some(1.0));

    // The driver queues events until they are fetched.
    scenario.rewrite(&at(61, &events, failing));
    exporter.wait_for("the failing wait", |metrics| last_xid(metrics, 0).is_none());
    events += &xid(0, 62, 48);
    scenario.rewrite(&at(62, &events, failing));
    scenario.rewrite(&at(62, &events, ""));
    exporter.wait_for("the second", |metrics| total(metrics, 0, 48) == Some(2.0));

    scenario.rewrite(&at(71, &events, ""));
    let up = |metrics: &str| value(metrics, "nvml_exporter_driver_up", &[]);
    exporter.wait_for("no driver", |metrics| up(metrics) == Some(0.0));
    scenario.rewrite(&at(81, &events, ""));
    exporter.wait_for("the driver", |metrics| last_xid(metrics, 0).is_some());
    events += &xid(0, 82, 31);
    scenario.rewrite(&at(82, &events, ""));
    let metrics = exporter.wait_for("the third", |metrics| total(metrics, 0, 31) == Some(1.0));
    assert_eq!((total(&metrics, 0, 48), total(&metrics, 1, 48)), (Some(2.0), None));
    let named = ["err_code=\"31\"", "err_msg=\"GPU memory page fault\""];
    assert_eq!(value(&metrics, "DCGM_FI_DEV_XID_ERRORS", &named), Some(31.0));
}

/// A failed `nvmlEventSetCreate` is retried.
#[test]
fn failed_event_subscription_is_retried() {
    let refusing = "[[fault]]\nfunction = \"nvmlEventSetCreate\"\ncode = \"UNKNOWN\"\n";
    let scenario = Scenario::new("retry", &two_t4(60, refusing));
    let exporter = start(&scenario);
    let missing = |metrics: &str| {
        let labels = ["gpu=\"0\"", "reason=\"failed\""];
        value(metrics, "nvml_exporter_gpu_missing_readings", &labels)
    };
    let metrics = exporter.wait_for("the refusal", |metrics| missing(metrics) == Some(1.0));
    assert_eq!(last_xid(&metrics, 0), None, "there is no subscription");
    scenario.rewrite(&two_t4(61, ""));
    let is_subscribed =
        |metrics: &str| (last_xid(metrics, 0), last_xid(metrics, 1)) == (Some(0.0), Some(0.0));
    exporter.wait_for("the subscription", is_subscribed);
    scenario.rewrite(&two_t4(62, &xid(1, 62, 63)));
    exporter.wait_for("the XID", |metrics| count(metrics, 1, 63) == Some(1.0));
}

#[test]
fn clock_event_reasons_are_counted_per_sample() {
    let (_directory, file) = event_counters();
    let scenario = Scenario::new("clocks", &two_t4(60, ""));
    let exporter =
        Exporter::start(&[&[scenario.flag().as_str(), &file], FLAGS.as_slice()].concat());
    let samples = |metrics: &str, event: &str| {
        let labels =
            ["gpu=\"1\"", &format!("clock_event=\"{event}\""), "window_size_in_ms=\"300000\""];
        value(metrics, "DCGM_EXP_CLOCK_EVENTS_COUNT", &labels)
    };
    let metrics = exporter.wait_for("samples", |metrics| samples(metrics, "gpu_idle") > Some(3.0));
    assert_eq!(samples(&metrics, "hw_thermal"), Some(0.0), "known to be inactive");
    let since_start = ["gpu=\"1\"", "clock_event=\"gpu_idle\"}"];
    assert_eq!(
        value(&metrics, "DCGM_EXP_CLOCK_EVENTS_TOTAL", &since_start),
        Some(0.0),
        "it was active before the start"
    );
}

#[test]
fn p2p_status_is_exported_per_pair_of_gpus() {
    let (_directory, file) = event_counters();
    let pairs = |model: &str| {
        let scenario = Scenario::new("p2p", &format!("[[gpu]]\nmodel = \"{model}\"\ncount = 3\n"));
        let metrics = crate::exporter::run_once(&[&scenario.flag(), &file]);
        let status = |line: &&str| line.rsplit(' ').next().unwrap().to_owned();
        crate::exporter::series(&metrics, "DCGM_EXP_P2P_STATUS")
            .iter()
            .map(status)
            .collect::<Vec<_>>()
    };
    assert_eq!(pairs("H100"), ["0"; 6], "every ordered pair of different GPUs");
    assert_eq!(pairs("RTX 4090"), ["5"; 6]);
}

#[test]
fn xid_series_are_absent_while_events_cannot_be_received() {
    let fault = |rest: &str| format!("[[fault]]\nfunction = \"nvmlEventSetWait_v2\"\n{rest}\n");
    let scenario = Scenario::new("failing-wait", &two_t4(60, &fault("code = \"UNKNOWN\"")));
    let exporter = start(&scenario);
    let metrics = exporter.wait_for("failing waits", |metrics| {
        let failed = ["gpu=\"0\"", "reason=\"failed\""];
        last_xid(metrics, 0).is_none()
            && value(metrics, "nvml_exporter_gpu_missing_readings", &failed) == Some(1.0)
    });

    // A wait that fails immediately must not cause a busy loop.
    let (ticks, from) = (cpu_ticks(&exporter), cycles(&metrics));
    exporter.wait_for("more cycles", |metrics| cycles(metrics) > from + 10.0);
    assert!(cpu_ticks(&exporter) - ticks < 100, "CPU time of two seconds of failing waits");

    scenario.rewrite(&two_t4(60, ""));
    exporter.wait_for("the new subscription", |metrics| last_xid(metrics, 0) == Some(0.0));

    scenario.rewrite(&two_t4(60, &fault("hang = true")));
    let metrics = exporter.wait_for("the hang", |metrics| last_xid(metrics, 0).is_none());
    assert_eq!(
        value(&metrics, "nvml_exporter_gpu_up", &["gpu=\"0\""]),
        Some(1.0),
        "nothing else is affected"
    );
}

#[test]
fn driver_without_event_support_has_no_xid_series() {
    let missing = "[[fault]]\nfunction = \"nvmlEventSetCreate\"\nmissing = true\n";
    let scenario = Scenario::new("eventless", &two_t4(60, missing));
    let exporter = start(&scenario);
    let metrics = exporter.wait_for("three cycles", |metrics| {
        cycles(metrics) > 3.0 && value(metrics, "DCGM_FI_DEV_GPU_UTIL", &["gpu=\"0\""]).is_some()
    });
    assert_eq!(last_xid(&metrics, 0), None);
}

#[test]
fn nvlink_bandwidth_equals_the_traffic_of_the_process() {
    let scenario = Scenario::new(
        "links",
        "[[gpu]]\nmodel = \"H100\"\ncount = 2\n[[process]]\npid = 7\nname = \"nccl\"\ngpus = [0]\n\
         memory = \"1 GiB\"\nnvlink = 2000\n",
    );
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval", "1000"]);
    let rate = |metrics: &str, gpu: u32| {
        value(metrics, "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", &[&format!("gpu=\"{gpu}\"")])
    };
    // 2000 MiB/s in each direction, in thousands of KiB.
    let metrics =
        exporter.wait_for("traffic", |metrics| rate(metrics, 0).is_some_and(|rate| rate > 0.0));
    let measured = rate(&metrics, 0).unwrap();
    assert!((measured - 4096.0).abs() < 0.25 * 4096.0, "{measured}");
    assert_eq!(rate(&metrics, 1), Some(0.0));
}
