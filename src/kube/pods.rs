//! The pods of this node: a map that events change, and the immutable picture of it that is
//! handed out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::pod::{Container, Pod};
use super::source::Health;
use crate::model::PodRef;
use crate::policy;

/// The pods of this node at one moment. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Pods {
    /// A whole list has been seen, so that a pod which is not here does not exist.
    pub synced: bool,
    /// How the source fares; what it said last is kept while it is down.
    pub health: Health,
    /// Things that were left out since the start.
    pub discards: Discards,
    index: Arc<Index>,
}

/// What was left out, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discards {
    /// Lines or elements that are no JSON, or no pod.
    pub undecodable: u64,
    /// Objects that are no pods, and events of unknown types.
    pub unknown: u64,
    /// Pods of other nodes.
    pub foreign: u64,
    /// Pods beyond what any kubelet runs.
    pub overflow: u64,
}

/// Namespace and name.
type FullName = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Index {
    pods: HashMap<Arc<str>, Arc<Known>>,
    /// Static pods by the UID of their cgroup; nobody where two claim one.
    hashes: HashMap<Arc<str>, Option<Arc<Known>>>,
    containers: HashMap<Arc<str>, (Arc<Known>, Arc<str>)>,
    names: HashMap<FullName, Vec<Arc<Known>>>,
    tombstones: HashMap<Arc<str>, Tombstone>,
}

/// A pod and what we remember of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The pod as it is now.
    pub pod: Pod,
    /// When it was first seen, on the monotonic clock.
    pub seen: Duration,
    /// When it was first seen to have ended ([`Pod::has_ended`]).
    pub ended: Option<Duration>,
    /// Whether the newest list of its source has it. False only where an absence from the list does
    /// not prove that the pod is gone ([`PodMap::of_kubelet`]).
    pub listed: bool,
    /// Ids of containers that are no longer in its status.
    earlier: Vec<(Arc<str>, Arc<str>)>,
}

#[derive(Clone, Debug)]
struct Tombstone {
    id: PodRef,
    hash: Option<Arc<str>>,
    ended: Duration,
    at: Duration,
}

/// The answer to who bears a UID.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ByUid<'a> {
    /// A pod of this node.
    Live(&'a Known),
    /// A pod that was deleted a moment ago.
    Deleted(&'a PodRef),
    /// Two pods claim it.
    Ambiguous,
    /// Nobody that we know.
    Unknown,
}

/// The answer to who bears a name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ByName<'a> {
    /// Exactly one pod.
    One(&'a Known),
    /// Several: the name alone does not tell.
    Ambiguous,
    /// The last one that bore it was deleted a moment ago.
    Deleted(&'a PodRef),
    /// Nobody that we know.
    Unknown,
}

impl Pods {
    /// Before a source has said anything.
    #[must_use]
    pub fn unknown(source: &'static str) -> Self {
        Self {
            synced: false,
            health: Health::new(source),
            discards: Discards::default(),
            index: Arc::default(),
        }
    }

    /// The pod whose UID (in the API, or of a static pod in its cgroup) is `uid`.
    #[must_use]
    pub fn by_uid(&self, uid: &str) -> ByUid<'_> {
        let index = &*self.index;
        if let Some(known) = index.pods.get(uid) {
            return ByUid::Live(known);
        }
        match index.hashes.get(uid) {
            Some(Some(known)) => ByUid::Live(known),
            Some(None) => ByUid::Ambiguous,
            None => index.tombstones.get(uid).map_or(ByUid::Unknown, |t| ByUid::Deleted(&t.id)),
        }
    }

    /// The pod and the container with this id, of a present run or an earlier one.
    #[must_use]
    pub fn by_container(&self, id: &str) -> Option<(&Known, &Arc<str>)> {
        self.index.containers.get(id).map(|(known, name)| (&**known, name))
    }

    /// The pod of this name.
    #[must_use]
    pub fn by_name(&self, namespace: &str, name: &str) -> ByName<'_> {
        let index = &*self.index;
        match index.names.get(&(namespace.into(), name.into())).map(Vec::as_slice) {
            Some([one]) => ByName::One(one),
            Some([_, _, ..]) => ByName::Ambiguous,
            Some([]) | None => index
                .tombstones
                .values()
                .find(|t| &*t.id.namespace == namespace && &*t.id.name == name)
                .map_or(ByName::Unknown, |t| ByName::Deleted(&t.id)),
        }
    }

    /// When the pod with this UID ended, or was deleted without having ended; none if it has not.
    #[must_use]
    pub fn ended(&self, uid: &str) -> Option<Duration> {
        match self.by_uid(uid) {
            ByUid::Live(known) => known.ended,
            ByUid::Deleted(_) => self.index.tombstones.get(uid).map(|t| t.ended),
            ByUid::Ambiguous | ByUid::Unknown => None,
        }
    }

    /// When the last pod of this name that is no longer there was deleted.
    #[must_use]
    pub fn name_freed(&self, namespace: &str, name: &str) -> Option<Duration> {
        let tombstones = self.index.tombstones.values();
        tombstones
            .filter(|t| &*t.id.namespace == namespace && &*t.id.name == name)
            .map(|t| t.at)
            .max()
    }

    /// All pods, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Known> {
        self.index.pods.values().map(|known| &**known)
    }

    /// Whether both are pictures of the same pods.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.index, &other.index)
    }

    /// How many pods there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.pods.len()
    }

    /// There is no pod.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Known {
    /// The container of this name.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.pod.containers.iter().find(|container| &*container.name == name)
    }
}

/// The map that events change.
#[derive(Debug)]
pub struct PodMap {
    /// How the source fares.
    pub health: Health,
    /// What was left out.
    pub discards: Discards,
    node: Box<str>,
    /// How long a pod is kept that a list lacks and that was not seen to end.
    keep_unlisted: Duration,
    pods: HashMap<Arc<str>, Entry>,
    tombstones: HashMap<Arc<str>, Tombstone>,
    round: u64,
    synced: bool,
}

#[derive(Debug)]
struct Entry {
    known: Arc<Known>,
    round: u64,
    /// Since when lists lack it.
    unlisted: Option<Duration>,
}

impl PodMap {
    /// Of the node `node`, as `source` tells it.
    #[must_use]
    pub fn new(source: &'static str, node: &str) -> Self {
        Self {
            health: Health::new(source),
            discards: Discards::default(),
            node: node.into(),
            keep_unlisted: Duration::ZERO,
            pods: HashMap::new(),
            tombstones: HashMap::new(),
            round: 0,
            synced: false,
        }
    }

    /// Of a kubelet, whose lists lack running pods after it restarts: a pod that is missing and was
    /// not seen to end stays, unlisted, for [`policy::POD_UNLISTED_MAX`].
    #[must_use]
    pub fn of_kubelet(source: &'static str, node: &str) -> Self {
        Self { keep_unlisted: policy::POD_UNLISTED_MAX, ..Self::new(source, node) }
    }

    /// A whole list begins: who is not named before [`PodMap::complete`] is gone. Until then
    /// everybody stays.
    pub fn begin(&mut self) {
        self.round += 1;
    }

    /// The list that began has been told to its end; whether that changed anything.
    pub fn complete(&mut self, now: Duration) -> bool {
        let mut gone = Vec::new();
        let mut changed = !self.synced;
        for (uid, entry) in self.pods.iter_mut().filter(|(_, entry)| entry.round < self.round) {
            let unlisted = *entry.unlisted.get_or_insert(now);
            let ends = entry.known.pod.deleting || entry.known.ended.is_some();
            if ends || now.saturating_sub(unlisted) >= self.keep_unlisted {
                gone.push(Arc::clone(uid));
            } else if entry.known.listed {
                entry.known = Arc::new(Known { listed: false, ..(*entry.known).clone() });
                changed = true;
            }
        }
        changed |= !gone.is_empty();
        for uid in gone {
            self.delete(&uid, now);
        }
        self.synced = true;
        changed
    }

    /// This pod exists, and so it looks; whether it looked otherwise before.
    pub fn apply(&mut self, pod: Pod, now: Duration) -> bool {
        if !pod.node.is_empty() && pod.node != self.node {
            self.discards.foreign += 1;
            // It cannot move here or away; a node that was set late is told as a new pod.
            return false;
        }
        let before = self.pods.get_mut(&pod.id.uid);
        if let Some(entry) = before
            && entry.known.listed
            && entry.known.pod == pod
        {
            entry.round = self.round;
            return false;
        }
        let before = self.pods.get(&pod.id.uid);
        if before.is_none() && self.pods.len() >= policy::PODS_MAX {
            self.discards.overflow += 1;
            return false;
        }
        let earlier = before.map(|entry| earlier_ids(&entry.known, &pod)).unwrap_or_default();
        let seen = before.map_or(now, |entry| entry.known.seen);
        let ended = before.and_then(|entry| entry.known.ended).unwrap_or(now);
        let ended = pod.has_ended().then_some(ended);
        let uid = Arc::clone(&pod.id.uid);
        self.tombstones.remove(&uid);
        let known = Arc::new(Known { pod, seen, ended, listed: true, earlier });
        self.pods.insert(uid, Entry { known, round: self.round, unlisted: None });
        true
    }

    /// This pod exists, though nobody can say how it looks.
    pub fn keep(&mut self, uid: &str) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.round = self.round;
            entry.unlisted = None;
        }
    }

    /// This pod does not exist any more; whether it did before.
    pub fn delete(&mut self, uid: &str, now: Duration) -> bool {
        let Some((uid, entry)) = self.pods.remove_entry(uid) else { return false };
        let Pod { id, config_hash, .. } = &entry.known.pod;
        let ended = entry.known.ended.or(entry.unlisted).unwrap_or(now);
        let tombstone = Tombstone { id: id.clone(), hash: config_hash.clone(), ended, at: now };
        self.tombstones.insert(uid, tombstone);
        true
    }

    /// The picture at this moment.
    #[must_use]
    pub fn picture(&mut self, now: Duration) -> Pods {
        self.tombstones.retain(|_, t| now.saturating_sub(t.at) < policy::POD_OUTLIVED_MAX);
        give_back(&mut self.tombstones);
        give_back(&mut self.pods);
        let mut index = Index::default();
        for (uid, entry) in &self.pods {
            index.add(uid, &entry.known);
        }
        for (uid, tombstone) in &self.tombstones {
            index.tombstones.insert(Arc::clone(uid), tombstone.clone());
            if let Some(hash) = &tombstone.hash {
                index.tombstones.insert(Arc::clone(hash), tombstone.clone());
            }
        }
        Pods {
            synced: self.synced,
            health: self.health.clone(),
            discards: self.discards,
            index: Arc::new(index),
        }
    }
}

/// Gives memory back that a table has had no use for: it grows by itself, and never shrinks.
fn give_back<V>(table: &mut HashMap<Arc<str>, V>) {
    if table.capacity() / 4 > table.len() {
        table.shrink_to(2 * table.len());
    }
}

impl Index {
    fn add(&mut self, uid: &Arc<str>, known: &Arc<Known>) {
        let pod = &known.pod;
        self.pods.insert(Arc::clone(uid), Arc::clone(known));
        if let Some(hash) = &pod.config_hash {
            self.hashes
                .entry(Arc::clone(hash))
                .and_modify(|claimed| *claimed = None)
                .or_insert_with(|| Some(Arc::clone(known)));
        }
        for container in &pod.containers {
            for id in &container.ids {
                self.add_container(id, known, &container.name);
            }
        }
        for (id, name) in &known.earlier {
            self.add_container(id, known, name);
        }
        let name = (Arc::clone(&pod.id.namespace), Arc::clone(&pod.id.name));
        self.names.entry(name).or_default().push(Arc::clone(known));
    }

    fn add_container(&mut self, id: &Arc<str>, known: &Arc<Known>, name: &Arc<str>) {
        self.containers.insert(Arc::clone(id), (Arc::clone(known), Arc::clone(name)));
    }
}

/// Ids that were known and that the pod's status no longer tells, newest first.
fn earlier_ids(before: &Known, now: &Pod) -> Vec<(Arc<str>, Arc<str>)> {
    let told = |id: &Arc<str>| now.containers.iter().any(|c| c.ids.contains(id));
    let mut kept: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    let ids_of = |c: &Container| -> Vec<_> {
        c.ids.iter().map(|id| (Arc::clone(id), Arc::clone(&c.name))).collect()
    };
    let known = before.pod.containers.iter().flat_map(ids_of).chain(before.earlier.clone());
    for (id, name) in known {
        let same = kept.iter().filter(|(_, other)| *other == name).count();
        let double = kept.iter().any(|(other, _)| *other == id);
        if same < policy::CONTAINER_IDS_MAX && !double && !told(&id) {
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

    const T: fn(u64) -> Duration = Duration::from_secs;

    fn pod(uid: &str, name: &str, container: &str) -> Pod {
        let text = format!(
            r#"{{"metadata":{{"uid":"{uid}","namespace":"demo","name":"{name}"}},
               "spec":{{"nodeName":"n1","containers":[{{"name":"main"}}]}},
               "status":{{"containerStatuses":[{{"name":"main","containerID":"x://{container}"}}]}}}}"#
        );
        pod::parse(text.as_bytes()).unwrap()
    }

    fn map() -> PodMap {
        PodMap::new("test", "n1")
    }

    fn mirror(uid: &str, hash: &str) -> Pod {
        Pod { config_hash: Some(hash.into()), ..pod(uid, uid, uid) }
    }

    #[test]
    fn a_pod_is_found_by_every_key() {
        let mut map = map();
        map.begin();
        map.apply(pod("u1", "a", "c1"), T(1));
        map.apply(mirror("u2", "h2"), T(1));
        assert!(!map.picture(T(1)).synced);
        map.complete(T(1));
        let pods = map.picture(T(1));
        assert!(pods.synced);
        assert!(matches!(pods.by_uid("u1"), ByUid::Live(k) if &*k.pod.id.name == "a"));
        assert!(matches!(pods.by_uid("h2"), ByUid::Live(k) if &*k.pod.id.uid == "u2"));
        assert!(matches!(pods.by_name("demo", "a"), ByName::One(k) if &*k.pod.id.uid == "u1"));
        let (known, name) = pods.by_container("c1").unwrap();
        assert_eq!((&*known.pod.id.uid, &**name), ("u1", "main"));
        assert_eq!(pods.by_uid("u3"), ByUid::Unknown);
        assert_eq!(pods.by_name("demo", "z"), ByName::Unknown);
    }

    #[test]
    fn ids_of_earlier_runs_are_kept_and_bounded() {
        let mut map = map();
        for run in 0..100 {
            map.apply(pod("u1", "a", &format!("c{run}")), T(run));
        }
        let pods = map.picture(T(100));
        assert!(pods.by_container("c99").is_some() && pods.by_container("c90").is_some());
        assert!(pods.by_container("c5").is_none());
        let ids = 1 + policy::CONTAINER_IDS_MAX;
        assert_eq!(pods.index.containers.len(), ids);
    }

    #[test]
    fn a_rush_of_pods_leaves_no_memory_behind() {
        let mut map = map();
        for n in 0..2000 {
            let uid = format!("u{n}");
            map.apply(pod(&uid, &uid, &uid), T(0));
            map.delete(&uid, T(0));
        }
        map.apply(pod("u", "a", "c"), T(1));
        assert_eq!(map.tombstones.len(), 2000);
        let pods = map.picture(policy::POD_OUTLIVED_MAX);
        assert_eq!((pods.len(), pods.index.tombstones.len()), (1, 0));
        assert!(map.pods.capacity() < 16, "{}", map.pods.capacity());
        assert!(map.tombstones.capacity() < 16, "{}", map.tombstones.capacity());
    }

    #[test]
    fn a_deleted_pod_is_deleted_and_not_unknown_for_a_while() {
        let mut map = map();
        map.apply(mirror("u1", "h1"), T(0));
        map.delete("u1", T(10));
        let pods = map.picture(T(70));
        assert!(matches!(pods.by_uid("u1"), ByUid::Deleted(id) if &*id.uid == "u1"));
        assert!(matches!(pods.by_uid("h1"), ByUid::Deleted(_)));
        assert!(matches!(pods.by_name("demo", "u1"), ByName::Deleted(_)));
        assert_eq!(pods.name_freed("demo", "u1"), Some(T(10)));
        assert!(pods.is_empty());
        assert_eq!(map.picture(T(10) + policy::POD_OUTLIVED_MAX).by_uid("u1"), ByUid::Unknown);
    }

    #[test]
    fn a_new_list_keeps_everybody_until_it_is_complete() {
        let mut map = map();
        map.apply(pod("u1", "a", "c1"), T(0));
        map.apply(pod("u2", "b", "c2"), T(0));
        map.begin();
        map.apply(pod("u2", "b", "c2"), T(5));
        assert_eq!(map.picture(T(5)).len(), 2);
        map.complete(T(6));
        let pods = map.picture(T(6));
        assert!(matches!(pods.by_uid("u1"), ByUid::Deleted(_)));
        assert!(matches!(pods.by_uid("u2"), ByUid::Live(k) if k.seen == T(0)));
    }

    #[test]
    fn a_kubelets_list_that_lacks_a_running_pod_does_not_delete_it() {
        let list = |map: &mut PodMap, pods: &[Pod], now| {
            map.begin();
            let applied = pods.iter().map(|pod| map.apply(pod.clone(), now));
            let changed = applied.fold(false, |changed, one| changed | one);
            changed | map.complete(now)
        };
        let (running, deleting) =
            (pod("u1", "a", "c1"), Pod { deleting: true, ..pod("u2", "b", "c2") });
        let mut map = PodMap::of_kubelet("test", "n1");
        list(&mut map, &[running.clone(), deleting], T(0));
        assert!(list(&mut map, &[], T(10)), "one is gone, and one is no longer listed");
        let pods = map.picture(T(10));
        assert!(matches!(pods.by_uid("u1"), ByUid::Live(k) if !k.listed));
        assert!(matches!(pods.by_uid("u2"), ByUid::Deleted(_)), "its end was reported");
        assert!(!list(&mut map, &[], T(20)));
        assert!(list(&mut map, &[running], T(30)));
        assert!(matches!(map.picture(T(30)).by_uid("u1"), ByUid::Live(k) if k.listed));
        list(&mut map, &[], T(40));
        list(&mut map, &[], T(40) + policy::POD_UNLISTED_MAX);
        assert!(map.picture(T(650)).is_empty(), "nothing lasts for ever");
    }

    #[test]
    fn the_end_of_a_pod_is_when_it_was_first_seen_to_have_ended() {
        let mut map = map();
        map.apply(pod("u1", "a", "c1"), T(1));
        let ended = |name: &str| Pod { terminal: true, ..pod("u1", "a", name) };
        map.apply(ended("c1"), T(5));
        map.apply(ended("c2"), T(9));
        assert_eq!(map.picture(T(9)).ended("u1"), Some(T(5)));
        map.delete("u1", T(20));
        assert_eq!(map.picture(T(20)).ended("u1"), Some(T(5)));
        map.apply(pod("u2", "b", "c3"), T(20));
        assert_eq!(map.picture(T(20)).ended("u2"), None);
        map.delete("u2", T(21));
        assert_eq!(map.picture(T(21)).ended("u2"), Some(T(21)));
    }

    #[test]
    fn two_of_one_name_are_ambiguous() {
        let mut map = map();
        map.apply(pod("u1", "web-0", "c1"), T(0));
        map.apply(pod("u2", "web-0", "c2"), T(0));
        assert_eq!(map.picture(T(0)).by_name("demo", "web-0"), ByName::Ambiguous);
        map.delete("u1", T(1));
        assert!(matches!(map.picture(T(1)).by_name("demo", "web-0"), ByName::One(_)));
    }

    #[test]
    fn two_that_claim_one_hash_are_ambiguous() {
        let mut map = map();
        map.apply(mirror("u1", "h"), T(0));
        map.apply(mirror("u2", "h"), T(0));
        assert_eq!(map.picture(T(0)).by_uid("h"), ByUid::Ambiguous);
    }

    #[test]
    fn other_nodes_and_floods_are_left_out() {
        let mut map = map();
        map.apply(Pod { node: "n2".into(), ..pod("u1", "a", "c1") }, T(0));
        for n in 0..=policy::PODS_MAX {
            map.apply(pod(&format!("f{n}"), "f", ""), T(0));
        }
        let pods = map.picture(T(0));
        assert_eq!(pods.len(), policy::PODS_MAX);
        assert_eq!((pods.discards.foreign, pods.discards.overflow), (1, 1));
    }

    proptest! {
        /// Whatever happens, the picture is what the last list and the events after it say.
        #[test]
        fn the_picture_follows_the_events(events in prop::collection::vec((0_u8..6, 0_u8..4), 0..40)) {
            let mut map = map();
            let mut truth = std::collections::BTreeSet::new();
            map.begin();
            map.complete(T(0));
            for (n, (uid, what)) in events.into_iter().enumerate() {
                let uid = format!("u{uid}");
                let now = T(n as u64);
                match what {
                    0 | 1 => {
                        map.apply(pod(&uid, &uid, &format!("c{n}")), now);
                        truth.insert(uid);
                    }
                    2 => {
                        map.delete(&uid, now);
                        truth.remove(&uid);
                    }
                    _ => {
                        map.begin();
                        map.apply(pod(&uid, &uid, &uid), now);
                        map.complete(now);
                        truth = std::iter::once(uid).collect();
                    }
                }
            }
            let pods = map.picture(T(1000));
            let found: std::collections::BTreeSet<String> =
                pods.iter().map(|known| known.pod.id.uid.to_string()).collect();
            prop_assert_eq!(found, truth);
            for (known, _) in pods.index.containers.values() {
                let live = matches!(pods.by_uid(&known.pod.id.uid), ByUid::Live(_));
                prop_assert!(live);
            }
        }
    }
}
