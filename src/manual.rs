//! What the command line says of itself, for shells and for `man`.

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::output::print;

/// Prints a script with which `shell` completes the flags of a command.
///
/// # Errors
/// Standard output cannot be written to.
pub fn completions<C: CommandFactory>(shell: Shell) -> anyhow::Result<()> {
    let mut text = Vec::new();
    let mut command = C::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut text);
    print(&text)
}

/// Prints the manual page of a command.
///
/// # Errors
/// Standard output cannot be written to.
pub fn page<C: CommandFactory>() -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(C::command()).render(&mut text).context("the manual page")?;
    print(&text)
}
