//! One line of a watch → what it says, and what follows from it for the map of pods.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::Fault;
use super::framing::Frame;
use super::pod;
use super::pods::PodMap;
use super::source::Failure;
use crate::quote::in_part;

/// Follows a list or a watch: frames in, a map of pods out. It does no I/O.
#[derive(Debug)]
pub struct Follower {
    /// The pods so far.
    pub map: PodMap,
    /// The version of the last event, to go on from after a disconnection. None until a whole
    /// list has been seen, and again when the history is gone.
    pub version: Option<Box<str>>,
    /// Initial events are coming, and their end has not.
    pub initial: bool,
    /// A pod has changed since this was last cleared.
    pub changed: bool,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Head<'a> {
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    metadata: Option<HeadMetadata<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct HeadMetadata<'a> {
    #[serde(borrow)]
    uid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    resource_version: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Bookmark {
    metadata: BookmarkMetadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BookmarkMetadata {
    annotations: Option<BookmarkAnnotations>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BookmarkAnnotations {
    #[serde(rename = "k8s.io/initial-events-end")]
    initial_events_end: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListRest {
    kind: String,
    metadata: ListMetadata,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMetadata {
    resource_version: Box<str>,
}

impl Follower {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(map: PodMap) -> Self {
        Self { map, version: None, initial: false, changed: false }
    }

    /// A watch that tells everything first begins.
    pub fn begin_initial(&mut self) {
        self.map.begin();
        self.initial = true;
    }

    /// A list begins.
    pub fn begin_list(&mut self) {
        self.map.begin();
        self.initial = false;
    }

    /// An element of a list, which need not say its kind.
    pub fn element(&mut self, frame: &Frame, now: Duration) {
        match frame {
            Frame::Value(json) => {
                let head = serde_json::from_slice(json).unwrap_or_default();
                self.apply(json, &head, now);
            }
            Frame::TooLarge => self.map.discards.undecodable += 1,
        }
    }

    /// What is left of a list without its elements.
    ///
    /// # Errors
    /// The list was cut off or is no list; nobody is taken for gone.
    pub fn end_list(&mut self, rest: &[u8], now: Duration) -> Result<(), Fault> {
        let rest: ListRest = serde_json::from_slice(rest)
            .map_err(|e| Fault::new(Failure::Garbage, format!("a list that is no list: {e}")))?;
        if !rest.kind.ends_with("List") {
            return Err(Fault::new(Failure::Garbage, format!("a {:?} for a list", rest.kind)));
        }
        self.changed |= self.map.complete(now);
        let version = rest.metadata.resource_version;
        self.version = (!version.is_empty()).then_some(version);
        Ok(())
    }

    /// A line of a watch.
    ///
    /// # Errors
    /// The watch cannot go on: the history is gone, the server gives up, or the line is no JSON,
    /// so that an event may have been missed. A whole list is due then.
    pub fn line(&mut self, frame: &Frame, now: Duration) -> Result<(), Fault> {
        let Frame::Value(text) = frame else {
            return Err(self.lost("a line above the limit".to_owned()));
        };
        let line: Line<'_> = match serde_json::from_slice(text) {
            Ok(line) => line,
            Err(e) => return Err(self.lost(format!("a line that is no event: {e}"))),
        };
        let object = line.object.get().as_bytes();
        if line.kind == "ERROR" {
            return Err(self.error(object));
        }
        let head: Head<'_> = serde_json::from_slice(object).unwrap_or_default();
        match &*line.kind {
            "ADDED" | "MODIFIED" => self.apply(object, &head, now),
            "DELETED" => self.delete(&head, now),
            "BOOKMARK" => self.bookmark(object, now),
            _ => self.map.discards.unknown += 1,
        }
        if !self.initial
            && let Some(version) = head.metadata.and_then(|metadata| metadata.resource_version)
        {
            self.version = Some(version.into());
        }
        Ok(())
    }

    fn apply(&mut self, object: &[u8], head: &Head<'_>, now: Duration) {
        if head.kind.as_ref().is_some_and(|kind| kind != "Pod") {
            self.map.discards.unknown += 1;
            return;
        }
        if let Ok(pod) = pod::parse(object) {
            self.changed |= self.map.apply(pod, now);
            return;
        }
        self.map.discards.undecodable += 1;
        // It exists, though we cannot say how it looks now.
        if let Some(uid) = head.metadata.as_ref().and_then(|m| m.uid.as_ref()) {
            self.map.keep(uid);
        }
    }

    fn delete(&mut self, head: &Head<'_>, now: Duration) {
        match head.metadata.as_ref().and_then(|metadata| metadata.uid.as_ref()) {
            Some(uid) if head.kind.as_ref().is_none_or(|kind| kind == "Pod") => {
                self.changed |= self.map.delete(uid, now);
            }
            Some(_) | None => self.map.discards.unknown += 1,
        }
    }

    fn bookmark(&mut self, object: &[u8], now: Duration) {
        let bookmark: Bookmark = serde_json::from_slice(object).unwrap_or_default();
        let ends = bookmark.metadata.annotations.is_some_and(|a| a.initial_events_end == "true");
        if self.initial && ends {
            self.initial = false;
            self.changed |= self.map.complete(now);
        }
    }

    fn error(&mut self, object: &[u8]) -> Fault {
        let status: Status = serde_json::from_slice(object).unwrap_or_default();
        let failure = Failure::of_status(status.code);
        if failure == Failure::Expired {
            self.version = None;
        }
        let said = in_part(&status.message, 300);
        let detail = format!("the watch ended with {} {said}", status.code);
        Fault { status: Some(status.code), ..Fault::new(failure, detail) }
    }

    fn lost(&mut self, detail: String) -> Fault {
        self.map.discards.undecodable += 1;
        self.version = None;
        Fault::new(Failure::Garbage, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::pods::{ByUid, Pods};

    const T: fn(u64) -> Duration = Duration::from_secs;

    fn follower() -> Follower {
        Follower::new(PodMap::new("test", "n1"))
    }

    fn value(text: impl Into<String>) -> Frame {
        Frame::Value(text.into().into_bytes())
    }

    fn event(kind: &str, uid: &str, version: u32) -> Frame {
        value(format!(
            r#"{{"type":"{kind}","object":{{"kind":"Pod","metadata":{{"uid":"{uid}","namespace":"d","name":"{uid}","resourceVersion":"{version}"}}}}}}"#
        ))
    }

    fn end(version: u32) -> Frame {
        value(format!(
            r#"{{"type":"BOOKMARK","object":{{"kind":"Pod","metadata":{{"resourceVersion":"{version}","annotations":{{"k8s.io/initial-events-end":"true"}}}},"spec":{{"containers":null}}}}}}"#
        ))
    }

    fn picture(follower: &mut Follower) -> Pods {
        follower.map.picture(T(9))
    }

    #[test]
    fn initial_events_end_with_their_bookmark() {
        let mut f = follower();
        f.begin_initial();
        f.line(&event("ADDED", "a", 7), T(1)).unwrap();
        assert_eq!((picture(&mut f).synced, f.version.clone()), (false, None));
        f.line(&end(9), T(1)).unwrap();
        assert!(picture(&mut f).synced);
        assert_eq!(f.version.as_deref(), Some("9"));
        f.line(&event("DELETED", "a", 12), T(2)).unwrap();
        assert_eq!(f.version.as_deref(), Some("12"));
        assert!(matches!(picture(&mut f).by_uid("a"), ByUid::Deleted(_)));
    }

    #[test]
    fn a_second_round_sweeps_who_is_gone_and_only_at_its_end() {
        let mut f = follower();
        for round in [["a", "b"], ["b", "c"]] {
            f.begin_initial();
            for uid in round {
                f.line(&event("ADDED", uid, 1), T(1)).unwrap();
            }
            assert!(matches!(picture(&mut f).by_uid(round[0]), ByUid::Live(_)));
            f.line(&end(2), T(1)).unwrap();
        }
        assert_eq!(picture(&mut f).len(), 2);
        assert!(matches!(picture(&mut f).by_uid("a"), ByUid::Deleted(_)));
    }

    #[test]
    fn a_list_that_was_cut_off_sweeps_nobody() {
        let mut f = follower();
        f.begin_list();
        f.element(&value(r#"{"metadata":{"uid":"a","namespace":"d","name":"a"}}"#), T(1));
        f.end_list(br#"{"kind":"PodList","metadata":{"resourceVersion":"5"}}"#, T(1)).unwrap();
        assert_eq!(f.version.as_deref(), Some("5"));
        for rest in ["", "{}", r#"{"kind":"Status","message":"x"}"#, "<html>"] {
            f.begin_list();
            let fault = f.end_list(rest.as_bytes(), T(2)).unwrap_err();
            assert_eq!(fault.failure, Failure::Garbage);
            assert_eq!(picture(&mut f).len(), 1, "{rest}");
        }
    }

    #[test]
    fn what_a_fault_quotes_is_one_short_line() {
        let mut f = follower();
        let much = "\\u0000\\n".repeat(100_000);
        let error = format!(
            r#"{{"type":"ERROR","object":{{"kind":"Status","code":500,"message":"{much}"}}}}"#
        );
        let kind = format!(r#"{{"kind":"{much}"}}"#);
        for fault in [f.line(&value(error), T(1)), f.end_list(kind.as_bytes(), T(1))] {
            let detail = fault.unwrap_err().detail;
            assert!(detail.len() < 4000 && !detail.contains(char::is_control), "{detail}");
        }
    }

    #[test]
    fn gone_history_asks_for_a_new_list_and_keeps_the_pods() {
        let mut f = follower();
        f.line(&event("ADDED", "a", 7), T(1)).unwrap();
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}"#;
        let fault = f.line(&value(gone), T(1)).unwrap_err();
        assert_eq!((fault.failure, f.version.clone()), (Failure::Expired, None));
        assert_eq!(picture(&mut f).len(), 1);
        let other = gone.replace("410", "500");
        f.line(&event("ADDED", "a", 8), T(1)).unwrap();
        assert_eq!(f.line(&value(other), T(1)).unwrap_err().failure, Failure::Refused);
        assert_eq!(f.version.as_deref(), Some("8"), "the history is still there");
    }

    #[test]
    fn strange_objects_are_counted_and_strange_lines_end_the_watch() {
        let mut f = follower();
        let node = r#"{"type":"ADDED","object":{"kind":"Node","metadata":{"uid":"n","resourceVersion":"3"}}}"#;
        f.line(&value(node), T(1)).unwrap();
        f.line(&value(node.replace("ADDED", "DELETED")), T(1)).unwrap();
        f.line(&value(node.replace("ADDED", "FUTURE")), T(1)).unwrap();
        f.line(&event("ADDED", "a", 4), T(1)).unwrap();
        f.map.begin();
        let broken =
            r#"{"type":"MODIFIED","object":{"kind":"Pod","metadata":{"uid":"a","namespace":7}}}"#;
        f.line(&value(broken), T(1)).unwrap();
        f.map.complete(T(1));
        assert_eq!((f.map.discards.unknown, f.map.discards.undecodable), (3, 1));
        assert!(matches!(picture(&mut f).by_uid("a"), ByUid::Live(_)), "it exists");
        for line in [value("{\"type\":\"ADD"), value("HTTP/1.1"), Frame::TooLarge] {
            f.version = Some("4".into());
            assert_eq!(f.line(&line, T(1)).unwrap_err().failure, Failure::Garbage);
            assert_eq!(f.version, None, "an event may have been missed");
        }
    }
}
