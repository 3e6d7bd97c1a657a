//! Names of the headline metrics of a GPU, for the web UI and `top`.

/// GPU utilization, percent.
pub const UTILIZATION: &str = "DCGM_FI_DEV_GPU_UTIL";

/// Utilization of a GPU instance, ratio 0 to 1.
pub const INSTANCE_ACTIVE: &str = "DCGM_FI_PROF_GR_ENGINE_ACTIVE";

/// Power draw, watts.
pub const POWER: &str = "DCGM_FI_DEV_POWER_USAGE";

/// Temperature, °C.
pub const TEMPERATURE: &str = "DCGM_FI_DEV_GPU_TEMP";

/// Clock event reasons, bitmask.
pub const CLOCK_EVENTS: &str = "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{DEVICE, INSTANCE};

    #[test]
    fn each_name_is_a_row() {
        for name in [UTILIZATION, POWER, TEMPERATURE, CLOCK_EVENTS] {
            assert!(DEVICE.iter().any(|row| row.name == name), "{name}");
        }
        assert!(INSTANCE.iter().any(|row| row.name == INSTANCE_ACTIVE));
    }
}
