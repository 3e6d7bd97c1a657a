//! Memory use over many collection cycles of a node with changing pods, processes, XIDs, GPUs and
//! drivers.
//!
//! CI runs 600 cycles. A full run:
//! `cargo build --workspace --profile dist && SOAK_CYCLES=100000 cargo test --profile dist --test soak -- --nocapture`

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "simulation/pipeline.rs"]
mod pipeline;

use std::alloc::System;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use cap::Cap;
use nvml_exporter::policy;

use self::pipeline::Pipeline;

/// Counts the memory of this program. The mock has its own allocator.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const DEFAULT_CYCLES: usize = 600;
/// Speed of the test clock.
const RATE: u32 = 300;
/// The collection interval, on that clock: two seconds of real time, so that a slow machine reads the GPUs.
const INTERVAL: Duration = Duration::from_secs(600);
/// Least lifetime of a generation, in seconds of the test clock.
const GENERATION_SECONDS: u64 = 20;
/// A generation ends once its pods were seen, for which the kubelet is asked at most once per second of real time, or
/// after this number of cycles: that of a driver that is reloaded has none.
const GENERATION_CYCLES: usize = 20;
/// Allowed growth of allocated memory, in bytes. A leak of two bytes a cycle is larger than this over
/// a hundred thousand cycles.
const TOLERANCE: usize = 64 << 10;
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

/// Scenario without pods and processes, in which all state of the generations is evicted.
const QUIET: &str = "[cluster]\nnode = \"node-1\"\n[[gpu]]\nmodel = \"T4\"\n";

/// A running pipeline, and how often each expected series occurred.
struct Soak {
    pipeline: Pipeline,
    cycles: usize,
    generation: usize,
    /// When the generation began, in time of the test clock and in cycles.
    began: (Duration, usize),
    /// The last exposition.
    last: String,
    seen: BTreeMap<&'static str, usize>,
}

impl Soak {
    /// Runs one cycle, with the next generation when it is due.
    fn cycle(&mut self) {
        let now = self.pipeline.clock.now().mono;
        let is_seen = self.last.contains(&format!("PodName=\"pod-{}-", self.generation));
        let is_due = now.saturating_sub(self.began.0).as_secs() >= GENERATION_SECONDS;
        if is_due && (is_seen || self.cycles - self.began.1 >= GENERATION_CYCLES) {
            self.generation += 1;
            self.began = (now, self.cycles);
            self.pipeline.set_world(&scenario(self.generation));
        }
        self.collect_and_scrape();
        self.last = self.pipeline.exposition();
        for text in EXPECTED {
            *self.seen.entry(text).or_default() += usize::from(self.last.contains(text));
        }
        self.cycles += 1;
    }

    fn collect_and_scrape(&mut self) {
        self.pipeline.cycle();
        // Two scrapers.
        drop(self.pipeline.scrape(true));
        drop(self.pipeline.scrape(false));
    }

    /// The least allocated and resident bytes once all state of the generations has been evicted. They do not
    /// depend on the number of generations that the machine was fast enough for.
    fn size_at_rest(&mut self) -> (usize, usize) {
        self.pipeline.set_world(QUIET);
        // The exposition of a generation with a driver is a hundred kilobytes larger than that of one without.
        self.last = String::new();
        let evicted = self.pipeline.clock.now().mono + policy::GPU_RETENTION * 5 / 4;
        while self.pipeline.clock.now().mono < evicted {
            self.collect_and_scrape();
        }
        let sizes = (0..20).map(|_| {
            self.collect_and_scrape();
            (ALLOCATOR.allocated(), resident())
        });
        sizes.reduce(|least, size| (least.0.min(size.0), least.1.min(size.1))).unwrap()
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
        pipeline: Pipeline::new(&scenario(0), RATE, INTERVAL),
        cycles: 0,
        generation: 0,
        began: (Duration::ZERO, 0),
        last: String::new(),
        seen: BTreeMap::new(),
    };
    // The first part fills what is kept for the lifetime of the program.
    let mut sizes = Vec::new();
    for part in [cycles / 3, cycles - cycles / 3] {
        for _ in 0..part {
            soak.cycle();
        }
        sizes.push(soak.size_at_rest());
    }
    let Soak { seen, generation, .. } = soak;
    println!(
        "{generation} generations: {seen:?}\nallocated and resident bytes after a third and at the end: {sizes:?}"
    );
    assert!(seen.values().all(|count| *count > cycles / 500), "{seen:?}");
    let growth = |of: fn(&(usize, usize)) -> usize| of(&sizes[1]).saturating_sub(of(&sizes[0]));
    assert!(growth(|size| size.0) < TOLERANCE, "allocated: {sizes:?}");
    assert!(growth(|size| size.1) < RSS_TOLERANCE, "resident: {sizes:?}");
}
