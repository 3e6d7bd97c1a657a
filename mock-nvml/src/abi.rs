//! NVML's C ABI: short functions that decode arguments, call the world and encode the result.
//!
//! Pointers are trusted, as in NVML itself: each function checks for null first and writes through
//! an output pointer only what the C header allows.
#![expect(
    unsafe_code,
    reason = "a C ABI passes raw pointers; no other module of the mock is unsafe"
)]
#![expect(non_snake_case, reason = "the names are NVML's")]

#[macro_use]
mod macros;

mod call;
mod clocks;
mod constructor;
mod device;
mod ecc;
mod events;
mod fields;
mod gpm;
mod handle;
mod instances;
mod library_file;
mod mig;
mod mock_env;
pub(crate) mod newer;
mod nvlink;
mod pci;
mod platform;
mod pointer;
mod power;
mod processes;
mod profiles;
mod samples;
mod system;
mod tap;
mod thermal;
mod topology;
mod usage;

use nvml_wrapper_sys::bindings::NvmlLib;

use crate::exported_functions::exported_functions;

/// Does not compile unless the signature of each exported function is that of `nvml-wrapper-sys`, where
/// it has the function. Those of newer functions are compared with the header by a test.
macro_rules! check_signatures {
    (wrapped { $($file:ident: $($name:ident)*;)* } newer { $($newer:ident)* }) => {
        const _: fn(&mut NvmlLib) = |lib| { $($(lib.$name = Ok($file::$name);)*)* };
        const _: &[*const ()] = &[$(newer::$newer as *const ()),*];
    };
}

exported_functions!(check_signatures);
