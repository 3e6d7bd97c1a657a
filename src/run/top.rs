//! The verb `top`: the node in a terminal, read here or asked of a running exporter.

mod remote;
mod screen;

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use anyhow::{Context, bail};
use tokio::sync::watch;

pub use self::remote::Remote;
use super::sampling::Sampling;
use crate::args::ReadConfig;
use crate::clock::Clock;
use crate::output;
use crate::top;
use crate::view::NodeView;

/// What is known of the node now, or why nothing is.
type News = Result<NodeView, String>;

/// Shows the node until told to stop; or prints it, `once` or where there is no terminal to draw on.
///
/// # Errors
/// Nothing can be asked, or the terminal cannot be drawn on.
pub fn top(read: ReadConfig, once: bool, remote: Remote) -> anyhow::Result<()> {
    // As through `kubectl exec` without a terminal.
    let once = once || !io::stdout().is_terminal();
    let (tell, news) = mpsc::channel();
    if let Some(exporter) = remote.address()? {
        let asker = thread::Builder::new().name("asker".to_owned());
        asker.spawn(move || remote::ask(&exporter, &tell))?;
        return if once { print_first(&news) } else { screen::show(&news) };
    }
    let clock = Clock::start();
    let read = read.for_people();
    let max_age = read.max_age;
    let (read, stage) = read.staged()?;
    let mut sampling = Sampling::set_up(read, stage, clock)?;
    if once {
        let published = sampling.settled()?;
        return print(&NodeView::of(published.snapshot(), false));
    }
    let (publish, mut published) = watch::channel(None);
    let (order, orders) = mpsc::channel();
    let sampler = thread::Builder::new()
        .name("sampler".to_owned())
        .spawn(move || sampling.publish_until_told(&orders, &publish))?;
    thread::Builder::new().name("teller".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        while runtime.as_ref().is_ok_and(|runtime| runtime.block_on(published.changed()).is_ok()) {
            let newest = published.borrow_and_update().clone();
            let Some(newest) = newest else { continue };
            let is_old = newest.age(clock.now().mono) > max_age;
            if tell.send(Ok(NodeView::of(newest.snapshot(), is_old))).is_err() {
                break;
            }
        }
    })?;
    let shown = screen::show(&news);
    // The thread may have died of a defect; then there is nobody to stop.
    let _ = order.send(None);
    let ended = sampler.join();
    shown?;
    if ended.is_err() {
        bail!("the sampling thread has panicked; this is a defect, please report it");
    }
    Ok(())
}

fn print_first(news: &Receiver<News>) -> anyhow::Result<()> {
    match news.recv().context("nobody asks")? {
        Ok(node) => print(&node),
        Err(why) => bail!("{why}"),
    }
}

/// One frame as text, in the width that the terminal has or says.
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
    output::print(text.as_bytes())
}
