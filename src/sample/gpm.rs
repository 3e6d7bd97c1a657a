//! GPM of one GPU or GPU instance: two samples, an interval apart, and what happened between them.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Missing, Reading};
use crate::nvml::Session;
use crate::nvml::raw::Handle;
use crate::nvml::raw::gpm::{self, GpmSample};
use crate::policy::GPM_WINDOW_MIN;

/// Keeps the sample before, so that each reading needs one new sample only. A GPU instance that has
/// taken over the id of another needs a reader of its own: a sample of its predecessor says nothing
/// of it.
pub struct GpmReader {
    session: Arc<Session>,
    instance: Option<u32>,
    supported: Option<bool>,
    samples: Option<Samples>,
    last: Vec<Reading>,
}

struct Samples {
    before: GpmSample,
    spare: GpmSample,
    /// When the sample before was taken; none while it holds nothing.
    taken: Option<Duration>,
}

impl GpmReader {
    /// A reader of a GPU, or of one of its instances, that holds no sample yet.
    #[must_use]
    pub fn new(session: Arc<Session>, instance: Option<u32>) -> Self {
        Self { session, instance, supported: None, samples: None, last: Vec::new() }
    }

    /// What the metrics `ids` were since the last time, as of `now` (monotonic).
    ///
    /// # Errors
    /// Unsupported before Hopper, pending the first time, and what the driver answered.
    pub fn read(&mut self, gpu: Handle, ids: &[u32], now: Duration) -> Result<&[Reading], Missing> {
        if ids.is_empty() {
            return Ok(&[]);
        }
        if !self.is_supported(gpu)? {
            return Err(Missing::Unsupported);
        }
        let answer = self.advance(gpu, ids, now);
        if answer.is_err() {
            self.forget();
        }
        answer?;
        if self.last.is_empty() { Err(Missing::Pending) } else { Ok(&self.last) }
    }

    fn is_supported(&mut self, gpu: Handle) -> Result<bool, Missing> {
        if let Some(supported) = self.supported {
            return Ok(supported);
        }
        let supported = match gpm::is_supported(self.session.nvml(), gpu) {
            Err(Missing::Unsupported) => false,
            answer => answer?,
        };
        self.supported = Some(supported);
        Ok(supported)
    }

    fn advance(&mut self, gpu: Handle, ids: &[u32], now: Duration) -> Result<(), Missing> {
        let nvml = self.session.nvml();
        let samples = match &mut self.samples {
            Some(samples) => samples,
            none => none.insert(Samples::alloc(&self.session)?),
        };
        let age = samples.taken.map(|taken| now.saturating_sub(taken));
        if age.is_some_and(|age| age < GPM_WINDOW_MIN) && self.last.len() == ids.len() {
            return Ok(());
        }
        gpm::take(nvml, gpu, self.instance, &mut samples.spare)?;
        self.last = match age {
            Some(_) => gpm::metrics(nvml, &samples.before, &samples.spare, ids)?,
            None => Vec::new(),
        };
        std::mem::swap(&mut samples.before, &mut samples.spare);
        samples.taken = Some(now);
        Ok(())
    }

    /// What was sampled before a failure does not belong to what comes after it.
    fn forget(&mut self) {
        self.last.clear();
        if let Some(samples) = &mut self.samples {
            samples.taken = None;
        }
    }
}

impl Samples {
    fn alloc(session: &Session) -> Result<Self, Missing> {
        let before = gpm::alloc(session.nvml())?;
        match gpm::alloc(session.nvml()) {
            Ok(spare) => Ok(Self { before, spare, taken: None }),
            Err(missing) => {
                gpm::free(session.nvml(), before);
                Err(missing)
            }
        }
    }
}

impl Drop for GpmReader {
    /// The session that the samples came from is still open: the reader holds on to it.
    fn drop(&mut self) {
        if let Some(Samples { before, spare, .. }) = self.samples.take() {
            gpm::free(self.session.nvml(), before);
            gpm::free(self.session.nvml(), spare);
        }
    }
}
