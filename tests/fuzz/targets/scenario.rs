//! A scenario of the mock.

/// It is read, and then it is the same each time; or refused with a line that there is.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let said = mock_nvml::check("fuzz", text);
    assert_eq!(mock_nvml::check("fuzz", text), said);
    let Err(complaint) = said else { return };
    let (line, mend) = complaint.split_once(": ").unwrap();
    let lines = text.split('\n').count();
    assert!((1..=lines).contains(&line.parse().unwrap()), "{complaint}");
    assert!(crate::is_sentence(mend), "{complaint:?}");
}
