//! All findings together, as text and as JSON.

use std::fmt;

use serde::Serialize;

use super::{Finding, Verdict};

/// The version of the report's JSON form: another one if a key goes or changes its meaning.
const VERSION: u32 = 1;

/// All that was found, in the order of topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Of these findings.
    #[must_use]
    pub fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.topic);
        Self { findings }
    }

    /// Whether anything that the exporter is for does not work.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        self.count(Verdict::Failure) > 0
    }

    /// As JSON.
    ///
    /// # Errors
    /// None that is known of: texts and counts can be written.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        let counts = Counts {
            ok: self.count(Verdict::Ok),
            note: self.count(Verdict::Note),
            warning: self.count(Verdict::Warning),
            failure: self.count(Verdict::Failure),
            skipped: self.count(Verdict::Skipped),
        };
        let exporter = env!("CARGO_PKG_VERSION");
        let whole = Whole { version: VERSION, exporter, counts, findings: &self.findings };
        Ok(serde_json::to_string_pretty(&whole)? + "\n")
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }
}

#[derive(Serialize)]
struct Whole<'a> {
    version: u32,
    exporter: &'static str,
    counts: Counts,
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct Counts {
    ok: usize,
    note: usize,
    warning: usize,
    failure: usize,
    skipped: usize,
}

/// A line a finding, with the mend on a line of its own, and a last one that counts them.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { topic, subject, verdict, said, mend } in &self.findings {
            writeln!(f, "{:<8} {:<10} {subject}: {said}", verdict.word(), topic.word())?;
            if let Some(mend) = mend {
                writeln!(f, "{:<19} mend: {mend}", "")?;
            }
        }
        let counts = Verdict::ALL.map(|verdict| (verdict, self.count(verdict)));
        let present = counts.into_iter().filter(|(_, n)| *n > 0);
        let words: Vec<String> = present.map(|(verdict, n)| verdict.count(n)).collect();
        writeln!(f, "\n{} looked at: {}", self.findings.len(), words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Topic;
    use super::*;

    fn report() -> Report {
        Report::new(vec![
            Finding::failure(Topic::Gpu, "GPU 1", "it is lost").mended_by("reset it"),
            Finding::ok(Topic::Library, "/x/libnvidia-ml.so.1", "loaded\nand more"),
            Finding::warning(Topic::Gpu, "GPU 0", "1 of 9 readings is missing"),
        ])
    }

    #[test]
    fn text_has_a_line_a_finding_and_the_mend_below() {
        assert_eq!(
            report().to_string(),
            "ok       library    /x/libnvidia-ml.so.1: loaded\u{fffd}and more\n\
             FAILURE  gpu        GPU 1: it is lost\n\
             \x20                   mend: reset it\n\
             warning  gpu        GPU 0: 1 of 9 readings is missing\n\
             \n\
             3 looked at: 1 ok, 1 warning, 1 failure\n"
        );
    }

    #[test]
    fn json_says_the_same() {
        let json: serde_json::Value = serde_json::from_str(&report().json().unwrap()).unwrap();
        assert_eq!((&json["version"], &json["counts"]["failure"]), (&1.into(), &1.into()));
        let gpu = &json["findings"][1];
        assert_eq!(
            *gpu,
            serde_json::json!({
                "topic": "gpu", "subject": "GPU 1", "verdict": "failure", "said": "it is lost",
                "mend": "reset it",
            })
        );
        assert!(json["findings"][0]["mend"].is_null());
    }

    #[test]
    fn only_failures_fail() {
        assert!(report().has_failures());
        let warned =
            vec![Finding::warning(Topic::Port, "a", "b"), Finding::skipped(Topic::Mig, "c", "d")];
        assert!(!Report::new(warned).has_failures());
    }
}
