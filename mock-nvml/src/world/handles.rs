//! Device handles. Each refers to one incarnation of a GPU, MIG device or MIG instance and is never
//! reused.

use std::{collections::HashMap, ptr};

use crate::return_code::{NvmlResult, ReturnCode};

/// The device that a handle refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HandleEntry {
    /// The driver generation that created it: number of reloads.
    pub(super) generation: u32,
    /// The GPU's index.
    pub(crate) gpu: usize,
    /// The incarnation of the GPU: how often it had been lost.
    pub(crate) incarnation: u32,
    /// The whole GPU, a MIG device or an instance.
    pub(crate) target: HandleTarget,
}

/// What a handle refers to within a GPU. The numbers distinguish successive instances with the same
/// ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HandleTarget {
    /// The whole GPU.
    Board,
    /// A MIG device.
    MigDevice(u64),
    /// A GPU instance.
    GpuInstance(u64),
    /// A compute instance.
    ComputeInstance(u64),
}

/// All handles ever created. Their memory is leaked, so that no address is reused.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    by_entry: HashMap<HandleEntry, usize>,
    by_address: HashMap<usize, HandleEntry>,
}

impl Handles {
    /// The handle of an entry; equal entries have the same handle.
    pub(crate) fn get(&mut self, entry: HandleEntry) -> usize {
        *self.by_entry.entry(entry).or_insert_with(|| {
            let address = ptr::from_ref(Box::leak(Box::new(entry))).addr();
            self.by_address.insert(address, entry);
            address
        })
    }

    /// The entry of a handle.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an unknown handle or one of another driver generation.
    pub(crate) fn entry(&self, handle: usize, generation: u32) -> NvmlResult<HandleEntry> {
        let entry = self.by_address.get(&handle).filter(|entry| entry.generation == generation);
        entry.copied().ok_or(ReturnCode::INVALID_ARGUMENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handle_is_stable_and_invalid_after_a_driver_reload() {
        let mut handles = Handles::default();
        let entry =
            HandleEntry { generation: 0, gpu: 3, incarnation: 0, target: HandleTarget::Board };
        let first = handles.get(entry);
        assert_eq!(handles.get(entry), first);
        assert_ne!(handles.get(HandleEntry { incarnation: 1, ..entry }), first);
        assert_ne!(handles.get(HandleEntry { target: HandleTarget::MigDevice(0), ..entry }), first);
        assert_eq!(handles.entry(first, 0).unwrap().gpu, 3);
        assert_eq!(handles.entry(first, 1), Err(ReturnCode::INVALID_ARGUMENT));
        assert_eq!(handles.entry(first + 1, 0), Err(ReturnCode::INVALID_ARGUMENT));
        assert_eq!(handles.entry(0, 0), Err(ReturnCode::INVALID_ARGUMENT));
    }
}
