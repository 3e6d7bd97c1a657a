//! Checks the file of a library before the loader opens it: the loader waits for a FIFO forever while it
//! holds its lock, and a page of a file that ends too early is a SIGBUS.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Why a file is not opened as a library.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LibraryFileError {
    /// A FIFO, device, socket or directory.
    #[error("not a regular file")]
    NotRegular,
    /// It cannot be read.
    #[error("the file cannot be read ({0})")]
    Unreadable(String),
    /// Not an ELF file, or a damaged one.
    #[error("not a shared library (ELF)")]
    NotElf,
    /// For another architecture or word size.
    #[error("a library for another machine")]
    OtherMachine,
    /// The file ends before its segments or sections.
    #[error("the file is truncated: {size} of at least {expected} bytes")]
    Truncated {
        /// Bytes of the file.
        size: u64,
        /// Bytes up to the end of the last of these.
        expected: u64,
    },
}

/// Size of the header of a 64-bit ELF file.
const HEADER: usize = 64;
/// Size of a program header.
const SEGMENT: usize = 56;
/// Magic number, 64 bit, byte order, and version of the format.
const IDENTIFICATION: [u8; 7] =
    [0x7f, b'E', b'L', b'F', 2, if cfg!(target_endian = "little") { 1 } else { 2 }, 1];
/// Type of a shared object.
const SHARED_OBJECT: u16 = 3;
/// The architecture of this program (`e_machine`).
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
/// Type of a segment that is mapped.
const LOAD: u32 = 1;

/// Whether `path` is a complete library for this machine. Blocks as long as the file system does.
///
/// # Errors
/// Returns why it is not.
pub fn check(path: &Path) -> Result<(), LibraryFileError> {
    let unreadable = |error: io::Error| LibraryFileError::Unreadable(error.to_string());
    // Opening a device may have an effect.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(LibraryFileError::NotRegular);
    }
    // Without the flag, a FIFO that has replaced the file since would block.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(LibraryFileError::NotRegular);
    }
    check_segments(&file, metadata.len())
}

/// Whether an ELF file of `size` bytes contains all of its segments and sections.
fn check_segments(file: &File, size: u64) -> Result<(), LibraryFileError> {
    let mut header = [0; HEADER];
    read_at(file, &mut header, 0)?;
    let identification = header.get(..IDENTIFICATION.len()).unwrap_or_default();
    // Same format, other word size or byte order.
    if identification.starts_with(b"\x7fELF") && identification != IDENTIFICATION {
        return Err(LibraryFileError::OtherMachine);
    }
    if identification != IDENTIFICATION || u16_at(&header, 16) != SHARED_OBJECT {
        return Err(LibraryFileError::NotElf);
    }
    if u16_at(&header, 18) != MACHINE {
        return Err(LibraryFileError::OtherMachine);
    }
    let (offset, entry, count) =
        (u64_at(&header, 32), usize::from(u16_at(&header, 54)), usize::from(u16_at(&header, 56)));
    if entry != SEGMENT || count == 0 {
        return Err(LibraryFileError::NotElf);
    }
    let mut segments = vec![0; count * SEGMENT];
    let expected = offset.checked_add(segments.len() as u64).ok_or(LibraryFileError::NotElf)?;
    if expected > size {
        return Err(LibraryFileError::Truncated { size, expected });
    }
    read_at(file, &mut segments, offset)?;
    // The table of sections is the end of a complete file. One that was stripped has none.
    let sections = u64::from(u16_at(&header, 58)) * u64::from(u16_at(&header, 60));
    let sections_end = u64_at(&header, 40).checked_add(sections).ok_or(LibraryFileError::NotElf)?;
    let mut end = 0;
    for segment in segments.chunks_exact(SEGMENT).filter(|segment| u32_at(segment, 0) == LOAD) {
        let segment_end = u64_at(segment, 8).checked_add(u64_at(segment, 32));
        end = end.max(segment_end.ok_or(LibraryFileError::NotElf)?);
    }
    let expected = sections_end.max(end);
    match end {
        0 => Err(LibraryFileError::NotElf),
        _ if expected > size => Err(LibraryFileError::Truncated { size, expected }),
        _ => Ok(()),
    }
}

fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> Result<(), LibraryFileError> {
    file.read_exact_at(bytes, offset).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return LibraryFileError::NotElf;
        }
        LibraryFileError::Unreadable(error.to_string())
    })
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The header and one segment up to byte `end`.
    fn library(end: u64) -> Vec<u8> {
        let mut bytes = vec![0; HEADER + SEGMENT];
        bytes[..7].copy_from_slice(&IDENTIFICATION);
        bytes[16..18].copy_from_slice(&SHARED_OBJECT.to_ne_bytes());
        bytes[18..20].copy_from_slice(&MACHINE.to_ne_bytes());
        bytes[32..40].copy_from_slice(&(HEADER as u64).to_ne_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_ne_bytes());
        bytes[64..68].copy_from_slice(&LOAD.to_ne_bytes());
        bytes[96..104].copy_from_slice(&end.to_ne_bytes());
        bytes
    }

    fn checked(bytes: &[u8]) -> Result<(), LibraryFileError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        check(file.path())
    }

    #[test]
    fn library_must_be_complete_and_for_this_machine() {
        assert_eq!(checked(&library(120)), Ok(()));
        let truncated = LibraryFileError::Truncated { size: 120, expected: 121 };
        assert_eq!(checked(&library(121)), Err(truncated));
        let truncated = LibraryFileError::Truncated { size: 119, expected: 120 };
        assert_eq!(checked(&library(119)[..119]), Err(truncated));
        let mut sections = library(120);
        sections[40] = 121;
        let truncated = LibraryFileError::Truncated { size: 120, expected: 121 };
        assert_eq!(checked(&sections), Err(truncated), "without its table of sections");
        let changed = |at: usize, to: u8| {
            let mut bytes = library(120);
            bytes[at] = to;
            checked(&bytes)
        };
        assert_eq!(changed(4, 1), Err(LibraryFileError::OtherMachine), "32 bit");
        assert_eq!(changed(18, 3), Err(LibraryFileError::OtherMachine));
        for (at, to) in [(0, b'x'), (16, 2), (54, 1), (56, 0), (64, 2)] {
            assert_eq!(changed(at, to), Err(LibraryFileError::NotElf), "byte {at}");
        }
        assert_eq!(checked(b""), Err(LibraryFileError::NotElf));
        assert_eq!(checked(b"#!/bin/sh\n"), Err(LibraryFileError::NotElf));
    }

    #[test]
    fn only_regular_files_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(check(directory.path()), Err(LibraryFileError::NotRegular));
        assert_eq!(check(Path::new("/dev/null")), Err(LibraryFileError::NotRegular));
        let missing = check(&directory.path().join("missing")).unwrap_err().to_string();
        assert!(missing.contains("No such file"), "{missing}");
    }

    #[test]
    fn libraries_of_this_machine_are_accepted() {
        let maps = procfs::process::Process::myself().unwrap().maps().unwrap();
        let mut count = 0;
        for map in maps {
            let procfs::process::MMapPath::Path(path) = map.pathname else { continue };
            if path.to_string_lossy().contains(".so") {
                assert_eq!(check(&path), Ok(()), "{}", path.display());
                count += 1;
            }
        }
        assert!(count > 1, "the C library is mapped");
    }

    proptest! {
        #[test]
        fn any_header_is_checked_without_panic(
            changes in prop::collection::vec((0..HEADER + SEGMENT, any::<u8>()), 0..8),
            length in 0..HEADER + SEGMENT,
        ) {
            let mut bytes = library(120);
            for (at, to) in changes {
                bytes[at] = to;
            }
            bytes.truncate(length);
            prop_assert!(checked(&bytes).is_err());
        }
    }
}
