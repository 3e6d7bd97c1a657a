//! Truncates and sanitizes untrusted text for logs and error messages, so that it can neither fill a
//! log nor insert lines into it.

/// The first `chars` characters of a text, with control characters replaced by U+FFFD.
#[must_use]
pub fn truncate_for_log(text: &str, chars: usize) -> String {
    text.chars()
        .take(chars)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_truncated_and_control_characters_are_replaced() {
        assert_eq!(truncate_for_log("é\n\u{1b}[1m\u{9b}x", 99), "é\u{fffd}\u{fffd}[1m\u{fffd}x");
        assert_eq!(truncate_for_log("日本語", 2), "日本");
    }
}
