//! Shells that many functions share.

/// Functions that give one value.
macro_rules! values {
    ($($name:ident: $type:ty = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(device: nvml_wrapper_sys::bindings::nvmlDevice_t, out: *mut $type) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            crate::abi::dispatch(|| {
                let read: fn(&crate::world::Board) -> crate::code::Answer<$type> = $read;
                let value = crate::abi::board(stringify!($name), device, read)?;
                // SAFETY: the caller gives a place for the value.
                unsafe { crate::abi::put(out, value) }
            })
        }
    )*};
}

/// Functions that give one value for a number: a clock domain, a sensor, a fan.
macro_rules! chosen {
    ($($name:ident = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvml_wrapper_sys::bindings::nvmlDevice_t,
            which: std::ffi::c_uint,
            out: *mut std::ffi::c_uint,
        ) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            crate::abi::dispatch(|| {
                let read: fn(&crate::world::Board, std::ffi::c_uint) -> crate::code::Answer<std::ffi::c_uint> = $read;
                let value = crate::abi::board(stringify!($name), device, |board| read(board, which))?;
                // SAFETY: the caller gives a place for the value.
                unsafe { crate::abi::put(out, value) }
            })
        }
    )*};
}

/// Functions that give a text.
macro_rules! texts {
    ($($name:ident = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvml_wrapper_sys::bindings::nvmlDevice_t,
            out: *mut std::ffi::c_char,
            length: std::ffi::c_uint,
        ) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            crate::abi::dispatch(|| {
                let read: fn(&crate::world::Board) -> crate::code::Answer<String> = $read;
                let text = crate::abi::board(stringify!($name), device, read)?;
                // SAFETY: the caller gives a buffer of `length` bytes.
                unsafe { crate::abi::put_text(out, length, &text) }
            })
        }
    )*};
}

/// Functions that give two values.
macro_rules! pairs {
    ($($name:ident: $type:ty = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvml_wrapper_sys::bindings::nvmlDevice_t,
            first: *mut $type,
            second: *mut $type,
        ) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            crate::abi::dispatch(|| {
                let read: fn(&crate::world::Board) -> crate::code::Answer<($type, $type)> = $read;
                let pair = crate::abi::board(stringify!($name), device, read)?;
                if second.is_null() {
                    return Err(crate::code::Code::INVALID_ARGUMENT);
                }
                // SAFETY: the caller gives a place for the first value.
                unsafe { crate::abi::put(first, pair.0) }?;
                // SAFETY: the caller gives a place for the second value.
                unsafe { crate::abi::put(second, pair.1) }
            })
        }
    )*};
}

/// Functions that give what a struct with a version in front has room for.
macro_rules! versioned {
    ($($name:ident: $type:ty, $version:literal = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvml_wrapper_sys::bindings::nvmlDevice_t,
            out: *mut $type,
        ) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            crate::abi::dispatch(|| {
                let board = crate::abi::board(stringify!($name), device, |board| Ok(board.clone()))?;
                // SAFETY: the caller gives a struct that it has filled as far as it is asked to.
                let asked = unsafe { crate::abi::versioned(out, $version) }?;
                let read: fn(&crate::world::Board, $type) -> crate::code::Answer<$type> = $read;
                let filled = read(&board, asked)?;
                // SAFETY: as above.
                unsafe { crate::abi::put(out, filled) }
            })
        }
    )*};
}
