//! The interactive screen of `top`: drawing and keys.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, bail};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::style::Style;
use ratatui::text::{Line, Text};
use ratatui::widgets::Paragraph;
use ratatui::{DefaultTerminal, Frame};

use super::NodeUpdate;
use crate::policy;
use crate::run::interrupt::Interrupt;
use crate::top;
use crate::view::NodeView;

/// Draws updates until a key or a signal ends the screen, then restores the terminal.
///
/// # Errors
/// The terminal cannot be used, or the thread that sends updates has ended.
pub(super) fn show(updates: &Receiver<NodeUpdate>, interrupt: &Interrupt) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let shown = Screen::default().run(&mut terminal, updates, interrupt);
    ratatui::restore();
    shown
}

struct Screen {
    node: Option<NodeView>,
    error: Option<String>,
    /// Index of the first visible line.
    top: usize,
    /// Whether processes are shown.
    processes: bool,
    colour: bool,
}

impl Default for Screen {
    fn default() -> Self {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { node: None, error: None, top: 0, processes: true, colour }
    }
}

impl Screen {
    fn run(
        mut self,
        terminal: &mut DefaultTerminal,
        updates: &Receiver<NodeUpdate>,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        while !interrupt.is_requested() {
            terminal.draw(|frame| self.draw(frame))?;
            if event::poll(policy::TOP_KEY_TIMEOUT)?
                && let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
            {
                let page = usize::from(terminal.size()?.height).saturating_sub(2);
                let interrupt =
                    key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
                if interrupt || !self.press(key.code, page) {
                    return Ok(());
                }
            }
            match updates.recv_timeout(Duration::ZERO) {
                Ok(Ok(node)) => (self.node, self.error) = (Some(node), None),
                Ok(Err(error)) => (self.node, self.error) = (None, Some(error)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the thread that reads the node ended unexpectedly")
                }
            }
        }
        Ok(())
    }

    /// Handles a key. Returns whether to continue.
    #[expect(clippy::wildcard_enum_match_arm, reason = "other keys are ignored")]
    fn press(&mut self, key: KeyCode, page: usize) -> bool {
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Down | KeyCode::Char('j') => self.top += 1,
            KeyCode::Up | KeyCode::Char('k') => self.top = self.top.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.top += page,
            KeyCode::PageUp => self.top = self.top.saturating_sub(page),
            KeyCode::Home => self.top = 0,
            KeyCode::End => self.top = usize::MAX,
            KeyCode::Char('p') => self.processes = !self.processes,
            _ => {}
        }
        true
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let lines = match (&self.node, &self.error) {
            (Some(node), _) => top::lines(node, area.width.into(), self.processes),
            (None, Some(error)) => vec![Line::from(error.clone())],
            (None, None) => vec![Line::from("reading; the driver may take some seconds")],
        };
        let room = usize::from(area.height.saturating_sub(1));
        self.top = self.top.min(lines.len().saturating_sub(room));
        let mut shown: Vec<Line<'_>> = lines.into_iter().skip(self.top).take(room).collect();
        if !self.colour {
            shown = shown.into_iter().map(uncoloured).collect();
        }
        shown.resize(room, Line::default());
        shown.push(Line::from("q quit  arrows scroll  p processes"));
        frame.render_widget(Paragraph::new(Text::from(shown)), area);
    }
}

fn uncoloured(mut line: Line<'_>) -> Line<'_> {
    for span in &mut line.spans {
        span.style = Style { fg: None, bg: None, ..span.style };
    }
    line
}
