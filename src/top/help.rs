//! The help of `top`.

use ratatui::style::Style;
use ratatui::text::Line;

use super::text::{HEAD, LineBuilder};

/// Keys, and what they do.
const KEYS: &[(&str, &str)] = &[
    ("q, Ctrl-C", "quit"),
    ("?", "this help; any key closes it"),
    ("f", "full view: containers, processes, remedies, sources"),
    ("p", "pods with totals over all GPUs, or GPUs"),
    ("m", "fold or unfold MIG devices"),
    ("s", "next order: status, name, SM, memory, power"),
    ("/", "filter by words; Enter accepts, Esc clears"),
    ("Esc", "clear the filter"),
    ("arrows, j, k", "scroll by a line"),
    ("PgUp, PgDn, Space", "scroll by a screen"),
    ("Home, End", "begin, end"),
];

/// Words of the view, and what they mean.
const WORDS: &[(&str, &str)] = &[
    ("status", "ok, warning, failed, lost, hung, unknown; reason below"),
    ("–", "the number is absent; then the reason, such as hung"),
    ("SM", "of a pod: 100 % are all SMs of one device"),
    ("…", "something does not fit: a text, columns, or lines"),
];

pub(super) fn lines(width: usize) -> Vec<Line<'static>> {
    let entry = |(key, text): &(&str, &str)| {
        let line = LineBuilder::new().push(&format!("  {key:<18}"), HEAD).push(text, Style::new());
        line.truncate(width)
    };
    let head = |text| LineBuilder::new().push(text, HEAD).truncate(width);
    let mut lines = vec![head("Keys")];
    lines.extend(KEYS.iter().map(entry));
    lines.extend([Line::default(), head("Words")]);
    lines.extend(WORDS.iter().map(entry));
    lines
}
