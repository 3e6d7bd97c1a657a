//! What was given, as far as a complaint about it has room: whoever gives much must not fill a log, nor
//! write lines of their own into it.

/// The first `chars` characters; control characters are replaced.
#[must_use]
pub fn in_part(text: &str, chars: usize) -> String {
    text.chars()
        .take(chars)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_short_and_one_line() {
        assert_eq!(in_part("é\n\u{1b}[1m\u{9b}x", 99), "é\u{fffd}\u{fffd}[1m\u{fffd}x");
        assert_eq!(in_part("日本語", 2), "日本");
    }
}
