//! Traffic on a GPU's NVLinks and PCIe link.

use std::ops::Add;

use crate::{
    models::{MIB, Model, PcieLink},
    numeric::float,
    scenario::Process,
};

/// Traffic in MiB/s.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Traffic {
    /// All NVLinks together, in each direction.
    pub(crate) nvlink: f64,
    /// PCIe, sent by the GPU.
    pub(crate) pcie_tx: f64,
    /// PCIe, received by the GPU.
    pub(crate) pcie_rx: f64,
}

impl Traffic {
    /// The traffic of a running process at `time`, on each of its GPUs.
    pub(crate) fn of(process: &Process, time: f64) -> Self {
        Self {
            nvlink: process.nvlink.at(time),
            pcie_tx: process.pcie_tx.at(time),
            pcie_rx: process.pcie_rx.at(time),
        }
    }

    /// The traffic in `seconds`, in MiB.
    pub(crate) fn in_seconds(self, seconds: f64) -> Self {
        Self {
            nvlink: self.nvlink * seconds,
            pcie_tx: self.pcie_tx * seconds,
            pcie_rx: self.pcie_rx * seconds,
        }
    }

    /// The traffic, limited to the bandwidth of the board's links.
    pub(crate) fn limited_to(self, model: &Model) -> Self {
        let pcie = pcie_bandwidth(model.pcie);
        Self {
            nvlink: self.nvlink.min(nvlink_bandwidth(model)),
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

/// Speed of one PCIe lane as NVML reports it, in MB/s: 8000 for generation 3.
pub(crate) fn lane_speed(generation: u32) -> u32 {
    match generation {
        1 => 2_500,
        2 => 5_000,
        newer => 8_000 << (newer - 3).min(4),
    }
}

/// Bandwidth of a PCIe link in one direction, in MiB/s.
fn pcie_bandwidth(slot: PcieLink) -> f64 {
    // One bit per transfer and lane, of which about 98 % are data.
    f64::from(lane_speed(slot.generation)) * f64::from(slot.width) * 1e6 / 8.0 * 0.98 / float(MIB)
}

/// Bandwidth of all NVLinks of a board in one direction, in MiB/s; 0 without NVLinks.
fn nvlink_bandwidth(model: &Model) -> f64 {
    let links = model.nvlinks.map_or(0.0, |links| f64::from(links.count) * f64::from(links.speed));
    links * 1e6 / float(MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Traffic {
        /// Whether no counter has decreased.
        pub(crate) fn is_no_less_than(self, before: Self) -> bool {
            self.nvlink >= before.nvlink
                && self.pcie_tx >= before.pcie_tx
                && self.pcie_rx >= before.pcie_rx
        }
    }

    #[test]
    fn traffic_is_limited_to_the_bandwidth_of_the_links() {
        let requested = Traffic { nvlink: 1e9, pcie_tx: 1e9, pcie_rx: 5.0 };
        let h100 = requested.limited_to(Model::find("H100").unwrap());
        assert!((450_000.0..460_000.0).contains(&h100.nvlink), "{h100:?}");
        assert!((59_000.0..60_100.0).contains(&h100.pcie_tx), "{h100:?}");
        assert!((h100.pcie_rx - 5.0).abs() < 1e-9);
        let t4 = requested.limited_to(Model::find("T4").unwrap());
        assert!(t4.nvlink < 1e-9 && t4.pcie_tx < 16_000.0, "{t4:?}");
    }
}
