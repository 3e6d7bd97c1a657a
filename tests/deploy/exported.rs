//! What the program exports.

use crate::programs::read;

/// Every family that the program exports, by the README's tables, which are made of the catalogue.
pub(crate) fn catalogue() -> Vec<String> {
    let name = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    let ours = |name: &String| name.starts_with("DCGM_") || name.starts_with("nvml_exporter_");
    let names: Vec<String> = read("README.md").lines().filter_map(name).filter(ours).collect();
    assert!(names.len() > 50, "{names:?}");
    names
}

/// The series are in the catalogue.
pub(crate) fn check_series(name: &str, series: &[String]) {
    let catalogue = catalogue();
    for one in series {
        assert!(catalogue.contains(one), "{name}: nobody exports {one}");
    }
}
