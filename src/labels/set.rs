//! An encoded label set, shared by all series that have it.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::sanitize::printable_char;

/// Maximum length of a label value in bytes; the limit of Alibaba Cloud's managed Prometheus.
const VALUE_MAX: usize = 256;

/// A label set in the order of the exposition. Values are at most 256 bytes long, and control
/// characters and bidirectional marks are replaced. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Labels(Arc<EncodedLabels>);

/// Exposition text of all labels but the last value, then the last value without escapes: the
/// encoder treats the text as one key, and escapes the value.
#[derive(Default, PartialEq, Eq)]
struct EncodedLabels {
    text: String,
    /// Offset of the last value.
    last: usize,
}

impl Labels {
    /// A label set of these pairs. Keys must be valid label names. Of several pairs with the same
    /// key the first is kept: Prometheus rejects a scrape in which a series has a label twice.
    pub fn from_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut labels = LabelEncoder::default();
        for (key, value) in pairs {
            labels.push(key, LabelValue::Text(value));
        }
        labels.finish()
    }

    /// Length of the encoded text, bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.text.len()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.last == 0
    }

    /// Exposition text up to and including the last key, and the last value without escapes.
    #[must_use]
    pub fn encoded(&self) -> (&str, &str) {
        self.0.text.split_at_checked(self.0.last).unwrap_or_default()
    }

    /// Key and value of each label, without escapes.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&str, String)> {
        let (mut rest, last) = self.encoded();
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

/// A label value.
pub(super) enum LabelValue<'a> {
    Text(&'a str),
    Owned(String),
    Number(u32),
    /// The device file with this minor number.
    DeviceFile(u32),
}

/// Encodes a label set.
#[derive(Default)]
pub(super) struct LabelEncoder<'a> {
    text: String,
    /// The value of the last key, which is not in the text yet.
    last: Option<LabelValue<'a>>,
    keys: Keys<'a>,
}

impl<'a> LabelEncoder<'a> {
    /// Adds a label, unless the set has its key.
    pub(super) fn push(&mut self, key: &'a str, value: LabelValue<'a>) {
        if !self.keys.insert(key) {
            return;
        }
        if let Some(value) = self.last.replace(value) {
            self.text.push_str("=\"");
            push(&mut self.text, &value, escape);
            self.text.push_str("\",");
        } else {
            self.text.reserve(256);
        }
        self.text.push_str(key);
    }

    pub(super) fn finish(self) -> Labels {
        let Self { mut text, last: value, .. } = self;
        let last = text.len();
        push(&mut text, &value.unwrap_or(LabelValue::Text("")), String::push);
        Labels(Arc::new(EncodedLabels { text, last }))
    }
}

/// The keys of a label set so far. It is created for each series in each cycle: one bit distinguishes
/// most keys, without a comparison or an allocation.
#[derive(Default)]
struct Keys<'a> {
    bits: u64,
    keys: SmallVec<[&'a str; 32]>,
}

impl<'a> Keys<'a> {
    /// Adds a key. Returns whether it is new.
    fn insert(&mut self, key: &'a str) -> bool {
        let (first, last) = (key.bytes().next(), key.bytes().next_back());
        let [first, last] = [first, last].map(|byte| usize::from(byte.unwrap_or_default()));
        let bit = 1 << ((key.len() + 5 * first + 11 * last) % 64);
        if self.bits & bit != 0 && self.keys.contains(&key) {
            return false;
        }
        self.bits |= bit;
        self.keys.push(key);
        true
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.pairs()).finish()
    }
}

/// Appends a value; `add` encodes a character.
fn push(text: &mut String, value: &LabelValue<'_>, add: impl Fn(&mut String, char)) {
    match value {
        LabelValue::Text(value) => push_text(text, value, add),
        LabelValue::Owned(value) => push_text(text, value, add),
        LabelValue::Number(number) => push_number(text, *number),
        LabelValue::DeviceFile(minor) => {
            text.push_str("nvidia");
            push_number(text, *minor);
        }
    }
}

fn push_number(text: &mut String, number: u32) {
    match u8::try_from(number) {
        Ok(digit @ 0..=9) => text.push(char::from(b'0' + digit)),
        _ => text.push_str(&number.to_string()),
    }
}

/// Appends a text: truncated and printable.
fn push_text(text: &mut String, value: &str, add: impl Fn(&mut String, char)) {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if value.len() <= VALUE_MAX && value.bytes().all(plain) {
        return text.push_str(value);
    }
    let mut length = 0;
    for c in value.chars() {
        let c = printable_char(c);
        length += c.len_utf8();
        if length > VALUE_MAX {
            break;
        }
        add(text, c);
    }
}

/// Escapes a character. Line feeds do not occur, because control characters are replaced.
fn escape(text: &mut String, c: char) {
    if matches!(c, '"' | '\\') {
        text.push('\\');
    }
    text.push(c);
}

/// The decoded value, and the text after its closing quote and comma.
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
    use crate::sanitize::printable;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied())
    }

    #[test]
    fn values_are_truncated_to_256_bytes_and_control_characters_replaced() {
        let check = |value: &str, expected: &str| {
            let (labels, expected) = (labels(&[("a", value), ("b", value)]), expected.to_owned());
            assert_eq!(labels.pairs(), [("a", expected.clone()), ("b", expected)]);
        };
        check("a\n\u{7}b\"\\é", "a\u{fffd}\u{fffd}b\"\\é");
        check(&"é".repeat(200), &"é".repeat(128));
        check(&format!("x{}", "é".repeat(200)), &format!("x{}", "é".repeat(127)));
    }

    #[test]
    fn set_without_labels_is_empty() {
        assert!(Labels::default().is_empty() && labels(&[]).is_empty());
        assert_eq!(labels(&[]).pairs(), []);
        assert_eq!(labels(&[("a", "")]).encoded(), ("a", ""));
        assert_eq!(labels(&[("a", "1"), ("b", "2")]).encoded(), ("a=\"1\",b", "2"));
    }

    #[test]
    fn no_label_occurs_twice() {
        let twice = labels(&[("a", "1"), ("b", "2"), ("a", "3"), ("b", "4")]);
        assert_eq!(twice.encoded(), ("a=\"1\",b", "2"));
    }

    proptest! {
        #[test]
        fn pairs_decode_to_the_encoded_values(
            values in prop::collection::vec("\\PC{0,80}|.{0,90}|[\"\\\\,=a]{0,300}", 0..5)
        ) {
            let keys = ["a", "b_c", "D", "e1", "f"];
            let pairs: Vec<_> = keys.into_iter().zip(values.iter().map(String::as_str)).collect();
            let labels = labels(&pairs);
            let read = labels.pairs();
            prop_assert_eq!(read.len(), pairs.len());
            for ((key, value), (read_key, read)) in pairs.into_iter().zip(read) {
                prop_assert_eq!(key, read_key);
                prop_assert!(read.len() <= VALUE_MAX && printable(&read) == read);
                if value.len() <= VALUE_MAX && printable(value) == value {
                    prop_assert_eq!(read, value);
                }
            }
        }
    }
}
