//! Parser of a counters file: the selected families, as comma-separated name, type and help text.
//!
//! The format is dcgm-exporter's: a comment begins with `#` in the first column only, a record has
//! exactly three fields, spaces around a field are ignored, and a help text with a comma is quoted.

pub mod watcher;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;

use crate::catalog::{CatalogRow, Kind, find, nearest, refused};
use crate::model::Problem;
use crate::sanitize::truncate_for_log;
use crate::selection::FamilyRequest;

/// Maximum size of a counters file, bytes.
pub const FILE_MAX: u64 = 1 << 20;
/// Errors of one file that are reported.
const REPORTED_MAX: usize = 5;
/// Errors after which parsing stops: the file is not a counters file.
const ERRORS_MAX: usize = 100;
/// Records of one file that are reported as left out.
const REMARKS_MAX: usize = 200;
/// Characters of the file's text that an error quotes; longer than any name.
const QUOTED_MAX: usize = 80;
/// Types of the format.
const TYPES: [&str; 6] = ["gauge", "counter", "label", "untyped", "histogram", "summary"];

/// A parsed counters file.
#[derive(Debug, Default, PartialEq)]
pub struct Counters {
    /// The selected families, in the order of the file.
    pub requests: Vec<FamilyRequest>,
    /// Records that were left out, each as a sentence with its line.
    pub warnings: Vec<String>,
}

impl Counters {
    /// Adds the reason why the record at `line` is left out; those beyond the maximum are not reported.
    fn leave_out(&mut self, line: u64, reason: impl FnOnce() -> String) {
        match self.warnings.len() {
            ..REMARKS_MAX => self.warnings.push(format!("line {line}: {}", reason())),
            REMARKS_MAX => self.warnings.push(format!("line {line} and later: more is left out")),
            _ => {}
        }
    }
}

/// All errors of a counters file, each as a sentence with its line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct CountersError(Vec<Problem>);

impl fmt::Display for CountersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: Vec<String> =
            self.0.iter().take(REPORTED_MAX).map(Problem::to_string).collect();
        f.write_str(&errors.join("; "))?;
        match self.0.len().saturating_sub(REPORTED_MAX) {
            0 => Ok(()),
            more if self.0.len() < ERRORS_MAX => write!(f, "; and {more} more"),
            more => write!(f, "; and at least {more} more"),
        }
    }
}

impl CountersError {
    /// Message and remedy; of several errors, the message contains the remedy of each.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self.0.as_slice() {
            [error] => error.clone(),
            _ => Problem::without_remedy(self.to_string()),
        }
    }
}

/// Parses a counters file.
///
/// # Errors
/// The file is not UTF-8, has a malformed record or an unknown type, an unknown name that does not begin
/// with `DCGM_`, or no record.
pub fn parse(bytes: &[u8]) -> Result<Counters, CountersError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count();
        let message = format!("line {}: not UTF-8", line + 1);
        CountersError(vec![Problem::new(message, "save the file as UTF-8")])
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        // Without a line end, the reader takes a final comment for a record.
        .from_reader(text.as_bytes().chain(&b"\n"[..]));
    let (mut counters, mut errors) = (Counters::default(), Vec::new());
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for record in reader.records() {
        // The only error left: the text is UTF-8, and records may have any number of fields.
        let Ok(record) = record else {
            errors.push(Problem::new("the file ends within a record", "close its quoted text"));
            break;
        };
        let line = record.position().map_or(0, |position| line_of(text, position));
        match parse_record(&record, line, &mut lines) {
            Ok(Record::Selected(request)) => counters.requests.push(request),
            Ok(Record::Duplicate(name, first)) => counters.leave_out(line, || {
                format!("{name} is already selected in line {first}; this line is ignored")
            }),
            Ok(Record::Unknown(name)) => counters.leave_out(line, || unknown_field(&name)),
            Err(error) => errors.push(error.at(format!("line {line}"))),
        }
        if errors.len() >= ERRORS_MAX {
            break;
        }
    }
    if errors.is_empty() && counters.requests.is_empty() && counters.warnings.is_empty() {
        errors.push(Problem::new(
            "the file selects no known metric family",
            "add one per line, as listed by --print-metrics=csv",
        ));
    }
    if errors.is_empty() { Ok(counters) } else { Err(CountersError(errors)) }
}

/// The line on which a record begins; `position` is at the comments and empty lines before it.
fn line_of(text: &str, position: &csv::Position) -> u64 {
    let from = usize::try_from(position.byte()).ok().and_then(|byte| text.get(byte..));
    let skipped = from.unwrap_or_default().lines();
    let skipped = skipped.take_while(|line| line.is_empty() || line.starts_with('#')).count();
    position.line() + u64::try_from(skipped).unwrap_or_default()
}

enum Record {
    Selected(FamilyRequest),
    /// A name, and the line that selects it already.
    Duplicate(String, u64),
    /// The name of a field that has no row.
    Unknown(String),
}

fn parse_record(
    record: &csv::StringRecord,
    line: u64,
    lines: &mut BTreeMap<String, u64>,
) -> Result<Record, Problem> {
    let fields: Vec<&str> = record.iter().map(|field| field.trim_matches(' ')).collect();
    let [name, kind, help] = fields[..] else { return Err(field_count_error(&fields)) };
    let row = match find(name) {
        Some(row) => row,
        // Fields of CPUs, switches and DCGM's own modules, and those of later versions of DCGM.
        None if name.starts_with("DCGM_") && TYPES.contains(&kind) => {
            return Ok(Record::Unknown(name.to_owned()));
        }
        None if name.starts_with("DCGM_") => return Err(unknown_type(kind)),
        None => return Err(unknown_family(name)),
    };
    let kind = exported_kind(kind, &row, name)?;
    if let Some(before) = lines.insert(name.to_owned(), line) {
        return Ok(Record::Duplicate(name.to_owned(), before));
    }
    // HELP is written unescaped: a newline or a backslash would break the exposition.
    let help: String =
        help.chars().map(|c| if c.is_control() || c == '\\' { ' ' } else { c }).collect();
    let help = if help.is_empty() { row.help.to_owned() } else { help };
    Ok(Record::Selected(FamilyRequest {
        row: row.name,
        name: name.into(),
        kind,
        help: help.into(),
    }))
}

/// The type to export `row` with, by the type of a record; `None` for a label. `name` is the name in the
/// record.
fn exported_kind(kind: &str, row: &CatalogRow, name: &str) -> Result<Option<Kind>, Problem> {
    match (kind, row.is_info_label) {
        ("label", _) if row.can_be_label => Ok(None),
        ("gauge" | "untyped", false) => Ok(Some(Kind::Gauge)),
        ("counter", false) => Ok(Some(Kind::Counter)),
        ("label", _) => Err(Problem::new(
            format!("{name} may have several values per GPU and cannot be a label"),
            format!("use the type {}", row.kind.as_str()),
        )),
        ("gauge" | "counter" | "untyped", true) => Err(Problem::new(
            format!("{name} is a string without a series of its own"),
            "use the type label",
        )),
        ("histogram" | "summary", _) => Err(Problem::new(
            format!("{name} is not a {kind}"),
            format!("use the type {}", row.kind.as_str()),
        )),
        _ => Err(unknown_type(kind)),
    }
}

fn unknown_type(kind: &str) -> Problem {
    Problem::new(
        format!("unknown type {:?}", truncate_for_log(kind, QUOTED_MAX)),
        "use gauge, counter or label",
    )
}

fn field_count_error(fields: &[&str]) -> Problem {
    let known = fields.first().and_then(|name| find(name));
    match (fields.len(), known) {
        (_, None) if fields.first().is_some_and(|name| name.starts_with('#')) => Problem::new(
            "a comment must begin with # in the first column",
            "remove the spaces before it",
        ),
        (count @ 4.., Some(row)) => Problem::new(
            field_count(count),
            format!(
                "quote a help text with a comma, without a space before the opening quote, as in \
                 {},{},\"a, b\"",
                row.name,
                row.kind.as_str()
            ),
        ),
        (count, _) => Problem::new(
            field_count(count),
            "write NAME, TYPE, HELP, as in DCGM_FI_DEV_GPU_UTIL, gauge, GPU utilization (in %).",
        ),
    }
}

fn field_count(count: usize) -> String {
    format!("{count} field{} instead of 3", if count == 1 { "" } else { "s" })
}

fn unknown_family(name: &str) -> Problem {
    let name = truncate_for_log(name, QUOTED_MAX);
    let near =
        nearest(&name).filter(|near| strsim::osa_distance(&name, near) <= name.len() / 5 + 1);
    let remedy = near.map_or("--print-metrics lists all families".to_owned(), |near| {
        format!("did you mean {near}?")
    });
    Problem::new(format!("unknown metric family {name:?}"), remedy)
}

fn unknown_field(name: &str) -> String {
    let reason = refused::reason(name);
    let name = truncate_for_log(name, QUOTED_MAX);
    if let Some(reason) = reason {
        return format!("{name:?} is left out: {reason}");
    }
    let near = nearest(&name).unwrap_or_default();
    format!(
        "{name:?} is unknown or not available through NVML, and is left out; the nearest known name is {near}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names_of(text: &str) -> Vec<String> {
        parse(text.as_bytes()).unwrap().requests.iter().map(|r| r.name.to_string()).collect()
    }

    fn error_of(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn accepts_dcgm_exporter_files() {
        let text = "# Format\n\
                    \n\
                    DCGM_FI_DEV_SM_CLOCK,  gauge, SM clock (in MHz).\n\
                    DCGM_FI_DEV_DEC_UTIL ,     gauge, Decoder utilization (in %).\r\n\
                    DCGM_FI_DRIVER_VERSION,label,Driver Version\n\
                    dcgm_gpu_temp,gauge,\"one, two\"\n\
                    DCGM_FI_DEV_XID_ERRORS,counter,\n";
        let counters = parse(text.as_bytes()).unwrap();
        let of = |at: usize| {
            let request: &FamilyRequest = &counters.requests[at];
            (&*request.name, request.row, request.kind, &*request.help)
        };
        let gauge = Some(Kind::Gauge);
        assert_eq!(of(0).3, "SM clock (in MHz).");
        assert_eq!(of(1).0, "DCGM_FI_DEV_DEC_UTIL");
        assert_eq!(of(2).2, None);
        assert_eq!(of(3), ("dcgm_gpu_temp", "DCGM_FI_DEV_GPU_TEMP", gauge, "one, two"));
        assert_eq!(of(4).2, Some(Kind::Counter), "as written");
        assert!(of(4).3.starts_with("The last XID"), "the help text of the catalogue");
        assert_eq!(counters.warnings, Vec::<String>::new());
    }

    #[test]
    fn unknown_fields_and_duplicates_are_left_out_with_a_remark() {
        let text = "DCGM_FI_DEV_GPU_TEMP,gauge,x\nDCGM_FI_DEV_CPU_UTIL_TOTAL,gauge,x\n\
                    DCGM_FI_DEV_GPU_TEMP,gauge,y\nDCGM_FI_DEV_GPU_TEMPERATURE,gauge,x\n";
        let counters = parse(text.as_bytes()).unwrap();
        assert_eq!(counters.requests.len(), 1);
        let [refused, duplicate, unknown] = &counters.warnings[..] else { panic!("{counters:?}") };
        assert_eq!(
            refused,
            "line 2: \"DCGM_FI_DEV_CPU_UTIL_TOTAL\" is left out: of a CPU, which NVML does not read"
        );
        let expected = "line 4: \"DCGM_FI_DEV_GPU_TEMPERATURE\" is unknown or not available through NVML, and \
                        is left out; the nearest known name is DCGM_FI_DEV_GPU_TEMP";
        assert_eq!(unknown, expected);
        assert_eq!(
            duplicate,
            "line 3: DCGM_FI_DEV_GPU_TEMP is already selected in line 1; this line is ignored"
        );
    }

    #[test]
    fn every_error_has_its_line_and_a_fix() {
        for (text, expected) in [
            (
                "dcgm_gpu_utilisation,gauge,x",
                "line 1: unknown metric family \"dcgm_gpu_utilisation\"; did you mean \
                 dcgm_gpu_utilization?",
            ),
            ("DCGM_FI_DEV_UNKNOWN,guage,x", "line 1: unknown type \"guage\""),
            ("DCGM_FI_DEV_UNKNOWN,gauge", "line 1: 2 fields instead of 3"),
            (
                "# c\n\nDCGM_FI_DEV_GPU_UTIL,gauge",
                "line 3: 2 fields instead of 3; write NAME, TYPE, HELP",
            ),
            (
                "DCGM_FI_DEV_GPU_UTIL,gauge,a, b",
                "line 1: 4 fields instead of 3; quote a help text with a comma",
            ),
            ("  # indented", "line 1: a comment must begin with # in the first column"),
            (
                "DCGM_FI_DEV_GPU_UTIL,guage,x",
                "line 1: unknown type \"guage\"; use gauge, counter or label",
            ),
            ("DCGM_FI_DEV_GPU_UTIL,histogram,x", "is not a histogram; use the type gauge"),
            (
                "DCGM_EXP_P2P_STATUS,label,x",
                "may have several values per GPU and cannot be a label",
            ),
            ("DCGM_CUSTOM_PROCESS_MEM_USED,label,x", "cannot be a label; use the type gauge"),
            (
                "DCGM_FI_DRIVER_VERSION,gauge,x",
                "is a string without a series of its own; use the type label",
            ),
            (
                "nonsense,gauge,x",
                "line 1: unknown metric family \"nonsense\"; --print-metrics lists all",
            ),
            ("", "the file selects no known metric family"),
            ("# nothing\n", "the file selects no known metric family"),
        ] {
            let error = error_of(text);
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        assert!(parse(b"DCGM_FI_DEV_GPU_UTIL,gauge,\xff").is_err());
        let long = format!("{0},gauge,x\nDCGM_FI_DEV_GPU_UTIL,{0},x\n", "é\u{7}".repeat(10_000));
        assert!(error_of(&long).len() < 1000, "quoted text is truncated");
        let many = "x,gauge,y\n".repeat(9);
        assert!(error_of(&many).ends_with("; and 4 more"));
        assert!(error_of(&"x,gauge,y\n".repeat(100_000)).ends_with("; and at least 95 more"));
    }

    #[test]
    fn numbers_and_texts_can_be_labels() {
        for name in [
            "DCGM_FI_DRIVER_VERSION",
            "DCGM_FI_CUDA_DRIVER_VERSION",
            "DCGM_FI_DEV_FB_TOTAL",
            "DCGM_FI_DEV_COUNT",
            "DCGM_FI_DEV_XID_ERRORS",
        ] {
            let counters = parse(format!("{name}, label, x\n").as_bytes()).unwrap();
            assert_eq!(counters.requests[0].kind, None, "{name}");
        }
    }

    #[test]
    fn file_of_unknown_fields_selects_nothing() {
        let counters = parse(b"DCGM_FI_DEV_LATER,gauge,x\nDCGM_NEW,label,\n").unwrap();
        assert_eq!((counters.requests.len(), counters.warnings.len()), (0, 2));
        let long = format!("DCGM_{},gauge,x\n", "\u{7}é".repeat(10_000));
        let counters = parse(long.repeat(20).as_bytes()).unwrap();
        assert!(counters.warnings.iter().all(|remark| remark.len() < 400));
        let many = parse("DCGM_X,gauge,x\n".repeat(50_000).as_bytes()).unwrap();
        assert_eq!(many.warnings.len(), REMARKS_MAX + 1);
        assert_eq!(many.warnings[REMARKS_MAX], "line 201 and later: more is left out");
    }

    #[test]
    fn last_line_may_lack_a_line_end() {
        for last in ["# a comment", "#", "", "dcgm_gpu_temp,gauge,\"a\"", "dcgm_gpu_temp,gauge,"] {
            let text = format!("DCGM_FI_DEV_GPU_UTIL,gauge,x\n{last}");
            let names = names_of(&text);
            assert_eq!(names, names_of(&format!("{text}\n")), "{last}");
            assert_eq!(names.len(), if last.contains(',') { 2 } else { 1 }, "{last}");
        }
    }

    #[test]
    fn help_text_cannot_break_the_exposition() {
        let text = "DCGM_FI_DEV_GPU_UTIL,gauge,\"two\nlines \\n\"\n";
        assert_eq!(&*parse(text.as_bytes()).unwrap().requests[0].help, "two lines  n");
        assert_eq!(names_of("\u{feff}DCGM_FI_DEV_GPU_UTIL,gauge,x"), ["DCGM_FI_DEV_GPU_UTIL"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_rejected(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_record_is_parsed_or_rejected(text in "(DCGM_FI_DEV_GPU_TEMP|[#\" ,\n]|gauge|é|x){0,20}") {
            let _ = parse(text.as_bytes());
        }
    }
}
