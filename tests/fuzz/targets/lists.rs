//! Responses of the API server or kubelet: lists of pods and resource slices, and resource claims.

use std::collections::BTreeSet;
use std::time::Duration;

use nvml_exporter::kube::assignments::{ClaimedDevice, SliceKey};
use nvml_exporter::kube::json_stream::{JsonFrame, ListReader};
use nvml_exporter::kube::pods::UidLookup;
use nvml_exporter::kube::pods::store::PodStore;
use nvml_exporter::kube::resource_claims::claim::{self, DeviceSharing, MemoryLimit};
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
    let key = |driver: &str, pool: &str| SliceKey {
        driver: driver.into(),
        pool: pool.into(),
        device: "gpu-0".into(),
    };
    let claimed: BTreeSet<_> = [key("gpu.nvidia.com", "n1"), key("x", "p")].into();
    let mut gathering = SliceCollector::new("n1", &claimed);
    for frame in &frames {
        if let JsonFrame::Value(json) = frame {
            // This error text is truncated where it is reported.
            let _refused = gathering.add(json);
        }
    }
    if let Err(detail) = check_list(&rest) {
        assert!(is_log_line(&detail), "{detail:?}");
    }
    let is_complete = gathering.is_complete();
    let devices = gathering.finish().devices;
    assert_eq!(is_complete, claimed.iter().all(|key| devices.contains_key(key)));
    assert!(devices.len() <= frames.len() * 128);
    let texts: usize = devices
        .values()
        .flat_map(|d| [&d.uuid, &d.kind, &d.parent, &d.profile])
        .flatten()
        .map(|text| text.len())
        .sum();
    assert!(texts <= bytes.len());
}

/// Sizes and limits of a claim are finite numbers in their range, and its text is bounded by the input.
pub(crate) fn check_claim(bytes: &[u8]) {
    // This error text is truncated where it is reported.
    let Ok(claim) = claim::parse(bytes) else { return };
    let texts: usize = claim.pods.iter().map(|uid| uid.len()).sum();
    assert!(claim.uid.len() + texts <= bytes.len() && claim.devices.len() <= bytes.len());
    for device in &claim.devices {
        let is_size = |mib: f64| mib.is_finite() && mib >= 0.0;
        assert!(device.consumed_memory.is_none_or(is_size), "{device:?}");
        if let DeviceSharing::Mps { compute, memory } = &device.sharing {
            assert!((0.0..=1.0).contains(compute), "{device:?}");
            for uuid in ["GPU-1", "0", ""] {
                if let MemoryLimit::Mib(limit) = memory.of(uuid) {
                    assert!(limit.is_finite() && limit >= 1.0, "{device:?}");
                }
            }
        }
    }
    let claimed = ClaimedDevice {
        claim_namespace: "demo".into(),
        claim_name: "x".into(),
        driver: "gpu.nvidia.com".into(),
        pool: "n1".into(),
        device: "gpu-0".into(),
        share: None,
    };
    assert!(claim.device(&claimed).is_none_or(|found| claim.devices.contains(found)));
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
