//! `NVLink` states of a GPU.

use nvml_wrapper_sys::bindings::field_id;

use super::Session;
use super::raw::fields::{Field, FieldReading, field_values};
use super::raw::{Handle, topology};
use crate::model::{LinkStates, Missing};

const COUNT: Field = Field::of(field_id::NVML_FI_DEV_NVLINK_LINK_COUNT);
/// Since driver 510.
const STATE: u32 = field_id::NVML_FI_DEV_NVLINK_GET_STATE;
/// Upper bound of links per GPU; protects against an invalid count.
const LINKS_MAX: u32 = 64;

impl Session {
    /// State of each `NVLink` of a GPU: 0 inactive, 1 active, 2 asleep. Drivers before 510 report
    /// only the first two (`nvmlDeviceGetNvLinkState`).
    ///
    /// # Errors
    /// Returns the NVML error; unsupported if the board has no links.
    pub fn link_states(&self, gpu: Handle) -> Result<LinkStates, Missing> {
        let fields: Vec<Field> =
            (0..self.link_count(gpu)?).map(|link| Field::of_link(STATE, link)).collect();
        let readings = field_values(self.nvml(), gpu, &fields)?;
        let state = |(link, FieldReading { reading, .. }): (u32, FieldReading)| {
            let read_singly = |_| topology::link_state(self.nvml(), gpu, link);
            (link, reading.and_then(to_u32).or_else(read_singly))
        };
        Ok((0..).zip(readings).map(state).collect())
    }

    fn link_count(&self, gpu: Handle) -> Result<u32, Missing> {
        let count = field_values(self.nvml(), gpu, &[COUNT])?.first().copied();
        match to_u32(count.ok_or(Missing::Unsupported)?.reading?)? {
            0 => Err(Missing::Unsupported),
            count => Ok(count.min(LINKS_MAX)),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked, and the driver returns integers"
)]
fn to_u32(value: f64) -> Result<u32, Missing> {
    if (0.0..=f64::from(u32::MAX)).contains(&value) {
        Ok(value as u32)
    } else {
        Err(Missing::Invalid)
    }
}
