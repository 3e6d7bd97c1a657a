//! A proc root: who a pid is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use procfs::ProcError;
use procfs::process::Process;

use crate::model::{Discard, ProcessId};

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
        let process = Process::new_with_root(self.root.join(pid.to_string())).map_err(discard)?;
        let stat = process.stat().map_err(discard)?;
        if matches!(stat.state, 'Z' | 'X' | 'x') {
            return Err(Discard::Zombie);
        }
        let id = ProcessId { pid, started: stat.starttime };
        Ok(Identity { id, name: stat.comm.into() })
    }
}

fn discard(error: ProcError) -> Discard {
    const ESRCH: i32 = 3;
    match error {
        ProcError::NotFound(_) => Discard::Gone,
        // A process that ends between open and read answers so.
        ProcError::Io(e, _) if e.raw_os_error() == Some(ESRCH) => Discard::Gone,
        ProcError::Io(..)
        | ProcError::PermissionDenied(_)
        | ProcError::Incomplete(_)
        | ProcError::Other(_)
        | ProcError::InternalError(_) => Discard::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root_with(pid: u32, stat: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let entry = root.path().join(pid.to_string());
        std::fs::create_dir(&entry).unwrap();
        std::fs::write(entry.join("stat"), stat).unwrap();
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
    fn the_dead_and_the_unreadable_are_told_apart() {
        let zombie = root_with(7, &stat(7, "python", 'Z'));
        assert_eq!(ProcRoot::new(zombie.path()).identify(7), Err(Discard::Zombie));
        assert_eq!(ProcRoot::new(zombie.path()).identify(8), Err(Discard::Gone));
        for rubbish in ["", "7", "7 (", "7 (x) R", "\0\0\0", "7 (x) R x x x"] {
            let root = root_with(7, rubbish);
            assert_eq!(
                ProcRoot::new(root.path()).identify(7),
                Err(Discard::Unreadable),
                "{rubbish:?}"
            );
        }
    }
}
