//! Imports point one way: a module uses only those that stand before it here.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first; modules of one row are blind to one another.
const LAYERS: &[&[&str]] = &[
    &["model", "output", "quote"],
    &["manual"],
    &["clock", "policy", "seal", "web_config", "worker"],
    &["release"],
    &["labels", "scope"],
    &["nvml", "host", "kube"],
    &["catalog"],
    &["reserved_labels"],
    &["pod_labels"],
    &["selection"],
    &["counters"],
    &["listing"],
    &["sample"],
    &["snapshot"],
    &["attribute", "telemetry"],
    &["accounts"],
    &["cluster"],
    &["render", "view"],
    &["landing", "top"],
    &["publish"],
    &["serve"],
    &["args"],
    &["check"],
    &["run"],
    &["command"],
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The module at the top of the crate that a file belongs to.
fn module(file: &Path) -> String {
    let inside = file.strip_prefix(source()).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Modules named by `crate::…` paths, one a path and all of a braced list.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split('}').next().unwrap();
            found.extend(list.split(',').map(|item| word(item.trim())));
        } else {
            found.insert(word(rest));
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[test]
fn imports_point_down() {
    let rank: BTreeMap<&str, usize> = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(rank, modules)| modules.iter().map(move |module| (*module, rank)))
        .collect();
    let mut seen = BTreeSet::new();
    for file in files(&source()) {
        let from = module(&file);
        if matches!(from.as_str(), "lib" | "main") {
            continue;
        }
        let own = *rank.get(from.as_str()).unwrap_or_else(|| panic!("{from}: give it a layer"));
        for to in imports(&fs::read_to_string(&file).unwrap()) {
            let theirs = *rank
                .get(to.as_str())
                .unwrap_or_else(|| panic!("{}: crate::{to} is no module", file.display()));
            assert!(
                to == from || theirs < own,
                "{} imports {to}, which does not stand below {from}",
                file.display()
            );
        }
        seen.insert(from);
    }
    assert_eq!(seen.len(), rank.len(), "a layer names a module that is gone");
}

#[test]
fn unsafe_has_two_addresses() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mock = root.join("mock-nvml/src");
    for file in files(&source()).into_iter().chain(files(&mock)) {
        let allowed = file == source().join("nvml/raw.rs")
            || file.starts_with(source().join("nvml/raw"))
            || file == mock.join("abi.rs")
            || file.starts_with(mock.join("abi"));
        let text = fs::read_to_string(&file).unwrap();
        let used = text.lines().any(|line| {
            let code = line.split("//").next().unwrap();
            code.contains("unsafe ") && !code.contains('"')
        });
        assert!(allowed || !used, "{}", file.display());
    }
}

#[test]
fn no_series_is_named_outside_the_catalogue() {
    for file in files(&source()) {
        if module(&file) == "catalog" {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for name in ["\"DCGM_FI_DEV", "\"DCGM_CUSTOM", "\"nvml_exporter_"] {
            assert!(!text.contains(name), "{} names a series: {name}", file.display());
        }
    }
}
