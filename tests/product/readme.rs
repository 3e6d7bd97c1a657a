//! The README says what the program says.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use nvml_exporter::catalog::own::OWN;
use nvml_exporter::catalog::{Row, rows};
use nvml_exporter::policy::{SLOW_TIER, Tier};

use crate::exporter::run;

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

/// The part between two markers has to be `expected`; `UPDATE_README=1` makes it so.
fn check(part: &str, expected: &str) {
    let (begin, end) = (format!("<!-- {part}: begin -->\n"), format!("<!-- {part}: end -->"));
    let text = fs::read_to_string(path()).unwrap();
    let (head, rest) = text.split_once(&begin).expect("a begin marker");
    let (found, tail) = rest.split_once(&end).expect("an end marker");
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(path(), format!("{head}{begin}{expected}{end}{tail}")).unwrap();
    } else {
        assert_eq!(
            found, expected,
            "renew it with UPDATE_README=1 cargo test --test product readme"
        );
    }
}

/// All rows; families that differ in a number from 0 on, as of links, are one.
fn series(table: &mut String) {
    let rows: Vec<Row> = rows().collect();
    let next = |a: &Row, b: &Row| {
        let ((head, number, tail), after) = (numbered(a.name), numbered(b.name));
        number.is_some() && after == (head, number.map(|n| n + 1), tail)
    };
    for series in rows.chunk_by(next) {
        let (first, last) = (series.first().unwrap(), series.last().unwrap());
        if series.len() > 1 && numbered(first.name).1 == Some(0) {
            row(table, &format!("`{}` to `{}`", first.name, last.name), first);
        } else {
            for one in series {
                row(table, &format!("`{}`", one.name), one);
            }
        }
    }
}

/// A name around its last number.
fn numbered(name: &str) -> (&str, Option<u32>, &str) {
    let Some(last) = name.rfind(|c: char| c.is_ascii_digit()) else { return (name, None, "") };
    let first = name[..last].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    (&name[..first], name[first..=last].parse().ok(), &name[last + 1..])
}

fn row(table: &mut String, name: &str, row: &Row) {
    let every = match row.tier {
        Tier::Cycle => "cycle".to_owned(),
        Tier::Video => format!("cycle while video engines work, else {} s", SLOW_TIER.as_secs()),
        Tier::Slow => format!("{} s", SLOW_TIER.as_secs()),
    };
    let Row { scope, kind, unit, symbol, help, absent, .. } = row;
    let kind = kind.word();
    writeln!(
        table,
        "| {name} | {scope} | {kind} | {unit} | {help} | `{symbol}` | {every} | {absent} |"
    )
    .unwrap();
}

// One test: its parts are written to one file.
#[test]
fn readme_says_what_the_program_says() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    check("help", &format!("```text\n{}```\n", without_trailing_blanks(&help)));

    let mut table = "| series | scope | type | unit | meaning | source | read every | absent |\n\
                     |---|---|---|---|---|---|---|---|\n"
        .to_owned();
    series(&mut table);
    check("series", &table);

    let mut table = "| series | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for own in OWN {
        let labels: Vec<String> = own.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, labels, help) = (own.name, own.kind.word(), labels.join(", "), own.help);
        writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    check("own", &table);

    let output = run(&["check", "--mock=faulty", "--address", "127.0.0.1:0"]);
    let told = String::from_utf8(output.stdout).unwrap();
    let told: Vec<&str> = told.lines().filter(|line| !is_left_out(line)).collect();
    let command = "$ nvml-exporter check --mock=faulty | grep -vE '^(ok|skipped)'";
    check("check", &format!("```console\n{command}\n{}\n```\n", told.join("\n")));
}

/// What the README's `grep` takes out.
fn is_left_out(line: &str) -> bool {
    line.starts_with("ok") || line.starts_with("skipped")
}

fn without_trailing_blanks(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

#[test]
fn readme_shows_lines_of_the_real_page() {
    let text = fs::read_to_string(path()).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/product/snapshots/demo.snap");
    let page = fs::read_to_string(golden).unwrap();
    let sample = text.split("```console").nth(1).and_then(|t| t.split("```").next()).unwrap();
    let shown: Vec<_> = sample.lines().filter(|line| line.contains('{')).collect();
    assert!(shown.len() >= 4);
    for line in shown {
        assert!(page.lines().any(|real| real == line), "{line}");
    }
}

#[test]
fn readme_scenario_is_a_good_one() {
    let text = fs::read_to_string(path()).unwrap();
    let toml = text.split("```toml\n").nth(1).and_then(|t| t.split("```").next()).unwrap();
    let scenario = crate::exporter::Scenario::new("readme", toml);
    let page = crate::exporter::once(&[&scenario.flag()]);
    assert!(page.contains("ProcessId=\"4242\""), "{page}");
}

#[test]
fn the_tests_that_keep_promises_exist() {
    let text = fs::read_to_string(path()).unwrap();
    let (_, rest) = text.split_once("<!-- promises: begin -->\n").expect("a begin marker");
    let (table, _) = rest.split_once("<!-- promises: end -->").expect("an end marker");
    let mut code = String::new();
    for quoted in table.split('`').skip(1).step_by(2) {
        if quoted.contains('/') {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(quoted);
            code = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{quoted}: {e}"));
        } else if !quoted.starts_with("--") {
            assert!(code.contains(&format!("fn {quoted}()")), "no test {quoted}");
        }
    }
}
