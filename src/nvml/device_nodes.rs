//! No stray device nodes. Initialised as root, the driver's library makes `/dev/nvidiactl` first and
//! looks for the driver afterwards: on a node without one it leaves a node that leads nowhere.

use std::path::Path;

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// Runs `open`. Unless the kernel has a driver loaded (`driver/nvidia/version` under the proc root),
/// the calling thread may make no device nodes meanwhile.
pub fn spared<T>(proc_root: &Path, open: impl FnOnce() -> T) -> T {
    let loaded = proc_root.join("driver/nvidia/version").exists();
    let Some(before) = capabilities(None).ok().filter(|_| !loaded) else { return open() };
    let mut spared = before;
    spared.effective.remove(CapabilitySet::MKNOD);
    // A thread that cannot give the right up does not have it.
    let _ = set_capabilities(None, spared);
    let opened = open();
    let _ = set_capabilities(None, before);
    opened
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may_make_nodes() -> bool {
        capabilities(None).unwrap().effective.contains(CapabilitySet::MKNOD)
    }

    #[test]
    fn the_right_is_given_up_for_the_call_and_only_without_a_driver() {
        let root = tempfile::tempdir().unwrap();
        let before = may_make_nodes();
        assert!(!spared(root.path(), may_make_nodes));
        assert_eq!(may_make_nodes(), before);
        std::fs::create_dir_all(root.path().join("driver/nvidia")).unwrap();
        std::fs::write(root.path().join("driver/nvidia/version"), "").unwrap();
        assert_eq!(spared(root.path(), may_make_nodes), before);
    }
}
