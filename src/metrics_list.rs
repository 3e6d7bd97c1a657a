//! The catalogue as a table, as JSON, and as a counters file (`--print-metrics`).

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Serialize;

use crate::catalog::exporter_metrics::EXPORTER_METRICS;
use crate::catalog::{CatalogRow, Kind, rows};
use crate::policy::{SLOW_TIER, Tier};
use crate::selection::FamilyRequest;

/// Output format of `--print-metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// One line per metric family
    Table,
    /// An array of objects with all details
    Json,
    /// A counters file for --collectors; families that are not selected are comments
    Csv,
}

/// One family, as it is serialized in the JSON format.
#[derive(Serialize)]
struct MetricInfo<'a> {
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

/// Lists all families in one format and marks those that `requests` selects.
///
/// # Errors
/// Serialization fails, which does not happen with the catalogue's rows.
pub fn list_metrics(form: OutputFormat, requests: &[FamilyRequest]) -> anyhow::Result<String> {
    match form {
        OutputFormat::Table => Ok(table(requests)),
        OutputFormat::Json => {
            let all: Vec<MetricInfo<'_>> = metrics(requests).collect();
            Ok(serde_json::to_string_pretty(&all)? + "\n")
        }
        OutputFormat::Csv => csv(requests),
    }
}

fn metrics(requests: &[FamilyRequest]) -> impl Iterator<Item = MetricInfo<'_>> {
    let device_metrics = rows().map(|row| MetricInfo {
        name: row.name,
        scope: row.scope,
        kind: kind(&row),
        unit: row.unit,
        help: row.help,
        source: row.symbol,
        read_every: match row.tier {
            Tier::Cycle => "cycle".to_owned(),
            Tier::Second => "cycle, at most once a second".to_owned(),
            Tier::Slow => format!("{} s", SLOW_TIER.as_secs()),
        },
        absent: row.absent,
        shown: requests.iter().any(|request| request.row == row.name),
    });
    let exporter_metrics = EXPORTER_METRICS.iter().map(|metric| MetricInfo {
        name: metric.name,
        scope: "exporter",
        kind: metric.kind.as_str(),
        unit: "",
        help: metric.help,
        source: "",
        read_every: "cycle".to_owned(),
        absent: "",
        shown: true,
    });
    device_metrics.chain(exporter_metrics)
}

fn table(requests: &[FamilyRequest]) -> String {
    let all: Vec<MetricInfo<'_>> = metrics(requests).collect();
    let width = |of: fn(&MetricInfo<'_>) -> usize| all.iter().map(of).max().unwrap_or_default();
    let (names, scopes) = (width(|row| row.name.len()), width(|row| row.scope.len()));
    let mut text = String::new();
    for row in &all {
        let mark = if row.shown { '*' } else { ' ' };
        let (name, kind, scope, help) = (row.name, row.kind, row.scope, row.help);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{mark} {name:names$}  {kind:7}  {scope:scopes$}  {help}");
    }
    text + "* selected\n"
}

/// The selected families as they were requested, then the others as comments.
fn csv(requests: &[FamilyRequest]) -> anyhow::Result<String> {
    let record = |name: &str, kind: &str, help: &str| -> anyhow::Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record([name, kind, help])?;
        Ok(String::from_utf8(writer.into_inner()?)?)
    };
    let mut text = String::new();
    let mut names = BTreeSet::new();
    for request in requests.iter().filter(|request| names.insert(&*request.name)) {
        let kind = request.kind.map_or("label", Kind::as_str);
        text += &record(&request.name, kind, &request.help)?;
    }
    for row in rows().filter(|row| !requests.iter().any(|request| request.row == row.name)) {
        text += "# ";
        text += &record(row.name, kind(&row), row.help)?;
    }
    Ok(text)
}

fn kind(row: &CatalogRow) -> &'static str {
    if row.is_info_label { "label" } else { row.kind.as_str() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::counters::parse;
    use crate::labels::{Compat, Dialect};
    use crate::selection::preset;

    #[test]
    fn csv_parses_to_the_selected_families() {
        for dialect in [Dialect::Ack, Dialect::DcgmExporter(vec![Compat::V4_8, Compat::V4_9])] {
            let mut requests = preset(&dialect);
            let counters = parse(csv(&requests).unwrap().as_bytes()).unwrap();
            let mut names = BTreeSet::new();
            requests.retain(|request| names.insert(Arc::clone(&request.name)));
            assert_eq!(counters.requests, requests);
            assert_eq!(counters.warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn every_comment_of_the_csv_is_a_valid_record() {
        let commented = csv(&[]).unwrap().replace("# ", "");
        let counters = parse(commented.as_bytes()).unwrap();
        assert_eq!(counters.requests.len(), rows().count());
    }

    #[test]
    fn table_and_json_list_every_family() {
        let all = rows().count() + EXPORTER_METRICS.len();
        let requests = preset(&Dialect::Ack);
        assert_eq!(table(&requests).lines().count(), all + 1);
        let json: serde_json::Value =
            serde_json::from_str(&list_metrics(OutputFormat::Json, &requests).unwrap()).unwrap();
        assert_eq!(json.as_array().unwrap().len(), all);
        let shown = json.as_array().unwrap().iter().filter(|row| row["shown"] == true).count();
        assert_eq!(shown, requests.len() + EXPORTER_METRICS.len());
    }
}
