//! The directory of a container's cgroup.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::{container_id, parse, path, path_components};
use crate::host::ProcRoot;
use crate::host::own_cgroup::cgroup2_mount;
use crate::model::{CgroupLocation, ContainerId};

impl ProcRoot {
    /// Directory of the cgroup (v2) of the container that `pid` runs in, as the exporter sees it. `None`
    /// if no mount shows it, and unless the process is in one container, at `location`.
    #[must_use]
    pub fn container_cgroup(&self, pid: u32, location: &CgroupLocation) -> Option<PathBuf> {
        let CgroupLocation::Pod(pods) = location else { return None };
        // On a node that is a container itself, it depends on the pods which container is meant.
        let [pod] = pods.as_slice() else { return None };
        let id = pod.container.as_ref()?;
        let text = self.cgroup_text(pid).ok()?;
        let mounts = fs::read_to_string(self.path().join("self/mountinfo")).ok()?;
        (parse(&text) == *location).then(|| directory(&text, &mounts, id))?
    }
}

/// The directory of the container from the contents of `cgroup` and of the exporter's `mountinfo`.
fn directory(cgroup: &[u8], mountinfo: &str, id: &ContainerId) -> Option<PathBuf> {
    let mut lines = cgroup.split(|byte| *byte == b'\n');
    let line = path(lines.find(|line| line.starts_with(b"0::"))?);
    let is_container = |segment: &[u8]| {
        path_components(segment).any(|part| container_id(part).as_ref() == Some(id))
    };
    let mut container = PathBuf::from("/");
    // What is below is made by the container.
    let mut segments = line.split(|byte| *byte == b'/');
    segments.find(|segment| {
        container.push(OsStr::from_bytes(segment));
        is_container(segment)
    })?;
    mountinfo.lines().filter_map(cgroup2_mount).find_map(|(root, mount)| {
        let inner = container.strip_prefix(root).ok()?;
        let is_visible = !inner.components().any(|part| part == Component::ParentDir);
        is_visible.then(|| Path::new(mount).join(inner))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "/kubepods.slice/kubepods-pod3f6a1c58_90de_4b27_a1f4_0c9d5e7b2a63.slice";

    fn mounts(roots: &[(&str, &str)]) -> String {
        let line = |(root, mount): &(&str, &str)| {
            format!("31 22 0:27 {root} {mount} ro - cgroup2 cgroup rw\n")
        };
        roots.iter().map(line).collect()
    }

    #[test]
    fn directory_is_that_of_the_container_in_the_first_mount_that_shows_it() {
        let id = "ab".repeat(32);
        let scope = format!("{POD}/cri-containerd-{id}.scope");
        let find = |cgroup: String, roots: &[(&str, &str)]| {
            let id = ContainerId::parse(id.as_bytes()).unwrap();
            directory(cgroup.as_bytes(), &mounts(roots), &id)
        };
        let (own, host) = (("/", "/sys/fs/cgroup"), ("/../..", "/host/cgroup"));
        let expected = |mount: &str| Some(PathBuf::from(format!("{mount}{scope}")));
        assert_eq!(find(format!("0::{scope}\n"), &[own]), expected("/sys/fs/cgroup"));
        let nested = format!("4:memory:/x\n0::{scope}/system.slice/a.service (deleted)\n");
        assert_eq!(find(nested, &[own]), expected("/sys/fs/cgroup"));
        // A namespace of the exporter's own shows others with the host's mount only.
        let outside = format!("0::/../..{scope}\n");
        assert_eq!(find(outside.clone(), &[own, host]), expected("/host/cgroup"));
        assert_eq!(find(outside, &[own]), None);
        let mixed = format!("/kubepods-pod1.slice:cri-containerd:{id}");
        let expected = PathBuf::from(format!("/sys/fs/cgroup{mixed}"));
        assert_eq!(find(format!("0::{mixed}/inner\n"), &[own]), Some(expected));
        assert_eq!(find(format!("4:memory:{scope}\n"), &[own]), None, "no version 2");
        assert_eq!(find(format!("0::{POD}\n"), &[own]), None, "no container");
        assert_eq!(find(format!("0::{scope}\n"), &[]), None);
    }

    #[test]
    fn process_that_moved_has_no_directory() {
        let root = tempfile::tempdir().unwrap();
        let id = "ab".repeat(32);
        let text = format!("0::{POD}/cri-containerd-{id}.scope\n");
        for (file, content) in [("7", text.as_str()), ("self", "")] {
            fs::create_dir(root.path().join(file)).unwrap();
            fs::write(root.path().join(file).join("cgroup"), content).unwrap();
        }
        fs::write(root.path().join("self/mountinfo"), mounts(&[("/", "/sys/fs/cgroup")])).unwrap();
        let proc_root = ProcRoot::new(root.path());
        let location = parse(text.as_bytes());
        let found = proc_root.container_cgroup(7, &location).unwrap();
        assert!(found.starts_with("/sys/fs/cgroup/kubepods.slice"), "{found:?}");
        assert_eq!(proc_root.container_cgroup(8, &location), None);
        assert_eq!(proc_root.container_cgroup(7, &CgroupLocation::Host), None);
        let other = parse(text.replace("ab", "cd").as_bytes());
        assert_eq!(proc_root.container_cgroup(7, &other), None);
    }
}
