//! A Prometheus exporter for NVIDIA GPUs that reads NVML directly.
//!
//! One pipeline: each cycle, [`sample`] reads [`nvml`] and [`host`], [`attribute`] adds labels and
//! owners and withholds stale readings, and the result is published as one immutable [`snapshot`].
//! [`render`] encodes a snapshot at most once, and [`serve`] returns it to scrapes. One table,
//! [`catalog`], names every series. [`run`] creates the threads and tasks, and [`clock`] is the
//! only module that reads a clock. [`check`] diagnoses the configuration of a node.

pub mod accumulators;
pub mod args;
pub mod attribute;
pub mod catalog;
pub mod check;
pub mod cli;
#[cfg(feature = "manual")]
pub mod cli_docs;
pub mod clock;
pub mod cluster;
pub mod counters;
pub mod device_selector;
pub mod driver_release;
pub mod file_reader;
pub mod host;
pub mod kube;
pub mod labels;
pub mod landing;
pub mod metrics_list;
pub mod model;
pub mod nvml;
pub mod pod_labels;
pub mod policy;
pub mod publish;
pub mod record;
pub mod render;
pub mod reserved_labels;
pub mod run;
pub mod sample;
pub mod sanitize;
pub mod seccomp;
pub mod selection;
pub mod serve;
pub mod snapshot;
pub mod stdout;
pub mod telemetry;
#[cfg(feature = "top")]
pub mod top;
pub mod view;
pub mod web_config;
pub mod worker;
