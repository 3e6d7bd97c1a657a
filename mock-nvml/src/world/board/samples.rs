//! `nvmlDeviceGetSamples`: the recent samples of one value.

use crate::{
    numeric::{floor_u32, round_u32},
    return_code::{NvmlResult, ReturnCode},
    world::{board::Board, load, physics},
};

impl Board {
    /// Time stamp (wall clock, µs) and value of each sample of an `nvmlSamplingType_t` newer than
    /// `last_seen`.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is none, `NOT_SUPPORTED` if the board has no such samples.
    pub(crate) fn samples(&self, kind: u32, last_seen: u64) -> NvmlResult<Vec<(u64, u32)>> {
        let value = |time: f64| -> NvmlResult<u32> {
            let load = load::total(&self.scenario, &self.gpu, time);
            let slow = physics::slowed(&self.gpu, self.thermal.thermal_slowdown, time);
            let clocks = physics::clocks(self.model(), load, slow);
            match kind {
                0 => Ok(round_u32(physics::watts(self.model(), load, slow) * 1_000.0)),
                1 => Ok(floor_u32(load.sm)),
                2 => Ok(floor_u32(load.mem)),
                3 => Ok(floor_u32(load.enc)),
                4 => Ok(floor_u32(load.dec)),
                5 => Ok(clocks.sm),
                6 => Ok(clocks.mem),
                8 if self.model().jpg_ofa => Ok(floor_u32(load.jpg)),
                9 if self.model().jpg_ofa => Ok(floor_u32(load.ofa)),
                7..=9 => Err(ReturnCode::NOT_SUPPORTED),
                _ => Err(ReturnCode::INVALID_ARGUMENT),
            }
        };
        value(self.now.world)?;
        if self.layout().is_some() && !matches!(kind, 0 | 5 | 6) {
            return Err(ReturnCode::NOT_SUPPORTED);
        }
        let ring = self.sample_ring();
        let newer = ring.samples(self.now).filter(|(stamp, _)| *stamp > last_seen);
        let samples = newer
            .map(|(stamp, time)| value(time).map(|value| (stamp, value)))
            .collect::<NvmlResult<Vec<_>>>()?;
        if samples.is_empty() { Err(ReturnCode::NOT_FOUND) } else { Ok(samples) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::board::tests::{WALL, board, process};

    #[test]
    fn samples_newer_than_last_seen_are_returned() {
        let text = "[[gpu]]\nmodel = \"T4\"\n".to_owned()
            + &process(1, "memory = \"1 GiB\"\nsm = 40\nmem = 20");
        let board = board(&text, 1.0);
        let all = board.samples(1, 0).unwrap();
        assert_eq!(all.len(), 72);
        assert!(all.iter().all(|sample| sample.1 == 40));
        assert_eq!(board.samples(1, WALL - 1_000_000).unwrap().len(), 6);
        assert_eq!(board.samples(1, WALL), Err(ReturnCode::NOT_FOUND));
        assert_eq!(board.samples(0, 0).unwrap().first().unwrap().1, board.power());
        assert_eq!(board.samples(8, 0), Err(ReturnCode::NOT_SUPPORTED));
        assert_eq!(board.samples(10, 0), Err(ReturnCode::INVALID_ARGUMENT));
    }
}
