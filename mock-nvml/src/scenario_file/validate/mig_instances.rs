//! Validation of the MIG instances in which processes run.

use crate::{
    scenario::{
        Gpu, Process,
        mig::{InstanceIds, MigLayout},
    },
    scenario_file::{
        error::{SpannedError, ValidationResult, ensure},
        tables::ProcessTable,
    },
};

/// The instance in the keys `gi` and `ci` of a process.
pub(super) fn parse(table: &ProcessTable) -> ValidationResult<Option<InstanceIds>> {
    let (gi, ci) = match (&table.gi, &table.ci) {
        (None, None) => return Ok(None),
        (None, Some(ci)) => {
            return Err(SpannedError::new(ci.span(), "ci requires gi, which is missing: add gi"));
        }
        (Some(gi), ci) => (*gi.get_ref(), ci.as_ref().map_or(0, |ci| *ci.get_ref())),
    };
    Ok(Some(InstanceIds { gpu_instance: gi, compute_instance: ci }))
}

/// The instance of the process number `turn` on a GPU: its MIG devices are used in turn.
pub(super) fn spread(process: &Process, gpu: &Gpu, turn: usize) -> Option<InstanceIds> {
    let devices: Vec<_> = gpu.layout(process.lifetime.from.max(0.0))?.devices().collect();
    let (gi, ci) = devices.get(turn.checked_rem(devices.len())?)?;
    Some(InstanceIds { gpu_instance: gi.id, compute_instance: ci.id })
}

/// Rejects a process that is not in the same instance for its whole lifetime.
pub(super) fn check(process: &Process, table: &ProcessTable, gpus: &[Gpu]) -> ValidationResult<()> {
    let span = || table.gi.as_ref().map_or_else(|| table.gpus.span(), toml::Spanned::span);
    for gpu in process.gpus.iter().filter_map(|index| gpus.get(*index)) {
        let layouts: Vec<_> =
            gpu.mig.iter().filter(|layout| layout.during.overlaps(process.lifetime)).collect();
        let (pid, index) = (process.pid, gpu.index);
        let Some(place) = process.instance else {
            if layouts.is_empty() {
                continue;
            }
            let text = format!(
                "GPU {index} is partitioned during the lifetime of process {pid}: write its gi or end it \
                 earlier"
            );
            return Err(SpannedError::new(span(), text));
        };
        let InstanceIds { gpu_instance: gi, compute_instance: ci } = place;
        let valid = covers_lifetime(process, place, &layouts);
        let text = || {
            format!(
                "GPU {index} has no gi {gi} with ci {ci} for the whole lifetime of process {pid}: write \
                 another instance, or a start and end within the lifetime of this one"
            )
        };
        ensure(valid, &table.gpus, text).map_err(|_| SpannedError::new(span(), text()))?;
    }
    Ok(())
}

fn covers_lifetime(process: &Process, place: InstanceIds, layouts: &[&MigLayout]) -> bool {
    let generations = |layout: &MigLayout| {
        let instance = layout.instance(place.gpu_instance)?;
        let compute = instance.compute.iter().find(|ci| ci.id == place.compute_instance)?;
        Some((instance.generation, compute.generation))
    };
    let (Some(first), Some(last)) = (layouts.first(), layouts.last()) else { return false };
    let contiguous =
        layouts.iter().zip(layouts.iter().skip(1)).all(|(a, b)| a.during.to >= b.during.from);
    let same = generations(first).is_some()
        && layouts.iter().all(|layout| generations(layout) == generations(first));
    let covered = first.during.from <= process.lifetime.from.max(0.0)
        && process.lifetime.to <= last.during.to;
    contiguous && same && covered
}

#[cfg(test)]
mod tests {
    use crate::scenario::{Scenario, mig::InstanceIds};
    use crate::scenario_file::validate::test_scenario::error_of;

    const A100: &str = "[[gpu]]\nmodel = \"A100\"\nmig = [\
        { to = 10, instances = [{ profile = \"1g.10gb\", count = 2 }] },\
        { from = 10, instances = [{ profile = \"1g.10gb\", count = 3 }] }]\n";

    fn process(rest: &str) -> String {
        format!(
            "{A100}[[process]]\npid = 7\nname = \"p\"\ngpus = [0]\nmemory = \"1 GiB\"\n{rest}\n"
        )
    }

    #[test]
    fn process_lifetime_must_be_within_the_lifetime_of_its_instance() {
        let gone = "9: GPU 0 has no gi 1 with ci 0 for the whole lifetime of process 7: write another \
                    instance, or a start and end within the lifetime of this one";
        for (rest, expected) in [
            (
                "",
                "7: GPU 0 is partitioned during the lifetime of process 7: write its gi or end it \
                 earlier",
            ),
            ("gi = 1", gone),
            ("gi = 1\nstart = 5\nend = 11", gone),
            ("gi = 3\nend = 10", &gone.replace("gi 1", "gi 3")),
            ("gi = 1\nci = 1\nend = 10", &gone.replace("ci 0", "ci 1")),
            ("ci = 1", "9: ci requires gi, which is missing: add gi"),
            (
                "gi = 1\nend = 10\nmemory_ = 1",
                "11: unknown key \"memory_\", did you mean \"memory\"? the keys here are pid, name, \
                 command, cgroup, type, gpus, gi, ci, memory, sm, mem, enc, dec, jpg, ofa, nvlink, \
                 pcie_tx, pcie_rx, pipes, start, end, zombie, proc, count, pod, container",
            ),
        ] {
            assert_eq!(error_of(&process(rest)), expected, "for {rest}");
        }
        for valid in ["gi = 1\nend = 10", "gi = 3\nstart = 10", "gi = 2\nstart = 3\nend = 4"] {
            assert!(Scenario::parse("test", &process(valid)).is_ok(), "{valid}");
        }
        let error = error_of(&process("gi = 3\nstart = 10").replace("1 GiB", "10 GiB"));
        assert!(
            error.starts_with(
                "8: the processes on GPU 0, GPU instance 3 (1g.10gb) use 10240 MiB at 10 s"
            ),
            "{error}"
        );
    }

    #[test]
    fn spread_processes_use_the_mig_devices_in_turn() {
        let text = process("count = 6\nstart = 10").replace("[0]", "\"spread\"")
            + "[[gpu]]\nmodel = \"A100\"\n";
        let scenario = Scenario::parse("test", &text).unwrap();
        let instances: Vec<_> = scenario
            .processes
            .iter()
            .map(|one| {
                (one.gpus[0], one.instance.map(|InstanceIds { gpu_instance, .. }| gpu_instance))
            })
            .collect();
        let expected = [(0, Some(1)), (1, None), (0, Some(2)), (1, None), (0, Some(3)), (1, None)];
        assert_eq!(instances, expected);
    }
}
