//! The README says what the program says.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use nvml_exporter::catalog::own::OWN;
use nvml_exporter::catalog::{
    ALLOTTED, CONTAINER, DEVICE, EVENT, ILLEGAL, INSTANCE, Kind, Metric, NODE, PROCESS, TEXT,
};
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

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
    }
}

fn row<Source>(table: &mut String, scope: &str, metric: &Metric<Source>) {
    let every = match metric.tier {
        Tier::Cycle => "cycle".to_owned(),
        Tier::Slow => format!("{} s", SLOW_TIER.as_secs()),
    };
    let Metric { name, kind, unit, symbol, help, absent, .. } = metric;
    let kind = word(*kind);
    writeln!(
        table,
        "| `{name}` | {scope} | {kind} | {unit} | {help} | `{symbol}` | {every} | {absent} |"
    )
    .unwrap();
}

// One test: its three parts are written to one file.
#[test]
fn readme_says_what_the_program_says() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    check("help", &format!("```text\n{}```\n", without_trailing_blanks(&help)));

    let mut table = "| series | scope | type | unit | meaning | source | read every | absent |\n\
                     |---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for metric in NODE {
        row(&mut table, "node", metric);
    }
    for metric in DEVICE {
        row(&mut table, "device", metric);
    }
    for metric in EVENT {
        row(&mut table, "device", metric);
    }
    for metric in INSTANCE {
        row(&mut table, "device or MIG instance", metric);
    }
    for metric in ALLOTTED {
        row(&mut table, "device or MIG instance", metric);
    }
    for metric in CONTAINER {
        row(&mut table, "container", metric);
    }
    for metric in PROCESS.iter().chain(ILLEGAL) {
        row(&mut table, "process", metric);
    }
    for metric in TEXT {
        row(&mut table, "label", metric);
    }
    check("series", &table);

    let mut table = "| series | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for own in OWN {
        let labels: Vec<String> = own.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, labels, help) = (own.name, word(own.kind), labels.join(", "), own.help);
        writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    check("own", &table);
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
