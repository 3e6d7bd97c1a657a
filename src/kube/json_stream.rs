//! Splits a byte stream into JSON values, so that only one of them is in memory.

/// A JSON value of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum JsonFrame {
    /// The bytes of one complete value.
    Value(Vec<u8>),
    /// A value above the size limit, which is dropped.
    TooLarge,
}

/// Splits the body of a watch into lines.
#[derive(Debug)]
pub struct LineReader {
    line: Vec<u8>,
    limit: usize,
    skipping: bool,
}

impl LineReader {
    /// Reads lines of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { line: Vec::new(), limit, skipping: false }
    }

    /// The lines that `chunk` completes. An incomplete last line is buffered.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<JsonFrame> {
        let mut frames = Vec::new();
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            if self.line.len() + text.len() > self.limit {
                self.skipping = true;
                self.line = Vec::new();
            }
            if !self.skipping {
                self.line.extend_from_slice(text);
            }
            if ended {
                frames.extend(self.end_of_line());
            }
        }
        frames
    }

    fn end_of_line(&mut self) -> Option<JsonFrame> {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.skipping) {
            return Some(JsonFrame::TooLarge);
        }
        (!line.trim_ascii().is_empty()).then_some(JsonFrame::Value(line))
    }
}

/// Extracts the items of the arrays in the top-level object of a list (`items`), and keeps the list
/// without its items.
#[derive(Debug)]
pub struct ListReader {
    /// The first two open brackets, outermost first.
    outer: Vec<u8>,
    /// Number of brackets that are open below them.
    deeper: usize,
    string: StringState,
    in_item: bool,
    too_large: bool,
    item: Vec<u8>,
    frame: Vec<u8>,
    limit: usize,
}

/// Position of the reader relative to JSON strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StringState {
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
}

impl ListReader {
    /// Reads items, and the list without them, of at most `limit` bytes each.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            outer: Vec::new(),
            deeper: 0,
            string: StringState::Outside,
            in_item: false,
            too_large: false,
            item: Vec::new(),
            frame: Vec::new(),
            limit,
        }
    }

    /// The items that `chunk` completes.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<JsonFrame> {
        chunk.iter().filter_map(|byte| self.byte(*byte)).collect()
    }

    /// The list without its items; empty if the list is incomplete.
    #[must_use]
    pub fn rest(self) -> Vec<u8> {
        let complete = self.outer.is_empty() && self.string == StringState::Outside;
        if complete { self.frame } else { Vec::new() }
    }

    fn byte(&mut self, byte: u8) -> Option<JsonFrame> {
        let mut ended = false;
        self.string = match (self.string, byte) {
            (StringState::Outside, b'{' | b'[') => {
                self.open(byte);
                StringState::Outside
            }
            (StringState::Outside, b'}' | b']') => {
                ended = self.close();
                StringState::Outside
            }
            (StringState::Inside, b'"') => StringState::Outside,
            (StringState::Inside, b'\\') => StringState::Escaped,
            (StringState::Outside, b'"') | (StringState::Inside | StringState::Escaped, _) => {
                StringState::Inside
            }
            (StringState::Outside, _) => StringState::Outside,
        };
        self.keep(byte);
        ended.then(|| self.end_of_item())
    }

    fn open(&mut self, byte: u8) {
        if self.outer.as_slice() == b"{[" {
            if byte == b'{' && !self.in_item {
                self.in_item = true;
            }
            self.deeper += 1;
        } else if self.outer.len() < 2 {
            self.outer.push(byte);
        } else {
            self.deeper += 1;
        }
    }

    fn close(&mut self) -> bool {
        if self.deeper > 0 {
            self.deeper -= 1;
            self.deeper == 0 && self.in_item
        } else {
            self.outer.pop();
            false
        }
    }

    fn keep(&mut self, byte: u8) {
        let in_array = self.outer.as_slice() == b"{[";
        let opening = byte == b'[' && self.deeper == 0 && self.string == StringState::Outside;
        if self.in_item {
            self.too_large |= self.item.len() >= self.limit;
            if !self.too_large {
                self.item.push(byte);
            }
        } else if (!in_array || opening) && self.frame.len() < self.limit {
            // The commas and spaces between items are dropped.
            self.frame.push(byte);
        }
    }

    fn end_of_item(&mut self) -> JsonFrame {
        self.in_item = false;
        let item = std::mem::take(&mut self.item);
        if std::mem::take(&mut self.too_large) {
            JsonFrame::TooLarge
        } else {
            JsonFrame::Value(item)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(frames: Vec<JsonFrame>) -> Vec<String> {
        frames
            .into_iter()
            .map(|frame| match frame {
                JsonFrame::Value(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                JsonFrame::TooLarge => "too large".to_owned(),
            })
            .collect()
    }

    #[test]
    fn incomplete_line_is_buffered() {
        let mut lines = LineReader::new(8);
        assert_eq!(values(lines.feed(b"{\"a")), Vec::<String>::new());
        assert_eq!(values(lines.feed(b"\"}\n\n  \n{}\n[")), ["{\"a\"}", "{}"]);
        assert_eq!(values(lines.feed(b"]\n")), ["[]"]);
    }

    #[test]
    fn line_above_the_limit_is_dropped_and_the_next_is_read() {
        let mut lines = LineReader::new(8);
        assert!(lines.feed(&[b'x'; 100]).is_empty());
        assert!(lines.line.is_empty(), "the buffer is released");
        assert_eq!(values(lines.feed(b"xx\n{}\n")), ["too large", "{}"]);
    }

    #[test]
    fn items_are_extracted_from_the_list() {
        let text = br#"{"kind":"PodList","metadata":{"resourceVersion":"7","x":[{"y":1}]},"items":[{"a":"}]\"["}, {"b":[{"c":{}}]}],"z":[]}"#;
        let mut items = ListReader::new(1000);
        assert_eq!(values(items.feed(text)), [r#"{"a":"}]\"["}"#, r#"{"b":[{"c":{}}]}"#]);
        let rest = String::from_utf8(items.rest()).unwrap();
        assert_eq!(
            rest,
            r#"{"kind":"PodList","metadata":{"resourceVersion":"7","x":[{"y":1}]},"items":[],"z":[]}"#
        );
    }

    #[test]
    fn incomplete_list_has_no_rest() {
        let mut items = ListReader::new(1000);
        assert_eq!(values(items.feed(br#"{"items":[{"a":1},{"b":"#)), [r#"{"a":1}"#]);
        assert!(items.rest().is_empty());
    }

    #[test]
    fn item_above_the_limit_is_dropped() {
        let mut items = ListReader::new(20);
        let found = values(items.feed(br#"{"items":[{"a":"xxxxxxxxxxxxxxxxxxxxxxx"},{"b":1}]}"#));
        assert_eq!(found, ["too large", r#"{"b":1}"#]);
        assert_eq!(items.rest(), br#"{"items":[]}"#);
    }

    proptest! {
        #[test]
        fn result_does_not_depend_on_chunk_boundaries(
            texts in prop::collection::vec("[a-z\\[\\]{}\\\\\",:]{0,12}", 0..6),
            cuts in prop::collection::vec(1_usize..9, 1..20),
        ) {
            let items: Vec<_> = texts.iter().map(|t| serde_json::json!({"s": t, "n": [t]})).collect();
            let list = serde_json::json!({"metadata": {"m": texts}, "items": items.clone()});
            let text = serde_json::to_vec(&list).unwrap();
            let mut reader = ListReader::new(1 << 20);
            let (mut found, mut rest) = (Vec::new(), text.as_slice());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                found.extend(reader.feed(now));
                rest = later;
            }
            let found: Vec<serde_json::Value> =
                values(found).iter().map(|t| serde_json::from_str(t).unwrap()).collect();
            prop_assert_eq!(found, items);
            let rest: serde_json::Value = serde_json::from_slice(&reader.rest()).unwrap();
            prop_assert_eq!(rest, serde_json::json!({"metadata": {"m": texts}, "items": []}));
        }

        #[test]
        fn any_bytes_stay_within_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut items = ListReader::new(64);
            let mut lines = LineReader::new(64);
            for frame in items.feed(&bytes).into_iter().chain(lines.feed(&bytes)) {
                if let JsonFrame::Value(value) = frame {
                    prop_assert!(value.len() <= 64);
                }
            }
            prop_assert!(items.rest().len() <= 64);
        }
    }
}
