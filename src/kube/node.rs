//! A line of a watch of nodes.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::api::Fault;
use super::framing::Frame;
use super::source::Failure;

/// What a line tells.
#[derive(Debug, PartialEq)]
pub(super) enum News {
    /// A node is so.
    Is(Node),
    /// The node of this name is gone.
    Gone(String),
    /// Nothing of a node.
    None,
}

/// What is asked of a node.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    pub(super) name: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: Object,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    metadata: Node,
    code: u16,
    message: String,
}

fn nullable<'de, D: serde::Deserializer<'de>>(
    labels: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(labels)?.unwrap_or_default())
}

/// Reads a line.
///
/// # Errors
/// It is none, or says that the server refuses.
pub(super) fn read(frame: &Frame) -> Result<News, Fault> {
    let Frame::Value(json) = frame else {
        return Err(Fault::new(Failure::TooLarge, "a node above the limit"));
    };
    let Line { kind, object } = serde_json::from_slice(json)
        .map_err(|e| Fault::new(Failure::Garbage, format!("a line about a node: {e}")))?;
    match kind.as_str() {
        "ADDED" | "MODIFIED" => Ok(News::Is(object.metadata)),
        "DELETED" => Ok(News::Gone(object.metadata.name)),
        "ERROR" => {
            let Object { code, message, .. } = object;
            let failure = Failure::of_status(code);
            Err(Fault { failure, status: Some(code), detail: format!("{code} {message}") })
        }
        _ => Ok(News::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_of_a_node_or_of_a_refusal() {
        let read = |json: &str| read(&Frame::Value(json.as_bytes().to_vec()));
        let line = |kind: &str, labels: &str| {
            read(&format!(
                r#"{{"type":"{kind}","object":{{"metadata":{{"name":"n1","labels":{labels}}}}}}}"#
            ))
        };
        let node = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            News::Is(Node { name: "n1".to_owned(), labels })
        };
        assert_eq!(line("ADDED", r#"{"a":"b"}"#).unwrap(), node(&[("a", "b")]));
        assert_eq!(line("MODIFIED", "null").unwrap(), node(&[]));
        assert_eq!(line("DELETED", "{}").unwrap(), News::Gone("n1".to_owned()));
        assert_eq!(line("BOOKMARK", "{}").unwrap(), News::None);
        let refused = read(r#"{"type":"ERROR","object":{"code":403,"message":"no"}}"#);
        assert_eq!(refused.unwrap_err().failure, Failure::Denied);
        assert_eq!(read("{").unwrap_err().failure, Failure::Garbage);
    }
}
