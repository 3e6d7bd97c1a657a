//! Scenario files: parses and validates a scenario. `scenarios/README.md` documents the format.
//!
//! [`tables`] are the TOML tables of a file, [`validate`] converts them into a scenario, [`source`] finds
//! and loads a scenario by name or path.

mod error;
pub(crate) mod source;
mod tables;
mod validate;

use crate::{scenario::Scenario, scenario_file::error::ScenarioError};

impl Scenario {
    /// Parses and validates a scenario; `name` seeds the generated identities (UUIDs, serial numbers).
    ///
    /// # Errors
    /// The first invalid value: its line, the reason, and what to write instead.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        tables::parse(text)
            .and_then(|file| validate::check(name, &file))
            .map_err(|error| error.at_line(text))
    }
}
