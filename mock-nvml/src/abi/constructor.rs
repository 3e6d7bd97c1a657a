//! The constructor of the library, which the loader runs while it holds its lock.

use std::{env, path::PathBuf, time::Duration};

use crate::clock;

/// Interval at which the file is looked up.
const POLL: Duration = Duration::from_millis(20);
/// Names a file; while it exists, the library does not finish loading.
const VARIABLE: &str = "MOCK_NVML_HANG_FILE";

#[used]
// SAFETY: the loader calls each entry of this section once, before any other function of the library.
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

extern "C" fn construct() {
    let Some(file) = env::var_os(VARIABLE).map(PathBuf::from) else { return };
    while file.exists() {
        clock::sleep(POLL);
    }
}
