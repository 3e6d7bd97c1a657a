//! Samples of GPU performance monitoring (GPM).

pub(crate) mod metric;

use std::{collections::HashMap, sync::Arc};

use crate::{
    clock::Now,
    return_code::{NvmlResult, ReturnCode},
    scenario::Scenario,
    world::handles::HandleEntry,
};

/// Maximum number of allocated samples, more than any client needs.
const MAX_SAMPLES: usize = 65_536;

/// The samples allocated by clients, by handle.
#[derive(Debug, Default)]
pub(crate) struct GpmSamples {
    allocated: HashMap<usize, Sample>,
    /// Number of samples allocated so far; handles are never reused.
    count: usize,
}

/// An allocated sample.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// The serial number of its session.
    session: u32,
    /// `None` until it is taken.
    capture: Option<Capture>,
}

/// The device and the time of a sample.
#[derive(Clone, Copy, Debug)]
struct Capture {
    /// A whole GPU or a GPU instance.
    entry: HandleEntry,
    now: Now,
}

/// The interval between two samples of one device.
#[derive(Clone, Debug)]
pub(crate) struct SampleInterval {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) entry: HandleEntry,
    pub(crate) from: Now,
    pub(crate) to: Now,
}

impl GpmSamples {
    /// Allocates a sample.
    ///
    /// # Errors
    /// `MEMORY` if too many samples are allocated.
    pub(crate) fn alloc(&mut self, session: u32) -> NvmlResult<usize> {
        self.allocated.retain(|_, sample| sample.session == session);
        if self.allocated.len() >= MAX_SAMPLES {
            return Err(ReturnCode::MEMORY);
        }
        self.count += 1;
        // Aligned like a pointer to a struct.
        let handle = self.count * 16;
        self.allocated.insert(handle, Sample { session, capture: None });
        Ok(handle)
    }

    /// Frees a sample.
    pub(crate) fn free(&mut self, handle: usize, session: u32) -> NvmlResult<()> {
        self.of(handle, session)?;
        self.allocated.remove(&handle);
        Ok(())
    }

    /// Takes a sample of a device.
    pub(crate) fn take(
        &mut self,
        handle: usize,
        session: u32,
        entry: HandleEntry,
        now: Now,
    ) -> NvmlResult<()> {
        self.of(handle, session)?.capture = Some(Capture { entry, now });
        Ok(())
    }

    /// The interval between two samples.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` unless both samples are of the same device and in order.
    pub(crate) fn interval(
        &mut self,
        (first, second): (usize, usize),
        session: u32,
        scenario: &Arc<Scenario>,
    ) -> NvmlResult<SampleInterval> {
        let mut capture = |sample: usize| {
            let sample = *self.of(sample, session)?;
            sample.capture.ok_or(ReturnCode::INVALID_ARGUMENT)
        };
        let (first, second) = (capture(first)?, capture(second)?);
        let reversed = second.now.real < first.now.real || second.now.world < first.now.world;
        if first.entry != second.entry || reversed {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        let scenario = Arc::clone(scenario);
        Ok(SampleInterval { scenario, entry: first.entry, from: first.now, to: second.now })
    }

    fn of(&mut self, handle: usize, session: u32) -> NvmlResult<&mut Sample> {
        let sample = self.allocated.get_mut(&handle).filter(|sample| sample.session == session);
        sample.ok_or(ReturnCode::INVALID_ARGUMENT)
    }
}
