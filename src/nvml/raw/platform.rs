//! Place of a GPU in its rack, confidential computing, power profiles, and sessions of its encoder.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{
    nvmlConfComputeSystemState_t, nvmlFBCStats_t, nvmlMask255_t, nvmlPlatformInfo_v2_t,
    nvmlWorkloadPowerProfileCurrentProfiles_v1_t,
};

use super::{Handle, check, symbol, version};
use crate::model::Missing;

/// Place of a GPU in its rack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `InfiniBand` GUID, hexadecimal.
    pub infiniband_guid: String,
    /// Serial number of the chassis; empty if the board reports none.
    pub chassis_serial: String,
    /// Slot in the chassis, switches included; `None` if the board reports none.
    pub slot: Option<u8>,
    /// Compute tray in the chassis; `None` if the board reports none.
    pub tray: Option<u8>,
    /// Node within the slot; `None` if the board reports none.
    pub host: Option<u8>,
    /// Type of the `NVLink` peer: 0 direct, 1 switch.
    pub peer_type: u8,
    /// Number of the GPU within the node.
    pub module: u8,
}

/// Sessions of a video encoder or of framebuffer capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStats {
    /// Number of sessions.
    pub sessions: u32,
    /// Average frames per second of all sessions.
    pub frames_per_second: u32,
    /// Average latency, microseconds.
    pub latency_us: u32,
}

/// Power profiles of a GPU, as bit masks by profile number.
#[derive(Clone, Copy, Debug)]
pub struct PowerProfiles {
    /// Profiles that the board has.
    pub supported: nvmlMask255_t,
    /// Profiles that were requested.
    pub requested: nvmlMask255_t,
    /// Profiles that are in effect.
    pub enforced: nvmlMask255_t,
}

/// All bits set means unknown.
const UNKNOWN: u8 = u8::MAX;

/// `nvmlDeviceGetPlatformInfo`.
///
/// # Errors
/// Returns the NVML error; unsupported before Blackwell and before driver 570.
pub fn platform(nvml: &Nvml, gpu: Handle) -> Result<Platform, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetPlatformInfo)?;
    let mut info = nvmlPlatformInfo_v2_t {
        version: version::<nvmlPlatformInfo_v2_t>(2),
        ibGuid: [0; 16],
        chassisSerialNumber: [0; 16],
        slotNumber: 0,
        trayIndex: 0,
        hostId: 0,
        peerType: 0,
        moduleId: 0,
    };
    // SAFETY: `info` is a live struct and its version field contains the size.
    check(unsafe { call(gpu.0, &raw mut info) })?;
    let known = |number| (number != UNKNOWN).then_some(number);
    Ok(Platform {
        infiniband_guid: hexadecimal(info.ibGuid),
        chassis_serial: text(&info.chassisSerialNumber),
        slot: known(info.slotNumber),
        tray: known(info.trayIndex),
        host: known(info.hostId),
        peer_type: info.peerType,
        module: info.moduleId,
    })
}

/// Bytes as hexadecimal, without the zeros at the end; empty if all are zero.
fn hexadecimal(bytes: [u8; 16]) -> String {
    let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut digits = format!("{:032x}", u128::from_be_bytes(bytes));
    digits.truncate(2 * length);
    digits
}

/// Text up to the first NUL; a byte that is not printable ASCII becomes `?`.
fn text(bytes: &[u8]) -> String {
    let letters = bytes.iter().take_while(|byte| **byte != 0);
    letters.map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' }).collect()
}

/// Confidential computing: 0 off, 1 on, and modes of newer drivers
/// (`nvmlSystemGetConfComputeState`).
///
/// # Errors
/// Returns the NVML error.
pub fn confidential_compute_mode(nvml: &Nvml) -> Result<u32, Missing> {
    let call = symbol(&nvml.lib().nvmlSystemGetConfComputeState)?;
    let mut state = nvmlConfComputeSystemState_t { environment: 0, ccFeature: 0, devToolsMode: 0 };
    // SAFETY: `state` is a live struct of the type in the signature of the symbol.
    check(unsafe { call(&raw mut state) })?;
    Ok(state.ccFeature)
}

/// `nvmlDeviceGetEncoderStats`.
///
/// # Errors
/// Returns the NVML error.
pub fn encoder_sessions(nvml: &Nvml, gpu: Handle) -> Result<SessionStats, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetEncoderStats)?;
    let (mut sessions, mut frames_per_second, mut latency_us) = (0, 0, 0);
    // SAFETY: all three are live u32, which the call writes.
    check(unsafe {
        call(gpu.0, &raw mut sessions, &raw mut frames_per_second, &raw mut latency_us)
    })?;
    Ok(SessionStats { sessions, frames_per_second, latency_us })
}

/// Sessions of framebuffer capture (`nvmlDeviceGetFBCStats`).
///
/// # Errors
/// Returns the NVML error.
pub fn capture_sessions(nvml: &Nvml, gpu: Handle) -> Result<SessionStats, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetFBCStats)?;
    let mut stats = nvmlFBCStats_t { sessionsCount: 0, averageFPS: 0, averageLatency: 0 };
    // SAFETY: `stats` is a live struct of the type in the signature of the symbol.
    check(unsafe { call(gpu.0, &raw mut stats) })?;
    Ok(SessionStats {
        sessions: stats.sessionsCount,
        frames_per_second: stats.averageFPS,
        latency_us: stats.averageLatency,
    })
}

/// `nvmlDeviceWorkloadPowerProfileGetCurrentProfiles`.
///
/// # Errors
/// Returns the NVML error; unsupported before Blackwell and before driver 570.
pub fn power_profiles(nvml: &Nvml, gpu: Handle) -> Result<PowerProfiles, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceWorkloadPowerProfileGetCurrentProfiles)?;
    let none = nvmlMask255_t { mask: [0; 8] };
    let mut profiles = nvmlWorkloadPowerProfileCurrentProfiles_v1_t {
        version: version::<nvmlWorkloadPowerProfileCurrentProfiles_v1_t>(1),
        perfProfilesMask: none,
        requestedProfilesMask: none,
        enforcedProfilesMask: none,
    };
    // SAFETY: `profiles` is a live struct and its version field contains the size.
    check(unsafe { call(gpu.0, &raw mut profiles) })?;
    Ok(PowerProfiles {
        supported: profiles.perfProfilesMask,
        requested: profiles.requestedProfilesMask,
        enforced: profiles.enforcedProfilesMask,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_end_at_their_padding() {
        let guid = [0x21, 0xac, 0x5b, 0x6a, 0x52, 0x8f, 0x7c, 0xf5, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(hexadecimal(guid), "21ac5b6a528f7cf5");
        assert_eq!(hexadecimal([0; 16]), "");
        assert_eq!(text(b"1823825185529\0\0\0"), "1823825185529");
        assert_eq!(text(b"18\x01\xff\0"), "18??");
    }
}
