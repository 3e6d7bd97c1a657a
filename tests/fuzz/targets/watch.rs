//! Watch responses of the API server: pods.

use std::time::Duration;

use nvml_exporter::kube::json_stream::{JsonFrame, LineReader};
use nvml_exporter::kube::pods::UidLookup;
use nvml_exporter::kube::pods::store::PodStore;
use nvml_exporter::kube::watch_event::PodWatchState;

use crate::is_log_line;

const NOW: Duration = Duration::from_secs(1);
const LINE_MAX: usize = 2048;

/// Lines do not depend on how the bytes are split. An error that ends the watch has a one-line message, and leads to
/// a new list if an event may have been missed.
pub(crate) fn check(bytes: &[u8]) {
    let (mut whole, mut chunked) = (LineReader::new(LINE_MAX), LineReader::new(LINE_MAX));
    let frames = whole.feed(bytes);
    let pieces: Vec<JsonFrame> = bytes.chunks(7).flat_map(|chunk| chunked.feed(chunk)).collect();
    assert_eq!(frames, pieces);
    let mut follower = PodWatchState::new(PodStore::new("fuzz", "n1"));
    follower.begin_initial_events();
    let mut lines = 0_u64;
    for frame in &frames {
        lines += 1;
        if let Err(fault) = follower.apply_event(frame, NOW) {
            assert!(is_log_line(&fault.problem.message), "{:?}", fault.problem.message);
            assert!(fault.status.is_some() || follower.resource_version.is_none());
            follower.begin_initial_events();
        }
    }
    let pods = follower.store.snapshot(NOW);
    let discards = follower.store.health.skipped;
    assert!(pods.len() as u64 + discards.unknown + discards.undecodable <= lines);
    for known in pods.iter() {
        assert!(matches!(pods.by_uid(&known.pod.id.uid), UidLookup::Live(_)));
    }
}
