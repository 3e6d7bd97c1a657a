//! NVML calls that nvml-wrapper does not make, or makes in a way that costs or loses something.
//!
//! The exporter's one address of `unsafe`. Symbols are taken from the fields of `NvmlLib`, whose
//! methods would panic where the driver lacks one; here that is [`Missing::Unsupported`].

#![expect(unsafe_code, reason = "NVML is C; every call that the safe wrapper cannot make is here")]

use std::ffi::{CString, c_char};
use std::path::Path;

use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{
    NvmlLib, nvmlDevice_t, nvmlFieldValue_t, nvmlMemory_t, nvmlMemory_v2_t, nvmlProcessInfo_t,
    nvmlProcessUtilizationSample_t, nvmlReturn_t, nvmlValue_t,
    nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE as DOUBLE,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT as SIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG as SIGNED_LONG_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as UNSIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG as UNSIGNED_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG as UNSIGNED_LONG_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT as UNSIGNED_SHORT,
};

use super::LibraryError;
use crate::model::{Missing, Reading};

const SUCCESS: nvmlReturn_t = 0;
const NOT_FOUND: nvmlReturn_t = 6;
const INSUFFICIENT_SIZE: nvmlReturn_t = 7;

/// Entries that a list of running processes starts with; the kernel lists at most 950.
const PROCESS_ENTRIES: usize = 1024;
/// Rows that a utilization buffer starts with.
const UTILIZATION_ROWS: usize = 256;
/// A driver that asks for more than this is lying.
const MAX_ENTRIES: usize = 65_536;

/// A device handle that outlives the frame it was got in, to be used with the session it came from.
#[derive(Clone, Copy, Debug)]
pub struct Handle(nvmlDevice_t);

// SAFETY: NVML is documented as thread-safe and the handle is an opaque token that is never
// dereferenced on this side.
unsafe impl Send for Handle {}

impl Handle {
    /// The handle inside a wrapped device.
    #[must_use]
    pub fn of(device: &Device<'_>) -> Self {
        // SAFETY: the handle is only ever given back to the library it came from.
        Self(unsafe { device.handle() })
    }

    /// Wraps the handle again, for the safe calls of nvml-wrapper.
    #[must_use]
    pub fn device<'nvml>(&self, nvml: &'nvml Nvml) -> Device<'nvml> {
        // SAFETY: the handle was got from a device of the same session; NVML answers a handle that
        // has gone stale with an error.
        unsafe { Device::new(self.0, nvml) }
    }
}

/// Framebuffer of a device, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// In use; what `nvidia-smi` shows where the driver has the v2 call (510 and later), the
    /// reserved part included where it only has v1.
    pub used: u64,
    /// Free for allocations.
    pub free: u64,
}

/// One of NVML's three lists of running processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessList {
    /// `nvmlDeviceGetComputeRunningProcesses_v3`.
    Compute,
    /// `nvmlDeviceGetGraphicsRunningProcesses_v3`.
    Graphics,
    /// `nvmlDeviceGetMPSComputeRunningProcesses_v3`.
    Mps,
}

/// One entry of such a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningProcess {
    /// Process id in our pid namespace.
    pub pid: u32,
    /// Framebuffer in bytes; none where the driver says it is not available.
    pub memory: Option<u64>,
}

/// One row of `nvmlDeviceGetProcessUtilization`, as the driver gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UtilizationRow {
    /// Process id.
    pub pid: u32,
    /// Microseconds since the epoch: the process's own last busy sample.
    pub stamp_us: u64,
    /// Percent of SM, memory interface, encoder, decoder.
    pub percent: [u32; 4],
}

/// Buffers of one device, kept so that each list costs one call.
#[derive(Default)]
pub struct Buffers {
    processes: Vec<nvmlProcessInfo_t>,
    utilization: Vec<nvmlProcessUtilizationSample_t>,
}

fn symbol<F: Copy, E>(symbol: &Result<F, E>) -> Result<F, Missing> {
    symbol.as_ref().copied().map_err(|_| Missing::Unsupported)
}

fn check(code: nvmlReturn_t) -> Result<(), Missing> {
    if code == SUCCESS { Ok(()) } else { Err(Missing::from_code(code)) }
}

/// `nvmlDeviceGetMemoryInfo_v2`, or `nvmlDeviceGetMemoryInfo` where the driver has no v2.
///
/// # Errors
/// What the driver answered.
pub fn memory(nvml: &Nvml, handle: Handle) -> Result<Memory, Missing> {
    match memory_v2(nvml.lib(), handle) {
        Err(Missing::Unsupported) => memory_v1(nvml.lib(), handle),
        other => other,
    }
}

fn memory_v2(lib: &NvmlLib, handle: Handle) -> Result<Memory, Missing> {
    let call = symbol(&lib.nvmlDeviceGetMemoryInfo_v2)?;
    let size = u32::try_from(size_of::<nvmlMemory_v2_t>()).unwrap_or_default();
    let mut info =
        nvmlMemory_v2_t { version: size | (2 << 24), total: 0, reserved: 0, free: 0, used: 0 };
    // SAFETY: `info` is a live struct whose version field tells its size.
    check(unsafe { call(handle.0, &raw mut info) })?;
    Ok(Memory { total: info.total, used: info.used, free: info.free })
}

fn memory_v1(lib: &NvmlLib, handle: Handle) -> Result<Memory, Missing> {
    let call = symbol(&lib.nvmlDeviceGetMemoryInfo)?;
    let mut info = nvmlMemory_t { total: 0, free: 0, used: 0 };
    // SAFETY: `info` is a live struct of the type that the symbol's signature names.
    check(unsafe { call(handle.0, &raw mut info) })?;
    Ok(Memory { total: info.total, used: info.used, free: info.free })
}

/// `nvmlDeviceGetCurrentClocksEventReasons`, or its older name: every bit, known to us or not.
///
/// # Errors
/// What the driver answered.
pub fn clock_event_reasons(nvml: &Nvml, handle: Handle) -> Result<u64, Missing> {
    let lib = nvml.lib();
    let call = symbol(&lib.nvmlDeviceGetCurrentClocksEventReasons)
        .or_else(|_| symbol(&lib.nvmlDeviceGetCurrentClocksThrottleReasons))?;
    let mut bits = 0;
    // SAFETY: `bits` is a live u64, which both symbols write.
    check(unsafe { call(handle.0, &raw mut bits) })?;
    Ok(bits)
}

/// `nvmlDeviceGetFieldValues`: one call for all of `fields`, answered in their order.
///
/// # Errors
/// What the driver answered to the call as a whole; each field carries its own answer inside.
pub fn field_values(nvml: &Nvml, handle: Handle, fields: &[u32]) -> Result<Vec<Reading>, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetFieldValues)?;
    let mut values: Vec<nvmlFieldValue_t> = fields.iter().copied().map(blank_field).collect();
    let count = i32::try_from(values.len()).map_err(|_| Missing::Invalid)?;
    // SAFETY: `values` holds `count` live structs.
    check(unsafe { call(handle.0, count, values.as_mut_ptr()) })?;
    Ok(values.iter().map(field_reading).collect())
}

fn blank_field(field: u32) -> nvmlFieldValue_t {
    nvmlFieldValue_t {
        fieldId: field,
        scopeId: 0,
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
    check(field.nvmlReturn)?;
    let value = field.value;
    match field.valueType {
        // SAFETY: the driver says which member it wrote, and every bit pattern is valid for each.
        DOUBLE => Ok(unsafe { value.dVal }),
        // SAFETY: as above.
        UNSIGNED_INT => Ok(f64::from(unsafe { value.uiVal })),
        // SAFETY: as above.
        UNSIGNED_LONG | UNSIGNED_LONG_LONG => Ok(unsafe { value.ullVal } as f64),
        // SAFETY: as above.
        SIGNED_LONG_LONG => Ok(unsafe { value.sllVal } as f64),
        // SAFETY: as above.
        SIGNED_INT => Ok(f64::from(unsafe { value.siVal })),
        // SAFETY: as above.
        UNSIGNED_SHORT => Ok(f64::from(unsafe { value.usVal })),
        _ => Err(Missing::Invalid),
    }
}

/// One list of running processes, in one call for as long as the kept buffer is large enough.
///
/// # Errors
/// What the driver answered.
pub fn running_processes(
    nvml: &Nvml,
    handle: Handle,
    list: ProcessList,
    buffers: &mut Buffers,
) -> Result<Vec<RunningProcess>, Missing> {
    let lib = nvml.lib();
    let call = match list {
        ProcessList::Compute => symbol(&lib.nvmlDeviceGetComputeRunningProcesses_v3),
        ProcessList::Graphics => symbol(&lib.nvmlDeviceGetGraphicsRunningProcesses_v3),
        ProcessList::Mps => symbol(&lib.nvmlDeviceGetMPSComputeRunningProcesses_v3),
    }?;
    let blank = nvmlProcessInfo_t {
        pid: 0,
        usedGpuMemory: 0,
        gpuInstanceId: u32::MAX,
        computeInstanceId: u32::MAX,
    };
    let filled = fill(&mut buffers.processes, blank, PROCESS_ENTRIES, |entries, count| {
        // SAFETY: `entries` has room for `*count` structs of this version of the call.
        unsafe { call(handle.0, count, entries.as_mut_ptr()) }
    })?;
    Ok(filled
        .iter()
        .map(|entry| RunningProcess {
            pid: entry.pid,
            memory: (entry.usedGpuMemory != u64::MAX).then_some(entry.usedGpuMemory),
        })
        .collect())
}

/// `nvmlDeviceGetProcessUtilization` since `last_seen_us`. "Not found" means that nothing ran: no rows.
///
/// # Errors
/// What the driver answered.
pub fn process_utilization(
    nvml: &Nvml,
    handle: Handle,
    last_seen_us: u64,
    buffers: &mut Buffers,
) -> Result<Vec<UtilizationRow>, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetProcessUtilization)?;
    let blank = nvmlProcessUtilizationSample_t {
        pid: 0,
        timeStamp: 0,
        smUtil: 0,
        memUtil: 0,
        encUtil: 0,
        decUtil: 0,
    };
    let filled = fill(&mut buffers.utilization, blank, UTILIZATION_ROWS, |rows, count| {
        // SAFETY: `rows` has room for `*count` structs of the type that the signature names.
        unsafe { call(handle.0, rows.as_mut_ptr(), count, last_seen_us) }
    });
    match filled {
        Ok(rows) => Ok(rows
            .iter()
            .map(|row| UtilizationRow {
                pid: row.pid,
                stamp_us: row.timeStamp,
                percent: [row.smUtil, row.memUtil, row.encUtil, row.decUtil],
            })
            .collect()),
        Err(Missing::Failed(NOT_FOUND)) => Ok(Vec::new()),
        Err(missing) => Err(missing),
    }
}

/// Calls until the buffer is large enough, and returns what was written to it. NVML's count is
/// the room on the way in and the number of entries (or the room it needs) on the way out.
fn fill<T: Copy>(
    buffer: &mut Vec<T>,
    blank: T,
    first: usize,
    mut call: impl FnMut(&mut [T], &mut u32) -> nvmlReturn_t,
) -> Result<&[T], Missing> {
    if buffer.is_empty() {
        buffer.resize(first, blank);
    }
    loop {
        let mut count = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        match call(buffer, &mut count) {
            SUCCESS => return Ok(buffer.get(..count as usize).unwrap_or(buffer)),
            INSUFFICIENT_SIZE if buffer.len() < MAX_ENTRIES => {
                let room = (buffer.len() * 2).max(count as usize).min(MAX_ENTRIES);
                buffer.resize(room, blank);
            }
            code => return Err(Missing::from_code(code)),
        }
    }
}

/// Has the mock library at `library` set up `scenario` in the empty directory `stage`: a
/// `libnvidia-ml.so.1` to load and a `proc` to read.
///
/// # Errors
/// The library cannot be loaded or is not the mock; or the mock's own word on the scenario.
pub fn stage_mock(library: &Path, scenario: &str, stage: &Path) -> Result<(), LibraryError> {
    type Stage = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_char, u32) -> i32;
    let no_mock = |e: libloading::Error| LibraryError::NoMock {
        path: library.to_owned(),
        detail: e.to_string(),
    };
    let text = |s: &str| {
        CString::new(s).map_err(|_| LibraryError::Scenario("a name with a NUL byte".to_owned()))
    };
    let (scenario, directory) = (text(scenario)?, text(&stage.to_string_lossy())?);
    let mut message = vec![0_u8; 4096];
    let room = u32::try_from(message.len()).unwrap_or_default();

    // SAFETY: loading runs the library's initialisers; it is our own build, found beside our executable.
    let mock = unsafe { libloading::Library::new(library) }.map_err(no_mock)?;
    // SAFETY: the mock exports this symbol with this signature.
    let call = unsafe { mock.get::<Stage>(b"mockNvmlStage\0") }.map_err(no_mock)?;
    // SAFETY: both texts are NUL-terminated and the message has `room` bytes.
    let code =
        unsafe { call(scenario.as_ptr(), directory.as_ptr(), message.as_mut_ptr().cast(), room) };
    if code == 0 {
        return Ok(());
    }
    message.truncate(message.iter().position(|&b| b == 0).unwrap_or_default());
    Err(LibraryError::Scenario(String::from_utf8_lossy(&message).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_to_what_the_driver_asks_for() {
        let mut buffer = Vec::new();
        let mut calls = 0;
        let filled = fill(&mut buffer, 0_u32, 4, |entries, count| {
            calls += 1;
            if entries.len() < 9 {
                *count = 9;
                return INSUFFICIENT_SIZE;
            }
            entries[..3].copy_from_slice(&[7, 8, 9]);
            *count = 3;
            SUCCESS
        });
        assert_eq!(filled, Ok([7, 8, 9].as_slice()));
        assert_eq!((calls, buffer.len()), (2, 9));
    }

    #[test]
    fn a_driver_that_always_wants_more_is_not_followed_for_ever() {
        let mut buffer = Vec::new();
        let filled = fill(&mut buffer, 0_u8, 4, |_, _| INSUFFICIENT_SIZE);
        assert_eq!(filled, Err(Missing::Failed(INSUFFICIENT_SIZE)));
        assert_eq!(buffer.len(), MAX_ENTRIES);
    }

    #[test]
    fn a_count_beyond_the_buffer_is_not_believed() {
        let mut buffer = Vec::new();
        let filled = fill(&mut buffer, 0_u8, 4, |_, count| {
            *count = 4_000_000_000;
            SUCCESS
        });
        assert_eq!(filled.map(<[u8]>::len), Ok(4));
    }

    #[test]
    fn a_field_is_read_by_the_type_it_says_it_has() {
        let field = |kind, value| nvmlFieldValue_t { valueType: kind, value, ..blank_field(0) };
        let read = |kind, value| field_reading(&field(kind, value));
        assert_eq!(read(UNSIGNED_INT, nvmlValue_t { ullVal: 0xFFFF_FFFF_0000_0007 }), Ok(7.0));
        assert_eq!(read(SIGNED_INT, nvmlValue_t { siVal: -7 }), Ok(-7.0));
        assert_eq!(
            read(UNSIGNED_LONG_LONG, nvmlValue_t { ullVal: 1 << 40 }),
            Ok(1_099_511_627_776.0)
        );
        assert_eq!(read(DOUBLE, nvmlValue_t { dVal: 0.5 }), Ok(0.5));
        assert_eq!(read(99, nvmlValue_t { ullVal: 1 }), Err(Missing::Invalid));
        let refused =
            nvmlFieldValue_t { nvmlReturn: 3, ..field(UNSIGNED_INT, nvmlValue_t { ullVal: 0 }) };
        assert_eq!(field_reading(&refused), Err(Missing::Unsupported));
    }
}
