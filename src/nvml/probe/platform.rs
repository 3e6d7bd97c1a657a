//! Reads of the place in the rack, of power profiles, and of sessions of encoder and capture.

use nvml_wrapper_sys::bindings::nvmlMask255_t;

use super::Probe;
use crate::model::{Missing, Reading};
use crate::nvml::raw;
use crate::nvml::raw::platform::{Platform, PowerProfiles, SessionStats};

impl Probe<'_> {
    /// A number of the place in the rack (`nvmlDeviceGetPlatformInfo`).
    ///
    /// # Errors
    /// Returns the NVML error; unsupported before Blackwell, and if the board does not report it.
    pub fn platform_number(&self, of: fn(&Platform) -> Option<u8>) -> Reading {
        let platform = raw::platform::platform(self.session.nvml(), self.handle)?;
        Ok(f64::from(of(&platform).ok_or(Missing::Unsupported)?))
    }

    /// Mode of confidential computing (`nvmlSystemGetConfComputeState`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn confidential_compute_mode(&self) -> Reading {
        self.require_response()?;
        Ok(f64::from(raw::platform::confidential_compute_mode(self.session.nvml())?))
    }

    /// A number of the sessions of the video encoder (`nvmlDeviceGetEncoderStats`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn encoder_sessions(&self, of: fn(SessionStats) -> u32) -> Reading {
        Ok(f64::from(of(raw::platform::encoder_sessions(self.session.nvml(), self.handle)?)))
    }

    /// A number of the sessions of framebuffer capture (`nvmlDeviceGetFBCStats`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn capture_sessions(&self, of: fn(SessionStats) -> u32) -> Reading {
        Ok(f64::from(of(raw::platform::capture_sessions(self.session.nvml(), self.handle)?)))
    }

    /// A mask of power profiles (`nvmlDeviceWorkloadPowerProfileGetCurrentProfiles`): bit n is
    /// profile n.
    ///
    /// # Errors
    /// Returns the NVML error; invalid if the mask has a profile that no sample can hold.
    pub fn power_profiles(&self, of: fn(&PowerProfiles) -> nvmlMask255_t) -> Reading {
        let profiles = raw::platform::power_profiles(self.session.nvml(), self.handle)?;
        mask(of(&profiles).mask)
    }
}

/// The mask as a number. A sample holds the profiles up to 52; NVIDIA has defined 16.
fn mask([low, high, rest @ ..]: [u32; 8]) -> Reading {
    if high >= 1 << 21 || rest != [0; 6] {
        return Err(Missing::Invalid);
    }
    Ok(f64::from(high) * 4_294_967_296.0 + f64::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_that_no_sample_can_hold_is_invalid() {
        assert_eq!(mask([5, 0, 0, 0, 0, 0, 0, 0]), Ok(5.0));
        assert_eq!(mask([0, 1, 0, 0, 0, 0, 0, 0]), Ok(4_294_967_296.0));
        assert_eq!(mask([0, 0, 1, 0, 0, 0, 0, 0]), Err(Missing::Invalid));
        assert_eq!(mask([0, 1 << 21, 0, 0, 0, 0, 0, 0]), Err(Missing::Invalid));
    }
}
