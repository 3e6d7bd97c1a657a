//! A proc root: who a pid is.

pub mod cgroup;
pub mod hpc_jobs;
pub mod placements;
pub mod pod_logs;
pub mod stat;

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::{Discard, Placement, ProcessId};
use crate::policy::CGROUP_TEXT_MAX;

/// The directory that is read as `/proc`.
#[derive(Clone, Debug)]
pub struct ProcRoot {
    root: PathBuf,
}

/// What `/proc/<pid>/stat` says of a living process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Pid and start time.
    pub id: ProcessId,
    /// Its `comm`: at most 15 bytes, the executable's name unless the process renamed itself.
    pub name: Arc<str>,
}

impl ProcRoot {
    /// Reads under `root` instead of `/proc`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Who `pid` is at present, from one read of its `stat`.
    ///
    /// # Errors
    /// It is gone, a zombie, or its entry cannot be read.
    pub fn identify(&self, pid: u32) -> Result<Identity, Discard> {
        let text = self.read(pid, "stat", STAT_TEXT_MAX)?;
        let stat = stat::parse(&text).ok_or(Discard::Unreadable)?;
        if matches!(stat.state, 'Z' | 'X' | 'x') {
            return Err(Discard::Zombie);
        }
        Ok(Identity { id: ProcessId { pid, started: stat.started }, name: stat.name.into() })
    }

    /// Where the process runs, from one read of its `cgroup`.
    ///
    /// # Errors
    /// It is gone, even if another one has its pid by now; it is a zombie, of which some kernels
    /// say that it is on the host; or its entry cannot be read.
    pub fn placement(&self, id: ProcessId) -> Result<Placement, Discard> {
        let cgroup = || self.cgroups(id.pid);
        let text = of_the_same(id, || self.identify(id.pid), cgroup)?;
        Ok(cgroup::parse(&text))
    }

    /// The text of a process's `cgroup`, whoever has the pid now.
    ///
    /// # Errors
    /// It is gone, or its entry cannot be read.
    pub fn cgroups(&self, pid: u32) -> Result<Vec<u8>, Discard> {
        self.read(pid, "cgroup", CGROUP_TEXT_MAX)
    }

    /// Whether we are in the machine's first PID namespace, as far as the tree tells.
    ///
    /// Drivers list only processes of their caller's namespace and of those below it, and drop all
    /// others without a word, so "no process" means idle only there. The first namespace's number
    /// is a constant of the kernel. `self` is the reader whatever tree it is looked up in, so the
    /// host's tree mounted into a container of a namespace of its own does not mislead. A node
    /// that is a container itself (kind) is in another namespace and told so: what runs beside
    /// it stays hidden.
    ///
    /// Nothing is known (`None`) where the link is not there, as in the tree of a foreign
    /// namespace, or says something else.
    #[must_use]
    pub fn in_init_pid_namespace(&self) -> Option<bool> {
        let link = fs::read_link(self.root.join("self/ns/pid")).ok()?;
        let number = link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?;
        Some(number.parse::<u32>().ok()? == INIT_PID_NAMESPACE)
    }

    /// A file of a process, whole.
    fn read(&self, pid: u32, file: &str, limit: u64) -> Result<Vec<u8>, Discard> {
        let path = self.root.join(pid.to_string()).join(file);
        let file = fs::File::open(path).map_err(unread)?;
        let mut text = Vec::new();
        file.take(limit + 1).read_to_end(&mut text).map_err(unread)?;
        // Half of a file may lack the very line that names the pod.
        let whole = u64::try_from(text.len()).is_ok_and(|length| length <= limit);
        if whole { Ok(text) } else { Err(Discard::Unreadable) }
    }
}

/// The longest `stat`, in bytes: some fifty numbers and a short name.
const STAT_TEXT_MAX: u64 = 4 << 10;
/// `PROC_PID_INIT_INO`, the inode of the first PID namespace.
const INIT_PID_NAMESPACE: u32 = 0xEFFF_FFFC;

/// What `read` finds under the pid of `id`, if it was that process's the whole time.
fn of_the_same<T>(
    id: ProcessId,
    identify: impl Fn() -> Result<Identity, Discard>,
    read: impl FnOnce() -> Result<T, Discard>,
) -> Result<T, Discard> {
    let confirm =
        || identify().and_then(|now| if now.id == id { Ok(()) } else { Err(Discard::Gone) });
    confirm()?;
    let found = read();
    confirm()?;
    match found {
        // It lives, so it is the file that is missing.
        Err(Discard::Gone) => Err(Discard::Unreadable),
        found => found,
    }
}

const ESRCH: i32 = 3;

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn unread(error: io::Error) -> Discard {
    let kind = error.kind();
    // A process that ends between open and read answers ESRCH.
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
    fn we_know_ourselves() {
        let me = ProcRoot::new(Path::new("/proc")).identify(std::process::id()).unwrap();
        assert_eq!(me.id.pid, std::process::id());
        assert!(me.id.started > 0);
    }

    #[test]
    fn a_name_may_hold_spaces_and_parentheses() {
        let root = root_with(7, &stat(7, "a) R (b", 'S'));
        let found = ProcRoot::new(root.path()).identify(7).unwrap();
        assert_eq!(
            found,
            Identity { id: ProcessId { pid: 7, started: 4242 }, name: "a) R (b".into() }
        );
    }

    #[test]
    fn placement_is_read_from_the_same_process_only() {
        let id = ProcessId { pid: 7, started: 4242 };
        let root = root_with(7, &stat(7, "python", 'S'));
        let cgroup = root.path().join("7/cgroup");
        let placement = |id| ProcRoot::new(root.path()).placement(id);
        assert_eq!(placement(id), Err(Discard::Unreadable), "a kernel without cgroups");

        let container = "ab".repeat(32);
        fs::write(&cgroup, format!("0::/docker/{container}\n")).unwrap();
        let container = ContainerId::parse(container.as_bytes()).unwrap();
        assert_eq!(placement(id), Ok(Placement::Container(container)));
        assert_eq!(placement(ProcessId { started: 4243, ..id }), Err(Discard::Gone));
        assert_eq!(placement(ProcessId { pid: 8, ..id }), Err(Discard::Gone));

        // It ends and its pid is given away while we read.
        let reused = std::cell::Cell::new(4242);
        let identify = || {
            let id = ProcessId { started: reused.get(), ..id };
            Ok(Identity { id, name: "python".into() })
        };
        assert_eq!(of_the_same(id, identify, || Ok(reused.replace(4243))), Err(Discard::Gone));

        fs::write(root.path().join("7/stat"), stat(7, "python", 'Z')).unwrap();
        assert_eq!(placement(id), Err(Discard::Zombie));
    }

    #[test]
    fn a_cgroup_file_without_end_is_not_believed() {
        let id = ProcessId { pid: 7, started: 4242 };
        let root = root_with(7, &stat(7, "python", 'S'));
        let cgroup = root.path().join("7/cgroup");
        let limit = usize::try_from(CGROUP_TEXT_MAX).unwrap();
        fs::write(&cgroup, "\n".repeat(limit)).unwrap();
        assert_eq!(ProcRoot::new(root.path()).placement(id), Ok(Placement::Host));
        fs::write(&cgroup, "\n".repeat(limit + 1)).unwrap();
        assert_eq!(ProcRoot::new(root.path()).placement(id), Err(Discard::Unreadable));
        fs::remove_file(&cgroup).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &cgroup).unwrap();
        assert_eq!(ProcRoot::new(root.path()).placement(id), Err(Discard::Unreadable));
    }

    #[test]
    fn refusals_have_a_reason_of_their_own() {
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
            assert_eq!(unread(io::Error::from_raw_os_error(code)), reason, "{code}");
        }
    }

    #[test]
    fn the_pid_namespace_is_the_first_one_another_or_unknown() {
        let root = tempfile::tempdir().unwrap();
        let judged = || ProcRoot::new(root.path()).in_init_pid_namespace();
        assert_eq!(judged(), None);
        let namespaces = root.path().join("41/ns");
        fs::create_dir_all(&namespaces).unwrap();
        std::os::unix::fs::symlink("41", root.path().join("self")).unwrap();
        assert_eq!(judged(), None);
        for (link, expected) in [
            ("pid:[4026531836]", Some(true)),
            ("pid:[4026532761]", Some(false)),
            ("pid:[]", None),
            ("mnt:[4026531836]", None),
            ("/nowhere", None),
        ] {
            std::os::unix::fs::symlink(link, namespaces.join("pid")).unwrap();
            assert_eq!(judged(), expected, "{link}");
            fs::remove_file(namespaces.join("pid")).unwrap();
        }
        assert!(ProcRoot::new(Path::new("/proc")).in_init_pid_namespace().is_some());
    }

    #[test]
    fn the_dead_and_the_unreadable_are_told_apart() {
        let zombie = root_with(7, &stat(7, "python", 'Z'));
        assert_eq!(ProcRoot::new(zombie.path()).identify(7), Err(Discard::Zombie));
        assert_eq!(ProcRoot::new(zombie.path()).identify(8), Err(Discard::Gone));
        let endless = format!("7 (x) R {}", "0 ".repeat(4096));
        for rubbish in
            ["", "7", "(", "7 (", "7 (x)", "7 (x) R", "\0\0\0", "7 (x) R x x x", &endless]
        {
            let root = root_with(7, rubbish);
            assert_eq!(
                ProcRoot::new(root.path()).identify(7),
                Err(Discard::Unreadable),
                "{rubbish:?}"
            );
        }
    }
}
