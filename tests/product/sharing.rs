//! The documents about GPU sharing: quoted output, headings, series names.

use crate::documents::{Example, examples, read_file, unknown_series};

const MODES: [&str; 7] = ["time-slicing", "mps", "mig", "cgpu", "hami", "kai", "dra"];

fn document(mode: &str) -> String {
    read_file(&format!("docs/sharing/{mode}.md"))
}

#[test]
fn every_quoted_line_is_in_the_output_of_its_command() {
    for mode in MODES {
        let text = document(mode);
        let examples = examples(&text);
        assert!(!examples.is_empty(), "{mode}: no examples");
        for Example { command, lines, output: page } in examples {
            assert!(!lines.is_empty(), "{mode}: {command}: no lines");
            for line in lines {
                assert!(page.lines().any(|real| real == line), "{mode}: {command}: {line}");
            }
        }
    }
}

#[test]
fn all_modes_have_the_same_headings() {
    let headings = |mode: &str| -> Vec<String> {
        let text = document(mode);
        text.lines().filter(|line| line.starts_with("## ")).map(str::to_owned).collect()
    };
    let expected = headings(MODES[0]);
    assert_eq!(expected.len(), 5);
    for mode in MODES {
        assert_eq!(headings(mode), expected, "{mode}");
    }
}

#[test]
fn every_series_named_exists() {
    for mode in MODES.into_iter().chain(["platforms"]) {
        assert_eq!(unknown_series(&document(mode)), Vec::<String>::new(), "{mode}");
    }
}
