//! A library that has been replaced on disk while the old file is still mapped.
//!
//! The loader knows libraries by their names, and gives out what it has mapped under a name for as
//! long as it is mapped: a thread that hangs, or a library that cannot be unloaded, keeps it so. Under
//! another name the loader looks at the file itself, and takes the mapped one only if it is the same.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use procfs::process::{MMapPath, Process};

/// A file of a library, open, and another name for it.
pub struct Renamed {
    /// The name to load it by.
    pub name: PathBuf,
    _file: File,
}

/// The file that lies at `path` now, under a name that the loader does not know; none if nothing of the
/// kind is mapped, when the loader looks at the file anyhow.
#[must_use]
pub fn renamed(path: &Path) -> Option<Renamed> {
    let mapped = mapped()?.into_iter();
    let file = File::open(place(mapped, path)?).ok()?;
    let name = name(file.as_raw_fd(), file.metadata().ok()?.ino());
    Some(Renamed { name, _file: file })
}

/// The file that was mapped as the library `path`, without the links on the way to it.
#[must_use]
pub fn file(path: &Path) -> Option<PathBuf> {
    mapped()?.into_iter().find(|mapped| is_kin(mapped, path))
}

/// Every file that is mapped.
fn mapped() -> Option<Vec<PathBuf>> {
    let maps = Process::myself().and_then(|own| own.maps()).ok()?;
    let path = |map: procfs::process::MemoryMap| {
        let MMapPath::Path(path) = map.pathname else { return None };
        Some(path)
    };
    Some(maps.into_iter().filter_map(path).collect())
}

/// Whether `mapped` is some version of the library `path`.
fn is_kin(mapped: &Path, path: &Path) -> bool {
    let name = |path: &Path| path.file_name()?.to_str().map(str::to_owned);
    let (Some(mapped), Some(asked)) = (name(mapped), name(path)) else { return false };
    let Some((stem, _)) = asked.split_once(".so") else { return false };
    mapped.strip_prefix(stem).is_some_and(|rest| rest.starts_with(".so"))
}

/// A name of an open file. Descriptors are given again, and the loader remembers every name, so the
/// file's inode is written into it, in steps that lead nowhere.
fn name(descriptor: i32, inode: u64) -> PathBuf {
    let steps = (0..u64::BITS).map(|bit| if inode >> bit & 1 == 1 { ".//" } else { "./" });
    PathBuf::from(format!("/proc/self/fd/{}{descriptor}", steps.collect::<String>()))
}

/// Where the library lies that is asked for as `path`, if one of its name is among `mapped`. A name
/// without a folder is looked for where that one lies.
fn place(mut mapped: impl Iterator<Item = PathBuf>, path: &Path) -> Option<PathBuf> {
    let asked = path.file_name()?;
    let kin = mapped.find(|mapped| is_kin(mapped, path))?;
    let has_folder = path.parent().is_some_and(|parent| parent != Path::new(""));
    Some(if has_folder { path.to_owned() } else { kin.with_file_name(asked) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_looked_for_beside_the_one_that_is_mapped() {
        let mapped = ["/lib/libc.so.6", "/nv/libnvidia-ml.so.550.54.15 (deleted)"];
        let place = |path: &str| place(mapped.iter().map(PathBuf::from), Path::new(path));
        assert_eq!(place("libnvidia-ml.so.1"), Some("/nv/libnvidia-ml.so.1".into()));
        assert_eq!(place("/usr/lib/libnvidia-ml.so.1"), Some("/usr/lib/libnvidia-ml.so.1".into()));
        assert_eq!(place("libnvidia.so.1"), None);
        assert_eq!(place("/"), None);
    }

    #[test]
    fn every_file_has_a_name_of_its_own_that_leads_to_it() {
        let file = File::open("/proc/self/exe").unwrap();
        let inode = file.metadata().unwrap().ino();
        let one = name(file.as_raw_fd(), inode);
        assert_eq!(std::fs::metadata(&one).unwrap().ino(), inode);
        assert_ne!(one.as_os_str(), name(file.as_raw_fd(), inode + 1).as_os_str(), "byte for byte");
    }

    #[test]
    fn what_is_not_mapped_needs_no_other_name() {
        assert!(renamed(Path::new("libnowhere.so.1")).is_none());
        assert!(renamed(Path::new("libc.so.6")).is_some());
    }
}
