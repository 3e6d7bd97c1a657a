//! Diagnosis of a node (`nvml-exporter check`): findings about everything that the exporter depends on.
//!
//! Each module below inspects one dependency: it gathers facts, and pure functions turn them into
//! [`Finding`]s. A [`Report`] contains all findings, as human-readable text or as JSON.

pub mod api;
pub mod clock;
pub mod driver;
pub mod gpus;
pub mod host;
pub mod kubelet;
pub mod library;
pub mod mig;
pub mod port;
pub mod report;
pub mod rights;

use std::fmt::Write;

use serde::Serialize;

pub use self::report::Report;
use crate::model::Problem;
use crate::sanitize::truncate_for_log;

/// Maximum length of a subject, message or remedy, in characters.
const TEXT_MAX: usize = 2000;

/// The dependency that a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Topic {
    /// The command line, the environment and the files that they name.
    Flags,
    /// The NVML library.
    Library,
    /// The driver: NVML session, kernel module, device nodes.
    Driver,
    /// One GPU.
    Gpu,
    /// The MIG devices of a GPU.
    Mig,
    /// The PID namespace and the proc root.
    Pids,
    /// The processes on GPUs.
    Processes,
    /// Control groups.
    Cgroups,
    /// The kubelet's `PodResources` socket.
    Kubelet,
    /// The kubelet's log directories.
    Logs,
    /// The API server.
    Api,
    /// RBAC permissions at the API server.
    Rights,
    /// The node name.
    Node,
    /// The listen address.
    Port,
    /// The clocks.
    Clock,
}

impl Topic {
    /// Every topic, in the order of the report.
    pub const ALL: [Self; 15] = [
        Self::Flags,
        Self::Library,
        Self::Driver,
        Self::Gpu,
        Self::Mig,
        Self::Pids,
        Self::Processes,
        Self::Cgroups,
        Self::Kubelet,
        Self::Logs,
        Self::Api,
        Self::Rights,
        Self::Node,
        Self::Port,
        Self::Clock,
    ];

    /// The name of the topic in the text report, equal to the one in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Flags => "flags",
            Self::Library => "library",
            Self::Driver => "driver",
            Self::Gpu => "gpu",
            Self::Mig => "mig",
            Self::Pids => "pids",
            Self::Processes => "processes",
            Self::Cgroups => "cgroups",
            Self::Kubelet => "kubelet",
            Self::Logs => "logs",
            Self::Api => "api",
            Self::Rights => "rights",
            Self::Node => "node",
            Self::Port => "port",
            Self::Clock => "clock",
        }
    }
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As expected.
    Ok,
    /// No problem, but useful information.
    Note,
    /// The exporter works, but something is missing or doubtful.
    Warning,
    /// A main function of the exporter does not work.
    Failure,
    /// Not checked: it could not be checked, or does not apply.
    Skipped,
}

impl Outcome {
    /// Every verdict, in the order of the summary line.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Note, Self::Warning, Self::Failure, Self::Skipped];

    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Failure => "FAILURE",
            Self::Skipped => "skipped",
        }
    }

    /// The escape code of the verdict's colour.
    fn colour(self) -> Option<&'static str> {
        match self {
            Self::Ok => Some("32"),
            Self::Warning => Some("1;33"),
            Self::Failure => Some("1;31"),
            Self::Note | Self::Skipped => None,
        }
    }

    /// `2 warnings`.
    fn count(self, n: usize) -> String {
        let (singular, plural) = match self {
            Self::Ok => ("ok", "ok"),
            Self::Note => ("note", "notes"),
            Self::Warning => ("warning", "warnings"),
            Self::Failure => ("failure", "failures"),
            Self::Skipped => ("skipped", "skipped"),
        };
        format!("{n} {}", if n == 1 { singular } else { plural })
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The dependency that was checked.
    pub topic: Topic,
    /// The checked object: a path, a symbol, a URL or a name.
    pub subject: String,
    /// The severity.
    pub verdict: Outcome,
    /// What was found, in one sentence.
    pub message: String,
    /// How to fix it; none if there is nothing to fix.
    pub remedy: Option<String>,
}

impl Finding {
    /// A finding without a remedy. The texts may quote untrusted input: control characters are replaced,
    /// and each is truncated to 2000 characters.
    #[must_use]
    pub fn new(
        verdict: Outcome,
        topic: Topic,
        subject: impl AsRef<str>,
        message: impl AsRef<str>,
    ) -> Self {
        let line = |text: &str| truncate_for_log(text, TEXT_MAX);
        let (subject, message) = (line(subject.as_ref()), line(message.as_ref()));
        Self { topic, subject, verdict, message, remedy: None }
    }

    /// A finding of [`Outcome::Ok`].
    #[must_use]
    pub fn ok(topic: Topic, subject: impl AsRef<str>, message: impl AsRef<str>) -> Self {
        Self::new(Outcome::Ok, topic, subject, message)
    }

    /// A finding of [`Outcome::Note`].
    #[must_use]
    pub fn note(topic: Topic, subject: impl AsRef<str>, message: impl AsRef<str>) -> Self {
        Self::new(Outcome::Note, topic, subject, message)
    }

    /// A finding of [`Outcome::Warning`].
    #[must_use]
    pub fn warning(topic: Topic, subject: impl AsRef<str>, message: impl AsRef<str>) -> Self {
        Self::new(Outcome::Warning, topic, subject, message)
    }

    /// A finding of [`Outcome::Failure`].
    #[must_use]
    pub fn failure(topic: Topic, subject: impl AsRef<str>, message: impl AsRef<str>) -> Self {
        Self::new(Outcome::Failure, topic, subject, message)
    }

    /// A finding of [`Outcome::Skipped`]; the message gives the reason.
    #[must_use]
    pub fn skipped(topic: Topic, subject: impl AsRef<str>, message: impl AsRef<str>) -> Self {
        Self::new(Outcome::Skipped, topic, subject, message)
    }

    /// A failure with the message and the remedy of a problem.
    #[must_use]
    pub fn of_problem(topic: Topic, subject: impl AsRef<str>, problem: &Problem) -> Self {
        let failure = Self::failure(topic, subject, &problem.message);
        match &problem.remedy {
            Some(remedy) => failure.with_remedy(remedy),
            None => failure,
        }
    }

    /// Sets the remedy.
    #[must_use]
    pub fn with_remedy(self, remedy: impl AsRef<str>) -> Self {
        Self { remedy: Some(truncate_for_log(remedy.as_ref(), TEXT_MAX)), ..self }
    }
}

/// The first four names, and the number of the others: `a, b, c, d and 2 more`.
fn join_truncated<T: AsRef<str>>(names: &[T]) -> String {
    let (shown, rest) = names.split_at(names.len().min(4));
    let mut text = shown.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    if !rest.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(text, " and {} more", rest.len());
    }
    text
}

/// `1 GPU`, `2 GPUs`, `3 processes`.
fn count_noun(n: usize, noun: &str) -> String {
    let plural = if noun.ends_with('s') { "es" } else { "s" };
    format!("{n} {noun}{}", if n == 1 { "" } else { plural })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_in_report_order_and_labels_match_json() {
        assert!(Topic::ALL.is_sorted());
        for topic in Topic::ALL {
            assert_eq!(serde_json::to_value(topic).unwrap(), topic.label());
        }
    }

    #[test]
    fn long_name_lists_are_truncated_and_nouns_are_counted() {
        assert_eq!(join_truncated(&["a", "b"]), "a, b");
        assert_eq!(join_truncated(&["a", "b", "c", "d", "e", "f"]), "a, b, c, d and 2 more");
        assert_eq!([count_noun(1, "GPU"), count_noun(0, "GPU")], ["1 GPU", "0 GPUs"]);
    }
}
