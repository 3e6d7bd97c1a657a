//! One GPU at one moment, and all that NVML tells of it.

mod fields;
mod links;
mod memory_errors;
mod samples;
mod seat;
mod usage;

use std::sync::Arc;

pub(crate) use self::{
    fields::FieldValue,
    links::{Direction, LinkError},
    memory_errors::SpareRows,
    seat::Seat,
    usage::{List, Memory, ProcessRow},
};
use super::{
    load::{self, Load},
    physics::{self, Heat},
};
use crate::{
    clock::Now,
    code::{Answer, Code},
    models::Model,
    number::{floor_u32, floor_u64, round_u32},
    scenario::{Gpu, Scenario},
};

/// A GPU at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    scenario: Arc<Scenario>,
    gpu: Gpu,
    heat: Heat,
    now: Now,
    up_since: f64,
    load: Load,
    seat: Seat,
}

impl Board {
    pub(crate) fn new(
        scenario: Arc<Scenario>,
        gpu: usize,
        heat: Heat,
        now: Now,
        up_since: f64,
    ) -> Answer<Self> {
        let gpu = scenario.gpus.get(gpu).ok_or(Code::GPU_IS_LOST)?.clone();
        let load = load::total(&scenario, &gpu, now.world);
        Ok(Self { scenario, gpu, heat, now, up_since, load, seat: Seat::Board })
    }

    /// What identifies it.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// What it has in common with its like.
    pub(crate) fn model(&self) -> &'static Model {
        self.gpu.model
    }

    /// The branch of the driver.
    pub(crate) fn branch(&self) -> u32 {
        self.scenario.driver.branch()
    }

    /// The version of the driver.
    pub(crate) fn driver_version(&self) -> String {
        self.scenario.driver.version.clone()
    }

    /// When this is.
    pub(crate) fn now(&self) -> Now {
        self.now
    }

    /// Microseconds between two samples of an engine.
    pub(crate) fn sample_period_us(&self) -> u32 {
        round_u32(self.model().sample_period * 1e6)
    }

    /// SM and memory controller in percent.
    pub(crate) fn utilization(&self) -> (u32, u32) {
        (floor_u32(self.load.sm), floor_u32(self.load.mem))
    }

    /// Encoder in percent.
    pub(crate) fn encoder(&self) -> u32 {
        floor_u32(self.load.enc)
    }

    /// Decoder in percent.
    pub(crate) fn decoder(&self) -> u32 {
        floor_u32(self.load.dec)
    }

    /// JPEG decoder in percent, where there is one.
    pub(crate) fn jpg(&self) -> Answer<u32> {
        if self.model().jpg_ofa { Ok(floor_u32(self.load.jpg)) } else { Err(Code::NOT_SUPPORTED) }
    }

    /// Optical flow accelerator in percent, where there is one.
    pub(crate) fn ofa(&self) -> Answer<u32> {
        if self.model().jpg_ofa { Ok(floor_u32(self.load.ofa)) } else { Err(Code::NOT_SUPPORTED) }
    }

    /// Core temperature in °C.
    pub(crate) fn temperature(&self) -> u32 {
        floor_u32(self.heat.celsius)
    }

    /// Power in mW.
    pub(crate) fn power(&self) -> u32 {
        round_u32(physics::watts(self.model(), self.load, self.is_slow()) * 1_000.0)
    }

    /// Power limit in mW.
    pub(crate) fn power_limit(&self) -> u32 {
        round_u32(self.model().limit_watts * 1_000.0)
    }

    /// Energy since the driver was loaded, in mJ.
    pub(crate) fn energy(&self) -> u64 {
        floor_u64(self.heat.millijoules)
    }

    /// PCIe replays since the driver was loaded.
    pub(crate) fn replays(&self) -> u32 {
        floor_u32(self.heat.replays)
    }

    /// Clock of a domain (`nvmlClockType_t`) in MHz.
    pub(crate) fn clock(&self, domain: u32) -> Answer<u32> {
        of_domain(physics::clocks(self.model(), self.load, self.is_slow()), domain)
    }

    /// Largest clock of a domain (`nvmlClockType_t`) in MHz.
    pub(crate) fn max_clock(&self, domain: u32) -> Answer<u32> {
        of_domain(self.model().max, domain)
    }

    /// Clock of a domain that applications get, in MHz.
    pub(crate) fn applications_clock(&self, domain: u32) -> Answer<u32> {
        of_domain(self.model().applications.ok_or(Code::NOT_SUPPORTED)?, domain)
    }

    /// P-state: 0 under load.
    pub(crate) fn pstate(&self) -> u32 {
        if self.load.is_busy() { 0 } else { self.model().idle_pstate }
    }

    /// Why the clocks are not at their highest, as a bit mask.
    pub(crate) fn reasons(&self) -> u64 {
        let held = physics::policies(&self.gpu, self.now.world).map(physics::bits);
        held.fold(physics::reasons(self.load, self.heat.hot, self.is_slow()), |reasons, bits| {
            reasons | bits
        })
    }

    /// Speed of a fan in percent; boards without fans have none to tell of.
    pub(crate) fn fan(&self, fan: u32) -> Answer<u32> {
        let model = self.model();
        if model.fans == 0 {
            return Err(Code::NOT_SUPPORTED);
        }
        if fan >= model.fans {
            return Err(Code::INVALID_ARGUMENT);
        }
        // Still below 50 °C, then rising to full speed at the slowdown temperature.
        let warmth = (self.heat.celsius - 50.0) / (model.thermals.slowdown - 50.0);
        Ok(if warmth <= 0.0 { 0 } else { floor_u32((30.0 + 70.0 * warmth).min(100.0)) })
    }

    /// Nanoseconds since the driver was loaded for which a policy (`nvmlPerfPolicyType_t`) held the
    /// clocks down.
    pub(crate) fn violation(&self, policy: u32) -> Answer<u64> {
        let held = self.heat.held_down.of(policy).ok_or(Code::INVALID_ARGUMENT)?;
        if self.model().violations { Ok(held) } else { Err(Code::NOT_SUPPORTED) }
    }

    /// A threshold (`nvmlTemperatureThresholds_t`) in °C.
    pub(crate) fn threshold(&self, which: u32) -> Answer<u32> {
        let thermals = self.model().thermals;
        match which {
            0 => Ok(floor_u32(thermals.shutdown)),
            1 => Ok(floor_u32(thermals.slowdown)),
            2 => thermals.memory.map(|memory| floor_u32(memory.max)).ok_or(Code::NOT_SUPPORTED),
            3 => Ok(floor_u32(thermals.core_max)),
            4..=7 => Err(Code::NOT_SUPPORTED),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    }

    fn is_slow(&self) -> bool {
        physics::slowed(&self.gpu, self.heat.hot, self.now.world)
    }
}

fn of_domain(clocks: crate::models::Clocks, domain: u32) -> Answer<u32> {
    match domain {
        0 | 1 => Ok(clocks.sm),
        2 => Ok(clocks.mem),
        3 => Ok(clocks.video),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const WALL: u64 = 1_000_000_000;

    /// GPU 0 of a scenario at a moment.
    pub(super) fn board(text: &str, time: f64) -> Board {
        let scenario = Scenario::parse("test", text).unwrap();
        let gpu = scenario.gpus.first().unwrap();
        let heat = Heat::settled(gpu, load::total(&scenario, gpu, time), time);
        let now = Now { real: 0.0, wall: WALL, world: time, held: true };
        Board::new(Arc::new(scenario), 0, heat, now, f64::NEG_INFINITY).unwrap()
    }

    /// The same after it has been watched from time zero.
    pub(super) fn board_after(text: &str, time: f64) -> Board {
        let mut board = board(text, time);
        let (scenario, gpu) = (Arc::clone(&board.scenario), board.gpu.clone());
        board.heat = Heat::settled(&gpu, load::total(&scenario, &gpu, 0.0), 0.0);
        board.heat.advance(&gpu, time, |time| load::total(&scenario, &gpu, time));
        board
    }

    /// A process on GPU 0.
    pub(super) fn process(pid: u32, rest: &str) -> String {
        format!("[[process]]\npid = {pid}\nname = \"p\"\ngpus = [0]\n{rest}\n")
    }

    #[test]
    fn an_idle_t4_sleeps_and_an_idle_h100_does_not() {
        let t4 = board("[[gpu]]\nmodel = \"T4\"\n", 0.0);
        assert_eq!((t4.pstate(), t4.clock(1), t4.reasons()), (8, Ok(300), 1));
        assert_eq!((t4.power(), t4.ring(0)), (9_500, Err(Code::NOT_FOUND)));
        let h100 = board("[[gpu]]\nmodel = \"H100\"\n", 0.0);
        assert_eq!(
            (h100.pstate(), h100.clock(2), h100.clock(4)),
            (0, Ok(2_619), Err(Code::INVALID_ARGUMENT))
        );
        assert_eq!(h100.field(82, 0), Ok(FieldValue::U32(38)));
        assert_eq!(t4.field(82, 0), Err(Code::NOT_SUPPORTED));
        assert_eq!(t4.field(83, 0), Ok(FieldValue::U64(0)));
    }

    #[test]
    fn fans_turn_where_there_are_any() {
        let hot = "[[gpu]]\nmodel = \"RTX 4090\"\n".to_owned()
            + &process(1, "memory = \"1 GiB\"\nsm = 100\nmem = 80");
        let board4090 = board(&hot, 0.0);
        assert!((30..=100).contains(&board4090.fan(1).unwrap()));
        assert_eq!(board4090.fan(2), Err(Code::INVALID_ARGUMENT));
        assert_eq!(board("[[gpu]]\nmodel = \"T4\"\n", 0.0).fan(0), Err(Code::NOT_SUPPORTED));
    }
}
