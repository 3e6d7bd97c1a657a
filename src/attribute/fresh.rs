//! A GPU's newest answer, judged by its age.

use std::time::Duration;

use crate::catalog::DeviceSource;
use crate::model::{Listing, Missing, Moment, Reading};
use crate::policy::Tier;
use crate::sample::SampledGpu;
use crate::sample::cells::Cell;
use crate::sample::device::DeviceSample;
use crate::sample::part::PartSample;
use crate::selection::Chosen;

/// What a GPU has answered, and what of it still holds.
pub struct Fresh<'a> {
    /// The GPU's seat.
    pub sampled: &'a SampledGpu,
    /// Its newest answer.
    pub answer: &'a DeviceSample,
    /// Whether it can be read, and why not.
    pub state: Result<(), Missing>,
    now: Moment,
    max_age: Duration,
}

impl<'a> Fresh<'a> {
    /// Judges a GPU at `now`; an unanswered reading may be as old as `max_age`.
    ///
    /// # Errors
    /// The GPU has not been identified, and why.
    pub fn of(sampled: &'a SampledGpu, now: Moment, max_age: Duration) -> Result<Self, Missing> {
        let too_old = |since: Duration| now.mono.saturating_sub(since) > max_age;
        let answer = match &sampled.latest {
            Some(answer) => answer.as_deref().map_err(|missing| *missing)?,
            None if sampled.waiting_since.is_some_and(too_old) => return Err(Missing::Hung),
            None => return Err(Missing::Pending),
        };
        let state = if too_old(answer.at.mono) { Err(Missing::Hung) } else { answer.state() };
        Ok(Self { sampled, answer, state, now, max_age })
    }

    /// The readings of the families of `chosen`, of the GPU or of a part of it.
    #[must_use]
    pub fn readings(&self, cells: &[Option<Cell>], chosen: &Chosen<DeviceSource>) -> Vec<Reading> {
        let of = |row: usize, tier| match self.state {
            // A hang is judged reading by reading: slow ones live longer.
            Ok(()) | Err(Missing::Hung) => {
                // What has been chosen since it was asked is not known yet.
                let cell = cells.get(row).copied().flatten().ok_or(Missing::Pending)?;
                self.reading(cell, tier)
            }
            // Slow readings of a GPU that is gone are not news of it.
            Err(missing) => Err(missing),
        };
        chosen.families().iter().map(|family| of(family.row, family.metric.tier)).collect()
    }

    /// A number that has grown too old is withheld; that there is none does not grow old.
    fn reading(&self, cell: Cell, tier: Tier) -> Reading {
        let age = self.now.mono.saturating_sub(cell.at);
        let too_old = age > tier.max_age(self.max_age);
        if too_old && cell.reading.is_ok() { Err(Missing::Hung) } else { cell.reading }
    }

    /// Who is on a part, while the GPU can be read.
    ///
    /// # Errors
    /// Why nobody knows.
    pub fn listing(&self, part: &'a PartSample) -> Result<&'a Listing, Missing> {
        self.state?;
        part.listing.as_ref().map_err(|missing| *missing)
    }
}
