//! NVML's C ABI: shells that decode, ask the world and encode.
//!
//! Pointers are what the caller says they are, as in NVML itself: each function writes through an
//! output pointer only what the C header lets it, and checks for null first.
#![expect(unsafe_code, reason = "a C ABI is made of raw pointers; nothing outside this module is")]
#![expect(non_snake_case, reason = "the names are NVML's")]

#[macro_use]
mod shells;

mod clocks;
mod device;
mod ecc;
mod events;
mod fields;
mod gpm;
mod handle;
mod instances;
mod mig;
mod nvlink;
mod pci;
mod platform;
mod power;
mod processes;
mod profiles;
mod samples;
mod stage;
mod system;
mod thermal;
mod topology;
mod usage;

use std::{
    ffi::{CStr, OsStr, c_char, c_uint},
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{self, PathBuf},
    ptr,
    sync::{Mutex, OnceLock, PoisonError},
};

use nvml_wrapper_sys::bindings::{NvmlLib, nvmlDevice_t, nvmlReturn_t};

use crate::{
    code::{Answer, Code},
    fault,
    number::clamp_u32,
    world::{Board, World, complain},
};

/// Lists what is exported, by the file it is in: names a function for scenarios, and does not compile
/// unless its signature is the one that clients call.
macro_rules! exports {
    ($($file:ident: $($name:ident)*;)*) => {
        /// The C symbols of NVML that this library has.
        pub(crate) const FUNCTIONS: &[&str] = &[$($(stringify!($name)),*),*];

        const _: fn(&mut NvmlLib) = |lib| { $($(lib.$name = Ok($file::$name);)*)* };
    };
}

exports! {
    system:
        nvmlInit nvmlInit_v2 nvmlInitWithFlags nvmlShutdown nvmlErrorString
        nvmlSystemGetDriverVersion nvmlSystemGetNVMLVersion
        nvmlSystemGetCudaDriverVersion nvmlSystemGetCudaDriverVersion_v2 nvmlSystemGetProcessName
        nvmlDeviceGetCount nvmlDeviceGetCount_v2 nvmlSystemGetDriverBranch;
    handle:
        nvmlDeviceGetHandleByIndex nvmlDeviceGetHandleByIndex_v2 nvmlDeviceGetHandleByUUID
        nvmlDeviceGetHandleByPciBusId nvmlDeviceGetHandleByPciBusId_v2 nvmlDeviceGetHandleBySerial;
    device:
        nvmlDeviceGetName nvmlDeviceGetUUID nvmlDeviceGetSerial nvmlDeviceGetIndex
        nvmlDeviceGetMinorNumber nvmlDeviceGetBrand nvmlDeviceGetArchitecture
        nvmlDeviceGetCudaComputeCapability nvmlDeviceGetBoardPartNumber nvmlDeviceGetBoardId
        nvmlDeviceGetMultiGpuBoard nvmlDeviceGetVbiosVersion nvmlDeviceGetInforomImageVersion
        nvmlDeviceGetInforomVersion nvmlDeviceValidateInforom nvmlDeviceGetGspFirmwareVersion nvmlDeviceGetGspFirmwareMode
        nvmlDeviceGetDriverModel nvmlDeviceGetDriverModel_v2
        nvmlDeviceGetNumGpuCores nvmlDeviceGetMemoryBusWidth nvmlDeviceGetVirtualizationMode
        nvmlDeviceGetDisplayMode nvmlDeviceGetDisplayActive
        nvmlDeviceGetPersistenceMode nvmlDeviceGetComputeMode nvmlDeviceGetMigMode
        nvmlDeviceGetAccountingMode nvmlDeviceGetAccountingBufferSize
        nvmlDeviceGetAccountingPids nvmlDeviceGetAccountingStats;
    pci:
        nvmlDeviceGetPciInfo nvmlDeviceGetPciInfo_v2 nvmlDeviceGetPciInfo_v3
        nvmlDeviceGetPciInfoExt nvmlDeviceGetPcieReplayCounter nvmlDeviceGetPcieThroughput
        nvmlDeviceGetCurrPcieLinkGeneration nvmlDeviceGetCurrPcieLinkWidth
        nvmlDeviceGetMaxPcieLinkGeneration nvmlDeviceGetGpuMaxPcieLinkGeneration
        nvmlDeviceGetMaxPcieLinkWidth nvmlDeviceGetPcieLinkMaxSpeed nvmlDeviceGetPcieSpeed
        nvmlDeviceGetBusType;
    clocks:
        nvmlDeviceGetClockInfo nvmlDeviceGetMaxClockInfo nvmlDeviceGetClock
        nvmlDeviceGetApplicationsClock nvmlDeviceGetDefaultApplicationsClock
        nvmlDeviceGetMaxCustomerBoostClock nvmlDeviceGetAutoBoostedClocksEnabled
        nvmlDeviceGetAdaptiveClockInfoStatus
        nvmlDeviceGetPerformanceState nvmlDeviceGetPowerState nvmlDeviceGetViolationStatus
        nvmlDeviceGetCurrentClocksThrottleReasons nvmlDeviceGetCurrentClocksEventReasons
        nvmlDeviceGetSupportedClocksThrottleReasons nvmlDeviceGetSupportedClocksEventReasons;
    power:
        nvmlDeviceGetPowerUsage nvmlDeviceGetTotalEnergyConsumption
        nvmlDeviceGetPowerManagementMode nvmlDeviceGetPowerManagementLimit
        nvmlDeviceGetPowerManagementDefaultLimit nvmlDeviceGetPowerManagementLimitConstraints
        nvmlDeviceGetEnforcedPowerLimit nvmlDeviceGetPowerSource;
    thermal:
        nvmlDeviceGetTemperature nvmlDeviceGetTemperatureV nvmlDeviceGetTemperatureThreshold
        nvmlDeviceGetFanSpeed nvmlDeviceGetFanSpeed_v2 nvmlDeviceGetTargetFanSpeed
        nvmlDeviceGetMinMaxFanSpeed nvmlDeviceGetNumFans;
    ecc:
        nvmlDeviceGetEccMode nvmlDeviceGetDefaultEccMode nvmlDeviceGetTotalEccErrors
        nvmlDeviceGetMemoryErrorCounter nvmlDeviceGetDetailedEccErrors
        nvmlDeviceGetSramEccErrorStatus nvmlDeviceGetRetiredPages nvmlDeviceGetRetiredPages_v2
        nvmlDeviceGetRetiredPagesPendingStatus nvmlDeviceGetRemappedRows
        nvmlDeviceGetRowRemapperHistogram;
    nvlink:
        nvmlDeviceGetNvLinkState nvmlDeviceGetNvLinkVersion nvmlDeviceGetNvLinkCapability
        nvmlDeviceGetNvLinkErrorCounter nvmlDeviceGetNvLinkRemotePciInfo_v2
        nvmlDeviceGetNvLinkRemoteDeviceType;
    topology:
        nvmlDeviceGetTopologyCommonAncestor nvmlDeviceGetP2PStatus nvmlDeviceOnSameBoard;
    events:
        nvmlDeviceGetSupportedEventTypes nvmlDeviceRegisterEvents
        nvmlEventSetCreate nvmlEventSetFree nvmlEventSetWait nvmlEventSetWait_v2;
    fields: nvmlDeviceGetFieldValues;
    platform: nvmlDeviceGetGpuFabricInfoV nvmlDeviceGetGridLicensableFeatures_v4;
    samples: nvmlDeviceGetSamples nvmlDeviceGetProcessesUtilizationInfo;
    processes:
        nvmlDeviceGetComputeRunningProcesses nvmlDeviceGetComputeRunningProcesses_v2
        nvmlDeviceGetComputeRunningProcesses_v3
        nvmlDeviceGetGraphicsRunningProcesses nvmlDeviceGetGraphicsRunningProcesses_v2
        nvmlDeviceGetGraphicsRunningProcesses_v3
        nvmlDeviceGetMPSComputeRunningProcesses nvmlDeviceGetMPSComputeRunningProcesses_v2
        nvmlDeviceGetMPSComputeRunningProcesses_v3
        nvmlDeviceGetRunningProcessDetailList;
    mig:
        nvmlDeviceIsMigDeviceHandle nvmlDeviceGetMaxMigDeviceCount
        nvmlDeviceGetMigDeviceHandleByIndex nvmlDeviceGetDeviceHandleFromMigDeviceHandle
        nvmlDeviceGetGpuInstanceId nvmlDeviceGetComputeInstanceId
        nvmlDeviceGetAttributes nvmlDeviceGetAttributes_v2;
    profiles: nvmlDeviceGetGpuInstanceProfileInfo nvmlDeviceGetGpuInstanceProfileInfoV;
    instances:
        nvmlDeviceGetGpuInstances nvmlDeviceGetGpuInstanceById nvmlGpuInstanceGetInfo
        nvmlGpuInstanceGetComputeInstances nvmlGpuInstanceGetComputeInstanceById
        nvmlComputeInstanceGetInfo nvmlComputeInstanceGetInfo_v2;
    gpm:
        nvmlGpmQueryDeviceSupport nvmlGpmSampleAlloc nvmlGpmSampleFree nvmlGpmSampleGet
        nvmlGpmMigSampleGet nvmlGpmMetricsGet;
    usage:
        nvmlDeviceGetMemoryInfo nvmlDeviceGetMemoryInfo_v2 nvmlDeviceGetBAR1MemoryInfo
        nvmlDeviceGetUtilizationRates nvmlDeviceGetEncoderUtilization
        nvmlDeviceGetDecoderUtilization nvmlDeviceGetJpgUtilization nvmlDeviceGetOfaUtilization
        nvmlDeviceGetProcessUtilization;
}

/// Runs the body of an exported function. No panic leaves the library.
fn dispatch(body: impl FnOnce() -> Answer<()>) -> nvmlReturn_t {
    fault::set_ones(false);
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code.0,
        Err(_) => Code::UNKNOWN.0,
    }
}

/// The world, which begins with the first call. Without a usable scenario there is no driver.
fn world() -> Answer<&'static World> {
    static WORLD: OnceLock<World> = OnceLock::new();
    static BEGINNING: Mutex<()> = Mutex::new(());
    if let Some(world) = WORLD.get() {
        world.serve();
        return Ok(world);
    }
    let _alone = BEGINNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(world) = WORLD.get() {
        return Ok(world);
    }
    let image = image();
    match World::open(image.as_deref().and_then(path::Path::parent)) {
        Ok(world) => {
            let world = WORLD.get_or_init(|| world);
            world.serve();
            Ok(world)
        }
        Err(error) => {
            complain(&error);
            Err(Code::DRIVER_NOT_LOADED)
        }
    }
}

/// Asks the GPU of a handle.
fn board<T>(
    function: &str,
    device: nvmlDevice_t,
    read: impl FnOnce(&Board) -> Answer<T>,
) -> Answer<T> {
    world()?.board(function, device.addr(), read)
}

/// The file from which this library was loaded.
fn image() -> Option<PathBuf> {
    let own: unsafe extern "C" fn() -> nvmlReturn_t = system::nvmlInit_v2;
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr accepts any address and writes one Dl_info to a place that has room for it.
    let known = unsafe { libc::dladdr(own as *const libc::c_void, found.as_mut_ptr()) };
    // SAFETY: Dl_info is made of addresses; zeroed, and possibly written to, it is initialised.
    let found = unsafe { found.assume_init() };
    if known == 0 || found.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader keeps the name of a loaded file, NUL-terminated, as long as it is loaded.
    let name = unsafe { CStr::from_ptr(found.dli_fname) };
    path::absolute(OsStr::from_bytes(name.to_bytes())).ok()
}

/// Writes `value` to where the caller wants it.
///
/// # Safety
/// `out` is null or valid for a write of `T`.
unsafe fn put<T>(out: *mut T, value: T) -> Answer<()> {
    if out.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    // Numbers alone: a text or a list without an end would break its reader before it is read.
    if fault::answers_ones() && size_of::<T>() <= size_of::<u64>() {
        // SAFETY: not null, so valid for this write, says our caller.
        unsafe { out.write_bytes(0xFF, 1) };
    } else {
        // SAFETY: as above.
        unsafe { out.write(value) };
    }
    Ok(())
}

/// Writes the rows if there is room for all of them, and in any case how many there are.
///
/// # Safety
/// `count` is null or valid for reads and writes; `out` is null or valid for writes of so many rows.
unsafe fn put_rows<R: Copy>(count: *mut c_uint, out: *mut R, rows: &[R]) -> Answer<()> {
    if count.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    // SAFETY: not null, so the caller's count.
    let room = if out.is_null() { 0 } else { unsafe { count.read() } };
    let needed = clamp_u32(rows.len());
    // SAFETY: as above.
    unsafe { count.write(needed) };
    if needed > room {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    if needed > 0 {
        // SAFETY: there is room for `room` rows, which is no less; the caller's rows are not ours.
        unsafe { rows.as_ptr().copy_to_nonoverlapping(out, rows.len()) };
    }
    Ok(())
}

/// The caller's struct, if it is of this version: its first member says so, and how long it is.
///
/// # Safety
/// `given` is null or valid for a read of `T`, which begins with an `unsigned int`.
unsafe fn versioned<T: Copy>(given: *const T, version: c_uint) -> Answer<T> {
    if given.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    let expected = (version << 24) | clamp_u32(size_of::<T>());
    // SAFETY: not null, so the caller's struct. A caller of another version has given another length.
    if unsafe { given.cast::<c_uint>().read() } != expected {
        return Err(Code::ARGUMENT_VERSION_MISMATCH);
    }
    // SAFETY: as above, and of this version.
    Ok(unsafe { given.read() })
}

/// Writes `text` and a NUL to a buffer of `length` bytes, or nothing if it is too short.
///
/// # Safety
/// `out` is null or valid for writes of `length` bytes.
unsafe fn put_text(out: *mut c_char, length: c_uint, text: &str) -> Answer<()> {
    if out.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    let room = usize::try_from(length).unwrap_or(usize::MAX);
    if text.len() >= room {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    // SAFETY: the buffer has more than `text.len()` bytes, and no caller's buffer is our text.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), out.cast(), text.len()) };
    // SAFETY: as above, this is at most its last byte.
    let end = unsafe { out.add(text.len()) };
    // SAFETY: as above.
    unsafe { end.write(0) };
    Ok(())
}

/// The caller's text.
///
/// # Safety
/// `text` is null or a NUL-terminated string that lives for the call.
unsafe fn text<'a>(text: *const c_char) -> Answer<&'a str> {
    if text.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    // SAFETY: not null, so a string, says our caller.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Code::INVALID_ARGUMENT)
}
