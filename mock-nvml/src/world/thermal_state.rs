//! Temperature of a GPU, and the counters accumulated over time.

use crate::{
    numeric::{float, floor_i64},
    scenario::Gpu,
    world::{
        load::Load,
        physics::{STEP, slowed, target, watts},
        throttle_times::ThrottleTimes,
        traffic::Traffic,
    },
};

/// How far the temperature must fall before the thermal slowdown ends, in °C.
const HYSTERESIS: f64 = 3.0;

/// Temperature and accumulated counters of a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ThermalState {
    /// The time step up to which it has been computed.
    step: i64,
    /// Energy since the driver was loaded, in mJ.
    pub(crate) millijoules: f64,
    /// Core temperature, in °C.
    pub(crate) celsius: f64,
    /// PCIe replays since the driver was loaded.
    pub(crate) replays: f64,
    /// Throttle times since the driver was loaded.
    pub(crate) throttle_times: ThrottleTimes,
    /// Traffic on the links since the driver was loaded, in MiB.
    pub(crate) traffic: Traffic,
    /// Whether the thermal slowdown is active.
    pub(crate) thermal_slowdown: bool,
}

impl ThermalState {
    /// The steady state with this load at world time `time`; counters are 0.
    pub(crate) fn steady(gpu: &Gpu, load: Load, time: f64) -> Self {
        // A board above the slowdown temperature would be slowed and stay near the threshold.
        let slowdown = gpu.model.thermals.slowdown;
        let celsius = target(gpu, watts(gpu.model, load, false)).min(slowdown);
        Self {
            step: floor_i64(time / STEP),
            millijoules: 0.0,
            celsius,
            replays: 0.0,
            throttle_times: ThrottleTimes::default(),
            traffic: Traffic::default(),
            thermal_slowdown: celsius >= slowdown,
        }
    }

    /// Advances to world time `time` in steps; an earlier time has no effect.
    pub(crate) fn advance(&mut self, gpu: &Gpu, time: f64, load: impl Fn(f64) -> Load) {
        let thermals = gpu.model.thermals;
        let approach = 1.0 - (-STEP / thermals.time_constant).exp();
        let last = floor_i64(time / STEP);
        while self.step < last {
            let time = time_of(self.step);
            let load = load(time);
            let slow = slowed(gpu, self.thermal_slowdown, time);
            let power = watts(gpu.model, load, slow);
            self.throttle_times.advance(gpu, load, self.thermal_slowdown, time);
            self.traffic = self.traffic + load.traffic.in_seconds(STEP);
            self.millijoules += power * STEP * 1_000.0;
            self.celsius += (target(gpu, power) - self.celsius) * approach;
            self.replays += gpu.replays_per_hour * STEP / 3_600.0;
            let threshold =
                thermals.slowdown - if self.thermal_slowdown { HYSTERESIS } else { 0.0 };
            self.thermal_slowdown = self.celsius >= threshold;
            self.step += 1;
        }
    }

    /// Resets the counters at world time `time`, as loading the driver does.
    pub(crate) fn reset_counters(&mut self, time: f64) {
        self.step = floor_i64(time / STEP);
        self.millijoules = 0.0;
        self.replays = 0.0;
        self.throttle_times = ThrottleTimes::default();
        self.traffic = Traffic::default();
    }
}

fn time_of(step: i64) -> f64 {
    let time = float(step.unsigned_abs()) * STEP;
    if step < 0 { -time } else { time }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        scenario::Scenario,
        world::physics::{THERMAL_SLOWDOWN, clocks, reasons},
    };

    fn gpu(model: &str, rest: &str) -> Gpu {
        let text = format!("[[gpu]]\nmodel = \"{model}\"\n{rest}");
        Scenario::parse("test", &text).unwrap().gpus.remove(0)
    }

    fn load(sm: f64, mem: f64) -> Load {
        Load { sm, mem, ..Load::default() }
    }

    #[test]
    fn energy_is_the_sum_of_power_over_time() {
        let gpu = gpu("H100", "");
        let curve = |time: f64| load(50.0 + 50.0 * time.sin(), 20.0);
        let mut heat = ThermalState::steady(&gpu, curve(0.0), 0.0);
        heat.advance(&gpu, 60.0, curve);
        let sum: f64 = (0..600)
            .map(|step| watts(gpu.model, curve(f64::from(step) * STEP), false) * STEP * 1_000.0)
            .sum();
        assert!((heat.millijoules - sum).abs() < 1.0, "{} is not {sum}", heat.millijoules);
    }

    #[test]
    fn temperature_follows_the_load() {
        let gpu = gpu("T4", "");
        let mut heat = ThermalState::steady(&gpu, Load::default(), 0.0);
        assert!((heat.celsius - 33.0).abs() < 1e-9);
        heat.advance(&gpu, 40.0, |_| load(100.0, 60.0));
        assert!((heat.celsius - (33.0 + 45.0 * (1.0 - (-1.0_f64).exp()))).abs() < 0.1);
        heat.advance(&gpu, 600.0, |_| load(100.0, 60.0));
        assert!((heat.celsius - 78.0).abs() < 0.1);
        heat.advance(&gpu, 1_200.0, |_| Load::default());
        assert!((heat.celsius - 33.0).abs() < 0.1);
    }

    #[test]
    fn thermal_slowdown_limits_the_temperature() {
        let gpu = gpu("T4", "ambient = 48.0");
        let mut heat = ThermalState::steady(&gpu, Load::default(), 0.0);
        let busy = load(95.0, 60.0);
        heat.advance(&gpu, 300.0, |_| busy);
        assert!((89.0..94.0).contains(&heat.celsius), "{}", heat.celsius);
        assert_ne!(reasons(busy, true, true) & THERMAL_SLOWDOWN, 0);
        assert!(clocks(gpu.model, busy, true).sm < clocks(gpu.model, busy, false).sm);
    }

    #[test]
    fn reload_resets_the_counters() {
        let gpu = gpu("T4", "pcie_replays_per_hour = 3600.0");
        let mut heat = ThermalState::steady(&gpu, Load::default(), 0.0);
        heat.advance(&gpu, 10.0, |_| Load::default());
        assert!((heat.replays - 10.0).abs() < 1e-6 && heat.millijoules > 0.0);
        heat.reset_counters(20.0);
        heat.advance(&gpu, 21.0, |_| Load::default());
        assert!((heat.millijoules - 9_500.0).abs() < 1e-3 && (heat.replays - 1.0).abs() < 1e-6);
    }

    #[test]
    fn throttle_time_is_the_time_for_which_a_policy_applies() {
        let text =
            "[[gpu]]\nmodel = \"H100\"\nslowed = [{ by = \"board_limit\", from = 20, to = 24 }]";
        let gpu = Scenario::parse("test", text).unwrap().gpus.remove(0);
        let busy = Load { sm: 100.0, mem: 100.0, ..Load::default() };
        let mut heat = ThermalState::steady(&gpu, Load::default(), 0.0);
        // 10 s idle, then 20 s at the power limit except for 4 s in which it is slowed.
        heat.advance(&gpu, 30.0, |time| if time < 9.95 { Load::default() } else { busy });
        let seconds = |policy| heat.throttle_times.of(policy).unwrap().div_ceil(100_000_000) * 100;
        assert_eq!(seconds(4), 10_000);
        assert_eq!(seconds(0), 16_000);
        assert_eq!(seconds(3), 4_000);
        assert_eq!((seconds(1), seconds(2), seconds(5)), (0, 0, 0));
        assert_eq!(heat.throttle_times.of(6), None);
        // Idle, or busy at the limit: below 1980 MHz all the time. Below 1590 when idle or slowed.
        assert_eq!((seconds(10), seconds(11)), (30_000, 14_000));
    }

    proptest! {
        #[test]
        fn counters_never_decrease(
            times in proptest::collection::vec(0.0..300.0_f64, 1..20), sm in 0.0..100.0_f64
        ) {
            let slowed = "slowed = [{ by = \"sync_boost\", from = 50, to = 90 }]";
            let gpu = gpu("L20", &format!("pcie_replays_per_hour = 100.0\n{slowed}"));
            let traffic = Traffic { nvlink: sm, pcie_tx: sm, pcie_rx: sm };
            let mut heat = ThermalState::steady(&gpu, Load::default(), 0.0);
            for time in times {
                let before = heat;
                heat.advance(&gpu, time, |_| Load { traffic, ..load(sm, sm) });
                prop_assert!(heat.millijoules >= before.millijoules);
                prop_assert!(heat.replays >= before.replays);
                prop_assert!(heat.throttle_times.is_no_less_than(before.throttle_times));
                prop_assert!(heat.traffic.is_no_less_than(before.traffic));
                prop_assert!(heat.celsius <= gpu.model.thermals.slowdown);
            }
        }

        #[test]
        fn power_increases_with_load(a in 0.0..100.0_f64, b in 0.0..100.0_f64, mem in 0.0..100.0_f64) {
            let gpu = gpu("RTX 4090", "");
            let power = |sm| watts(gpu.model, load(sm, mem), false);
            prop_assert!(power(a.min(b)) <= power(a.max(b)));
            prop_assert!((18.0..=450.0).contains(&power(a)));
        }
    }
}
