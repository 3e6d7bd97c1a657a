//! Macros that define exported functions of the same signature.

/// Returns what a driver returned, if calls are recorded or a recording is played.
macro_rules! tap {
    ($function:expr $(, $word:expr)*) => {
        if let Some(code) =
            crate::abi::tap::answer($function, &[$(crate::abi::tap::Word::word($word)),*])
        {
            return code;
        }
    };
}

/// Functions that return one value.
macro_rules! values {
    ($($name:ident: $type:ty = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(device: nvml_wrapper_sys::bindings::nvmlDevice_t, out: *mut $type) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            tap!(stringify!($name), device, out);
            crate::abi::call::dispatch(|| {
                let read: fn(&crate::world::board::Board) -> crate::return_code::NvmlResult<$type> = $read;
                let value = crate::abi::call::board(stringify!($name), device, read)?;
                // SAFETY: the caller passes null or a valid pointer to the value.
                unsafe { crate::abi::pointer::put(out, value) }
            })
        }
    )*};
}

/// Functions that return one value for a number: a clock domain, a sensor, a fan.
macro_rules! indexed {
    ($($name:ident = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvml_wrapper_sys::bindings::nvmlDevice_t,
            index: std::ffi::c_uint,
            out: *mut std::ffi::c_uint,
        ) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            tap!(stringify!($name), device, index, out);
            crate::abi::call::dispatch(|| {
                let read: fn(&crate::world::board::Board, std::ffi::c_uint) -> crate::return_code::NvmlResult<std::ffi::c_uint> = $read;
                let value = crate::abi::call::board(stringify!($name), device, |board| read(board, index))?;
                // SAFETY: the caller passes null or a valid pointer to the value.
                unsafe { crate::abi::pointer::put(out, value) }
            })
        }
    )*};
}

/// Functions that return a string.
macro_rules! strings {
    ($($name:ident = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvml_wrapper_sys::bindings::nvmlDevice_t,
            out: *mut std::ffi::c_char,
            length: std::ffi::c_uint,
        ) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            tap!(stringify!($name), device, out, length);
            crate::abi::call::dispatch(|| {
                let read: fn(&crate::world::board::Board) -> crate::return_code::NvmlResult<String> = $read;
                let text = crate::abi::call::board(stringify!($name), device, read)?;
                // SAFETY: the caller passes null or a buffer of `length` bytes.
                unsafe { crate::abi::pointer::put_text(out, length, &text) }
            })
        }
    )*};
}

/// Functions that return two values.
macro_rules! pairs {
    ($($name:ident: $type:ty = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvml_wrapper_sys::bindings::nvmlDevice_t,
            first: *mut $type,
            second: *mut $type,
        ) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            tap!(stringify!($name), device, first, second);
            crate::abi::call::dispatch(|| {
                let read: fn(&crate::world::board::Board) -> crate::return_code::NvmlResult<($type, $type)> = $read;
                let pair = crate::abi::call::board(stringify!($name), device, read)?;
                if second.is_null() {
                    return Err(crate::return_code::ReturnCode::INVALID_ARGUMENT);
                }
                // SAFETY: the caller passes null or a valid pointer to the first value.
                unsafe { crate::abi::pointer::put(first, pair.0) }?;
                // SAFETY: the caller passes null or a valid pointer to the second value.
                unsafe { crate::abi::pointer::put(second, pair.1) }
            })
        }
    )*};
}

/// Functions that fill a struct that begins with a version.
macro_rules! versioned {
    ($($name:ident: $type:ty, $version:literal = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvml_wrapper_sys::bindings::nvmlDevice_t,
            out: *mut $type,
        ) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            tap!(stringify!($name), device, out);
            crate::abi::call::dispatch(|| {
                let board = crate::abi::call::board(stringify!($name), device, |board| Ok(board.clone()))?;
                // SAFETY: the caller passes null or a struct in which the input fields are set.
                let request = unsafe { crate::abi::pointer::versioned(out, $version) }?;
                let read: fn(&crate::world::board::Board, $type) -> crate::return_code::NvmlResult<$type> = $read;
                let filled = read(&board, request)?;
                // SAFETY: as above.
                unsafe { crate::abi::pointer::put(out, filled) }
            })
        }
    )*};
}
