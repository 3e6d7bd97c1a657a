//! GPM metrics of one GPU or GPU instance, computed between two samples.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Missing, Reading};
use crate::nvml::Session;
use crate::nvml::raw::Handle;
use crate::nvml::raw::gpm::{self, GpmSample};
use crate::policy::GPM_WINDOW_MIN;

/// Keeps the previous sample, so that each read takes only one new sample. A GPU instance that
/// reuses the id of a destroyed one needs a new reader, since the previous sample belongs to the
/// other instance.
pub struct GpmReader {
    session: Arc<Session>,
    instance: Option<u32>,
    supported: Option<bool>,
    samples: Option<SamplePair>,
    last: Vec<Reading>,
}

struct SamplePair {
    previous: GpmSample,
    next: GpmSample,
    /// When `previous` was taken (monotonic); `None` while it is empty.
    taken_at: Option<Duration>,
}

impl GpmReader {
    /// Creates a reader of a GPU, or of the GPU instance with id `instance`; no sample is taken
    /// yet.
    #[must_use]
    pub fn new(session: Arc<Session>, instance: Option<u32>) -> Self {
        Self { session, instance, supported: None, samples: None, last: Vec::new() }
    }

    /// Readings of the metrics `ids` since the previous sample, as of `now` (monotonic).
    ///
    /// # Errors
    /// Unsupported before Hopper, pending at the first sample, otherwise the NVML error.
    pub fn read(&mut self, gpu: Handle, ids: &[u32], now: Duration) -> Result<&[Reading], Missing> {
        if ids.is_empty() {
            return Ok(&[]);
        }
        if !self.is_supported(gpu)? {
            return Err(Missing::Unsupported);
        }
        let result = self.advance(gpu, ids, now);
        if result.is_err() {
            self.reset();
        }
        result?;
        if self.last.is_empty() { Err(Missing::Pending) } else { Ok(&self.last) }
    }

    fn is_supported(&mut self, gpu: Handle) -> Result<bool, Missing> {
        if let Some(supported) = self.supported {
            return Ok(supported);
        }
        let supported = match gpm::is_supported(self.session.nvml(), gpu) {
            Err(Missing::Unsupported) => false,
            result => result?,
        };
        self.supported = Some(supported);
        Ok(supported)
    }

    fn advance(&mut self, gpu: Handle, ids: &[u32], now: Duration) -> Result<(), Missing> {
        let nvml = self.session.nvml();
        let samples = match &mut self.samples {
            Some(samples) => samples,
            none => none.insert(SamplePair::alloc(&self.session)?),
        };
        let age = samples.taken_at.map(|taken_at| now.saturating_sub(taken_at));
        if age.is_some_and(|age| age < GPM_WINDOW_MIN) && self.last.len() == ids.len() {
            return Ok(());
        }
        gpm::take_sample(nvml, gpu, self.instance, &mut samples.next)?;
        self.last = match age {
            Some(_) => gpm::metrics(nvml, &samples.previous, &samples.next, ids)?,
            None => Vec::new(),
        };
        std::mem::swap(&mut samples.previous, &mut samples.next);
        samples.taken_at = Some(now);
        Ok(())
    }

    /// Discards the previous sample: a window must not span a failure.
    fn reset(&mut self) {
        self.last.clear();
        if let Some(samples) = &mut self.samples {
            samples.taken_at = None;
        }
    }
}

impl SamplePair {
    fn alloc(session: &Session) -> Result<Self, Missing> {
        let previous = gpm::alloc(session.nvml())?;
        match gpm::alloc(session.nvml()) {
            Ok(next) => Ok(Self { previous, next, taken_at: None }),
            Err(missing) => {
                gpm::free(session.nvml(), previous);
                Err(missing)
            }
        }
    }
}

impl Drop for GpmReader {
    /// The session of the samples is still open, since the reader holds it.
    fn drop(&mut self) {
        if let Some(SamplePair { previous, next, .. }) = self.samples.take() {
            gpm::free(self.session.nvml(), previous);
            gpm::free(self.session.nvml(), next);
        }
    }
}
