//! Tests of the rim that follows the cluster: real sockets, servers that speak the real protocols.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod api;
mod counters;
mod grpc;
mod http;
mod kubelet;
mod lists;
mod node_label;
mod recorded;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// Nothing here takes long; whoever waits longer hangs.
const HANG: Duration = Duration::from_secs(30);

/// Waits until what is published is as it should be, and gives it back.
async fn until<T: Clone>(
    seen: &mut watch::Receiver<T>,
    what: &str,
    is: impl FnMut(&T) -> bool,
) -> T {
    let waited = timeout(HANG, seen.wait_for(is)).await;
    let answer = waited.unwrap_or_else(|_| panic!("{what}: still not so"));
    answer.unwrap_or_else(|_| panic!("{what}: the source has ended")).clone()
}
