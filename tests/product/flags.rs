//! Every flag and environment variable of dcgm-exporter 4.8 and 4.9 in every form: set, empty and odd.

use std::fs;

use crate::exporter::run_with;

/// How a flag is written.
enum Kind {
    /// Without a value, or with `=true` and `=false`.
    Switch,
    /// With one of these values; others are refused with this text.
    Value(&'static [&'static str], &'static [(&'static str, &'static str)]),
    /// A switch that has no meaning here.
    IgnoredSwitch,
    /// With a value, which has no meaning here.
    IgnoredValue(&'static str),
}
use Kind::{IgnoredSwitch, IgnoredValue, Switch, Value};

/// Long name, short name or another long one, and environment variable.
type Flag = (&'static str, &'static str, &'static str, Kind);

const NOT_A_TIME: &str = "give a number of milliseconds, or a duration such as 5s";
const NOT_POSITIVE: &str = "give a duration above 0";

/// `DIR` is a directory with the files `counters.csv` and `web.yml`.
const FLAGS: &[Flag] = &[
    (
        "collectors",
        "-f",
        "DCGM_EXPORTER_COLLECTORS",
        Value(
            &[
                "DIR/counters.csv",
                "/etc/dcgm-exporter/default-counters.csv",
                "/etc/dcgm-exporter/dcp-metrics-included.csv",
            ],
            &[("DIR/none", "the file cannot be read")],
        ),
    ),
    (
        "address",
        "-a",
        "DCGM_EXPORTER_LISTEN",
        Value(&[":9400", "127.0.0.1:9400", "[::1]:9400"], &[("9400", "not an address")]),
    ),
    (
        "collect-interval",
        "-c",
        "DCGM_EXPORTER_INTERVAL",
        Value(&["30000", "30s", "1m30s"], &[("5 s", NOT_A_TIME), ("-1", ""), ("x", NOT_A_TIME)]),
    ),
    ("kubernetes", "-k", "DCGM_EXPORTER_KUBERNETES", Switch),
    ("use-old-namespace", "-o", "DCGM_EXPORTER_USE_OLD_NAMESPACE", Switch),
    ("cpu-devices", "-p", "DCGM_EXPORTER_CPU_DEVICES_STR", IgnoredValue("g:0")),
    (
        "configmap-data",
        "-m",
        "DCGM_EXPORTER_CONFIGMAP_DATA",
        Value(&["none"], &[("x", "not a ConfigMap name"), (":", "not a ConfigMap name")]),
    ),
    ("remote-hostengine-info", "-r", "DCGM_REMOTE_HOSTENGINE_INFO", IgnoredValue("localhost:5555")),
    ("kubernetes-enable-pod-labels", "", "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_LABELS", Switch),
    ("kubernetes-enable-pod-uid", "", "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_UID", Switch),
    (
        "kubernetes-gpu-id-type",
        "",
        "DCGM_EXPORTER_KUBERNETES_GPU_ID_TYPE",
        Value(&["uid", "device-name"], &[("x", "possible values: uid, device-name")]),
    ),
    (
        "kubernetes-pod-label-allowlist-regex",
        "",
        "DCGM_EXPORTER_KUBERNETES_POD_LABEL_ALLOWLIST_REGEX",
        Value(&["^app$", "^app$,^team"], &[("(", "give a valid regular expression")]),
    ),
    (
        "devices",
        "-d",
        "DCGM_EXPORTER_DEVICES_STR",
        Value(&["f", "g", "g:0,2-4", "i:0", "g+i"], &[("x:1", "use f, g, i or g+i")]),
    ),
    ("no-hostname", "-n", "DCGM_EXPORTER_NO_HOSTNAME", Switch),
    ("switch-devices", "-s", "DCGM_EXPORTER_OTHER_DEVICES_STR", IgnoredValue("g:0")),
    ("fake-gpus", "", "DCGM_EXPORTER_USE_FAKE_GPUS", Switch),
    (
        "web-config-file",
        "--web.config.file",
        "DCGM_EXPORTER_WEB_CONFIG_FILE",
        Value(&["DIR/web.yml"], &[("DIR/none", "the file cannot be read")]),
    ),
    (
        "xid-count-window-size",
        "-x",
        "DCGM_EXPORTER_XID_COUNT_WINDOW_SIZE",
        Value(&["300000", "5m"], &[("x", NOT_A_TIME)]),
    ),
    (
        "replace-blanks-in-model-name",
        "--rbmn",
        "DCGM_EXPORTER_REPLACE_BLANKS_IN_MODEL_NAME",
        Switch,
    ),
    ("debug", "", "DCGM_EXPORTER_DEBUG", Switch),
    (
        "clock-events-count-window-size",
        "",
        "DCGM_EXPORTER_CLOCK_EVENTS_COUNT_WINDOW_SIZE",
        Value(&["300000", "5m"], &[("x", NOT_A_TIME)]),
    ),
    ("enable-dcgm-log", "", "DCGM_EXPORTER_ENABLE_DCGM_LOG", IgnoredSwitch),
    ("dcgm-log-level", "", "DCGM_EXPORTER_DCGM_LOG_LEVEL", IgnoredValue("DEBUG")),
    (
        "log-format",
        "--log.format",
        "DCGM_EXPORTER_LOG_FORMAT",
        Value(&["text", "json", "logfmt"], &[("x", "possible values: text, json")]),
    ),
    (
        "pod-resources-kubelet-socket",
        "",
        "DCGM_POD_RESOURCES_KUBELET_SOCKET",
        Value(&["/var/lib/kubelet/pod-resources/kubelet.sock"], &[]),
    ),
    ("hpc-job-mapping-dir", "", "DCGM_HPC_JOB_MAPPING_DIR", Value(&["DIR"], &[])),
    (
        "nvidia-resource-names",
        "",
        "NVIDIA_RESOURCE_NAMES",
        Value(&["nvidia.com/a100", "nvidia.com/a100,nvidia.com/a10"], &[]),
    ),
    ("kubernetes-virtual-gpus", "", "KUBERNETES_VIRTUAL_GPUS", Switch),
    ("dump-enabled", "", "DCGM_EXPORTER_DUMP_ENABLED", IgnoredSwitch),
    ("dump-directory", "", "DCGM_EXPORTER_DUMP_DIRECTORY", IgnoredValue("/tmp/x")),
    ("dump-retention", "", "DCGM_EXPORTER_DUMP_RETENTION", IgnoredValue("24")),
    ("dump-compression", "", "DCGM_EXPORTER_DUMP_COMPRESSION", IgnoredSwitch),
    ("kubernetes-enable-dra", "", "KUBERNETES_ENABLE_DRA", Switch),
    ("disable-startup-validate", "", "DISABLE_STARTUP_VALIDATE", IgnoredSwitch),
    (
        "enable-gpu-bind-unbind-watch",
        "",
        "DCGM_EXPORTER_ENABLE_GPU_BIND_UNBIND_WATCH",
        IgnoredSwitch,
    ),
    (
        "gpu-bind-unbind-poll-interval",
        "",
        "DCGM_EXPORTER_GPU_BIND_UNBIND_POLL_INTERVAL",
        IgnoredValue("1s"),
    ),
    ("enable-pprof", "", "DCGM_EXPORTER_ENABLE_PPROF", IgnoredSwitch),
    // Since 4.8.3.
    ("config-file", "", "DCGM_EXPORTER_CONFIG_FILE", IgnoredValue("/etc/x.yaml")),
    (
        "web-read-timeout",
        "",
        "DCGM_EXPORTER_WEB_READ_TIMEOUT",
        Value(&["10s", "1m30s"], &[("0s", NOT_POSITIVE), ("x", NOT_POSITIVE)]),
    ),
    (
        "web-write-timeout",
        "",
        "DCGM_EXPORTER_WEB_WRITE_TIMEOUT",
        Value(&["30s"], &[("x", NOT_POSITIVE)]),
    ),
    ("container-labels", "", "DCGM_EXPORTER_CONTAINER_LABELS", IgnoredSwitch),
    (
        "container-runtime-socket",
        "",
        "DCGM_CONTAINER_RUNTIME_SOCKET",
        IgnoredValue("/run/containerd/containerd.sock"),
    ),
    // Since 4.8.4.
    ("enable-exporter-metrics", "", "DCGM_EXPORTER_ENABLE_EXPORTER_METRICS", Switch),
    ("watch-max-keep-age", "", "DCGM_EXPORTER_WATCH_MAX_KEEP_AGE", IgnoredValue("10m")),
    ("watch-max-keep-samples", "", "DCGM_EXPORTER_WATCH_MAX_KEEP_SAMPLES", IgnoredValue("10")),
    ("max-concurrent-scrapes", "", "DCGM_EXPORTER_MAX_CONCURRENT_SCRAPES", IgnoredValue("2")),
    // Since 4.9.
    ("health-require-gpus", "", "DCGM_EXPORTER_HEALTH_REQUIRE_GPUS", IgnoredSwitch),
];

/// Success, and the lines that are written to standard error.
fn start(environment: &[(&str, &str)], args: &[&str]) -> (bool, Vec<String>) {
    let output = run_with(environment, &[&["--print-metrics=csv"], args].concat());
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), log.lines().map(str::to_owned).collect())
}

/// Starts with these arguments and variables, without a word.
fn starts(environment: &[(&str, &str)], args: &[&str]) {
    assert_eq!(start(environment, args), (true, Vec::new()), "{environment:?} {args:?}");
}

/// Starts with one remark, which contains all of `texts`.
fn starts_with_remark(environment: &[(&str, &str)], args: &[&str], texts: &[&str]) {
    let (success, log) = start(environment, args);
    let [remark] = &log[..] else { panic!("{environment:?} {args:?}: {log:?}") };
    let is_complete = texts.iter().all(|text| remark.contains(text));
    assert!(success && is_complete, "{environment:?} {args:?}: {remark}");
}

fn is_refused(environment: &[(&str, &str)], args: &[&str], text: &str) {
    let (success, log) = start(environment, args);
    let log = log.join("\n");
    assert!(!success && log.contains(text), "{environment:?} {args:?}: {log}");
}

fn check_switch(flag: &str, other: &str, variable: &str) {
    let long = format!("--{flag}");
    for form in [long.clone(), format!("-{flag}"), other.to_owned()] {
        for value in ["", "=true", "=false", "=1", "=0", "=T", "=F", "=TRUE", "=False"] {
            if !form.is_empty() {
                starts(&[], &[&format!("{form}{value}")]);
            }
        }
    }
    for value in ["", "true", "false", "1", "0", "t", "F", "TRUE", "False"] {
        starts(&[(variable, value)], &[]);
    }
    for odd in ["maybe", "2", " "] {
        is_refused(&[], &[&format!("{long}={odd}")], flag);
        is_refused(&[(variable, odd)], &[], flag);
        is_refused(&[(variable, odd)], &[], variable);
    }
}

fn check_value(
    (flag, other, variable): (&str, &str, &str),
    values: &[String],
    odd: &[(String, &str)],
) {
    let (long, single) = (format!("--{flag}"), format!("-{flag}"));
    for value in values {
        for form in [&long, &single, other] {
            if !form.is_empty() {
                starts(&[], &[form, value]);
                starts(&[], &[&format!("{form}={value}")]);
            }
        }
        starts(&[(variable, value)], &[]);
        // A flag wins over its variable.
        starts(&[(variable, "")], &[&long, value]);
    }
    starts(&[(variable, "")], &[]);
    for (value, text) in odd {
        is_refused(&[], &[&format!("{long}={value}")], text);
        is_refused(&[(variable, value)], &[], text);
    }
}

fn check_ignored(flag: &str, other: &str, variable: &str, value: Option<&str>) {
    let (long, single) = (format!("--{flag}"), format!("-{flag}"));
    for form in [&long, &single, other] {
        if form.is_empty() {
            continue;
        }
        let ignored: [&str; 2] = [&long, "is ignored: "];
        match value {
            Some(value) => {
                starts_with_remark(&[], &[form, value], &ignored);
                starts_with_remark(&[], &[&format!("{form}={value}")], &ignored);
            }
            // What follows a switch is not its value.
            None => starts_with_remark(&[], &[form, "--kubernetes"], &ignored),
        }
    }
    starts_with_remark(&[(variable, value.unwrap_or("true"))], &[], &[variable, "is ignored: "]);
    starts(&[(variable, "")], &[]);
    if value.is_none() {
        starts(&[(variable, "false")], &[]);
    }
}

#[test]
fn every_form_of_every_flag_of_dcgm_exporter() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("counters.csv"), "DCGM_FI_DEV_GPU_UTIL, gauge, x\n").unwrap();
    fs::write(directory.path().join("web.yml"), "http_server_config:\n  http2: false\n").unwrap();
    let path = directory.path().to_str().unwrap();
    let in_directory = |text: &&str| text.replace("DIR", path);
    for (flag, other, variable, kind) in FLAGS {
        match kind {
            Switch => check_switch(flag, other, variable),
            Value(values, odd) => {
                let values: Vec<String> = values.iter().map(in_directory).collect();
                let odd: Vec<(String, &str)> =
                    odd.iter().map(|(value, text)| (in_directory(value), *text)).collect();
                check_value((flag, other, variable), &values, &odd);
            }
            IgnoredSwitch => check_ignored(flag, other, variable, None),
            IgnoredValue(value) => check_ignored(flag, other, variable, Some(value)),
        }
    }
}

#[test]
fn empty_variables_are_as_if_unset() {
    let variables: Vec<(&str, &str)> = FLAGS.iter().map(|flag| (flag.2, "")).collect();
    starts(&variables, &[]);
    let own = [
        "COMPAT",
        "CONTAINER_LOGS",
        "DIALECT",
        "EXTRA_LABELS",
        "GPU_MEM_UNIT",
        "GPU_RESERVATION_NAMESPACES",
        "HOSTNAME",
        "KUBECONFIG",
        "KUBELET_CA",
        "KUBELET_INSECURE_TLS",
        "KUBELET_PODS",
        "LOG_LEVEL",
        "MAX_AGE",
        "MOCK",
        "NO_LANDING_PAGE",
        "NVML_LIBRARY",
        "OWN_METRICS_PATH",
        "POD_LOGS",
        "PROCESS_SERIES",
        "PROCFS",
        "RELEASE_FILE",
        "RELEASE_LABEL",
        "TELEMETRY_PATH",
    ]
    .map(|name| format!("NVML_EXPORTER_{name}"));
    let own: Vec<(&str, &str)> = own.iter().map(|name| (name.as_str(), "")).collect();
    starts(&own, &[]);
    starts(&[("NODE_NAME", ""), ("DCGM_EXPORTER_SYSTEMD_SOCKET", "")], &[]);
    for (variable, _) in own.iter().chain(&variables) {
        starts(&[(variable, "")], &["--debug"]);
    }
}

#[test]
fn times_out_of_range_are_moved_into_it_with_one_remark() {
    let variable = [("DCGM_EXPORTER_INTERVAL", "3")];
    starts_with_remark(&variable, &[], &["--collect-interval 3: raised to 100 ms, the minimum"]);
    for flag in ["--xid-count-window-size", "--clock-events-count-window-size"] {
        starts_with_remark(&[], &[flag, "5ms"], &[flag, "5: raised to 1000 ms, the minimum"]);
    }
}

#[test]
fn flags_in_the_spelling_of_prometheus() {
    for form in [
        &["--web.listen-address=:9835"][..],
        &["--web.telemetry-path", "/gpus"],
        &["--web.telemetry-path=/metrics"],
        &["--log.level=warn"],
        &["--log.level", "DEBUG"],
        &["--log.format=logfmt"],
        &["-log.format=json"],
        &["--no-landing-page"],
    ] {
        starts(&[], form);
    }
    is_refused(
        &[],
        &["--web.telemetry-path=/readyz"],
        "--web-telemetry-path /readyz: the exporter",
    );
    is_refused(&[], &["--web.telemetry-path=x"], "not a usable path");
    is_refused(&[], &["--log.level=loud"], "possible values: debug, info, warn, error");
}
