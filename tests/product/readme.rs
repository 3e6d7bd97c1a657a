//! The README and `docs/`: generated parts, quoted output, example scenario and named tests.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use nvml_exporter::catalog::exporter_metrics::EXPORTER_METRICS;
use nvml_exporter::catalog::refused::REFUSED;
use nvml_exporter::catalog::{CatalogRow, find, preset, rows};
use nvml_exporter::policy::{
    DEFAULT_INTERVAL, POD_RESOURCES_EVERY, SLOW_TIER, Tier, default_max_age,
};

use crate::documents::{column, read_file};
use crate::exporter::run;

/// Compares the part between two markers of a document with `expected`; `UPDATE_DOCS=1` replaces it instead.
pub(crate) fn compare_section(document: &str, part: &str, expected: &str) {
    let (begin, end) = (format!("<!-- {part}: begin -->\n"), format!("<!-- {part}: end -->"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = read_file(document);
    let (head, rest) = text.split_once(&begin).expect("a begin marker");
    let (found, tail) = rest.split_once(&end).expect("an end marker");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, format!("{head}{begin}{expected}{end}{tail}")).unwrap();
    } else {
        assert_eq!(
            found, expected,
            "{document}: update it with UPDATE_DOCS=1 cargo test --test product readme"
        );
    }
}

/// The rows that are exported without a counters file, by dialect.
struct Defaults {
    ack: BTreeSet<&'static str>,
    dcgm_4_8: BTreeSet<&'static str>,
    /// Rows with the name that 4.9 gives them.
    dcgm_4_9: Vec<(&'static str, &'static str)>,
}

impl Defaults {
    fn new() -> Self {
        let row_of = |name: &str| find(name).expect("a row of the catalog").name;
        Self {
            ack: preset::ACK.iter().chain(preset::ACTIONS).map(|name| row_of(name)).collect(),
            dcgm_4_8: preset::DCGM_4_8
                .iter()
                .chain(preset::ACTIONS)
                .map(|name| row_of(name))
                .collect(),
            dcgm_4_9: preset::DCGM_4_9
                .iter()
                .chain(preset::ACTIONS_4_9)
                .map(|name| (row_of(name), *name))
                .collect(),
        }
    }

    /// The cells of the ack dialect and of the dcgm-exporter dialect.
    fn cells(&self, row: &str) -> (&'static str, String) {
        let ack = if self.ack.contains(row) { "yes" } else { "" };
        let older = self.dcgm_4_8.contains(row).then(|| "4.8".to_owned());
        let newer = self.dcgm_4_9.iter().filter(|(of, _)| *of == row).map(|(_, name)| {
            if *name == row { "4.9".to_owned() } else { format!("4.9 as `{name}`") }
        });
        (ack, older.into_iter().chain(newer).collect::<Vec<_>>().join(", "))
    }
}

/// All catalog rows. Consecutive families that differ only in a number, counted from 0, share one table row.
fn series(table: &mut String) {
    let rows: Vec<CatalogRow> = rows().collect();
    let defaults = Defaults::new();
    let is_next = |a: &CatalogRow, b: &CatalogRow| {
        let ((head, number, tail), after) = (split_number(a.name), split_number(b.name));
        number.is_some() && after == (head, number.map(|n| n + 1), tail)
    };
    for series in rows.chunk_by(is_next) {
        let (first, last) = (series.first().unwrap(), series.last().unwrap());
        let have_same_defaults =
            series.iter().all(|row| defaults.cells(row.name) == defaults.cells(first.name));
        if series.len() > 1 && split_number(first.name).1 == Some(0) && have_same_defaults {
            let names = format!("`{}` to `{}`", first.name, last.name);
            write_row(table, &names, first, &defaults);
        } else {
            for member in series {
                write_row(table, &format!("`{}`", member.name), member, &defaults);
            }
        }
    }
}

/// A name split at its last number: text before, number, text after.
fn split_number(name: &str) -> (&str, Option<u32>, &str) {
    let Some(last) = name.rfind(|c: char| c.is_ascii_digit()) else { return (name, None, "") };
    let first = name[..last].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    (&name[..first], name[first..=last].parse().ok(), &name[last + 1..])
}

fn write_row(table: &mut String, name: &str, row: &CatalogRow, defaults: &Defaults) {
    let CatalogRow { scope, kind, unit, symbol, help, absent, .. } = row;
    let kind = kind.as_str();
    let (ack, dcgm) = defaults.cells(row.name);
    let (interval, age, kept) = read_cells(row);
    writeln!(
        table,
        "| {name} | {scope} | {kind} | {unit} | {help} | `{symbol}` | {ack} | {dcgm} | {interval} | {age} | {kept} | {absent} |"
    )
    .unwrap();
}

/// How often the row is read, and how old its value can be with the default interval: while the driver responds,
/// and while it does not.
fn read_cells(row: &CatalogRow) -> (String, String, String) {
    let slow = SLOW_TIER.as_secs();
    let kept = || "kept".to_owned();
    if row.is_info_label {
        return ("once per session".to_owned(), "the session".to_owned(), String::new());
    }
    if row.symbol.starts_with("v1.PodResources") {
        let interval = format!("{} s", POD_RESOURCES_EVERY.as_secs());
        return (interval.clone(), interval, kept());
    }
    if row.symbol.starts_with("nvmlEventSetWait") {
        return ("on event".to_owned(), format!("{} s", DEFAULT_INTERVAL.as_secs()), kept());
    }
    let interval = match row.tier {
        Tier::Cycle => "cycle".to_owned(),
        Tier::Second => "cycle, at most once a second".to_owned(),
        Tier::Slow => format!("{slow} s"),
    };
    let age = format!("{} s", row.tier.age(DEFAULT_INTERVAL).as_secs_f64());
    let kept = row.tier.max_age(default_max_age(DEFAULT_INTERVAL));
    (interval, age, format!("{} s", kept.as_secs()))
}

// One test, because two parts are written to the same file.
#[test]
fn generated_parts_are_current() {
    let help = String::from_utf8(run(&["--help-all"]).stdout).unwrap();
    compare_section(
        "docs/configuration.md",
        "help",
        &format!("```text\n{}```\n", without_trailing_blanks(&help)),
    );

    let mut table = "| series | scope | type | unit | meaning | source | `ack` | `dcgm-exporter` | read | age | max. age | absent |\n\
                     |---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    series(&mut table);
    compare_section("docs/metrics.md", "series", &table);
    let mut table = "| field | why it has no series |\n|---|---|\n".to_owned();
    for (names, why) in REFUSED {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        writeln!(table, "| {} | {why} |", names.join(", ")).unwrap();
    }
    compare_section("docs/migration.md", "refused", &table);

    let mut table = "| series | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for metric in EXPORTER_METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, labels, help) =
            (metric.name, metric.kind.as_str(), labels.join(", "), metric.help);
        writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    compare_section("docs/metrics.md", "own", &table);

    let output = run(&["check", "--mock=faulty", "--address", "127.0.0.1:0"]);
    let findings = String::from_utf8(output.stdout).unwrap();
    let findings: Vec<&str> = findings.lines().filter(|line| !is_filtered_out(line)).collect();
    let command = "$ nvml-exporter check --mock=faulty | grep -vE '^(ok|skipped)'";
    let block = format!("```console\n{command}\n{}\n```\n", findings.join("\n"));
    compare_section("docs/troubleshooting.md", "check", &block);
}

/// Lines that the `grep` of the document removes.
fn is_filtered_out(line: &str) -> bool {
    line.starts_with("ok") || line.starts_with("skipped")
}

fn without_trailing_blanks(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

#[test]
fn sample_output_is_in_the_snapshot() {
    let text = read_file("README.md");
    let metrics = read_file("tests/product/snapshots/demo.snap");
    let sample = text.split("```console").nth(1).and_then(|t| t.split("```").next()).unwrap();
    let shown: Vec<_> = sample.lines().filter(|line| line.contains('{')).collect();
    assert!(shown.len() >= 4);
    for line in shown {
        assert!(metrics.lines().any(|real| real == line), "{line}");
    }
}

#[test]
fn example_scenario_is_valid() {
    let text = read_file("docs/mock.md");
    let toml = text.split("```toml\n").nth(1).and_then(|t| t.split("```").next()).unwrap();
    let scenario = crate::exporter::Scenario::new("readme", toml);
    let metrics = crate::exporter::run_once(&[&scenario.flag()]);
    assert!(metrics.contains("ProcessId=\"4242\""), "{metrics}");
}

#[test]
fn every_test_named_exists() {
    let text = read_file("docs/architecture.md");
    let (_, rest) = text.split_once("<!-- promises: begin -->\n").expect("a begin marker");
    let (table, _) = rest.split_once("<!-- promises: end -->").expect("an end marker");
    assert_tests_exist(table);
}

#[test]
fn every_row_of_the_threat_model_names_a_test_that_exists() {
    let tests = column(&read_file("docs/security.md"), "test");
    assert!(tests.len() > 20, "{tests:?}");
    let without = tests.iter().filter(|test| !test.contains('`')).count();
    assert_eq!(without, 1, "only a privileged pod, to which nothing is guaranteed");
    for test in &tests {
        assert_tests_exist(test);
    }
}

/// Whether the tests in a text exist: the path of a file, or its name in `tests/product`, and then names of
/// functions in it.
fn assert_tests_exist(text: &str) {
    let mut code = String::new();
    for quoted in text.split('`').skip(1).step_by(2) {
        if quoted.contains('/') {
            code = read_file(quoted);
        } else if quoted.contains('.') {
            code = read_file(&format!("tests/product/{quoted}"));
        } else if !quoted.starts_with("--") {
            assert!(code.contains(&format!("fn {quoted}()")), "no test {quoted}");
        }
    }
}

#[test]
fn readme_has_at_most_250_lines() {
    assert!(read_file("README.md").lines().count() <= 250);
}
