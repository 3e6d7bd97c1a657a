//! Errors in a scenario: line, reason and remedy.

use std::ops::Range;

use toml::Spanned;

/// An error at a line of a scenario; the caller adds the name of the scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {text}")]
pub(crate) struct ScenarioError {
    /// From 1.
    line: usize,
    /// What was given, why it is invalid, and what to write instead.
    text: String,
}

/// An error at a byte offset of a scenario.
#[derive(Debug)]
pub(super) struct SpannedError {
    offset: usize,
    text: String,
}

/// Longest error text, in characters.
const TEXT_MAX: usize = 1000;
/// Longest word that is compared with known words, in bytes.
const WORD_MAX: usize = 100;

/// Result of a validation.
pub(super) type ValidationResult<T> = Result<T, SpannedError>;

impl SpannedError {
    pub(super) fn new(span: Range<usize>, text: impl Into<String>) -> Self {
        Self { offset: span.start, text: text.into() }
    }

    /// Converts the byte offset in `text` into a line number.
    pub(super) fn at_line(self, text: &str) -> ScenarioError {
        let before = text.as_bytes().get(..self.offset).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        // The error quotes the scenario, which may be long and contain control characters.
        let text =
            self.text.chars().take(TEXT_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c });
        ScenarioError { line, text: text.collect() }
    }
}

/// Returns an error with `text` at `value` unless `valid`.
pub(super) fn ensure<T>(
    valid: bool,
    value: &Spanned<T>,
    text: impl FnOnce() -> String,
) -> ValidationResult<()> {
    if valid { Ok(()) } else { Err(SpannedError::new(value.span(), text())) }
}

/// `, did you mean "…"?` with the most similar of `known`, or an empty text if none is similar.
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

/// Damerau-Levenshtein distance: changed, added, omitted and swapped adjacent characters.
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
    fn most_similar_word_is_suggested() {
        assert_eq!(
            [distance("sn", "sm"), distance("dmeo", "demo"), distance("", "abc")],
            [1, 1, 3]
        );
        assert_eq!(suggestion("dmeo", ["idle-t4", "demo"]), ", did you mean \"demo\"?");
        assert_eq!(suggestion("quux", ["idle-t4", "demo"]), "");
        assert_eq!(suggestion(&"x".repeat(1 << 20), ["demo"]), "", "a long word is not compared");
    }

    #[test]
    fn error_is_one_short_line() {
        let text = format!("a{}", "\n\u{1b}".repeat(1 << 20));
        let error = SpannedError::new(1..2, text.clone()).at_line(&text).to_string();
        assert!(error.starts_with("1: a\u{fffd}\u{fffd}") && error.len() < 4 * TEXT_MAX, "{error}");
    }
}
