//! The examples of CONTRIBUTING.md: catalog row, probe, scenario and fault.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nvml_exporter::catalog;

use crate::documents::{code_blocks, code_spans, read_file};
use crate::exporter::{Scenario, run_once};

fn contributing() -> String {
    read_file("CONTRIBUTING.md")
}

/// The examples are excerpts of the source, so they compile.
#[test]
fn example_row_and_probe_are_in_the_source() {
    let code = [read_file("src/catalog/rows/board.rs"), read_file("src/nvml/probe/board.rs")];
    let text = contributing();
    let shown: Vec<_> = code_blocks(&text, "rust").collect();
    assert_eq!(shown.len(), code.len());
    for (shown, code) in shown.iter().zip(code) {
        assert!(code.contains(shown), "{shown}");
    }
}

/// Text of a field of a row that is shown in Rust.
fn row_field<'a>(row: &'a str, field: &str) -> &'a str {
    let (_, rest) = row.split_once(&format!("{field}: \"")).unwrap();
    rest.split('"').next().unwrap()
}

/// The row is the only edit: exposition and documents have all that it states.
#[test]
fn example_row_reaches_exposition_and_documents() {
    let text = contributing();
    let row = code_blocks(&text, "rust").next().unwrap();
    let [name, unit, symbol, help, absent] =
        ["name", "unit", "symbol", "help", "absent"].map(|field| row_field(row, field));
    let exposition = read_file("tests/product/snapshots/everything.snap");
    let kind = if row.contains("..gauge(") { "gauge" } else { "counter" };
    let family = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{");
    assert!(exposition.contains(&family), "{family}");
    let documented = read_file("docs/metrics.md");
    let documented = documented.lines().find(|line| line.contains(&format!("| `{name}` |")));
    let cells: Vec<&str> = documented.unwrap().split('|').map(str::trim).collect();
    for cell in [kind, unit, help, &format!("`{symbol}`"), absent] {
        assert!(cells.contains(&cell), "{cell}: {cells:?}");
    }
}

/// The name of a series is written once in the source, besides the presets and aliases that a row may have.
#[test]
fn no_row_is_named_outside_of_its_row() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let optional = ["preset.rs", "alias.rs"].map(|file| source.join("catalog").join(file));
    let files = rust_files(&source).into_iter().filter(|file| !optional.contains(file));
    let without_tests = |file| {
        let text = fs::read_to_string(file).unwrap();
        text.split("#[cfg(test)]").next().unwrap().to_owned()
    };
    let code: String = files.map(without_tests).collect();
    let mut written = BTreeMap::<&str, usize>::new();
    for quoted in code.split('"').filter(|text| text.starts_with("DCGM_")) {
        *written.entry(quoted).or_default() += 1;
    }
    assert!(written.len() > 100, "{}", written.len());
    for row in catalog::rows() {
        assert!(written.get(row.name).is_none_or(|times| *times == 1), "{}", row.name);
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

#[test]
fn example_scenarios_produce_the_lines_shown() {
    let text = contributing();
    let parts: Vec<_> = code_blocks(&text, "toml").collect();
    let [node, fault] = parts[..] else { panic!("a scenario and a fault are expected") };
    let outputs = code_blocks(&text, "text").filter(|block| block.contains('{'));
    let shown: Vec<_> = outputs.map(|block| block.lines().collect::<Vec<_>>()).collect();
    let [healthy, faulty] = &shown[..] else { panic!("the output of both is expected") };
    assert!(!healthy.is_empty() && !faulty.is_empty());
    for (toml, lines) in [(node.to_owned(), healthy), (format!("{node}\n{fault}"), faulty)] {
        let scenario = Scenario::new("my-node", &toml);
        let metrics = run_once(&[&scenario.flag()]);
        for line in lines {
            assert!(metrics.lines().any(|real| real == *line), "{line}\n{metrics}");
        }
        assert_eq!(metrics.contains("\nDCGM_FI_DEV_POWER_USAGE{"), lines == healthy);
    }
}

#[test]
fn every_file_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = contributing();
    let paths = code_spans(&text).filter(|quoted| {
        let starts = ["src/", "tests/", "mock-nvml/", ".ci/"];
        starts.iter().any(|start| quoted.starts_with(start))
    });
    let named: Vec<_> = paths.filter(|path| !path.contains([' ', '*'])).collect();
    assert!(named.len() > 20);
    for path in named {
        assert!(root.join(path).exists(), "{path}");
    }
}
