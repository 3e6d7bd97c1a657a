//! Prevents stale device nodes. `nvmlInit_v2` as root creates `/dev/nvidiactl` before it checks for
//! the kernel module: without the module, a device node without a driver is left behind.

use std::path::Path;

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// Runs `open`. If the kernel module is not loaded (no `driver/nvidia/version` under the proc
/// root), the calling thread has no `CAP_MKNOD` during the call.
pub fn without_mknod<T>(proc_root: &Path, open: impl FnOnce() -> T) -> T {
    let loaded = proc_root.join("driver/nvidia/version").exists();
    let Some(before) = capabilities(None).ok().filter(|_| !loaded) else { return open() };
    let mut reduced = before;
    reduced.effective.remove(CapabilitySet::MKNOD);
    // Dropping a capability fails only if the thread does not have it.
    let _ = set_capabilities(None, reduced);
    let opened = open();
    let _ = set_capabilities(None, before);
    opened
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_mknod() -> bool {
        capabilities(None).unwrap().effective.contains(CapabilitySet::MKNOD)
    }

    #[test]
    fn mknod_is_dropped_during_the_call_without_a_driver() {
        let root = tempfile::tempdir().unwrap();
        let before = has_mknod();
        assert!(!without_mknod(root.path(), has_mknod));
        assert_eq!(has_mknod(), before);
        std::fs::create_dir_all(root.path().join("driver/nvidia")).unwrap();
        std::fs::write(root.path().join("driver/nvidia/version"), "").unwrap();
        assert_eq!(without_mknod(root.path(), has_mknod), before);
    }
}
