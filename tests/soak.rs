//! Memory over many cycles of a node on which everything comes and goes: pods, processes, XIDs, GPUs,
//! drivers.
//!
//! The gate runs some thousand cycles. All of them:
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

/// Counts what this program holds; not what the mock does, which has an allocator of its own.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const DEFAULT_CYCLES: usize = 1_500;
/// Windows of the run that are compared.
const WINDOWS: usize = 8;
const RATE: u32 = 300;
/// Seconds of that clock.
const WORLD_LASTS: u64 = 20;
/// What windows differ by. Three bytes a cycle would be more than this over a hundred thousand.
const TOLERANCE: usize = 128 << 10;
/// What the mock and the C library may differ by.
const RSS_TOLERANCE: usize = 4 << 20;

/// A world in which nobody is who was there `generation`s ago.
fn world(generation: usize) -> String {
    // Now and then the driver is gone, and comes back with other GPUs.
    let (era, moment) = (generation / 8, generation % 8);
    let mut text = format!("now = {}\n", 100 + generation % 1000);
    if moment == 7 {
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
    // Somebody without a pod, and something that befalls a GPU.
    let _ = writeln!(
        text,
        "[[process]]\npid = {}\nname = \"stray-{generation}\"\ngpus = [0]\nmemory = \"64 MiB\"\n\
         [[xid]]\ngpu = {}\nat = {}\ncode = {}",
        4_100_000 + generation % 50_000,
        generation % 3,
        100 + generation % 1000,
        [13, 31, 43, 63, 94][generation % 5],
    );
    text
}

/// A pipeline under way, and how often it was seen to have work.
struct Soak {
    pipeline: Pipeline,
    cycles: usize,
    generation: u64,
    seen: BTreeMap<&'static str, usize>,
}

impl Soak {
    /// One more cycle, and now and then another world; bytes allocated and resident after it.
    fn cycle(&mut self) -> (usize, usize) {
        // By the clock, so that as much is remembered of what has gone on machines of any speed.
        let generation = self.pipeline.clock.now().mono.as_secs() / WORLD_LASTS;
        if generation != self.generation {
            self.generation = generation;
            self.pipeline.turn_to(&world(usize::try_from(generation).unwrap()));
        }
        self.pipeline.cycle();
        // Two scrapers.
        drop(self.pipeline.scrape(true));
        drop(self.pipeline.scrape(false));
        let size = (ALLOCATOR.allocated(), resident());
        if self.cycles.is_multiple_of(7) {
            let page = self.pipeline.page();
            for sight in SIGHTS {
                *self.seen.entry(sight).or_default() += usize::from(page.contains(sight));
            }
        }
        self.cycles += 1;
        size
    }
}

/// What is there to be seen, again and again, if all of the pipeline has something to do.
const SIGHTS: [&str; 6] = [
    "PodName=\"pod-",
    "ProcessName=\"stray-",
    "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED{",
    "nvml_exporter_driver_up 0",
    "nvml_exporter_xid_events_total{",
    "DCGM_FI_PROF_SM_ACTIVE{",
];

fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn memory_does_not_grow_while_everything_comes_and_goes() {
    let cycles = std::env::var("SOAK_CYCLES").ok().map_or(DEFAULT_CYCLES, |n| n.parse().unwrap());
    let mut soak = Soak {
        pipeline: Pipeline::new(&world(0), RATE),
        cycles: 0,
        generation: 0,
        seen: BTreeMap::new(),
    };
    // By then everything has been forgotten once that is ever forgotten.
    while soak.pipeline.clock.now().mono < policy::GPU_REMEMBERED * 5 / 4 {
        soak.cycle();
    }
    soak.seen.clear();
    let window = |_| {
        let sizes = (0..cycles / WINDOWS).map(|_| soak.cycle());
        sizes.fold((0, 0), |peak: (usize, usize), size| (peak.0.max(size.0), peak.1.max(size.1)))
    };
    let peaks: Vec<(usize, usize)> = (0..WINDOWS).map(window).collect();
    let seen = soak.seen;
    println!("{seen:?}\nbytes allocated and resident, at most, by window: {peaks:?}");
    assert!(seen.values().all(|times| *times > cycles / 500), "{seen:?}");
    let (early, late) = (&peaks[..WINDOWS / 2], &peaks[WINDOWS / 2..]);
    let most = |windows: &[(usize, usize)], of: fn(&(usize, usize)) -> usize| {
        windows.iter().map(of).max().unwrap()
    };
    let grown = |of| most(late, of).saturating_sub(most(early, of));
    assert!(grown(|peak| peak.0) < TOLERANCE, "allocated: {peaks:?}");
    assert!(grown(|peak| peak.1) < RSS_TOLERANCE, "resident: {peaks:?}");
}
