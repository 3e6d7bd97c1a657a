//! Errors of the links of a GPU, for its health.

use std::time::Duration;

use nvml_wrapper_sys::bindings::field_id;

use super::cached::{Cached, is_fresh_slow};
use crate::model::{FabricHealth, LinkFields, LinkStates, Missing, Reading};
use crate::nvml::links::{LinkKind, bit_error_rate};
use crate::nvml::probe::Probe;
use crate::policy::LINK_SUPPORT_EVERY;

/// Counters of which DCGM's health watch fails an `NVLink` 5 for each increase.
const NVLINK_ERRORS: [u32; 9] = [
    field_id::NVML_FI_DEV_NVLINK_COUNT_MALFORMED_PACKET_ERRORS,
    field_id::NVML_FI_DEV_NVLINK_COUNT_BUFFER_OVERRUN_ERRORS,
    field_id::NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS,
    field_id::NVML_FI_DEV_NVLINK_COUNT_RCV_REMOTE_ERRORS,
    field_id::NVML_FI_DEV_NVLINK_COUNT_RCV_GENERAL_ERRORS,
    field_id::NVML_FI_DEV_NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS,
    field_id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS,
    field_id::NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS,
    field_id::NVML_FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS,
];
const EFFECTIVE: [u32; 1] = [field_id::NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER];
const SYMBOL: [u32; 1] = [field_id::NVML_FI_DEV_NVLINK_COUNT_SYMBOL_BER];
const C2C_STATUS: [u32; 1] = [field_id::NVML_FI_DEV_C2C_LINK_GET_STATUS];
const C2C_ERRORS: [u32; 3] = [
    field_id::NVML_FI_DEV_C2C_LINK_ERROR_INTR,
    field_id::NVML_FI_DEV_C2C_LINK_ERROR_REPLAY,
    field_id::NVML_FI_DEV_C2C_LINK_ERROR_REPLAY_B2B,
];

/// Errors of the links of a GPU.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LinkErrors {
    /// Errors and recoveries of all `NVLink` links.
    pub(super) nvlink: Reading,
    /// Largest bit error rate of an `NVLink` after error correction.
    pub(super) effective_rate: Reading,
    /// Largest bit error rate of the symbols of an `NVLink`.
    pub(super) symbol_rate: Reading,
    /// State in the `NVLink` fabric.
    pub(super) fabric: Result<FabricHealth, Missing>,
    /// CRC errors and replays of all C2C links.
    pub(super) c2c: Reading,
    /// C2C link states.
    pub(super) c2c_links: Result<LinkStates, Missing>,
}

/// Caches of the readings, which are taken slowly; seldom on boards without such links.
#[derive(Default)]
pub(super) struct LinkErrorReader {
    nvlink: Cached<Result<LinkFields, Missing>>,
    fabric: Cached<Result<FabricHealth, Missing>>,
    c2c: Cached<Result<LinkFields, Missing>>,
}

impl LinkErrorReader {
    /// The errors at `now` (monotonic). A GPU without an active `NVLink` has none of them, and no fabric: MIG
    /// mode disables the links.
    pub(super) fn read(
        &mut self,
        probe: &Probe<'_>,
        links: &Result<LinkStates, Missing>,
        now: Duration,
    ) -> LinkErrors {
        let is_active = |(_, state): &(u32, Result<u32, Missing>)| *state != Ok(0);
        let (nvlink, fabric) = match links {
            Ok(links) if links.iter().any(is_active) => {
                let fields = [&NVLINK_ERRORS[..], &EFFECTIVE, &SYMBOL].concat();
                let read = || supported(probe.link_fields(LinkKind::NvLink, &fields));
                let fabric = || probe.fabric_health();
                (
                    self.nvlink.get_or_read(now, is_fresh, read),
                    self.fabric.get_or_read(now, is_fresh, fabric),
                )
            }
            Ok(_) => (Err(Missing::Unsupported), Err(Missing::Unsupported)),
            Err(missing) => (Err(*missing), Err(*missing)),
        };
        let c2c = self.c2c.get_or_read(now, is_fresh, || {
            supported(probe.link_fields(LinkKind::C2c, &[&C2C_STATUS[..], &C2C_ERRORS].concat()))
        });
        LinkErrors {
            nvlink: joined(&nvlink, &NVLINK_ERRORS, Ok, std::ops::Add::add),
            effective_rate: joined(&nvlink, &EFFECTIVE, bit_error_rate, f64::max),
            symbol_rate: joined(&nvlink, &SYMBOL, bit_error_rate, f64::max),
            fabric,
            c2c: joined(&c2c, &C2C_ERRORS, Ok, std::ops::Add::add),
            c2c_links: c2c.map(|fields| states(&fields)),
        }
    }
}

fn is_fresh<T>(value: &Result<T, Missing>, age: Duration) -> bool {
    match value {
        Err(Missing::Unsupported) => age < LINK_SUPPORT_EVERY,
        Ok(_) | Err(_) => is_fresh_slow(&(), age),
    }
}

/// Unsupported if each field of each link is.
fn supported(fields: Result<LinkFields, Missing>) -> Result<LinkFields, Missing> {
    let fields = fields?;
    let mut readings = fields.values().flatten();
    let is_supported = readings.any(|(_, reading)| *reading != Err(Missing::Unsupported));
    if is_supported { Ok(fields) } else { Err(Missing::Unsupported) }
}

/// The readings of some fields of all links as one: of those that the links have.
fn joined(
    fields: &Result<LinkFields, Missing>,
    ids: &[u32],
    convert: fn(f64) -> Reading,
    join: fn(f64, f64) -> f64,
) -> Reading {
    let fields = fields.as_ref().map_err(|missing| *missing)?;
    let mut result = Err(Missing::Unsupported);
    for (_, reading) in ids.iter().filter_map(|id| fields.get(id)).flatten() {
        match reading.and_then(convert) {
            Ok(value) => result = Ok(result.map_or(value, |so_far| join(so_far, value))),
            Err(Missing::Unsupported) => {}
            Err(missing) => return Err(missing),
        }
    }
    result
}

/// States of the C2C links: 1 active.
fn states(fields: &LinkFields) -> LinkStates {
    let links = C2C_STATUS.iter().filter_map(|id| fields.get(id)).flatten();
    links.map(|(link, reading)| (*link, reading.map(|status| u32::from(status > 0.0)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Reading = Err(Missing::Unsupported);

    #[test]
    fn errors_are_those_of_the_links_that_have_them() {
        let fields = |readings: &[Reading]| {
            let links = (0..).zip(readings.iter().copied()).collect();
            Ok(LinkFields::from([(SYMBOL[0], links)]))
        };
        let worst =
            |readings: &[Reading]| joined(&fields(readings), &SYMBOL, bit_error_rate, f64::max);
        let (healthy, faulty) = (Ok(f64::from(0xFFF)), Ok(f64::from(0x30C)));
        assert_eq!(worst(&[healthy, NONE, faulty, healthy]), Ok(3e-12));
        assert_eq!(worst(&[healthy, Err(Missing::Failed(999))]), Err(Missing::Failed(999)));
        assert_eq!((worst(&[NONE]), worst(&[])), (NONE, NONE));
        assert_eq!(supported(fields(&[NONE, NONE])), Err(Missing::Unsupported));
        assert!(supported(fields(&[NONE, healthy])).is_ok());
    }
}
