//! The GPUs in `top`, one line each.

use std::cmp::Ordering;

use ratatui::style::Style;
use ratatui::text::Line;

use super::options::{Sort, TopOptions};
use super::partition::partition_lines;
use super::text::{BAD, HEAD, LineBuilder, MEDIUM, MUTED, WARN, WIDE, by_number, style_of};
use crate::view::text::count;
use crate::view::{GpuView, HealthStatus, NodeView, Number, ProblemView, UnidentifiedView};

/// The columns of a GPU to the right of its name, as wide as [`row`] makes them.
const HEADS: [&str; 6] = ["STATUS", "SM", "MEMORY", "POWER", "TEMP", "USE"];
/// The same on a terminal of medium width.
const HEADS_MEDIUM: [&str; 6] = ["STATUS", "SM", "MEMORY", "POWER", "TEMP", "PROCS"];
/// The same on a narrow terminal, with a mark for the columns that do not fit.
const HEADS_NARROW: [&str; 6] = ["STATUS", "SM", "MEMORY …", "", "", ""];

/// A GPU or one that cannot be identified.
enum Listed<'a> {
    Gpu(&'a GpuView),
    Unidentified(&'a UnidentifiedView),
}

pub(super) fn lines(node: &NodeView, width: usize, options: &TopOptions) -> Vec<Line<'static>> {
    let gpus = node.gpus.iter().map(Listed::Gpu);
    let mut listed: Vec<Listed<'_>> =
        gpus.chain(node.unidentified.iter().map(Listed::Unidentified)).collect();
    listed.sort_by_key(Listed::index);
    let number = |of: fn(&GpuView) -> Number, one: &Listed<'_>, other: &Listed<'_>| {
        by_number(one.number(of), other.number(of))
    };
    listed.sort_by(|one, other| match options.sort() {
        Sort::Status => other.status().cmp(&one.status()),
        Sort::Name => Ordering::Equal,
        Sort::Sm => number(|gpu| gpu.utilization_percent.clone(), one, other),
        Sort::Memory => number(|gpu| gpu.memory().0, one, other),
        Sort::Power => number(|gpu| gpu.power_watts.clone(), one, other),
    });
    let heads = match width {
        WIDE.. => HEADS,
        MEDIUM.. => HEADS_MEDIUM,
        _ => HEADS_NARROW,
    };
    let heads = row(heads.map(str::to_owned), width);
    let mut lines = vec![LineBuilder::new().push("GPU", HEAD).with_right(&heads, HEAD, width)];
    for gpu in &listed {
        if !options.matches(&gpu.text()) {
            continue;
        }
        if options.full && lines.len() > 1 {
            lines.push(Line::default());
        }
        lines.extend(gpu.lines(width, options));
    }
    if listed.is_empty() {
        let text = if node.driver.up && !node.stale {
            "  the driver reports no GPU"
        } else {
            "  no current data"
        };
        lines.push(LineBuilder::new().push(text, MUTED).truncate(width));
    } else if lines.len() == 1 {
        lines.push(LineBuilder::new().push("  no GPU matches the filter", MUTED).truncate(width));
    }
    lines
}

impl Listed<'_> {
    fn index(&self) -> u32 {
        match self {
            Self::Gpu(gpu) => gpu.index,
            Self::Unidentified(gpu) => gpu.index,
        }
    }

    fn status(&self) -> HealthStatus {
        match self {
            Self::Gpu(gpu) => gpu.status,
            Self::Unidentified(gpu) => gpu.status,
        }
    }

    fn number(&self, of: impl Fn(&GpuView) -> Number) -> Option<f64> {
        match self {
            Self::Gpu(gpu) => of(gpu).known(),
            Self::Unidentified(_) => None,
        }
    }

    /// What the filter is compared with: also containers and processes that are not shown.
    fn text(&self) -> String {
        match self {
            Self::Gpu(gpu) => {
                let mut text = format!("gpu {} {} {} ", gpu.index, gpu.model, gpu.status.label());
                for part in &gpu.parts {
                    for container in &part.containers {
                        for name in [
                            &container.namespace,
                            "/",
                            &container.pod,
                            " ",
                            &container.container,
                            " ",
                        ] {
                            text.push_str(name);
                        }
                    }
                    let own = part.containers.iter().flat_map(|container| &container.processes);
                    for process in own.chain(&part.other_processes) {
                        text += &process.name;
                        text.push(' ');
                    }
                }
                text
            }
            Self::Unidentified(gpu) => format!("gpu {} {}", gpu.index, gpu.status.label()),
        }
    }

    fn lines(&self, width: usize, options: &TopOptions) -> Vec<Line<'static>> {
        match self {
            Self::Gpu(gpu) => gpu_lines(gpu, width, options),
            Self::Unidentified(gpu) => {
                let name = format!("GPU {} not identified", gpu.index);
                let cells = [gpu.status.label(), "", "", "", "", ""].map(str::to_owned);
                let line = LineBuilder::new().push(&name, HEAD);
                let mut lines =
                    vec![line.with_right(&row(cells, width), style_of(gpu.status), width)];
                lines.extend(problem_lines(&gpu.problems, width, options.full));
                lines
            }
        }
    }
}

/// The cells of a line that fit.
fn row([status, sm, memory, power, temperature, users]: [String; 6], width: usize) -> String {
    let start = format!("{status:<8}{sm:>7}{memory:>15}");
    match width {
        WIDE.. => format!("{start}{power:>14}{temperature:>9}  {users:<24}"),
        MEDIUM.. => format!("{start}{power:>12}{temperature:>9}{users:>6}"),
        _ => start,
    }
}

fn gpu_lines(gpu: &GpuView, width: usize, options: &TopOptions) -> Vec<Line<'static>> {
    let (used, total) = gpu.memory();
    let of = |used: &Number, text: &str, limit: Option<f64>| match (used.known(), limit) {
        (Some(_), Some(limit)) => format!("{text}/{limit:.0}"),
        _ => text.to_owned(),
    };
    let gib = used.known().map_or_else(|| used.gib(), |mib| format!("{:.1}", mib / 1024.0));
    let memory = of(&used, &gib, total.known().map(|mib| mib / 1024.0));
    let memory = if used.known().is_some() { format!("{memory} GiB") } else { memory };
    let watts = gpu.power_watts.text(|watts| format!("{watts:.0}"));
    let power = of(&gpu.power_watts, &watts, gpu.power_limit_watts.known());
    let power = if gpu.power_watts.known().is_some() { format!("{power} W") } else { power };
    let sm = if gpu.mig {
        format!("{} MIG", gpu.parts.len())
    } else {
        gpu.utilization_percent.with_unit("%")
    };
    let temperature = gpu.temperature_celsius.with_unit("°C");
    let cells = [gpu.status.label().to_owned(), sm, memory, power, temperature, users(gpu, width)];
    let name = format!("GPU {} ", gpu.index);
    let line = LineBuilder::new().push(&name, HEAD);
    let line = line.push(gpu.model.trim_start_matches("NVIDIA "), Style::new());
    let style = if gpu.problems.is_empty() { Style::new() } else { style_of(gpu.status) };
    let mut lines = vec![line.with_right(&row(cells, width), style, width)];
    lines.extend(problem_lines(&gpu.problems, width, options.full));
    if options.full {
        for xid in &gpu.xids {
            let times =
                if xid.count == 1 { "once".to_owned() } else { format!("{} times", xid.count) };
            let text = format!("  XID {} {}, {times}", xid.xid, xid.name);
            lines.push(LineBuilder::new().push(&text, WARN).truncate(width));
        }
    }
    if let Some(reason) = &gpu.mig_error {
        let text = format!("  not all MIG devices can be read: {reason}");
        lines.push(LineBuilder::new().push(&text, BAD).truncate(width));
    }
    if gpu.mig && !options.folds_mig || options.full {
        lines.extend(gpu.parts.iter().flat_map(|part| partition_lines(part, width, options)));
    }
    lines
}

/// `3 pods, 12 processes`; `12` if that does not fit.
fn users(gpu: &GpuView, width: usize) -> String {
    if let Some(absence) = gpu.parts.iter().find_map(|part| part.process_list_error.as_ref()) {
        let reason = Number::Absent { absent: absence.clone() }.with_unit("");
        return if width < WIDE { "–".to_owned() } else { reason };
    }
    let containers = || gpu.parts.iter().flat_map(|part| &part.containers);
    let mut pods: Vec<_> = containers().map(|c| (&c.namespace, &c.pod)).collect();
    pods.sort_unstable();
    pods.dedup();
    let processes = containers().map(|container| container.processes.len()).sum::<usize>()
        + gpu.parts.iter().map(|part| part.other_processes.len()).sum::<usize>();
    if width < WIDE {
        return processes.to_string();
    }
    format!("{}, {}", count(pods.len(), "pod"), count(processes, "process"))
}

/// The problems, each with its remedy in the full view.
fn problem_lines(problems: &[ProblemView], width: usize, full: bool) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for problem in problems.iter().filter(|problem| full || !problem.temporary) {
        let line = LineBuilder::new().push("  ", Style::new());
        lines.extend(line.push(&problem.message, style_of(problem.status)).wrap(width));
        if let Some(remedy) = problem.remedy.as_ref().filter(|_| full) {
            let line = LineBuilder::new().push("  remedy: ", MUTED).push(remedy, Style::new());
            lines.extend(line.wrap(width));
        }
    }
    lines
}
