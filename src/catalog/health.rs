//! The rules by which a GPU's health is judged: what DCGM watches, as far as NVML tells of it.
//!
//! A watch passes only if all that is watched was read. What is known to be wrong is told even if
//! something else is not known. Watches that NVML has nothing on (PMU, MCU, SM) are no rows.

use super::{EventSample, Told};
use crate::model::{Missing, Reading, Vitals};

/// What one observation says.
type Finding = Result<Verdict, Missing>;

/// How bad it is, and by which name (`DCGM_FR_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Verdict {
    severity: Severity,
    code: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Pass,
    Warn,
    Fail,
}

impl Severity {
    /// As DCGM numbers it.
    fn number(self) -> f64 {
        match self {
            Self::Pass => 0.0,
            Self::Warn => 10.0,
            Self::Fail => 20.0,
        }
    }
}

const PASS: Verdict = Verdict { severity: Severity::Pass, code: "DCGM_FR_OK" };

const fn warn(code: &'static str) -> Verdict {
    Verdict { severity: Severity::Warn, code }
}

const fn fail(code: &'static str) -> Verdict {
    Verdict { severity: Severity::Fail, code }
}

/// What XIDs say of memory.
const MEMORY_XIDS: [(u32, Verdict); 6] = [
    (48, fail("DCGM_FR_XID_ERROR")),
    (63, warn("DCGM_FR_PENDING_PAGE_RETIREMENTS")),
    (64, fail("DCGM_FR_ROW_REMAP_FAILURE")),
    (94, fail("DCGM_FR_XID_ERROR")),
    (95, fail("DCGM_FR_UNCONTAINED_ERROR")),
    (140, fail("DCGM_FR_XID_ERROR")),
];
/// What XIDs say of links.
const LINK_XIDS: [(u32, Verdict); 1] = [(74, fail("DCGM_FR_XID_ERROR"))];
/// What XIDs say of the driver's hold on the GPU.
const DRIVER_XIDS: [(u32, Verdict); 3] = [
    (79, fail("DCGM_FR_FALLEN_OFF_BUS")),
    (119, fail("DCGM_FR_XID_ERROR")),
    (120, fail("DCGM_FR_XID_ERROR")),
];

/// `nvmlClocksEventReasonHwThermalSlowdown`.
const HW_THERMAL: u64 = 0x40;
/// `nvmlClocksEventReasonHwPowerBrakeSlowdown`.
const HW_POWER_BRAKE: u64 = 0x80;
/// Boards with so many retired pages are to be replaced.
const RETIRED_PAGES_MAX: f64 = 64.0;
/// Checksum errors in a minute from which on links do not work: a hundred a second.
const LINK_CHECKSUMS_MAX: f64 = 6_000.0;
/// Gigabits a second of one lane, by PCIe generation from the first on.
const LANE_SPEEDS: [f64; 6] = [2.5, 5.0, 8.0, 16.0, 32.0, 64.0];

/// Each watch, and the worst of all.
pub(super) fn watches(told: &Told<'_>) -> Vec<EventSample> {
    let of = |watch: fn(&Vitals) -> Vec<Finding>| match told.vitals {
        Ok(vitals) => watch(vitals),
        Err(missing) => vec![Err(missing)],
    };
    let driver = match told.state {
        Err(Missing::Lost) => Ok(fail("DCGM_FR_FALLEN_OFF_BUS")),
        state => state.map(|()| PASS),
    };
    let watches = [
        ("PCIE", judge(&of(pcie))),
        ("NVLINK", with_xids(&of(links), xids(told, &LINK_XIDS))),
        ("MEM", with_xids(&of(memory), xids(told, &MEMORY_XIDS))),
        ("INFOROM", judge(&of(inforom))),
        ("THERMAL", judge(&of(thermal))),
        ("POWER", judge(&of(power))),
        ("DRIVER", judge(&[driver, xids(told, &DRIVER_XIDS)])),
    ];
    let all = judge(&watches.map(|(_, finding)| finding));
    watches
        .into_iter()
        .chain([("ALL", all)])
        .map(|(watch, finding)| sample(watch, finding))
        .collect()
}

fn sample(watch: &str, finding: Finding) -> EventSample {
    let code = finding.map_or("", |verdict| verdict.code);
    EventSample {
        labels: vec![("health_error_code", code.to_owned()), ("health_watch", watch.to_owned())],
        reading: finding.map(|verdict| verdict.severity.number()),
    }
}

/// The worst of what is known; a pass only if nothing is unknown but what the board does not have.
fn judge(findings: &[Finding]) -> Finding {
    let worst = findings.iter().filter_map(|finding| finding.ok()).max_by_key(|v| v.severity);
    let unknown = findings.iter().filter_map(|finding| finding.err());
    let unknown = unknown.into_iter().find(|missing| *missing != Missing::Unsupported);
    match (worst, unknown) {
        (Some(verdict), _) if verdict.severity > Severity::Pass => Ok(verdict),
        (_, Some(missing)) => Err(missing),
        (Some(verdict), None) => Ok(verdict),
        (None, None) => Err(Missing::Unsupported),
    }
}

/// No XID is no proof of the health of what the board does not have.
fn with_xids(findings: &[Finding], xids: Finding) -> Finding {
    match judge(findings) {
        Err(Missing::Unsupported) if xids.is_ok_and(|v| v.severity > Severity::Pass) => xids,
        Err(Missing::Unsupported) => Err(Missing::Unsupported),
        finding => judge(&[finding, xids]),
    }
}

/// XIDs that came since the GPU began anew.
fn xids(told: &Told<'_>, known: &[(u32, Verdict)]) -> Finding {
    let standing = known.iter().filter(|(xid, _)| told.xids.standing.contains(xid));
    let found = standing.map(|(_, verdict)| Ok(*verdict));
    judge(&found.chain([told.xids.listening.map(|()| PASS)]).collect::<Vec<_>>())
}

fn pcie(vitals: &Vitals) -> Vec<Finding> {
    vec![pcie_replays(vitals)]
}

/// More retries in a minute than the bit error rate that PCIe allows (10⁻¹²) explains.
fn pcie_replays(vitals: &Vitals) -> Finding {
    let replays = vitals.growth.pcie_replays?;
    let (generation, lanes) = (vitals.signs.pcie_generation?, vitals.signs.pcie_lanes?);
    let speeds = (1_u8..).zip(LANE_SPEEDS);
    let speed = speeds.take_while(|(n, _)| f64::from(*n) <= generation).last();
    let (_, speed) = speed.ok_or(Missing::Invalid)?;
    let allowed = (speed * 0.001 * 60.0 * lanes).ceil();
    Ok(if replays > allowed { warn("DCGM_FR_PCI_REPLAY_RATE") } else { PASS })
}

fn links(vitals: &Vitals) -> Vec<Finding> {
    let links = match &vitals.signs.links {
        Ok(links) => links,
        Err(missing) => return vec![Err(*missing)],
    };
    let checksums = vitals.growth.link_checksums.map(|errors| {
        if errors >= LINK_CHECKSUMS_MAX {
            fail("DCGM_FR_NVLINK_CRC_ERROR_THRESHOLD")
        } else if errors > 0.0 {
            warn("DCGM_FR_NVLINK_ERROR_THRESHOLD")
        } else {
            PASS
        }
    });
    let fallen = !vitals.fallen_links.is_empty();
    let mut findings = vec![
        flag(Ok(f64::from(u8::from(fallen))), fail("DCGM_FR_NVLINK_DOWN")),
        flag(vitals.growth.link_retries, fail("DCGM_FR_NVLINK_ERROR_CRITICAL")),
        checksums,
    ];
    findings.extend(links.iter().map(|(_, state)| state.map(|_| PASS)));
    findings
}

fn memory(vitals: &Vitals) -> Vec<Finding> {
    let signs = &vitals.signs;
    let retired = signs.retired_pages.map(|pages| {
        if pages >= RETIRED_PAGES_MAX { fail("DCGM_FR_RETIRED_PAGES_LIMIT") } else { PASS }
    });
    vec![
        flag(signs.uncorrected, fail("DCGM_FR_VOLATILE_DBE_DETECTED")),
        flag(signs.remap_failure, fail("DCGM_FR_ROW_REMAP_FAILURE")),
        retired,
        flag(signs.retirement_pending, warn("DCGM_FR_PENDING_PAGE_RETIREMENTS")),
        flag(signs.remap_pending, warn("DCGM_FR_PENDING_ROW_REMAP")),
    ]
}

fn inforom(vitals: &Vitals) -> Vec<Finding> {
    let valid = vitals.signs.inforom_valid;
    vec![valid.map(|valid| if valid { PASS } else { warn("DCGM_FR_CORRUPT_INFOROM") })]
}

fn thermal(vitals: &Vitals) -> Vec<Finding> {
    let throttled = warn("DCGM_FR_CLOCK_THROTTLE_THERMAL");
    vec![reason(vitals, HW_THERMAL, throttled), flag(vitals.growth.thermal_violation, throttled)]
}

/// Only what the hardware does in need: a GPU at its power limit does its work.
fn power(vitals: &Vitals) -> Vec<Finding> {
    vec![reason(vitals, HW_POWER_BRAKE, warn("DCGM_FR_CLOCK_THROTTLE_POWER"))]
}

fn reason(vitals: &Vitals, bit: u64, verdict: Verdict) -> Finding {
    vitals.signs.clock_events.map(|bits| if bits & bit == 0 { PASS } else { verdict })
}

fn flag(reading: Reading, verdict: Verdict) -> Finding {
    reading.map(|value| if value > 0.0 { verdict } else { PASS })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::model::{Counts, Signs, Windows, XidRecord};

    /// A board that has everything, and is well.
    fn well() -> Vitals {
        let none = Ok(0.0);
        let counts = Counts {
            pcie_replays: none,
            link_checksums: none,
            link_retries: none,
            thermal_violation: none,
        };
        let signs = Signs {
            counts,
            pcie_generation: Ok(4.0),
            pcie_lanes: Ok(16.0),
            links: Ok(vec![(0, Ok(1)), (1, Ok(0))]),
            uncorrected: none,
            retired_pages: none,
            retirement_pending: none,
            remap_pending: none,
            remap_failure: none,
            inforom_valid: Ok(true),
            clock_events: Ok(0x7),
        };
        Vitals { signs, growth: counts, fallen_links: Vec::new() }
    }

    /// A board for desktops: no links, no ECC, no counts of violations.
    fn desktop() -> Vitals {
        let mut vitals = well();
        let none = Err(Missing::Unsupported);
        vitals.signs.links = Err(Missing::Unsupported);
        vitals.growth.link_checksums = none;
        vitals.growth.link_retries = none;
        vitals.growth.thermal_violation = none;
        vitals.signs.uncorrected = none;
        vitals.signs.retired_pages = none;
        vitals.signs.retirement_pending = none;
        vitals.signs.remap_pending = none;
        vitals.signs.remap_failure = none;
        vitals
    }

    fn xids(standing: &[u32]) -> XidRecord {
        let standing = standing.iter().copied().collect();
        XidRecord { listening: Ok(()), standing, ..XidRecord::new() }
    }

    type Judged = BTreeMap<String, (Reading, String)>;

    fn judged(
        vitals: Result<&Vitals, Missing>,
        state: Result<(), Missing>,
        xids: &XidRecord,
    ) -> Judged {
        let told = Told {
            xids,
            clocks: Err(Missing::Pending),
            peers: &[],
            links: Err(Missing::Pending),
            vitals,
            state,
            windows: Windows::default(),
            now: Duration::ZERO,
            names_xid: true,
        };
        let one = |sample: EventSample| {
            let [(_, code), (_, watch)] = <[_; 2]>::try_from(sample.labels).unwrap();
            (watch, (sample.reading, code))
        };
        watches(&told).into_iter().map(one).collect()
    }

    /// The watches that do not pass, with their numbers and codes.
    fn complaints(judged: &Judged) -> Vec<(&str, Reading, &str)> {
        let not_well = judged.iter().filter(|(_, (reading, _))| *reading != Ok(0.0));
        not_well.map(|(watch, (reading, code))| (watch.as_str(), *reading, code.as_str())).collect()
    }

    fn changed(change: fn(&mut Vitals)) -> Judged {
        let mut vitals = well();
        change(&mut vitals);
        judged(Ok(&vitals), Ok(()), &xids(&[]))
    }

    #[test]
    fn a_gpu_that_is_well_passes_and_what_nvml_cannot_judge_is_no_row() {
        let judged = judged(Ok(&well()), Ok(()), &xids(&[31, 43]));
        assert_eq!(complaints(&judged), []);
        let names: Vec<&str> = judged.keys().map(String::as_str).collect();
        let expected = ["ALL", "DRIVER", "INFOROM", "MEM", "NVLINK", "PCIE", "POWER", "THERMAL"];
        assert_eq!(names, expected);
        assert_eq!(judged["ALL"].1, "DCGM_FR_OK");
    }

    #[test]
    fn each_sign_has_its_watch_its_number_and_its_name() {
        type Case = (fn(&mut Vitals), &'static str, f64, &'static str);
        let cases: [Case; 14] = [
            (|v| v.growth.pcie_replays = Ok(17.0), "PCIE", 10.0, "DCGM_FR_PCI_REPLAY_RATE"),
            (
                |v| v.growth.link_checksums = Ok(1.0),
                "NVLINK",
                10.0,
                "DCGM_FR_NVLINK_ERROR_THRESHOLD",
            ),
            (
                |v| v.growth.link_checksums = Ok(6e3),
                "NVLINK",
                20.0,
                "DCGM_FR_NVLINK_CRC_ERROR_THRESHOLD",
            ),
            (|v| v.growth.link_retries = Ok(1.0), "NVLINK", 20.0, "DCGM_FR_NVLINK_ERROR_CRITICAL"),
            (|v| v.fallen_links = vec![0], "NVLINK", 20.0, "DCGM_FR_NVLINK_DOWN"),
            (|v| v.signs.uncorrected = Ok(1.0), "MEM", 20.0, "DCGM_FR_VOLATILE_DBE_DETECTED"),
            (|v| v.signs.retired_pages = Ok(64.0), "MEM", 20.0, "DCGM_FR_RETIRED_PAGES_LIMIT"),
            (
                |v| v.signs.retirement_pending = Ok(1.0),
                "MEM",
                10.0,
                "DCGM_FR_PENDING_PAGE_RETIREMENTS",
            ),
            (|v| v.signs.remap_pending = Ok(1.0), "MEM", 10.0, "DCGM_FR_PENDING_ROW_REMAP"),
            (|v| v.signs.remap_failure = Ok(1.0), "MEM", 20.0, "DCGM_FR_ROW_REMAP_FAILURE"),
            (|v| v.signs.inforom_valid = Ok(false), "INFOROM", 10.0, "DCGM_FR_CORRUPT_INFOROM"),
            (
                |v| v.signs.clock_events = Ok(0x40),
                "THERMAL",
                10.0,
                "DCGM_FR_CLOCK_THROTTLE_THERMAL",
            ),
            (
                |v| v.growth.thermal_violation = Ok(1.0),
                "THERMAL",
                10.0,
                "DCGM_FR_CLOCK_THROTTLE_THERMAL",
            ),
            (|v| v.signs.clock_events = Ok(0x80), "POWER", 10.0, "DCGM_FR_CLOCK_THROTTLE_POWER"),
        ];
        for (change, watch, number, code) in cases {
            let judged = changed(change);
            let mut expected = [("ALL", Ok(number), code), (watch, Ok(number), code)];
            expected.sort_by_key(|(watch, ..)| *watch);
            assert_eq!(complaints(&judged), expected, "{watch} {code}");
        }
    }

    #[test]
    fn what_a_link_may_err_depends_on_its_speed() {
        assert_eq!(complaints(&changed(|v| v.growth.pcie_replays = Ok(16.0))), []);
        let asleep = changed(|v| {
            v.growth.pcie_replays = Ok(4.0);
            v.signs.pcie_generation = Ok(1.0);
        });
        assert_eq!(asleep["PCIE"].0, Ok(10.0), "0.15 a minute and lane");
        let to_come = changed(|v| {
            v.growth.pcie_replays = Ok(61.0);
            v.signs.pcie_generation = Ok(7.0);
        });
        assert_eq!(to_come["PCIE"].0, Ok(0.0), "no slower than the sixth");
    }

    #[test]
    fn xids_stand_against_a_gpu() {
        let of = |xid, watch: &str| judged(Ok(&well()), Ok(()), &xids(&[xid]))[watch].clone();
        assert_eq!(of(48, "MEM"), (Ok(20.0), "DCGM_FR_XID_ERROR".into()));
        assert_eq!(of(95, "MEM"), (Ok(20.0), "DCGM_FR_UNCONTAINED_ERROR".into()));
        assert_eq!(of(63, "ALL"), (Ok(10.0), "DCGM_FR_PENDING_PAGE_RETIREMENTS".into()));
        assert_eq!(of(74, "NVLINK"), (Ok(20.0), "DCGM_FR_XID_ERROR".into()));
        assert_eq!(of(119, "DRIVER"), (Ok(20.0), "DCGM_FR_XID_ERROR".into()));
        assert_eq!(of(79, "MEM").0, Ok(0.0));
    }

    #[test]
    fn what_is_not_known_does_not_pass() {
        let failed = changed(|v| v.signs.uncorrected = Err(Missing::Failed(999)));
        let missing = Err(Missing::Failed(999));
        assert_eq!(complaints(&failed), [("ALL", missing, ""), ("MEM", missing, "")]);
        // What is known to be wrong is told all the same.
        let worse = changed(|v| {
            v.signs.uncorrected = Err(Missing::Failed(999));
            v.signs.remap_failure = Ok(1.0);
        });
        assert_eq!((worse["MEM"].0, worse["ALL"].0), (Ok(20.0), Ok(20.0)));
        let deaf = judged(Ok(&well()), Ok(()), &XidRecord::new());
        let pending = Err(Missing::Pending);
        let expected = ["ALL", "DRIVER", "MEM", "NVLINK"].map(|watch| (watch, pending, ""));
        assert_eq!(complaints(&deaf), expected);
    }

    #[test]
    fn what_a_board_does_not_have_is_not_judged() {
        let none = Err(Missing::Unsupported);
        let board = judged(Ok(&desktop()), Ok(()), &xids(&[]));
        assert_eq!(complaints(&board), [("MEM", none, ""), ("NVLINK", none, "")]);
        let board = judged(Ok(&desktop()), Ok(()), &xids(&[48]));
        assert_eq!(board["MEM"].0, Ok(20.0));
    }

    #[test]
    fn a_lost_gpu_fails_and_of_one_that_hangs_nothing_is_known() {
        let lost = judged(Err(Missing::Lost), Err(Missing::Lost), &xids(&[]));
        assert_eq!(lost["DRIVER"], (Ok(20.0), "DCGM_FR_FALLEN_OFF_BUS".into()));
        assert_eq!((lost["ALL"].0, lost["THERMAL"].0), (Ok(20.0), Err(Missing::Lost)));
        let hung = judged(Err(Missing::Hung), Err(Missing::Hung), &xids(&[]));
        assert!(hung.values().all(|(reading, _)| *reading == Err(Missing::Hung)));
    }
}
