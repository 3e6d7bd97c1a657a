//! Reads a list of pods, one object at a time.

use tokio::time::timeout;

use super::api::next_chunk;
use super::json_stream::ListReader;
use super::request_error::RequestError;
use super::source::FailureReason;
use super::watch_event::PodWatchState;
use super::watch_timings::WatchTimings;
use crate::clock::Clock;
use crate::policy;

/// Reads a list. Pods that are not in it are removed from `state` at its end, not before.
///
/// # Errors
/// The list is incomplete, not a list, or takes longer than `timings.initial`.
pub async fn read(
    state: &mut PodWatchState,
    body: kube::client::Body,
    timings: &WatchTimings,
    clock: Clock,
) -> Result<(), RequestError> {
    let timed_out = |_| {
        let seconds = timings.list_timeout.as_secs_f64();
        RequestError::new(
            FailureReason::Timeout,
            format!("the pod list is not complete within {seconds} s"),
        )
    };
    timeout(timings.list_timeout, read_items(state, body, timings, clock))
        .await
        .map_err(timed_out)?
}

async fn read_items(
    state: &mut PodWatchState,
    mut body: kube::client::Body,
    timings: &WatchTimings,
    clock: Clock,
) -> Result<(), RequestError> {
    state.begin_list();
    let mut items = ListReader::new(policy::KUBE_OBJECT_MAX);
    while let Some(data) = next_chunk(&mut body, timings.response_timeout).await? {
        let now = clock.now().mono;
        for frame in items.feed(&data) {
            state.apply_list_item(&frame, now);
        }
    }
    state.end_list(&items.rest(), clock.now().mono)
}
