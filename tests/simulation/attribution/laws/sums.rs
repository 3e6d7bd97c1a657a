//! Law 5: a container's sum and mean are those of all its processes, or absent.

use std::collections::{BTreeMap, BTreeSet};

use super::super::series::{Family, ProcessSeries, Subject};
use super::super::timeline::{Device, Owner, Pod, Process};
use super::{Case, Checked, Violation, violation};

impl Case<'_> {
    /// A series of one container.
    pub(super) fn check_sum(&self, series: &ProcessSeries<'_>) -> Checked {
        // Processes outside of pods have no container.
        let Some(names) = series.names else {
            return match series.family {
                Family::Illegal => Ok(()),
                Family::Process => {
                    violation("1: PROCESS without pod labels", format!("{:?}", series.sample))
                }
            };
        };
        let candidates = self.named(names);
        let owned = |index: usize| -> Vec<&Process> {
            let on_device = self.processes_on(series.device);
            on_device.filter(|process| self.is_of_container(process, index, names.2)).collect()
        };
        let is_idle = candidates.iter().all(|(index, ..)| owned(*index).is_empty());
        if series.sample.value == 0.0 && (is_idle || self.driver_hides(series.device)) {
            return self.check_zero(names, series);
        }
        let is_process = series.family == Family::Process;
        let is_excused =
            |pod: &Pod| pod.forges || is_process && self.may_hold_unlisted(pod, series);
        if candidates.iter().any(|(_, pod, _)| is_excused(pod)) {
            return Ok(());
        }
        if candidates.iter().all(|(_, pod, _)| pod.may_use(series.device) != is_process) {
            let kind = if is_process {
                "1: PROCESS without an allocation"
            } else {
                "2: ILLEGAL although allocated"
            };
            return violation(kind, format!("{:?}", series.sample));
        }
        // Of several pods with this name, any may be meant.
        let mut why = None;
        for (index, pod, _) in candidates {
            if pod.may_use(series.device) != is_process {
                continue;
            }
            match self.sum(series, &owned(index)) {
                Ok(range) if range.contains(&series.sample.value) => {
                    match Self::check_mode(series, pod) {
                        Err(violation) if is_process => why = Some(violation),
                        _ => return Ok(()),
                    }
                }
                Ok(range) => {
                    let detail = format!("{range:?}: {:?}", series.sample);
                    why.get_or_insert(Violation { kind: "5: another sum", detail });
                }
                Err(missing) => {
                    let detail = format!("{missing}: {:?}", series.sample);
                    why.get_or_insert(Violation { kind: "5: another sum", detail });
                }
            }
        }
        why.map_or(Ok(()), Err)
    }

    /// The value of a container with these processes, at least and at most.
    fn sum(
        &self,
        series: &ProcessSeries<'_>,
        processes: &[&Process],
    ) -> Result<std::ops::RangeInclusive<f64>, String> {
        let (mut least, mut most) = (0.0, 0.0);
        for process in processes {
            let Some(used) = process.use_of(series.device) else { continue };
            if self.is_unreadable(process, used) {
                return Err(format!("{} cannot be read", process.pid));
            }
            let range = match series.metric {
                "MEM_USED" if self.lacks_memory(process, used) => {
                    return Err(format!("the memory of {} is unknown", process.pid));
                }
                "MEM_USED" => f64::from(used.mib)..=f64::from(used.mib),
                _ if self.lacks_utilization(process, used) => {
                    return Err(format!("the utilization of {} is unknown", process.pid));
                }
                "SM_UTIL" => self.utilization(process, used),
                _ => 0.0..=0.0,
            };
            least += range.start();
            most += range.end();
        }
        let cap = |sum: f64| if series.metric == "MEM_USED" { sum } else { sum.min(100.0) };
        Ok(cap(least) - 1e-6..=cap(most) + 1e-6)
    }

    /// If one process of a container has a family on a device, all do.
    pub(super) fn check_families(&self) -> Checked {
        let mut shown: BTreeMap<(usize, usize, Device, &str), BTreeSet<u32>> = BTreeMap::new();
        for series in &self.series {
            let Subject::Pid(pid) = series.subject else { continue };
            let Some((_, process)) = self.process(pid, series.device) else { continue };
            let Owner::Run(pod, container, _) = process.owner else {
                continue;
            };
            let key = (pod, container, series.device, series.sample.name.as_str());
            shown.entry(key).or_default().insert(pid);
        }
        for ((pod, container, device, name), pids) in shown {
            let container = &self.world.pods[pod].containers[container].name;
            let on_device = self.processes_on(device);
            let mut missing = on_device
                .filter(|process| self.is_of_container(process, pod, container))
                .filter(|process| !pids.contains(&process.pid));
            if let Some(process) = missing.next() {
                let detail = format!("{name} of {pids:?} and not of {process:?}");
                return violation("5: partial family", detail);
            }
        }
        Ok(())
    }
}
