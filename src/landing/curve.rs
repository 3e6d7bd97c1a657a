//! Curves of the last ten minutes, as SVG.

use std::collections::VecDeque;
use std::fmt::Write;

use maud::{Markup, html};

use crate::policy::RECENT_USE_POINTS;
use crate::view::recent_use::UsePoint;

/// Height of the drawing; its width is one unit per point.
const HEIGHT: u16 = 20;

/// A curve of percentages, newest at the right edge; gaps where there was no reading. Nothing if there was none at all.
pub(super) fn curve(
    name: &str,
    points: Option<&VecDeque<UsePoint>>,
    of: fn(&UsePoint) -> Option<u8>,
) -> Markup {
    let values: Vec<Option<u8>> = points.into_iter().flatten().map(of).collect();
    let known: Vec<u8> = values.iter().copied().flatten().collect();
    if values.len() > 1 && known.is_empty() {
        return html! {};
    }
    // Two points make a line.
    if known.len() < 2 {
        return html! { svg.curve aria-hidden="true" {} };
    }
    let sum: u32 = known.iter().map(|percent| u32::from(*percent)).sum();
    let mean = sum / u32::try_from(known.len()).unwrap_or(u32::MAX);
    let most = known.iter().max().copied().unwrap_or_default();
    let label = format!("{name}, last ten minutes: mean {mean} %, highest {most} %");
    let view = format!("0 0 {} {HEIGHT}", RECENT_USE_POINTS - 1);
    html! {
        svg.curve viewBox=(view) preserveAspectRatio="none" role="img" aria-label=(label) {
            path d=(path(&values)) {}
        }
    }
}

/// The commands of a path: a new line after each gap.
fn path(values: &[Option<u8>]) -> String {
    let start = RECENT_USE_POINTS.saturating_sub(values.len());
    let (mut text, mut is_drawing) = (String::new(), false);
    for (x, value) in (start..).zip(values) {
        let Some(percent) = value else {
            is_drawing = false;
            continue;
        };
        // Tenths, and half a unit from the edges for the width of the line.
        let y = 195 - u16::from(*percent) * 19 / 10;
        // Writing to a string does not fail.
        let _ = write!(text, "{}{x} {}.{}", if is_drawing { 'L' } else { 'M' }, y / 10, y % 10);
        is_drawing = true;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_value_is_at_the_right_edge_and_gaps_interrupt_the_line() {
        assert_eq!(path(&[Some(0), Some(100), None, Some(50)]), "M56 19.5L57 0.5M59 10.0");
    }

    #[test]
    fn curve_has_a_text_and_a_bounded_size() {
        let points =
            VecDeque::from([UsePoint { sm: Some(40), memory: Some(7) }; RECENT_USE_POINTS]);
        let text = curve("SM", Some(&points), |point| point.sm).into_string();
        assert!(
            text.contains("aria-label=\"SM, last ten minutes: mean 40 %, highest 40 %\""),
            "{text}"
        );
        assert!(text.len() < 800, "{}", text.len());
        assert!(curve("SM", None, |point| point.sm).into_string().contains("aria-hidden"));
    }
}
