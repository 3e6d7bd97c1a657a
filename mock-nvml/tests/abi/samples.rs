//! `nvmlDeviceGetProcessesUtilizationInfo` and `nvmlDeviceGetSamples`.

use std::{ffi::c_uint, ptr};

use nvml_wrapper::enum_wrappers::device::Sampling;
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlProcessUtilizationInfo_v1_t, nvmlProcessesUtilizationInfo_v1_t,
};

use crate::{MockEnv, error, process};

const VERSION: c_uint = (1 << 24) | 0x18;
const EMPTY: nvmlProcessUtilizationInfo_v1_t = nvmlProcessUtilizationInfo_v1_t {
    timeStamp: 0,
    pid: 0,
    smUtil: 0,
    memUtil: 0,
    encUtil: 0,
    decUtil: 0,
    jpgUtil: 0,
    ofaUtil: 0,
};

/// Return code, count and rows of `nvmlDeviceGetProcessesUtilizationInfo` with this capacity.
fn processes_utilization(
    env: &MockEnv,
    device: nvmlDevice_t,
    version: c_uint,
    capacity: usize,
) -> (c_uint, c_uint, Vec<nvmlProcessUtilizationInfo_v1_t>) {
    let mut rows = vec![EMPTY; capacity];
    let mut info = nvmlProcessesUtilizationInfo_v1_t {
        version,
        processSamplesCount: c_uint::try_from(capacity).unwrap(),
        lastSeenTimeStamp: 0,
        procUtilArray: if capacity == 0 { ptr::null_mut() } else { rows.as_mut_ptr() },
    };
    let lib = env.raw();
    let code = raw!(lib, b"nvmlDeviceGetProcessesUtilizationInfo"(
        nvmlDevice_t = device, *mut nvmlProcessesUtilizationInfo_v1_t = &raw mut info
    ));
    (code, info.processSamplesCount, rows)
}

#[test]
fn first_call_returns_the_count_and_second_the_rows() {
    let text = "now = 5.0\n[[gpu]]\nmodel = \"H100\"\n[[gpu]]\nmodel = \"T4\"\n".to_owned()
        + &process(7, 0, "sm = 20\njpg = 15")
        + &process(8, 0, "sm = 30\nofa = 5");
    let env = MockEnv::with_scenario(&text);
    let nvml = env.nvml();
    // SAFETY: the handles are used while NVML is initialised.
    let [busy, idle] = [0, 1].map(|at| unsafe { nvml.device_by_index(at).unwrap().handle() });
    let (code, count, _) = processes_utilization(&env, busy, VERSION, 0);
    assert_eq!((code, count), (7, 2));
    assert_eq!(processes_utilization(&env, busy, VERSION, 1).0, 7);
    let (code, count, rows) = processes_utilization(&env, busy, VERSION, 4);
    assert_eq!((code, count), (0, 2));
    let row = |at: usize| (rows[at].pid, rows[at].smUtil, rows[at].jpgUtil, rows[at].ofaUtil);
    assert_eq!((row(0), row(1)), ((7, 20, 15, 0), (8, 30, 0, 5)));
    assert_eq!(processes_utilization(&env, busy, (2 << 24) | 0x18, 4).0, 25);
    assert_eq!(processes_utilization(&env, idle, VERSION, 4).0, 6);
}

#[test]
fn blackwell_supports_only_the_newer_function() {
    let env = MockEnv::built_in("blackwell");
    let nvml = env.nvml();
    let device = nvml.device_by_index(0).unwrap();
    assert_eq!(error(device.process_utilization_stats(None)), "NotSupported");
    // SAFETY: the handle is used while NVML is initialised.
    let (code, count, rows) = processes_utilization(&env, unsafe { device.handle() }, VERSION, 8);
    assert_eq!((code, count), (0, 2));
    assert_eq!(rows.iter().map(|row| row.pid).collect::<Vec<_>>()[..2], [2_101, 2_240]);
    assert_eq!(rows[0].smUtil, 82);
}

#[test]
fn gpu_samples_newer_than_last_seen_are_returned() {
    let text = "now = 5.0\n[[gpu]]\nmodel = \"H100\"\n".to_owned() + &process(7, 0, "sm = 20");
    let env = MockEnv::with_scenario(&text);
    let nvml = env.nvml();
    let device = nvml.device_by_index(0).unwrap();
    let samples = device.samples(Sampling::GpuUtilization, None).unwrap();
    assert!(samples.len() > 60);
    let last = samples.last().unwrap().timestamp;
    let newer = device.samples(Sampling::GpuUtilization, last);
    assert!(newer.is_err() || newer.unwrap().iter().all(|sample| sample.timestamp > last));
}
