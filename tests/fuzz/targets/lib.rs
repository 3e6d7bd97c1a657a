//! Fuzz targets: the parsers of external input, each with invariants that hold for any input.
//!
//! A target takes bytes and panics if an invariant is violated, for example if an error does not name its location, if
//! a printed value does not parse to the same value, or if the output is not bounded by the input. Valid inputs,
//! dictionaries and inputs that once failed are in the directories `seeds`, `words` and `regressions`, one
//! subdirectory or file per target.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a target fails by panicking")]

pub mod mutate;

mod annotations;
mod cgroup;
mod counters;
mod device_id;
mod flags;
mod http;
mod jobs;
mod lists;
mod pod_resources;
mod pods_api;
mod quantity;
mod scenario;
mod stat;
mod watch;
mod web_config;

/// A parser of external input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of the target and of its directories.
    pub name: &'static str,
    /// Parses the input; panics if an invariant is violated.
    pub check: fn(&[u8]),
}

const fn target(name: &'static str, check: fn(&[u8])) -> Target {
    Target { name, check }
}

/// All fuzz targets.
pub const TARGETS: &[Target] = &[
    target("annotations", annotations::check),
    target("cgroup", cgroup::check),
    target("claim", lists::check_claim),
    target("counters", counters::check),
    target("device_id", device_id::check),
    target("flags", flags::check),
    target("http", http::check),
    target("jobs", jobs::check),
    target("pod_list", lists::check_pods),
    target("pod_resources", pod_resources::check),
    target("pods_api", pods_api::check),
    target("quantity", quantity::check),
    target("scenario", scenario::check),
    target("slice_list", lists::check_slices),
    target("stat", stat::check),
    target("watch", watch::check),
    target("web_config", web_config::check),
];

impl Target {
    /// Returns the target with this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        TARGETS.iter().find(|target| target.name == name).copied()
    }
}

/// Maximum length of a message in bytes: input is quoted truncated.
const MESSAGE_MAX: usize = 4096;

/// Whether a message fits on one log line.
fn is_log_line(text: &str) -> bool {
    !text.is_empty() && text.len() <= MESSAGE_MAX && !text.contains(char::is_control)
}
