//! The rows that people look at first.

/// Share of the time in which a kernel ran, percent.
pub const UTILIZATION: &str = "DCGM_FI_DEV_GPU_UTIL";

/// The same of a GPU instance, as a part of one.
pub const INSTANCE_ACTIVE: &str = "DCGM_FI_PROF_GR_ENGINE_ACTIVE";

/// Power draw, watts.
pub const POWER: &str = "DCGM_FI_DEV_POWER_USAGE";

/// Temperature, °C.
pub const TEMPERATURE: &str = "DCGM_FI_DEV_GPU_TEMP";

/// Why clocks are lower than they could be, as bits.
pub const CLOCK_EVENTS: &str = "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{DEVICE, INSTANCE};

    #[test]
    fn each_is_a_row() {
        for name in [UTILIZATION, POWER, TEMPERATURE, CLOCK_EVENTS] {
            assert!(DEVICE.iter().any(|row| row.name == name), "{name}");
        }
        assert!(INSTANCE.iter().any(|row| row.name == INSTANCE_ACTIVE));
    }
}
