//! What was used in all: seconds of SM time, joules, and time without use.
//!
//! Each cycle's means are booked over the time that they are means of. What happened while nobody
//! could look is booked to nobody: no counter runs ahead of what was seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::attribute::activity::{Activity, Doer};
use crate::attribute::owner::{Holder, Owner};
use crate::catalog::Account;
use crate::labels::Labels;
use crate::model::{ProcessId, Reading};
use crate::policy::GPU_REMEMBERED;
use crate::selection::Selection;
use crate::snapshot::Series;

/// The ring counts in microseconds, read by read.
const ROUNDING: Duration = Duration::from_millis(1);

/// All accounts of a node, by device.
#[derive(Debug, Default)]
pub struct Accounts(BTreeMap<Arc<str>, Device>);

#[derive(Debug, Default)]
struct Device {
    at: Duration,
    /// What the GPU's own counter said last, and when.
    meter: Option<(Duration, f64)>,
    joules: BTreeMap<Doer, f64>,
    containers: Vec<Container>,
    processes: BTreeMap<ProcessId, f64>,
}

#[derive(Debug)]
struct Container {
    holder: Holder,
    since: Duration,
    sm_seconds: f64,
    joules: f64,
    idle_seconds: f64,
    active_at: Duration,
}

impl Accounts {
    /// Books what happened in a cycle that ended at `now` (monotonic), and tells what is chosen.
    pub fn book(
        &mut self,
        selection: &Selection,
        activity: &[Activity],
        now: Duration,
    ) -> Vec<Series> {
        if selection.account.is_empty() {
            self.0.clear();
            return Vec::new();
        }
        let mut series = Vec::new();
        for cycle in activity {
            let device = self.0.entry(Arc::clone(&cycle.device)).or_default();
            device.book(cycle);
            for (family, shown) in selection.account.families().iter().enumerate() {
                let told = device.told(shown.metric.source, cycle, now);
                let number = |(labels, value): (&Labels, f64)| Series {
                    family,
                    labels: labels.clone(),
                    reading: Ok(value),
                };
                series.extend(told.into_iter().map(number));
            }
        }
        self.0.retain(|_, device| now.saturating_sub(device.at) <= GPU_REMEMBERED);
        series
    }
}

impl Device {
    fn book(&mut self, cycle: &Activity) {
        if self.at == cycle.at {
            // The device has not answered since.
            return;
        }
        self.at = cycle.at;
        self.open(cycle);
        self.book_energy(cycle);
        let span = cycle.watched.map_or(0.0, |watched| watched.span.as_secs_f64());
        for process in &cycle.processes {
            if let Ok(percent) = process.usage.sm() {
                *self.processes.entry(process.id).or_default() += percent / 100.0 * span;
            }
        }
        for told in &cycle.containers {
            let Some(container) = find(&mut self.containers, &told.holder) else { continue };
            match told.usage.sm() {
                Ok(percent) if percent > 0.0 => {
                    container.sm_seconds += percent / 100.0 * span;
                    container.active_at = cycle.at;
                }
                // What was before it came is not its own.
                Ok(_) if container.since < cycle.at => container.idle_seconds += span,
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Whoever is on the device no more has no account any more, and begins anew if it comes back.
    fn open(&mut self, cycle: &Activity) {
        self.processes.retain(|id, _| cycle.processes.iter().any(|process| process.id == *id));
        let told = |holder: &Holder| cycle.containers.iter().any(|told| told.holder.is(holder));
        self.containers.retain(|container| told(&container.holder));
        for told in &cycle.containers {
            match find(&mut self.containers, &told.holder) {
                // A name alone might be another pod's the next time.
                Some(container) if !told.holder.pod.uid.is_empty() => {
                    container.holder = told.holder.clone();
                }
                Some(_) => {}
                None => self.containers.push(Container {
                    holder: told.holder.clone(),
                    since: cycle.at,
                    sm_seconds: 0.0,
                    joules: 0.0,
                    idle_seconds: 0.0,
                    active_at: cycle.at,
                }),
            }
        }
    }

    /// Shares out what the GPU used since its meter was read, by SM time.
    fn book_energy(&mut self, cycle: &Activity) {
        let Ok(reads) = cycle.energy else { return };
        let before = self.meter.replace((cycle.at, reads));
        let Some((read_at, before)) = before else { return };
        // A meter that has gone back was reset: how much was used is not known.
        let used = if reads >= before { reads - before } else { 0.0 };
        let shares = Shares::of(cycle, cycle.at.saturating_sub(read_at));
        for (process, share) in cycle.processes.iter().zip(&shares.processes) {
            *self.joules.entry(Doer::from(&process.owner)).or_default() += used * share;
            if let Owner::Container(holder) = &process.owner
                && let Some(container) = find(&mut self.containers, holder)
            {
                container.joules += used * share;
            }
        }
        *self.joules.entry(Doer::Nobody).or_default() += used * shares.nobody;
        *self.joules.entry(Doer::Unknown).or_default() += used * shares.unknown;
    }

    /// The numbers of one family, with the labels that they are told under.
    fn told<'c>(
        &self,
        account: Account,
        cycle: &'c Activity,
        now: Duration,
    ) -> Vec<(&'c Labels, f64)> {
        match account {
            Account::ProcessSmTime => {
                let processes = cycle.processes.iter().filter(|process| process.usage.sm().is_ok());
                let told = processes.filter_map(|process| {
                    Some((process.labels.as_ref()?, *self.processes.get(&process.id)?))
                });
                told.collect()
            }
            Account::ContainerSmTime => self.of_containers(cycle, |c, sm| sm.map(|_| c.sm_seconds)),
            Account::ContainerIdleTime => {
                self.of_containers(cycle, |c, sm| sm.map(|_| c.idle_seconds))
            }
            Account::ContainerLastActive => self.of_containers(cycle, |c, sm| {
                sm.map(|_| now.saturating_sub(c.active_at).as_secs_f64())
            }),
            Account::ContainerEnergy => {
                self.of_containers(cycle, |c, _| cycle.energy.map(|_| c.joules))
            }
            Account::Energy if cycle.energy.is_err() => Vec::new(),
            Account::Energy => {
                let joules = |doer| self.joules.get(doer).copied().unwrap_or_default();
                cycle.doers.iter().map(|(doer, labels)| (labels, joules(doer))).collect()
            }
        }
    }

    fn of_containers<'c>(
        &self,
        cycle: &'c Activity,
        number: impl Fn(&Container, Reading) -> Reading,
    ) -> Vec<(&'c Labels, f64)> {
        let told = cycle.containers.iter().filter_map(|told| {
            let container = self.containers.iter().find(|c| c.holder.is(&told.holder))?;
            Some((&told.labels, number(container, told.usage.sm()).ok()?))
        });
        told.collect()
    }
}

fn find<'a>(containers: &'a mut [Container], holder: &Holder) -> Option<&'a mut Container> {
    containers.iter_mut().find(|container| container.holder.is(holder))
}

/// Parts of what a GPU used; together they are 1.
struct Shares {
    /// Of each process, in the order of the cycle's.
    processes: Vec<f64>,
    nobody: f64,
    unknown: f64,
}

impl Shares {
    /// The shares of what was used in the `time` before a cycle. Where it is not known of everybody how
    /// much they used, it is not known of anybody.
    fn of(cycle: &Activity, time: Duration) -> Self {
        let none = vec![0.0; cycle.processes.len()];
        let shares: Result<Vec<f64>, _> =
            cycle.processes.iter().map(|process| process.usage.sm()).collect();
        let (Ok(shares), Ok(watched), true) = (shares, cycle.watched, cycle.complete) else {
            return Self { processes: none, nobody: 0.0, unknown: 1.0 };
        };
        // Somebody may have used it in the time that the shares say nothing of.
        let missed = time.saturating_sub(watched.span);
        let seen = if missed < ROUNDING { 1.0 } else { watched.span.div_duration_f64(time) };
        let all = shares.iter().sum::<f64>() + watched.unlisted_sm;
        if all > 0.0 {
            let processes = shares.iter().map(|share| share / all * seen).collect();
            let unlisted = watched.unlisted_sm / all * seen;
            Self { processes, nobody: 0.0, unknown: unlisted + (1.0 - seen) }
        } else {
            Self { processes: none, nobody: seen, unknown: 1.0 - seen }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::attribute::activity::{ContainerActivity, ProcessActivity};
    use crate::attribute::owner::Unresolved;
    use crate::model::{EngineShares, Missing, PodRef, Usage};
    use crate::sample::ring::Watched;
    use crate::selection::{Frame, Request};

    const STEP: Duration = Duration::from_secs(5);
    const UNKNOWN: Owner = Owner::Unknown(Unresolved::NoPod);

    fn selection() -> Selection {
        let rows = crate::catalog::ACCOUNT.iter().filter_map(|row| Request::named(row.name));
        Selection::of(&rows.collect::<Vec<_>>(), Frame::default())
    }

    fn holder(uid: &str) -> Holder {
        let pod = PodRef { uid: uid.into(), namespace: "ml".into(), name: "train".into() };
        Holder { pod, container: "main".into() }
    }

    fn named(name: &str) -> Labels {
        Labels::of([("name", name)].into_iter())
    }

    fn process(pid: u32, owner: Owner, sm: Reading) -> ProcessActivity {
        let labels = Some(named(&format!("pid {pid}")));
        let utilization = sm.map(|sm| EngineShares { sm, ..EngineShares::default() });
        let usage = Usage { memory: Ok(0), utilization };
        ProcessActivity { id: ProcessId { pid, started: 1 }, owner, usage, labels }
    }

    /// A cycle of five seconds, and what it tells: containers are those that processes name.
    fn cycle(turn: u32, joules: f64, processes: Vec<ProcessActivity>) -> Activity {
        let mut containers: Vec<ContainerActivity> = Vec::new();
        for process in &processes {
            let Owner::Container(holder) = &process.owner else { continue };
            match containers.iter_mut().find(|container| container.holder.is(holder)) {
                Some(known) => known.usage = known.usage.with(process.usage),
                None => containers.push(ContainerActivity {
                    holder: holder.clone(),
                    usage: process.usage,
                    labels: named(&holder.pod.uid),
                }),
            }
        }
        Activity {
            device: "GPU-0".into(),
            at: STEP * turn,
            watched: Ok(Watched { span: STEP, unlisted_sm: 0.0 }),
            energy: Ok(joules),
            complete: true,
            processes,
            containers,
            doers: Doer::ALL.map(|doer| (doer, named(doer.label()))).to_vec(),
        }
    }

    /// The number of a family under a name, as the last cycle told it.
    struct Told(Vec<(&'static str, String, f64)>);

    impl Told {
        fn of(&self, family: &str, name: &str) -> Option<f64> {
            let found = self.0.iter().find(|(row, labels, _)| *row == family && labels == name)?;
            Some(found.2)
        }
    }

    fn book(accounts: &mut Accounts, cycle: &Activity) -> Told {
        let selection = selection();
        let series = accounts.book(&selection, std::slice::from_ref(cycle), cycle.at);
        let told = series.into_iter().map(|series| {
            let row = selection.account.families()[series.family].metric.name;
            let name = series.labels.value("name").unwrap_or_default();
            (row, name, series.reading.unwrap_or(f64::NAN))
        });
        Told(told.collect())
    }

    const PROCESS: &str = "DCGM_CUSTOM_PROCESS_SM_SECONDS_TOTAL";
    const CONTAINER: &str = "DCGM_CUSTOM_CONTAINER_SM_SECONDS_TOTAL";
    const IDLE: &str = "DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL";
    const LAST: &str = "DCGM_CUSTOM_CONTAINER_LAST_ACTIVE_SECONDS";
    const JOULES: &str = "DCGM_CUSTOM_CONTAINER_ENERGY_JOULES_TOTAL";
    const DEVICE: &str = "DCGM_CUSTOM_DEV_ENERGY_JOULES_TOTAL";

    #[test]
    fn what_is_used_adds_up_by_process_and_by_container() {
        let mut accounts = Accounts::default();
        let own = || Owner::Container(holder("a"));
        let at = |turn, joules| {
            let both = vec![process(1, own(), Ok(30.0)), process(2, own(), Ok(10.0))];
            cycle(turn, joules, [both, vec![process(3, Owner::Host, Ok(40.0))]].concat())
        };
        book(&mut accounts, &at(1, 1000.0));
        let told = book(&mut accounts, &at(2, 1400.0));
        assert_eq!(told.of(PROCESS, "pid 1"), Some(3.0));
        assert_eq!(told.of(CONTAINER, "a"), Some(4.0));
        assert_eq!(told.of(IDLE, "a"), Some(0.0));
        assert_eq!(told.of(LAST, "a"), Some(0.0));
        assert_eq!(told.of(JOULES, "a"), Some(200.0));
        assert_eq!(told.of(DEVICE, "host"), Some(200.0));
        let again = book(&mut accounts, &at(2, 1400.0));
        assert_eq!(again.0, told.0, "the same answer counts once");
    }

    #[test]
    fn a_container_that_does_nothing_is_idle_and_its_gpu_serves_nobody() {
        let mut accounts = Accounts::default();
        let own = |sm| vec![process(1, Owner::Container(holder("a")), Ok(sm))];
        book(&mut accounts, &cycle(1, 0.0, own(5.0)));
        book(&mut accounts, &cycle(2, 50.0, own(0.0)));
        let last = book(&mut accounts, &cycle(3, 120.0, own(0.0)));
        assert_eq!((last.of(IDLE, "a"), last.of(LAST, "a")), (Some(10.0), Some(10.0)));
        assert_eq!((last.of(JOULES, "a"), last.of(DEVICE, "nobody")), (Some(0.0), Some(120.0)));
    }

    #[test]
    fn what_is_not_known_of_one_is_charged_to_nobody() {
        let charged = |last: Activity| {
            let mut accounts = Accounts::default();
            book(&mut accounts, &cycle(1, 0.0, last.processes.clone()));
            let told = book(&mut accounts, &last);
            let joules = Doer::ALL.map(|doer| told.of(DEVICE, doer.label()));
            (joules, told.of(JOULES, "a"), told.of(CONTAINER, "a"))
        };
        let own = |sm| process(1, Owner::Container(holder("a")), sm);
        let unknown = ([0.0, 0.0, 0.0, 100.0].map(Some), Some(0.0));
        let mps = vec![own(Ok(50.0)), process(2, Owner::Host, Err(Missing::Unsupported))];
        assert_eq!(charged(cycle(2, 100.0, mps)), (unknown.0, unknown.1, Some(5.0)));
        let hidden = Activity { complete: false, ..cycle(2, 100.0, vec![own(Ok(50.0))]) };
        assert_eq!(charged(hidden), (unknown.0, unknown.1, Some(5.0)));
        let hole = Activity {
            watched: Err(Missing::Pending),
            ..cycle(2, 100.0, vec![own(Err(Missing::Pending))])
        };
        assert_eq!(charged(hole), (unknown.0, unknown.1, None), "and its time is not told");
        // Who has ended meanwhile, and time that nobody watched, are shares like any other.
        let ended = Watched { span: STEP, unlisted_sm: 50.0 };
        let ended = Activity { watched: Ok(ended), ..cycle(2, 100.0, vec![own(Ok(50.0))]) };
        assert_eq!(charged(ended).0, [50.0, 0.0, 0.0, 50.0].map(Some));
        let long_ago = cycle(5, 100.0, vec![own(Ok(50.0))]);
        assert_eq!(charged(long_ago).0, [25.0, 0.0, 0.0, 75.0].map(Some));
        let not_ours = vec![own(Ok(50.0)), process(2, UNKNOWN, Ok(50.0))];
        let charged = charged(cycle(2, 100.0, not_ours)).0;
        assert_eq!(charged, [50.0, 0.0, 0.0, 50.0].map(Some));
    }

    #[test]
    fn a_meter_that_was_reset_takes_nothing_back() {
        let mut accounts = Accounts::default();
        let own = |turn, joules| cycle(turn, joules, vec![process(1, Owner::Host, Ok(9.0))]);
        book(&mut accounts, &own(1, 900.0));
        book(&mut accounts, &own(2, 1000.0));
        assert_eq!(book(&mut accounts, &own(3, 7.0)).of(DEVICE, "host"), Some(100.0));
        assert_eq!(book(&mut accounts, &own(4, 17.0)).of(DEVICE, "host"), Some(110.0));
        let unread = Activity { energy: Err(Missing::Failed(999)), ..own(5, 0.0) };
        assert_eq!(book(&mut accounts, &unread).of(DEVICE, "host"), None);
    }

    #[test]
    fn whoever_comes_back_begins_anew_even_under_the_same_name() {
        let mut accounts = Accounts::default();
        let of = |turn, uid, sm| {
            cycle(turn, 0.0, vec![process(1, Owner::Container(holder(uid)), Ok(sm))])
        };
        book(&mut accounts, &of(1, "a", 100.0));
        // A kubelet alone names no UID: it is the same pod as far as anybody knows.
        assert_eq!(book(&mut accounts, &of(2, "", 100.0)).of(CONTAINER, ""), Some(10.0));
        assert_eq!(book(&mut accounts, &of(3, "b", 0.0)).of(CONTAINER, "b"), Some(0.0));
        let told = book(&mut accounts, &cycle(4, 0.0, Vec::new()));
        assert_eq!(told.of(CONTAINER, "b"), None);
        assert_eq!(book(&mut accounts, &of(5, "b", 0.0)).of(IDLE, "b"), Some(0.0));
        assert_eq!(book(&mut accounts, &of(6, "b", 0.0)).of(IDLE, "b"), Some(5.0));
    }

    #[test]
    fn devices_that_are_gone_and_families_that_nobody_wants_cost_nothing() {
        let mut accounts = Accounts::default();
        book(&mut accounts, &cycle(1, 0.0, Vec::new()));
        accounts.book(&selection(), &[], STEP + GPU_REMEMBERED);
        assert_eq!(accounts.0.len(), 1);
        accounts.book(&selection(), &[], 2 * STEP + GPU_REMEMBERED);
        assert_eq!(accounts.0.len(), 0);
        book(&mut accounts, &cycle(1, 0.0, Vec::new()));
        assert!(accounts.book(&Selection::default(), &[], STEP).is_empty());
        assert_eq!(accounts.0.len(), 0);
    }

    fn some_process() -> impl Strategy<Value = ProcessActivity> {
        let owners = prop_oneof![
            4 => prop_oneof!["a", "b", "c"].prop_map(|uid| Owner::Container(holder(&uid))),
            1 => Just(Owner::Host),
            1 => Just(Owner::Stray),
            1 => Just(UNKNOWN),
        ];
        let sm = prop_oneof![9 => (0.0..=40.0).prop_map(Ok), 1 => Just(Err(Missing::Pending))];
        (1_u32..6, owners, sm).prop_map(|(pid, owner, sm)| process(pid, owner, sm))
    }

    fn some_cycle() -> impl Strategy<Value = (Vec<ProcessActivity>, f64, f64, bool, bool)> {
        let processes = prop::collection::vec(some_process(), 0..5);
        (processes, 0.0..2000.0, 0.0..30.0, prop::bool::weighted(0.9), prop::bool::weighted(0.9))
    }

    proptest! {
        #[test]
        fn the_parts_are_the_gpus_energy_and_no_counter_goes_back(
            cycles in prop::collection::vec(some_cycle(), 2..30)
        ) {
            let mut accounts = Accounts::default();
            let (mut meter, mut last) = (1e6, BTreeMap::new());
            for (turn, (mut processes, used, unlisted_sm, complete, seen)) in (1..).zip(cycles) {
                processes.sort_by_key(|process| process.id);
                processes.dedup_by_key(|process| process.id);
                meter += if turn == 1 { 0.0 } else { used };
                let watched = if seen {
                    Ok(Watched { span: STEP, unlisted_sm })
                } else {
                    Err(Missing::Pending)
                };
                let cycle = Activity { watched, complete, ..cycle(turn, meter, processes) };
                let told = book(&mut accounts, &cycle);
                let parts: f64 = Doer::ALL.iter().map(|d| told.of(DEVICE, d.label()).unwrap()).sum();
                prop_assert!((parts - (meter - 1e6)).abs() < 1e-6, "{parts} of {}", meter - 1e6);
                let of_containers: f64 =
                    ["a", "b", "c"].iter().filter_map(|uid| told.of(JOULES, uid)).sum();
                prop_assert!(of_containers <= told.of(DEVICE, "container").unwrap() + 1e-6);
                let mut now = BTreeMap::new();
                for (family, name, value) in told.0 {
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
