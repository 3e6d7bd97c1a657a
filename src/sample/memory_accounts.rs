//! Reads the driver's accounts of the memory of containers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::host::ProcRoot;
use crate::model::{CgroupLocation, ContainerId, MemoryAccount, Missing, ProcessSample};
use crate::nvml::raw::memory_limits::CgroupMemory;
use crate::policy::Tier;

/// The containers that have been seen on a GPU. One without a listed process stays as long as the driver
/// has an account of its cgroup: its limit remains. If the driver does not answer, it remains unknown.
#[derive(Default)]
pub(super) struct MemoryAccounts(BTreeMap<ContainerId, ContainerAccount>);

struct ContainerAccount {
    location: Arc<CgroupLocation>,
    /// Directory of its cgroup; `None` if the exporter cannot see it.
    cgroup: Option<CString>,
    /// Whether the last account had a hard limit.
    limited: bool,
    /// When it was last read (monotonic), and the result.
    reading: Option<(Duration, Result<Option<CgroupMemory>, Missing>)>,
}

impl MemoryAccounts {
    /// The accounts at `now` (monotonic), read again if `tier` is due. `total` is the framebuffer, bytes.
    pub(super) fn read(
        &mut self,
        root: &ProcRoot,
        processes: &[ProcessSample],
        (tier, now): (Tier, Duration),
        total: Option<u64>,
        read: impl Fn(&CString) -> Result<Option<CgroupMemory>, Missing>,
    ) -> Vec<MemoryAccount> {
        let listed = self.add_new(root, processes);
        self.0.retain(|id, account| {
            if let Some(cgroup) = &account.cgroup
                && tier.due(account.reading.map(|(at, _)| at), now)
            {
                let reading = read(cgroup);
                if let Ok(memory) = reading {
                    account.limited = memory.is_some_and(|memory| memory.hard.is_some());
                }
                account.reading = Some((now, reading));
            }
            account.is_alive() || listed.contains(&id)
        });
        self.0.values().filter_map(|account| account.current(total)).collect()
    }

    /// Adds the containers that are new among the processes, and returns those of all processes.
    fn add_new<'a>(
        &mut self,
        root: &ProcRoot,
        processes: &'a [ProcessSample],
    ) -> Vec<&'a ContainerId> {
        let mut listed = Vec::new();
        for process in processes {
            let Ok(location) = &process.location else { continue };
            let CgroupLocation::Pod(pods) = &**location else { continue };
            let Some(id) = pods.first().and_then(|pod| pod.container.as_ref()) else { continue };
            listed.push(id);
            if let Entry::Vacant(entry) = self.0.entry(id.clone()) {
                let cgroup = root.container_cgroup(process.id.pid, location);
                entry.insert(ContainerAccount {
                    location: Arc::clone(location),
                    cgroup: cgroup.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok()),
                    limited: false,
                    reading: None,
                });
            }
        }
        listed
    }
}

impl ContainerAccount {
    /// Whether the driver has an account of the container, or had a limit of it and does not answer now.
    fn is_alive(&self) -> bool {
        match self.reading {
            Some((_, Ok(memory))) => memory.is_some(),
            Some((_, Err(Missing::Lost | Missing::DriverGone))) | None => false,
            Some((_, Err(_))) => self.limited && self.exists(),
        }
    }

    /// Whether its cgroup exists.
    fn exists(&self) -> bool {
        let directory =
            self.cgroup.as_ref().map(|path| Path::new(OsStr::from_bytes(path.as_bytes())));
        directory.is_some_and(Path::is_dir)
    }

    /// The account, if the driver has one; invalid beyond the framebuffer of the GPU. A limit that cannot be read any
    /// more is unknown: what the scheduler allocated is not what the container can use.
    fn current(&self, total: Option<u64>) -> Option<MemoryAccount> {
        let is_possible = |bytes: &u64| total.is_none_or(|total| *bytes <= total);
        let (hard_limit, charged) = match self.reading?.1 {
            Ok(memory) => {
                let memory = memory?;
                let charged = Some(memory.used).filter(is_possible).ok_or(Missing::Invalid);
                (Ok(memory.hard.filter(is_possible)), charged)
            }
            Err(missing) if self.limited => (Err(missing), Err(missing)),
            Err(_) => return None,
        };
        let location = Arc::clone(&self.location);
        Some(MemoryAccount { location, hard_limit, charged })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::fs;

    use crate::model::{ProcessId, ProcessKind, Usage};

    const SECOND: Duration = Duration::from_secs(1);
    const MEMORY: CgroupMemory = CgroupMemory { soft: 0, hard: Some(8), used: 3 };

    /// The node's cgroups are in the directory `cgroups` of the proc root.
    struct AccountFixture {
        proc_root: tempfile::TempDir,
        accounts: MemoryAccounts,
        answer: Result<Option<CgroupMemory>, Missing>,
        reads: Cell<u32>,
    }

    impl AccountFixture {
        fn new() -> Self {
            let proc_root = tempfile::tempdir().unwrap();
            let mount = proc_root.path().join("cgroups").display().to_string();
            let directory = proc_root.path().join("self");
            fs::create_dir(&directory).unwrap();
            let text = format!("31 22 0:27 / {mount} ro - cgroup2 cgroup rw\n");
            fs::write(directory.join("mountinfo"), text).unwrap();
            let (accounts, answer) = (MemoryAccounts::default(), Ok(Some(MEMORY)));
            Self { proc_root, accounts, answer, reads: Cell::new(0) }
        }

        fn process(&self, pid: u32, id: &str) -> ProcessSample {
            let pod = "3f6a1c58-90de-4b27-a1f4-0c9d5e7b2a63";
            let text = format!("0::/kubepods/pod{pod}/{}\n", id.repeat(32));
            let directory = self.proc_root.path().join(pid.to_string());
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("cgroup"), &text).unwrap();
            ProcessSample {
                id: ProcessId { pid, started: 1 },
                name: "p".into(),
                kind: ProcessKind::Compute,
                first_seen: Duration::ZERO,
                location: Ok(Arc::new(crate::host::cgroup::parse(text.as_bytes()))),
                usage: Usage { memory: Ok(2), utilization: Err(Missing::Pending) },
            }
        }

        fn read(&mut self, processes: &[ProcessSample], at: u32) -> Vec<MemoryAccount> {
            let root = ProcRoot::new(self.proc_root.path());
            let (answer, reads) = (self.answer, &self.reads);
            let read = |cgroup: &CString| {
                let cgroup = Path::new(OsStr::from_bytes(cgroup.as_bytes()));
                let pods = self.proc_root.path().join("cgroups/kubepods");
                assert!(cgroup.starts_with(pods), "{cgroup:?}");
                reads.set(reads.get() + 1);
                answer
            };
            self.accounts.read(&root, processes, (Tier::Slow, SECOND * at), Some(10), read)
        }
    }

    #[test]
    fn account_is_one_per_container_and_outlives_its_processes() {
        let mut fixture = AccountFixture::new();
        let processes =
            [fixture.process(1, "aa"), fixture.process(2, "aa"), fixture.process(3, "bb")];
        let found = fixture.read(&processes, 0);
        let limits: Vec<_> = found.iter().map(|one| (one.hard_limit, one.charged)).collect();
        assert_eq!(limits, [(Ok(Some(8)), Ok(3)); 2]);
        assert_eq!(fixture.reads.get(), 2);
        assert_eq!(fixture.read(&[], 1).len(), 2);
        assert_eq!(fixture.reads.get(), 2, "slowly");
        fixture.answer = Err(Missing::Failed(17));
        let failed = fixture.read(&processes[..1], 100);
        let unknown: Vec<_> = failed.iter().map(|one| (one.hard_limit, one.charged)).collect();
        let missing = Missing::Failed(17);
        assert_eq!(
            unknown,
            [(Err(missing), Err(missing))],
            "no old value, and none of another kind"
        );
        assert_eq!(fixture.accounts.0.len(), 1, "the cgroup of the other has been removed");
        // While the cgroup exists, the limit is unknown rather than that of the scheduler.
        let id =
            format!("cgroups/kubepods/pod3f6a1c58-90de-4b27-a1f4-0c9d5e7b2a63/{}", "aa".repeat(32));
        let directory = fixture.proc_root.path().join(id);
        fs::create_dir_all(&directory).unwrap();
        let idle = fixture.read(&[], 150);
        assert_eq!(idle.iter().map(|one| one.hard_limit).collect::<Vec<_>>(), [Err(missing)]);
        fs::remove_dir(directory).unwrap();
        assert_eq!(fixture.read(&[], 200), []);
        assert!(fixture.accounts.0.is_empty());
    }

    #[test]
    fn value_beyond_the_framebuffer_is_invalid() {
        let mut fixture = AccountFixture::new();
        fixture.answer = Ok(Some(CgroupMemory { soft: 0, hard: Some(11), used: u64::MAX }));
        let process = [fixture.process(1, "aa")];
        let found = fixture.read(&process, 0);
        assert_eq!((found[0].hard_limit, found[0].charged), (Ok(None), Err(Missing::Invalid)));
    }

    #[test]
    fn container_without_a_limit_or_a_visible_cgroup_has_no_account() {
        let mut fixture = AccountFixture::new();
        fixture.answer = Ok(None);
        let process = [fixture.process(1, "aa")];
        assert_eq!(fixture.read(&process, 0), []);
        let mut fixture = AccountFixture::new();
        fs::write(fixture.proc_root.path().join("self/mountinfo"), "").unwrap();
        let process = [fixture.process(1, "aa")];
        assert_eq!(fixture.read(&process, 0), []);
        assert_eq!(fixture.reads.get(), 0);
    }
}
