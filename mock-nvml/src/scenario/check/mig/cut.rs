//! Cutting one more instance from a board.

use std::ops::Range;

use toml::Spanned;

use super::super::identity::{hash, is_uuid, uuid};
use crate::{
    models::{
        Model,
        mig::{Profile, SLICES, compute_id},
    },
    scenario::{
        complaint::{Checked, Flaw, ensure, suggestion},
        file::InstanceTable,
        mig::{ComputeInstance, GpuInstance, Layout},
    },
};

/// The highest id of a GPU instance.
const HIGHEST_ID: u32 = 14;

/// What there is when the next instance is cut.
#[derive(Clone, Copy)]
pub(super) struct Cut<'a> {
    /// Seeds what identifies it.
    pub(super) seed: &'a str,
    /// Index of the GPU.
    pub(super) gpu: usize,
    /// What can be cut.
    pub(super) model: &'a Model,
    /// What has been cut.
    pub(super) layout: &'a Layout,
}

impl Cut<'_> {
    /// The instance of a table.
    pub(super) fn instance(self, table: &Spanned<InstanceTable>) -> Checked<GpuInstance> {
        let said = table.get_ref();
        let profile = profile(self.model, &said.profile)?;
        let many = said.count.is_some_and(|count| count != 1);
        let own = said.start.is_some() || said.gi.is_some() || said.slot.is_some();
        let mend = "mig: start, gi, slot and uuid are one instance's own: leave out count";
        ensure(!many || !(own || said.uuid.is_some()), table, || mend.into())?;
        let start = self.start(profile, said.start, table)?;
        let id = self.id(profile, said.gi, table)?;
        let compute = self.compute(profile, id, table)?;
        let first =
            compute.first().map_or_else(|| format!("{} {id}", self.seed), |ci| ci.uuid.clone());
        Ok(GpuInstance { id, life: hash(&first, self.gpu, 3), profile, start, compute })
    }

    /// Its first memory slice: the one that is said, else the first that is free.
    fn start(
        self,
        profile: &Profile,
        said: Option<u32>,
        table: &Spanned<InstanceTable>,
    ) -> Checked<u32> {
        let others = &self.layout.instances;
        let alike = others.iter().filter(|other| other.profile == profile).count();
        let most = usize::try_from(profile.most).unwrap_or(usize::MAX);
        let name = profile.name;
        let mend =
            || format!("mig: a {} has at most {most} × {name}: leave some out", self.model.key);
        ensure(alike < most, table, mend)?;
        let slices: u32 = others.iter().map(|other| other.profile.slices).sum();
        let mend = || format!("mig: more than {SLICES} compute slices: leave some out");
        ensure(slices + profile.slices <= SLICES, table, mend)?;
        let free = |start: u32| {
            let end = |start: u32, of: &Profile| start + of.memory_slices;
            !others.iter().any(|other| {
                start < end(other.start, other.profile) && other.start < end(start, profile)
            })
        };
        let starts = profile.starts;
        let all = || starts.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let Some(said) = said else {
            let first = starts.iter().copied().find(|start| free(*start));
            let text =
                || format!("mig: no room for a {name}, which begins at {}: leave it out", all());
            return first.ok_or_else(|| Flaw::new(table.span(), text()));
        };
        let mend = || format!("mig: a {name} cannot begin at {said}: give one of {}", all());
        ensure(starts.contains(&said), table, mend)?;
        let mend = || format!("mig: the {name} at {said} overlaps another: give another start");
        ensure(free(said), table, mend)?;
        Ok(said)
    }

    /// The driver gives the whole board 0, and parts what is free from 1 on.
    fn id(
        self,
        profile: &Profile,
        said: Option<u32>,
        table: &Spanned<InstanceTable>,
    ) -> Checked<u32> {
        let taken = |id: u32| self.layout.instance(id).is_some();
        let from = u32::from(profile.slices < SLICES);
        let id = said.or((from..=HIGHEST_ID).find(|id| !taken(*id))).unwrap_or(HIGHEST_ID);
        ensure(id <= HIGHEST_ID, table, || format!("mig: gi = {id}: give 0 to {HIGHEST_ID}"))?;
        ensure(!taken(id), table, || format!("mig: gi = {id} is taken: give each its own"))?;
        Ok(id)
    }

    fn compute(
        self,
        profile: &Profile,
        gi: u32,
        table: &Spanned<InstanceTable>,
    ) -> Checked<Vec<ComputeInstance>> {
        let said = table.get_ref();
        let whole = vec![format!("{}c.{}", profile.slices, profile.name)];
        let names = said.compute.as_ref().unwrap_or(&whole);
        let highest = self.layout.devices().map(|(_, ci)| ci.slot + 1).max().unwrap_or_default();
        let (mut start, mut slot) = (0, said.slot.unwrap_or(highest));
        let mut compute = vec![];
        for (id, name) in (0..).zip(names) {
            let slices = width(name, profile).ok_or_else(|| {
                let mend = format!("write it like \"1c.{}\"", profile.name);
                Flaw::new(table.span(), format!("mig: no compute profile \"{name}\": {mend}"))
            })?;
            let mend = || {
                format!(
                    "mig: \"{name}\" does not fit: a {} has {} slices",
                    profile.name, profile.slices
                )
            };
            ensure(start + slices <= profile.slices, table, mend)?;
            let taken = self.layout.devices().any(|(_, ci)| ci.slot == slot);
            let mend = || format!("mig: slot {slot} is taken or no slot: give 0 to {}", SLICES - 1);
            ensure(slot < SLICES && !taken, table, mend)?;
            let uuid = self.uuid(gi, id, names.len(), table)?;
            let life = hash(&uuid, self.gpu, 2);
            compute.push(ComputeInstance { id, life, slices, start, slot, uuid });
            start += slices;
            slot += 1;
        }
        Ok(compute)
    }

    fn uuid(
        self,
        gi: u32,
        ci: u32,
        count: usize,
        table: &Spanned<InstanceTable>,
    ) -> Checked<String> {
        let Some(said) = &table.get_ref().uuid else {
            return Ok(uuid("MIG-", &format!("{} {gi} {ci}", self.seed), self.gpu));
        };
        let mend = "mig: uuid is one MIG device's own: give the instance one compute instance";
        ensure(count == 1, table, || mend.into())?;
        let mend = "write MIG- and a UUID in lower case hexadecimal";
        ensure(is_uuid("MIG-", said), table, || format!("mig: uuid = \"{said}\": {mend}"))?;
        Ok(said.clone())
    }
}

fn profile(model: &Model, said: &Spanned<String>) -> Checked<&'static Profile> {
    let name = said.get_ref();
    let names = || model.mig().iter().map(|profile| profile.name);
    model.mig().iter().find(|profile| profile.name == name).ok_or_else(|| {
        let near = suggestion(name, names());
        let near = if near.is_empty() { ":" } else { near.as_str() };
        let all = names().collect::<Vec<_>>().join(", ");
        let at: Range<usize> = said.span();
        Flaw::new(at, format!("mig: no profile \"{name}\"{near} a {} has {all}", model.key))
    })
}

/// The compute slices of `1c.3g.40gb`, a part of `3g.40gb`.
fn width(name: &str, profile: &Profile) -> Option<u32> {
    let (slices, of) = name.split_once("c.")?;
    let slices = slices.parse().ok()?;
    (of == profile.name && compute_id(slices).is_some() && slices <= profile.slices)
        .then_some(slices)
}
