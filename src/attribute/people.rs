//! The processes of one part: whose they are, where they are told, and who is idle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::activity::{Activity, ContainerActivity, ProcessActivity};
use super::conservation::{Bucket, Ledger};
use super::device::{device, grant};
use super::family::{Allocation, Family, family};
use super::holdings::Share;
use super::owner::{Holder, Owner, Unresolved};
use super::{Grain, Terms};
use crate::labels::{Face, Labels, Subject};
use crate::model::{
    AllocateMode, EngineShares, Gpu, Listing, Missing, ProcessSample, Reading, Residue, Usage,
};
use crate::policy::is_mps_server;
use crate::sample::part::PartSample;
use crate::snapshot::occupancy::{Listed, Resident, Tenant};
use crate::snapshot::{Census, Tables};

/// One part and who is on it.
pub(super) struct People<'a> {
    terms: &'a Terms<'a>,
    gpu: &'a Gpu,
    part: &'a PartSample,
    now: Duration,
    census: &'a mut Census,
    /// Containers that the driver lists a process of.
    busy: BTreeSet<Holder>,
    /// Something is listed of which nobody knows whose it is.
    doubt: bool,
    told: Vec<Usage>,
    did: Vec<ProcessActivity>,
    texts: &'a [(Arc<str>, Arc<str>)],
    sums: BTreeMap<(Kinship, Option<Holder>), Usage>,
}

/// A family and a mode, as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kinship {
    Process(AllocateMode),
    Illegal,
}

impl<'a> People<'a> {
    /// Nobody yet.
    pub(super) fn new(
        terms: &'a Terms<'a>,
        gpu: &'a Gpu,
        part: &'a PartSample,
        now: Duration,
        census: &'a mut Census,
    ) -> Self {
        Self {
            terms,
            gpu,
            part,
            now,
            census,
            busy: BTreeSet::new(),
            doubt: false,
            told: Vec::new(),
            did: Vec::new(),
            texts: &[],
            sums: BTreeMap::new(),
        }
    }

    /// Tells of everybody who is listed, and of those who could be and are not.
    pub(super) fn tell(
        &mut self,
        listing: &Listing,
        texts: &'a [(Arc<str>, Arc<str>)],
        tables: &mut Tables,
    ) -> Ledger {
        self.texts = texts;
        let mut ledger = Ledger::default();
        let owners: Vec<Owner> = listing.processes.iter().map(|one| self.resolve(one)).collect();
        let containers = ByContainer::of(&listing.processes, &owners);
        for (process, owner) in listing.processes.iter().zip(owners) {
            self.tell_process(process, owner, &containers, &mut ledger, tables);
        }
        for residue in &listing.residues {
            self.book_residue(residue, &mut ledger);
        }
        self.tell_sums(tables);
        self.tell_idle(tables);
        ledger
    }

    /// What has been told of.
    pub(super) fn told(&self) -> &[Usage] {
        &self.told
    }

    fn resolve(&mut self, process: &ProcessSample) -> Owner {
        let (owner, evidence) = match &process.placement {
            Ok(placement) => self.terms.directory.owner(placement, process.seen),
            Err(discard) => (Owner::Unknown((*discard).into()), None),
        };
        if let Some(evidence) = evidence {
            let key = (evidence.label(), owner.label());
            *self.census.attributed.entry(key).or_default() += 1;
        }
        owner
    }

    fn tell_process(
        &mut self,
        process: &ProcessSample,
        owner: Owner,
        containers: &ByContainer,
        ledger: &mut Ledger,
        tables: &mut Tables,
    ) {
        let server = is_mps_server(&process.name);
        ledger.book(bucket(&owner, server), process.usage.memory);
        if let Owner::Container(holder) = &owner {
            self.busy.insert(holder.clone());
        }
        let given = !matches!(self.terms.allocation, Allocation::Nobody { .. });
        // An MPS server works for its clients, and nobody gave it anything.
        let labels = if server && given {
            None
        } else {
            let device = device(self.gpu, self.part);
            // What a container was allocated does not change while it runs.
            let seen = containers.first_seen(&owner).unwrap_or(process.seen);
            match family(&owner, device, seen, self.now, self.terms.allocation) {
                Ok(family) => {
                    let usage = containers.publishable(&owner, process.usage);
                    self.tell_usage(family, &owner, process, usage, tables)
                }
                Err(unresolved) => {
                    self.unresolved(unresolved);
                    None
                }
            }
        };
        self.did.push(ProcessActivity { id: process.id, owner, usage: process.usage, labels });
    }

    fn unresolved(&mut self, unresolved: Unresolved) {
        self.doubt = true;
        *self.census.unresolved.entry(unresolved.reason()).or_default() += 1;
    }

    fn tell_usage(
        &mut self,
        family: Family,
        owner: &Owner,
        process: &ProcessSample,
        usage: Usage,
        tables: &mut Tables,
    ) -> Option<Labels> {
        self.told.push(usage);
        let holder = match owner {
            Owner::Container(holder) => Some(holder),
            Owner::Host | Owner::Stray | Owner::Unknown(_) => None,
        };
        match self.terms.grain {
            Grain::Process => {
                let pid = process.id.pid.to_string();
                let kind = process.kind.label();
                let face = Face { pid: &pid, name: &process.name, kind };
                Some(self.push(family.into(), holder, face, usage, tables))
            }
            Grain::Container => {
                let sum = self.sums.entry((family.into(), holder.cloned()));
                sum.and_modify(|sum| *sum = sum.with(usage)).or_insert(usage);
                None
            }
        }
    }

    fn tell_sums(&mut self, tables: &mut Tables) {
        for ((kinship, holder), usage) in std::mem::take(&mut self.sums) {
            self.push(kinship, holder.as_ref(), Face::default(), usage, tables);
        }
    }

    /// A container that was given the part and has no process on it is idle, not unknown: if the
    /// driver lists everybody, and it is known of everybody whose they are.
    fn tell_idle(&mut self, tables: &mut Tables) {
        let Allocation::Known(holdings) = self.terms.allocation else { return };
        if !self.sees_everybody() {
            return;
        }
        let idle = self.idle();
        let face = match self.terms.grain {
            Grain::Process => Face { pid: "0", ..Face::default() },
            Grain::Container => Face::default(),
        };
        for share in holdings.of_device(device(self.gpu, self.part)) {
            let idle_is_known = share.running && share.confirmed;
            if idle_is_known && !self.busy.iter().any(|busy| busy.is(&share.holder)) {
                let kinship = Kinship::Process(share.mode);
                self.push(kinship, Some(&share.holder), face, idle, tables);
            }
        }
    }

    fn push(
        &self,
        kinship: Kinship,
        holder: Option<&Holder>,
        face: Face<'_>,
        usage: Usage,
        tables: &mut Tables,
    ) -> Labels {
        let (mode, table) = match kinship {
            Kinship::Process(mode) => (mode, &mut tables.processes),
            Kinship::Illegal => (AllocateMode::None, &mut tables.illegal),
        };
        let subject = Subject { mode, holder: holder.map(Holder::names), face: Some(face) };
        let mig = self.part.mig.as_deref();
        let labels = self.terms.schema.subject(self.gpu, mig, &subject, self.texts);
        table.push((labels.clone(), usage));
        labels
    }

    /// What somebody uses who is not listed.
    fn idle(&self) -> Usage {
        let utilization = self.part.utilization.map(|_| EngineShares::default());
        Usage { memory: Ok(0), utilization }
    }

    /// What a container uses of the part, unless somebody is there of whom it is not known whose they are.
    pub(super) fn all_of(&self, holder: &Holder) -> Usage {
        if self.sees_everybody() { self.usage(holder) } else { PENDING }
    }

    /// What those use of the part who are known to be a container's.
    fn usage(&self, holder: &Holder) -> Usage {
        let own = |process: &&ProcessActivity| match &process.owner {
            Owner::Container(owner) => owner.is(holder),
            Owner::Host | Owner::Stray | Owner::Unknown(_) => false,
        };
        let own = self.did.iter().filter(own).map(|process| process.usage);
        let residue = self.busy.iter().any(|busy| busy.is(holder));
        let shares = self.terms.allocation.shares_of(device(self.gpu, self.part));
        let share = shares.iter().find(|share| share.holder.is(holder));
        let runs = share.is_none_or(|share| share.running && share.confirmed);
        let certain = self.sees_everybody() && !residue && runs;
        own.reduce(Usage::with).unwrap_or_else(|| if certain { self.idle() } else { PENDING })
    }

    /// Whether nobody can be on the part but those who are told of.
    fn sees_everybody(&self) -> bool {
        !self.doubt && self.terms.host_pids == Some(true)
    }

    /// What happened on the part in the cycle that began at `at` (monotonic), in which its GPU's meter
    /// stood at `energy`.
    pub(super) fn activity(self, at: Duration, energy: Reading) -> Activity {
        Activity {
            device: device(self.gpu, self.part).into(),
            at,
            watched: self.part.utilization,
            energy,
            complete: self.sees_everybody(),
            containers: self.containers(),
            processes: self.did,
            doers: Vec::new(),
        }
    }

    /// The containers that hold the part, each with its share, and those that have a process on it all
    /// the same.
    fn users(&self) -> impl Iterator<Item = (&Holder, Option<&Share>)> {
        let shares = self.terms.allocation.shares_of(device(self.gpu, self.part));
        let known = |holder| self.busy.iter().find(|busy| busy.is(holder)).unwrap_or(holder);
        let given = shares.iter().map(move |share| (known(&share.holder), Some(share)));
        let holds = |busy: &&Holder| shares.iter().any(|share| share.holder.is(busy));
        let not_given = self.busy.iter().filter(move |busy| !holds(busy));
        given.chain(not_given.map(|busy| (busy, None)))
    }

    fn containers(&self) -> Vec<ContainerActivity> {
        let activity = |(holder, share): (&Holder, Option<&Share>)| {
            let mode = mode(share);
            let subject = Subject { mode, holder: Some(holder.names()), face: None };
            let mig = self.part.mig.as_deref();
            ContainerActivity {
                holder: holder.clone(),
                usage: self.usage(holder),
                labels: self.terms.schema.subject(self.gpu, mig, &subject, self.texts),
            }
        };
        self.users().map(activity).collect()
    }

    /// Who was given the part or uses it.
    pub(super) fn tenants(&self) -> Vec<Tenant> {
        let tenant = |(holder, share): (&Holder, Option<&Share>)| Tenant {
            container: holder.into(),
            mode: mode(share),
            grant: share.map(grant),
            usage: self.all_of(holder),
        };
        self.users().map(tenant).collect()
    }

    /// Everybody who is listed, of whom it has been told.
    pub(super) fn residents(&self, listing: &Listing) -> Vec<Resident> {
        let living = listing.processes.iter().zip(&self.did).map(|(process, did)| Resident {
            process: Some(Listed {
                pid: process.id.pid,
                name: Arc::clone(&process.name),
                kind: process.kind,
            }),
            whose: (&did.owner).into(),
            usage: process.usage,
        });
        let rest = listing.residues.iter().map(|residue| Resident {
            process: None,
            whose: (&self.owner_of(residue)).into(),
            usage: Usage { memory: residue.memory, ..PENDING },
        });
        living.chain(rest).collect()
    }

    fn owner_of(&self, residue: &Residue) -> Owner {
        let placement = residue.placement.as_deref();
        let owner = placement.map(|placement| self.terms.directory.owner(placement, self.now).0);
        owner.unwrap_or_else(|| Owner::Unknown(residue.why.into()))
    }

    /// What is listed and is no process holds its memory all the same, and may be anybody's unless
    /// it is remembered whose it was.
    fn book_residue(&mut self, residue: &Residue, ledger: &mut Ledger) {
        let owner = self.owner_of(residue);
        ledger.book(bucket(&owner, false), residue.memory);
        match owner {
            Owner::Container(holder) => drop(self.busy.insert(holder)),
            Owner::Host | Owner::Stray => {}
            Owner::Unknown(_) => self.unresolved(residue.why.into()),
        }
    }
}

/// What the processes of each container have in common on one device.
struct ByContainer(BTreeMap<Holder, OfContainer>);

struct OfContainer {
    first_seen: Duration,
    /// Why a family has no value for one of its processes.
    memory: Result<(), Missing>,
    utilization: Result<(), Missing>,
}

impl ByContainer {
    fn of(processes: &[ProcessSample], owners: &[Owner]) -> Self {
        let mut containers = BTreeMap::<Holder, OfContainer>::new();
        for (process, owner) in processes.iter().zip(owners) {
            let Owner::Container(holder) = owner else { continue };
            let known = containers.entry(holder.clone()).or_insert(OfContainer {
                first_seen: process.seen,
                memory: Ok(()),
                utilization: Ok(()),
            });
            known.first_seen = known.first_seen.min(process.seen);
            // A server's use is its clients', who are processes of their own.
            if !is_mps_server(&process.name) {
                known.memory = known.memory.and(process.usage.memory.map(|_| ()));
                known.utilization = known.utilization.and(process.usage.utilization.map(|_| ()));
            }
        }
        Self(containers)
    }

    fn get(&self, owner: &Owner) -> Option<&OfContainer> {
        let Owner::Container(holder) = owner else { return None };
        self.0.get(holder)
    }

    fn first_seen(&self, owner: &Owner) -> Option<Duration> {
        Some(self.get(owner)?.first_seen)
    }

    /// What may be published of a process: nothing of a family in which another process of its
    /// container has no value, for a sum or a mean of the rest would be wrong.
    fn publishable(&self, owner: &Owner, usage: Usage) -> Usage {
        let Some(known) = self.get(owner) else { return usage };
        Usage {
            memory: known.memory.and(usage.memory),
            utilization: known.utilization.and(usage.utilization),
        }
    }
}

/// How somebody was given a device, by his share of it.
fn mode(share: Option<&Share>) -> AllocateMode {
    share.map_or(AllocateMode::None, |share| share.mode)
}

const PENDING: Usage = Usage { memory: Err(Missing::Pending), utilization: Err(Missing::Pending) };

impl From<Family> for Kinship {
    fn from(family: Family) -> Self {
        match family {
            Family::Process(mode) => Self::Process(mode),
            Family::Illegal => Self::Illegal,
        }
    }
}

fn bucket(owner: &Owner, mps_server: bool) -> Bucket {
    match owner {
        _ if mps_server => Bucket::MpsServer,
        Owner::Container(_) => Bucket::Container,
        Owner::Host | Owner::Stray => Bucket::Host,
        Owner::Unknown(_) => Bucket::Unknown,
    }
}
