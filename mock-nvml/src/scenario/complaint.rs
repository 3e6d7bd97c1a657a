//! What is wrong with a scenario: where, what, and how to mend it.

use std::ops::Range;

use toml::Spanned;

/// Something wrong in a text that has no name yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {text}")]
pub(crate) struct Complaint {
    /// The line, from 1.
    line: usize,
    /// What is wrong, and the mend.
    text: String,
}

/// Something wrong at a byte of a text.
#[derive(Debug)]
pub(super) struct Flaw {
    at: usize,
    text: String,
}

/// Characters of a complaint.
const TEXT_MAX: usize = 1000;
/// Bytes of the longest word that is compared with others.
const WORD_MAX: usize = 100;

/// What validation gives.
pub(super) type Checked<T> = Result<T, Flaw>;

impl Flaw {
    pub(super) fn new(at: Range<usize>, text: impl Into<String>) -> Self {
        Self { at: at.start, text: text.into() }
    }

    /// Names the line in which the flaw is.
    pub(super) fn at_line(self, text: &str) -> Complaint {
        let before = text.as_bytes().get(..self.at).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        // It quotes what was written, which may be long and have line ends of its own.
        let text =
            self.text.chars().take(TEXT_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c });
        Complaint { line, text: text.collect() }
    }
}

/// Refuses the value with `text` unless it is `fine`.
pub(super) fn ensure<T>(
    fine: bool,
    value: &Spanned<T>,
    text: impl FnOnce() -> String,
) -> Checked<()> {
    if fine { Ok(()) } else { Err(Flaw::new(value.span(), text())) }
}

/// `, did you mean "…"?` with the nearest of `known`, or nothing if none is near.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    if word.len() > WORD_MAX {
        return String::new();
    }
    let nearest = known.into_iter().map(|name| (distance(word, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= (word.len() * 2 / 5).max(1) => {
            format!(", did you mean \"{name}\"?")
        }
        _ => String::new(),
    }
}

/// How many letters must be changed, added, left out or swapped with the next to make `a` of `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<_>, Vec<_>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, &left) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &right) in b.iter().enumerate() {
            let above = |up: usize, back: usize| {
                let of = rows.len().checked_sub(up).and_then(|at| rows.get(at));
                of.zip((j + 1).checked_sub(back)).and_then(|(of, at)| of.get(at)).copied()
            };
            let swapped =
                i > 0 && j > 0 && a.get(i - 1) == Some(&right) && b.get(j - 1) == Some(&left);
            let options = [
                above(1, 1).map(|cost| cost + usize::from(left != right)),
                above(1, 0).map(|cost| cost + 1),
                row.last().map(|cost| cost + 1),
                above(2, 2).filter(|_| swapped).map(|cost| cost + 1),
            ];
            row.push(options.into_iter().flatten().min().unwrap_or(usize::MAX));
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_if_it_is_near() {
        assert_eq!(
            [distance("sn", "sm"), distance("dmeo", "demo"), distance("", "abc")],
            [1, 1, 3]
        );
        assert_eq!(suggestion("dmeo", ["idle-t4", "demo"]), ", did you mean \"demo\"?");
        assert_eq!(suggestion("quux", ["idle-t4", "demo"]), "");
        assert_eq!(suggestion(&"x".repeat(1 << 20), ["demo"]), "", "at once");
    }

    #[test]
    fn a_complaint_is_one_line_whatever_it_quotes() {
        let text = format!("a{}", "\n\u{1b}".repeat(1 << 20));
        let said = Flaw::new(1..2, text.clone()).at_line(&text).to_string();
        assert!(said.starts_with("1: a\u{fffd}\u{fffd}") && said.len() < 4 * TEXT_MAX, "{said}");
    }
}
