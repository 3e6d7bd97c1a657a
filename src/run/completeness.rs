//! Whether a snapshot is complete, for commands that print one.

use crate::kube::source::FailureReason;
use crate::kube::{kubelet_pods, pods_api, watch as pod_watch};
use crate::model::{DownReason, Missing, ZeroDoubt};
use crate::sample::DriverState;
use crate::snapshot::{Snapshot, SourceHealth};

/// Whether a source is up, or has failed in a way that the next request will not resolve.
pub(super) fn has_responded(source: &SourceHealth) -> bool {
    // These two are followed by another kind of request at once.
    let transient = [FailureReason::Unsupported, FailureReason::Expired].map(FailureReason::label);
    source.up || source.failures.iter().any(|(reason, n)| *n > 0 && !transient.contains(reason))
}

/// Whether the pods are known, or their source is down.
pub(super) fn has_pods(snapshot: &Snapshot) -> bool {
    let sources = [pods_api::SOURCE, pod_watch::SOURCE, kubelet_pods::SOURCE];
    let lists_pods = |source: &SourceHealth| sources.contains(&source.name);
    let is_up = snapshot.health.sources.iter().any(|source| source.up && lists_pods(source));
    snapshot.health.pod_count.is_some() || !is_up
}

/// Whether the process lists are newer than the allocations, so that idle containers have their 0.
pub(super) fn has_idle(snapshot: &Snapshot) -> bool {
    !snapshot.health.attribution.withheld_zeros.contains_key(&ZeroDoubt::StaleProcessList)
}

/// Whether another cycle would not add anything: the driver is down, or all GPUs are identified and
/// all sources are `source_done`.
pub(super) fn is_ready(snapshot: &Snapshot, source_done: impl Fn(&SourceHealth) -> bool) -> bool {
    match &snapshot.health.driver {
        DriverState::Down(down) => {
            !matches!(down.reason(), DownReason::Starting | DownReason::Hung)
        }
        DriverState::Up(_) => {
            snapshot.health.unidentified.values().all(|why| *why != Missing::Pending)
                && snapshot.health.sources.iter().all(source_done)
        }
    }
}
