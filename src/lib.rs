//! A Prometheus exporter for NVIDIA GPUs that reads NVML directly.
//!
//! One pipeline: [`nvml`] and [`host`] are read in one [`sample`] a cycle, [`attribute`] labels it
//! and withholds what is too old, and the result is published as one immutable [`snapshot`].
//! [`render`] turns a snapshot into a page at most once, and [`serve`] hands the page out. One
//! table, [`catalog`], names every series. [`run`] puts the threads and tasks together, and
//! [`clock`] is the only module that reads a clock. [`check`] tells what is wrong on a node.

pub mod accounts;
pub mod args;
pub mod attribute;
pub mod catalog;
pub mod check;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod counters;
pub mod host;
pub mod kube;
pub mod labels;
pub mod landing;
pub mod listing;
#[cfg(feature = "manual")]
pub mod manual;
pub mod model;
pub mod nvml;
pub mod output;
pub mod pod_labels;
pub mod policy;
pub mod publish;
pub mod quote;
pub mod release;
pub mod render;
pub mod reserved_labels;
pub mod run;
pub mod sample;
pub mod scope;
pub mod seal;
pub mod selection;
pub mod serve;
pub mod snapshot;
pub mod telemetry;
#[cfg(feature = "top")]
pub mod top;
pub mod view;
pub mod web_config;
pub mod worker;
