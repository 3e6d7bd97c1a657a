//! The directory of a container's cgroup.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{container_id, parse, path, path_components};
use crate::host::ProcRoot;
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
        let path = container_path(&text, id).filter(|_| parse(&text) == *location)?;
        self.node_cgroups()?.directory(&path)
    }
}

/// The path of the container in the contents of a file `cgroup`.
fn container_path(cgroup: &[u8], id: &ContainerId) -> Option<PathBuf> {
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
    Some(container)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const POD: &str = "/kubepods.slice/kubepods-pod3f6a1c58_90de_4b27_a1f4_0c9d5e7b2a63.slice";

    #[test]
    fn path_ends_with_the_container() {
        let id = "ab".repeat(32);
        let scope = format!("{POD}/cri-containerd-{id}.scope");
        let find = |cgroup: String| {
            let id = ContainerId::parse(id.as_bytes()).unwrap();
            container_path(cgroup.as_bytes(), &id)
        };
        let expected = |path: &str| Some(PathBuf::from(path));
        assert_eq!(find(format!("0::{scope}\n")), expected(&scope));
        let nested = format!("4:memory:/x\n0::{scope}/system.slice/a.service (deleted)\n");
        assert_eq!(find(nested), expected(&scope));
        // In a namespace of the exporter's own, others are relative to it.
        let outside = format!("/../..{scope}");
        assert_eq!(find(format!("0::{outside}\n")), expected(&outside));
        let mixed = format!("/kubepods-pod1.slice:cri-containerd:{id}");
        assert_eq!(find(format!("0::{mixed}/inner\n")), expected(&mixed));
        assert_eq!(find(format!("4:memory:{scope}\n")), None, "no version 2");
        assert_eq!(find(format!("0::{POD}\n")), None, "no container");
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
        let mount = "31 22 0:27 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        fs::write(root.path().join("self/mountinfo"), mount).unwrap();
        let proc_root = ProcRoot::new(root.path());
        let location = parse(text.as_bytes());
        let found = proc_root.container_cgroup(7, &location).unwrap();
        assert!(found.starts_with("/sys/fs/cgroup/kubepods.slice"), "{found:?}");
        assert_eq!(proc_root.container_cgroup(8, &location), None);
        assert_eq!(proc_root.container_cgroup(7, &CgroupLocation::Host), None);
        let other = parse(text.replace("ab", "cd").as_bytes());
        assert_eq!(proc_root.container_cgroup(7, &other), None);
        let hidden = ProcRoot::new(root.path());
        fs::write(root.path().join("self/mountinfo"), "").unwrap();
        assert_eq!(hidden.container_cgroup(7, &location), None, "no mount");
    }
}
