//! Law 9: the idle seconds of a container contain no time in which it worked or did not run.

use std::collections::BTreeMap;

use super::super::series::{device, names};
use super::super::timeline::{Device, Ms, Process};
use super::{Case, Checked, STATUS_LAG, violation};
use crate::exposition::Sample;

/// The longest idle time of each container (pod and name) on each device since the exporter started.
#[derive(Default)]
pub(super) struct IdleTimes {
    longest: BTreeMap<(usize, String, Device), Ms>,
    before: Option<Ms>,
}

impl IdleTimes {
    pub(super) fn check(&mut self, case: &Case<'_>, samples: &[Sample]) -> Vec<Checked> {
        self.add(case);
        let idle = |sample: &&Sample| sample.name == "DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL";
        samples.iter().filter(idle).map(|sample| self.check_sample(case, sample)).collect()
    }

    /// Adds the time since the last exposition.
    fn add(&mut self, case: &Case<'_>) {
        let at = case.received.at;
        let Some(before) = self.before.replace(at) else { return };
        let seen = case.received.pods.unwrap_or_default().min(before).saturating_sub(STATUS_LAG);
        for device in case.world.devices() {
            for (index, pod) in case.world.pods.iter().enumerate() {
                for container in &pod.containers {
                    let is_own = |process: &&Process| {
                        case.is_of_container(process, index, &container.name)
                            && process.use_of(device).is_some()
                    };
                    let own = || case.world.processes.iter().filter(is_own);
                    let works = own().any(|process| {
                        let busy = process.use_of(device).is_some_and(|used| used.sm > 0);
                        busy && process.start + 1_000 < before && at < process.end
                    });
                    // An idle process may outlive its run.
                    let exists = container.runs_within(seen, at)
                        || own().any(|process| process.start <= at && before < process.end);
                    if exists && (!works || case.driver_hides(device)) {
                        let key = (index, container.name.clone(), device);
                        *self.longest.entry(key).or_default() += at - before;
                    }
                }
            }
        }
    }

    fn check_sample(&self, case: &Case<'_>, sample: &Sample) -> Checked {
        let (Some(names), Some(device)) = (names(sample), device(sample, case.world)) else {
            return violation("9: no owner", format!("{sample:?}"));
        };
        // A forger may be wrong about itself.
        if case.named(names).iter().any(|(_, pod, _)| pod.forges) {
            return Ok(());
        }
        let of = |index: usize| self.longest.get(&(index, names.2.to_owned(), device)).copied();
        let longest = case.named(names).iter().filter_map(|(index, ..)| of(*index)).max();
        let longest = f64::from(u32::try_from(longest.unwrap_or_default()).unwrap()) / 1000.0;
        if sample.value <= longest + 0.01 {
            return Ok(());
        }
        violation("9: idle seconds", format!("at most {longest}: {sample:?}"))
    }
}
