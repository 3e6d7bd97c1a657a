//! Selects pod labels for series, and converts their names.

use std::sync::Arc;

use regex_lite::Regex;

use crate::model::Problem;
use crate::reserved_labels::ReservedLabels;

/// Patterns of the pod labels that series have. Without patterns, all labels are allowed.
#[derive(Clone, Debug)]
pub struct Allowlist(Vec<Regex>);

/// Labels of a pod for its series.
#[derive(Clone, Debug, Default)]
pub struct PodLabels {
    /// Valid Prometheus label names, with values.
    pub shown: Vec<(Arc<str>, Arc<str>)>,
    /// Number of allowed labels that are dropped, by reason: the name is reserved, or another label
    /// of the pod converts to the same name.
    pub dropped: [(&'static str, u64); 2],
}

impl Allowlist {
    /// Compiles the patterns. Empty patterns are ignored.
    ///
    /// # Errors
    /// A pattern is not a regular expression.
    pub fn new(patterns: &[String]) -> Result<Self, Problem> {
        let compiled = patterns.iter().filter(|pattern| !pattern.is_empty()).map(|pattern| {
            Regex::new(pattern).map_err(|error| {
                Problem::new(error.to_string(), "give a valid regular expression, for example ^app")
                    .at(format!("--kubernetes-pod-label-allowlist-regex {pattern}"))
            })
        });
        Ok(Self(compiled.collect::<Result<_, _>>()?))
    }

    /// The allowed labels, with valid Prometheus names. Labels with a reserved name are dropped; of
    /// several with the same name the first is kept.
    pub fn allowed_labels<'a>(
        &self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        reserved: &ReservedLabels,
    ) -> PodLabels {
        let allowed =
            |key: &str| self.0.is_empty() || self.0.iter().any(|pattern| pattern.is_match(key));
        let mut shown: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        let (mut reserved_count, mut duplicate_count) = (0, 0);
        for (key, value) in labels.into_iter().filter(|(key, _)| allowed(key)) {
            let name = label_name(key);
            if reserved.contains(&name) {
                reserved_count += 1;
            } else if shown.iter().any(|(known, _)| **known == name) {
                duplicate_count += 1;
            } else {
                shown.push((name.into(), value.into()));
            }
        }
        PodLabels { shown, dropped: [("reserved", reserved_count), ("duplicate", duplicate_count)] }
    }
}

/// The key with underscores in place of characters that are not valid in a Prometheus label name.
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
        let PodLabels { shown, .. } = list.allowed_labels(labels.iter().copied(), &reserved);
        shown.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn names_are_converted_to_valid_label_names() {
        let labels =
            [("app.kubernetes.io/name", "a"), ("app-kubernetes-io/name", "b"), ("7s", "c")];
        assert_eq!(shown(&[], &labels), "app_kubernetes_io_name=a _7s=c");
        assert_eq!(shown(&[], &[("pod", "forged"), ("x", "y")]), "x=y");
    }

    #[test]
    fn dropped_labels_are_counted() {
        let reserved = ReservedLabels::of(&Dialect::Ack);
        let labels = [("xid", "a"), ("app-x", "b"), ("app.x", "c"), ("job", "d"), ("no", "e")];
        let list = Allowlist::new(&["^(xid|app|job)".to_owned()]).unwrap();
        let labels = list.allowed_labels(labels, &reserved);
        assert_eq!(labels.dropped, [("reserved", 2), ("duplicate", 1)]);
        assert_eq!(labels.shown, [("app_x".into(), "b".into())]);
    }

    #[test]
    fn only_labels_that_match_a_pattern_are_allowed() {
        let labels = [("app", "a"), ("team", "b"), ("team-lead", "c")];
        assert_eq!(shown(&["^team$", "^app"], &labels), "app=a team=b");
        assert_eq!(shown(&["team", ""], &labels), "team=b team_lead=c");
        let error = Allowlist::new(&["(".to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("--kubernetes-pod-label-allowlist-regex (: "), "{error}");
    }
}
