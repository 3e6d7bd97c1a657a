//! The accumulated state of each GPU, by UUID.

use std::collections::HashMap;

use crate::{
    return_code::{NvmlResult, ReturnCode},
    scenario::{Gpu, Scenario},
    world::{load, thermal_state::ThermalState},
};

/// The accumulated state of one GPU.
#[derive(Clone, Copy, Debug)]
struct GpuState {
    heat: ThermalState,
    /// How often it has been lost.
    incarnation: u32,
    lost: bool,
}

/// The state of the GPUs of the scenario, in its order, and of GPUs of earlier scenarios.
#[derive(Debug)]
pub(crate) struct GpuStates {
    current: Vec<GpuState>,
    uuids: Vec<String>,
    removed: HashMap<String, GpuState>,
}

impl GpuStates {
    /// The GPUs of a scenario at world time 0.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let mut tracks = Self { current: vec![], uuids: vec![], removed: HashMap::new() };
        tracks.replace_scenario(scenario, 0.0);
        tracks
    }

    /// Replaces the scenario at world time `time`. GPUs with the UUID of an earlier one keep its
    /// state.
    pub(crate) fn replace_scenario(&mut self, scenario: &Scenario, time: f64) {
        self.removed.extend(self.uuids.drain(..).zip(self.current.drain(..)));
        for gpu in &scenario.gpus {
            let track = self.removed.remove(&gpu.uuid).unwrap_or_else(|| GpuState {
                heat: ThermalState::steady(gpu, load::total(scenario, gpu, time), time),
                incarnation: 0,
                lost: false,
            });
            self.current.push(track);
            self.uuids.push(gpu.uuid.clone());
        }
    }

    /// Advances from world time `from` to `to`.
    pub(crate) fn advance(&mut self, scenario: &Scenario, from: f64, to: f64) {
        for (track, gpu) in self.current.iter_mut().zip(&scenario.gpus) {
            track.advance(gpu, from, to);
            track.heat.advance(gpu, to, |time| load::total(scenario, gpu, time));
        }
    }

    /// Resets all counters at world time `since`.
    pub(crate) fn reset_counters(&mut self, since: f64) {
        for track in &mut self.current {
            track.heat.reset_counters(since);
        }
    }

    /// Temperature and counters of a GPU.
    pub(crate) fn thermal(&self, gpu: usize) -> NvmlResult<ThermalState> {
        self.current.get(gpu).map(|track| track.heat).ok_or(ReturnCode::GPU_IS_LOST)
    }

    /// The incarnation of a GPU that is present.
    ///
    /// # Errors
    /// `GPU_IS_LOST` while it is lost.
    pub(crate) fn incarnation(&self, gpu: usize) -> NvmlResult<u32> {
        let track = self.current.get(gpu).filter(|track| !track.lost);
        track.map(|track| track.incarnation).ok_or(ReturnCode::GPU_IS_LOST)
    }
}

impl GpuState {
    /// Counts how often the GPU is lost, including between two calls.
    fn advance(&mut self, gpu: &Gpu, from: f64, to: f64) {
        let lost = gpu.lost.iter().any(|window| window.contains(to));
        let was_lost = gpu.lost.iter().any(|window| from < window.from && window.from <= to);
        if was_lost || (lost && !self.lost) {
            self.incarnation = self.incarnation.saturating_add(1);
        }
        self.lost = lost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(rest: &str) -> Scenario {
        let text = format!(
            "[[gpu]]\nmodel = \"T4\"\n{rest}\n[[process]]\npid = 1\nname = \"p\"\ngpus = [0]\n\
             memory = \"1 GiB\"\nsm = {{ wave = \"sine\", high = 100, period = 7.0 }}"
        );
        Scenario::parse("test", &text).unwrap()
    }

    #[test]
    fn lost_gpu_returns_with_a_new_incarnation() {
        let scenario = scenario("lost = [{ from = 10, to = 20 }]");
        let mut tracks = GpuStates::new(&scenario);
        tracks.advance(&scenario, -1.0, 5.0);
        assert_eq!(tracks.incarnation(0), Ok(0));
        tracks.advance(&scenario, 5.0, 15.0);
        assert_eq!(tracks.incarnation(0), Err(ReturnCode::GPU_IS_LOST));
        tracks.advance(&scenario, 15.0, 20.0);
        assert_eq!(tracks.incarnation(0), Ok(1));
        let mut skipped = GpuStates::new(&scenario);
        skipped.advance(&scenario, -1.0, 5.0);
        skipped.advance(&scenario, 5.0, 25.0);
        assert_eq!(skipped.incarnation(0), Ok(1));
    }

    #[test]
    fn energy_is_kept_when_the_scenario_changes() {
        let first = scenario("");
        let mut tracks = GpuStates::new(&first);
        tracks.advance(&first, -1.0, 60.0);
        let before = tracks.thermal(0).unwrap().millijoules;
        let other = scenario("[[gpu]]\nmodel = \"H100\"");
        tracks.replace_scenario(&other, 60.0);
        assert!(tracks.thermal(0).unwrap().millijoules >= before);
        assert!(tracks.thermal(1).unwrap().millijoules < 1.0);
        tracks.advance(&other, 60.0, 30.0);
        assert!(
            tracks.thermal(0).unwrap().millijoules >= before,
            "a clock set back does not decrease energy"
        );
        assert_eq!(tracks.incarnation(2), Err(ReturnCode::GPU_IS_LOST));
    }
}
