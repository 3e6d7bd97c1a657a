//! Validation of how GPUs are partitioned.

mod cut;

use std::collections::HashSet;

use toml::Spanned;

use self::cut::Cut;
use super::ordered;
use crate::{
    models::Model,
    scenario::{
        Gpu, Window,
        complaint::{Checked, Flaw, ensure},
        file::{GpuTable, LayoutTable},
        mig::Layout,
    },
};

/// The layouts of a GPU's table, in order of time.
pub(super) fn check(
    seed: &str,
    gpu: usize,
    said: &GpuTable,
    model: &Model,
) -> Checked<Vec<Layout>> {
    let mut layouts: Vec<Layout> = vec![];
    for table in &said.mig {
        let mend = || format!("mig: a {} cannot be partitioned: leave it out", model.key);
        ensure(!model.mig().is_empty(), table, mend)?;
        let during = window(table)?;
        if let Some(last) = layouts.last() {
            let mend = "one layout begins before the last ends: put them in order of time";
            ensure(last.during.to <= during.from, table, || format!("mig: {mend}"))?;
        }
        let mut layout = Layout { during, instances: vec![] };
        for instance in &table.get_ref().instances {
            let alone = said.count.is_none() || instance.get_ref().uuid.is_none();
            let mend = "mig: uuid is one MIG device's own: leave out count of the GPUs";
            ensure(alone, instance, || mend.into())?;
            // Each generation of instances has an identity of its own.
            let seed = format!("{seed} MIG {}", layouts.len());
            for _ in 0..instance.get_ref().count.unwrap_or(1) {
                let next = Cut { seed: &seed, gpu, model, layout: &layout }.instance(instance)?;
                layout.instances.push(next);
            }
        }
        lives_on(&layouts, &layout, table)?;
        layouts.push(layout);
    }
    Ok(layouts)
}

/// Refuses MIG devices of two GPUs that have the same UUID.
pub(super) fn distinct(gpus: &[Gpu], tables: &[Spanned<GpuTable>]) -> Checked<()> {
    let mut all = HashSet::new();
    for gpu in gpus {
        let devices = gpu.mig.iter().flat_map(Layout::devices);
        let own: HashSet<_> = devices.map(|(_, ci)| ci.uuid.as_str()).collect();
        if let Some(uuid) = own.iter().find(|uuid| all.contains(*uuid)) {
            let instances = || {
                tables
                    .iter()
                    .flat_map(|table| &table.get_ref().mig)
                    .flat_map(|one| &one.get_ref().instances)
            };
            let at = instances().rfind(|one| one.get_ref().uuid.as_deref() == Some(uuid));
            let text = format!("another GPU has a MIG device {uuid}: give each its own");
            return Err(Flaw::new(at.map(Spanned::span).unwrap_or_default(), text));
        }
        all.extend(own);
    }
    Ok(())
}

fn window(table: &Spanned<LayoutTable>) -> Checked<Window> {
    let said = table.get_ref();
    let window = ordered(said.from.unwrap_or(0.0), said.to)
        .map_err(|mend| Flaw::new(table.span(), format!("mig: {mend}")))?;
    // What is there from the start was there before.
    Ok(if said.from.is_none() { Window { from: f64::NEG_INFINITY, ..window } } else { window })
}

/// A UUID that comes again must be that of the same device, which lives on.
fn lives_on(before: &[Layout], layout: &Layout, table: &Spanned<LayoutTable>) -> Checked<()> {
    for (at, (gi, ci)) in layout.devices().enumerate() {
        let twice = layout.devices().take(at).any(|(_, other)| other.uuid == ci.uuid);
        let again =
            before.iter().rposition(|old| old.devices().any(|(_, old)| old.uuid == ci.uuid));
        let same = |old: &Layout| {
            old.during.to.total_cmp(&layout.during.from).is_eq()
                && old.devices().any(|(old_gi, old_ci)| {
                    old_ci.uuid == ci.uuid
                        && (old_ci.id, old_ci.slices, old_ci.start) == (ci.id, ci.slices, ci.start)
                        && (old_gi.id, old_gi.start) == (gi.id, gi.start)
                        && old_gi.profile == gi.profile
                })
        };
        let fine = again
            .is_none_or(|again| again + 1 == before.len() && before.get(again).is_some_and(same));
        let mend = "a MIG device lives on only in the layout that follows at once, with the same \
                    profile, start and gi: give it another uuid";
        ensure(fine && !twice, table, || format!("mig: {} comes again: {mend}", ci.uuid))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GPU, complaint};
    use crate::scenario::Scenario;

    const A100: &str = "[[gpu]]\nmodel = \"A100\"\n";

    fn mig(instances: &str) -> String {
        format!("{A100}mig = [{{ instances = [{instances}] }}]\n")
    }

    #[test]
    fn a_mistake_in_a_layout_names_its_line_and_its_mend() {
        for (text, said) in [
            (format!("{GPU}mig = [{{}}]\n"), "3: mig: a T4 cannot be partitioned: leave it out"),
            (
                mig("{ profile = \"3g.40g\" }"),
                "3: mig: no profile \"3g.40g\", did you mean \"3g.40gb\"? a A100 has 1g.10gb, \
                 1g.10gb+me, 1g.20gb, 2g.20gb, 3g.40gb, 4g.40gb, 7g.80gb",
            ),
            (
                mig("{ profile = \"3g.40gb\", count = 3 }"),
                "3: mig: a A100 has at most 2 × 3g.40gb: leave some out",
            ),
            (
                mig("{ profile = \"4g.40gb\" }, { profile = \"2g.20gb\", start = 2 }"),
                "3: mig: the 2g.20gb at 2 overlaps another: give another start",
            ),
            (
                mig("{ profile = \"4g.40gb\" }, { profile = \"2g.20gb\", count = 2 }"),
                "3: mig: more than 7 compute slices: leave some out",
            ),
            (
                mig("{ profile = \"3g.40gb\", start = 1 }"),
                "3: mig: a 3g.40gb cannot begin at 1: give one of 0, 4",
            ),
            (
                mig("{ profile = \"1g.10gb\", gi = 5 }, { profile = \"1g.10gb\", gi = 5 }"),
                "3: mig: gi = 5 is taken: give each its own",
            ),
            (
                mig("{ profile = \"1g.10gb\", slot = 7 }"),
                "3: mig: slot 7 is taken or no slot: give 0 to 6",
            ),
            (
                mig("{ profile = \"2g.20gb\", compute = [\"2c.3g.40gb\"] }"),
                "3: mig: no compute profile \"2c.3g.40gb\": write it like \"1c.2g.20gb\"",
            ),
            (
                format!("{A100}mig = [{{ from = 5 }}, {{ from = 7 }}]\n"),
                "3: mig: one layout begins before the last ends: put them in order of time",
            ),
        ] {
            assert_eq!(complaint(&text), said, "for\n{text}");
        }
    }

    #[test]
    fn instances_of_another_layout_are_others_unless_they_say_that_they_live_on() {
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
            (gi.id, gi.life, ci.life, ci.slot, ci.uuid.clone())
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
            complaint(&gap).starts_with(&format!("3: mig: {uuid} comes again: ")),
            "{}",
            complaint(&gap)
        );
    }
}
