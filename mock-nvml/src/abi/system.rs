//! Initialisation, and what is asked of the node.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::{nvmlReturn_t, nvmlSystemDriverBranchInfo_v1_t};

use super::{dispatch, pci::chars, put, put_text, versioned, world};
use crate::code::{self, Code};

/// `NVML_INIT_FLAG_NO_GPUS`, `NVML_INIT_FLAG_NO_ATTACH`
const INIT_FLAGS: c_uint = 0b11;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlInit() -> nvmlReturn_t {
    dispatch(|| world()?.init("nvmlInit"))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    dispatch(|| world()?.init("nvmlInit_v2"))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlInitWithFlags(flags: c_uint) -> nvmlReturn_t {
    dispatch(|| {
        if flags & !INIT_FLAGS != 0 {
            return Err(Code::INVALID_ARGUMENT);
        }
        world()?.init("nvmlInitWithFlags")
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    dispatch(|| world()?.shutdown("nvmlShutdown"))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlErrorString(result: nvmlReturn_t) -> *const c_char {
    code::text(result).as_ptr()
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlSystemGetDriverVersion(
    version: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        let driver = |scenario: &crate::scenario::Scenario, _| Ok(scenario.driver.version.clone());
        let text = world()?.node("nvmlSystemGetDriverVersion", driver)?;
        // SAFETY: the caller gives a buffer of `length` bytes.
        unsafe { put_text(version, length, &text) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlSystemGetNVMLVersion(
    version: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        let nvml = |scenario: &crate::scenario::Scenario| Ok(scenario.driver.nvml.clone());
        let text = world()?.always("nvmlSystemGetNVMLVersion", nvml)?;
        // SAFETY: the caller gives a buffer of `length` bytes.
        unsafe { put_text(version, length, &text) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlSystemGetCudaDriverVersion(
    version: *mut c_int,
) -> nvmlReturn_t {
    // SAFETY: the caller gives a place for an int.
    dispatch(|| unsafe { cuda_version("nvmlSystemGetCudaDriverVersion", version) })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(
    version: *mut c_int,
) -> nvmlReturn_t {
    // SAFETY: the caller gives a place for an int.
    dispatch(|| unsafe { cuda_version("nvmlSystemGetCudaDriverVersion_v2", version) })
}

/// # Safety
/// `version` is null or valid for a write.
unsafe fn cuda_version(function: &str, version: *mut c_int) -> code::Answer<()> {
    // CUDA's version is the library's own knowledge: no session is needed.
    let cuda = world()?.always(function, |scenario| Ok(scenario.driver.cuda))?;
    // SAFETY: as our caller says.
    unsafe { put(version, cuda) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlSystemGetDriverBranch(
    info: *mut nvmlSystemDriverBranchInfo_v1_t,
    length: c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        let branch = |scenario: &crate::scenario::Scenario, _| Ok(scenario.driver.branch());
        let text = format!("r{}_00", world()?.node("nvmlSystemGetDriverBranch", branch)?);
        // SAFETY: the caller gives a struct that it has filled as far as it is asked to.
        let mut filled = unsafe { versioned(info, 1) }?;
        if usize::try_from(length).is_ok_and(|room| text.len() >= room) {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        filled.branch = chars(&text);
        // SAFETY: as above.
        unsafe { put(info, filled) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlSystemGetProcessName(
    pid: c_uint,
    name: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    dispatch(|| {
        let text = world()?.node("nvmlSystemGetProcessName", |scenario, now| {
            let mut processes = scenario.processes.iter();
            let alive = processes.find(|one| one.pid == pid && one.life.contains(now.world));
            let program = alive.and_then(|process| process.command.first());
            program.cloned().ok_or(Code::NOT_FOUND)
        })?;
        // SAFETY: the caller gives a buffer of `length` bytes.
        unsafe { put_text(name, length, &text) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetCount(count: *mut c_uint) -> nvmlReturn_t {
    // SAFETY: the caller gives a place for an unsigned int.
    dispatch(|| unsafe { put(count, world()?.count("nvmlDeviceGetCount")?) })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    // SAFETY: the caller gives a place for an unsigned int.
    dispatch(|| unsafe { put(count, world()?.count("nvmlDeviceGetCount_v2")?) })
}
