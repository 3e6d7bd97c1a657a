//! `/proc/<pid>/stat`.

use nvml_exporter::host::stat::{Stat, parse};

/// A process has the name that stands in its parentheses, and printed it is read as before.
pub(crate) fn check(text: &[u8]) {
    let Some(stat) = parse(text) else { return };
    let Stat { name, state, started } = &stat;
    assert!(String::from_utf8_lossy(text).contains(&format!(" ({name}) ")));
    let again = format!("7 ({name}) {state} 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {started} 0");
    assert_eq!(parse(again.as_bytes()), Some(stat));
}
