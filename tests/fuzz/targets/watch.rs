//! A watch of pods.

use std::time::Duration;

use nvml_exporter::kube::event::Follower;
use nvml_exporter::kube::framing::{Frame, Lines};
use nvml_exporter::kube::pods::{ByUid, PodMap};

use crate::is_sentence;

const NOW: Duration = Duration::from_secs(1);
const LINE_MAX: usize = 2048;

/// Lines are the same however they arrive; what ends the watch is told in a sentence and asks for a new
/// list where an event may have been missed.
pub(crate) fn check(bytes: &[u8]) {
    let (mut whole, mut torn) = (Lines::new(LINE_MAX), Lines::new(LINE_MAX));
    let frames = whole.feed(bytes);
    let pieces: Vec<Frame> = bytes.chunks(7).flat_map(|chunk| torn.feed(chunk)).collect();
    assert_eq!(frames, pieces);
    let mut follower = Follower::new(PodMap::new("fuzz", "n1"));
    follower.begin_initial();
    let mut lines = 0_u64;
    for frame in &frames {
        lines += 1;
        if let Err(fault) = follower.line(frame, NOW) {
            assert!(is_sentence(&fault.detail), "{:?}", fault.detail);
            assert!(fault.status.is_some() || follower.version.is_none());
            follower.begin_initial();
        }
    }
    let pods = follower.map.picture(NOW);
    let discards = follower.map.discards;
    assert!(pods.len() as u64 + discards.unknown + discards.undecodable <= lines);
    for known in pods.iter() {
        assert!(matches!(pods.by_uid(&known.pod.id.uid), ByUid::Live(_)));
    }
}
