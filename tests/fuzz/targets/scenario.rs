//! Mock scenarios.

/// Checking a scenario is deterministic, and an error names an existing line.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let result = mock_nvml::check("fuzz", text);
    assert_eq!(mock_nvml::check("fuzz", text), result);
    let Err(error) = result else { return };
    let (line, message) = error.split_once(": ").unwrap();
    let lines = text.split('\n').count();
    assert!((1..=lines).contains(&line.parse().unwrap()), "{error}");
    assert!(crate::is_log_line(message), "{error:?}");
}
