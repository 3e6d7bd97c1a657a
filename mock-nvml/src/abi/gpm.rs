//! GPU performance monitoring.

use std::{
    ffi::{CStr, c_uint},
    mem::offset_of,
    ptr, slice,
};

use nvml_wrapper_sys::bindings::{
    NVML_GPM_METRICS_GET_VERSION, NVML_GPM_SUPPORT_VERSION, nvmlDevice_t, nvmlGpmMetric_t,
    nvmlGpmMetric_t__bindgen_ty_1, nvmlGpmMetricsGet_t, nvmlGpmSample_t, nvmlGpmSupport_t,
    nvmlReturn_t,
};

use crate::{
    abi::{
        call::{dispatch, world},
        pointer::put,
    },
    fault::{self, Substitute},
    return_code::{NvmlResult, ReturnCode},
    world::gpm::metric::{Metric, text as metric_text},
};

/// Metrics in the longest `nvmlGpmMetricsGet_t` of this header.
const MAX_METRICS: c_uint = 210;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmQueryDeviceSupport(
    device: nvmlDevice_t,
    out: *mut nvmlGpmSupport_t,
) -> nvmlReturn_t {
    tap!("nvmlGpmQueryDeviceSupport", device, out);
    dispatch(|| {
        let supported = world()?.gpm_support("nvmlGpmQueryDeviceSupport", device.addr())?;
        if out.is_null() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so the caller's struct, in which the version is set.
        let version = unsafe { out.read() }.version;
        if version != NVML_GPM_SUPPORT_VERSION {
            return Err(ReturnCode::ARGUMENT_VERSION_MISMATCH);
        }
        let isSupportedDevice = c_uint::from(supported);
        // SAFETY: as above.
        unsafe { put(out, nvmlGpmSupport_t { version, isSupportedDevice }) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmSampleAlloc(out: *mut nvmlGpmSample_t) -> nvmlReturn_t {
    tap!("nvmlGpmSampleAlloc", out);
    dispatch(|| {
        if out.is_null() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        let sample = world()?.gpm_alloc("nvmlGpmSampleAlloc")?;
        // SAFETY: null was refused. The address written is never dereferenced.
        unsafe { put(out, ptr::without_provenance_mut(sample)) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmSampleFree(sample: nvmlGpmSample_t) -> nvmlReturn_t {
    tap!("nvmlGpmSampleFree", sample);
    dispatch(|| world()?.gpm_free("nvmlGpmSampleFree", sample.addr()))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmSampleGet(
    device: nvmlDevice_t,
    sample: nvmlGpmSample_t,
) -> nvmlReturn_t {
    tap!("nvmlGpmSampleGet", device, sample);
    dispatch(|| world()?.gpm_sample("nvmlGpmSampleGet", device.addr(), None, sample.addr()))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmMigSampleGet(
    device: nvmlDevice_t,
    instance: c_uint,
    sample: nvmlGpmSample_t,
) -> nvmlReturn_t {
    tap!("nvmlGpmMigSampleGet", device, instance, sample);
    dispatch(|| {
        let function = "nvmlGpmMigSampleGet";
        world()?.gpm_sample(function, device.addr(), Some(instance), sample.addr())
    })
}

/// The fields of `nvmlGpmMetricsGet_t` before the metrics.
#[repr(C)]
struct Head {
    version: c_uint,
    count: c_uint,
    first: nvmlGpmSample_t,
    second: nvmlGpmSample_t,
}

/// The two samples of a request, and its metrics; `None` if it is null or has too many metrics.
///
/// # Safety
/// The request is null or the caller's struct, which nothing else accesses during the call.
pub(super) fn request_at<'a>(
    request: *mut nvmlGpmMetricsGet_t,
) -> Option<((usize, usize), &'a mut [nvmlGpmMetric_t])> {
    if request.is_null() {
        return None;
    }
    // SAFETY: not null, so the caller's struct, which begins with these fields, all set.
    let head = unsafe { request.cast::<Head>().read() };
    if head.count > MAX_METRICS {
        return None;
    }
    let count = usize::try_from(head.count).unwrap_or_default();
    let metrics = request.wrapping_byte_add(offset_of!(nvmlGpmMetricsGet_t, metrics));
    // SAFETY: the caller's array has that many metrics, not aliased during the call.
    let metrics = unsafe { slice::from_raw_parts_mut(metrics.cast(), count) };
    Some(((head.first.addr(), head.second.addr()), metrics))
}

/// Reads and writes only as many metrics as the caller requests: the length of the array differs
/// between headers with the same version of the struct.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmMetricsGet(
    request: *mut nvmlGpmMetricsGet_t,
) -> nvmlReturn_t {
    tap!("nvmlGpmMetricsGet", request);
    dispatch(|| {
        if request.is_null() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so the caller's struct, which begins with these fields, all set.
        let head = unsafe { request.cast::<Head>().read() };
        if head.version != NVML_GPM_METRICS_GET_VERSION {
            return Err(ReturnCode::ARGUMENT_VERSION_MISMATCH);
        }
        if head.count == 0 || head.count > MAX_METRICS {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        let count = usize::try_from(head.count).unwrap_or_default();
        let metrics = request.wrapping_byte_add(offset_of!(nvmlGpmMetricsGet_t, metrics));
        let metrics = metrics.cast::<nvmlGpmMetric_t>();
        // SAFETY: the caller's array has that many metrics, not aliased during the call.
        let metrics = unsafe { slice::from_raw_parts_mut(metrics, count) };
        let ids: Vec<_> = metrics.iter().map(|metric| metric.metricId).collect();
        let samples = (head.first.addr(), head.second.addr());
        let results = world()?.gpm_metrics("nvmlGpmMetricsGet", samples, &ids)?;
        for (metric, result) in metrics.iter_mut().zip(results) {
            fill(metric, result);
        }
        Ok(())
    })
}

fn fill(metric: &mut nvmlGpmMetric_t, result: NvmlResult<Metric>) {
    let result = match fault::substitute() {
        Some(Substitute::Number(number)) => result.map(|_| Metric { value: f64::from(number) }),
        Some(Substitute::AllBitsSet | Substitute::NoRows) | None => result,
    };
    let (name, unit) = metric_text(metric.metricId);
    let text = |text: &'static CStr| text.as_ptr().cast_mut();
    metric.nvmlReturn = result.err().map_or(0, |code| code.0);
    metric.value = result.map_or(0.0, |metric| metric.value);
    metric.metricInfo = nvmlGpmMetric_t__bindgen_ty_1 {
        shortName: text(name),
        longName: text(name),
        unit: text(unit),
    };
}
