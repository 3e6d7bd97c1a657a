//! Checks the layers: a module imports only modules of lower layers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lowest layer first. Modules of one layer do not import each other.
const LAYERS: &[&[&str]] = &[
    &["model", "stdout", "sanitize"],
    &["cli_docs"],
    &["clock", "policy", "seccomp", "web_config"],
    &["worker"],
    &["file_reader"],
    &["driver_release"],
    &["labels", "device_selector"],
    &["nvml", "host", "kube"],
    &["catalog"],
    &["reserved_labels"],
    &["pod_labels"],
    &["selection"],
    &["counters"],
    &["metrics_list"],
    &["sample"],
    &["snapshot"],
    &["attribute", "telemetry"],
    &["accumulators"],
    &["cluster"],
    &["record", "render", "view"],
    &["landing", "top"],
    &["publish"],
    &["serve"],
    &["args"],
    &["check"],
    &["run"],
    &["cli"],
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

/// Top-level module of a file.
fn module(file: &Path) -> String {
    let inside = file.strip_prefix(source()).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Modules in `crate::…` paths; all items of a braced list.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split('}').next().unwrap();
            found.extend(list.split(',').map(|item| identifier(item.trim())));
        } else {
            found.insert(identifier(rest));
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[test]
fn modules_import_only_lower_layers() {
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
        let layer = *rank
            .get(from.as_str())
            .unwrap_or_else(|| panic!("{from}: the module has no layer; add it to LAYERS"));
        for to in imports(&fs::read_to_string(&file).unwrap()) {
            let imported = *rank
                .get(to.as_str())
                .unwrap_or_else(|| panic!("{}: crate::{to} is not a module", file.display()));
            assert!(
                to == from || imported < layer,
                "{} imports {to}, which is not in a lower layer than {from}",
                file.display()
            );
        }
        seen.insert(from);
    }
    assert_eq!(seen.len(), rank.len(), "LAYERS contains a module that does not exist");
}

#[test]
fn unsafe_is_only_in_nvml_raw_and_mock_abi() {
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
fn no_type_name_is_defined_in_two_files() {
    let mut defined = BTreeMap::<String, PathBuf>::new();
    for file in files(&source()) {
        for line in fs::read_to_string(&file).unwrap().lines() {
            let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
            let is_type = words
                .next()
                .is_some_and(|word| ["struct", "enum", "union", "trait", "type"].contains(&word));
            // A method and an associated type may have the name of another; a type begins with a capital.
            let name = words.next().map(identifier).filter(|_| is_type).unwrap_or_default();
            if name.starts_with(|c: char| c.is_ascii_uppercase()) && !is_associated(line) {
                let other =
                    defined.insert(name.clone(), file.clone()).filter(|other| *other != file);
                assert_eq!(other, None, "{name} is defined in {} too", file.display());
            }
        }
    }
    assert!(defined.len() > 300, "{}", defined.len());
}

/// Whether a line defines the associated type of a trait.
fn is_associated(line: &str) -> bool {
    line.starts_with("    type ") || line.starts_with("        type ")
}

#[test]
fn series_names_are_only_in_the_catalog() {
    for file in files(&source()) {
        if module(&file) == "catalog" {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for name in ["\"DCGM_FI_DEV", "\"DCGM_CUSTOM", "\"nvml_exporter_"] {
            assert!(!text.contains(name), "{} contains the series name {name}", file.display());
        }
    }
}
