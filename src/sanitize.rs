//! Replaces the characters of untrusted text that would change how the text around it is displayed: control
//! characters, which insert lines or command a terminal, and the marks of bidirectional text, which
//! reorder the characters after them.

use std::borrow::Cow;

/// The character itself, or U+FFFD if it changes how the text around it is displayed.
#[must_use]
pub fn printable_char(c: char) -> char {
    match c {
        // Line and paragraph separators, and the marks of bidirectional text.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            char::REPLACEMENT_CHARACTER
        }
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// A text with [`printable_char`] applied to each character.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| printable_char(c) == c) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.chars().map(printable_char).collect())
    }
}

/// The first `chars` characters of a text, [`printable`], so that it can neither fill a log nor insert lines
/// into it.
#[must_use]
pub fn truncate_for_log(text: &str, chars: usize) -> String {
    text.chars().take(chars).map(printable_char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_truncated_and_control_characters_are_replaced() {
        assert_eq!(truncate_for_log("é\n\u{1b}[1m\u{9b}x", 99), "é\u{fffd}\u{fffd}[1m\u{fffd}x");
        assert_eq!(truncate_for_log("日本語", 2), "日本");
    }

    #[test]
    fn marks_of_bidirectional_text_are_replaced_and_its_letters_are_not() {
        for mark in
            "\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}".chars()
        {
            assert_eq!(printable(&format!("a{mark}b")), "a\u{fffd}b", "{mark:?}");
        }
        for text in ["שלום", "مرحبا", "日本語", "a\u{200d}b", "plain"] {
            assert!(matches!(printable(text), Cow::Borrowed(_)), "{text}");
        }
    }
}
