//! What is found where the exporter looks, what it means, and what to do about it.
//!
//! Each module below looks at one thing: what it finds there is facts, and pure functions turn them
//! into [`Finding`]s. A [`Report`] is all of them, as text for people or as JSON for programs.

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
use crate::quote::in_part;

/// Characters of one sentence.
const SENTENCE_MAX: usize = 2000;

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Topic {
    /// The command line, the environment and the files that they name.
    Flags,
    /// The driver's library.
    Library,
    /// The driver itself.
    Driver,
    /// One GPU.
    Gpu,
    /// What a GPU is divided into.
    Mig,
    /// The PID namespace.
    Pids,
    /// The processes on GPUs.
    Processes,
    /// Control groups.
    Cgroups,
    /// The kubelet's socket.
    Kubelet,
    /// The kubelet's log directories.
    Logs,
    /// The API server.
    Api,
    /// What the API server lets us do.
    Rights,
    /// The node's name.
    Node,
    /// Where the exporter serves.
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

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
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

/// How good what was found is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Nothing is wrong, and it is good to know.
    Note,
    /// The exporter works, and something is missing or doubtful.
    Warning,
    /// What the exporter is for does not work.
    Failure,
    /// It could not be looked at, or there is nothing to look at.
    Skipped,
}

impl Verdict {
    /// Every verdict, in the order of the last line.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Note, Self::Warning, Self::Failure, Self::Skipped];

    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Failure => "FAILURE",
            Self::Skipped => "skipped",
        }
    }

    /// So many of them, in words.
    fn count(self, n: usize) -> String {
        let (one, more) = match self {
            Self::Ok => ("ok", "ok"),
            Self::Note => ("note", "notes"),
            Self::Warning => ("warning", "warnings"),
            Self::Failure => ("failure", "failures"),
            Self::Skipped => ("skipped", "skipped"),
        };
        format!("{n} {}", if n == 1 { one } else { more })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub topic: Topic,
    /// What was looked at: a path, a symbol, a URL or a name.
    pub subject: String,
    /// How good it is.
    pub verdict: Verdict,
    /// What was found, in one sentence.
    pub said: String,
    /// What to do about it, where there is something to do.
    pub mend: Option<String>,
}

impl Finding {
    /// A finding. What it quotes may come from anywhere, and is kept to one line.
    #[must_use]
    pub fn new(
        verdict: Verdict,
        topic: Topic,
        subject: impl AsRef<str>,
        said: impl AsRef<str>,
    ) -> Self {
        let line = |text: &str| in_part(text, SENTENCE_MAX);
        let (subject, said) = (line(subject.as_ref()), line(said.as_ref()));
        Self { topic, subject, verdict, said, mend: None }
    }

    /// All is well.
    #[must_use]
    pub fn ok(topic: Topic, subject: impl AsRef<str>, said: impl AsRef<str>) -> Self {
        Self::new(Verdict::Ok, topic, subject, said)
    }

    /// Good to know.
    #[must_use]
    pub fn note(topic: Topic, subject: impl AsRef<str>, said: impl AsRef<str>) -> Self {
        Self::new(Verdict::Note, topic, subject, said)
    }

    /// Something is missing or doubtful.
    #[must_use]
    pub fn warning(topic: Topic, subject: impl AsRef<str>, said: impl AsRef<str>) -> Self {
        Self::new(Verdict::Warning, topic, subject, said)
    }

    /// It does not work.
    #[must_use]
    pub fn failure(topic: Topic, subject: impl AsRef<str>, said: impl AsRef<str>) -> Self {
        Self::new(Verdict::Failure, topic, subject, said)
    }

    /// It was not looked at, and why.
    #[must_use]
    pub fn skipped(topic: Topic, subject: impl AsRef<str>, said: impl AsRef<str>) -> Self {
        Self::new(Verdict::Skipped, topic, subject, said)
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn mended_by(self, mend: impl AsRef<str>) -> Self {
        Self { mend: Some(in_part(mend.as_ref(), SENTENCE_MAX)), ..self }
    }
}

/// A few of many names: the first four, and how many there are beside them.
fn some_of<T: AsRef<str>>(names: &[T]) -> String {
    let (shown, rest) = names.split_at(names.len().min(4));
    let mut text = shown.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    if !rest.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(text, " and {} more", rest.len());
    }
    text
}

/// `1 GPU`, `2 GPUs`, `3 processes`.
fn counted(n: usize, noun: &str) -> String {
    let more = if noun.ends_with('s') { "es" } else { "s" };
    format!("{n} {noun}{}", if n == 1 { "" } else { more })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_in_the_order_of_the_report_and_named_as_in_json() {
        assert!(Topic::ALL.is_sorted());
        for topic in Topic::ALL {
            assert_eq!(serde_json::to_value(topic).unwrap(), topic.word());
        }
    }

    #[test]
    fn of_many_names_some_are_shown() {
        assert_eq!(some_of(&["a", "b"]), "a, b");
        assert_eq!(some_of(&["a", "b", "c", "d", "e", "f"]), "a, b, c, d and 2 more");
        assert_eq!([counted(1, "GPU"), counted(0, "GPU")], ["1 GPU", "0 GPUs"]);
    }
}
