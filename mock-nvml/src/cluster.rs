//! The Kubernetes node around the GPUs: what it is at a time, and the servers that tell.
//!
//! What they tell is a pure function of the scenario and of time: [`pods`] as the API server says
//! them, [`node`] the node itself, [`kubelet`] what containers hold, [`slices`] the devices that can be claimed, [`logs`] the names of log
//! files. [`devices`] and
//! [`annotations`] say how a holding is written down, [`cgroup`] what the kernel calls a container,
//! [`api`] is the API server's memory. [`serve`] alone does I/O.

pub(crate) mod annotations;
mod api;
pub(crate) mod cgroup;
pub(crate) mod devices;
mod kubelet;
mod logs;
mod node;
mod pods;
mod serve;
pub(crate) mod slices;

pub(crate) use self::serve::{begin, clear};
use crate::scenario::cluster::{Cluster, Trouble};

impl Cluster {
    /// The first moment after `time` at which anything of it changes.
    pub(crate) fn next_change(&self, time: f64) -> Option<f64> {
        let pods = self.pods.iter().flat_map(|pod| {
            let own = [Some(pod.life.from), Some(pod.life.to), pod.deleting, pod.completed];
            let runs = pod.containers.iter().flat_map(move |container| {
                let lag = container.lag;
                let ends = container.runs.iter().flat_map(|run| [run.during.from, run.during.to]);
                let pod = [pod.life.from + lag, pod.completed.unwrap_or(f64::INFINITY) + lag];
                ends.flat_map(move |at| [at, at + lag]).chain(pod)
            });
            own.into_iter().flatten().chain(runs)
        });
        let faults = self.faults.iter().flat_map(|fault| {
            let late = if let Trouble::Slow(delay) = fault.trouble { delay } else { 0.0 };
            [fault.during.from, fault.during.to, fault.during.to + late]
        });
        let labels = self.labels.iter().flat_map(|label| [label.during.from, label.during.to]);
        pods.chain(faults).chain(labels).filter(|at| at.is_finite() && *at > time).reduce(f64::min)
    }
}

#[cfg(test)]
mod tests {
    use crate::scenario::{Scenario, cluster::Cluster};

    /// The cluster of a node of two T4 with these tables.
    pub(super) fn scenario(tables: &str) -> Scenario {
        let text = format!("[[gpu]]\nmodel = \"T4\"\ncount = 2\n{tables}");
        Scenario::parse("test", &text).unwrap_or_else(|complaint| panic!("{complaint}"))
    }

    pub(super) fn cluster(scenario: &Scenario) -> &Cluster {
        scenario.cluster.as_deref().unwrap()
    }

    #[test]
    fn the_next_change_is_the_nearest_one_to_come() {
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
