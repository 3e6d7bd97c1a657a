//! The subcommand `top`: shows a node in the terminal, either this one or one of a running exporter.

mod remote;
mod screen;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use anyhow::{Context, bail};
use tokio::sync::watch;

pub use self::remote::RemoteArgs;
use super::NO_THREAD;
use super::interrupt::Interrupt;
use super::pipeline::Pipeline;
use crate::args::ReadConfig;
use crate::clock::Clock;
use crate::publish::Published;
use crate::stdout;
use crate::top;
use crate::view::NodeView;
use crate::worker;

/// The newest state of the node, or the error that prevents reading it.
type NodeUpdate = Result<NodeView, String>;

/// Shows the node until a key ends it; prints it once with `once` or if standard output is not a
/// terminal.
///
/// # Errors
/// The node cannot be read, or the terminal cannot be used.
pub fn top(read: ReadConfig, once: bool, remote: RemoteArgs) -> anyhow::Result<()> {
    // For example through `kubectl exec` without `-t`.
    let once = once || !io::stdout().is_terminal();
    let (send, updates) = mpsc::channel();
    if let Some(exporter) = remote.endpoint()? {
        worker::spawn("poller".to_owned(), move || remote::poll(&exporter, &send))
            .context(NO_THREAD)?;
        return if once {
            print_first(&updates)
        } else {
            screen::show(&updates, &Interrupt::default())
        };
    }
    let clock = Clock::start();
    let read = read.for_node_view();
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
    interrupt.finish();
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

/// Prints one frame as text, in the width of `COLUMNS`, else of the terminal, else 80.
fn print(node: &NodeView) -> anyhow::Result<()> {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || ratatui::crossterm::terminal::size().ok().map(|(columns, _)| columns.into());
    let terminal = || if io::stdout().is_terminal() { terminal() } else { None };
    let width: usize = columns.or_else(terminal).unwrap_or(80);
    let mut text = String::new();
    for line in top::lines(node, width, true) {
        let plain: String = line.spans.iter().map(|span| &*span.content).collect();
        text.push_str(plain.trim_end());
        text.push('\n');
    }
    stdout::print(text.as_bytes())
}
