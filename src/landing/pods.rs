//! The table of pods on the web page, with totals over all devices.

use maud::{Markup, html};

use super::number;
use crate::view::text::count;
use crate::view::{Allocation, Number, PodTotals};

/// A longer table is closed at first.
const OPEN_MAX: usize = 12;

/// Columns: name, whether it is numeric.
const COLUMNS: [(&str, bool); 6] = [
    ("pod", false),
    ("GPUs", false),
    ("allocated", false),
    ("SM", true),
    ("memory", true),
    ("procs", true),
];

/// The table. Without the script it is sorted by memory, and can be neither sorted nor filtered.
pub(super) fn section(pods: &[PodTotals]) -> Markup {
    if pods.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="pods" {
            details #pod-list open[pods.len() <= OPEN_MAX] {
                summary { h2 #pods { "Pods" } " " span.muted { (count(pods.len(), "pod")) } }
                p.filter hidden {
                    label for="filter" { "Filter " }
                    input #filter type="search" autocomplete="off";
                    " " span #matches role="status" {}
                }
                div.wide tabindex="0" role="region" aria-label="Table of pods" {
                    table #pod-table {
                        thead { tr { @for (name, numeric) in COLUMNS {
                            th class=(if numeric { "n" } else { "" }) scope="col" { (name) }
                        } } }
                        tbody { @for pod in pods { (row(pod)) } }
                    }
                }
                p.muted { "SM: 100 % are all SMs of one device." }
            }
        }
    }
}

fn row(pod: &PodTotals) -> Markup {
    let sort = |number: &Number| number.known().map_or_else(|| "-1".to_owned(), |n| n.to_string());
    let gpus: Vec<String> = pod.gpus.iter().map(u32::to_string).collect();
    let modes: Vec<&str> = pod.modes.iter().map(|mode| mode.label()).collect();
    let is_allocated = !pod.modes.contains(&Allocation::None);
    html! {
        tr {
            th scope="row" { bdi { (pod.namespace) } "/" strong { bdi { (pod.pod) } } }
            td {
                (gpus.join(", "))
                @if pod.devices > pod.gpus.len() { span.muted { " (" (pod.devices) " devices)" } }
            }
            td { span class=(if is_allocated { "" } else { "state warn" }) { (modes.join(", ")) } }
            td.n data-sort=(sort(&pod.sm_percent)) { (number(&pod.sm_percent, &pod.sm_percent.with_unit("%"))) }
            td.n data-sort=(sort(&pod.memory_used_mib)) { (number(&pod.memory_used_mib, &pod.memory_used_mib.gib())) }
            td.n data-sort=(pod.processes) { (pod.processes) }
        }
    }
}
