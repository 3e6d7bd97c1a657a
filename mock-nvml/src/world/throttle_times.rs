//! Throttle times by policy (`nvmlDeviceGetViolationStatus`).

use crate::{
    scenario::{Gpu, hardware::PerfPolicy},
    world::{
        load::Load,
        physics::{self, STEP},
    },
};

/// Throttle time of each policy in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ThrottleTimes {
    power: f64,
    thermal: f64,
    sync_boost: f64,
    board_limit: f64,
    low_utilization: f64,
    reliability: f64,
    below_applications: f64,
    below_base: f64,
}

impl ThrottleTimes {
    /// Adds one time step to each policy that applies at `time`.
    pub(crate) fn advance(&mut self, gpu: &Gpu, load: Load, hot: bool, time: f64) {
        let slow = physics::slowed(gpu, hot, time);
        let reasons = physics::reasons(load, hot, slow);
        let add = |seconds: &mut f64, applies: bool| {
            if applies {
                *seconds += STEP;
            }
        };
        add(&mut self.power, reasons & physics::POWER_CAP != 0);
        add(&mut self.thermal, reasons & physics::THERMAL_SLOWDOWN != 0);
        add(&mut self.low_utilization, reasons & physics::IDLE != 0);
        let by = |policy| physics::policies(gpu, time).any(|one| one == policy);
        add(&mut self.sync_boost, by(PerfPolicy::SyncBoost));
        add(&mut self.board_limit, by(PerfPolicy::BoardLimit));
        add(&mut self.reliability, by(PerfPolicy::Reliability));
        let sm = physics::clocks(gpu.model, load, slow).sm;
        add(&mut self.below_applications, gpu.model.applications.is_some_and(|set| sm < set.sm));
        add(&mut self.below_base, sm < gpu.model.base_sm);
    }

    /// The throttle time of a policy (`nvmlPerfPolicyType_t`) in ns; `None` for an unknown one.
    pub(crate) fn of(self, policy: u32) -> Option<u64> {
        let seconds = match policy {
            0 => self.power,
            1 => self.thermal,
            2 => self.sync_boost,
            3 => self.board_limit,
            4 => self.low_utilization,
            5 => self.reliability,
            10 => self.below_applications,
            11 => self.below_base,
            _ => return None,
        };
        Some(crate::numeric::floor_u64((seconds * 1e9).round()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ThrottleTimes {
        /// Whether no counter has decreased.
        pub(crate) fn is_no_less_than(self, before: Self) -> bool {
            (0..12).all(|policy| self.of(policy) >= before.of(policy))
        }
    }
}
