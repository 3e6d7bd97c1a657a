//! Random worlds with random faults, driven through the whole pipeline over NVML's C ABI, and every page
//! held against what no page may break.
//!
//! A seed gives the same worlds in the same order. What falls between two of them depends on the clock.
//! `SIMULATION_SEED=7 SIMULATION_CYCLES=1000000 cargo test --test simulation` tries others, and more.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod laws;
mod page;
mod pipeline;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use self::laws::Laws;
use self::pipeline::Pipeline;
use self::world::{Effect, World, world};

const CYCLES: usize = 15_000;
const SEED: u64 = 2026;
/// So many times as fast the clock runs. Calls that watch a bus for 40 ms seem to take 8 s: no hang yet.
const RATE: u32 = 200;
/// Seconds of that clock that a world lasts.
const LASTS: Duration = Duration::from_secs(65);
/// By then a world has been taken up, everything that is seldom read has been read again, and what is not
/// answered any more is too old.
const SETTLED: Duration = Duration::from_secs(50);

/// What is there to be seen now and then, if all of the pipeline has something to do.
const SIGHTS: [&str; 10] = [
    "PodName=\"pod-",
    "DCGM_CUSTOM_PROCESS_SM_UTIL{",
    "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_USED{",
    "GPU_I_ID=\"1\"",
    "nvml_exporter_driver_up 0",
    "nvml_exporter_gpu_unidentified{",
    "reason=\"hung\"",
    "reason=\"lost\"",
    "nvml_exporter_discarded_rows_total{",
    "nvml_exporter_xid_events_total{",
];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Whether a session may end and another begin between two pages.
fn ends_sessions(world: &World) -> bool {
    let ends = ["UNINITIALIZED", "DRIVER_NOT_LOADED"];
    let ends = |effect: &Effect| matches!(effect, Effect::Code(code) if ends.contains(code));
    !world.driver || world.faults.iter().any(|fault| ends(&fault.effect))
}

#[test]
fn no_page_is_ever_junk() {
    let chosen = number("SIMULATION_SEED").unwrap_or(SEED);
    let cycles = number("SIMULATION_CYCLES").map_or(CYCLES, |n| usize::try_from(n).unwrap());
    let mut before = world(chosen, 0);
    let mut pipeline = Pipeline::new(&before.text, RATE);
    let mut laws = Laws::new();
    let mut seen: BTreeMap<&str, usize> = SIGHTS.map(|sight| (sight, 0)).into();
    let (mut cycle, mut step) = (0, 0);
    while cycle < cycles {
        step += 1;
        let present = world(chosen, step);
        pipeline.turn_to(&present.text);
        if present.era != before.era || ends_sessions(&before) || ends_sessions(&present) {
            laws.begin_anew();
        }
        let turned = pipeline.clock.now().mono;
        loop {
            let begun = pipeline.clock.now().mono.saturating_sub(turned);
            pipeline.cycle();
            cycle += 1;
            let settled = begun >= SETTLED;
            let page = pipeline.page();
            let worlds: &[&World] = if settled { &[&present] } else { &[&before, &present] };
            if ends_sessions(&present) {
                laws.begin_anew();
            }
            if let Err(why) = laws.check(&page, worlds, settled) {
                panic!(
                    "SIMULATION_SEED={chosen}, world {step}, cycle {cycle}, settled: {settled}: \
                     {why}\n{}\n{page}",
                    present.text
                );
            }
            for (sight, times) in &mut seen {
                *times += usize::from(page.contains(sight));
            }
            if begun >= LASTS {
                break;
            }
        }
        before = present;
    }
    println!("{cycle} cycles in {step} worlds of seed {chosen}; pages with {seen:?}");
    let Laws { settled, stalled, .. } = laws;
    println!("{settled} settled pages, {stalled} of a machine that was too slow");
    assert!(stalled * 4 < settled, "{stalled} of {settled}");
    assert!(seen.values().all(|times| *times > cycles / 1000), "{seen:?}");
}
