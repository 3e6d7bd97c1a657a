//! Runs the target named by `FUZZ_TARGET`: guided by coverage (feature `guided`, see `run`), or on the files given as
//! arguments.

#![cfg_attr(feature = "guided", no_main)]
#![expect(clippy::panic, reason = "a panic message is the error report of this tool")]

use fuzz::{TARGETS, Target};

fn target() -> Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    Target::by_name(&name).unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        panic!("FUZZ_TARGET={name} is not a target: set it to one of {}", names.join(", "))
    })
}

#[cfg(feature = "guided")]
mod guided {
    use std::sync::OnceLock;

    static TARGET: OnceLock<fuzz::Target> = OnceLock::new();

    libfuzzer_sys::fuzz_target!(|data: &[u8]| {
        (TARGET.get_or_init(super::target).check)(data);
    });
}

#[cfg(not(feature = "guided"))]
fn main() {
    let target = target();
    for path in std::env::args_os().skip(1) {
        let input =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (target.check)(&input);
    }
}
