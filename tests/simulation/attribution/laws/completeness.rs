//! Law 7: what is known has its series. A fault silences only what depends on it.

use super::super::node::{ListedPod, Node};
use super::super::series::{Family, ProcessSeries, Subject, device};
use super::super::timeline::{
    Container, Device, Fault, FaultKind, Kind, MPS_SERVER, Mps, Ms, Owner, Pod, Process,
};
use super::{Case, Checked, DRIVER_RECOVERED, OUTLIVED, RECOVERED, SETTLED, STATUS_LAG, violation};
use crate::exposition::Sample;

/// Longest time from the start of the exporter to its first list of the pods.
const CONNECTED: Ms = 2_000;

impl Case<'_> {
    pub(super) fn check_completeness(&self, samples: &[Sample]) -> Vec<Checked> {
        let mut all = Vec::new();
        for device in self.world.devices() {
            if !self.lists_processes(device) {
                continue;
            }
            all.extend(self.processes_on(device).map(|process| self.has_series(process, device)));
            if self.has_healthy_sources() {
                all.push(self.has_zeros(device));
            }
        }
        if self.has_healthy_sources() {
            all.push(self.has_allocations(samples));
        }
        all
    }

    fn has_series(&self, process: &Process, device: Device) -> Checked {
        let at = self.received.at;
        let is_new = process.start.max(self.received.started) + SETTLED + STATUS_LAG > at;
        if is_new || !process.is_alive(at) || process.is_mps_server() {
            return Ok(());
        }
        let Some((family, kind)) = self.expected_family(process, device) else { return Ok(()) };
        let kind =
            if process.name == MPS_SERVER { "7: no series of a renamed process" } else { kind };
        for metric in ["MEM_USED", "SM_UTIL"] {
            if !self.lacks(process, device, metric) && !self.shows(process, device, family, metric)
            {
                let detail = format!("{family:?} {metric} of {process:?} on {device:?}");
                return violation(kind, detail);
            }
        }
        Ok(())
    }

    /// The family that a process must have; none if that is in doubt.
    fn expected_family(&self, process: &Process, device: Device) -> Option<(Family, &'static str)> {
        let at = self.received.at;
        let healthy = self.has_healthy_sources();
        let Some(pod) = self.pod_of(process) else {
            return healthy
                .then_some((Family::Illegal, "7: no series of a process outside of pods"));
        };
        if at > pod.end() {
            // The exporter may have started after the end of the pod, or learned of it later.
            let end = self.known_end(pod).max(self.received.started).max(process.start);
            let outlived = healthy && at >= end + OUTLIVED + RECOVERED;
            return outlived.then_some((Family::Illegal, "7: no series of an outlived process"));
        }
        if !self.is_settled(pod)
            || self.is_reused(process)
            || pod.forges
            || self.has_unknown_container(process, device)
        {
            return None;
        }
        if pod.may_use(device) {
            let known = !pod.has_hidden_allocation()
                && !self.may_be_overcommitted(pod)
                && !self.lacks_memory_of(pod)
                && self.is_container_certain(pod, device);
            let kind = if healthy {
                "7: no series of a process"
            } else if self.was_known(pod) {
                "7: no series while a source is down"
            } else if self.is_stated_by_node(pod) {
                "7: no series without the API server"
            } else {
                return None;
            };
            return known.then_some((Family::Process, kind));
        }
        let kind = "7: no series of an illegal process";
        let unknown = pod.has_hidden_allocation()
            || self.shares_its_name(pod)
            || !self.is_container_certain(pod, device);
        (healthy && !unknown).then_some((Family::Illegal, kind))
    }

    /// Whether a process of the pod on the device may be one of any container of the pod: API server and log
    /// directories state the last two runs of a container, which the exporter may have missed.
    fn has_unknown_container(&self, process: &Process, device: Device) -> bool {
        let is_missed = |other: &Process| {
            let Owner::Run(pod, container, run) = other.owner else { return false };
            let runs = &self.world.pods[pod].containers[container].runs;
            let Some(next) = runs.get(run + 2).map(|next| next.start) else { return false };
            let from = runs[run].start.max(self.received.started);
            let down = |kind| kind == FaultKind::ApiDown;
            next <= self.received.at
                && (next < from + STATUS_LAG + CONNECTED
                    || self.world.faults_within(from, next).any(down))
        };
        let pod = |process: &Process| self.world.owner(process).map(|(pod, _)| pod);
        self.processes_on(device).any(|other| pod(other) == pod(process) && is_missed(other))
    }

    /// When the API server stated the end of a pod.
    fn known_end(&self, pod: &Pod) -> Ms {
        let is_down = |at: Ms, fault: &&Fault| {
            fault.kind == FaultKind::ApiDown && fault.from <= at + STATUS_LAG && at < fault.to
        };
        let mut at = pod.end();
        while let Some(fault) = self.world.faults.iter().find(|fault| is_down(at, fault)) {
            at = fault.to;
        }
        at
    }

    /// Whether the device of a pod is known by its memory, which the driver did not state recently.
    fn lacks_memory_of(&self, pod: &Pod) -> bool {
        let at = self.received.at;
        let by_index =
            |(_, value): &(String, String)| value.contains('[') && value.contains(",NVIDIA,");
        let is_zero = |kind| matches!(kind, FaultKind::TotalZero(_));
        pod.annotations.iter().any(by_index)
            && self.world.faults_within(at.saturating_sub(DRIVER_RECOVERED), at).any(is_zero)
    }

    /// Whether the pod holds an amount, and states another one.
    fn has_doubtful_amount(&self, pod: &Pod) -> bool {
        let holds = pod.containers.iter().any(|container| !container.allocations.is_empty());
        let may_hold = pod.created <= self.received.at
            && self.received.at < pod.released().saturating_add(SETTLED);
        pod.forges && holds && may_hold
    }

    /// Whether an earlier pod states that it was allocated what this one was.
    fn may_be_overcommitted(&self, pod: &Pod) -> bool {
        let is_earlier = |other: &&Pod| other.changes_amounts && other.created <= pod.created;
        !pod.annotations.is_empty() && self.world.pods.iter().any(|other| is_earlier(&other))
    }

    /// Whether the container of a process of the pod on the device is certain: without a sandbox, or if
    /// exactly one container of the sandbox holds the device, and all are running.
    fn is_container_certain(&self, pod: &Pod, device: Device) -> bool {
        let at = self.received.at;
        let holds = |container: &&Container| {
            let mut devices = container.allocations.iter().map(|allocation| allocation.device);
            devices.any(|held| held == device)
        };
        let runs = |container: &Container| match container.kind {
            Kind::App | Kind::Sidecar => container.runs_within(at, at),
            Kind::Init => container.runs.iter().all(|run| run.end < at),
            Kind::Ephemeral => true,
        };
        !pod.sandboxed
            || pod.containers.len() == 1 && self.received.pods.is_some()
            || self.has_healthy_sources()
                && pod.containers.iter().filter(holds).count() == 1
                && pod.containers.iter().all(runs)
    }

    /// Whether a process of the pod on the device may be one of any container of the pod.
    fn has_uncertain_container(&self, pod: usize, device: Device) -> bool {
        let mut own = self
            .processes_on(device)
            .filter(|process| self.world.owner(process).is_some_and(|(owner, _)| owner == pod));
        let is_certain = self.is_container_certain(&self.world.pods[pod], device);
        own.any(|process| !is_certain || self.has_unknown_container(process, device))
    }

    /// Whether the kubelet may list an earlier pod of the same name beside a pod: it lists names only.
    fn shares_its_name(&self, pod: &Pod) -> bool {
        let same = |other: &&Pod| other.name == pod.name && other.namespace == pod.namespace;
        self.world.pods.iter().filter(same).count() > 1
    }

    /// Whether another process had the pid shortly before.
    fn is_reused(&self, process: &Process) -> bool {
        let mut others = self.world.processes.iter().filter(|other| other.pid == process.pid);
        others
            .any(|other| other.end <= process.start && process.start < other.listed_until + SETTLED)
    }

    /// Whether pod and allocation were known before sources failed, and nothing has changed since.
    fn was_known(&self, pod: &Pod) -> bool {
        let at = self.received.at;
        let mut sources: Vec<(Ms, Ms)> = Vec::new();
        for fault in self.world.faults.iter().filter(|fault| fault.kind.is_of_source()) {
            sources.push((fault.from, fault.to));
        }
        // The start of the outages that follow each other.
        let mut since = at;
        while let Some((from, _)) =
            sources.iter().find(|(from, to)| *from < since && *to + RECOVERED > since)
        {
            since = *from;
        }
        let known = since.saturating_sub(SETTLED + STATUS_LAG);
        let changed = pod.events().iter().any(|event| (known..=at).contains(event));
        pod.created < known && self.received.started + RECOVERED < since && !changed
    }

    /// Whether the kubelet states the devices of a pod and the log directories its names, with the API
    /// server down since before the exporter started.
    fn is_stated_by_node(&self, pod: &Pod) -> bool {
        let at = self.received.at;
        let since = self.received.started.saturating_sub(RECOVERED);
        let kubelet = |kind| matches!(kind, FaultKind::KubeletDown | FaultKind::KubeletRestart);
        // A restarted kubelet waits for the API server.
        let list = Node { world: self.world, at: at.saturating_sub(SETTLED) }.list();
        let is_it = |listed: &ListedPod<'_>| {
            (listed.namespace, listed.name) == (pod.namespace.as_str(), pod.name.as_str())
        };
        let is_listed = list.is_some_and(|list| list.iter().any(is_it));
        let same = |other: &&Pod| other.name == pod.name && other.namespace == pod.namespace;
        self.received.pods.is_none()
            && is_listed
            && !self.world.faults_within(since, at).any(kubelet)
            && self.world.pods.iter().filter(same).count() == 1
            && pod.annotations.is_empty()
            && pod.containers.iter().all(|container| container.claims.is_empty())
            && !self.world.lists_ended
    }

    /// Whether the driver lacked a metric of a container of the process recently.
    fn lacks(&self, process: &Process, device: Device, metric: &str) -> bool {
        let is_memory = metric == "MEM_USED";
        let same = |pid: u32| {
            let mut all = self.world.processes.iter().filter(|other| other.pid == pid);
            all.any(|other| match (self.world.owner(other), self.world.owner(process)) {
                (Some((pod, container)), Some((own_pod, own))) => {
                    pod == own_pod && container.name == own.name
                }
                // Without a pod, all processes have one sum.
                _ => self.world.per_container || other.pid == process.pid,
            })
        };
        let fails = |kind| match kind {
            FaultKind::MemoryUnknown(pid) => is_memory && same(pid),
            FaultKind::RowInvalid(pid) => !is_memory && same(pid),
            FaultKind::RowsFail(gpu) => !is_memory && gpu == device.gpu,
            FaultKind::ListFails(_)
            | FaultKind::ListUnsupported(_)
            | FaultKind::ListEmpty(_)
            | FaultKind::Hang(_)
            | FaultKind::TotalZero(_)
            | FaultKind::Unreadable(_)
            | FaultKind::KubeletDown
            | FaultKind::KubeletRestart
            | FaultKind::ApiDown => false,
        };
        let at = self.received.at;
        let since = at.saturating_sub(DRIVER_RECOVERED);
        let used = process.use_of(device);
        let never = !is_memory && used.is_none_or(|used| self.lacks_utilization(process, used));
        never || self.is_reading_new(device) || self.world.faults_within(since, at).any(fails)
    }

    /// Whether the device was read for the first time, or a process on it has a pid that was reused.
    fn is_reading_new(&self, device: Device) -> bool {
        self.received.read[device.gpu].len() < 3
            || self.processes_on(device).any(|process| self.is_reused(process))
    }

    fn shows(&self, process: &Process, device: Device, family: Family, metric: &str) -> bool {
        let names = self.world.owner(process).map(|(pod, container)| {
            let pod = &self.world.pods[pod];
            (pod.namespace.as_str(), pod.name.as_str(), container.name.as_str())
        });
        let is_its = |series: &&ProcessSeries<'_>| match series.subject {
            Subject::Pid(pid) => pid == process.pid,
            Subject::Container => series.names == names || series.names.is_none(),
            Subject::Idle => false,
        };
        self.series.iter().filter(is_its).any(|series| {
            series.device == device && series.family == family && series.metric == metric
        })
    }

    /// A pod with devices that no source states.
    fn has_unknown_allocations(&self) -> bool {
        let (at, from) = (self.received.at, self.received.at.saturating_sub(SETTLED));
        let may_hold = |pod: &&Pod| pod.created <= at && from < pod.released();
        self.world.pods.iter().filter(may_hold).any(Pod::has_hidden_allocation)
    }

    /// Every idle container has a 0, if the owners of all processes are certain. An MPS server without listed
    /// clients may work for any container.
    fn has_zeros(&self, device: Device) -> Checked {
        let at = self.received.at;
        if self.world.gpus[device.gpu].mps != Mps::Off {
            return Ok(());
        }
        let is_certain = |process: &Process| {
            let pod = self.pod_of(process);
            process.start + SETTLED + STATUS_LAG < at
                && pod.is_none_or(|pod| at < pod.end() && self.is_settled(pod))
        };
        if !self.processes_on(device).all(is_certain) {
            return Ok(());
        }
        let ended = |process: &Process| process.end <= at && at < process.listed_until + SETTLED;
        if self.world.processes.iter().any(ended) || self.has_unknown_allocations() {
            return Ok(());
        }
        for (index, pod) in self.world.pods.iter().enumerate() {
            if at < pod.admitted
                || at >= pod.end()
                || !self.is_settled(pod)
                || pod.forges
                || self.may_be_overcommitted(pod)
                || self.lacks_memory_of(pod)
                || self.has_uncertain_container(index, device)
            {
                continue;
            }
            for container in pod.containers.iter().filter(|c| c.kind == Kind::App) {
                let holds = container.allocations.iter().any(|a| a.device == device && !a.hidden);
                let is_of = |p: &&Process| self.is_of_container(p, index, &container.name);
                let mut own = self.world.processes.iter().filter(is_of);
                let busy =
                    own.any(|p| p.is_alive(at) || (p.end..p.listed_until + SETTLED).contains(&at));
                let names =
                    Some((pod.namespace.as_str(), pod.name.as_str(), container.name.as_str()));
                let shown = self.series.iter().any(|series| {
                    series.names == names && series.device == device && series.metric == "MEM_USED"
                });
                if holds && !busy && container.runs_within(at, at) && !shown {
                    return violation("7: no 0", format!("{names:?} on {device:?}"));
                }
            }
        }
        Ok(())
    }

    /// The allocations of all devices are stated.
    fn has_allocations(&self, samples: &[Sample]) -> Checked {
        let at = self.received.at;
        let is_settled = self.world.pods.iter().all(|pod| self.is_settled(pod));
        let mut pods = self.world.pods.iter();
        let is_unknown = self.has_unknown_allocations()
            || self.has_unknown_pod()
            || pods.any(|pod| self.lacks_memory_of(pod) || self.has_doubtful_amount(pod));
        if !is_settled || is_unknown || self.may_be_falsified(&self.stated_times()) {
            return Ok(());
        }
        let since = at.saturating_sub(DRIVER_RECOVERED);
        for wanted in self.world.devices() {
            let fails = |kind| matches!(kind, FaultKind::Hang(gpu) | FaultKind::TotalZero(gpu) if gpu == wanted.gpu);
            let of = |sample: &&Sample| sample.name == "DCGM_CUSTOM_DEV_FB_ALLOCATED";
            let mut shown = samples.iter().filter(of);
            if !self.world.faults_within(since, at).any(fails)
                && !shown.any(|sample| device(sample, self.world) == Some(wanted))
            {
                return violation("7: no FB_ALLOCATED", format!("{wanted:?}"));
            }
        }
        if !samples.iter().any(|sample| sample.name == "DCGM_CUSTOM_ALLOCATE_MODE") {
            return violation("7: no ALLOCATE_MODE", "absent");
        }
        Ok(())
    }

    /// A pod that the kubelet lists and the API server has deleted.
    fn has_unknown_pod(&self) -> bool {
        let at = self.received.at;
        let is_deleted = |pod: &Pod| pod.gone.is_some_and(|gone| gone <= at);
        self.world.pods.iter().any(|pod| is_deleted(pod) && at < pod.released() + SETTLED)
    }
}
