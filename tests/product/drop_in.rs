//! Where dcgm-exporter stood before: its manifests, counters files, label sets and device selection.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use nvml_exporter::catalog::preset::{DCGM_4_8, DCGM_4_9};

use crate::exporter::{Exporter, Scenario, once, run_with, series, value};

const DCGM: [&str; 3] = ["--dialect", "dcgm-exporter", "--node-name=node-1"];

/// A file of counters in a directory of its own.
struct Counters {
    directory: tempfile::TempDir,
}

impl Counters {
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

fn families(page: &str) -> BTreeSet<&str> {
    let names = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    names.filter(|name| !name.starts_with("nvml_exporter_")).collect()
}

/// What its manifests set: the static one and the chart's, of several versions, with what operators
/// add to them.
#[test]
fn its_manifests_start_unchanged() {
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
    /// Its name, its environment, its arguments.
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
        // What the image that takes the place of its own says by itself.
        let image = [("NVML_EXPORTER_DIALECT", "dcgm-exporter")];
        let output =
            run_with(&[&image, environment].concat(), &[&["--once", "--mock"], args].concat());
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {log}");
        let page = String::from_utf8(output.stdout).unwrap();
        let pod = name != "everything";
        let labels = ["gpu=\"0\"", "pod=\"train\"", "container=\"trainer\""];
        assert!(value(&page, "DCGM_FI_DEV_GPU_UTIL", &labels).is_some(), "{name}: {page}");
        assert_eq!(page.contains("pod_uid="), !pod, "{name}");
        // Each of what means nothing here is told once, with what stands in its place.
        for (flag, told) in
            [("dump-directory", "--debug logs more"), ("ENABLE_DCGM_LOG", "no host engine")]
        {
            let lines = log.lines().filter(|line| line.contains(flag) && line.contains(told));
            let given = args.iter().any(|arg| arg.contains(flag))
                || environment.iter().any(|(key, _)| key.contains(flag));
            assert_eq!(lines.count(), usize::from(given), "{name}: {flag}: {log}");
        }
    }
}

#[test]
fn a_counters_file_is_the_page() {
    let counters = Counters::new(
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
    let page = once(&[&DCGM[..], &["--mock", &counters.flag()]].concat());
    assert_eq!(
        families(&page),
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
    assert!(page.contains("# HELP DCGM_FI_DEV_BOARD_POWER_WATTS Power, of the board\n"));
    assert!(page.contains("# TYPE DCGM_FI_DEV_POWER_USAGE counter\n"));
    let one = |family: &str| value(&page, family, &["gpu=\"0\"", "DCGM_FI_NVML_VERSION=\"12."]);
    assert!(one("dcgm_fb_used").is_some());
    assert_eq!(one("DCGM_FI_DEV_POWER_USAGE"), one("DCGM_FI_DEV_BOARD_POWER_WATTS"));
    // Dashboards count the series of this family to count GPUs.
    assert_eq!(series(&page, "DCGM_FI_DEV_COUNT").len(), 8);
}

#[test]
fn a_broken_counters_file_ends_it_with_the_line_and_the_mend() {
    for (text, expected) in [
        (
            "DCGM_FI_DEV_GPU_UTL,gauge,x\n",
            "line 1: \"DCGM_FI_DEV_GPU_UTL\" is no family; did you mean DCGM_FI_DEV_GPU_UTIL",
        ),
        ("# a\nDCGM_FI_DEV_GPU_UTIL,gauge,a, b\n", "line 2: 4 fields instead of 3"),
        ("", "it asks for no family that there is"),
    ] {
        let counters = Counters::new(text);
        let output = run_with(&[], &["--once", "--mock", &counters.flag()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{said}");
        assert!(said.contains("counters.csv"), "it names the file: {said}");
    }
    let output = run_with(&[], &["--once", "--mock", "-f", "/no/such.csv"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("-f /no/such.csv: No such file"));
}

#[test]
fn a_changed_counters_file_is_in_force_without_a_gap() {
    let counters = Counters::new("DCGM_FI_DEV_GPU_TEMP,gauge,x\nDCGM_FI_DEV_FB_USED,gauge,x\n");
    let flags = ["--mock", &counters.flag(), "--collect-interval=200"];
    let exporter = Exporter::start(&[&DCGM[..], &flags].concat());
    let temperature = |page: &str| value(page, "DCGM_FI_DEV_GPU_TEMP", &["gpu=\"3\""]).is_some();
    exporter.wait_for("the first page", temperature);

    counters.rewrite("DCGM_FI_DEV_GPU_TEMP,gauge,x\nDCGM_FI_DEV_SM_CLOCK,gauge,x\n");
    exporter.wait_for("the other families", |page| {
        assert!(temperature(page), "a gap: {page}");
        let other =
            families(page) == BTreeSet::from(["DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_SM_CLOCK"]);
        assert!(
            !other || series(page, "DCGM_FI_DEV_SM_CLOCK").len() == 8,
            "half of a page: {page}"
        );
        other
    });

    let up = |page: &str| value(page, "nvml_exporter_source_up", &["source=\"counters\""]);
    counters.rewrite("DCGM_FI_DEV_GPU_TEMP;gauge;x\n");
    let page = exporter.wait_for("trouble", |page| up(page) == Some(0.0));
    assert!(temperature(&page), "what was in force stays");
    assert!(exporter.log().contains("line 1: 1 fields instead of 3"), "{}", exporter.log());

    counters.rewrite("DCGM_FI_DEV_GPU_TEMP,gauge,x\n");
    exporter.hang_up();
    exporter.wait_for("the mended file", |page| {
        up(page) == Some(1.0) && families(page) == BTreeSet::from(["DCGM_FI_DEV_GPU_TEMP"])
    });
    assert!(exporter.log().contains("reading it again"), "{}", exporter.log());
}

#[test]
fn a_hangup_without_a_counters_file_ends_nothing() {
    let exporter = Exporter::start(&["--mock", "--collect-interval=200"]);
    exporter.hang_up();
    let page = exporter.metrics();
    let cycles = |page: &str| value(page, "nvml_exporter_cycles_total", &[]).unwrap_or_default();
    exporter.wait_for("more cycles", |later| cycles(later) > cycles(&page) + 1.0);
}

#[test]
fn each_version_shows_its_own_names() {
    let page = |compat: &str| once(&[&DCGM[..], &["--mock", "--compat", compat]].concat());
    let names = |page: &str, preset: &[&str]| {
        let shown = families(page);
        preset.iter().all(|name| {
            name.contains("DRIVER") || name.contains("MEMORY_TEMP") || shown.contains(name)
        })
    };
    let old = page("4.8");
    assert!(names(&old, DCGM_4_8), "{old}");
    assert!(old.contains("Hostname=\"node-1\"") && !old.contains("hostname=\"node-1\""));
    assert!(old.contains("# TYPE DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL counter"));

    let newer = page("4.8.4");
    assert_eq!(families(&newer), families(&old));
    assert!(newer.contains("# TYPE DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL gauge"));
    assert!(newer.contains("hostname=\"node-1\"") && !newer.contains("Hostname=\"node-1\""));

    let newest = page("4.9");
    assert!(names(&newest, DCGM_4_9), "{newest}");
    assert!(!newest.contains("DCGM_FI_DEV_SM_CLOCK{"), "renamed");
    assert!(newest.contains("DCGM_FI_SYSTEM_DRIVER_VERSION=\"550"));
    let hertz = value(&newest, "DCGM_FI_DEV_SM_CLOCK_HERTZ", &["gpu=\"0\""]).unwrap();
    assert!((1e8..1e10).contains(&hertz), "{hertz}");

    // For a migration: every dashboard finds its names and labels, and no family stands twice.
    let both = page("4.8,4.9");
    let union: BTreeSet<&str> = families(&old).union(&families(&newest)).copied().collect();
    assert_eq!(families(&both), union);
    let gpu_0 =
        ["gpu=\"0\"", "Hostname=\"node-1\"", "hostname=\"node-1\"", "DCGM_FI_DRIVER_VERSION"];
    assert!(value(&both, "DCGM_FI_PROF_PCIE_TX_BYTES", &gpu_0).is_some(), "{both}");
}

/// Which GPUs and instances a family has: `0`, or `0/3` for instance 3 of GPU 0.
fn stands(page: &str, family: &str) -> Vec<String> {
    let label = |line: &str, key: &str| {
        let rest = line.split(&format!("{key}=\"")).nth(1)?;
        Some(rest.split('"').next().unwrap().to_owned())
    };
    let stand = |line: &&str| {
        let gpu = label(line, "gpu").unwrap();
        label(line, "GPU_I_ID").map_or(gpu.clone(), |instance| format!("{gpu}/{instance}"))
    };
    series(page, family).iter().map(stand).collect()
}

#[test]
fn devices_are_selected_as_it_selects_them() {
    let scenario = Scenario::held("mig-h100", 30);
    let page = |devices: &str| once(&[&DCGM[..], &[&scenario.flag(), "-d", devices]].concat());
    let all = ["0/1", "0/2", "0/3", "0/4", "1/1", "1/2"];
    let (power, used) = ("DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_FB_USED");
    for (devices, powers, memories) in [
        // What is known of the GPU only is repeated on its instances.
        ("f", &all[..], &all[..]),
        ("i", &all, &all),
        ("i:0,4-5", &["0/1", "1/1", "1/2"], &["0/1", "1/1", "1/2"]),
        ("g", &["0", "1"], &["0", "1"]),
        ("g:1", &["1"], &["1"]),
        // Nothing is repeated, and no sum has a byte twice.
        ("g+i", &["0", "1"], &all),
        ("g:0+i:5", &["0"], &["1/2"]),
    ] {
        let page = page(devices);
        assert_eq!(stands(&page, power), powers, "{devices}");
        assert_eq!(stands(&page, used), memories, "{devices}");
    }
    let whole = page("g");
    let instances = page("i");
    let sum = |page: &str| -> f64 {
        let of_gpu_0 = series(page, used).into_iter().filter(|line| line.contains("gpu=\"0\""));
        of_gpu_0.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    assert!(sum(&whole) >= sum(&instances) && sum(&instances) > 0.0);

    let ack = once(&["--node-name=node-1", &scenario.flag(), "-d", "g:0"]);
    assert!(
        stands(&ack, power) == ["0"] && series(&ack, "DCGM_CUSTOM_PROCESS_MEM_USED").is_empty()
    );
    let output = run_with(&[], &["--once", "--mock", "-d", "x:1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--devices x:1") && said.contains("give f, g or i"), "{said}");
}

#[test]
fn jobs_stand_on_the_devices_they_run_on() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("0.2"), "job-7\njob-8\n").unwrap();
    fs::write(directory.path().join("1.1"), "job \"nine\"\\\n").unwrap();
    let scenario = Scenario::held("mig-h100", 30);
    let flag = format!("--hpc-job-mapping-dir={}", directory.path().display());
    let flags = [scenario.flag(), flag, "--collect-interval=200".to_owned()];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let exporter = Exporter::start(&[&DCGM[..], &flags].concat());
    let family = "DCGM_FI_DEV_FB_USED";
    let page = exporter.wait_for("jobs", |page| page.contains("hpc_job"));
    let with = |labels: &[&str]| value(&page, family, labels);
    let (seven, eight) =
        (["GPU_I_ID=\"2\"", "hpc_job=\"job-7\""], ["GPU_I_ID=\"2\"", "hpc_job=\"job-8\""]);
    let here = "gpu=\"0\"";
    assert!(with(&[here, seven[0], seven[1]]).is_some());
    assert_eq!(with(&[here, seven[0], seven[1]]), with(&[here, eight[0], eight[1]]));
    assert!(page.contains(r#"hpc_job="job \"nine\"\\""#), "{page}");

    // A job that has ended is gone; what cannot be read is told.
    fs::remove_file(directory.path().join("1.1")).unwrap();
    exporter.wait_for("its end", |page| !page.contains("nine"));
    fs::remove_dir_all(directory.path()).unwrap();
    exporter.wait_for("the trouble", |page| {
        value(page, "nvml_exporter_source_up", &["source=\"hpc_jobs\""]) == Some(0.0)
    });
    assert!(exporter.log().contains("no series names a job"), "{}", exporter.log());
}

#[test]
fn devices_name_the_pods_that_hold_them() {
    let page = |flags: &[&str]| once(&[&DCGM[..], &["--mock"], flags].concat());
    let util = "DCGM_FI_DEV_GPU_UTIL";
    let plain = page(&[]);
    assert!(!plain.contains("pod="), "nobody has asked for them");

    let named = page(&["-k"]);
    let train = ["gpu=\"0\"", "container=\"trainer\",namespace=\"ml\",pod=\"train\"}"];
    assert!(value(&named, util, &train).is_some(), "{named}");
    // Shared, or free: the labels are there and empty.
    let nobody = ["gpu=\"4\"", "container=\"\",namespace=\"\",pod=\"\"}"];
    assert!(value(&named, util, &nobody).is_some(), "{named}");

    let flags = ["-k", "--kubernetes-enable-pod-labels", "--kubernetes-enable-pod-uid"];
    let labelled = page(&flags);
    assert!(
        value(&labelled, util, &["gpu=\"0\"", "app=\"llama-70b\"", "pod_uid=\"53ef"]).is_some()
    );
    let filter = "--kubernetes-pod-label-allowlist-regex=^team$";
    assert!(!page(&[flags.as_slice(), &[filter]].concat()).contains("app=\"llama-70b\""));

    let old = page(&["-k", "-o", "-n", "--rbmn"]);
    let train = ["uuid=\"GPU-", "modelName=\"NVIDIA-H100-80GB-HBM3\"", "pod_name=\"train\""];
    assert!(series(&old, util).iter().any(|line| train.iter().all(|label| line.contains(label))));
    assert!(!old.contains("ostname=") && !old.contains("namespace=\"ml\",pod="), "{old}");

    let ack = once(&["--mock", "-k"]);
    let train = ["gpu=\"0\"", "NamespaceName=\"ml\",PodName=\"train\""];
    assert!(value(&ack, util, &train).is_some(), "{ack}");
}

#[test]
fn fake_gpus_are_the_mock_and_the_log_may_be_json() {
    let output =
        run_with(&[("DCGM_EXPORTER_USE_FAKE_GPUS", "true")], &["--once", "--log-format=json"]);
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("DCGM_FI_DEV_GPU_UTIL"));
    let log = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["message"] == "driver is up" && line["level"] == "INFO"));
}
