//! The API server's memory: objects of one kind, their versions, and what has happened to them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use serde_json::{Value, json};

/// The version before the first event.
const FIRST: u64 = 1_000;
/// How many events are remembered.
const MOST: usize = 1_024;

/// What the API server has objects of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/api/v1/pods`
    Pod,
    /// `/api/v1/nodes`
    Node,
}

impl Kind {
    /// As the API writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Node => "Node",
        }
    }
}

/// The objects of one kind, now and for a while back.
#[derive(Debug)]
pub(super) struct History {
    kind: Kind,
    version: u64,
    /// The version before the oldest event.
    oldest: u64,
    objects: BTreeMap<String, Kept>,
    events: VecDeque<Event>,
}

#[derive(Debug)]
struct Kept {
    /// As it was told, without its version.
    told: Value,
    version: u64,
}

/// A line of a watch.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// The version that it makes.
    pub(super) version: u64,
    /// The line, with its end.
    pub(super) line: Arc<str>,
}

/// A version that the history does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// It has been forgotten; this is the oldest one known.
    Gone(u64),
    /// It is still to come; this is the newest one.
    Future(u64),
}

impl History {
    /// Of an API server that has no objects of this kind yet.
    pub(super) fn new(kind: Kind) -> Self {
        let (objects, events) = (BTreeMap::new(), VecDeque::new());
        Self { kind, version: FIRST, oldest: FIRST, objects, events }
    }

    /// The newest version.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Takes notice of the objects as they are now.
    pub(super) fn update(&mut self, objects: Vec<Value>) {
        let mut fresh: HashMap<String, Value> = HashMap::new();
        for object in objects {
            fresh.insert(metadata(&object, "uid"), object);
        }
        let gone: Vec<_> =
            self.objects.keys().filter(|uid| !fresh.contains_key(*uid)).cloned().collect();
        for uid in gone {
            if let Some(kept) = self.objects.remove(&uid) {
                self.record("DELETED", &kept.told);
            }
        }
        let mut fresh: Vec<_> = fresh.into_iter().collect();
        fresh.sort_by_key(|(_, object)| name(object));
        for (uid, object) in fresh {
            let kind = match self.objects.get(&uid) {
                None => "ADDED",
                Some(kept) if kept.told != object => "MODIFIED",
                Some(_) => continue,
            };
            let version = self.record(kind, &object);
            self.objects.insert(uid, Kept { told: object, version });
        }
    }

    fn record(&mut self, kind: &str, object: &Value) -> u64 {
        self.version += 1;
        let line = line(kind, &versioned(object, self.version));
        self.events.push_back(Event { version: self.version, line });
        if self.events.len() > MOST
            && let Some(event) = self.events.pop_front()
        {
            self.oldest = event.version;
        }
        self.version
    }

    /// The answer to a list.
    pub(super) fn list(&self, chosen: bool) -> Value {
        let mut items: Vec<_> = self.present().filter(|_| chosen).collect();
        for item in &mut items {
            // Elements of a list do not say what they are.
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

    /// Lines that tell all objects there are.
    pub(super) fn initial(&self) -> Vec<Arc<str>> {
        self.present().map(|object| line("ADDED", &object)).collect()
    }

    fn present(&self) -> impl Iterator<Item = Value> {
        let mut kept: Vec<_> = self.objects.values().collect();
        kept.sort_by_key(|kept| name(&kept.told));
        kept.into_iter().map(|kept| versioned(&kept.told, kept.version))
    }

    /// What has happened after a version.
    ///
    /// # Errors
    /// The version is not known.
    pub(super) fn since(&self, version: u64) -> Result<Vec<Event>, Unknown> {
        if version < self.oldest {
            return Err(Unknown::Gone(self.oldest));
        }
        if version > self.version {
            return Err(Unknown::Future(self.version));
        }
        Ok(self.events.iter().filter(|event| event.version > version).cloned().collect())
    }

    /// A line that tells the newest version, and perhaps that all objects have been told.
    pub(super) fn bookmark(&self, ends_initial: bool) -> Arc<str> {
        let mut metadata = json!({
            "resourceVersion": self.version.to_string(),
            "creationTimestamp": null,
        });
        if ends_initial {
            put(&mut metadata, "annotations", json!({ "k8s.io/initial-events-end": "true" }));
        }
        let spec = if self.kind == Kind::Pod { json!({ "containers": null }) } else { json!({}) };
        let object = json!({
            "kind": self.kind.name(),
            "apiVersion": "v1",
            "metadata": metadata,
            "spec": spec,
            "status": {},
        });
        line("BOOKMARK", &object)
    }
}

/// A line of a watch.
pub(super) fn line(kind: &str, object: &Value) -> Arc<str> {
    format!("{}\n", json!({ "type": kind, "object": object })).into()
}

/// Sets a key of an object.
pub(super) fn put(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value.into());
    }
}

/// How the API server says no.
pub(super) fn refusal(code: u16, reason: &str, message: &str) -> Value {
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
        put(metadata, "resourceVersion", version.to_string());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, phase: &str) -> Value {
        json!({ "kind": "Pod", "metadata": { "uid": uid, "name": uid }, "status": { "phase": phase } })
    }

    fn kinds(events: &[Event]) -> Vec<String> {
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
    fn what_changes_is_told_once() {
        let mut history = History::new(Kind::Pod);
        history.update(vec![pod("b", "Pending"), pod("a", "Running")]);
        history.update(vec![pod("b", "Pending"), pod("a", "Running")]);
        history.update(vec![pod("b", "Running")]);
        assert_eq!(
            kinds(&history.since(FIRST).unwrap()),
            ["ADDED a 1001", "ADDED b 1002", "DELETED a 1003", "MODIFIED b 1004"]
        );
        assert_eq!(kinds(&history.since(1_003).unwrap()), ["MODIFIED b 1004"]);
        assert_eq!(history.list(true)["items"][0]["metadata"]["resourceVersion"], "1004");
        assert_eq!(history.list(true)["metadata"]["resourceVersion"], "1004");
        assert_eq!(history.initial().len(), 1);
    }

    #[test]
    fn a_version_before_its_memory_is_gone() {
        let mut history = History::new(Kind::Pod);
        assert!(history.since(FIRST).is_ok());
        assert_eq!(history.since(1).unwrap_err(), Unknown::Gone(FIRST));
        assert_eq!(history.since(FIRST + 1).unwrap_err(), Unknown::Future(FIRST));
        for round in 0..MOST {
            history.update(vec![pod("a", &round.to_string())]);
        }
        assert!(history.since(FIRST).is_ok());
        history.update(vec![]);
        assert_eq!(history.since(FIRST).unwrap_err(), Unknown::Gone(FIRST + 1));
    }
}
