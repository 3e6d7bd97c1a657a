//! A pod and its containers over time.

use super::{Device, Ms};

/// Delay until the kubelet and the API server agree that a pod is gone.
pub(crate) const RELEASE_LAG: Ms = 4_000;

/// A pod.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent properties")]
pub(crate) struct Pod {
    pub(crate) uid: String,
    /// Of a static pod, the UID in cgroups and log directories.
    pub(crate) hash: Option<String>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) annotations: Vec<(String, String)>,
    /// The pod states an allocation that it does not have, and may be reported so.
    pub(crate) forges: bool,
    /// What it states may change the allocated amounts of shared devices.
    pub(crate) changes_amounts: bool,
    /// One process of the host works for all containers, in a cgroup of the pod.
    pub(crate) sandboxed: bool,
    /// `spec.runtimeClassName`, which does not tell whether it is a sandbox.
    pub(crate) runtime_class: Option<&'static str>,
    /// The pod holds a GPU for others.
    pub(crate) reserves: bool,
    /// The object is in the API server.
    pub(crate) created: Ms,
    /// The pod is in the kubelet's List.
    pub(crate) admitted: Ms,
    /// `deletionTimestamp` is set.
    pub(crate) deleted: Option<Ms>,
    /// The object is removed from the API server.
    pub(crate) gone: Option<Ms>,
    /// The last container has ended and none is restarted.
    pub(crate) completed: Option<Ms>,
    /// Delay of status updates.
    pub(crate) lag: Ms,
    /// The kubelet sends no status from the first time to the second.
    pub(crate) status_held: Option<(Ms, Ms)>,
    pub(crate) containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) runs: Vec<Run>,
    /// The status of the container contains this id, which is that of another pod's container.
    pub(crate) foreign_id: Option<String>,
    /// A claim of a network device, and the device of which it has the name.
    pub(crate) network: Option<(String, Device)>,
    /// Resource requests in the pod spec: resource and quantity.
    pub(crate) requests: Vec<(&'static str, String)>,
    /// Device ids in the kubelet's List, by resource.
    pub(crate) listed: Vec<(&'static str, Vec<String>)>,
    pub(crate) claims: Vec<Claimed>,
    pub(crate) allocations: Vec<Allocation>,
}

/// A device of a resource claim.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claimed {
    /// Name of the claim.
    pub(crate) claim: String,
    pub(crate) device: Device,
    pub(crate) access: Access,
}

/// How a claim allocates a device.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Access {
    Whole,
    TimeSlicing,
    /// With limits: percent of the compute, and MiB.
    Mps(u32, u32),
    /// A share with this id, MiB.
    Share(String, u32),
    /// Administrative access, which allocates nothing.
    Admin,
}

impl Claimed {
    /// Id of the share.
    pub(crate) fn share_id(&self) -> Option<String> {
        if let Access::Share(id, _) = &self.access { Some(id.clone()) } else { None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    App,
    Init,
    Sidecar,
    Ephemeral,
}

/// One run of a container.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) start: Ms,
    pub(crate) end: Ms,
}

/// What a container is allocated of a device.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Allocation {
    pub(crate) device: Device,
    pub(crate) shared: bool,
    /// Memory, MiB.
    pub(crate) memory: f64,
    /// Whether the memory of several containers adds up.
    pub(crate) reserved: bool,
    /// Fraction of the compute; 0 is unlimited.
    pub(crate) compute: f64,
    /// No source states the device: the kubelet omits it, or its id does not identify a partition.
    pub(crate) hidden: bool,
}

/// Whether a container holds a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holding {
    No,
    /// The sources disagree, rightly.
    Either,
    Yes,
}

impl Pod {
    /// When all containers have ended.
    pub(crate) fn last_run_end(&self) -> Ms {
        let ends = self.containers.iter().flat_map(|c| &c.runs).map(|run| run.end);
        ends.max().unwrap_or(self.created)
    }

    /// When the pod gives up its devices at the earliest: all its containers have ended for good, or its
    /// object is gone.
    pub(crate) fn end(&self) -> Ms {
        let stopped = self.deleted.map(|deleted| self.last_run_end().max(deleted));
        [self.completed, stopped, self.gone].into_iter().flatten().min().unwrap_or(Ms::MAX)
    }

    /// When the kubelet has released the devices.
    pub(crate) fn released(&self) -> Ms {
        let end = self.end();
        if end == Ms::MAX { end } else { end.max(self.last_run_end()) + 1_000 }
    }

    pub(crate) fn holding(&self, at: Ms) -> Holding {
        let released = self.released().saturating_add(RELEASE_LAG - 1_000);
        if at < self.created || at >= released {
            Holding::No
        } else if at < self.admitted || at >= self.end() {
            Holding::Either
        } else {
            Holding::Yes
        }
    }

    /// Whether the pod may use `device` or a part of it.
    pub(crate) fn is_allocated(&self, device: Device) -> bool {
        let allocations = self.containers.iter().flat_map(|container| &container.allocations);
        allocations.into_iter().any(|allocation| allocation.device.overlaps(device))
    }

    /// Whether a source states that the pod is allocated `device`.
    pub(crate) fn is_listed_with(&self, device: Device) -> bool {
        let mut all = self.containers.iter().flat_map(|container| &container.allocations);
        all.any(|allocation| !allocation.hidden && allocation.device.overlaps(device))
    }

    /// Whether the pod has administrative access to `device`.
    pub(crate) fn administers(&self, device: Device) -> bool {
        let mut all = self.containers.iter().flat_map(|container| &container.claims);
        all.any(|claimed| claimed.access == Access::Admin && claimed.device == device)
    }

    /// Whether the use of `device` by the pod is legal.
    pub(crate) fn may_use(&self, device: Device) -> bool {
        self.is_allocated(device) || self.administers(device)
    }

    /// Whether an allocation of the pod is not stated by any source.
    pub(crate) fn has_hidden_allocation(&self) -> bool {
        let mut all = self.containers.iter().flat_map(|container| &container.allocations);
        all.any(|allocation| allocation.hidden)
    }

    /// Whether the pod uses `device` together with other pods.
    pub(crate) fn shares(&self, device: Device) -> bool {
        let mut all = self.containers.iter().flat_map(|container| &container.allocations);
        all.any(|allocation| allocation.shared && allocation.device.overlaps(device))
    }

    /// Every time at which something happens to the pod.
    pub(crate) fn events(&self) -> Vec<Ms> {
        let runs = self.containers.iter().flat_map(|container| &container.runs);
        let mut all: Vec<Ms> = runs.flat_map(|run| [run.start, run.end]).collect();
        all.extend([self.created, self.admitted]);
        all.extend([self.deleted, self.gone, self.completed].into_iter().flatten());
        all.extend(self.status_held.into_iter().flat_map(|(from, to)| [from, to]));
        all.extend([self.end(), self.released()].into_iter().filter(|at| *at != Ms::MAX));
        all
    }
}

impl Container {
    /// Whether it runs at some time between `from` and `to`.
    pub(crate) fn runs_within(&self, from: Ms, to: Ms) -> bool {
        self.runs.iter().any(|run| run.start <= to && from < run.end)
    }
}
