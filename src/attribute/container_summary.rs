//! What the processes of each container on one device have in common.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{ContainerIdentity, Owner, ProcessSample, Usage};

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
        let mut summaries = BTreeMap::<ContainerIdentity, ContainerSummary>::new();
        for (process, owner) in processes {
            let Owner::Container(container) = owner else { continue };
            if let Some(summary) = summaries.get_mut(container) {
                summary.first_seen = summary.first_seen.min(process.first_seen);
                summary.usage = summary.usage.with(process.usage);
            } else {
                let ProcessSample { first_seen, usage, .. } = *process;
                summaries.insert(container.clone(), ContainerSummary { first_seen, usage });
            }
        }
        Self(summaries)
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
