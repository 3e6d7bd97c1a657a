//! A board's memory, its processes and what they have done.

use super::Board;
use crate::{
    code::{Answer, Code},
    models::{MIB, mig::MEMORY_SLICES},
    ring::{Ring, Row, stamp_of_age},
    scenario::{
        Kind, Process,
        mig::{GpuInstance, Place},
    },
    world::load::{self, Load},
};

/// Framebuffer or BAR1 in bytes; the parts sum to the total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// All of it.
    pub(crate) total: u64,
    /// What the driver keeps to itself.
    pub(crate) reserved: u64,
    /// What is used, the reserved not counted.
    pub(crate) used: u64,
    /// The rest.
    pub(crate) free: u64,
}

/// One of NVML's process lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    /// Compute processes.
    Compute,
    /// Graphics processes.
    Graphics,
    /// Clients of the MPS server.
    Mps,
}

/// A process in such a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessRow {
    /// Process id.
    pub(crate) pid: u32,
    /// Framebuffer in bytes, all ones if the driver does not tell.
    pub(crate) memory: u64,
    /// Where on a partitioned GPU it runs.
    pub(crate) place: Option<Place>,
}

impl Board {
    /// Framebuffer.
    pub(crate) fn memory(&self) -> Memory {
        let held: u64 = self.alive().filter_map(|process| process.memory).sum();
        if let Some(instance) = self.seat().gpu_instance() {
            return split(instance.profile.mib * MIB, 0, GpuInstance::base() + held);
        }
        let model = self.model();
        let instances: u64 =
            self.layout().iter().flat_map(|one| &one.instances).map(|_| GpuInstance::base()).sum();
        let base = model.base_mib * MIB + instances;
        split(model.total_mib * MIB, model.reserved_mib * MIB, base + held)
    }

    /// BAR1: a little, and 2 MiB for each process.
    pub(crate) fn bar1(&self) -> Memory {
        let processes: u64 = self.alive().map(|_| 2 * MIB).sum();
        let slices =
            self.seat().gpu_instance().map_or(MEMORY_SLICES, |one| one.profile.memory_slices);
        let total = self.model().bar1_mib * MIB * u64::from(slices) / u64::from(MEMORY_SLICES);
        split(total, 0, MIB + processes)
    }

    /// The processes of a list.
    pub(crate) fn processes(&self, list: List) -> Vec<ProcessRow> {
        let own = |process: &&Process| {
            let here = self.seat().place();
            here.is_none_or(|here| process.place == Some(here))
        };
        self.alive()
            .filter(own)
            .filter(|process| match process.kind {
                Kind::Compute => list == List::Compute,
                Kind::Graphics => list == List::Graphics,
                Kind::Both => matches!(list, List::Compute | List::Graphics),
                Kind::Mps => list == List::Mps,
            })
            .map(|process| ProcessRow {
                pid: process.pid,
                memory: process.memory.unwrap_or(u64::MAX),
                place: process.place,
            })
            .collect()
    }

    /// The rows of the utilization ring since `last_seen` (wall µs), with the nonsense in force.
    pub(crate) fn ring(&self, last_seen: u64) -> Answer<Vec<Row>> {
        let ring = Ring { period: self.model().sample_period, since: self.up_since };
        let loads = |time, tell: &mut dyn FnMut(u32, Load)| {
            load::shares(&self.scenario, &self.gpu, time, tell);
        };
        let mut nonsense = self.nonsense().peekable();
        let mut rows = match ring.rows(self.now, last_seen, loads) {
            Err(Code::NOT_FOUND) if nonsense.peek().is_some() => vec![],
            answer => answer?,
        };
        rows.extend(nonsense);
        Ok(rows)
    }

    fn nonsense(&self) -> impl Iterator<Item = Row> {
        let now = self.now;
        let in_force = self
            .scenario
            .garbage
            .iter()
            .filter(move |one| one.gpu == self.gpu.index && one.during.contains(now.world));
        in_force.flat_map(|garbage| &garbage.rows).map(move |row| Row {
            pid: row.pid,
            stamp: stamp_of_age(now, row.age),
            sm: row.sm,
            mem: row.mem,
            enc: row.enc,
            dec: row.dec,
            jpg: 0,
            ofa: 0,
        })
    }

    fn alive(&self) -> impl Iterator<Item = &Process> {
        let processes = self.scenario.processes_of(&self.gpu);
        let instance = self.seat().gpu_instance();
        processes
            .filter(|process| process.life.contains(self.now.world))
            .filter(move |process| instance.is_none_or(|instance| instance.holds(process)))
    }
}

fn split(total: u64, reserved: u64, used: u64) -> Memory {
    let used = used.min(total - reserved);
    Memory { total, reserved, used, free: total - reserved - used }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::tests::{WALL, board, process},
        *,
    };

    #[test]
    fn a_process_of_both_kinds_is_in_both_lists_and_counted_once() {
        let text = "[[gpu]]\nmodel = \"RTX 4090\"\n".to_owned()
            + &process(1, "memory = \"100 MiB\"\ntype = \"C+G\"")
            + &process(2, "memory = \"10 MiB\"\ntype = \"G\"")
            + &process(3, "memory = \"unavailable\"\ntype = \"M\"")
            + &process(4, "memory = \"1 MiB\"\nend = 5");
        let board = board(&text, 5.0);
        let pids = |list| board.processes(list).iter().map(|row| row.pid).collect::<Vec<_>>();
        assert_eq!((pids(List::Compute), pids(List::Graphics)), (vec![1], vec![1, 2]));
        assert_eq!(
            board.processes(List::Mps),
            [ProcessRow { pid: 3, memory: u64::MAX, place: None }]
        );
        assert_eq!(board.memory().used, (2 + 110) * MIB);
        assert_eq!(board.bar1().used, (1 + 3 * 2) * MIB);
    }

    #[test]
    fn nonsense_makes_the_call_succeed() {
        let text = "[[gpu]]\nmodel = \"T4\"\n[[garbage]]\ngpu = 0\nto = 9\nrows = [{ sm = 2147483632, age = 1 }]";
        let rows = board(text, 5.0).ring(WALL).unwrap();
        let row = rows.first().unwrap();
        assert_eq!(
            (rows.len(), row.pid, row.sm, row.stamp),
            (1, 0, 2_147_483_632, WALL - 1_000_000)
        );
        assert_eq!(board(text, 9.0).ring(0), Err(Code::NOT_FOUND));
    }

    proptest! {
        #[test]
        fn memory_and_utilization_add_up(sizes in proptest::collection::vec((0..1_000_u32, 0..=100_u32), 0..14)) {
            let text: String = (1..).zip(&sizes)
                .map(|(pid, (mib, sm))| process(pid, &format!("memory = \"{mib} MiB\"\nsm = {sm}\nmem = {sm}")))
                .collect();
            let board = board(&format!("[[gpu]]\nmodel = \"T4\"\n{text}"), 1.0);
            let memory = board.memory();
            prop_assert_eq!(memory.reserved + memory.used + memory.free, memory.total);
            let held: u64 = sizes.iter().map(|(mib, _)| u64::from(*mib) * MIB).sum();
            prop_assert_eq!(memory.used, held + 2 * MIB);
            let (sm, mem) = board.utilization();
            prop_assert!(sm <= 100 && mem <= 100);
            let rows: u32 = board.ring(0).unwrap_or_default().iter().map(|row| row.sm).sum();
            prop_assert!(rows <= sm, "{} rows of {}", rows, sm);
            prop_assert!(board.power() <= board.power_limit());
        }
    }
}
