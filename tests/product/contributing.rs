//! The examples of CONTRIBUTING.md: catalog row, probe, scenario and fault.

use std::path::Path;

use crate::documents::{code_blocks, code_spans, read_file};
use crate::exporter::{Scenario, run_once};

fn contributing() -> String {
    read_file("CONTRIBUTING.md")
}

/// The examples are excerpts of the source, so they compile.
#[test]
fn example_row_and_probe_are_in_the_source() {
    let code = [read_file("src/catalog/board.rs"), read_file("src/nvml/probe/board.rs")];
    let text = contributing();
    let shown: Vec<_> = code_blocks(&text, "rust").collect();
    assert_eq!(shown.len(), code.len());
    for (shown, code) in shown.iter().zip(code) {
        assert!(code.contains(shown), "{shown}");
    }
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
