//! Law 7: what is known has its series. A fault silences only what depends on it.

use super::super::series::{Family, ProcessSeries, Subject, device};
use super::super::timeline::{Device, FaultKind, Kind, MPS_SERVER, Mps, Process};
use super::{Case, Checked, DRIVER_RECOVERED, OUTLIVED, RECOVERED, SETTLED, STATUS_LAG, violation};
use crate::exposition::Sample;

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
        if is_new || !process.is_alive(at + self.world.proc_delay) || process.is_mps_server() {
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
            || self.lacks_reservation(pod)
        {
            return None;
        }
        if pod.may_use(device) {
            // The device of an init container is known by elimination, from complete sources only.
            let known = (!pod.has_hidden_allocation()
                || healthy && self.is_only_candidate(process, device))
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

    /// Whether the device was read for the first time, or a process that it lists has a pid that was reused.
    fn is_reading_new(&self, device: Device) -> bool {
        let read = self.received.at;
        let at = read + self.world.proc_delay;
        let is_listed = |pid: u32| {
            let mut all = self.world.processes.iter().filter(|process| process.pid == pid);
            all.any(|process| {
                process.use_of(device).is_some()
                    && (process.start..process.listed_until).contains(&read)
            })
        };
        let mut alive = self.world.processes.iter().filter(|process| process.is_alive(at));
        self.received.read[device.gpu].len() < 3
            || alive.any(|process| {
                let is_on_device = process.use_of(device).is_some() || is_listed(process.pid);
                is_on_device && self.is_reused(process)
            })
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

    /// Every idle container has a 0, if the owners of all processes are certain. An MPS server without listed
    /// clients may work for any container.
    fn has_zeros(&self, device: Device) -> Checked {
        let at = self.received.at;
        if self.world.gpus[device.gpu].mps != Mps::Off || self.is_reading_new(device) {
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
                || self.is_listed_with_predecessor(pod)
                || self.may_be_overcommitted(pod)
                || self.lacks_memory_of(pod)
                || self.lacks_reservation(pod)
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
            || pods.any(|pod| {
                self.lacks_memory_of(pod)
                    || self.has_doubtful_amount(pod)
                    || self.lacks_reservation(pod)
            });
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
}
