//! What the sources leave in doubt, rightly: then a series may be absent.

use super::super::node::{ListedPod, Node};
use super::super::timeline::{Container, Device, Fault, FaultKind, Kind, Ms, Owner, Pod, Process};
use super::{Case, DRIVER_RECOVERED, RECOVERED, SETTLED, STATUS_LAG};

/// Longest time from the start of the exporter to its first list of the pods.
const CONNECTED: Ms = 2_000;

impl Case<'_> {
    /// Whether a process of the pod on the device may be one of any container of the pod: API server and log
    /// directories state the last two runs of a container, which the exporter may have missed.
    pub(super) fn has_unknown_container(&self, process: &Process, device: Device) -> bool {
        let is_missed = |other: &Process| {
            let Owner::Run(pod, container, run) = other.owner else { return false };
            let container = &self.world.pods[pod].containers[container];
            let runs = &container.runs;
            if container.foreign_id.is_some() && run + 1 < runs.len() {
                return true;
            }
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

    /// Whether the pod is in a group without a reservation pod.
    pub(super) fn lacks_reservation(&self, pod: &Pod) -> bool {
        let at = self.received.at;
        let of =
            |pod: &'_ Pod| pod.labels.iter().map(|(_, group)| group.clone()).collect::<Vec<_>>();
        let exists = |group: &String| {
            let mut all = self.world.pods.iter().filter(|other| other.reserves);
            all.any(|other| of(other).contains(group) && at < other.end())
        };
        of(pod).iter().any(|group| !exists(group))
    }

    /// Whether the process is one of an init container that has a device of which the kubelet does not state
    /// the container, and that can be that of no other pod.
    pub(super) fn is_only_candidate(&self, process: &Process, device: Device) -> bool {
        let at = self.received.at;
        let Some((owner, container)) = self.world.owner(process) else { return false };
        let has_device = container.kind == Kind::Init
            && container.allocations.iter().any(|held| held.hidden && held.device == device);
        let mut others = self.world.pods.iter().enumerate().filter(|(index, _)| *index != owner);
        has_device
            && !self.shares_its_name(&self.world.pods[owner])
            && others.all(|(_, pod)| {
                let is_past = pod.released().saturating_add(SETTLED + STATUS_LAG) <= at;
                let is_certain = !pod.has_hidden_allocation() && !pod.forges;
                at < pod.created
                    || is_past
                    || is_certain && at >= pod.admitted + SETTLED && at < pod.end()
            })
    }

    /// When the API server stated the end of a pod.
    pub(super) fn known_end(&self, pod: &Pod) -> Ms {
        let is_down = |at: Ms, fault: &&Fault| {
            fault.kind == FaultKind::ApiDown && fault.from <= at + STATUS_LAG && at < fault.to
        };
        let mut at = pod.end();
        while let Some(fault) = self.world.faults.iter().find(|fault| is_down(at, fault)) {
            at = fault.to;
        }
        at
    }

    /// Whether the device of a pod is known by its memory, which the driver has not stated since the exporter
    /// started.
    pub(super) fn lacks_memory_of(&self, pod: &Pod) -> bool {
        let at = self.received.at;
        let by_index =
            |(_, value): &(String, String)| value.contains('[') && value.contains(",NVIDIA,");
        let is_zero = |fault: &Fault| {
            let started = self.received.started;
            matches!(fault.kind, FaultKind::TotalZero(_))
                && (fault.from..fault.to).contains(&started)
                && at < fault.to + DRIVER_RECOVERED
        };
        pod.annotations.iter().any(by_index) && self.world.faults.iter().any(is_zero)
    }

    /// Whether the pod holds an amount, and states another one.
    pub(super) fn has_doubtful_amount(&self, pod: &Pod) -> bool {
        let holds = pod.containers.iter().any(|container| !container.allocations.is_empty());
        let may_hold = pod.created <= self.received.at
            && self.received.at < pod.released().saturating_add(SETTLED);
        pod.forges && holds && may_hold
    }

    /// Whether an earlier pod states that it was allocated what this one was.
    pub(super) fn may_be_overcommitted(&self, pod: &Pod) -> bool {
        // Times of creation are stated to the second.
        let is_earlier =
            |other: &&Pod| other.changes_amounts && other.created / 1000 <= pod.created / 1000;
        !pod.annotations.is_empty() && self.world.pods.iter().any(|other| is_earlier(&other))
    }

    /// Whether the container of a process of the pod on the device is certain: without a sandbox, or if
    /// exactly one container of the sandbox holds the device, and all are running.
    pub(super) fn is_container_certain(&self, pod: &Pod, device: Device) -> bool {
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
    pub(super) fn has_uncertain_container(&self, pod: usize, device: Device) -> bool {
        let mut own = self
            .processes_on(device)
            .filter(|process| self.world.owner(process).is_some_and(|(owner, _)| owner == pod));
        let is_certain = self.is_container_certain(&self.world.pods[pod], device);
        own.any(|process| !is_certain || self.has_unknown_container(process, device))
    }

    /// Whether the kubelet may list an earlier pod of the same name beside a pod: it lists names only.
    pub(super) fn shares_its_name(&self, pod: &Pod) -> bool {
        let same = |other: &&Pod| other.name == pod.name && other.namespace == pod.namespace;
        self.world.pods.iter().filter(same).count() > 1
    }

    /// Whether the kubelet may still list an earlier pod of the same name, or did so lately.
    pub(super) fn is_listed_with_predecessor(&self, pod: &Pod) -> bool {
        let at = self.received.at;
        let same = |other: &&Pod| other.name == pod.name && other.namespace == pod.namespace;
        let mut earlier = self.world.pods.iter().filter(same);
        earlier.any(|other| {
            let listed = other.created..other.released().saturating_add(SETTLED + STATUS_LAG);
            other.uid != pod.uid && listed.contains(&at)
        })
    }

    /// Whether another process had the pid shortly before.
    pub(super) fn is_reused(&self, process: &Process) -> bool {
        let mut others = self.world.processes.iter().filter(|other| other.pid == process.pid);
        others
            .any(|other| other.end <= process.start && process.start < other.listed_until + SETTLED)
    }

    /// Whether pod and allocation were known before sources failed, and nothing has changed since.
    pub(super) fn was_known(&self, pod: &Pod) -> bool {
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
        let same = |other: &&Pod| other.name == pod.name && other.namespace == pod.namespace;
        let mut namesakes = self.world.pods.iter().filter(same);
        let is_recent = |event: &Ms| (known..=at).contains(event);
        let changed =
            namesakes.any(|other| other.events().iter().chain([&other.released()]).any(is_recent));
        pod.created < known && self.received.started + RECOVERED < since && !changed
    }

    /// Whether the kubelet states the devices of a pod and the log directories its names, with the API
    /// server down since before the exporter started.
    pub(super) fn is_stated_by_node(&self, pod: &Pod) -> bool {
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
            && self.world.has_logs
    }

    /// A pod with devices that no source states.
    pub(super) fn has_unknown_allocations(&self) -> bool {
        let (at, from) = (self.received.at, self.received.at.saturating_sub(SETTLED));
        let may_hold = |pod: &&Pod| pod.created <= at && from < pod.released();
        self.world.pods.iter().filter(may_hold).any(Pod::has_hidden_allocation)
    }

    /// A pod that the kubelet lists and the API server has deleted.
    pub(super) fn has_unknown_pod(&self) -> bool {
        let at = self.received.at;
        let is_deleted = |pod: &Pod| pod.gone.is_some_and(|gone| gone <= at);
        self.world.pods.iter().any(|pod| is_deleted(pod) && at < pod.released() + SETTLED)
    }
}
