//! Use of a device that no listed process accounts for: evidence that the driver's process list is
//! incomplete.

use crate::model::{DeviceProcesses, Missing, Reading, Usage};
use crate::nvml::raw::memory::Memory;
use crate::policy::{
    IDLE_LIST_UTILIZATION_MAX, UNLISTED_FRAMEBUFFER_MIN, UNLISTED_FRAMEBUFFER_RATIO,
};

/// Use of a device in two readings in a row without a listed process that accounts for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnlistedUse {
    /// `nvmlDeviceGetUtilizationRates` is above 0.
    Utilization,
    /// The used framebuffer exceeds that of the listed processes by more than the driver needs.
    Framebuffer,
}

impl UnlistedUse {
    /// Value of the `use` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Utilization => "utilization",
            Self::Framebuffer => "framebuffer",
        }
    }
}

/// What a device reports in one cycle.
#[derive(Clone, Debug)]
pub struct DeviceUse<'a> {
    /// GPU utilization, percent; unsupported for MIG devices.
    pub utilization: Reading,
    /// Framebuffer; of the GPU instance for a MIG device.
    pub framebuffer: Result<Memory, Missing>,
    /// Process lists of the GPU, or of all MIG devices of a GPU instance.
    pub listings: Vec<&'a Result<DeviceProcesses, Missing>>,
}

/// Compares the use of a device with its process list from cycle to cycle.
#[derive(Debug, Default)]
pub struct UnlistedUseDetector {
    /// Contradictions of the previous reading: utilization, framebuffer.
    before: [bool; 2],
    /// Whether the previous process list accounts for utilization now: its processes may have ended
    /// since.
    ended: bool,
}

impl UnlistedUseDetector {
    /// Adds a reading. Returns a contradiction that the previous reading had, too.
    pub fn add(&mut self, device: &DeviceUse<'_>) -> Option<UnlistedUse> {
        let listings: Result<Vec<&DeviceProcesses>, Missing> = device
            .listings
            .iter()
            .map(|listing| listing.as_ref().map_err(|missing| *missing))
            .collect();
        let Ok(listings) = listings else {
            *self = Self::default();
            return None;
        };
        let percent = device.utilization.unwrap_or(0.0);
        let works = accounts_for(&listings, percent);
        let now = [
            percent > 0.0 && !works && !self.ended,
            device.framebuffer.is_ok_and(|memory| has_unlisted_framebuffer(memory, &listings)),
        ];
        let [utilization, framebuffer] = [now[0] && self.before[0], now[1] && self.before[1]];
        *self = Self { before: now, ended: works };
        match (utilization, framebuffer) {
            (true, _) => Some(UnlistedUse::Utilization),
            (false, true) => Some(UnlistedUse::Framebuffer),
            (false, false) => None,
        }
    }
}

/// Whether a listed process can be the cause of a GPU utilization of `percent`: one that is not
/// known to be idle, or any process if the utilization is low.
fn accounts_for(listings: &[&DeviceProcesses], percent: f64) -> bool {
    let mut processes = listings.iter().flat_map(|listing| &listing.processes);
    let has_entry = listings.iter().any(|listing| !listing.stale_entries.is_empty());
    let is_idle = |usage: &Usage| usage.utilization.is_ok_and(|engines| engines.sm <= 0.0);
    let low = percent <= IDLE_LIST_UTILIZATION_MAX;
    has_entry || processes.any(|process| low || !is_idle(&process.usage))
}

/// Not known, and therefore false, with the v1 call, which counts reserved framebuffer as used, and
/// if the framebuffer of a listed process is unknown.
fn has_unlisted_framebuffer(memory: Memory, listings: &[&DeviceProcesses]) -> bool {
    let processes = listings.iter().flat_map(|listing| &listing.processes);
    let entries = listings.iter().flat_map(|listing| &listing.stale_entries);
    let listed = processes.map(|process| process.usage.memory);
    let mut listed = listed.chain(entries.map(|entry| entry.memory));
    let sum = listed.try_fold(0_u64, |sum, memory| Ok::<_, Missing>(sum.saturating_add(memory?)));
    let (Ok(sum), Some(_)) = (sum, memory.reserved) else { return false };
    let tolerance = (memory.total / UNLISTED_FRAMEBUFFER_RATIO).max(UNLISTED_FRAMEBUFFER_MIN);
    memory.used.saturating_sub(sum) > tolerance
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Discard, EngineUtilization, ProcessId, ProcessKind, ProcessSample};

    const GIB: u64 = 1 << 30;

    fn memory(used: u64) -> Memory {
        Memory { total: 80 * GIB, used, free: 80 * GIB - used, reserved: Some(0) }
    }

    fn process(sm: Result<f64, Missing>, memory: Result<u64, Missing>) -> ProcessSample {
        ProcessSample {
            id: ProcessId { pid: 7, started: 1 },
            name: "train".into(),
            kind: ProcessKind::Compute,
            first_seen: Duration::ZERO,
            location: Err(Discard::Denied),
            usage: Usage {
                memory,
                utilization: sm.map(|sm| EngineUtilization { sm, ..EngineUtilization::default() }),
            },
        }
    }

    /// A process list as a detector takes it.
    type Listing = Result<DeviceProcesses, Missing>;

    const EMPTY: Listing = Ok(DeviceProcesses {
        processes: Vec::new(),
        stale_entries: Vec::new(),
        lists_mps_clients: true,
        has_mps_clients: false,
    });

    fn one(sm: Result<f64, Missing>, memory: Result<u64, Missing>) -> Listing {
        EMPTY.map(|list| DeviceProcesses { processes: vec![process(sm, memory)], ..list })
    }

    /// Results of consecutive readings: utilization, used framebuffer and process list.
    fn results(
        readings: &[(f64, u64, Result<DeviceProcesses, Missing>)],
    ) -> Vec<Option<UnlistedUse>> {
        let mut detector = UnlistedUseDetector::default();
        let add = |(percent, used, list): &(f64, u64, Result<DeviceProcesses, Missing>)| {
            detector.add(&DeviceUse {
                utilization: Ok(*percent),
                framebuffer: Ok(memory(*used)),
                listings: vec![list],
            })
        };
        readings.iter().map(add).collect()
    }

    #[test]
    fn utilization_without_a_process_counts_in_two_readings_in_a_row() {
        let use_ = Some(UnlistedUse::Utilization);
        assert_eq!(
            results(&[(88.0, 0, EMPTY), (88.0, 0, EMPTY), (0.0, 0, EMPTY), (5.0, 0, EMPTY)]),
            [None, use_, None, None]
        );
    }

    #[test]
    fn a_process_that_has_just_ended_accounts_for_utilization() {
        let busy = one(Ok(88.0), Ok(0));
        assert_eq!(results(&[(88.0, 0, busy), (88.0, 0, EMPTY), (0.0, 0, EMPTY)]), [None; 3]);
    }

    #[test]
    fn a_process_that_is_known_to_be_idle_accounts_for_low_utilization_only() {
        let idle = || one(Ok(0.0), Ok(0));
        let unknown = || one(Err(Missing::Unsupported), Ok(0));
        assert_eq!(results(&[(3.0, 0, idle()), (3.0, 0, idle())]), [None; 2]);
        assert_eq!(results(&[(88.0, 0, unknown()), (88.0, 0, unknown())]), [None; 2]);
        let busy = results(&[(88.0, 0, idle()), (88.0, 0, idle())]);
        assert_eq!(busy, [None, Some(UnlistedUse::Utilization)]);
    }

    #[test]
    fn framebuffer_is_unlisted_above_the_tolerance() {
        let holder = || one(Ok(0.0), Ok(20 * GIB));
        let unknown = || one(Ok(0.0), Err(Missing::Unsupported));
        let full = Some(UnlistedUse::Framebuffer);
        let twice =
            |used, list: &dyn Fn() -> _| results(&[(0.0, used, list()), (0.0, used, list())]);
        assert_eq!(twice(600 << 20, &|| EMPTY), [None, None]);
        assert_eq!(twice(20 * GIB, &|| EMPTY), [None, full]);
        assert_eq!(twice(20 * GIB, &holder), [None, None]);
        assert_eq!(twice(20 * GIB, &unknown), [None, None]);
    }

    #[test]
    fn memory_info_without_the_reserved_part_proves_nothing() {
        let list = EMPTY;
        let device = DeviceUse {
            utilization: Err(Missing::Unsupported),
            framebuffer: Ok(Memory { reserved: None, ..memory(20 * GIB) }),
            listings: vec![&list],
        };
        let mut detector = UnlistedUseDetector::default();
        assert_eq!([detector.add(&device), detector.add(&device)], [None, None]);
    }

    #[test]
    fn a_failed_list_starts_again() {
        let failed = Err(Missing::Failed(999));
        let readings = [(88.0, 0, EMPTY), (88.0, 0, failed), (88.0, 0, EMPTY), (88.0, 0, EMPTY)];
        assert_eq!(results(&readings), [None, None, None, Some(UnlistedUse::Utilization)]);
    }
}
