//! Shell completions and the manual page, generated from the command-line definition.

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::stdout::print;

/// Prints a completion script for `shell` to standard output.
///
/// # Errors
/// Standard output cannot be written.
pub fn print_completions<C: CommandFactory>(shell: Shell) -> anyhow::Result<()> {
    let mut text = Vec::new();
    let mut command = C::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut text);
    print(&text)
}

/// Prints the manual page (roff) to standard output.
///
/// # Errors
/// Standard output cannot be written.
pub fn print_man_page<C: CommandFactory>() -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(C::command())
        .render(&mut text)
        .context("cannot generate the manual page")?;
    print(&text)
}
