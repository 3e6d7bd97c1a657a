//! Law 6: what is stated of allocations was true when the sources were read, or is absent.

use std::collections::BTreeMap;

use super::super::series::{device, names};
use super::super::timeline::{Allocation, Device, Holding, Ms, Pod, RELEASE_LAG, World};
use super::{Case, Checked, STATUS_LAG, violation};
use crate::exposition::Sample;

/// Allocations that the kubelet has not confirmed for this long are not published, with the time between
/// two cycles.
const LIST_MAX_AGE: Ms = 66_000;

impl Case<'_> {
    pub(super) fn check_allocations(&self, samples: &[Sample]) -> Vec<Checked> {
        let times = self.stated_times();
        samples.iter().map(|sample| self.check_allocation(sample, &times)).collect()
    }

    fn check_allocation(&self, sample: &Sample, times: &[Ms]) -> Checked {
        let is_of_node = matches!(
            sample.name.as_str(),
            "DCGM_CUSTOM_DEV_FB_ALLOCATED" | "DCGM_CUSTOM_ALLOCATE_MODE"
        );
        if is_of_node && self.may_be_falsified(times) {
            return Ok(());
        }
        let (kind, expected) = match sample.name.as_str() {
            "DCGM_CUSTOM_DEV_FB_ALLOCATED" => {
                let Some(device) = device(sample, self.world) else {
                    return violation("6: no such device", format!("{sample:?}"));
                };
                ("6: FB_ALLOCATED", values(times, |at| self.world.allocated(device, at)))
            }
            "DCGM_CUSTOM_ALLOCATE_MODE" => {
                ("6: ALLOCATE_MODE", values(times, |at| self.world.allocate_mode(at)))
            }
            "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED" => {
                ("6: CONTAINER_MEM_ALLOCATED", self.of_container(sample, |a| a.memory))
            }
            "DCGM_CUSTOM_CONTAINER_CP_ALLOCATED" => {
                ("6: CONTAINER_CP_ALLOCATED", self.of_container(sample, |a| a.compute))
            }
            _ => return Ok(()),
        };
        if expected.iter().any(|value| (value - sample.value).abs() < 1e-3) {
            return Ok(());
        }
        violation(kind, format!("{expected:?} within {times:?}: {sample:?}"))
    }

    /// Where a scheduler does not allocate more of a device than it has, the containers do not have more. It
    /// may allocate again what a pod has that is being deleted.
    pub(super) fn check_shares(&self, samples: &[Sample]) -> Checked {
        let at = self.received.at;
        let mut sums: BTreeMap<Device, f64> = BTreeMap::new();
        let of = |sample: &&Sample| sample.name == "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED";
        for sample in samples.iter().filter(of).filter(|_| self.world.enforces_shares) {
            let (Some(names), Some(device)) = (names(sample), device(sample, self.world)) else {
                continue;
            };
            let is_deleted = |pod: &Pod| pod.deleted.is_some_and(|deleted| deleted <= at);
            if !self.named(names).iter().any(|(_, pod, _)| is_deleted(pod)) {
                *sums.entry(device).or_default() += sample.value;
            }
        }
        let total = |device: Device| f64::from(self.world.total_mib(device)) + 1e-3;
        match sums.into_iter().find(|(device, sum)| *sum > total(*device)) {
            Some((device, sum)) => {
                violation("6: more than the device", format!("{sum} MiB of {device:?}"))
            }
            None => Ok(()),
        }
    }

    /// Whether a pod may have changed the allocated amounts by what it states.
    pub(super) fn may_be_falsified(&self, times: &[Ms]) -> bool {
        let mut forgers = self.world.pods.iter().filter(|pod| pod.changes_amounts);
        forgers.any(|pod| times.iter().any(|at| pod.holding(*at) != Holding::No))
    }

    /// Times of which the sources may state the allocations: from their oldest reading until now.
    pub(super) fn stated_times(&self) -> Vec<Ms> {
        let at = self.received.at;
        let oldest = at.saturating_sub(LIST_MAX_AGE);
        // The kubelet's List is evidence even while the API server is down, unless it contains ended pods.
        let pods = self.received.pods.unwrap_or(at);
        let list = self.received.list.unwrap_or(at).max(oldest);
        let since = if self.world.lists_ended { pods.min(list) } else { list };
        self.times_since(since.saturating_sub(STATUS_LAG))
    }

    /// `since`, now, and when the allocations changed meanwhile.
    fn times_since(&self, since: Ms) -> Vec<Ms> {
        let at = self.received.at;
        let mut times: Vec<Ms> = self
            .world
            .pods
            .iter()
            .flat_map(|pod| {
                let mut events = pod.events();
                // The devices of an ended pod are free this much later at the latest.
                let released = pod.released().saturating_add(RELEASE_LAG);
                events.push(released);
                events
            })
            .collect();
        times.retain(|event| (since..=at).contains(event));
        times.extend([since, at]);
        times.sort_unstable();
        times.dedup();
        times
    }

    /// The values that a container may have, as stated by a source since the last one has responded.
    fn of_container(&self, sample: &Sample, value: impl Fn(&Allocation) -> f64) -> Vec<f64> {
        let at = self.received.at;
        let newest = self.received.pods.max(self.received.list).unwrap_or(at);
        let oldest = self.stated_times().into_iter().min().unwrap_or(at);
        let times = self.times_since(oldest.min(newest.saturating_sub(STATUS_LAG)));
        let (Some(names), Some(device)) = (names(sample), device(sample, self.world)) else {
            return Vec::new();
        };
        let mut values = Vec::new();
        for (_, pod, container) in self.named(names) {
            if pod.changes_amounts {
                return vec![sample.value];
            }
            let held = times.iter().any(|at| pod.holding(*at) != Holding::No);
            let allocations = container.allocations.iter().filter(|a| a.device == device && held);
            values.extend(allocations.map(&value));
        }
        values
    }
}

fn values(times: &[Ms], of: impl Fn(Ms) -> Vec<f64>) -> Vec<f64> {
    let mut all: Vec<f64> = times.iter().flat_map(|at| of(*at)).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

impl World {
    /// The allocated fraction of a device: each value that is true while sources may disagree.
    fn allocated(&self, device: Device, at: Ms) -> Vec<f64> {
        let total = f64::from(self.total_mib(device));
        let mut sums = vec![0.0];
        for pod in &self.pods {
            let holding = pod.holding(at);
            let allocations = pod.containers.iter().flat_map(|c| &c.allocations);
            let held = allocations.filter(|allocation| allocation.device.overlaps(device));
            let memory: f64 = held.map(|allocation| allocation.memory.min(total)).sum();
            if holding == Holding::No || memory == 0.0 {
                continue;
            }
            let with: Vec<f64> = sums.iter().map(|sum| sum + memory).collect();
            match holding {
                Holding::Yes => sums = with,
                Holding::Either | Holding::No => sums.extend(with),
            }
        }
        sums.into_iter().map(|sum: f64| (sum / total).min(1.0)).collect()
    }

    /// The mode of the node.
    fn allocate_mode(&self, at: Ms) -> Vec<f64> {
        let mut modes = vec![0.0_f64];
        for pod in &self.pods {
            let allocations = pod.containers.iter().flat_map(|c| &c.allocations);
            let of_pod = allocations.map(|allocation| if allocation.shared { 2.0 } else { 1.0 });
            let Some(mode) = of_pod.reduce(f64::max) else { continue };
            let with: Vec<f64> = modes.iter().map(|other| other.max(mode)).collect();
            match pod.holding(at) {
                Holding::Yes => modes = with,
                Holding::Either => modes.extend(with),
                Holding::No => {}
            }
        }
        modes
    }
}
