//! The command line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Output;

use crate::exporter::{Scenario, run, run_once, run_tool, run_with, series};

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
    let error = error(&["--once", "--require-gpu", "--nvml-library", "/nowhere/libnvidia-ml.so.1"]);
    assert!(error.contains("nothing to read: driver down (library_not_found)"), "{error}");
    // The path, and in the reason the text of the dynamic loader.
    assert_eq!(error.matches("/nowhere/libnvidia-ml.so.1").count(), 2, "printed once: {error}");
}

/// That it does not wait is tested in src/kube/source.rs, without a clock.
#[test]
fn once_prints_without_a_directory_and_a_socket_that_are_missing() {
    let sources = [
        ["--hpc-job-mapping-dir", "/nowhere/jobs"],
        ["--pod-resources-kubelet-socket", "/nowhere/kubelet.sock"],
    ];
    let text = run_once(&[&["--mock=idle-t4"], sources.concat().as_slice()].concat());
    assert!(text.contains("DCGM_FI_DEV_GPU_UTIL"), "{text}");
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

/// Command line and error, as the text after `nvml-exporter: `; `DIR` is a directory with the files of
/// the test.
const ERRORS: &[(&str, &str)] = &[
    (
        "--collectors=DIR/none",
        "-f DIR/none: the file cannot be read (No such file or directory (os error 2)); check its path \
         and permissions",
    ),
    (
        "--collectors=DIR",
        "-f DIR: the file cannot be read (Is a directory (os error 21)); check its path and permissions",
    ),
    (
        "--collectors=DIR/text",
        "-f DIR/text: line 1: 1 field instead of 3; write NAME, TYPE, HELP, as in \
         DCGM_FI_DEV_GPU_UTIL, gauge, GPU utilization (in %).",
    ),
    (
        "--collectors=DIR/empty",
        "-f DIR/empty: the file selects no known metric family; add one per line, as listed by \
         --print-metrics=csv",
    ),
    (
        "--configmap-data=x",
        "--configmap-data x: not a ConfigMap name; give NAMESPACE:NAME, for example \
         gpu-operator:counters",
    ),
    (
        "--devices=g:3-1",
        "--devices g:3-1: \"3-1\" is neither an index nor a range; use numbers up to 1024, as in 0,2-4",
    ),
    (
        "--kubernetes-pod-label-allowlist-regex=(",
        "--kubernetes-pod-label-allowlist-regex (: found open group without closing ')'; give a valid \
         regular expression, for example ^app",
    ),
    (
        "--release-label=a",
        "--release-label a: not a label; give KEY=VALUE, for example \
         nvidia.com/mig.config.state=pending",
    ),
    (
        "--procfs=DIR/none",
        "--procfs DIR/none: no such directory; give the directory that contains <pid>/stat",
    ),
    (
        "--max-age=0",
        "--max-age 0: shorter than --collect-interval 5000, so readings would be dropped before the \
         next cycle; give at least the interval",
    ),
    (
        "--extra-label=pod=x",
        "--extra-label pod: the exporter or the scrape configuration sets a label of this name, and \
         Prometheus rejects a series with a duplicate label; choose another name",
    ),
    (
        "--node-name=A --kubeconfig=DIR/none",
        "--node-name: node name \"A\" is not a valid Kubernetes name (lower-case letters, digits, '-' \
         and '.'); pass the name that `kubectl get nodes` prints",
    ),
    (
        "--address=9400",
        "--address 9400: not an address; give :PORT or HOST:PORT with a port up to 65535, for example \
         :9400 or 127.0.0.1:9400",
    ),
    (
        "--own-metrics-path=own",
        "--own-metrics-path own: not a usable path; give a / followed by letters, digits and /-._~ \
         only, for example /metrics/own",
    ),
    (
        "--web-systemd-socket",
        "--web-systemd-socket: systemd passed no socket (LISTEN_FDS is not set); start the exporter \
         through its socket unit",
    ),
    (
        "--web-config-file=DIR/none",
        "--web-config-file DIR/none: the file cannot be read (No such file or directory (os error 2)); \
         check its path and permissions",
    ),
    (
        "--web-config-file=DIR/text",
        "--web-config-file DIR/text: line 1, column 1: keys are expected here; write KEY: VALUE, one \
         per line",
    ),
    ("--mock=DIR/text", "--mock: scenario DIR/text:1: key with no value, expected `=`"),
    (
        "--mock=DIR",
        "--mock: no scenario \"DIR\": it is neither a file nor one of demo, idle-t4, shared-l20, \
         consumer-4090, faulty, blackwell, old-driver, mig-a100, mig-h100, bert-hpa, abi-535, huge, \
         hami, hami-mig, kai, dra, dra-sharing, lifecycle, gke, gvisor, jetson, no-gpu; give one of them",
    ),
    (
        "--require-gpu --nvml-library=DIR/none",
        "nothing to read: driver down (library_not_found): no libnvidia-ml at DIR/none (DIR/none: \
         cannot open shared object file: No such file or directory); install the NVIDIA driver, mount \
         its library into the container, or set --nvml-library",
    ),
];

#[test]
fn errors_name_input_location_reason_and_remedy() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("text"), "text\n").unwrap();
    fs::write(directory.path().join("empty"), "").unwrap();
    let path = directory.path().to_str().unwrap();
    for (line, expected) in ERRORS {
        let args: Vec<String> = line.split(' ').map(|arg| arg.replace("DIR", path)).collect();
        let args: Vec<&str> =
            [&["--once"], &*args.iter().map(String::as_str).collect::<Vec<_>>()].concat();
        let expected = format!("nvml-exporter: {}", expected.replace("DIR", path));
        // The log precedes the error.
        let error = error(&args);
        assert_eq!(error.lines().next_back(), Some(&*expected), "{line}");
    }
}

#[test]
fn errors_of_parsed_values_name_the_environment_variable_and_a_remedy() {
    for (variable, flag, remedy) in [
        ("DCGM_EXPORTER_INTERVAL", "--collect-interval <TIME>", "give a number of milliseconds"),
        ("NVML_EXPORTER_DIALECT", "--dialect <DIALECT>", "[possible values: ack, dcgm-exporter]"),
        ("DCGM_EXPORTER_KUBERNETES", "--kubernetes", "give true or false"),
        ("NVML_EXPORTER_EXTRA_LABELS", "--extra-label <K=V>", "for example team=search"),
        ("DCGM_EXPORTER_WEB_READ_TIMEOUT", "--web-read-timeout <TIME>", "for example 10s"),
    ] {
        let error = stderr(&run_with(&[(variable, "bad")], &["--once"]));
        let value = format!("error: invalid value 'bad' for '{flag}'");
        assert!(error.starts_with(&value) && error.contains(remedy), "{error}");
        let tip = format!("the value is that of the environment variable {variable}");
        assert!(error.contains(&tip), "{error}");
    }
    let error = error(&["--collect-interval=bad", "--once"]);
    assert!(!error.contains("environment variable"), "{error}");
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
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    for scenario in ["demo", "jetson"] {
        assert!(help.contains(scenario), "{help}");
    }
    let unknown = error(&["--mock=nonsense", "--once"]);
    let (_, known) = unknown.split_once("one of ").unwrap();
    let listed = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(listed.contains(known.split_once("; ").unwrap().0), "{known} in {listed}");
    let help = run(&["--help-all"]);
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    for flag in
        ["--mock[=<SCENARIO>]", "--collect-interval <TIME>", "DCGM_EXPORTER_LISTEN", "NODE_NAME"]
    {
        assert!(help.contains(flag), "{flag} in\n{help}");
    }
    let version = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert_eq!(version.trim(), concat!("nvml-exporter ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn misspelt_subcommand_flag_or_value_gets_the_nearest_one() {
    for (args, nearest) in [
        (&["chek"][..], "'check'"),
        (&["--colect-interval=1000"], "'--collect-interval'"),
        (&["--dialect=dcgm-exportr"], "'dcgm-exporter'"),
        (&["check", "--output=jsn"], "'json'"),
        (&["completions", "bsh"], "'bash'"),
    ] {
        let error = error(args);
        assert!(error.contains("similar") && error.contains(nearest), "{args:?}: {error}");
    }
    let error = error(&["--mock=dmeo", "--once"]);
    assert!(error.contains("did you mean \"demo\""), "{error}");
}

/// The program and its subcommands.
const COMMANDS: [&[&str]; 6] = [&[], &["top"], &["check"], &["record"], &["completions"], &["man"]];

#[test]
fn help_fits_a_screen() {
    for command in COMMANDS {
        for flag in ["-h", "--help"] {
            let output = run_with(&[("COLUMNS", "80")], &[command, &[flag]].concat());
            let help = String::from_utf8(output.stdout).unwrap();
            let widest = help.lines().map(|line| line.chars().count()).max().unwrap();
            let size = (help.lines().count(), widest);
            assert!(size.0 > 5 && size.0 <= 40 && size.1 <= 80, "{size:?}: {help}");
            // One line per flag.
            let options: Vec<_> = help.lines().skip_while(|line| *line != "Options:").collect();
            let flags = options.iter().take_while(|line| !line.starts_with("Scenarios"));
            let mut flags = flags.filter(|line| line.starts_with(' '));
            assert!(flags.all(|line| line.trim().starts_with('-')), "{help}");
        }
    }
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    let last = help.lines().last().unwrap();
    assert!(last.contains("--help-all") && last.contains("nvml-exporter man"), "{last}");
}

/// The group of each flag in the long help.
fn groups(command: &[&str]) -> BTreeMap<String, String> {
    let help = String::from_utf8(run(&[command, &["--help-all"]].concat()).stdout).unwrap();
    let mut group = String::new();
    let mut found = BTreeMap::new();
    for line in help.lines() {
        if let Some(heading) = line.strip_suffix(':').filter(|line| !line.starts_with(' ')) {
            heading.clone_into(&mut group);
        }
        let words = line.trim().split([' ', '=', '[', ',']);
        let is_flag = line.trim().starts_with('-') && line.starts_with("  ");
        if let Some(flag) = words.filter(|word| word.starts_with("--")).find(|_| is_flag) {
            found.insert(flag.to_owned(), group.clone());
        }
    }
    found
}

#[test]
fn flags_have_the_same_group_in_every_subcommand() {
    let of_program = groups(&[]);
    assert_eq!(of_program["--address"], "HTTP server");
    assert_eq!(of_program["--once"], "Options");
    let mut of_subcommands = BTreeSet::new();
    for command in &COMMANDS[1..] {
        for (flag, group) in groups(command) {
            match of_program.get(&flag) {
                Some(expected) => assert_eq!(&group, expected, "{flag} of {command:?}"),
                None => _ = of_subcommands.insert(group),
            }
        }
    }
    let expected = ["Another node", "Check", "Record", "Screen"];
    assert_eq!(of_subcommands, expected.map(str::to_owned).into());
    let help = String::from_utf8(run(&["top", "--help"]).stdout).unwrap();
    assert!(help.contains("Another node:") && help.contains("-d, --delay"), "{help}");
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
    let help = String::from_utf8(run(&["--help-all"]).stdout).unwrap();
    for section in ["ENVIRONMENT", "EXAMPLES", "SIGNALS", "\"EXIT STATUS\"", "FILES"] {
        assert!(page.contains(&format!(".SH {section}\n")), "{section}");
    }
    assert!(!page.contains("(1)"), "no page of a subcommand exists");
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
