//! The subcommand `top`: shows a node in the terminal, either this one or one of a running exporter.

mod remote;
mod screen;

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::watch;

pub use self::remote::RemoteArgs;
use super::NO_THREAD;
use super::interrupt::Interrupt;
use super::pipeline::Pipeline;
use crate::args::ReadConfig;
use crate::clock::Clock;
use crate::model::DownReason;
use crate::policy;
use crate::publish::Published;
use crate::stdout;
use crate::top::{self, TopOptions};
use crate::view::NodeView;
use crate::worker;

/// The newest state of the node, or the error that prevents reading it.
type NodeUpdate = Result<NodeView, String>;

/// Flags of `top` alone.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Screen")]
pub struct ScreenArgs {
    /// Interval between updates, in seconds [default: 2]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    delay: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    let seconds = seconds.ok_or("give seconds from 0.1 to 3600, for example 5")?;
    Ok(Duration::from_secs_f64(seconds))
}

/// Shows the node until a key ends it; prints it once with `once` or if standard output is not a
/// terminal.
///
/// # Errors
/// The node cannot be read, there is no driver, or the terminal cannot be used.
pub fn top(
    read: ReadConfig,
    once: bool,
    remote: RemoteArgs,
    screen: &ScreenArgs,
) -> anyhow::Result<()> {
    // For example through `kubectl exec` without `-t`.
    let once = once || !io::stdout().is_terminal();
    let (send, updates) = mpsc::channel();
    if let Some(exporter) = remote.endpoint()? {
        let interval = screen.delay.unwrap_or(policy::TOP_EVERY);
        worker::spawn("poller".to_owned(), move || remote::poll(&exporter, interval, &send))
            .context(NO_THREAD)?;
        return if once {
            print_first(&updates)
        } else {
            screen::show(&updates, &Interrupt::default())
        };
    }
    let clock = Clock::start();
    let mut read = read.for_node_view();
    read.interval = screen.delay.unwrap_or(policy::TOP_EVERY.min(read.interval));
    read.max_age = read.max_age.max(policy::default_max_age(read.interval));
    let max_age = read.max_age;
    let interrupt = Interrupt::start(read.mock.is_some())?;
    let (read, mock_env) = read.with_mock_env(interrupt.files())?;
    let mut pipeline = Pipeline::start(read, mock_env, clock)?;
    if once {
        let published = pipeline.sample_until_ready()?;
        return print(&NodeView::from_snapshot(published.snapshot(), false));
    }
    let (publish, mut published) = watch::channel(None::<Arc<Published>>);
    let (command, commands) = mpsc::channel();
    let forwarder = worker::spawn("updates".to_owned(), move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        while runtime.as_ref().is_ok_and(|runtime| runtime.block_on(published.changed()).is_ok()) {
            let newest = published.borrow_and_update().clone();
            let Some(newest) = newest else { continue };
            let is_stale = newest.age(clock.now().mono) > max_age;
            if send.send(Ok(NodeView::from_snapshot(newest.snapshot(), is_stale))).is_err() {
                break;
            }
        }
    });
    forwarder.context(NO_THREAD)?;
    let sampler = worker::spawn("sampler".to_owned(), move || pipeline.run(&commands, &publish))
        .context(NO_THREAD)?;
    interrupt.finish(false);
    let shown = screen::show(&updates, &interrupt);
    // If this fails, the sampling thread has panicked, which is reported below.
    let _ = command.send(None);
    let ended = sampler.join();
    shown?;
    if ended.is_err() {
        bail!("the sampling thread panicked; this is a bug, please report it");
    }
    Ok(())
}

fn print_first(updates: &Receiver<NodeUpdate>) -> anyhow::Result<()> {
    match updates.recv().context("the polling thread ended unexpectedly")? {
        Ok(node) => print(&node),
        Err(error) => bail!("{error}"),
    }
}

/// Why there is nothing to show: no GPU, or the driver is down. While it is being opened, this is not known yet.
fn down_reason(node: &NodeView) -> Option<String> {
    if let Some(reason) = &node.no_gpu_reason {
        return Some(format!("{reason}; try a simulated node: nvml-exporter top --mock=demo"));
    }
    let reason = node.driver.reason.as_ref().filter(|_| !node.driver.up)?;
    if *reason == DownReason::Starting.label() {
        return None;
    }
    let detail = node.driver.detail.as_deref().unwrap_or_default();
    Some(format!("the driver is down ({reason}): {detail}"))
}

/// Prints one frame as text, in the width of `COLUMNS`, else of the terminal, else 80. On a terminal the
/// frame is compact if the full one is higher than the terminal.
fn print(node: &NodeView) -> anyhow::Result<()> {
    if let Some(reason) = down_reason(node) {
        bail!("{reason}");
    }
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse::<usize>().ok());
    let size = ratatui::crossterm::terminal::size().ok().filter(|_| io::stdout().is_terminal());
    let width = number("COLUMNS").or(size.map(|(columns, _)| columns.into())).unwrap_or(80);
    // The last line is that of the prompt.
    let room = size.map(|(_, rows)| usize::from(rows).saturating_sub(1));
    let full = TopOptions { full: true, ..TopOptions::default() };
    let mut lines = top::lines(node, width, &full);
    if room.is_some_and(|room| lines.len() > room) {
        let compact = TopOptions { folds_mig: true, ..TopOptions::default() };
        lines = top::lines(node, width, &compact);
    }
    let hidden = room.map_or(0, |room| (lines.len() + 1).saturating_sub(room));
    let hidden = if hidden > 1 { hidden } else { 0 };
    lines.truncate(lines.len() - hidden);
    let mut text = String::new();
    for line in lines {
        let plain: String = line.spans.iter().map(|span| &*span.content).collect();
        text.push_str(plain.trim_end());
        text.push('\n');
    }
    if hidden > 0 {
        // Writing to a string does not fail.
        let _ = writeln!(text, "… {hidden} more lines: pipe the output, for example to less");
    }
    stdout::print(text.as_bytes())
}
