//! Where the loader finds a library that is given by its file name only.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The loader's index of libraries.
const CACHE: &str = "/etc/ld.so.cache";
/// Start of the part of the index that has 64-bit libraries.
const CACHE_MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// Size of the header of that part.
const CACHE_HEADER: usize = 48;
/// Size of an entry.
const CACHE_ENTRY: usize = 24;
/// Flags of an entry for this machine.
const CACHE_FLAGS: u32 = if cfg!(target_arch = "aarch64") { 0x0a03 } else { 0x0303 };
/// The directories that follow.
const DIRECTORIES: [&str; 4] = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// The existing files that the loader may open for `name`, in its order. A path with a directory is
/// itself, and so is a name without a file: the loader then says what it has tried.
pub(super) fn candidates(name: &Path) -> Vec<PathBuf> {
    if name.parent().is_some_and(|parent| parent != Path::new("")) {
        return vec![name.to_owned()];
    }
    let variable = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let variable = env::split_paths(&variable).filter(|directory| directory.is_absolute());
    let cache = fs::read(CACHE).unwrap_or_default();
    let found: Vec<PathBuf> = variable
        .map(|directory| directory.join(name))
        .chain(name.to_str().and_then(|name| cached(&cache, name)))
        .chain(DIRECTORIES.iter().map(|directory| Path::new(directory).join(name)))
        .filter(|path| path.exists())
        .collect();
    if found.is_empty() { vec![name.to_owned()] } else { found }
}

/// The path of `name` in the text of the index.
fn cached(cache: &[u8], name: &str) -> Option<PathBuf> {
    let start = cache.windows(CACHE_MAGIC.len()).position(|window| window == CACHE_MAGIC)?;
    let cache = cache.get(start..)?;
    let count = usize::try_from(u32_at(cache, CACHE_MAGIC.len())?).ok()?;
    let mut entries = cache.get(CACHE_HEADER..)?.chunks_exact(CACHE_ENTRY).take(count);
    let text = |at: usize| {
        let rest = cache.get(at..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(rest.get(..end)?).ok()
    };
    entries.find_map(|entry| {
        let field = |at: usize| u32_at(entry, at);
        let is_match = field(0)? == CACHE_FLAGS && text(field(4)? as usize)? == name;
        is_match.then(|| text(field(8)? as usize)).flatten().map(PathBuf::from)
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An index with these names, flags and paths.
    fn index(entries: &[(&str, u32, &str)]) -> Vec<u8> {
        let mut strings = Vec::new();
        let mut header = CACHE_MAGIC.to_vec();
        header.extend(u32::try_from(entries.len()).unwrap().to_ne_bytes());
        header.resize(CACHE_HEADER, 0);
        let strings_at = CACHE_HEADER + entries.len() * CACHE_ENTRY;
        for (name, flags, path) in entries {
            let mut put = |text: &str| {
                let at = u32::try_from(strings_at + strings.len()).unwrap();
                strings.extend(text.as_bytes());
                strings.push(0);
                at
            };
            let fields = [*flags, put(name), put(path), 0, 0, 0];
            header.extend(fields.iter().flat_map(|field| field.to_ne_bytes()));
        }
        [header, strings].concat()
    }

    #[test]
    fn library_of_this_machine_is_found_in_the_index() {
        let index = index(&[
            ("libx.so.1", 3, "/lib32/libx.so.1"),
            ("libx.so.1", CACHE_FLAGS, "/lib64/libx.so.1"),
            ("liby.so.1", CACHE_FLAGS, "/lib64/liby.so.1"),
        ]);
        assert_eq!(cached(&index, "libx.so.1"), Some("/lib64/libx.so.1".into()));
        assert_eq!(cached(&index, "libx.so"), None);
        // An index of two formats, the older of which comes first.
        let both = [b"ld.so-1.7.0\0\0\0\0\0".as_slice(), &index].concat();
        assert_eq!(cached(&both, "liby.so.1"), Some("/lib64/liby.so.1".into()));
        assert_eq!(cached(b"", "liby.so.1"), None);
    }

    #[test]
    fn file_name_is_found_as_the_loader_finds_it() {
        let libc = candidates(Path::new("libc.so.6"));
        assert!(libc.first().is_some_and(|path| path.is_absolute() && path.exists()), "{libc:?}");
        assert_eq!(candidates(Path::new("libmissing.so")), [PathBuf::from("libmissing.so")]);
        assert_eq!(candidates(Path::new("/no/such")), [PathBuf::from("/no/such")]);
    }

    proptest! {
        #[test]
        fn any_index_is_read_without_panic(
            changes in prop::collection::vec((0_usize..160, any::<u8>()), 0..8),
            length in 0_usize..160,
        ) {
            let mut index = index(&[("libx.so.1", CACHE_FLAGS, "/lib/libx.so.1"); 2]);
            for (at, to) in changes {
                if let Some(byte) = index.get_mut(at) {
                    *byte = to;
                }
            }
            index.truncate(length);
            let _ = cached(&index, "libx.so.1");
        }
    }
}
