//! The reference: what every exposition of a world must fulfil. It knows the world and reads nothing of the
//! exporter but the text of its exposition.

mod allocations;
mod certainty;
mod completeness;
pub(crate) mod coverage;
mod idle;
mod idle_seconds;
mod processes;
mod sums;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::idle_seconds::IdleTimes;
use super::series::{ProcessSeries, Received, Subject};
use super::timeline::{Container, Device, FaultKind, Mps, Ms, Pod, Process, World};
use crate::exposition;

/// A device reading is not published when it is older.
pub(super) const MAX_AGE: Ms = 15_000;
/// Time between two readings.
pub(super) const CYCLE: Ms = 5_000;
/// A process may outlive its pod by this much before it is illegal.
pub(super) const OUTLIVED: Ms = 600_000;
/// Everything is attributed this long after it has changed.
pub(super) const SETTLED: Ms = 15_000;
/// Sources have recovered this long after a fault.
pub(super) const RECOVERED: Ms = 50_000;
/// A GPU has recovered this long after a fault, and a process that could not be read.
pub(super) const DRIVER_RECOVERED: Ms = 35_000;
/// Longest delay of a status update.
pub(super) const STATUS_LAG: Ms = 3_500;

/// A violated law.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// The law and the kind of violation.
    pub(crate) kind: &'static str,
    pub(crate) detail: String,
}

/// The result of a check.
pub(super) type Checked = Result<(), Violation>;

pub(super) fn violation<T>(kind: &'static str, detail: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { kind, detail: detail.into() })
}

/// Labels of a series by name.
type LabelSet = BTreeMap<String, String>;

/// The reference, with what it remembers of the expositions of one exporter process.
#[derive(Default)]
pub(crate) struct Reference {
    started: Option<Ms>,
    /// By process, device and metric.
    labels: BTreeMap<(usize, Device, String), (String, LabelSet)>,
    idle_times: IdleTimes,
    /// Number of statements by kind.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

/// One exposition and the truth.
pub(super) struct Case<'a> {
    pub(super) world: &'a World,
    pub(super) received: &'a Received,
    pub(super) series: Vec<ProcessSeries<'a>>,
}

impl Reference {
    /// The violations of an exposition.
    pub(crate) fn check(
        &mut self,
        world: &World,
        received: &Received,
        text: &str,
    ) -> Vec<Violation> {
        self.check_text(world, received, text)
            .unwrap_or_else(|detail| vec![Violation { kind: "8: exposition", detail }])
    }

    fn check_text(
        &mut self,
        world: &World,
        received: &Received,
        text: &str,
    ) -> Result<Vec<Violation>, String> {
        let samples = exposition::parse(text)?;
        let series = ProcessSeries::all(&samples, world)?;
        if self.started != Some(received.started) {
            self.started = Some(received.started);
            self.labels.clear();
            self.idle_times = IdleTimes::default();
        }
        let case = Case { world, received, series };
        let mut violations = Vec::new();
        let mut add = |checked: Checked| violations.extend(checked.err());
        for series in &case.series {
            match series.subject {
                Subject::Pid(pid) => {
                    add(case.check_process(series, pid));
                    add(self.check_labels(&case, series, pid));
                }
                Subject::Idle => add(case.check_idle(series)),
                Subject::Container => add(case.check_sum(series)),
            }
        }
        add(case.check_families());
        case.check_allocations(&samples).into_iter().for_each(&mut add);
        add(case.check_shares(&samples));
        case.check_completeness(&samples).into_iter().for_each(&mut add);
        self.idle_times.check(&case, &samples).into_iter().for_each(&mut add);
        case.count(&samples, &mut self.counts);
        Ok(violations)
    }

    /// The labels of a living process do not change.
    fn check_labels(&mut self, case: &Case<'_>, series: &ProcessSeries<'_>, pid: u32) -> Checked {
        let Some((index, process)) = case.process(pid, series.device) else { return Ok(()) };
        // The series of a process that outlives its pod ends, and another one begins; a pod that states an
        // allocation that it does not have may be believed later.
        if case.pod_of(process).is_some_and(|pod| pod.forges || pod.end() <= case.received.at) {
            return Ok(());
        }
        let key = (index, series.device, series.metric.to_owned());
        let now = (series.sample.name.clone(), series.sample.labels.clone());
        let before = self.labels.entry(key).or_insert_with(|| now.clone());
        if *before == now {
            return Ok(());
        }
        violation("4: labels changed", format!("{before:?} is now {now:?}"))
    }
}

impl<'a> Case<'a> {
    /// The process that had `pid` when the device was read.
    pub(super) fn process(&self, pid: u32, device: Device) -> Option<(usize, &'a Process)> {
        let read = self.received.read_at(device.gpu)?;
        let is_it = |(_, process): &(usize, &Process)| process.pid == pid && process.is_alive(read);
        self.world.processes.iter().enumerate().find(is_it)
    }

    /// Processes that used the device when it was read.
    pub(super) fn processes_on(
        &self,
        device: Device,
    ) -> impl Iterator<Item = &'a Process> + use<'a> {
        let read = self.received.read_at(device.gpu);
        let delay = self.world.proc_delay;
        let is_alive = move |p: &Process, read: Ms| p.is_alive(read) && p.is_alive(read + delay);
        let used = move |process: &&Process| {
            read.is_some_and(|read| is_alive(process, read)) && process.use_of(device).is_some()
        };
        self.world.processes.iter().filter(used)
    }

    pub(super) fn pod_of(&self, process: &Process) -> Option<&'a Pod> {
        let (pod, _) = self.world.owner(process)?;
        Some(&self.world.pods[pod])
    }

    /// Pods and containers with these names, until now.
    pub(super) fn named(&self, names: (&str, &str, &str)) -> Vec<(usize, &'a Pod, &'a Container)> {
        let (namespace, name, container) = names;
        let pods = self.world.pods.iter().enumerate();
        let pods = pods.filter(|(_, pod)| pod.namespace == namespace && pod.name == name);
        let pods = pods.filter(|(_, pod)| pod.created <= self.received.at);
        pods.filter_map(|(index, pod)| {
            let container = pod.containers.iter().find(|c| c.name == container)?;
            Some((index, pod, container))
        })
        .collect()
    }

    /// Whether kubelet and API server are healthy and have been for long enough.
    pub(super) fn has_healthy_sources(&self) -> bool {
        let at = self.received.at;
        let is_old = at >= self.received.started + RECOVERED;
        is_old && !self.world.faults_within(at - RECOVERED, at).any(FaultKind::is_of_source)
    }

    /// Whether the process list of a device is complete and its processes can be read.
    pub(super) fn lists_processes(&self, device: Device) -> bool {
        let at = self.received.at;
        let uses = |pid: u32| {
            let mut processes = self.world.processes.iter();
            processes
                .any(|p| p.pid == pid && p.uses.iter().any(|used| used.device.gpu == device.gpu))
        };
        let fails = |kind| match kind {
            FaultKind::ListFails(gpu)
            | FaultKind::ListUnsupported(gpu)
            | FaultKind::ListEmpty(gpu)
            | FaultKind::Hang(gpu) => gpu == device.gpu,
            FaultKind::Unreadable(pid) => uses(pid),
            FaultKind::RowsFail(_)
            | FaultKind::RowInvalid(_)
            | FaultKind::MemoryUnknown(_)
            | FaultKind::TotalZero(_)
            | FaultKind::KubeletDown
            | FaultKind::KubeletRestart
            | FaultKind::ApiDown => false,
        };
        let since = at.saturating_sub(DRIVER_RECOVERED);
        self.world.gpus[device.gpu].mps != Mps::Unlisted
            && !self.world.faults_within(since, at).any(fails)
    }

    /// Whether nothing happened to the pod recently.
    pub(super) fn is_settled(&self, pod: &Pod) -> bool {
        let at = self.received.at;
        let recent = |event: &Ms| (at.saturating_sub(SETTLED + STATUS_LAG)..=at).contains(event);
        !pod.events().iter().any(recent)
    }
}

/// The names of the owner of a process, for messages.
pub(super) fn owner_names(world: &World, process: &Process) -> String {
    match world.owner(process) {
        Some((pod, container)) => {
            let pod = &world.pods[pod];
            format!("{}/{}/{}", pod.namespace, pod.name, container.name)
        }
        None => format!("{:?}", process.owner),
    }
}
