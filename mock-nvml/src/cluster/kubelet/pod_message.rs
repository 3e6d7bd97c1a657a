//! The protobuf encoding of pod objects (`v1.Pod`), and field masks.

use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Map, Value};

/// A field of a message: its key in JSON, its number, and how it is encoded.
type Field = (&'static str, u32, Kind);

#[derive(Clone, Copy)]
enum Kind {
    Text,
    /// `metav1.Time`
    Time,
    /// A message.
    One(&'static [Field]),
    /// An array of messages.
    Many(&'static [Field]),
    /// A map of strings.
    Texts,
    /// A map of quantities.
    Quantities,
    /// A message with the fields of the JSON object itself.
    Inline(&'static [Field]),
}

use Kind::{Inline, Many, One, Quantities, Text, Texts, Time};

const POD: &[Field] =
    &[("metadata", 1, One(METADATA)), ("spec", 2, One(SPEC)), ("status", 3, One(STATUS))];
const METADATA: &[Field] = &[
    ("name", 1, Text),
    ("namespace", 3, Text),
    ("uid", 5, Text),
    ("resourceVersion", 6, Text),
    ("creationTimestamp", 8, Time),
    ("deletionTimestamp", 9, Time),
    ("labels", 11, Texts),
    ("annotations", 12, Texts),
];
const SPEC: &[Field] = &[
    ("containers", 2, Many(CONTAINER)),
    ("restartPolicy", 3, Text),
    ("serviceAccountName", 8, Text),
    ("nodeName", 10, Text),
    ("initContainers", 20, Many(CONTAINER)),
    ("schedulerName", 19, Text),
    ("runtimeClassName", 29, Text),
    ("ephemeralContainers", 34, Many(&[("", 1, Inline(CONTAINER))])),
    ("resourceClaims", 39, Many(&[("name", 1, Text), ("resourceClaimName", 3, Text)])),
];
const CONTAINER: &[Field] = &[
    ("name", 1, Text),
    ("image", 2, Text),
    ("resources", 8, One(RESOURCES)),
    ("imagePullPolicy", 14, Text),
    ("restartPolicy", 24, Text),
];
const RESOURCES: &[Field] = &[
    ("limits", 1, Quantities),
    ("requests", 2, Quantities),
    ("claims", 3, Many(&[("name", 1, Text)])),
];
const STATUS: &[Field] = &[
    ("phase", 1, Text),
    ("hostIP", 5, Text),
    ("startTime", 7, Time),
    ("containerStatuses", 8, Many(CONTAINER_STATUS)),
    ("qosClass", 9, Text),
    ("initContainerStatuses", 10, Many(CONTAINER_STATUS)),
    ("ephemeralContainerStatuses", 13, Many(CONTAINER_STATUS)),
    ("resourceClaimStatuses", 15, Many(&[("name", 1, Text), ("resourceClaimName", 2, Text)])),
];
const CONTAINER_STATUS: &[Field] = &[
    ("name", 1, Text),
    ("state", 2, One(STATE)),
    ("lastState", 3, One(STATE)),
    ("image", 6, Text),
    ("containerID", 8, Text),
];
const STATE: &[Field] = &[
    ("waiting", 1, One(&[("reason", 1, Text)])),
    ("running", 2, One(&[("startedAt", 1, Time)])),
    ("terminated", 3, One(&[("reason", 3, Text), ("containerID", 7, Text)])),
];

/// Encodes a pod object.
pub(crate) fn encode(pod: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_fields(pod, POD, &mut bytes);
    bytes
}

fn encode_fields(object: &Value, fields: &[Field], bytes: &mut Vec<u8>) {
    for (key, number, kind) in fields {
        if let Inline(fields) = kind {
            encode_message(*number, bytes, |bytes| encode_fields(object, fields, bytes));
        } else if let Some(value) = object.get(key).filter(|value| !value.is_null()) {
            encode_value(value, *number, *kind, bytes);
        }
    }
}

fn encode_value(value: &Value, number: u32, kind: Kind, bytes: &mut Vec<u8>) {
    let entries = || value.as_object().into_iter().flatten();
    match kind {
        Text => encode_text(number, value.as_str().unwrap_or_default(), bytes),
        Time => encode_message(number, bytes, |bytes| {
            encode_key(1, WireType::Varint, bytes);
            let time = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            let seconds = time.map_or(0, jiff::Timestamp::as_second);
            encode_varint(u64::try_from(seconds).unwrap_or_default(), bytes);
        }),
        One(fields) | Inline(fields) => {
            encode_message(number, bytes, |bytes| encode_fields(value, fields, bytes));
        }
        Many(fields) => {
            for item in value.as_array().into_iter().flatten() {
                encode_message(number, bytes, |bytes| encode_fields(item, fields, bytes));
            }
        }
        Texts => {
            for (key, value) in entries() {
                encode_message(number, bytes, |bytes| {
                    encode_text(1, key, bytes);
                    encode_text(2, value.as_str().unwrap_or_default(), bytes);
                });
            }
        }
        Quantities => {
            for (key, value) in entries() {
                encode_message(number, bytes, |bytes| {
                    encode_text(1, key, bytes);
                    encode_message(2, bytes, |bytes| {
                        encode_text(1, value.as_str().unwrap_or_default(), bytes);
                    });
                });
            }
        }
    }
}

fn encode_text(number: u32, text: &str, bytes: &mut Vec<u8>) {
    encode_message(number, bytes, |bytes| bytes.extend_from_slice(text.as_bytes()));
}

fn encode_message(number: u32, bytes: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let mut message = Vec::new();
    content(&mut message);
    encode_key(number, WireType::LengthDelimited, bytes);
    encode_varint(message.len() as u64, bytes);
    bytes.extend_from_slice(&message);
}

/// The fields of a pod that a mask names, such as `metadata.uid,spec.containers.name`.
pub(crate) fn apply_mask(pod: &Value, mask: &str) -> Value {
    let mut masked = Value::Object(Map::new());
    for path in mask.split(',') {
        let path: Vec<&str> = path.split('.').collect();
        copy(pod, &mut masked, &path);
    }
    masked
}

fn copy(from: &Value, to: &mut Value, path: &[&str]) {
    let [key, rest @ ..] = path else {
        to.clone_from(from);
        return;
    };
    match from {
        Value::Array(items) => {
            let copies = items.len();
            if !to.is_array() {
                *to = Value::Array(vec![Value::Null; copies]);
            }
            for (item, copied) in items.iter().zip(to.as_array_mut().into_iter().flatten()) {
                copy(item, copied, path);
            }
        }
        Value::Object(fields) => {
            let Some(field) = fields.get(*key) else { return };
            if !to.is_object() {
                *to = Value::Object(Map::new());
            }
            if let Some(object) = to.as_object_mut() {
                copy(field, object.entry(*key).or_insert(Value::Null), rest);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn masked_pod_has_the_named_fields_only() {
        let pod = json!({
            "metadata": { "uid": "u", "name": "n" },
            "spec": { "containers": [{ "name": "a", "image": "i" }, { "name": "b" }] },
        });
        assert_eq!(
            apply_mask(&pod, "metadata.uid,spec.containers.name,spec.none"),
            json!({
                "metadata": { "uid": "u" },
                "spec": { "containers": [{ "name": "a" }, { "name": "b" }] },
            })
        );
    }
}
