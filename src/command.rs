//! What the program is asked to do: to serve, or one of its verbs.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::args::Args;
#[cfg(feature = "top")]
use crate::args::Config;
use crate::args::idle::sift;
use crate::listing;
#[cfg(feature = "manual")]
use crate::manual;
use crate::output::print;
use crate::run;

/// Prometheus exporter for NVIDIA GPUs: reads NVML directly, without DCGM, and serves series named
/// as dcgm-exporter and the GPU exporter of Alibaba Cloud ACK name them.
///
/// Without a GPU, `nvml-exporter --mock` simulates a node.
#[derive(Debug, Parser)]
#[command(
    name = "nvml-exporter",
    version,
    max_term_width = 100,
    // A flag that is given again is meant anew, as users of the exporters before are used to.
    args_override_self = true,
    // Those of a verb stand behind it.
    args_conflicts_with_subcommands = true
)]
pub struct Command {
    #[command(subcommand)]
    verb: Option<Verb>,

    /// List the series families, those that are shown marked, and exit
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "table"
    )]
    print_metrics: Option<listing::Form>,

    #[command(flatten)]
    args: Args,
}

/// What can be asked for beside serving.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Show who is using the GPUs, in the terminal
    ///
    /// Takes the flags and the environment of the exporter, to read the node as it does; a running exporter is
    /// not disturbed. With --once, or without a terminal, prints one frame as text.
    #[cfg(feature = "top")]
    #[command(args_override_self = true)]
    Top {
        #[command(flatten)]
        remote: run::top::Remote,

        #[command(flatten)]
        args: Box<Args>,
    },
    /// Look where the exporter would look, and tell what is wrong and how to mend it
    ///
    /// Takes the flags and the environment of the exporter. The exit code is 1 if anything fails.
    #[command(args_override_self = true)]
    Check {
        #[command(flatten)]
        args: Box<Args>,

        /// How to tell it
        #[arg(long, value_enum, default_value_t = Output::Text, help_heading = "Check")]
        output: Output,
    },
    /// Print a script with which a shell completes this command's flags
    #[cfg(feature = "manual")]
    Completions {
        /// The shell that reads it
        shell: clap_complete::Shell,
    },
    /// Print the manual page, as `man -l` reads it
    #[cfg(feature = "manual")]
    Man,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// A line for each thing that was looked at
    Text,
    /// For programs: one object, with a version
    Json,
}

impl Command {
    /// Reads the command line and the environment; ends the process where they are not understood.
    #[must_use]
    pub fn from_command_line() -> Self {
        let (kept, remarks) = sift::<Self>(env::args_os(), |name| env::var_os(name));
        Self::parse_from(kept).with_remarks(remarks)
    }

    /// Reads arguments, the first of which is the program's name.
    ///
    /// # Errors
    /// They are not understood.
    pub fn of(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(args)
    }

    /// How to serve, if that is asked for.
    #[must_use]
    pub fn serving(self) -> Option<Args> {
        self.verb.is_none().then_some(self.args)
    }

    /// Does it, and says how it went.
    ///
    /// # Errors
    /// What keeps it from being done.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {
            None => match self.print_metrics {
                Some(form) => run::list(self.args.config()?.read, form)?,
                None => run::serve(self.args.config()?)?,
            },
            #[cfg(feature = "top")]
            Some(Verb::Top { remote, args }) => {
                let Config { read, once, .. } = args.config()?;
                run::top::top(read, once, remote)?;
            }
            Some(Verb::Check { args, output }) => {
                let report = run::check(*args);
                let text = match output {
                    Output::Text => report.to_string(),
                    Output::Json => report.json()?,
                };
                print(text.as_bytes())?;
                if report.has_failures() {
                    return Ok(ExitCode::FAILURE);
                }
            }
            #[cfg(feature = "manual")]
            Some(Verb::Completions { shell }) => manual::completions::<Self>(shell)?,
            #[cfg(feature = "manual")]
            Some(Verb::Man) => manual::page::<Self>()?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn with_remarks(self, remarks: Vec<String>) -> Self {
        match self.verb {
            Some(Verb::Check { args, output }) => {
                let args = Box::new(args.with_remarks(remarks));
                Self { verb: Some(Verb::Check { args, output }), ..self }
            }
            _ => Self { args: self.args.with_remarks(remarks), ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_is_well_formed() {
        Command::command().debug_assert();
    }
}
