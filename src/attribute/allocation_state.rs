//! Device allocations of the node, as far as they are known.

use std::time::Duration;

use super::allocation_table::AllocationTable;
use super::verdict::AllocationEvidence;
use crate::model::{ContainerIdentity, DeviceAllocation};

/// Device allocations of the node, as far as they are known.
#[derive(Clone, Copy, Debug)]
pub enum AllocationState<'a> {
    /// No source of allocations is configured.
    NoSource {
        /// Whether the node is in a cluster: then a process has no series until its pod is known.
        in_cluster: bool,
    },
    /// The sources have not responded yet.
    Pending,
    /// Allocations from the kubelet and the pods.
    Known(&'a AllocationTable),
}

impl<'a> AllocationState<'a> {
    /// What is known of the allocation of `device` to the pod of `container`, for a container with a
    /// process on it since `first_seen` (monotonic).
    #[must_use]
    pub fn evidence(
        self,
        container: &ContainerIdentity,
        device: &str,
        first_seen: Duration,
    ) -> AllocationEvidence {
        let Self::Known(table) = self else { return self.without_container() };
        match table.mode_of(container, device) {
            Some(_) if table.may_be_of_predecessor(container, first_seen) => {
                AllocationEvidence::Unknown
            }
            Some(mode) => AllocationEvidence::Allocated(mode),
            // A device is allocated before the container starts.
            None if table.knows_all_of(container, device)
                && table.is_current(container, first_seen) =>
            {
                AllocationEvidence::NotAllocated
            }
            None => AllocationEvidence::Unknown,
        }
    }

    /// What is known without a container: [`AllocationEvidence::Unknown`] once the source has
    /// responded.
    #[must_use]
    pub fn without_container(self) -> AllocationEvidence {
        match self {
            Self::NoSource { in_cluster: false } => AllocationEvidence::NoCluster,
            Self::NoSource { in_cluster: true } => AllocationEvidence::NoSource,
            Self::Pending => AllocationEvidence::Pending,
            Self::Known(_) => AllocationEvidence::Unknown,
        }
    }

    /// Allocations of a device; empty if unknown.
    #[must_use]
    pub fn allocations_of(self, device: &str) -> &'a [DeviceAllocation] {
        match self {
            Self::Known(table) => table.of_device(device),
            Self::NoSource { .. } | Self::Pending => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kube::allocation::{AllocationCompleteness, AllocationDoubt, Coverage};
    use crate::model::{AllocateMode, PodRef};

    const GPU: &str = "GPU-0";
    /// When the process was first seen.
    const SEEN: Duration = Duration::from_secs(100);

    fn container(pod: &str) -> ContainerIdentity {
        let pod = PodRef { uid: pod.into(), namespace: "team".into(), name: pod.into() };
        ContainerIdentity { pod, name: "main".into() }
    }

    /// GPU 0 is allocated to `train`; what `unlisted` and `doubtful` were allocated is unknown.
    fn table(as_of: u64, fresh: bool) -> AllocationTable {
        let allocation = DeviceAllocation {
            container: container("train"),
            device: GPU.into(),
            mode: AllocateMode::Exclusive,
            memory: Some(80.0),
            compute: Some(0.0),
            reserved: true,
            replica: None,
            claim: None,
            confirmed: true,
            running: true,
            known_since: Duration::ZERO,
        };
        let doubt = |name: &str, doubt| ((("team".into()), name.into()), [doubt].into());
        let completeness = AllocationCompleteness {
            coverage: Coverage::Pods {
                known: ["train", "other", "doubtful", "partly"].map(Into::into).into(),
                unknown_holders: true,
            },
            doubts: [
                doubt("doubtful", AllocationDoubt::Any),
                doubt("partly", AllocationDoubt::Device("GPU-1".into())),
            ]
            .into(),
            ..AllocationCompleteness::default()
        };
        AllocationTable::new([allocation], completeness).as_of(Duration::from_secs(as_of), fresh)
    }

    fn evidence(pod: &str, table: &AllocationTable) -> AllocationEvidence {
        AllocationState::Known(table).evidence(&container(pod), GPU, SEEN)
    }

    #[test]
    fn an_allocation_counts_at_any_age_and_for_all_containers_of_the_pod() {
        let table = table(0, false);
        let exclusive = AllocationEvidence::Allocated(AllocateMode::Exclusive);
        assert_eq!(evidence("train", &table), exclusive);
        let init = ContainerIdentity { name: "init".into(), ..container("train") };
        assert_eq!(AllocationState::Known(&table).evidence(&init, GPU, SEEN), exclusive);
    }

    #[test]
    fn no_allocation_needs_a_list_that_was_read_after_the_process_was_seen() {
        assert_eq!(evidence("other", &table(100, true)), AllocationEvidence::NotAllocated);
        assert_eq!(evidence("other", &table(99, true)), AllocationEvidence::Unknown);
        assert_eq!(evidence("other", &table(100, false)), AllocationEvidence::Unknown);
    }

    #[test]
    fn doubt_about_a_pod_covers_this_pod_only() {
        let table = table(100, true);
        assert_eq!(evidence("unlisted", &table), AllocationEvidence::Unknown);
        assert_eq!(evidence("doubtful", &table), AllocationEvidence::Unknown);
        assert_eq!(evidence("other", &table), AllocationEvidence::NotAllocated);
        assert_eq!(evidence("partly", &table), AllocationEvidence::NotAllocated, "of GPU 0");
        let partly = AllocationState::Known(&table).evidence(&container("partly"), "GPU-1", SEEN);
        assert_eq!(partly, AllocationEvidence::Unknown);
    }

    #[test]
    fn allocation_of_an_unlisted_name_is_that_of_containers_seen_before() {
        let of = |listed: u64| {
            let train = table(0, false).of_device(GPU).first().cloned();
            let unlisted = [(("team".into(), "train".into()), Duration::from_secs(listed))].into();
            let completeness =
                AllocationCompleteness { unlisted, ..AllocationCompleteness::default() };
            evidence("train", &AllocationTable::new(train, completeness))
        };
        assert_eq!(of(100), AllocationEvidence::Allocated(AllocateMode::Exclusive));
        assert_eq!(of(99), AllocationEvidence::Unknown, "it may be a successor");
    }

    #[test]
    fn a_device_is_not_free_while_the_pods_of_a_lost_reservation_may_hold_it() {
        let completeness = AllocationCompleteness {
            reservation_lost_until: Duration::from_secs(100),
            ..AllocationCompleteness::default()
        };
        let table = AllocationTable::new([], completeness);
        let at = |as_of| table.clone().as_of(Duration::from_secs(as_of), true);
        assert_eq!((at(99).allocated(GPU, 80.0), at(99).mode()), (None, None));
        let free = (Some(0.0), Some(AllocateMode::None));
        assert_eq!((at(100).allocated(GPU, 80.0), at(100).mode()), free);
    }

    #[test]
    fn only_holder_is_one_certain_running_container_of_the_pod() {
        let only_holder =
            |change: fn(&mut DeviceAllocation), others: &[(&str, &str)], pod: &str| {
                let Some(mut train) = table(100, true).of_device(GPU).first().cloned() else {
                    panic!("the allocation of train")
                };
                change(&mut train);
                let more = others.iter().map(|(pod, name)| DeviceAllocation {
                    container: ContainerIdentity { name: (*name).into(), ..container(pod) },
                    ..train.clone()
                });
                let completeness = AllocationCompleteness {
                    coverage: Coverage::Pods {
                        known: [Arc::from("train")].into(),
                        unknown_holders: false,
                    },
                    ..AllocationCompleteness::default()
                };
                let all = more.chain([train.clone()]).collect::<Vec<_>>();
                let table = AllocationTable::new(all, completeness);
                table.only_holder(&container(pod).pod, GPU).map(|found| found.name.to_string())
            };
        let main = Some("main".to_owned());
        assert_eq!(only_holder(|_| (), &[], "train"), main);
        assert_eq!(only_holder(|_| (), &[("other", "main")], "train"), main);
        assert_eq!(only_holder(|_| (), &[("train", "second")], "train"), None);
        assert_eq!(only_holder(|_| (), &[], "other"), None);
        assert_eq!(only_holder(|_| (), &[("other", "x")], "other"), None, "not all is known of it");
        assert_eq!(only_holder(|train| train.running = false, &[], "train"), None);
        assert_eq!(only_holder(|train| train.confirmed = false, &[], "train"), None);
    }

    #[test]
    fn nothing_is_known_before_the_sources_have_responded() {
        let states = [
            (AllocationState::NoSource { in_cluster: false }, AllocationEvidence::NoCluster),
            (AllocationState::NoSource { in_cluster: true }, AllocationEvidence::NoSource),
            (AllocationState::Pending, AllocationEvidence::Pending),
        ];
        for (state, evidence) in states {
            assert_eq!(state.evidence(&container("train"), GPU, SEEN), evidence);
            assert_eq!(state.without_container(), evidence);
        }
    }
}
