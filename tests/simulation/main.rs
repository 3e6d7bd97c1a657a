//! Random worlds with random faults, run through the whole pipeline over NVML's C ABI. Every exposition is
//! checked against the invariants. Worlds with a whole cluster are in [`attribution`].
//!
//! A seed produces the same worlds in the same order. The number of cycles per world depends on the clock.
//! `SIMULATION_SEED=7 SIMULATION_CYCLES=1000000 cargo test --test simulation` runs other worlds, and more.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod attribution;
mod exposition;
mod flags;
mod invariants;
mod pipeline;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use self::invariants::Invariants;
use self::pipeline::Pipeline;
use self::world::{Effect, World, world};

const CYCLES: usize = 15_000;
const SEED: u64 = 2026;
/// The speed of the clock. Calls that measure a bus for 40 ms seem to take 8 s, which is no hang yet.
const RATE: u32 = 200;
/// The collection interval, on that clock.
const INTERVAL: Duration = Duration::from_secs(60);
/// How long a world lasts, on that clock.
const WORLD_DURATION: Duration = Duration::from_secs(65);
/// After this time a world is stable: it has been read, including everything with a low sampling rate, and
/// data of calls that fail now has exceeded the maximum age.
const STABLE_AFTER: Duration = Duration::from_secs(50);

/// Texts that some expositions must contain: they show that all parts of the pipeline are exercised.
const EXPECTED: [&str; 10] = [
    "PodName=\"pod-",
    "DCGM_CUSTOM_PROCESS_SM_UTIL{",
    "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_USED{",
    "GPU_I_ID=\"1\"",
    "nvml_exporter_driver_up{NodeName=\"node-1\"} 0",
    "nvml_exporter_gpu_unidentified{",
    "reason=\"hung\"",
    "reason=\"lost\"",
    "nvml_exporter_discarded_rows_total{",
    "nvml_exporter_xid_events_total{",
];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Whether an NVML session may end, and another begin, between two expositions.
fn ends_sessions(world: &World) -> bool {
    let codes = ["UNINITIALIZED", "DRIVER_NOT_LOADED"];
    let ends = |effect: &Effect| matches!(effect, Effect::Code(code) if codes.contains(code));
    !world.driver || world.faults.iter().any(|fault| ends(&fault.effect))
}

#[test]
fn exposition_keeps_the_invariants_in_random_worlds() {
    let seed = number("SIMULATION_SEED").unwrap_or(SEED);
    let cycles = number("SIMULATION_CYCLES").map_or(CYCLES, |n| usize::try_from(n).unwrap());
    let mut before = world(seed, 0);
    let mut pipeline = Pipeline::new(&before.text, RATE, INTERVAL);
    let mut invariants = Invariants::new();
    let mut occurrences: BTreeMap<&str, usize> = EXPECTED.map(|text| (text, 0)).into();
    let (mut cycle, mut step) = (0, 0);
    while cycle < cycles {
        step += 1;
        let current = world(seed, step);
        pipeline.set_world(&current.text);
        if current.era != before.era || ends_sessions(&before) || ends_sessions(&current) {
            invariants.reset_counters();
        }
        let started = pipeline.clock.now().mono;
        loop {
            let age = pipeline.clock.now().mono.saturating_sub(started);
            pipeline.cycle();
            cycle += 1;
            let stable = age >= STABLE_AFTER;
            let exposition = pipeline.exposition();
            let worlds: &[&World] = if stable { &[&current] } else { &[&before, &current] };
            if ends_sessions(&current) {
                invariants.reset_counters();
            }
            if let Err(why) = invariants.check(&exposition, worlds, stable) {
                panic!(
                    "SIMULATION_SEED={seed}, world {step}, cycle {cycle}, stable: {stable}: \
                     {why}\n{}\n{exposition}",
                    current.text
                );
            }
            for (text, times) in &mut occurrences {
                *times += usize::from(exposition.contains(text));
            }
            if age >= WORLD_DURATION {
                break;
            }
        }
        before = current;
    }
    println!("{cycle} cycles in {step} worlds of seed {seed}; expositions with {occurrences:?}");
    let Invariants { stable, stalled, .. } = invariants;
    println!(
        "{stable} expositions of stable worlds; the machine was too slow for {stalled} of them"
    );
    assert!(stalled * 4 < stable, "{stalled} of {stable}");
    assert!(occurrences.values().all(|times| *times > cycles / 1000), "{occurrences:?}");
}
