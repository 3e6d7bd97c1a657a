//! Tests of the cluster sources over real sockets, with servers of the real protocols.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod api;
mod counters;
mod dra;
mod grpc;
mod http;
mod kubelet;
mod lists;
mod node_label;
mod recorded;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// Timeout of every wait; a longer wait is a hang.
const HANG: Duration = Duration::from_secs(30);

/// Waits until the published value satisfies `is`, and returns it.
async fn until<T: Clone>(
    seen: &mut watch::Receiver<T>,
    what: &str,
    is: impl FnMut(&T) -> bool,
) -> T {
    let result = timeout(HANG, seen.wait_for(is)).await;
    let value = result.unwrap_or_else(|_| panic!("{what}: timeout"));
    value.unwrap_or_else(|_| panic!("{what}: the source has ended")).clone()
}
