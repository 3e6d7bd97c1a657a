//! The fake Kubernetes node around the GPUs: its state at a world time.
//!
//! All objects are pure functions of the scenario and of time: [`pods`] and [`node`] of the API server,
//! [`kubelet`] the `PodResources` responses, [`resource_slices`] and [`resource_claims`] the objects of DRA. [`devices`]
//! and [`resources`] are the device plugins and their resources, [`annotations`] encodes allocations,
//! [`cgroup`] encodes cgroup paths, [`api`] is the API server's watch cache.

pub(crate) mod annotations;
pub(crate) mod api;
pub(crate) mod cgroup;
pub(crate) mod devices;
pub(crate) mod kubelet;
pub(crate) mod node;
pub(crate) mod pods;
pub(crate) mod resource_claims;
pub(crate) mod resource_slices;
pub(crate) mod resources;

use crate::scenario::cluster::{Cluster, ServerFault};

impl Cluster {
    /// World time of the first state change after `time`; `None` if nothing changes any more.
    pub(crate) fn next_change(&self, time: f64) -> Option<f64> {
        let pods = self.pods.iter().flat_map(|pod| {
            let own = [
                Some(pod.lifetime.from),
                Some(pod.lifetime.to),
                pod.deletion_time,
                pod.forced_deletion_time,
                pod.completion_time,
            ];
            let runs = pod.containers.iter().flat_map(move |container| {
                let lag = container.status_lag;
                let ends = container.runs.iter().flat_map(|run| [run.during.from, run.during.to]);
                let pod =
                    [pod.lifetime.from + lag, pod.completion_time.unwrap_or(f64::INFINITY) + lag];
                ends.flat_map(move |at| [at, at + lag]).chain(pod)
            });
            own.into_iter().flatten().chain(runs)
        });
        let faults = self.faults.iter().flat_map(|fault| {
            let late = if let ServerFault::Slow(delay) = fault.fault { delay } else { 0.0 };
            [fault.during.from, fault.during.to, fault.during.to + late]
        });
        let labels = self.labels.iter().flat_map(|label| [label.during.from, label.during.to]);
        pods.chain(faults).chain(labels).filter(|at| at.is_finite() && *at > time).reduce(f64::min)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::scenario::{Scenario, cluster::Cluster};

    /// A scenario of a node with two T4 GPUs and the given tables.
    pub(crate) fn scenario(tables: &str) -> Scenario {
        let text = format!("[[gpu]]\nmodel = \"T4\"\ncount = 2\n{tables}");
        Scenario::parse("test", &text).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn cluster(scenario: &Scenario) -> &Cluster {
        scenario.cluster.as_deref().unwrap()
    }

    #[test]
    fn next_change_is_the_earliest_one_after_the_given_time() {
        let scenario = scenario(
            "[[pod]]\nname = \"p\"\nstart = 5\nend = 20\n\
             containers = [{ name = \"c\", start = 6, status_lag = 2 }]\n\
             [[cluster_fault]]\nsource = \"api\"\neffect = \"hang\"\nfrom = 10\nto = 11\n",
        );
        let mut times = vec![0.0];
        while let Some(next) = cluster(&scenario).next_change(times[times.len() - 1]) {
            times.push(next);
        }
        assert_eq!(times, [0.0, 5.0, 6.0, 7.0, 8.0, 10.0, 11.0, 20.0, 22.0]);
    }
}
