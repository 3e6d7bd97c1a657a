//! The node in a terminal: a [`NodeView`] as lines of text, each at most as wide as the terminal.

mod gpus;
mod help;
mod options;
mod partition;
mod pods;
mod status;
mod text;

use ratatui::style::Style;
use ratatui::text::Line;

pub use self::options::{Sort, TopOptions, TopView};
use self::text::{HEAD, LineBuilder, MUTED, style_of};
use crate::view::NodeView;
use crate::view::text::count;

/// Maximum width of the layout, in columns: numbers far from their names are hard to read.
const WIDTH_MAX: usize = 140;

/// Renders a node as lines of at most `width` columns; what is truncated ends in an ellipsis.
#[must_use]
pub fn lines(node: &NodeView, width: usize, options: &TopOptions) -> Vec<Line<'static>> {
    let width = width.clamp(1, WIDTH_MAX);
    if options.help {
        return help::lines(width);
    }
    let mut lines = vec![title(node, width)];
    lines.extend(totals(node).wrap(width));
    lines.extend(status::lines(node, width));
    if node.no_gpu_reason.is_some() {
        let hint = "a simulated node: nvml-exporter top --mock=demo";
        lines.push(LineBuilder::new().push(hint, MUTED).truncate(width));
    } else {
        lines.push(Line::default());
        lines.extend(match options.view {
            TopView::Gpus => gpus::lines(node, width, options),
            TopView::Pods => pods::lines(node, width, options),
        });
    }
    if options.full || node.sources.iter().any(|source| !source.up) {
        lines.push(Line::default());
        lines.extend(status::sources(node, width));
    }
    lines
}

/// A text instead of the node.
#[must_use]
pub fn message(text: &str, width: usize) -> Vec<Line<'static>> {
    text.lines().flat_map(|line| LineBuilder::new().push(line, Style::new()).wrap(width)).collect()
}

/// The last line of the screen: keys, and which part of the lines is visible.
#[must_use]
pub fn footer(
    options: &TopOptions,
    visible: (usize, usize),
    all: usize,
    width: usize,
) -> Line<'static> {
    let (first, last) = visible;
    let position =
        if last - first < all { format!("{}-{last} of {all}", first + 1) } else { String::new() };
    let line = LineBuilder::new();
    let line = match &options.typed {
        Some(typed) => {
            line.push(&format!("/{typed}_"), HEAD).push("  Enter accepts, Esc clears", MUTED)
        }
        None if options.help => line.push("any key closes the help", MUTED),
        None => {
            let filter = if options.filter.is_empty() {
                String::new()
            } else {
                format!("filter {}, ", options.filter)
            };
            let state = format!("{filter}sort {}  ", options.sort().label());
            line.push(&state, HEAD).push("? help  q quit  f full  p pods  s sort  / filter", MUTED)
        }
    };
    line.with_right(&position, Style::new(), width)
}

fn title(node: &NodeView, width: usize) -> Line<'static> {
    let driver = &node.driver;
    let version = |name: &str, version: &Option<String>| {
        version.as_ref().map_or_else(String::new, |version| format!("  {name} {version}"))
    };
    let line = LineBuilder::new().push(node.name(), HEAD);
    let line = line.push(&version("driver", &driver.version), MUTED);
    let line = line.push(&version("CUDA", &driver.cuda_version), MUTED);
    line.truncate(width)
}

/// The GPUs by status, and the totals of memory and power.
fn totals(node: &NodeView) -> LineBuilder {
    let totals = &node.totals;
    let gpus = node.readable_gpus().1;
    if gpus == 0 {
        return LineBuilder::new().push("no GPU", Style::new());
    }
    let mut line = LineBuilder::new().push(&format!("{}: ", count(gpus, "GPU")), Style::new());
    for (n, statuses) in totals.gpus_by_status.iter().enumerate() {
        let separator = if n > 0 { ", " } else { "" };
        let text = format!("{} {}", statuses.gpu_count, statuses.status.label());
        line = line.push(separator, Style::new()).push(&text, style_of(statuses.status));
    }
    let (used, total) = (&totals.memory_used_mib, &totals.memory_total_mib);
    let memory = match (used.known(), total.known()) {
        (Some(used), Some(total)) => format!("{:.0}/{:.0} GiB", used / 1024.0, total / 1024.0),
        _ => used.gib(),
    };
    let (power, limit) = (&totals.power_watts, &totals.power_limit_watts);
    let power = match (power.known(), limit.known()) {
        (Some(power), Some(limit)) => format!("{power:.0}/{limit:.0} W"),
        _ => power.with_unit("W"),
    };
    line.push(&format!("  memory {memory}  power {power}"), Style::new())
}
