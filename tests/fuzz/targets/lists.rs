//! List responses of the API server or kubelet: pods and resource slices.

use std::time::Duration;

use nvml_exporter::kube::json_stream::{JsonFrame, ListReader};
use nvml_exporter::kube::pods::UidLookup;
use nvml_exporter::kube::pods::store::PodStore;
use nvml_exporter::kube::resource_slices::slice::{SliceCollector, check_list};
use nvml_exporter::kube::watch_event::PodWatchState;

use crate::is_log_line;

const NOW: Duration = Duration::from_secs(1);
const OBJECT_MAX: usize = 2048;

/// Listed pods are found by UID, and a rejected list leaves the previous pods in place.
pub(crate) fn check_pods(bytes: &[u8]) {
    let (frames, rest) = frames(bytes);
    let mut follower = PodWatchState::new(PodStore::new("fuzz", "n1"));
    let before = br#"{"metadata":{"uid":"before","namespace":"d","name":"before"}}"#;
    follower.begin_list();
    follower.apply_list_item(&JsonFrame::Value(before.to_vec()), NOW);
    follower.end_list(br#"{"kind":"PodList","metadata":{"resourceVersion":"5"}}"#, NOW).unwrap();
    follower.begin_list();
    for frame in &frames {
        follower.apply_list_item(frame, NOW);
    }
    let ended = follower.end_list(&rest, NOW);
    let pods = follower.store.snapshot(NOW);
    assert!(pods.len() <= frames.len() + 1);
    for known in pods.iter() {
        assert!(matches!(pods.by_uid(&known.pod.id.uid), UidLookup::Live(_)));
    }
    if let Err(fault) = ended {
        assert!(is_log_line(&fault.problem.message), "{:?}", fault.problem.message);
        assert!(matches!(pods.by_uid("before"), UidLookup::Live(_)));
    }
}

/// The text of the parsed devices is bounded by the input, and a rejected list has a one-line error message.
pub(crate) fn check_slices(bytes: &[u8]) {
    let (frames, rest) = frames(bytes);
    let mut gathering = SliceCollector::new("n1");
    for frame in &frames {
        if let JsonFrame::Value(json) = frame {
            // This error text is truncated where it is reported.
            let _refused = gathering.add(json);
        }
    }
    if let Err(detail) = check_list(&rest) {
        assert!(is_log_line(&detail), "{detail:?}");
    }
    let devices = gathering.finish().devices;
    assert!(devices.len() <= frames.len() * 128);
    let texts: usize = devices
        .values()
        .flat_map(|d| [&d.uuid, &d.kind, &d.parent, &d.profile])
        .flatten()
        .map(|text| text.len())
        .sum();
    assert!(texts <= bytes.len());
}

/// The items and the rest of the object; checked to be independent of how the bytes are split.
fn frames(bytes: &[u8]) -> (Vec<JsonFrame>, Vec<u8>) {
    let mut whole = ListReader::new(OBJECT_MAX);
    let frames = whole.feed(bytes);
    let rest = whole.rest();
    let mut chunked = ListReader::new(OBJECT_MAX);
    let pieces: Vec<JsonFrame> = bytes.chunks(7).flat_map(|chunk| chunked.feed(chunk)).collect();
    assert_eq!((&frames, &rest), (&pieces, &chunked.rest()));
    let kept: usize = frames.iter().map(length).sum();
    assert!(kept + rest.len() <= bytes.len());
    assert!(rest.len() <= OBJECT_MAX && frames.iter().all(|frame| length(frame) <= OBJECT_MAX));
    (frames, rest)
}

fn length(frame: &JsonFrame) -> usize {
    match frame {
        JsonFrame::Value(value) => value.len(),
        JsonFrame::TooLarge => 0,
    }
}
