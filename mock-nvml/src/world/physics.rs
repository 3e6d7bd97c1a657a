//! Power, clocks and heat as a function of load, and what accumulates over time.

use crate::{
    models::{Clocks, Model},
    number::{float, floor_i64, round_u32},
    scenario::{Gpu, hardware::Policy},
    world::{load::Load, traffic::Traffic, violations::HeldDown},
};

/// Seconds between two steps of what accumulates.
pub(crate) const STEP: f64 = 0.1;

/// `nvmlClocksEventReasonGpuIdle`.
pub(crate) const IDLE: u64 = 0x1;
/// `nvmlClocksEventReasonSwPowerCap`.
pub(crate) const POWER_CAP: u64 = 0x4;
/// `nvmlClocksEventReasonSwThermalSlowdown`.
pub(crate) const THERMAL_SLOWDOWN: u64 = 0x20;

/// What a slowed board still does of what is asked.
const SLOWED: f64 = 0.7;
/// How far a slowed board must cool before it runs free again, in °C.
const HYSTERESIS: f64 = 3.0;
/// The ambient temperature for which the models' figures hold, in °C.
const AMBIENT: f64 = 25.0;

/// `nvmlClocksEventReasonHwSlowdown`.
const HW_SLOWDOWN: u64 = 0x8;
/// `nvmlClocksEventReasonSyncBoost`.
const SYNC_BOOST: u64 = 0x10;
/// `nvmlClocksEventReasonHwPowerBrakeSlowdown`.
const POWER_BRAKE: u64 = 0x80;

/// What a GPU has accumulated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Heat {
    /// The step of the grid up to which it has been reckoned.
    step: i64,
    /// Energy since the driver was loaded, in mJ.
    pub(crate) millijoules: f64,
    /// Core temperature, in °C.
    pub(crate) celsius: f64,
    /// PCIe replays since the driver was loaded.
    pub(crate) replays: f64,
    /// How long what held the clocks down, since the driver was loaded.
    pub(crate) held_down: HeldDown,
    /// What its links have carried since the driver was loaded, in MiB.
    pub(crate) carried: Traffic,
    /// Whether the driver slows the clocks because of the temperature.
    pub(crate) hot: bool,
}

impl Heat {
    /// A board that has long had this load at world time `time`.
    pub(crate) fn settled(gpu: &Gpu, load: Load, time: f64) -> Self {
        // One that would get too hot has long been slowed, and stays near its threshold.
        let slowdown = gpu.model.thermals.slowdown;
        let celsius = target(gpu, watts(gpu.model, load, false)).min(slowdown);
        Self {
            step: floor_i64(time / STEP),
            millijoules: 0.0,
            celsius,
            replays: 0.0,
            held_down: HeldDown::default(),
            carried: Traffic::default(),
            hot: celsius >= slowdown,
        }
    }

    /// Reckons up to world time `time`, step by step; an earlier time changes nothing.
    pub(crate) fn advance(&mut self, gpu: &Gpu, time: f64, load: impl Fn(f64) -> Load) {
        let thermals = gpu.model.thermals;
        let settle = 1.0 - (-STEP / thermals.lag).exp();
        let last = floor_i64(time / STEP);
        while self.step < last {
            let time = time_of(self.step);
            let load = load(time);
            let slow = slowed(gpu, self.hot, time);
            let power = watts(gpu.model, load, slow);
            self.held_down.advance(gpu, load, self.hot, time);
            self.carried = self.carried + load.traffic.over(STEP);
            self.millijoules += power * STEP * 1_000.0;
            self.celsius += (target(gpu, power) - self.celsius) * settle;
            self.replays += gpu.replays_per_hour * STEP / 3_600.0;
            let free = thermals.slowdown - if self.hot { HYSTERESIS } else { 0.0 };
            self.hot = self.celsius >= free;
            self.step += 1;
        }
    }

    /// Begins the counters anew at world time `time`, as a freshly loaded driver does.
    pub(crate) fn restart(&mut self, time: f64) {
        self.step = floor_i64(time / STEP);
        self.millijoules = 0.0;
        self.replays = 0.0;
        self.held_down = HeldDown::default();
        self.carried = Traffic::default();
    }
}

/// Whether a board is slowed at `time`: because it is hot, or by what its scenario says.
pub(crate) fn slowed(gpu: &Gpu, hot: bool, time: f64) -> bool {
    hot || policies(gpu, time).next().is_some()
}

/// What holds the clocks down at `time` besides load and heat.
pub(crate) fn policies(gpu: &Gpu, time: f64) -> impl Iterator<Item = Policy> {
    let slowed = gpu.hardware.slowed.iter();
    slowed.filter(move |slowed| slowed.during.contains(time)).map(|slowed| slowed.by)
}

/// The bits of a policy in NVML's mask of reasons.
pub(crate) fn bits(policy: Policy) -> u64 {
    match policy {
        Policy::SyncBoost => SYNC_BOOST,
        Policy::BoardLimit => HW_SLOWDOWN | POWER_BRAKE,
        Policy::Reliability => HW_SLOWDOWN,
    }
}

/// Power in W: from idle to the limit with the load, never above.
pub(crate) fn watts(model: &Model, load: Load, slow: bool) -> f64 {
    model.idle_watts + (model.limit_watts - model.idle_watts) * demand(load, slow).min(1.0)
}

/// The reasons for which the clocks are not at their highest, as NVML's bit mask.
pub(crate) fn reasons(load: Load, hot: bool, slow: bool) -> u64 {
    let mut reasons = 0;
    if !load.is_busy() {
        reasons |= IDLE;
    }
    if demand(load, slow) >= 1.0 {
        reasons |= POWER_CAP;
    }
    if hot {
        reasons |= THERMAL_SLOWDOWN;
    }
    reasons
}

/// Clocks: idle without load, else boost, lowered at the power limit and when slowed.
pub(crate) fn clocks(model: &Model, load: Load, slow: bool) -> Clocks {
    if !load.is_busy() {
        return model.idle;
    }
    let over = (demand(load, slow) - 1.0).max(0.0);
    let slowed = if slow { SLOWED } else { 1.0 };
    // Boards move their clocks in steps of 15 MHz.
    let sm = round_u32(f64::from(model.boost.sm) * (1.0 - over) * slowed / 15.0) * 15;
    Clocks { sm, ..model.boost }
}

/// What the load asks of the power budget: 1 is all of it, more is capped.
fn demand(load: Load, slow: bool) -> f64 {
    let video = load.enc + load.dec + load.jpg + load.ofa;
    let asked = 0.85 * load.sm + 0.25 * load.mem + 0.03 * video;
    asked / 100.0 * if slow { SLOWED } else { 1.0 }
}

/// The temperature at which a board settles that draws `watts`.
fn target(gpu: &Gpu, watts: f64) -> f64 {
    let Model { thermals, idle_watts, limit_watts, .. } = gpu.model;
    let rise = (thermals.full - thermals.idle) / (limit_watts - idle_watts);
    thermals.idle + (gpu.ambient - AMBIENT) + rise * (watts - idle_watts)
}

fn time_of(step: i64) -> f64 {
    let time = float(step.unsigned_abs()) * STEP;
    if step < 0 { -time } else { time }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scenario::Scenario;

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
        let mut heat = Heat::settled(&gpu, curve(0.0), 0.0);
        heat.advance(&gpu, 60.0, curve);
        let sum: f64 = (0..600)
            .map(|step| watts(gpu.model, curve(f64::from(step) * STEP), false) * STEP * 1_000.0)
            .sum();
        assert!((heat.millijoules - sum).abs() < 1.0, "{} is not {sum}", heat.millijoules);
    }

    #[test]
    fn the_board_warms_towards_its_load_and_cools_again() {
        let gpu = gpu("T4", "");
        let mut heat = Heat::settled(&gpu, Load::default(), 0.0);
        assert!((heat.celsius - 33.0).abs() < 1e-9);
        heat.advance(&gpu, 40.0, |_| load(100.0, 60.0));
        assert!((heat.celsius - (33.0 + 45.0 * (1.0 - (-1.0_f64).exp()))).abs() < 0.1);
        heat.advance(&gpu, 600.0, |_| load(100.0, 60.0));
        assert!((heat.celsius - 78.0).abs() < 0.1);
        heat.advance(&gpu, 1_200.0, |_| Load::default());
        assert!((heat.celsius - 33.0).abs() < 0.1);
    }

    #[test]
    fn the_power_limit_caps_power_and_lowers_clocks() {
        let gpu = gpu("H100", "");
        let (free, full) = (load(80.0, 40.0), load(100.0, 100.0));
        assert!((watts(gpu.model, full, false) - 700.0).abs() < 1e-9);
        assert_eq!(reasons(free, false, false), 0);
        assert_eq!(reasons(full, false, false), POWER_CAP);
        assert_eq!(reasons(Load::default(), false, false), IDLE);
        assert_eq!(clocks(gpu.model, free, false).sm, 1_980);
        assert!(clocks(gpu.model, full, false).sm < 1_980);
    }

    #[test]
    fn a_board_in_a_hot_room_slows_and_so_stays_near_its_threshold() {
        let gpu = gpu("T4", "ambient = 48.0");
        let mut heat = Heat::settled(&gpu, Load::default(), 0.0);
        let busy = load(95.0, 60.0);
        heat.advance(&gpu, 300.0, |_| busy);
        assert!((89.0..94.0).contains(&heat.celsius), "{}", heat.celsius);
        assert_ne!(reasons(busy, true, true) & THERMAL_SLOWDOWN, 0);
        assert!(clocks(gpu.model, busy, true).sm < clocks(gpu.model, busy, false).sm);
    }

    #[test]
    fn a_reload_restarts_the_counters() {
        let gpu = gpu("T4", "pcie_replays_per_hour = 3600.0");
        let mut heat = Heat::settled(&gpu, Load::default(), 0.0);
        heat.advance(&gpu, 10.0, |_| Load::default());
        assert!((heat.replays - 10.0).abs() < 1e-6 && heat.millijoules > 0.0);
        heat.restart(20.0);
        heat.advance(&gpu, 21.0, |_| Load::default());
        assert!((heat.millijoules - 9_500.0).abs() < 1e-3 && (heat.replays - 1.0).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn counters_never_go_back(
            times in proptest::collection::vec(0.0..300.0_f64, 1..20), sm in 0.0..100.0_f64
        ) {
            let slowed = "slowed = [{ by = \"sync_boost\", from = 50, to = 90 }]";
            let gpu = gpu("L20", &format!("pcie_replays_per_hour = 100.0\n{slowed}"));
            let traffic = Traffic { nvlink: sm, pcie_tx: sm, pcie_rx: sm };
            let mut heat = Heat::settled(&gpu, Load::default(), 0.0);
            for time in times {
                let before = heat;
                heat.advance(&gpu, time, |_| Load { traffic, ..load(sm, sm) });
                prop_assert!(heat.millijoules >= before.millijoules);
                prop_assert!(heat.replays >= before.replays);
                prop_assert!(heat.held_down.is_no_less_than(before.held_down));
                prop_assert!(heat.carried.is_no_less_than(before.carried));
                prop_assert!(heat.celsius <= gpu.model.thermals.slowdown);
            }
        }

        #[test]
        fn more_load_never_draws_less_power(a in 0.0..100.0_f64, b in 0.0..100.0_f64, mem in 0.0..100.0_f64) {
            let gpu = gpu("RTX 4090", "");
            let power = |sm| watts(gpu.model, load(sm, mem), false);
            prop_assert!(power(a.min(b)) <= power(a.max(b)));
            prop_assert!((18.0..=450.0).contains(&power(a)));
        }
    }
}
