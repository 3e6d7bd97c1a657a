//! One GPU, MIG device or MIG instance at one time, with all values that NVML returns for it.

pub(crate) mod cgroup_memory;
pub(crate) mod fabric;
pub(crate) mod fields;
pub(crate) mod links;
pub(crate) mod memory_errors;
mod mig;
mod samples;
pub(crate) mod usage;
pub(crate) mod view;

use std::sync::Arc;

use crate::{
    clock::Now,
    models::{Clocks, Model},
    numeric::{floor_u32, floor_u64, round_u32},
    return_code::{NvmlResult, ReturnCode},
    scenario::{Gpu, Scenario},
    world::{
        board::view::BoardView,
        load::{self, Load},
        physics,
        sample_ring::SampleRing,
        thermal_state::ThermalState,
    },
};

/// The first branch without application clocks, as captures of a T4 and an L40S have it.
const NO_APPLICATION_CLOCKS: u32 = 595;

/// A GPU, MIG device or MIG instance at one time.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    scenario: Arc<Scenario>,
    gpu: Gpu,
    thermal: ThermalState,
    now: Now,
    up_since: f64,
    load: Load,
    view: BoardView,
}

impl Board {
    pub(crate) fn new(
        scenario: Arc<Scenario>,
        gpu: usize,
        heat: ThermalState,
        now: Now,
        up_since: f64,
    ) -> NvmlResult<Self> {
        let gpu = scenario.gpus.get(gpu).ok_or(ReturnCode::GPU_IS_LOST)?.clone();
        let load = load::total(&scenario, &gpu, now.world);
        Ok(Self { scenario, gpu, thermal: heat, now, up_since, load, view: BoardView::Board })
    }

    /// The GPU of the scenario.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The model of the GPU.
    pub(crate) fn model(&self) -> &'static Model {
        self.gpu.model
    }

    /// The branch of the driver, such as 550.
    pub(crate) fn branch(&self) -> u32 {
        self.scenario.driver.branch()
    }

    /// The version of the driver.
    pub(crate) fn driver_version(&self) -> String {
        self.scenario.driver.version.clone()
    }

    /// The time of this state.
    pub(crate) fn now(&self) -> Now {
        self.now
    }

    /// Sampling period of the engines in µs.
    pub(crate) fn sample_period_us(&self) -> u32 {
        round_u32(self.model().sample_period * 1e6)
    }

    /// The buffer of utilization samples.
    fn sample_ring(&self) -> SampleRing<'_> {
        let timing = &self.gpu.samples;
        let period = timing.period.unwrap_or(self.model().sample_period);
        SampleRing { period, since: self.up_since, timing }
    }

    /// Current time by the clock of the driver, µs.
    pub(crate) fn driver_time(&self) -> u64 {
        self.gpu.samples.stamp(self.now.wall, self.now.world)
    }

    /// Utilization of SM and memory controller in percent.
    pub(crate) fn utilization(&self) -> (u32, u32) {
        (floor_u32(self.load.sm), floor_u32(self.load.mem))
    }

    /// Utilization of the encoder in percent.
    pub(crate) fn encoder(&self) -> u32 {
        floor_u32(self.load.enc)
    }

    /// Utilization of the decoder in percent.
    pub(crate) fn decoder(&self) -> u32 {
        floor_u32(self.load.dec)
    }

    /// Utilization of the JPEG decoder in percent, if there is one.
    pub(crate) fn jpg(&self) -> NvmlResult<u32> {
        if self.model().jpg_ofa {
            Ok(floor_u32(self.load.jpg))
        } else {
            Err(ReturnCode::NOT_SUPPORTED)
        }
    }

    /// Utilization of the optical flow engine in percent, if there is one.
    pub(crate) fn ofa(&self) -> NvmlResult<u32> {
        if self.model().jpg_ofa {
            Ok(floor_u32(self.load.ofa))
        } else {
            Err(ReturnCode::NOT_SUPPORTED)
        }
    }

    /// Core temperature in °C.
    pub(crate) fn temperature(&self) -> u32 {
        floor_u32(self.thermal.celsius)
    }

    /// Power in mW.
    pub(crate) fn power(&self) -> u32 {
        let watts = physics::watts(self.model(), self.load, self.is_slow());
        round_u32(watts * 1_000.0).min(self.power_limit())
    }

    /// Enforced power limit in mW.
    pub(crate) fn power_limit(&self) -> u32 {
        let limit = self.gpu.power_limit.unwrap_or(self.model().limit_watts);
        round_u32(limit * 1_000.0)
    }

    /// Default power limit in mW.
    pub(crate) fn default_power_limit(&self) -> u32 {
        round_u32(self.model().limit_watts * 1_000.0)
    }

    /// Energy since the driver was loaded, in mJ.
    pub(crate) fn energy(&self) -> u64 {
        floor_u64(self.thermal.millijoules)
    }

    /// PCIe replays since the driver was loaded.
    pub(crate) fn replays(&self) -> u32 {
        floor_u32(self.thermal.replays)
    }

    /// Clock of a domain (`nvmlClockType_t`) in MHz.
    pub(crate) fn clock(&self, domain: u32) -> NvmlResult<u32> {
        of_domain(physics::clocks(self.model(), self.load, self.is_slow()), domain)
    }

    /// Maximum clock of a domain (`nvmlClockType_t`) in MHz.
    pub(crate) fn max_clock(&self, domain: u32) -> NvmlResult<u32> {
        of_domain(self.model().max, domain)
    }

    /// Application clock of a domain (`nvmlClockType_t`) in MHz.
    pub(crate) fn applications_clock(&self, domain: u32) -> NvmlResult<u32> {
        if self.branch() >= NO_APPLICATION_CLOCKS {
            return Err(ReturnCode::DEPRECATED);
        }
        of_domain(self.model().applications.ok_or(ReturnCode::NOT_SUPPORTED)?, domain)
    }

    /// P-state: 0 under load.
    pub(crate) fn pstate(&self) -> u32 {
        if self.load.is_busy() { 0 } else { self.model().idle_pstate }
    }

    /// Clock event reasons as a bit mask (`nvmlClocksEventReason…`).
    pub(crate) fn clock_event_reasons(&self) -> u64 {
        let policies = physics::policies(&self.gpu, self.now.world).map(physics::policy_reasons);
        policies.fold(
            physics::reasons(self.load, self.thermal.thermal_slowdown, self.is_slow()),
            |reasons, bits| reasons | bits,
        )
    }

    /// Speed of a fan in percent; not supported by boards without fans.
    pub(crate) fn fan(&self, fan: u32) -> NvmlResult<u32> {
        let model = self.model();
        if model.fans == 0 {
            return Err(ReturnCode::NOT_SUPPORTED);
        }
        if fan >= model.fans {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        // Stopped below 50 °C, then rising to full speed at the slowdown temperature.
        let warmth = (self.thermal.celsius - 50.0) / (model.thermals.slowdown - 50.0);
        Ok(if warmth <= 0.0 { 0 } else { floor_u32((30.0 + 70.0 * warmth).min(100.0)) })
    }

    /// Throttle time of a policy (`nvmlPerfPolicyType_t`) since the driver was loaded, in ns.
    pub(crate) fn violation(&self, policy: u32) -> NvmlResult<u64> {
        let time = self.thermal.throttle_times.of(policy).ok_or(ReturnCode::INVALID_ARGUMENT)?;
        if self.model().violations { Ok(time) } else { Err(ReturnCode::NOT_SUPPORTED) }
    }

    /// Distance of the temperature to the slowdown threshold in °C, if the board reports it.
    pub(crate) fn temperature_margin(&self) -> NvmlResult<i32> {
        if !self.model().extras.margin {
            return Err(ReturnCode::NOT_SUPPORTED);
        }
        let degrees = |celsius| i32::try_from(floor_u32(celsius)).map_err(|_| ReturnCode::UNKNOWN);
        Ok(degrees(self.model().thermals.slowdown)? - degrees(self.thermal.celsius)?)
    }

    /// A threshold (`nvmlTemperatureThresholds_t`) in °C.
    pub(crate) fn threshold(&self, which: u32) -> NvmlResult<u32> {
        let thermals = self.model().thermals;
        match which {
            0 => Ok(floor_u32(thermals.shutdown)),
            1 => Ok(floor_u32(thermals.slowdown)),
            2 => {
                thermals.memory.map(|memory| floor_u32(memory.max)).ok_or(ReturnCode::NOT_SUPPORTED)
            }
            3 => Ok(floor_u32(thermals.core_max)),
            4..=7 => Err(ReturnCode::NOT_SUPPORTED),
            _ => Err(ReturnCode::INVALID_ARGUMENT),
        }
    }

    fn is_slow(&self) -> bool {
        physics::slowed(&self.gpu, self.thermal.thermal_slowdown, self.now.world)
    }
}

fn of_domain(clocks: Clocks, domain: u32) -> NvmlResult<u32> {
    match domain {
        0 | 1 => Ok(clocks.sm),
        2 => Ok(clocks.mem),
        3 => Ok(clocks.video),
        _ => Err(ReturnCode::INVALID_ARGUMENT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const WALL: u64 = 1_000_000_000;

    /// GPU 0 of a scenario at one time.
    pub(super) fn board(text: &str, time: f64) -> Board {
        let scenario = Scenario::parse("test", text).unwrap();
        let gpu = scenario.gpus.first().unwrap();
        let heat = ThermalState::steady(gpu, load::total(&scenario, gpu, time), time);
        let now = Now { real: 0.0, wall: WALL, world: time, fixed: true };
        Board::new(Arc::new(scenario), 0, heat, now, f64::NEG_INFINITY).unwrap()
    }

    /// GPU 0 of a scenario with accumulators from time 0 to `time`.
    pub(super) fn board_after(text: &str, time: f64) -> Board {
        let mut board = board(text, time);
        let (scenario, gpu) = (Arc::clone(&board.scenario), board.gpu.clone());
        board.thermal = ThermalState::steady(&gpu, load::total(&scenario, &gpu, 0.0), 0.0);
        board.thermal.advance(&gpu, time, |time| load::total(&scenario, &gpu, time));
        board
    }

    /// A process on GPU 0.
    pub(super) fn process(pid: u32, rest: &str) -> String {
        format!("[[process]]\npid = {pid}\nname = \"p\"\ngpus = [0]\n{rest}\n")
    }

    #[test]
    fn idle_t4_lowers_its_pstate_and_idle_h100_does_not() {
        let t4 = board("[[gpu]]\nmodel = \"T4\"\n", 0.0);
        assert_eq!((t4.pstate(), t4.clock(1), t4.clock_event_reasons()), (8, Ok(300), 1));
        assert_eq!((t4.power(), t4.process_utilization(0)), (9_500, Err(ReturnCode::NOT_FOUND)));
        let h100 = board("[[gpu]]\nmodel = \"H100\"\n", 0.0);
        assert_eq!(
            (h100.pstate(), h100.clock(2), h100.clock(4)),
            (0, Ok(2_619), Err(ReturnCode::INVALID_ARGUMENT))
        );
    }

    #[test]
    fn fan_speed_is_reported_for_existing_fans() {
        let hot = "[[gpu]]\nmodel = \"RTX 4090\"\n".to_owned()
            + &process(1, "memory = \"1 GiB\"\nsm = 100\nmem = 80");
        let rtx4090 = board(&hot, 0.0);
        assert!((30..=100).contains(&rtx4090.fan(1).unwrap()));
        assert_eq!(rtx4090.fan(2), Err(ReturnCode::INVALID_ARGUMENT));
        assert_eq!(board("[[gpu]]\nmodel = \"T4\"\n", 0.0).fan(0), Err(ReturnCode::NOT_SUPPORTED));
    }
}
