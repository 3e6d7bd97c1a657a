//! A byte stream → its JSON values, one at a time, so that no more than one is in memory.

/// What a frame reader can find.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// One whole value.
    Value(Vec<u8>),
    /// A value larger than the limit, thrown away.
    TooLarge,
}

/// Cuts a watch's body at line ends.
#[derive(Debug)]
pub struct Lines {
    line: Vec<u8>,
    limit: usize,
    skipping: bool,
}

impl Lines {
    /// Takes lines of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { line: Vec::new(), limit, skipping: false }
    }

    /// The lines that `chunk` completes. What follows the last line end waits for more.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<Frame> {
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

    fn end_of_line(&mut self) -> Option<Frame> {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.skipping) {
            return Some(Frame::TooLarge);
        }
        (!line.trim_ascii().is_empty()).then_some(Frame::Value(line))
    }
}

/// Cuts the elements out of the arrays that stand in a list's top object (`items`), and keeps the
/// rest: the list without its elements.
#[derive(Debug)]
pub struct Items {
    /// Open brackets, outermost first; deeper ones are only counted.
    outer: Vec<u8>,
    deeper: usize,
    text: Text,
    in_item: bool,
    too_large: bool,
    item: Vec<u8>,
    frame: Vec<u8>,
    limit: usize,
}

/// Where a reader stands with regard to JSON's strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
}

impl Items {
    /// Takes elements, and a rest, of at most `limit` bytes each.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            outer: Vec::new(),
            deeper: 0,
            text: Text::Outside,
            in_item: false,
            too_large: false,
            item: Vec::new(),
            frame: Vec::new(),
            limit,
        }
    }

    /// The elements that `chunk` completes.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<Frame> {
        chunk.iter().filter_map(|byte| self.byte(*byte)).collect()
    }

    /// The list without its elements; empty text if the list has not ended.
    #[must_use]
    pub fn rest(self) -> Vec<u8> {
        if self.outer.is_empty() && self.text == Text::Outside { self.frame } else { Vec::new() }
    }

    fn byte(&mut self, byte: u8) -> Option<Frame> {
        let mut ended = false;
        self.text = match (self.text, byte) {
            (Text::Outside, b'{' | b'[') => {
                self.open(byte);
                Text::Outside
            }
            (Text::Outside, b'}' | b']') => {
                ended = self.close();
                Text::Outside
            }
            (Text::Inside, b'"') => Text::Outside,
            (Text::Inside, b'\\') => Text::Escaped,
            (Text::Outside, b'"') | (Text::Inside | Text::Escaped, _) => Text::Inside,
            (Text::Outside, _) => Text::Outside,
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
        let inside = self.outer.as_slice() == b"{[";
        let opening = byte == b'[' && self.deeper == 0 && self.text == Text::Outside;
        if self.in_item {
            self.too_large |= self.item.len() >= self.limit;
            if !self.too_large {
                self.item.push(byte);
            }
        } else if (!inside || opening) && self.frame.len() < self.limit {
            // Between elements there are commas and spaces, which nobody needs.
            self.frame.push(byte);
        }
    }

    fn end_of_item(&mut self) -> Frame {
        self.in_item = false;
        let item = std::mem::take(&mut self.item);
        if std::mem::take(&mut self.too_large) { Frame::TooLarge } else { Frame::Value(item) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(frames: Vec<Frame>) -> Vec<String> {
        frames
            .into_iter()
            .map(|frame| match frame {
                Frame::Value(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Frame::TooLarge => "too large".to_owned(),
            })
            .collect()
    }

    #[test]
    fn a_line_is_whole_or_waits() {
        let mut lines = Lines::new(8);
        assert_eq!(values(lines.feed(b"{\"a")), Vec::<String>::new());
        assert_eq!(values(lines.feed(b"\"}\n\n  \n{}\n[")), ["{\"a\"}", "{}"]);
        assert_eq!(values(lines.feed(b"]\n")), ["[]"]);
    }

    #[test]
    fn a_line_above_the_limit_is_thrown_away_and_the_next_is_read() {
        let mut lines = Lines::new(8);
        assert!(lines.feed(&[b'x'; 100]).is_empty());
        assert!(lines.line.is_empty(), "nothing of it is kept");
        assert_eq!(values(lines.feed(b"xx\n{}\n")), ["too large", "{}"]);
    }

    #[test]
    fn elements_come_out_and_the_list_stays() {
        let text = br#"{"kind":"PodList","metadata":{"resourceVersion":"7","x":[{"y":1}]},"items":[{"a":"}]\"["}, {"b":[{"c":{}}]}],"z":[]}"#;
        let mut items = Items::new(1000);
        assert_eq!(values(items.feed(text)), [r#"{"a":"}]\"["}"#, r#"{"b":[{"c":{}}]}"#]);
        let rest = String::from_utf8(items.rest()).unwrap();
        assert_eq!(
            rest,
            r#"{"kind":"PodList","metadata":{"resourceVersion":"7","x":[{"y":1}]},"items":[],"z":[]}"#
        );
    }

    #[test]
    fn a_list_that_was_cut_off_has_no_rest() {
        let mut items = Items::new(1000);
        assert_eq!(values(items.feed(br#"{"items":[{"a":1},{"b":"#)), [r#"{"a":1}"#]);
        assert!(items.rest().is_empty());
    }

    #[test]
    fn an_element_above_the_limit_is_thrown_away() {
        let mut items = Items::new(20);
        let found = values(items.feed(br#"{"items":[{"a":"xxxxxxxxxxxxxxxxxxxxxxx"},{"b":1}]}"#));
        assert_eq!(found, ["too large", r#"{"b":1}"#]);
        assert_eq!(items.rest(), br#"{"items":[]}"#);
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            texts in prop::collection::vec("[a-z\\[\\]{}\\\\\",:]{0,12}", 0..6),
            cuts in prop::collection::vec(1_usize..9, 1..20),
        ) {
            let items: Vec<_> = texts.iter().map(|t| serde_json::json!({"s": t, "n": [t]})).collect();
            let list = serde_json::json!({"metadata": {"m": texts}, "items": items.clone()});
            let text = serde_json::to_vec(&list).unwrap();
            let mut reader = Items::new(1 << 20);
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
        fn foreign_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut items = Items::new(64);
            let mut lines = Lines::new(64);
            for frame in items.feed(&bytes).into_iter().chain(lines.feed(&bytes)) {
                if let Frame::Value(value) = frame {
                    prop_assert!(value.len() <= 64);
                }
            }
            prop_assert!(items.rest().len() <= 64);
        }
    }
}
