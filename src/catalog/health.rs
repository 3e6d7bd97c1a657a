//! Health rules of a GPU: DCGM's health watches, as far as NVML has the data.
//!
//! A watch passes only if all its inputs were read. A known problem is reported even if another
//! input is missing. Watches without NVML data (PMU, MCU, SM) have no rows.

use nvml_wrapper_sys::bindings::{
    nvmlClocksThrottleReasonHwPowerBrakeSlowdown as HW_POWER_BRAKE,
    nvmlClocksThrottleReasonHwThermalSlowdown as HW_THERMAL,
};

use super::event_source::{EventSample, GpuEventInputs};
use crate::model::{
    FabricHealth, HealthState, LinkStates, Missing, Reading, RecoveryAction, XidState,
};
use crate::policy::{LINK_EFFECTIVE_ERROR_RATE_MAX, LINK_SYMBOL_ERROR_RATE_MAX, REMAPPED_ROWS_MAX};

/// Result of one rule.
type HealthFinding = Result<HealthVerdict, Missing>;

/// Severity and error code (`DCGM_FR_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HealthVerdict {
    severity: Severity,
    code: &'static str,
    /// The XID that was reported, if it is the reason.
    xid: Option<u32>,
}

/// Result of a health watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is wrong.
    Pass,
    /// The GPU works, with a defect or at reduced speed.
    Warn,
    /// Work on the GPU may fail or be wrong.
    Fail,
}

impl Severity {
    /// DCGM's number of the severity.
    fn number(self) -> f64 {
        match self {
            Self::Pass => 0.0,
            Self::Warn => 10.0,
            Self::Fail => 20.0,
        }
    }
}

const PASS: HealthVerdict =
    HealthVerdict { severity: Severity::Pass, code: "DCGM_FR_OK", xid: None };

const fn warn(code: &'static str) -> HealthVerdict {
    HealthVerdict { severity: Severity::Warn, code, xid: None }
}

const fn fail(code: &'static str) -> HealthVerdict {
    HealthVerdict { severity: Severity::Fail, code, xid: None }
}

/// XIDs of the memory watch.
const MEMORY_XIDS: &[(u32, HealthVerdict)] = &[
    (48, fail("DCGM_FR_XID_ERROR")),
    (63, warn("DCGM_FR_PENDING_PAGE_RETIREMENTS")),
    (64, fail("DCGM_FR_ROW_REMAP_FAILURE")),
    (94, fail("DCGM_FR_XID_ERROR")),
    (95, fail("DCGM_FR_UNCONTAINED_ERROR")),
    (140, fail("DCGM_FR_XID_ERROR")),
];
/// XIDs of the `NVLink` watch: 121 is of the C2C link to the CPU.
const LINK_XIDS: &[(u32, HealthVerdict)] =
    &[(74, fail("DCGM_FR_XID_ERROR")), (121, warn("DCGM_FR_XID_ERROR"))];
/// XIDs of the driver watch.
const DRIVER_XIDS: &[(u32, HealthVerdict)] = &[
    (79, fail("DCGM_FR_FALLEN_OFF_BUS")),
    (119, fail("DCGM_FR_XID_ERROR")),
    (120, fail("DCGM_FR_XID_ERROR")),
];

/// XIDs of the power watch: power smoothing that is off, and circuitry that wears out.
const POWER_XIDS: &[(u32, HealthVerdict)] = &[
    (163, warn("DCGM_FR_XID_ERROR")),
    (164, warn("DCGM_FR_XID_ERROR")),
    (165, fail("DCGM_FR_XID_ERROR")),
];

/// Error codes of defects that a reset does not end. Of equal problems they are first, since their remedy is the
/// one that helps.
const OUTLASTS_RESET: [&str; 3] =
    ["DCGM_FR_ROW_REMAP_FAILURE", "DCGM_FR_RETIRED_PAGES_LIMIT", "DCGM_FR_SRAM_THRESHOLD"];
/// Boards with this many retired pages should be replaced.
const RETIRED_PAGES_MAX: f64 = 64.0;
/// CRC errors per minute at which links fail: a hundred per second.
const LINK_CRC_ERRORS_MAX: f64 = 6_000.0;
/// Gigabits per second of one lane, by PCIe generation from 1 on.
const LANE_SPEEDS: &[f64] = &[2.5, 5.0, 8.0, 16.0, 32.0, 64.0];

/// What the health of a GPU is judged by.
#[derive(Clone, Copy, Debug)]
pub struct HealthInputs<'a> {
    /// Whether the GPU can be read.
    pub state: Result<(), Missing>,
    /// XID errors.
    pub xids: &'a XidState,
    /// Health readings and their changes.
    pub health: Result<&'a HealthState, Missing>,
}

/// A watch that warns or fails, with one of its reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthProblem {
    /// The watch, as in the label `health_watch`.
    pub watch: &'static str,
    /// Warning or failure.
    pub severity: Severity,
    /// The error code, as in the label `health_error_code`.
    pub code: &'static str,
    /// The XID that is the reason, if it is one.
    pub xid: Option<u32>,
}

/// All problems of a GPU, and the watches that could not be evaluated; `ALL` of
/// `DCGM_EXP_GPU_HEALTH_STATUS` is the worst of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthAssessment {
    /// Worst first.
    pub problems: Vec<HealthProblem>,
    /// Watches without a result, and why; those that the board does not support are omitted.
    pub missing: Vec<(&'static str, Missing)>,
}

/// Evaluates all watches.
#[must_use]
pub fn assess(inputs: HealthInputs<'_>) -> HealthAssessment {
    let mut assessment = HealthAssessment::default();
    for watch in all_watches(inputs) {
        let found = watch.findings.iter().chain(watch.xids.iter().flatten());
        for finding in found.flatten().filter(|finding| finding.severity > Severity::Pass) {
            let HealthVerdict { severity, code, xid } = *finding;
            assessment.problems.push(HealthProblem { watch: watch.name, severity, code, xid });
        }
        if let Err(missing) = watch.verdict()
            && missing != Missing::Unsupported
        {
            assessment.missing.push((watch.name, missing));
        }
    }
    let is_lasting = |problem: &HealthProblem| OUTLASTS_RESET.contains(&problem.code);
    assessment.problems.sort_by_key(|problem| {
        (std::cmp::Reverse(problem.severity), std::cmp::Reverse(is_lasting(problem)))
    });
    // What a reading states, an XID of the same code only repeats.
    let problems = &mut assessment.problems;
    let read: Vec<_> = problems.iter().filter(|p| p.xid.is_none()).map(|p| p.code).collect();
    problems.retain(|problem| problem.xid.is_none() || !read.contains(&problem.code));
    assessment
}

/// The findings of one watch.
struct HealthWatch {
    name: &'static str,
    findings: Vec<HealthFinding>,
    /// Findings of XIDs, if XIDs are evidence for the watch.
    xids: Option<Vec<HealthFinding>>,
}

impl HealthWatch {
    fn verdict(&self) -> HealthFinding {
        match &self.xids {
            Some(xids) => with_xids(&self.findings, judge(xids)),
            None => judge(&self.findings),
        }
    }
}

fn all_watches(inputs: HealthInputs<'_>) -> [HealthWatch; 7] {
    let of = |watch: fn(&HealthState) -> Vec<HealthFinding>| match inputs.health {
        Ok(vitals) => watch(vitals),
        Err(missing) => vec![Err(missing)],
    };
    let driver = match inputs.state {
        Err(Missing::Lost) => Ok(fail("DCGM_FR_FALLEN_OFF_BUS")),
        state => state.map(|()| PASS),
    };
    let action = inputs.health.and_then(|vitals| vitals.sample.recovery_action.map(recovery));
    let watch = |name, findings, rules: Option<&[_]>| HealthWatch {
        name,
        findings,
        xids: rules.map(|rules| xids(inputs.xids, rules)),
    };
    [
        watch("PCIE", of(pcie), None),
        watch("NVLINK", of(links), Some(LINK_XIDS)),
        watch("MEM", of(memory), Some(MEMORY_XIDS)),
        watch("INFOROM", of(inforom), None),
        watch("THERMAL", of(thermal), None),
        watch("POWER", of(power), Some(POWER_XIDS)),
        watch("DRIVER", vec![driver, action], Some(DRIVER_XIDS)),
    ]
}

/// One sample per watch, and the worst of all as `ALL`.
pub(super) fn watches(inputs: &GpuEventInputs<'_>) -> Vec<EventSample> {
    let GpuEventInputs { state, xids, health, .. } = *inputs;
    let watches = all_watches(HealthInputs { state, xids, health });
    let verdicts = watches.map(|watch| (watch.name, watch.verdict()));
    let all = judge(&verdicts.map(|(_, finding)| finding));
    let verdicts = verdicts.into_iter().chain([("ALL", all)]);
    verdicts.map(|(watch, finding)| sample(watch, finding)).collect()
}

/// The verdict of a recovery action. An action of a newer driver is a warning, since it is an action.
fn recovery(action: f64) -> HealthVerdict {
    match RecoveryAction::of(action) {
        RecoveryAction::None => PASS,
        RecoveryAction::GpuReset | RecoveryAction::BusReset => fail("DCGM_FR_GPU_RECOVERY_RESET"),
        RecoveryAction::NodeReboot | RecoveryAction::SystemReboot => {
            fail("DCGM_FR_GPU_RECOVERY_REBOOT")
        }
        RecoveryAction::DrainP2p => warn("DCGM_FR_GPU_RECOVERY_DRAIN_P2P"),
        RecoveryAction::DrainAndReset => fail("DCGM_FR_GPU_RECOVERY_DRAIN_RESET"),
        RecoveryAction::RecoverImexDomain => fail("DCGM_FR_GPU_RECOVERY_IMEX_DOMAIN"),
        RecoveryAction::Unknown => warn("DCGM_FR_UNKNOWN"),
    }
}

fn sample(watch: &str, finding: HealthFinding) -> EventSample {
    let code = finding.map_or("", |verdict| verdict.code);
    EventSample {
        labels: vec![("health_error_code", code.to_owned()), ("health_watch", watch.to_owned())],
        reading: finding.map(|verdict| verdict.severity.number()),
    }
}

/// The worst finding. A pass only if no input is missing other than [`Missing::Unsupported`].
fn judge(findings: &[HealthFinding]) -> HealthFinding {
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

/// Adds XIDs to the findings of a watch. An unsupported watch does not pass for lack of XIDs.
fn with_xids(findings: &[HealthFinding], xids: HealthFinding) -> HealthFinding {
    match judge(findings) {
        Err(Missing::Unsupported) if xids.is_ok_and(|v| v.severity > Severity::Pass) => xids,
        Err(Missing::Unsupported) => Err(Missing::Unsupported),
        finding => judge(&[finding, xids]),
    }
}

/// Findings of the XIDs since the last reset of the GPU.
fn xids(xids: &XidState, rules: &[(u32, HealthVerdict)]) -> Vec<HealthFinding> {
    let recorded = rules.iter().filter(|(xid, _)| xids.since_reset.contains(xid));
    let found = recorded.map(|(xid, verdict)| Ok(HealthVerdict { xid: Some(*xid), ..*verdict }));
    found.chain([xids.subscribed.map(|()| PASS)]).collect()
}

fn pcie(vitals: &HealthState) -> Vec<HealthFinding> {
    vec![pcie_replays(vitals)]
}

/// Warns if there are more replays per minute than PCIe's bit error rate (10⁻¹²) explains.
fn pcie_replays(vitals: &HealthState) -> HealthFinding {
    let replays = vitals.growth.pcie_replays?;
    let (generation, lanes) = (vitals.sample.pcie_generation?, vitals.sample.pcie_lanes?);
    let speeds = (1_u8..).zip(LANE_SPEEDS);
    let speed = speeds.take_while(|(n, _)| f64::from(*n) <= generation).last();
    let (_, speed) = speed.ok_or(Missing::Invalid)?;
    let allowed = (speed * 0.001 * 60.0 * lanes).ceil();
    Ok(if replays > allowed { warn("DCGM_FR_PCI_REPLAY_RATE") } else { PASS })
}

/// `NVLink` and its fabric, and the C2C links to the CPU. A board may have either.
fn links(vitals: &HealthState) -> Vec<HealthFinding> {
    let sample = &vitals.sample;
    let mut findings = match &sample.links {
        Ok(_) => nvlinks(vitals),
        Err(missing) => vec![Err(*missing)],
    };
    findings.push(down(&sample.c2c_links, &vitals.down_c2c_links));
    findings.push(flag(vitals.growth.c2c_errors, warn("DCGM_FR_FIELD_VIOLATION")));
    let states = sample.links.iter().chain(&sample.c2c_links).flatten();
    findings.extend(states.map(|(_, state)| state.map(|_| PASS)));
    findings
}

fn nvlinks(vitals: &HealthState) -> Vec<HealthFinding> {
    let sample = &vitals.sample;
    let checksums = vitals.growth.link_crc_errors.map(|errors| {
        if errors >= LINK_CRC_ERRORS_MAX {
            fail("DCGM_FR_NVLINK_CRC_ERROR_THRESHOLD")
        } else if errors > 0.0 {
            warn("DCGM_FR_NVLINK_ERROR_THRESHOLD")
        } else {
            PASS
        }
    });
    let effective = fail("DCGM_FR_NVLINK_EFFECTIVE_BER_THRESHOLD");
    let symbol = fail("DCGM_FR_NVLINK_SYMBOL_BER_THRESHOLD");
    vec![
        down(&sample.links, &vitals.down_links),
        flag(vitals.growth.link_retries, fail("DCGM_FR_NVLINK_ERROR_CRITICAL")),
        flag(vitals.growth.link_errors, fail("DCGM_FR_NVLINK_ERROR_CRITICAL")),
        above(sample.link_effective_error_rate, LINK_EFFECTIVE_ERROR_RATE_MAX, effective),
        above(sample.link_symbol_error_rate, LINK_SYMBOL_ERROR_RATE_MAX, symbol),
        checksums,
        sample.fabric.map(|fabric| match fabric {
            FabricHealth::Healthy => PASS,
            FabricHealth::Registering => warn("DCGM_FR_FABRIC_PROBE_STATE"),
            FabricHealth::Faulty => fail("DCGM_FR_FABRIC_PROBE_STATE"),
        }),
    ]
}

/// Fails if links are down that were active.
fn down(links: &Result<LinkStates, Missing>, down: &[u32]) -> HealthFinding {
    let fails = fail("DCGM_FR_NVLINK_DOWN");
    links.as_ref().map(|_| if down.is_empty() { PASS } else { fails }).map_err(|missing| *missing)
}

fn memory(vitals: &HealthState) -> Vec<HealthFinding> {
    let signs = &vitals.sample;
    let retired = signs.retired_pages.map(|pages| {
        if pages >= RETIRED_PAGES_MAX { fail("DCGM_FR_RETIRED_PAGES_LIMIT") } else { PASS }
    });
    let limit = warn("DCGM_FR_UNCORRECTABLE_ROW_REMAP_LIMIT");
    let remapped = signs.uncorrectable_remapped_rows;
    let remapped = remapped.map(|rows| if rows >= REMAPPED_ROWS_MAX { limit } else { PASS });
    vec![
        flag(signs.uncorrected_ecc_errors, fail("DCGM_FR_VOLATILE_DBE_DETECTED")),
        flag(signs.remap_failure, fail("DCGM_FR_ROW_REMAP_FAILURE")),
        retired,
        flag(signs.retirement_pending, warn("DCGM_FR_PENDING_PAGE_RETIREMENTS")),
        flag(signs.remap_pending, warn("DCGM_FR_PENDING_ROW_REMAP")),
        flag(signs.bank_remap_pending, warn("DCGM_FR_PENDING_ROW_REMAP")),
        remapped,
        set(signs.sram_threshold_exceeded, fail("DCGM_FR_SRAM_THRESHOLD")),
        set(signs.unrepairable_memory, fail("DCGM_FR_FAULTY_MEMORY")),
        set(signs.repair_pending, warn("DCGM_FR_FAULTY_MEMORY")),
    ]
}

fn inforom(vitals: &HealthState) -> Vec<HealthFinding> {
    let valid = vitals.sample.inforom_valid;
    vec![valid.map(|valid| if valid { PASS } else { warn("DCGM_FR_CORRUPT_INFOROM") })]
}

fn thermal(vitals: &HealthState) -> Vec<HealthFinding> {
    let throttled = warn("DCGM_FR_CLOCK_THROTTLE_THERMAL");
    let margin = vitals.sample.temperature_margin;
    vec![
        reason(vitals, HW_THERMAL, throttled),
        flag(vitals.growth.thermal_violation, throttled),
        margin.map(|celsius| if celsius > 0.0 { PASS } else { throttled }),
    ]
}

/// Hardware power brake only: running at the power limit is normal.
fn power(vitals: &HealthState) -> Vec<HealthFinding> {
    vec![reason(vitals, HW_POWER_BRAKE, warn("DCGM_FR_CLOCK_THROTTLE_POWER"))]
}

fn reason(vitals: &HealthState, bit: u32, verdict: HealthVerdict) -> HealthFinding {
    vitals.sample.clock_events.map(|bits| if bits & u64::from(bit) == 0 { PASS } else { verdict })
}

fn flag(reading: Reading, verdict: HealthVerdict) -> HealthFinding {
    reading.map(|value| if value > 0.0 { verdict } else { PASS })
}

fn above(reading: Reading, maximum: f64, verdict: HealthVerdict) -> HealthFinding {
    reading.map(|value| if value > maximum { verdict } else { PASS })
}

fn set(flag: Result<bool, Missing>, verdict: HealthVerdict) -> HealthFinding {
    flag.map(|is_set| if is_set { verdict } else { PASS })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{HealthCounters, HealthSample, Windows, XidState};

    /// A healthy board that supports every watch.
    fn healthy() -> HealthState {
        let none = Ok(0.0);
        let counts = HealthCounters {
            pcie_replays: none,
            link_crc_errors: none,
            link_retries: none,
            thermal_violation: none,
            link_errors: none,
            c2c_errors: none,
        };
        let signs = HealthSample {
            counters: counts,
            pcie_generation: Ok(4.0),
            pcie_lanes: Ok(16.0),
            links: Ok(vec![(0, Ok(1)), (1, Ok(0))]),
            uncorrected_ecc_errors: none,
            retired_pages: none,
            retirement_pending: none,
            remap_pending: none,
            bank_remap_pending: none,
            remap_failure: none,
            unrepairable_memory: Ok(false),
            repair_pending: Ok(false),
            recovery_action: none,
            temperature_margin: Ok(20.0),
            inforom_valid: Ok(true),
            clock_events: Ok(0x7),
            link_effective_error_rate: Ok(1e-12),
            link_symbol_error_rate: Ok(15e-255),
            c2c_links: Ok(vec![(0, Ok(1))]),
            fabric: Ok(FabricHealth::Healthy),
            sram_threshold_exceeded: Ok(false),
            uncorrectable_remapped_rows: Ok(511.0),
        };
        HealthState {
            sample: signs,
            growth: counts,
            down_links: Vec::new(),
            down_c2c_links: Vec::new(),
        }
    }

    /// A desktop board without NVLink, ECC and violation counters.
    fn desktop() -> HealthState {
        let mut vitals = healthy();
        let none = Err(Missing::Unsupported);
        vitals.sample.links = Err(Missing::Unsupported);
        vitals.sample.c2c_links = Err(Missing::Unsupported);
        vitals.sample.fabric = Err(Missing::Unsupported);
        vitals.sample.sram_threshold_exceeded = Err(Missing::Unsupported);
        for reading in [
            &mut vitals.growth.link_crc_errors,
            &mut vitals.growth.link_retries,
            &mut vitals.growth.link_errors,
            &mut vitals.growth.c2c_errors,
            &mut vitals.sample.link_effective_error_rate,
            &mut vitals.sample.link_symbol_error_rate,
            &mut vitals.sample.bank_remap_pending,
            &mut vitals.sample.uncorrectable_remapped_rows,
        ] {
            *reading = none;
        }
        vitals.growth.thermal_violation = none;
        vitals.sample.uncorrected_ecc_errors = none;
        vitals.sample.retired_pages = none;
        vitals.sample.retirement_pending = none;
        vitals.sample.remap_pending = none;
        vitals.sample.remap_failure = none;
        vitals.sample.unrepairable_memory = Err(Missing::Unsupported);
        vitals.sample.repair_pending = Err(Missing::Unsupported);
        vitals.sample.recovery_action = none;
        vitals.sample.temperature_margin = none;
        vitals
    }

    fn xids(standing: &[u32]) -> XidState {
        let standing = standing.iter().copied().collect();
        XidState { subscribed: Ok(()), since_reset: standing, ..XidState::default() }
    }

    /// Value and error code by watch.
    type Samples = BTreeMap<String, (Reading, String)>;

    fn samples(
        vitals: Result<&HealthState, Missing>,
        state: Result<(), Missing>,
        xids: &XidState,
    ) -> Samples {
        let inputs = GpuEventInputs {
            xids,
            clock_events: Err(Missing::Pending),
            peers: &[],
            links: Err(Missing::Pending),
            nvlink_fields: Err(Missing::Pending),
            nvlink_rates: Err(Missing::Pending),
            nvlink_errors: Err(Missing::Pending),
            c2c_fields: Err(Missing::Pending),
            platform: Err(Missing::Pending),
            health: vitals,
            state,
            windows: Windows::default(),
            label_last_xid: true,
        };
        let one = |sample: EventSample| {
            let [(_, code), (_, watch)] = <[_; 2]>::try_from(sample.labels).unwrap();
            (watch, (sample.reading, code))
        };
        watches(&inputs).into_iter().map(one).collect()
    }

    /// The watches that do not pass, with value and error code.
    fn problems(samples: &Samples) -> Vec<(&str, Reading, &str)> {
        let not_passed = samples.iter().filter(|(_, (reading, _))| *reading != Ok(0.0));
        not_passed
            .map(|(watch, (reading, code))| (watch.as_str(), *reading, code.as_str()))
            .collect()
    }

    fn changed(change: fn(&mut HealthState)) -> Samples {
        let mut vitals = healthy();
        change(&mut vitals);
        samples(Ok(&vitals), Ok(()), &xids(&[]))
    }

    #[test]
    fn healthy_gpu_passes_and_watches_without_nvml_data_are_absent() {
        let samples = samples(Ok(&healthy()), Ok(()), &xids(&[31, 43]));
        assert_eq!(problems(&samples), []);
        let names: Vec<&str> = samples.keys().map(String::as_str).collect();
        let expected = ["ALL", "DRIVER", "INFOROM", "MEM", "NVLINK", "PCIE", "POWER", "THERMAL"];
        assert_eq!(names, expected);
        assert_eq!(samples["ALL"].1, "DCGM_FR_OK");
    }

    /// A change of a healthy board, and its watch, number and error code.
    type Case = (fn(&mut HealthState), &'static str, f64, &'static str);

    fn assert_problems(cases: &[Case]) {
        for (change, watch, number, code) in cases.iter().copied() {
            let samples = changed(change);
            let mut expected = [("ALL", Ok(number), code), (watch, Ok(number), code)];
            expected.sort_by_key(|(watch, ..)| *watch);
            assert_eq!(problems(&samples), expected, "{watch} {code}");
        }
    }

    #[test]
    fn each_problem_of_links_has_its_severity_and_error_code() {
        assert_problems(&[
            (
                |v| v.growth.link_crc_errors = Ok(1.0),
                "NVLINK",
                10.0,
                "DCGM_FR_NVLINK_ERROR_THRESHOLD",
            ),
            (
                |v| v.growth.link_crc_errors = Ok(6e3),
                "NVLINK",
                20.0,
                "DCGM_FR_NVLINK_CRC_ERROR_THRESHOLD",
            ),
            (|v| v.growth.link_retries = Ok(1.0), "NVLINK", 20.0, "DCGM_FR_NVLINK_ERROR_CRITICAL"),
            (|v| v.down_links = vec![0], "NVLINK", 20.0, "DCGM_FR_NVLINK_DOWN"),
            (|v| v.down_c2c_links = vec![0], "NVLINK", 20.0, "DCGM_FR_NVLINK_DOWN"),
            (|v| v.growth.link_errors = Ok(1.0), "NVLINK", 20.0, "DCGM_FR_NVLINK_ERROR_CRITICAL"),
            (|v| v.growth.c2c_errors = Ok(1.0), "NVLINK", 10.0, "DCGM_FR_FIELD_VIOLATION"),
            (
                |v| v.sample.link_effective_error_rate = Ok(11e-13),
                "NVLINK",
                20.0,
                "DCGM_FR_NVLINK_EFFECTIVE_BER_THRESHOLD",
            ),
            (
                |v| v.sample.link_symbol_error_rate = Ok(1e-253),
                "NVLINK",
                20.0,
                "DCGM_FR_NVLINK_SYMBOL_BER_THRESHOLD",
            ),
            (
                |v| v.sample.fabric = Ok(FabricHealth::Registering),
                "NVLINK",
                10.0,
                "DCGM_FR_FABRIC_PROBE_STATE",
            ),
            (
                |v| v.sample.fabric = Ok(FabricHealth::Faulty),
                "NVLINK",
                20.0,
                "DCGM_FR_FABRIC_PROBE_STATE",
            ),
        ]);
    }

    #[test]
    fn each_problem_has_its_watch_severity_and_error_code() {
        assert_problems(&[
            (|v| v.growth.pcie_replays = Ok(17.0), "PCIE", 10.0, "DCGM_FR_PCI_REPLAY_RATE"),
            (|v| v.sample.bank_remap_pending = Ok(1.0), "MEM", 10.0, "DCGM_FR_PENDING_ROW_REMAP"),
            (
                |v| v.sample.uncorrectable_remapped_rows = Ok(512.0),
                "MEM",
                10.0,
                "DCGM_FR_UNCORRECTABLE_ROW_REMAP_LIMIT",
            ),
            (
                |v| v.sample.sram_threshold_exceeded = Ok(true),
                "MEM",
                20.0,
                "DCGM_FR_SRAM_THRESHOLD",
            ),
            (
                |v| v.sample.uncorrected_ecc_errors = Ok(1.0),
                "MEM",
                20.0,
                "DCGM_FR_VOLATILE_DBE_DETECTED",
            ),
            (|v| v.sample.retired_pages = Ok(64.0), "MEM", 20.0, "DCGM_FR_RETIRED_PAGES_LIMIT"),
            (
                |v| v.sample.retirement_pending = Ok(1.0),
                "MEM",
                10.0,
                "DCGM_FR_PENDING_PAGE_RETIREMENTS",
            ),
            (|v| v.sample.remap_pending = Ok(1.0), "MEM", 10.0, "DCGM_FR_PENDING_ROW_REMAP"),
            (|v| v.sample.unrepairable_memory = Ok(true), "MEM", 20.0, "DCGM_FR_FAULTY_MEMORY"),
            (|v| v.sample.repair_pending = Ok(true), "MEM", 10.0, "DCGM_FR_FAULTY_MEMORY"),
            (
                |v| v.sample.recovery_action = Ok(4.0),
                "DRIVER",
                20.0,
                "DCGM_FR_GPU_RECOVERY_DRAIN_RESET",
            ),
            (
                |v| v.sample.temperature_margin = Ok(0.0),
                "THERMAL",
                10.0,
                "DCGM_FR_CLOCK_THROTTLE_THERMAL",
            ),
            (|v| v.sample.recovery_action = Ok(99.0), "DRIVER", 10.0, "DCGM_FR_UNKNOWN"),
            (|v| v.sample.remap_failure = Ok(1.0), "MEM", 20.0, "DCGM_FR_ROW_REMAP_FAILURE"),
            (|v| v.sample.inforom_valid = Ok(false), "INFOROM", 10.0, "DCGM_FR_CORRUPT_INFOROM"),
            (
                |v| v.sample.clock_events = Ok(0x40),
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
            (|v| v.sample.clock_events = Ok(0x80), "POWER", 10.0, "DCGM_FR_CLOCK_THROTTLE_POWER"),
        ]);
    }

    #[test]
    fn allowed_pcie_replays_depend_on_the_link_speed() {
        assert_eq!(problems(&changed(|v| v.growth.pcie_replays = Ok(16.0))), []);
        let slow_link = changed(|v| {
            v.growth.pcie_replays = Ok(4.0);
            v.sample.pcie_generation = Ok(1.0);
        });
        assert_eq!(slow_link["PCIE"].0, Ok(10.0), "0.15 per minute and lane");
        let future_generation = changed(|v| {
            v.growth.pcie_replays = Ok(61.0);
            v.sample.pcie_generation = Ok(7.0);
        });
        assert_eq!(future_generation["PCIE"].0, Ok(0.0), "at least as fast as generation 6");
    }

    #[test]
    fn xids_fail_or_warn_their_watch() {
        let of = |xid, watch: &str| samples(Ok(&healthy()), Ok(()), &xids(&[xid]))[watch].clone();
        assert_eq!(of(48, "MEM"), (Ok(20.0), "DCGM_FR_XID_ERROR".into()));
        assert_eq!(of(95, "MEM"), (Ok(20.0), "DCGM_FR_UNCONTAINED_ERROR".into()));
        assert_eq!(of(63, "ALL"), (Ok(10.0), "DCGM_FR_PENDING_PAGE_RETIREMENTS".into()));
        assert_eq!(of(74, "NVLINK"), (Ok(20.0), "DCGM_FR_XID_ERROR".into()));
        assert_eq!(of(121, "NVLINK"), (Ok(10.0), "DCGM_FR_XID_ERROR".into()));
        assert_eq!(of(119, "DRIVER"), (Ok(20.0), "DCGM_FR_XID_ERROR".into()));
        assert_eq!(of(79, "MEM").0, Ok(0.0));
    }

    #[test]
    fn watch_with_a_missing_input_does_not_pass() {
        let failed = changed(|v| v.sample.uncorrected_ecc_errors = Err(Missing::Failed(999)));
        let missing = Err(Missing::Failed(999));
        assert_eq!(problems(&failed), [("ALL", missing, ""), ("MEM", missing, "")]);
        // A known problem is reported despite the missing input.
        let worse = changed(|v| {
            v.sample.uncorrected_ecc_errors = Err(Missing::Failed(999));
            v.sample.remap_failure = Ok(1.0);
        });
        assert_eq!((worse["MEM"].0, worse["ALL"].0), (Ok(20.0), Ok(20.0)));
        let unsubscribed = samples(Ok(&healthy()), Ok(()), &XidState::default());
        let pending = Err(Missing::Pending);
        let expected =
            ["ALL", "DRIVER", "MEM", "NVLINK", "POWER"].map(|watch| (watch, pending, ""));
        assert_eq!(problems(&unsubscribed), expected);
    }

    #[test]
    fn unsupported_watch_is_absent_unless_an_xid_fails_it() {
        let none = Err(Missing::Unsupported);
        let board = samples(Ok(&desktop()), Ok(()), &xids(&[]));
        assert_eq!(problems(&board), [("MEM", none, ""), ("NVLINK", none, "")]);
        let mut grace = desktop();
        grace.sample.c2c_links = Ok(vec![(0, Ok(1))]);
        let linked = samples(Ok(&grace), Ok(()), &xids(&[]));
        assert_eq!(linked["NVLINK"].0, Ok(0.0), "a link to the CPU only");
        let board = samples(Ok(&desktop()), Ok(()), &xids(&[48]));
        assert_eq!(board["MEM"].0, Ok(20.0));
    }

    #[test]
    fn lost_gpu_fails_and_hung_gpu_has_no_watches() {
        let lost = samples(Err(Missing::Lost), Err(Missing::Lost), &xids(&[]));
        assert_eq!(lost["DRIVER"], (Ok(20.0), "DCGM_FR_FALLEN_OFF_BUS".into()));
        assert_eq!((lost["ALL"].0, lost["THERMAL"].0), (Ok(20.0), Err(Missing::Lost)));
        let hung = samples(Err(Missing::Hung), Err(Missing::Hung), &xids(&[]));
        assert!(hung.values().all(|(reading, _)| *reading == Err(Missing::Hung)));
    }
}
