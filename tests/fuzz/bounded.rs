//! Runs every fuzz target for a fixed number of rounds, deterministically: with its seeds, its regressions, and
//! mutations of both. `FUZZ_SEED` selects other mutations and `FUZZ_ROUNDS` their number. `run` is guided by
//! coverage and finds more.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints its input"
)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use fuzz::mutate::Mutator;
use fuzz::{TARGETS, Target};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Timeout of one round, which counts as a hang; most rounds take less than a millisecond.
const ROUND_MAX: Duration = Duration::from_secs(60);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn load_mutator(target: Target) -> Mutator {
    let root = Path::new(ROOT);
    let mut directories =
        vec![root.join("corpus").join(target.name), root.join("regressions").join(target.name)];
    if target.name == "scenario" {
        directories.push(root.join("../../mock-nvml/scenarios"));
    }
    let seeds: Vec<Vec<u8>> =
        directories.iter().flat_map(|d| files(d)).map(|f| fs::read(f).unwrap()).collect();
    assert!(!seeds.is_empty(), "no seeds for {}", target.name);
    let words = fs::read_to_string(root.join("dictionaries").join(target.name)).unwrap();
    Mutator { corpus: seeds, dictionary: words.lines().map(unquote).collect() }
}

/// Parses a line of a libFuzzer dictionary: quoted, with the escapes `\\` and `\xNN`.
fn unquote(line: &str) -> Vec<u8> {
    let mut rest = line.strip_prefix('"').and_then(|line| line.strip_suffix('"')).unwrap();
    let mut bytes = Vec::new();
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let hex = after.strip_prefix('x').map(|after| after.split_at(2));
        rest = if let Some((digits, after)) = hex {
            bytes.push(u8::from_str_radix(digits, 16).unwrap());
            after
        } else {
            bytes.push(b'\\');
            after.strip_prefix('\\').unwrap()
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Writes the failing input to a file; returns the command that replays it.
fn save(target: Target, input: &[u8]) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("failed-{}", target.name));
    fs::write(&path, input).unwrap();
    format!("FUZZ_TARGET={} cargo run -p fuzz -- {}", target.name, path.display())
}

/// Runs a target on its own thread, so that a hanging input is reported too.
fn run_target(name: &str, rounds: u64) {
    let target = Target::by_name(name).unwrap();
    let (mutator, seed) = (load_mutator(target), number("FUZZ_SEED", 1));
    let rounds = number("FUZZ_ROUNDS", rounds);
    println!("{name}: {} seeds, {rounds} rounds, FUZZ_SEED={seed}", mutator.corpus.len());
    let (sender, receiver) = mpsc::sync_channel(1);
    let worker = std::thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(seed);
        let mutated = (0..rounds).map(|_| mutator.generate(&mut random));
        for input in mutator.corpus.iter().cloned().chain(mutated) {
            sender.send(input.clone()).unwrap();
            let result = catch_unwind(AssertUnwindSafe(|| (target.check)(&input)));
            assert!(result.is_ok(), "{} fails: {}", input.escape_ascii(), save(target, &input));
        }
    });
    let mut last = Vec::new();
    loop {
        match receiver.recv_timeout(ROUND_MAX) {
            Ok(input) => last = input,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("timeout: {}", save(target, &last)),
        }
    }
    assert!(worker.join().is_ok(), "{name}: the input is printed above");
}

macro_rules! targets {
    ($($name:ident: $rounds:literal),* $(,)?) => {
        $(#[test] fn $name() { run_target(stringify!($name), $rounds); })*
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! {
    annotations: 10000,
    cgroup: 20000,
    claim: 20000,
    counters: 2000,
    device_id: 20000,
    flags: 1000,
    http: 2000,
    jobs: 4000,
    pod_list: 10000,
    pod_resources: 40000,
    pods_api: 20000,
    quantity: 20000,
    scenario: 3000,
    slice_list: 20000,
    stat: 20000,
    watch: 10000,
    web_config: 10000,
}

#[test]
fn every_target_has_a_test() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, TESTED);
}
