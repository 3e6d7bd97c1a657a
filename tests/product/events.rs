//! What the driver tells by itself, and rates, which need time to pass.

use crate::exporter::{Exporter, Scenario, value};

const QUICK: [&str; 2] = ["--collect-interval", "200"];

fn start(scenario: &Scenario) -> Exporter {
    Exporter::start(&[&[scenario.flag().as_str()], QUICK.as_slice()].concat())
}

fn last_xid(page: &str, gpu: u32) -> Option<f64> {
    value(page, "DCGM_FI_DEV_XID_ERRORS", &[&format!("gpu=\"{gpu}\"")])
}

fn count(page: &str, gpu: u32, xid: u32) -> Option<f64> {
    let labels = [format!("gpu=\"{gpu}\""), format!("xid=\"{xid}\"")];
    value(page, "nvml_exporter_xid_events_total", &labels.each_ref().map(String::as_str))
}

fn cycles(page: &str) -> f64 {
    value(page, "nvml_exporter_cycles_total", &[]).unwrap_or(0.0)
}

fn cpu_ticks(exporter: &Exporter) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", exporter.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Two GPUs at a moment, and what else there is.
fn two_t4(now: u32, rest: &str) -> String {
    format!("now = {now}\n{rest}\n[[gpu]]\nmodel = \"T4\"\ncount = 2\n")
}

fn xid(gpu: u32, at: u32, code: u32) -> String {
    format!("[[xid]]\ngpu = {gpu}\nat = {at}\ncode = {code}\n")
}

#[test]
fn an_xid_is_told_at_once_and_counted_once() {
    let scenario = Scenario::new("xid", &two_t4(60, ""));
    let exporter = start(&scenario);
    exporter.wait_for("somebody listening", |page| {
        (last_xid(page, 0), last_xid(page, 1)) == (Some(0.0), Some(0.0))
    });

    let first = xid(1, 61, 31);
    scenario.rewrite(&two_t4(61, &first));
    exporter.wait_for("the XID", |page| last_xid(page, 1) == Some(31.0));

    // Several at one moment come one by one, and none is lost.
    let more = [xid(1, 62, 43), xid(1, 62, 43), xid(1, 62, 13)].concat();
    scenario.rewrite(&two_t4(62, &format!("{first}{more}")));
    let page = exporter.wait_for("three more", |page| count(page, 1, 13) == Some(1.0));
    let counts = |page: &str| [31, 43, 13].map(|code| count(page, 1, code));
    assert_eq!(counts(&page), [Some(1.0), Some(2.0), Some(1.0)]);
    assert_eq!(last_xid(&page, 1), Some(13.0));

    // Nothing is told twice, and the other GPU is not concerned.
    let from = cycles(&page);
    let page = exporter.wait_for("more cycles", |page| cycles(page) > from + 10.0);
    assert_eq!(counts(&page), [Some(1.0), Some(2.0), Some(1.0)]);
    assert_eq!((last_xid(&page, 0), count(&page, 0, 31)), (Some(0.0), None));
    let log = exporter.log();
    assert_eq!(log.matches(" XID ").count(), 3, "a line for each code: {log}");
}

#[test]
fn a_gpu_that_fell_off_the_bus_says_so_with_its_last_breath() {
    let lost = "model = \"T4\"\nlost = [{ from = 61 }]";
    let scenario = Scenario::new("lost", &two_t4(60, ""));
    let exporter = start(&scenario);
    exporter.wait_for("somebody listening", |page| last_xid(page, 1) == Some(0.0));
    scenario.rewrite(&format!("now = 61\n[[gpu]]\nmodel = \"T4\"\n[[gpu]]\n{lost}\n"));
    let page = exporter.wait_for("XID 79", |page| last_xid(page, 1) == Some(79.0));
    let up = |page: &str| value(page, "nvml_exporter_gpu_up", &["gpu=\"1\""]);
    let page = if up(&page) == Some(0.0) {
        page
    } else {
        exporter.wait_for("the loss", |page| up(page) == Some(0.0))
    };
    assert_eq!(value(&page, "DCGM_FI_DEV_GPU_UTIL", &["gpu=\"1\""]), None);
    assert_eq!(last_xid(&page, 1), Some(79.0), "what has befallen it stays true");
    assert_eq!(last_xid(&page, 0), Some(0.0));
}

#[test]
fn xids_are_remembered_through_a_reload_of_the_driver() {
    let scenario = Scenario::new("reload", &two_t4(60, ""));
    let exporter = start(&scenario);
    exporter.wait_for("somebody listening", |page| last_xid(page, 0) == Some(0.0));
    let event = xid(0, 61, 48);
    scenario.rewrite(&two_t4(61, &event));
    exporter.wait_for("the XID", |page| last_xid(page, 0) == Some(48.0));

    let reloading = "[driver]\nreload = [{ from = 70, to = 80 }]\n";
    scenario.rewrite(&two_t4(71, &format!("{event}{reloading}")));
    let page =
        exporter.wait_for("no driver", |p| value(p, "nvml_exporter_driver_up", &[]) == Some(0.0));
    assert_eq!(last_xid(&page, 0), None, "no GPU is known");
    scenario.rewrite(&two_t4(81, &format!("{event}{reloading}")));
    let page = exporter.wait_for("the driver", |page| last_xid(page, 0).is_some());
    assert_eq!((last_xid(&page, 0), count(&page, 0, 48)), (Some(48.0), Some(1.0)));

    let second = xid(0, 90, 48);
    scenario.rewrite(&two_t4(90, &format!("{event}{second}{reloading}")));
    exporter.wait_for("another one", |page| count(page, 0, 48) == Some(2.0));
}

/// A counters file with the families of events.
fn counted() -> (tempfile::TempDir, String) {
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

fn total(page: &str, gpu: u32, xid: u32) -> Option<f64> {
    let labels = [format!("gpu=\"{gpu}\""), format!("xid=\"{xid}\"")];
    value(page, "DCGM_EXP_XID_ERRORS_TOTAL", &labels.each_ref().map(String::as_str))
}

/// Once each: through a wait that fails, through a driver that is loaded anew, and with it a thread that
/// listens anew.
#[test]
fn xids_are_counted_once_whatever_happens_between_them() {
    let (_directory, file) = counted();
    let dcgm = ["--dialect", "dcgm-exporter"];
    let failing = "[[fault]]\nfunction = \"nvmlEventSetWait_v2\"\ncode = \"UNKNOWN\"\n";
    let reload = "[driver]\nreload = [{ from = 70, to = 80 }]\n";
    let scenario = Scenario::new("once", &two_t4(60, reload));
    let flags = [scenario.flag(), file];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let exporter = Exporter::start(&[&flags, QUICK.as_slice(), &dcgm].concat());
    let quiet = "err_code=\"0\",err_msg=\"No Error\"";
    let page = exporter.wait_for("somebody listening", |page| {
        value(page, "DCGM_FI_DEV_XID_ERRORS", &["gpu=\"0\"", quiet]) == Some(0.0)
    });
    let window = ["gpu=\"0\"", "window_size_in_ms=\"300000\"}"];
    assert_eq!(value(&page, "DCGM_EXP_XID_ERRORS_COUNT", &window), Some(0.0), "one without an XID");
    assert_eq!(total(&page, 0, 48), None);

    let mut told = xid(0, 61, 48);
    let at = |now: u32, told: &str, fault: &str| two_t4(now, &format!("{reload}{told}{fault}"));
    scenario.rewrite(&at(61, &told, ""));
    exporter.wait_for("the first", |page| total(page, 0, 48) == Some(1.0));

    // The driver keeps what nobody has fetched yet.
    scenario.rewrite(&at(61, &told, failing));
    exporter.wait_for("deafness", |page| last_xid(page, 0).is_none());
    told += &xid(0, 62, 48);
    scenario.rewrite(&at(62, &told, failing));
    scenario.rewrite(&at(62, &told, ""));
    exporter.wait_for("the second", |page| total(page, 0, 48) == Some(2.0));

    scenario.rewrite(&at(71, &told, ""));
    let up = |page: &str| value(page, "nvml_exporter_driver_up", &[]);
    exporter.wait_for("no driver", |page| up(page) == Some(0.0));
    scenario.rewrite(&at(81, &told, ""));
    exporter.wait_for("the driver", |page| last_xid(page, 0).is_some());
    told += &xid(0, 82, 31);
    scenario.rewrite(&at(82, &told, ""));
    let page = exporter.wait_for("the third", |page| total(page, 0, 31) == Some(1.0));
    assert_eq!((total(&page, 0, 48), total(&page, 1, 48)), (Some(2.0), None));
    let named = ["err_code=\"31\"", "err_msg=\"GPU memory page fault\""];
    assert_eq!(value(&page, "DCGM_FI_DEV_XID_ERRORS", &named), Some(31.0));
}

/// A driver that gives no set of events at first, or that will not tell of a GPU, is asked again.
#[test]
fn a_driver_that_would_not_tell_is_asked_again() {
    let refusing = "[[fault]]\nfunction = \"nvmlEventSetCreate\"\ncode = \"UNKNOWN\"\n";
    let scenario = Scenario::new("again", &two_t4(60, refusing));
    let exporter = start(&scenario);
    let missing = |page: &str| {
        let labels = ["gpu=\"0\"", "reason=\"failed\""];
        value(page, "nvml_exporter_gpu_missing_readings", &labels)
    };
    let page = exporter.wait_for("the refusal", |page| missing(page) == Some(1.0));
    assert_eq!(last_xid(&page, 0), None, "nobody listens");
    scenario.rewrite(&two_t4(61, ""));
    let listening = |page: &str| (last_xid(page, 0), last_xid(page, 1)) == (Some(0.0), Some(0.0));
    exporter.wait_for("somebody listening", listening);
    scenario.rewrite(&two_t4(62, &xid(1, 62, 63)));
    exporter.wait_for("the XID", |page| count(page, 1, 63) == Some(1.0));
}

#[test]
fn reasons_for_lower_clocks_are_counted_by_sample() {
    let (_directory, file) = counted();
    let scenario = Scenario::new("clocks", &two_t4(60, ""));
    let exporter =
        Exporter::start(&[&[scenario.flag().as_str(), &file], QUICK.as_slice()].concat());
    let samples = |page: &str, event: &str| {
        let labels =
            ["gpu=\"1\"", &format!("clock_event=\"{event}\""), "window_size_in_ms=\"300000\""];
        value(page, "DCGM_EXP_CLOCK_EVENTS_COUNT", &labels)
    };
    let page = exporter.wait_for("samples", |page| samples(page, "gpu_idle") > Some(3.0));
    assert_eq!(samples(&page, "hw_thermal"), Some(0.0), "known not to be");
    let begun = ["gpu=\"1\"", "clock_event=\"gpu_idle\"}"];
    assert_eq!(
        value(&page, "DCGM_EXP_CLOCK_EVENTS_TOTAL", &begun),
        Some(0.0),
        "it was there before"
    );
}

#[test]
fn gpus_tell_how_they_reach_one_another() {
    let (_directory, file) = counted();
    let pairs = |model: &str| {
        let scenario = Scenario::new("p2p", &format!("[[gpu]]\nmodel = \"{model}\"\ncount = 3\n"));
        let page = crate::exporter::once(&[&scenario.flag(), &file]);
        let of = |line: &&str| line.rsplit(' ').next().unwrap().to_owned();
        crate::exporter::series(&page, "DCGM_EXP_P2P_STATUS").iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(pairs("H100"), ["0"; 6], "each to each other, and none to itself");
    assert_eq!(pairs("RTX 4090"), ["5"; 6]);
}

#[test]
fn nobody_listening_is_not_no_xid() {
    let fault = |rest: &str| format!("[[fault]]\nfunction = \"nvmlEventSetWait_v2\"\n{rest}\n");
    let scenario = Scenario::new("deaf", &two_t4(60, &fault("code = \"UNKNOWN\"")));
    let exporter = start(&scenario);
    let page = exporter.wait_for("failing waits", |page| {
        let failed = ["gpu=\"0\"", "reason=\"failed\""];
        last_xid(page, 0).is_none()
            && value(page, "nvml_exporter_gpu_missing_readings", &failed) == Some(1.0)
    });

    // A wait that fails at once must not spin.
    let (ticks, from) = (cpu_ticks(&exporter), cycles(&page));
    exporter.wait_for("more cycles", |page| cycles(page) > from + 10.0);
    assert!(cpu_ticks(&exporter) - ticks < 100, "two seconds of waiting are not work");

    scenario.rewrite(&two_t4(60, ""));
    exporter.wait_for("somebody listening again", |page| last_xid(page, 0) == Some(0.0));

    scenario.rewrite(&two_t4(60, &fault("hang = true")));
    let page = exporter.wait_for("silence", |page| last_xid(page, 0).is_none());
    assert_eq!(value(&page, "nvml_exporter_gpu_up", &["gpu=\"0\""]), Some(1.0), "and only that");
}

#[test]
fn a_driver_without_events_has_no_xids() {
    let missing = "[[fault]]\nfunction = \"nvmlEventSetCreate\"\nmissing = true\n";
    let scenario = Scenario::new("eventless", &two_t4(60, missing));
    let exporter = start(&scenario);
    let page = exporter.wait_for("a full page", |page| {
        cycles(page) > 3.0 && value(page, "DCGM_FI_DEV_GPU_UTIL", &["gpu=\"0\""]).is_some()
    });
    assert_eq!(last_xid(&page, 0), None);
}

#[test]
fn the_rate_of_the_links_is_what_the_process_sends() {
    let scenario = Scenario::new(
        "links",
        "[[gpu]]\nmodel = \"H100\"\ncount = 2\n[[process]]\npid = 7\nname = \"nccl\"\ngpus = [0]\n\
         memory = \"1 GiB\"\nnvlink = 2000\n",
    );
    let exporter = Exporter::start(&[&scenario.flag(), "--collect-interval", "1000"]);
    let rate = |page: &str, gpu: u32| {
        value(page, "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", &[&format!("gpu=\"{gpu}\"")])
    };
    // 2000 MiB/s in each direction, in thousands of KiB.
    let page = exporter.wait_for("traffic", |page| rate(page, 0).is_some_and(|rate| rate > 0.0));
    let told = rate(&page, 0).unwrap();
    assert!((told - 4096.0).abs() < 0.25 * 4096.0, "{told}");
    assert_eq!(rate(&page, 1), Some(0.0));
}
