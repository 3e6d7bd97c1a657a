//! GPU health as far as NVML reports it: health watches and NVLink states.

use crate::exporter::{Exporter, Scenario, run_once, series, value};

const FLAGS: [&str; 2] = ["--collect-interval", "200"];

/// A counters file that selects these families.
fn counters_file(families: &[&str]) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counters.csv");
    let end = ", gauge, x\n";
    std::fs::write(&file, families.join(end) + end).unwrap();
    let flag = format!("-f={}", file.display());
    (directory, flag)
}

fn health_counters() -> (tempfile::TempDir, String) {
    counters_file(&["DCGM_EXP_GPU_HEALTH_STATUS"])
}

/// Value and `health_error_code` of one health watch of a GPU.
fn watch(metrics: &str, gpu: u32, watch: &str) -> Option<(f64, String)> {
    let (gpu, watch) = (format!("gpu=\"{gpu}\""), format!("health_watch=\"{watch}\""));
    let all = series(metrics, "DCGM_EXP_GPU_HEALTH_STATUS");
    let line = all.into_iter().find(|line| line.contains(&gpu) && line.contains(&watch))?;
    let (_, rest) = line.split_once("health_error_code=\"")?;
    let (code, _) = rest.split_once('"')?;
    Some((line.rsplit(' ').next()?.parse().ok()?, code.to_owned()))
}

fn has_state(metrics: &str, gpu: u32, name: &str, number: f64, code: &str) -> bool {
    watch(metrics, gpu, name) == Some((number, code.to_owned()))
}

fn passes(metrics: &str, gpu: u32, name: &str) -> bool {
    has_state(metrics, gpu, name, 0.0, "DCGM_FR_OK")
}

const WATCHES: [&str; 7] = ["PCIE", "NVLINK", "MEM", "INFOROM", "THERMAL", "POWER", "DRIVER"];

#[test]
fn healthy_gpu_passes_and_unsupported_watches_are_absent() {
    let (_directory, file) = health_counters();
    let gpus =
        "[[gpu]]\nmodel = \"H100\"\n[[gpu]]\nmodel = \"T4\"\n[[gpu]]\nmodel = \"RTX 4090\"\n";
    let scenario = Scenario::new("healthy", &format!("now = 60\n{gpus}"));
    let metrics = run_once(&[&scenario.flag(), &file, "--dialect", "dcgm-exporter"]);
    let watches = |gpu| -> Vec<&str> {
        WATCHES.into_iter().filter(|name| watch(&metrics, gpu, name).is_some()).collect()
    };
    assert_eq!(watches(0), WATCHES);
    assert!(!watches(1).contains(&"NVLINK"), "a T4 has no NVLink");
    assert_eq!(
        watches(2),
        ["PCIE", "INFOROM", "THERMAL", "POWER", "DRIVER"],
        "an RTX 4090 has neither NVLink nor ECC"
    );
    for gpu in 0..3 {
        assert!(watches(gpu).iter().all(|name| passes(&metrics, gpu, name)), "{gpu}: {metrics}");
        assert!(passes(&metrics, gpu, "ALL"));
    }
    for unknown in ["PMU", "MCU", "SM"] {
        assert_eq!(watch(&metrics, 0, unknown), None, "NVML does not report it");
    }
}

#[test]
fn health_watches_fail_and_recover_with_their_cause() {
    let (_directory, file) = health_counters();
    let h100 = |now: u32, gpu: &str, rest: &str| {
        format!("now = {now}\n[[gpu]]\nmodel = \"H100\"\n{gpu}\n{rest}")
    };
    let scenario = Scenario::new("failing", &h100(60, "", ""));
    let exporter =
        Exporter::start(&[&[scenario.flag().as_str(), &file], FLAGS.as_slice()].concat());
    exporter.wait_for("health", |metrics| passes(metrics, 0, "ALL"));

    scenario.rewrite(&h100(61, "ecc = { dbe_volatile = 1, dbe_aggregate = 1 }", ""));
    let metrics = exporter.wait_for("a memory error", |metrics| {
        has_state(metrics, 0, "MEM", 20.0, "DCGM_FR_VOLATILE_DBE_DETECTED")
    });
    assert!(has_state(&metrics, 0, "ALL", 20.0, "DCGM_FR_VOLATILE_DBE_DETECTED"));
    assert!(passes(&metrics, 0, "NVLINK") && passes(&metrics, 0, "DRIVER"));

    scenario.rewrite(&h100(62, "remapped = { uncorrectable = 1, pending = true }", ""));
    exporter.wait_for("a row to remap", |metrics| {
        has_state(metrics, 0, "MEM", 10.0, "DCGM_FR_PENDING_ROW_REMAP")
    });

    let slowed = "slowed = [{ by = \"board_limit\", from = 60, to = 70 }]";
    scenario.rewrite(&h100(63, slowed, ""));
    exporter.wait_for("the power brake", |metrics| {
        has_state(metrics, 0, "POWER", 10.0, "DCGM_FR_CLOCK_THROTTLE_POWER")
            && passes(metrics, 0, "MEM")
    });

    let link_errors = "nvlink = { link = 3, replay = 1, from = 63 }";
    scenario.rewrite(&h100(64, link_errors, ""));
    exporter.wait_for("a retry of a link", |metrics| {
        has_state(metrics, 0, "NVLINK", 20.0, "DCGM_FR_NVLINK_ERROR_CRITICAL")
            && passes(metrics, 0, "POWER")
    });

    let xid = "[[xid]]\ngpu = 0\nat = 65\ncode = 119\n";
    scenario.rewrite(&h100(65, link_errors, xid));
    exporter
        .wait_for("the XID", |metrics| has_state(metrics, 0, "DRIVER", 20.0, "DCGM_FR_XID_ERROR"));
    let reload = "[driver]\nreload = [{ from = 70, to = 80 }]\n";
    scenario.rewrite(&h100(71, link_errors, &format!("{xid}{reload}")));
    exporter.wait_for("no driver", |metrics| {
        value(metrics, "nvml_exporter_driver_up", &[]) == Some(0.0)
    });
    scenario.rewrite(&h100(81, "", &format!("{xid}{reload}")));
    exporter.wait_for("the reloaded driver", |metrics| passes(metrics, 0, "ALL"));
}

#[test]
fn lost_gpu_fails_until_it_returns() {
    let (_directory, file) = health_counters();
    let gpus = |now: u32| {
        let lost = "[[gpu]]\nmodel = \"T4\"\nlost = [{ from = 61, to = 70 }]\n";
        format!("now = {now}\n[[gpu]]\nmodel = \"T4\"\n{lost}")
    };
    let scenario = Scenario::new("lost-health", &gpus(60));
    let exporter =
        Exporter::start(&[&[scenario.flag().as_str(), &file], FLAGS.as_slice()].concat());
    exporter.wait_for("health", |metrics| passes(metrics, 0, "ALL") && passes(metrics, 1, "ALL"));
    scenario.rewrite(&gpus(62));
    let metrics = exporter.wait_for("the loss", |metrics| {
        has_state(metrics, 1, "DRIVER", 20.0, "DCGM_FR_FALLEN_OFF_BUS")
            && watch(metrics, 1, "PCIE").is_none()
    });
    assert_eq!(watch(&metrics, 1, "THERMAL"), None, "it cannot be read");
    assert!(
        has_state(&metrics, 1, "ALL", 20.0, "DCGM_FR_FALLEN_OFF_BUS") && passes(&metrics, 0, "ALL")
    );
    scenario.rewrite(&gpus(71));
    exporter.wait_for("the GPU", |metrics| passes(metrics, 1, "ALL"));
}

#[test]
fn unreadable_watches_do_not_pass() {
    let (_directory, file) = health_counters();
    let fault = |rest: &str| format!("now = 60\n[[gpu]]\nmodel = \"H100\"\n[[fault]]\n{rest}\n");
    let scrape = |name: &str, rest: &str| {
        let scenario = Scenario::new(name, &fault(rest));
        run_once(&[&scenario.flag(), &file])
    };
    let broken = "function = \"nvmlDeviceValidateInforom\"\ncode = \"CORRUPTED_INFOROM\"";
    let broken = scrape("inforom", broken);
    assert!(has_state(&broken, 0, "INFOROM", 10.0, "DCGM_FR_CORRUPT_INFOROM"), "{broken}");
    let unread = scrape("unread", "function = \"nvmlDeviceGetFieldValues\"\ncode = \"UNKNOWN\"");
    for name in ["PCIE", "MEM", "NVLINK", "THERMAL", "ALL"] {
        assert_eq!(watch(&unread, 0, name), None, "{name}");
    }
    assert!(passes(&unread, 0, "POWER") && passes(&unread, 0, "INFOROM"));
}

#[test]
fn nvlink_states_are_exported_and_a_failing_link_is_reported() {
    let (_directory, file) =
        counters_file(&["DCGM_FI_DEV_NVLINK_LINK_STATUS", "DCGM_EXP_GPU_HEALTH_STATUS"]);
    let a100 = |driver: &str, down: &str| {
        let driver = format!("[driver]\nversion = \"{driver}\"\n");
        format!("{driver}[[gpu]]\nmodel = \"A100\"\nnvlink = {{ down = [{down}] }}\n")
    };
    let states = |metrics: &str| {
        let state = |line: &&str| line.rsplit(' ').next().unwrap().to_owned();
        series(metrics, "DCGM_FI_DEV_NVLINK_LINK_STATUS").iter().map(state).collect::<String>()
    };
    // Driver 470 does not have the NVML field; `nvmlDeviceGetNvLinkState` is used instead.
    for driver in ["550.54.15", "470.256.02"] {
        let scenario = Scenario::new(&format!("links-{driver}"), &a100(driver, "2"));
        let metrics = run_once(&[&scenario.flag(), &file]);
        assert_eq!(states(&metrics), "110111111111", "{driver}");
        assert!(passes(&metrics, 0, "NVLINK"), "{driver}: the link may be unconnected");
        let link = ["gpu=\"0\"", "nvlink=\"2\""];
        assert_eq!(value(&metrics, "DCGM_FI_DEV_NVLINK_LINK_STATUS", &link), Some(0.0));
    }
    let scenario = Scenario::new("link-down", &a100("550.54.15", "2"));
    let exporter =
        Exporter::start(&[&[scenario.flag().as_str(), &file], FLAGS.as_slice()].concat());
    exporter.wait_for("health", |metrics| passes(metrics, 0, "NVLINK"));
    scenario.rewrite(&a100("550.54.15", "2, 7"));
    let metrics = exporter.wait_for("the failing link", |metrics| {
        has_state(metrics, 0, "NVLINK", 20.0, "DCGM_FR_NVLINK_DOWN")
    });
    assert_eq!(states(&metrics), "110111101111");
    let scenario = Scenario::new("no-links", "[[gpu]]\nmodel = \"T4\"\n");
    assert_eq!(states(&run_once(&[&scenario.flag(), &file])), "");
}
