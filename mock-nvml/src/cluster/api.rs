//! The API server's watch cache: current objects of one kind, their resource versions, and the most
//! recent events.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use serde_json::{Value, json};

/// Resource version of an empty cache; the first event has the next one.
const FIRST_VERSION: u64 = 1_000;
/// Events kept for watches; older ones are dropped.
const MAX_EVENTS: usize = 1_024;

/// Kind of an API object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    /// `/api/v1/pods`
    Pod,
    /// `/api/v1/nodes`
    Node,
}

impl ObjectKind {
    /// Value of the object's `kind` field.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Node => "Node",
        }
    }
}

/// The current objects of one kind, and their last [`MAX_EVENTS`] events.
#[derive(Debug)]
pub(crate) struct WatchCache {
    kind: ObjectKind,
    version: u64,
    /// The version before the oldest event that is kept.
    oldest: u64,
    /// By UID.
    objects: BTreeMap<String, StoredObject>,
    events: VecDeque<WatchEvent>,
}

#[derive(Debug)]
struct StoredObject {
    /// Without its resource version.
    object: Value,
    version: u64,
}

/// An event of a watch.
#[derive(Clone, Debug)]
pub(crate) struct WatchEvent {
    /// Resource version of the object after the event.
    pub(crate) version: u64,
    /// The JSON line, with its line end.
    pub(crate) line: Arc<str>,
}

/// A requested resource version that is not in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionError {
    /// Already dropped; the oldest version available.
    Gone(u64),
    /// Not reached yet; the newest version.
    Future(u64),
}

impl WatchCache {
    pub(crate) fn new(kind: ObjectKind) -> Self {
        let (objects, events) = (BTreeMap::new(), VecDeque::new());
        Self { kind, version: FIRST_VERSION, oldest: FIRST_VERSION, objects, events }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Compares the current objects with the cached ones and records an event for each difference.
    pub(crate) fn update(&mut self, objects: Vec<Value>) {
        let mut current: HashMap<String, Value> = HashMap::new();
        for object in objects {
            current.insert(metadata(&object, "uid"), object);
        }
        let deleted: Vec<_> =
            self.objects.keys().filter(|uid| !current.contains_key(*uid)).cloned().collect();
        for uid in deleted {
            if let Some(stored) = self.objects.remove(&uid) {
                self.record("DELETED", &stored.object);
            }
        }
        let mut current: Vec<_> = current.into_iter().collect();
        current.sort_by_key(|(_, object)| name(object));
        for (uid, object) in current {
            let kind = match self.objects.get(&uid) {
                None => "ADDED",
                Some(stored) if stored.object != object => "MODIFIED",
                Some(_) => continue,
            };
            let version = self.record(kind, &object);
            self.objects.insert(uid, StoredObject { object, version });
        }
    }

    fn record(&mut self, kind: &str, object: &Value) -> u64 {
        self.version += 1;
        let line = watch_line(kind, &versioned(object, self.version));
        self.events.push_back(WatchEvent { version: self.version, line });
        if self.events.len() > MAX_EVENTS
            && let Some(event) = self.events.pop_front()
        {
            self.oldest = event.version;
        }
        self.version
    }

    /// The response to a list request; without items unless the field selector matches this node.
    pub(crate) fn list(&self, matches: bool) -> Value {
        let mut items: Vec<_> = self.present().filter(|_| matches).collect();
        for item in &mut items {
            // Items of a list have neither kind nor apiVersion.
            if let Some(item) = item.as_object_mut() {
                item.remove("kind");
                item.remove("apiVersion");
            }
        }
        json!({
            "kind": format!("{}List", self.kind.name()),
            "apiVersion": "v1",
            "metadata": { "resourceVersion": self.version.to_string() },
            "items": items,
        })
    }

    /// `ADDED` lines for all current objects.
    pub(crate) fn initial(&self) -> Vec<Arc<str>> {
        self.present().map(|object| watch_line("ADDED", &object)).collect()
    }

    fn present(&self) -> impl Iterator<Item = Value> {
        let mut stored: Vec<_> = self.objects.values().collect();
        stored.sort_by_key(|stored| name(&stored.object));
        stored.into_iter().map(|stored| versioned(&stored.object, stored.version))
    }

    /// The events after a version.
    ///
    /// # Errors
    /// The version is older than the kept events, or newer than the newest one.
    pub(crate) fn since(&self, version: u64) -> Result<Vec<WatchEvent>, VersionError> {
        if version < self.oldest {
            return Err(VersionError::Gone(self.oldest));
        }
        if version > self.version {
            return Err(VersionError::Future(self.version));
        }
        Ok(self.events.iter().filter(|event| event.version > version).cloned().collect())
    }

    /// A `BOOKMARK` line with the newest version; `ends_initial` marks the end of the initial events.
    pub(crate) fn bookmark(&self, ends_initial: bool) -> Arc<str> {
        let mut metadata = json!({
            "resourceVersion": self.version.to_string(),
            "creationTimestamp": null,
        });
        if ends_initial {
            insert_key(
                &mut metadata,
                "annotations",
                json!({ "k8s.io/initial-events-end": "true" }),
            );
        }
        let spec =
            if self.kind == ObjectKind::Pod { json!({ "containers": null }) } else { json!({}) };
        let object = json!({
            "kind": self.kind.name(),
            "apiVersion": "v1",
            "metadata": metadata,
            "spec": spec,
            "status": {},
        });
        watch_line("BOOKMARK", &object)
    }
}

/// A line of a watch response.
pub(crate) fn watch_line(kind: &str, object: &Value) -> Arc<str> {
    format!("{}\n", json!({ "type": kind, "object": object })).into()
}

/// Sets a key of an object.
pub(crate) fn insert_key(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value.into());
    }
}

/// A `Status` object of a failed request.
pub(crate) fn status_object(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    })
}

fn metadata(object: &Value, key: &str) -> String {
    let found = object.get("metadata").and_then(|metadata| metadata.get(key));
    found.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn name(object: &Value) -> (String, String) {
    (metadata(object, "namespace"), metadata(object, "name"))
}

fn versioned(object: &Value, version: u64) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata") {
        insert_key(metadata, "resourceVersion", version.to_string());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, phase: &str) -> Value {
        json!({ "kind": "Pod", "metadata": { "uid": uid, "name": uid }, "status": { "phase": phase } })
    }

    fn kinds(events: &[WatchEvent]) -> Vec<String> {
        let parsed = events.iter().map(|event| serde_json::from_str::<Value>(&event.line).unwrap());
        parsed
            .map(|event| {
                let pod = &event["object"]["metadata"];
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                format!(
                    "{} {} {}",
                    text(&event["type"]),
                    text(&pod["uid"]),
                    text(&pod["resourceVersion"])
                )
            })
            .collect()
    }

    #[test]
    fn each_change_makes_one_event() {
        let mut history = WatchCache::new(ObjectKind::Pod);
        history.update(vec![pod("b", "Pending"), pod("a", "Running")]);
        history.update(vec![pod("b", "Pending"), pod("a", "Running")]);
        history.update(vec![pod("b", "Running")]);
        assert_eq!(
            kinds(&history.since(FIRST_VERSION).unwrap()),
            ["ADDED a 1001", "ADDED b 1002", "DELETED a 1003", "MODIFIED b 1004"]
        );
        assert_eq!(kinds(&history.since(1_003).unwrap()), ["MODIFIED b 1004"]);
        assert_eq!(history.list(true)["items"][0]["metadata"]["resourceVersion"], "1004");
        assert_eq!(history.list(true)["metadata"]["resourceVersion"], "1004");
        assert_eq!(history.initial().len(), 1);
    }

    #[test]
    fn version_older_than_the_kept_events_is_gone() {
        let mut history = WatchCache::new(ObjectKind::Pod);
        assert!(history.since(FIRST_VERSION).is_ok());
        assert_eq!(history.since(1).unwrap_err(), VersionError::Gone(FIRST_VERSION));
        assert_eq!(
            history.since(FIRST_VERSION + 1).unwrap_err(),
            VersionError::Future(FIRST_VERSION)
        );
        for round in 0..MAX_EVENTS {
            history.update(vec![pod("a", &round.to_string())]);
        }
        assert!(history.since(FIRST_VERSION).is_ok());
        history.update(vec![]);
        assert_eq!(
            history.since(FIRST_VERSION).unwrap_err(),
            VersionError::Gone(FIRST_VERSION + 1)
        );
    }
}
