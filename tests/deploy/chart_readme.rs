//! The table of values in the README of the chart, generated from the comments and defaults of `values.yaml`.

use std::fmt::Write;
use std::fs;

use serde_json::Value;

use crate::manifests::documents;
use crate::programs::{read, root};

const VALUES: &str = "daemonset/chart/values.yaml";
const README: &str = "daemonset/chart/README.md";
const MARKERS: [&str; 2] = ["<!-- values: begin -->\n", "<!-- values: end -->\n"];

/// A key of the values, with the comment above it.
struct Key {
    path: Vec<String>,
    comment: String,
}

/// The keys of a YAML text with block mappings, in their order.
fn keys(text: &str) -> Vec<Key> {
    let (mut keys, mut path, mut comment) = (Vec::new(), Vec::<(usize, String)>::new(), Vec::new());
    for line in text.lines() {
        let content = line.trim_start();
        let indentation = line.len() - content.len();
        if let Some(text) = content.strip_prefix('#') {
            comment.push(text.trim());
            continue;
        }
        let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric());
        if let Some((name, _)) = content.split_once(':').filter(|(name, _)| is_name(name)) {
            path.retain(|(of_parent, _)| *of_parent < indentation);
            path.push((indentation, name.to_owned()));
            let path = path.iter().map(|(_, name)| name.clone()).collect();
            keys.push(Key { path, comment: comment.join(" ") });
        }
        comment.clear();
    }
    keys
}

/// The default of a key; `None` if it is in a list: items are not keys of the values.
fn default_of<'a>(values: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(values, |value, name| value.as_object()?.get(name))
}

fn table() -> String {
    let text = read(VALUES);
    let values = documents(&text).remove(0);
    let mut table = "| key | default | meaning |\n|---|---|---|\n".to_owned();
    let mut count = 0;
    for Key { path, comment } in keys(&text) {
        let Some(default) = default_of(&values, &path) else { continue };
        let is_group = default.as_object().is_some_and(|object| !object.is_empty());
        let default = if is_group { String::new() } else { format!("`{default}`") };
        if !is_group || !comment.is_empty() {
            writeln!(
                table,
                "| `{}` | {default} | {} |",
                path.join("."),
                comment.replace('|', "\\|")
            )
            .unwrap();
        }
        count += 1;
    }
    assert!(count > 100, "{count} keys");
    table
}

#[test]
fn readme_of_the_chart_has_every_value() {
    let text = read(README);
    let [begin, end] = MARKERS;
    let (before, rest) = text.split_once(begin).expect("a begin marker");
    let (current, after) = rest.split_once(end).expect("an end marker");
    let table = table();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join(README), format!("{before}{begin}{table}{end}{after}")).unwrap();
    } else {
        assert_eq!(
            current, table,
            "UPDATE_DOCS=1 cargo test --test deploy chart_readme changes it"
        );
    }
}

/// Every key at the top level has a comment, and so has its meaning.
#[test]
fn every_value_has_a_meaning() {
    let text = read(VALUES);
    let undocumented: Vec<String> = keys(&text)
        .into_iter()
        .filter(|key| key.path.len() == 1 && key.comment.is_empty())
        .map(|key| key.path.concat())
        .collect();
    assert_eq!(undocumented, Vec::<String>::new());
}
