//! Pages of the documentation, and what in them can be held against the program.

use std::fs;
use std::path::Path;

use nvml_exporter::catalog;
use nvml_exporter::catalog::own::OWN;

use crate::exporter::{Scenario, once};

/// What the adapter makes of two families by a rule, and no page of the exporter has.
const OF_THE_ADAPTER: &str = "DCGM_CUSTOM_PROCESS_GPU_MEM_USED_RATIO";

/// A file of the repository.
pub(crate) fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A command that is shown with some lines of its output.
pub(crate) struct Example<'a> {
    pub(crate) command: &'a str,
    pub(crate) lines: Vec<&'a str>,
    /// All of its output.
    pub(crate) page: String,
}

/// The examples of a text: `$ nvml-exporter --once --mock=NAME …   # at N s`, and lines of that page.
pub(crate) fn examples(text: &str) -> Vec<Example<'_>> {
    let blocks = text.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let example = |block| {
        let (command, lines) = str::split_once(block, '\n').unwrap();
        Example { command, lines: lines.lines().collect(), page: played(command) }
    };
    blocks.filter(|block| block.starts_with("$ nvml-exporter")).map(example).collect()
}

fn played(command: &str) -> String {
    let (command, time) = command.split_once(" # at ").expect("when it is shown");
    let time = time.strip_suffix(" s").and_then(|time| time.parse().ok()).expect("a second");
    let words = command.split_whitespace().skip(2).filter(|word| *word != "--once");
    let (mocks, flags): (Vec<_>, Vec<_>) = words.partition(|word| word.starts_with("--mock="));
    let name = mocks.first().and_then(|mock| mock.strip_prefix("--mock=")).expect("a scenario");
    let scenario = Scenario::held(name, time);
    once(&[&[&*scenario.flag()], &flags[..]].concat())
}

/// The names of series in a text that neither the catalogue nor the exporter itself has.
pub(crate) fn unknown_series(text: &str) -> Vec<String> {
    let is_known = |name: &str| {
        name == OF_THE_ADAPTER
            || catalog::find(name).is_some()
            || OWN.iter().any(|own| own.name == name)
    };
    let names = quoted(text).flat_map(words);
    names.filter(|name| !is_known(name)).map(str::to_owned).collect()
}

/// What stands in backticks, outside of blocks of code.
pub(crate) fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2))
}

/// The names of series in a query or a text. `DCGM_FI_PROF_*` is of many, and no name.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    const OURS: [&str; 4] = ["DCGM_FI_", "DCGM_CUSTOM_", "DCGM_EXP_", "nvml_exporter_"];
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_ours = |word: &&str| OURS.iter().any(|prefix| word.starts_with(prefix));
    words.filter(is_ours).filter(|word| !word.ends_with('_'))
}

/// The cells under a heading, of all tables that have it.
pub(crate) fn column(text: &str, heading: &str) -> Vec<String> {
    let cells = |row: &str| -> Vec<String> {
        let row = row.trim().trim_matches('|');
        row.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let (mut found, mut at) = (Vec::new(), None);
    for (line, next) in text.lines().zip(text.lines().skip(1).chain([""])) {
        if !line.starts_with('|') {
            at = None;
        } else if next.starts_with("|---") {
            at = cells(line).iter().position(|cell| cell == heading);
        } else if let (Some(at), false) = (at, line.starts_with("|---")) {
            found.extend(cells(line).into_iter().nth(at));
        }
    }
    found
}

/// The first block of code in this language.
pub(crate) fn block<'a>(text: &'a str, language: &'static str) -> &'a str {
    blocks(text, language).next().expect("such a block")
}

/// The blocks of code in this language.
pub(crate) fn blocks<'a>(text: &'a str, language: &'static str) -> impl Iterator<Item = &'a str> {
    let inside = text.split("```").skip(1).step_by(2);
    inside.filter_map(move |block| block.strip_prefix(language)?.strip_prefix('\n'))
}
