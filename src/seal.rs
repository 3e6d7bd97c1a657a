//! What this process never does, the kernel refuses it: to execute a program, and to look into other
//! processes or change the kernel.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use libc::{
    SYS_delete_module, SYS_execve, SYS_execveat, SYS_finit_module, SYS_init_module,
    SYS_process_vm_readv, SYS_process_vm_writev, SYS_ptrace,
};
use rustix::io::Errno;
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// System calls that answer "not permitted" from then on, also to the libraries that are loaded.
const FORBIDDEN: [i64; 8] = [
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
];

/// Why the kernel does not refuse it.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// No filter can be made for this machine.
    #[error("no filter of system calls for {ARCH}: {0}")]
    Architecture(#[from] BackendError),
    /// The kernel takes no filter.
    #[error("the kernel takes no filter of system calls: {0}")]
    Kernel(#[from] seccompiler::Error),
}

/// Seals the calling thread and all that it will start, for ever. Nothing that is started can gain
/// privileges after that, either (`no_new_privs`).
///
/// # Errors
/// The machine or the kernel does not know how to; nothing has changed then.
pub fn seal() -> Result<(), SealError> {
    seccompiler::apply_filter(&program()?)?;
    Ok(())
}

fn program() -> Result<BpfProgram, BackendError> {
    let forbidden: BTreeMap<i64, _> = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(Errno::PERM.raw_os_error().unsigned_abs());
    let machine = TargetArch::try_from(ARCH)?;
    SeccompFilter::new(forbidden, SeccompAction::Allow, refuse, machine)?.try_into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a program is started, to see that refused")]

    use std::io;
    use std::process::{Command, ExitStatus};
    use std::thread;

    use super::*;

    /// What a thread of its own sees, since a seal is for ever.
    fn sealed<T: Send>(look: impl FnOnce() -> T + Send) -> T {
        let look = || {
            seal().unwrap();
            look()
        };
        thread::scope(|scope| scope.spawn(look).join().unwrap())
    }

    fn start() -> io::Result<ExitStatus> {
        Command::new("true").status()
    }

    #[test]
    fn no_program_can_be_executed() {
        assert!(start().unwrap().success(), "it can be without a seal");
        let refused = sealed(start).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let child = sealed(|| thread::spawn(start).join().unwrap());
        assert!(child.is_err(), "nor by a thread that is started later");
        assert!(start().unwrap().success(), "other threads are as before");
    }

    #[test]
    fn it_can_be_sealed_twice_and_goes_on() {
        let read = || {
            seal().unwrap();
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        };
        let status = sealed(read);
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    }
}
