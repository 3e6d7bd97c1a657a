//! Validation of labels and annotations: an API server rejects objects with invalid ones.

use std::{collections::BTreeMap, ops::Range};

use toml::Spanned;

use crate::scenario_file::error::{SpannedError, ValidationResult};

/// Longest name of a key without its prefix, and longest value of a label, in bytes.
const MAX_NAME: usize = 63;
/// Longest prefix of a key, in bytes.
const MAX_PREFIX: usize = 253;

/// The labels of a pod.
pub(super) fn labels(
    table: Option<&Spanned<BTreeMap<String, String>>>,
) -> ValidationResult<BTreeMap<String, String>> {
    let Some(table) = table else { return Ok(BTreeMap::new()) };
    for (key, value) in table.get_ref() {
        ensure_key("label", key, table.span())?;
        ensure_value(value, table.span())?;
    }
    Ok(table.get_ref().clone())
}

/// The annotations of a pod; their values can be any text.
pub(super) fn annotations(
    table: Option<&Spanned<BTreeMap<String, String>>>,
) -> ValidationResult<BTreeMap<String, String>> {
    let Some(table) = table else { return Ok(BTreeMap::new()) };
    table.get_ref().keys().try_for_each(|key| ensure_key("annotation", key, table.span()))?;
    Ok(table.get_ref().clone())
}

/// `kind` is `label` or `annotation`.
pub(super) fn ensure_key(kind: &str, key: &str, at: Range<usize>) -> ValidationResult<()> {
    let (prefix, name) = match key.rsplit_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if is_name(name) && prefix.is_none_or(is_domain) {
        return Ok(());
    }
    let text = format!(
        "an API server rejects the {kind} key \"{key}\": write 1 to {MAX_NAME} letters, digits, '-', '_' \
         and '.' with a letter or digit at both ends, after an optional DNS name and '/'"
    );
    Err(SpannedError::new(at, text))
}

pub(super) fn ensure_value(value: &str, at: Range<usize>) -> ValidationResult<()> {
    if value.is_empty() || is_name(value) {
        return Ok(());
    }
    let text = format!(
        "an API server rejects the label value \"{value}\": write at most {MAX_NAME} letters, digits, \
         '-', '_' and '.' with a letter or digit at both ends"
    );
    Err(SpannedError::new(at, text))
}

fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= MAX_NAME
        && bytes.iter().copied().all(inner)
        && edge(bytes.first())
        && edge(bytes.last())
}

fn is_domain(text: &str) -> bool {
    let part = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty()
            && part.bytes().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= MAX_PREFIX && text.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use crate::{
        scenario::Scenario,
        scenario_file::validate::test_scenario::{GPU, error_of},
    };

    fn pod(rest: &str) -> String {
        format!("{GPU}[[pod]]\nname = \"p\"\n{rest}\ncontainers = [{{ name = \"c\" }}]\n")
    }

    #[test]
    fn labels_that_an_api_server_accepts_are_accepted() {
        let long = "x".repeat(63);
        let labels = format!(
            "labels = {{ app = \"\", \"app.kubernetes.io/Na_me\" = \"a.B_c-1\", \"7\" = \"{long}\" }}"
        );
        let annotations = "annotations = { \"scheduler.io/x\" = \"any \\n text {}\" }";
        for valid in [labels.as_str(), annotations] {
            assert!(Scenario::parse("test", &pod(valid)).is_ok(), "{valid}");
        }
    }

    #[test]
    fn labels_that_no_api_server_accepts_have_line_reason_and_remedy() {
        let key = |kind: &str, key: &str| {
            format!(
                "5: an API server rejects the {kind} key \"{key}\": write 1 to 63 letters, digits, '-', \
                 '_' and '.' with a letter or digit at both ends, after an optional DNS name and '/'"
            )
        };
        let value = |value: &str| {
            format!(
                "5: an API server rejects the label value \"{value}\": write at most 63 letters, \
                 digits, '-', '_' and '.' with a letter or digit at both ends"
            )
        };
        let long = "x".repeat(64);
        for (table, expected) in [
            ("labels = { \"größe\" = \"1\" }".to_owned(), key("label", "größe")),
            ("labels = { \"\" = \"1\" }".to_owned(), key("label", "")),
            ("labels = { \"-a\" = \"1\" }".to_owned(), key("label", "-a")),
            ("labels = { \"A.io/x\" = \"1\" }".to_owned(), key("label", "A.io/x")),
            ("labels = { \"/x\" = \"1\" }".to_owned(), key("label", "/x")),
            (format!("labels = {{ {long} = \"1\" }}"), key("label", &long)),
            ("annotations = { \"a b\" = \"1\" }".to_owned(), key("annotation", "a b")),
            ("labels = { a = \"say hi\" }".to_owned(), value("say hi")),
            ("labels = { a = \"x-\" }".to_owned(), value("x-")),
            (format!("labels = {{ a = \"{long}\" }}"), value(&long)),
        ] {
            assert_eq!(error_of(&pod(&table)), expected, "for {table}");
        }
        let node = "[cluster]\nlabels = [{ key = \"a b\", value = \"x\" }]\n";
        let error = error_of(&format!("{GPU}{node}"));
        assert!(error.starts_with("4: an API server rejects the label key \"a b\""), "{error}");
    }
}
