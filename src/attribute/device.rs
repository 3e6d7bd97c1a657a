//! What is published of each GPU and its parts.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::activity::{Activity, Doer};
use super::balances::Balances;
use super::family::Allocation;
use super::fresh::Fresh;
use super::holdings::Share;
use super::owner::Holder;
use super::people::People;
use super::{DevicePods, Terms, node_readings};
use crate::catalog::{DeviceSource, TextSource, Told, own_use};
use crate::kube::pods::ByUid;
use crate::labels::{About, Dialect, HPC_JOB, Held, Labels, OWNER, Subject};
use crate::model::{
    AllocateMode, Allotted, ClockCounts, Gpu, Grant, LinkStates, MigDevice, Missing, NO_CLAIM,
    NodeSample, Reading, Usage, Vitals, XidRecord,
};
use crate::nvml::inventory::Driver;
use crate::nvml::probe::mebibytes;
use crate::pod_labels::PodLabels;
use crate::sample::device::DeviceSample;
use crate::sample::part::PartSample;
use crate::selection::{Chosen, Family};
use crate::snapshot::occupancy::{Occupancy, Part, Tenant};
use crate::snapshot::{Census, Entity, GpuHealth, Series, Tables};

/// What is published of all GPUs, added one by one.
pub(super) struct Devices<'a> {
    terms: &'a Terms<'a>,
    driver: &'a Driver,
    node: &'a NodeSample,
    now: Duration,
    /// GPU instances so far, through the node.
    instances: u32,
    /// Readings of the node, once or by GPU.
    pub(super) nodes: Vec<Entity>,
    /// The series.
    pub(super) tables: Tables,
    /// What happened on the devices that have series, where that is reckoned up.
    pub(super) activity: Vec<Activity>,
    /// Who is on each GPU.
    pub(super) occupancy: Vec<Occupancy>,
    /// How each GPU fares.
    pub(super) health: Vec<GpuHealth>,
    /// How well it is known whose its processes are.
    pub(super) census: Census,
    /// Labels of pods, by the pod's UID.
    pod_labels: BTreeMap<Arc<str>, PodLabels>,
}

/// A GPU, or a GPU instance, that has series.
struct Stand<'a> {
    gpu: &'a Gpu,
    mig: Option<&'a MigDevice>,
    texts: Cow<'a, Texts>,
    held: Option<Held<'a>>,
    jobs: &'a [Arc<str>],
}

/// What has befallen a GPU since the exporter started.
pub(super) struct Befallen<'a> {
    /// Its XIDs.
    pub(super) xids: &'a XidRecord,
    /// How often there were reasons for lower clocks.
    pub(super) clocks: Result<ClockCounts, Missing>,
    /// What tells of its health.
    pub(super) vitals: Result<&'a Vitals, Missing>,
}

impl<'a> Devices<'a> {
    /// Nothing yet.
    pub(super) fn new(
        terms: &'a Terms<'a>,
        driver: &'a Driver,
        node: &'a NodeSample,
        now: Duration,
    ) -> Self {
        Self {
            terms,
            driver,
            node,
            now,
            instances: 0,
            nodes: Vec::new(),
            tables: Tables::default(),
            activity: Vec::new(),
            occupancy: Vec::new(),
            health: Vec::new(),
            census: Census::default(),
            pod_labels: BTreeMap::new(),
        }
    }

    /// Labels of pods that their devices do not have, by reason.
    pub(super) fn dropped_pod_labels(&self) -> BTreeMap<&'static str, u64> {
        let dropped = self.pod_labels.values().flat_map(|labels| labels.dropped);
        let mut counts = BTreeMap::new();
        for (reason, n) in dropped.filter(|(_, n)| *n > 0) {
            *counts.entry(reason).or_default() += n;
        }
        counts
    }

    /// Adds a GPU, with what has befallen it.
    pub(super) fn add(&mut self, fresh: &Fresh<'_>, befallen: &Befallen<'_>) {
        self.learn_pod_labels(&fresh.answer.gpu, &fresh.answer.parts);
        let Befallen { xids, clocks, vitals } = *befallen;
        let selection = self.terms.selection;
        let gpu = &*fresh.answer.gpu;
        let mut missing = MissingCounts::default();
        let readings = fresh.readings(&fresh.answer.cells, &selection.device);
        missing.add(&readings);
        if let Err(reason) = fresh.answer.division {
            missing.add(&vec![Err(reason); selection.instance.len()]);
        }
        let told = Told {
            xids,
            // What was counted of a GPU that cannot be read is not the present.
            clocks: fresh.state.and(clocks),
            peers: if fresh.state.is_ok() { &fresh.answer.peers } else { &[] },
            links: fresh.state.and(links(fresh.answer)),
            vitals: fresh.state.and(vitals),
            state: fresh.state,
            windows: selection.frame.windows,
            now: self.now,
            names_xid: matches!(self.terms.schema.dialect, Dialect::DcgmExporter(_)),
        };
        for shown in selection.event.families() {
            let samples = (shown.metric.source.read)(&told).into_iter();
            missing.add(&samples.map(|sample| sample.reading).collect::<Vec<_>>());
        }
        let texts = texts(&selection.text, self.driver, fresh.answer);
        let divided = fresh.answer.parts.iter().any(|part| part.mig.is_some());
        if selection.frame.scope.has_gpu(gpu.index, divided) {
            let stand = self.stand(fresh, None, &texts);
            self.tell_gpu(&stand, &readings, &told);
            if let Some(cells) = &fresh.answer.undivided {
                let readings = fresh.readings(cells, &selection.instance);
                self.tables.instances.extend(self.entities(&stand, &readings));
            }
        }
        let mut balances = Balances::default();
        let mut seen = Vec::with_capacity(fresh.answer.parts.len());
        for part in &fresh.answer.parts {
            let shown = self.shows(gpu, part);
            let repeats = part.tells_of_instance && selection.frame.scope.repeats();
            if shown && part.mig.is_some() && repeats {
                self.tell_gpu(&self.stand(fresh, Some(part), &texts), &readings, &told);
            }
            let of_part = shown.then_some(&texts);
            let (used, of_it) = self.add_part(fresh, part, of_part, &mut missing, &mut balances);
            seen.push(of_it);
            for (share, usage) in used.iter().filter(|_| shown) {
                let stand = self.held_stand(fresh, Some(part), &texts, Some(share));
                if part.mig.is_none() || repeats {
                    let readings = own(&selection.device, &readings, usage);
                    self.tell_gpu(&stand, &readings, &told);
                }
                if part.tells_of_instance {
                    let readings = fresh.readings(&part.cells, &selection.instance);
                    let readings = own(&selection.instance, &readings, usage);
                    self.tables.instances.extend(self.entities(&stand, &readings));
                }
            }
        }
        self.census.balances.extend(balances.close(gpu));
        self.occupancy.push(Occupancy {
            limits: fresh.answer.limits,
            division: fresh.state.and(fresh.answer.division),
            parts: seen,
        });
        self.health.push(GpuHealth {
            gpu: Arc::clone(&fresh.answer.gpu),
            state: fresh.state,
            answered: fresh.sampled.waiting_since.is_none(),
            sampled_at: fresh.answer.at,
            took: fresh.sampled.took,
            missing: missing.0,
            discards: fresh.answer.discards,
            xids: xids.counts.clone(),
            readings,
        });
    }

    /// Whether a part has series. Counts the instances.
    fn shows(&mut self, gpu: &Gpu, part: &PartSample) -> bool {
        let scope = &self.terms.selection.frame.scope;
        if part.mig.is_none() {
            return scope.has_gpu(gpu.index, false);
        }
        self.instances += u32::from(part.tells_of_instance);
        scope.has_instance(self.instances.saturating_sub(1))
    }

    fn stand<'s>(
        &self,
        fresh: &'s Fresh<'_>,
        part: Option<&'s PartSample>,
        texts: &'s Texts,
    ) -> Stand<'s>
    where
        'a: 's,
    {
        let gpu = &*fresh.answer.gpu;
        let mig = part.and_then(|part| part.mig.as_deref());
        let instance = mig.map(|mig| mig.gpu_instance);
        let exclusive = self.terms.device_pods.and_then(|_| {
            let whole =
                |part: &&PartSample| part.mig.as_deref().map(|mig| mig.gpu_instance) == instance;
            let parts = fresh.answer.parts.iter().filter(whole);
            let devices: Vec<&str> = parts.map(|part| device(gpu, part)).collect();
            holder(self.terms.allocation, &devices)
        });
        self.held_stand(fresh, part, texts, exclusive)
    }

    /// A stand whose series name the container of `share`.
    fn held_stand<'s>(
        &self,
        fresh: &'s Fresh<'_>,
        part: Option<&'s PartSample>,
        texts: &'s Texts,
        share: Option<&'s Share>,
    ) -> Stand<'s>
    where
        'a: 's,
    {
        let gpu = &*fresh.answer.gpu;
        let mig = part.and_then(|part| part.mig.as_deref());
        let instance = mig.map(|mig| mig.gpu_instance);
        let replicas = self.terms.selection.frame.virtual_gpus;
        let held = self.terms.device_pods.map(|pods| held(share, pods, replicas));
        let labels = share.and_then(|share| self.pod_labels.get(&share.holder.pod.uid));
        let labels = labels.map_or(&[][..], |labels| &labels.shown);
        let texts = if labels.is_empty() {
            Cow::Borrowed(texts)
        } else {
            let mut all = [labels, texts].concat();
            all.sort();
            Cow::Owned(all)
        };
        let jobs = self.terms.jobs.get(&(gpu.index, instance)).map_or(&[][..], Vec::as_slice);
        Stand { gpu, mig, texts, held, jobs }
    }

    /// Collects the labels of the pods that hold a GPU or a part of it.
    fn learn_pod_labels(&mut self, gpu: &Gpu, parts: &[PartSample]) {
        let allowed = self.terms.device_pods.and_then(|pods| pods.labels.as_ref());
        let (Some(allowed), Some(pods)) = (allowed, self.terms.directory.pods) else { return };
        let shares =
            parts.iter().flat_map(|part| self.terms.allocation.shares_of(device(gpu, part)));
        for uid in shares.map(|share| &share.holder.pod.uid) {
            if let ByUid::Live(known) = pods.by_uid(uid) {
                let labels = || {
                    let labels = known.pod.labels.iter().map(|(key, value)| (&**key, &**value));
                    allowed.shown(labels, self.terms.reserved)
                };
                self.pod_labels.entry(Arc::clone(uid)).or_insert_with(labels);
            }
        }
    }

    /// What is known of a GPU as a whole, and of its node where the dialect repeats that.
    fn tell_gpu(&mut self, stand: &Stand<'_>, readings: &[Reading], told: &Told<'_>) {
        self.tables.devices.extend(self.entities(stand, readings));
        if matches!(self.terms.schema.dialect, Dialect::DcgmExporter(_)) {
            let node = node_readings(&self.terms.selection.node, self.node);
            self.nodes.extend(self.entities(stand, &node));
        }
        // What has befallen a GPU stays true while it cannot be read.
        for (family, shown) in self.terms.selection.event.families().iter().enumerate() {
            for sample in (shown.metric.source.read)(told) {
                let more: Vec<(&str, &str)> =
                    sample.labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
                let series = self.label_sets(stand, &more).into_iter();
                let reading = sample.reading;
                let series = series.map(|labels| Series { family, labels, reading });
                self.tables.events.extend(series);
            }
        }
    }

    fn entities(
        &self,
        stand: &Stand<'_>,
        readings: &[Reading],
    ) -> impl Iterator<Item = Entity> + use<> {
        let readings = readings.to_vec();
        let sets = self.label_sets(stand, &[]).into_iter();
        sets.map(move |labels| Entity { labels, readings: readings.clone() })
    }

    /// The label sets of a stand: one, or one for each job that runs on it.
    fn label_sets(&self, stand: &Stand<'_>, more: &[(&str, &str)]) -> Vec<Labels> {
        let set = |more: &[(&str, &str)]| {
            let about = About { texts: &stand.texts, held: stand.held, more };
            self.terms.schema.device(stand.gpu, stand.mig, &about)
        };
        if stand.jobs.is_empty() {
            return vec![set(more)];
        }
        let with = |job: &Arc<str>| set(&[more, &[(HPC_JOB, &**job)]].concat());
        stand.jobs.iter().map(with).collect()
    }

    /// Adds a part, and tells what those use who share it, where its series are repeated for them;
    /// `texts` are those of its GPU if it has series, else nothing is shown of it.
    fn add_part(
        &mut self,
        fresh: &Fresh<'_>,
        part: &PartSample,
        texts: Option<&Texts>,
        missing: &mut MissingCounts,
        balances: &mut Balances,
    ) -> (Vec<(&'a Share, Usage)>, Part) {
        let (gpu, selection) = (&*fresh.answer.gpu, self.terms.selection);
        let mut seen = Part {
            mig: part.mig.clone(),
            framebuffer: fresh.state.and(part.framebuffer),
            readings: Vec::new(),
            tenants: Vec::new(),
            residents: Ok(Vec::new()),
        };
        if part.tells_of_instance {
            let readings = fresh.readings(&part.cells, &selection.instance);
            missing.add(&readings);
            if let Some(texts) = texts {
                let stand = self.stand(fresh, Some(part), texts);
                let allotted = Allotted { framebuffer: self.allocated(fresh, part) };
                let labels = self.label_sets(&stand, &[]).into_iter();
                self.tables.allocated.extend(labels.map(|labels| (labels, allotted)));
                self.tables.instances.extend(self.entities(&stand, &readings));
            }
            seen.readings = readings;
        }
        if let Some(texts) = texts {
            self.add_grants(fresh, part, texts);
        }
        let sharers =
            selection.frame.virtual_gpus.then(|| sharers(self.terms.allocation, device(gpu, part)));
        let sharers = sharers.into_iter().flatten();
        match fresh.listing(part) {
            Ok(listing) => {
                let mut people = People::new(self.terms, gpu, part, self.now, &mut self.census);
                let mut hidden = Tables::default();
                let tables = if texts.is_some() { &mut self.tables } else { &mut hidden };
                let ledger = people.tell(listing, texts.map_or(&[], Vec::as_slice), tables);
                for usage in people.told() {
                    for shown in selection.process.families() {
                        missing.add(&[(shown.metric.source)(usage)]);
                    }
                }
                balances.add(part, ledger);
                seen.tenants = people.tenants();
                seen.residents = Ok(people.residents(listing));
                let used = sharers.map(|share| (share, people.all_of(&share.holder))).collect();
                if let (Some(texts), false) = (texts, selection.account.is_empty()) {
                    let energy = if part.mig.is_none() { fresh.answer.energy } else { None };
                    let energy = energy.unwrap_or(Err(Missing::Unsupported));
                    let activity = people.activity(fresh.answer.at.mono, energy);
                    let stand = || self.stand(fresh, Some(part), texts);
                    let doers = selection.wants_energy().then(|| self.doers(&stand()));
                    let doers = doers.unwrap_or_default();
                    self.activity.push(Activity { doers, ..activity });
                }
                (used, seen)
            }
            // Nobody is listed, so nobody knows how many are missing: each family counts once.
            Err(reason) => {
                missing.add(&vec![Err(reason); selection.process.len()]);
                balances.spoil(part);
                let unknown = Usage { memory: Err(reason), utilization: Err(reason) };
                let tenant = |share: &Share| Tenant {
                    container: (&share.holder).into(),
                    mode: share.mode,
                    grant: Some(grant(share)),
                    usage: unknown,
                };
                let given = self.terms.allocation.shares_of(device(gpu, part));
                seen.tenants = given.iter().map(tenant).collect();
                seen.residents = Err(reason);
                (sharers.map(|share| (share, unknown)).collect(), seen)
            }
        }
    }

    /// The labels of what is told of a device by who did it.
    fn doers(&self, stand: &Stand<'_>) -> Vec<(Doer, Labels)> {
        let sets = |doer: &Doer| {
            let sets = self.label_sets(stand, &[(OWNER, doer.label())]).into_iter();
            sets.map(|labels| (*doer, labels)).collect::<Vec<_>>()
        };
        Doer::ALL.iter().flat_map(sets).collect()
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
    fn add_grants(&mut self, fresh: &Fresh<'_>, part: &PartSample, texts: &Texts) {
        let (Ok(()), Allocation::Known(holdings)) = (fresh.state, self.terms.allocation) else {
            return;
        };
        let gpu = &*fresh.answer.gpu;
        for share in holdings.of_device(device(gpu, part)) {
            let holder = Some(share.holder.names());
            let subject = Subject { mode: share.mode, holder, face: None };
            let labels = self.terms.schema.subject(gpu, part.mig.as_deref(), &subject, texts);
            self.tables.containers.push((labels, grant(share)));
        }
    }
}

/// What a share is of its device.
pub(super) fn grant(share: &Share) -> Grant {
    let known = if share.confirmed { Ok(()) } else { Err(Missing::Pending) };
    Grant {
        memory: known.and(share.memory.ok_or(Missing::Pending)),
        compute: known.map(|()| share.compute),
    }
}

/// Texts that label all series of a GPU, by key.
pub(super) type Texts = Vec<(Arc<str>, Arc<str>)>;

fn texts(chosen: &Chosen<TextSource>, driver: &Driver, answer: &DeviceSample) -> Texts {
    let text = |family: &Family<TextSource>| -> Option<Arc<str>> {
        match family.metric.source {
            TextSource::Driver(of) => Some(of(driver).into()),
            TextSource::Gpu(of) => Some(of(&answer.gpu).into()),
            TextSource::Read(_) => answer.texts.get(family.row)?.clone()?.ok(),
        }
    };
    let pair = |family: &Family<TextSource>| Some((Arc::clone(&family.name), text(family)?));
    let known = chosen.families().iter().filter_map(pair);
    let mut texts: Texts = known.filter(|(_, text)| !text.is_empty()).collect();
    texts.sort();
    texts
}

/// Who holds all of what is told of: nobody, if it is shared, or if that is not known.
fn holder<'a>(allocation: Allocation<'a>, devices: &[&str]) -> Option<&'a Share> {
    let ([device], Allocation::Known(holdings)) = (devices, allocation) else { return None };
    match holdings.of_device(device) {
        [share] if share.mode == AllocateMode::Exclusive => Some(share),
        _ => None,
    }
}

/// Readings of a GPU as one of those who share it is told them.
fn own(chosen: &Chosen<DeviceSource>, readings: &[Reading], usage: &Usage) -> Vec<Reading> {
    let rows = chosen.families().iter().map(|family| family.metric.name);
    let own = |(row, reading): (&str, &Reading)| own_use(row).map_or(*reading, |of| of(usage));
    rows.zip(readings).map(own).collect()
}

/// Those who share a device.
fn sharers<'a>(allocation: Allocation<'a>, device: &str) -> impl Iterator<Item = &'a Share> {
    allocation.shares_of(device).iter().filter(|share| share.mode == AllocateMode::Share)
}

/// A device that nobody holds has these labels all the same, and empty: without them, those of the
/// exporter's own pod would stand on it where the scraper honours ours.
fn held<'a>(share: Option<&'a Share>, pods: &DevicePods, replicas: bool) -> Held<'a> {
    let holder = share.map(|share| &share.holder);
    let (namespace, pod, container) = holder.map(Holder::names).unwrap_or_default();
    let claim = || share.and_then(|share| share.claim.as_deref()).unwrap_or(&NO_CLAIM);
    Held {
        namespace,
        pod,
        container,
        uid: pods.uid.then(|| holder.map_or("", |holder| &*holder.pod.uid)),
        claim: pods.claims.then(claim),
        replica: replicas.then(|| share.map_or("", |share| &*share.replica)),
    }
}

fn links(answer: &DeviceSample) -> Result<&LinkStates, Missing> {
    let links = answer.links.as_ref().ok_or(Missing::Pending)?;
    links.as_ref().map_err(|missing| *missing)
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
