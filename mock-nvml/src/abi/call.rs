//! Calls of exported functions: the world they act on, and their return code.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Mutex, OnceLock, PoisonError},
};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::{
    abi::library_file::library_path,
    cluster_servers, environment, fault,
    return_code::{NvmlResult, ReturnCode},
    stderr::log_error,
    world::{World, board::Board},
};

/// Runs the body of an exported function. A panic becomes `NVML_ERROR_UNKNOWN`.
pub(super) fn dispatch(body: impl FnOnce() -> NvmlResult<()>) -> nvmlReturn_t {
    fault::set_substitute(None);
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code.0,
        Err(_) => ReturnCode::UNKNOWN.0,
    }
}

/// The simulated node, created by the first call.
///
/// # Errors
/// `DRIVER_NOT_LOADED` without a valid scenario.
pub(super) fn world() -> NvmlResult<&'static World> {
    static WORLD: OnceLock<World> = OnceLock::new();
    static CREATING: Mutex<()> = Mutex::new(());
    if let Some(world) = WORLD.get() {
        cluster_servers::start_if_pending(world);
        return Ok(world);
    }
    let _guard = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(world) = WORLD.get() {
        return Ok(world);
    }
    let image = library_path();
    let directory = image.as_deref().and_then(Path::parent);
    match environment::scenario_source(directory).and_then(|source| World::open(source, directory))
    {
        Ok(world) => {
            let world = WORLD.get_or_init(|| world);
            cluster_servers::start_if_pending(world);
            Ok(world)
        }
        Err(error) => {
            log_error(&error);
            Err(ReturnCode::DRIVER_NOT_LOADED)
        }
    }
}

/// Runs `read` on the device of a handle.
pub(super) fn board<T>(
    function: &str,
    device: nvmlDevice_t,
    read: impl FnOnce(&Board) -> NvmlResult<T>,
) -> NvmlResult<T> {
    world()?.board(function, device.addr(), read)
}
