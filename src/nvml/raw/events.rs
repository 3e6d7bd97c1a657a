//! NVML event sets, used to receive XID errors.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{nvmlEventData_t, nvmlEventSet_t, nvmlEventTypeXidCriticalError};

use super::{Handle, TIMEOUT, check, symbol};
use crate::model::Missing;

const XID: u64 = nvmlEventTypeXidCriticalError as u64;

/// An event set, to be used only with the session that created it and freed before that ends.
pub struct EventSet(nvmlEventSet_t);

// SAFETY: NVML is documented as thread-safe and the set is an opaque token that is never
// dereferenced here.
unsafe impl Send for EventSet {}
// SAFETY: as above; one thread waits while others register devices.
unsafe impl Sync for EventSet {}

/// An XID error event.
#[derive(Clone, Copy, Debug)]
pub struct XidEvent {
    /// The device that it was reported for.
    pub device: Handle,
    /// XID code.
    pub xid: u32,
}

impl EventSet {
    /// `nvmlEventSetCreate`.
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn create(nvml: &Nvml) -> Result<Self, Missing> {
        let call = symbol(&nvml.lib().nvmlEventSetCreate)?;
        let mut set = std::ptr::null_mut();
        // SAFETY: `set` is a live place for one handle.
        check(unsafe { call(&raw mut set) })?;
        Ok(Self(set))
    }

    /// `nvmlDeviceRegisterEvents` for XID events.
    ///
    /// # Errors
    /// Returns the NVML error; unsupported if the device does not report XID events
    /// (`nvmlDeviceGetSupportedEventTypes`).
    pub fn register(&self, nvml: &Nvml, device: Handle) -> Result<(), Missing> {
        let supported = symbol(&nvml.lib().nvmlDeviceGetSupportedEventTypes)?;
        let register = symbol(&nvml.lib().nvmlDeviceRegisterEvents)?;
        let mut types = 0;
        // SAFETY: `types` is a live u64.
        check(unsafe { supported(device.0, &raw mut types) })?;
        if types & XID == 0 {
            return Err(Missing::Unsupported);
        }
        // SAFETY: device and set belong to the same session.
        check(unsafe { register(device.0, XID, self.0) })
    }

    /// `nvmlEventSetWait_v2`, or version 1: the next XID event, `None` on timeout.
    ///
    /// # Errors
    /// Returns the NVML error. A failing call may return at once, and repeatedly.
    pub fn wait(&self, nvml: &Nvml, timeout_ms: u32) -> Result<Option<XidEvent>, Missing> {
        let lib = nvml.lib();
        let call = symbol(&lib.nvmlEventSetWait_v2).or_else(|_| symbol(&lib.nvmlEventSetWait))?;
        let mut event = nvmlEventData_t {
            device: std::ptr::null_mut(),
            eventType: 0,
            eventData: 0,
            gpuInstanceId: u32::MAX,
            computeInstanceId: u32::MAX,
        };
        // SAFETY: `event` is a live struct; version 1 of the call writes a part of it.
        match check(unsafe { call(self.0, &raw mut event, timeout_ms) }) {
            Ok(()) if event.eventType & XID != 0 => {
                let xid = u32::try_from(event.eventData).unwrap_or(u32::MAX);
                Ok(Some(XidEvent { device: Handle(event.device), xid }))
            }
            Ok(()) | Err(Missing::Failed(TIMEOUT)) => Ok(None),
            Err(missing) => Err(missing),
        }
    }

    /// `nvmlEventSetFree`.
    pub fn free(self, nvml: &Nvml) {
        if let Ok(call) = symbol(&nvml.lib().nvmlEventSetFree) {
            // SAFETY: the set is consumed by this call, and no thread waits on it.
            unsafe { call(self.0) };
        }
    }
}
