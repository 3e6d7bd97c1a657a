//! Validation of values that several tables have: GPU indexes, texts, words and names.

use toml::Spanned;

use crate::scenario_file::error::{SpannedError, ValidationResult, ensure, suggestion};

pub(super) fn ensure_gpu_exists(gpu: &Spanned<usize>, gpus: usize) -> ValidationResult<()> {
    let index = *gpu.get_ref();
    ensure(index < gpus, gpu, || unknown_gpu_error(index, gpus))
}

pub(super) fn unknown_gpu_error(index: usize, gpus: usize) -> String {
    format!(
        "GPU {index} does not exist: the scenario has {gpus}, write 0 to {}",
        gpus.saturating_sub(1)
    )
}

/// Rejects texts that a C string or a /proc file cannot contain.
pub(super) fn validate_text(key: &str, value: &Spanned<String>) -> ValidationResult<String> {
    let text = value.get_ref();
    ensure(!text.is_empty(), value, || format!("{key} is empty: write at least one character"))?;
    ensure(!text.contains('\0'), value, || format!("{key} contains a NUL character: remove it"))?;
    Ok(text.clone())
}

/// The value of one of the `known` words.
pub(super) fn parse_word<T: Copy>(
    key: &str,
    value: Option<&Spanned<String>>,
    known: &[(&str, T)],
) -> ValidationResult<Option<T>> {
    let Some(value) = value else { return Ok(None) };
    let word = value.get_ref().as_str();
    let found = known.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
    found.map(Some).ok_or_else(|| {
        let hint = suggestion(word, known.iter().map(|(name, _)| *name));
        let hint = if hint.is_empty() { ":" } else { hint.as_str() };
        let all: Vec<_> = known.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let text = format!("{key} = \"{word}\" is unknown{hint} write one of {}", all.join(", "));
        SpannedError::new(value.span(), text)
    })
}

/// Rejects names that Kubernetes does not accept; `max` is the longest length.
pub(super) fn validate_name(
    key: &str,
    value: &Spanned<String>,
    max: usize,
) -> ValidationResult<String> {
    let text = value.get_ref();
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let edge = |c: char| !"-.".contains(c);
    let valid = (1..=max).contains(&text.len())
        && text.chars().all(legal)
        && text.starts_with(edge)
        && text.ends_with(edge);
    ensure(valid, value, || {
        format!(
            "{key} = \"{text}\" is not a name: write at most {max} lower-case letters, digits and dashes"
        )
    })?;
    Ok(text.clone())
}
