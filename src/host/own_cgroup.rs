//! The cgroups of the exporter itself.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::ProcRoot;
use super::node_cgroups::cgroup2_mount;

impl ProcRoot {
    /// The cgroup of the exporter and all those above it, innermost first. Empty on a node without cgroup v2.
    ///
    /// # Errors
    /// `self/cgroup` or `self/mountinfo` cannot be read, or no mount shows all of them.
    pub fn own_cgroups(&self) -> io::Result<Vec<PathBuf>> {
        let read = |file| fs::read_to_string(self.path().join("self").join(file));
        let (cgroup, mountinfo) = (read("cgroup")?, read("mountinfo")?);
        let Some(own) = version_2(&cgroup) else { return Ok(Vec::new()) };
        // A container on a node with version 1 may have no mount of the other version.
        let is_mounted = mountinfo.lines().any(|line| cgroup2_mount(line).is_some());
        if !is_mounted && cgroup.lines().any(|line| !line.starts_with("0::")) {
            return Ok(Vec::new());
        }
        let all = self.node_cgroups().and_then(|cgroups| cgroups.with_ancestors(own));
        all.ok_or_else(|| io::Error::other("no mount shows the cgroups above that of the exporter"))
    }
}

/// The path of cgroup v2 in a file `cgroup`.
fn version_2(cgroup: &str) -> Option<&Path> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::")).map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The own cgroups with these contents of files; `MOUNT` is a directory that is a whole hierarchy.
    fn own(cgroup: &str, mountinfo: &str) -> io::Result<Vec<String>> {
        let root = tempfile::tempdir().unwrap();
        let (own, mount) = (root.path().join("self"), root.path().join("hierarchy"));
        fs::create_dir_all(&own).unwrap();
        fs::create_dir_all(&mount).unwrap();
        fs::write(mount.join("cgroup.controllers"), "").unwrap();
        fs::write(own.join("cgroup"), cgroup).unwrap();
        let mountinfo = mountinfo.replace("MOUNT", &mount.display().to_string());
        fs::write(own.join("mountinfo"), mountinfo).unwrap();
        let found = ProcRoot::new(root.path()).own_cgroups()?;
        let below = |path: &PathBuf| path.strip_prefix(&mount).unwrap().display().to_string();
        Ok(found.iter().map(below).collect())
    }

    const WHOLE: &str = "31 22 0:27 / MOUNT ro,nosuid - cgroup2 cgroup rw,nsdelegate\n";

    #[test]
    fn own_cgroup_and_all_above_it_are_paths_of_the_mount() {
        let expected = ["kubepods.slice/pod1/main", "kubepods.slice/pod1", "kubepods.slice", ""];
        assert_eq!(own("0::/kubepods.slice/pod1/main\n", WHOLE).unwrap(), expected);
        let system = "0::/system.slice/nvml-exporter.service\n";
        assert_eq!(own(system, WHOLE).unwrap().len(), 3, "a systemd unit");
    }

    #[test]
    fn cgroups_that_no_mount_shows_are_an_error() {
        let none = "22 1 0:21 / /proc rw - proc proc rw\n";
        let namespace = WHOLE.replace("MOUNT", "/no/such/directory");
        for (cgroup, mounts) in
            [("0::/\n", none), ("0::/\n", namespace.as_str()), ("0::/../other\n", WHOLE)]
        {
            assert!(own(cgroup, mounts).is_err(), "{cgroup}{mounts}");
        }
    }

    #[test]
    fn no_path_without_version_2() {
        let none = "22 1 0:21 / /proc rw - proc proc rw\n";
        assert!(own("4:memory:/pod1\n", WHOLE).unwrap().is_empty());
        assert!(own("4:memory:/pod1\n0::/\n", none).unwrap().is_empty(), "no mount of it");
    }
}
