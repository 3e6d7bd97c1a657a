//! A `libnvidia-ml` that simulates a node of NVIDIA GPUs.
//!
//! A client loads it as it loads the real library. What it meets is a node whose state is a function
//! of a scenario and of time:
//!
//! - [`abi`] is NVML's C ABI: it decodes, asks the world and encodes. Nothing else is unsafe.
//! - [`world`] is the machine, [`ring`] its utilization samples, [`fault`] what goes wrong with it.
//! - [`scenario`] is what a TOML text says of the node, of [`models`] and load [`curve`]s.
//! - [`calls`] counts what is called.
//! - [`branches`] says what older drivers lack.
//! - [`cluster`] is the Kubernetes node around the GPUs, and its servers.
//! - [`stage`] gives a client a scenario: a directory with the library and a proc tree.
//! - [`clock`] alone reads a clock.

mod abi;
mod branches;
mod calls;
mod clock;
mod cluster;
mod code;
mod curve;
mod fault;
mod models;
mod number;
mod ring;
mod scenario;
mod stage;
mod world;

/// Checks the text of a scenario; `name` seeds what identifies its GPUs.
///
/// # Errors
/// The line, the first thing that is wrong there, and its mend.
pub fn check(name: &str, text: &str) -> Result<(), String> {
    scenario::Scenario::parse(name, text).map(drop).map_err(|complaint| complaint.to_string())
}
