//! Memory use over many collection cycles of a node with changing pods, processes, XIDs, GPUs and
//! drivers.
//!
//! CI runs 1,500 cycles. A full run:
//! `cargo build --workspace --release && SOAK_CYCLES=100000 cargo test --release --test soak -- --nocapture`

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "simulation/pipeline.rs"]
mod pipeline;

use std::alloc::System;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use cap::Cap;
use nvml_exporter::policy;

use self::pipeline::Pipeline;

/// Counts the memory of this program. The mock has its own allocator.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const DEFAULT_CYCLES: usize = 1_500;
/// Number of windows of the run that are compared.
const WINDOWS: usize = 8;
/// Speed of the test clock.
const RATE: u32 = 300;
/// Lifetime of a generation, in seconds of the test clock.
const GENERATION_SECONDS: u64 = 20;
/// Allowed growth of allocated memory, in bytes. A leak of three bytes a cycle is larger than this over
/// a hundred thousand cycles.
const TOLERANCE: usize = 128 << 10;
/// Allowed growth of resident memory, in bytes, which includes the mock and the C library.
const RSS_TOLERANCE: usize = 4 << 20;

/// Scenario of a generation. No pod or process of it is in another generation.
fn scenario(generation: usize) -> String {
    // Every eighth generation the driver is reloaded, and the next one has other GPUs.
    let (era, phase) = (generation / 8, generation % 8);
    let mut text = format!("now = {}\n", 100 + generation % 1000);
    if phase == 7 {
        text += "[driver]\nreload = [{ from = 0, to = 100000 }]\n";
    }
    text += "[cluster]\nnode = \"node-1\"\n";
    for gpu in 0..3 {
        let model = ["T4", "A100", "H100"][gpu];
        let _ = writeln!(
            text,
            "[[gpu]]\nmodel = \"{model}\"\nuuid = \"GPU-{era:08x}-0000-4000-8000-{gpu:012x}\""
        );
    }
    for pod in 0..4 + generation % 5 {
        let (gpu, name) = (pod % 3, format!("pod-{generation}-{pod}"));
        let _ = writeln!(
            text,
            "[[pod]]\nname = \"{name}\"\nnamespace = \"ns-{era}\"\nlabels = {{ run = \"{name}\" }}\n\
             containers = [{{ name = \"main-{generation}\", ack = {{ gpu = {gpu}, gib = 1 }} }}]\n\
             [[process]]\npid = {pid}\nname = \"worker-{generation}\"\npod = \"ns-{era}/{name}\"\n\
             gpus = [{gpu}]\nmemory = \"{mib} MiB\"\nsm = 7",
            pid = 1000 + (generation * 16 + pod) % 4_000_000,
            mib = 100 + generation % 50,
        );
    }
    // A process without a pod, and an XID error.
    let _ = writeln!(
        text,
        "[[process]]\npid = {}\nname = \"host-{generation}\"\ngpus = [0]\nmemory = \"64 MiB\"\n\
         [[xid]]\ngpu = {}\nat = {}\ncode = {}",
        4_100_000 + generation % 50_000,
        generation % 3,
        100 + generation % 1000,
        [13, 31, 43, 63, 94][generation % 5],
    );
    text
}

/// A running pipeline, and how often each expected series occurred.
struct Soak {
    pipeline: Pipeline,
    cycles: usize,
    generation: u64,
    seen: BTreeMap<&'static str, usize>,
}

impl Soak {
    /// Runs one cycle, with the next generation when it is due. Returns the allocated and the resident
    /// bytes after it.
    fn cycle(&mut self) -> (usize, usize) {
        // The generation depends on the clock, so that the amount of retained state does not depend on
        // the speed of the machine.
        let generation = self.pipeline.clock.now().mono.as_secs() / GENERATION_SECONDS;
        if generation != self.generation {
            self.generation = generation;
            self.pipeline.set_world(&scenario(usize::try_from(generation).unwrap()));
        }
        self.pipeline.cycle();
        // Two scrapers.
        drop(self.pipeline.scrape(true));
        drop(self.pipeline.scrape(false));
        let size = (ALLOCATOR.allocated(), resident());
        if self.cycles.is_multiple_of(7) {
            let exposition = self.pipeline.exposition();
            for text in EXPECTED {
                *self.seen.entry(text).or_default() += usize::from(exposition.contains(text));
            }
        }
        self.cycles += 1;
        size
    }
}

/// Texts that occur in the exposition repeatedly if all stages of the pipeline are active.
const EXPECTED: [&str; 6] = [
    "PodName=\"pod-",
    "ProcessName=\"host-",
    "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED{",
    "nvml_exporter_driver_up{NodeName=\"node-1\"} 0",
    "nvml_exporter_xid_events_total{",
    "DCGM_FI_PROF_SM_ACTIVE{",
];

fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn memory_does_not_grow_over_many_generations() {
    let cycles = std::env::var("SOAK_CYCLES").ok().map_or(DEFAULT_CYCLES, |n| n.parse().unwrap());
    let mut soak = Soak {
        pipeline: Pipeline::new(&scenario(0), RATE),
        cycles: 0,
        generation: 0,
        seen: BTreeMap::new(),
    };
    // After this time all retained state has been evicted once.
    while soak.pipeline.clock.now().mono < policy::GPU_RETENTION * 5 / 4 {
        soak.cycle();
    }
    soak.seen.clear();
    let window = |_| {
        let sizes = (0..cycles / WINDOWS).map(|_| soak.cycle());
        sizes.fold((0, 0), |peak: (usize, usize), size| (peak.0.max(size.0), peak.1.max(size.1)))
    };
    let peaks: Vec<(usize, usize)> = (0..WINDOWS).map(window).collect();
    let seen = soak.seen;
    println!("{seen:?}\npeak of allocated and resident bytes by window: {peaks:?}");
    assert!(seen.values().all(|count| *count > cycles / 500), "{seen:?}");
    let (early, late) = (&peaks[..WINDOWS / 2], &peaks[WINDOWS / 2..]);
    let peak = |windows: &[(usize, usize)], of: fn(&(usize, usize)) -> usize| {
        windows.iter().map(of).max().unwrap()
    };
    let growth = |of| peak(late, of).saturating_sub(peak(early, of));
    assert!(growth(|peak| peak.0) < TOLERANCE, "allocated: {peaks:?}");
    assert!(growth(|peak| peak.1) < RSS_TOLERANCE, "resident: {peaks:?}");
}
