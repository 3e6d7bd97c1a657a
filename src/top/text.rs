//! Lines of limited width, made of untrusted texts.

use std::cmp::Ordering;

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use crate::sanitize::printable;
use crate::view::HealthStatus;

pub(super) const GOOD: Style = Style::new().fg(Color::Green).add_modifier(Modifier::BOLD);
pub(super) const WARN: Style = Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD);
pub(super) const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
pub(super) const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);
pub(super) const MUTED: Style = Style::new().add_modifier(Modifier::DIM);

/// The style of a status.
pub(super) fn style_of(status: HealthStatus) -> Style {
    match status {
        HealthStatus::Ok => GOOD,
        HealthStatus::Warning | HealthStatus::Unknown => WARN,
        HealthStatus::Failed | HealthStatus::Hung | HealthStatus::Lost => BAD,
    }
}

/// Width from which a line has more than the most important columns.
pub(super) const MEDIUM: usize = 70;
/// Width from which a line has all columns.
pub(super) const WIDE: usize = 110;

/// Indentation of the continuation of a line.
const INDENT: &str = "    ";

/// Builds a [`Line`] of styled spans.
pub(super) struct LineBuilder(Vec<Span<'static>>);

impl LineBuilder {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends a text, which may be of another exporter. Characters that the terminal would interpret are
    /// replaced.
    pub(super) fn push(mut self, text: &str, style: Style) -> Self {
        self.0.push(Span::styled(printable(text).into_owned(), style));
        self
    }

    /// The line, truncated to `width` columns.
    pub(super) fn truncate(self, width: usize) -> Line<'static> {
        let mut left = width;
        let mut spans = Vec::new();
        for span in self.0 {
            let fits = span.width() <= left;
            let span = if fits { span } else { truncate_span(&span, left) };
            left -= span.width();
            spans.push(span);
            if !fits {
                break;
            }
        }
        Line::from(spans)
    }

    /// The text as lines of at most `width` columns, broken at spaces; further lines are indented.
    pub(super) fn wrap(self, width: usize) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        let (mut line, mut start, mut used) = (Self::new(), 0, 0);
        for span in self.0 {
            for word in span.content.split_inclusive(' ') {
                let columns = Span::raw(word.trim_end()).width();
                if used + columns > width && used > start {
                    let next = Self::new().push(INDENT, Style::new());
                    lines.push(std::mem::replace(&mut line, next).without_trailing_blank());
                    start = INDENT.len();
                    used = start;
                }
                line = line.push(word, span.style);
                used += Span::raw(word).width();
            }
        }
        lines.push(line.without_trailing_blank());
        lines.into_iter().map(|line| line.truncate(width)).collect()
    }

    fn without_trailing_blank(mut self) -> Self {
        if let Some(span) = self.0.last_mut() {
            *span = Span::styled(span.content.trim_end().to_owned(), span.style);
        }
        self
    }

    /// The line with `text` at the right edge; the rest is truncated to fit.
    pub(super) fn with_right(self, text: &str, style: Style, width: usize) -> Line<'static> {
        // Of the name at least the mark is visible.
        let right = Self::new().push(text, style).truncate(width.saturating_sub(2));
        let mut line = self.truncate(width.saturating_sub(right.width() + 1));
        let gap = width.saturating_sub(line.width() + right.width());
        line.push_span(" ".repeat(gap));
        line.extend(right);
        line
    }
}

/// A span truncated to `width` columns, with an ellipsis at the end.
fn truncate_span(span: &Span<'static>, width: usize) -> Span<'static> {
    let mut text = String::new();
    for c in span.content.chars() {
        let longer = format!("{text}{c}…");
        if Span::raw(&*longer).width() > width {
            break;
        }
        text.push(c);
    }
    let mark = if width > 0 { "…" } else { "" };
    Span::styled(text + mark, span.style)
}

/// Orders descending; what is absent is last.
pub(super) fn by_number(one: Option<f64>, other: Option<f64>) -> Ordering {
    let number = |number: Option<f64>| number.unwrap_or(f64::NEG_INFINITY);
    number(other).total_cmp(&number(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(line: &Line<'_>) -> String {
        line.spans.iter().map(|span| &*span.content).collect()
    }

    #[test]
    fn long_text_is_truncated_by_columns_with_an_ellipsis() {
        let truncated =
            |text: &str, width| plain(&LineBuilder::new().push(text, Style::new()).truncate(width));
        assert_eq!(truncated("trainer", 7), "trainer");
        assert_eq!(truncated("trainer", 5), "trai…");
        assert_eq!(truncated("训练训练", 5), "训练…");
        assert_eq!(truncated("x", 0), "");
    }

    #[test]
    fn text_at_the_right_edge_is_not_truncated() {
        let line = || LineBuilder::new().push("a long name", Style::new());
        assert_eq!(plain(&line().with_right("97 %", Style::new(), 20)), "a long name     97 %");
        assert_eq!(plain(&line().with_right("97 %", Style::new(), 12)), "a long… 97 %");
    }

    #[test]
    fn long_text_is_wrapped_at_spaces() {
        let wrap = |text: &str, width| -> Vec<String> {
            let lines = LineBuilder::new().push(text, Style::new()).wrap(width);
            lines.iter().map(|line| plain(line).trim_end().to_owned()).collect()
        };
        assert_eq!(wrap("drain the node and reset", 14), ["drain the node", "    and reset"]);
        assert_eq!(wrap("short", 14), ["short"]);
        assert_eq!(wrap("a nvidia-smi--gpu-reset", 10), ["a", "    nvidi…"]);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let line = LineBuilder::new().push("\u{1b}[2Jx\n\u{9b}", Style::new()).truncate(80);
        assert_eq!(plain(&line), "\u{fffd}[2Jx\u{fffd}\u{fffd}");
    }
}
