//! The `nvml-exporter` command.

use std::process::ExitCode;

use nvml_exporter::args::Args;
use nvml_exporter::run;

fn main() -> ExitCode {
    match Args::from_command_line().config().and_then(run::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::complain(&error);
            ExitCode::FAILURE
        }
    }
}
