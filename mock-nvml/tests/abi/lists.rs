//! Process lists, all versions.

use std::{collections::BTreeSet, ffi::c_uint, ptr};

use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlProcessDetail_v1_t, nvmlProcessDetailList_t, nvmlProcessInfo_v1_t,
};

use crate::{MIB, MockEnv, process};

const DETAIL: nvmlProcessDetail_v1_t = nvmlProcessDetail_v1_t {
    pid: 0,
    usedGpuMemory: 0,
    gpuInstanceId: 0,
    computeInstanceId: 0,
    usedGpuCcProtectedMemory: 9,
};

#[test]
fn first_version_has_pids_and_memory_only() {
    let text = "[[gpu]]\nmodel = \"T4\"\n".to_owned() + &process(7, 0, "") + &process(8, 0, "");
    let env = MockEnv::with_scenario(&text);
    let nvml = env.nvml();
    let lib = env.raw();
    // SAFETY: the handle is used while NVML is initialised.
    let device = unsafe { nvml.device_by_index(0).unwrap().handle() };
    let mut rows = [nvmlProcessInfo_v1_t { pid: 0, usedGpuMemory: 0 }; 3];
    let mut count: c_uint = 3;
    let code = raw!(lib, b"nvmlDeviceGetComputeRunningProcesses"(
        nvmlDevice_t = device, *mut c_uint = &raw mut count,
        *mut nvmlProcessInfo_v1_t = rows.as_mut_ptr()
    ));
    assert_eq!((code, count), (0, 2));
    let found = rows.map(|row| (row.pid, row.usedGpuMemory));
    assert_eq!(found, [(7, 1_024 * MIB), (8, 1_024 * MIB), (0, 0)]);
}

#[test]
fn affected_drivers_write_rows_wider_than_callers_expect() {
    let env = MockEnv::built_in("abi-535");
    let nvml = env.nvml();
    let device = nvml.device_by_index(0).unwrap();
    let right: Vec<_> =
        device.running_compute_processes_v2().unwrap().iter().map(|row| row.pid).collect();
    assert_eq!(right, [5_101, 5_103, 5_105, 5_107]);
    let wrong = device.running_compute_processes().unwrap();
    assert_eq!(wrong.len(), right.len());
    assert_eq!(wrong.first().unwrap().pid, 5_101);
    assert_eq!(wrong.first().unwrap().used_gpu_memory, UsedGpuMemory::Used(3_072 * MIB));
    // The other pids are read from the 8, 16 and 24 bytes written before: protected memory, a
    // missing instance id, and a memory size.
    let size = 3_072 * 1_024 * 1_024;
    let pids: Vec<_> = wrong.iter().map(|row| row.pid).collect();
    assert_eq!(pids, [5_101, 0, u32::MAX, size]);

    // A caller with the wider struct reads the rows; nothing is written beyond them.
    let lib = env.raw();
    // SAFETY: the handle is used while NVML is initialised.
    let handle = unsafe { device.handle() };
    let mut rows = [DETAIL; 6];
    let mut count: c_uint = 6;
    let code = raw!(lib, b"nvmlDeviceGetComputeRunningProcesses_v3"(
        nvmlDevice_t = handle, *mut c_uint = &raw mut count,
        *mut nvmlProcessDetail_v1_t = rows.as_mut_ptr()
    ));
    assert_eq!((code, count), (0, 4));
    assert_eq!(rows.map(|row| row.pid), [5_101, 5_103, 5_105, 5_107, 0, 0]);
    assert_eq!(rows.map(|row| row.usedGpuCcProtectedMemory), [0, 0, 0, 0, 9, 9]);
    let mut full = [[7_u64; 3]; 5];
    let mut count: c_uint = 4;
    let code = raw!(lib, b"nvmlDeviceGetComputeRunningProcesses_v3"(
        nvmlDevice_t = handle, *mut c_uint = &raw mut count, *mut [u64; 3] = full.as_mut_ptr()
    ));
    assert_eq!((code, count, full[4]), (0, 4, [7; 3]));
}

#[test]
fn detail_list_is_selected_by_mode() {
    let text = "[[gpu]]\nmodel = \"T4\"\n".to_owned()
        + &process(7, 0, "")
        + &process(8, 0, "type = \"G\"")
        + &process(9, 0, "type = \"M\"");
    let env = MockEnv::with_scenario(&text);
    let nvml = env.nvml();
    let lib = env.raw();
    // SAFETY: the handle is used while NVML is initialised.
    let device = unsafe { nvml.device_by_index(0).unwrap().handle() };
    let read_list = |version: c_uint, mode: c_uint, capacity: c_uint| {
        let mut rows = [DETAIL; 4];
        let mut list = nvmlProcessDetailList_t {
            version,
            mode,
            numProcArrayEntries: capacity,
            procArray: if capacity == 0 { ptr::null_mut() } else { rows.as_mut_ptr() },
        };
        let code = raw!(lib, b"nvmlDeviceGetRunningProcessDetailList"(
            nvmlDevice_t = device, *mut nvmlProcessDetailList_t = &raw mut list
        ));
        (code, list.numProcArrayEntries, rows[0].pid)
    };
    let version = (1 << 24) | 0x18;
    let modes = [0, 1, 2].map(|mode| read_list(version, mode, 4));
    assert_eq!(modes, [(0, 1, 7), (0, 1, 8), (0, 1, 9)]);
    assert_eq!(read_list(version, 0, 0), (7, 1, 0));
    assert_eq!((read_list(version, 7, 4).0, read_list(version + 1, 0, 4).0), (2, 25));
}

#[test]
fn each_list_may_be_empty_or_unsupported_while_its_processes_use_the_gpu() {
    let fault =
        |function: &str, effect: &str| format!("[[fault]]\nfunction = \"{function}\"\n{effect}\n");
    let text = "now = 10\n[[gpu]]\nmodel = \"T4\"\n".to_owned()
        + &process(7, 0, "sm = 60")
        + &process(8, 0, "type = \"G\"")
        + &process(9, 0, "type = \"M\"");
    let (compute, graphics, mps) = (
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    );
    let rows = "nvmlDeviceGetProcessUtilization";
    for (faults, expected) in [
        (String::new(), [Some(1), Some(1), Some(1)]),
        (fault(compute, "empty = true"), [Some(0), Some(1), Some(1)]),
        (fault(graphics, "empty = true"), [Some(1), Some(0), Some(1)]),
        (fault(mps, "code = \"NOT_SUPPORTED\""), [Some(1), Some(1), None]),
        (fault(mps, "empty = true") + &fault(rows, "empty = true"), [Some(1), Some(1), Some(0)]),
    ] {
        let env = MockEnv::with_scenario(&(text.clone() + &faults));
        let nvml = env.nvml();
        let device = nvml.device_by_index(0).unwrap();
        let found = [
            device.running_compute_processes().ok(),
            device.running_graphics_processes().ok(),
            device.mps_running_compute_processes().ok(),
        ];
        assert_eq!(found.map(|list| list.map(|rows| rows.len())), expected, "{faults}");
        let samples = device.process_utilization_stats(0).unwrap();
        assert_eq!(samples.is_empty(), faults.contains(rows));
        assert_eq!(device.utilization_rates().unwrap().gpu, 60);
        assert!(device.memory_info().unwrap().used > 3 * 1_024 * MIB);
    }
}

#[test]
fn each_of_a_thousand_processes_is_listed_once() {
    let env = MockEnv::built_in("huge");
    let nvml = env.nvml();
    let mut pids = BTreeSet::new();
    for gpu in 0..16 {
        let parent = nvml.device_by_index(gpu).unwrap();
        let all = parent.running_compute_processes().unwrap();
        let mut own = 0;
        for slot in 0..7 {
            let device = parent.mig_device_by_index(slot).unwrap();
            let list = device.running_compute_processes().unwrap();
            assert!((8..=9).contains(&list.len()), "GPU {gpu}, slot {slot}: {}", list.len());
            own += list.len();
            pids.extend(list.iter().map(|row| row.pid));
        }
        assert_eq!(own, all.len(), "GPU {gpu}");
    }
    assert_eq!(pids.len(), 1_000);
}
