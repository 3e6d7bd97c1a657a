//! Initialisation, versions and GPU count.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::{nvmlReturn_t, nvmlSystemDriverBranchInfo_v1_t};

use crate::{
    abi::{
        call::{dispatch, world},
        pci::c_array,
        pointer::{put, put_text, versioned},
    },
    return_code::{self, ReturnCode},
};

/// `NVML_INIT_FLAG_NO_GPUS`, `NVML_INIT_FLAG_NO_ATTACH`
const INIT_FLAGS: c_uint = 0b11;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlInit() -> nvmlReturn_t {
    tap!("nvmlInit");
    dispatch(|| world()?.init("nvmlInit"))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    tap!("nvmlInit_v2");
    dispatch(|| world()?.init("nvmlInit_v2"))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlInitWithFlags(flags: c_uint) -> nvmlReturn_t {
    tap!("nvmlInitWithFlags", flags);
    dispatch(|| {
        if flags & !INIT_FLAGS != 0 {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        world()?.init("nvmlInitWithFlags")
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    tap!("nvmlShutdown");
    dispatch(|| world()?.shutdown("nvmlShutdown"))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlErrorString(result: nvmlReturn_t) -> *const c_char {
    return_code::error_string(result).as_ptr()
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlSystemGetDriverVersion(
    version: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    tap!("nvmlSystemGetDriverVersion", version, length);
    dispatch(|| {
        let driver = |scenario: &crate::scenario::Scenario, _| Ok(scenario.driver.version.clone());
        let text = world()?.with_session("nvmlSystemGetDriverVersion", driver)?;
        // SAFETY: the caller passes null or a buffer of `length` bytes.
        unsafe { put_text(version, length, &text) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlSystemGetNVMLVersion(
    version: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    tap!("nvmlSystemGetNVMLVersion", version, length);
    dispatch(|| {
        let nvml = |scenario: &crate::scenario::Scenario| Ok(scenario.driver.nvml.clone());
        let text = world()?.without_session("nvmlSystemGetNVMLVersion", nvml)?;
        // SAFETY: the caller passes null or a buffer of `length` bytes.
        unsafe { put_text(version, length, &text) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlSystemGetCudaDriverVersion(
    version: *mut c_int,
) -> nvmlReturn_t {
    tap!("nvmlSystemGetCudaDriverVersion", version);
    // SAFETY: the caller passes null or a valid pointer to an int.
    dispatch(|| unsafe { cuda_version("nvmlSystemGetCudaDriverVersion", version) })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(
    version: *mut c_int,
) -> nvmlReturn_t {
    tap!("nvmlSystemGetCudaDriverVersion_v2", version);
    // SAFETY: the caller passes null or a valid pointer to an int.
    dispatch(|| unsafe { cuda_version("nvmlSystemGetCudaDriverVersion_v2", version) })
}

/// Writes the CUDA version of the driver.
///
/// # Safety
/// `version` is null or valid for a write.
unsafe fn cuda_version(function: &str, version: *mut c_int) -> return_code::NvmlResult<()> {
    // The CUDA version is built into the library, so no session is needed.
    let cuda = world()?.without_session(function, |scenario| Ok(scenario.driver.cuda))?;
    // SAFETY: by this function's contract.
    unsafe { put(version, cuda) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlSystemGetDriverBranch(
    info: *mut nvmlSystemDriverBranchInfo_v1_t,
    length: c_uint,
) -> nvmlReturn_t {
    tap!("nvmlSystemGetDriverBranch", info, length);
    dispatch(|| {
        let branch = |scenario: &crate::scenario::Scenario, _| Ok(scenario.driver.branch());
        let text = format!("r{}_00", world()?.with_session("nvmlSystemGetDriverBranch", branch)?);
        // SAFETY: the caller passes null or a struct in which the input fields are set.
        let mut filled = unsafe { versioned(info, 1) }?;
        if usize::try_from(length).is_ok_and(|capacity| text.len() >= capacity) {
            return Err(ReturnCode::INSUFFICIENT_SIZE);
        }
        filled.branch = c_array(&text);
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
    tap!("nvmlSystemGetProcessName", pid, name, length);
    dispatch(|| {
        let text = world()?.with_session("nvmlSystemGetProcessName", |scenario, now| {
            let mut processes = scenario.processes.iter();
            let alive = processes.find(|one| one.pid == pid && one.lifetime.contains(now.world));
            let program = alive.and_then(|process| process.command.first());
            program.cloned().ok_or(ReturnCode::NOT_FOUND)
        })?;
        // SAFETY: the caller passes null or a buffer of `length` bytes.
        unsafe { put_text(name, length, &text) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetCount(count: *mut c_uint) -> nvmlReturn_t {
    tap!("nvmlDeviceGetCount", count);
    // SAFETY: the caller passes null or a valid pointer to an unsigned int.
    dispatch(|| unsafe { put(count, world()?.gpu_count("nvmlDeviceGetCount")?) })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    tap!("nvmlDeviceGetCount_v2", count);
    // SAFETY: the caller passes null or a valid pointer to an unsigned int.
    dispatch(|| unsafe { put(count, world()?.gpu_count("nvmlDeviceGetCount_v2")?) })
}
