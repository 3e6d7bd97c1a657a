//! Parses the events of a node watch.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::json_stream::JsonFrame;
use super::request_error::RequestError;
use super::source::FailureReason;

/// A parsed event.
#[derive(Debug, PartialEq)]
pub(super) enum NodeEvent {
    /// A node exists in this state (`ADDED`, `MODIFIED`).
    Applied(Node),
    /// The node of this name was deleted.
    Deleted(String),
    /// Any other event.
    Other,
}

/// The metadata of a node that are read.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    pub(super) name: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct NodeWatchEvent {
    #[serde(rename = "type")]
    kind: String,
    object: NodeWatchObject,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeWatchObject {
    metadata: Node,
    code: u16,
    message: String,
}

fn nullable<'de, D: serde::Deserializer<'de>>(
    labels: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(labels)?.unwrap_or_default())
}

/// Parses one line of the watch.
///
/// # Errors
/// The line is malformed or above the size limit, or it is an `ERROR` event.
pub(super) fn parse(frame: &JsonFrame) -> Result<NodeEvent, RequestError> {
    let JsonFrame::Value(json) = frame else {
        return Err(RequestError::new(
            FailureReason::TooLarge,
            "a node object is above the size limit",
        ));
    };
    let NodeWatchEvent { kind, object } = serde_json::from_slice(json).map_err(|e| {
        RequestError::new(FailureReason::Garbage, format!("a node event is malformed: {e}"))
    })?;
    match kind.as_str() {
        "ADDED" | "MODIFIED" => Ok(NodeEvent::Applied(object.metadata)),
        "DELETED" => Ok(NodeEvent::Deleted(object.metadata.name)),
        "ERROR" => Err(RequestError::of_error_event(object.code, &object.message)),
        _ => Ok(NodeEvent::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_a_node_event_or_an_error() {
        let read = |json: &str| parse(&JsonFrame::Value(json.as_bytes().to_vec()));
        let line = |kind: &str, labels: &str| {
            read(&format!(
                r#"{{"type":"{kind}","object":{{"metadata":{{"name":"n1","labels":{labels}}}}}}}"#
            ))
        };
        let node = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            NodeEvent::Applied(Node { name: "n1".to_owned(), labels })
        };
        assert_eq!(line("ADDED", r#"{"a":"b"}"#).unwrap(), node(&[("a", "b")]));
        assert_eq!(line("MODIFIED", "null").unwrap(), node(&[]));
        assert_eq!(line("DELETED", "{}").unwrap(), NodeEvent::Deleted("n1".to_owned()));
        assert_eq!(line("BOOKMARK", "{}").unwrap(), NodeEvent::Other);
        let message = "no\\u0000\\n".repeat(10_000);
        let error =
            read(&format!(r#"{{"type":"ERROR","object":{{"code":403,"message":"{message}"}}}}"#));
        let error = error.unwrap_err();
        assert_eq!((error.reason, error.status), (FailureReason::Denied, Some(403)));
        let text = error.to_string();
        assert!(text.len() < 2000 && !text.contains(char::is_control), "{text}");
        assert_eq!(read("{").unwrap_err().reason, FailureReason::Garbage);
    }
}
