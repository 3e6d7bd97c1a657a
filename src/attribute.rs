//! Sample → Snapshot: labels everything, and withholds what is too old to be true.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{DEVICE, NODE, PROCESS};
use crate::labels::Schema;
use crate::model::{Missing, Moment, ProcessSample, Reading};
use crate::policy::Tier;
use crate::sample::device::{Cell, DeviceSample};
use crate::sample::{DriverState, Sample, SampledGpu};
use crate::snapshot::{Entity, GpuHealth, Health, Snapshot};

/// Turns what was read into what is published. `max_age` is how old an unanswered reading may be.
#[must_use]
pub fn attribute(sample: Sample, schema: &Schema, max_age: Duration) -> Snapshot {
    let version = match &sample.driver {
        DriverState::Up(driver) => driver.version.clone(),
        DriverState::Down { .. } => String::new(),
    };
    let (mut devices, mut processes, mut gpus) = (Vec::new(), Vec::new(), Vec::new());
    let mut unidentified = BTreeMap::new();
    for (index, sampled) in (0..).zip(&sample.gpus) {
        let fresh = match Fresh::of(sampled, sample.at, max_age) {
            Ok(fresh) => fresh,
            Err(missing) => {
                unidentified.insert(index, missing);
                continue;
            }
        };
        let readings = fresh.readings();
        let mut health = fresh.health(&readings);
        devices.push(Entity { labels: schema.device(&fresh.answer.gpu, &version), readings });
        for process in fresh.processes() {
            for metric in PROCESS {
                count_missing(&mut health.missing, (metric.source)(process));
            }
            if let Some(labels) = schema.process(&fresh.answer.gpu, process) {
                processes.push((labels, process.clone()));
            }
        }
        gpus.push(health);
    }
    Snapshot {
        at: sample.at,
        node: Entity { labels: schema.node(), readings: node_readings(&sample, max_age) },
        devices,
        processes,
        health: Health {
            driver: sample.driver,
            driver_took: sample.node_took,
            cycle_took: sample.took,
            cycles: sample.cycles,
            gpus,
            unidentified,
            open_failures: sample.open_failures,
            abandoned: sample.abandoned,
        },
    }
}

/// A GPU's newest answer, judged by its age.
struct Fresh<'a> {
    sampled: &'a SampledGpu,
    answer: &'a DeviceSample,
    state: Result<(), Missing>,
    now: Moment,
    max_age: Duration,
}

impl<'a> Fresh<'a> {
    /// # Errors
    /// The GPU has not been identified, and why.
    fn of(sampled: &'a SampledGpu, now: Moment, max_age: Duration) -> Result<Self, Missing> {
        let too_old = |since: Duration| now.mono.saturating_sub(since) > max_age;
        let answer = match &sampled.latest {
            Some(answer) => answer.as_deref().map_err(|missing| *missing)?,
            None if sampled.waiting_since.is_some_and(too_old) => return Err(Missing::Hung),
            None => return Err(Missing::Pending),
        };
        let state = if too_old(answer.at.mono) { Err(Missing::Hung) } else { answer.state() };
        Ok(Self { sampled, answer, state, now, max_age })
    }

    fn readings(&self) -> Vec<Reading> {
        match self.state {
            // A hang is judged reading by reading: slow ones live longer.
            Ok(()) | Err(Missing::Hung) => (self.answer.cells.iter().zip(DEVICE))
                .map(|(cell, metric)| self.reading(*cell, metric.tier))
                .collect(),
            // Slow readings of a GPU that is gone are not news of it.
            Err(missing) => vec![Err(missing); DEVICE.len()],
        }
    }

    fn reading(&self, cell: Cell, tier: Tier) -> Reading {
        let age = self.now.mono.saturating_sub(cell.at);
        if age > tier.max_age(self.max_age) { Err(Missing::Hung) } else { cell.reading }
    }

    fn processes(&self) -> &'a [ProcessSample] {
        match self.state {
            Ok(()) => self.answer.processes.as_deref().unwrap_or_default(),
            Err(_) => &[],
        }
    }

    fn health(&self, readings: &[Reading]) -> GpuHealth {
        let mut missing = [0; Missing::REASONS.len()];
        for reading in readings {
            count_missing(&mut missing, *reading);
        }
        // Nobody is listed, so nobody knows how many are missing: each family counts once.
        if let Err(reason) = self.answer.processes {
            for _ in PROCESS {
                count_missing(&mut missing, Err(reason));
            }
        }
        GpuHealth {
            gpu: Arc::clone(&self.answer.gpu),
            state: self.state,
            answered: self.sampled.waiting_since.is_none(),
            sampled_at: self.answer.at,
            took: self.sampled.took,
            missing,
            discards: self.answer.discards,
        }
    }
}

fn count_missing(missing: &mut [u64; Missing::REASONS.len()], reading: Reading) {
    if let Some(n) = reading.err().and_then(|m| missing.get_mut(m.position())) {
        *n += 1;
    }
}

fn node_readings(sample: &Sample, max_age: Duration) -> Vec<Reading> {
    let node = match (sample.node, &sample.driver) {
        (None, DriverState::Down { .. }) => Err(Missing::DriverGone),
        (None, DriverState::Up(_)) => Err(Missing::Pending),
        (Some((_, asked)), _) if sample.at.mono.saturating_sub(asked.mono) > max_age => {
            Err(Missing::Hung)
        }
        (Some((node, _)), _) => Ok(node),
    };
    NODE.iter().map(|metric| node.and_then(|node| (metric.source)(&node))).collect()
}
