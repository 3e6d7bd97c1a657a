//! What is remembered of each GPU from moment to moment, by UUID.

use std::collections::HashMap;

use super::{load, physics::Heat};
use crate::{
    code::{Answer, Code},
    scenario::{Gpu, Scenario},
};

/// One GPU's track through time.
#[derive(Clone, Copy, Debug)]
struct Track {
    heat: Heat,
    /// How often it has fallen off the bus.
    incarnation: u32,
    lost: bool,
}

/// The tracks of all GPUs there are, and of those that another scenario had.
#[derive(Debug)]
pub(crate) struct Tracks {
    present: Vec<Track>,
    uuids: Vec<String>,
    attic: HashMap<String, Track>,
}

impl Tracks {
    /// The GPUs of a scenario at the beginning of the world.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let mut tracks = Self { present: vec![], uuids: vec![], attic: HashMap::new() };
        tracks.adopt(scenario, 0.0);
        tracks
    }

    /// Goes on with another scenario at world time `time`. GPUs it has in common with those before
    /// keep what they have accumulated.
    pub(crate) fn adopt(&mut self, scenario: &Scenario, time: f64) {
        self.attic.extend(self.uuids.drain(..).zip(self.present.drain(..)));
        for gpu in &scenario.gpus {
            let track = self.attic.remove(&gpu.uuid).unwrap_or_else(|| Track {
                heat: Heat::settled(gpu, load::total(scenario, gpu, time), time),
                incarnation: 0,
                lost: false,
            });
            self.present.push(track);
            self.uuids.push(gpu.uuid.clone());
        }
    }

    /// Goes from world time `from` to `to`.
    pub(crate) fn advance(&mut self, scenario: &Scenario, from: f64, to: f64) {
        for (track, gpu) in self.present.iter_mut().zip(&scenario.gpus) {
            track.advance(gpu, from, to);
            track.heat.advance(gpu, to, |time| load::total(scenario, gpu, time));
        }
    }

    /// Begins all counters anew at world time `since`.
    pub(crate) fn restart(&mut self, since: f64) {
        for track in &mut self.present {
            track.heat.restart(since);
        }
    }

    /// What a GPU has accumulated.
    pub(crate) fn heat(&self, gpu: usize) -> Answer<Heat> {
        self.present.get(gpu).map(|track| track.heat).ok_or(Code::GPU_IS_LOST)
    }

    /// Which life of a GPU this is.
    ///
    /// # Errors
    /// `GPU_IS_LOST` while it is.
    pub(crate) fn present(&self, gpu: usize) -> Answer<u32> {
        let track = self.present.get(gpu).filter(|track| !track.lost);
        track.map(|track| track.incarnation).ok_or(Code::GPU_IS_LOST)
    }
}

impl Track {
    /// Counts the times that the GPU falls off the bus, between two looks too.
    fn advance(&mut self, gpu: &Gpu, from: f64, to: f64) {
        let lost = gpu.lost.iter().any(|window| window.contains(to));
        let fell = gpu.lost.iter().any(|window| from < window.from && window.from <= to);
        if fell || (lost && !self.lost) {
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
    fn a_lost_gpu_comes_back_as_another_life() {
        let scenario = scenario("lost = [{ from = 10, to = 20 }]");
        let mut tracks = Tracks::new(&scenario);
        tracks.advance(&scenario, -1.0, 5.0);
        assert_eq!(tracks.present(0), Ok(0));
        tracks.advance(&scenario, 5.0, 15.0);
        assert_eq!(tracks.present(0), Err(Code::GPU_IS_LOST));
        tracks.advance(&scenario, 15.0, 20.0);
        assert_eq!(tracks.present(0), Ok(1));
        let mut unseen = Tracks::new(&scenario);
        unseen.advance(&scenario, -1.0, 5.0);
        unseen.advance(&scenario, 5.0, 25.0);
        assert_eq!(unseen.present(0), Ok(1));
    }

    #[test]
    fn energy_outlives_a_change_of_scenario() {
        let first = scenario("");
        let mut tracks = Tracks::new(&first);
        tracks.advance(&first, -1.0, 60.0);
        let before = tracks.heat(0).unwrap().millijoules;
        let other = scenario("[[gpu]]\nmodel = \"H100\"");
        tracks.adopt(&other, 60.0);
        assert!(tracks.heat(0).unwrap().millijoules >= before);
        assert!(tracks.heat(1).unwrap().millijoules < 1.0);
        tracks.advance(&other, 60.0, 30.0);
        assert!(tracks.heat(0).unwrap().millijoules >= before, "a clock set back takes nothing");
        assert_eq!(tracks.present(2), Err(Code::GPU_IS_LOST));
    }
}
