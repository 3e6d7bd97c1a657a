//! Lines that fit, of texts that anybody may have chosen.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::view::Number;

/// A line in the making.
pub(super) struct Row(Vec<Span<'static>>);

impl Row {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends a text; what would move the cursor or ring a bell is shown as what it is not.
    pub(super) fn push(mut self, text: &str, style: Style) -> Self {
        let harmless = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        self.0.push(Span::styled(text.chars().map(harmless).collect::<String>(), style));
        self
    }

    /// The line, of at most `width` columns.
    pub(super) fn cut(self, width: usize) -> Line<'static> {
        let mut room = width;
        let mut spans = Vec::new();
        for span in self.0 {
            let fits = span.width() <= room;
            let span = if fits { span } else { shortened(&span, room) };
            room -= span.width();
            spans.push(span);
            if !fits {
                break;
            }
        }
        Line::from(spans)
    }

    /// The same with a text at the right edge, for which the rest makes room.
    pub(super) fn with_right(self, text: &str, style: Style, width: usize) -> Line<'static> {
        let right = Self::new().push(text, style).cut(width);
        let mut line = self.cut(width.saturating_sub(right.width() + 1));
        let gap = width.saturating_sub(line.width() + right.width());
        line.push_span(" ".repeat(gap));
        line.extend(right);
        line
    }
}

/// As much of a text as there is room for, with a mark that it is not all.
fn shortened(span: &Span<'static>, room: usize) -> Span<'static> {
    let mut text = String::new();
    for c in span.content.chars() {
        let longer = format!("{text}{c}…");
        if Span::raw(&*longer).width() > room {
            break;
        }
        text.push(c);
    }
    let mark = if room > 0 { "…" } else { "" };
    Span::styled(text + mark, span.style)
}

/// A number with its unit, or that it is absent and why.
pub(super) fn number(number: &Number, unit: &str) -> String {
    match number {
        Number::Known(value) => format!("{value:.0} {unit}"),
        Number::Absent { absent } => format!("- {absent}"),
    }
}

/// A bar of `width` columns, as full as the ratio says; without one, no bar.
pub(super) fn bar(ratio: Option<f64>, width: usize) -> String {
    let Some(ratio) = ratio else { return " ".repeat(width + 2) };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "between 0 and a few hundred"
    )]
    let full = ((ratio.clamp(0.0, 1.0) * width as f64).round()) as usize;
    format!("[{}{}]", "#".repeat(full), " ".repeat(width - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(line: &Line<'_>) -> String {
        line.spans.iter().map(|span| &*span.content).collect()
    }

    #[test]
    fn what_does_not_fit_is_cut_by_columns_and_says_so() {
        let cut = |text: &str, width| plain(&Row::new().push(text, Style::new()).cut(width));
        assert_eq!(cut("trainer", 7), "trainer");
        assert_eq!(cut("trainer", 5), "trai…");
        assert_eq!(cut("训练训练", 5), "训练…");
        assert_eq!(cut("x", 0), "");
    }

    #[test]
    fn a_text_at_the_right_stays_whole() {
        let row = || Row::new().push("a long name", Style::new());
        assert_eq!(plain(&row().with_right("97 %", Style::new(), 20)), "a long name     97 %");
        assert_eq!(plain(&row().with_right("97 %", Style::new(), 12)), "a long… 97 %");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let line = Row::new().push("\u{1b}[2Jx\n\u{9b}", Style::new()).cut(80);
        assert_eq!(plain(&line), "\u{fffd}[2Jx\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_bar_is_as_full_as_it_says_and_an_absent_one_is_none() {
        assert_eq!(bar(Some(0.5), 4), "[##  ]");
        assert_eq!(bar(Some(7.0), 4), "[####]");
        assert_eq!(bar(Some(0.0), 4), "[    ]");
        assert_eq!(bar(None, 4), "      ");
    }
}
