//! Detects the cgroup version of a node and the cgroup driver of its kubelet.

use super::{path, path_components, pod_uid};

/// cgroup versions and kubelet cgroup drivers that occur in `/proc/<pid>/cgroup`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four independent observations")]
pub struct CgroupVersion {
    /// cgroup v1 hierarchies.
    pub v1: bool,
    /// The unified hierarchy of cgroup v2.
    pub v2: bool,
    /// Pods in slices: kubelet cgroup driver `systemd`.
    pub systemd: bool,
    /// Pods in plain directories: kubelet cgroup driver `cgroupfs`.
    pub cgroupfs: bool,
}

impl CgroupVersion {
    /// Detects them in the `cgroup` file of one process.
    #[must_use]
    pub fn detect(text: &[u8]) -> Self {
        let mut form = Self::default();
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let is_v2 = line.starts_with(b"0::");
            form.v2 |= is_v2;
            form.v1 |= !is_v2;
            for part in path_components(path(line)).filter(|part| pod_uid(part).is_some()) {
                let slice = part.ends_with(b".slice");
                form.systemd |= slice;
                form.cgroupfs |= !slice;
            }
        }
        form
    }

    /// The union of both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            v1: self.v1 || other.v1,
            v2: self.v2 || other.v2,
            systemd: self.systemd || other.systemd,
            cgroupfs: self.cgroupfs || other.cgroupfs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "3f6a1c58-90de-4b27-a1f4-0c9d5e7b2a63";

    #[test]
    fn versions_and_drivers_are_detected() {
        let form = |text: &str| CgroupVersion::detect(text.as_bytes());
        let none = CgroupVersion::default();
        let slice = format!("0::/kubepods.slice/kubepods-pod{}.slice\n", UID.replace('-', "_"));
        assert_eq!(form(&slice), CgroupVersion { v2: true, systemd: true, ..none });
        let plain = format!("4:memory:/kubepods/pod{UID}\n");
        assert_eq!(form(&plain), CgroupVersion { v1: true, cgroupfs: true, ..none });
        let hybrid = CgroupVersion { v1: true, v2: true, cgroupfs: true, ..none };
        assert_eq!(form(&format!("{plain}0::/system.slice/kubelet.service\n")), hybrid);
        assert_eq!(form("0::/init.scope\n"), CgroupVersion { v2: true, ..none });
        assert_eq!(form(""), none);
    }
}
