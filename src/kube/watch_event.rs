//! Applies list items and watch events of pods to a [`PodStore`].

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json_stream::JsonFrame;
use super::pod;
use super::pod::protobuf::DecodedPod;
use super::pods::store::PodStore;
use super::request_error::RequestError;
use super::source::FailureReason;

/// State of a pod list or watch. It consumes frames and updates the pods, without I/O.
#[derive(Debug)]
pub struct PodWatchState {
    /// The pods read so far.
    pub store: PodStore,
    /// `resourceVersion` of the last event, from which a new watch continues. None before the first
    /// complete list and after the history has expired.
    pub resource_version: Option<Box<str>>,
    /// The initial events of a streaming list have not ended yet.
    pub in_initial_events: bool,
    /// A pod has changed since this flag was last cleared.
    pub changed: bool,
}

#[derive(Deserialize)]
struct WatchEvent<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectHead<'a> {
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    metadata: Option<ObjectHeadMetadata<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ObjectHeadMetadata<'a> {
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
struct ErrorStatus {
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

impl PodWatchState {
    /// A state without any event.
    #[must_use]
    pub fn new(map: PodStore) -> Self {
        Self { store: map, resource_version: None, in_initial_events: false, changed: false }
    }

    /// Begins a watch with initial events (a streaming list).
    pub fn begin_initial_events(&mut self) {
        self.store.begin_list();
        self.in_initial_events = true;
    }

    /// Begins a list.
    pub fn begin_list(&mut self) {
        self.store.begin_list();
        self.in_initial_events = false;
    }

    /// Applies an item of a list. List items may have no `kind`.
    pub fn apply_list_item(&mut self, frame: &JsonFrame, now: Duration) {
        match frame {
            JsonFrame::Value(json) => {
                let head = serde_json::from_slice(json).unwrap_or_default();
                self.apply(json, &head, now);
            }
            JsonFrame::TooLarge => self.store.skip_undecodable(""),
        }
    }

    /// Applies a pod of the kubelet's Pods API.
    pub fn apply_decoded(&mut self, pod: DecodedPod, now: Duration) {
        match pod {
            DecodedPod::Pod(pod) => self.changed |= self.store.apply(pod, now),
            DecodedPod::Undecodable(uid) => self.store.skip_undecodable(&uid),
        }
    }

    /// Ends a list; `rest` is the list without its items. Pods that are not in the list are removed.
    ///
    /// # Errors
    /// The list is incomplete or not a list. No pod is removed then.
    pub fn end_list(&mut self, rest: &[u8], now: Duration) -> Result<(), RequestError> {
        let rest: ListRest = serde_json::from_slice(rest).map_err(|e| {
            RequestError::new(
                FailureReason::Garbage,
                format!("the list is incomplete or not JSON: {e}"),
            )
        })?;
        if !rest.kind.ends_with("List") {
            let detail = format!("the response has kind {:?} instead of a list kind", rest.kind);
            return Err(RequestError::new(FailureReason::Garbage, detail));
        }
        self.changed |= self.store.end_list(now);
        let version = rest.metadata.resource_version;
        self.resource_version = (!version.is_empty()).then_some(version);
        Ok(())
    }

    /// Applies one event of a watch.
    ///
    /// # Errors
    /// The watch cannot continue: the history has expired, the server ended the watch, or the event
    /// is not JSON, so that an event may be lost. A complete list has to follow.
    pub fn apply_event(&mut self, frame: &JsonFrame, now: Duration) -> Result<(), RequestError> {
        let JsonFrame::Value(text) = frame else {
            return Err(self.lost_event("a watch event is above the size limit".to_owned()));
        };
        let event: WatchEvent<'_> = match serde_json::from_slice(text) {
            Ok(event) => event,
            Err(e) => return Err(self.lost_event(format!("a watch event is malformed: {e}"))),
        };
        let object = event.object.get().as_bytes();
        if event.kind == "ERROR" {
            return Err(self.error(object));
        }
        let head: ObjectHead<'_> = serde_json::from_slice(object).unwrap_or_default();
        match &*event.kind {
            "ADDED" | "MODIFIED" => self.apply(object, &head, now),
            "DELETED" => self.delete(&head, now),
            "BOOKMARK" => self.bookmark(object, now),
            _ => self.store.health.skipped.unknown += 1,
        }
        if !self.in_initial_events
            && let Some(version) = head.metadata.and_then(|metadata| metadata.resource_version)
        {
            self.resource_version = Some(version.into());
        }
        Ok(())
    }

    fn apply(&mut self, object: &[u8], head: &ObjectHead<'_>, now: Duration) {
        if head.kind.as_ref().is_some_and(|kind| kind != "Pod") {
            self.store.health.skipped.unknown += 1;
            return;
        }
        if let Ok(pod) = pod::parse(object) {
            self.changed |= self.store.apply(pod, now);
            return;
        }
        let uid = head.metadata.as_ref().and_then(|metadata| metadata.uid.as_deref());
        self.store.skip_undecodable(uid.unwrap_or_default());
    }

    fn delete(&mut self, head: &ObjectHead<'_>, now: Duration) {
        match head.metadata.as_ref().and_then(|metadata| metadata.uid.as_ref()) {
            Some(uid) if head.kind.as_ref().is_none_or(|kind| kind == "Pod") => {
                self.changed |= self.store.delete(uid, now);
            }
            Some(_) | None => self.store.health.skipped.unknown += 1,
        }
    }

    fn bookmark(&mut self, object: &[u8], now: Duration) {
        let bookmark: Bookmark = serde_json::from_slice(object).unwrap_or_default();
        let ends = bookmark.metadata.annotations.is_some_and(|a| a.initial_events_end == "true");
        if self.in_initial_events && ends {
            self.in_initial_events = false;
            self.changed |= self.store.end_list(now);
        }
    }

    fn error(&mut self, object: &[u8]) -> RequestError {
        let status: ErrorStatus = serde_json::from_slice(object).unwrap_or_default();
        let error = RequestError::of_error_event(status.code, &status.message);
        if error.reason == FailureReason::Expired {
            self.resource_version = None;
        }
        error
    }

    fn lost_event(&mut self, detail: String) -> RequestError {
        self.store.health.skipped.undecodable += 1;
        self.resource_version = None;
        RequestError::new(FailureReason::Garbage, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::pods::{PodSnapshot, UidLookup};

    const T: fn(u64) -> Duration = Duration::from_secs;

    fn empty() -> PodWatchState {
        PodWatchState::new(PodStore::new("test", "n1"))
    }

    fn value(text: impl Into<String>) -> JsonFrame {
        JsonFrame::Value(text.into().into_bytes())
    }

    fn watch_event(kind: &str, uid: &str, version: u32) -> JsonFrame {
        value(format!(
            r#"{{"type":"{kind}","object":{{"kind":"Pod","metadata":{{"uid":"{uid}","namespace":"d","name":"{uid}","resourceVersion":"{version}"}}}}}}"#
        ))
    }

    fn end(version: u32) -> JsonFrame {
        value(format!(
            r#"{{"type":"BOOKMARK","object":{{"kind":"Pod","metadata":{{"resourceVersion":"{version}","annotations":{{"k8s.io/initial-events-end":"true"}}}},"spec":{{"containers":null}}}}}}"#
        ))
    }

    fn snapshot(state: &mut PodWatchState) -> PodSnapshot {
        state.store.snapshot(T(9))
    }

    #[test]
    fn initial_events_end_with_their_bookmark() {
        let mut f = empty();
        f.begin_initial_events();
        f.apply_event(&watch_event("ADDED", "a", 7), T(1)).unwrap();
        assert_eq!((snapshot(&mut f).synced, f.resource_version.clone()), (false, None));
        f.apply_event(&end(9), T(1)).unwrap();
        assert!(snapshot(&mut f).synced);
        assert_eq!(f.resource_version.as_deref(), Some("9"));
        f.apply_event(&watch_event("DELETED", "a", 12), T(2)).unwrap();
        assert_eq!(f.resource_version.as_deref(), Some("12"));
        assert!(matches!(snapshot(&mut f).by_uid("a"), UidLookup::Deleted(_)));
    }

    #[test]
    fn missing_pods_are_removed_at_the_end_of_a_new_list() {
        let mut f = empty();
        for round in [["a", "b"], ["b", "c"]] {
            f.begin_initial_events();
            for uid in round {
                f.apply_event(&watch_event("ADDED", uid, 1), T(1)).unwrap();
            }
            assert!(matches!(snapshot(&mut f).by_uid(round[0]), UidLookup::Live(_)));
            f.apply_event(&end(2), T(1)).unwrap();
        }
        assert_eq!(snapshot(&mut f).len(), 2);
        assert!(matches!(snapshot(&mut f).by_uid("a"), UidLookup::Deleted(_)));
    }

    #[test]
    fn incomplete_list_removes_no_pod() {
        let mut f = empty();
        f.begin_list();
        f.apply_list_item(&value(r#"{"metadata":{"uid":"a","namespace":"d","name":"a"}}"#), T(1));
        f.end_list(br#"{"kind":"PodList","metadata":{"resourceVersion":"5"}}"#, T(1)).unwrap();
        assert_eq!(f.resource_version.as_deref(), Some("5"));
        for rest in ["", "{}", r#"{"kind":"Status","message":"x"}"#, "<html>"] {
            f.begin_list();
            let fault = f.end_list(rest.as_bytes(), T(2)).unwrap_err();
            assert_eq!(fault.reason, FailureReason::Garbage);
            assert_eq!(snapshot(&mut f).len(), 1, "{rest}");
        }
    }

    #[test]
    fn quoted_text_in_errors_is_one_short_line() {
        let mut f = empty();
        let long = "\\u0000\\n".repeat(100_000);
        let error = format!(
            r#"{{"type":"ERROR","object":{{"kind":"Status","code":500,"message":"{long}"}}}}"#
        );
        let kind = format!(r#"{{"kind":"{long}"}}"#);
        for fault in [f.apply_event(&value(error), T(1)), f.end_list(kind.as_bytes(), T(1))] {
            let detail = fault.unwrap_err().problem.message;
            assert!(detail.len() < 4000 && !detail.contains(char::is_control), "{detail}");
        }
    }

    #[test]
    fn expired_history_requires_a_new_list_and_keeps_the_pods() {
        let mut f = empty();
        f.apply_event(&watch_event("ADDED", "a", 7), T(1)).unwrap();
        let expired =
            r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}"#;
        let fault = f.apply_event(&value(expired), T(1)).unwrap_err();
        assert_eq!((fault.reason, f.resource_version.clone()), (FailureReason::Expired, None));
        assert_eq!(snapshot(&mut f).len(), 1);
        let other = expired.replace("410", "500");
        f.apply_event(&watch_event("ADDED", "a", 8), T(1)).unwrap();
        assert_eq!(f.apply_event(&value(other), T(1)).unwrap_err().reason, FailureReason::Refused);
        assert_eq!(f.resource_version.as_deref(), Some("8"), "the history has not expired");
    }

    #[test]
    fn unknown_objects_are_counted_and_malformed_events_end_the_watch() {
        let mut f = empty();
        let node = r#"{"type":"ADDED","object":{"kind":"Node","metadata":{"uid":"n","resourceVersion":"3"}}}"#;
        f.apply_event(&value(node), T(1)).unwrap();
        f.apply_event(&value(node.replace("ADDED", "DELETED")), T(1)).unwrap();
        f.apply_event(&value(node.replace("ADDED", "FUTURE")), T(1)).unwrap();
        f.apply_event(&watch_event("ADDED", "a", 4), T(1)).unwrap();
        f.store.begin_list();
        let broken =
            r#"{"type":"MODIFIED","object":{"kind":"Pod","metadata":{"uid":"a","namespace":7}}}"#;
        f.apply_event(&value(broken), T(1)).unwrap();
        f.store.end_list(T(1));
        assert_eq!((f.store.health.skipped.unknown, f.store.health.skipped.undecodable), (3, 1));
        assert!(matches!(snapshot(&mut f).by_uid("a"), UidLookup::Live(_)), "the pod exists");
        for line in [value("{\"type\":\"ADD"), value("HTTP/1.1"), JsonFrame::TooLarge] {
            f.resource_version = Some("4".into());
            assert_eq!(f.apply_event(&line, T(1)).unwrap_err().reason, FailureReason::Garbage);
            assert_eq!(f.resource_version, None, "an event may be lost");
        }
    }
}
