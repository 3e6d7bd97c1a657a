//! Scenarios for the tests of the validation.

use crate::scenario::Scenario;

pub(super) const GPU: &str = "[[gpu]]\nmodel = \"T4\"\n";
pub(super) const PROCESS: &str =
    "[[process]]\npid = 7\nname = \"p\"\ngpus = [0]\nmemory = \"1 GiB\"\n";

/// The error of a scenario.
pub(super) fn error_of(text: &str) -> String {
    match Scenario::parse("test", text) {
        Ok(_) => format!("no error in\n{text}"),
        Err(error) => error.to_string(),
    }
}
