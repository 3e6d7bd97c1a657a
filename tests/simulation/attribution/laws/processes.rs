//! Laws 1 and 2: a series of a process has its owner, its family and its value.

use super::super::series::{Family, ProcessSeries};
use super::super::timeline::{
    Container, Fault, FaultKind, Kind, Mps, Ms, Owner, Pod, Process, ProcessKind, Use,
};
use super::{
    CYCLE, Case, Checked, DRIVER_RECOVERED, MAX_AGE, OUTLIVED, SETTLED, owner_names, violation,
};

impl Case<'_> {
    pub(super) fn check_process(&self, series: &ProcessSeries<'_>, pid: u32) -> Checked {
        let read = self.received.read_at(series.device.gpu).unwrap_or_default();
        if self.received.at - read > MAX_AGE {
            return violation("1: stale", format!("read at {read}: {:?}", series.sample));
        }
        let Some((_, process)) = self.process(pid, series.device) else {
            return violation("1: no such process", format!("{:?}", series.sample));
        };
        let Some(used) = process.use_of(series.device) else {
            return violation("1: another device", format!("{process:?}: {:?}", series.sample));
        };
        if process.is_mps_server() {
            return violation("1: MPS server", format!("{:?}", series.sample));
        }
        if series.sample.label("ProcessName") != Some(process.name.as_str()) {
            return violation("1: another name", format!("{process:?}: {:?}", series.sample));
        }
        let is_client = self.world.gpus[series.device.gpu].mps != Mps::Off
            && matches!(process.owner, Owner::Run(..));
        let kind = match process.kind {
            _ if is_client => "M",
            ProcessKind::Compute => "C",
            ProcessKind::Graphics => "G",
            ProcessKind::Both => "C+G",
        };
        if series.sample.label("ProcessType") != Some(kind) {
            return violation("1: another type", format!("{process:?}: {:?}", series.sample));
        }
        self.check_value(series, process, used)?;
        let owner = owner_names(self.world, process);
        if let Some((namespace, pod, container)) = series.names
            && owner != format!("{namespace}/{pod}/{container}")
        {
            return violation("1: another owner", format!("{owner}: {:?}", series.sample));
        }
        match (self.pod_of(process), series.family) {
            (None, Family::Process) => {
                violation("1: PROCESS outside of a pod", format!("{owner}: {:?}", series.sample))
            }
            (None, Family::Illegal) => Ok(()),
            (Some(pod), Family::Process) => self.check_allocated(series, process, pod),
            (Some(pod), Family::Illegal) => self.check_illegal(series, process, pod),
        }
    }

    fn check_allocated(&self, series: &ProcessSeries<'_>, process: &Process, pod: &Pod) -> Checked {
        let at = self.received.at;
        let detail = || format!("{process:?}, pod end {}: {:?}", pod.end(), series.sample);
        if series.names.is_none() {
            return violation("1: PROCESS without pod labels", detail());
        }
        // A forged annotation may change the family of its own pod.
        if !pod.may_use(series.device) && (pod.forges || self.may_hold_unlisted(pod, series)) {
            return Ok(());
        }
        if !pod.may_use(series.device) {
            return violation("1: PROCESS without an allocation", detail());
        }
        Self::check_mode(series, pod)?;
        if self.knows_end(pod, at) {
            return violation("1: PROCESS of an ended pod", detail());
        }
        Ok(())
    }

    /// Whether the series is that of an init container with devices that no source states, on a device that no
    /// source states for another pod.
    pub(super) fn may_hold_unlisted(&self, pod: &Pod, series: &ProcessSeries<'_>) -> bool {
        let at = self.received.at;
        let is_init = |container: &Container| {
            container.kind == Kind::Init
                && series.names.is_some_and(|(.., name)| name == container.name)
                && container.allocations.iter().any(|allocation| allocation.hidden)
        };
        let mut others = self.world.pods.iter().filter(|other| other.uid != pod.uid);
        pod.containers.iter().any(is_init)
            && !others.any(|other| {
                other.is_listed_with(series.device)
                    && (other.admitted + SETTLED..other.released()).contains(&at)
            })
    }

    /// Whether the API server was down from the creation of a pod, or the start of the exporter, to its removal.
    fn is_unseen(&self, pod: &Pod) -> bool {
        let (from, gone) = (pod.created.max(self.received.started), pod.gone.unwrap_or(Ms::MAX));
        let covers = |fault: &Fault| fault.from <= from && gone <= fault.to;
        let mut down = self.world.faults.iter().filter(|fault| fault.kind == FaultKind::ApiDown);
        gone <= from || down.any(covers)
    }

    /// The mode of a series of a pod that is allocated the device.
    pub(super) fn check_mode(series: &ProcessSeries<'_>, pod: &Pod) -> Checked {
        let mode = match (pod.is_allocated(series.device), pod.shares(series.device)) {
            (true, true) => "share",
            (true, false) => "exclusive",
            (false, _) => "none",
        };
        if series.sample.label("AllocateMode") == Some(mode) || pod.forges {
            return Ok(());
        }
        violation("1: another mode", format!("{mode}: {:?}", series.sample))
    }

    fn check_illegal(&self, series: &ProcessSeries<'_>, process: &Process, pod: &Pod) -> Checked {
        let at = self.received.at;
        // The exporter counts from the reading before the end.
        let outlived = at + CYCLE >= self.end_for(process, pod).saturating_add(OUTLIVED);
        let detail = || format!("{process:?}, pod end {}: {:?}", pod.end(), series.sample);
        if outlived {
            return Ok(());
        }
        // The annotations of a forger may replace what it was allocated.
        if pod.may_use(series.device) && !pod.changes_amounts {
            return violation("2: ILLEGAL although allocated", detail());
        }
        if series.names.is_none() {
            return violation("2: ILLEGAL without its pod", detail());
        }
        if self.knows_end(pod, at) {
            return violation("2: ILLEGAL of an ended pod", detail());
        }
        Ok(())
    }

    /// The end of the pod of a process as the exporter counts it: that of a pod that it never saw is unknown
    /// to it.
    pub(super) fn end_for(&self, process: &Process, pod: &Pod) -> Ms {
        if self.is_unseen(pod) { process.start.max(self.received.started) } else { pod.end() }
    }

    /// Whether the sources have stated the end of a pod.
    pub(super) fn knows_end(&self, pod: &Pod, at: Ms) -> bool {
        let end = pod.end().saturating_add(SETTLED + pod.lag);
        at > end && self.has_healthy_sources()
    }

    fn check_value(&self, series: &ProcessSeries<'_>, process: &Process, used: &Use) -> Checked {
        let value = series.sample.value;
        let expected = match series.metric {
            "MEM_USED" => f64::from(used.mib)..=f64::from(used.mib),
            "SM_UTIL" => self.utilization(process, used),
            _ => 0.0..=0.0,
        };
        if series.metric == "MEM_USED" && self.lacks_memory(process, used) {
            return violation("1: unknown memory", format!("{:?}", series.sample));
        }
        if series.metric != "MEM_USED" && self.lacks_utilization(process, used) {
            return violation("1: unknown utilization", format!("{:?}", series.sample));
        }
        if expected.contains(&value) {
            return Ok(());
        }
        violation("1: another value", format!("{expected:?}: {process:?}: {:?}", series.sample))
    }

    /// Mean utilization in the window of the last reading, at least and at most.
    pub(super) fn utilization(
        &self,
        process: &Process,
        used: &Use,
    ) -> std::ops::RangeInclusive<f64> {
        let sm = f64::from(used.sm);
        let covered = match self.received.read[used.device.gpu].as_slice() {
            [at, before, ..] => process.start + 1_000 <= *before && *at <= process.end,
            _ => false,
        };
        if self.overlaps_predecessor(process, used.device.gpu)
            || self.follows_a_gap(used.device.gpu)
        {
            return 0.0..=100.0;
        }
        if covered { sm..=sm } else { 0.0..=sm }
    }

    /// Whether the rows could not be read shortly before: the window begins before the gap then.
    fn follows_a_gap(&self, gpu: usize) -> bool {
        let fails =
            |kind| matches!(kind, FaultKind::RowsFail(of) | FaultKind::Hang(of) if of == gpu);
        let since = self.received.at.saturating_sub(DRIVER_RECOVERED);
        self.world.faults_within(since, self.received.at).any(fails)
    }

    /// Whether an earlier process with the pid worked in the second before the last reading but one: the
    /// driver's rows name only pids, and the window begins a second early.
    fn overlaps_predecessor(&self, process: &Process, gpu: usize) -> bool {
        let [_, before, ..] = self.received.read[gpu].as_slice() else { return false };
        let mut others = self.world.processes.iter().filter(|other| other.pid == process.pid);
        others.any(|other| {
            other.start < process.start && other.end + 1_000 > *before && other.end <= *before
        })
    }

    /// Whether the driver did not state the memory of the process when it last read the device.
    pub(super) fn lacks_memory(&self, process: &Process, used: &Use) -> bool {
        self.fault_at_reading(FaultKind::MemoryUnknown(process.pid), used)
    }

    /// Whether the driver does not state the utilization of the process.
    pub(super) fn lacks_utilization(&self, process: &Process, used: &Use) -> bool {
        let gpu = used.device.gpu;
        let invalid = used.sm > 0
            && self.is_in_window(process, gpu)
            && self.fault_at_reading(FaultKind::RowInvalid(process.pid), used);
        let is_client = self.world.gpus[gpu].mps != Mps::Off && self.pod_of(process).is_some();
        used.device.instance.is_some()
            || is_client
            || invalid
            || self.fault_at_reading(FaultKind::RowsFail(gpu), used)
    }

    fn is_in_window(&self, process: &Process, gpu: usize) -> bool {
        self.received.read_at(gpu).is_some_and(|at| process.start < at)
    }

    fn fault_at_reading(&self, kind: FaultKind, used: &Use) -> bool {
        let read_at = self.received.read_at(used.device.gpu);
        read_at.is_some_and(|at| self.world.has_fault(kind, at))
    }

    /// Whether `/proc` denied access to the process when the device was last read.
    pub(super) fn is_unreadable(&self, process: &Process, used: &Use) -> bool {
        self.fault_at_reading(FaultKind::Unreadable(process.pid), used)
    }

    /// Whether the process runs in this container of a pod, in any of its runs.
    pub(super) fn is_of_container(&self, process: &Process, pod: usize, name: &str) -> bool {
        let Owner::Run(owner, container, _) = process.owner else { return false };
        owner == pod && self.world.pods[owner].containers[container].name == name
    }
}
