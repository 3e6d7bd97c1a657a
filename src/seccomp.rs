//! Installs a seccomp filter that denies execve, ptrace, `process_vm_*` and module loading: system calls
//! that the exporter never makes.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use libc::{
    SYS_delete_module, SYS_execve, SYS_execveat, SYS_finit_module, SYS_init_module,
    SYS_process_vm_readv, SYS_process_vm_writev, SYS_ptrace,
};
use rustix::io::Errno;
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// System calls that fail with EPERM, also in loaded libraries.
const DENIED: [i64; 8] = [
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
];

/// Why the filter was not installed.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The filter cannot be compiled for this architecture.
    #[error("the filter cannot be compiled for {ARCH}: {0}")]
    Architecture(#[from] BackendError),
    /// The kernel rejected the filter.
    #[error("the kernel rejected the filter: {0}")]
    Kernel(#[from] seccompiler::Error),
}

/// Installs the filter for the calling thread and all threads that it starts afterwards. It cannot be
/// removed. Also sets `no_new_privs`.
///
/// # Errors
/// The architecture or the kernel does not support the filter; nothing has changed then.
pub fn install_filter() -> Result<(), SeccompError> {
    seccompiler::apply_filter(&program()?)?;
    Ok(())
}

fn program() -> Result<BpfProgram, BackendError> {
    let denied: BTreeMap<i64, _> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    let deny = SeccompAction::Errno(Errno::PERM.raw_os_error().unsigned_abs());
    let arch = TargetArch::try_from(ARCH)?;
    SeccompFilter::new(denied, SeccompAction::Allow, deny, arch)?.try_into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "the tests start a program to see it denied")]

    use std::io;
    use std::process::{Command, ExitStatus};
    use std::thread;

    use super::*;

    /// Runs `action` on a new thread with the filter, because the filter cannot be removed.
    fn filtered<T: Send>(action: impl FnOnce() -> T + Send) -> T {
        let action = || {
            install_filter().unwrap();
            action()
        };
        thread::scope(|scope| scope.spawn(action).join().unwrap())
    }

    fn execute() -> io::Result<ExitStatus> {
        Command::new("true").status()
    }

    #[test]
    fn execve_is_denied() {
        assert!(execute().unwrap().success(), "allowed without the filter");
        let denied = filtered(execute).unwrap_err();
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
        let child = filtered(|| thread::spawn(execute).join().unwrap());
        assert!(child.is_err(), "also denied to threads that are started later");
        assert!(execute().unwrap().success(), "other threads have no filter");
    }

    #[test]
    fn filter_can_be_installed_twice() {
        let read = || {
            install_filter().unwrap();
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        };
        let status = filtered(read);
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    }
}
