//! The command line.

use std::process::Output;

use crate::exporter::{Scenario, run, run_once, run_tool, series};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The standard error of a command that must fail and print nothing.
fn error(args: &[&str]) -> String {
    let output = run(args);
    assert!(!output.status.success(), "{args:?} succeeded");
    assert!(output.stdout.is_empty(), "{args:?} printed something");
    stderr(&output)
}

#[test]
fn once_without_a_library_names_the_path() {
    let error = error(&["--once", "--nvml-library", "/nowhere/libnvidia-ml.so.1"]);
    assert!(error.contains("nothing to read: driver down (library_not_found)"), "{error}");
    assert!(error.contains("/nowhere/libnvidia-ml.so.1"), "{error}");
}

#[test]
fn unknown_scenario_is_refused_with_the_list_of_scenarios() {
    let error = error(&["--mock=dmeo", "--once"]);
    assert!(error.contains("dmeo") && error.contains("demo, idle-t4"), "{error}");
}

#[test]
fn invalid_scenario_is_refused_with_its_line() {
    let scenario =
        Scenario::new("bad", "[[gpu]]\nmodel = \"T4\"\n[[process]]\npid = 1\nnaem = \"x\"\n");
    let error = error(&[&scenario.flag(), "--once"]);
    assert!(error.contains("bad.toml:5"), "{error}");
    assert!(error.contains("\"naem\"") && error.contains("\"name\""), "{error}");
}

#[test]
fn address_that_cannot_be_bound_is_refused_with_the_reason() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = listener.local_addr().unwrap().to_string();
    // 192.0.2.0/24 is reserved for documentation.
    for (address, reason) in
        [(&*in_use, "another program listens"), ("192.0.2.1:9400", "not one of this host")]
    {
        let error = error(&["--mock=idle-t4", "--address", address]);
        assert!(error.contains(&format!("--address {address}: cannot listen: ")), "{error}");
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn invalid_own_metrics_path_is_refused() {
    for path in ["own", "/own?x", "/a b", "/metrics", "/", ""] {
        let error = error(&["--mock=idle-t4", "--once", "--own-metrics-path", path]);
        let is_named = error.contains(&format!("--own-metrics-path {path}"));
        assert!(is_named && error.contains("/metrics/own"), "{error}");
    }
}

#[test]
fn help_and_version() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    for flag in
        ["--mock[=<SCENARIO>]", "--collect-interval <MS>", "DCGM_EXPORTER_LISTEN", "NODE_NAME"]
    {
        assert!(help.contains(flag), "{flag} in\n{help}");
    }
    let version = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert_eq!(version.trim(), concat!("nvml-exporter ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn bash_completes_flags_with_the_completion_script() {
    let script = run(&["completions", "bash"]);
    assert!(script.status.success());
    let script = String::from_utf8(script.stdout).unwrap();
    let complete = "COMP_WORDS=(nvml-exporter --collect-i); COMP_CWORD=1
        _nvml__exporter nvml-exporter --collect-i nvml-exporter; echo \"${COMPREPLY[@]}\"";
    let bash = run_tool("bash", &["-c", &(script + complete)], "");
    assert_eq!(String::from_utf8_lossy(&bash.stdout).trim(), "--collect-interval");
}

#[test]
fn manual_page_documents_every_flag() {
    let page = String::from_utf8(run(&["man"]).stdout).unwrap();
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    let flags = help.split_whitespace().filter(|word| word.starts_with("--"));
    let mut seen = 0;
    for flag in flags.filter(|flag| flag.chars().all(|c| c.is_ascii_lowercase() || c == '-')) {
        assert!(page.contains(&flag.replace('-', "\\-")), "{flag}");
        seen += 1;
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn printed_counters_file_selects_the_same_families() {
    let printed = String::from_utf8(run(&["--print-metrics=csv"]).stdout).unwrap();
    let counters = Scenario::new("counters", &printed);
    let flag = format!("--collectors={}", counters.path().display());
    let families = |args: &[&str]| -> Vec<String> {
        let text = run_once(args);
        text.lines().filter(|line| line.starts_with("# TYPE DCGM")).map(str::to_owned).collect()
    };
    assert_eq!(families(&["--mock=demo", &flag]), families(&["--mock=demo"]));
    let table = String::from_utf8(run(&["--print-metrics", &flag]).stdout).unwrap();
    assert!(table.lines().any(|line| line.starts_with("* DCGM_FI_DEV_GPU_UTIL ")), "{table}");
    assert!(table.lines().any(|line| line.starts_with("  DCGM_FI_DEV_FAN_SPEED ")), "{table}");
}

#[test]
fn closed_pipe_is_not_an_error() {
    let program = env!("CARGO_BIN_EXE_nvml-exporter");
    let command = format!("set -o pipefail; {program} --print-metrics=json | head -1");
    let output = run_tool("bash", &["-c", &command], "");
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn flags_before_a_subcommand_are_refused() {
    let error = error(&["--mock", "man"]);
    assert!(error.contains("cannot be used with '--mock"), "{error}");
}

#[test]
fn extra_labels_are_added_to_every_gpu_series_and_escaped() {
    let text = run_once(&["--mock=consumer-4090", "--extra-label", "team=a\"b\\c"]);
    let gpu_series: Vec<_> = text.lines().filter(|line| line.starts_with("DCGM_")).collect();
    assert!(gpu_series.len() > 20);
    for line in gpu_series {
        assert!(line.contains(r#",team="a\"b\\c"}"#), "{line}");
    }
}

#[test]
fn process_that_is_missing_in_procfs_has_no_series() {
    let empty = tempfile::tempdir().unwrap();
    let text = run_once(&["--mock=consumer-4090", "--procfs", &empty.path().display().to_string()]);
    assert_eq!(series(&text, "DCGM_CUSTOM_PROCESS_MEM_USED"), Vec::<&str>::new());
    assert_eq!(series(&text, "DCGM_FI_DEV_FB_USED").len(), 1);
    assert!(text.contains(r#"reason="gone""#), "{text}");
}
