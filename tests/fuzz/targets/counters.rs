//! A counters file.

use nvml_exporter::catalog::find;
use nvml_exporter::counters::parse;

use crate::is_log_line;

/// A file is parsed into known families with HELP texts that are valid in an exposition, or rejected with a line
/// number.
pub(crate) fn check(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    match parse(bytes) {
        Ok(counters) => {
            // A file of unknown names only has a remark for each.
            assert!(!counters.requests.is_empty() || !counters.warnings.is_empty());
            for request in &counters.requests {
                assert_eq!(find(&request.name).map(|row| row.name), Some(request.row));
                assert!(!request.help.is_empty());
                assert!(!request.help.contains(|c: char| c.is_control() || c == '\\'));
            }
            for remark in &counters.warnings {
                assert!(is_log_line(remark), "{remark:?}");
                assert!(line_of(remark).is_some_and(|n| (1..=lines).contains(&n)), "{remark}");
            }
        }
        Err(error) => {
            let error = error.to_string();
            assert!(is_log_line(&error), "{error:?}");
            let of_file =
                ["the file selects no known metric family", "the file ends within a record"];
            let of_line = line_of(&error).is_some_and(|n| (1..=lines).contains(&n));
            assert!(of_line || of_file.iter().any(|message| error.starts_with(message)), "{error}");
        }
    }
}

fn line_of(sentence: &str) -> Option<usize> {
    sentence.strip_prefix("line ")?.split(':').next()?.parse().ok()
}
