//! Tests of the image, the manifests, the chart, the rules and the dashboards, with the programs that read them
//! (kubectl, Helm, Prometheus).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod adapter;
mod alert_scenarios;
mod autoscaler;
mod chart;
mod chart_readme;
mod chart_values;
mod components;
mod dashboards;
mod end_to_end;
mod exported_families;
mod grafana;
mod image;
mod keda;
mod manifests;
mod migration;
mod monitors;
mod programs;
mod public_queries;
mod rules;
mod runbooks;
