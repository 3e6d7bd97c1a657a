//! Tests of what is shipped beside the program: the image, the manifests, the chart, the rules and the
//! dashboards, with the programs that will read them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it could not do"
)]

mod adapter;
mod alarms;
mod autoscaler;
mod chart;
mod dashboards;
mod exported;
mod image;
mod manifests;
mod programs;
mod rules;
mod upgrade;
mod walk_through;
