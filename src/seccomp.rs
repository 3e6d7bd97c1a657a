//! Installs a seccomp filter that denies execve, ptrace, `process_vm_*` and module loading: system calls
//! that the exporter never makes.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use libc::{
    SYS_delete_module, SYS_execve, SYS_execveat, SYS_finit_module, SYS_init_module,
    SYS_process_vm_readv, SYS_process_vm_writev, SYS_ptrace,
};
use rustix::io::Errno;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch, sock_filter,
};

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

/// The numbers of x32 begin here; other architectures have none as large.
const X32_BIT: u32 = 0x4000_0000;
/// Offset of the number of the system call in the input of a filter.
const NUMBER_OFFSET: u32 = 0;
/// Instructions of a filter: load a word, compare it with a constant, end with a result.
const LOAD: u16 = 0x20;
const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

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
    let denied_errno = u32::from(deny.clone());
    let arch = TargetArch::try_from(ARCH)?;
    let filter: BpfProgram =
        SeccompFilter::new(denied, SeccompAction::Allow, deny, arch)?.try_into()?;
    // A kernel with the x32 ABI has each system call of x86_64 under other numbers as well.
    let is_x32 = sock_filter { code: JUMP_IF_GREATER_OR_EQUAL, jt: 0, jf: 1, k: X32_BIT };
    let prefix = [statement(LOAD, NUMBER_OFFSET), is_x32, statement(RETURN, denied_errno)];
    Ok([prefix.to_vec(), filter].concat())
}

fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
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

    /// The result of the filter for a system call with this number.
    fn result(number: u32) -> u32 {
        let program = program().unwrap();
        let arch = if ARCH == "x86_64" { 0xc000_003e } else { 0xc000_00b7 };
        let (mut at, mut word) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at].clone();
            at += 1;
            let mut jump = |is_true| at += usize::from(if is_true { jt } else { jf });
            match code {
                LOAD => word = if k == NUMBER_OFFSET { number } else { arch },
                JUMP_IF_GREATER_OR_EQUAL => jump(word >= k),
                0x15 => jump(word == k),
                0x05 => at += usize::try_from(k).unwrap(),
                RETURN => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn system_calls_of_x32_are_denied() {
        let (allow, deny) = (0x7fff_0000, 0x0005_0001);
        let number = |call: i64| u32::try_from(call).unwrap();
        assert_eq!(result(number(libc::SYS_read)), allow);
        for call in DENIED {
            assert_eq!(result(number(call)), deny, "{call}");
            assert_eq!(result(number(call) | X32_BIT), deny, "{call} of x32");
        }
        // x32 has further numbers for some calls, such as 520 for execve.
        for call in 0..1024 {
            assert_eq!(result(call | X32_BIT), deny, "{call} of x32");
        }
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
