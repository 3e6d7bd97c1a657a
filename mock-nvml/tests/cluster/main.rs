//! The simulated cluster as clients use it: a library loaded from a mock environment, a gRPC client
//! on the kubelet's socket, and plain HTTP to the API server.
#![expect(unsafe_code, reason = "clients of a C ABI call it")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test helpers panic like tests"
)]

mod api;
mod faults;
mod files;
mod kubelet;
mod mock_env;
