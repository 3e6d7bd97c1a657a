//! The command line: serving, and the subcommands.

mod definition;
#[cfg(feature = "manual")]
mod manual;

use std::env;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, ValueEnum};

use crate::args::Args;
#[cfg(feature = "top")]
use crate::args::Config;
use crate::args::ignored_flags::{strip_ignored, without_empty_variables};
use crate::check::report::TextStyle;
#[cfg(feature = "manual")]
use crate::cli_docs;
use crate::metrics_list;
use crate::run;
use crate::stdout::print;

/// Prometheus exporter for NVIDIA GPUs: reads NVML, without DCGM
///
/// Serves series with the names of dcgm-exporter and of the GPU exporter of Alibaba Cloud ACK. On a machine
/// without a GPU, `nvml-exporter --mock` simulates a node.
#[derive(Debug, Parser)]
#[command(
    name = "nvml-exporter",
    version,
    max_term_width = 100,
    // The last occurrence of a repeated flag counts, as in dcgm-exporter.
    args_override_self = true,
    // The flags of a subcommand follow it.
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    subcommand: Option<Subcommand>,

    /// List all series families, mark the selected ones, and exit
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "table"
    )]
    print_metrics: Option<metrics_list::OutputFormat>,

    #[command(flatten)]
    args: Args,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Show GPUs and their processes in the terminal
    ///
    /// Reads the node with the flags and environment variables of the exporter. A running exporter is
    /// not affected. With --once, or without a terminal, prints one frame as text.
    #[cfg(feature = "top")]
    #[command(args_override_self = true)]
    Top {
        #[command(flatten)]
        args: Box<Args>,

        #[command(flatten)]
        remote: run::top::RemoteArgs,

        #[command(flatten)]
        screen: run::top::ScreenArgs,
    },
    /// Check what the exporter depends on, and print problems with remedies
    ///
    /// Uses the flags and environment variables of the exporter. The exit code is 1 if a check fails.
    #[command(args_override_self = true)]
    Check {
        #[command(flatten)]
        args: Box<Args>,

        /// Format of the report, text or json
        #[arg(long, value_enum, default_value_t = ReportFormat::Text, help_heading = "Check")]
        output: ReportFormat,

        /// Print only what fails or is doubtful
        #[arg(long, help_heading = "Check")]
        problems: bool,
    },
    /// Record what this node returns as a scenario that --mock plays
    ///
    /// Uses the flags and environment variables of the exporter. Names of the node are replaced. The exit
    /// code is 1 if there is no GPU to record.
    #[command(args_override_self = true)]
    Record {
        #[command(flatten)]
        args: Box<Args>,

        #[command(flatten)]
        record: run::RecordArgs,
    },
    /// Print a completion script for a shell
    #[cfg(feature = "manual")]
    Completions {
        /// Shell that reads the script
        shell: clap_complete::Shell,
    },
    /// Print the manual page in the format of `man -l`
    #[cfg(feature = "manual")]
    Man,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReportFormat {
    /// One line per check
    Text,
    /// One versioned JSON object
    Json,
}

impl Cli {
    /// Parses the command line and the environment. Prints an error and exits if they are invalid.
    #[must_use]
    pub fn from_command_line() -> Self {
        let (kept, remarks) = strip_ignored::<Self>(env::args_os(), |name| env::var_os(name));
        match Self::parse_with_environment(&kept) {
            Ok(cli) => cli.with_remarks(remarks),
            Err(error) => Self::with_tips(error, &kept).exit(),
        }
    }

    fn parse_with_environment(args: &[OsString]) -> Result<Self, clap::Error> {
        let command = Self::definition_for(args);
        Self::parse(without_empty_variables(command, |name| env::var_os(name)), args)
    }

    fn parse(mut command: clap::Command, args: &[OsString]) -> Result<Self, clap::Error> {
        let matches = command.try_get_matches_from_mut(args)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }

    /// Adds the environment variable that an invalid value is from, and the values that a switch has.
    fn with_tips(mut error: clap::Error, args: &[OsString]) -> clap::Error {
        let mut command = Self::definition();
        command.build();
        let mut all = command
            .get_arguments()
            .chain(command.get_subcommands().flat_map(clap::Command::get_arguments));
        let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidArg) else {
            return error;
        };
        let Some(arg) = all.find(|arg| arg.to_string() == *name) else { return error };
        let mut tips = Vec::new();
        let flag = arg.get_long().map(|long| format!("--{long}"));
        let is_flag = |arg: &OsString| {
            flag.as_ref().is_some_and(|flag| arg.to_string_lossy().starts_with(flag))
        };
        let variable = arg.get_env().filter(|variable| env::var_os(variable).is_some());
        if let Some(variable) = variable.filter(|_| !args.iter().any(is_flag)) {
            let variable = variable.to_string_lossy();
            tips.push(format!("the value is that of the environment variable {variable}").into());
        }
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            tips.push("give true or false".into());
        }
        if let Some(value) = nearest_value(&error) {
            tips.push(format!("a similar value exists: '{value}'").into());
        }
        if !tips.is_empty() {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
        }
        error
    }

    /// Parses arguments; the first one is the program name.
    ///
    /// # Errors
    /// Returns the error of clap if an argument is invalid.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let args: Vec<OsString> = args.into_iter().collect();
        Self::parse(Self::definition_for(&args), &args)
    }

    /// All flags and subcommands, with the help texts of `--help` or of `--help-all`.
    fn definition_for(args: &[OsString]) -> clap::Command {
        definition::complete(Self::command(), args.iter().any(|arg| arg == "--help-all"))
    }

    /// All flags and subcommands.
    fn definition() -> clap::Command {
        definition::complete(Self::command(), true)
    }

    /// The flags for serving; `None` with a subcommand.
    #[must_use]
    pub fn into_args(self) -> Option<Args> {
        self.subcommand.is_none().then_some(self.args)
    }

    /// Runs the subcommand, or serves until a signal stops the process. Returns the exit status.
    ///
    /// # Errors
    /// Returns the error that ended the command, such as an invalid flag or an address in use.
    pub fn run(self) -> anyhow::Result<u8> {
        match self.subcommand {
            None => match self.print_metrics {
                Some(form) => run::list(self.args.into_config()?, form)?,
                None => run::serve(self.args.into_config()?)?,
            },
            #[cfg(feature = "top")]
            Some(Subcommand::Top { remote, screen, args }) => {
                let Config { read, once, .. } = args.into_config()?;
                run::top::top(read, once, remote, &screen)?;
            }
            Some(Subcommand::Check { args, output, problems }) => {
                let report = run::check(*args);
                let text = match output {
                    ReportFormat::Text => report.text(&TextStyle::of_stdout(problems)),
                    ReportFormat::Json => report.json(problems)?,
                };
                print(text.as_bytes())?;
                if report.has_failures() {
                    return Ok(1);
                }
            }
            Some(Subcommand::Record { record, args }) => run::record(*args, &record)?,
            #[cfg(feature = "manual")]
            Some(Subcommand::Completions { shell }) => {
                cli_docs::print_completions(Self::definition(), shell)?;
            }
            #[cfg(feature = "manual")]
            Some(Subcommand::Man) => print(&manual::page(&Self::definition())?)?,
        }
        Ok(0)
    }

    fn with_remarks(self, remarks: Vec<String>) -> Self {
        match self.subcommand {
            Some(Subcommand::Check { args, output, problems }) => {
                let args = Box::new(args.with_warnings(remarks));
                Self { subcommand: Some(Subcommand::Check { args, output, problems }), ..self }
            }
            _ => Self { args: self.args.with_warnings(remarks), ..self },
        }
    }
}

/// The valid value that is nearest to the invalid one, for a typing error that clap does not find.
fn nearest_value(error: &clap::Error) -> Option<&String> {
    let Some(ContextValue::String(invalid)) = error.get(ContextKind::InvalidValue) else {
        return None;
    };
    let Some(ContextValue::Strings(valid)) = error.get(ContextKind::ValidValue) else {
        return None;
    };
    if error.get(ContextKind::SuggestedValue).is_some() {
        return None;
    }
    let distance = |value: &&String| strsim::osa_distance(value, invalid);
    valid.iter().min_by_key(distance).filter(|value| distance(value) <= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_definition_is_valid() {
        Cli::definition().debug_assert();
    }
}
