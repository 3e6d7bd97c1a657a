//! The pods view of `top`: totals over all devices.

use ratatui::style::Style;
use ratatui::text::Line;

use super::options::{Sort, TopOptions};
use super::text::{HEAD, LineBuilder, MUTED, WARN, by_number};
use crate::view::{Allocation, NodeView, PodTotals};

pub(super) fn lines(node: &NodeView, width: usize, options: &TopOptions) -> Vec<Line<'static>> {
    let mut pods = node.pods();
    pods.sort_by(|one, other| match options.sort() {
        Sort::Sm => by_number(one.sm_percent.known(), other.sm_percent.known()),
        Sort::Memory | Sort::Status | Sort::Power => {
            by_number(one.memory_used_mib.known(), other.memory_used_mib.known())
        }
        Sort::Name => (&one.namespace, &one.pod).cmp(&(&other.namespace, &other.pod)),
    });
    let right =
        format!("{:<14}{:<9}{:>14}{:>11}{:>6}", "ALLOCATED", "GPUS", "SM", "MEMORY", "PROCS");
    let mut lines = vec![LineBuilder::new().push("POD", HEAD).with_right(&right, HEAD, width)];
    let shown = pods.iter().filter(|pod| options.matches(&text(pod)));
    lines.extend(shown.map(|pod| line(pod, width)));
    if lines.len() == 1 {
        let text =
            if pods.is_empty() { "  no pod uses a GPU" } else { "  no pod matches the filter" };
        lines.push(LineBuilder::new().push(text, MUTED).truncate(width));
    }
    lines
}

fn text(pod: &PodTotals) -> String {
    let modes: Vec<&str> = pod.modes.iter().map(|mode| mode.label()).collect();
    format!("{}/{} {}", pod.namespace, pod.pod, modes.join(" "))
}

fn line(pod: &PodTotals, width: usize) -> Line<'static> {
    let indexes: Vec<String> = pod.gpus.iter().map(u32::to_string).collect();
    let all = indexes.join(",");
    let gpus = if all.len() <= 8 { all } else { format!("{} GPUs", indexes.len()) };
    let modes: Vec<&str> = pod.modes.iter().map(|mode| mode.label()).collect();
    let mode = if modes.len() > 1 { "mixed" } else { modes.first().copied().unwrap_or_default() };
    let right = format!(
        "{mode:<14}{gpus:<9}{:>14}{:>11}{:>6}",
        pod.sm_percent.with_unit("%"),
        pod.memory_used_mib.gib(),
        pod.processes
    );
    let style = if pod.modes.contains(&Allocation::None) { WARN } else { Style::new() };
    let name = format!("{}/{}", pod.namespace, pod.pod);
    LineBuilder::new().push(&name, Style::new()).with_right(&right, style, width)
}
