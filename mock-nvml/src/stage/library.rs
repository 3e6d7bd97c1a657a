//! Striking symbols out of a copy of the library.

use object::{Object, ObjectSection};

/// Why a symbol cannot be struck out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is no ELF file.
    #[error("not an ELF library: {0}")]
    Format(#[from] object::Error),
    /// It has no dynamic symbols.
    #[error("the library has no .dynstr section")]
    NoNames,
    /// The symbol is not there.
    #[error("the library has no symbol {0} to strike out")]
    NoSymbol(String),
}

/// Renames symbols, in place, to what nobody asks for: dlsym compares the name in the dynamic string
/// table, whatever the hash table says.
pub(super) fn strike(library: &mut [u8], symbols: &[&str]) -> Result<(), Error> {
    if symbols.is_empty() {
        return Ok(());
    }
    let file = object::File::parse(&*library)?;
    let names = file.section_by_name(".dynstr").and_then(|section| section.file_range());
    let range = names.and_then(|(offset, size)| {
        let from = usize::try_from(offset).ok()?;
        Some(from..from.checked_add(usize::try_from(size).ok()?)?)
    });
    let names = range.and_then(|range| library.get_mut(range)).ok_or(Error::NoNames)?;
    for symbol in symbols {
        let entry = [b"\0", symbol.as_bytes(), b"\0"].concat();
        let struck = [b"\0", "-".repeat(symbol.len()).as_bytes(), b"\0"].concat();
        let at = names.windows(entry.len()).position(|window| window == entry);
        let place = at.and_then(|at| names.get_mut(at..at + entry.len()));
        place.ok_or_else(|| Error::NoSymbol((*symbol).to_owned()))?.copy_from_slice(&struck);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_library_is_refused() {
        let mut text = *b"#!/bin/sh\n";
        assert!(matches!(strike(&mut text, &["nvmlInit"]), Err(Error::Format(_))));
        assert!(strike(&mut text, &[]).is_ok());
    }
}
