//! Delivery of XIDs and other events to event sets.

use std::{ffi::c_uint, ptr};

use nvml_wrapper::{
    Device, EventSet, Nvml, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError,
    struct_wrappers::event::EventData,
};
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t};

use crate::{MockEnv, error, eventually};

const XID: EventTypes = EventTypes::CRITICAL_XID_ERROR;

fn xid(gpu: u32, at: u32, code: u32) -> String {
    format!("[[xid]]\ngpu = {gpu}\nat = {at}\ncode = {code}\n")
}

fn registered_set<'nvml>(nvml: &'nvml Nvml, device: &Device<'nvml>) -> EventSet<'nvml> {
    device.register_events(XID, nvml.create_event_set().unwrap()).unwrap()
}

/// The XIDs that are pending, with the index of their GPU.
fn pending(set: &EventSet) -> Vec<(u32, u64)> {
    let mut all = vec![];
    let end = loop {
        match set.wait(0) {
            Ok(event) => all.push((event.device.index().unwrap(), code(&event))),
            Err(end) => break end,
        }
    };
    assert!(matches!(end, NvmlError::Timeout), "{end}");
    all
}

fn code(event: &EventData) -> u64 {
    match event.event_data {
        Some(XidError::Value(code)) => code,
        Some(XidError::Unknown) | None => 0,
    }
}

#[test]
fn each_xid_is_delivered_once_to_each_set_registered_before() {
    let at = |time: u32, more: &str| {
        let gpus = "[[gpu]]\nmodel = \"T4\"\ncount = 2\n";
        let xids = xid(0, 5, 13) + &xid(0, 12, 31) + &xid(0, 12, 43) + &xid(1, 12, 48);
        format!("now = {time}\n{gpus}{xids}{more}")
    };
    let env = MockEnv::with_scenario(&at(10, ""));
    let nvml = env.nvml();
    let devices = [0, 1].map(|index| nvml.device_by_index(index).unwrap());
    let first = registered_set(&nvml, &devices[0]);
    let both = devices[1].register_events(XID, registered_set(&nvml, &devices[0])).unwrap();
    assert_eq!(error(first.wait(20)), "Timeout");
    env.write_scenario(&at(15, ""));
    // Waits until the new scenario is read.
    let event = first.wait(5_000).unwrap();
    assert!(code(&event) == 31 && event.event_type == XID);
    assert_eq!(pending(&first), [(0, 43)]);
    assert_eq!(pending(&both), [(0, 31), (0, 43), (1, 48)]);
    assert!(pending(&first).is_empty() && pending(&both).is_empty());
    assert!(pending(&registered_set(&nvml, &devices[0])).is_empty());
    env.write_scenario(&at(15, &xid(0, 14, 94)));
    let late = first.wait(5_000).unwrap();
    assert!(code(&late) == 94);
}

#[test]
fn lost_gpu_causes_xid_79() {
    let at = |time: u32| {
        format!("now = {time}\n[[gpu]]\nmodel = \"H100\"\nlost = [{{ from = 10, to = 20 }}]\n")
    };
    let env = MockEnv::with_scenario(&at(5));
    let nvml = env.nvml();
    let device = nvml.device_by_index(0).unwrap();
    assert_eq!(
        device.supported_event_types().unwrap(),
        XID | EventTypes::SINGLE_BIT_ECC_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR
    );
    let set = registered_set(&nvml, &device);
    env.write_scenario(&at(12));
    let event = set.wait(5_000).unwrap();
    assert!(code(&event) == 79);
    let other = nvml.create_event_set().unwrap();
    assert!(device.register_events(XID, other).is_err());
    let unsupported = nvml.create_event_set().unwrap();
    env.write_scenario(&at(25));
    eventually("the GPU is back", || nvml.device_by_index(0).is_ok());
    let back = nvml.device_by_index(0).unwrap();
    assert!(back.register_events(EventTypes::CLOCK_CHANGE, unsupported).is_err());
}

#[test]
fn set_is_invalid_after_a_driver_reload_and_faults_affect_a_wait() {
    let at = |time: u32, rest: &str| {
        format!(
            "now = {time}\n[driver]\nreload = [{{ from = 10, to = 20 }}]\n[[gpu]]\nmodel = \"T4\"\n\
             {rest}"
        )
    };
    let env = MockEnv::with_scenario(&at(5, &xid(0, 22, 31)));
    let nvml = env.nvml();
    let set = registered_set(&nvml, &nvml.device_by_index(0).unwrap());
    env.write_scenario(&at(15, ""));
    eventually("the driver is gone", || error(set.wait(0)) == "DriverNotLoaded");
    env.write_scenario(&at(25, &xid(0, 22, 31)));
    eventually("the driver is back", || error(set.wait(0)) == "Uninitialized");
    let reopened = env.nvml();
    assert_eq!(error(set.wait(0)), "InvalidArg");
    let new = registered_set(&reopened, &reopened.device_by_index(0).unwrap());
    assert!(pending(&new).is_empty());
    env.write_scenario(&at(
        25,
        "[[fault]]\nfunction = \"nvmlEventSetWait_v2\"\ncode = \"UNKNOWN\"\n",
    ));
    eventually("the wait fails", || error(new.wait(0)) == "Unknown");
    std::mem::forget(set);
}

#[test]
fn xid_of_a_mig_instance_has_its_ids_in_the_v2_struct_only() {
    let at = |time: u32| {
        let xids =
            "[[xid]]\ngpu = 0\nat = 5\ncode = 31\ngi = 2\nci = 1\n".repeat(2) + &xid(0, 6, 13);
        format!("now = {time}\n[[gpu]]\nmodel = \"H100\"\n{xids}")
    };
    let env = MockEnv::with_scenario(&at(1));
    let nvml = env.nvml();
    let lib = env.raw();
    // SAFETY: the handle is used while NVML is initialised.
    let device = unsafe { nvml.device_by_index(0).unwrap().handle() };
    let mut set: nvmlEventSet_t = ptr::null_mut();
    assert_eq!(raw!(lib, b"nvmlEventSetCreate"(*mut nvmlEventSet_t = &raw mut set)), 0);
    let register = raw!(
        lib,
        b"nvmlDeviceRegisterEvents"(nvmlDevice_t = device, u64 = 8, nvmlEventSet_t = set)
    );
    assert_eq!(register, 0);
    env.write_scenario(&at(9));
    let mut data = nvmlEventData_t {
        device: ptr::null_mut(),
        eventType: 0,
        eventData: 0,
        gpuInstanceId: 77,
        computeInstanceId: 77,
    };
    let first = raw!(lib, b"nvmlEventSetWait"(
        nvmlEventSet_t = set, *mut nvmlEventData_t = &raw mut data, c_uint = 5_000
    ));
    assert_eq!((first, data.eventData, data.gpuInstanceId), (0, 31, 77));
    let mut wait_v2 = || {
        let code = raw!(lib, b"nvmlEventSetWait_v2"(
            nvmlEventSet_t = set, *mut nvmlEventData_t = &raw mut data, c_uint = 0
        ));
        (code, data.device == device, data.eventData, data.gpuInstanceId, data.computeInstanceId)
    };
    assert_eq!(wait_v2(), (0, true, 31, 2, 1));
    assert_eq!(wait_v2(), (0, true, 13, u32::MAX, u32::MAX));
    assert_eq!(wait_v2().0, 10);
    assert_eq!(raw!(lib, b"nvmlEventSetFree"(nvmlEventSet_t = set)), 0);
    assert_eq!(raw!(lib, b"nvmlEventSetFree"(nvmlEventSet_t = set)), 2);
}
