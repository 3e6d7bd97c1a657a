//! Symbols and fields of older driver branches.

use nvml_wrapper::error::NvmlError;

use crate::{MIB, MockEnv, hardware::field};

/// Whether the library exports a symbol with a driver of this version.
fn has(version: &str, symbol: &[u8]) -> bool {
    let gpu = "[[gpu]]\nmodel = \"T4\"\n";
    let env = MockEnv::with_scenario(&format!("[driver]\nversion = \"{version}\"\n{gpu}"));
    let library = env.raw();
    // SAFETY: the symbol is looked up and not called.
    unsafe { library.get::<unsafe extern "C" fn()>(symbol) }.is_ok()
}

#[test]
fn symbols_are_exported_from_their_branch_on() {
    let (old, medium, new) = ("470.256.02", "525.147.05", "550.54.15");
    for (symbol, expected) in [
        (&b"nvmlDeviceGetMemoryInfo_v2"[..], [false, true, true]),
        (b"nvmlDeviceGetComputeRunningProcesses_v3", [false, true, true]),
        (b"nvmlDeviceGetComputeRunningProcesses_v2", [true, true, true]),
        (b"nvmlDeviceGetCurrentClocksEventReasons", [false, false, true]),
        (b"nvmlDeviceGetCurrentClocksThrottleReasons", [true, true, true]),
        (b"nvmlDeviceGetProcessesUtilizationInfo", [false, false, true]),
        (b"nvmlDeviceGetTemperatureV", [false, false, false]),
    ] {
        let found = [old, medium, new].map(|version| has(version, symbol));
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(symbol));
    }
}

#[test]
fn old_driver_has_its_functions_and_fields() {
    let env = MockEnv::built_in("old-driver");
    let nvml = env.nvml();
    assert_eq!(nvml.sys_driver_version().unwrap(), "470.256.02");
    assert_eq!(nvml.sys_nvml_version().unwrap(), "11.470.256.02");
    assert_eq!(nvml.sys_cuda_driver_version().unwrap(), 11_040);
    let names = [0, 1, 2].map(|index| nvml.device_by_index(index).unwrap().name().unwrap());
    assert_eq!(names, ["Tesla T4", "Tesla T4", "NVIDIA A100-SXM4-80GB"]);
    let device = nvml.device_by_index(2).unwrap();
    assert!(matches!(device.memory_info(), Err(NvmlError::FailedToLoadSymbol(_))));
    let list = device.running_compute_processes_v2().unwrap();
    assert_eq!(list.iter().map(|one| one.pid).collect::<Vec<_>>(), [1_377]);
    assert_eq!(device.bar1_memory_info().unwrap().total, 131_072 * MIB);
    assert_eq!(field(&env, &device, 186, 0), Err(2));
}
