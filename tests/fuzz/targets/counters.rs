//! A counters file.

use nvml_exporter::catalog::find;
use nvml_exporter::counters::parse;

use crate::is_sentence;

/// A file is read with names that there are and helps that fit into a page, or refused with the line.
pub(crate) fn check(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    match parse(bytes) {
        Ok(counters) => {
            assert!(!counters.requests.is_empty());
            for request in &counters.requests {
                assert_eq!(find(&request.name).map(|row| row.name), Some(request.row));
                assert!(!request.help.is_empty());
                assert!(!request.help.contains(|c: char| c.is_control() || c == '\\'));
            }
            for remark in &counters.remarks {
                assert!(is_sentence(remark), "{remark:?}");
                assert!(line_of(remark).is_some_and(|n| (1..=lines).contains(&n)), "{remark}");
            }
        }
        Err(error) => {
            let error = error.to_string();
            assert!(is_sentence(&error), "{error:?}");
            let whole = ["it asks for no family", "the file ends within a record"];
            let of_line = line_of(&error).is_some_and(|n| (1..=lines).contains(&n));
            assert!(of_line || whole.iter().any(|whole| error.starts_with(whole)), "{error}");
        }
    }
}

fn line_of(sentence: &str) -> Option<usize> {
    sentence.strip_prefix("line ")?.split(':').next()?.parse().ok()
}
