//! The cgroups of the exporter itself.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::ProcRoot;

/// The cgroup of the exporter and those above it, as far as it can see them, innermost first. Empty without
/// cgroup v2.
///
/// # Errors
/// `self/cgroup` or `self/mountinfo` cannot be read.
pub fn own_cgroups(root: &ProcRoot) -> io::Result<Vec<PathBuf>> {
    let read = |file| fs::read_to_string(root.path().join("self").join(file));
    Ok(cgroups(&read("cgroup")?, &read("mountinfo")?))
}

/// The paths from the contents of `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn cgroups(cgroup: &str, mountinfo: &str) -> Vec<PathBuf> {
    let Some(own) = cgroup.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Vec::new();
    };
    let Some((root, mount)) = mountinfo.lines().find_map(cgroup2_mount) else {
        return Vec::new();
    };
    // In a cgroup namespace of its own, and where another part is mounted, the mount is what is seen.
    let inner = Path::new(own).strip_prefix(root).unwrap_or(Path::new(""));
    let below =
        if inner.components().any(|part| part.as_os_str() == "..") { Path::new("") } else { inner };
    below.ancestors().map(|part| Path::new(mount).join(part)).collect()
}

/// The root within cgroup v2 and the mount point, if the line is a mount of it.
fn cgroup2_mount(line: &str) -> Option<(&str, &str)> {
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
        assert_eq!(found, expected.map(|path| Path::new("/sys/fs/cgroup").join(path)));
    }

    #[test]
    fn namespace_ends_at_its_mount() {
        let mount = [PathBuf::from("/sys/fs/cgroup")];
        assert_eq!(cgroups("0::/\n", MOUNTS), mount);
        assert_eq!(cgroups("0::/../../other\n", MOUNTS), mount);
        let inner = MOUNTS.replace("0:27 /", "0:27 /pod1");
        assert_eq!(cgroups("0::/pod1\n", &inner), mount);
        assert_eq!(cgroups("0::/pod2\n", &inner), mount);
    }

    #[test]
    fn no_path_without_version_2() {
        assert!(cgroups("4:memory:/pod1\n", MOUNTS).is_empty());
        assert!(cgroups("0::/pod1\n", "22 1 0:21 / /proc rw - proc proc rw\n").is_empty());
        let own = own_cgroups(&ProcRoot::new(Path::new("/proc"))).unwrap();
        assert!(own.iter().all(|path| path.is_absolute()), "{own:?}");
    }
}
