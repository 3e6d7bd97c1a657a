//! Sample → Snapshot: labels everything, and withholds what is too old to be true.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{DEVICE, DeviceSource, EVENT, INSTANCE, Metric, NODE, PROCESS};
use crate::labels::{Labels, Schema};
use crate::model::{Missing, Moment, ProcessSample, Reading, XidRecord};
use crate::policy::Tier;
use crate::sample::cells::Cell;
use crate::sample::device::DeviceSample;
use crate::sample::part::PartSample;
use crate::sample::{DriverState, Sample, SampledGpu};
use crate::snapshot::{Entity, GpuHealth, Health, Snapshot};

/// Turns what was read into what is published. `max_age` is how old an unanswered reading may be.
#[must_use]
pub fn attribute(sample: Sample, schema: &Schema, max_age: Duration) -> Snapshot {
    let version = match &sample.driver {
        DriverState::Up(driver) => driver.version.clone(),
        DriverState::Down { .. } => String::new(),
    };
    let mut published = Gpus::default();
    for (index, sampled) in (0..).zip(&sample.gpus) {
        match Fresh::of(sampled, sample.at, max_age) {
            Ok(fresh) => {
                let uuid = &fresh.answer.gpu.uuid;
                let xids = sample.xids.get(uuid).cloned().unwrap_or_default();
                published.add(&fresh, &xids, schema, &version);
            }
            Err(missing) => {
                published.unidentified.insert(index, missing);
            }
        }
    }
    Snapshot {
        at: sample.at,
        node: Entity { labels: schema.node(), readings: node_readings(&sample, max_age) },
        devices: published.devices,
        instances: published.instances,
        events: published.events,
        processes: published.processes,
        health: Health {
            driver: sample.driver,
            driver_took: sample.node_took,
            cycle_took: sample.took,
            cycles: sample.cycles,
            gpus: published.health,
            unidentified: published.unidentified,
            open_failures: sample.open_failures,
            abandoned: sample.abandoned,
        },
    }
}

/// What is published of all GPUs.
#[derive(Default)]
struct Gpus {
    devices: Vec<Entity>,
    instances: Vec<Entity>,
    events: Vec<Entity>,
    processes: Vec<(Labels, ProcessSample)>,
    health: Vec<GpuHealth>,
    unidentified: BTreeMap<u32, Missing>,
}

impl Gpus {
    fn add(&mut self, fresh: &Fresh<'_>, xids: &XidRecord, schema: &Schema, version: &str) {
        let gpu = &fresh.answer.gpu;
        let labels = schema.device(gpu, None, version);
        let readings = fresh.device_readings();
        let mut missing = MissingCounts::of(&readings);
        self.devices.push(Entity { labels: Arc::clone(&labels), readings });

        // What has befallen a GPU stays true while it cannot be read.
        let readings: Vec<Reading> = EVENT.iter().map(|metric| (metric.source)(xids)).collect();
        missing.add(&readings);
        self.events.push(Entity { labels, readings });

        if let Err(reason) = fresh.answer.division {
            missing.add(&vec![Err(reason); INSTANCE.len()]);
        }
        for part in &fresh.answer.parts {
            let mig = part.mig.as_deref();
            let readings = fresh.readings(&part.cells, INSTANCE);
            missing.add(&readings);
            if !readings.is_empty() {
                let labels = schema.device(gpu, mig, version);
                self.instances.push(Entity { labels, readings });
            }
            for process in fresh.processes(part, &mut missing) {
                if let Some(labels) = schema.process(gpu, mig, process) {
                    self.processes.push((labels, process.clone()));
                }
            }
        }
        self.health.push(fresh.health(missing.0, xids.counts.clone()));
    }
}

/// Absent readings, by [`Missing::position`].
struct MissingCounts([u64; Missing::REASONS.len()]);

impl MissingCounts {
    fn of(readings: &[Reading]) -> Self {
        let mut counts = Self([0; Missing::REASONS.len()]);
        counts.add(readings);
        counts
    }

    fn add(&mut self, readings: &[Reading]) {
        for missing in readings.iter().filter_map(|reading| reading.err()) {
            if let Some(n) = self.0.get_mut(missing.position()) {
                *n += 1;
            }
        }
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

    fn device_readings(&self) -> Vec<Reading> {
        match self.state {
            // A hang is judged reading by reading: slow ones live longer.
            Ok(()) | Err(Missing::Hung) => self.readings(&self.answer.cells, DEVICE),
            // Slow readings of a GPU that is gone are not news of it.
            Err(missing) => vec![Err(missing); DEVICE.len()],
        }
    }

    /// The readings of `rows`, of the GPU or of a part of it; none where the part has none.
    fn readings(&self, cells: &[Cell], rows: &[Metric<DeviceSource>]) -> Vec<Reading> {
        let cells = cells.iter().zip(rows);
        match self.state {
            Ok(()) | Err(Missing::Hung) => {
                cells.map(|(cell, metric)| self.reading(*cell, metric.tier)).collect()
            }
            Err(missing) => cells.map(|_| Err(missing)).collect(),
        }
    }

    /// A number that has grown too old is withheld; that there is none does not grow old.
    fn reading(&self, cell: Cell, tier: Tier) -> Reading {
        let age = self.now.mono.saturating_sub(cell.at);
        let too_old = age > tier.max_age(self.max_age);
        if too_old && cell.reading.is_ok() { Err(Missing::Hung) } else { cell.reading }
    }

    /// The processes of a part, while the GPU can be read.
    fn processes(&self, part: &'a PartSample, missing: &mut MissingCounts) -> &'a [ProcessSample] {
        let listed = self.state.and(part.processes.as_deref().map_err(|missing| *missing));
        match listed {
            Ok(processes) => {
                for process in processes {
                    for metric in PROCESS {
                        missing.add(&[(metric.source)(process)]);
                    }
                }
                processes
            }
            // Nobody is listed, so nobody knows how many are missing: each family counts once.
            Err(reason) => {
                missing.add(&vec![Err(reason); PROCESS.len()]);
                &[]
            }
        }
    }

    fn health(
        &self,
        missing: [u64; Missing::REASONS.len()],
        xids: BTreeMap<u32, u64>,
    ) -> GpuHealth {
        GpuHealth {
            gpu: Arc::clone(&self.answer.gpu),
            state: self.state,
            answered: self.sampled.waiting_since.is_none(),
            sampled_at: self.answer.at,
            took: self.sampled.took,
            missing,
            discards: self.answer.discards,
            xids,
        }
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
