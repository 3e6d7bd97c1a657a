//! Parses `/proc/<pid>/stat` into name, state and start time of a process. Pure.

/// Parsed fields of `/proc/<pid>/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `comm` (field 2); invalid UTF-8 is replaced.
    pub name: String,
    /// State letter (field 3), as shown by `ps`.
    pub state: char,
    /// Start time (field 22), clock ticks since boot.
    pub started: u64,
}

/// Number of fields from the state to the start time, both included.
const STATE_TO_START: usize = 20;

/// Parses the text; `None` if the format is wrong. The name may contain spaces, parentheses and
/// newlines: it ends at the last closing parenthesis.
#[must_use]
pub fn parse(text: &[u8]) -> Option<Stat> {
    let text = String::from_utf8_lossy(text);
    let (pid, rest) = text.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    pid.parse::<u32>().ok()?;
    let mut fields = rest.split_ascii_whitespace().take(STATE_TO_START);
    let mut state = fields.next()?.chars();
    let (Some(state @ ('A'..='Z' | 'a'..='z')), None) = (state.next(), state.next()) else {
        return None;
    };
    let started = fields.nth(STATE_TO_START - 2)?.parse().ok()?;
    Some(Stat { name: name.to_owned(), state, started })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = "1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";

    fn stat(name: &str) -> Stat {
        Stat { name: name.to_owned(), state: 'S', started: 4242 }
    }

    #[test]
    fn name_may_contain_any_text() {
        for name in ["python3", "", "a) R (b", "(", ") ", "two\nlines", "日本 \"x\"\\"] {
            let text = format!("7 ({name}) S {TAIL}\n");
            assert_eq!(parse(text.as_bytes()), Some(stat(name)), "{name:?}");
        }
        let truncated = [b"7 (\xe6\x97) S ", TAIL.as_bytes()].concat();
        assert_eq!(
            parse(&truncated),
            Some(stat("\u{fffd}")),
            "truncated within a character, at 15 bytes"
        );
    }

    #[test]
    fn truncated_or_invalid_text_is_none() {
        let whole = format!("7 (x) S {TAIL}");
        let start = whole.find(" 0 0").map(|_| whole.len() - " 4242 0 0".len());
        for end in 0..=start.unwrap() {
            assert_eq!(parse(&whole.as_bytes()[..end]), None, "{end}");
        }
        for invalid in
            ["(", ")", "()", "(x) S", ")7 (", "7 (x)é", "x (x) S 1", "7 (x) SS 1", "7 (x) ) 1"]
        {
            assert_eq!(parse(invalid.as_bytes()), None, "{invalid}");
            assert_eq!(parse(format!("{invalid} {TAIL}").as_bytes()), None, "{invalid}");
        }
    }
}
