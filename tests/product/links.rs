//! Links and names in the documentation lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::pages::{quoted, read, unknown_series};

/// Every page, from the top of the repository.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found: Vec<_> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|page| root.join(page)).into();
    found.push(root.join("mock-nvml/scenarios/README.md"));
    for folder in ["daemonset/docs", "daemonset/docs/sharing"] {
        let files = fs::read_dir(root.join(folder)).unwrap().map(|file| file.unwrap().path());
        found.extend(files.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    found
}

/// The anchors of a page: its headings, as those are written who are linked to.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = text.split("```").step_by(2).flat_map(str::lines);
    let headings = prose.filter_map(|line| line.strip_prefix('#'));
    let anchor = |heading: &str| -> String {
        let heading = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        heading.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let prose: String = text.split("```").step_by(2).collect();
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            seen += 1;
            if link.starts_with("https://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link}", page.display());
            if !anchor.is_empty() {
                let there = anchors(&fs::read_to_string(target).unwrap());
                assert!(there.contains(anchor), "{}: {link} is none of {there:?}", page.display());
            }
        }
    }
    assert!(seen > 30, "links are found");
}

#[test]
fn every_series_that_the_readme_names_is_there() {
    assert_eq!(unknown_series(&read("README.md")), Vec::<String>::new());
}

/// Whoever is called by an alert finds it in the README, and nothing else is called one there.
#[test]
fn the_readme_says_who_mends_what_an_alert_tells() {
    let rules = read("daemonset/rules/prometheus-rule.yaml");
    let alerts: BTreeSet<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 20);
    let text = read("README.md");
    let (_, rest) = text.split_once("### Who mends what\n").unwrap();
    let table = rest.split("\n## ").next().unwrap();
    let named: BTreeSet<_> = quoted(table)
        .filter(|name| ["Nvml", "Gpu", "PodGpu"].iter().any(|p| name.starts_with(p)))
        .collect();
    assert_eq!(named, alerts);
}
