//! Validation of MIG layouts.

mod instance_builder;

use std::collections::HashSet;

use toml::Spanned;

use crate::{
    models::Model,
    scenario::{Gpu, mig::MigLayout},
    scenario_file::{
        error::{SpannedError, ValidationResult, ensure},
        tables::{GpuTable, LayoutTable},
        validate::{identity::hash, mig::instance_builder::InstanceBuilder, windows::time_window},
    },
    window::Window,
};

/// The MIG layouts in the table of a GPU, sorted by time.
pub(super) fn check(
    seed: &str,
    gpu: usize,
    gpu_table: &GpuTable,
    model: &Model,
) -> ValidationResult<Vec<MigLayout>> {
    let mut layouts: Vec<MigLayout> = vec![];
    for table in &gpu_table.mig {
        let error = || format!("mig: the model {} does not support MIG: remove the key", model.key);
        ensure(!model.mig().is_empty(), table, error)?;
        let during = window(table)?;
        if let Some(last) = layouts.last() {
            let error = "mig: this layout begins before the previous one ends: write layouts in \
                         ascending order of time without overlap";
            ensure(last.during.to <= during.from, table, || error.into())?;
        }
        let mut layout = MigLayout { during, instances: vec![] };
        for instance in &table.get_ref().instances {
            let unique = gpu_table.count.is_none() || instance.get_ref().uuid.is_none();
            let error = "mig: uuid must be unique, but count makes several GPUs: remove the count of \
                         the GPUs";
            ensure(unique, instance, || error.into())?;
            // Instances of different layouts have different identities.
            let seed = format!("{seed} MIG {}", layouts.len());
            for _ in 0..instance.get_ref().count.unwrap_or(1) {
                let next =
                    InstanceBuilder { seed: &seed, gpu, model, layout: &layout }.build(instance)?;
                layout.instances.push(next);
            }
        }
        ensure_distinct(&layout, table)?;
        renew_reused(&layouts, &mut layout);
        layouts.push(layout);
    }
    Ok(layouts)
}

/// Rejects MIG devices of two GPUs with the same UUID.
pub(super) fn distinct(gpus: &[Gpu], tables: &[Spanned<GpuTable>]) -> ValidationResult<()> {
    let mut all = HashSet::new();
    for gpu in gpus {
        let devices = gpu.mig.iter().flat_map(MigLayout::devices);
        let own: HashSet<_> = devices.map(|(_, ci)| ci.uuid.as_str()).collect();
        if let Some(uuid) = own.iter().find(|uuid| all.contains(*uuid)) {
            let instances = || {
                tables
                    .iter()
                    .flat_map(|table| &table.get_ref().mig)
                    .flat_map(|one| &one.get_ref().instances)
            };
            let table = instances().rfind(|one| one.get_ref().uuid.as_deref() == Some(uuid));
            let text = format!("the MIG device {uuid} belongs to another GPU: write a unique uuid");
            return Err(SpannedError::new(table.map(Spanned::span).unwrap_or_default(), text));
        }
        all.extend(own);
    }
    Ok(())
}

fn window(table: &Spanned<LayoutTable>) -> ValidationResult<Window> {
    let spec = table.get_ref();
    let window = time_window(spec.from.unwrap_or(0.0), spec.to)
        .map_err(|error| SpannedError::new(table.span(), format!("mig: {error}")))?;
    // A layout without a start also existed before world time 0.
    Ok(if spec.from.is_none() { Window { from: f64::NEG_INFINITY, ..window } } else { window })
}

/// Rejects a UUID that two MIG devices of a layout have.
fn ensure_distinct(layout: &MigLayout, table: &Spanned<LayoutTable>) -> ValidationResult<()> {
    for (at, (_, ci)) in layout.devices().enumerate() {
        let twice = layout.devices().take(at).any(|(_, other)| other.uuid == ci.uuid);
        ensure(!twice, table, || {
            format!("mig: the UUID {} belongs to another MIG device: write a unique uuid", ci.uuid)
        })?;
    }
    Ok(())
}

/// A MIG device with the UUID of an earlier one is that device only if the next layout has it again without
/// a gap, at the same place and with the same profile; else it is another device.
fn renew_reused(before: &[MigLayout], layout: &mut MigLayout) {
    let directly_before =
        before.last().filter(|last| last.during.to.total_cmp(&layout.during.from).is_eq());
    for gi in &mut layout.instances {
        let (id, start, profile) = (gi.id, gi.start, gi.profile);
        let [ci] = &mut gi.compute[..] else { continue };
        let uuid = ci.uuid.clone();
        if !before.iter().flat_map(MigLayout::devices).any(|(_, old)| old.uuid == uuid) {
            continue;
        }
        let mut old_devices = directly_before.into_iter().flat_map(MigLayout::devices);
        let same = old_devices.find(|(old_gi, old_ci)| {
            old_ci.uuid == uuid
                && (old_ci.id, old_ci.slices, old_ci.start) == (ci.id, ci.slices, ci.start)
                && (old_gi.id, old_gi.start) == (id, start)
                && old_gi.profile == profile
        });
        (gi.generation, ci.generation) = match same {
            Some((instance, device)) => (instance.generation, device.generation),
            None => (hash(&uuid, before.len(), 4), hash(&uuid, before.len(), 5)),
        };
    }
}

#[cfg(test)]
mod tests {
    use crate::scenario::Scenario;
    use crate::scenario_file::validate::test_scenario::{GPU, error_of};

    const A100: &str = "[[gpu]]\nmodel = \"A100\"\n";

    fn mig(instances: &str) -> String {
        format!("{A100}mig = [{{ instances = [{instances}] }}]\n")
    }

    #[test]
    fn errors_in_layouts_have_line_reason_and_remedy() {
        for (text, expected) in [
            (
                format!("{GPU}mig = [{{}}]\n"),
                "3: mig: the model T4 does not support MIG: remove the key",
            ),
            (
                mig("{ profile = \"3g.40g\" }"),
                "3: mig: unknown profile \"3g.40g\", did you mean \"3g.40gb\"? the profiles are 1g.10gb, \
                 1g.10gb+me, 1g.20gb, 2g.20gb, 3g.40gb, 4g.40gb, 7g.80gb",
            ),
            (
                mig("{ profile = \"3g.40gb\", count = 3 }"),
                "3: mig: the model A100 allows at most 2 × 3g.40gb: remove some",
            ),
            (
                mig("{ profile = \"4g.40gb\" }, { profile = \"2g.20gb\", start = 2 }"),
                "3: mig: the 2g.20gb at 2 overlaps another instance: write another start",
            ),
            (
                mig("{ profile = \"4g.40gb\" }, { profile = \"2g.20gb\", count = 2 }"),
                "3: mig: the layout has more than 7 compute slices: remove instances",
            ),
            (
                mig("{ profile = \"3g.40gb\", start = 1 }"),
                "3: mig: a 3g.40gb cannot start at 1: write one of 0, 4",
            ),
            (
                mig("{ profile = \"1g.10gb\", gi = 5 }, { profile = \"1g.10gb\", gi = 5 }"),
                "3: mig: gi = 5 belongs to another instance: write a unique one",
            ),
            (
                mig("{ profile = \"1g.10gb\", slot = 7 }"),
                "3: mig: slot 7 is in use or out of range: write a free one from 0 to 6",
            ),
            (
                mig("{ profile = \"2g.20gb\", compute = [\"2c.3g.40gb\"] }"),
                "3: mig: unknown compute profile \"2c.3g.40gb\": write it like \"1c.2g.20gb\"",
            ),
            (
                format!("{A100}mig = [{{ from = 5 }}, {{ from = 7 }}]\n"),
                "3: mig: this layout begins before the previous one ends: write layouts in ascending \
                 order of time without overlap",
            ),
        ] {
            assert_eq!(error_of(&text), expected, "for\n{text}");
        }
    }

    #[test]
    fn mig_device_continues_in_the_next_layout_only_if_its_uuid_is_repeated() {
        let uuid = "MIG-00000000-0000-4000-8000-000000000001";
        let one = "{ profile = \"1g.10gb\" }";
        let kept =
            format!("{{ profile = \"2g.20gb\", start = 4, gi = 9, slot = 5, uuid = \"{uuid}\" }}");
        let text = format!(
            "{A100}mig = [{{ to = 10, instances = [{one}, {kept}] }}, \
             {{ from = 10, to = 20, instances = [{one}, {kept}] }}, {{ from = 30, instances = [{one}] }}]\n"
        );
        let gpu = Scenario::parse("test", &text).unwrap().gpus.remove(0);
        let device = |time, at| {
            let layout = gpu.layout(time).unwrap();
            let (gi, ci) = layout.devices().nth(at).unwrap();
            (gi.id, gi.generation, ci.generation, ci.slot, ci.uuid.clone())
        };
        assert_eq!(device(0.0, 1), device(10.0, 1));
        assert_eq!((device(0.0, 1).0, device(0.0, 1).3, device(0.0, 1).4.as_str()), (9, 5, uuid));
        let ones = [0.0, 10.0, 30.0].map(|time| device(time, 0));
        assert!(ones.iter().all(|one| (one.0, one.3) == (1, 0)));
        assert!(ones[0].4 != ones[1].4 && ones[1].4 != ones[2].4 && ones[0].4 != ones[2].4);
        assert!(ones[0].1 != ones[1].1 && ones[0].2 != ones[1].2);
        assert!(gpu.layout(25.0).is_none());
        let again = |old: &str, new: &str| {
            let gpu = Scenario::parse("test", &text.replace(old, new)).unwrap().gpus.remove(0);
            [0.0, 12.0].map(|time| {
                let (gi, ci) = gpu.layout(time).unwrap().devices().nth(1).unwrap();
                (ci.uuid.clone(), gi.generation, ci.generation)
            })
        };
        let (second, third) = ("{ from = 10, to = 20,", "{ from = 12, to = 20,");
        let other = text.rsplit_once(second).unwrap().1.replacen("2g.20gb", "3g.40gb", 1);
        for [old, new] in [again(second, third), again(text.rsplit_once(second).unwrap().1, &other)]
        {
            assert!(
                old.0 == new.0 && old.1 != new.1 && old.2 != new.2,
                "another device: {old:?} {new:?}"
            );
        }
        let twice =
            mig(&format!("{kept}, {}", kept.replace("start = 4, gi = 9, slot = 5", "start = 0")));
        assert_eq!(
            error_of(&twice),
            format!("3: mig: the UUID {uuid} belongs to another MIG device: write a unique uuid")
        );
    }
}
