//! A counters file: which families to show, as comma-separated names, types and helps.
//!
//! The format is dcgm-exporter's, with what its users lean on: a comment begins with `#` in the first
//! column and nowhere else, a record has exactly three fields, blanks around a field do not count, and
//! a help with a comma needs quotes.

pub mod follow;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;

use crate::catalog::unanswered::is_unanswered;
use crate::catalog::{Kind, find, names};
use crate::quote::in_part;
use crate::selection::Request;

/// The largest counters file.
pub const FILE_MAX: u64 = 1 << 20;
/// Complaints of one file that are told.
const COMPLAINTS_MAX: usize = 5;
/// Complaints after which a file is read no further: it is no counters file.
const COMPLAINTS_ENOUGH: usize = 100;
/// Characters of what was written that a complaint quotes; no name is as long.
const QUOTED_MAX: usize = 80;

/// What a counters file asks for.
#[derive(Debug, Default, PartialEq)]
pub struct Counters {
    /// The families.
    pub requests: Vec<Request>,
    /// What it asks for in vain, as sentences.
    pub remarks: Vec<String>,
}

/// Everything that is wrong with a counters file, each with its line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct CountersError(Vec<String>);

impl fmt::Display for CountersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<&str> = self.0.iter().take(COMPLAINTS_MAX).map(String::as_str).collect();
        f.write_str(&told.join("; "))?;
        match self.0.len().saturating_sub(COMPLAINTS_MAX) {
            0 => Ok(()),
            more if self.0.len() < COMPLAINTS_ENOUGH => write!(f, "; and {more} more"),
            more => write!(f, "; and at least {more} more"),
        }
    }
}

/// Reads a counters file.
///
/// # Errors
/// Every line that is no record, and names and types that do not exist.
pub fn parse(bytes: &[u8]) -> Result<Counters, CountersError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count();
        CountersError(vec![format!("line {}: not UTF-8; save the file as UTF-8", line + 1)])
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        // A comment that no line end follows would be taken for a record.
        .from_reader(text.as_bytes().chain(&b"\n"[..]));
    let (mut counters, mut complaints) = (Counters::default(), Vec::new());
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for record in reader.records() {
        // Text that is UTF-8 and may have any number of fields gives no other error than this.
        let Ok(record) = record else {
            complaints.push("the file ends within a record".to_owned());
            break;
        };
        let line = record.position().map_or(0, |position| line_of(text, position));
        match read(&record, line, &mut lines) {
            Ok(Asked::For(request)) => counters.requests.push(request),
            Ok(Asked::InVain(remark)) => counters.remarks.push(format!("line {line}: {remark}")),
            Err(complaint) => complaints.push(format!("line {line}: {complaint}")),
        }
        if complaints.len() >= COMPLAINTS_ENOUGH {
            break;
        }
    }
    if complaints.is_empty() && counters.requests.is_empty() {
        complaints.push("it asks for no family that there is".to_owned());
    }
    if complaints.is_empty() { Ok(counters) } else { Err(CountersError(complaints)) }
}

/// The line on which a record begins: comments and empty lines before it are counted to it.
fn line_of(text: &str, position: &csv::Position) -> u64 {
    let from = usize::try_from(position.byte()).ok().and_then(|byte| text.get(byte..));
    let skipped = from.unwrap_or_default().lines();
    let skipped = skipped.take_while(|line| line.is_empty() || line.starts_with('#')).count();
    position.line() + u64::try_from(skipped).unwrap_or_default()
}

enum Asked {
    For(Request),
    InVain(String),
}

fn read(
    record: &csv::StringRecord,
    line: u64,
    lines: &mut BTreeMap<String, u64>,
) -> Result<Asked, String> {
    let fields: Vec<&str> = record.iter().map(|field| field.trim_matches(' ')).collect();
    let [name, kind, help] = fields[..] else { return Err(wrong_fields(&fields)) };
    let row = match find(name) {
        Some(row) => row,
        None if is_unanswered(name) => {
            return Ok(Asked::InVain(format!(
                "{name} is not among what NVML tells; it is left out"
            )));
        }
        None => return Err(unknown(name)),
    };
    let kind = match (kind, row.is_text) {
        ("label", true) => None,
        ("gauge" | "untyped", false) => Some(Kind::Gauge),
        ("counter", false) => Some(Kind::Counter),
        ("label", false) => {
            return Err(format!(
                "{name} is a number and cannot be a label; type it {}",
                row.kind.word()
            ));
        }
        ("gauge" | "counter" | "untyped", true) => {
            return Err(format!("{name} is a text and has no series of its own; type it label"));
        }
        ("histogram" | "summary", _) => {
            return Err(format!("{name} is no {kind}; type it {}", row.kind.word()));
        }
        _ => {
            return Err(format!(
                "{:?} is no type; give gauge, counter or label",
                in_part(kind, QUOTED_MAX)
            ));
        }
    };
    if let Some(before) = lines.insert(name.to_owned(), line) {
        return Ok(Asked::InVain(format!("{name} stands in line {before} already, which counts")));
    }
    // A newline would break the page, a backslash would be taken for the begin of one.
    let help: String =
        help.chars().map(|c| if c.is_control() || c == '\\' { ' ' } else { c }).collect();
    let help = if help.is_empty() { row.help.to_owned() } else { help };
    Ok(Asked::For(Request { row: row.name, name: name.into(), kind, help: help.into() }))
}

fn wrong_fields(fields: &[&str]) -> String {
    let known = fields.first().and_then(|name| find(name));
    match (fields.len(), known) {
        (_, None) if fields.first().is_some_and(|name| name.starts_with('#')) => {
            "a comment begins with # in the first column; remove the blanks before it".to_owned()
        }
        (4.., Some(row)) => format!(
            "{} fields instead of 3: a help with a comma needs quotes, with no blank before the \
             first, as in {},{},\"a, b\"",
            fields.len(),
            row.name,
            row.kind.word()
        ),
        (count, _) => format!(
            "{count} fields instead of 3; give NAME, TYPE, HELP as in \
             DCGM_FI_DEV_GPU_UTIL, gauge, GPU utilization (in %)."
        ),
    }
}

fn unknown(name: &str) -> String {
    let name = in_part(name, QUOTED_MAX);
    let far = name.len() / 5 + 1;
    let mut near: Vec<(usize, &str)> = names()
        .filter(|known| known.len().abs_diff(name.len()) <= far)
        .map(|known| (strsim::osa_distance(&name, known), known))
        .filter(|(distance, _)| *distance <= far)
        .collect();
    near.sort_unstable();
    let near: Vec<&str> = near.into_iter().take(3).map(|(_, name)| name).collect();
    if near.is_empty() {
        format!("{name:?} is no family; --print-metrics lists them")
    } else {
        format!("{name:?} is no family; did you mean {}?", near.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names_of(text: &str) -> Vec<String> {
        parse(text.as_bytes()).unwrap().requests.iter().map(|r| r.name.to_string()).collect()
    }

    fn complaint(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn records_are_read_as_their_users_write_them() {
        let text = "# Format\n\
                    \n\
                    DCGM_FI_DEV_SM_CLOCK,  gauge, SM clock (in MHz).\n\
                    DCGM_FI_DEV_DEC_UTIL ,     gauge, Decoder utilization (in %).\r\n\
                    DCGM_FI_DRIVER_VERSION,label,Driver Version\n\
                    dcgm_gpu_temp,gauge,\"one, two\"\n\
                    DCGM_FI_DEV_XID_ERRORS,counter,\n";
        let counters = parse(text.as_bytes()).unwrap();
        let of = |at: usize| {
            let request: &Request = &counters.requests[at];
            (&*request.name, request.row, request.kind, &*request.help)
        };
        let gauge = Some(Kind::Gauge);
        assert_eq!(of(0).3, "SM clock (in MHz).");
        assert_eq!(of(1).0, "DCGM_FI_DEV_DEC_UTIL");
        assert_eq!(of(2).2, None);
        assert_eq!(of(3), ("dcgm_gpu_temp", "DCGM_FI_DEV_GPU_TEMP", gauge, "one, two"));
        assert_eq!(of(4).2, Some(Kind::Counter), "as written");
        assert!(of(4).3.starts_with("The last XID"), "the table's own help");
        assert_eq!(counters.remarks, Vec::<String>::new());
    }

    #[test]
    fn what_is_asked_in_vain_is_remarked_and_left_out() {
        let text = "DCGM_FI_DEV_GPU_TEMP,gauge,x\nDCGM_FI_DEV_CPU_UTIL_TOTAL,gauge,x\n\
                    DCGM_FI_DEV_GPU_TEMP,gauge,y\n";
        let counters = parse(text.as_bytes()).unwrap();
        assert_eq!(counters.requests.len(), 1);
        assert_eq!(
            counters.remarks,
            [
                "line 2: DCGM_FI_DEV_CPU_UTIL_TOTAL is not among what NVML tells; it is left out",
                "line 3: DCGM_FI_DEV_GPU_TEMP stands in line 1 already, which counts",
            ]
        );
    }

    #[test]
    fn every_broken_line_is_named_with_its_mend() {
        for (text, expected) in [
            (
                "DCGM_FI_DEV_GPU_UTL,gauge,x",
                "line 1: \"DCGM_FI_DEV_GPU_UTL\" is no family; did you mean DCGM_FI_DEV_GPU_UTIL",
            ),
            (
                "# c\n\nDCGM_FI_DEV_GPU_UTIL,gauge",
                "line 3: 2 fields instead of 3; give NAME, TYPE, HELP",
            ),
            (
                "DCGM_FI_DEV_GPU_UTIL,gauge,a, b",
                "line 1: 4 fields instead of 3: a help with a comma needs quotes",
            ),
            ("  # indented", "line 1: a comment begins with # in the first column"),
            (
                "DCGM_FI_DEV_GPU_UTIL,guage,x",
                "line 1: \"guage\" is no type; give gauge, counter or label",
            ),
            ("DCGM_FI_DEV_GPU_UTIL,histogram,x", "is no histogram; type it gauge"),
            ("DCGM_FI_DEV_GPU_UTIL,label,x", "is a number and cannot be a label"),
            (
                "DCGM_FI_DRIVER_VERSION,gauge,x",
                "is a text and has no series of its own; type it label",
            ),
            ("nonsense,gauge,x", "line 1: \"nonsense\" is no family; --print-metrics lists them"),
            ("", "it asks for no family that there is"),
            ("# nothing\n", "it asks for no family that there is"),
        ] {
            let complaint = complaint(text);
            assert!(complaint.contains(expected), "{text:?}: {complaint}");
        }
        assert!(parse(b"DCGM_FI_DEV_GPU_UTIL,gauge,\xff").is_err());
        let long = format!("{0},gauge,x\nDCGM_FI_DEV_GPU_UTIL,{0},x\n", "é\u{7}".repeat(10_000));
        assert!(complaint(&long).len() < 1000, "what was written is quoted in part");
        let many = "x,gauge,y\n".repeat(9);
        assert!(complaint(&many).ends_with("; and 4 more"));
        assert!(complaint(&"x,gauge,y\n".repeat(100_000)).ends_with("; and at least 95 more"));
    }

    #[test]
    fn the_last_line_needs_no_end() {
        for last in ["# a comment", "#", "", "dcgm_gpu_temp,gauge,\"a\"", "dcgm_gpu_temp,gauge,"] {
            let text = format!("DCGM_FI_DEV_GPU_UTIL,gauge,x\n{last}");
            let names = names_of(&text);
            assert_eq!(names, names_of(&format!("{text}\n")), "{last}");
            assert_eq!(names.len(), if last.contains(',') { 2 } else { 1 }, "{last}");
        }
    }

    #[test]
    fn a_help_cannot_break_the_page() {
        let text = "DCGM_FI_DEV_GPU_UTIL,gauge,\"two\nlines \\n\"\n";
        assert_eq!(&*parse(text.as_bytes()).unwrap().requests[0].help, "two lines  n");
        assert_eq!(names_of("\u{feff}DCGM_FI_DEV_GPU_UTIL,gauge,x"), ["DCGM_FI_DEV_GPU_UTIL"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_record_is_read_or_refused(text in "(DCGM_FI_DEV_GPU_TEMP|[#\" ,\n]|gauge|é|x){0,20}") {
            let _ = parse(text.as_bytes());
        }
    }
}
