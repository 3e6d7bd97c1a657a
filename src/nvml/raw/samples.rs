//! The sample ring buffer of the driver for the utilization of a whole GPU.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{
    nvmlSample_t, nvmlSamplingType_enum_NVML_GPU_UTILIZATION_SAMPLES as GPU_UTILIZATION,
    nvmlValue_t, nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as UNSIGNED_INT,
};

use super::{Handle, NOT_FOUND, fill, symbol};
use crate::model::Missing;

/// Initial capacity; known ring buffers have 72 or 100 samples.
const ROWS: usize = 128;

/// Reused buffer for the samples of one GPU.
#[derive(Default)]
pub struct SampleBuffer(Vec<nvmlSample_t>);

/// One sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UtilizationSample {
    /// Time of the sample, microseconds since the Unix epoch.
    pub stamp_us: u64,
    /// GPU utilization, percent.
    pub percent: u32,
}

/// GPU utilization samples after `last_seen_us` (`nvmlDeviceGetSamples`, microseconds since the
/// Unix epoch). Empty if there is no new sample (`NVML_ERROR_NOT_FOUND`).
///
/// # Errors
/// Returns the NVML error; unsupported while MIG is enabled.
pub fn gpu_utilization(
    nvml: &Nvml,
    gpu: Handle,
    last_seen_us: u64,
    buffer: &mut SampleBuffer,
) -> Result<Vec<UtilizationSample>, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetSamples)?;
    let blank = nvmlSample_t { timeStamp: 0, sampleValue: nvmlValue_t { ullVal: 0 } };
    let mut kind = 0;
    let filled = fill(&mut buffer.0, blank, ROWS, |rows, count| {
        // SAFETY: `rows` has capacity for `count` samples, and the other pointers are live.
        unsafe {
            call(gpu.0, GPU_UTILIZATION, last_seen_us, &raw mut kind, count, rows.as_mut_ptr())
        }
    });
    let rows = match filled {
        Err(Missing::Failed(NOT_FOUND)) => return Ok(Vec::new()),
        rows => rows?,
    };
    if kind != UNSIGNED_INT {
        return Err(Missing::Invalid);
    }
    let read = |row: &nvmlSample_t| UtilizationSample {
        stamp_us: row.timeStamp,
        // SAFETY: `kind` is the member that the driver wrote; every bit pattern is valid for it.
        percent: unsafe { row.sampleValue.uiVal },
    };
    Ok(rows.iter().map(read).collect())
}
