//! Standard output, which whoever reads it may close when he has read enough.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;

/// Prints a text as a whole. A reader who has gone, as `head` goes, is no error.
///
/// # Errors
/// It cannot be written to.
pub fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output"),
    }
}
