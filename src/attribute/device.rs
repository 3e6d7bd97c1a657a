//! What is published of each GPU and its parts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Terms;
use super::family::Allocation;
use super::fresh::Fresh;
use super::people::People;
use crate::catalog::{EVENT, INSTANCE, PROCESS};
use crate::labels::Subject;
use crate::model::{Allotted, Gpu, Grant, Missing, Reading, XidRecord};
use crate::nvml::probe::mebibytes;
use crate::sample::part::PartSample;
use crate::snapshot::{Balanced, Census, Entity, GpuHealth, Tables};

/// What is published of all GPUs, added one by one.
pub(super) struct Devices<'a> {
    terms: &'a Terms<'a>,
    version: &'a str,
    now: Duration,
    /// The series.
    pub(super) tables: Tables,
    /// How each GPU fares.
    pub(super) health: Vec<GpuHealth>,
    /// How well it is known whose its processes are.
    pub(super) census: Census,
}

impl<'a> Devices<'a> {
    /// Nothing yet. `version` is the driver's.
    pub(super) fn new(terms: &'a Terms<'a>, version: &'a str, now: Duration) -> Self {
        let (tables, census) = (Tables::default(), Census::default());
        Self { terms, version, now, tables, health: Vec::new(), census }
    }

    /// Adds a GPU, with what the driver told of its XIDs.
    pub(super) fn add(&mut self, fresh: &Fresh<'_>, xids: &XidRecord) {
        let gpu = &*fresh.answer.gpu;
        let labels = self.terms.schema.device(gpu, None, self.version);
        let readings = fresh.device_readings();
        let mut missing = MissingCounts::default();
        missing.add(&readings);
        self.tables.devices.push(Entity { labels: Arc::clone(&labels), readings });

        // What has befallen a GPU stays true while it cannot be read.
        let readings: Vec<Reading> = EVENT.iter().map(|metric| (metric.source)(xids)).collect();
        missing.add(&readings);
        self.tables.events.push(Entity { labels, readings });

        if let Err(reason) = fresh.answer.division {
            missing.add(&vec![Err(reason); INSTANCE.len()]);
        }
        let mut balances = Balances::default();
        for part in &fresh.answer.parts {
            self.add_part(fresh, part, &mut missing, &mut balances);
        }
        self.census.balances.extend(balances.close(gpu));
        self.health.push(GpuHealth {
            gpu: Arc::clone(&fresh.answer.gpu),
            state: fresh.state,
            answered: fresh.sampled.waiting_since.is_none(),
            sampled_at: fresh.answer.at,
            took: fresh.sampled.took,
            missing: missing.0,
            discards: fresh.answer.discards,
            xids: xids.counts.clone(),
        });
    }

    fn add_part(
        &mut self,
        fresh: &Fresh<'_>,
        part: &PartSample,
        missing: &mut MissingCounts,
        balances: &mut Balances,
    ) {
        let (gpu, mig) = (&*fresh.answer.gpu, part.mig.as_deref());
        let readings = fresh.readings(&part.cells, INSTANCE);
        missing.add(&readings);
        if !readings.is_empty() {
            let labels = self.terms.schema.device(gpu, mig, self.version);
            let framebuffer = self.allocated(fresh, part);
            self.tables.allocated.push((Arc::clone(&labels), Allotted { framebuffer }));
            self.tables.instances.push(Entity { labels, readings });
        }
        self.add_grants(fresh, part);
        match fresh.listing(part) {
            Ok(listing) => {
                let mut people = People::new(self.terms, gpu, part, self.now, &mut self.census);
                let ledger = people.tell(listing, &mut self.tables);
                for usage in people.told() {
                    for metric in PROCESS {
                        missing.add(&[(metric.source)(usage)]);
                    }
                }
                balances.add(part, ledger);
            }
            // Nobody is listed, so nobody knows how many are missing: each family counts once.
            Err(reason) => {
                missing.add(&vec![Err(reason); PROCESS.len()]);
                balances.spoil(part);
            }
        }
    }

    /// What part of the framebuffer has been given away.
    fn allocated(&self, fresh: &Fresh<'_>, part: &PartSample) -> Reading {
        fresh.state?;
        let total = mebibytes(part.framebuffer?.total);
        let holdings = match self.terms.allocation {
            Allocation::Nobody { .. } => return Err(Missing::Unsupported),
            Allocation::Pending => return Err(Missing::Pending),
            Allocation::Known(holdings) => holdings,
        };
        let instance = part.mig.as_deref().map(|mig| mig.gpu_instance);
        let in_instance =
            |other: &&PartSample| other.mig.as_deref().map(|mig| mig.gpu_instance) == instance;
        let parts = fresh.answer.parts.iter().filter(in_instance);
        let given = parts.map(|part| holdings.allocated(device(&fresh.answer.gpu, part), total));
        let given: Option<f64> = given.sum();
        given.map(|given| given.min(1.0)).ok_or(Missing::Pending)
    }

    /// What containers were given of a part, whether they use it or not, while there is one to have.
    fn add_grants(&mut self, fresh: &Fresh<'_>, part: &PartSample) {
        let (Ok(()), Allocation::Known(holdings)) = (fresh.state, self.terms.allocation) else {
            return;
        };
        let gpu = &*fresh.answer.gpu;
        for share in holdings.of_device(device(gpu, part)) {
            let holder = Some(share.holder.names());
            let subject = Subject { mode: share.mode, holder, face: None };
            let labels = self.terms.schema.subject(gpu, part.mig.as_deref(), &subject);
            let grant =
                Grant { memory: share.memory.ok_or(Missing::Pending), compute: Ok(share.compute) };
            self.tables.containers.extend(labels.map(|labels| (labels, grant)));
        }
    }
}

/// The UUID by which a part is given to containers.
pub(super) fn device<'a>(gpu: &'a Gpu, part: &'a PartSample) -> &'a str {
    part.mig.as_deref().map_or(&gpu.uuid, |mig| &mig.uuid)
}

/// Absent readings, by [`Missing::position`].
#[derive(Default)]
struct MissingCounts([u64; Missing::REASONS.len()]);

impl MissingCounts {
    fn add(&mut self, readings: &[Reading]) {
        for missing in readings.iter().filter_map(|reading| reading.err()) {
            if let Some(n) = self.0.get_mut(missing.position()) {
                *n += 1;
            }
        }
    }
}

/// The ledgers of a GPU: one, or one for each GPU instance, whose compute instances share its
/// framebuffer.
#[derive(Default)]
struct Balances(BTreeMap<Option<u32>, Account>);

#[derive(Default)]
struct Account {
    ledger: super::conservation::Ledger,
    used: Option<u64>,
    spoilt: bool,
}

impl Balances {
    fn account(&mut self, part: &PartSample) -> &mut Account {
        let instance = part.mig.as_deref().map(|mig| mig.gpu_instance);
        self.0.entry(instance).or_default()
    }

    fn add(&mut self, part: &PartSample, ledger: super::conservation::Ledger) {
        let account = self.account(part);
        account.ledger.merge(ledger);
        account.used = part.framebuffer.ok().map(|memory| memory.used);
    }

    fn spoil(&mut self, part: &PartSample) {
        self.account(part).spoilt = true;
    }

    fn close(self, gpu: &Gpu) -> impl Iterator<Item = Balanced> {
        let closed = self.0.into_iter().filter(|(_, account)| !account.spoilt);
        closed.filter_map(move |(instance, account)| {
            let balance = account.ledger.balance(account.used?)?;
            Some(Balanced { gpu: gpu.index, uuid: Arc::clone(&gpu.uuid), instance, balance })
        })
    }
}
