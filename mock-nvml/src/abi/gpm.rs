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

use super::{dispatch, put, world};
use crate::{
    code::{Answer, Code},
    world::{Metric, metric_text},
};

/// As many metrics as the longest struct that clients of this header have.
const MOST_METRICS: c_uint = 210;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmQueryDeviceSupport(
    device: nvmlDevice_t,
    out: *mut nvmlGpmSupport_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let supported = world()?.gpm_support("nvmlGpmQueryDeviceSupport", device.addr())?;
        if out.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so the caller's struct, of which it has set the version.
        let version = unsafe { out.read() }.version;
        if version != NVML_GPM_SUPPORT_VERSION {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        let isSupportedDevice = c_uint::from(supported);
        // SAFETY: as above.
        unsafe { put(out, nvmlGpmSupport_t { version, isSupportedDevice }) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmSampleAlloc(out: *mut nvmlGpmSample_t) -> nvmlReturn_t {
    dispatch(|| {
        if out.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        let sample = world()?.gpm_alloc("nvmlGpmSampleAlloc")?;
        // SAFETY: the caller gives a place for a sample, which is an address that nobody follows.
        unsafe { put(out, ptr::without_provenance_mut(sample)) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmSampleFree(sample: nvmlGpmSample_t) -> nvmlReturn_t {
    dispatch(|| world()?.gpm_free("nvmlGpmSampleFree", sample.addr()))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmSampleGet(
    device: nvmlDevice_t,
    sample: nvmlGpmSample_t,
) -> nvmlReturn_t {
    dispatch(|| world()?.gpm_take("nvmlGpmSampleGet", device.addr(), None, sample.addr()))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmMigSampleGet(
    device: nvmlDevice_t,
    instance: c_uint,
    sample: nvmlGpmSample_t,
) -> nvmlReturn_t {
    dispatch(|| {
        let function = "nvmlGpmMigSampleGet";
        world()?.gpm_take(function, device.addr(), Some(instance), sample.addr())
    })
}

/// What comes before the metrics.
#[repr(C)]
struct Head {
    version: c_uint,
    count: c_uint,
    first: nvmlGpmSample_t,
    second: nvmlGpmSample_t,
}

/// Reads and writes as much of the struct as the caller says it has asked: headers differ in how many
/// metrics it has room for, and none tells so in its version.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlGpmMetricsGet(asked: *mut nvmlGpmMetricsGet_t) -> nvmlReturn_t {
    dispatch(|| {
        if asked.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so the caller's struct, which begins so and has been filled so far.
        let head = unsafe { asked.cast::<Head>().read() };
        if head.version != NVML_GPM_METRICS_GET_VERSION {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        if head.count == 0 || head.count > MOST_METRICS {
            return Err(Code::INVALID_ARGUMENT);
        }
        let count = usize::try_from(head.count).unwrap_or_default();
        let metrics = asked.wrapping_byte_add(offset_of!(nvmlGpmMetricsGet_t, metrics));
        let metrics = metrics.cast::<nvmlGpmMetric_t>();
        // SAFETY: the caller has room for so many metrics, which nobody else uses during the call.
        let metrics = unsafe { slice::from_raw_parts_mut(metrics, count) };
        let ids: Vec<_> = metrics.iter().map(|metric| metric.metricId).collect();
        let samples = (head.first.addr(), head.second.addr());
        let answers = world()?.gpm_metrics("nvmlGpmMetricsGet", samples, &ids)?;
        for (metric, answer) in metrics.iter_mut().zip(answers) {
            fill(metric, answer);
        }
        Ok(())
    })
}

fn fill(metric: &mut nvmlGpmMetric_t, answer: Answer<Metric>) {
    let (name, unit) = metric_text(metric.metricId);
    let text = |text: &'static CStr| text.as_ptr().cast_mut();
    metric.nvmlReturn = answer.err().map_or(0, |code| code.0);
    metric.value = answer.map_or(0.0, |metric| metric.value);
    metric.metricInfo = nvmlGpmMetric_t__bindgen_ty_1 {
        shortName: text(name),
        longName: text(name),
        unit: text(unit),
    };
}
