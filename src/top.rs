//! The node in a terminal: a view as lines of text, each at most as wide as the terminal.

mod text;

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;

use self::text::{Row, bar, number};
use crate::view::{ContainerView, GpuView, NodeView, PartView, ProcessView, UnidentifiedView};

/// The narrowest that is drawn for; on less, lines are cut.
const WIDTH_MIN: usize = 60;
/// The widest: no terminal has more.
const WIDTH_MAX: usize = 1000;

const GOOD: Style = Style::new().fg(Color::Green).add_modifier(Modifier::BOLD);
const WARN: Style = Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);
const QUIET: Style = Style::new().add_modifier(Modifier::DIM);

/// A node as lines of `width` columns; each process has one too, if `processes` are wanted.
#[must_use]
pub fn lines(node: &NodeView, width: usize, processes: bool) -> Vec<Line<'static>> {
    let width = width.clamp(WIDTH_MIN, WIDTH_MAX);
    let mut lines = vec![title(node, width)];
    lines.extend(verdict(node).into_iter().map(|line| line.cut(width)));
    let mut gpus: Vec<_> =
        node.gpus.iter().map(|gpu| (gpu.index, of_gpu(gpu, width, processes))).collect();
    gpus.extend(node.unidentified.iter().map(|gpu| (gpu.index, vec![nameless(gpu, width)])));
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
    Row::new().push(name, HEAD).push("  ", Style::new()).push(&driver, QUIET).cut(width)
}

fn verdict(node: &NodeView) -> Vec<Row> {
    let good = node.gpus.iter().filter(|gpu| gpu.state == "ok").count();
    let all = node.gpus.len() + node.unidentified.len();
    let mut said = vec![match &node.trouble {
        Some(trouble) => Row::new().push("not ready: ", BAD).push(trouble, Style::new()),
        None if good < all => {
            Row::new().push(&format!("ready, but only {good} of {all} GPUs can be read"), WARN)
        }
        None => Row::new().push("ready", GOOD),
    }];
    said.extend(
        node.warnings
            .iter()
            .map(|warning| Row::new().push("warning: ", WARN).push(warning, Style::new())),
    );
    said
}

fn nameless(gpu: &UnidentifiedView, width: usize) -> Line<'static> {
    let row = Row::new().push(&format!("GPU {} ", gpu.index), HEAD);
    row.push(&gpu.reason, BAD).push(", and not identified", Style::new()).cut(width)
}

fn of_gpu(gpu: &GpuView, width: usize, processes: bool) -> Vec<Line<'static>> {
    let row = Row::new().push(&format!("GPU {} ", gpu.index), HEAD).push(&gpu.model, HEAD);
    let row = if gpu.mig { row.push(", MIG", Style::new()) } else { row };
    let (state, style) = state(gpu);
    let mut lines = vec![row.with_right(&state, style, width)];
    for xid in &gpu.xids {
        let told = format!("  XID {} {}, {} times", xid.xid, xid.name, xid.count);
        lines.push(Row::new().push(&told, WARN).cut(width));
    }
    if let Some(reason) = &gpu.division {
        let told = format!("  not all MIG devices can be read: {reason}");
        lines.push(Row::new().push(&told, BAD).cut(width));
    }
    let board = format!(
        "  power {} of {}, temperature {} of {}",
        number(&gpu.power_watts, "W"),
        number(&gpu.power_limit_watts, "W"),
        number(&gpu.temperature_celsius, "°C"),
        number(&gpu.temperature_limit_celsius, "°C"),
    );
    lines.push(Row::new().push(&board, Style::new()).cut(width));
    for part in &gpu.parts {
        lines.extend(of_part(part, width, processes));
    }
    lines
}

fn state(gpu: &GpuView) -> (String, Style) {
    match (&*gpu.state, gpu.throttled_by.as_deref()) {
        ("ok", None) => ("ok".to_owned(), GOOD),
        ("ok", Some([])) => ("healthy".to_owned(), GOOD),
        ("ok", Some(reasons)) => (format!("throttled: {}", reasons.join(", ")), WARN),
        (state, _) => (state.to_owned(), BAD),
    }
}

fn of_part(part: &PartView, width: usize, processes: bool) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(mig) = &part.mig {
        let told = format!(
            "  MIG {} GI {} CI {} {}",
            mig.profile, mig.gpu_instance, mig.compute_instance, mig.uuid
        );
        lines.push(Row::new().push(&told, HEAD).cut(width));
    }
    let sm = part.utilization_percent.known().map(|percent| percent / 100.0);
    let memory = match (part.memory_used_mib.known(), part.memory_total_mib.known()) {
        (Some(used), Some(total)) if total > 0.0 => Some(used / total),
        _ => None,
    };
    let room = (width - 50) / 2;
    let gauges = format!(
        "  SM {} {:>6}  memory {} {} of {}",
        bar(sm, room),
        number(&part.utilization_percent, "%"),
        bar(memory, room),
        number(&part.memory_used_mib, "MiB"),
        number(&part.memory_total_mib, "MiB"),
    );
    lines.push(Row::new().push(&gauges, Style::new()).cut(width));
    if let Some(reason) = &part.unlisted {
        let told = format!("    who is on it is not known: {reason}");
        lines.push(Row::new().push(&told, QUIET).cut(width));
    }
    for container in &part.containers {
        lines.push(of_container(container, width));
        let of_it = container.processes.iter().filter(|_| processes);
        lines.extend(of_it.map(|process| of_process(process, "      ", width)));
    }
    lines.extend(part.others.iter().map(|process| of_process(process, "    ", width)));
    lines
}

fn of_container(container: &ContainerView, width: usize) -> Line<'static> {
    let name = format!("    {}/{} {}", container.namespace, container.pod, container.container);
    let mode = if container.mode == "none" { "not given" } else { &container.mode };
    let numbers = [&container.sm_percent, &container.memory_used_mib];
    columns(Row::new().push(&name, Style::new()), mode, numbers, width)
}

fn of_process(process: &ProcessView, indent: &str, width: usize) -> Line<'static> {
    let name = match process.pid {
        Some(pid) => format!("{indent}{} {pid} {}", process.name, process.kind),
        None => format!("{indent}no process any more"),
    };
    let whose = match (&*process.whose, &process.reason) {
        ("container", _) => "",
        ("stray", _) => "no pod",
        (_, Some(reason)) => reason,
        (whose, None) => whose,
    };
    let numbers = [&process.sm_percent, &process.memory_used_mib];
    columns(Row::new().push(&name, QUIET), whose, numbers, width)
}

/// A name, a word and two numbers, the latter at the right edge.
fn columns(
    name: Row,
    word: &str,
    [sm, memory]: [&crate::view::Number; 2],
    width: usize,
) -> Line<'static> {
    let right = format!("{word:<10}{:>12}{:>12}", number(sm, "%"), number(memory, "MiB"));
    name.with_right(&right, Style::new(), width)
}

fn sources(node: &NodeView, width: usize) -> Vec<Line<'static>> {
    let mut said = vec![Row::new().push("sources", HEAD)];
    let (word, style) = if node.driver.up { ("up", GOOD) } else { ("down", BAD) };
    said.push(Row::new().push("  driver ", Style::new()).push(word, style));
    for source in &node.sources {
        let (word, style) = if source.up { ("up", GOOD) } else { ("down", BAD) };
        let row = Row::new().push(&format!("  {} ", source.name), Style::new()).push(word, style);
        let age =
            source.age_seconds.map_or(String::new(), |age| format!(", last word {age:.0} s ago"));
        let failures = source.failures.iter().map(|f| format!(", {} × {}", f.count, f.reason));
        said.push(row.push(&age, QUIET).push(&failures.collect::<String>(), QUIET));
    }
    if node.abandoned_threads > 0 {
        let told =
            format!("  {} threads wait for a driver that does not answer", node.abandoned_threads);
        said.push(Row::new().push(&told, WARN));
    }
    said.into_iter().map(|row| row.cut(width)).collect()
}
