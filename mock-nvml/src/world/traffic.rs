//! What goes over a GPU's links.

use std::ops::Add;

use crate::{
    models::{MIB, Model, Slot},
    number::float,
    scenario::Process,
};

/// Traffic in MiB/s.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Traffic {
    /// Over all NVLinks together, in each direction.
    pub(crate) nvlink: f64,
    /// Over PCIe, sent by the GPU.
    pub(crate) pcie_tx: f64,
    /// Over PCIe, received by the GPU.
    pub(crate) pcie_rx: f64,
}

impl Traffic {
    /// What a living process moves at `time`, on each of its GPUs.
    pub(crate) fn of(process: &Process, time: f64) -> Self {
        Self {
            nvlink: process.nvlink.at(time),
            pcie_tx: process.pcie_tx.at(time),
            pcie_rx: process.pcie_rx.at(time),
        }
    }

    /// What it comes to in so many seconds, in MiB.
    pub(crate) fn over(self, seconds: f64) -> Self {
        Self {
            nvlink: self.nvlink * seconds,
            pcie_tx: self.pcie_tx * seconds,
            pcie_rx: self.pcie_rx * seconds,
        }
    }

    /// What the links of a board carry of it.
    pub(crate) fn carried(self, model: &Model) -> Self {
        let pcie = capacity(model.pcie);
        Self {
            nvlink: self.nvlink.min(nvlink_capacity(model)),
            pcie_tx: self.pcie_tx.min(pcie),
            pcie_rx: self.pcie_rx.min(pcie),
        }
    }
}

impl Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            nvlink: self.nvlink + other.nvlink,
            pcie_tx: self.pcie_tx + other.pcie_tx,
            pcie_rx: self.pcie_rx + other.pcie_rx,
        }
    }
}

/// MB/s of one PCIe lane as NVML names it: 8000 for the third generation.
pub(crate) fn lane_speed(generation: u32) -> u32 {
    match generation {
        1 => 2_500,
        2 => 5_000,
        further => 8_000 << (further - 3).min(4),
    }
}

/// What a PCIe link carries in one direction, in MiB/s.
fn capacity(slot: Slot) -> f64 {
    // A lane's megatransfers are bits, of which about 98 in 100 are data.
    f64::from(lane_speed(slot.generation)) * f64::from(slot.width) * 1e6 / 8.0 * 0.98 / float(MIB)
}

/// What all NVLinks of a board carry in one direction, in MiB/s; nothing where there are none.
fn nvlink_capacity(model: &Model) -> f64 {
    let links = model.nvlinks.map_or(0.0, |links| f64::from(links.count) * f64::from(links.speed));
    links * 1e6 / float(MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Traffic {
        /// Whether nothing has gone back.
        pub(crate) fn is_no_less_than(self, before: Self) -> bool {
            self.nvlink >= before.nvlink
                && self.pcie_tx >= before.pcie_tx
                && self.pcie_rx >= before.pcie_rx
        }
    }

    #[test]
    fn links_carry_no_more_than_they_can() {
        let asked = Traffic { nvlink: 1e9, pcie_tx: 1e9, pcie_rx: 5.0 };
        let h100 = asked.carried(Model::find("H100").unwrap());
        assert!((450_000.0..460_000.0).contains(&h100.nvlink), "{h100:?}");
        assert!((59_000.0..60_100.0).contains(&h100.pcie_tx), "{h100:?}");
        assert!((h100.pcie_rx - 5.0).abs() < 1e-9);
        let t4 = asked.carried(Model::find("T4").unwrap());
        assert!(t4.nvlink < 1e-9 && t4.pcie_tx < 16_000.0, "{t4:?}");
    }
}
