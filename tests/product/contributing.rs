//! What the contributor's page shows is so: the row, the scenario and the fault.

use std::path::Path;

use crate::exporter::{Scenario, once};
use crate::pages::{blocks, quoted, read};

fn page() -> String {
    read("CONTRIBUTING.md")
}

/// The example compiles: it is the code itself.
#[test]
fn the_row_and_its_probe_stand_in_the_code() {
    let code = [read("src/catalog/board.rs"), read("src/nvml/probe/board.rs")];
    let text = page();
    let shown: Vec<_> = blocks(&text, "rust").collect();
    assert_eq!(shown.len(), code.len());
    for (shown, code) in shown.iter().zip(code) {
        assert!(code.contains(shown), "{shown}");
    }
}

#[test]
fn the_scenario_and_the_fault_make_the_lines_that_are_shown() {
    let text = page();
    let parts: Vec<_> = blocks(&text, "toml").collect();
    let [node, fault] = parts[..] else { panic!("a scenario, and a fault behind it") };
    let outputs = blocks(&text, "text").filter(|block| block.contains('{'));
    let shown: Vec<_> = outputs.map(|block| block.lines().collect::<Vec<_>>()).collect();
    let [well, ill] = &shown[..] else { panic!("some lines of each") };
    assert!(!well.is_empty() && !ill.is_empty());
    for (toml, lines) in [(node.to_owned(), well), (format!("{node}\n{fault}"), ill)] {
        let scenario = Scenario::new("my-node", &toml);
        let page = once(&[&scenario.flag()]);
        for line in lines {
            assert!(page.lines().any(|real| real == *line), "{line}\n{page}");
        }
        assert_eq!(page.contains("\nDCGM_FI_DEV_POWER_USAGE{"), lines == well);
    }
}

#[test]
fn every_file_that_is_named_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = page();
    let paths = quoted(&text).filter(|quoted| {
        let starts = ["src/", "tests/", "mock-nvml/", ".ci/"];
        starts.iter().any(|start| quoted.starts_with(start))
    });
    let named: Vec<_> = paths.filter(|path| !path.contains([' ', '*'])).collect();
    assert!(named.len() > 20);
    for path in named {
        assert!(root.join(path).exists(), "{path}");
    }
}
