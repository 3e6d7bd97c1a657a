//! Loads a library that was replaced on disk while the old file is still mapped.
//!
//! The loader identifies libraries by name and returns the mapped library of that name as long as
//! it is mapped, for example because of a hung thread or because it cannot be unloaded. Under
//! another name the loader opens the file and reuses the mapped library only if both are the same
//! file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use procfs::process::{MMapPath, Process};

/// Another path of the file that is at `path` now, which the loader has no library for. `None` if
/// no version of the library is mapped: the loader opens the file in that case.
#[must_use]
pub fn alias(path: &Path) -> Option<PathBuf> {
    let mapped = mapped_files()?.into_iter();
    let path = locate(mapped, path)?;
    Some(unique_path(&path, fs::metadata(&path).ok()?.ino()))
}

/// The mapped file of the library `path`, with symbolic links resolved.
#[must_use]
pub fn mapped_file(path: &Path) -> Option<PathBuf> {
    mapped_files()?.into_iter().find(|mapped| is_same_library(mapped, path))
}

/// All files that are mapped into this process (`/proc/self/maps`).
fn mapped_files() -> Option<Vec<PathBuf>> {
    let maps = Process::myself().and_then(|process| process.maps()).ok()?;
    let path = |map: procfs::process::MemoryMap| {
        let MMapPath::Path(path) = map.pathname else { return None };
        Some(path)
    };
    Some(maps.into_iter().filter_map(path).collect())
}

/// Whether `mapped` is any version of the library `path`, by file name.
fn is_same_library(mapped: &Path, path: &Path) -> bool {
    let name = |path: &Path| path.file_name()?.to_str().map(str::to_owned);
    let (Some(mapped), Some(wanted)) = (name(mapped), name(path)) else { return false };
    let Some((stem, _)) = wanted.split_once(".so") else { return false };
    mapped.strip_prefix(stem).is_some_and(|rest| rest.starts_with(".so"))
}

/// Another path of `path`. The loader remembers every path, so it must be unique per file: the inode is
/// encoded in it as redundant `./` and `.//` components.
fn unique_path(path: &Path, inode: u64) -> PathBuf {
    let steps = (0..u64::BITS).map(|bit| if inode >> bit & 1 == 1 { ".//" } else { "./" });
    let (directory, file) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
    let mut unique = directory.as_os_str().to_owned();
    unique.push("/");
    unique.push(steps.collect::<String>());
    unique.push(file);
    unique.into()
}

/// Path of the library `path` if a version of it is in `mapped`. A file name without a directory is
/// resolved to the directory of the mapped version.
fn locate(mut mapped: impl Iterator<Item = PathBuf>, path: &Path) -> Option<PathBuf> {
    let file_name = path.file_name()?;
    let other_version = mapped.find(|mapped| is_same_library(mapped, path))?;
    let has_directory = path.parent().is_some_and(|parent| parent != Path::new(""));
    Some(if has_directory { path.to_owned() } else { other_version.with_file_name(file_name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn library_is_resolved_next_to_the_mapped_version() {
        let mapped = ["/lib/libc.so.6", "/nv/libnvidia-ml.so.550.54.15 (deleted)"];
        let locate = |path: &str| locate(mapped.iter().map(PathBuf::from), Path::new(path));
        assert_eq!(locate("libnvidia-ml.so.1"), Some("/nv/libnvidia-ml.so.1".into()));
        assert_eq!(locate("/usr/lib/libnvidia-ml.so.1"), Some("/usr/lib/libnvidia-ml.so.1".into()));
        assert_eq!(locate("libnvidia.so.1"), None);
        assert_eq!(locate("/"), None);
    }

    #[test]
    fn path_is_unique_per_file_and_resolves_to_it() {
        let path = Path::new("/proc/self/exe");
        let inode = fs::metadata(path).unwrap().ino();
        let one = unique_path(path, inode);
        assert_eq!(fs::metadata(&one).unwrap().ino(), inode);
        assert_ne!(one.as_os_str(), unique_path(path, inode + 1).as_os_str());
        assert_eq!(one, path, "with the same components");
    }

    #[test]
    fn library_that_is_not_mapped_needs_no_alias() {
        assert!(alias(Path::new("libmissing.so.1")).is_none());
        assert!(alias(Path::new("libc.so.6")).is_some());
    }
}
