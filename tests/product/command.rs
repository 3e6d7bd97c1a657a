//! The command line, as a user meets it.

use std::process::Output;

use crate::exporter::{Scenario, once, run, series, tool};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn refusal(args: &[&str]) -> String {
    let output = run(args);
    assert!(!output.status.success(), "{args:?} is refused");
    assert!(output.stdout.is_empty(), "{args:?} prints nothing");
    stderr(&output)
}

#[test]
fn once_without_a_driver_says_what_is_missing() {
    let said = refusal(&["--once", "--nvml-library", "/nowhere/libnvidia-ml.so.1"]);
    assert!(said.contains("nothing to read: driver down (library_not_found)"), "{said}");
    assert!(said.contains("/nowhere/libnvidia-ml.so.1"), "{said}");
}

#[test]
fn a_scenario_that_does_not_exist_is_refused_with_those_that_do() {
    let said = refusal(&["--mock=dmeo", "--once"]);
    assert!(said.contains("dmeo") && said.contains("demo, idle-t4"), "{said}");
}

#[test]
fn a_scenario_that_is_wrong_is_refused_with_its_line() {
    let scenario =
        Scenario::new("bad", "[[gpu]]\nmodel = \"T4\"\n[[process]]\npid = 1\nnaem = \"x\"\n");
    let said = refusal(&[&scenario.flag(), "--once"]);
    assert!(said.contains("bad.toml:5"), "{said}");
    assert!(said.contains("\"naem\"") && said.contains("\"name\""), "{said}");
}

#[test]
fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = refusal(&["--mock=idle-t4", "--address", &address]);
    assert!(said.contains(&format!("--address {address}: cannot listen")), "{said}");
}

#[test]
fn a_path_for_own_series_that_cannot_be_is_refused() {
    for path in ["own", "/own?x", "/a b", "/metrics", "/", ""] {
        let said = refusal(&["--mock=idle-t4", "--once", "--own-metrics-path", path]);
        let named = said.contains(&format!("--own-metrics-path {path}"));
        assert!(named && said.contains("/metrics/own"), "{said}");
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
fn a_shell_completes_flags_from_the_script() {
    let script = run(&["completions", "bash"]);
    assert!(script.status.success());
    let script = String::from_utf8(script.stdout).unwrap();
    let ask = "COMP_WORDS=(nvml-exporter --collect-i); COMP_CWORD=1
        _nvml__exporter nvml-exporter --collect-i nvml-exporter; echo \"${COMPREPLY[@]}\"";
    let bash = tool("bash", &["-c", &(script + ask)], "");
    assert_eq!(String::from_utf8_lossy(&bash.stdout).trim(), "--collect-interval");
}

#[test]
fn the_manual_page_tells_of_every_flag() {
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
fn a_printed_counters_file_shows_the_same_page() {
    let printed = String::from_utf8(run(&["--print-metrics=csv"]).stdout).unwrap();
    let counters = Scenario::new("counters", &printed);
    let flag = format!("--collectors={}", counters.path().display());
    let families = |args: &[&str]| -> Vec<String> {
        let page = once(args);
        page.lines().filter(|line| line.starts_with("# TYPE DCGM")).map(str::to_owned).collect()
    };
    assert_eq!(families(&["--mock=demo", &flag]), families(&["--mock=demo"]));
    let table = String::from_utf8(run(&["--print-metrics", &flag]).stdout).unwrap();
    assert!(table.lines().any(|line| line.starts_with("* DCGM_FI_DEV_GPU_UTIL ")), "{table}");
    assert!(table.lines().any(|line| line.starts_with("  DCGM_FI_DEV_FAN_SPEED ")), "{table}");
}

#[test]
fn a_reader_who_has_read_enough_is_no_error() {
    let program = env!("CARGO_BIN_EXE_nvml-exporter");
    let command = format!("set -o pipefail; {program} --print-metrics=json | head -1");
    let output = tool("bash", &["-c", &command], "");
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn flags_before_a_verb_are_refused_not_ignored() {
    let said = refusal(&["--mock", "man"]);
    assert!(said.contains("cannot be used with '--mock"), "{said}");
}

#[test]
fn extra_labels_stand_on_every_gpu_series_and_are_escaped() {
    let page = once(&["--mock=consumer-4090", "--extra-label", "team=a\"b\\c"]);
    let gpu_series: Vec<_> = page.lines().filter(|line| line.starts_with("DCGM_")).collect();
    assert!(gpu_series.len() > 20);
    for line in gpu_series {
        assert!(line.contains(r#",team="a\"b\\c"}"#), "{line}");
    }
}

#[test]
fn a_process_outside_our_proc_is_not_given_a_name() {
    let empty = tempfile::tempdir().unwrap();
    let page = once(&["--mock=consumer-4090", "--procfs", &empty.path().display().to_string()]);
    assert_eq!(series(&page, "DCGM_CUSTOM_PROCESS_MEM_USED"), Vec::<&str>::new());
    assert_eq!(series(&page, "DCGM_FI_DEV_FB_USED").len(), 1);
    assert!(page.contains(r#"reason="gone""#), "{page}");
}
