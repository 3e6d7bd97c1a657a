//! The command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use nvml_exporter::args::ignored_flags::strip_ignored;
use nvml_exporter::cli::Cli;

/// Input: one argument per line. Rejected arguments are reported with the name of the flag.
pub(crate) fn check(bytes: &[u8]) {
    // Messages of clap may contain control characters of the input; they are not checked.
    let input = bytes.split(|byte| *byte == b'\n').map(|arg| OsString::from_vec(arg.to_vec()));
    // The last address is used, and this one needs no DNS lookup.
    let args = std::iter::once("nvml-exporter".into()).chain(input).chain(["--address=:0".into()]);
    let args: Vec<OsString> = args.collect();
    let (kept, remarks) = strip_ignored::<Cli>(args.iter().cloned(), |_| None);
    assert!(kept.len() + remarks.len() <= args.len());
    match Cli::from_args(kept).map(Cli::into_args) {
        Ok(None) => {}
        Ok(Some(args)) => match args.into_config() {
            Ok(config) => {
                assert!(!config.serve.addresses.is_empty());
                assert!(config.read.max_age >= config.read.interval);
            }
            Err(error) => {
                let message = format!("{error:#}");
                assert!(
                    ["--", "node name", "NODE_NAME"].iter().any(|flag| message.contains(flag)),
                    "{message}"
                );
            }
        },
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
