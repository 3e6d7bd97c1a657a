//! A list of pods, read one object at a time.

use tokio::time::timeout;

use super::api::{Fault, chunk};
use super::event::Follower;
use super::framing::Items;
use super::source::Failure;
use super::watch::Pace;
use crate::clock::Clock;
use crate::policy;

/// Reads the list to its end. Who is not in it is gone then, and not a moment before.
///
/// # Errors
/// It was cut off, is no list, or does not come to its end.
pub async fn read(
    follower: &mut Follower,
    body: kube::client::Body,
    pace: &Pace,
    clock: Clock,
) -> Result<(), Fault> {
    let endless = |_| Fault::new(Failure::Timeout, "a list without an end");
    timeout(pace.initial, elements(follower, body, pace, clock)).await.map_err(endless)?
}

async fn elements(
    follower: &mut Follower,
    mut body: kube::client::Body,
    pace: &Pace,
    clock: Clock,
) -> Result<(), Fault> {
    follower.begin_list();
    let mut items = Items::new(policy::KUBE_OBJECT_MAX);
    while let Some(data) = chunk(&mut body, pace.answer).await? {
        let now = clock.now().mono;
        for frame in items.feed(&data) {
            follower.element(&frame, now);
        }
    }
    follower.end_list(&items.rest(), clock.now().mono)
}
