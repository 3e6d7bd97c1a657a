//! Power, clocks and temperature as a function of load.

use crate::{
    models::{Clocks, Model},
    numeric::round_u32,
    scenario::{Gpu, hardware::PerfPolicy},
    world::load::Load,
};

/// Time step of accumulation in seconds.
pub(crate) const STEP: f64 = 0.1;

/// `nvmlClocksEventReasonGpuIdle`.
pub(crate) const IDLE: u64 = 0x1;
/// `nvmlClocksEventReasonSwPowerCap`.
pub(crate) const POWER_CAP: u64 = 0x4;
/// `nvmlClocksEventReasonSwThermalSlowdown`.
pub(crate) const THERMAL_SLOWDOWN: u64 = 0x20;

/// Clock and power factor of a slowed board.
const SLOWED: f64 = 0.7;
/// The ambient temperature of the models' temperatures, in °C.
const AMBIENT: f64 = 25.0;

/// `nvmlClocksEventReasonHwSlowdown`.
const HW_SLOWDOWN: u64 = 0x8;
/// `nvmlClocksEventReasonSyncBoost`.
const SYNC_BOOST: u64 = 0x10;
/// `nvmlClocksEventReasonHwPowerBrakeSlowdown`.
const POWER_BRAKE: u64 = 0x80;

/// Whether the clocks are slowed at `time`: by temperature or by a policy of the scenario.
pub(crate) fn slowed(gpu: &Gpu, hot: bool, time: f64) -> bool {
    hot || policies(gpu, time).next().is_some()
}

/// The policies of the scenario that slow the clocks at `time`.
pub(crate) fn policies(gpu: &Gpu, time: f64) -> impl Iterator<Item = PerfPolicy> {
    let slowed = gpu.hardware.throttles.iter();
    slowed.filter(move |slowed| slowed.during.contains(time)).map(|slowed| slowed.policy)
}

/// The clock event reasons of a policy.
pub(crate) fn policy_reasons(policy: PerfPolicy) -> u64 {
    match policy {
        PerfPolicy::SyncBoost => SYNC_BOOST,
        PerfPolicy::BoardLimit => HW_SLOWDOWN | POWER_BRAKE,
        PerfPolicy::Reliability => HW_SLOWDOWN,
    }
}

/// Power in W: from idle power to the power limit, by load.
pub(crate) fn watts(model: &Model, load: Load, slow: bool) -> f64 {
    model.idle_watts + (model.limit_watts - model.idle_watts) * demand(load, slow).min(1.0)
}

/// The clock event reasons that follow from load and temperature.
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

/// Clocks: idle clocks without load, else boost clocks, lowered at the power limit and when slowed.
pub(crate) fn clocks(model: &Model, load: Load, slow: bool) -> Clocks {
    if !load.is_busy() {
        return model.idle;
    }
    let over = (demand(load, slow) - 1.0).max(0.0);
    let slowed = if slow { SLOWED } else { 1.0 };
    // Clocks change in steps of 15 MHz.
    let sm = round_u32(f64::from(model.boost.sm) * (1.0 - over) * slowed / 15.0) * 15;
    Clocks { sm, ..model.boost }
}

/// The requested share of the power budget; more than 1 is capped.
fn demand(load: Load, slow: bool) -> f64 {
    let video = load.enc + load.dec + load.jpg + load.ofa;
    let percent = 0.85 * load.sm + 0.25 * load.mem + 0.03 * video;
    percent / 100.0 * if slow { SLOWED } else { 1.0 }
}

/// The steady-state temperature in °C at `watts`.
pub(crate) fn target(gpu: &Gpu, watts: f64) -> f64 {
    let Model { thermals, idle_watts, limit_watts, .. } = gpu.model;
    let rise = (thermals.full - thermals.idle) / (limit_watts - idle_watts);
    thermals.idle + (gpu.ambient - AMBIENT) + rise * (watts - idle_watts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn power_limit_caps_power_and_lowers_clocks() {
        let text = "[[gpu]]\nmodel = \"H100\"\n";
        let gpu = Scenario::parse("test", text).unwrap().gpus.remove(0);
        let load = |sm, mem| Load { sm, mem, ..Load::default() };
        let (below, full) = (load(80.0, 40.0), load(100.0, 100.0));
        assert!((watts(gpu.model, full, false) - 700.0).abs() < 1e-9);
        assert_eq!(reasons(below, false, false), 0);
        assert_eq!(reasons(full, false, false), POWER_CAP);
        assert_eq!(reasons(Load::default(), false, false), IDLE);
        assert_eq!(clocks(gpu.model, below, false).sm, 1_980);
        assert!(clocks(gpu.model, full, false).sm < 1_980);
    }
}
