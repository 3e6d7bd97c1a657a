//! How long the clocks were held down, and by what.

use super::{
    load::Load,
    physics::{self, STEP},
};
use crate::scenario::{Gpu, hardware::Policy};

/// Seconds for which each policy held the clocks down.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct HeldDown {
    power: f64,
    thermal: f64,
    sync_boost: f64,
    board_limit: f64,
    low_utilization: f64,
    reliability: f64,
    below_applications: f64,
    below_base: f64,
}

impl HeldDown {
    /// Adds one step of time: what is a reason for low clocks in it counts for all of it.
    pub(crate) fn advance(&mut self, gpu: &Gpu, load: Load, hot: bool, time: f64) {
        let slow = physics::slowed(gpu, hot, time);
        let reasons = physics::reasons(load, hot, slow);
        let add = |seconds: &mut f64, holds: bool| {
            if holds {
                *seconds += STEP;
            }
        };
        add(&mut self.power, reasons & physics::POWER_CAP != 0);
        add(&mut self.thermal, reasons & physics::THERMAL_SLOWDOWN != 0);
        add(&mut self.low_utilization, reasons & physics::IDLE != 0);
        let by = |policy| physics::policies(gpu, time).any(|one| one == policy);
        add(&mut self.sync_boost, by(Policy::SyncBoost));
        add(&mut self.board_limit, by(Policy::BoardLimit));
        add(&mut self.reliability, by(Policy::Reliability));
        let sm = physics::clocks(gpu.model, load, slow).sm;
        add(&mut self.below_applications, gpu.model.applications.is_some_and(|set| sm < set.sm));
        add(&mut self.below_base, sm < gpu.model.base_sm);
    }

    /// The nanoseconds of a policy (`nvmlPerfPolicyType_t`).
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
        Some(crate::number::floor_u64((seconds * 1e9).round()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scenario::Scenario, world::physics::Heat};

    impl HeldDown {
        /// Whether nothing has gone back.
        pub(crate) fn is_no_less_than(self, before: Self) -> bool {
            (0..12).all(|policy| self.of(policy) >= before.of(policy))
        }
    }

    #[test]
    fn a_violation_is_the_time_for_which_its_reason_holds() {
        let text =
            "[[gpu]]\nmodel = \"H100\"\nslowed = [{ by = \"board_limit\", from = 20, to = 24 }]";
        let gpu = Scenario::parse("test", text).unwrap().gpus.remove(0);
        let busy = Load { sm: 100.0, mem: 100.0, ..Load::default() };
        let mut heat = Heat::settled(&gpu, Load::default(), 0.0);
        // 10 s idle, 20 s at the limit but for 4 s in which it is slowed.
        heat.advance(&gpu, 30.0, |time| if time < 9.95 { Load::default() } else { busy });
        let seconds = |policy| heat.held_down.of(policy).unwrap().div_ceil(100_000_000) * 100;
        assert_eq!(seconds(4), 10_000);
        assert_eq!(seconds(0), 16_000);
        assert_eq!(seconds(3), 4_000);
        assert_eq!((seconds(1), seconds(2), seconds(5)), (0, 0, 0));
        assert_eq!(heat.held_down.of(6), None);
        // Idle, or busy at the limit: below 1980 MHz all the time. Below 1590 when idle or slowed.
        assert_eq!((seconds(10), seconds(11)), (30_000, 14_000));
    }
}
