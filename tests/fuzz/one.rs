//! One target, whose name is in `FUZZ_TARGET`: guided by what its inputs reach (see `run`), or with the
//! files that are named.

#![cfg_attr(feature = "guided", no_main)]
#![expect(clippy::panic, reason = "whoever calls it reads why")]

use fuzz::{TARGETS, Target};

fn target() -> Target {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    Target::named(&wanted).unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        panic!("FUZZ_TARGET={wanted}: give one of {}", names.join(", "))
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
