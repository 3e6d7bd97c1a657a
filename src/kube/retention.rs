//! Keeps what pods were allocated while the kubelet's List does not name them.
//!
//! A kubelet that restarts returns no pods at first, then static pods only, and all of them once it
//! has read them from the API server: while that is down, for as long as that lasts. The devices of a
//! container do not change during its life, so that an earlier List stays true while its pod lives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::assignments::{Assigned, Assignments, ClaimedDevice, PodName};
use super::pods::{ByName, Pods};
use crate::policy::POD_UNLISTED_MAX;

/// What Lists said so far of pods that hold devices.
#[derive(Debug, Default)]
pub struct AllocationRetention(BTreeMap<PodName, Retained>);

#[derive(Debug)]
struct Retained {
    /// None where the pod is not known by more than its name.
    uid: Option<Arc<str>>,
    containers: Vec<Assigned>,
    /// When the last List that named it was requested (monotonic).
    listed: Duration,
}

/// What is known of a pod that a List does not name.
enum Presence {
    Lives(Arc<str>),
    Gone,
    Unknown,
}

impl AllocationRetention {
    /// `list` with what earlier ones said of pods that it does not name and that are still there.
    #[must_use]
    pub fn apply(&mut self, list: &Assignments, pods: Option<&Pods>) -> Assignments {
        self.learn(list, pods);
        self.0.retain(|name, retained| {
            list.pods.contains(name)
                || match presence(name, pods) {
                    Presence::Lives(uid) => *retained.uid.get_or_insert_with(|| uid.clone()) == uid,
                    Presence::Gone => false,
                    Presence::Unknown => {
                        list.taken.saturating_sub(retained.listed) < POD_UNLISTED_MAX
                    }
                }
        });
        let mut merged = list.clone();
        let taken = TakenIds::of(list);
        for (name, retained) in self.0.iter().filter(|(name, _)| !list.pods.contains(*name)) {
            if !matches!(presence(name, pods), Presence::Lives(_)) {
                merged.unconfirmed.insert(name.clone());
            }
            merged.containers.extend(retained.containers.iter().map(|one| taken.without(one)));
        }
        merged
    }

    fn learn(&mut self, list: &Assignments, pods: Option<&Pods>) {
        self.0.retain(|name, _| !list.pods.contains(name));
        for one in &list.containers {
            let name = (Arc::clone(&one.namespace), Arc::clone(&one.pod));
            let uid = || match presence(&name, pods) {
                Presence::Lives(uid) => Some(uid),
                Presence::Gone | Presence::Unknown => None,
            };
            let retained = self.0.entry(name.clone()).or_insert_with(|| Retained {
                uid: uid(),
                containers: Vec::new(),
                listed: list.taken,
            });
            retained.containers.push(one.clone());
        }
    }
}

fn presence((namespace, name): &PodName, pods: Option<&Pods>) -> Presence {
    let Some(pods) = pods else { return Presence::Unknown };
    match pods.by_name(namespace, name) {
        ByName::One(known) if known.pod.has_ended() => Presence::Gone,
        ByName::One(known) if known.listed => Presence::Lives(Arc::clone(&known.pod.id.uid)),
        ByName::Deleted(_) => Presence::Gone,
        ByName::Unknown if pods.synced => Presence::Gone,
        ByName::One(_) | ByName::Ambiguous | ByName::Unknown => Presence::Unknown,
    }
}

/// What a List gives to the pods that it names: the kubelet gives nothing to two pods, so that it was
/// taken from the one that had it before.
struct TakenIds<'a> {
    ids: BTreeSet<(&'a str, &'a str)>,
    claimed: BTreeSet<(&'a str, &'a str, &'a str)>,
}

impl<'a> TakenIds<'a> {
    fn of(list: &'a Assignments) -> Self {
        let containers = &list.containers;
        let devices = containers.iter().flat_map(|one| &one.devices);
        let ids = devices.flat_map(|(resource, ids)| ids.iter().map(|id| (&**resource, &**id)));
        let claims = containers.iter().flat_map(|one| &one.claims);
        Self { ids: ids.collect(), claimed: claims.map(device).collect() }
    }

    fn without(&self, one: &Assigned) -> Assigned {
        let mut left = one.clone();
        for (resource, ids) in &mut left.devices {
            ids.retain(|id| !self.ids.contains(&(&**resource, &**id)));
        }
        left.devices.retain(|(_, ids)| !ids.is_empty());
        left.claims.retain(|claim| !self.claimed.contains(&device(claim)));
        left
    }
}

fn device(claim: &ClaimedDevice) -> (&str, &str, &str) {
    (&claim.driver, &claim.pool, &claim.device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::annotations::fixtures::pod;
    use crate::kube::pods::PodMap;

    const T: fn(u64) -> Duration = Duration::from_secs;

    fn name(pod: &str) -> PodName {
        ("demo".into(), pod.into())
    }

    fn assigned(pod: &str, id: &str) -> Assigned {
        Assigned {
            namespace: "demo".into(),
            pod: pod.into(),
            container: "c".into(),
            devices: vec![("nvidia.com/gpu".into(), vec![id.into()])],
            claims: Vec::new(),
        }
    }

    fn list(pods: &[(&str, Option<&str>)], taken: u64) -> Assignments {
        Assignments {
            pods: pods.iter().map(|(pod, _)| name(pod)).collect(),
            containers: pods.iter().filter_map(|(pod, id)| Some(assigned(pod, (*id)?))).collect(),
            taken: T(taken),
            ..Assignments::default()
        }
    }

    fn held(list: &Assignments) -> Vec<(&str, &str)> {
        let held = list.containers.iter().filter(|one| !one.devices.is_empty());
        held.map(|one| (&*one.pod, &*one.devices[0].1[0])).collect()
    }

    fn map(names: &[&str]) -> PodMap {
        let mut map = PodMap::new("test", "n1");
        map.begin();
        for name in names {
            map.apply(pod(name, &[], &[("c", "nvidia.com/gpu=1")], &[]), T(0));
        }
        map.complete(T(0));
        map
    }

    const BOTH: [(&str, Option<&str>); 3] = [("a", Some("A")), ("b", Some("B")), ("idle", None)];

    #[test]
    fn a_live_pod_that_a_list_lacks_keeps_its_devices_however_long_that_lasts() {
        let (mut retention, mut map) = (AllocationRetention::default(), map(&["a", "b", "idle"]));
        let pods = map.picture(T(1));
        let all = retention.apply(&list(&BOTH, 1), Some(&pods));
        assert_eq!(held(&all), [("a", "A"), ("b", "B")]);
        for (listed, taken) in [(&[][..], 2), (&BOTH[1..], 3), (&[], 100_000)] {
            let merged = retention.apply(&list(listed, taken), Some(&pods));
            let mut held = held(&merged);
            held.sort_unstable();
            assert_eq!(held, [("a", "A"), ("b", "B")], "{listed:?}");
            assert!(merged.unconfirmed.is_empty());
        }
        map.delete("uid-a", T(100_001));
        let merged = retention.apply(&list(&[], 100_002), Some(&map.picture(T(100_001))));
        assert_eq!(held(&merged), [("b", "B")], "its pod is gone");
        let merged =
            retention.apply(&list(&[("b", None)], 100_003), Some(&map.picture(T(100_003))));
        assert_eq!(held(&merged), [], "a List that names it is newer");
    }

    #[test]
    fn a_pod_of_the_same_name_inherits_nothing() {
        let (mut retention, mut map) = (AllocationRetention::default(), map(&["a"]));
        let _first = retention.apply(&list(&BOTH[..1], 1), Some(&map.picture(T(1))));
        map.delete("uid-a", T(2));
        let mut next = pod("a", &[], &[("c", "nvidia.com/gpu=1")], &[]);
        next.id.uid = "other".into();
        map.apply(next, T(2));
        let merged = retention.apply(&list(&[], 3), Some(&map.picture(T(3))));
        assert_eq!(held(&merged), []);
    }

    #[test]
    fn a_device_that_another_pod_was_allocated_since_is_not_kept() {
        let (mut retention, mut map) = (AllocationRetention::default(), map(&["a", "b"]));
        let pods = map.picture(T(1));
        let _first = retention.apply(&list(&BOTH[..1], 1), Some(&pods));
        let merged = retention.apply(&list(&[("b", Some("A"))], 2), Some(&pods));
        assert_eq!(held(&merged), [("b", "A")]);
    }

    #[test]
    fn what_cannot_be_confirmed_is_marked_and_kept_for_a_while_only() {
        let mut retention = AllocationRetention::default();
        let _first = retention.apply(&list(&BOTH[..1], 1), None);
        let merged = retention.apply(&list(&[], 2), None);
        assert_eq!((held(&merged), merged.unconfirmed.len()), (vec![("a", "A")], 1));
        let late = list(&[], 1 + POD_UNLISTED_MAX.as_secs());
        assert_eq!(held(&retention.apply(&late, None)), []);
    }
}
