//! What reads foreign bytes, each reader with what has to hold whatever the bytes are.
//!
//! A target takes bytes and panics where a promise is broken: that something is refused without saying
//! where, that it says something else once it is printed, that little becomes much. Seeds, words and the
//! inputs that once broke something stand in the folders `seeds`, `words` and `regressions`, under the
//! target's name.

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
mod quantity;
mod scenario;
mod stat;
mod watch;
mod web_config;

/// A reader of foreign bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folders.
    pub name: &'static str,
    /// Panics where these bytes break a promise.
    pub check: fn(&[u8]),
}

const fn target(name: &'static str, check: fn(&[u8])) -> Target {
    Target { name, check }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("annotations", annotations::check),
    target("cgroup", cgroup::check),
    target("counters", counters::check),
    target("device_id", device_id::check),
    target("flags", flags::check),
    target("http", http::check),
    target("jobs", jobs::check),
    target("pod_list", lists::pods),
    target("pod_resources", pod_resources::check),
    target("quantity", quantity::check),
    target("scenario", scenario::check),
    target("slice_list", lists::slices),
    target("stat", stat::check),
    target("watch", watch::check),
    target("web_config", web_config::check),
];

impl Target {
    /// The target of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.iter().find(|target| target.name == name).copied()
    }
}

/// The longest sentence that a person is shown, in bytes: what was given is quoted in part only.
const SENTENCE_MAX: usize = 4096;

/// Whether a complaint can stand in one line of a log.
fn is_sentence(text: &str) -> bool {
    !text.is_empty() && text.len() <= SENTENCE_MAX && !text.contains(char::is_control)
}
