//! Removes symbols from a copy of the library.

use object::{Object, ObjectSection};

/// Why a symbol cannot be removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Not an ELF file.
    #[error("not an ELF library: {0}")]
    Format(#[from] object::Error),
    /// No dynamic symbols.
    #[error("the library has no .dynstr section")]
    NoDynstr,
    /// The library does not export the symbol.
    #[error("the library has no symbol {0} to remove")]
    NoSymbol(String),
}

/// Overwrites the names of symbols in the dynamic string table, in place. dlsym then does not find them,
/// since it compares names after the hash lookup.
pub(super) fn remove_symbols(library: &mut [u8], symbols: &[&str]) -> Result<(), Error> {
    if symbols.is_empty() {
        return Ok(());
    }
    let file = object::File::parse(&*library)?;
    let names = file.section_by_name(".dynstr").and_then(|section| section.file_range());
    let range = names.and_then(|(offset, size)| {
        let from = usize::try_from(offset).ok()?;
        Some(from..from.checked_add(usize::try_from(size).ok()?)?)
    });
    let names = range.and_then(|range| library.get_mut(range)).ok_or(Error::NoDynstr)?;
    for symbol in symbols {
        let entry = [b"\0", symbol.as_bytes(), b"\0"].concat();
        let replacement = [b"\0", "-".repeat(symbol.len()).as_bytes(), b"\0"].concat();
        let at = names.windows(entry.len()).position(|window| window == entry);
        let found = at.and_then(|at| names.get_mut(at..at + entry.len()));
        found.ok_or_else(|| Error::NoSymbol((*symbol).to_owned()))?.copy_from_slice(&replacement);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_is_not_elf_is_rejected() {
        let mut text = *b"#!/bin/sh\n";
        assert!(matches!(remove_symbols(&mut text, &["nvmlInit"]), Err(Error::Format(_))));
        assert!(remove_symbols(&mut text, &[]).is_ok());
    }
}
