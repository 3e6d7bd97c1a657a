//! The metric families that the program exports.

use crate::programs::read;

/// Names of all exported families, from the tables of docs/metrics.md, which are generated from the catalog.
pub(crate) fn exported_names() -> Vec<String> {
    let name = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    let ours = |name: &String| name.starts_with("DCGM_") || name.starts_with("nvml_exporter_");
    let names: Vec<String> =
        read("docs/metrics.md").lines().filter_map(name).filter(ours).collect();
    assert!(names.len() > 50, "{names:?}");
    names
}

/// Checks that these families are exported.
pub(crate) fn check_series(name: &str, series: &[String]) {
    let exported = exported_names();
    for family in series {
        let is_alias = nvml_exporter::catalog::find(family).is_some();
        assert!(exported.contains(family) || is_alias, "{name}: {family} is not exported");
    }
}
