//! The interactive screen of `top`: drawing and keys.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, bail};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::style::Style;
use ratatui::text::{Line, Text};
use ratatui::widgets::Paragraph;
use ratatui::{DefaultTerminal, Frame};

use super::{NodeUpdate, down_reason};
use crate::policy;
use crate::run::interrupt::Interrupt;
use crate::top::{self, TopOptions};
use crate::view::NodeView;

/// Draws updates until a key or a signal ends the screen, then restores the terminal.
///
/// # Errors
/// The terminal cannot be used, the node cannot be read, or the thread that sends updates has ended.
pub(super) fn show(updates: &Receiver<NodeUpdate>, interrupt: &Interrupt) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let shown = Screen::default().run(&mut terminal, updates, interrupt);
    if ratatui::try_restore().is_err() {
        // The terminal is gone. Its drop would print an error to it, and panic because that fails.
        std::mem::forget(terminal);
    }
    shown
}

struct Screen {
    node: Option<NodeView>,
    error: Option<String>,
    /// Index of the first visible line.
    top: usize,
    options: TopOptions,
    colour: bool,
}

impl Default for Screen {
    fn default() -> Self {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let options = TopOptions { folds_mig: true, ..TopOptions::default() };
        Self { node: None, error: None, top: 0, options, colour }
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
                if is_interrupt(key) || !self.press(key.code, page) {
                    return Ok(());
                }
            }
            match updates.recv_timeout(Duration::ZERO) {
                Ok(update) => self.update(update)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the thread that reads the node ended unexpectedly")
                }
            }
        }
        Ok(())
    }

    /// Shows an update. A node that cannot be read at all is an error at first, and shown later.
    fn update(&mut self, update: NodeUpdate) -> anyhow::Result<()> {
        let is_first = self.node.is_none() && self.error.is_none();
        match update {
            Ok(node) => {
                if let Some(reason) = down_reason(&node).filter(|_| is_first) {
                    bail!("{reason}");
                }
                (self.node, self.error) = (Some(node), None);
            }
            Err(error) if is_first => bail!("{error}"),
            Err(error) => (self.node, self.error) = (None, Some(error)),
        }
        Ok(())
    }

    /// Handles a key. Returns whether to continue.
    fn press(&mut self, key: KeyCode, page: usize) -> bool {
        if self.options.help {
            self.options.help = false;
            return key != KeyCode::Char('q');
        }
        if let Some(typed) = self.options.typed.take() {
            self.options.typed = self.type_filter(typed, key);
            return true;
        }
        self.scroll(key, page);
        self.options_key(key)
    }

    /// Handles a key while the filter is typed. Returns the text, unless it was accepted or cleared.
    #[expect(clippy::wildcard_enum_match_arm, reason = "other keys are ignored")]
    fn type_filter(&mut self, mut typed: String, key: KeyCode) -> Option<String> {
        self.top = 0;
        match key {
            KeyCode::Enter => {
                self.options.filter = typed;
                return None;
            }
            KeyCode::Esc => {
                self.options.filter.clear();
                return None;
            }
            KeyCode::Backspace => {
                typed.pop();
            }
            KeyCode::Char(c) => typed.push(c),
            _ => {}
        }
        Some(typed)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "other keys do not scroll")]
    fn scroll(&mut self, key: KeyCode, page: usize) {
        match key {
            KeyCode::Down | KeyCode::Char('j') => self.top += 1,
            KeyCode::Up | KeyCode::Char('k') => self.top = self.top.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.top += page,
            KeyCode::PageUp => self.top = self.top.saturating_sub(page),
            KeyCode::Home => self.top = 0,
            KeyCode::End => self.top = usize::MAX,
            _ => {}
        }
    }

    /// Handles a key that changes what is shown. Returns whether to continue.
    #[expect(clippy::wildcard_enum_match_arm, reason = "other keys are ignored")]
    fn options_key(&mut self, key: KeyCode) -> bool {
        let options = &mut self.options;
        match key {
            KeyCode::Char('q') => return false,
            KeyCode::Char('?' | 'h') => options.help = true,
            KeyCode::Char('f') => options.full = !options.full,
            KeyCode::Char('p') => {
                options.switch_view();
                self.top = 0;
            }
            KeyCode::Char('m') => options.folds_mig = !options.folds_mig,
            KeyCode::Char('s') => options.sort_next(),
            KeyCode::Char('/') => options.typed = Some(options.filter.clone()),
            KeyCode::Esc => options.filter.clear(),
            _ => {}
        }
        true
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let width = area.width.into();
        let lines = match (&self.node, &self.error) {
            (Some(node), _) => top::lines(node, width, &self.options),
            (None, Some(error)) => top::message(error, width),
            (None, None) => top::message("reading; the driver may take some seconds", width),
        };
        let room = usize::from(area.height.saturating_sub(1));
        let all = lines.len();
        self.top = self.top.min(all.saturating_sub(room));
        let mut shown: Vec<Line<'_>> = lines.into_iter().skip(self.top).take(room).collect();
        let last = self.top + shown.len();
        shown.resize(room, Line::default());
        shown.push(top::footer(&self.options, (self.top, last), all, width));
        if !self.colour {
            shown = shown.into_iter().map(uncoloured).collect();
        }
        frame.render_widget(Paragraph::new(Text::from(shown)), area);
    }
}

fn is_interrupt(key: KeyEvent) -> bool {
    key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c')
}

fn uncoloured(mut line: Line<'_>) -> Line<'_> {
    for span in &mut line.spans {
        span.style = Style { fg: None, bg: None, ..span.style };
    }
    line
}
