//! Limits, links, throttle times and memory errors of boards.

use nvml_wrapper::{
    Device,
    bitmasks::device::ThrottleReasons,
    enum_wrappers::{
        device::{
            Clock, ClockId, EccCounter, MemoryError, MemoryLocation, PcieUtilCounter,
            PerformancePolicy, RetirementCause, TemperatureThreshold, TopologyLevel,
        },
        nv_link::ErrorCounter,
    },
};
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlFieldValue_t};
use std::ffi::{c_int, c_uint};

use crate::{MockEnv, error, process};

/// Value type and value of a field with a scope, or the field's return code.
pub(crate) fn field(
    env: &MockEnv,
    device: &Device,
    field: u32,
    scope: u32,
) -> Result<(u32, u64), u32> {
    // SAFETY: the handle is used while NVML is initialised.
    let handle = unsafe { device.handle() };
    // SAFETY: the struct consists of numbers, for which 0 is a value.
    let mut value: nvmlFieldValue_t = unsafe { std::mem::zeroed() };
    value.fieldId = field;
    value.scopeId = scope;
    let lib = env.raw();
    let code = raw!(lib, b"nvmlDeviceGetFieldValues"(
        nvmlDevice_t = handle, c_int = 1, *mut nvmlFieldValue_t = &raw mut value
    ));
    assert_eq!(code, 0);
    // SAFETY: the mock writes all of the union.
    let number = unsafe { value.value.ullVal };
    if value.nvmlReturn == 0 { Ok((value.valueType, number)) } else { Err(value.nvmlReturn) }
}

#[test]
fn limits_and_thresholds_are_those_of_the_model() {
    let text =
        "[[gpu]]\nmodel = \"L40S\"\n[[gpu]]\nmodel = \"RTX 4090\"\n[[gpu]]\nmodel = \"H200\"\n";
    let env = MockEnv::with_scenario(text);
    let nvml = env.nvml();
    let [l40s, desktop, h200] = [0, 1, 2].map(|index| nvml.device_by_index(index).unwrap());
    assert_eq!(l40s.power_management_limit().unwrap(), 350_000);
    assert_eq!(l40s.power_management_limit_default().unwrap(), 350_000);
    let limits = desktop.power_management_limit_constraints().unwrap();
    assert_eq!((limits.min_limit, limits.max_limit), (150_000, 600_000));
    let threshold = |device: &Device, which| device.temperature_threshold(which);
    assert_eq!(threshold(&h200, TemperatureThreshold::Slowdown).unwrap(), 87);
    assert_eq!(threshold(&h200, TemperatureThreshold::MemoryMax).unwrap(), 95);
    assert_eq!(error(threshold(&l40s, TemperatureThreshold::MemoryMax)), "NotSupported");
    assert_eq!(h200.applications_clock(Clock::SM).unwrap(), 1_980);
    assert_eq!(h200.clock(Clock::Memory, ClockId::TargetAppClock).unwrap(), 3_201);
    assert_eq!(h200.clock(Clock::Video, ClockId::Current).unwrap(), 765);
    assert_eq!(error(desktop.applications_clock(Clock::SM)), "NotSupported");
    assert_eq!((l40s.max_pcie_link_gen().unwrap(), l40s.current_pcie_link_gen().unwrap()), (4, 1));
    assert_eq!((l40s.num_cores().unwrap(), l40s.memory_bus_width().unwrap()), (18_176, 384));
    assert_eq!((l40s.num_fans().unwrap(), desktop.num_fans().unwrap()), (0, 2));
    assert_eq!(error(desktop.board_part_number()), "NotSupported");
    assert!(h200.vbios_version().unwrap().starts_with("96.00"));
    let level = l40s.topology_common_ancestor(nvml.device_by_index(1).unwrap());
    assert_eq!(level.unwrap(), TopologyLevel::Node);
}

#[test]
fn violations_are_the_time_for_which_their_policy_applies() {
    let text = "now = 100.0\n[[gpu]]\nmodel = \"H100\"\n\
                slowed = [{ by = \"sync_boost\", from = 50, to = 200 }]\n[[gpu]]\nmodel = \"RTX 4090\"\n"
        .to_owned()
        + &process(7, 0, "sm = 100\nmem = 100\nstart = 40");
    let env = MockEnv::with_scenario(&text);
    let nvml = env.nvml();
    let device = nvml.device_by_index(0).unwrap();
    let seconds = |policy| device.violation_status(policy).unwrap().violation_time / 100_000_000;
    // A slowed board stays below the power limit.
    let rounded = |policy| (seconds(policy) + 5) / 10;
    assert_eq!(rounded(PerformancePolicy::LowUtilization), 40);
    assert_eq!(rounded(PerformancePolicy::Power), 10);
    assert_eq!(rounded(PerformancePolicy::SyncBoost), 50);
    assert_eq!(rounded(PerformancePolicy::Thermal), 0);
    let nanoseconds = device.violation_status(PerformancePolicy::SyncBoost).unwrap();
    assert_eq!(field(&env, &device, 76, 0), Ok((3, nanoseconds.violation_time)));
    assert!(device.current_throttle_reasons().unwrap().contains(ThrottleReasons::SYNC_BOOST));
    let desktop = nvml.device_by_index(1).unwrap();
    assert_eq!(error(desktop.violation_status(PerformancePolicy::Power)), "NotSupported");
}

#[test]
fn traffic_is_counted_on_each_link_and_pcie() {
    let text = "now = 10.0\n[[gpu]]\nmodel = \"H100\"\n\
                nvlink = { down = [2], link = 5, replay = 4, crc_flit = 6 }\n[[gpu]]\nmodel = \"T4\"\n"
        .to_owned()
        + &process(7, 0, "sm = 60\nnvlink = 1700\npcie_tx = 20\npcie_rx = 30");
    let env = MockEnv::with_scenario(&text);
    let nvml = env.nvml();
    let device = nvml.device_by_index(0).unwrap();
    let kib = |scope| field(&env, &device, 138, scope);
    assert_eq!(kib(0), Ok((3, 1_000 * 1_024)));
    assert_eq!(kib(2), Ok((3, 0)));
    assert_eq!(kib(u32::MAX), Ok((3, 17_000 * 1_024)));
    assert_eq!(field(&env, &device, 197, 0), Ok((3, 200 << 20)));
    assert_eq!(field(&env, &device, 198, 0), Ok((3, 300 << 20)));
    assert_eq!(device.pcie_throughput(PcieUtilCounter::Receive).unwrap(), 31_457);
    let link = device.link_wrapper_for(5);
    assert_eq!(link.error_counter(ErrorCounter::DlReplay).unwrap(), 4);
    assert_eq!(field(&env, &device, 38, 0), Ok((3, 6)));
    assert!(!device.link_wrapper_for(2).is_active().unwrap() && link.is_active().unwrap());
    assert_eq!(link.remote_pci_info().unwrap().bus_id, "00000000:06:00.0");
    assert_eq!(error(device.link_wrapper_for(18).version()), "InvalidArg");
    let t4 = nvml.device_by_index(1).unwrap();
    assert_eq!(error(t4.link_wrapper_for(0).is_active()), "NotSupported");
    assert_eq!(field(&env, &t4, 138, u32::MAX), Err(3));
}

#[test]
fn memory_errors_are_reported_by_repair_method() {
    let env = MockEnv::built_in("old-driver");
    let nvml = env.nvml();
    let t4 = nvml.device_by_index(0).unwrap();
    let single = t4.retired_pages(RetirementCause::MultipleSingleBitEccErrors).unwrap();
    let double = t4.retired_pages(RetirementCause::DoubleBitEccError).unwrap();
    assert_eq!((single.len(), double.len()), (2, 1));
    assert!(t4.are_pages_pending_retired().unwrap());
    assert_eq!([29, 30, 31].map(|id| field(&env, &t4, id, 0)), [2, 1, 1].map(|n| Ok((1, n))));
    let total = |kind, counter| t4.total_ecc_errors(kind, counter).unwrap();
    assert_eq!(total(MemoryError::Corrected, EccCounter::Aggregate), 41);
    assert_eq!(total(MemoryError::Uncorrected, EccCounter::Volatile), 0);
    let at = t4.memory_error_counter(
        MemoryError::Corrected,
        EccCounter::Volatile,
        MemoryLocation::Device,
    );
    assert_eq!(at.unwrap(), 3);
    let a100 = nvml.device_by_index(2).unwrap();
    assert_eq!(field(&env, &a100, 142, 0), Ok((1, 1)));
    assert_eq!(field(&env, &a100, 29, 0), Err(3));
    // SAFETY: the handle is used while NVML is initialised.
    let handle = unsafe { a100.handle() };
    let (lib, mut rows, mut banks) = (env.raw(), [9_u32; 4], [0_u32; 5]);
    let [correctable, uncorrectable, pending, failure] =
        [0, 1, 2, 3].map(|at| rows.as_mut_ptr().wrapping_add(at));
    let code = raw!(lib, b"nvmlDeviceGetRemappedRows"(
        nvmlDevice_t = handle, *mut c_uint = correctable, *mut c_uint = uncorrectable,
        *mut c_uint = pending, *mut c_uint = failure
    ));
    assert_eq!((code, rows), (0, [1, 0, 0, 0]));
    let code = raw!(lib, b"nvmlDeviceGetRowRemapperHistogram"(
        nvmlDevice_t = handle, *mut c_uint = banks.as_mut_ptr()
    ));
    assert_eq!((code, banks), (0, [639, 1, 0, 0, 0]));
}
