//! What the page about migration promises is there: series, flags, a counters file, queries.

use std::fmt::Write;
use std::fs;

use crate::clients::{brought, prometheus};
use crate::exporter::{Exporter, Scenario, once, run, series, tool};
use crate::pages::{block, column, quoted, read, unknown_series, words};

fn page() -> String {
    read("daemonset/docs/migration.md")
}

#[test]
fn every_series_of_ours_exists() {
    let here = column(&page(), "here").join("\n");
    assert!(words(&here).count() > 150, "the tables are read");
    assert_eq!(unknown_series(&here), Vec::<String>::new());
}

/// In `--help`, or taken with a remark on what stands in its place.
#[test]
fn every_flag_of_ours_is_taken() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    let is_own = |flag: &&str| {
        let name = |line: &str| line.split("--").nth(1).map(|rest| format!("--{rest}"));
        let names = help.lines().filter(|line| line.trim_start().starts_with('-')).filter_map(name);
        let ends = |rest: &str| rest.is_empty() || rest.starts_with([' ', '[', '<']);
        names.into_iter().any(|own| own.strip_prefix(*flag).is_some_and(ends))
    };
    let text = page();
    let here = column(&text, "here").join("\n");
    let flags = quoted(&here).filter(|quoted| quoted.starts_with("--"));
    let flags: Vec<_> = flags.map(|flag| flag.split([' ', '=']).next().unwrap()).collect();
    let (own, idle): (Vec<_>, Vec<_>) = flags.into_iter().partition(is_own);
    assert!(own.len() > 30 && idle.len() > 15, "{own:?} {idle:?}");
    let given: Vec<_> = idle.iter().map(|flag| format!("{flag}=1")).collect();
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    let output = run(&[&["--once", "--mock=idle-t4"], &given[..]].concat());
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    for flag in idle {
        assert!(log.contains(&format!("WARN {flag}: ")), "{flag} is not taken:\n{log}");
    }
}

/// The counters file is a good one, and has every row that its table asks for.
#[test]
fn the_counters_file_shows_what_its_table_asks_for() {
    let text = page();
    let folder = tempfile::tempdir().unwrap();
    let counters = folder.path().join("nvidia-smi.csv");
    fs::write(&counters, block(&text, "csv")).unwrap();
    let file = format!("--collectors={}", counters.display());
    let page = once(&["--mock=demo", "--node-name=node-1", &file]);
    assert!(series(&page, "DCGM_FI_DEV_FAN_SPEED").is_empty(), "no H100 has a fan");
    let queries = queries(&text);
    for name in queries.iter().flat_map(|(_, query)| words(query)) {
        let asked = block(&text, "csv").lines().any(|line| line.starts_with(&format!("{name},")));
        assert!(asked || name.starts_with("nvml_exporter_"), "{name} is not in the counters file");
    }
}

/// The left names of the last table with their formulas.
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
fn every_formula_is_a_recording_rule() {
    let text = page();
    let older = text.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `nvidia_gpu_")?.split_once("` | `")?;
        Some((name, rest.strip_suffix("` |")?))
    });
    let older: Vec<_> = older.collect();
    let queries = queries(&text);
    assert!(older.len() == 8 && queries.len() > 70, "{} {}", older.len(), queries.len());
    let mut rules = "groups:\n- name: migration\n  rules:\n".to_owned();
    let all = older.into_iter().map(|(name, query)| (format!("gpu_{name}"), query));
    for (name, query) in all.chain(queries.iter().map(|(name, q)| (format!("smi_{name}"), *q))) {
        writeln!(rules, "  - record: nvidia_{name}\n    expr: '{query}'").unwrap();
    }
    let label = block(&text, "text").trim();
    writeln!(rules, "  - record: nvidia_smi_example\n    expr: '{label}'").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("migration.yml");
    fs::write(&file, rules).unwrap();
    let promtool = brought("debian/usr/bin/promtool");
    let output = tool(&promtool, &["check", "rules", &file.display().to_string()], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A board of each kind that some formula is about, with a pod, a process of the host and an XID.
const BOARDS: &str = r#"
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

/// In a Prometheus that scrapes the exporter with the page's counters file.
#[test]
fn every_formula_has_an_answer_in_the_unit_of_its_name() {
    let text = page();
    let scenario = Scenario::new("boards", BOARDS);
    let counters = scenario.path().with_file_name("nvidia-smi.csv");
    fs::write(&counters, block(&text, "csv")).unwrap();
    let file = format!("--collectors={}", counters.display());
    let exporter = Exporter::start(&[&scenario.flag(), &file, "--collect-interval=500"]);
    exporter.wait_for("an XID", |page| !series(page, "nvml_exporter_xid_events_total").is_empty());
    let (server, _folder) = prometheus(&exporter);
    server.wait_for("/api/v1/label/__name__/values", |body| body.contains("scrape_series_added"));
    let answer = |query: &str| {
        let plain = |c: u8| c.is_ascii_alphanumeric();
        let code = |c: u8| if plain(c) { char::from(c).to_string() } else { format!("%{c:02X}") };
        let encoded: String = query.bytes().map(code).collect();
        let path = format!("/api/v1/query?query={encoded}");
        let body = server.wait_for(&path, |body| body.contains("\"value\":"));
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        let rows = answer["data"]["result"].as_array().unwrap().clone();
        let number = |row: &serde_json::Value| row["value"][1].as_str().unwrap().parse().unwrap();
        let mut numbers: Vec<f64> = rows.iter().map(number).collect();
        numbers.sort_by(f64::total_cmp);
        numbers
    };
    let queries = queries(&text);
    for (name, query) in &queries {
        // The mock's boards are in no NVLink fabric.
        if *name != "fabric_state" {
            assert!(!answer(query).is_empty(), "{name}");
        }
    }
    let of = |wanted: &str| {
        let (_, query) = queries.iter().find(|(name, _)| *name == wanted).unwrap();
        answer(query)
    };
    assert_eq!(of("compute_cap"), [7.5, 8.9, 9.0, 9.0]);
    let mib = 1024.0 * 1024.0;
    assert_eq!(of("compute_app_used_memory_bytes"), [1024.0 * mib, 2048.0 * mib]);
    assert_eq!(of("compute_apps"), [1.0, 1.0]);
    let busy = of("utilization_gpu_ratio");
    assert!(busy.contains(&0.4) && busy.iter().all(|ratio| *ratio <= 1.0), "{busy:?}");
}
