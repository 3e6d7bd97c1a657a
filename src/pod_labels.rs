//! Labels of pods as labels of series.

use std::sync::Arc;

use regex_lite::Regex;

use crate::reserved_labels::ReservedLabels;

/// Which labels of a pod are shown: those that one of the patterns matches, or all.
#[derive(Clone, Debug)]
pub struct Allowlist(Vec<Regex>);

/// The labels of a pod that series have.
#[derive(Clone, Debug, Default)]
pub struct PodLabels {
    /// Names that a series can have, with values.
    pub shown: Vec<(Arc<str>, Arc<str>)>,
    /// How many allowed labels are left out, by reason: their name is reserved, or another label of the
    /// pod comes to the same name.
    pub dropped: [(&'static str, u64); 2],
}

/// A pattern that is none.
#[derive(Debug, thiserror::Error)]
#[error("--kubernetes-pod-label-allowlist-regex {pattern}: {error}")]
pub struct BadPattern {
    pattern: String,
    error: regex_lite::Error,
}

impl Allowlist {
    /// A list of these patterns; of none, which allows everything.
    ///
    /// # Errors
    /// One is no regular expression.
    pub fn new(patterns: &[String]) -> Result<Self, BadPattern> {
        let compiled = patterns.iter().filter(|pattern| !pattern.is_empty()).map(|pattern| {
            Regex::new(pattern).map_err(|error| BadPattern { pattern: pattern.clone(), error })
        });
        Ok(Self(compiled.collect::<Result<_, _>>()?))
    }

    /// The labels that are allowed, under names that a series can have. Of two that come to the
    /// same name the first is kept, and none whose name is reserved.
    pub fn shown<'a>(
        &self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        reserved: &ReservedLabels,
    ) -> PodLabels {
        let allowed =
            |key: &str| self.0.is_empty() || self.0.iter().any(|pattern| pattern.is_match(key));
        let mut shown: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        let (mut is_reserved, mut doubles) = (0, 0);
        for (key, value) in labels.into_iter().filter(|(key, _)| allowed(key)) {
            let name = label_name(key);
            if reserved.contains(&name) {
                is_reserved += 1;
            } else if shown.iter().any(|(known, _)| **known == name) {
                doubles += 1;
            } else {
                shown.push((name.into(), value.into()));
            }
        }
        PodLabels { shown, dropped: [("reserved", is_reserved), ("duplicate", doubles)] }
    }
}

/// A label's key with underscores in place of what a label of a series may not have.
fn label_name(key: &str) -> String {
    let name: String =
        key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Dialect;

    fn shown(patterns: &[&str], labels: &[(&str, &str)]) -> String {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let list = Allowlist::new(&patterns).unwrap();
        let reserved = ReservedLabels::of(&Dialect::DcgmExporter(Vec::new()));
        let PodLabels { shown, .. } = list.shown(labels.iter().copied(), &reserved);
        shown.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn labels_are_named_as_series_can_have_them() {
        let labels =
            [("app.kubernetes.io/name", "a"), ("app-kubernetes-io/name", "b"), ("7s", "c")];
        assert_eq!(shown(&[], &labels), "app_kubernetes_io_name=a _7s=c");
        assert_eq!(shown(&[], &[("pod", "forged"), ("x", "y")]), "x=y");
    }

    #[test]
    fn labels_that_are_left_out_are_counted() {
        let reserved = ReservedLabels::of(&Dialect::Ack);
        let labels = [("xid", "a"), ("app-x", "b"), ("app.x", "c"), ("job", "d"), ("no", "e")];
        let list = Allowlist::new(&["^(xid|app|job)".to_owned()]).unwrap();
        let labels = list.shown(labels, &reserved);
        assert_eq!(labels.dropped, [("reserved", 2), ("duplicate", 1)]);
        assert_eq!(labels.shown, [("app_x".into(), "b".into())]);
    }

    #[test]
    fn only_what_a_pattern_matches_is_shown() {
        let labels = [("app", "a"), ("team", "b"), ("team-lead", "c")];
        assert_eq!(shown(&["^team$", "^app"], &labels), "app=a team=b");
        assert_eq!(shown(&["team", ""], &labels), "team=b team_lead=c");
        let error = Allowlist::new(&["(".to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("--kubernetes-pod-label-allowlist-regex (: "), "{error}");
    }
}
