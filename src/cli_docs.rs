//! Shell completions, generated from the command-line definition.

use clap::Command;
use clap_complete::Shell;

use crate::stdout::print;

/// Prints a completion script for `shell` to standard output.
///
/// # Errors
/// Standard output cannot be written.
pub fn print_completions(mut command: Command, shell: Shell) -> anyhow::Result<()> {
    let mut text = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut text);
    print(&text)
}
