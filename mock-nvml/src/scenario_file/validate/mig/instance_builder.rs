//! Adds one GPU instance to a layout.

use std::ops::Range;

use toml::Spanned;

use crate::{
    models::{
        Model,
        mig::{Profile, SLICES, compute_id},
    },
    scenario::mig::{ComputeInstance, GpuInstance, MigLayout},
    scenario_file::{
        error::{SpannedError, ValidationResult, ensure, suggestion},
        tables::InstanceTable,
        validate::identity::{hash, is_uuid, uuid},
    },
};

/// Highest GPU instance id.
const HIGHEST_ID: u32 = 14;

/// Builds the next GPU instance of a layout.
#[derive(Clone, Copy)]
pub(super) struct InstanceBuilder<'a> {
    /// Seed of the generated UUIDs.
    pub(super) seed: &'a str,
    /// Index of the GPU.
    pub(super) gpu: usize,
    pub(super) model: &'a Model,
    /// The instances so far.
    pub(super) layout: &'a MigLayout,
}

impl InstanceBuilder<'_> {
    pub(super) fn build(self, table: &Spanned<InstanceTable>) -> ValidationResult<GpuInstance> {
        let spec = table.get_ref();
        let profile = profile(self.model, &spec.profile)?;
        let several = spec.count.is_some_and(|count| count != 1);
        let unique = spec.start.is_some() || spec.gi.is_some() || spec.slot.is_some();
        let error = "mig: start, gi, slot and uuid belong to one instance, but count makes several: \
                     remove count";
        ensure(!several || !(unique || spec.uuid.is_some()), table, || error.into())?;
        let start = self.start(profile, spec.start, table)?;
        let id = self.id(profile, spec.gi, table)?;
        let compute = self.compute(profile, id, table)?;
        let first =
            compute.first().map_or_else(|| format!("{} {id}", self.seed), |ci| ci.uuid.clone());
        Ok(GpuInstance { id, generation: hash(&first, self.gpu, 3), profile, start, compute })
    }

    /// First memory slice: `wanted`, else the first free one.
    fn start(
        self,
        profile: &Profile,
        wanted: Option<u32>,
        table: &Spanned<InstanceTable>,
    ) -> ValidationResult<u32> {
        let others = &self.layout.instances;
        let same = others.iter().filter(|other| other.profile == profile).count();
        let most = usize::try_from(profile.max_instances).unwrap_or(usize::MAX);
        let name = profile.name;
        let error = || {
            format!("mig: the model {} allows at most {most} × {name}: remove some", self.model.key)
        };
        ensure(same < most, table, error)?;
        let slices: u32 = others.iter().map(|other| other.profile.slices).sum();
        let error =
            || format!("mig: the layout has more than {SLICES} compute slices: remove instances");
        ensure(slices + profile.slices <= SLICES, table, error)?;
        let free = |start: u32| {
            let end = |start: u32, of: &Profile| start + of.memory_slices;
            !others.iter().any(|other| {
                start < end(other.start, other.profile) && other.start < end(start, profile)
            })
        };
        let starts = profile.starts;
        let all = || starts.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let Some(wanted) = wanted else {
            let first = starts.iter().copied().find(|start| free(*start));
            let text = || {
                format!("mig: no free slices for a {name}, which starts at {}: remove it", all())
            };
            return first.ok_or_else(|| SpannedError::new(table.span(), text()));
        };
        let error = || format!("mig: a {name} cannot start at {wanted}: write one of {}", all());
        ensure(starts.contains(&wanted), table, error)?;
        let error = || {
            format!("mig: the {name} at {wanted} overlaps another instance: write another start")
        };
        ensure(free(wanted), table, error)?;
        Ok(wanted)
    }

    /// GPU instance id: `wanted`, else the lowest free one. An instance of the whole GPU has id 0, others
    /// start at 1.
    fn id(
        self,
        profile: &Profile,
        wanted: Option<u32>,
        table: &Spanned<InstanceTable>,
    ) -> ValidationResult<u32> {
        let used = |id: u32| self.layout.instance(id).is_some();
        let from = u32::from(profile.slices < SLICES);
        let id = wanted.or((from..=HIGHEST_ID).find(|id| !used(*id))).unwrap_or(HIGHEST_ID);
        ensure(id <= HIGHEST_ID, table, || {
            format!("mig: gi = {id} is out of range: write 0 to {HIGHEST_ID}")
        })?;
        ensure(!used(id), table, || {
            format!("mig: gi = {id} belongs to another instance: write a unique one")
        })?;
        Ok(id)
    }

    fn compute(
        self,
        profile: &Profile,
        gi: u32,
        table: &Spanned<InstanceTable>,
    ) -> ValidationResult<Vec<ComputeInstance>> {
        let spec = table.get_ref();
        let whole = vec![format!("{}c.{}", profile.slices, profile.name)];
        let names = spec.compute.as_ref().unwrap_or(&whole);
        let next_slot = self.layout.devices().map(|(_, ci)| ci.slot + 1).max().unwrap_or_default();
        let (mut start, mut slot) = (0, spec.slot.unwrap_or(next_slot));
        let mut compute = vec![];
        for (id, name) in (0..).zip(names) {
            let slices = compute_slices(name, profile).ok_or_else(|| {
                let remedy = format!("write it like \"1c.{}\"", profile.name);
                SpannedError::new(
                    table.span(),
                    format!("mig: unknown compute profile \"{name}\": {remedy}"),
                )
            })?;
            let error = || {
                format!(
                    "mig: \"{name}\" does not fit in the {} slices of {}: remove it",
                    profile.slices, profile.name
                )
            };
            ensure(start + slices <= profile.slices, table, error)?;
            let used = self.layout.devices().any(|(_, ci)| ci.slot == slot);
            let error = || {
                format!(
                    "mig: slot {slot} is in use or out of range: write a free one from 0 to {}",
                    SLICES - 1
                )
            };
            ensure(slot < SLICES && !used, table, error)?;
            let uuid = self.uuid(gi, id, names.len(), table)?;
            let life = hash(&uuid, self.gpu, 2);
            compute.push(ComputeInstance { id, generation: life, slices, start, slot, uuid });
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
    ) -> ValidationResult<String> {
        let Some(given) = &table.get_ref().uuid else {
            return Ok(uuid("MIG-", &format!("{} {gi} {ci}", self.seed), self.gpu));
        };
        let error = || {
            format!(
                "mig: uuid belongs to one MIG device, but the instance has {count}: write exactly one \
                 compute instance"
            )
        };
        ensure(count == 1, table, error)?;
        let remedy = "write MIG- and a UUID in lower-case hexadecimal";
        ensure(is_uuid("MIG-", given), table, || {
            format!("mig: uuid = \"{given}\" is not a MIG UUID: {remedy}")
        })?;
        Ok(given.clone())
    }
}

fn profile(model: &Model, value: &Spanned<String>) -> ValidationResult<&'static Profile> {
    let name = value.get_ref();
    let names = || model.mig().iter().map(|profile| profile.name);
    model.mig().iter().find(|profile| profile.name == name).ok_or_else(|| {
        let hint = suggestion(name, names());
        let hint = if hint.is_empty() { ":" } else { hint.as_str() };
        let all = names().collect::<Vec<_>>().join(", ");
        let span: Range<usize> = value.span();
        SpannedError::new(
            span,
            format!("mig: unknown profile \"{name}\"{hint} the profiles are {all}"),
        )
    })
}

/// Number of compute slices of a compute profile: 1 for `1c.3g.40gb` in a `3g.40gb`.
fn compute_slices(name: &str, profile: &Profile) -> Option<u32> {
    let (slices, of) = name.split_once("c.")?;
    let slices = slices.parse().ok()?;
    (of == profile.name && compute_id(slices).is_some() && slices <= profile.slices)
        .then_some(slices)
}
