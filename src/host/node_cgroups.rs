//! The cgroups (version 2) of the node, as far as the exporter can see them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use crate::policy::CGROUPS_MAX;

/// A mount of cgroups, and the exporter's cgroup namespace in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCgroups {
    mount: PathBuf,
    /// Path of the root of the namespace below the mount.
    namespace: Vec<OsString>,
    /// Whether the mount begins with the root of the hierarchy.
    is_whole: bool,
}

impl NodeCgroups {
    /// Finds the mount that shows most, from the contents of the exporter's `mountinfo`; `None` if there is none,
    /// or if the place of the namespace in it is unknown.
    #[must_use]
    pub fn find(mountinfo: &str) -> Option<Self> {
        let mounts: Vec<(&str, &str)> = mountinfo.lines().filter_map(cgroup2_mount).collect();
        // The mount of the namespace itself: its inode is that of its directory in other mounts.
        let own = mounts.iter().find(|(root, _)| *root == "/").map(|(_, point)| Path::new(point));
        let found = mounts.iter().filter_map(|(root, point)| {
            let (depth, mount) = (levels_above(root)?, PathBuf::from(point));
            let namespace = if depth == 0 { Vec::new() } else { locate(&mount, depth, own?)? };
            let is_whole = is_hierarchy_root(&mount);
            Some((depth, Self { mount, namespace, is_whole }))
        });
        found.max_by_key(|(depth, found)| (found.is_whole, *depth)).map(|(_, found)| found)
    }

    /// The directory of a cgroup by its path in `/proc/<pid>/cgroup`, which is relative to the namespace. `None` if
    /// the mount does not show it.
    #[must_use]
    pub fn directory(&self, path: &Path) -> Option<PathBuf> {
        let mut parts: Vec<&OsStr> = self.namespace.iter().map(OsString::as_os_str).collect();
        for component in path.components() {
            match component {
                Component::Normal(part) => parts.push(part),
                Component::ParentDir => {
                    parts.pop()?;
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Some(parts.iter().fold(self.mount.clone(), |directory, part| directory.join(part)))
    }

    /// The directory of a cgroup and those of all above it, innermost first. `None` if the mount does not show all
    /// of them.
    #[must_use]
    pub fn with_ancestors(&self, path: &Path) -> Option<Vec<PathBuf>> {
        let directory = self.directory(path).filter(|_| self.is_whole)?;
        let inside = directory.ancestors().take_while(|ancestor| ancestor.starts_with(&self.mount));
        Some(inside.map(Path::to_owned).collect())
    }
}

/// The root within cgroup v2 and the mount point, if the line is a mount of it.
pub(super) fn cgroup2_mount(line: &str) -> Option<(&str, &str)> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    kind.starts_with("cgroup2 ").then_some((root, point))
}

/// How many levels above the namespace a mount begins: its root is `/`, or consists of `..`.
fn levels_above(root: &str) -> Option<usize> {
    let parts: Vec<&str> = root.split('/').filter(|part| !part.is_empty()).collect();
    parts.iter().all(|part| *part == "..").then_some(parts.len())
}

/// Whether a directory is the root of the hierarchy, which alone has no type.
fn is_hierarchy_root(mount: &Path) -> bool {
    mount.join("cgroup.controllers").exists() && !mount.join("cgroup.type").exists()
}

/// The path below `mount` of the directory that `own` is a mount of, `depth` levels down: that with the same inode.
fn locate(mount: &Path, depth: usize, own: &Path) -> Option<Vec<OsString>> {
    let own = fs::metadata(own)
        .ok()
        .filter(|own| fs::metadata(mount).is_ok_and(|m| m.dev() == own.dev()))?;
    let mut level = vec![(0, Vec::new())];
    let mut visited = 0;
    for _ in 0..depth {
        let mut next = Vec::new();
        for (_, parent) in &level {
            let path = parent.iter().fold(mount.to_owned(), |path, part| path.join(part));
            let Ok(entries) = fs::read_dir(path) else { continue };
            for entry in entries.filter_map(Result::ok) {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    next.push((entry.ino(), [&parent[..], &[entry.file_name()]].concat()));
                }
            }
            visited += 1;
            if visited + next.len() > CGROUPS_MAX {
                return None;
            }
        }
        level = next;
    }
    level.into_iter().find(|(inode, _)| *inode == own.ino()).map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "kubepods.slice/kubepods-besteffort.slice/pod1.slice/cri-aa.scope";
    const OTHER: &str = "kubepods.slice/kubepods-besteffort.slice/pod2.slice/cri-bb.scope";

    /// A hierarchy in a directory, as the kernel has it: all but its root have a type.
    struct Hierarchy(tempfile::TempDir);

    impl Hierarchy {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("cgroup.controllers"), "").unwrap();
            for path in [OWN, OTHER, "system.slice/kubelet.service"] {
                let mut below = directory.path().to_owned();
                for part in path.split('/') {
                    below.push(part);
                    fs::create_dir_all(&below).unwrap();
                    fs::write(below.join("cgroup.type"), "domain\n").unwrap();
                    fs::write(below.join("cgroup.controllers"), "").unwrap();
                }
            }
            Self(directory)
        }

        fn point(&self, below: &str) -> PathBuf {
            if below.is_empty() { self.0.path().to_owned() } else { self.0.path().join(below) }
        }

        /// `NodeCgroups` with mounts by root and directory.
        fn find(&self, mounts: &[(&str, &str)]) -> Option<NodeCgroups> {
            let line = |(root, below): &(&str, &str)| {
                let point = self.point(below);
                format!("31 22 0:27 {root} {} ro,nosuid - cgroup2 cgroup rw\n", point.display())
            };
            let lines: String = mounts.iter().map(line).collect();
            NodeCgroups::find(&("22 1 0:21 / /proc rw - proc proc rw\n".to_owned() + &lines))
        }
    }

    #[test]
    fn namespace_of_a_container_is_found_in_the_mount_of_the_node() {
        let node = Hierarchy::new();
        for mounts in [[("/", OWN), ("/../../../..", "")], [("/../../../..", ""), ("/", OWN)]] {
            let cgroups = node.find(&mounts).unwrap();
            assert_eq!(cgroups.directory(Path::new("/")), Some(node.point(OWN)));
            // As the kernel shows it, from the nearest common ancestor on.
            let other = Path::new("/../../pod2.slice/cri-bb.scope");
            assert_eq!(cgroups.directory(other), Some(node.point(OTHER)));
            assert_eq!(cgroups.directory(Path::new("/../../../../..")), None, "above the mount");
            let all = cgroups.with_ancestors(Path::new("/")).unwrap();
            assert_eq!(
                (all.len(), all.first(), all.last()),
                (5, Some(&node.point(OWN)), Some(&node.point("")))
            );
        }
    }

    #[test]
    fn namespace_of_the_node_needs_no_search() {
        let node = Hierarchy::new();
        let cgroups = node.find(&[("/", "")]).unwrap();
        let own = format!("/{OWN}");
        assert_eq!(cgroups.directory(Path::new(&own)), Some(node.point(OWN)));
        assert_eq!(cgroups.with_ancestors(Path::new(&own)).unwrap().len(), 5);
    }

    #[test]
    fn ancestors_are_unknown_without_a_mount_of_the_whole_hierarchy() {
        let node = Hierarchy::new();
        let own = node.find(&[("/", OWN)]).unwrap();
        assert_eq!(own.directory(Path::new("/")), Some(node.point(OWN)));
        assert_eq!(own.with_ancestors(Path::new("/")), None);
        // A mount of a part of it shows other containers, but not all that is above.
        let part = node
            .find(&[("/", OWN), ("/../..", "kubepods.slice/kubepods-besteffort.slice")])
            .unwrap();
        let other = part.directory(Path::new("/../../pod2.slice/cri-bb.scope"));
        assert_eq!(other, Some(node.point(OTHER)));
        assert_eq!(part.with_ancestors(Path::new("/")), None);
        assert_eq!(
            node.find(&[("/../../../..", "")]),
            None,
            "the namespace has no mount to compare with"
        );
        assert_eq!(node.find(&[("/pod1", OWN)]), None, "a part that is not above");
        assert_eq!(node.find(&[]), None);
        let elsewhere = tempfile::tempdir().unwrap();
        let text = format!("31 22 0:27 / {} ro - cgroup2 c rw\n", elsewhere.path().display());
        assert_eq!(NodeCgroups::find(&text).unwrap().with_ancestors(Path::new("/")), None);
    }
}
