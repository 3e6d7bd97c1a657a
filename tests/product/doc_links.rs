//! Links, series names and alert names in the documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::documents::{read_file, unknown_series};

const RULES: &str = "daemonset/rules/prometheus-rule.yaml";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Markdown files of a directory and of those below it.
fn markdown_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            markdown_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// All documents of the repository.
fn documents() -> Vec<PathBuf> {
    let mut found: Vec<_> = [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "mock-nvml/scenarios/README.md",
        "daemonset/chart/README.md",
    ]
    .map(|name| root().join(name))
    .into();
    markdown_files(&root().join("docs"), &mut found);
    found
}

/// The anchors of a document, derived from its headings as GitHub does.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = text.split("```").step_by(2).flat_map(str::lines);
    let headings = prose.filter_map(|line| line.strip_prefix('#'));
    let anchor = |heading: &str| -> String {
        let heading = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        heading.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    let mut repetitions: BTreeMap<String, u32> = BTreeMap::new();
    let number = |anchor: String| {
        let n = repetitions.entry(anchor.clone()).and_modify(|n| *n += 1).or_default();
        if *n == 0 { anchor } else { format!("{anchor}-{n}") }
    };
    headings.map(anchor).map(number).collect()
}

#[test]
fn every_link_has_a_target() {
    let mut links = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let prose: String = text.split("```").step_by(2).collect();
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            links += 1;
            if link.starts_with("https://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                document.clone()
            } else {
                document.parent().unwrap().join(path)
            };
            assert!(target.exists(), "{}: {link}", document.display());
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(target).unwrap());
                assert!(
                    anchors.contains(anchor),
                    "{}: {link} is not one of {anchors:?}",
                    document.display()
                );
            }
        }
    }
    assert!(links > 100, "{links} links");
}

/// Every document is linked from the README, so that none is lost.
#[test]
fn readme_links_every_document() {
    let text = read_file("README.md");
    for document in documents().iter().filter(|path| path.starts_with(root().join("docs"))) {
        let path = document.strip_prefix(root()).unwrap().display();
        assert!(text.contains(&format!("]({path})")), "{path}");
    }
}

/// The migration guide also names series of other exporters; its own test checks the rest.
#[test]
fn every_series_named_exists() {
    for document in documents() {
        let name = document.file_name().unwrap();
        if name != "migration.md" && name != "CHANGELOG.md" {
            let text = fs::read_to_string(&document).unwrap();
            assert_eq!(unknown_series(&text), Vec::<String>::new(), "{}", document.display());
        }
    }
}

#[test]
fn every_alert_has_a_section_that_its_runbook_url_links() {
    let rules = read_file(RULES);
    let values = |key: &str| -> Vec<String> {
        rules.lines().filter_map(|line| line.trim().strip_prefix(key)).map(str::to_owned).collect()
    };
    let (alerts, urls) = (values("- alert: "), values("runbook_url: "));
    assert!(alerts.len() > 20);
    let text = read_file("docs/alerts.md");
    let sections: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    assert_eq!(sections, alerts.iter().cloned().collect());
    let expected: Vec<_> =
        alerts.iter().map(|alert| format!("docs/alerts.md#{}", alert.to_lowercase())).collect();
    assert_eq!(urls, expected);
    let (_, rest) = text.split_once("## Alert ownership\n").expect("the table of owners");
    let table = rest.split("\n## ").next().unwrap();
    for alert in &alerts {
        assert!(table.contains(&format!("[{alert}](#{})", alert.to_lowercase())), "{alert}");
    }
}
