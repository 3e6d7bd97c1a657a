//! The text of `/proc/<pid>/stat` → name, state and start of a process. Pure.

/// What is read of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The process's `comm`; what is no UTF-8 in it is replaced.
    pub name: String,
    /// One letter, as `ps` shows it.
    pub state: char,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

/// Fields from the state to the start time, both of them counted.
const STATE_TO_START: usize = 20;

/// Reads it; none if it is no such text. A name may hold blanks, parentheses and line ends itself: it
/// ends at the last parenthesis.
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

    fn of(name: &str) -> Stat {
        Stat { name: name.to_owned(), state: 'S', started: 4242 }
    }

    #[test]
    fn a_name_may_be_anything() {
        for name in ["python3", "", "a) R (b", "(", ") ", "two\nlines", "日本 \"x\"\\"] {
            let text = format!("7 ({name}) S {TAIL}\n");
            assert_eq!(parse(text.as_bytes()), Some(of(name)), "{name:?}");
        }
        let cut = [b"7 (\xe6\x97) S ", TAIL.as_bytes()].concat();
        assert_eq!(parse(&cut), Some(of("\u{fffd}")), "cut within a letter, at 15 bytes");
    }

    #[test]
    fn what_is_cut_off_or_is_something_else_is_none() {
        let whole = format!("7 (x) S {TAIL}");
        let start = whole.find(" 0 0").map(|_| whole.len() - " 4242 0 0".len());
        for end in 0..=start.unwrap() {
            assert_eq!(parse(&whole.as_bytes()[..end]), None, "{end}");
        }
        for rubbish in
            ["(", ")", "()", "(x) S", ")7 (", "7 (x)é", "x (x) S 1", "7 (x) SS 1", "7 (x) ) 1"]
        {
            assert_eq!(parse(rubbish.as_bytes()), None, "{rubbish}");
            assert_eq!(parse(format!("{rubbish} {TAIL}").as_bytes()), None, "{rubbish}");
        }
    }
}
