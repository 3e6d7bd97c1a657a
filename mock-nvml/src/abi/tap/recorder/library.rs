//! The driver's library.

use std::{
    collections::HashMap,
    ffi::{CStr, CString, c_void},
    mem,
    sync::{Mutex, PoisonError},
};

use nvml_wrapper_sys::bindings::nvmlReturn_t;

use crate::return_code::ReturnCode;

/// A function of NVML: its arguments are integers and pointers, which the C ABIs of 64-bit machines pass in
/// registers; those beyond the parameters of a function are ignored.
type Function = unsafe extern "C" fn(usize, usize, usize, usize, usize, usize) -> nvmlReturn_t;

/// A library that stays loaded.
pub(super) struct DriverLibrary {
    /// The result of dlopen.
    handle: usize,
    functions: Mutex<HashMap<&'static str, Option<Function>>>,
}

impl DriverLibrary {
    /// Loads a library; `None` if the loader has none of this name.
    pub(super) fn open(name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: the constructors of the driver's library are those of every program that uses NVML.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let handle = handle.expose_provenance();
        (handle != 0).then(|| Self { handle, functions: Mutex::default() })
    }

    /// Calls a function; `FUNCTION_NOT_FOUND` if the library lacks it.
    pub(super) fn call(&self, function: &'static str, words: &[usize]) -> nvmlReturn_t {
        let Some(call) = self.function(function) else { return ReturnCode::FUNCTION_NOT_FOUND.0 };
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        // SAFETY: the arguments are those of a caller of this function.
        unsafe { call(word(0), word(1), word(2), word(3), word(4), word(5)) }
    }

    /// The functions of `names` that it lacks.
    pub(super) fn missing(&self, names: &[&'static str]) -> Vec<&'static str> {
        names.iter().copied().filter(|name| self.function(name).is_none()).collect()
    }

    fn function(&self, name: &'static str) -> Option<Function> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        *functions.entry(name).or_insert_with(|| {
            let symbol = CString::new(name).ok()?;
            self.symbol(&symbol)
        })
    }

    fn symbol(&self, name: &CStr) -> Option<Function> {
        let handle: *mut c_void = super::pointer(self.handle);
        // SAFETY: the handle is that of a loaded library.
        let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
        // SAFETY: a symbol of NVML is a function with at most six integers and pointers.
        (!address.is_null()).then(|| unsafe { mem::transmute::<*mut c_void, Function>(address) })
    }
}

/// The functions of `names` that a library lacks; `None` if it cannot be loaded.
pub(in crate::abi) fn missing_functions(
    library: &str,
    names: &[&'static str],
) -> Option<Vec<&'static str>> {
    Some(DriverLibrary::open(library)?.missing(names))
}
