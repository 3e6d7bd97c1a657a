//! Random command lines: the flags that select families, and add or rename labels. Whatever they are, no series
//! has a label twice, and none stands twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Parser as _;
use fastrand::Rng;
use nvml_exporter::accumulators::UsageAccumulators;
use nvml_exporter::args::Args;
use nvml_exporter::catalog;
use nvml_exporter::counters;
use nvml_exporter::host::hpc_jobs::Jobs;
use nvml_exporter::render::{PageScope, exposition};
use nvml_exporter::reserved_labels::ReservedLabels;
use nvml_exporter::selection::Selection;

use crate::pipeline::{Flags, Pipeline};
use crate::world::world;
use crate::{INTERVAL, RATE, SEED, number};

/// Texts that some expositions must contain: they show that each kind of label is exercised.
const EXPECTED: [&str; 14] = [
    "hpc_job=\"job-1\"",
    "team_x=\"",
    "pool=\"a\"",
    "pod_uid=\"",
    "dra_claim_name=\"",
    "DCGM_FI_DRIVER_VERSION=\"",
    "DCGM_FI_SYSTEM_DRIVER_VERSION=\"",
    "hostname=\"",
    "Hostname=\"",
    "pod_namespace=\"",
    "vgpu=\"",
    "ProcessId=\"",
    "process_id=\"",
    "window_size_in_ms=\"",
];

/// Number of random worlds, each with a command line of its own.
const WORLDS: usize = 400;
/// Cycles of each of them: counters need two, and pods arrive in the meantime.
const CYCLES: usize = 4;

/// Keys of pod labels: names that other labels have, and different keys of one name.
pub(crate) const POD_LABELS: [&str; 12] = [
    "team.x",
    "team-x",
    "pool",
    "xid",
    "hpc_job",
    "owner",
    "pod",
    "UUID",
    "hostname",
    "pod_uid",
    "DCGM_FI_DRIVER_VERSION",
    "dra_claim_name",
];

#[derive(clap::Parser)]
#[command(args_override_self = true)]
struct CommandLine {
    #[command(flatten)]
    args: Args,
}

/// The flags of the first command line of a seed that is valid, and that command line.
fn random_flags(seed: u64) -> (Flags, String) {
    let mut rng = Rng::with_seed(seed);
    loop {
        let words = command_line(&mut rng);
        if let Some(flags) = parse(&words, &mut rng) {
            return (flags, words.join(" "));
        }
    }
}

fn parse(words: &[String], rng: &mut Rng) -> Option<Flags> {
    let config = CommandLine::try_parse_from(words).ok()?.args.into_config().ok()?;
    let file = counters_file(rng);
    let requests = if rng.bool() {
        counters::parse(file.as_bytes()).ok()?.requests
    } else {
        config.read.preset.requests(&config.read.schema.dialect)
    };
    let schema = config.read.schema;
    Some(Flags {
        selection: Arc::new(Selection::of(&requests, config.read.selection_scope)),
        device_pods: config.read.device_pods,
        reserved: ReservedLabels::of(&schema.dialect).with(&schema.extra),
        jobs: jobs(rng),
        process_series: config.read.process_series,
        schema,
    })
}

fn command_line(rng: &mut Rng) -> Vec<String> {
    let mut words = vec!["nvml-exporter".to_owned(), "--node-name=node-1".to_owned()];
    let mut maybe = |word: &str| {
        if rng.bool() {
            words.push(word.to_owned());
        }
    };
    for word in [
        "--kubernetes-enable-pod-uid",
        "--kubernetes-enable-pod-labels",
        "--kubernetes-enable-dra",
        "--kubernetes-virtual-gpus",
        "--use-old-namespace",
        "--no-hostname",
        "--replace-blanks-in-model-name",
        "--process-series=container",
        "--preset=essential",
    ] {
        maybe(word);
    }
    if rng.u8(..) < 200 {
        words.push("--kubernetes".to_owned());
    }
    if rng.u8(..) < 160 {
        words.push("--dialect=dcgm-exporter".to_owned());
    }
    let one_of = |rng: &mut Rng, of: &[&str]| of[rng.usize(0..of.len())].to_owned();
    words.push(format!(
        "--compat={}",
        one_of(rng, &["4.8", "4.8.4", "4.9", "4.8,4.9", "4.9,4.8.4"])
    ));
    words.push(format!("--devices={}", one_of(rng, &["f", "g", "i", "g+i"])));
    if rng.u8(..) < 40 {
        words.push(format!(
            "--kubernetes-pod-label-allowlist-regex={}",
            one_of(rng, &["^team", "o"])
        ));
    }
    for _ in 0..rng.usize(0..3) {
        let all = [&POD_LABELS[..], &["pool", "team_x", "zone", "namespace", "ProcessId"]].concat();
        words.push(format!("--extra-label={}=a", one_of(rng, &all)));
    }
    words
}

/// A counters file with random rows; some are labels.
fn counters_file(rng: &mut Rng) -> String {
    let share = rng.u8(..);
    let mut row = |row: catalog::CatalogRow| {
        let is_label = row.is_info_label || rng.u8(..) < 4;
        let kind = if is_label { "label" } else { "gauge" };
        (rng.u8(..) < share).then(|| format!("{},{kind},x\n", row.name))
    };
    catalog::rows().filter_map(&mut row).collect()
}

/// Up to two jobs on each GPU and GPU instance.
fn jobs(rng: &mut Rng) -> Jobs {
    let mut jobs = Jobs::new();
    for gpu in 0..3 {
        for instance in [None, Some(1), Some(2)] {
            let names = (0..rng.usize(0..3)).map(|n| Arc::from(format!("job-{n}"))).collect();
            jobs.insert((gpu, instance), names);
        }
    }
    jobs.retain(|_, names: &mut Vec<Arc<str>>| !names.is_empty());
    jobs
}

#[test]
fn no_label_and_no_series_stands_twice_with_any_flags() {
    let seed = number("SIMULATION_SEED").unwrap_or(SEED);
    let worlds = number("SIMULATION_WORLDS").map_or(WORLDS, |n| usize::try_from(n).unwrap());
    let mut pipeline = Pipeline::new(&world(seed, 0).text, RATE, INTERVAL);
    let mut occurrences: BTreeMap<&str, usize> = EXPECTED.map(|text| (text, 0)).into();
    for step in 0..worlds {
        let current = world(seed, step);
        pipeline.set_world(&current.text);
        let (flags, command_line) = random_flags(seed ^ 3 << 62 ^ step as u64);
        let mut accumulators = UsageAccumulators::default();
        let mut last = String::new();
        for _ in 0..CYCLES {
            let snapshot = pipeline.snapshot(&flags, &mut accumulators);
            last = exposition(&Arc::new(snapshot), PageScope::All).unwrap();
            if let Err(why) = crate::exposition::parse(&last) {
                panic!(
                    "SIMULATION_SEED={seed}, world {step}, {command_line}: {why}\n{}\n{last}",
                    current.text
                );
            }
        }
        for (text, times) in &mut occurrences {
            *times += usize::from(last.contains(text));
        }
    }
    println!("{worlds} worlds of seed {seed}; expositions with {occurrences:?}");
    assert!(occurrences.values().all(|times| *times > worlds / 100), "{occurrences:?}");
}
