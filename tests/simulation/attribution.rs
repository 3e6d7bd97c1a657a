//! Random worlds with a cluster in virtual time, judged by a reference that knows the truth.
//!
//! A seed is one world. `SIMULATION_STATES=1000000 cargo test --test simulation attribution` checks more
//! expositions, `SIMULATION_FIRST=5000` begins with another seed, and `SIMULATION_WORLD=17` replays one world
//! and prints its history.

mod api_object;
mod exporter;
mod generator;
mod laws;
mod node;
mod runner;
mod series;
mod timeline;

use std::collections::BTreeMap;

use self::laws::coverage::KINDS;
use self::runner::{Outcome, run};
use crate::number;

/// Number of expositions that are checked.
const STATES: u64 = 20_000;

#[test]
fn attribution_agrees_with_the_reference() {
    if let Some(seed) = number("SIMULATION_WORLD") {
        let outcome = run(seed);
        println!("{}", outcome.history.join("\n"));
        assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
        return;
    }
    let states = number("SIMULATION_STATES").unwrap_or(STATES);
    let first = number("SIMULATION_FIRST").unwrap_or_default();
    let (mut checked, mut worlds) = (0, 0);
    let mut counts: BTreeMap<&str, u64> = KINDS.map(|kind| (kind, 0)).into();
    // The number of worlds with each kind of violation, and the first of them.
    let mut failed: BTreeMap<&str, (u64, Outcome)> = BTreeMap::new();
    while checked < states {
        let outcome = run(first + worlds);
        (checked, worlds) = (checked + outcome.states, worlds + 1);
        for (kind, n) in &outcome.counts {
            *counts.entry(kind).or_default() += n;
        }
        for violation in &outcome.violations {
            failed.entry(violation.kind).or_insert_with(|| (0, outcome.clone())).0 += 1;
        }
    }
    println!("{checked} expositions of {worlds} worlds; statements: {counts:#?}");
    let report = failed.iter().map(|(kind, (times, outcome))| {
        let first = outcome.violations.iter().find(|violation| violation.kind == *kind);
        let detail = first.map_or("", |violation| &violation.detail);
        format!("{kind}: {times} worlds, the first: SIMULATION_WORLD={}\n  {detail}", outcome.seed)
    });
    let mut report: Vec<String> = report.collect();
    if let Some((_, outcome)) = failed.values().min_by_key(|(_, outcome)| outcome.seed) {
        report.extend(outcome.history.clone());
    }
    assert!(failed.is_empty(), "{}", report.join("\n"));
    assert!(
        counts.values().all(|n| *n > states / 1000),
        "not all kinds of statements were checked: {counts:#?}"
    );
}
