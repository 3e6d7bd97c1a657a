//! Calls, fields and states of drivers from 570 to 615.

use std::fs;

use crate::exporter::{Exporter, Scenario, run, run_once, series, value};

/// The exposition of some families on a node.
fn metrics_of(node: &str, families: &[&str]) -> String {
    let counters = tempfile::NamedTempFile::new().unwrap();
    let lines = families.iter().fold(String::new(), |text, name| text + name + ", gauge, A row.\n");
    fs::write(counters.path(), lines).unwrap();
    let file = format!("-f={}", counters.path().display());
    run_once(&[&Scenario::new("newest", &format!("now = 60\n{node}")).flag(), &file])
}

fn driver(version: &str, gpu: &str) -> String {
    format!("[driver]\nversion = \"{version}\"\n[[gpu]]\nmodel = \"{gpu}\"\n")
}

#[test]
fn temperature_needs_no_removed_function_and_application_clocks_have_no_successor() {
    let removed = ["nvmlDeviceGetTemperature", "nvmlDeviceGetApplicationsClock"];
    let removed = removed.map(|name| format!("[[fault]]\nfunction = \"{name}\"\nmissing = true\n"));
    let families = ["DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_APP_SM_CLOCK", "DCGM_FI_DEV_SM_CLOCK"];
    let of = |version, faults: &str| metrics_of(&(driver(version, "H100") + faults), &families);
    let present = |metrics: &str| families.map(|name| value(metrics, name, &[]).is_some());
    assert_eq!(present(&of("615.71", &removed.concat())), [true, false, true]);
    assert_eq!(present(&of("590.44.01", "")), [true, true, true]);
    assert_eq!(present(&of("595.91.07", "")), [true, false, true], "deprecated");
    assert_eq!(present(&of("550.54.15", "")), [true, true, true]);
}

#[test]
fn fields_have_the_number_of_each_driver() {
    let node = |version| {
        driver(version, "B200")
            + "ambient = 60\n[[process]]\npid = 7\nname = \"p\"\ngpus = [0]\nmemory = \"1 GiB\"\nsm = 100\n"
    };
    let families = [
        "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS",
        "DCGM_FI_DEV_PWR_SMOOTHING_APPLIED_TMP_CEIL",
        "DCGM_FI_DEV_PWR_SMOOTHING_ADMIN_OVERRIDE_RAMP_DOWN_HYST_VAL",
    ];
    let of = |version| {
        let metrics = metrics_of(&node(version), &families);
        families.map(|name| value(&metrics, name, &[]))
    };
    let [time, smoothing @ ..] = of("580.95.05");
    assert!(time.is_some_and(|ns| ns > 0.0), "{time:?}");
    assert_eq!(smoothing, [Some(1000.0), Some(500.0)]);
    assert_eq!(of("575.57.08"), [time, smoothing[0], smoothing[1]], "before they were renumbered");
    assert_eq!(of("580.65.06"), [time, smoothing[0], smoothing[1]]);
    assert_eq!(of("570.148.08"), [None, smoothing[0], smoothing[1]], "no thermal time");
    assert_eq!(of("550.54.15"), [None; 3]);
}

#[test]
fn every_link_is_read_however_many_there_are() {
    let families = ["DCGM_FI_DEV_NVLINK_GET_STATE", "DCGM_FI_DEV_NVLINK_SYMBOL_BER_RATIO"];
    let node = driver("615.71", "VR200") + "nvlink = { link = 35, symbol = 9 }\n";
    let metrics = metrics_of(&node, &families);
    let of_link = |family, link| value(&metrics, family, &[&format!("nvlink=\"{link}\"")]);
    assert_eq!(families.map(|name| series(&metrics, name).len()), [36, 36]);
    assert_eq!(of_link(families[0], 35), Some(1.0));
    assert_eq!(of_link(families[1], 35), Some(3e-12));
    assert_eq!(of_link(families[1], 34), Some(15e-255));
}

/// The watch of the links of a GPU, with its reason.
fn link_watch(metrics: &str) -> Option<(f64, String)> {
    let all = series(metrics, "DCGM_EXP_GPU_HEALTH_STATUS");
    let line = all.into_iter().find(|line| line.contains("health_watch=\"NVLINK\""))?;
    let (_, rest) = line.split_once("health_error_code=\"")?;
    Some((line.rsplit(' ').next()?.parse().ok()?, rest.split_once('"')?.0.to_owned()))
}

#[test]
fn errors_of_links_and_of_their_fabric_are_part_of_the_health() {
    let of = |gpu: &str| {
        let node = format!("[driver]\nversion = \"615.71\"\n[[gpu]]\nmodel = \"GB200\"\n{gpu}\n");
        link_watch(&metrics_of(&node, &["DCGM_EXP_GPU_HEALTH_STATUS"]))
    };
    for (faults, number, code) in [
        ("", 0.0, "OK"),
        ("nvlink = { link = 7, effective = 1 }", 20.0, "NVLINK_EFFECTIVE_BER_THRESHOLD"),
        ("nvlink = { link = 7, symbol = 1 }", 20.0, "NVLINK_SYMBOL_BER_THRESHOLD"),
        ("nvlink = { fabric = \"registering\" }", 10.0, "FABRIC_PROBE_STATE"),
        ("nvlink = { fabric = \"failed\" }", 20.0, "FABRIC_PROBE_STATE"),
        ("nvlink = { fabric = \"degraded\" }", 20.0, "FABRIC_PROBE_STATE"),
    ] {
        assert_eq!(of(faults), Some((number, format!("DCGM_FR_{code}"))), "{faults}");
    }
    // A counter that is not 0 is no reason: it has to increase.
    assert_eq!(
        of("c2c = { errors = 3 }\nnvlink = { link = 1, packet = 2 }").map(|(n, _)| n),
        Some(0.0)
    );
}

#[test]
fn increasing_errors_of_links_are_part_of_the_health() {
    let counters = tempfile::NamedTempFile::new().unwrap();
    fs::write(counters.path(), "DCGM_EXP_GPU_HEALTH_STATUS, gauge, x\n").unwrap();
    let file = format!("-f={}", counters.path().display());
    let node = |now: u32, gpu: &str| {
        let driver = "[driver]\nversion = \"615.71\"\n";
        format!("now = {now}\n{driver}[[gpu]]\nmodel = \"GB200\"\n{gpu}\n")
    };
    let scenario = Scenario::new("link-errors", &node(60, ""));
    let exporter = Exporter::start(&[&scenario.flag(), &file, "--collect-interval=200"]);
    let wait = |what: &str, number: f64, code: &str| {
        let expected = Some((number, format!("DCGM_FR_{code}")));
        exporter.wait_for(what, |metrics| link_watch(metrics) == expected);
    };
    wait("a healthy link", 0.0, "OK");
    scenario.rewrite(&node(61, "c2c = { errors = 3, from = 61 }"));
    wait("errors of a C2C link", 10.0, "FIELD_VIOLATION");
    let packets = "nvlink = { link = 3, packet = 1, from = 62 }";
    scenario.rewrite(&node(62, &format!("c2c = {{ errors = 3, from = 61 }}\n{packets}")));
    wait("errors of packets", 20.0, "NVLINK_ERROR_CRITICAL");
    scenario.rewrite(&node(63, "c2c = { down = [1] }"));
    wait("a C2C link that is down", 20.0, "NVLINK_DOWN");
}

#[test]
fn numbers_of_a_board_and_errors_of_each_link_are_those_of_the_node() {
    let of_board = [
        ("GPM_SUPPORT", 0.0),
        ("PCI_COMBINED_ID", 548_540_638.0),
        ("PCI_SUBSYS_ID", 342_036_702.0),
        ("INFOROM_VALID", 0.0),
        ("PCIE_CORRECTABLE_ERROR_TOTAL", 2.0),
        ("NVLINK_ECC_ERROR_TOTAL", 5.0),
    ];
    let of_link = [("CRC_FLIT", 1.0), ("CRC_DATA", 2.0), ("REPLAY", 3.0), ("RECOVERY", 4.0)];
    let board = of_board.map(|(name, number)| (format!("DCGM_FI_DEV_{name}"), number, ""));
    let link = of_link.map(|(name, number)| {
        (format!("DCGM_FI_DEV_NVLINK_{name}_ERROR_PER_LINK_TOTAL"), number, "nvlink=\"3\"")
    });
    let rows = [&board[..], &link].concat();
    let names: Vec<&str> = rows.iter().map(|(name, ..)| name.as_str()).collect();
    let errors =
        "nvlink = { link = 3, crc_flit = 1, crc_data = 2, replay = 3, recovery = 4, ecc = 5 }\n";
    let node = driver("570.86.15", "A100")
        + errors
        + "pcie_replays_per_hour = 120.0\n[[fault]]\nfunction = \"nvmlDeviceValidateInforom\"\ncode = \"CORRUPTED_INFOROM\"\n";
    let metrics = metrics_of(&node, &names);
    for (name, number, label) in rows {
        assert_eq!(value(&metrics, &name, &[label]), Some(number), "{name}: {metrics}");
    }
    for (name, _) in of_link {
        let name = format!("DCGM_FI_DEV_NVLINK_{name}_ERROR_PER_LINK_TOTAL");
        assert_eq!(value(&metrics, &name, &["nvlink=\"2\""]), Some(0.0), "{name}");
        assert_eq!(series(&metrics, &name).len(), 12, "{name}");
    }
}

#[test]
fn throughput_is_that_of_every_link() {
    let process = "[[process]]\npid = 7\nname = \"p\"\ngpus = [0]\nmemory = \"1 GiB\"\nsm = 50\nnvlink = 3600\n";
    let families = |link: u32| {
        ["DEV_NVLINK_BANDWIDTH_L#", "DEV_NVLINK_TX_BANDWIDTH_L#", "PROF_NVLINK_L#_RX_BYTES"]
            .map(|name| format!("DCGM_FI_{}", name.replace('#', &link.to_string())))
    };
    let counters = tempfile::NamedTempFile::new().unwrap();
    let of_label = ["DEV_NVLINK_THROUGHPUT", "DEV_NVLINK_TX_THROUGHPUT", "PROF_NVLINK_RX_BYTES"]
        .map(|name| format!("DCGM_FI_{name}_PER_LINK"));
    let all = (0..72).flat_map(families).chain(of_label.clone());
    let all = all.map(|name| format!("{name}, gauge, A row.\n"));
    fs::write(counters.path(), all.collect::<String>()).unwrap();
    let file = format!("-f={}", counters.path().display());
    // NVML has metrics of 72 links, more than a board of today has.
    for (board, keys, links) in
        [("VR200", "nvlink = { count = 72 }\n", 72), ("VR200", "", 36), ("GB200", "", 18)]
    {
        let node = Scenario::new("links", &(driver("615.71", board) + keys + process));
        let exporter = Exporter::start(&[&node.flag(), &file, "--collect-interval=200"]);
        // The links share 3600 MiB/s in each direction, which are 3774 MB/s.
        let bytes = 3_774_873_600.0 / f64::from(links);
        let near = |value: Option<f64>, expected: f64| {
            value.is_some_and(|value| (value / expected - 1.0).abs() < 0.1)
        };
        exporter.wait_for("the rate of every link", |metrics| {
            (0..links).all(|link| {
                let label = format!("nvlink=\"{link}\"");
                let by_name = families(link).map(|name| value(metrics, &name, &[]));
                let by_label = of_label.each_ref().map(|name| value(metrics, name, &[&label]));
                [by_name, by_label].into_iter().all(|[both, sent, received]| {
                    near(both, bytes * 2e-6) && near(sent, bytes * 1e-6) && near(received, bytes)
                })
            })
        });
        let metrics = exporter.metrics();
        let beyond =
            (links..72).flat_map(families).filter(|name| !series(&metrics, name).is_empty());
        assert_eq!(beyond.collect::<Vec<_>>(), Vec::<String>::new(), "{board}");
        let counted = of_label.each_ref().map(|name| series(&metrics, name).len());
        assert_eq!(counted, [usize::try_from(links).unwrap(); 3], "{board}");
    }
}

#[test]
fn actions_of_an_operator_are_on_by_default_and_raise_the_health() {
    let repair = "repair = { action = 1, unrepairable = true, tpc = true }\n";
    let node = format!("now = 60\n{}{repair}", driver("615.71", "H200"));
    let scenario = Scenario::new("repair", &node);
    for (flags, names) in [
        (vec![], ["GET_GPU_RECOVERY_ACTION", "MEMORY_UNREPAIRABLE_FLAG", "GPU_TEMP_LIMIT"]),
        (
            vec!["--dialect=dcgm-exporter", "--compat=4.9"],
            ["GPU_RECOVERY_ACTION", "MEMORY_UNREPAIRABLE", "GPU_TEMP_MARGIN_CELSIUS"],
        ),
    ] {
        let metrics = run_once(&[&[scenario.flag().as_str()], flags.as_slice()].concat());
        let [action, memory, margin] =
            names.map(|name| value(&metrics, &format!("DCGM_FI_DEV_{name}"), &[]));
        assert_eq!((action, memory), (Some(1.0), Some(1.0)), "{metrics}");
        assert!(margin.is_some_and(|celsius| celsius > 0.0), "{metrics}");
    }
    let metrics = metrics_of(&node.replacen("now = 60\n", "", 1), &["DCGM_EXP_GPU_HEALTH_STATUS"]);
    let watch = |name, code| {
        let labels = [format!("health_watch=\"{name}\""), format!("health_error_code=\"{code}\"")];
        value(&metrics, "DCGM_EXP_GPU_HEALTH_STATUS", &labels.each_ref().map(String::as_str))
    };
    assert_eq!(watch("DRIVER", "DCGM_FR_GPU_RECOVERY_RESET"), Some(20.0), "{metrics}");
    assert_eq!(watch("MEM", "DCGM_FR_FAULTY_MEMORY"), Some(20.0), "{metrics}");
}

#[test]
fn system_on_chip_has_no_framebuffer() {
    let process = "[[process]]\npid = 7\nname = \"p\"\ngpus = [0]\nmemory = \"1 GiB\"\nsm = 30\n";
    for gpu in ["GB10", "Thor"] {
        let node = format!("now = 60\n{}{process}", driver("580.95.05", gpu));
        let metrics = run_once(&[&Scenario::new("soc", &node).flag()]);
        for absent in ["DCGM_FI_DEV_FB_USED", "DCGM_CUSTOM_DEV_FB_TOTAL", "DCGM_FI_DEV_BAR1_USED"] {
            assert!(series(&metrics, absent).is_empty(), "{gpu}: {absent}: {metrics}");
        }
        assert_eq!(value(&metrics, "DCGM_FI_DEV_GPU_UTIL", &[]), Some(30.0), "{gpu}");
        assert_eq!(value(&metrics, "nvml_exporter_gpu_up", &[]), Some(1.0), "{gpu}");
    }
}

const MEMORY: [&str; 3] =
    ["DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_CUSTOM_DEV_FB_TOTAL"];

#[test]
fn limited_cgroup_never_changes_the_memory_of_a_gpu() {
    let gpu = "[[gpu]]\nmodel = \"H100\"\n";
    let node = |limit: &str| format!("now = 60\n[driver]\nversion = \"615.71\"\n{gpu}{limit}{gpu}");
    let own = "memory_limits = [{ cgroup = \"*\", hard = \"4 GiB\" }]\n";
    let soft = "memory_limits = [{ cgroup = \"*\", soft = \"4 GiB\" }]\n";
    let other = "memory_limits = [{ cgroup = \"/sys/fs/cgroup/other\", hard = \"4 GiB\" }]\n";
    let fault = "[[fault]]\nfunction = \"nvmlDeviceGetMemoryLimits_v1\"\ngpu = 0\ncode = \"OPERATING_SYSTEM\"\n";
    for (name, text, withheld) in [
        ("a limit of the exporter", node(own), true),
        ("a soft limit of the exporter", node(soft), true),
        ("a question that fails", node("") + fault, true),
        ("a limit of another cgroup", node(other), false),
        ("no limit", node(""), false),
    ] {
        let scenario = Scenario::new("limits", &text);
        let exporter = Exporter::start(&[&scenario.flag()]);
        let is_up = |metrics: &str, gpu| {
            value(metrics, "nvml_exporter_gpu_up", &[&format!("gpu=\"{gpu}\"")]) == Some(1.0)
        };
        let metrics =
            exporter.wait_for("both GPUs", |metrics| is_up(metrics, 0) && is_up(metrics, 1));
        let total = |gpu: u32| value(&metrics, MEMORY[2], &[&format!("gpu=\"{gpu}\"")]);
        assert_eq!(total(1), Some(81_559.0), "{name}: the other GPU");
        let expected = if withheld { None } else { Some(81_559.0) };
        assert_eq!(total(0), expected, "{name}");
        let counts = MEMORY.map(|family| series(&metrics, family).len());
        assert_eq!(counts, [if withheld { 1 } else { 2 }; 3], "{name}");
        let readiness = exporter.get("/readyz").text();
        assert_eq!(
            readiness.contains("GPU 0: the driver limits the memory"),
            withheld,
            "{readiness}"
        );
        let check = run(&["check", "--address=127.0.0.1:0", &scenario.flag()]);
        let found = String::from_utf8(check.stdout).unwrap();
        assert_eq!(found.contains("limited (the driver limits"), withheld, "{name}: {found}");
    }
}
