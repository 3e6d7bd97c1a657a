//! The pods of this node, which lists and watch events update.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::index::{PodIndex, Tombstone};
use super::{PodSnapshot, TrackedPod};
use crate::kube::pod::container::Container;
use crate::kube::pod::{CONFIG_HASH, CONFIG_MIRROR, GPU_GROUP, Pod};
use crate::kube::source::HealthTracker;
use crate::policy;

/// Length of the hash of a static pod's manifest; other UIDs are longer.
const HASH_LENGTH: usize = 32;

/// The store that lists and watch events update.
#[derive(Debug)]
pub struct PodStore {
    /// Health of the source.
    pub health: HealthTracker,
    /// How long a pod is kept that is missing in the lists and has not ended.
    pub keep_unlisted: Duration,
    /// Name of the node; empty if the source has no pods of other nodes.
    node: Box<str>,
    /// Other UIDs of static pods, with those by which they are in `pods`.
    aliases: HashMap<Arc<str>, Arc<str>>,
    pods: HashMap<Arc<str>, StoreEntry>,
    /// Pods of which the newest object could not be decoded, and the list that they were last in; without
    /// a UID, it is empty.
    undecodable: HashMap<Arc<str>, u64>,
    tombstones: HashMap<Arc<str>, Tombstone>,
    generation: u64,
    synced: bool,
    /// In a list, when the source last responded before it (monotonic); zero if it never did.
    list_after: Option<Duration>,
}

#[derive(Debug)]
struct StoreEntry {
    tracked: Arc<TrackedPod>,
    generation: u64,
    /// When a list first lacked it (monotonic).
    unlisted: Option<Duration>,
}

impl PodStore {
    /// An empty store for the pods of `node`, read from `source`. Lists of `source` must be
    /// complete, unless `keep_unlisted` is set.
    #[must_use]
    pub fn new(source: &'static str, node: &str) -> Self {
        Self {
            health: HealthTracker::new(source),
            keep_unlisted: Duration::ZERO,
            node: node.into(),
            aliases: HashMap::new(),
            pods: HashMap::new(),
            undecodable: HashMap::new(),
            tombstones: HashMap::new(),
            generation: 0,
            synced: false,
            list_after: None,
        }
    }

    /// Begins a complete list. Pods that are not applied before [`PodStore::end_list`] are deleted
    /// then, and kept until then.
    pub fn begin_list(&mut self) {
        self.generation += 1;
        self.list_after = Some(self.health.last_success.unwrap_or_default());
    }

    /// Ends the list and deletes the pods that it lacks. Returns whether anything changed.
    pub fn end_list(&mut self, now: Duration) -> bool {
        let mut expired = Vec::new();
        let mut changed = !self.synced;
        for (uid, entry) in
            self.pods.iter_mut().filter(|(_, entry)| entry.generation < self.generation)
        {
            let unlisted = *entry.unlisted.get_or_insert(now);
            let ending = entry.tracked.pod.deleting || entry.tracked.ended.is_some();
            if ending || now.saturating_sub(unlisted) >= self.keep_unlisted {
                expired.push(Arc::clone(uid));
            } else if entry.tracked.listed {
                entry.tracked = Arc::new(TrackedPod { listed: false, ..(*entry.tracked).clone() });
                changed = true;
            }
        }
        changed |= !expired.is_empty();
        for uid in expired {
            self.delete(&uid, now);
        }
        self.undecodable.retain(|_, generation| *generation == self.generation);
        self.synced = true;
        self.list_after = None;
        changed
    }

    /// Adds or updates a pod. Returns whether anything changed.
    pub fn apply(&mut self, pod: Pod, now: Duration) -> bool {
        if !self.node.is_empty() && !pod.node.is_empty() && pod.node != self.node {
            self.health.skipped.foreign += 1;
            // A pod never changes its node. One that is scheduled here arrives as a new pod.
            return false;
        }
        let pod = self.with_known_uid(pod);
        self.undecodable.remove(&pod.id.uid);
        let before = self.pods.get_mut(&pod.id.uid);
        if let Some(entry) = before
            && entry.tracked.listed
            && entry.tracked.pod == pod
        {
            entry.generation = self.generation;
            return false;
        }
        let before = self.pods.get(&pod.id.uid);
        if before.is_none() && self.pods.len() >= policy::PODS_MAX {
            self.health.skipped.overflow += 1;
            return false;
        }
        let earlier = before.map(|entry| earlier_ids(&entry.tracked, &pod)).unwrap_or_default();
        let first_seen = before.map_or(now, |entry| entry.tracked.first_seen);
        let is_same_share = |earlier: &Pod| {
            earlier.annotations == pod.annotations && earlier.gpu_groups() == pod.gpu_groups()
        };
        let is_after_gap =
            self.list_after.is_some_and(|at| now.saturating_sub(at) > policy::PODS_GAP_MIN);
        let (annotated, annotated_in_gap) = match before.map(|entry| &*entry.tracked) {
            Some(tracked) if is_same_share(&tracked.pod) => {
                (tracked.annotated, tracked.annotated_in_gap)
            }
            _ if self.synced => (now, is_after_gap),
            _ => (Duration::ZERO, true),
        };
        let ended = before.and_then(|entry| entry.tracked.ended).unwrap_or(now);
        let ended = pod.has_ended().then_some(ended);
        let uid = Arc::clone(&pod.id.uid);
        self.tombstones.remove(&uid);
        let tracked = Arc::new(TrackedPod {
            pod,
            first_seen,
            annotated,
            annotated_in_gap,
            ended,
            listed: true,
            earlier,
        });
        self.pods.insert(uid, StoreEntry { tracked, generation: self.generation, unlisted: None });
        true
    }

    /// Gives a static pod the UID by which it is known: the kubelet has it with the hash of its manifest,
    /// the API server has its mirror pod. The source may change while it runs, its labels may not.
    fn with_known_uid(&mut self, mut pod: Pod) -> Pod {
        let uid = &pod.id.uid;
        let known = match &pod.config_hash {
            Some(hash) => self.pods.get(hash),
            None if uid.len() == HASH_LENGTH && !self.pods.contains_key(uid) => {
                let has_hash = |pod: &Pod| pod.config_hash.as_ref() == Some(uid);
                self.pods.values().find(|entry| has_hash(&entry.tracked.pod))
            }
            None => None,
        };
        let Some(known) = known.map(|entry| &entry.tracked.pod) else { return pod };
        if (&known.id.namespace, &known.id.name) != (&pod.id.namespace, &pod.id.name) {
            return pod;
        }
        self.aliases.insert(Arc::clone(uid), Arc::clone(&known.id.uid));
        pod.id.uid = Arc::clone(&known.id.uid);
        pod.config_hash.clone_from(&known.config_hash);
        for key in [CONFIG_HASH, CONFIG_MIRROR] {
            match known.annotations.get(key) {
                Some(value) => pod.annotations.insert(key.into(), value.clone()),
                None => pod.annotations.remove(key),
            };
        }
        pod
    }

    /// Skips an object of a pod that could not be decoded; `uid` is empty if unknown. The pod is present
    /// in the current list, but its state is unknown.
    pub fn skip_undecodable(&mut self, uid: &str) {
        self.health.skipped.undecodable += 1;
        let uid = self.aliases.get(uid).cloned().unwrap_or_else(|| uid.into());
        if self.undecodable.len() < policy::PODS_MAX {
            self.undecodable.insert(Arc::clone(&uid), self.generation);
        }
        if let Some(entry) = self.pods.get_mut(&uid) {
            entry.generation = self.generation;
            entry.unlisted = None;
        }
    }

    /// Deletes a pod. Returns whether it existed.
    pub fn delete(&mut self, uid: &str, now: Duration) -> bool {
        let uid = self.aliases.get(uid).map_or(uid, |known| &**known);
        self.undecodable.remove(uid);
        let Some((uid, entry)) = self.pods.remove_entry(uid) else { return false };
        let Pod { id, config_hash, labels, .. } = &entry.tracked.pod;
        let ended = entry.tracked.ended.or(entry.unlisted).unwrap_or(now);
        let tombstone = Tombstone {
            id: id.clone(),
            hash: config_hash.clone(),
            gpu_group: labels.get(GPU_GROUP).cloned(),
            ended,
            at: now,
        };
        self.aliases.retain(|_, known| *known != uid);
        self.tombstones.insert(uid, tombstone);
        true
    }

    /// The current pods. Expired tombstones are removed.
    #[must_use]
    pub fn snapshot(&mut self, now: Duration) -> PodSnapshot {
        self.tombstones.retain(|_, t| now.saturating_sub(t.at) < policy::POD_OUTLIVED_MAX);
        shrink(&mut self.tombstones);
        shrink(&mut self.pods);
        let mut index = PodIndex::default();
        for (uid, entry) in &self.pods {
            index.add(uid, &entry.tracked);
        }
        for (uid, tombstone) in &self.tombstones {
            index.tombstones.insert(Arc::clone(uid), tombstone.clone());
            if let Some(hash) = &tombstone.hash {
                index.tombstones.insert(Arc::clone(hash), tombstone.clone());
            }
        }
        PodSnapshot {
            synced: self.synced,
            health: self.health.clone(),
            decoded: self.undecodable.is_empty(),
            index: Arc::new(index),
        }
    }
}

/// Frees unused capacity: a hash map grows automatically but never shrinks.
fn shrink<V>(table: &mut HashMap<Arc<str>, V>) {
    if table.capacity() / 4 > table.len() {
        table.shrink_to(2 * table.len());
    }
}

/// Earlier container ids that are no longer in the pod's status, newest first; at most
/// [`policy::CONTAINER_IDS_MAX`] per container.
fn earlier_ids(before: &TrackedPod, now: &Pod) -> Vec<(Arc<str>, Arc<str>)> {
    let in_status = |id: &Arc<str>| now.containers.iter().any(|c| c.ids.contains(id));
    let mut kept: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    let ids_of = |c: &Container| -> Vec<_> {
        c.ids.iter().map(|id| (Arc::clone(id), Arc::clone(&c.name))).collect()
    };
    let ids = before.pod.containers.iter().flat_map(ids_of).chain(before.earlier.clone());
    for (id, name) in ids {
        let kept_of_container = kept.iter().filter(|(_, other)| *other == name).count();
        let duplicate = kept.iter().any(|(other, _)| *other == id);
        if kept_of_container < policy::CONTAINER_IDS_MAX && !duplicate && !in_status(&id) {
            kept.push((id, name));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kube::pod;
    use crate::kube::pods::{ContainerLookup, NameLookup, UidLookup};

    const T: fn(u64) -> Duration = Duration::from_secs;

    fn pod(uid: &str, name: &str, container: &str) -> Pod {
        let text = format!(
            r#"{{"metadata":{{"uid":"{uid}","namespace":"demo","name":"{name}"}},
               "spec":{{"nodeName":"n1","containers":[{{"name":"main"}}]}},
               "status":{{"containerStatuses":[{{"name":"main","containerID":"x://{container}"}}]}}}}"#
        );
        pod::parse(text.as_bytes()).unwrap()
    }

    fn store() -> PodStore {
        PodStore::new("test", "n1")
    }

    fn mirror(uid: &str, hash: &str) -> Pod {
        Pod { config_hash: Some(hash.into()), ..pod(uid, uid, uid) }
    }

    #[test]
    fn pod_is_found_by_uid_config_hash_name_and_container_id() {
        let mut store = store();
        store.begin_list();
        store.apply(pod("u1", "a", "c1"), T(1));
        store.apply(mirror("u2", "h2"), T(1));
        assert!(!store.snapshot(T(1)).synced);
        store.end_list(T(1));
        let pods = store.snapshot(T(1));
        assert!(pods.synced);
        assert!(matches!(pods.by_uid("u1"), UidLookup::Live(k) if &*k.pod.id.name == "a"));
        assert!(matches!(pods.by_uid("h2"), UidLookup::Live(k) if &*k.pod.id.uid == "u2"));
        assert!(matches!(pods.by_name("demo", "a"), NameLookup::One(k) if &*k.pod.id.uid == "u1"));
        let by_id = pods.by_container("c1");
        assert!(
            matches!(by_id, ContainerLookup::One(k, name) if (&*k.pod.id.uid, &**name) == ("u1", "main"))
        );
        assert_eq!(pods.by_uid("u3"), UidLookup::Unknown);
        assert_eq!(pods.by_name("demo", "z"), NameLookup::Unknown);
    }

    #[test]
    fn earlier_container_ids_are_kept_up_to_a_limit() {
        let mut store = store();
        for run in 0..100 {
            store.apply(pod("u1", "a", &format!("c{run}")), T(run));
        }
        let pods = store.snapshot(T(100));
        for id in ["c99", "c90"] {
            assert!(matches!(pods.by_container(id), ContainerLookup::One(..)), "{id}");
        }
        assert_eq!(pods.by_container("c5"), ContainerLookup::Unknown);
        let ids = 1 + policy::CONTAINER_IDS_MAX;
        assert_eq!(pods.index.containers.len(), ids);
    }

    #[test]
    fn capacity_is_freed_after_many_pods_were_deleted() {
        let mut store = store();
        for n in 0..2000 {
            let uid = format!("u{n}");
            store.apply(pod(&uid, &uid, &uid), T(0));
            store.delete(&uid, T(0));
        }
        store.apply(pod("u", "a", "c"), T(1));
        assert_eq!(store.tombstones.len(), 2000);
        let pods = store.snapshot(policy::POD_OUTLIVED_MAX);
        assert_eq!((pods.len(), pods.index.tombstones.len()), (1, 0));
        assert!(store.pods.capacity() < 16, "{}", store.pods.capacity());
        assert!(store.tombstones.capacity() < 16, "{}", store.tombstones.capacity());
    }

    #[test]
    fn deleted_pod_is_reported_as_deleted_until_its_tombstone_expires() {
        let mut store = store();
        store.apply(mirror("u1", "h1"), T(0));
        store.delete("u1", T(10));
        let pods = store.snapshot(T(70));
        assert!(matches!(pods.by_uid("u1"), UidLookup::Deleted(id) if &*id.uid == "u1"));
        assert!(matches!(pods.by_uid("h1"), UidLookup::Deleted(_)));
        assert!(matches!(pods.by_name("demo", "u1"), NameLookup::Deleted(_)));
        assert_eq!(pods.name_deleted_at("demo", "u1"), Some(T(10)));
        assert!(pods.is_empty());
        assert_eq!(
            store.snapshot(T(10) + policy::POD_OUTLIVED_MAX).by_uid("u1"),
            UidLookup::Unknown
        );
    }

    #[test]
    fn pods_missing_in_a_list_are_kept_until_the_list_ends() {
        let mut store = store();
        store.apply(pod("u1", "a", "c1"), T(0));
        store.apply(pod("u2", "b", "c2"), T(0));
        store.begin_list();
        store.apply(pod("u2", "b", "c2"), T(5));
        assert_eq!(store.snapshot(T(5)).len(), 2);
        store.end_list(T(6));
        let pods = store.snapshot(T(6));
        assert!(matches!(pods.by_uid("u1"), UidLookup::Deleted(_)));
        assert!(matches!(pods.by_uid("u2"), UidLookup::Live(k) if k.first_seen == T(0)));
    }

    #[test]
    fn running_pod_missing_in_a_kubelet_list_is_kept_as_unlisted() {
        let list = |store: &mut PodStore, pods: &[Pod], now| {
            store.begin_list();
            let applied = pods.iter().map(|pod| store.apply(pod.clone(), now));
            let changed = applied.fold(false, |changed, one| changed | one);
            changed | store.end_list(now)
        };
        let (running, deleting) =
            (pod("u1", "a", "c1"), Pod { deleting: true, ..pod("u2", "b", "c2") });
        let keep_unlisted = policy::POD_UNLISTED_MAX;
        let mut store = PodStore { keep_unlisted, ..PodStore::new("test", "n1") };
        list(&mut store, &[running.clone(), deleting], T(0));
        assert!(list(&mut store, &[], T(10)), "one pod is deleted, one is no longer listed");
        let pods = store.snapshot(T(10));
        assert!(matches!(pods.by_uid("u1"), UidLookup::Live(k) if !k.listed));
        assert!(matches!(pods.by_uid("u2"), UidLookup::Deleted(_)), "it was being deleted");
        assert!(!list(&mut store, &[], T(20)));
        assert!(list(&mut store, &[running], T(30)));
        assert!(matches!(store.snapshot(T(30)).by_uid("u1"), UidLookup::Live(k) if k.listed));
        list(&mut store, &[], T(40));
        list(&mut store, &[], T(40) + policy::POD_UNLISTED_MAX);
        assert!(store.snapshot(T(650)).is_empty(), "unlisted pods expire");
    }

    #[test]
    fn end_time_is_the_first_time_a_pod_was_received_as_ended() {
        let mut store = store();
        store.apply(pod("u1", "a", "c1"), T(1));
        let ended = |name: &str| Pod { terminal: true, ..pod("u1", "a", name) };
        store.apply(ended("c1"), T(5));
        store.apply(ended("c2"), T(9));
        assert_eq!(store.snapshot(T(9)).ended("u1"), Some(T(5)));
        store.delete("u1", T(20));
        assert_eq!(store.snapshot(T(20)).ended("u1"), Some(T(5)));
        store.apply(pod("u2", "b", "c3"), T(20));
        assert_eq!(store.snapshot(T(20)).ended("u2"), None);
        store.delete("u2", T(21));
        assert_eq!(store.snapshot(T(21)).ended("u2"), Some(T(21)));
    }

    #[test]
    fn two_pods_with_one_name_are_ambiguous() {
        let mut store = store();
        store.apply(pod("u1", "web-0", "c1"), T(0));
        store.apply(pod("u2", "web-0", "c2"), T(0));
        assert_eq!(store.snapshot(T(0)).by_name("demo", "web-0"), NameLookup::Ambiguous);
        store.delete("u1", T(1));
        assert!(matches!(store.snapshot(T(1)).by_name("demo", "web-0"), NameLookup::One(_)));
    }

    #[test]
    fn two_pods_with_one_config_hash_are_ambiguous() {
        let mut store = store();
        store.apply(mirror("u1", "h"), T(0));
        store.apply(mirror("u2", "h"), T(0));
        assert_eq!(store.snapshot(T(0)).by_uid("h"), UidLookup::Ambiguous);
    }

    #[test]
    fn pods_of_other_nodes_and_pods_above_the_limit_are_skipped() {
        let mut store = store();
        store.apply(Pod { node: "n2".into(), ..pod("u1", "a", "c1") }, T(0));
        for n in 0..=policy::PODS_MAX {
            store.apply(pod(&format!("f{n}"), "f", ""), T(0));
        }
        let pods = store.snapshot(T(0));
        assert_eq!(pods.len(), policy::PODS_MAX);
        assert_eq!((pods.health.skipped.foreign, pods.health.skipped.overflow), (1, 1));
    }

    proptest! {
        /// A snapshot contains the pods of the last list, changed by the events after it.
        #[test]
        fn snapshot_matches_the_last_list_and_the_events_after_it(
            events in prop::collection::vec((0_u8..6, 0_u8..4), 0..40),
        ) {
            let mut store = store();
            let mut expected = std::collections::BTreeSet::new();
            store.begin_list();
            store.end_list(T(0));
            for (n, (uid, event)) in events.into_iter().enumerate() {
                let uid = format!("u{uid}");
                let now = T(n as u64);
                match event {
                    0 | 1 => {
                        store.apply(pod(&uid, &uid, &format!("c{n}")), now);
                        expected.insert(uid);
                    }
                    2 => {
                        store.delete(&uid, now);
                        expected.remove(&uid);
                    }
                    _ => {
                        store.begin_list();
                        store.apply(pod(&uid, &uid, &uid), now);
                        store.end_list(now);
                        expected = std::iter::once(uid).collect();
                    }
                }
            }
            let pods = store.snapshot(T(1000));
            let found: std::collections::BTreeSet<String> =
                pods.iter().map(|tracked| tracked.pod.id.uid.to_string()).collect();
            prop_assert_eq!(found, expected);
            for (tracked, _) in pods.index.containers.values().flatten() {
                let live = matches!(pods.by_uid(&tracked.pod.id.uid), UidLookup::Live(_));
                prop_assert!(live);
            }
        }
    }
}
