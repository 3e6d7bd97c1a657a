//! `NVLink` and C2C links of a GPU.

use nvml_wrapper_sys::bindings::field_id;

use super::Session;
use super::raw::fields::{Field, FieldReading, field_values};
use super::raw::{Handle, topology};
use crate::model::{LinkFields, LinkStates, Missing, Reading};

const COUNT: Field = Field::of(field_id::NVML_FI_DEV_NVLINK_LINK_COUNT);
/// Since driver 510.
const STATE: u32 = field_id::NVML_FI_DEV_NVLINK_GET_STATE;
/// Upper bound of links per GPU; protects against an invalid count.
const LINKS_MAX: u32 = 256;

impl Session {
    /// State of each `NVLink` of a GPU: 0 inactive, 1 active, 2 asleep. Drivers before 510 report
    /// only the first two (`nvmlDeviceGetNvLinkState`).
    ///
    /// # Errors
    /// Returns the NVML error; unsupported if the board has no links.
    pub fn link_states(&self, gpu: Handle) -> Result<LinkStates, Missing> {
        let fields: Vec<Field> =
            (0..self.link_count(gpu)?).map(|link| Field::of_link(STATE, link)).collect();
        let readings = self.field_values(gpu, &fields)?;
        let state = |(link, FieldReading { reading, .. }): (u32, FieldReading)| {
            let read_singly = |_| topology::link_state(self.nvml(), gpu, link);
            (link, reading.and_then(to_u32).or_else(read_singly))
        };
        Ok((0..).zip(readings).map(state).collect())
    }

    /// Readings of `fields` of each link of one kind, in one call.
    ///
    /// # Errors
    /// Returns the NVML error; unsupported if the board has no such links.
    pub fn link_fields(
        &self,
        gpu: Handle,
        kind: LinkKind,
        fields: &[u32],
    ) -> Result<LinkFields, Missing> {
        let mut by_field = LinkFields::new();
        for (field, FieldReading { reading, .. }) in self.link_readings(gpu, kind, fields)? {
            by_field.entry(field.id).or_default().push((field.scope, reading));
        }
        Ok(by_field)
    }

    /// As [`Session::link_fields`], with the time stamp of each reading.
    ///
    /// # Errors
    /// As [`Session::link_fields`].
    pub fn link_readings(
        &self,
        gpu: Handle,
        kind: LinkKind,
        fields: &[u32],
    ) -> Result<Vec<(Field, FieldReading)>, Missing> {
        let count = self.count(gpu, kind.count())?;
        let of_links = |id: &u32| {
            let id = *id;
            (0..count).map(move |link| Field::of_link(id, link))
        };
        let requests: Vec<Field> = fields.iter().flat_map(of_links).collect();
        let readings = self.field_values(gpu, &requests)?;
        Ok(requests.into_iter().zip(readings).collect())
    }

    /// Error counters (`nvmlNvLinkErrorCounter_t`) of each `NVLink`, by counter.
    ///
    /// # Errors
    /// Returns the NVML error; unsupported if the board has no links.
    #[expect(clippy::cast_precision_loss, reason = "an exported sample is an f64")]
    pub fn link_errors(&self, gpu: Handle, counters: &[u32]) -> Result<LinkFields, Missing> {
        let links = 0..self.link_count(gpu)?;
        let of_link = |counter, link| {
            topology::link_errors(self.nvml(), gpu, link, counter).map(|errors| errors as f64)
        };
        let of_counter = |counter: &u32| {
            let counter = *counter;
            (counter, links.clone().map(|link| (link, of_link(counter, link))).collect())
        };
        Ok(counters.iter().map(of_counter).collect())
    }

    fn link_count(&self, gpu: Handle) -> Result<u32, Missing> {
        self.count(gpu, COUNT)
    }

    fn count(&self, gpu: Handle, field: Field) -> Result<u32, Missing> {
        let count = self.field_values(gpu, &[field])?.first().copied();
        match to_u32(count.ok_or(Missing::Unsupported)?.reading?)? {
            0 => Err(Missing::Unsupported),
            count => Ok(count.min(LINKS_MAX)),
        }
    }

    fn field_values(&self, gpu: Handle, fields: &[Field]) -> Result<Vec<FieldReading>, Missing> {
        field_values(self.nvml(), self.field_numbering(), gpu, fields)
    }
}

/// The bit error rate of a field of a link: mantissa in the bits 8 to 11, negative exponent of 10 in the bits 0
/// to 7. The sum over all links that the driver returns is none.
///
/// # Errors
/// Invalid if there are further bits.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "12 bits are checked")]
pub fn bit_error_rate(raw: f64) -> Reading {
    if !(0.0..4096.0).contains(&raw) {
        return Err(Missing::Invalid);
    }
    let bits = raw as u32;
    // Exact, unlike a power of ten.
    let rate = format!("{}e-{}", bits >> 8, bits & 0xFF);
    rate.parse().map_err(|_| Missing::Invalid)
}

/// A kind of links of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// To other GPUs and switches.
    NvLink,
    /// To the CPU.
    C2c,
}

impl LinkKind {
    /// The field with the number of links.
    fn count(self) -> Field {
        match self {
            Self::NvLink => COUNT,
            Self::C2c => Field::of(field_id::NVML_FI_DEV_C2C_LINK_COUNT),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_error_rate_has_a_mantissa_and_an_exponent() {
        assert_eq!(bit_error_rate(f64::from(0x30C)), Ok(3e-12));
        assert_eq!(bit_error_rate(f64::from(0xFFF)), Ok(15e-255));
        assert_eq!(bit_error_rate(4096.0), Err(Missing::Invalid));
    }
}
