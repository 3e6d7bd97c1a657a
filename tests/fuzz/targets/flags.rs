//! The command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use nvml_exporter::args::idle::sift;
use nvml_exporter::command::Command;

/// An argument a line. What is refused is named with its flag.
pub(crate) fn check(bytes: &[u8]) {
    // Clap's own messages show what was given, with its control characters made visible by the terminal.
    let given = bytes.split(|byte| *byte == b'\n').map(|arg| OsString::from_vec(arg.to_vec()));
    // Names of hosts are looked up; the last address counts, and nobody is asked for this one.
    let args = std::iter::once("nvml-exporter".into()).chain(given).chain(["--address=:0".into()]);
    let args: Vec<OsString> = args.collect();
    let (kept, remarks) = sift::<Command>(args.iter().cloned(), |_| None);
    assert!(kept.len() + remarks.len() <= args.len());
    match Command::of(kept).map(Command::serving) {
        Ok(None) => {}
        Ok(Some(args)) => match args.config() {
            Ok(config) => {
                assert!(!config.serve.addresses.is_empty());
                assert!(config.read.max_age >= config.read.interval);
            }
            Err(error) => {
                let told = format!("{error:#}");
                assert!(
                    ["--", "node name", "NODE_NAME"].iter().any(|flag| told.contains(flag)),
                    "{told}"
                );
            }
        },
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
