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
        validate::{mig::instance_builder::InstanceBuilder, windows::time_window},
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
        ensure_continuity(&layouts, &layout, table)?;
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

/// Rejects a UUID that is used again, unless it is that of the same device in the next layout.
fn ensure_continuity(
    before: &[MigLayout],
    layout: &MigLayout,
    table: &Spanned<LayoutTable>,
) -> ValidationResult<()> {
    for (at, (gi, ci)) in layout.devices().enumerate() {
        let twice = layout.devices().take(at).any(|(_, other)| other.uuid == ci.uuid);
        let previous =
            before.iter().rposition(|old| old.devices().any(|(_, old)| old.uuid == ci.uuid));
        let same = |old: &MigLayout| {
            old.during.to.total_cmp(&layout.during.from).is_eq()
                && old.devices().any(|(old_gi, old_ci)| {
                    old_ci.uuid == ci.uuid
                        && (old_ci.id, old_ci.slices, old_ci.start) == (ci.id, ci.slices, ci.start)
                        && (old_gi.id, old_gi.start) == (gi.id, gi.start)
                        && old_gi.profile == gi.profile
                })
        };
        let continues = previous
            .is_none_or(|index| index + 1 == before.len() && before.get(index).is_some_and(same));
        let reason = "is used again, but a MIG device continues only in the next layout, without a \
                      gap and with the same profile, start and gi: write another uuid";
        ensure(continues && !twice, table, || format!("mig: the UUID {} {reason}", ci.uuid))?;
    }
    Ok(())
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
        let gap = text.replace("{ from = 10, to = 20,", "{ from = 12, to = 20,");
        assert!(
            error_of(&gap).starts_with(&format!("3: mig: the UUID {uuid} is used again, ")),
            "{}",
            error_of(&gap)
        );
    }
}
