//! The `nvml-exporter` command.

use nvml_exporter::cli::Cli;
use nvml_exporter::run;

fn main() {
    let status = match Cli::from_command_line().run() {
        Ok(status) => status,
        Err(error) => {
            run::report_error(&error);
            1
        }
    };
    run::exit(status)
}
