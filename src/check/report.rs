//! All findings together, as text and as JSON.

use serde::Serialize;

use super::{Finding, Outcome, Topic};
use crate::stdout;

/// The version of the report's JSON form; incremented if a key is removed or changes its meaning.
const VERSION: u32 = 2;

/// All findings, in the order of topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Sorts the findings by topic.
    #[must_use]
    pub fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.topic);
        Self { findings }
    }

    /// Whether there is a finding of [`Outcome::Failure`].
    #[must_use]
    pub fn has_failures(&self) -> bool {
        self.count(Outcome::Failure) > 0
    }

    /// The report as JSON: `version`, `exporter`, `counts` by verdict, and `findings`; with
    /// `problems_only`, only failures and warnings.
    ///
    /// # Errors
    /// Returns the serialization error; none is expected for texts and counts.
    pub fn json(&self, problems_only: bool) -> Result<String, serde_json::Error> {
        let counts = VerdictCounts {
            ok: self.count(Outcome::Ok),
            note: self.count(Outcome::Note),
            warning: self.count(Outcome::Warning),
            failure: self.count(Outcome::Failure),
            skipped: self.count(Outcome::Skipped),
        };
        let exporter = env!("CARGO_PKG_VERSION");
        let is_problem = |finding: &&Finding| {
            !problems_only || matches!(finding.verdict, Outcome::Failure | Outcome::Warning)
        };
        let findings = self.findings.iter().filter(is_problem).collect();
        let report = JsonReport { version: VERSION, exporter, counts, findings };
        Ok(serde_json::to_string_pretty(&report)? + "\n")
    }

    fn count(&self, verdict: Outcome) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }
}

#[derive(Serialize)]
struct JsonReport<'a> {
    version: u32,
    exporter: &'static str,
    counts: VerdictCounts,
    findings: Vec<&'a Finding>,
}

#[derive(Serialize)]
struct VerdictCounts {
    ok: usize,
    note: usize,
    warning: usize,
    failure: usize,
    skipped: usize,
}

/// How the text is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextStyle {
    /// Columns at which lines are wrapped; none without a terminal.
    pub width: Option<usize>,
    /// Whether verdicts have a colour.
    pub colour: bool,
    /// Whether only failures and warnings are printed.
    pub problems_only: bool,
}

impl TextStyle {
    /// The style for standard output: of a terminal, or of a file.
    #[must_use]
    pub fn of_stdout(problems_only: bool) -> Self {
        let width = stdout::terminal_width();
        let has_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { width, colour: width.is_some() && has_colour, problems_only }
    }
}

/// Columns before the message: verdict and topic.
const INDENT: usize = 20;

impl Report {
    /// Failures, then warnings, each with its remedy below; then what is in order; then what was not
    /// checked, with the reasons; a summary at the end.
    #[must_use]
    pub fn text(&self, style: &TextStyle) -> String {
        let mut text = String::new();
        for verdict in [Outcome::Failure, Outcome::Warning] {
            self.of(&[verdict]).for_each(|finding| style.push(&mut text, finding));
        }
        if !style.problems_only {
            if !text.is_empty() {
                text.push('\n');
            }
            self.of(&[Outcome::Ok, Outcome::Note]).for_each(|one| style.push(&mut text, one));
            let skipped = self.skipped().into_iter();
            let skipped =
                skipped.map(|(reason, topics)| format!("{}: {reason}", topics.join(", ")));
            let skipped: Vec<String> = skipped.collect();
            if !skipped.is_empty() {
                style.push_line(&mut text, Outcome::Skipped, "", &skipped.join("; "));
            }
        }
        text.push_str(&self.summary(style));
        text
    }

    fn of(&self, verdicts: &[Outcome]) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| verdicts.contains(&finding.verdict))
    }

    /// The topics that were not checked, by reason, in the order of the report.
    fn skipped(&self) -> Vec<(&str, Vec<&'static str>)> {
        let mut groups: Vec<(&str, Vec<&'static str>)> = Vec::new();
        for finding in self.of(&[Outcome::Skipped]) {
            let topic = finding.topic.label();
            match groups.iter_mut().find(|(reason, _)| *reason == finding.message) {
                Some((_, topics)) if topics.contains(&topic) => {}
                Some((_, topics)) => topics.push(topic),
                None => groups.push((&finding.message, vec![topic])),
            }
        }
        groups
    }

    fn summary(&self, style: &TextStyle) -> String {
        let counts = Outcome::ALL.map(|verdict| (verdict, self.count(verdict)));
        let present = counts.into_iter().filter(|(_, n)| *n > 0);
        let counts: Vec<String> = present.map(|(verdict, n)| verdict.count(n)).collect();
        let mut text = format!("\n{} findings: {}\n", self.findings.len(), counts.join(", "));
        if style.problems_only && !self.has_failures() && self.count(Outcome::Warning) == 0 {
            text = format!("no problems\n{text}");
        }
        let lacks_driver =
            |finding: &Finding| matches!(finding.topic, Topic::Library | Topic::Driver);
        if self.of(&[Outcome::Failure, Outcome::Note]).any(lacks_driver) {
            text += "without a GPU, try a simulated node: nvml-exporter check --mock\n";
        }
        let is_of_answers = |finding: &Finding| {
            matches!(finding.topic, Topic::Gpu | Topic::Mig | Topic::Processes | Topic::Clock)
        };
        if self.of(&[Outcome::Failure, Outcome::Warning]).any(is_of_answers) {
            text += "to report what the driver returns, attach a recording: \
                     nvml-exporter record --output node.toml\n";
        }
        text
    }
}

impl TextStyle {
    fn push(&self, text: &mut String, finding: &Finding) {
        let Finding { topic, subject, verdict, message, remedy } = finding;
        self.push_line(text, *verdict, topic.label(), &format!("{subject}: {message}"));
        if let Some(remedy) = remedy {
            self.push_wrapped(text, &" ".repeat(INDENT), &format!("remedy: {remedy}"));
        }
    }

    fn push_line(&self, text: &mut String, verdict: Outcome, topic: &str, message: &str) {
        let mut label = format!("{:<8}", verdict.label());
        if let Some(code) = verdict.colour().filter(|_| self.colour) {
            label = format!("\u{1b}[{code}m{label}\u{1b}[0m");
        }
        self.push_wrapped(text, &format!("{label} {topic:<10} "), message);
    }

    /// A message after `start`, which has [`INDENT`] columns or more, wrapped at spaces.
    fn push_wrapped(&self, text: &mut String, start: &str, message: &str) {
        text.push_str(start);
        let room = self.width.map(|width| width.saturating_sub(INDENT).max(20));
        let mut used = 0;
        for word in message.split(' ') {
            let columns = word.chars().count();
            if used > 0 && room.is_some_and(|room| used + 1 + columns > room) {
                text.push('\n');
                text.push_str(&" ".repeat(INDENT));
                used = 0;
            } else if used > 0 {
                text.push(' ');
                used += 1;
            }
            text.push_str(word);
            used += columns;
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::new(vec![
            Finding::failure(Topic::Gpu, "GPU 1", "it is lost").with_remedy("reset it"),
            Finding::ok(Topic::Library, "/x/libnvidia-ml.so.1", "loaded\nand more"),
            Finding::warning(Topic::Gpu, "GPU 0", "1 of 9 readings is missing"),
        ])
    }

    #[test]
    fn problems_are_first_with_the_remedy_below() {
        let style = TextStyle::default();
        assert_eq!(
            report().text(&style),
            "FAILURE  gpu        GPU 1: it is lost\n\
             \x20                   remedy: reset it\n\
             warning  gpu        GPU 0: 1 of 9 readings is missing\n\
             \n\
             ok       library    /x/libnvidia-ml.so.1: loaded\u{fffd}and more\n\
             \n\
             3 findings: 1 ok, 1 warning, 1 failure\n\
             to report what the driver returns, attach a recording: nvml-exporter record --output \
             node.toml\n"
        );
        let problems = report().text(&TextStyle { problems_only: true, ..style });
        assert!(
            problems.contains("it is lost") && !problems.contains("libnvidia-ml"),
            "{problems}"
        );
    }

    #[test]
    fn what_was_not_checked_is_one_line_by_reason() {
        let skipped = |topic, subject| Finding::skipped(topic, subject, "there is no NVML session");
        let report = Report::new(vec![
            skipped(Topic::Driver, "nvmlInit_v2"),
            skipped(Topic::Gpu, "nvmlDeviceGetCount_v2"),
            skipped(Topic::Gpu, "another"),
            Finding::skipped(Topic::Api, "API server", "not in a cluster"),
        ]);
        let text = report.text(&TextStyle::default());
        assert_eq!(
            text,
            "skipped             driver, gpu: there is no NVML session; api: not in a cluster\n\n\
             4 findings: 4 skipped\n"
        );
    }

    #[test]
    fn lines_are_wrapped_at_words_and_coloured_on_a_terminal() {
        let style = TextStyle { width: Some(46), colour: true, problems_only: false };
        let text = report().text(&style);
        assert!(text.starts_with("\u{1b}[1;31mFAILURE \u{1b}[0m gpu "), "{text:?}");
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|line| line.contains("1 of 9")).unwrap();
        assert!(lines[at].ends_with("GPU 0: 1 of 9 readings is"), "{text}");
        assert_eq!(lines[at + 1], format!("{}missing", " ".repeat(20)), "{text}");
    }

    #[test]
    fn mock_is_suggested_without_a_driver() {
        let failure = Finding::failure(Topic::Library, "libnvidia-ml.so.1", "not found");
        let text = Report::new(vec![failure]).text(&TextStyle::default());
        assert!(text.ends_with("nvml-exporter check --mock\n"), "{text}");
        assert!(!report().text(&TextStyle::default()).contains("--mock"));
    }

    #[test]
    fn recording_is_suggested_for_answers_of_the_driver() {
        let warning = Finding::warning(Topic::Clock, "nvmlDeviceGetProcessUtilization", "late");
        let text = Report::new(vec![warning]).text(&TextStyle::default());
        assert!(text.ends_with("nvml-exporter record --output node.toml\n"), "{text}");
        let warning = Finding::warning(Topic::Api, "list pods", "denied");
        let text = Report::new(vec![warning]).text(&TextStyle::default());
        assert!(!text.contains("record"), "{text}");
    }

    #[test]
    fn json_has_the_same_findings() {
        let json: serde_json::Value = serde_json::from_str(&report().json(false).unwrap()).unwrap();
        assert_eq!((&json["version"], &json["counts"]["failure"]), (&2.into(), &1.into()));
        let gpu = &json["findings"][1];
        assert_eq!(
            *gpu,
            serde_json::json!({
                "topic": "gpu", "subject": "GPU 1", "verdict": "failure",
                "message": "it is lost", "remedy": "reset it",
            })
        );
        assert!(json["findings"][0]["remedy"].is_null());
    }

    #[test]
    fn only_failures_fail_the_report() {
        assert!(report().has_failures());
        let warned =
            vec![Finding::warning(Topic::Port, "a", "b"), Finding::skipped(Topic::Mig, "c", "d")];
        assert!(!Report::new(warned).has_failures());
    }
}
