//! Tests of the whole product: the real binary, real sockets, the mock library.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod accounts;
mod any_text;
mod attack;
mod calls;
mod check;
mod clients;
mod clock_jumps;
mod cluster;
mod command;
mod confined;
mod contributing;
mod device_pods;
mod drop_in;
mod events;
mod exporter;
mod exposition;
mod faults;
mod gpm;
mod health;
mod http;
mod label_values;
mod landing;
mod links;
mod mig;
mod migration;
mod old_drivers;
mod ownership;
mod pages;
mod readme;
mod real_library;
mod release;
mod sharing;
#[cfg(feature = "top")]
mod top;
mod web;
