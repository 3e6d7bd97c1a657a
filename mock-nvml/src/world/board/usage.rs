//! Memory, processes and their utilization.

use crate::{
    fault::{self, Substitute},
    models::{MIB, mig::MEMORY_SLICES},
    return_code::{NvmlResult, ReturnCode},
    scenario::{
        Process, ProcessType,
        mig::{GpuInstance, InstanceIds},
    },
    world::{
        board::Board,
        load::{self, Load},
        sample_ring::{UtilizationRow, stamp_of_age},
    },
};

/// Framebuffer or BAR1 in bytes; reserved, used and free sum to the total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    /// Reserved by the driver.
    pub(crate) reserved: u64,
    /// Used, without the reserved memory.
    pub(crate) used: u64,
    pub(crate) free: u64,
}

/// One of NVML's process lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessListKind {
    Compute,
    Graphics,
    /// Clients of the MPS server.
    Mps,
}

/// A row of a process list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessRow {
    pub(crate) pid: u32,
    /// Framebuffer in bytes; `NVML_VALUE_NOT_AVAILABLE` (`u64::MAX`) if the driver does not report
    /// it.
    pub(crate) memory: u64,
    /// Instance ids on a partitioned GPU.
    pub(crate) place: Option<InstanceIds>,
}

impl Board {
    /// Framebuffer memory.
    pub(crate) fn framebuffer(&self) -> NvmlResult<Memory> {
        if self.model().extras.unified_memory {
            return Err(ReturnCode::NOT_SUPPORTED);
        }
        let memory = self.memory();
        // A caller in a limited cgroup sees its partition.
        let hard = self.own_hard_limit().filter(|hard| *hard < memory.total);
        Ok(hard.map_or(memory, |hard| split(hard, 0, memory.used.min(hard))))
    }

    /// Memory of the GPU, or the part of the system's memory that it can use.
    pub(crate) fn memory(&self) -> Memory {
        let used: u64 = self.running_processes().filter_map(|process| process.memory).sum();
        if let Some(instance) = self.view().gpu_instance() {
            return split(instance.profile.mib * MIB, 0, GpuInstance::reserved_bytes() + used);
        }
        let model = self.model();
        let instances: u64 = self
            .layout()
            .iter()
            .flat_map(|one| &one.instances)
            .map(|_| GpuInstance::reserved_bytes())
            .sum();
        let base = model.base_mib * MIB + instances;
        let total = self.gpu.memory_total.unwrap_or(model.total_mib * MIB);
        split(total, total.min(model.reserved_mib * MIB), base + used)
    }

    /// BAR1 memory: 1 MiB, and 2 MiB for each process.
    pub(crate) fn bar1(&self) -> Memory {
        let processes: u64 = self.running_processes().map(|_| 2 * MIB).sum();
        let slices =
            self.view().gpu_instance().map_or(MEMORY_SLICES, |one| one.profile.memory_slices);
        let total = self.model().bar1_mib * MIB * u64::from(slices) / u64::from(MEMORY_SLICES);
        split(total, 0, MIB + processes)
    }

    /// The processes of a list.
    pub(crate) fn processes(&self, list: ProcessListKind) -> Vec<ProcessRow> {
        if fault::substitute() == Some(Substitute::NoRows) {
            return vec![];
        }
        let in_instance = |process: &&Process| {
            let place = self.view().place();
            place.is_none_or(|place| process.instance == Some(place))
        };
        self.running_processes()
            .filter(in_instance)
            .filter(|process| match process.kind {
                ProcessType::Compute => list == ProcessListKind::Compute,
                ProcessType::Graphics => list == ProcessListKind::Graphics,
                ProcessType::Both => {
                    matches!(list, ProcessListKind::Compute | ProcessListKind::Graphics)
                }
                ProcessType::Mps => list == ProcessListKind::Mps,
            })
            .map(|process| ProcessRow {
                pid: process.pid,
                memory: process.memory.unwrap_or(u64::MAX),
                place: process.instance,
            })
            .collect()
    }

    /// Utilization by process since `last_seen` (wall clock, µs), with the invalid rows that the
    /// scenario injects.
    pub(crate) fn process_utilization(&self, last_seen: u64) -> NvmlResult<Vec<UtilizationRow>> {
        if fault::substitute() == Some(Substitute::NoRows) {
            return Ok(vec![]);
        }
        let ring = self.sample_ring();
        let loads = |time, emit: &mut dyn FnMut(u32, Load)| {
            load::for_each_share(&self.scenario, &self.gpu, time, emit);
        };
        let mut injected = self.injected_rows().peekable();
        let mut rows = match ring.rows(self.now, last_seen, loads) {
            Err(ReturnCode::NOT_FOUND) if injected.peek().is_some() => vec![],
            result => result?,
        };
        rows.extend(injected);
        Ok(rows)
    }

    fn injected_rows(&self) -> impl Iterator<Item = UtilizationRow> {
        let now = self.now;
        let active = self
            .scenario
            .injected_samples
            .iter()
            .filter(move |one| one.gpu == self.gpu.index && one.during.contains(now.world));
        active.flat_map(|garbage| &garbage.rows).map(move |row| UtilizationRow {
            pid: row.pid,
            stamp: self.gpu.samples.stamp(stamp_of_age(now, row.age), now.world),
            sm: row.sm,
            mem: row.mem,
            enc: row.enc,
            dec: row.dec,
            jpg: 0,
            ofa: 0,
        })
    }

    pub(super) fn running_processes(&self) -> impl Iterator<Item = &Process> {
        let processes = self.scenario.processes_of(&self.gpu);
        let instance = self.view().gpu_instance();
        processes
            .filter(|process| process.lifetime.contains(self.now.world))
            .filter(move |process| instance.is_none_or(|instance| process.runs_in(instance)))
    }
}

fn split(total: u64, reserved: u64, used: u64) -> Memory {
    let used = used.min(total - reserved);
    Memory { total, reserved, used, free: total - reserved - used }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::world::board::tests::{WALL, board, process};

    #[test]
    fn compute_and_graphics_process_is_in_both_lists_and_counted_once() {
        let text = "[[gpu]]\nmodel = \"RTX 4090\"\n".to_owned()
            + &process(1, "memory = \"100 MiB\"\ntype = \"C+G\"")
            + &process(2, "memory = \"10 MiB\"\ntype = \"G\"")
            + &process(3, "memory = \"unavailable\"\ntype = \"M\"")
            + &process(4, "memory = \"1 MiB\"\nend = 5");
        let board = board(&text, 5.0);
        let pids = |list| board.processes(list).iter().map(|row| row.pid).collect::<Vec<_>>();
        assert_eq!(
            (pids(ProcessListKind::Compute), pids(ProcessListKind::Graphics)),
            (vec![1], vec![1, 2])
        );
        assert_eq!(
            board.processes(ProcessListKind::Mps),
            [ProcessRow { pid: 3, memory: u64::MAX, place: None }]
        );
        assert_eq!(board.memory().used, (2 + 110) * MIB);
        assert_eq!(board.bar1().used, (1 + 3 * 2) * MIB);
    }

    #[test]
    fn reported_total_may_be_zero_or_less_than_a_process_holds() {
        for (total, bytes, used) in [("0 MiB", 0, 0), ("4 GiB", 4_096, 4_096 - 426)] {
            let text = format!("[[gpu]]\nmodel = \"T4\"\nmemory_total = \"{total}\"\n")
                + &process(1, "memory = \"8 GiB\"");
            let board = board(&text, 0.0);
            let memory = board.memory();
            assert_eq!((memory.total / MIB, memory.used / MIB, memory.free), (bytes, used, 0));
            assert_eq!(board.processes(ProcessListKind::Compute)[0].memory, 8_192 * MIB);
        }
    }

    #[test]
    fn injected_rows_are_returned_when_no_process_is_busy() {
        let text = "[[gpu]]\nmodel = \"T4\"\n[[garbage]]\ngpu = 0\nto = 9\nrows = [{ sm = 2147483632, age = 1 }]";
        let rows = board(text, 5.0).process_utilization(WALL).unwrap();
        let row = rows.first().unwrap();
        assert_eq!(
            (rows.len(), row.pid, row.sm, row.stamp),
            (1, 0, 2_147_483_632, WALL - 1_000_000)
        );
        assert_eq!(board(text, 9.0).process_utilization(0), Err(ReturnCode::NOT_FOUND));
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
            let used: u64 = sizes.iter().map(|(mib, _)| u64::from(*mib) * MIB).sum();
            prop_assert_eq!(memory.used, used + 2 * MIB);
            let (sm, mem) = board.utilization();
            prop_assert!(sm <= 100 && mem <= 100);
            let rows: u32 = board.process_utilization(0).unwrap_or_default().iter().map(|row| row.sm).sum();
            prop_assert!(rows <= sm, "{} rows of {}", rows, sm);
            prop_assert!(board.power() <= board.power_limit());
        }
    }
}
