//! The catalogue as a list, for people and for programs, and as a counters file to begin with.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Serialize;

use crate::catalog::own::OWN;
use crate::catalog::{Kind, Row, rows};
use crate::policy::{SLOW_TIER, Tier};
use crate::selection::Request;

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// A line for each series family
    Table,
    /// An array with all that is known of each
    Json,
    /// A counters file for --collectors: what is shown now, and all else as comments
    Csv,
}

/// One family, as JSON has it.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    scope: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    unit: &'a str,
    help: &'a str,
    source: &'a str,
    read_every: String,
    absent: &'a str,
    shown: bool,
}

/// All families, and which of them are asked for.
///
/// # Errors
/// None in practice: what is listed has a text in every form.
pub fn listing(form: Form, requests: &[Request]) -> anyhow::Result<String> {
    match form {
        Form::Table => Ok(table(requests)),
        Form::Json => {
            let all: Vec<Listed<'_>> = listed(requests).collect();
            Ok(serde_json::to_string_pretty(&all)? + "\n")
        }
        Form::Csv => csv(requests),
    }
}

fn listed(requests: &[Request]) -> impl Iterator<Item = Listed<'_>> {
    let of_gpus = rows().map(|row| Listed {
        name: row.name,
        scope: row.scope,
        kind: kind(&row),
        unit: row.unit,
        help: row.help,
        source: row.symbol,
        read_every: match row.tier {
            Tier::Cycle => "cycle".to_owned(),
            Tier::Video => format!("cycle or {} s", SLOW_TIER.as_secs()),
            Tier::Slow => format!("{} s", SLOW_TIER.as_secs()),
        },
        absent: row.absent,
        shown: requests.iter().any(|request| request.row == row.name),
    });
    let own = OWN.iter().map(|own| Listed {
        name: own.name,
        scope: "exporter",
        kind: own.kind.word(),
        unit: "",
        help: own.help,
        source: "",
        read_every: "cycle".to_owned(),
        absent: "",
        shown: true,
    });
    of_gpus.chain(own)
}

fn table(requests: &[Request]) -> String {
    let all: Vec<Listed<'_>> = listed(requests).collect();
    let width = |of: fn(&Listed<'_>) -> usize| all.iter().map(of).max().unwrap_or_default();
    let (names, scopes) = (width(|row| row.name.len()), width(|row| row.scope.len()));
    let mut text = String::new();
    for row in &all {
        let mark = if row.shown { '*' } else { ' ' };
        let (name, kind, scope, help) = (row.name, row.kind, row.scope, row.help);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{mark} {name:names$}  {kind:7}  {scope:scopes$}  {help}");
    }
    text + "* is shown now\n"
}

/// What is asked for as it is asked for, then the rest behind `#`.
fn csv(requests: &[Request]) -> anyhow::Result<String> {
    let record = |name: &str, kind: &str, help: &str| -> anyhow::Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record([name, kind, help])?;
        Ok(String::from_utf8(writer.into_inner()?)?)
    };
    let mut text = String::new();
    let mut names = BTreeSet::new();
    for request in requests.iter().filter(|request| names.insert(&*request.name)) {
        let kind = request.kind.map_or("label", Kind::word);
        text += &record(&request.name, kind, &request.help)?;
    }
    for row in rows().filter(|row| !requests.iter().any(|request| request.row == row.name)) {
        text += "# ";
        text += &record(row.name, kind(&row), row.help)?;
    }
    Ok(text)
}

fn kind(row: &Row) -> &'static str {
    if row.is_text { "label" } else { row.kind.word() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::counters::parse;
    use crate::labels::{Compat, Dialect};
    use crate::selection::preset;

    #[test]
    fn the_counters_file_asks_for_what_is_shown() {
        for dialect in [Dialect::Ack, Dialect::DcgmExporter(vec![Compat::V4_8, Compat::V4_9])] {
            let mut requests = preset(&dialect);
            let counters = parse(csv(&requests).unwrap().as_bytes()).unwrap();
            let mut names = BTreeSet::new();
            requests.retain(|request| names.insert(Arc::clone(&request.name)));
            assert_eq!(counters.requests, requests);
            assert_eq!(counters.remarks, Vec::<String>::new());
        }
    }

    #[test]
    fn every_family_can_be_asked_for_by_its_comment() {
        let commented = csv(&[]).unwrap().replace("# ", "");
        let counters = parse(commented.as_bytes()).unwrap();
        assert_eq!(counters.requests.len(), rows().count());
    }

    #[test]
    fn every_family_is_in_the_table_and_in_the_json() {
        let all = rows().count() + OWN.len();
        let requests = preset(&Dialect::Ack);
        assert_eq!(table(&requests).lines().count(), all + 1);
        let json: serde_json::Value =
            serde_json::from_str(&listing(Form::Json, &requests).unwrap()).unwrap();
        assert_eq!(json.as_array().unwrap().len(), all);
        let shown = json.as_array().unwrap().iter().filter(|row| row["shown"] == true).count();
        assert_eq!(shown, requests.len() + OWN.len());
    }
}
