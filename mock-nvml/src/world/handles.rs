//! Handles: pointers that mean one GPU in one of its lives, or a part of it in one of that part's,
//! and nothing else.

use std::{collections::HashMap, ptr};

use crate::code::{Answer, Code};

/// What a handle means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    /// Which life of the driver gave it.
    pub(super) generation: u32,
    /// The GPU's index.
    pub(crate) gpu: usize,
    /// Which life of the GPU it was given in.
    pub(crate) incarnation: u32,
    /// What of it.
    pub(crate) part: Part,
}

/// What of a GPU a handle means. The numbers tell the lives of what has the same ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// All of it.
    Board,
    /// A MIG device.
    MigDevice(u64),
    /// A GPU instance.
    GpuInstance(u64),
    /// A compute instance.
    ComputeInstance(u64),
}

/// All handles ever given. They are leaked, so that no address comes to mean something else.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    given: HashMap<Held, usize>,
    meant: HashMap<usize, Held>,
}

impl Handles {
    /// The handle that means this: the same for the same.
    pub(crate) fn get(&mut self, held: Held) -> usize {
        *self.given.entry(held).or_insert_with(|| {
            let address = ptr::from_ref(Box::leak(Box::new(held))).addr();
            self.meant.insert(address, held);
            address
        })
    }

    /// What a handle means to the present driver.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if no handle, or one of a driver that is gone.
    pub(crate) fn held(&self, handle: usize, generation: u32) -> Answer<Held> {
        let held = self.meant.get(&handle).filter(|held| held.generation == generation);
        held.copied().ok_or(Code::INVALID_ARGUMENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_the_same_for_the_same_and_dies_with_its_driver() {
        let mut handles = Handles::default();
        let held = Held { generation: 0, gpu: 3, incarnation: 0, part: Part::Board };
        let first = handles.get(held);
        assert_eq!(handles.get(held), first);
        assert_ne!(handles.get(Held { incarnation: 1, ..held }), first);
        assert_ne!(handles.get(Held { part: Part::MigDevice(0), ..held }), first);
        assert_eq!(handles.held(first, 0).unwrap().gpu, 3);
        assert_eq!(handles.held(first, 1), Err(Code::INVALID_ARGUMENT));
        assert_eq!(handles.held(first + 1, 0), Err(Code::INVALID_ARGUMENT));
        assert_eq!(handles.held(0, 0), Err(Code::INVALID_ARGUMENT));
    }
}
