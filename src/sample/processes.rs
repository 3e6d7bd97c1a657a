//! The join of NVML's process lists, its utilization rows, and who `/proc` says they are.

use std::collections::HashMap;
use std::sync::Arc;

use super::ring::Window;
use crate::host::Identity;
use crate::model::{
    Discard, Discards, EngineShares, Missing, ProcessId, ProcessKind, ProcessSample,
};
use crate::nvml::probe::mebibytes;
use crate::nvml::raw::processes::RunningProcess;
use crate::policy::PID_MAX;

/// The three lists of one device, as they were answered.
pub struct RunningLists {
    /// Compute contexts.
    pub compute: Result<Vec<RunningProcess>, Missing>,
    /// Graphics contexts.
    pub graphics: Result<Vec<RunningProcess>, Missing>,
    /// Clients of an MPS server.
    pub mps: Result<Vec<RunningProcess>, Missing>,
}

/// What a process looked like when it was first seen. Its labels never change after that.
#[derive(Clone, Debug)]
struct Face {
    id: ProcessId,
    name: Arc<str>,
    kind: ProcessKind,
}

/// The processes that one device is known to run.
#[derive(Debug, Default)]
pub struct ProcessTable {
    faces: HashMap<u32, Face>,
}

impl ProcessTable {
    /// One line per living process of the device, in the order of their pids.
    ///
    /// `total` is the device's framebuffer in bytes, where known.
    ///
    /// # Errors
    /// A list that failed leaves doubt about who runs, so nobody is listed.
    pub fn merge(
        &mut self,
        lists: RunningLists,
        window: Result<&Window, Missing>,
        total: Option<u64>,
        identify: impl Fn(u32) -> Result<Identity, Discard>,
        discards: &mut Discards,
    ) -> Result<Vec<ProcessSample>, Missing> {
        let running = running(lists, total, discards)?;
        let mut faces = HashMap::with_capacity(running.len());
        let mut samples = Vec::with_capacity(running.len());
        for (pid, entry) in running {
            let found = match identify(pid) {
                Ok(found) => found,
                Err(reason) => {
                    discards.count(reason);
                    continue;
                }
            };
            let (face, reused) = self.recognise(found, entry.kind);
            samples.push(ProcessSample {
                id: face.id,
                name: Arc::clone(&face.name),
                kind: face.kind,
                memory: entry.memory.map(mebibytes).ok_or(Missing::Unsupported),
                utilization: utilization(face.kind, reused, window, pid),
            });
            faces.insert(pid, face);
        }
        self.faces = faces;
        samples.sort_unstable_by_key(|sample| sample.id);
        Ok(samples)
    }

    /// The face that the process had before, or its first one; and whether its pid belonged to
    /// another process until now.
    fn recognise(&self, identity: Identity, kind: ProcessKind) -> (Face, bool) {
        match self.faces.get(&identity.id.pid) {
            Some(face) if face.id == identity.id => (face.clone(), false),
            other => (Face { id: identity.id, name: identity.name, kind }, other.is_some()),
        }
    }
}

/// The ring knows pids only: the rows of a reused one may be its predecessor's.
fn utilization(
    kind: ProcessKind,
    reused: bool,
    window: Result<&Window, Missing>,
    pid: u32,
) -> Result<EngineShares, Missing> {
    match kind {
        ProcessKind::Mps => Err(Missing::Unsupported),
        _ if reused => Err(Missing::Pending),
        ProcessKind::Compute | ProcessKind::Graphics | ProcessKind::ComputeAndGraphics => {
            Ok(window?.shares(pid))
        }
    }
}

struct Entry {
    kind: ProcessKind,
    memory: Option<u64>,
}

fn running(
    lists: RunningLists,
    total: Option<u64>,
    discards: &mut Discards,
) -> Result<HashMap<u32, Entry>, Missing> {
    let mut running: HashMap<u32, Entry> = HashMap::new();
    for (list, kind) in [
        (lists.compute, ProcessKind::Compute),
        (lists.graphics, ProcessKind::Graphics),
        (lists.mps, ProcessKind::Mps),
    ] {
        for process in known(list)? {
            if process.pid == 0 || process.pid > PID_MAX {
                discards.count(Discard::Pid);
                continue;
            }
            if matches!((process.memory, total), (Some(held), Some(total)) if held > total) {
                discards.count(Discard::Memory);
                continue;
            }
            running
                .entry(process.pid)
                .and_modify(|entry| entry.add(kind, process.memory))
                .or_insert(Entry { kind, memory: process.memory });
        }
    }
    Ok(running)
}

/// A list that this device does not have is an empty one.
fn known(list: Result<Vec<RunningProcess>, Missing>) -> Result<Vec<RunningProcess>, Missing> {
    match list {
        Err(Missing::Unsupported) => Ok(Vec::new()),
        other => other,
    }
}

impl Entry {
    /// The same process in another list holds the same memory, which is never summed.
    fn add(&mut self, kind: ProcessKind, memory: Option<u64>) {
        self.memory = self.memory.max(memory);
        self.kind = match (self.kind, kind) {
            (ProcessKind::Mps, _) | (_, ProcessKind::Mps) => ProcessKind::Mps,
            (ProcessKind::Compute, ProcessKind::Compute) => ProcessKind::Compute,
            (ProcessKind::Graphics, ProcessKind::Graphics) => ProcessKind::Graphics,
            _ => ProcessKind::ComputeAndGraphics,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    fn process(pid: u32, memory: u64) -> RunningProcess {
        RunningProcess { pid, memory: Some(memory) }
    }

    fn lists(compute: &[RunningProcess], graphics: &[RunningProcess]) -> RunningLists {
        RunningLists {
            compute: Ok(compute.to_vec()),
            graphics: Ok(graphics.to_vec()),
            mps: Err(Missing::Unsupported),
        }
    }

    fn alive(started: u64) -> impl Fn(u32) -> Result<Identity, Discard> {
        move |pid| Ok(Identity { id: ProcessId { pid, started }, name: "python".into() })
    }

    fn merge(table: &mut ProcessTable, lists: RunningLists, started: u64) -> Vec<ProcessSample> {
        let window = Window::default();
        let mut discards = Discards::default();
        table.merge(lists, Ok(&window), None, alive(started), &mut discards).unwrap()
    }

    #[test]
    fn a_process_in_both_lists_is_one_line_with_its_memory_once() {
        let both = [process(7, GIB)];
        let samples = merge(&mut ProcessTable::default(), lists(&both, &both), 1);
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].kind, ProcessKind::ComputeAndGraphics);
        assert_eq!(samples[0].memory, Ok(1024.0));
    }

    #[test]
    fn a_listed_process_without_a_row_is_idle_not_unknown() {
        let samples = merge(&mut ProcessTable::default(), lists(&[process(7, GIB)], &[]), 1);
        assert_eq!(samples[0].utilization, Ok(EngineShares::default()));
    }

    #[test]
    fn utilization_is_withheld_where_the_window_is() {
        let mut table = ProcessTable::default();
        let samples = table
            .merge(
                lists(&[process(7, GIB)], &[]),
                Err(Missing::Pending),
                None,
                alive(1),
                &mut Discards::default(),
            )
            .unwrap();
        assert_eq!(samples[0].utilization, Err(Missing::Pending));
        assert_eq!(samples[0].memory, Ok(1024.0));
    }

    #[test]
    fn an_mps_client_has_memory_and_no_utilization() {
        let mut running = lists(&[], &[]);
        running.mps = Ok(vec![process(7, GIB)]);
        let samples = merge(&mut ProcessTable::default(), running, 1);
        assert_eq!(samples[0].kind, ProcessKind::Mps);
        assert_eq!(samples[0].utilization, Err(Missing::Unsupported));
        assert_eq!(samples[0].memory, Ok(1024.0));
    }

    #[test]
    fn memory_that_the_driver_does_not_tell_is_absent() {
        let silent = [RunningProcess { pid: 7, memory: None }];
        let samples = merge(&mut ProcessTable::default(), lists(&silent, &[]), 1);
        assert_eq!(samples[0].memory, Err(Missing::Unsupported));
    }

    #[test]
    fn one_failed_list_withholds_everybody() {
        let mut running = lists(&[process(7, GIB)], &[]);
        running.graphics = Err(Missing::Denied);
        let window = Window::default();
        let merged = ProcessTable::default().merge(
            running,
            Ok(&window),
            None,
            alive(1),
            &mut Discards::default(),
        );
        assert_eq!(merged, Err(Missing::Denied));
    }

    #[test]
    fn labels_are_frozen_at_first_sight() {
        let mut table = ProcessTable::default();
        let first = merge(&mut table, lists(&[process(7, GIB)], &[]), 1);
        let renamed =
            |pid| Ok(Identity { id: ProcessId { pid, started: 1 }, name: "renamed".into() });
        let window = Window::default();
        let both = lists(&[process(7, GIB)], &[process(7, GIB)]);
        let second =
            table.merge(both, Ok(&window), None, renamed, &mut Discards::default()).unwrap();
        assert_eq!((&second[0].name, second[0].kind), (&first[0].name, first[0].kind));
    }

    #[test]
    fn a_reused_pid_does_not_inherit_its_predecessors_work() {
        let mut table = ProcessTable::default();
        merge(&mut table, lists(&[process(7, GIB)], &[]), 1);
        let successor = merge(&mut table, lists(&[process(7, GIB)], &[]), 2);
        assert_eq!(successor[0].utilization, Err(Missing::Pending));
        let settled = merge(&mut table, lists(&[process(7, GIB)], &[]), 2);
        assert_eq!(settled[0].utilization, Ok(EngineShares::default()));
    }

    #[test]
    fn impossible_and_dead_entries_are_counted_and_dropped() {
        let entries = [process(0, 1), process(u32::MAX, 1), process(5, 2 * GIB), process(6, 1)];
        let window = Window::default();
        let mut discards = Discards::default();
        let merged = ProcessTable::default().merge(
            lists(&entries, &[]),
            Ok(&window),
            Some(GIB),
            |_| Err(Discard::Gone),
            &mut discards,
        );
        assert_eq!(merged, Ok(Vec::new()));
        let counted: Vec<_> = discards.iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [(Discard::Pid, 2), (Discard::Memory, 1), (Discard::Gone, 1)]);
    }

    proptest! {
        #[test]
        fn one_line_per_process_whatever_the_lists_say(
            compute in prop::collection::vec((0_u32..9, 0_u64..4), 0..12),
            graphics in prop::collection::vec((0_u32..9, 0_u64..4), 0..12),
            mps in prop::collection::vec((0_u32..9, 0_u64..4), 0..12),
        ) {
            let list = |entries: Vec<(u32, u64)>| {
                Ok(entries.into_iter().map(|(pid, gib)| process(pid, gib * GIB)).collect())
            };
            let running =
                RunningLists { compute: list(compute), graphics: list(graphics), mps: list(mps) };
            let window = Window::default();
            let samples = ProcessTable::default()
                .merge(running, Ok(&window), Some(3 * GIB), alive(1), &mut Discards::default())
                .unwrap();
            let mut pids: Vec<_> = samples.iter().map(|sample| sample.id.pid).collect();
            pids.dedup();
            prop_assert_eq!(pids.len(), samples.len());
            prop_assert!(samples.iter().all(|sample| sample.memory.unwrap() <= 3.0 * 1024.0));
        }
    }
}
