//! Tests of the whole product: the exporter binary, real sockets, the mock NVML library.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod accumulators;
mod annotations;
mod browser;
mod check;
mod client_certificates;
mod clients;
mod clock_jumps;
mod cluster;
mod command;
mod connections;
mod contributing;
mod dcgm_compat;
mod denial_of_service;
mod device_pods;
mod doc_links;
mod documents;
mod dra;
mod driver_release;
mod events;
mod evidence;
mod exporter;
mod exposition;
mod faults;
mod flags;
mod freshness;
mod gpm;
mod hanging_files;
mod hanging_library;
mod hanging_path;
mod hanging_sampler;
mod health;
mod health_views;
mod http;
mod kai;
mod label_values;
mod landing;
mod memory_accounts;
mod mig;
mod migration;
mod mock_files;
mod newest_drivers;
mod node_api;
mod node_without_gpu;
mod nvml_calls;
mod old_drivers;
mod ownership;
mod passwords;
mod platforms;
mod pod_sources;
mod readme;
mod real_library;
mod record;
mod remedies;
mod replicas;
mod sandbox;
mod sharing;
mod symbols;
#[cfg(feature = "top")]
mod terminal;
mod text_round_trip;
mod tls;
#[cfg(feature = "top")]
mod top;
mod values;
mod verdicts;
mod web_config;
mod web_fixture;
