//! The documents of the repository: extracts of them that can be compared with the program.

use std::fs;
use std::path::Path;

use nvml_exporter::catalog;
use nvml_exporter::catalog::exporter_metrics::EXPORTER_METRICS;

use crate::exporter::{Scenario, run_once};

/// The series that a rule of the Prometheus adapter computes of two families; the exporter has none.
const ADAPTER_SERIES: &str = "DCGM_CUSTOM_PROCESS_GPU_MEM_USED_RATIO";

/// A file of the repository.
pub(crate) fn read_file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A documented command with some lines of its output.
pub(crate) struct Example<'a> {
    pub(crate) command: &'a str,
    /// The documented lines.
    pub(crate) lines: Vec<&'a str>,
    /// The complete output of the command.
    pub(crate) output: String,
}

/// The examples of a text: `$ nvml-exporter --once --mock=NAME …   # at N s`, and lines of its output.
pub(crate) fn examples(text: &str) -> Vec<Example<'_>> {
    let blocks = text.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let example = |block| {
        let (command, lines) = str::split_once(block, '\n').unwrap();
        Example { command, lines: lines.lines().collect(), output: run_example(command) }
    };
    blocks.filter(|block| block.starts_with("$ nvml-exporter")).map(example).collect()
}

/// Runs the command at the scenario time after ` # at `.
fn run_example(command: &str) -> String {
    let (command, time) = command.split_once(" # at ").expect("the time");
    let time = time.strip_suffix(" s").and_then(|time| time.parse().ok()).expect("seconds");
    let words = command.split_whitespace().skip(2).filter(|word| *word != "--once");
    let (mocks, flags): (Vec<_>, Vec<_>) = words.partition(|word| word.starts_with("--mock="));
    let name = mocks.first().and_then(|mock| mock.strip_prefix("--mock=")).expect("a scenario");
    let scenario = Scenario::built_in_at(name, time);
    run_once(&[&[&*scenario.flag()], &flags[..]].concat())
}

/// The names of series in a text that are neither in the catalog nor about the exporter itself.
pub(crate) fn unknown_series(text: &str) -> Vec<String> {
    let is_known = |name: &str| {
        name == ADAPTER_SERIES
            || catalog::find(name).is_some()
            || EXPORTER_METRICS.iter().any(|own| own.name == name)
    };
    let names = code_spans(text).flat_map(series_names);
    names.filter(|name| !is_known(name)).map(str::to_owned).collect()
}

/// The code spans (text in backticks) outside of code blocks.
pub(crate) fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2))
}

/// The names of series in a query or a text, except patterns such as `DCGM_FI_PROF_*`.
pub(crate) fn series_names(text: &str) -> impl Iterator<Item = &str> {
    const PREFIXES: [&str; 4] = ["DCGM_FI_", "DCGM_CUSTOM_", "DCGM_EXP_", "nvml_exporter_"];
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_series = |word: &&str| PREFIXES.iter().any(|prefix| word.starts_with(prefix));
    words.filter(is_series).filter(|word| !word.ends_with('_'))
}

/// The cells of the column `heading`, of all tables that have it.
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

/// The first code block in this language.
pub(crate) fn code_block<'a>(text: &'a str, language: &'static str) -> &'a str {
    code_blocks(text, language).next().expect("a code block")
}

/// The code blocks in this language.
pub(crate) fn code_blocks<'a>(
    text: &'a str,
    language: &'static str,
) -> impl Iterator<Item = &'a str> {
    let inside = text.split("```").skip(1).step_by(2);
    inside.filter_map(move |block| block.strip_prefix(language)?.strip_prefix('\n'))
}
