//! GPU performance monitoring (GPM): samples of counters, and metrics computed between two samples.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{
    NVML_GPM_METRICS_GET_VERSION, NVML_GPM_SUPPORT_VERSION, nvmlGpmMetric_t,
    nvmlGpmMetric_t__bindgen_ty_1, nvmlGpmMetricsGet_t, nvmlGpmSample_t, nvmlGpmSupport_t,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
};

use super::{Handle, check, symbol};
use crate::model::{Missing, Reading};

/// Maximum number of metrics of one call (length of `nvmlGpmMetricsGet_t::metrics`).
const METRICS_MAX: usize = 210;

/// A sample buffer allocated by the driver, to be released with [`free`].
#[derive(Debug)]
pub struct GpmSample(nvmlGpmSample_t);

// SAFETY: NVML is documented as thread-safe and the sample is an opaque token that is never
// dereferenced here.
unsafe impl Send for GpmSample {}

/// Whether a GPU supports GPM (`nvmlGpmQueryDeviceSupport`): Hopper and later.
///
/// # Errors
/// Returns the NVML error; unsupported before driver branch 525.
pub fn is_supported(nvml: &Nvml, gpu: Handle) -> Result<bool, Missing> {
    let call = symbol(&nvml.lib().nvmlGpmQueryDeviceSupport)?;
    let mut support = nvmlGpmSupport_t { version: NVML_GPM_SUPPORT_VERSION, isSupportedDevice: 0 };
    // SAFETY: `support` is a live struct of the version in its version field.
    check(unsafe { call(gpu.0, &raw mut support) })?;
    Ok(support.isSupportedDevice != 0)
}

/// Allocates a sample buffer (`nvmlGpmSampleAlloc`).
///
/// # Errors
/// Returns the NVML error.
pub fn alloc(nvml: &Nvml) -> Result<GpmSample, Missing> {
    let call = symbol(&nvml.lib().nvmlGpmSampleAlloc)?;
    let mut sample = std::ptr::null_mut();
    // SAFETY: `sample` is a live pointer, which the call writes.
    check(unsafe { call(&raw mut sample) })?;
    Ok(GpmSample(sample))
}

/// Frees a sample buffer (`nvmlGpmSampleFree`). Errors are ignored: it fails only if the driver is
/// gone.
#[expect(clippy::needless_pass_by_value, reason = "a freed sample must not be used again")]
pub fn free(nvml: &Nvml, sample: GpmSample) {
    if let Ok(call) = symbol(&nvml.lib().nvmlGpmSampleFree) {
        // SAFETY: the sample is from this library and is passed by value, so it cannot be used
        // again.
        let _ = unsafe { call(sample.0) };
    }
}

/// Takes a sample of a GPU (`nvmlGpmSampleGet`) or of one of its GPU instances
/// (`nvmlGpmMigSampleGet`).
///
/// # Errors
/// Returns the NVML error.
pub fn take_sample(
    nvml: &Nvml,
    gpu: Handle,
    instance: Option<u32>,
    sample: &mut GpmSample,
) -> Result<(), Missing> {
    match instance {
        None => {
            let call = symbol(&nvml.lib().nvmlGpmSampleGet)?;
            // SAFETY: the sample is from this library and has not been freed.
            check(unsafe { call(gpu.0, sample.0) })
        }
        Some(instance) => {
            let call = symbol(&nvml.lib().nvmlGpmMigSampleGet)?;
            // SAFETY: as above.
            check(unsafe { call(gpu.0, instance, sample.0) })
        }
    }
}

/// Readings of the metrics `ids` (`nvmlGpmMetricId_t`) between two samples, in the same order
/// (`nvmlGpmMetricsGet`).
///
/// # Errors
/// Returns the NVML error of the call. Errors of single metrics are in their readings.
pub fn metrics(
    nvml: &Nvml,
    before: &GpmSample,
    after: &GpmSample,
    ids: &[u32],
) -> Result<Vec<Reading>, Missing> {
    let call = symbol(&nvml.lib().nvmlGpmMetricsGet)?;
    let mut readings = Vec::with_capacity(ids.len());
    for ids in ids.chunks(METRICS_MAX) {
        let mut request = Box::new(nvmlGpmMetricsGet_t {
            version: NVML_GPM_METRICS_GET_VERSION,
            numMetrics: u32::try_from(ids.len()).unwrap_or_default(),
            sample1: before.0,
            sample2: after.0,
            metrics: [blank(0); METRICS_MAX],
        });
        for (metric, id) in request.metrics.iter_mut().zip(ids) {
            *metric = blank(*id);
        }
        // SAFETY: `request` is a live struct, its array has at least `numMetrics` entries, and both
        // samples are from this library.
        check(unsafe { call(&raw mut *request) })?;
        readings.extend(request.metrics.iter().take(ids.len()).map(reading));
    }
    Ok(readings)
}

fn reading(metric: &nvmlGpmMetric_t) -> Reading {
    // A metric that is unknown to the driver.
    if metric.nvmlReturn == INVALID_ARGUMENT {
        return Err(Missing::Unsupported);
    }
    check(metric.nvmlReturn)?;
    // NaN between two samples of the same instant, and for engines that are powered off.
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
    fn metrics_that_are_not_finite_are_invalid() {
        let of = |code, value| reading(&nvmlGpmMetric_t { nvmlReturn: code, value, ..blank(1) });
        assert_eq!(of(0, 12.5), Ok(12.5));
        for invalid in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(of(0, invalid), Err(Missing::Invalid));
        }
        assert_eq!(of(3, 1.0), Err(Missing::Unsupported));
        assert_eq!(
            of(INVALID_ARGUMENT, 1.0),
            Err(Missing::Unsupported),
            "a metric unknown to the driver"
        );
        assert_eq!(of(15, 1.0), Err(Missing::Lost));
    }
}
