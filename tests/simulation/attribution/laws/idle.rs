//! Law 3: a 0 is a statement about a running container without a process.

use super::super::series::{Family, ProcessSeries};
use super::super::timeline::{Container, Device, FaultKind, Ms, Pod, Process};
use super::{Case, Checked, MAX_AGE, OUTLIVED, SETTLED, STATUS_LAG, violation};

/// Framebuffer that no process accounts for above which the process list contradicts the device, MiB.
const UNLISTED_MIB: u32 = 1_024;

impl Case<'_> {
    pub(super) fn check_idle(&self, series: &ProcessSeries<'_>) -> Checked {
        let detail = |why: &str| format!("{why}: {:?}", series.sample);
        if series.sample.value != 0.0 || series.family == Family::Illegal {
            return violation("3: no placeholder", detail("not a 0 of a PROCESS family"));
        }
        let Some(names) = series.names else {
            return violation("3: no placeholder", detail("without pod labels"));
        };
        self.check_zero(names, series)
    }

    /// Checks that a container with these names is idle.
    pub(super) fn check_zero(
        &self,
        names: (&str, &str, &str),
        series: &ProcessSeries<'_>,
    ) -> Checked {
        let device = series.device;
        let detail = |why: &str| format!("{why}: {:?}", series.sample);
        let Some(read) = self.received.read_at(device.gpu) else {
            return violation("3: 0 without a reading", detail("not read"));
        };
        if self.received.at - read > MAX_AGE {
            return violation("3: stale 0", detail(&format!("read at {read}")));
        }
        let Some(pods) = self.received.pods else {
            return violation("3: 0 without the pods", detail("no list was received"));
        };
        if device.instance.is_some() && series.metric != "MEM_USED" {
            return violation("3: 0 on a MIG device", detail("has no utilization"));
        }
        let seen = pods.min(read).saturating_sub(STATUS_LAG);
        let mut why = ("3: 0 of an unknown container", "no such container".to_owned());
        for (index, pod, container) in self.named(names) {
            match self.doubt(index, pod, container, device, (seen, read)) {
                None => match Self::check_mode(series, pod) {
                    Ok(()) => return Ok(()),
                    Err(violation) => why = (violation.kind, violation.detail),
                },
                Some(doubt) => why = doubt,
            }
        }
        violation(why.0, detail(&why.1))
    }

    /// Why a container may not have a 0. It was last seen at the first time, the device at the second.
    fn doubt(
        &self,
        index: usize,
        pod: &Pod,
        container: &Container,
        device: Device,
        (seen, read): (Ms, Ms),
    ) -> Option<(&'static str, String)> {
        let text = |why: &str| format!("{why}, {:?}", container.runs);
        let held = container.allocations.iter().any(|allocation| allocation.device == device);
        if !held && !pod.changes_amounts {
            return Some(("3: 0 without an allocation", text("not allocated")));
        }
        if !container.runs_within(seen, self.received.at) {
            return Some(("3: 0 of a container that is not running", text("not running")));
        }
        if container.runs.iter().all(|run| run.start > read) || pod.admitted > read {
            return Some(("3: 0 older than the container", text("the list is older")));
        }
        let mut own =
            self.processes_on(device).filter(|p| self.is_of_container(p, index, &container.name));
        if let Some(process) = own.next()
            && !self.driver_hides(device)
        {
            return Some(("3: 0 of a busy container", text(&format!("{process:?}"))));
        }
        let outlives = |process: &&Process| {
            let pod = self.pod_of(process).filter(|pod| self.knows_end(pod, self.received.at));
            pod.is_some_and(|pod| read < self.end_for(process, pod).saturating_add(OUTLIVED))
        };
        if let Some(process) = self.processes_on(device).find(outlives)
            && !self.driver_hides(device)
        {
            return Some(("3: 0 beside a process of an ended pod", text(&format!("{process:?}"))));
        }
        let elsewhere = self.world.processes.iter().find(|process| {
            let foreign = |device: Device| !pod.may_use(device) && !pod.forges;
            self.is_of_container(process, index, &container.name)
                && self.has_healthy_sources()
                && process.uses.iter().all(|used| self.lists_processes(used.device))
                && process.start + SETTLED + STATUS_LAG < read
                && process.is_alive(self.received.at + self.world.proc_delay)
                && process.uses.iter().any(|used| foreign(used.device))
        });
        elsewhere.map(|process| ("3: 0 while working elsewhere", text(&format!("{process:?}"))))
    }

    /// Whether the driver omits the processes of a device and nothing proves it yet: two readings in a row
    /// contradict the empty list. Processes that were listed before may have ended and account for the
    /// utilization of the first.
    pub(super) fn driver_hides(&self, device: Device) -> bool {
        let readings = self.received.read[device.gpu].as_slice();
        let is_empty = |at: &Ms| {
            let has = |kind| self.world.has_fault(kind, *at);
            let fails = has(FaultKind::ListFails(device.gpu))
                || has(FaultKind::ListUnsupported(device.gpu));
            has(FaultKind::ListEmpty(device.gpu)) && !fails
        };
        let proves = |count: usize, contradicts: &dyn Fn(&Ms) -> bool| {
            let (all, last_two) = (readings.iter().take(count), readings.iter().take(2));
            readings.len() >= count
                && all.clone().all(is_empty)
                && last_two.clone().all(contradicts)
        };
        let alive =
            |at: Ms| self.world.processes.iter().filter(move |process| process.is_alive(at));
        let holds = |at: &Ms| {
            let has_total = !self.world.has_fault(FaultKind::TotalZero(device.gpu), *at);
            let used = alive(*at).filter_map(|process| process.use_of(device)).map(|used| used.mib);
            has_total && used.sum::<u32>() > UNLISTED_MIB.max(self.world.total_mib(device) / 50)
        };
        let works = |at: &Ms| {
            let mut uses = alive(*at).flat_map(|process| &process.uses);
            uses.any(|used| used.device.gpu == device.gpu && used.sm > 0)
        };
        let is_proven = proves(2, &holds) || device.instance.is_none() && proves(3, &works);
        readings.first().is_some_and(is_empty) && !is_proven
    }
}
