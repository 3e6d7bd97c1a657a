//! The `nvml-exporter` command.

use std::process::ExitCode;

use nvml_exporter::cli::Cli;
use nvml_exporter::run;

fn main() -> ExitCode {
    match Cli::from_command_line().run() {
        Ok(code) => code,
        Err(error) => {
            run::report_error(&error);
            ExitCode::FAILURE
        }
    }
}
