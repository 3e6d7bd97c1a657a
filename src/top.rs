//! The node in a terminal: a [`NodeView`] as lines of text, each at most as wide as the terminal.

mod text;

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;

use self::text::{LineBuilder, bar, number};
use crate::model::AllocateMode;
use crate::view::{
    ContainerView, GpuState, GpuView, NodeView, OwnerKind, PartitionView, ProcessView,
    UnidentifiedView,
};

/// Minimum width of the layout, in columns; a narrower terminal truncates the lines.
const WIDTH_MIN: usize = 60;
/// Maximum width of the layout, in columns.
const WIDTH_MAX: usize = 1000;

const GOOD: Style = Style::new().fg(Color::Green).add_modifier(Modifier::BOLD);
const WARN: Style = Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);
const MUTED: Style = Style::new().add_modifier(Modifier::DIM);

/// Renders a node as lines of at most `width` columns. `processes`: whether the processes of containers are
/// listed, too.
#[must_use]
pub fn lines(node: &NodeView, width: usize, processes: bool) -> Vec<Line<'static>> {
    let width = width.clamp(WIDTH_MIN, WIDTH_MAX);
    let mut lines = vec![title(node, width)];
    lines.extend(status(node).into_iter().map(|line| line.truncate(width)));
    let mut gpus: Vec<_> =
        node.gpus.iter().map(|gpu| (gpu.index, gpu_lines(gpu, width, processes))).collect();
    let unidentified = node.unidentified.iter();
    gpus.extend(unidentified.map(|gpu| (gpu.index, vec![unidentified_line(gpu, width)])));
    gpus.sort_by_key(|(index, _)| *index);
    for (_, gpu) in gpus {
        lines.push(Line::default());
        lines.extend(gpu);
    }
    lines.push(Line::default());
    lines.extend(sources(node, width));
    lines
}

fn title(node: &NodeView, width: usize) -> Line<'static> {
    let name = if node.node.is_empty() { &node.hostname } else { &node.node };
    let driver =
        node.driver.version.as_ref().map_or(String::new(), |version| format!("driver {version}"));
    LineBuilder::new()
        .push(name, HEAD)
        .push("  ", Style::new())
        .push(&driver, MUTED)
        .truncate(width)
}

fn status(node: &NodeView) -> Vec<LineBuilder> {
    let good = node.gpus.iter().filter(|gpu| gpu.state == GpuState::Ok).count();
    let all = node.gpus.len() + node.unidentified.len();
    let mut lines = vec![match &node.not_ready_reason {
        Some(reason) => LineBuilder::new().push("not ready: ", BAD).push(reason, Style::new()),
        None if good < all => LineBuilder::new()
            .push(&format!("ready, but only {good} of {all} GPUs can be read"), WARN),
        None => LineBuilder::new().push("ready", GOOD),
    }];
    if let Some(reason) = &node.no_gpu_reason {
        lines.push(LineBuilder::new().push(reason, Style::new()));
    }
    lines.extend(
        node.warnings
            .iter()
            .map(|warning| LineBuilder::new().push("warning: ", WARN).push(warning, Style::new())),
    );
    lines
}

fn unidentified_line(gpu: &UnidentifiedView, width: usize) -> Line<'static> {
    let line = LineBuilder::new().push(&format!("GPU {} ", gpu.index), HEAD);
    line.push(&gpu.reason, BAD).push(", not identified", Style::new()).truncate(width)
}

fn gpu_lines(gpu: &GpuView, width: usize, processes: bool) -> Vec<Line<'static>> {
    let line = LineBuilder::new().push(&format!("GPU {} ", gpu.index), HEAD).push(&gpu.model, HEAD);
    let line = if gpu.mig { line.push(", MIG", Style::new()) } else { line };
    let (state, style) = state(gpu);
    let mut lines = vec![line.with_right(&state, style, width)];
    for xid in &gpu.xids {
        let times = if xid.count == 1 { "once".to_owned() } else { format!("{} times", xid.count) };
        let text = format!("  XID {} {}, {times}", xid.xid, xid.name);
        lines.push(LineBuilder::new().push(&text, WARN).truncate(width));
    }
    if let Some(reason) = &gpu.mig_error {
        let text = format!("  not all MIG devices can be read: {reason}");
        lines.push(LineBuilder::new().push(&text, BAD).truncate(width));
    }
    let board = format!(
        "  power {} of {}, temperature {} of {}",
        number(&gpu.power_watts, "W"),
        number(&gpu.power_limit_watts, "W"),
        number(&gpu.temperature_celsius, "°C"),
        number(&gpu.temperature_limit_celsius, "°C"),
    );
    lines.push(LineBuilder::new().push(&board, Style::new()).truncate(width));
    for part in &gpu.parts {
        lines.extend(partition_lines(part, width, processes));
    }
    lines
}

fn state(gpu: &GpuView) -> (String, Style) {
    match (&gpu.state, gpu.throttled_by.as_deref()) {
        (GpuState::Ok, None) => ("ok".to_owned(), GOOD),
        (GpuState::Ok, Some([])) => ("healthy".to_owned(), GOOD),
        (GpuState::Ok, Some(reasons)) => (format!("throttled: {}", reasons.join(", ")), WARN),
        (GpuState::Unreadable(reason), _) => (reason.clone(), BAD),
    }
}

fn partition_lines(part: &PartitionView, width: usize, processes: bool) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(mig) = &part.mig {
        let text = format!(
            "  MIG {} GI {} CI {} {}",
            mig.profile, mig.gpu_instance, mig.compute_instance, mig.uuid
        );
        lines.push(LineBuilder::new().push(&text, HEAD).truncate(width));
    }
    let sm = part.utilization_percent.known().map(|percent| percent / 100.0);
    let memory = match (part.memory_used_mib.known(), part.memory_total_mib.known()) {
        (Some(used), Some(total)) if total > 0.0 => Some(used / total),
        _ => None,
    };
    let bar_width = (width - 50) / 2;
    let gauges = format!(
        "  SM {} {:>6}  memory {} {} of {}",
        bar(sm, bar_width),
        number(&part.utilization_percent, "%"),
        bar(memory, bar_width),
        number(&part.memory_used_mib, "MiB"),
        number(&part.memory_total_mib, "MiB"),
    );
    lines.push(LineBuilder::new().push(&gauges, Style::new()).truncate(width));
    if let Some(reason) = &part.process_list_error {
        let text = format!("    no process list: {reason}");
        lines.push(LineBuilder::new().push(&text, MUTED).truncate(width));
    }
    for container in &part.containers {
        lines.push(container_line(container, width));
        let shown = container.processes.iter().filter(|_| processes);
        lines.extend(shown.map(|process| process_line(process, "      ", width)));
    }
    let other = part.other_processes.iter();
    lines.extend(other.map(|process| process_line(process, "    ", width)));
    lines
}

fn container_line(container: &ContainerView, width: usize) -> Line<'static> {
    let name = format!("    {}/{} {}", container.namespace, container.pod, container.container);
    let mode = match container.mode {
        Some(AllocateMode::None) => "unallocated",
        Some(mode @ (AllocateMode::Exclusive | AllocateMode::Share)) => mode.label(),
        None => "unknown",
    };
    let numbers = [&container.sm_percent, &container.memory_used_mib];
    columns(LineBuilder::new().push(&name, Style::new()), mode, numbers, width)
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
    [sm, memory]: [&crate::view::Number; 2],
    width: usize,
) -> Line<'static> {
    let right = format!("{label:<10}{:>12}{:>12}", number(sm, "%"), number(memory, "MiB"));
    name.with_right(&right, Style::new(), width)
}

fn sources(node: &NodeView, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![LineBuilder::new().push("sources", HEAD)];
    let (state, style) = match &node.no_gpu_reason {
        Some(_) => ("not needed", MUTED),
        None if node.driver.up => ("up", GOOD),
        None => ("down", BAD),
    };
    lines.push(LineBuilder::new().push("  driver ", Style::new()).push(state, style));
    for source in &node.sources {
        let (state, style) = if source.up { ("up", GOOD) } else { ("down", BAD) };
        let name = format!("  {} ", source.name);
        let line = LineBuilder::new().push(&name, Style::new()).push(state, style);
        let age =
            source.age_seconds.map_or(String::new(), |age| format!(", last update {age:.0} s ago"));
        let failures = source.failures.iter().map(|f| format!(", {} × {}", f.count, f.reason));
        lines.push(line.push(&age, MUTED).push(&failures.collect::<String>(), MUTED));
    }
    if node.abandoned_threads > 0 {
        let text = format!("  threads blocked in a driver call: {}", node.abandoned_threads);
        lines.push(LineBuilder::new().push(&text, WARN));
    }
    lines.into_iter().map(|line| line.truncate(width)).collect()
}
