//! Process lists in all their versions.

use std::{collections::BTreeSet, ffi::c_uint, ptr};

use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlProcessDetail_v1_t, nvmlProcessDetailList_t, nvmlProcessInfo_v1_t,
};

use crate::{MIB, Stage, process};

const DETAIL: nvmlProcessDetail_v1_t = nvmlProcessDetail_v1_t {
    pid: 0,
    usedGpuMemory: 0,
    gpuInstanceId: 0,
    computeInstanceId: 0,
    usedGpuCcProtectedMemory: 9,
};

#[test]
fn the_first_version_tells_pids_and_memory_only() {
    let text = "[[gpu]]\nmodel = \"T4\"\n".to_owned() + &process(7, 0, "") + &process(8, 0, "");
    let stage = Stage::playing(&text);
    let nvml = stage.nvml();
    let lib = stage.raw();
    // SAFETY: the handle is used while NVML is initialised.
    let device = unsafe { nvml.device_by_index(0).unwrap().handle() };
    let mut rows = [nvmlProcessInfo_v1_t { pid: 0, usedGpuMemory: 0 }; 3];
    let mut count: c_uint = 3;
    let answer = raw!(lib, b"nvmlDeviceGetComputeRunningProcesses"(
        nvmlDevice_t = device, *mut c_uint = &raw mut count,
        *mut nvmlProcessInfo_v1_t = rows.as_mut_ptr()
    ));
    assert_eq!((answer, count), (0, 2));
    let told = rows.map(|row| (row.pid, row.usedGpuMemory));
    assert_eq!(told, [(7, 1_024 * MIB), (8, 1_024 * MIB), (0, 0)]);
}

#[test]
fn some_drivers_wrote_rows_that_their_callers_could_not_read() {
    let stage = Stage::of("abi-535");
    let nvml = stage.nvml();
    let device = nvml.device_by_index(0).unwrap();
    let right: Vec<_> =
        device.running_compute_processes_v2().unwrap().iter().map(|row| row.pid).collect();
    assert_eq!(right, [5_101, 5_103, 5_105, 5_107]);
    let wrong = device.running_compute_processes().unwrap();
    assert_eq!(wrong.len(), right.len());
    assert_eq!(wrong.first().unwrap().pid, 5_101);
    assert_eq!(wrong.first().unwrap().used_gpu_memory, UsedGpuMemory::Used(3_072 * MIB));
    // The pids read after that are what was written 8, 16 and 24 bytes before: protected memory, an
    // instance that is none, and a size.
    let size = 3_072 * 1_024 * 1_024;
    let pids: Vec<_> = wrong.iter().map(|row| row.pid).collect();
    assert_eq!(pids, [5_101, 0, u32::MAX, size]);

    // A caller that knows the wider rows reads them, and its memory beyond is its own.
    let lib = stage.raw();
    // SAFETY: the handle is used while NVML is initialised.
    let handle = unsafe { device.handle() };
    let mut rows = [DETAIL; 6];
    let mut count: c_uint = 6;
    let answer = raw!(lib, b"nvmlDeviceGetComputeRunningProcesses_v3"(
        nvmlDevice_t = handle, *mut c_uint = &raw mut count,
        *mut nvmlProcessDetail_v1_t = rows.as_mut_ptr()
    ));
    assert_eq!((answer, count), (0, 4));
    assert_eq!(rows.map(|row| row.pid), [5_101, 5_103, 5_105, 5_107, 0, 0]);
    assert_eq!(rows.map(|row| row.usedGpuCcProtectedMemory), [0, 0, 0, 0, 9, 9]);
    let mut full = [[7_u64; 3]; 5];
    let mut count: c_uint = 4;
    let answer = raw!(lib, b"nvmlDeviceGetComputeRunningProcesses_v3"(
        nvmlDevice_t = handle, *mut c_uint = &raw mut count, *mut [u64; 3] = full.as_mut_ptr()
    ));
    assert_eq!((answer, count, full[4]), (0, 4, [7; 3]));
}

#[test]
fn the_list_of_details_is_asked_for_by_mode() {
    let text = "[[gpu]]\nmodel = \"T4\"\n".to_owned()
        + &process(7, 0, "")
        + &process(8, 0, "type = \"G\"")
        + &process(9, 0, "type = \"M\"");
    let stage = Stage::playing(&text);
    let nvml = stage.nvml();
    let lib = stage.raw();
    // SAFETY: the handle is used while NVML is initialised.
    let device = unsafe { nvml.device_by_index(0).unwrap().handle() };
    let ask = |version: c_uint, mode: c_uint, room: c_uint| {
        let mut rows = [DETAIL; 4];
        let mut list = nvmlProcessDetailList_t {
            version,
            mode,
            numProcArrayEntries: room,
            procArray: if room == 0 { ptr::null_mut() } else { rows.as_mut_ptr() },
        };
        let answer = raw!(lib, b"nvmlDeviceGetRunningProcessDetailList"(
            nvmlDevice_t = device, *mut nvmlProcessDetailList_t = &raw mut list
        ));
        (answer, list.numProcArrayEntries, rows[0].pid)
    };
    let version = (1 << 24) | 0x18;
    let modes = [0, 1, 2].map(|mode| ask(version, mode, 4));
    assert_eq!(modes, [(0, 1, 7), (0, 1, 8), (0, 1, 9)]);
    assert_eq!(ask(version, 0, 0), (7, 1, 0));
    assert_eq!((ask(version, 7, 4).0, ask(version + 1, 0, 4).0), (2, 25));
}

#[test]
fn a_thousand_processes_are_all_told_once() {
    let stage = Stage::of("huge");
    let nvml = stage.nvml();
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
