//! The cgroups of the exporter itself.

use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use super::ProcRoot;

/// The cgroup of the exporter and those above it, as far as it can see them, innermost first. Empty without
/// cgroup v2.
///
/// # Errors
/// `self/cgroup` or `self/mountinfo` cannot be read, or no mount shows the cgroup.
pub fn own_cgroups(root: &ProcRoot) -> io::Result<Vec<PathBuf>> {
    let read = |file| fs::read_to_string(root.path().join("self").join(file));
    let invisible = || io::Error::other("no mount of cgroup v2 shows the cgroup of the exporter");
    cgroups(&read("cgroup")?, &read("mountinfo")?).ok_or_else(invisible)
}

/// The paths from the contents of `/proc/self/cgroup` and `/proc/self/mountinfo`; `None` if no mount shows
/// them.
fn cgroups(cgroup: &str, mountinfo: &str) -> Option<Vec<PathBuf>> {
    let Some(own) = cgroup.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Some(Vec::new());
    };
    let mut mounts = mountinfo.lines().filter_map(cgroup2_mount).peekable();
    if mounts.peek().is_none() {
        return Some(Vec::new());
    }
    mounts.find_map(|(root, mount)| {
        let below = Path::new(own).strip_prefix(root).ok()?;
        let is_visible = !below.components().any(|part| part == Component::ParentDir);
        is_visible.then(|| below.ancestors().map(|part| Path::new(mount).join(part)).collect())
    })
}

/// The root within cgroup v2 and the mount point, if the line is a mount of it.
pub(super) fn cgroup2_mount(line: &str) -> Option<(&str, &str)> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    kind.starts_with("cgroup2 ").then_some((root, point))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "22 1 0:21 / /proc rw,nosuid - proc proc rw\n\
                          31 22 0:27 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n";

    #[test]
    fn own_cgroup_and_those_above_it_are_paths_of_the_mount() {
        let found = cgroups("0::/kubepods.slice/pod1/main\n", MOUNTS);
        let expected = ["kubepods.slice/pod1/main", "kubepods.slice/pod1", "kubepods.slice", ""];
        let expected = expected.map(|path| Path::new("/sys/fs/cgroup").join(path));
        assert_eq!(found.as_deref(), Some(expected.as_slice()));
    }

    #[test]
    fn namespace_ends_at_its_mount() {
        let mount = Some(vec![PathBuf::from("/sys/fs/cgroup")]);
        assert_eq!(cgroups("0::/\n", MOUNTS), mount);
        let inner = MOUNTS.replace("0:27 /", "0:27 /pod1");
        assert_eq!(cgroups("0::/pod1\n", &inner), mount);
        // The node's cgroups, mounted by a volume in front of or behind its own.
        let host = "32 22 0:27 /../.. /host/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(cgroups("0::/\n", &format!("{MOUNTS}{host}")), mount);
        assert_eq!(cgroups("0::/\n", &format!("{host}{MOUNTS}")), mount);
        for (own, mounts) in
            [("0::/../../other\n", MOUNTS), ("0::/pod2\n", inner.as_str()), ("0::/\n", host)]
        {
            assert_eq!(cgroups(own, mounts), None, "another cgroup is no evidence: {own}{mounts}");
        }
    }

    #[test]
    fn no_path_without_version_2() {
        let none = Some(Vec::new());
        assert_eq!(cgroups("4:memory:/pod1\n", MOUNTS), none);
        assert_eq!(cgroups("0::/pod1\n", "22 1 0:21 / /proc rw - proc proc rw\n"), none);
        let own = own_cgroups(&ProcRoot::new(Path::new("/proc")));
        assert!(own.iter().flatten().all(|path| path.is_absolute()), "{own:?}");
    }
}
