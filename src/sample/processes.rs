//! The join of NVML's process lists, its utilization rows, and who `/proc` says they are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::ring::Window;
use crate::host::Identity;
use crate::model::{
    Discard, EngineShares, Listing, Missing, Placement, ProcessId, ProcessKind, ProcessSample,
    Residue, Usage,
};
use crate::nvml::raw::processes::RunningProcess;
use crate::policy::{PID_MAX, is_mps_server};

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
    seen: Duration,
}

/// The processes that one device is known to run.
#[derive(Debug, Default)]
pub struct ProcessTable {
    faces: HashMap<u32, Face>,
}

/// Who the pids of a node are.
pub trait Census {
    /// Who `pid` is at present.
    ///
    /// # Errors
    /// Why it is nobody to be told of.
    fn identify(&mut self, pid: u32) -> Result<Identity, Discard>;

    /// Where a living process runs.
    ///
    /// # Errors
    /// Why that is not known.
    fn place(&mut self, id: ProcessId) -> Result<Arc<Placement>, Discard>;

    /// Where the process ran that had `pid` until a moment ago.
    fn departed(&self, pid: u32) -> Option<Arc<Placement>>;
}

impl ProcessTable {
    /// Who is on the device, one entry for each pid.
    ///
    /// `total` is the device's framebuffer in bytes, where known.
    ///
    /// # Errors
    /// A list failed, or that of compute processes is not supported: it is not known what runs.
    pub fn merge(
        &mut self,
        lists: RunningLists,
        window: Result<&Window, Missing>,
        total: Option<u64>,
        now: Duration,
        census: &mut impl Census,
    ) -> Result<Listing, Missing> {
        let (running, mut residues) = running(lists, total)?;
        let mut faces = HashMap::with_capacity(running.len());
        let mut processes = Vec::with_capacity(running.len());
        for (pid, entry) in running {
            let memory = entry.memory.ok_or(Missing::Unsupported);
            let found = match census.identify(pid) {
                Ok(found) => found,
                Err(why) => {
                    residues.push(Residue { why, placement: census.departed(pid), memory });
                    continue;
                }
            };
            let (face, reused) = self.recognise(found, entry.kind, now);
            processes.push(ProcessSample {
                id: face.id,
                name: Arc::clone(&face.name),
                kind: face.kind,
                seen: face.seen,
                placement: census.place(face.id),
                usage: Usage { memory, utilization: utilization(&face, reused, window) },
            });
            faces.insert(pid, face);
        }
        self.faces = faces;
        processes.sort_unstable_by_key(|process| process.id);
        Ok(Listing { processes, residues })
    }

    /// Whether a pid was listed in the last cycle, and is no MPS server's. Before it has a server, a
    /// device has no clients of one.
    #[must_use]
    pub fn is_plain(&self, pid: u32) -> bool {
        self.faces.get(&pid).is_some_and(|face| !is_mps_server(&face.name))
    }

    /// The face that the process had before, or its first one; and whether its pid belonged to
    /// another process until now.
    fn recognise(&self, identity: Identity, kind: ProcessKind, now: Duration) -> (Face, bool) {
        match self.faces.get(&identity.id.pid) {
            Some(face) if face.id == identity.id => (face.clone(), false),
            other => {
                let face = Face { id: identity.id, name: identity.name, kind, seen: now };
                (face, other.is_some())
            }
        }
    }
}

/// The ring knows pids only: the rows of a reused one may be its predecessor's. Whose the work of MPS
/// clients is in it, the clients' or their server's, is not settled.
fn utilization(
    face: &Face,
    reused: bool,
    window: Result<&Window, Missing>,
) -> Result<EngineShares, Missing> {
    match face.kind {
        ProcessKind::Mps => Err(Missing::Unsupported),
        _ if is_mps_server(&face.name) => Err(Missing::Unsupported),
        _ if reused => Err(Missing::Pending),
        ProcessKind::Compute | ProcessKind::Graphics | ProcessKind::ComputeAndGraphics => {
            window?.shares(face.id.pid)
        }
    }
}

struct Entry {
    kind: ProcessKind,
    memory: Option<u64>,
}

/// The entries by pid, and those that cannot be true.
fn running(
    lists: RunningLists,
    total: Option<u64>,
) -> Result<(HashMap<u32, Entry>, Vec<Residue>), Missing> {
    let mut running: HashMap<u32, Entry> = HashMap::new();
    let mut residues = Vec::new();
    for (list, kind) in [
        (lists.compute?, ProcessKind::Compute),
        (or_empty(lists.graphics)?, ProcessKind::Graphics),
        (or_empty(lists.mps)?, ProcessKind::Mps),
    ] {
        for process in list {
            match impossible(&process, total) {
                Some(why) => {
                    let memory = Err(Missing::Invalid);
                    residues.push(Residue { why, placement: None, memory });
                }
                None => {
                    running
                        .entry(process.pid)
                        .and_modify(|entry| entry.add(kind, process.memory))
                        .or_insert(Entry { kind, memory: process.memory });
                }
            }
        }
    }
    Ok((running, residues))
}

fn impossible(process: &RunningProcess, total: Option<u64>) -> Option<Discard> {
    if process.pid == 0 || process.pid > PID_MAX {
        return Some(Discard::Pid);
    }
    let too_much = matches!((process.memory, total), (Some(held), Some(total)) if held > total);
    too_much.then_some(Discard::Memory)
}

/// Boards without graphics or without MPS have no such list, and nothing on it. All can compute: a
/// driver that does not support the list of that does not say what runs.
fn or_empty(list: Result<Vec<RunningProcess>, Missing>) -> Result<Vec<RunningProcess>, Missing> {
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
    const NOW: Duration = Duration::from_secs(9);

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

    /// Everybody lives since `started` and is called `name`, or nobody lives.
    struct Everybody {
        alive: Result<(u64, &'static str), Discard>,
    }

    impl Census for Everybody {
        fn identify(&mut self, pid: u32) -> Result<Identity, Discard> {
            let (started, name) = self.alive?;
            Ok(Identity { id: ProcessId { pid, started }, name: name.into() })
        }

        fn place(&mut self, _: ProcessId) -> Result<Arc<Placement>, Discard> {
            Ok(Arc::new(Placement::Host))
        }

        fn departed(&self, pid: u32) -> Option<Arc<Placement>> {
            (pid == 6).then(|| Arc::new(Placement::Host))
        }
    }

    fn alive(started: u64) -> Everybody {
        Everybody { alive: Ok((started, "python")) }
    }

    fn merge(table: &mut ProcessTable, lists: RunningLists, started: u64) -> Vec<ProcessSample> {
        let window = Window::default();
        table.merge(lists, Ok(&window), None, NOW, &mut alive(started)).unwrap().processes
    }

    #[test]
    fn a_process_in_both_lists_is_one_line_with_its_memory_once() {
        let both = [process(7, GIB)];
        let samples = merge(&mut ProcessTable::default(), lists(&both, &both), 1);
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].kind, ProcessKind::ComputeAndGraphics);
        assert_eq!(samples[0].usage.memory, Ok(GIB));
    }

    #[test]
    fn a_listed_process_without_a_row_is_idle_not_unknown() {
        let samples = merge(&mut ProcessTable::default(), lists(&[process(7, GIB)], &[]), 1);
        assert_eq!(samples[0].usage.utilization, Ok(EngineShares::default()));
    }

    #[test]
    fn utilization_is_withheld_where_the_window_is() {
        let mut table = ProcessTable::default();
        let list = lists(&[process(7, GIB)], &[]);
        let listing = table.merge(list, Err(Missing::Pending), None, NOW, &mut alive(1)).unwrap();
        let usage = Usage { memory: Ok(GIB), utilization: Err(Missing::Pending) };
        assert_eq!(listing.processes[0].usage, usage);
    }

    #[test]
    fn memory_that_the_driver_does_not_tell_is_absent() {
        let untold = RunningProcess { pid: 7, memory: None };
        let samples = merge(&mut ProcessTable::default(), lists(&[untold], &[]), 1);
        assert_eq!(samples[0].usage.memory, Err(Missing::Unsupported));
    }

    #[test]
    fn a_failed_list_leaves_nobody() {
        let failed = RunningLists { graphics: Err(Missing::Failed(999)), ..lists(&[], &[]) };
        let window = Window::default();
        let merged = ProcessTable::default().merge(failed, Ok(&window), None, NOW, &mut alive(1));
        assert_eq!(merged, Err(Missing::Failed(999)));
    }

    #[test]
    fn a_list_of_compute_processes_that_is_not_supported_is_not_an_empty_one() {
        let without = RunningLists { compute: Err(Missing::Unsupported), ..lists(&[], &[]) };
        let window = Window::default();
        let merged = ProcessTable::default().merge(without, Ok(&window), None, NOW, &mut alive(1));
        assert_eq!(merged, Err(Missing::Unsupported));
    }

    #[test]
    fn neither_mps_clients_nor_their_server_are_told_what_they_use() {
        let running =
            RunningLists { mps: Ok(vec![process(8, GIB)]), ..lists(&[process(7, GIB)], &[]) };
        let mut census = Everybody { alive: Ok((1, "nvidia-cuda-mps")) };
        let window = Window::default();
        let listing =
            ProcessTable::default().merge(running, Ok(&window), None, NOW, &mut census).unwrap();
        let told: Vec<_> = listing.processes.iter().map(|p| p.usage.utilization).collect();
        assert_eq!(told, [Err(Missing::Unsupported), Err(Missing::Unsupported)]);
    }

    #[test]
    fn a_face_is_frozen_at_first_sight() {
        let mut table = ProcessTable::default();
        merge(&mut table, lists(&[process(7, GIB)], &[]), 1);
        let window = Window::default();
        let mut renamed = Everybody { alive: Ok((1, "renamed")) };
        let both = lists(&[process(7, GIB)], &[process(7, GIB)]);
        let listing = table.merge(both, Ok(&window), None, 2 * NOW, &mut renamed).unwrap();
        let later = &listing.processes[0];
        assert_eq!((&*later.name, later.kind, later.seen), ("python", ProcessKind::Compute, NOW));
    }

    #[test]
    fn a_reused_pid_does_not_inherit_its_predecessors_work() {
        let mut table = ProcessTable::default();
        merge(&mut table, lists(&[process(7, GIB)], &[]), 1);
        let successor = merge(&mut table, lists(&[process(7, GIB)], &[]), 2);
        assert_eq!(successor[0].usage.utilization, Err(Missing::Pending));
        let settled = merge(&mut table, lists(&[process(7, GIB)], &[]), 2);
        assert_eq!(settled[0].usage.utilization, Ok(EngineShares::default()));
    }

    #[test]
    fn what_is_no_process_is_told_apart_and_keeps_its_memory() {
        let entries = [process(0, 1), process(u32::MAX, 1), process(5, 2 * GIB), process(6, 1)];
        let window = Window::default();
        let mut nobody = Everybody { alive: Err(Discard::Gone) };
        let listing = ProcessTable::default()
            .merge(lists(&entries, &[]), Ok(&window), Some(GIB), NOW, &mut nobody)
            .unwrap();
        assert_eq!(listing.processes, []);
        let invalid = |why| Residue { why, placement: None, memory: Err(Missing::Invalid) };
        let departed = Some(Arc::new(Placement::Host));
        assert_eq!(
            listing.residues,
            [
                invalid(Discard::Pid),
                invalid(Discard::Pid),
                invalid(Discard::Memory),
                Residue { why: Discard::Gone, placement: departed, memory: Ok(1) },
            ]
        );
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
            let listing = ProcessTable::default()
                .merge(running, Ok(&window), Some(3 * GIB), NOW, &mut alive(1))
                .unwrap();
            let mut pids: Vec<_> = listing.processes.iter().map(|p| p.id.pid).collect();
            pids.dedup();
            prop_assert_eq!(pids.len(), listing.processes.len());
            prop_assert!(listing.processes.iter().all(|p| p.usage.memory.unwrap() <= 3 * GIB));
        }
    }
}
