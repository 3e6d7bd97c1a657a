//! The migration guide: its series, flags, counters file and queries exist and work.

use std::fmt::Write;
use std::fs;

use crate::clients::{start_prometheus, tool_path};
use crate::documents::{code_block, code_spans, column, read_file, series_names, unknown_series};
use crate::exporter::{Exporter, Scenario, run, run_once, run_tool, series};

fn guide() -> String {
    read_file("docs/migration.md")
}

#[test]
fn every_series_named_exists() {
    let own_names = column(&guide(), "nvml-exporter").join("\n");
    assert!(series_names(&own_names).count() > 150, "no tables were found");
    assert_eq!(unknown_series(&own_names), Vec::<String>::new());
}

/// Each flag is in `--help`, or is ignored with a warning that names the replacement.
#[test]
fn every_flag_named_is_accepted() {
    let help = String::from_utf8(run(&["--help-all"]).stdout).unwrap();
    let is_in_help = |flag: &&str| {
        let name = |line: &str| line.split("--").nth(1).map(|rest| format!("--{rest}"));
        let names = help.lines().filter(|line| line.trim_start().starts_with('-')).filter_map(name);
        let is_complete = |rest: &str| rest.is_empty() || rest.starts_with([' ', '[', '<']);
        names.into_iter().any(|name| name.strip_prefix(*flag).is_some_and(is_complete))
    };
    let text = guide();
    let own_names = column(&text, "nvml-exporter").join("\n");
    let flags = code_spans(&own_names).filter(|quoted| quoted.starts_with("--"));
    let flags: Vec<_> = flags.map(|flag| flag.split([' ', '=']).next().unwrap()).collect();
    let (own, ignored): (Vec<_>, Vec<_>) = flags.into_iter().partition(is_in_help);
    assert!(own.len() > 30 && ignored.len() > 15, "{own:?} {ignored:?}");
    let args: Vec<_> = ignored.iter().map(|flag| format!("{flag}=1")).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let output = run(&[&["--once", "--mock=idle-t4"], &args[..]].concat());
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    for flag in ignored {
        assert!(
            log.contains(&format!("WARN {flag} is ignored: ")),
            "{flag} is not accepted:\n{log}"
        );
    }
}

/// The counters file is valid and selects every series that the queries use.
#[test]
fn counters_file_selects_the_series_of_the_queries() {
    let text = guide();
    let directory = tempfile::tempdir().unwrap();
    let counters = directory.path().join("nvidia-smi.csv");
    fs::write(&counters, code_block(&text, "csv")).unwrap();
    let file = format!("--collectors={}", counters.display());
    let metrics = run_once(&["--mock=demo", "--node-name=node-1", &file]);
    assert!(series(&metrics, "DCGM_FI_DEV_FAN_SPEED").is_empty(), "an H100 has no fan");
    let queries = queries(&text);
    for name in queries.iter().flat_map(|(_, query)| series_names(query)) {
        let is_selected =
            code_block(&text, "csv").lines().any(|line| line.starts_with(&format!("{name},")));
        assert!(
            is_selected || name.starts_with("nvml_exporter_"),
            "{name} is not in the counters file"
        );
    }
}

/// The rows of the last table: `nvidia_smi_*` name without the prefix, and query.
fn queries(text: &str) -> Vec<(&str, &str)> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `nvidia_smi_"));
    rows.filter_map(|row| {
        let (name, rest) = row.split_once("` | `")?;
        let (query, _) = rest.split_once("` |")?;
        Some((name, query))
    })
    .collect()
}

#[test]
fn every_query_is_a_valid_recording_rule() {
    let text = guide();
    let gpu_queries = text.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `nvidia_gpu_")?.split_once("` | `")?;
        Some((name, rest.strip_suffix("` |")?))
    });
    let gpu_queries: Vec<_> = gpu_queries.collect();
    let queries = queries(&text);
    assert!(
        gpu_queries.len() == 8 && queries.len() > 70,
        "{} {}",
        gpu_queries.len(),
        queries.len()
    );
    let mut rules = "groups:\n- name: migration\n  rules:\n".to_owned();
    let all = gpu_queries.into_iter().map(|(name, query)| (format!("gpu_{name}"), query));
    for (name, query) in all.chain(queries.iter().map(|(name, q)| (format!("smi_{name}"), *q))) {
        writeln!(rules, "  - record: nvidia_{name}\n    expr: '{query}'").unwrap();
    }
    let label = code_block(&text, "text").trim();
    writeln!(rules, "  - record: nvidia_smi_example\n    expr: '{label}'").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("migration.yml");
    fs::write(&file, rules).unwrap();
    let promtool = tool_path("debian/usr/bin/promtool");
    let output = run_tool(&promtool, &["check", "rules", &file.display().to_string()], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// GPUs for which every query has a result, with a pod, a host process and an XID error.
const GPUS: &str = r#"
[[gpu]]
model = "T4"
retired = { sbe = 1, dbe = 2 }
[[gpu]]
model = "RTX 4090"
[[gpu]]
model = "H100"
[[gpu]]
model = "H100"
mig = [{ instances = [{ profile = "3g.40gb", gi = 1 }] }]
[cluster]
node = "node-1"
[[pod]]
name = "worker"
containers = [{ name = "main", gpus = 0 }]
[[process]]
pid = 101
name = "python"
pod = "default/worker"
gpus = [0]
memory = "2 GiB"
sm = 40
[[process]]
pid = 202
name = "blender"
gpus = [1]
memory = "1 GiB"
[[xid]]
gpu = 0
at = 1
code = 31
"#;

/// Queried in a Prometheus server that scrapes the exporter with the counters file of the guide.
#[test]
fn every_query_has_a_result_in_the_unit_of_its_name() {
    let text = guide();
    let scenario = Scenario::new("gpus", GPUS);
    let counters = scenario.path().with_file_name("nvidia-smi.csv");
    fs::write(&counters, code_block(&text, "csv")).unwrap();
    let file = format!("--collectors={}", counters.display());
    let exporter = Exporter::start(&[&scenario.flag(), &file, "--collect-interval=500"]);
    exporter.wait_for("an XID", |metrics| {
        !series(metrics, "nvml_exporter_xid_events_total").is_empty()
    });
    let (server, _directory) = start_prometheus(&exporter);
    server.wait_for("/api/v1/label/__name__/values", |body| body.contains("scrape_series_added"));
    let values = |query: &str| {
        let is_plain = |c: u8| c.is_ascii_alphanumeric();
        let encode =
            |c: u8| if is_plain(c) { char::from(c).to_string() } else { format!("%{c:02X}") };
        let encoded: String = query.bytes().map(encode).collect();
        let path = format!("/api/v1/query?query={encoded}");
        let body = server.wait_for(&path, |body| body.contains("\"value\":"));
        let response: serde_json::Value = serde_json::from_str(&body).unwrap();
        let rows = response["data"]["result"].as_array().unwrap().clone();
        let value = |row: &serde_json::Value| row["value"][1].as_str().unwrap().parse().unwrap();
        let mut values: Vec<f64> = rows.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let queries = queries(&text);
    for (name, query) in &queries {
        // The mock GPUs are not part of an NVLink fabric.
        if *name != "fabric_state" {
            assert!(!values(query).is_empty(), "{name}");
        }
    }
    let values_of = |wanted: &str| {
        let (_, query) = queries.iter().find(|(name, _)| *name == wanted).unwrap();
        values(query)
    };
    assert_eq!(values_of("compute_cap"), [7.5, 8.9, 9.0, 9.0]);
    let mib = 1024.0 * 1024.0;
    assert_eq!(values_of("compute_app_used_memory_bytes"), [1024.0 * mib, 2048.0 * mib]);
    assert_eq!(values_of("compute_apps"), [1.0, 1.0]);
    let ratios = values_of("utilization_gpu_ratio");
    assert!(ratios.contains(&0.4) && ratios.iter().all(|ratio| *ratio <= 1.0), "{ratios:?}");
}
