//! Reads `/proc` (identity and cgroup of a process, PID namespace of the exporter), pod logs and the PCI bus.

pub mod cgroup;
pub mod cgroup_cache;
pub mod hpc_jobs;
pub mod node_cgroups;
mod own_cgroup;
pub mod own_process;
pub mod pci_bus;
pub mod pod_logs;
pub mod stat;

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use self::node_cgroups::NodeCgroups;
use crate::model::{CgroupLocation, Discard, PodUid, ProcessId};
use crate::policy::CGROUP_TEXT_MAX;

/// The directory that is read as `/proc`.
#[derive(Clone, Debug)]
pub struct ProcRoot {
    root: PathBuf,
    /// Found once: the mounts of a container do not change.
    node_cgroups: Arc<OnceLock<Option<NodeCgroups>>>,
}

/// Identity of a living process, from `/proc/<pid>/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// Pid and start time.
    pub id: ProcessId,
    /// Its `comm`: at most 15 bytes; the executable's name unless the process changed it.
    pub name: Arc<str>,
    /// Whether its main thread has exited. Other threads may still run.
    pub zombie: bool,
}

impl ProcRoot {
    /// Reads under `root` instead of `/proc`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), node_cgroups: Arc::default() }
    }

    /// The node's cgroups (version 2); `None` if no mount shows them.
    #[must_use]
    pub fn node_cgroups(&self) -> Option<&NodeCgroups> {
        let find = || {
            let mountinfo = fs::read_to_string(self.root.join("self/mountinfo")).ok()?;
            NodeCgroups::find(&mountinfo)
        };
        self.node_cgroups.get_or_init(find).as_ref()
    }

    /// Path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Identifies the process that has `pid` now, from one read of its `stat`.
    ///
    /// # Errors
    /// The process has exited, or its entry cannot be read.
    pub fn identify(&self, pid: u32) -> Result<ProcessIdentity, Discard> {
        let text = self.read(pid, "stat", STAT_TEXT_MAX)?;
        let stat = stat::parse(&text).ok_or(Discard::Unreadable)?;
        let zombie = matches!(stat.state, 'Z' | 'X' | 'x');
        let id = ProcessId { pid, started: stat.started };
        Ok(ProcessIdentity { id, name: stat.name.into(), zombie })
    }

    /// Time since boot in the unit of [`ProcessId::started`], from `uptime`; `None` if the file
    /// cannot be read.
    #[must_use]
    pub fn uptime_ticks(&self) -> Option<u64> {
        let text = fs::read_to_string(self.root.join("uptime")).ok()?;
        let (seconds, hundredths) = text.split_whitespace().next()?.split_once('.')?;
        let seconds: u64 = seconds.parse().ok()?;
        seconds.checked_mul(TICKS_PER_SECOND)?.checked_add(hundredths.parse().ok()?)
    }

    /// Pods that the node itself runs in, if it is a container: those in the cgroup path of its
    /// first process.
    #[must_use]
    pub fn node_pods(&self) -> Vec<PodUid> {
        let location = self.identify(1).and_then(|init| self.cgroup_location(init.id));
        match location {
            Ok(CgroupLocation::Pod(paths)) => paths.into_iter().map(|path| path.uid).collect(),
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    /// The container, pod or host that the process runs in, from one read of its `cgroup`.
    ///
    /// # Errors
    /// The process has exited (also if its pid was reused), it is a zombie (some kernels report
    /// the root cgroup for those), or its entry cannot be read.
    pub fn cgroup_location(&self, id: ProcessId) -> Result<CgroupLocation, Discard> {
        let cgroup = || self.cgroup_text(id.pid);
        let text = read_of_same_process(id, || self.identify(id.pid), cgroup)?;
        Ok(cgroup::parse(&text))
    }

    /// The content of `/proc/<pid>/cgroup` of the process that has `pid` now.
    ///
    /// # Errors
    /// The process has exited, or its entry cannot be read.
    pub fn cgroup_text(&self, pid: u32) -> Result<Vec<u8>, Discard> {
        self.read(pid, "cgroup", CGROUP_TEXT_MAX)
    }

    /// Whether the exporter runs in the host's (initial) PID namespace, from `self/ns/pid`.
    ///
    /// The driver lists only processes of the caller's PID namespace and its descendants and
    /// silently omits all others, so an empty process list means "idle" only in the initial
    /// namespace. Its inode number is a kernel constant. `self` always resolves to the reader, so a
    /// host `/proc` mounted into a container with its own PID namespace gives the correct result. A
    /// node that is a container itself (kind) is in another namespace: `Some(false)`, since
    /// processes outside of that container are hidden.
    ///
    /// `None` if the link does not exist (a `/proc` of another namespace) or has an unexpected
    /// target.
    #[must_use]
    pub fn in_init_pid_namespace(&self) -> Option<bool> {
        let link = fs::read_link(self.root.join("self/ns/pid")).ok()?;
        let number = link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?;
        Some(number.parse::<u32>().ok()? == INIT_PID_NAMESPACE)
    }

    /// Reads a whole file of a process, of at most `limit` bytes.
    fn read(&self, pid: u32, file: &str, limit: u64) -> Result<Vec<u8>, Discard> {
        let path = self.root.join(pid.to_string()).join(file);
        let file = fs::File::open(path).map_err(discard_reason)?;
        let mut text = Vec::new();
        file.take(limit + 1).read_to_end(&mut text).map_err(discard_reason)?;
        // A truncated file may lack the line that names the pod.
        let whole = u64::try_from(text.len()).is_ok_and(|length| length <= limit);
        if whole { Ok(text) } else { Err(Discard::Unreadable) }
    }
}

/// `USER_HZ`: the unit of times in `/proc`, and hundredths of seconds in `uptime`.
const TICKS_PER_SECOND: u64 = 100;
/// Maximum size of `stat` in bytes: about fifty numbers and a short name.
const STAT_TEXT_MAX: u64 = 4 << 10;
/// `PROC_PID_INIT_INO`, the inode of the initial PID namespace.
const INIT_PID_NAMESPACE: u32 = 0xEFFF_FFFC;

/// Returns the result of `read` if the pid belonged to process `id` before and after the read.
fn read_of_same_process<T>(
    id: ProcessId,
    identify: impl Fn() -> Result<ProcessIdentity, Discard>,
    read: impl FnOnce() -> Result<T, Discard>,
) -> Result<T, Discard> {
    let confirm = || match identify()? {
        now if now.id != id => Err(Discard::Gone),
        now if now.zombie => Err(Discard::Zombie),
        _ => Ok(()),
    };
    confirm()?;
    let found = read();
    confirm()?;
    match found {
        // The process is alive, so the file itself is missing.
        Err(Discard::Gone) => Err(Discard::Unreadable),
        found => found,
    }
}

const ESRCH: i32 = 3;

#[expect(clippy::needless_pass_by_value, reason = "it is passed to map_err")]
fn discard_reason(error: io::Error) -> Discard {
    let kind = error.kind();
    // Reading the file of a process that exits after open fails with ESRCH.
    if kind == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH) {
        Discard::Gone
    } else if kind == io::ErrorKind::PermissionDenied {
        Discard::Denied
    } else {
        Discard::Unreadable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ContainerId;

    fn root_with(pid: u32, stat: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let entry = root.path().join(pid.to_string());
        fs::create_dir(&entry).unwrap();
        fs::write(entry.join("stat"), stat).unwrap();
        root
    }

    fn stat(pid: u32, comm: &str, state: char) -> String {
        let tail = "0 ".repeat(30);
        format!(
            "{pid} ({comm}) {state} 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0 \
             18446744073709551615 {tail}"
        )
    }

    #[test]
    fn own_process_is_identified() {
        let me = ProcRoot::new(Path::new("/proc")).identify(std::process::id()).unwrap();
        assert_eq!(me.id.pid, std::process::id());
        assert!(me.id.started > 0);
    }

    #[test]
    fn process_name_may_contain_spaces_and_parentheses() {
        let root = root_with(7, &stat(7, "a) R (b", 'S'));
        let found = ProcRoot::new(root.path()).identify(7).unwrap();
        assert_eq!(
            found,
            ProcessIdentity {
                id: ProcessId { pid: 7, started: 4242 },
                name: "a) R (b".into(),
                zombie: false
            }
        );
    }

    #[test]
    fn placement_is_read_from_the_same_process_only() {
        let id = ProcessId { pid: 7, started: 4242 };
        let root = root_with(7, &stat(7, "python", 'S'));
        let cgroup = root.path().join("7/cgroup");
        let placement = |id| ProcRoot::new(root.path()).cgroup_location(id);
        assert_eq!(placement(id), Err(Discard::Unreadable), "a kernel without cgroups");

        let container = "ab".repeat(32);
        fs::write(&cgroup, format!("0::/docker/{container}\n")).unwrap();
        let container = ContainerId::parse(container.as_bytes()).unwrap();
        assert_eq!(placement(id), Ok(CgroupLocation::Container(container)));
        assert_eq!(placement(ProcessId { started: 4243, ..id }), Err(Discard::Gone));
        assert_eq!(placement(ProcessId { pid: 8, ..id }), Err(Discard::Gone));

        // The process exits and its pid is reused during the read.
        let reused = std::cell::Cell::new(4242);
        let identify = || {
            let id = ProcessId { started: reused.get(), ..id };
            Ok(ProcessIdentity { id, name: "python".into(), zombie: false })
        };
        assert_eq!(
            read_of_same_process(id, identify, || Ok(reused.replace(4243))),
            Err(Discard::Gone)
        );

        fs::write(root.path().join("7/stat"), stat(7, "python", 'Z')).unwrap();
        assert_eq!(placement(id), Err(Discard::Zombie));
    }

    #[test]
    fn oversized_cgroup_file_is_unreadable() {
        let id = ProcessId { pid: 7, started: 4242 };
        let root = root_with(7, &stat(7, "python", 'S'));
        let cgroup = root.path().join("7/cgroup");
        let limit = usize::try_from(CGROUP_TEXT_MAX).unwrap();
        fs::write(&cgroup, "\n".repeat(limit)).unwrap();
        assert_eq!(ProcRoot::new(root.path()).cgroup_location(id), Ok(CgroupLocation::Host));
        fs::write(&cgroup, "\n".repeat(limit + 1)).unwrap();
        assert_eq!(ProcRoot::new(root.path()).cgroup_location(id), Err(Discard::Unreadable));
        fs::remove_file(&cgroup).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &cgroup).unwrap();
        assert_eq!(ProcRoot::new(root.path()).cgroup_location(id), Err(Discard::Unreadable));
    }

    #[test]
    fn io_errors_map_to_discard_reasons() {
        const EPERM: i32 = 1;
        const EACCES: i32 = 13;
        const EIO: i32 = 5;
        for (code, reason) in [
            (EPERM, Discard::Denied),
            (EACCES, Discard::Denied),
            (ESRCH, Discard::Gone),
            (2, Discard::Gone),
            (EIO, Discard::Unreadable),
        ] {
            assert_eq!(discard_reason(io::Error::from_raw_os_error(code)), reason, "{code}");
        }
    }

    #[test]
    fn pid_namespace_is_initial_other_or_unknown() {
        let root = tempfile::tempdir().unwrap();
        let detected = || ProcRoot::new(root.path()).in_init_pid_namespace();
        assert_eq!(detected(), None);
        let namespaces = root.path().join("41/ns");
        fs::create_dir_all(&namespaces).unwrap();
        std::os::unix::fs::symlink("41", root.path().join("self")).unwrap();
        assert_eq!(detected(), None);
        for (link, expected) in [
            ("pid:[4026531836]", Some(true)),
            ("pid:[4026532761]", Some(false)),
            ("pid:[]", None),
            ("mnt:[4026531836]", None),
            ("/nowhere", None),
        ] {
            std::os::unix::fs::symlink(link, namespaces.join("pid")).unwrap();
            assert_eq!(detected(), expected, "{link}");
            fs::remove_file(namespaces.join("pid")).unwrap();
        }
        assert!(ProcRoot::new(Path::new("/proc")).in_init_pid_namespace().is_some());
    }

    #[test]
    fn time_since_boot_has_the_unit_of_start_times() {
        let root = tempfile::tempdir().unwrap();
        let uptime = |text: &str| {
            fs::write(root.path().join("uptime"), text).unwrap();
            ProcRoot::new(root.path()).uptime_ticks()
        };
        assert_eq!(uptime("12345.67 2.00\n"), Some(1_234_567));
        for invalid in ["", "x", "12", "1.x", "99999999999999999999.00"] {
            assert_eq!(uptime(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn the_node_is_in_the_pods_of_its_first_process() {
        let root = root_with(1, &stat(1, "systemd", 'S'));
        let uid = "3f6a1c58-90de-4b27-a1f4-0c9d5e7b2a63";
        let node_pods = || ProcRoot::new(root.path()).node_pods();
        fs::write(root.path().join("1/cgroup"), "0::/init.scope\n").unwrap();
        assert_eq!(node_pods(), []);
        let path = format!("0::/kubepods/pod{uid}/{}/init.scope\n", "ab".repeat(32));
        fs::write(root.path().join("1/cgroup"), path).unwrap();
        assert_eq!(node_pods(), [PodUid::parse(uid.as_bytes()).unwrap()]);
    }

    #[test]
    fn dead_and_unreadable_processes_have_different_reasons() {
        let zombie = root_with(7, &stat(7, "python", 'Z'));
        assert!(ProcRoot::new(zombie.path()).identify(7).unwrap().zombie);
        assert_eq!(ProcRoot::new(zombie.path()).identify(8), Err(Discard::Gone));
        let oversized = format!("7 (x) R {}", "0 ".repeat(4096));
        for invalid in
            ["", "7", "(", "7 (", "7 (x)", "7 (x) R", "\0\0\0", "7 (x) R x x x", &oversized]
        {
            let root = root_with(7, invalid);
            assert_eq!(
                ProcRoot::new(root.path()).identify(7),
                Err(Discard::Unreadable),
                "{invalid:?}"
            );
        }
    }
}
