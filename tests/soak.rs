//! Memory over many cycles of a node on which everything comes and goes: pods, processes, XIDs, GPUs,
//! drivers. The whole pipeline runs in this process, on the mock library and its cluster, in a hurry: a
//! cycle follows the other at once, and the clock runs three hundred times as fast.
//!
//! The gate runs some thousand cycles. All of them:
//! `cargo build --workspace --release && SOAK_CYCLES=100000 cargo test --release --test soak -- --nocapture`

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::alloc::System;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cap::Cap;
use nvml_exporter::accounts::Accounts;
use nvml_exporter::attribute::{DevicePods, Grain, Terms, attribute};
use nvml_exporter::catalog::{ACCOUNT, DEVICE, EVENT};
use nvml_exporter::clock::Clock;
use nvml_exporter::cluster::{Cluster, Sources, View, devices};
use nvml_exporter::host::ProcRoot;
use nvml_exporter::host::hpc_jobs::Jobs;
use nvml_exporter::labels::{Dialect, Schema, Style};
use nvml_exporter::nvml::raw::stage::stage_mock;
use nvml_exporter::policy;
use nvml_exporter::publish::Published;
use nvml_exporter::render::Part;
use nvml_exporter::sample::Sampler;
use nvml_exporter::selection::{Frame, Request, Selection, preset};
use nvml_exporter::telemetry;

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

/// The pipeline, put together as the program does, with everything shown that there is.
struct Pipeline {
    folder: tempfile::TempDir,
    clock: Clock,
    sampler: Sampler,
    cluster: Cluster,
    accounts: Accounts,
    selection: Arc<Selection>,
    schema: Schema,
    last: Option<Arc<Published>>,
}

impl Pipeline {
    fn new() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let stage = folder.path().join("stage");
        fs::create_dir(&stage).unwrap();
        fs::write(folder.path().join("world.toml"), world(0)).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_nvml-exporter"));
        let library = binary.parent().unwrap().join("libmock_nvml.so");
        stage_mock(&library, folder.path().join("world.toml").to_str().unwrap(), &stage).unwrap();
        let clock = Clock::hurried(RATE);
        let proc_root = ProcRoot::new(&stage.join("proc"));
        let library: Vec<PathBuf> = vec![stage.join("libnvidia-ml.so.1")];
        let sampler = Sampler::new(clock, Duration::from_secs(60), library, proc_root).unwrap();
        let sources = Sources::staged(&stage, None).unwrap().unwrap();
        let schema = Schema {
            dialect: Dialect::Ack,
            hostname: "node-1".to_owned(),
            node_name: "node-1".to_owned(),
            extra: Vec::new(),
            style: Style::default(),
        };
        let mut requests = preset(&schema.dialect);
        requests.extend(DEVICE.iter().filter_map(|metric| Request::named(metric.name)));
        requests.extend(ACCOUNT.iter().filter_map(|metric| Request::named(metric.name)));
        requests.extend(EVENT.iter().filter_map(|metric| Request::named(metric.name)));
        Self {
            folder,
            clock,
            sampler,
            cluster: Cluster::follow(sources, clock).unwrap(),
            accounts: Accounts::default(),
            selection: Arc::new(Selection::of(&requests, Frame::default())),
            schema,
            last: None,
        }
    }

    fn turn_to(&self, generation: usize) {
        let draft = self.folder.path().join("draft");
        fs::write(&draft, world(generation)).unwrap();
        fs::rename(draft, self.folder.path().join("world.toml")).unwrap();
    }

    /// One cycle, scraped by two; the length of the page.
    fn cycle(&mut self) -> usize {
        let sample = self.sampler.cycle(&self.selection);
        let view = self.cluster.view(devices(&sample), sample.at.mono, true);
        let View { sources, problems, .. } = &view;
        let terms = Terms {
            selection: &self.selection,
            schema: &self.schema,
            device_pods: Some(&DevicePods { uid: true, labels: None, claims: true }),
            jobs: &Jobs::default(),
            max_age: policy::default_max_age(Duration::from_secs(5)),
            grain: Grain::Process,
            directory: view.directory(),
            allocation: view.allocation(),
            host_pids: Some(true),
            sources,
            problems,
        };
        let (mut snapshot, activity) = attribute(sample, &terms);
        let now = snapshot.at.mono;
        snapshot.tables.accounts = self.accounts.book(&self.selection, &activity, now);
        self.cluster.hasten(!snapshot.health.census.unresolved.is_empty());
        telemetry::log_changes(self.last.as_deref().map(Published::snapshot), &snapshot);
        let published = Arc::new(Published::new(snapshot));
        self.last = Some(Arc::clone(&published));
        let now = self.clock.now().mono;
        let page = |gzip| published.page(Part::Whole, now, Duration::from_secs(60), gzip);
        drop(page(true));
        page(false).len()
    }

    fn page(&self) -> String {
        let published = self.last.as_ref().unwrap();
        let now = self.clock.now().mono;
        let page = published.page(Part::Whole, now, Duration::from_secs(60), false);
        String::from_utf8(page.to_vec()).unwrap()
    }
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
            self.pipeline.turn_to(usize::try_from(generation).unwrap());
        }
        self.pipeline.cycle();
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
    let mut soak =
        Soak { pipeline: Pipeline::new(), cycles: 0, generation: 0, seen: BTreeMap::new() };
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
