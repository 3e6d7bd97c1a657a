//! Writing to standard output.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;

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
