//! A board's NVLinks and its PCIe link.

use super::Board;
use crate::{
    code::{Answer, Code},
    models::{NvLinks, Slot},
    number::{floor_u32, floor_u64},
    scenario::Pci,
    world::traffic::lane_speed,
};

/// The scope that means all links.
pub(crate) const ALL_LINKS: u32 = u32::MAX;

/// A board with so many links is made for switches.
const SWITCHED: u32 = 18;

/// What an NVLink counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkError {
    /// Replays.
    Replay,
    /// Recoveries.
    Recovery,
    /// Flits with a bad checksum.
    Flit,
    /// Data with a bad checksum.
    Data,
    /// Errors that ECC has found.
    Ecc,
}

impl LinkError {
    /// The counter of NVML's number (`nvmlNvLinkErrorCounter_t`).
    pub(crate) fn numbered(number: u32) -> Answer<Self> {
        let all = [Self::Replay, Self::Recovery, Self::Flit, Self::Data, Self::Ecc];
        let at = usize::try_from(number).ok();
        at.and_then(|at| all.get(at)).copied().ok_or(Code::INVALID_ARGUMENT)
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
    pub(crate) fn nvlinks(&self) -> Answer<NvLinks> {
        self.model().nvlinks.ok_or(Code::NOT_SUPPORTED)
    }

    /// Whether it is linked to others through switches: boards that have links for it.
    pub(crate) fn is_in_fabric(&self) -> bool {
        self.model().nvlinks.is_some_and(|links| links.count >= SWITCHED)
    }

    /// Its NVLinks, if `link` is one of them.
    pub(crate) fn nvlink(&self, link: u32) -> Answer<NvLinks> {
        let links = self.nvlinks()?;
        if link < links.count { Ok(links) } else { Err(Code::INVALID_ARGUMENT) }
    }

    /// Whether a link is up.
    pub(crate) fn nvlink_active(&self, link: u32) -> Answer<bool> {
        self.nvlink(link).map(|_| self.is_up(link))
    }

    /// The place of the switch at the other end of a link that is up.
    pub(crate) fn nvlink_remote(&self, link: u32) -> Answer<Pci> {
        if !self.nvlink_active(link)? {
            return Err(Code::NOT_SUPPORTED);
        }
        // The links go to four switches in turn.
        Ok(Pci { domain: 0, bus: 0x05 + link % 4, device: 0 })
    }

    /// An error counter of one link or of all.
    pub(crate) fn nvlink_errors(&self, link: u32, error: LinkError) -> Answer<u64> {
        let faults = &self.gpu.hardware.nvlink;
        if link != ALL_LINKS {
            self.nvlink(link)?;
        }
        self.nvlinks()?;
        let happened = (self.up_since..=self.now.world).contains(&faults.from.0);
        if !happened || !(link == ALL_LINKS || link == faults.link) {
            return Ok(0);
        }
        Ok(u64::from(match error {
            LinkError::Replay => faults.replay,
            LinkError::Recovery => faults.recovery,
            LinkError::Flit => faults.crc_flit,
            LinkError::Data => faults.crc_data,
            LinkError::Ecc => 0,
        }))
    }

    /// KiB that one link or all have carried in one direction since the driver was loaded. The links
    /// that are up share the traffic.
    pub(crate) fn nvlink_carried(&self, link: u32) -> Answer<u64> {
        let links = if link == ALL_LINKS { self.nvlinks()? } else { self.nvlink(link)? };
        let up = (0..links.count).filter(|link| self.is_up(*link)).count();
        let up = u64::try_from(up).unwrap_or(u64::MAX);
        let each = floor_u64(self.heat.carried.nvlink * 1_024.0) / up.max(1);
        if link == ALL_LINKS { Ok(each * up) } else { Ok(if self.is_up(link) { each } else { 0 }) }
    }

    fn is_up(&self, link: u32) -> bool {
        !self.gpu.hardware.nvlink.down.contains(&link)
    }

    /// The PCIe link as it is now: boards that sleep without load lower its generation.
    pub(crate) fn pcie(&self) -> Slot {
        let Slot { generation, width } = self.model().pcie;
        let sleeps = self.pstate() > 0;
        Slot { generation: if sleeps { 1 } else { generation }, width }
    }

    /// MB/s of a lane at its best, as NVML names it.
    pub(crate) fn pcie_lane_speed(&self) -> u32 {
        lane_speed(self.model().pcie.generation)
    }

    /// PCIe traffic of now in KB/s.
    pub(crate) fn pcie_rate(&self, direction: Direction) -> u32 {
        let traffic = self.load.traffic;
        let rate = match direction {
            Direction::Tx => traffic.pcie_tx,
            Direction::Rx => traffic.pcie_rx,
        };
        floor_u32(rate * 1_048.576)
    }

    /// Bytes that PCIe has carried since the driver was loaded.
    pub(crate) fn pcie_carried(&self, direction: Direction) -> u64 {
        let carried = self.heat.carried;
        let mib = match direction {
            Direction::Tx => carried.pcie_tx,
            Direction::Rx => carried.pcie_rx,
        };
        floor_u64(mib * 1_048_576.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{board, board_after, process},
        *,
    };

    #[test]
    fn links_share_the_traffic_and_one_that_is_down_has_none() {
        let text = "[[gpu]]\nmodel = \"H100\"\nnvlink = { down = [17], link = 3, replay = 5 }\n"
            .to_owned()
            + &process(
                1,
                "memory = \"1 GiB\"\nsm = 50\nnvlink = 17000\npcie_tx = 100\npcie_rx = 3",
            );
        let board = board_after(&text, 10.0);
        assert_eq!(board.nvlink_carried(0), Ok(10_000 * 1_024));
        assert_eq!(board.nvlink_carried(17), Ok(0));
        assert_eq!(board.nvlink_carried(ALL_LINKS), Ok(170_000 * 1_024));
        assert_eq!(board.nvlink_carried(18), Err(Code::INVALID_ARGUMENT));
        assert_eq!(board.nvlink_active(17), Ok(false));
        assert_eq!(board.nvlink_errors(3, LinkError::Replay), Ok(5));
        assert_eq!(board.nvlink_errors(4, LinkError::Replay), Ok(0));
        assert_eq!(board.nvlink_errors(ALL_LINKS, LinkError::Replay), Ok(5));
        assert_eq!(board.pcie_rate(Direction::Tx), 104_857);
        assert_eq!(board.pcie_carried(Direction::Rx), 30 * 1_048_576);
    }

    #[test]
    fn a_sleeping_board_lowers_its_pcie_link() {
        let t4 = board("[[gpu]]\nmodel = \"T4\"\n", 0.0);
        assert_eq!((t4.pcie().generation, t4.pcie().width, t4.pcie_lane_speed()), (1, 16, 8_000));
        assert_eq!(t4.nvlink_active(0), Err(Code::NOT_SUPPORTED));
        let h100 = board("[[gpu]]\nmodel = \"H100\"\n", 0.0);
        assert_eq!((h100.pcie().generation, h100.pcie_lane_speed()), (5, 32_000));
    }
}
