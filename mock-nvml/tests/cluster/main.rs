//! The cluster as clients meet it: a library that runs from a stage, a gRPC client on the kubelet's
//! socket, plain HTTP to the API server.
#![expect(unsafe_code, reason = "clients of a C ABI call it")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod api;
mod faults;
mod files;
mod kubelet;
mod stage;
