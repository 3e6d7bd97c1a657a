//! The states of a GPU's links to others (`NVLink`).

use super::Session;
use super::raw::fields::{Field, field_values};
use super::raw::{Handle, topology};
use crate::model::{LinkStates, Missing, Reading};

/// `NVML_FI_DEV_NVLINK_LINK_COUNT`.
const COUNT: Field = Field::of(91);
/// `NVML_FI_DEV_NVLINK_GET_STATE`: since driver 510.
const STATE: u32 = 165;
/// More than any GPU has.
const LINKS_MAX: u32 = 64;

impl Session {
    /// The state of each link (`NVLink`) of a GPU: 0 inactive, 1 active, 2 asleep. Drivers before 510
    /// tell the first two only (`nvmlDeviceGetNvLinkState`).
    ///
    /// # Errors
    /// What the driver answered; unsupported by boards without links.
    pub fn link_states(&self, gpu: Handle) -> Result<LinkStates, Missing> {
        let of_states: Vec<Field> =
            (0..self.links(gpu)?).map(|link| Field::of_link(STATE, link)).collect();
        let told = field_values(self.nvml(), gpu, &of_states)?;
        let state = |(link, told): (u32, Reading)| {
            let asked_alone = |_| topology::link_state(self.nvml(), gpu, link);
            (link, told.and_then(whole).or_else(asked_alone))
        };
        Ok((0..).zip(told).map(state).collect())
    }

    fn links(&self, gpu: Handle) -> Result<u32, Missing> {
        let count = field_values(self.nvml(), gpu, &[COUNT])?.first().copied();
        match whole(count.unwrap_or(Err(Missing::Unsupported))?)? {
            0 => Err(Missing::Unsupported),
            count => Ok(count.min(LINKS_MAX)),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked, and the driver gives whole numbers"
)]
fn whole(value: f64) -> Result<u32, Missing> {
    if (0.0..=f64::from(u32::MAX)).contains(&value) {
        Ok(value as u32)
    } else {
        Err(Missing::Invalid)
    }
}
