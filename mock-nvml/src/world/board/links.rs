//! NVLinks and the PCIe link.

use crate::{
    models::{NvLinks, PcieLink},
    numeric::{floor_u32, floor_u64},
    return_code::{NvmlResult, ReturnCode},
    scenario::Pci,
    world::{board::Board, traffic::lane_speed},
};

/// The scope of all links together.
pub(crate) const ALL_LINKS: u32 = u32::MAX;

/// Boards with this number of links are connected to NVLink switches.
const SWITCHED: u32 = 18;

/// An NVLink error counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkError {
    /// Replays.
    Replay,
    /// Recoveries.
    Recovery,
    /// Flit CRC errors.
    Flit,
    /// Data CRC errors.
    Data,
    /// ECC errors.
    Ecc,
    /// Errors in received symbols.
    Symbol,
    /// Errors that remain after error correction.
    Effective,
    /// Packets with errors.
    Packet,
}

impl LinkError {
    /// The counter of an `nvmlNvLinkErrorCounter_t`.
    pub(crate) fn from_number(number: u32) -> NvmlResult<Self> {
        let all = [Self::Replay, Self::Recovery, Self::Flit, Self::Data, Self::Ecc];
        let at = usize::try_from(number).ok();
        at.and_then(|at| all.get(at)).copied().ok_or(ReturnCode::INVALID_ARGUMENT)
    }
}

/// A direction of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the GPU.
    Tx,
    /// To the GPU.
    Rx,
}

impl Board {
    /// Its NVLinks.
    pub(crate) fn nvlinks(&self) -> NvmlResult<NvLinks> {
        let links = self.model().nvlinks.ok_or(ReturnCode::NOT_SUPPORTED)?;
        Ok(NvLinks { count: self.gpu.hardware.nvlink.count.unwrap_or(links.count), ..links })
    }

    /// Whether it is connected to NVLink switches, which boards with 18 links are.
    pub(crate) fn is_in_fabric(&self) -> bool {
        self.model().nvlinks.is_some_and(|links| links.count >= SWITCHED)
    }

    /// Its NVLinks, if `link` is a valid number.
    pub(crate) fn nvlink(&self, link: u32) -> NvmlResult<NvLinks> {
        let links = self.nvlinks()?;
        if link < links.count { Ok(links) } else { Err(ReturnCode::INVALID_ARGUMENT) }
    }

    /// Whether a link is up.
    pub(crate) fn nvlink_active(&self, link: u32) -> NvmlResult<bool> {
        self.nvlink(link).map(|_| self.is_up(link))
    }

    /// The PCI address of the switch at the other end of a link that is up.
    pub(crate) fn nvlink_remote(&self, link: u32) -> NvmlResult<Pci> {
        if !self.nvlink_active(link)? {
            return Err(ReturnCode::NOT_SUPPORTED);
        }
        // The links are distributed over four switches.
        Ok(Pci { domain: 0, bus: 0x05 + link % 4, device: 0 })
    }

    /// An error counter of one link or of all.
    pub(crate) fn nvlink_errors(&self, link: u32, error: LinkError) -> NvmlResult<u64> {
        let faults = &self.gpu.hardware.nvlink;
        if link != ALL_LINKS {
            self.nvlink(link)?;
        }
        self.nvlinks()?;
        let occurred = (self.up_since..=self.now.world).contains(&faults.from.0);
        if !occurred || !(link == ALL_LINKS || link == faults.link) {
            return Ok(0);
        }
        Ok(u64::from(match error {
            LinkError::Replay => faults.replay,
            LinkError::Recovery => faults.recovery,
            LinkError::Flit => faults.crc_flit,
            LinkError::Data => faults.crc_data,
            LinkError::Ecc => faults.ecc,
            LinkError::Symbol => faults.symbol,
            LinkError::Effective => faults.effective,
            LinkError::Packet => faults.packet,
        }))
    }

    /// Errors of each C2C link.
    pub(crate) fn c2c_errors(&self) -> u64 {
        let faults = &self.gpu.hardware.c2c;
        if faults.from.0 <= self.now.world { u64::from(faults.errors) } else { 0 }
    }

    /// Whether a C2C link is up.
    pub(crate) fn c2c_active(&self, link: u32) -> bool {
        let faults = &self.gpu.hardware.c2c;
        faults.from.0 > self.now.world || !faults.down.contains(&link)
    }

    /// Data of one link or of all in one direction since the driver was loaded, in KiB. The traffic
    /// is divided equally between the links that are up.
    pub(crate) fn nvlink_traffic(&self, link: u32) -> NvmlResult<u64> {
        let links = if link == ALL_LINKS { self.nvlinks()? } else { self.nvlink(link)? };
        let up = (0..links.count).filter(|link| self.is_up(*link)).count();
        let up = u64::try_from(up).unwrap_or(u64::MAX);
        let each = floor_u64(self.thermal.traffic.nvlink * 1_024.0) / up.max(1);
        if link == ALL_LINKS { Ok(each * up) } else { Ok(if self.is_up(link) { each } else { 0 }) }
    }

    fn is_up(&self, link: u32) -> bool {
        !self.gpu.hardware.nvlink.down.contains(&link)
    }

    /// The current PCIe link: boards with an idle P-state lower its generation without load.
    pub(crate) fn pcie(&self) -> PcieLink {
        let PcieLink { generation, width } = self.model().pcie;
        let idle = self.pstate() > 0;
        PcieLink { generation: if idle { 1 } else { generation }, width }
    }

    /// Maximum speed of one PCIe lane in MB/s, as NVML reports it.
    pub(crate) fn pcie_lane_speed(&self) -> u32 {
        lane_speed(self.model().pcie.generation)
    }

    /// Current PCIe throughput in KB/s.
    pub(crate) fn pcie_rate(&self, direction: Direction) -> u32 {
        let traffic = self.load.traffic;
        let rate = match direction {
            Direction::Tx => traffic.pcie_tx,
            Direction::Rx => traffic.pcie_rx,
        };
        floor_u32(rate * 1_048.576)
    }

    /// PCIe traffic since the driver was loaded, in bytes.
    pub(crate) fn pcie_traffic(&self, direction: Direction) -> u64 {
        let carried = self.thermal.traffic;
        let mib = match direction {
            Direction::Tx => carried.pcie_tx,
            Direction::Rx => carried.pcie_rx,
        };
        floor_u64(mib * 1_048_576.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::board::tests::{board, board_after, process};

    #[test]
    fn active_links_share_the_traffic() {
        let text = "[[gpu]]\nmodel = \"H100\"\nnvlink = { down = [17], link = 3, replay = 5 }\n"
            .to_owned()
            + &process(
                1,
                "memory = \"1 GiB\"\nsm = 50\nnvlink = 17000\npcie_tx = 100\npcie_rx = 3",
            );
        let board = board_after(&text, 10.0);
        assert_eq!(board.nvlink_traffic(0), Ok(10_000 * 1_024));
        assert_eq!(board.nvlink_traffic(17), Ok(0));
        assert_eq!(board.nvlink_traffic(ALL_LINKS), Ok(170_000 * 1_024));
        assert_eq!(board.nvlink_traffic(18), Err(ReturnCode::INVALID_ARGUMENT));
        assert_eq!(board.nvlink_active(17), Ok(false));
        assert_eq!(board.nvlink_errors(3, LinkError::Replay), Ok(5));
        assert_eq!(board.nvlink_errors(4, LinkError::Replay), Ok(0));
        assert_eq!(board.nvlink_errors(ALL_LINKS, LinkError::Replay), Ok(5));
        assert_eq!(board.pcie_rate(Direction::Tx), 104_857);
        assert_eq!(board.pcie_traffic(Direction::Rx), 30 * 1_048_576);
    }

    #[test]
    fn idle_board_lowers_its_pcie_generation() {
        let t4 = board("[[gpu]]\nmodel = \"T4\"\n", 0.0);
        assert_eq!((t4.pcie().generation, t4.pcie().width, t4.pcie_lane_speed()), (1, 16, 8_000));
        assert_eq!(t4.nvlink_active(0), Err(ReturnCode::NOT_SUPPORTED));
        let h100 = board("[[gpu]]\nmodel = \"H100\"\n", 0.0);
        assert_eq!((h100.pcie().generation, h100.pcie_lane_speed()), (5, 32_000));
    }
}
