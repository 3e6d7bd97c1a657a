//! NVML field values: many values of a device in one call.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{
    nvmlFieldValue_t, nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT, nvmlValue_t,
    nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE as DOUBLE,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT as SIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG as SIGNED_LONG_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as UNSIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG as UNSIGNED_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG as UNSIGNED_LONG_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT as UNSIGNED_SHORT,
};

use super::{Handle, check, symbol};
use crate::model::{Missing, Reading};
use crate::nvml::field_numbering::FieldNumbering;

/// A field id and its scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    /// `NVML_FI_*`.
    pub id: u32,
    /// `scopeId`: an `NVLink`, all links (`u32::MAX`), or 0 for fields without a scope.
    pub scope: u32,
}

impl Field {
    /// A field without a scope.
    #[must_use]
    pub const fn of(id: u32) -> Self {
        Self { id, scope: 0 }
    }

    /// A field of one `NVLink`.
    #[must_use]
    pub const fn of_link(id: u32, link: u32) -> Self {
        Self { id, scope: link }
    }

    /// A field summed over all `NVLink`s of a device.
    #[must_use]
    pub const fn of_all_links(id: u32) -> Self {
        Self { id, scope: u32::MAX }
    }
}

/// The reading of a field, and its time stamp by the driver.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FieldReading {
    /// The value.
    pub reading: Reading,
    /// When the driver took it, microseconds since the Unix epoch; not positive if unknown.
    pub stamp_us: i64,
}

/// `nvmlDeviceGetFieldValues`: readings of `fields` in the same order, in one call.
///
/// # Errors
/// Returns the NVML error of the call. Errors of single fields are in their readings.
pub fn field_values(
    nvml: &Nvml,
    numbering: FieldNumbering,
    handle: Handle,
    fields: &[Field],
) -> Result<Vec<FieldReading>, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetFieldValues)?;
    let mut values: Vec<nvmlFieldValue_t> =
        fields.iter().map(|field| blank_field(*field, numbering)).collect();
    let count = i32::try_from(values.len()).map_err(|_| Missing::Invalid)?;
    // SAFETY: `values` holds `count` live structs.
    check(unsafe { call(handle.0, count, values.as_mut_ptr()) })?;
    let read = |value: &nvmlFieldValue_t| FieldReading {
        reading: field_reading(value),
        stamp_us: value.timestamp,
    };
    Ok(values.iter().map(read).collect())
}

/// Number of no field, for those that the driver does not have.
const NO_FIELD: u32 = 0;

fn blank_field(field: Field, numbering: FieldNumbering) -> nvmlFieldValue_t {
    nvmlFieldValue_t {
        fieldId: numbering.number(field.id).unwrap_or(NO_FIELD),
        scopeId: field.scope,
        timestamp: 0,
        latencyUsec: 0,
        valueType: 0,
        nvmlReturn: 0,
        value: nvmlValue_t { ullVal: 0 },
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an exported sample is an f64; counters past 2^53 lose their last bits"
)]
fn field_reading(field: &nvmlFieldValue_t) -> Reading {
    // A field that is unknown to the driver, or a scope that the device does not have.
    if field.nvmlReturn == INVALID_ARGUMENT {
        return Err(Missing::Unsupported);
    }
    check(field.nvmlReturn)?;
    let value = field.value;
    match field.valueType {
        // SAFETY: `valueType` is the member that the driver wrote; every bit pattern is valid for
        // each.
        DOUBLE => Ok(unsafe { value.dVal }),
        // SAFETY: as above.
        UNSIGNED_INT => match unsafe { value.uiVal } {
            // All bits set means unknown.
            u32::MAX => Err(Missing::Invalid),
            number => Ok(f64::from(number)),
        },
        // SAFETY: as above.
        UNSIGNED_LONG | UNSIGNED_LONG_LONG => match unsafe { value.ullVal } {
            u64::MAX => Err(Missing::Invalid),
            number => Ok(number as f64),
        },
        // SAFETY: as above.
        SIGNED_LONG_LONG => Ok(unsafe { value.sllVal } as f64),
        // SAFETY: as above.
        SIGNED_INT => Ok(f64::from(unsafe { value.siVal })),
        // SAFETY: as above.
        UNSIGNED_SHORT => Ok(f64::from(unsafe { value.usVal })),
        _ => Err(Missing::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_is_decoded_by_its_value_type() {
        let field = |kind, value| nvmlFieldValue_t {
            valueType: kind,
            value,
            ..blank_field(Field::of(1), FieldNumbering::Current)
        };
        let read = |kind, value| field_reading(&field(kind, value));
        assert_eq!(read(UNSIGNED_INT, nvmlValue_t { ullVal: 0xFFFF_FFFF_0000_0007 }), Ok(7.0));
        assert_eq!(read(SIGNED_INT, nvmlValue_t { siVal: -7 }), Ok(-7.0));
        assert_eq!(
            read(UNSIGNED_LONG_LONG, nvmlValue_t { ullVal: 1 << 40 }),
            Ok(1_099_511_627_776.0)
        );
        assert_eq!(read(DOUBLE, nvmlValue_t { dVal: 0.5 }), Ok(0.5));
        let ones = nvmlValue_t { ullVal: u64::MAX };
        assert_eq!(read(UNSIGNED_INT, ones), Err(Missing::Invalid));
        assert_eq!(read(UNSIGNED_LONG_LONG, ones), Err(Missing::Invalid));
        assert_eq!(read(99, nvmlValue_t { ullVal: 1 }), Err(Missing::Invalid));
        let failed = |code| {
            let value = field(UNSIGNED_INT, nvmlValue_t { ullVal: 0 });
            field_reading(&nvmlFieldValue_t { nvmlReturn: code, ..value })
        };
        assert_eq!(failed(3), Err(Missing::Unsupported));
        assert_eq!(failed(INVALID_ARGUMENT), Err(Missing::Unsupported), "an unknown field");
        assert_eq!(failed(999), Err(Missing::Failed(999)));
    }
}
