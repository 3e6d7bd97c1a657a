//! Every target for a while, the same each time: with its seeds, with what once broke something, and with
//! inputs that are made of both. `FUZZ_SEED` and `FUZZ_ROUNDS` give other inputs and more of them; `run` is
//! guided by what the inputs reach, and finds more.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it was given"
)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use fuzz::mutate::Stock;
use fuzz::{TARGETS, Target};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// A round that takes this long does not end: most take less than a millisecond.
const ROUND_MAX: Duration = Duration::from_secs(60);

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn stock(target: Target) -> Stock {
    let root = Path::new(ROOT);
    let mut folders =
        vec![root.join("seeds").join(target.name), root.join("regressions").join(target.name)];
    if target.name == "scenario" {
        folders.push(root.join("../../mock-nvml/scenarios"));
    }
    let seeds: Vec<Vec<u8>> =
        folders.iter().flat_map(|f| files(f)).map(|f| fs::read(f).unwrap()).collect();
    assert!(!seeds.is_empty(), "no seeds for {}", target.name);
    let words = fs::read_to_string(root.join("words").join(target.name)).unwrap();
    Stock { seeds, words: words.lines().map(word).collect() }
}

/// A word as `run` takes it, too: in quotes, with `\\` and `\xNN`.
fn word(line: &str) -> Vec<u8> {
    let mut rest = line.strip_prefix('"').and_then(|line| line.strip_suffix('"')).unwrap();
    let mut word = Vec::new();
    while let Some((before, after)) = rest.split_once('\\') {
        word.extend_from_slice(before.as_bytes());
        let hex = after.strip_prefix('x').map(|after| after.split_at(2));
        rest = if let Some((digits, after)) = hex {
            word.push(u8::from_str_radix(digits, 16).unwrap());
            after
        } else {
            word.push(b'\\');
            after.strip_prefix('\\').unwrap()
        };
    }
    word.extend_from_slice(rest.as_bytes());
    word
}

/// The input, where somebody can find it.
fn keep(target: Target, input: &[u8]) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("broken-{}", target.name));
    fs::write(&path, input).unwrap();
    format!("FUZZ_TARGET={} cargo run -p fuzz -- {}", target.name, path.display())
}

/// Tries a target in a thread of its own, so that an input that never ends is named, too.
fn bounded(name: &str, rounds: u64) {
    let target = Target::named(name).unwrap();
    let (stock, seed) = (stock(target), number("FUZZ_SEED", 1));
    let rounds = number("FUZZ_ROUNDS", rounds);
    println!("{name}: {} seeds, {rounds} rounds, FUZZ_SEED={seed}", stock.seeds.len());
    let (tell, told) = mpsc::sync_channel(1);
    let worker = std::thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(seed);
        let made = (0..rounds).map(|_| stock.input(&mut random));
        for input in stock.seeds.iter().cloned().chain(made) {
            tell.send(input.clone()).unwrap();
            let fine = catch_unwind(AssertUnwindSafe(|| (target.check)(&input)));
            assert!(fine.is_ok(), "{} is broken: {}", input.escape_ascii(), keep(target, &input));
        }
    });
    let mut last = Vec::new();
    loop {
        match told.recv_timeout(ROUND_MAX) {
            Ok(input) => last = input,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("no end: {}", keep(target, &last)),
        }
    }
    assert!(worker.join().is_ok(), "{name}: the input is told above");
}

macro_rules! targets {
    ($($name:ident: $rounds:literal),* $(,)?) => {
        $(#[test] fn $name() { bounded(stringify!($name), $rounds); })*
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! {
    annotations: 10000,
    cgroup: 20000,
    counters: 2000,
    device_id: 20000,
    flags: 1000,
    http: 2000,
    jobs: 4000,
    pod_list: 10000,
    pod_resources: 40000,
    quantity: 20000,
    scenario: 3000,
    slice_list: 20000,
    stat: 20000,
    watch: 10000,
    web_config: 10000,
}

#[test]
fn every_target_is_tried() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, TESTED);
}
