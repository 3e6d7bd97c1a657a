//! `/proc/PID/stat`.

use nvml_exporter::host::stat::{Stat, parse};

/// The process name is the text in parentheses, and a printed result parses to the same value.
pub(crate) fn check(text: &[u8]) {
    let Some(stat) = parse(text) else { return };
    let Stat { name, state, started } = &stat;
    assert!(String::from_utf8_lossy(text).contains(&format!(" ({name}) ")));
    let printed = format!("7 ({name}) {state} 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {started} 0");
    assert_eq!(parse(printed.as_bytes()), Some(stat));
}
