//! Errors on stderr.

/// Prints an error that no return code can express to stderr.
#[expect(clippy::print_stderr, reason = "the library has no log")]
pub(crate) fn log_error(error: &dyn std::error::Error) {
    eprintln!("mock-nvml: {error}");
}
