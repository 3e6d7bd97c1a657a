//! Where on partitioned GPUs processes run.

use super::super::{
    Gpu, Process,
    complaint::{Checked, Flaw, ensure},
    file::ProcessTable,
    mig::{Layout, Place},
};

/// The place that the table says.
pub(super) fn said(said: &ProcessTable) -> Checked<Option<Place>> {
    let (gi, ci) = match (&said.gi, &said.ci) {
        (None, None) => return Ok(None),
        (None, Some(ci)) => return Err(Flaw::new(ci.span(), "ci says nothing without gi: add gi")),
        (Some(gi), ci) => (*gi.get_ref(), ci.as_ref().map_or(0, |ci| *ci.get_ref())),
    };
    Ok(Some(Place { gpu_instance: gi, compute_instance: ci }))
}

/// The place of the process that comes to a GPU as number `turn`: the next of its MIG devices.
pub(super) fn spread(process: &Process, gpu: &Gpu, turn: usize) -> Option<Place> {
    let devices: Vec<_> = gpu.layout(process.life.from.max(0.0))?.devices().collect();
    let (gi, ci) = devices.get(turn.checked_rem(devices.len())?)?;
    Some(Place { gpu_instance: gi.id, compute_instance: ci.id })
}

/// Refuses a process that is not in one and the same instance for all of its life.
pub(super) fn check(process: &Process, said: &ProcessTable, gpus: &[Gpu]) -> Checked<()> {
    let at = || said.gi.as_ref().map_or_else(|| said.gpus.span(), toml::Spanned::span);
    for gpu in process.gpus.iter().filter_map(|index| gpus.get(*index)) {
        let meant: Vec<_> =
            gpu.mig.iter().filter(|layout| layout.during.overlaps(process.life)).collect();
        let (pid, index) = (process.pid, gpu.index);
        let Some(place) = process.place else {
            if meant.is_empty() {
                continue;
            }
            let mend = "say in which gi it runs, or end it before";
            let text = format!("GPU {index} is partitioned while process {pid} lives: {mend}");
            return Err(Flaw::new(at(), text));
        };
        let Place { gpu_instance: gi, compute_instance: ci } = place;
        let there = lasts(process, place, &meant);
        let mend = "let it begin and end with the instance, or give another";
        let text = || {
            format!(
                "GPU {index} has no gi {gi} with ci {ci} for all the life of process {pid}: {mend}"
            )
        };
        ensure(there, &said.gpus, text).map_err(|_| Flaw::new(at(), text()))?;
    }
    Ok(())
}

fn lasts(process: &Process, place: Place, meant: &[&Layout]) -> bool {
    let life = |layout: &Layout| {
        let instance = layout.instance(place.gpu_instance)?;
        let compute = instance.compute.iter().find(|ci| ci.id == place.compute_instance)?;
        Some((instance.life, compute.life))
    };
    let (Some(first), Some(last)) = (meant.first(), meant.last()) else { return false };
    let joined = meant.iter().zip(meant.iter().skip(1)).all(|(a, b)| a.during.to >= b.during.from);
    let same = life(first).is_some() && meant.iter().all(|layout| life(layout) == life(first));
    let covered =
        first.during.from <= process.life.from.max(0.0) && process.life.to <= last.during.to;
    joined && same && covered
}

#[cfg(test)]
mod tests {
    use super::super::tests::complaint;
    use crate::scenario::{Scenario, mig::Place};

    const A100: &str = "[[gpu]]\nmodel = \"A100\"\nmig = [\
        { to = 10, instances = [{ profile = \"1g.10gb\", count = 2 }] },\
        { from = 10, instances = [{ profile = \"1g.10gb\", count = 3 }] }]\n";

    fn process(rest: &str) -> String {
        format!(
            "{A100}[[process]]\npid = 7\nname = \"p\"\ngpus = [0]\nmemory = \"1 GiB\"\n{rest}\n"
        )
    }

    #[test]
    fn a_process_lives_and_dies_with_its_instance() {
        let gone = "9: GPU 0 has no gi 1 with ci 0 for all the life of process 7: let it begin and \
                    end with the instance, or give another";
        for (rest, said) in [
            (
                "",
                "7: GPU 0 is partitioned while process 7 lives: say in which gi it runs, or end it before",
            ),
            ("gi = 1", gone),
            ("gi = 1\nstart = 5\nend = 11", gone),
            ("gi = 3\nend = 10", &gone.replace("gi 1", "gi 3")),
            ("gi = 1\nci = 1\nend = 10", &gone.replace("ci 0", "ci 1")),
            ("ci = 1", "9: ci says nothing without gi: add gi"),
            (
                "gi = 1\nend = 10\nmemory_ = 1",
                "11: unknown key \"memory_\", did you mean \"memory\"? known here: pid, name, \
                 command, cgroup, type, gpus, gi, ci, memory, sm, mem, enc, dec, jpg, ofa, nvlink, \
                 pcie_tx, pcie_rx, pipes, start, end, zombie, proc, count, pod, container",
            ),
        ] {
            assert_eq!(complaint(&process(rest)), said, "for {rest}");
        }
        for fine in ["gi = 1\nend = 10", "gi = 3\nstart = 10", "gi = 2\nstart = 3\nend = 4"] {
            assert!(Scenario::parse("test", &process(fine)).is_ok(), "{fine}");
        }
        let much = complaint(&process("gi = 3\nstart = 10").replace("1 GiB", "10 GiB"));
        assert!(
            much.starts_with("8: GPU 0, GPU instance 3 would hold 10240 MiB at 10 s"),
            "{much}"
        );
    }

    #[test]
    fn clones_that_are_spread_go_round_the_instances() {
        let text = process("count = 6\nstart = 10").replace("[0]", "\"spread\"")
            + "[[gpu]]\nmodel = \"A100\"\n";
        let scenario = Scenario::parse("test", &text).unwrap();
        let where_to: Vec<_> = scenario
            .processes
            .iter()
            .map(|one| (one.gpus[0], one.place.map(|Place { gpu_instance, .. }| gpu_instance)))
            .collect();
        let expected = [(0, Some(1)), (1, None), (0, Some(2)), (1, None), (0, Some(3)), (1, None)];
        assert_eq!(where_to, expected);
    }
}
