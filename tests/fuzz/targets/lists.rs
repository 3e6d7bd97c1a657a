//! Lists of an API server or a kubelet: of pods, and of resource slices.

use std::time::Duration;

use nvml_exporter::kube::event::Follower;
use nvml_exporter::kube::framing::{Frame, Items};
use nvml_exporter::kube::pods::{ByUid, PodMap};
use nvml_exporter::kube::resource_slices::object::{Gathering, check_list};

use crate::is_sentence;

const NOW: Duration = Duration::from_secs(1);
const OBJECT_MAX: usize = 2048;

/// Pods that are told are found, and a list that is refused leaves those of before.
pub(crate) fn pods(bytes: &[u8]) {
    let (frames, rest) = frames(bytes);
    let mut follower = Follower::new(PodMap::new("fuzz", "n1"));
    let before = br#"{"metadata":{"uid":"before","namespace":"d","name":"before"}}"#;
    follower.begin_list();
    follower.element(&Frame::Value(before.to_vec()), NOW);
    follower.end_list(br#"{"kind":"PodList","metadata":{"resourceVersion":"5"}}"#, NOW).unwrap();
    follower.begin_list();
    for frame in &frames {
        follower.element(frame, NOW);
    }
    let ended = follower.end_list(&rest, NOW);
    let pods = follower.map.picture(NOW);
    assert!(pods.len() <= frames.len() + 1);
    for known in pods.iter() {
        assert!(matches!(pods.by_uid(&known.pod.id.uid), ByUid::Live(_)));
    }
    if let Err(fault) = ended {
        assert!(is_sentence(&fault.detail), "{:?}", fault.detail);
        assert!(matches!(pods.by_uid("before"), ByUid::Live(_)));
    }
}

/// Devices stand in the text, and whatever is refused says so in a sentence.
pub(crate) fn slices(bytes: &[u8]) {
    let (frames, rest) = frames(bytes);
    let mut gathering = Gathering::new("n1");
    for frame in &frames {
        if let Frame::Value(json) = frame {
            // The error's own text is cut where it is told.
            let _refused = gathering.add(json);
        }
    }
    if let Err(detail) = check_list(&rest) {
        assert!(is_sentence(&detail), "{detail:?}");
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

/// The elements and the rest: the same, however the bytes arrive.
fn frames(bytes: &[u8]) -> (Vec<Frame>, Vec<u8>) {
    let mut whole = Items::new(OBJECT_MAX);
    let frames = whole.feed(bytes);
    let rest = whole.rest();
    let mut torn = Items::new(OBJECT_MAX);
    let pieces: Vec<Frame> = bytes.chunks(7).flat_map(|chunk| torn.feed(chunk)).collect();
    assert_eq!((&frames, &rest), (&pieces, &torn.rest()));
    let kept: usize = frames.iter().map(length).sum();
    assert!(kept + rest.len() <= bytes.len());
    assert!(rest.len() <= OBJECT_MAX && frames.iter().all(|frame| length(frame) <= OBJECT_MAX));
    (frames, rest)
}

fn length(frame: &Frame) -> usize {
    match frame {
        Frame::Value(value) => value.len(),
        Frame::TooLarge => 0,
    }
}
