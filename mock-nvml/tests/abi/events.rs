//! XIDs and other events, as they are told to who waits for them.

use std::{ffi::c_uint, ptr};

use nvml_wrapper::{
    Device, EventSet, Nvml, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError,
    struct_wrappers::event::EventData,
};
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t};

use crate::{Stage, error, eventually};

const XID: EventTypes = EventTypes::CRITICAL_XID_ERROR;

fn xid(gpu: u32, at: u32, code: u32) -> String {
    format!("[[xid]]\ngpu = {gpu}\nat = {at}\ncode = {code}\n")
}

fn waiting<'nvml>(nvml: &'nvml Nvml, device: &Device<'nvml>) -> EventSet<'nvml> {
    device.register_events(XID, nvml.create_event_set().unwrap()).unwrap()
}

/// Which XIDs have come by now, of which GPUs.
fn told(set: &EventSet) -> Vec<(u32, u64)> {
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
fn each_xid_comes_once_to_each_set_that_was_there_before_it() {
    let at = |time: u32, more: &str| {
        let gpus = "[[gpu]]\nmodel = \"T4\"\ncount = 2\n";
        let xids = xid(0, 5, 13) + &xid(0, 12, 31) + &xid(0, 12, 43) + &xid(1, 12, 48);
        format!("now = {time}\n{gpus}{xids}{more}")
    };
    let stage = Stage::playing(&at(10, ""));
    let nvml = stage.nvml();
    let devices = [0, 1].map(|index| nvml.device_by_index(index).unwrap());
    let first = waiting(&nvml, &devices[0]);
    let both = devices[1].register_events(XID, waiting(&nvml, &devices[0])).unwrap();
    assert_eq!(error(first.wait(20)), "Timeout");
    stage.play(&at(15, ""));
    // It waits for the new scenario to be read.
    let event = first.wait(5_000).unwrap();
    assert!(code(&event) == 31 && event.event_type == XID);
    assert_eq!(told(&first), [(0, 43)]);
    assert_eq!(told(&both), [(0, 31), (0, 43), (1, 48)]);
    assert!(told(&first).is_empty() && told(&both).is_empty());
    assert!(told(&waiting(&nvml, &devices[0])).is_empty());
    stage.play(&at(15, &xid(0, 14, 94)));
    let late = first.wait(5_000).unwrap();
    assert!(code(&late) == 94);
}

#[test]
fn a_lost_gpu_reports_itself() {
    let at = |time: u32| {
        format!("now = {time}\n[[gpu]]\nmodel = \"H100\"\nlost = [{{ from = 10, to = 20 }}]\n")
    };
    let stage = Stage::playing(&at(5));
    let nvml = stage.nvml();
    let device = nvml.device_by_index(0).unwrap();
    assert_eq!(
        device.supported_event_types().unwrap(),
        XID | EventTypes::SINGLE_BIT_ECC_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR
    );
    let set = waiting(&nvml, &device);
    stage.play(&at(12));
    let event = set.wait(5_000).unwrap();
    assert!(code(&event) == 79);
    let other = nvml.create_event_set().unwrap();
    assert!(device.register_events(XID, other).is_err());
    let unknown = nvml.create_event_set().unwrap();
    stage.play(&at(25));
    eventually("it is back", || nvml.device_by_index(0).is_ok());
    let back = nvml.device_by_index(0).unwrap();
    assert!(back.register_events(EventTypes::CLOCK_CHANGE, unknown).is_err());
}

#[test]
fn a_set_dies_with_the_driver_and_faults_strike_a_wait() {
    let at = |time: u32, rest: &str| {
        format!(
            "now = {time}\n[driver]\nreload = [{{ from = 10, to = 20 }}]\n[[gpu]]\nmodel = \"T4\"\n\
             {rest}"
        )
    };
    let stage = Stage::playing(&at(5, &xid(0, 22, 31)));
    let nvml = stage.nvml();
    let set = waiting(&nvml, &nvml.device_by_index(0).unwrap());
    stage.play(&at(15, ""));
    eventually("the driver is gone", || error(set.wait(0)) == "DriverNotLoaded");
    stage.play(&at(25, &xid(0, 22, 31)));
    eventually("the driver is back", || error(set.wait(0)) == "Uninitialized");
    let again = stage.nvml();
    assert_eq!(error(set.wait(0)), "InvalidArg");
    let fresh = waiting(&again, &again.device_by_index(0).unwrap());
    assert!(told(&fresh).is_empty());
    stage.play(&at(25, "[[fault]]\nfunction = \"nvmlEventSetWait_v2\"\ncode = \"UNKNOWN\"\n"));
    eventually("the wait fails", || error(fresh.wait(0)) == "Unknown");
    std::mem::forget(set);
}

#[test]
fn an_xid_of_a_mig_instance_names_it_and_the_older_call_does_not() {
    let at = |time: u32| {
        let xids =
            "[[xid]]\ngpu = 0\nat = 5\ncode = 31\ngi = 2\nci = 1\n".repeat(2) + &xid(0, 6, 13);
        format!("now = {time}\n[[gpu]]\nmodel = \"H100\"\n{xids}")
    };
    let stage = Stage::playing(&at(1));
    let nvml = stage.nvml();
    let lib = stage.raw();
    // SAFETY: the handle is used while NVML is initialised.
    let device = unsafe { nvml.device_by_index(0).unwrap().handle() };
    let mut set: nvmlEventSet_t = ptr::null_mut();
    assert_eq!(raw!(lib, b"nvmlEventSetCreate"(*mut nvmlEventSet_t = &raw mut set)), 0);
    let register = raw!(
        lib,
        b"nvmlDeviceRegisterEvents"(nvmlDevice_t = device, u64 = 8, nvmlEventSet_t = set)
    );
    assert_eq!(register, 0);
    stage.play(&at(9));
    let mut told = nvmlEventData_t {
        device: ptr::null_mut(),
        eventType: 0,
        eventData: 0,
        gpuInstanceId: 77,
        computeInstanceId: 77,
    };
    let older = raw!(lib, b"nvmlEventSetWait"(
        nvmlEventSet_t = set, *mut nvmlEventData_t = &raw mut told, c_uint = 5_000
    ));
    assert_eq!((older, told.eventData, told.gpuInstanceId), (0, 31, 77));
    let mut newer = || {
        let answer = raw!(lib, b"nvmlEventSetWait_v2"(
            nvmlEventSet_t = set, *mut nvmlEventData_t = &raw mut told, c_uint = 0
        ));
        (answer, told.device == device, told.eventData, told.gpuInstanceId, told.computeInstanceId)
    };
    assert_eq!(newer(), (0, true, 31, 2, 1));
    assert_eq!(newer(), (0, true, 13, u32::MAX, u32::MAX));
    assert_eq!(newer().0, 10);
    assert_eq!(raw!(lib, b"nvmlEventSetFree"(nvmlEventSet_t = set)), 0);
    assert_eq!(raw!(lib, b"nvmlEventSetFree"(nvmlEventSet_t = set)), 2);
}
