//! The pages about how GPUs are shared quote what the program prints.

use crate::pages::{Example, examples, read, unknown_series};

const MODES: [&str; 6] = ["time-slicing", "mps", "mig", "cgpu", "hami", "dra"];

fn page(mode: &str) -> String {
    read(&format!("daemonset/docs/sharing/{mode}.md"))
}

#[test]
fn every_quoted_line_is_one_of_the_scenarios_page() {
    for mode in MODES {
        let text = page(mode);
        let examples = examples(&text);
        assert!(!examples.is_empty(), "{mode} shows nothing");
        for Example { command, lines, page } in examples {
            assert!(!lines.is_empty(), "{mode}: {command} shows nothing");
            for line in lines {
                assert!(page.lines().any(|real| real == line), "{mode}: {command}: {line}");
            }
        }
    }
}

#[test]
fn every_mode_is_told_under_the_same_headings() {
    let headings = |mode: &str| -> Vec<String> {
        let text = page(mode);
        text.lines().filter(|line| line.starts_with("## ")).map(str::to_owned).collect()
    };
    let expected = headings(MODES[0]);
    assert_eq!(expected.len(), 5);
    for mode in MODES {
        assert_eq!(headings(mode), expected, "{mode}");
    }
}

#[test]
fn every_series_that_is_named_is_there() {
    for mode in MODES {
        assert_eq!(unknown_series(&page(mode)), Vec::<String>::new(), "{mode}");
    }
}
