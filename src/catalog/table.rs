//! All rows of the catalogue as one list, and the row of a name.

use super::alias;
use super::metric::{Kind, Metric};
use super::rows::{
    ACCUMULATED, ACTIVITY, ALLOCATED_FRACTION, CONTAINER, DEVICE, EVENT, ILLEGAL, INFO_LABELS,
    INSTANCE, MEMORY_ACCOUNT, NODE, PROCESS,
};
use crate::policy::Tier;

/// A row of any slice, without its source; for lists of all rows.
#[derive(Clone, Copy, Debug)]
pub struct CatalogRow {
    /// Name of the family.
    pub name: &'static str,
    /// What it has one series per, or `label`.
    pub scope: &'static str,
    /// Gauge or counter.
    pub kind: Kind,
    /// Unit of the value.
    pub unit: &'static str,
    /// NVML symbol or kubelet method that the value is read with.
    pub symbol: &'static str,
    /// How often the value is read.
    pub tier: Tier,
    /// HELP text, one line.
    pub help: &'static str,
    /// When the series is absent for a healthy GPU.
    pub absent: &'static str,
    /// Whether the row is a text, which is only a label of other series.
    pub is_info_label: bool,
    /// Whether a counters file may request the row as a label: a text, or a number of which a GPU or
    /// GPU instance has one.
    pub can_be_label: bool,
}

impl<Source> Metric<Source> {
    fn row(&self, scope: &'static str) -> CatalogRow {
        let Self { name, kind, unit, symbol, tier, source: _, help, absent, headline: _ } = *self;
        let (is_info_label, can_be_label) = (false, false);
        CatalogRow {
            name,
            scope,
            kind,
            unit,
            symbol,
            tier,
            help,
            absent,
            is_info_label,
            can_be_label,
        }
    }
}

/// The row with this name or alias.
#[must_use]
pub fn find(name: &str) -> Option<CatalogRow> {
    let exact = |name: &str| rows().find(|row| row.name == name);
    exact(name).or_else(|| exact(&alias::row_of(name)?))
}

/// The known name that is nearest to `name`, of all rows and aliases without a number.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    let mut nearest: Option<(usize, &str)> = None;
    for known in rows().map(|row| row.name).chain(alias::all().map(|(alias, _)| alias)) {
        let best = nearest.map_or(usize::MAX, |(distance, _)| distance);
        // The difference of the lengths is a lower bound of the distance.
        if known.contains('#') || known.len().abs_diff(name.len()) >= best {
            continue;
        }
        let distance = strsim::osa_distance(name, known);
        if distance < best {
            nearest = Some((distance, known));
        }
    }
    nearest.map(|(_, known)| known)
}

/// All rows, in the order of the exposition.
pub fn rows() -> impl Iterator<Item = CatalogRow> {
    fn of<S>(scope: &'static str, slice: &'static [Metric<S>]) -> impl Iterator<Item = CatalogRow> {
        slice.iter().map(move |metric| metric.row(scope))
    }
    fn label(row: CatalogRow) -> CatalogRow {
        CatalogRow { can_be_label: true, ..row }
    }
    const PARTITION: &str = "device or MIG instance";
    let events = EVENT
        .iter()
        .map(|metric| CatalogRow { can_be_label: metric.source.is_single, ..metric.row("device") });
    let devices = of("node", NODE).chain(of("device", DEVICE)).map(label).chain(events);
    let partitions = of(PARTITION, INSTANCE).map(label).chain(of(PARTITION, ALLOCATED_FRACTION));
    let workloads = of("container", CONTAINER)
        .chain(of("container", MEMORY_ACCOUNT))
        .chain(of("container", ACTIVITY))
        .chain(of("process", PROCESS))
        .chain(of("process", ILLEGAL));
    let accumulated = ACCUMULATED.iter().map(|metric| metric.row(metric.source.scope()));
    let info_labels = of("label", INFO_LABELS).map(|row| CatalogRow {
        is_info_label: true,
        can_be_label: true,
        ..row
    });
    devices.chain(partitions).chain(workloads).chain(accumulated).chain(info_labels)
}
