//! What a board tells of memory that errs.

use super::Board;
use crate::{
    code::{Answer, Code},
    models::Repair,
    scenario::hardware::{Errors, Remapped, Retired},
};

/// `NVML_MEMORY_LOCATION_DEVICE_MEMORY`
const DEVICE_MEMORY: u32 = 2;
/// `NVML_MEMORY_LOCATION_CBU`
const CBU: u32 = 6;
/// `NVML_MEMORY_LOCATION_SRAM`
const SRAM: u32 = 7;

/// How many banks have how many spare rows left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpareRows {
    /// All.
    pub(crate) max: u32,
    /// Most.
    pub(crate) high: u32,
    /// Some.
    pub(crate) partial: u32,
    /// Few.
    pub(crate) low: u32,
    /// None.
    pub(crate) none: u32,
}

impl Board {
    /// Whether ECC is on.
    pub(crate) fn ecc(&self) -> Answer<bool> {
        self.model().ecc.ok_or(Code::NOT_SUPPORTED)
    }

    /// Errors of a type (`nvmlMemoryErrorType_t`) in a counter (`nvmlEccCounterType_t`).
    pub(crate) fn ecc_errors(&self, kind: u32, counter: u32) -> Answer<u64> {
        if !self.model().counts_errors() {
            return Err(Code::NOT_SUPPORTED);
        }
        let ecc = self.gpu.hardware.ecc;
        let Errors { volatile, aggregate } = match kind {
            0 => ecc.corrected,
            1 => ecc.uncorrected,
            _ => return Err(Code::INVALID_ARGUMENT),
        };
        let happened = ecc.from.0 <= self.now.world;
        let count = match counter {
            // A driver that was loaded afterwards has not seen them.
            0 if happened && ecc.from.0 >= self.up_since => volatile,
            0 => 0,
            1 if happened => aggregate,
            1 => aggregate - volatile,
            _ => return Err(Code::INVALID_ARGUMENT),
        };
        Ok(u64::from(count))
    }

    /// The same at a place (`nvmlMemoryLocation_t`). All errors of a scenario are in the device memory.
    pub(crate) fn ecc_errors_at(&self, kind: u32, counter: u32, place: u32) -> Answer<u64> {
        let all = self.ecc_errors(kind, counter)?;
        // Boards that remap rows tell device memory and SRAM apart, and nothing further.
        let remaps = matches!(self.model().repair, Repair::Rows { .. });
        match (place, remaps) {
            (DEVICE_MEMORY, _) => Ok(all),
            (0..=3, false) | (SRAM, true) => Ok(0),
            (CBU, false) if kind == 1 => Ok(0),
            (0..=SRAM, _) => Err(Code::NOT_SUPPORTED),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    }

    /// Retired pages.
    pub(crate) fn retired(&self) -> Answer<Retired> {
        match self.model().repair {
            Repair::Pages => Ok(self.gpu.hardware.retired),
            Repair::Nothing | Repair::Rows { .. } => Err(Code::NOT_SUPPORTED),
        }
    }

    /// The addresses of the pages retired for a cause (`nvmlPageRetirementCause_t`).
    pub(crate) fn retired_pages(&self, cause: u32) -> Answer<Vec<u64>> {
        let Retired { sbe, dbe, .. } = self.retired()?;
        let (first, count) = match cause {
            0 => (0, sbe),
            1 => (sbe, dbe),
            _ => return Err(Code::INVALID_ARGUMENT),
        };
        // Pages of 64 KiB here and there.
        Ok((first..first + count).map(|page| u64::from(page + 1) * 0x1_3370_0000).collect())
    }

    /// Remapped rows.
    pub(crate) fn remapped(&self) -> Answer<Remapped> {
        self.banks().map(|_| self.gpu.hardware.remapped)
    }

    /// Spare rows: each remapped row has taken one from a bank of its own.
    pub(crate) fn spare_rows(&self) -> Answer<SpareRows> {
        let banks = self.banks()?;
        let Remapped { correctable, uncorrectable, failure, .. } = self.gpu.hardware.remapped;
        let none = u32::from(failure);
        let high = (correctable + uncorrectable).min(banks - none);
        Ok(SpareRows { max: banks - none - high, high, partial: 0, low: 0, none })
    }

    fn banks(&self) -> Answer<u32> {
        match self.model().repair {
            Repair::Rows { banks } => Ok(banks),
            Repair::Nothing | Repair::Pages => Err(Code::NOT_SUPPORTED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::board, *};

    #[test]
    fn volatile_errors_begin_at_their_time_and_aggregates_hold_them() {
        let text = "[[gpu]]\nmodel = \"H100\"\necc = { sbe_volatile = 3, sbe_aggregate = 10, \
                    dbe_volatile = 1, from = 5 }\n";
        let at = |time| {
            let board = board(text, time);
            [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(kind, of)| board.ecc_errors(kind, of).unwrap())
        };
        assert_eq!((at(4.0), at(5.0)), ([0, 7, 0, 0], [3, 10, 1, 1]));
        let board = board(text, 9.0);
        assert_eq!(board.ecc_errors_at(0, 1, DEVICE_MEMORY), Ok(10));
        assert_eq!(board.ecc_errors_at(0, 1, SRAM), Ok(0));
        assert_eq!(board.ecc_errors_at(0, 1, 0), Err(Code::NOT_SUPPORTED));
        assert_eq!(board.ecc_errors_at(0, 1, 8), Err(Code::INVALID_ARGUMENT));
        assert_eq!(board.ecc_errors(2, 0), Err(Code::INVALID_ARGUMENT));
    }

    #[test]
    fn a_board_retires_pages_or_remaps_rows_or_neither() {
        let t4 = board("[[gpu]]\nmodel = \"T4\"\nretired = { sbe = 2, dbe = 1 }\n", 0.0);
        let (sbe, dbe) = (t4.retired_pages(0).unwrap(), t4.retired_pages(1).unwrap());
        assert_eq!((sbe.len(), dbe.len()), (2, 1));
        assert!(!sbe.contains(dbe.first().unwrap()));
        assert_eq!(t4.remapped(), Err(Code::NOT_SUPPORTED));
        let rows = "[[gpu]]\nmodel = \"A100\"\nremapped = { correctable = 2, failure = true }\n";
        let a100 = board(rows, 0.0);
        let spare = a100.spare_rows().unwrap();
        assert_eq!((spare.max, spare.high, spare.none), (637, 2, 1));
        assert_eq!(a100.retired_pages(0), Err(Code::NOT_SUPPORTED));
        let desktop = board("[[gpu]]\nmodel = \"RTX 4090\"\n", 0.0);
        assert_eq!(desktop.ecc(), Ok(false));
        assert_eq!(desktop.ecc_errors(0, 0), Err(Code::NOT_SUPPORTED));
        assert_eq!(desktop.spare_rows(), Err(Code::NOT_SUPPORTED));
    }
}
