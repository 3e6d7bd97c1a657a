//! ECC errors, retired pages and remapped rows.

use crate::{
    models::Repair,
    return_code::{NvmlResult, ReturnCode},
    scenario::hardware::{ErrorCounts, RemappedRows, RepairState, RetiredPages},
    world::board::Board,
};

/// `NVML_MEMORY_LOCATION_DEVICE_MEMORY`
const DEVICE_MEMORY: u32 = 2;
/// `NVML_MEMORY_LOCATION_CBU`
const CBU: u32 = 6;
/// `NVML_MEMORY_LOCATION_SRAM`
const SRAM: u32 = 7;

/// Number of banks by remaining spare rows (`nvmlRowRemapperHistogramValues_t`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpareRows {
    /// Banks with all spare rows.
    pub(crate) max: u32,
    /// Banks with most of them.
    pub(crate) high: u32,
    /// Banks with some.
    pub(crate) partial: u32,
    /// Banks with few.
    pub(crate) low: u32,
    /// Banks with none.
    pub(crate) none: u32,
}

impl Board {
    /// Whether ECC is on.
    pub(crate) fn ecc(&self) -> NvmlResult<bool> {
        self.model().ecc.ok_or(ReturnCode::NOT_SUPPORTED)
    }

    /// Errors of a type (`nvmlMemoryErrorType_t`) in a counter (`nvmlEccCounterType_t`).
    pub(crate) fn ecc_errors(&self, kind: u32, counter: u32) -> NvmlResult<u64> {
        if !self.model().counts_errors() {
            return Err(ReturnCode::NOT_SUPPORTED);
        }
        let ecc = self.gpu.hardware.ecc;
        let ErrorCounts { volatile, aggregate } = match kind {
            0 => ecc.corrected,
            1 => ecc.uncorrected,
            _ => return Err(ReturnCode::INVALID_ARGUMENT),
        };
        let occurred = ecc.from.0 <= self.now.world;
        let count = match counter {
            // Volatile counters start at 0 when the driver is loaded.
            0 if occurred && ecc.from.0 >= self.up_since => volatile,
            0 => 0,
            1 if occurred => aggregate,
            1 => aggregate - volatile,
            _ => return Err(ReturnCode::INVALID_ARGUMENT),
        };
        Ok(u64::from(count))
    }

    /// As [`Self::ecc_errors`], of one `nvmlMemoryLocation_t`. All errors of a scenario are in
    /// device memory.
    pub(crate) fn ecc_errors_at(&self, kind: u32, counter: u32, location: u32) -> NvmlResult<u64> {
        let all = self.ecc_errors(kind, counter)?;
        // Boards that remap rows report only device memory and SRAM.
        let remaps = matches!(self.model().repair, Repair::Rows { .. });
        match (location, remaps) {
            (DEVICE_MEMORY, _) => Ok(all),
            (0..=3, false) | (SRAM, true) => Ok(0),
            (CBU, false) if kind == 1 => Ok(0),
            (0..=SRAM, _) => Err(ReturnCode::NOT_SUPPORTED),
            _ => Err(ReturnCode::INVALID_ARGUMENT),
        }
    }

    /// Retired pages.
    pub(crate) fn retired(&self) -> NvmlResult<RetiredPages> {
        match self.model().repair {
            Repair::Pages => Ok(self.gpu.hardware.retired),
            Repair::Unsupported | Repair::Rows { .. } => Err(ReturnCode::NOT_SUPPORTED),
        }
    }

    /// The addresses of the pages retired for a cause (`nvmlPageRetirementCause_t`).
    pub(crate) fn retired_pages(&self, cause: u32) -> NvmlResult<Vec<u64>> {
        let RetiredPages { sbe, dbe, .. } = self.retired()?;
        let (first, count) = match cause {
            0 => (0, sbe),
            1 => (sbe, dbe),
            _ => return Err(ReturnCode::INVALID_ARGUMENT),
        };
        // Distinct addresses of 64 KiB pages.
        Ok((first..first + count).map(|page| u64::from(page + 1) * 0x1_3370_0000).collect())
    }

    /// Remapped rows.
    pub(crate) fn remapped(&self) -> NvmlResult<RemappedRows> {
        self.banks().map(|_| self.gpu.hardware.remapped)
    }

    /// Spare rows, if each remapped row is in another bank.
    pub(crate) fn spare_rows(&self) -> NvmlResult<SpareRows> {
        let banks = self.banks()?;
        let RemappedRows { correctable, uncorrectable, failure, .. } = self.gpu.hardware.remapped;
        let none = u32::from(failure);
        let high = (correctable + uncorrectable).min(banks - none);
        Ok(SpareRows { max: banks - none - high, high, partial: 0, low: 0, none })
    }

    /// Repairs that are pending or impossible; none before their time.
    pub(crate) fn repair(&self) -> NvmlResult<RepairState> {
        self.banks()?;
        Ok(self.repair_state())
    }

    /// What clients are asked to do with the GPU (`nvmlDeviceGpuRecoveryAction_t`).
    pub(crate) fn recovery_action(&self) -> u32 {
        self.repair_state().action
    }

    fn repair_state(&self) -> RepairState {
        let repair = self.gpu.hardware.repair;
        if repair.from.0 <= self.now.world { repair } else { RepairState::default() }
    }

    fn banks(&self) -> NvmlResult<u32> {
        match self.model().repair {
            Repair::Rows { banks } => Ok(banks),
            Repair::Unsupported | Repair::Pages => Err(ReturnCode::NOT_SUPPORTED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::board::tests::board;

    #[test]
    fn errors_start_at_their_time_and_aggregates_include_volatile_ones() {
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
        assert_eq!(board.ecc_errors_at(0, 1, 0), Err(ReturnCode::NOT_SUPPORTED));
        assert_eq!(board.ecc_errors_at(0, 1, 8), Err(ReturnCode::INVALID_ARGUMENT));
        assert_eq!(board.ecc_errors(2, 0), Err(ReturnCode::INVALID_ARGUMENT));
    }

    #[test]
    fn board_retires_pages_or_remaps_rows_or_neither() {
        let t4 = board("[[gpu]]\nmodel = \"T4\"\nretired = { sbe = 2, dbe = 1 }\n", 0.0);
        let (sbe, dbe) = (t4.retired_pages(0).unwrap(), t4.retired_pages(1).unwrap());
        assert_eq!((sbe.len(), dbe.len()), (2, 1));
        assert!(!sbe.contains(dbe.first().unwrap()));
        assert_eq!(t4.remapped(), Err(ReturnCode::NOT_SUPPORTED));
        let rows = "[[gpu]]\nmodel = \"A100\"\nremapped = { correctable = 2, failure = true }\n";
        let a100 = board(rows, 0.0);
        let spare = a100.spare_rows().unwrap();
        assert_eq!((spare.max, spare.high, spare.none), (637, 2, 1));
        assert_eq!(a100.retired_pages(0), Err(ReturnCode::NOT_SUPPORTED));
        let desktop = board("[[gpu]]\nmodel = \"RTX 4090\"\n", 0.0);
        assert_eq!(desktop.ecc(), Ok(false));
        assert_eq!(desktop.ecc_errors(0, 0), Err(ReturnCode::NOT_SUPPORTED));
        assert_eq!(desktop.spare_rows(), Err(ReturnCode::NOT_SUPPORTED));
    }
}
