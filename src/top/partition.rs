//! A MIG device, or a GPU without MIG, in `top`: its containers and processes.

use ratatui::style::Style;
use ratatui::text::Line;

use super::options::TopOptions;
use super::text::{HEAD, LineBuilder, MEDIUM, MUTED};
use crate::view::{Allocation, ContainerView, Number, OwnerKind, PartitionView, ProcessView};

/// A MIG device, with its line; or a GPU without MIG, which has a line already.
pub(super) fn partition_lines(
    part: &PartitionView,
    width: usize,
    options: &TopOptions,
) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(mig) = &part.mig {
        let name =
            format!("  MIG {} GI {} CI {}", mig.profile, mig.gpu_instance, mig.compute_instance);
        let processes = part.other_processes.len()
            + part.containers.iter().map(|container| container.processes.len()).sum::<usize>();
        let pods: Vec<String> =
            part.containers.iter().map(|c| format!("{}/{}", c.namespace, c.pod)).collect();
        // The full view has a line for each.
        let pods = if options.full { String::new() } else { format!("  {}", pods.join(" ")) };
        let right = format!(
            "{:>5} proc{:>15}{:>22}",
            processes,
            part.utilization_percent.with_unit("%"),
            format!("{} of {}", part.memory_used_mib.gib(), part.memory_total_mib.gib()),
        );
        let line = LineBuilder::new().push(&name, HEAD).push(&pods, Style::new());
        lines.push(line.with_right(&right, Style::new(), width));
    }
    if !options.full {
        return lines;
    }
    if let Some(reason) = &part.process_list_error {
        let text = format!("    no process list: {reason}");
        lines.push(LineBuilder::new().push(&text, MUTED).truncate(width));
    }
    for container in &part.containers {
        lines.push(container_line(container, width));
        lines.extend(
            container.processes.iter().map(|process| process_line(process, "      ", width)),
        );
    }
    lines.extend(part.other_processes.iter().map(|process| process_line(process, "    ", width)));
    lines
}

fn container_line(container: &ContainerView, width: usize) -> Line<'static> {
    let name = format!("    {}/{} {}", container.namespace, container.pod, container.container);
    let label = Allocation::of(container).label();
    let numbers = [&container.sm_percent, &container.memory_used_mib];
    columns(LineBuilder::new().push(&name, Style::new()), label, numbers, width)
}

fn process_line(process: &ProcessView, indent: &str, width: usize) -> Line<'static> {
    let name = match process.pid {
        Some(pid) => format!("{indent}{} {pid} {}", process.name, process.kind),
        None => format!("{indent}stale entry"),
    };
    let owner = match process.owner {
        OwnerKind::Container => "",
        OwnerKind::Host => "host",
        OwnerKind::ContainerWithoutPod => "no pod",
        OwnerKind::Unknown => process.reason.as_deref().unwrap_or("unknown"),
    };
    let numbers = [&process.sm_percent, &process.memory_used_mib];
    columns(LineBuilder::new().push(&name, MUTED), owner, numbers, width)
}

/// A name, and at the right edge a label, SM utilization and memory.
fn columns(
    name: LineBuilder,
    label: &str,
    [sm, memory]: [&Number; 2],
    width: usize,
) -> Line<'static> {
    let (sm, memory) = (sm.with_unit("%"), memory.gib());
    let right = match (width < MEDIUM, label) {
        (false, _) => format!("{label:<14}{sm:>14}{memory:>12}"),
        (true, "") => format!("{sm:>12}{memory:>10}"),
        (true, _) => format!("…{sm:>11}{memory:>10}"),
    };
    name.with_right(&right, Style::new(), width)
}
