//! Compatibility with dcgm-exporter: manifests, counters files, label sets and device selection.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use nvml_exporter::catalog::preset::{DCGM_4_8, DCGM_4_9};

use crate::exporter::{Exporter, Scenario, run_once, run_with, series, value};

const DCGM: [&str; 4] =
    ["--dialect", "dcgm-exporter", "--node-name=node-1", "--enable-exporter-metrics"];

/// A counters file in a temporary directory.
struct CountersFile {
    directory: tempfile::TempDir,
}

impl CountersFile {
    fn new(text: &str) -> Self {
        let counters = Self { directory: tempfile::tempdir().unwrap() };
        counters.rewrite(text);
        counters
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("counters.csv")
    }

    fn flag(&self) -> String {
        format!("-f={}", self.path().display())
    }

    fn rewrite(&self, text: &str) {
        let draft = self.directory.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.path()).unwrap();
    }
}

fn families(text: &str) -> BTreeSet<&str> {
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    names
        .filter(|name| !name.starts_with("nvml_exporter_") && !name.starts_with("process_"))
        .collect()
}

/// The environment and arguments of the static manifest, of several versions of the chart and of the
/// GPU operator.
#[test]
fn manifests_of_dcgm_exporter_start_unchanged() {
    const CHART: &[(&str, &str)] = &[
        ("DCGM_EXPORTER_KUBERNETES", "true"),
        ("DCGM_EXPORTER_LISTEN", ":0"),
        ("NODE_NAME", "node-1"),
    ];
    const GPU_OPERATOR: &[(&str, &str)] = &[
        ("DCGM_EXPORTER_LISTEN", ":0"),
        ("DCGM_EXPORTER_KUBERNETES", "true"),
        ("DCGM_EXPORTER_COLLECTORS", "/etc/dcgm-exporter/dcp-metrics-included.csv"),
        ("DCGM_REMOTE_HOSTENGINE_INFO", "localhost:5555"),
        ("NODE_NAME", "node-1"),
    ];
    const EVERYTHING: &[(&str, &str)] = &[
        ("DCGM_EXPORTER_KUBERNETES_ENABLE_POD_LABELS", "true"),
        ("DCGM_EXPORTER_KUBERNETES_ENABLE_POD_UID", "true"),
        ("DCGM_EXPORTER_KUBERNETES_POD_LABEL_ALLOWLIST_REGEX", "^app$,^team"),
        ("DCGM_EXPORTER_KUBERNETES_GPU_ID_TYPE", "device-name"),
        ("DCGM_EXPORTER_USE_OLD_NAMESPACE", "false"),
        ("DCGM_EXPORTER_DEVICES_STR", "f"),
        ("DCGM_EXPORTER_CPU_DEVICES_STR", "f"),
        ("DCGM_EXPORTER_OTHER_DEVICES_STR", "f"),
        ("DCGM_EXPORTER_CONFIGMAP_DATA", "none"),
        ("DCGM_EXPORTER_NO_HOSTNAME", "false"),
        ("DCGM_EXPORTER_REPLACE_BLANKS_IN_MODEL_NAME", "false"),
        ("DCGM_EXPORTER_DEBUG", "false"),
        ("DCGM_EXPORTER_LOG_FORMAT", "text"),
        ("DCGM_EXPORTER_INTERVAL", "30000"),
        ("NVIDIA_RESOURCE_NAMES", "nvidia.com/gpu,nvidia.com/gpu.shared"),
        ("KUBERNETES_ENABLE_DRA", "true"),
        ("KUBERNETES_VIRTUAL_GPUS", "true"),
        ("DCGM_EXPORTER_ENABLE_DCGM_LOG", "true"),
        ("DCGM_EXPORTER_DCGM_LOG_LEVEL", "DEBUG"),
        ("NVIDIA_VISIBLE_DEVICES", "all"),
        ("NVIDIA_DRIVER_CAPABILITIES", "compute,utility,compat32"),
        ("NVIDIA_DISABLE_REQUIRE", "true"),
    ];
    /// Name, environment and arguments.
    type Manifest<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
    let manifests: [Manifest<'_>; 6] = [
        ("static", CHART, &[]),
        ("chart", CHART, &["-f", "/etc/dcgm-exporter/default-counters.csv"]),
        ("older chart", CHART, &["-f", "/etc/dcgm-exporter/dcp-metrics-included.csv"]),
        ("operator", GPU_OPERATOR, &[]),
        (
            "debug",
            CHART,
            &[
                "--dump-enabled",
                "--dump-directory=/tmp/x",
                "--dump-retention=24",
                "--dump-compression",
            ],
        ),
        (
            "everything",
            EVERYTHING,
            &["-r", "localhost:5555", "-k", "-c", "30000", "-kubernetes=true"],
        ),
    ];
    for (name, environment, args) in manifests {
        // The environment that the replacing image sets.
        let image = [("NVML_EXPORTER_DIALECT", "dcgm-exporter")];
        let output =
            run_with(&[&image, environment].concat(), &[&["--once", "--mock"], args].concat());
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {log}");
        let text = String::from_utf8(output.stdout).unwrap();
        let has_pod_uid = name == "everything";
        let labels = ["gpu=\"0\"", "pod=\"train\"", "container=\"trainer\""];
        assert!(value(&text, "DCGM_FI_DEV_GPU_UTIL", &labels).is_some(), "{name}: {text}");
        assert_eq!(text.contains("pod_uid="), has_pod_uid, "{name}");
        // One log line for each ignored flag and variable.
        for (flag, reason) in
            [("dump-directory", "use --debug"), ("ENABLE_DCGM_LOG", "no host engine")]
        {
            let lines = log.lines().filter(|line| line.contains(flag) && line.contains(reason));
            let is_set = args.iter().any(|arg| arg.contains(flag))
                || environment.iter().any(|(key, _)| key.contains(flag));
            assert_eq!(lines.count(), usize::from(is_set), "{name}: {flag}: {log}");
        }
    }
}

#[test]
fn counters_file_selects_families_types_and_help() {
    let counters = CountersFile::new(
        "# Format\n\
         DCGM_FI_DEV_GPU_UTIL,      gauge, GPU utilization (in %).\n\
         DCGM_FI_DEV_DEC_UTIL ,     gauge, Decoder utilization (in %).\n\
         dcgm_fb_used, gauge, Framebuffer memory used (in MiB).\n\
         DCGM_FI_DEV_BOARD_POWER_WATTS, gauge,\"Power, of the board\"\n\
         DCGM_FI_DEV_POWER_USAGE, counter, typed as written\n\
         DCGM_FI_DEV_CPU_UTIL_TOTAL, gauge, of a CPU\n\
         DCGM_FI_NVML_VERSION, label, NVML\n\
         DCGM_FI_DEV_COUNT, gauge, GPUs\n\
         DCGM_CUSTOM_PROCESS_MEM_USED, gauge, of a process\n",
    );
    let text = run_once(&[&DCGM[..], &["--mock", &counters.flag()]].concat());
    assert_eq!(
        families(&text),
        BTreeSet::from([
            "DCGM_CUSTOM_PROCESS_MEM_USED",
            "DCGM_FI_DEV_BOARD_POWER_WATTS",
            "DCGM_FI_DEV_COUNT",
            "DCGM_FI_DEV_DEC_UTIL",
            "DCGM_FI_DEV_GPU_UTIL",
            "DCGM_FI_DEV_POWER_USAGE",
            "dcgm_fb_used",
        ])
    );
    assert!(text.contains("# HELP DCGM_FI_DEV_BOARD_POWER_WATTS Power, of the board\n"));
    assert!(text.contains("# TYPE DCGM_FI_DEV_POWER_USAGE counter\n"));
    let one = |family: &str| value(&text, family, &["gpu=\"0\"", "DCGM_FI_NVML_VERSION=\"12."]);
    assert!(one("dcgm_fb_used").is_some());
    assert_eq!(one("DCGM_FI_DEV_POWER_USAGE"), one("DCGM_FI_DEV_BOARD_POWER_WATTS"));
    // One series per GPU: dashboards count the series of this family.
    assert_eq!(series(&text, "DCGM_FI_DEV_COUNT").len(), 8);
}

#[test]
fn invalid_counters_file_is_refused_with_line_and_remedy() {
    for (text, expected) in [
        (
            "dcgm_gpu_utl,gauge,x\n",
            "line 1: unknown metric family \"dcgm_gpu_utl\"; --print-metrics lists all families",
        ),
        ("# a\nDCGM_FI_DEV_GPU_UTIL,gauge,a, b\n", "line 2: 4 fields instead of 3"),
        ("", "the file selects no known metric family"),
    ] {
        let counters = CountersFile::new(text);
        let output = run_with(&[], &["--once", "--mock", &counters.flag()]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(expected), "{error}");
        assert!(error.contains("counters.csv"), "{error}");
    }
    let output = run_with(&[], &["--once", "--mock", "-f", "/no/such.csv"]);
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("-f /no/such.csv: the file cannot be read")
    );
}

/// Every number of a GPU, a GPU instance or the node can be a label of the GPU's series.
#[test]
fn numbers_of_a_counters_file_are_labels() {
    let counters = CountersFile::new(
        "DCGM_FI_CUDA_DRIVER_VERSION, label,\n\
         DCGM_FI_DEV_NAME, label,\n\
         DCGM_FI_DEV_MINOR_NUMBER, label,\n\
         DCGM_FI_DEV_FB_TOTAL, label,\n\
         DCGM_FI_DEV_COUNT, label,\n\
         DCGM_FI_DEV_XID_ERRORS, label,\n\
         DCGM_FI_DEV_MEMORY_TEMP, label, not on each board\n\
         DCGM_FI_DEV_FAN_SPEED, label, not on these boards\n\
         DCGM_FI_DEV_GPU_TEMP, gauge, t\n\
         DCGM_FI_DEV_FB_USED, gauge, u\n",
    );
    let scenario = Scenario::built_in_at("mig-h100", 30);
    let text = run_once(&[&DCGM[..], &[&scenario.flag(), &counters.flag(), "-d=g+i"]].concat());
    let expected = BTreeSet::from(["DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_GPU_TEMP"]);
    assert_eq!(families(&text), expected);
    let of_gpu = [
        "gpu=\"1\"",
        "DCGM_FI_CUDA_DRIVER_VERSION=\"12040\"",
        "DCGM_FI_DEV_NAME=\"NVIDIA H100",
        "DCGM_FI_DEV_MINOR_NUMBER=\"1\"",
        "DCGM_FI_DEV_COUNT=\"2\"",
        "DCGM_FI_DEV_XID_ERRORS=\"0\"",
        "DCGM_FI_DEV_MEMORY_TEMP=\"",
    ];
    let of_instance = [&of_gpu[..], &["GPU_I_PROFILE=\"3g.40gb\"", "FB_TOTAL=\"40"]].concat();
    assert!(value(&text, "DCGM_FI_DEV_GPU_TEMP", &of_gpu).is_some(), "{text}");
    assert!(value(&text, "DCGM_FI_DEV_FB_USED", &of_instance).is_some(), "{text}");
    assert!(!text.contains("DCGM_FI_DEV_FAN_SPEED"), "{text}");
    let ack = run_once(&["--mock", &counters.flag(), "--dialect=ack"]);
    let minor = ["gpu=\"3\"", "DCGM_FI_DEV_MINOR_NUMBER=\"3\"", "DCGM_FI_DEV_FB_TOTAL=\""];
    assert!(value(&ack, "DCGM_FI_DEV_GPU_TEMP", &minor).is_some(), "{ack}");
}

#[test]
fn unknown_fields_are_left_out_with_one_remark() {
    let counters = CountersFile::new(
        "DCGM_FI_DEV_GPU_TEMP, gauge, t\n\
         # of a later version\n\
         DCGM_FI_DEV_GPU_TEMPERATURE, gauge, x\n\
         DCGM_FI_DEV_ENC_STATS, label, binary\n",
    );
    for args in [&["--once", "--mock"][..], &["--print-metrics"], &["check", "--mock"]] {
        let output = run_with(&[], &[args, &[&counters.flag()]].concat());
        let log = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(args.contains(&"check") || output.status.success(), "{args:?}: {log}");
        for remark in [
            "counters.csv: line 3: \"DCGM_FI_DEV_GPU_TEMPERATURE\" is unknown or not available through NVML, and \
             is left out; the nearest known name is DCGM_FI_DEV_GPU_TEMP",
            "counters.csv: line 4: \"DCGM_FI_DEV_ENC_STATS\" is left out: binary in DCGM; its numbers are \
             DCGM_CUSTOM_DEV_ENC_SESSIONS, ",
        ] {
            assert_eq!(log.matches(remark).count(), 1, "{args:?}: {remark} in {log}");
        }
    }
    // Nothing is left to read, but that does not end the process.
    let only_unknown = CountersFile::new("DCGM_FI_DEV_LATER, gauge, x\n");
    let text = run_once(&["--mock", &only_unknown.flag()]);
    assert_eq!(families(&text), BTreeSet::new());
}

#[test]
fn changed_counters_file_is_applied_without_a_gap() {
    let counters = CountersFile::new("DCGM_FI_DEV_GPU_TEMP,gauge,x\nDCGM_FI_DEV_FB_USED,gauge,x\n");
    let flags = ["--mock", &counters.flag(), "--collect-interval=200"];
    let exporter = Exporter::start(&[&DCGM[..], &flags].concat());
    let has_temperature =
        |text: &str| value(text, "DCGM_FI_DEV_GPU_TEMP", &["gpu=\"3\""]).is_some();
    exporter.wait_for("the first families", has_temperature);

    counters.rewrite("DCGM_FI_DEV_GPU_TEMP,gauge,x\nDCGM_FI_DEV_SM_CLOCK,gauge,x\n");
    exporter.wait_for("the changed families", |text| {
        assert!(has_temperature(text), "a gap: {text}");
        let changed =
            families(text) == BTreeSet::from(["DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_SM_CLOCK"]);
        assert!(!changed || series(text, "DCGM_FI_DEV_SM_CLOCK").len() == 8, "incomplete: {text}");
        changed
    });

    let up = |text: &str| value(text, "nvml_exporter_source_up", &["source=\"counters\""]);
    counters.rewrite("DCGM_FI_DEV_GPU_TEMP;gauge;x\n");
    let text = exporter.wait_for("an error of the counters", |text| up(text) == Some(0.0));
    assert!(has_temperature(&text), "the previous counters stay active");
    assert!(exporter.log().contains("line 1: 1 field instead of 3"), "{}", exporter.log());

    counters.rewrite("DCGM_FI_DEV_GPU_TEMP,gauge,x\n");
    exporter.send_sighup();
    exporter.wait_for("the corrected file", |text| {
        up(text) == Some(1.0) && families(text) == BTreeSet::from(["DCGM_FI_DEV_GPU_TEMP"])
    });
    assert!(exporter.log().contains(": reloading"), "{}", exporter.log());
}

#[test]
fn counters_are_read_from_a_config_map_of_the_simulated_node() {
    const CLUSTER: &str = "[[gpu]]\nmodel = \"T4\"\n[cluster]\n";
    const MAP: &str = "config_maps = [{ namespace = \"gpu-operator\", name = \"counters\", \
         data = { metrics = \"DCGM_FI_DEV_GPU_TEMP, gauge, t\" } }]\n";
    let flags = ["--configmap-data=gpu-operator:counters", "--collect-interval=200"];
    let with = |name: &str, text: &str| Scenario::new(name, text);
    let scenario = with("config-map", &[CLUSTER, MAP].concat());
    let text = run_once(&[&[&*scenario.flag()], &flags[..]].concat());
    assert_eq!(families(&text), BTreeSet::from(["DCGM_FI_DEV_GPU_TEMP"]));
    let list = run_with(&[], &["--print-metrics=csv", &*scenario.flag(), flags[0]]);
    let list = String::from_utf8(list.stdout).unwrap();
    let selected: Vec<&str> = list.lines().filter(|line| line.starts_with("DCGM_")).collect();
    assert_eq!(selected.len(), 1, "{list}");
    for (name, text, expected) in [
        ("no-map", CLUSTER.to_owned(), "--configmap-data gpu-operator:counters: "),
        ("no-cluster", "[[gpu]]\nmodel = \"T4\"\n".to_owned(), "the scenario has no cluster; add"),
        (
            "denied",
            [CLUSTER, MAP, "denied = [\"get configmaps\"]\n"].concat(),
            "--configmap-data gpu-operator:counters: ",
        ),
    ] {
        let scenario = with(name, &text);
        let output = run_with(&[], &[&["--once", &*scenario.flag()], &flags[..]].concat());
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && log.contains(expected), "{name}: {log}");
    }
}

#[test]
fn sighup_without_a_counters_file_changes_nothing() {
    let exporter = Exporter::start(&["--mock", "--collect-interval=200"]);
    exporter.send_sighup();
    let text = exporter.metrics();
    let cycles = |text: &str| value(text, "nvml_exporter_cycles_total", &[]).unwrap_or_default();
    exporter.wait_for("more cycles", |later| cycles(later) > cycles(&text) + 1.0);
}

#[test]
fn each_version_has_its_own_names() {
    let metrics = |compat: &str| run_once(&[&DCGM[..], &["--mock", "--compat", compat]].concat());
    let has_families = |text: &str, preset: &[&str]| {
        let families = families(text);
        preset.iter().all(|name| name.contains("DRIVER") || families.contains(name))
    };
    let old = metrics("4.8");
    assert!(has_families(&old, DCGM_4_8), "{old}");
    assert!(old.contains("Hostname=\"node-1\"") && !old.contains("hostname=\"node-1\""));
    assert!(old.contains("# TYPE DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL counter"));

    let newer = metrics("4.8.4");
    assert_eq!(families(&newer), families(&old));
    assert!(newer.contains("# TYPE DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL gauge"));
    assert!(newer.contains("hostname=\"node-1\"") && !newer.contains("Hostname=\"node-1\""));

    let newest = metrics("4.9");
    assert!(has_families(&newest, DCGM_4_9), "{newest}");
    assert!(!newest.contains("DCGM_FI_DEV_SM_CLOCK{"), "renamed");
    assert_eq!(families(&newest).len(), 26, "{newest}");
    // The same readings in other units: a family of 4.8, one of 4.9, and the factor between them.
    for (of_4_8, of_4_9, factor) in [
        ("DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_SM_CLOCK_HERTZ", 1e6),
        ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_UTIL_RATIO", 0.01),
        ("DCGM_FI_DEV_MEM_COPY_UTIL", "DCGM_FI_DEV_MEMORY_UTIL_RATIO", 0.01),
        ("DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_USED_BYTES", 1_048_576.0),
        ("DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_FB_FREE_BYTES", 1_048_576.0),
        ("DCGM_FI_DEV_FB_RESERVED", "DCGM_FI_DEV_FB_RESERVED_BYTES", 1_048_576.0),
        (
            "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
            "DCGM_FI_DEV_NVLINK_THROUGHPUT_BYTES_PER_SECOND",
            1e6,
        ),
    ] {
        let both = metrics("4.8,4.9");
        let [old, new] = [of_4_8, of_4_9].map(|name| value(&both, name, &["gpu=\"0\""]).unwrap());
        assert!(new > 0.0 && (new / (old * factor) - 1.0).abs() < 0.05, "{of_4_9}: {new}, {old}");
    }
    assert!(newest.contains("DCGM_FI_SYSTEM_DRIVER_VERSION=\"550"));
    let hertz = value(&newest, "DCGM_FI_DEV_SM_CLOCK_HERTZ", &["gpu=\"0\""]).unwrap();
    assert!((1e8..1e10).contains(&hertz), "{hertz}");

    // For migrations: the names and labels of both versions, without duplicate families.
    let both = metrics("4.8,4.9");
    let union: BTreeSet<&str> = families(&old).union(&families(&newest)).copied().collect();
    assert_eq!(families(&both), union);
    let gpu_0 =
        ["gpu=\"0\"", "Hostname=\"node-1\"", "hostname=\"node-1\"", "DCGM_FI_DRIVER_VERSION"];
    assert!(value(&both, "DCGM_FI_PROF_PCIE_TX_BYTES", &gpu_0).is_some(), "{both}");
}

/// The devices of a family: `0` for GPU 0, `0/3` for instance 3 of GPU 0.
fn devices(text: &str, family: &str) -> Vec<String> {
    let label = |line: &str, key: &str| {
        let rest = line.split(&format!("{key}=\"")).nth(1)?;
        Some(rest.split('"').next().unwrap().to_owned())
    };
    let device = |line: &&str| {
        let gpu = label(line, "gpu").unwrap();
        label(line, "GPU_I_ID").map_or(gpu.clone(), |instance| format!("{gpu}/{instance}"))
    };
    series(text, family).iter().map(device).collect()
}

#[test]
fn devices_are_selected_as_by_dcgm_exporter() {
    let scenario = Scenario::built_in_at("mig-h100", 30);
    let metrics =
        |devices: &str| run_once(&[&DCGM[..], &[&scenario.flag(), "-d", devices]].concat());
    let all = ["0/1", "0/2", "0/3", "0/4", "1/1", "1/2"];
    let (power, used) = ("DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_FB_USED");
    for (selector, powers, memories) in [
        // Values of the whole GPU are repeated for its instances.
        ("f", &all[..], &all[..]),
        ("i", &all, &all),
        ("i:0,4-5", &["0/1", "1/1", "1/2"], &["0/1", "1/1", "1/2"]),
        ("g", &["0", "1"], &["0", "1"]),
        ("g:1", &["1"], &["1"]),
        // Nothing is repeated, so sums count each byte once.
        ("g+i", &["0", "1"], &all),
        ("g:0+i:5", &["0"], &["1/2"]),
    ] {
        let text = metrics(selector);
        assert_eq!(devices(&text, power), powers, "{selector}");
        assert_eq!(devices(&text, used), memories, "{selector}");
    }
    let whole = metrics("g");
    let instances = metrics("i");
    let sum = |text: &str| -> f64 {
        let of_gpu_0 = series(text, used).into_iter().filter(|line| line.contains("gpu=\"0\""));
        of_gpu_0.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    assert!(sum(&whole) >= sum(&instances) && sum(&instances) > 0.0);

    let ack = run_once(&["--node-name=node-1", &scenario.flag(), "-d", "g:0"]);
    assert!(
        devices(&ack, power) == ["0"] && series(&ack, "DCGM_CUSTOM_PROCESS_MEM_USED").is_empty()
    );
    let output = run_with(&[], &["--once", "--mock", "-d", "x:1"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("--devices x:1") && error.contains("use f, g, i or g+i"), "{error}");
}

#[test]
fn device_series_have_labels_of_their_hpc_jobs() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("0.2"), "job-7\njob-8\n").unwrap();
    fs::write(directory.path().join("1.1"), "job \"nine\"\\\n").unwrap();
    let scenario = Scenario::built_in_at("mig-h100", 30);
    let flag = format!("--hpc-job-mapping-dir={}", directory.path().display());
    let flags = [scenario.flag(), flag, "--collect-interval=200".to_owned()];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let exporter = Exporter::start(&[&DCGM[..], &flags].concat());
    let family = "DCGM_FI_DEV_FB_USED";
    let used_in = |text: &str, job| value(text, family, &["gpu=\"0\"", "GPU_I_ID=\"2\"", job]);
    // The two GPUs may be read in different cycles.
    let text = exporter.wait_for("jobs", |text| {
        used_in(text, "hpc_job=\"job-7\"").is_some() && text.contains("nine")
    });
    let used = |job| used_in(&text, job);
    assert!(used("hpc_job=\"job-7\"").is_some());
    assert_eq!(used("hpc_job=\"job-7\""), used("hpc_job=\"job-8\""));
    assert!(text.contains(r#"hpc_job="job \"nine\"\\""#), "{text}");

    // A job label is removed with its file; an unreadable directory is reported.
    fs::remove_file(directory.path().join("1.1")).unwrap();
    exporter.wait_for("the end of the job", |text| !text.contains("nine"));
    fs::remove_dir_all(directory.path()).unwrap();
    exporter.wait_for("an error of the directory", |text| {
        value(text, "nvml_exporter_source_up", &["source=\"hpc_jobs\""]) == Some(0.0)
    });
    assert!(exporter.log().contains("no series has a job label"), "{}", exporter.log());
}

#[test]
fn device_series_have_labels_of_allocated_pods() {
    let metrics = |flags: &[&str]| run_once(&[&DCGM[..], &["--mock"], flags].concat());
    let util = "DCGM_FI_DEV_GPU_UTIL";
    let plain = metrics(&[]);
    assert!(!plain.contains("pod="), "only with -k");

    let with_pods = metrics(&["-k"]);
    let train = ["gpu=\"0\"", "container=\"trainer\",namespace=\"ml\",pod=\"train\"}"];
    assert!(value(&with_pods, util, &train).is_some(), "{with_pods}");
    // Shared or unallocated devices have empty labels.
    let empty = ["gpu=\"4\"", "container=\"\",namespace=\"\",pod=\"\"}"];
    assert!(value(&with_pods, util, &empty).is_some(), "{with_pods}");

    let flags = ["-k", "--kubernetes-enable-pod-labels", "--kubernetes-enable-pod-uid"];
    let labelled = metrics(&flags);
    assert!(
        value(&labelled, util, &["gpu=\"0\"", "app=\"llama-70b\"", "pod_uid=\"53ef"]).is_some()
    );
    let filter = "--kubernetes-pod-label-allowlist-regex=^team$";
    assert!(!metrics(&[flags.as_slice(), &[filter]].concat()).contains("app=\"llama-70b\""));

    let old = metrics(&["-k", "-o", "-n", "--rbmn"]);
    let train = ["uuid=\"GPU-", "modelName=\"NVIDIA-H100-80GB-HBM3\"", "pod_name=\"train\""];
    assert!(series(&old, util).iter().any(|line| train.iter().all(|label| line.contains(label))));
    assert!(!old.contains("ostname=") && !old.contains("namespace=\"ml\",pod="), "{old}");

    let ack = run_once(&["--mock", "-k"]);
    let train = ["gpu=\"0\"", "NamespaceName=\"ml\",PodName=\"train\""];
    assert!(value(&ack, util, &train).is_some(), "{ack}");
}

#[test]
fn fake_gpus_are_simulated_and_the_log_can_be_json() {
    let output =
        run_with(&[("DCGM_EXPORTER_USE_FAKE_GPUS", "true")], &["--once", "--log-format=json"]);
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("DCGM_FI_DEV_GPU_UTIL"));
    let log = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["message"] == "driver is up" && line["level"] == "INFO"));
}
