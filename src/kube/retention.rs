//! Keeps the allocations of pods that are temporarily missing in the kubelet's List.
//!
//! A restarted kubelet returns no pods at first, then only static pods, and all pods once it has
//! read them from the API server, which may be down for a long time. The devices of a container do
//! not change while it exists, so an earlier List stays valid as long as its pod exists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::assignments::{Assignments, ClaimedDevice, ContainerAssignment, PodName};
use super::pod::Pod;
use super::pods::{NameLookup, PodSnapshot, TrackedPod, UidLookup};
use crate::policy::POD_UNLISTED_MAX;

/// The last known allocations of pods, by pod name.
#[derive(Debug, Default)]
pub struct AllocationRetention(BTreeMap<PodName, Retained>);

#[derive(Debug)]
struct Retained {
    /// None if the pods are unknown or the name is not unique.
    uid: Option<Arc<str>>,
    containers: Vec<ContainerAssignment>,
    /// When the last List that contains it was requested (monotonic).
    listed: Duration,
    /// When the List was requested with which a started successor of the pod was first known
    /// (monotonic). Later Lists contain the successor.
    successor_started: Option<Duration>,
}

/// State of a pod that is not in a List.
enum Presence {
    Live(Arc<str>),
    Gone,
    Unknown,
}

impl AllocationRetention {
    /// Returns `list` plus the allocations from earlier Lists of pods that it lacks and that may
    /// still exist.
    #[must_use]
    pub fn apply(&mut self, list: &Assignments, pods: Option<&PodSnapshot>) -> Assignments {
        let (list, unrecorded) = &self.without_predecessors(list, pods);
        self.record(list, unrecorded, pods);
        self.0.retain(|name, retained| {
            list.pods.contains(name)
                || match presence(name, pods) {
                    Presence::Live(uid) if retained.uid.as_ref() == Some(&uid) => true,
                    // A kubelet that restarts lists a predecessor again, if it has not ended.
                    Presence::Live(_) if retained.uid.is_some() && is_complete(list, pods) => false,
                    Presence::Gone => false,
                    // While the API server is down, a pod of the last pod list counts as existing.
                    Presence::Unknown if retained.is_tracked(pods) => true,
                    // A pod that was unknown when it was listed may have a successor by now.
                    Presence::Live(_) | Presence::Unknown => {
                        list.requested_at.saturating_sub(retained.listed) < POD_UNLISTED_MAX
                    }
                }
        });
        let mut merged = list.clone();
        let listed = ListedDevices::of(list.containers.iter());
        let missing = |(name, retained): &(&PodName, &Retained)| {
            !list.pods.contains(*name) && retained.successor(name, pods).is_none()
        };
        for (name, retained) in self.0.iter().filter(missing) {
            let is_live = matches!(presence(name, pods), Presence::Live(_));
            if !retained.containers.is_empty() && (!is_live || retained.uid.is_none()) {
                merged.unconfirmed.insert(name.clone());
                if retained.uid.is_none() {
                    merged.unlisted.insert(name.clone(), retained.listed);
                }
            }
            merged
                .containers
                .extend(retained.containers.iter().map(|assigned| listed.remove_from(assigned)));
        }
        merged
    }

    /// Whether a List that is newer than what is known of a pod is needed: the last one may be about its
    /// predecessor.
    #[must_use]
    pub fn awaits_list(&self, pods: Option<&PodSnapshot>) -> bool {
        let mut unknown = self.0.iter().filter(|(_, retained)| retained.uid.is_none());
        unknown.any(|(name, retained)| match presence(name, pods) {
            Presence::Live(uid) => is_older(retained.listed, &uid, pods),
            Presence::Gone | Presence::Unknown => false,
        })
    }

    /// Resolves names that may be those of a deleted pod and of its successor, which the kubelet
    /// lists both until the first is cleaned up: an earlier List identifies the devices of the
    /// first. A name that is not resolved is ambiguous in the result. Its allocations, and those of
    /// a deleted pod that is still listed, are not to be recorded: the second result.
    fn without_predecessors(
        &mut self,
        list: &Assignments,
        pods: Option<&PodSnapshot>,
    ) -> (Assignments, BTreeSet<PodName>) {
        let mut remaining = list.clone();
        let mut unrecorded: BTreeSet<PodName> =
            list.pods.iter().filter(|name| is_ambiguous(name, list, pods)).cloned().collect();
        for (name, retained) in self.0.iter_mut().filter(|(name, _)| list.pods.contains(*name)) {
            if matches!(presence(name, pods), Presence::Unknown) && retained.is_replaced(name, list)
            {
                remaining.ambiguous.insert(name.clone());
                unrecorded.insert(name.clone());
                continue;
            }
            let Some(successor) = retained.successor(name, pods) else { continue };
            if has_started(&successor.pod) && retained.successor_started.is_none() {
                retained.successor_started = Some(list.requested_at);
            }
            let mut others: Vec<_> = list.containers.clone();
            others.retain(|assigned| is_of(assigned, name));
            let listed = retained.containers.iter().all(|old| {
                let position = others.iter().position(|assigned| assigned == old);
                position.map(|position| others.remove(position)).is_some()
            });
            if !listed {
                continue;
            }
            if !others.is_empty() {
                remaining.ambiguous.remove(name);
                remaining.containers.retain(|assigned| !is_of(assigned, name));
                remaining.containers.append(&mut others);
                if list.ambiguous.contains(name) {
                    unrecorded.insert(name.clone());
                }
            } else if retained.successor_started.is_none_or(|at| at >= list.requested_at)
                || !is_complete(list, pods)
            {
                // The successor may have been allocated the same devices, or others that are not listed yet.
                remaining.ambiguous.insert(name.clone());
                remaining.unlisted.insert(name.clone(), list.requested_at);
                unrecorded.insert(name.clone());
            }
        }
        (remaining, unrecorded)
    }

    fn record(
        &mut self,
        list: &Assignments,
        unrecorded: &BTreeSet<PodName>,
        pods: Option<&PodSnapshot>,
    ) {
        for name in list.pods.difference(unrecorded) {
            let of_pod = list.containers.iter().filter(|assigned| is_of(assigned, name));
            let containers: Vec<_> = of_pod.cloned().collect();
            let uid = match presence(name, pods) {
                Presence::Live(uid) if is_about(list.requested_at, &uid, pods) => Some(uid),
                // The name may be that of a predecessor, or while the API server is down, of a successor;
                // but the devices of the pod were these.
                Presence::Live(_) | Presence::Unknown => {
                    let before = self.0.remove(name).filter(|old| old.containers == containers);
                    before.and_then(|before| before.uid)
                }
                Presence::Gone => None,
            };
            let retained =
                Retained { uid, containers, listed: list.requested_at, successor_started: None };
            self.0.insert(name.clone(), retained);
        }
    }
}

impl Retained {
    /// Whether the pod is in the last pod list.
    fn is_tracked(&self, pods: Option<&PodSnapshot>) -> bool {
        let lookup = self.uid.as_ref().zip(pods).map(|(uid, pods)| pods.by_uid(uid));
        matches!(lookup, Some(UidLookup::Live(_)))
    }

    /// Whether the List lacks a device of the pod under its name: it is about a successor, because the
    /// devices of a container do not change.
    fn is_replaced(&self, name: &PodName, list: &Assignments) -> bool {
        let listed = || list.containers.iter().filter(|assigned| is_of(assigned, name));
        let is_listed = |old: &ContainerAssignment| {
            let same = listed().filter(|assigned| assigned.container == old.container);
            let remaining = ListedDevices::of(same).remove_from(old);
            remaining.devices.is_empty() && remaining.claims.is_empty()
        };
        self.uid.is_some() && !self.containers.iter().all(is_listed)
    }

    /// The live pod that replaced the retained one under its name.
    fn successor<'p>(
        &self,
        (namespace, name): &PodName,
        pods: Option<&'p PodSnapshot>,
    ) -> Option<&'p TrackedPod> {
        let uid = self.uid.as_ref()?;
        match pods?.by_name(namespace, name) {
            NameLookup::One(tracked) if tracked.pod.id.uid != *uid => Some(tracked),
            NameLookup::One(_)
            | NameLookup::Deleted(_)
            | NameLookup::Ambiguous
            | NameLookup::Unknown => None,
        }
    }
}

/// Whether a List contains all pods that have started, unlike that of a restarted kubelet.
fn is_complete(list: &Assignments, pods: Option<&PodSnapshot>) -> bool {
    let mut all = pods.into_iter().flat_map(PodSnapshot::iter).map(|tracked| &tracked.pod);
    all.all(|pod| {
        let name = (Arc::clone(&pod.id.namespace), Arc::clone(&pod.id.name));
        pod.has_ended() || !has_started(pod) || list.pods.contains(&name)
    })
}

/// Whether a List requested at `listed` is certainly about a pod: it is not older, and the kubelet has admitted the pod.
fn is_about(listed: Duration, uid: &str, pods: Option<&PodSnapshot>) -> bool {
    let lookup = pods.map(|pods| pods.by_uid(uid));
    matches!(lookup, Some(UidLookup::Live(tracked)) if has_started(&tracked.pod))
        && !is_older(listed, uid, pods)
}

/// Whether the status has a container of the pod.
fn has_started(pod: &Pod) -> bool {
    pod.containers.iter().any(|container| !container.ids.is_empty())
}

/// Whether a List requested at `listed` is older than what is known of a pod, and may be about a predecessor.
fn is_older(listed: Duration, uid: &str, pods: Option<&PodSnapshot>) -> bool {
    let lookup = pods.map(|pods| pods.by_uid(uid));
    matches!(lookup, Some(UidLookup::Live(tracked)) if tracked.first_seen > listed)
}

/// Whether a name in the List may be that of a pod or of its predecessor.
fn is_ambiguous(name: &PodName, list: &Assignments, pods: Option<&PodSnapshot>) -> bool {
    let deleted_at = pods.and_then(|pods| pods.name_deleted_at(&name.0, &name.1));
    list.ambiguous.contains(name) || deleted_at.is_some_and(|at| at >= list.requested_at)
}

fn is_of(assigned: &ContainerAssignment, (namespace, pod): &PodName) -> bool {
    (&assigned.namespace, &assigned.pod) == (namespace, pod)
}

fn presence((namespace, name): &PodName, pods: Option<&PodSnapshot>) -> Presence {
    let Some(pods) = pods else { return Presence::Unknown };
    match pods.by_name(namespace, name) {
        NameLookup::One(tracked) if tracked.pod.has_ended() => Presence::Gone,
        NameLookup::One(tracked) if tracked.listed && pods.is_current() => {
            Presence::Live(Arc::clone(&tracked.pod.id.uid))
        }
        NameLookup::Deleted(_) => Presence::Gone,
        NameLookup::Unknown if pods.synced => Presence::Gone,
        NameLookup::One(_) | NameLookup::Ambiguous | NameLookup::Unknown => Presence::Unknown,
    }
}

/// Devices that a List allocates. The kubelet allocates a device to one pod only, so an earlier
/// allocation of it is outdated.
struct ListedDevices<'a> {
    ids: BTreeSet<(&'a str, &'a str)>,
    claimed: BTreeSet<(&'a str, &'a str, &'a str)>,
}

impl<'a> ListedDevices<'a> {
    fn of(containers: impl Iterator<Item = &'a ContainerAssignment> + Clone) -> Self {
        let devices = containers.clone().flat_map(|container| &container.devices);
        let ids = devices.flat_map(|(resource, ids)| ids.iter().map(|id| (&**resource, &**id)));
        let claims = containers.flat_map(|container| &container.claims);
        Self { ids: ids.collect(), claimed: claims.map(device_key).collect() }
    }

    fn remove_from(&self, container: &ContainerAssignment) -> ContainerAssignment {
        let mut remaining = container.clone();
        for (resource, ids) in &mut remaining.devices {
            ids.retain(|id| !self.ids.contains(&(&**resource, &**id)));
        }
        remaining.devices.retain(|(_, ids)| !ids.is_empty());
        remaining.claims.retain(|claim| !self.claimed.contains(&device_key(claim)));
        remaining
    }
}

fn device_key(claim: &ClaimedDevice) -> (&str, &str, &str) {
    (&claim.driver, &claim.pool, &claim.device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::annotations::fixtures::pod;
    use crate::kube::pods::store::PodStore;

    const T: fn(u64) -> Duration = Duration::from_secs;

    fn name(pod: &str) -> PodName {
        ("demo".into(), pod.into())
    }

    fn assigned(pod: &str, id: &str) -> ContainerAssignment {
        ContainerAssignment {
            namespace: "demo".into(),
            pod: pod.into(),
            container: "c".into(),
            devices: vec![("nvidia.com/gpu".into(), vec![id.into()])],
            claims: Vec::new(),
        }
    }

    fn list(pods: &[(&str, Option<&str>)], requested_at: u64) -> Assignments {
        Assignments {
            pods: pods.iter().map(|(pod, _)| name(pod)).collect(),
            containers: pods.iter().filter_map(|(pod, id)| Some(assigned(pod, (*id)?))).collect(),
            requested_at: T(requested_at),
            ..Assignments::default()
        }
    }

    fn allocated(list: &Assignments) -> Vec<(&str, &str)> {
        let allocated = list.containers.iter().filter(|container| !container.devices.is_empty());
        allocated.map(|container| (&*container.pod, &*container.devices[0].1[0])).collect()
    }

    fn started(name: &str) -> Pod {
        let mut pod = pod(name, &[], &[("c", "nvidia.com/gpu=1")], &[]);
        pod.containers[0].ids.push(format!("{name}-1").into());
        pod
    }

    fn store(names: &[&str]) -> PodStore {
        let mut store = PodStore::new("test", "n1");
        store.begin_list();
        for name in names {
            store.apply(started(name), T(0));
        }
        store.end_list(T(0));
        store.health.record_success(T(0));
        store
    }

    const BOTH: [(&str, Option<&str>); 3] = [("a", Some("A")), ("b", Some("B")), ("idle", None)];

    #[test]
    fn live_pod_missing_in_the_list_keeps_its_devices() {
        let (mut retention, mut store) =
            (AllocationRetention::default(), store(&["a", "b", "idle"]));
        let pods = store.snapshot(T(1));
        let all = retention.apply(&list(&BOTH, 1), Some(&pods));
        assert_eq!(allocated(&all), [("a", "A"), ("b", "B")]);
        for (listed, requested_at) in [(&[][..], 2), (&BOTH[1..], 3), (&[], 100_000)] {
            let merged = retention.apply(&list(listed, requested_at), Some(&pods));
            let mut allocated = allocated(&merged);
            allocated.sort_unstable();
            assert_eq!(allocated, [("a", "A"), ("b", "B")], "{listed:?}");
            assert!(merged.unconfirmed.is_empty());
        }
        store.delete("uid-a", T(100_001));
        let merged = retention.apply(&list(&[], 100_002), Some(&store.snapshot(T(100_001))));
        assert_eq!(allocated(&merged), [("b", "B")], "the pod is deleted");
        let merged =
            retention.apply(&list(&[("b", None)], 100_003), Some(&store.snapshot(T(100_003))));
        assert_eq!(allocated(&merged), [], "a newer List contains the pod without devices");
    }

    #[test]
    fn new_pod_with_the_same_name_gets_no_retained_devices() {
        let (mut retention, mut store) = (AllocationRetention::default(), store(&["a"]));
        let _listed = retention.apply(&list(&BOTH[..1], 1), Some(&store.snapshot(T(1))));
        store.delete("uid-a", T(2));
        let mut next = pod("a", &[], &[("c", "nvidia.com/gpu=1")], &[]);
        next.id.uid = "other".into();
        store.apply(next, T(2));
        let merged = retention.apply(&list(&[], 3), Some(&store.snapshot(T(3))));
        assert_eq!(allocated(&merged), []);
    }

    #[test]
    fn devices_that_may_be_those_of_the_predecessor_are_not_retained() {
        let mut next = pod("a", &[], &[("c", "nvidia.com/gpu=1")], &[]);
        next.id.uid = "other".into();
        let repeated = Assignments { ambiguous: [name("a")].into(), ..list(&BOTH[..1], 3) };
        for ambiguous in [repeated, list(&BOTH[..1], 2)] {
            let (mut retention, mut store) = (AllocationRetention::default(), store(&["a"]));
            store.delete("uid-a", T(2));
            store.apply(next.clone(), T(2));
            let _listed = retention.apply(&ambiguous, Some(&store.snapshot(T(3))));
            let merged = retention.apply(&list(&[], 4), Some(&store.snapshot(T(4))));
            assert_eq!(allocated(&merged), []);
        }
    }

    #[test]
    fn devices_of_the_predecessor_are_distinguished_by_an_earlier_list() {
        let mut next = pod("a", &[], &[("c", "nvidia.com/gpu=1")], &[]);
        next.id.uid = "other".into();
        let both = |first: &str, second: &str, at| Assignments {
            ambiguous: [name("a")].into(),
            ..list(&[("a", Some(first)), ("a", Some(second))], at)
        };
        let (mut retention, mut store) = (AllocationRetention::default(), store(&["a"]));
        let _listed = retention.apply(&list(&BOTH[..1], 1), Some(&store.snapshot(T(1))));
        store.delete("uid-a", T(2));
        store.apply(next, T(2));
        let pods = store.snapshot(T(3));
        for (list, expected) in
            [(both("A", "B", 3), vec![("a", "B")]), (both("B", "A", 4), vec![("a", "B")])]
        {
            let merged = retention.apply(&list, Some(&pods));
            assert_eq!((allocated(&merged), merged.ambiguous.len()), (expected, 0));
        }
        let merged = retention.apply(&both("B", "C", 5), Some(&pods));
        assert_eq!(merged.ambiguous.len(), 1, "neither is that of the predecessor");
        let only = Assignments { ambiguous: [name("a")].into(), ..list(&BOTH[..1], 6) };
        assert_eq!(retention.apply(&only, Some(&pods)).ambiguous.len(), 1, "the device of either");
    }

    #[test]
    fn devices_are_those_of_the_successor_if_the_predecessor_had_none() {
        let (mut retention, mut store) = (AllocationRetention::default(), store(&["a"]));
        let _listed = retention.apply(&list(&[("a", None)], 1), Some(&store.snapshot(T(1))));
        store.delete("uid-a", T(2));
        let mut next = pod("a", &[], &[("c", "nvidia.com/gpu=1")], &[]);
        next.id.uid = "other".into();
        store.apply(next, T(2));
        let pods = store.snapshot(T(3));
        for at in [3, 4] {
            let both = Assignments { ambiguous: [name("a")].into(), ..list(&BOTH[..1], at) };
            let merged = retention.apply(&both, Some(&pods));
            assert_eq!((allocated(&merged), merged.ambiguous.len()), (vec![("a", "A")], 0));
        }
    }

    #[test]
    fn same_devices_are_those_of_the_successor_once_it_has_started() {
        let (mut retention, mut store) = (AllocationRetention::default(), store(&["a"]));
        let _listed = retention.apply(&list(&BOTH[..1], 1), Some(&store.snapshot(T(1))));
        store.delete("uid-a", T(2));
        let mut next = pod("a", &[], &[("c", "nvidia.com/gpu=1")], &[]);
        next.id.uid = "other".into();
        store.apply(next.clone(), T(2));
        let merged = retention.apply(&list(&BOTH[..1], 3), Some(&store.snapshot(T(3))));
        assert_eq!(merged.ambiguous.len(), 1, "it may not be admitted yet");
        assert_eq!(merged.unlisted, [(name("a"), T(3))].into(), "it may get other devices");
        next.containers[0].ids.push("c1".into());
        store.apply(next, T(4));
        let pods = store.snapshot(T(4));
        let merged = retention.apply(&list(&BOTH[..1], 3), Some(&pods));
        assert_eq!(merged.ambiguous.len(), 1, "the List is older");
        let merged = retention.apply(&list(&BOTH[..1], 5), Some(&pods));
        assert_eq!((merged.ambiguous.len(), allocated(&merged)), (0, vec![("a", "A")]));
        let mut other = pod("b", &[], &[("c", "")], &[]);
        other.containers[0].ids.push("b1".into());
        store.apply(other, T(6));
        let merged = retention.apply(&list(&BOTH[..1], 7), Some(&store.snapshot(T(6))));
        assert_eq!(merged.ambiguous.len(), 0, "the devices are recorded as those of the successor");
    }

    #[test]
    fn list_of_a_restarted_kubelet_does_not_contain_the_successor_for_certain() {
        let (mut retention, mut store) = (AllocationRetention::default(), store(&["a", "b"]));
        let _listed = retention.apply(&list(&BOTH, 1), Some(&store.snapshot(T(1))));
        store.delete("uid-a", T(2));
        let mut next = pod("a", &[], &[("c", "nvidia.com/gpu=1")], &[]);
        next.id.uid = "other".into();
        next.containers[0].ids.push("c1".into());
        store.apply(next, T(2));
        let mut other = pod("b", &[], &[("c", "nvidia.com/gpu=1")], &[]);
        other.containers[0].ids.push("b1".into());
        store.apply(other, T(2));
        let pods = store.snapshot(T(3));
        let none = retention.apply(&list(&[], 3), Some(&pods));
        assert_eq!(allocated(&none), [("b", "B")], "the devices of the predecessor");
        for at in [4, 5] {
            let merged = retention.apply(&list(&BOTH[..1], at), Some(&pods));
            assert!(merged.ambiguous.contains(&name("a")), "without b the List is not complete");
        }
        assert!(retention.apply(&list(&BOTH, 6), Some(&pods)).ambiguous.is_empty());
    }

    #[test]
    fn devices_in_a_list_that_is_older_than_the_pod_may_be_those_of_a_predecessor() {
        let mut retention = AllocationRetention::default();
        let _listed = retention.apply(&list(&BOTH[..1], 1), None);
        let mut store = PodStore::new("test", "n1");
        store.begin_list();
        store.apply(pod("a", &[], &[("c", "nvidia.com/gpu=1")], &[]), T(2));
        store.end_list(T(2));
        store.health.record_success(T(2));
        let pods = store.snapshot(T(2));
        let _known = retention.apply(&list(&BOTH[..1], 1), Some(&pods));
        let merged = retention.apply(&list(&[], 3), Some(&pods));
        assert_eq!(merged.unlisted, [(name("a"), T(1))].into());
        assert!(retention.awaits_list(Some(&pods)));
        let _newer = retention.apply(&list(&BOTH[..1], 4), Some(&pods));
        assert!(!retention.awaits_list(Some(&pods)));
        let merged = retention.apply(&list(&[], 5), Some(&pods));
        assert_eq!(merged.unlisted, [(name("a"), T(4))].into(), "the pod may not be admitted yet");
        store.apply(started("a"), T(6));
        let pods = store.snapshot(T(6));
        let _started = retention.apply(&list(&BOTH[..1], 6), Some(&pods));
        let merged = retention.apply(&list(&[], 7), Some(&pods));
        assert_eq!((allocated(&merged), merged.unlisted.len()), (vec![("a", "A")], 0));
    }

    #[test]
    fn device_allocated_to_another_pod_is_not_retained() {
        let (mut retention, mut store) = (AllocationRetention::default(), store(&["a", "b"]));
        let pods = store.snapshot(T(1));
        let _listed = retention.apply(&list(&BOTH[..1], 1), Some(&pods));
        let merged = retention.apply(&list(&[("b", Some("A"))], 2), Some(&pods));
        assert_eq!(allocated(&merged), [("b", "A")]);
    }

    #[test]
    fn allocation_of_an_unconfirmed_pod_is_marked_and_expires() {
        let mut retention = AllocationRetention::default();
        let _listed = retention.apply(&list(&BOTH[..1], 1), None);
        let merged = retention.apply(&list(&[], 2), None);
        assert_eq!((allocated(&merged), merged.unconfirmed.len()), (vec![("a", "A")], 1));
        assert_eq!(merged.unlisted, [(name("a"), T(1))].into());
        let late = list(&[], 1 + POD_UNLISTED_MAX.as_secs());
        assert_eq!(allocated(&retention.apply(&late, None)), []);
    }

    #[test]
    fn allocation_of_a_tracked_pod_outlasts_an_api_server_that_is_down() {
        let (mut retention, mut store) = (AllocationRetention::default(), store(&["a", "b"]));
        let _listed = retention.apply(&list(&BOTH, 1), Some(&store.snapshot(T(1))));
        let gone = crate::model::Problem::without_remedy("gone");
        store.health.record_failure(crate::kube::source::FailureReason::Connection, &gone, T(500));
        let pods = store.snapshot(T(500));
        // The List repeats the devices of a, and has others of a successor of b.
        let confirmed = list(&[("a", Some("A")), ("b", Some("C"))], 501);
        assert_eq!(retention.apply(&confirmed, Some(&pods)).ambiguous, [name("b")].into());
        for at in [502, 501 + POD_UNLISTED_MAX.as_secs()] {
            let merged = retention.apply(&list(&[], at), Some(&pods));
            assert_eq!(allocated(&merged), [("a", "A"), ("b", "B")]);
            assert_eq!(merged.unconfirmed, [name("a"), name("b")].into());
            assert!(merged.unlisted.is_empty());
        }
    }
}
