//! A label set as the page has it, made once for all the families that stand under it.

use std::fmt;
use std::sync::Arc;

/// The longest label value that the managed Prometheus keeps, in bytes.
const VALUE_MAX: usize = 256;

/// A label set, in the order of the page. Values are clean: of at most [`VALUE_MAX`] bytes, with
/// control characters replaced. Cloning it is cheap.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Labels(Arc<Written>);

/// All but the last value as exposition text, then the last value as it is: whoever writes the page
/// escapes it, and takes the rest for one long key.
#[derive(Default, PartialEq, Eq)]
struct Written {
    text: String,
    /// Where the last value begins.
    last: usize,
}

impl Labels {
    /// A label set of these pairs; keys are legal names. Of two with one key the first is kept:
    /// Prometheus refuses a scrape in which a series has a label twice.
    pub fn of<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = String::with_capacity(256);
        let mut before: Option<&str> = None;
        let mut keys: Vec<&str> = Vec::with_capacity(24);
        for (key, value) in pairs {
            if keys.contains(&key) {
                continue;
            }
            keys.push(key);
            if let Some(value) = before.replace(value) {
                text.push_str("=\"");
                push(&mut text, value, escape);
                text.push_str("\",");
            }
            text.push_str(key);
        }
        let last = text.len();
        push(&mut text, before.unwrap_or_default(), String::push);
        Self(Arc::new(Written { text, last }))
    }

    /// Length of what is written of them, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.text.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.last == 0
    }

    /// All but the last value, written out with the last key at its end; and the last value.
    #[must_use]
    pub fn written(&self) -> (&str, &str) {
        self.0.text.split_at_checked(self.0.last).unwrap_or_default()
    }

    /// Key and value of each label, as they were before they were written.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&str, String)> {
        let (mut rest, last) = self.written();
        let mut pairs = Vec::new();
        while let Some((key, after)) = rest.split_once("=\"") {
            let (value, after) = unescaped(after);
            pairs.push((key, value));
            rest = after;
        }
        if !rest.is_empty() {
            pairs.push((rest, last.to_owned()));
        }
        pairs
    }

    /// The value of a label.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<String> {
        self.pairs().into_iter().find_map(|(own, value)| (own == key).then_some(value))
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.pairs()).finish()
    }
}

/// Adds a value, cleaned; `add` says how a character is written.
fn push(text: &mut String, value: &str, add: impl Fn(&mut String, char)) {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if value.len() <= VALUE_MAX && value.bytes().all(plain) {
        return text.push_str(value);
    }
    let mut length = 0;
    for c in value.chars() {
        let c = if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        length += c.len_utf8();
        if length > VALUE_MAX {
            break;
        }
        add(text, c);
    }
}

/// There are no line ends to escape: they have been replaced.
fn escape(text: &mut String, c: char) {
    if matches!(c, '"' | '\\') {
        text.push('\\');
    }
    text.push(c);
}

/// A value as it was, and what follows its closing quote and comma.
fn unescaped(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '"' => return (value, text.get(at + 2..).unwrap_or_default()),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::of(pairs.iter().copied())
    }

    #[test]
    fn values_keep_their_text_without_control_characters_up_to_256_bytes() {
        let check = |value: &str, expected: &str| {
            let (labels, expected) = (labels(&[("a", value), ("b", value)]), expected.to_owned());
            assert_eq!(labels.pairs(), [("a", expected.clone()), ("b", expected)]);
        };
        check("a\n\u{7}b\"\\é", "a\u{fffd}\u{fffd}b\"\\é");
        check(&"é".repeat(200), &"é".repeat(128));
        check(&format!("x{}", "é".repeat(200)), &format!("x{}", "é".repeat(127)));
    }

    #[test]
    fn a_set_without_labels_is_empty() {
        assert!(Labels::default().is_empty() && labels(&[]).is_empty());
        assert_eq!(labels(&[]).pairs(), []);
        assert_eq!(labels(&[("a", "")]).written(), ("a", ""));
        assert_eq!(labels(&[("a", "1"), ("b", "2")]).written(), ("a=\"1\",b", "2"));
    }

    #[test]
    fn a_label_never_stands_twice() {
        let twice = labels(&[("a", "1"), ("b", "2"), ("a", "3"), ("b", "4")]);
        assert_eq!(twice.written(), ("a=\"1\",b", "2"));
    }

    proptest! {
        #[test]
        fn what_was_written_can_be_read(
            values in prop::collection::vec("\\PC{0,80}|.{0,90}|[\"\\\\,=a]{0,300}", 0..5)
        ) {
            let keys = ["a", "b_c", "D", "e1", "f"];
            let pairs: Vec<_> = keys.into_iter().zip(values.iter().map(String::as_str)).collect();
            let labels = labels(&pairs);
            let read = labels.pairs();
            prop_assert_eq!(read.len(), pairs.len());
            for ((key, value), (read_key, read)) in pairs.into_iter().zip(read) {
                prop_assert_eq!(key, read_key);
                prop_assert!(read.len() <= VALUE_MAX && !read.contains(char::is_control));
                if value.len() <= VALUE_MAX && !value.contains(char::is_control) {
                    prop_assert_eq!(read, value);
                }
            }
        }
    }
}
