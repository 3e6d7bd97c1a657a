//! The `nvml-exporter` command.

use std::process::ExitCode;

use nvml_exporter::command::Command;
use nvml_exporter::run;

fn main() -> ExitCode {
    match Command::from_command_line().run() {
        Ok(code) => code,
        Err(error) => {
            run::complain(&error);
            ExitCode::FAILURE
        }
    }
}
