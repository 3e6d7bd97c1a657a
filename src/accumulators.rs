//! Usage accumulated over cycles: SM seconds, joules and idle seconds.
//!
//! Integrates each mean over its own window. Gaps are not integrated, so a counter never overstates
//! usage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::attribute::activity::{DeviceActivity, ProcessActivity};
use crate::catalog::AccumulatedMetric;
use crate::labels::Labels;
use crate::model::{ContainerIdentity, Owner, OwnerClass, ProcessId, Reading};
use crate::policy::{GPU_RETENTION, SAMPLE_DELAY_MAX};
use crate::selection::Selection;
use crate::snapshot::Series;

/// The accumulators of a node, by UUID of the device.
#[derive(Debug, Default)]
pub struct UsageAccumulators(BTreeMap<Arc<str>, DeviceAccumulator>);

#[derive(Debug, Default)]
struct DeviceAccumulator {
    /// Time of the last sample that was accumulated (monotonic).
    sampled_at: Duration,
    /// Whether a cycle since then had no new sample.
    in_gap: bool,
    /// Last value of the GPU's energy counter, joules, and its time (monotonic).
    last_energy: Option<(Duration, f64)>,
    joules: BTreeMap<OwnerClass, f64>,
    containers: Vec<ContainerAccumulator>,
    /// SM seconds by process.
    processes: BTreeMap<ProcessId, f64>,
}

#[derive(Debug)]
struct ContainerAccumulator {
    container: ContainerIdentity,
    /// First seen on the device (monotonic).
    first_seen: Duration,
    sm_seconds: f64,
    joules: f64,
    idle_seconds: f64,
    /// Last SM use, or when it was first seen (monotonic).
    last_active: Duration,
    /// Its processes in the last cycle.
    processes: Vec<ProcessId>,
}

impl UsageAccumulators {
    /// Adds the activity of a cycle that ended at `now` (monotonic) and returns the series of the
    /// selected families.
    pub fn accumulate(
        &mut self,
        selection: &Selection,
        activity: &[DeviceActivity],
        now: Duration,
    ) -> Vec<Series> {
        if selection.accumulated.is_empty() {
            self.0.clear();
            return Vec::new();
        }
        let mut series = Vec::new();
        for cycle in activity {
            let device = self.0.entry(Arc::clone(&cycle.device)).or_default();
            device.accumulate(cycle);
            for (family, selected) in selection.accumulated.families().iter().enumerate() {
                let values = device.series(selected.metric.source, cycle, now);
                let to_series = |(labels, value): (&Labels, f64)| Series {
                    family,
                    labels: labels.clone(),
                    reading: Ok(value),
                };
                series.extend(values.into_iter().map(to_series));
            }
        }
        self.0.retain(|_, device| now.saturating_sub(device.sampled_at) <= GPU_RETENTION);
        series
    }
}

impl DeviceAccumulator {
    fn accumulate(&mut self, cycle: &DeviceActivity) {
        if self.sampled_at == cycle.at {
            // No new sample of the device.
            self.in_gap = true;
            return;
        }
        let elapsed = cycle.at.saturating_sub(std::mem::replace(&mut self.sampled_at, cycle.at));
        self.update_workloads(cycle);
        self.accumulate_energy(cycle);
        let span = cycle.window.map_or(Duration::ZERO, |watched| watched.span);
        // A process that ended in a gap between the readings is not in the list any more.
        let idle_span = if std::mem::take(&mut self.in_gap) {
            Duration::ZERO
        } else if span > elapsed + SAMPLE_DELAY_MAX {
            elapsed
        } else {
            span
        };
        let (span, idle_span) = (span.as_secs_f64(), idle_span.as_secs_f64());
        for process in &cycle.processes {
            if let Ok(percent) = process.usage.sm() {
                *self.processes.entry(process.id).or_default() += percent / 100.0 * span;
            }
        }
        for active in &cycle.containers {
            let found = find_container(&mut self.containers, &active.container);
            let Some(container) = found else { continue };
            let is_listed =
                |id: &ProcessId| cycle.processes.iter().any(|process| process.id == *id);
            // One that has ended may have worked in this window.
            let has_ended = !container.processes.iter().all(is_listed);
            let is_own = |process: &&ProcessActivity| {
                process.owner.container().is_some_and(|owner| owner.matches(&container.container))
            };
            container.processes =
                cycle.processes.iter().filter(is_own).map(|process| process.id).collect();
            match active.usage.sm() {
                Ok(percent) if percent > 0.0 => {
                    container.sm_seconds += percent / 100.0 * span;
                    container.last_active = cycle.at;
                }
                // The window of its first sample began before the container did.
                Ok(_) if container.first_seen < cycle.at && !has_ended => {
                    container.idle_seconds += idle_span;
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Drops the accumulators of workloads that left the device; a workload that returns starts at
    /// 0.
    fn update_workloads(&mut self, cycle: &DeviceActivity) {
        self.processes.retain(|id, _| cycle.processes.iter().any(|process| process.id == *id));
        let is_present = |container: &ContainerIdentity| {
            cycle.containers.iter().any(|active| active.container.matches(container))
        };
        self.containers.retain(|accumulator| is_present(&accumulator.container));
        for active in &cycle.containers {
            match find_container(&mut self.containers, &active.container) {
                // Keeps a known UID: another pod may reuse the name.
                Some(accumulator) if !active.container.pod.uid.is_empty() => {
                    accumulator.container = active.container.clone();
                }
                Some(_) => {}
                None => self.containers.push(ContainerAccumulator {
                    container: active.container.clone(),
                    first_seen: cycle.at,
                    sm_seconds: 0.0,
                    joules: 0.0,
                    idle_seconds: 0.0,
                    last_active: cycle.at,
                    processes: Vec::new(),
                }),
            }
        }
    }

    /// Distributes the energy since the last value of the GPU's counter by SM time.
    fn accumulate_energy(&mut self, cycle: &DeviceActivity) {
        let Ok(counter) = cycle.energy else { return };
        if cycle.window.is_ok_and(|window| window.span.is_zero()) {
            // The next window shows who used the energy since the last one.
            return;
        }
        let before = self.last_energy.replace((cycle.at, counter));
        let Some((read_at, before)) = before else { return };
        // A counter that decreased was reset: the energy used since is unknown and left out.
        let used = if counter >= before { counter - before } else { 0.0 };
        let shares = EnergyShares::of(cycle, cycle.at.saturating_sub(read_at));
        for (process, share) in cycle.processes.iter().zip(&shares.processes) {
            *self.joules.entry(OwnerClass::from(&process.owner)).or_default() += used * share;
            if let Owner::Container(container) = &process.owner
                && let Some(accumulator) = find_container(&mut self.containers, container)
            {
                accumulator.joules += used * share;
            }
        }
        *self.joules.entry(OwnerClass::None).or_default() += used * shares.idle;
        *self.joules.entry(OwnerClass::Unknown).or_default() += used * shares.unknown;
    }

    /// Labels and value of each series of one family.
    fn series<'c>(
        &self,
        metric: AccumulatedMetric,
        cycle: &'c DeviceActivity,
        now: Duration,
    ) -> Vec<(&'c Labels, f64)> {
        match metric {
            AccumulatedMetric::ProcessSmTime => {
                let processes = cycle.processes.iter().filter(|process| process.usage.sm().is_ok());
                let series = processes.filter_map(|process| {
                    Some((process.labels.as_ref()?, *self.processes.get(&process.id)?))
                });
                series.collect()
            }
            AccumulatedMetric::ContainerSmTime => {
                self.container_series(cycle, |c, sm| sm.map(|_| c.sm_seconds))
            }
            AccumulatedMetric::ContainerIdleTime => {
                self.container_series(cycle, |c, sm| sm.map(|_| c.idle_seconds))
            }
            AccumulatedMetric::ContainerLastActive => self.container_series(cycle, |c, sm| {
                sm.map(|_| now.saturating_sub(c.last_active).as_secs_f64())
            }),
            AccumulatedMetric::ContainerEnergy => {
                self.container_series(cycle, |c, _| cycle.energy.map(|_| c.joules))
            }
            AccumulatedMetric::Energy if cycle.energy.is_err() => Vec::new(),
            AccumulatedMetric::Energy => {
                let joules = |doer| self.joules.get(doer).copied().unwrap_or_default();
                cycle.owner_labels.iter().map(|(doer, labels)| (labels, joules(doer))).collect()
            }
        }
    }

    fn container_series<'c>(
        &self,
        cycle: &'c DeviceActivity,
        value: impl Fn(&ContainerAccumulator, Reading) -> Reading,
    ) -> Vec<(&'c Labels, f64)> {
        let series = cycle.containers.iter().filter_map(|active| {
            let accumulator =
                self.containers.iter().find(|c| c.container.matches(&active.container))?;
            Some((active.labels.as_ref()?, value(accumulator, active.usage.sm()).ok()?))
        });
        series.collect()
    }
}

fn find_container<'a>(
    containers: &'a mut [ContainerAccumulator],
    container: &ContainerIdentity,
) -> Option<&'a mut ContainerAccumulator> {
    containers.iter_mut().find(|accumulator| accumulator.container.matches(container))
}

/// Shares of a GPU's energy; their sum is 1.
struct EnergyShares {
    /// By process, in the order of [`DeviceActivity::processes`].
    processes: Vec<f64>,
    /// No process used the SMs.
    idle: f64,
    unknown: f64,
}

impl EnergyShares {
    /// Shares of the energy of the `time` before a cycle, by SM time. All of it is unknown unless
    /// the process list is complete and the SM time of every process is known.
    fn of(cycle: &DeviceActivity, time: Duration) -> Self {
        let none = vec![0.0; cycle.processes.len()];
        let shares: Result<Vec<f64>, _> =
            cycle.processes.iter().map(|process| process.usage.sm()).collect();
        let (Ok(shares), Ok(watched), true) = (shares, cycle.window, cycle.complete) else {
            return Self { processes: none, idle: 0.0, unknown: 1.0 };
        };
        // The energy of the time outside the utilization window is unknown, except for that of
        // samples that will be delivered later, as those of the last window were.
        let gap = time.saturating_sub(watched.span);
        let covered =
            if gap <= SAMPLE_DELAY_MAX { 1.0 } else { watched.span.div_duration_f64(time) };
        let all = shares.iter().sum::<f64>() + watched.unlisted_sm;
        if all > 0.0 {
            let processes = shares.iter().map(|share| share / all * covered).collect();
            let unlisted = watched.unlisted_sm / all * covered;
            Self { processes, idle: 0.0, unknown: unlisted + (1.0 - covered) }
        } else {
            Self { processes: none, idle: covered, unknown: 1.0 - covered }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::attribute::activity::{ContainerActivity, ProcessActivity};
    use crate::model::Unresolved;
    use crate::model::{EngineUtilization, Missing, PodRef, Usage};
    use crate::sample::process_utilization::WindowSummary;
    use crate::selection::{FamilyRequest, SelectionScope};

    const STEP: Duration = Duration::from_secs(5);
    const UNKNOWN: Owner = Owner::Unknown(Unresolved::NoPod);

    fn selection() -> Selection {
        let rows =
            crate::catalog::ACCUMULATED.iter().filter_map(|row| FamilyRequest::named(row.name));
        Selection::of(&rows.collect::<Vec<_>>(), SelectionScope::default())
    }

    fn container_ref(uid: &str) -> ContainerIdentity {
        let pod = PodRef { uid: uid.into(), namespace: "ml".into(), name: "train".into() };
        ContainerIdentity { pod, name: "main".into() }
    }

    fn name_label(name: &str) -> Labels {
        Labels::from_pairs([("name", name)].into_iter())
    }

    fn process(pid: u32, owner: Owner, sm: Reading) -> ProcessActivity {
        let labels = Some(name_label(&format!("pid {pid}")));
        let utilization = sm.map(|sm| EngineUtilization { sm, ..EngineUtilization::default() });
        let usage = Usage { memory: Ok(0), utilization };
        ProcessActivity { id: ProcessId { pid, started: 1 }, owner, usage, labels }
    }

    /// A cycle of five seconds. Its containers are the owners of its processes.
    fn cycle(number: u32, joules: f64, processes: Vec<ProcessActivity>) -> DeviceActivity {
        let mut containers: Vec<ContainerActivity> = Vec::new();
        for process in &processes {
            let Owner::Container(owner) = &process.owner else { continue };
            match containers.iter_mut().find(|container| container.container.matches(owner)) {
                Some(known) => known.usage = known.usage.with(process.usage),
                None => containers.push(ContainerActivity {
                    container: owner.clone(),
                    usage: process.usage,
                    labels: Some(name_label(&owner.pod.uid)),
                }),
            }
        }
        DeviceActivity {
            device: "GPU-0".into(),
            at: STEP * number,
            window: Ok(WindowSummary { span: STEP, unlisted_sm: 0.0 }),
            energy: Ok(joules),
            complete: true,
            processes,
            containers,
            owner_labels: OwnerClass::OF_ENERGY
                .map(|doer| (doer, name_label(doer.label())))
                .to_vec(),
        }
    }

    /// Series of one cycle: family, value of the label `name`, value.
    struct SeriesValues(Vec<(&'static str, String, f64)>);

    impl SeriesValues {
        fn of(&self, family: &str, name: &str) -> Option<f64> {
            let found = self.0.iter().find(|(row, labels, _)| *row == family && labels == name)?;
            Some(found.2)
        }
    }

    fn accumulate(accumulators: &mut UsageAccumulators, cycle: &DeviceActivity) -> SeriesValues {
        let selection = selection();
        let series = accumulators.accumulate(&selection, std::slice::from_ref(cycle), cycle.at);
        let values = series.into_iter().map(|series| {
            let row = selection.accumulated.families()[series.family].metric.name;
            let name = series.labels.value("name").unwrap_or_default();
            (row, name, series.reading.unwrap_or(f64::NAN))
        });
        SeriesValues(values.collect())
    }

    const PROCESS: &str = "DCGM_CUSTOM_PROCESS_SM_SECONDS_TOTAL";
    const CONTAINER: &str = "DCGM_CUSTOM_CONTAINER_SM_SECONDS_TOTAL";
    const IDLE: &str = "DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL";
    const LAST: &str = "DCGM_CUSTOM_CONTAINER_LAST_ACTIVE_SECONDS";
    const JOULES: &str = "DCGM_CUSTOM_CONTAINER_ENERGY_JOULES_TOTAL";
    const DEVICE: &str = "DCGM_CUSTOM_DEV_ENERGY_JOULES_TOTAL";

    #[test]
    fn usage_accumulates_per_process_and_per_container() {
        let mut accumulators = UsageAccumulators::default();
        let owner = || Owner::Container(container_ref("a"));
        let at = |number, joules| {
            let both = vec![process(1, owner(), Ok(30.0)), process(2, owner(), Ok(10.0))];
            cycle(number, joules, [both, vec![process(3, Owner::Host, Ok(40.0))]].concat())
        };
        accumulate(&mut accumulators, &at(1, 1000.0));
        let values = accumulate(&mut accumulators, &at(2, 1400.0));
        assert_eq!(values.of(PROCESS, "pid 1"), Some(3.0));
        assert_eq!(values.of(CONTAINER, "a"), Some(4.0));
        assert_eq!(values.of(IDLE, "a"), Some(0.0));
        assert_eq!(values.of(LAST, "a"), Some(0.0));
        assert_eq!(values.of(JOULES, "a"), Some(200.0));
        assert_eq!(values.of(DEVICE, "host"), Some(200.0));
        let again = accumulate(&mut accumulators, &at(2, 1400.0));
        assert_eq!(again.0, values.0, "the same sample is accumulated once");
    }

    #[test]
    fn idle_container_accumulates_idle_time_and_no_energy() {
        let mut accumulators = UsageAccumulators::default();
        let owned = |sm| vec![process(1, Owner::Container(container_ref("a")), Ok(sm))];
        accumulate(&mut accumulators, &cycle(1, 0.0, owned(5.0)));
        accumulate(&mut accumulators, &cycle(2, 50.0, owned(0.0)));
        let last = accumulate(&mut accumulators, &cycle(3, 120.0, owned(0.0)));
        assert_eq!((last.of(IDLE, "a"), last.of(LAST, "a")), (Some(10.0), Some(10.0)));
        let idle = last.of(DEVICE, OwnerClass::None.label());
        assert_eq!((last.of(JOULES, "a"), idle), (Some(0.0), Some(120.0)));
    }

    #[test]
    fn window_in_which_a_process_ended_is_not_idle() {
        let mut accumulators = UsageAccumulators::default();
        let owned = |pids: &[(u32, f64)]| {
            let owned = |(pid, sm): &(u32, f64)| {
                process(*pid, Owner::Container(container_ref("a")), Ok(*sm))
            };
            pids.iter().map(owned).collect()
        };
        let mut idle = Vec::new();
        let cycles: [&[(u32, f64)]; 4] =
            [&[(1, 0.0), (2, 0.0)], &[(1, 0.0), (2, 0.0)], &[(1, 0.0)], &[(1, 0.0)]];
        for (number, pids) in (1..).zip(cycles) {
            let values = accumulate(&mut accumulators, &cycle(number, 0.0, owned(pids)));
            idle.push(values.of(IDLE, "a").unwrap());
        }
        assert_eq!(idle, [0.0, 5.0, 5.0, 10.0]);
    }

    #[test]
    fn idle_time_in_a_gap_between_readings_does_not_count() {
        let mut accumulators = UsageAccumulators::default();
        let owned = || vec![process(1, Owner::Container(container_ref("a")), Ok(0.0))];
        accumulate(&mut accumulators, &cycle(1, 0.0, owned()));
        let after_gap = DeviceActivity {
            window: Ok(WindowSummary { span: STEP * 8, unlisted_sm: 0.0 }),
            ..cycle(2, 0.0, owned())
        };
        assert_eq!(accumulate(&mut accumulators, &after_gap).of(IDLE, "a"), Some(5.0));
        let late_sample = DeviceActivity {
            window: Ok(WindowSummary { span: STEP + SAMPLE_DELAY_MAX, unlisted_sm: 0.0 }),
            ..cycle(3, 0.0, owned())
        };
        assert_eq!(accumulate(&mut accumulators, &late_sample).of(IDLE, "a"), Some(12.0));
        accumulate(&mut accumulators, &late_sample);
        let after_hang = DeviceActivity {
            window: Ok(WindowSummary { span: STEP * 2, unlisted_sm: 0.0 }),
            ..cycle(5, 0.0, owned())
        };
        assert_eq!(accumulate(&mut accumulators, &after_hang).of(IDLE, "a"), Some(12.0));
    }

    #[test]
    fn energy_has_no_owner_if_the_use_of_one_process_is_unknown() {
        let attributed = |last: DeviceActivity| {
            let mut accumulators = UsageAccumulators::default();
            accumulate(&mut accumulators, &cycle(1, 0.0, last.processes.clone()));
            let values = accumulate(&mut accumulators, &last);
            let joules = OwnerClass::OF_ENERGY.map(|doer| values.of(DEVICE, doer.label()));
            (joules, values.of(JOULES, "a"), values.of(CONTAINER, "a"))
        };
        let owned = |sm| process(1, Owner::Container(container_ref("a")), sm);
        let unknown = ([0.0, 0.0, 0.0, 100.0].map(Some), Some(0.0));
        let mps = vec![owned(Ok(50.0)), process(2, Owner::Host, Err(Missing::Unsupported))];
        assert_eq!(attributed(cycle(2, 100.0, mps)), (unknown.0, unknown.1, Some(5.0)));
        let hidden = DeviceActivity { complete: false, ..cycle(2, 100.0, vec![owned(Ok(50.0))]) };
        assert_eq!(attributed(hidden), (unknown.0, unknown.1, Some(5.0)));
        let gap = DeviceActivity {
            window: Err(Missing::Pending),
            ..cycle(2, 100.0, vec![owned(Err(Missing::Pending))])
        };
        assert_eq!(attributed(gap), (unknown.0, unknown.1, None), "its SM time is withheld");
        // Processes that ended, and time outside the utilization window, have a share of their own.
        let ended = WindowSummary { span: STEP, unlisted_sm: 50.0 };
        let ended = DeviceActivity { window: Ok(ended), ..cycle(2, 100.0, vec![owned(Ok(50.0))]) };
        assert_eq!(attributed(ended).0, [50.0, 0.0, 0.0, 50.0].map(Some));
        let long_ago = cycle(5, 100.0, vec![owned(Ok(50.0))]);
        assert_eq!(attributed(long_ago).0, [25.0, 0.0, 0.0, 75.0].map(Some));
        let unresolved = vec![owned(Ok(50.0)), process(2, UNKNOWN, Ok(50.0))];
        let attributed = attributed(cycle(2, 100.0, unresolved)).0;
        assert_eq!(attributed, [50.0, 0.0, 0.0, 50.0].map(Some));
    }

    #[test]
    fn energy_counter_reset_subtracts_nothing() {
        let mut accumulators = UsageAccumulators::default();
        let host = |number, joules| cycle(number, joules, vec![process(1, Owner::Host, Ok(9.0))]);
        accumulate(&mut accumulators, &host(1, 900.0));
        accumulate(&mut accumulators, &host(2, 1000.0));
        assert_eq!(accumulate(&mut accumulators, &host(3, 7.0)).of(DEVICE, "host"), Some(100.0));
        assert_eq!(accumulate(&mut accumulators, &host(4, 17.0)).of(DEVICE, "host"), Some(110.0));
        let unread = DeviceActivity { energy: Err(Missing::Failed(999)), ..host(5, 0.0) };
        assert_eq!(accumulate(&mut accumulators, &unread).of(DEVICE, "host"), None);
    }

    #[test]
    fn container_that_returns_starts_at_zero() {
        let mut accumulators = UsageAccumulators::default();
        let of = |number, uid, sm| {
            cycle(number, 0.0, vec![process(1, Owner::Container(container_ref(uid)), Ok(sm))])
        };
        accumulate(&mut accumulators, &of(1, "a", 100.0));
        // The kubelet's PodResources API has no UID: an equal name counts as the same pod.
        assert_eq!(accumulate(&mut accumulators, &of(2, "", 100.0)).of(CONTAINER, ""), Some(10.0));
        assert_eq!(accumulate(&mut accumulators, &of(3, "b", 0.0)).of(CONTAINER, "b"), Some(0.0));
        let values = accumulate(&mut accumulators, &cycle(4, 0.0, Vec::new()));
        assert_eq!(values.of(CONTAINER, "b"), None);
        assert_eq!(accumulate(&mut accumulators, &of(5, "b", 0.0)).of(IDLE, "b"), Some(0.0));
        assert_eq!(accumulate(&mut accumulators, &of(6, "b", 0.0)).of(IDLE, "b"), Some(5.0));
    }

    #[test]
    fn absent_devices_and_unselected_families_have_no_accumulators() {
        let mut accumulators = UsageAccumulators::default();
        accumulate(&mut accumulators, &cycle(1, 0.0, Vec::new()));
        accumulators.accumulate(&selection(), &[], STEP + GPU_RETENTION);
        assert_eq!(accumulators.0.len(), 1);
        accumulators.accumulate(&selection(), &[], 2 * STEP + GPU_RETENTION);
        assert_eq!(accumulators.0.len(), 0);
        accumulate(&mut accumulators, &cycle(1, 0.0, Vec::new()));
        assert!(accumulators.accumulate(&Selection::default(), &[], STEP).is_empty());
        assert_eq!(accumulators.0.len(), 0);
    }

    fn any_process() -> impl Strategy<Value = ProcessActivity> {
        let owners = prop_oneof![
            4 => prop_oneof!["a", "b", "c"].prop_map(|uid| Owner::Container(container_ref(&uid))),
            1 => Just(Owner::Host),
            1 => Just(Owner::NonPodContainer),
            1 => Just(UNKNOWN),
        ];
        let sm = prop_oneof![9 => (0.0..=40.0).prop_map(Ok), 1 => Just(Err(Missing::Pending))];
        (1_u32..6, owners, sm).prop_map(|(pid, owner, sm)| process(pid, owner, sm))
    }

    fn any_cycle() -> impl Strategy<Value = (Vec<ProcessActivity>, f64, f64, bool, bool)> {
        let processes = prop::collection::vec(any_process(), 0..5);
        (processes, 0.0..2000.0, 0.0..30.0, prop::bool::weighted(0.9), prop::bool::weighted(0.9))
    }

    proptest! {
        #[test]
        fn energy_shares_add_up_and_counters_are_monotonic(
            cycles in prop::collection::vec(any_cycle(), 2..30)
        ) {
            let mut accumulators = UsageAccumulators::default();
            let (mut counter, mut last) = (1e6, BTreeMap::new());
            for (number, (mut processes, used, unlisted_sm, complete, covered)) in (1..).zip(cycles) {
                processes.sort_by_key(|process| process.id);
                processes.dedup_by_key(|process| process.id);
                counter += if number == 1 { 0.0 } else { used };
                let window = if covered {
                    Ok(WindowSummary { span: STEP, unlisted_sm })
                } else {
                    Err(Missing::Pending)
                };
                let cycle = DeviceActivity { window, complete, ..cycle(number, counter, processes) };
                let values = accumulate(&mut accumulators, &cycle);
                let parts: f64 = OwnerClass::OF_ENERGY.iter().map(|d| values.of(DEVICE, d.label()).unwrap()).sum();
                prop_assert!((parts - (counter - 1e6)).abs() < 1e-6, "{parts} of {}", counter - 1e6);
                let containers: f64 =
                    ["a", "b", "c"].iter().filter_map(|uid| values.of(JOULES, uid)).sum();
                prop_assert!(containers <= values.of(DEVICE, "container").unwrap() + 1e-6);
                let mut now = BTreeMap::new();
                for (family, name, value) in values.0 {
                    prop_assert!(value >= 0.0 && value.is_finite(), "{family} {name} {value}");
                    if family.ends_with("_TOTAL")
                        && let Some(before) = last.get(&(family, name.clone()))
                    {
                        prop_assert!(value >= *before, "{family} {name}: {before} → {value}");
                    }
                    now.insert((family, name), value);
                }
                last = now;
            }
        }
    }
}
