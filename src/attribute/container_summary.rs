//! What the processes of each container on one device have in common.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{ContainerIdentity, Missing, Owner, ProcessSample, Usage};

/// Each container with a process on a device.
pub(super) struct ContainerSummaries(BTreeMap<ContainerIdentity, ContainerSummary>);

/// The processes of a container.
pub(super) struct ContainerSummary {
    /// When the first of them was seen (monotonic).
    pub(super) first_seen: Duration,
    /// Their sum; a value that one of them lacks is missing.
    pub(super) usage: Usage,
}

impl ContainerSummaries {
    /// Summarizes `processes`, each with its owner.
    pub(super) fn of<'a>(processes: impl Iterator<Item = (&'a ProcessSample, &'a Owner)>) -> Self {
        let mut summaries = Self(BTreeMap::new());
        for (process, owner) in processes {
            summaries.add(owner, process.first_seen, process.usage);
        }
        summaries
    }

    /// Adds the use of a process of `owner` that was first seen at `first_seen` (monotonic).
    pub(super) fn add(&mut self, owner: &Owner, first_seen: Duration, usage: Usage) {
        let Owner::Container(container) = owner else { return };
        if let Some(summary) = self.0.get_mut(container) {
            summary.first_seen = summary.first_seen.min(first_seen);
            summary.usage = summary.usage.with(usage);
        } else {
            self.0.insert(container.clone(), ContainerSummary { first_seen, usage });
        }
    }

    /// Withholds the usage of all containers, or of those of one pod: a process with an unknown
    /// owner may be one of theirs.
    pub(super) fn withhold(&mut self, pod_uid: Option<&str>, reason: Missing) {
        for (container, summary) in &mut self.0 {
            if pod_uid.is_none_or(|uid| *container.pod.uid == *uid) {
                summary.usage = Usage { memory: Err(reason), utilization: Err(reason) };
            }
        }
    }

    /// The processes of `container`, if it has one on the device.
    pub(super) fn get(&self, container: &ContainerIdentity) -> Option<&ContainerSummary> {
        let matching = || self.iter().find(|(other, _)| other.matches(container));
        self.0.get(container).or_else(|| Some(matching()?.1))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ContainerIdentity, &ContainerSummary)> {
        self.0.iter()
    }

    /// Usage of a process of `owner` as it may be published: a value is withheld if another process
    /// of the container lacks it, because a sum or mean over the rest would be wrong.
    pub(super) fn publishable(&self, owner: &Owner, usage: Usage) -> Usage {
        let Owner::Container(container) = owner else { return usage };
        let Some(summary) = self.0.get(container) else { return usage };
        Usage {
            memory: summary.usage.memory.and(usage.memory),
            utilization: summary.usage.utilization.and(usage.utilization),
        }
    }
}
