//! Readiness, warnings and data sources in `top`.

use ratatui::style::Style;
use ratatui::text::Line;

use super::text::{BAD, GOOD, HEAD, LineBuilder, MUTED, WARN};
use crate::view::NodeView;

/// Whether the node is ready, if not all GPUs can be read, and warnings.
pub(super) fn lines(node: &NodeView, width: usize) -> Vec<Line<'static>> {
    let (readable, all) = node.readable_gpus();
    let mut lines = Vec::new();
    match &node.not_ready_reason {
        Some(reason) => lines.extend(reason.lines().enumerate().map(|(n, reason)| {
            let start = if n == 0 { "not ready: " } else { "  " };
            LineBuilder::new().push(start, BAD).push(reason, Style::new())
        })),
        None if readable < all => lines.push(
            LineBuilder::new()
                .push(&format!("ready, but only {readable} of {all} GPUs can be read"), WARN),
        ),
        None => {}
    }
    if let Some(reason) = &node.no_gpu_reason {
        lines.push(LineBuilder::new().push("ready: ", GOOD).push(reason, Style::new()));
    }
    let warnings = node.warnings.iter();
    lines.extend(
        warnings.map(|text| LineBuilder::new().push("warning: ", WARN).push(text, Style::new())),
    );
    lines.into_iter().flat_map(|line| line.wrap(width)).collect()
}

/// The driver and the sources of the cluster.
pub(super) fn sources(node: &NodeView, width: usize) -> Vec<Line<'static>> {
    let up = |up| if up { ("up", GOOD) } else { ("down", BAD) };
    let mut lines = vec![LineBuilder::new().push("SOURCES", HEAD)];
    let (state, style) = match &node.no_gpu_reason {
        Some(_) => ("not needed", MUTED),
        None => up(node.driver.up),
    };
    lines.push(LineBuilder::new().push("  driver ", Style::new()).push(state, style));
    for source in &node.sources {
        let (state, style) = up(source.up);
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
