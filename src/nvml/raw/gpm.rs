//! GPU performance monitoring (GPM): samples of a device's counters, and what happened between two.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{
    NVML_GPM_METRICS_GET_VERSION, NVML_GPM_SUPPORT_VERSION, nvmlGpmMetric_t,
    nvmlGpmMetric_t__bindgen_ty_1, nvmlGpmMetricsGet_t, nvmlGpmSample_t, nvmlGpmSupport_t,
};

use super::{Handle, check, symbol};
use crate::model::{Missing, Reading};

/// Metrics that one call has room for.
const ROOM: usize = 210;
/// `NVML_ERROR_INVALID_ARGUMENT`: what a driver answers of a metric that it does not know.
const INVALID_ARGUMENT: u32 = 2;

/// Room for one sample, which the driver owns until [`free`].
#[derive(Debug)]
pub struct GpmSample(nvmlGpmSample_t);

// SAFETY: NVML is documented as thread-safe and the sample is an opaque token that is never
// dereferenced on this side.
unsafe impl Send for GpmSample {}

/// Whether a GPU has GPM (`nvmlGpmQueryDeviceSupport`): Hopper and later.
///
/// # Errors
/// What the driver answered; unsupported before branch 525.
pub fn is_supported(nvml: &Nvml, gpu: Handle) -> Result<bool, Missing> {
    let call = symbol(&nvml.lib().nvmlGpmQueryDeviceSupport)?;
    let mut support = nvmlGpmSupport_t { version: NVML_GPM_SUPPORT_VERSION, isSupportedDevice: 0 };
    // SAFETY: `support` is a live struct of the version that it says.
    check(unsafe { call(gpu.0, &raw mut support) })?;
    Ok(support.isSupportedDevice != 0)
}

/// Room for a sample (`nvmlGpmSampleAlloc`).
///
/// # Errors
/// What the driver answered.
pub fn alloc(nvml: &Nvml) -> Result<GpmSample, Missing> {
    let call = symbol(&nvml.lib().nvmlGpmSampleAlloc)?;
    let mut sample = std::ptr::null_mut();
    // SAFETY: `sample` is a live pointer, which the call writes.
    check(unsafe { call(&raw mut sample) })?;
    Ok(GpmSample(sample))
}

/// Gives a sample back (`nvmlGpmSampleFree`). Only a driver that is gone already refuses.
#[expect(clippy::needless_pass_by_value, reason = "what is freed is not to be used again")]
pub fn free(nvml: &Nvml, sample: GpmSample) {
    if let Ok(call) = symbol(&nvml.lib().nvmlGpmSampleFree) {
        // SAFETY: the sample came from this library, and taking it by value keeps it from being used
        // again.
        let _ = unsafe { call(sample.0) };
    }
}

/// Takes a sample of a GPU, or of one of its GPU instances (`nvmlGpmSampleGet`,
/// `nvmlGpmMigSampleGet`).
///
/// # Errors
/// What the driver answered.
pub fn take(
    nvml: &Nvml,
    gpu: Handle,
    instance: Option<u32>,
    sample: &mut GpmSample,
) -> Result<(), Missing> {
    match instance {
        None => {
            let call = symbol(&nvml.lib().nvmlGpmSampleGet)?;
            // SAFETY: the sample came from this library and has not been freed.
            check(unsafe { call(gpu.0, sample.0) })
        }
        Some(instance) => {
            let call = symbol(&nvml.lib().nvmlGpmMigSampleGet)?;
            // SAFETY: as above.
            check(unsafe { call(gpu.0, instance, sample.0) })
        }
    }
}

/// What the metrics `ids` (`nvmlGpmMetricId_t`) were between two samples, in their order
/// (`nvmlGpmMetricsGet`).
///
/// # Errors
/// What the driver answered to a call as a whole; each metric carries its own answer inside.
pub fn metrics(
    nvml: &Nvml,
    before: &GpmSample,
    after: &GpmSample,
    ids: &[u32],
) -> Result<Vec<Reading>, Missing> {
    let call = symbol(&nvml.lib().nvmlGpmMetricsGet)?;
    let mut readings = Vec::with_capacity(ids.len());
    for ids in ids.chunks(ROOM) {
        let mut asked = Box::new(nvmlGpmMetricsGet_t {
            version: NVML_GPM_METRICS_GET_VERSION,
            numMetrics: u32::try_from(ids.len()).unwrap_or_default(),
            sample1: before.0,
            sample2: after.0,
            metrics: [blank(0); ROOM],
        });
        for (metric, id) in asked.metrics.iter_mut().zip(ids) {
            *metric = blank(*id);
        }
        // SAFETY: `asked` is a live struct with room for as many metrics as it says, and both samples
        // came from this library.
        check(unsafe { call(&raw mut *asked) })?;
        readings.extend(asked.metrics.iter().take(ids.len()).map(reading));
    }
    Ok(readings)
}

fn reading(metric: &nvmlGpmMetric_t) -> Reading {
    if metric.nvmlReturn == INVALID_ARGUMENT {
        return Err(Missing::Unsupported);
    }
    check(metric.nvmlReturn)?;
    // Between two samples of one instant, and on engines that were switched off, it is no number.
    if metric.value.is_finite() && metric.value >= 0.0 {
        Ok(metric.value)
    } else {
        Err(Missing::Invalid)
    }
}

fn blank(id: u32) -> nvmlGpmMetric_t {
    let null = std::ptr::null_mut();
    let info = nvmlGpmMetric_t__bindgen_ty_1 { shortName: null, longName: null, unit: null };
    nvmlGpmMetric_t { metricId: id, nvmlReturn: 0, value: 0.0, metricInfo: info }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_absent() {
        let of = |code, value| reading(&nvmlGpmMetric_t { nvmlReturn: code, value, ..blank(1) });
        assert_eq!(of(0, 12.5), Ok(12.5));
        for junk in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(of(0, junk), Err(Missing::Invalid));
        }
        assert_eq!(of(3, 1.0), Err(Missing::Unsupported));
        assert_eq!(of(INVALID_ARGUMENT, 1.0), Err(Missing::Unsupported), "a metric of the future");
        assert_eq!(of(15, 1.0), Err(Missing::Lost));
    }
}
