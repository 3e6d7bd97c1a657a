//! Joins NVML's process lists and utilization rows with the processes in `/proc`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::process_utilization::UtilizationWindow;
use crate::host::ProcessIdentity;
use crate::model::{
    CgroupLocation, DeviceProcesses, Discard, EngineUtilization, Missing, ProcessId, ProcessKind,
    ProcessSample, StaleProcessEntry, Usage,
};
use crate::nvml::raw::processes::RunningProcess;
use crate::policy::{FRAMEBUFFER_MAX, PID_MAX, is_mps_server};

/// The three process lists of one device, as NVML returned them.
pub struct RunningLists {
    /// Compute processes (`nvmlDeviceGetComputeRunningProcesses`).
    pub compute: Result<Vec<RunningProcess>, Missing>,
    /// Graphics processes (`nvmlDeviceGetGraphicsRunningProcesses`).
    pub graphics: Result<Vec<RunningProcess>, Missing>,
    /// MPS clients (`nvmlDeviceGetMPSComputeRunningProcesses`).
    pub mps: Result<Vec<RunningProcess>, Missing>,
}

/// A process as it was first seen. Its labels do not change afterwards.
#[derive(Clone, Debug)]
struct FirstSeenProcess {
    id: ProcessId,
    name: Arc<str>,
    kind: ProcessKind,
    first_seen: Duration,
    reuse: PidReuse,
}

/// Whether a pid is that of another process in the last cycle. The list and the utilization rows name only
/// pids, and may be about that process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PidReuse {
    No,
    /// Since this cycle: list and rows may be about the other process.
    Now,
    /// Since the last cycle: rows may be.
    Before,
}

/// Processes of one device in the last cycle, by pid.
#[derive(Debug, Default)]
pub struct ProcessTable {
    processes: HashMap<u32, FirstSeenProcess>,
}

/// Looks up the processes of the node.
pub trait ProcessLookup {
    /// Identity of the process that has `pid` now.
    ///
    /// # Errors
    /// Why there is no such process, or why it cannot be identified.
    fn identify(&mut self, pid: u32) -> Result<ProcessIdentity, Discard>;

    /// Cgroup of a running process.
    ///
    /// # Errors
    /// Why the cgroup is unknown.
    fn locate(&mut self, id: ProcessId) -> Result<Arc<CgroupLocation>, Discard>;

    /// Last known cgroup of a process with an exited main thread.
    fn locate_exiting(&mut self, id: ProcessId) -> Option<Arc<CgroupLocation>>;

    /// Current time in the unit of [`ProcessId::started`], if known.
    fn uptime_ticks(&self) -> Option<u64>;

    /// Cgroup of the process that had `pid` until it exited in this cycle or the previous one.
    fn recently_exited(&self, pid: u32) -> Option<Arc<CgroupLocation>>;
}

impl ProcessTable {
    /// Processes of the device, one per pid, and stale entries.
    ///
    /// # Errors
    /// A list cannot be read, or the list of compute processes is not supported.
    pub fn merge(
        &mut self,
        lists: RunningLists,
        window: Result<&UtilizationWindow, Missing>,
        now: Duration,
        lookup: &mut impl ProcessLookup,
    ) -> Result<DeviceProcesses, Missing> {
        let lists_mps_clients = lists.mps.is_ok();
        let (running, mut stale_entries) = lists.entries()?;
        let has_mps_clients = running.values().any(|entry| entry.kind == ProcessKind::Mps);
        let is_new = |pid: &u32| !self.processes.contains_key(pid);
        let listed_at = running.keys().any(is_new).then(|| lookup.uptime_ticks()).flatten();
        let mut known = HashMap::with_capacity(running.len());
        let mut processes = Vec::with_capacity(running.len());
        for (pid, entry) in running {
            let memory = entry.memory;
            let (found, location) = match find(pid, listed_at, lookup) {
                Ok(found) => found,
                Err(reason) => {
                    stale_entries.push(StaleProcessEntry {
                        reason,
                        location: lookup.recently_exited(pid),
                        memory,
                    });
                    continue;
                }
            };
            let process = self.first_seen(found, entry.kind, now);
            let is_pending = process.reuse == PidReuse::Now;
            let memory = if is_pending { Err(Missing::Pending) } else { memory };
            processes.push(ProcessSample {
                id: process.id,
                name: Arc::clone(&process.name),
                kind: process.kind,
                first_seen: process.first_seen,
                location,
                usage: Usage {
                    memory,
                    utilization: if has_mps_clients && is_mps_server(&process.name) {
                        Err(Missing::Unsupported)
                    } else {
                        utilization(&process, window)
                    },
                },
            });
            known.insert(pid, process);
        }
        self.processes = known;
        processes.sort_unstable_by_key(|process| process.id);
        Ok(DeviceProcesses { processes, stale_entries, lists_mps_clients, has_mps_clients })
    }

    /// Whether a pid was listed in the last cycle and is not an MPS server. A device without an MPS
    /// server has no MPS clients.
    #[must_use]
    pub fn is_listed_non_mps_server(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_some_and(|process| !is_mps_server(&process.name))
    }

    /// The process as it was first seen.
    fn first_seen(
        &self,
        identity: ProcessIdentity,
        kind: ProcessKind,
        now: Duration,
    ) -> FirstSeenProcess {
        let before = self.processes.get(&identity.id.pid);
        let reuse = match before {
            Some(process) if process.id != identity.id => PidReuse::Now,
            Some(process) if process.reuse == PidReuse::Now => PidReuse::Before,
            Some(process) => {
                return FirstSeenProcess { reuse: PidReuse::No, ..process.clone() };
            }
            None => PidReuse::No,
        };
        FirstSeenProcess { id: identity.id, name: identity.name, kind, first_seen: now, reuse }
    }
}

/// The process that the driver lists as `pid`, and its cgroup. The list was read at `listed_at`, in
/// ticks since boot.
///
/// # Errors
/// The process has exited, perhaps with a successor, or cannot be identified.
fn find(
    pid: u32,
    listed_at: Option<u64>,
    lookup: &mut impl ProcessLookup,
) -> Result<(ProcessIdentity, Result<Arc<CgroupLocation>, Discard>), Discard> {
    let found = lookup.identify(pid)?;
    if listed_at.is_some_and(|listed_at| found.id.started > listed_at) {
        return Err(Discard::Gone);
    }
    let location = if found.zombie {
        // Its other threads may run. Without an earlier read, its owner is unknown.
        Ok(lookup.locate_exiting(found.id).ok_or(Discard::Zombie)?)
    } else {
        lookup.locate(found.id)
    };
    Ok((found, location))
}

/// It is not known whether the work of MPS clients is in the rows of the clients or of their
/// server.
fn utilization(
    process: &FirstSeenProcess,
    window: Result<&UtilizationWindow, Missing>,
) -> Result<EngineUtilization, Missing> {
    match process.kind {
        ProcessKind::Mps => Err(Missing::Unsupported),
        _ if process.reuse != PidReuse::No => Err(Missing::Pending),
        ProcessKind::Compute | ProcessKind::Graphics | ProcessKind::ComputeAndGraphics => {
            window?.utilization(process.id.pid)
        }
    }
}

struct RunningEntry {
    kind: ProcessKind,
    memory: Result<u64, Missing>,
}

impl RunningLists {
    /// Entries by pid, and invalid entries.
    fn entries(self) -> Result<(HashMap<u32, RunningEntry>, Vec<StaleProcessEntry>), Missing> {
        let mut running: HashMap<u32, RunningEntry> = HashMap::new();
        let mut stale_entries = Vec::new();
        for (list, kind) in [
            (self.compute?, ProcessKind::Compute),
            (or_empty(self.graphics)?, ProcessKind::Graphics),
            (or_empty(self.mps)?, ProcessKind::Mps),
        ] {
            for process in list {
                if process.pid == 0 || process.pid > PID_MAX {
                    let (reason, memory) = (Discard::Pid, Err(Missing::Invalid));
                    stale_entries.push(StaleProcessEntry { reason, location: None, memory });
                    continue;
                }
                let memory = match process.memory {
                    None => Err(Missing::Unsupported),
                    Some(bytes) if bytes > FRAMEBUFFER_MAX => Err(Missing::Invalid),
                    Some(bytes) => Ok(bytes),
                };
                running
                    .entry(process.pid)
                    .and_modify(|entry| entry.merge(kind, memory))
                    .or_insert(RunningEntry { kind, memory });
            }
        }
        Ok((running, stale_entries))
    }
}

/// A list that is not supported is empty: boards without graphics or MPS lack these lists. Every
/// board supports compute, so an unsupported list of compute processes is an error, not an empty
/// list.
fn or_empty(list: Result<Vec<RunningProcess>, Missing>) -> Result<Vec<RunningProcess>, Missing> {
    match list {
        Err(Missing::Unsupported) => Ok(Vec::new()),
        other => other,
    }
}

impl RunningEntry {
    /// Merges another list's entry of the same process. Both lists report the same memory; it is
    /// not added.
    fn merge(&mut self, kind: ProcessKind, memory: Result<u64, Missing>) {
        self.memory = match (self.memory, memory) {
            (Ok(one), Ok(other)) => Ok(one.max(other)),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            (Err(one), Err(_)) => Err(one),
        };
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

    /// Every pid is a process that started at `started` with this name, or none is.
    struct FakeProcesses {
        alive: Result<(u64, &'static str), Discard>,
        zombie: bool,
        /// The last known cgroup.
        cached: Option<Arc<CgroupLocation>>,
        uptime: Option<u64>,
    }

    impl ProcessLookup for FakeProcesses {
        fn identify(&mut self, pid: u32) -> Result<ProcessIdentity, Discard> {
            let (started, name) = self.alive?;
            Ok(ProcessIdentity {
                id: ProcessId { pid, started },
                name: name.into(),
                zombie: self.zombie,
            })
        }

        fn locate(&mut self, _: ProcessId) -> Result<Arc<CgroupLocation>, Discard> {
            Ok(Arc::new(CgroupLocation::Host))
        }

        fn locate_exiting(&mut self, _: ProcessId) -> Option<Arc<CgroupLocation>> {
            self.cached.clone()
        }

        fn uptime_ticks(&self) -> Option<u64> {
            self.uptime
        }

        fn recently_exited(&self, pid: u32) -> Option<Arc<CgroupLocation>> {
            (pid == 6).then(|| Arc::new(CgroupLocation::Host))
        }
    }

    fn alive(started: u64) -> FakeProcesses {
        FakeProcesses { alive: Ok((started, "python")), zombie: false, cached: None, uptime: None }
    }

    fn merge(table: &mut ProcessTable, lists: RunningLists, started: u64) -> Vec<ProcessSample> {
        let window = UtilizationWindow::default();
        table.merge(lists, Ok(&window), NOW, &mut alive(started)).unwrap().processes
    }

    #[test]
    fn process_in_both_lists_is_one_entry_with_its_memory_once() {
        let both = [process(7, GIB)];
        let samples = merge(&mut ProcessTable::default(), lists(&both, &both), 1);
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].kind, ProcessKind::ComputeAndGraphics);
        assert_eq!(samples[0].usage.memory, Ok(GIB));
    }

    #[test]
    fn listed_process_without_row_is_idle() {
        let samples = merge(&mut ProcessTable::default(), lists(&[process(7, GIB)], &[]), 1);
        assert_eq!(samples[0].usage.utilization, Ok(EngineUtilization::default()));
    }

    #[test]
    fn utilization_is_missing_if_the_window_is() {
        let mut table = ProcessTable::default();
        let list = lists(&[process(7, GIB)], &[]);
        let listing = table.merge(list, Err(Missing::Pending), NOW, &mut alive(1)).unwrap();
        let usage = Usage { memory: Ok(GIB), utilization: Err(Missing::Pending) };
        assert_eq!(listing.processes[0].usage, usage);
    }

    #[test]
    fn memory_that_the_driver_does_not_report_is_absent() {
        let without_memory = RunningProcess { pid: 7, memory: None };
        let samples = merge(&mut ProcessTable::default(), lists(&[without_memory], &[]), 1);
        assert_eq!(samples[0].usage.memory, Err(Missing::Unsupported));
    }

    #[test]
    fn failed_list_is_an_error() {
        let failed = RunningLists { graphics: Err(Missing::Failed(999)), ..lists(&[], &[]) };
        let window = UtilizationWindow::default();
        let merged = ProcessTable::default().merge(failed, Ok(&window), NOW, &mut alive(1));
        assert_eq!(merged, Err(Missing::Failed(999)));
    }

    #[test]
    fn unsupported_list_of_compute_processes_is_an_error() {
        let unsupported = RunningLists { compute: Err(Missing::Unsupported), ..lists(&[], &[]) };
        let window = UtilizationWindow::default();
        let merged = ProcessTable::default().merge(unsupported, Ok(&window), NOW, &mut alive(1));
        assert_eq!(merged, Err(Missing::Unsupported));
    }

    #[test]
    fn mps_clients_and_servers_have_no_utilization() {
        let running =
            RunningLists { mps: Ok(vec![process(8, GIB)]), ..lists(&[process(7, GIB)], &[]) };
        let mut lookup = FakeProcesses {
            alive: Ok((1, "nvidia-cuda-mps")),
            zombie: false,
            cached: None,
            uptime: None,
        };
        let window = UtilizationWindow::default();
        let listing =
            ProcessTable::default().merge(running, Ok(&window), NOW, &mut lookup).unwrap();
        let utilizations: Vec<_> = listing.processes.iter().map(|p| p.usage.utilization).collect();
        assert_eq!(utilizations, [Err(Missing::Unsupported), Err(Missing::Unsupported)]);
    }

    #[test]
    fn labels_of_a_process_do_not_change_after_it_was_first_seen() {
        let mut table = ProcessTable::default();
        merge(&mut table, lists(&[process(7, GIB)], &[]), 1);
        let window = UtilizationWindow::default();
        let mut renamed =
            FakeProcesses { alive: Ok((1, "renamed")), zombie: false, cached: None, uptime: None };
        let both = lists(&[process(7, GIB)], &[process(7, GIB)]);
        let listing = table.merge(both, Ok(&window), 2 * NOW, &mut renamed).unwrap();
        let later = &listing.processes[0];
        assert_eq!(
            (&*later.name, later.kind, later.first_seen),
            ("python", ProcessKind::Compute, NOW)
        );
    }

    #[test]
    fn list_and_rows_of_a_reused_pid_may_be_those_of_the_previous_process() {
        let mut table = ProcessTable::default();
        merge(&mut table, lists(&[process(7, GIB)], &[]), 1);
        let successor = merge(&mut table, lists(&[process(7, GIB)], &[]), 2);
        let pending = Usage { memory: Err(Missing::Pending), utilization: Err(Missing::Pending) };
        assert_eq!(successor[0].usage, pending, "the entry may be that of the previous process");
        let next = merge(&mut table, lists(&[], &[process(7, GIB)]), 2);
        assert_eq!(next[0].usage, Usage { memory: Ok(GIB), ..pending });
        assert_eq!(next[0].kind, ProcessKind::Graphics, "of the first list that is about it");
        let later = merge(&mut table, lists(&[process(7, GIB)], &[]), 2);
        let usage = Usage { memory: Ok(GIB), utilization: Ok(EngineUtilization::default()) };
        assert_eq!((later[0].usage, later[0].kind), (usage, ProcessKind::Graphics));
    }

    #[test]
    fn entries_without_a_process_are_stale_and_keep_their_memory() {
        let entries = [process(0, 1), process(u32::MAX, 1), process(6, 1)];
        let window = UtilizationWindow::default();
        let mut none_alive =
            FakeProcesses { alive: Err(Discard::Gone), zombie: false, cached: None, uptime: None };
        let listing = ProcessTable::default()
            .merge(lists(&entries, &[]), Ok(&window), NOW, &mut none_alive)
            .unwrap();
        assert_eq!(listing.processes, []);
        let invalid =
            |reason| StaleProcessEntry { reason, location: None, memory: Err(Missing::Invalid) };
        let exited = Some(Arc::new(CgroupLocation::Host));
        assert_eq!(
            listing.stale_entries,
            [
                invalid(Discard::Pid),
                invalid(Discard::Pid),
                StaleProcessEntry { reason: Discard::Gone, location: exited, memory: Ok(1) },
            ]
        );
    }

    #[test]
    fn a_process_with_an_exited_main_thread_is_kept_with_its_last_cgroup() {
        let mut table = ProcessTable::default();
        let entries = || lists(&[process(7, GIB)], &[]);
        merge(&mut table, entries(), 1);
        let window = UtilizationWindow::default();
        let mut zombie = FakeProcesses { zombie: true, ..alive(1) };
        let unknown = table.merge(entries(), Ok(&window), NOW, &mut zombie).unwrap();
        let reasons: Vec<_> = unknown.stale_entries.iter().map(|entry| entry.reason).collect();
        assert_eq!((unknown.processes.len(), reasons), (0, vec![Discard::Zombie]));
        zombie.cached = Some(Arc::new(CgroupLocation::Host));
        let kept = table.merge(entries(), Ok(&window), NOW, &mut zombie).unwrap();
        assert_eq!((kept.processes.len(), kept.stale_entries), (1, vec![]));
        assert_eq!(kept.processes[0].usage.memory, Ok(GIB));
    }

    #[test]
    fn a_process_that_started_after_the_list_was_read_is_another_one() {
        let window = UtilizationWindow::default();
        let merge = |started| {
            let mut lookup = FakeProcesses { uptime: Some(500), ..alive(started) };
            let list = lists(&[process(7, GIB)], &[]);
            ProcessTable::default().merge(list, Ok(&window), NOW, &mut lookup).unwrap()
        };
        assert_eq!(merge(500).processes.len(), 1);
        let reused = merge(501);
        assert_eq!(reused.processes, []);
        assert_eq!(reused.stale_entries[0].reason, Discard::Gone);
    }

    #[test]
    fn a_process_with_an_impossible_framebuffer_is_kept_without_it() {
        let mut table = ProcessTable::default();
        let listed = merge(&mut table, lists(&[process(5, FRAMEBUFFER_MAX + 1)], &[]), 1);
        let usage: Vec<_> = listed.iter().map(|process| process.usage).collect();
        let idle = Ok(EngineUtilization::default());
        assert_eq!(usage, [Usage { memory: Err(Missing::Invalid), utilization: idle }]);
    }

    proptest! {
        #[test]
        fn one_entry_per_pid_for_any_lists(
            compute in prop::collection::vec((0_u32..9, 0_u64..4), 0..12),
            graphics in prop::collection::vec((0_u32..9, 0_u64..4), 0..12),
            mps in prop::collection::vec((0_u32..9, 0_u64..4), 0..12),
        ) {
            let list = |entries: Vec<(u32, u64)>| {
                Ok(entries.into_iter().map(|(pid, gib)| process(pid, gib * GIB)).collect())
            };
            let running = RunningLists {
                compute: list(compute),
                graphics: list(graphics),
                mps: list(mps),
            };
            let window = UtilizationWindow::default();
            let listing = ProcessTable::default()
                .merge(running, Ok(&window), NOW, &mut alive(1))
                .unwrap();
            let mut pids: Vec<_> = listing.processes.iter().map(|p| p.id.pid).collect();
            pids.dedup();
            prop_assert_eq!(pids.len(), listing.processes.len());
            prop_assert!(listing.processes.iter().all(|p| p.usage.memory.unwrap() <= 3 * GIB));
        }
    }
}
