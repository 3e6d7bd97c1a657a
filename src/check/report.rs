//! All findings together, as text and as JSON.

use std::fmt;

use serde::Serialize;

use super::{Finding, Outcome};

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

    /// The report as JSON: `version`, `exporter`, `counts` by verdict, and `findings`.
    ///
    /// # Errors
    /// Returns the serialization error; none is expected for texts and counts.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        let counts = VerdictCounts {
            ok: self.count(Outcome::Ok),
            note: self.count(Outcome::Note),
            warning: self.count(Outcome::Warning),
            failure: self.count(Outcome::Failure),
            skipped: self.count(Outcome::Skipped),
        };
        let exporter = env!("CARGO_PKG_VERSION");
        let report = JsonReport { version: VERSION, exporter, counts, findings: &self.findings };
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
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct VerdictCounts {
    ok: usize,
    note: usize,
    warning: usize,
    failure: usize,
    skipped: usize,
}

/// One line for each finding, its remedy on the next line, and a summary line at the end.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { topic, subject, verdict, message, remedy } in &self.findings {
            writeln!(f, "{:<8} {:<10} {subject}: {message}", verdict.label(), topic.label())?;
            if let Some(remedy) = remedy {
                writeln!(f, "{:<19} remedy: {remedy}", "")?;
            }
        }
        let counts = Outcome::ALL.map(|verdict| (verdict, self.count(verdict)));
        let present = counts.into_iter().filter(|(_, n)| *n > 0);
        let counts: Vec<String> = present.map(|(verdict, n)| verdict.count(n)).collect();
        writeln!(f, "\n{} findings: {}", self.findings.len(), counts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Topic;
    use super::*;

    fn report() -> Report {
        Report::new(vec![
            Finding::failure(Topic::Gpu, "GPU 1", "it is lost").with_remedy("reset it"),
            Finding::ok(Topic::Library, "/x/libnvidia-ml.so.1", "loaded\nand more"),
            Finding::warning(Topic::Gpu, "GPU 0", "1 of 9 readings is missing"),
        ])
    }

    #[test]
    fn text_has_a_line_for_each_finding_and_the_remedy_below() {
        assert_eq!(
            report().to_string(),
            "ok       library    /x/libnvidia-ml.so.1: loaded\u{fffd}and more\n\
             FAILURE  gpu        GPU 1: it is lost\n\
             \x20                   remedy: reset it\n\
             warning  gpu        GPU 0: 1 of 9 readings is missing\n\
             \n\
             3 findings: 1 ok, 1 warning, 1 failure\n"
        );
    }

    #[test]
    fn json_has_the_same_findings() {
        let json: serde_json::Value = serde_json::from_str(&report().json().unwrap()).unwrap();
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
