//! Labels of pods as labels of series.

use std::sync::Arc;

use regex_lite::Regex;

/// Which labels of a pod are shown: those that one of the patterns matches, or all.
#[derive(Clone, Debug)]
pub struct Allowlist(Vec<Regex>);

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
    /// same name the first is kept, and none that `is_taken`.
    pub fn shown<'a>(
        &self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        is_taken: impl Fn(&str) -> bool,
    ) -> Vec<(Arc<str>, Arc<str>)> {
        let mut shown: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        for (key, value) in labels {
            let name = label_name(key);
            let allowed = self.0.is_empty() || self.0.iter().any(|pattern| pattern.is_match(key));
            if allowed && !is_taken(&name) && !shown.iter().any(|(known, _)| **known == name) {
                shown.push((name.into(), value.into()));
            }
        }
        shown
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

    fn shown(patterns: &[&str], labels: &[(&str, &str)]) -> String {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let list = Allowlist::new(&patterns).unwrap();
        let shown = list.shown(labels.iter().copied(), |name| name == "pod");
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
    fn only_what_a_pattern_matches_is_shown() {
        let labels = [("app", "a"), ("team", "b"), ("team-lead", "c")];
        assert_eq!(shown(&["^team$", "^app"], &labels), "app=a team=b");
        assert_eq!(shown(&["team", ""], &labels), "team=b team_lead=c");
        let error = Allowlist::new(&["(".to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("--kubernetes-pod-label-allowlist-regex (: "), "{error}");
    }
}
