//! How GPUs fare, as far as NVML tells: watches and links.

use crate::exporter::{Exporter, Scenario, once, series, value};

const QUICK: [&str; 2] = ["--collect-interval", "200"];

/// A counters file with these families.
fn chosen(families: &[&str]) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counters.csv");
    let end = ", gauge, x\n";
    std::fs::write(&file, families.join(end) + end).unwrap();
    let flag = format!("-f={}", file.display());
    (directory, flag)
}

fn health() -> (tempfile::TempDir, String) {
    chosen(&["DCGM_EXP_GPU_HEALTH_STATUS"])
}

/// What a watch of a GPU says: its number and its code.
fn watch(page: &str, gpu: u32, watch: &str) -> Option<(f64, String)> {
    let (gpu, watch) = (format!("gpu=\"{gpu}\""), format!("health_watch=\"{watch}\""));
    let all = series(page, "DCGM_EXP_GPU_HEALTH_STATUS");
    let line = all.into_iter().find(|line| line.contains(&gpu) && line.contains(&watch))?;
    let (_, rest) = line.split_once("health_error_code=\"")?;
    let (code, _) = rest.split_once('"')?;
    Some((line.rsplit(' ').next()?.parse().ok()?, code.to_owned()))
}

fn is(page: &str, gpu: u32, name: &str, number: f64, code: &str) -> bool {
    watch(page, gpu, name) == Some((number, code.to_owned()))
}

fn passes(page: &str, gpu: u32, name: &str) -> bool {
    is(page, gpu, name, 0.0, "DCGM_FR_OK")
}

const WATCHES: [&str; 7] = ["PCIE", "NVLINK", "MEM", "INFOROM", "THERMAL", "POWER", "DRIVER"];

#[test]
fn a_gpu_that_is_well_passes_and_what_cannot_be_judged_is_absent() {
    let (_directory, file) = health();
    let gpus =
        "[[gpu]]\nmodel = \"H100\"\n[[gpu]]\nmodel = \"T4\"\n[[gpu]]\nmodel = \"RTX 4090\"\n";
    let scenario = Scenario::new("well", &format!("now = 60\n{gpus}"));
    let page = once(&[&scenario.flag(), &file, "--dialect", "dcgm-exporter"]);
    let judged = |gpu| -> Vec<&str> {
        WATCHES.into_iter().filter(|name| watch(&page, gpu, name).is_some()).collect()
    };
    assert_eq!(judged(0), WATCHES);
    assert!(!judged(1).contains(&"NVLINK"), "a T4 has no links");
    assert_eq!(judged(2), ["PCIE", "INFOROM", "THERMAL", "POWER", "DRIVER"], "nor ECC");
    for gpu in 0..3 {
        assert!(judged(gpu).iter().all(|name| passes(&page, gpu, name)), "{gpu}: {page}");
        assert!(passes(&page, gpu, "ALL"));
    }
    for unknown in ["PMU", "MCU", "SM"] {
        assert_eq!(watch(&page, 0, unknown), None, "NVML has nothing on it");
    }
}

#[test]
fn what_goes_wrong_is_told_and_mended_with_its_cause() {
    let (_directory, file) = health();
    let h100 = |now: u32, gpu: &str, rest: &str| {
        format!("now = {now}\n[[gpu]]\nmodel = \"H100\"\n{gpu}\n{rest}")
    };
    let scenario = Scenario::new("wrong", &h100(60, "", ""));
    let exporter =
        Exporter::start(&[&[scenario.flag().as_str(), &file], QUICK.as_slice()].concat());
    exporter.wait_for("health", |page| passes(page, 0, "ALL"));

    scenario.rewrite(&h100(61, "ecc = { dbe_volatile = 1, dbe_aggregate = 1 }", ""));
    let page = exporter.wait_for("a memory error", |page| {
        is(page, 0, "MEM", 20.0, "DCGM_FR_VOLATILE_DBE_DETECTED")
    });
    assert!(is(&page, 0, "ALL", 20.0, "DCGM_FR_VOLATILE_DBE_DETECTED"));
    assert!(passes(&page, 0, "NVLINK") && passes(&page, 0, "DRIVER"));

    scenario.rewrite(&h100(62, "remapped = { uncorrectable = 1, pending = true }", ""));
    exporter
        .wait_for("a row to remap", |page| is(page, 0, "MEM", 10.0, "DCGM_FR_PENDING_ROW_REMAP"));

    let slowed = "slowed = [{ by = \"board_limit\", from = 60, to = 70 }]";
    scenario.rewrite(&h100(63, slowed, ""));
    exporter.wait_for("the power brake", |page| {
        is(page, 0, "POWER", 10.0, "DCGM_FR_CLOCK_THROTTLE_POWER") && passes(page, 0, "MEM")
    });

    let errs = "nvlink = { link = 3, replay = 1, from = 63 }";
    scenario.rewrite(&h100(64, errs, ""));
    exporter.wait_for("a retry of a link", |page| {
        is(page, 0, "NVLINK", 20.0, "DCGM_FR_NVLINK_ERROR_CRITICAL") && passes(page, 0, "POWER")
    });

    let fails = "[[xid]]\ngpu = 0\nat = 65\ncode = 119\n";
    scenario.rewrite(&h100(65, errs, fails));
    exporter.wait_for("the XID", |page| is(page, 0, "DRIVER", 20.0, "DCGM_FR_XID_ERROR"));
    let reload = "[driver]\nreload = [{ from = 70, to = 80 }]\n";
    scenario.rewrite(&h100(71, errs, &format!("{fails}{reload}")));
    exporter.wait_for("no driver", |page| value(page, "nvml_exporter_driver_up", &[]) == Some(0.0));
    scenario.rewrite(&h100(81, "", &format!("{fails}{reload}")));
    exporter.wait_for("a driver that has begun anew", |page| passes(page, 0, "ALL"));
}

#[test]
fn a_gpu_that_is_lost_fails_until_it_is_back() {
    let (_directory, file) = health();
    let gpus = |now: u32| {
        let lost = "[[gpu]]\nmodel = \"T4\"\nlost = [{ from = 61, to = 70 }]\n";
        format!("now = {now}\n[[gpu]]\nmodel = \"T4\"\n{lost}")
    };
    let scenario = Scenario::new("lost-health", &gpus(60));
    let exporter =
        Exporter::start(&[&[scenario.flag().as_str(), &file], QUICK.as_slice()].concat());
    exporter.wait_for("health", |page| passes(page, 0, "ALL") && passes(page, 1, "ALL"));
    scenario.rewrite(&gpus(62));
    let page = exporter.wait_for("the loss", |page| {
        is(page, 1, "DRIVER", 20.0, "DCGM_FR_FALLEN_OFF_BUS") && watch(page, 1, "PCIE").is_none()
    });
    assert_eq!(watch(&page, 1, "THERMAL"), None, "nobody knows");
    assert!(is(&page, 1, "ALL", 20.0, "DCGM_FR_FALLEN_OFF_BUS") && passes(&page, 0, "ALL"));
    scenario.rewrite(&gpus(71));
    exporter.wait_for("the GPU", |page| passes(page, 1, "ALL"));
}

#[test]
fn what_cannot_be_read_does_not_pass() {
    let (_directory, file) = health();
    let fault = |rest: &str| format!("now = 60\n[[gpu]]\nmodel = \"H100\"\n[[fault]]\n{rest}\n");
    let page = |name: &str, rest: &str| {
        let scenario = Scenario::new(name, &fault(rest));
        once(&[&scenario.flag(), &file])
    };
    let broken = "function = \"nvmlDeviceValidateInforom\"\ncode = \"CORRUPTED_INFOROM\"";
    let broken = page("inforom", broken);
    assert!(is(&broken, 0, "INFOROM", 10.0, "DCGM_FR_CORRUPT_INFOROM"), "{broken}");
    let unread = page("unread", "function = \"nvmlDeviceGetFieldValues\"\ncode = \"UNKNOWN\"");
    for name in ["PCIE", "MEM", "NVLINK", "THERMAL", "ALL"] {
        assert_eq!(watch(&unread, 0, name), None, "{name}");
    }
    assert!(passes(&unread, 0, "POWER") && passes(&unread, 0, "INFOROM"));
}

#[test]
fn each_link_tells_its_state_and_one_that_falls_is_told() {
    let (_directory, file) =
        chosen(&["DCGM_FI_DEV_NVLINK_LINK_STATUS", "DCGM_EXP_GPU_HEALTH_STATUS"]);
    let a100 = |driver: &str, down: &str| {
        let driver = format!("[driver]\nversion = \"{driver}\"\n");
        format!("{driver}[[gpu]]\nmodel = \"A100\"\nnvlink = {{ down = [{down}] }}\n")
    };
    let states = |page: &str| {
        let of = |line: &&str| line.rsplit(' ').next().unwrap().to_owned();
        series(page, "DCGM_FI_DEV_NVLINK_LINK_STATUS").iter().map(of).collect::<String>()
    };
    // A driver from before the field tells all the same.
    for driver in ["550.54.15", "470.256.02"] {
        let scenario = Scenario::new(&format!("links-{driver}"), &a100(driver, "2"));
        let page = once(&[&scenario.flag(), &file]);
        assert_eq!(states(&page), "110111111111", "{driver}");
        assert!(passes(&page, 0, "NVLINK"), "{driver}: it may have no other end");
        let second = ["gpu=\"0\"", "nvlink=\"2\""];
        assert_eq!(value(&page, "DCGM_FI_DEV_NVLINK_LINK_STATUS", &second), Some(0.0));
    }
    let scenario = Scenario::new("falls", &a100("550.54.15", "2"));
    let exporter =
        Exporter::start(&[&[scenario.flag().as_str(), &file], QUICK.as_slice()].concat());
    exporter.wait_for("health", |page| passes(page, 0, "NVLINK"));
    scenario.rewrite(&a100("550.54.15", "2, 7"));
    let page =
        exporter.wait_for("the fall", |page| is(page, 0, "NVLINK", 20.0, "DCGM_FR_NVLINK_DOWN"));
    assert_eq!(states(&page), "110111101111");
    let scenario = Scenario::new("no-links", "[[gpu]]\nmodel = \"T4\"\n");
    assert_eq!(states(&once(&[&scenario.flag(), &file])), "");
}
