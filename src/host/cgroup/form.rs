//! Which version of control groups a node has, and which driver of the kubelet made them.

use super::{parts, path, pod_uid};

/// What is seen of versions and drivers of control groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four things, each of which is seen or not")]
pub struct Form {
    /// Hierarchies of version 1.
    pub v1: bool,
    /// The one hierarchy of version 2.
    pub v2: bool,
    /// Pods in slices, as the kubelet's driver `systemd` makes them.
    pub systemd: bool,
    /// Pods in plain directories, as its driver `cgroupfs` does.
    pub cgroupfs: bool,
}

impl Form {
    /// What the `cgroup` file of one process shows.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        let mut form = Self::default();
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let is_v2 = line.starts_with(b"0::");
            form.v2 |= is_v2;
            form.v1 |= !is_v2;
            for part in parts(path(line)).filter(|part| pod_uid(part).is_some()) {
                let slice = part.ends_with(b".slice");
                form.systemd |= slice;
                form.cgroupfs |= !slice;
            }
        }
        form
    }

    /// What both show together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
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
    fn versions_and_drivers_are_seen() {
        let form = |text: &str| Form::of(text.as_bytes());
        let none = Form::default();
        let slice = format!("0::/kubepods.slice/kubepods-pod{}.slice\n", UID.replace('-', "_"));
        assert_eq!(form(&slice), Form { v2: true, systemd: true, ..none });
        let plain = format!("4:memory:/kubepods/pod{UID}\n");
        assert_eq!(form(&plain), Form { v1: true, cgroupfs: true, ..none });
        let hybrid = Form { v1: true, v2: true, cgroupfs: true, ..none };
        assert_eq!(form(&format!("{plain}0::/system.slice/kubelet.service\n")), hybrid);
        assert_eq!(form("0::/init.scope\n"), Form { v2: true, ..none });
        assert_eq!(form(""), none);
    }
}
