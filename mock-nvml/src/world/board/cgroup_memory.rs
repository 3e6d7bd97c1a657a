//! Limits of cgroups, and the memory that is charged to them.

use crate::{
    cgroup_tree::CLIENT,
    return_code::{NvmlResult, ReturnCode},
    scenario::cluster::{Container, ContainerRun, Pod},
    world::board::Board,
};

/// The cgroup of a limit that applies to the caller, too.
const EVERY_CGROUP: &str = "*";

/// Account of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CgroupMemory {
    /// Soft limit in bytes; 0 for none.
    pub(crate) soft: u64,
    /// Hard limit in bytes.
    pub(crate) hard: Option<u64>,
    /// Used memory in bytes.
    pub(crate) used: u64,
}

impl Board {
    /// The hard limit of the caller: that of its cgroup or of one above it.
    pub(crate) fn own_hard_limit(&self) -> Option<u64> {
        let is_above = |cgroup: &str| {
            let below = CLIENT.strip_prefix(cgroup).filter(|_| cgroup.starts_with('/'));
            below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
        };
        let limits = self.gpu().memory_limits.iter();
        let own = limits.filter(|limit| limit.cgroup == EVERY_CGROUP || is_above(&limit.cgroup));
        own.filter_map(|limit| limit.hard).min()
    }

    /// The account of the cgroup in this directory of the tree, or with this path.
    pub(crate) fn cgroup_memory(&self, path: &str) -> NvmlResult<CgroupMemory> {
        if self.branch() < 615 || self.model().extras.unified_memory {
            return Err(ReturnCode::NOT_SUPPORTED);
        }
        let container = self.container_of(path);
        if let Some((.., run)) = container
            && !run.during.contains(self.now().world)
        {
            // Its cgroup has been removed.
            return Err(ReturnCode::OPERATING_SYSTEM);
        }
        let name = container.map(|(pod, container, _)| {
            format!("{}/{}/{}", pod.namespace, pod.name, container.name)
        });
        let mut limits = self.gpu().memory_limits.iter();
        let found = limits.find(|limit| {
            limit.cgroup == EVERY_CGROUP
                || (limit.cgroup.starts_with('/') && path.ends_with(&limit.cgroup))
                || Some(&limit.cgroup) == name.as_ref()
        });
        let limit = found.ok_or(ReturnCode::NOT_FOUND)?;
        let of_processes = || {
            let in_container =
                |cgroup: &str| container.is_some_and(|(.., run)| cgroup.contains(&run.id));
            let own = self.running_processes().filter(|process| in_container(&process.cgroup));
            own.filter_map(|process| process.memory).sum()
        };
        let used = limit.used.unwrap_or_else(of_processes);
        Ok(CgroupMemory { soft: limit.soft, hard: limit.hard, used })
    }

    /// The run of a container that a path names.
    fn container_of(&self, path: &str) -> Option<(&Pod, &Container, &ContainerRun)> {
        let pods = self.scenario.cluster.iter().flat_map(|cluster| &cluster.pods);
        let containers = pods.flat_map(|pod| pod.containers.iter().map(move |one| (pod, one)));
        let mut runs =
            containers.flat_map(|(pod, one)| one.runs.iter().map(move |run| (pod, one, run)));
        runs.find(|(.., run)| path.contains(&run.id))
    }
}
