//! Writing to standard output.

use std::io::{self, ErrorKind, IsTerminal, Write};

use anyhow::Context;
use rustix::termios::tcgetwinsize;

/// Writes the whole text to standard output. A closed pipe is not an error: `head` closes it early.
///
/// # Errors
/// Standard output cannot be written, for example because the disk is full.
pub fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Columns of the terminal that standard output is; none if it is another file.
#[must_use]
pub fn terminal_width() -> Option<usize> {
    let out = io::stdout();
    let size = tcgetwinsize(&out).ok().filter(|_| out.is_terminal())?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}
