//! Resolves the cgroup of a process to its owner: a container of a pod, the host, or a container
//! without a pod.

use std::sync::Arc;
use std::time::Duration;

use crate::host::pod_logs::{LoggedContainers, LoggedPods};
use crate::kube::pods::{PodSnapshot, TrackedPod, UidLookup};
use crate::kube::source::SourceState;
use crate::model::{CgroupLocation, ContainerId, Discard, PodPath, PodRef};
use crate::policy::POD_OUTLIVED_MAX;
use crate::snapshot::device_usage::{ContainerRef, ProcessOwner};

/// Owner of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A container of a pod of this node.
    Container(ContainerIdentity),
    /// The host: the process is in no container.
    Host,
    /// A container without a pod.
    NonPodContainer,
    /// The owner is unknown, or not known yet.
    Unknown(Unresolved),
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerIdentity {
    /// The pod.
    pub pod: PodRef,
    /// The container's name.
    pub container: Arc<str>,
}

impl ContainerIdentity {
    /// Whether both are the same container. Pods are compared by UID and name, or by name alone if
    /// one UID is empty: the kubelet lists pods without UIDs.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.container == other.container && self.is_in_pod_of(other)
    }

    /// Whether both containers are in the same pod; pods are compared as in [`Self::matches`].
    #[must_use]
    pub fn is_in_pod_of(&self, other: &Self) -> bool {
        let (one, two) = (&self.pod, &other.pod);
        let uids_differ = one.uid != two.uid && !one.uid.is_empty() && !two.uid.is_empty();
        one.name == two.name && one.namespace == two.namespace && !uids_differ
    }

    /// Namespace, pod and container.
    #[must_use]
    pub fn names(&self) -> (&str, &str, &str) {
        (&self.pod.namespace, &self.pod.name, &self.container)
    }
}

/// Why a process has no known owner, or no family yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unresolved {
    /// The cgroup lines name different pods, or the container is one of another pod.
    Conflict,
    /// No source has the pod (yet).
    NoPod,
    /// The pod ended or was deleted recently; its processes are about to exit.
    Deleted,
    /// Two pods have the UID.
    Ambiguous,
    /// The pod is known, but not (yet) which of its containers it is.
    NoContainer,
    /// No permission to read the `/proc` entry.
    Denied,
    /// The `/proc` entry cannot be read or parsed.
    Unreadable,
    /// The driver lists the process, but `/proc` has no entry for it, or it is a zombie.
    Exited,
    /// The entry in the driver's list is invalid.
    Invalid,
    /// It is not known (yet) whether the device is allocated to the container.
    Allocation,
}

impl Owner {
    /// Value of the `result` label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Container(_) => "container",
            Self::Host => "host",
            Self::NonPodContainer => "container_without_pod",
            Self::Unknown(_) => "unknown",
        }
    }
}

impl From<&ContainerIdentity> for ContainerRef {
    fn from(container: &ContainerIdentity) -> Self {
        Self { pod: container.pod.clone(), name: Arc::clone(&container.container) }
    }
}

impl From<&Owner> for ProcessOwner {
    fn from(owner: &Owner) -> Self {
        match owner {
            Owner::Container(container) => Self::Container(container.into()),
            Owner::Host => Self::Host,
            Owner::NonPodContainer => Self::NonPodContainer,
            Owner::Unknown(reason) => Self::Unknown(reason.label()),
        }
    }
}

impl Unresolved {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::Conflict,
        Self::NoPod,
        Self::Deleted,
        Self::Ambiguous,
        Self::NoContainer,
        Self::Denied,
        Self::Unreadable,
        Self::Exited,
        Self::Invalid,
        Self::Allocation,
    ];

    /// Value of the `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::NoPod => "no_pod",
            Self::Deleted => "deleted",
            Self::Ambiguous => "ambiguous",
            Self::NoContainer => "no_container",
            Self::Denied => "denied",
            Self::Unreadable => "unreadable",
            Self::Exited => "exited",
            Self::Invalid => "invalid",
            Self::Allocation => "allocation",
        }
    }
}

impl From<Discard> for Unresolved {
    fn from(discard: Discard) -> Self {
        match discard {
            Discard::Denied => Self::Denied,
            Discard::Unreadable => Self::Unreadable,
            Discard::Gone | Discard::Zombie => Self::Exited,
            Discard::Pid
            | Discard::Duplicate
            | Discard::OldStamp
            | Discard::FutureStamp
            | Discard::Percentage
            | Discard::Memory => Self::Invalid,
        }
    }
}

/// How an owner was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnerEvidence {
    /// From the cgroup alone: the host, or a container without a pod.
    Cgroup,
    /// The pod status contains the container id.
    Status,
    /// It is the only container of the pod.
    Inferred,
    /// From the names of the kubelet's log directories and links.
    Logs,
}

impl OwnerEvidence {
    /// All kinds of evidence.
    pub const ALL: [Self; 4] = [Self::Cgroup, Self::Status, Self::Inferred, Self::Logs];

    /// Value of the `source` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Status => "status",
            Self::Inferred => "inferred",
            Self::Logs => "logs",
        }
    }
}

/// Resolves processes to pods and containers, with the sources that are available.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnerResolver<'a> {
    /// Pods from the API server or the kubelet, if one is configured.
    pub pods: Option<&'a PodSnapshot>,
    /// Pods from the names of their log directories.
    pub logged_pods: Option<&'a LoggedPods>,
    /// Containers from the names of their log links.
    pub logged_containers: Option<&'a LoggedContainers>,
    /// Current time (monotonic).
    pub now: Duration,
}

impl OwnerResolver<'_> {
    /// Owner of a process in the cgroup `location` that was first seen at `first_seen` (monotonic),
    /// with the evidence. If a process outlives its pod by [`POD_OUTLIVED_MAX`], it belongs to no
    /// pod.
    #[must_use]
    pub fn resolve(
        &self,
        location: &CgroupLocation,
        first_seen: Duration,
    ) -> (Owner, Option<OwnerEvidence>) {
        let found = match location {
            CgroupLocation::Host => return (Owner::Host, Some(OwnerEvidence::Cgroup)),
            CgroupLocation::Conflict => Err(Unresolved::Conflict),
            CgroupLocation::Container(id) => return self.container_owner(id),
            CgroupLocation::Pod(paths) => match self.pod_owner(paths, first_seen) {
                Err(NotOwned::Outlived) => {
                    return (Owner::NonPodContainer, Some(OwnerEvidence::Cgroup));
                }
                Err(NotOwned::Unresolved(reason)) => Err(reason),
                Ok(found) => Ok(found),
            },
        };
        match found {
            Ok((container, evidence)) => (Owner::Container(container), Some(evidence)),
            Err(unresolved) => (Owner::Unknown(unresolved), None),
        }
    }

    /// Owner of a container with a cgroup that names no pod: a pod's container if a pod status contains
    /// its id.
    fn container_owner(&self, id: &ContainerId) -> (Owner, Option<OwnerEvidence>) {
        if let Some((tracked, container)) =
            self.pods.and_then(|pods| pods.by_container(id.as_str()))
        {
            return (Owner::Container(identity(tracked, container)), Some(OwnerEvidence::Status));
        }
        (Owner::NonPodContainer, Some(OwnerEvidence::Cgroup))
    }

    /// Container in the outermost known pod. A workload can create cgroups with any name below its
    /// own, but none above it.
    fn pod_owner(
        &self,
        paths: &[PodPath],
        first_seen: Duration,
    ) -> Result<(ContainerIdentity, OwnerEvidence), NotOwned> {
        let mut ended = None;
        for path in paths.iter().rev() {
            let uid = path.uid.as_str();
            match self.pods.map_or(UidLookup::Unknown, |pods| pods.by_uid(uid)) {
                UidLookup::Live(tracked) if tracked.ended.is_none() => {
                    return Ok(self.container_in(tracked, path.container.as_ref())?);
                }
                UidLookup::Ambiguous => return Err(Unresolved::Ambiguous.into()),
                UidLookup::Live(_) | UidLookup::Deleted(_) => {
                    ended = ended.max(self.pods.and_then(|pods| pods.ended(uid)));
                }
                UidLookup::Unknown => {}
            }
        }
        let outlives = |since| self.now.saturating_sub(since) >= POD_OUTLIVED_MAX;
        match ended {
            Some(ended) if outlives(ended) => Err(NotOwned::Outlived),
            Some(_) => Err(Unresolved::Deleted.into()),
            None => match self.pod_owner_from_logs(paths) {
                Err(Unresolved::NoPod) if self.has_all_pods() && outlives(first_seen) => {
                    Err(NotOwned::Outlived)
                }
                found => Ok(found?),
            },
        }
    }

    /// Whether the pod list is complete and current, so that a missing pod does not exist.
    fn has_all_pods(&self) -> bool {
        self.pods.is_some_and(|pods| pods.synced && pods.health.state == SourceState::Up)
    }

    /// Container of a pod with this id.
    fn container_in(
        &self,
        tracked: &TrackedPod,
        id: Option<&ContainerId>,
    ) -> Result<(ContainerIdentity, OwnerEvidence), Unresolved> {
        let by_id = id.and_then(|id| self.pods?.by_container(id.as_str()));
        if let Some((other, container)) = by_id {
            // A container of another pod in the cgroup of this pod: the cgroup name is forged.
            let same = other.pod.id.uid == tracked.pod.id.uid;
            let found = (identity(tracked, container), OwnerEvidence::Status);
            return if same { Ok(found) } else { Err(Unresolved::Conflict) };
        }
        let logged = id.and_then(|id| self.logged_containers?.find(id));
        let ours = logged.filter(|logged| {
            logged.namespace == tracked.pod.id.namespace && logged.pod == tracked.pod.id.name
        });
        if let Some(logged) = ours {
            return Ok((identity(tracked, &logged.name), OwnerEvidence::Logs));
        }
        let container = only_container(tracked).ok_or(Unresolved::NoContainer)?;
        Ok((identity(tracked, container), OwnerEvidence::Inferred))
    }

    /// Owner from the names of logs, as long as the pod list is not available.
    fn pod_owner_from_logs(
        &self,
        paths: &[PodPath],
    ) -> Result<(ContainerIdentity, OwnerEvidence), Unresolved> {
        if self.has_all_pods() {
            return Err(Unresolved::NoPod);
        }
        let logged = paths.iter().rev().find_map(|path| {
            let pod = self.logged_pods?.get(&path.uid)?;
            Some((pod, path))
        });
        let (pod, path) = logged.ok_or(Unresolved::NoPod)?;
        let container = path.container.as_ref().and_then(|id| self.logged_containers?.find(id));
        let container = container.filter(|c| c.namespace == pod.namespace && c.pod == pod.name);
        let container = container.ok_or(Unresolved::NoContainer)?;
        let pod = PodRef {
            uid: path.uid.as_str().into(),
            namespace: Arc::clone(&pod.namespace),
            name: Arc::clone(&pod.name),
        };
        Ok((ContainerIdentity { pod, container: Arc::clone(&container.name) }, OwnerEvidence::Logs))
    }
}

/// Why a process has no owning pod.
enum NotOwned {
    Unresolved(Unresolved),
    /// The pod ended, or has been unknown, for at least [`POD_OUTLIVED_MAX`].
    Outlived,
}

impl From<Unresolved> for NotOwned {
    fn from(reason: Unresolved) -> Self {
        Self::Unresolved(reason)
    }
}

fn identity(tracked: &TrackedPod, container: &Arc<str>) -> ContainerIdentity {
    ContainerIdentity { pod: tracked.pod.id.clone(), container: Arc::clone(container) }
}

/// The only container of the pod, of any kind. With more containers, an unknown id may be the next
/// run of any of them, even of those with a known id.
fn only_container(tracked: &TrackedPod) -> Option<&Arc<str>> {
    match tracked.pod.containers.as_slice() {
        [only] => Some(&only.name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::pod;
    use crate::kube::pods::store::PodStore;
    use crate::model::PodUid;
    use proptest::prelude::*;

    const TRAIN: &str = "3f6a1c58-90de-4b27-a1f4-0c9d5e7b2a63";
    const SERVE: &str = "b81d9f40-1111-4c2a-8d3e-0a0b0c0d0e0f";
    const MIRROR: &str = "77777777-2222-4c2a-8d3e-0a0b0c0d0e0f";
    const HASH: &str = "9c1185a5c5e9fc54612808977ee8f548";

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    /// A pod with containers and, if known, the digit that their id consists of.
    fn pod(uid: &str, name: &str, containers: &[(&str, Option<char>)], more: &str) -> pod::Pod {
        let names: Vec<String> =
            containers.iter().map(|(name, _)| format!(r#"{{"name":"{name}"}}"#)).collect();
        let status = containers.iter().filter_map(|(name, digit)| {
            let id = id((*digit)?);
            Some(format!(
                r#"{{"name":"{name}","containerID":"containerd://{id}","state":{{"running":{{}}}}}}"#
            ))
        });
        let status: Vec<String> = status.collect();
        let text = format!(
            r#"{{"metadata":{{"uid":"{uid}","namespace":"team","name":"{name}"{more}}},
                "spec":{{"nodeName":"n","containers":[{}]}},
                "status":{{"phase":"Running","containerStatuses":[{}]}}}}"#,
            names.join(","),
            status.join(",")
        );
        pod::parse(text.as_bytes()).unwrap()
    }

    fn pods(synced: bool) -> PodSnapshot {
        let mut store = PodStore::new("api", "n");
        let hash = format!(
            r#","annotations":{{"kubernetes.io/config.hash":"{HASH}",
                "kubernetes.io/config.mirror":"{HASH}"}}"#
        );
        store.apply(pod(TRAIN, "train", &[("main", Some('a'))], ""), Duration::ZERO);
        store.apply(pod(SERVE, "serve", &[("web", Some('b')), ("log", None)], ""), Duration::ZERO);
        store.apply(pod(MIRROR, "static", &[("main", None)], &hash), Duration::ZERO);
        if synced {
            store.end_list(Duration::ZERO);
            store.health.record_success(Duration::ZERO);
        }
        store.snapshot(Duration::ZERO)
    }

    fn path(uid: &str, digit: Option<char>) -> PodPath {
        let container = digit.map(|digit| ContainerId::parse(id(digit).as_bytes()).unwrap());
        PodPath { uid: PodUid::parse(uid.as_bytes()).unwrap(), container }
    }

    fn owner(paths: &[PodPath]) -> (Owner, Option<OwnerEvidence>) {
        let pods = pods(true);
        let resolver = OwnerResolver { pods: Some(&pods), ..OwnerResolver::default() };
        resolver.resolve(&CgroupLocation::Pod(paths.to_vec()), Duration::ZERO)
    }

    fn found(paths: &[PodPath]) -> (String, Option<OwnerEvidence>) {
        match owner(paths) {
            (Owner::Container(container), evidence) => {
                (format!("{}/{}", container.pod.name, container.container), evidence)
            }
            (other, evidence) => (format!("{other:?}"), evidence),
        }
    }

    #[test]
    fn container_is_resolved_by_its_id() {
        let (name, evidence) = found(&[path(SERVE, Some('b'))]);
        assert_eq!((&*name, evidence), ("serve/web", Some(OwnerEvidence::Status)));
    }

    #[test]
    fn only_container_is_inferred_before_its_status_is_known() {
        let (name, evidence) = found(&[path(TRAIN, Some('f'))]);
        assert_eq!((&*name, evidence), ("train/main", Some(OwnerEvidence::Inferred)));
        assert_eq!(found(&[path(TRAIN, None)]).0, "train/main");
    }

    #[test]
    fn one_of_several_containers_is_not_inferred() {
        let unresolved = "Unknown(NoContainer)";
        assert_eq!(
            found(&[path(SERVE, Some('f'))]).0,
            unresolved,
            "it may be the next run of either container"
        );
        assert_eq!(found(&[path(SERVE, None)]).0, unresolved);
    }

    #[test]
    fn static_pod_is_resolved_by_its_hash() {
        assert_eq!(found(&[path(HASH, Some('c'))]).0, "static/main");
    }

    #[test]
    fn forged_cgroup_does_not_change_the_owner() {
        // A privileged container can create a cgroup with the name of another pod below its own.
        let forged = [path(TRAIN, Some('a')), path(SERVE, Some('b'))];
        assert_eq!(found(&forged).0, "serve/web");
        // The node itself is a container: only the inner pod is of this node.
        let outer = path("00000000-0000-4000-8000-000000000000", Some('d'));
        assert_eq!(found(&[path(TRAIN, Some('a')), outer]).0, "train/main");
    }

    #[test]
    fn container_id_of_another_pod_is_a_conflict() {
        assert_eq!(found(&[path(TRAIN, Some('b'))]).0, "Unknown(Conflict)");
    }

    #[test]
    fn deleted_pod_differs_from_an_unknown_one() {
        let mut store = PodStore::new("api", "n");
        store.apply(pod(TRAIN, "train", &[("main", Some('a'))], ""), Duration::ZERO);
        store.delete(TRAIN, Duration::ZERO);
        store.end_list(Duration::ZERO);
        let pods = store.snapshot(Duration::ZERO);
        let resolver = OwnerResolver { pods: Some(&pods), ..OwnerResolver::default() };
        let of = |uid| {
            resolver.resolve(&CgroupLocation::Pod(vec![path(uid, Some('a'))]), Duration::ZERO).0
        };
        assert_eq!(of(TRAIN), Owner::Unknown(Unresolved::Deleted));
        assert_eq!(of(SERVE), Owner::Unknown(Unresolved::NoPod));
    }

    #[test]
    fn process_that_outlives_its_pod_for_long_has_no_pod() {
        let ended = |phase: &str| {
            let mut pod = pod(TRAIN, "train", &[("main", Some('a'))], "");
            pod.terminal = phase != "Running";
            pod
        };
        let at = |store: &mut PodStore, now: Duration, first_seen: Duration| {
            let pods = store.snapshot(now);
            let resolver = OwnerResolver { pods: Some(&pods), now, ..OwnerResolver::default() };
            let location = |uid| CgroupLocation::Pod(vec![path(uid, Some('a'))]);
            let of = |uid| resolver.resolve(&location(uid), first_seen).0;
            (of(TRAIN), of(SERVE))
        };
        let (deleted, unknown) =
            (Owner::Unknown(Unresolved::Deleted), Owner::Unknown(Unresolved::NoPod));
        let second = Duration::from_secs(1);
        for delete in [false, true] {
            let mut store = PodStore::new("api", "n");
            store.end_list(Duration::ZERO);
            store.health.record_success(Duration::ZERO);
            store.apply(ended("Running"), Duration::ZERO);
            store.apply(ended("Failed"), 50 * second);
            if delete {
                store.delete(TRAIN, 60 * second);
            }
            let (early, late) = (49 * second + POD_OUTLIVED_MAX, 50 * second + POD_OUTLIVED_MAX);
            let first = at(&mut store, early, 60 * second);
            assert_eq!(first, (deleted.clone(), unknown.clone()), "{delete}");
            assert_eq!(
                at(&mut store, late, 60 * second),
                (Owner::NonPodContainer, unknown.clone())
            );
            assert_eq!(at(&mut store, late + 10 * second, 60 * second).1, Owner::NonPodContainer);
            let gone = crate::model::Problem::without_remedy("gone");
            store.health.record_failure(crate::kube::source::FailureReason::Connection, &gone);
            let down = at(&mut store, 2 * late, 60 * second);
            assert_eq!(down.1, unknown, "the pod list of a source that is down may be incomplete");
        }
    }

    #[test]
    fn logs_are_used_only_while_the_pod_list_is_not_available() {
        let tree = tempfile::tempdir().unwrap();
        let (logs, links) = (tree.path().join("pods"), tree.path().join("containers"));
        let uid = "12121212-2222-4c2a-8d3e-0a0b0c0d0e0f";
        std::fs::create_dir_all(logs.join(format!("team_late_{uid}/main"))).unwrap();
        std::fs::create_dir_all(&links).unwrap();
        let link = links.join(format!("late_team_main-{}.log", id('e')));
        std::os::unix::fs::symlink("/nowhere", link).unwrap();
        let logged_pods = crate::host::pod_logs::read_pods(&logs).unwrap();
        let logged_containers = crate::host::pod_logs::read_containers(&links).unwrap();
        let of = |pods: Option<&PodSnapshot>| {
            let resolver = OwnerResolver {
                pods,
                logged_pods: logged_pods.as_ref(),
                logged_containers: logged_containers.as_ref(),
                now: Duration::ZERO,
            };
            resolver.resolve(&CgroupLocation::Pod(vec![path(uid, Some('e'))]), Duration::ZERO)
        };
        let (found, evidence) = of(None);
        assert_eq!((found.label(), evidence), ("container", Some(OwnerEvidence::Logs)));
        assert_eq!(
            of(Some(&pods(false))).1,
            Some(OwnerEvidence::Logs),
            "the pod list is not complete yet"
        );
        let no_pod = Owner::Unknown(Unresolved::NoPod);
        assert_eq!(
            of(Some(&pods(true))).0,
            no_pod,
            "the complete pod list does not contain this pod"
        );
    }

    #[test]
    fn container_has_no_pod_unless_a_status_contains_its_id() {
        let pods = pods(true);
        let resolver = OwnerResolver { pods: Some(&pods), ..OwnerResolver::default() };
        let of = |digit| {
            let id = ContainerId::parse(id(digit).as_bytes()).unwrap();
            resolver.resolve(&CgroupLocation::Container(id), Duration::ZERO).0
        };
        assert_eq!(of('a').label(), "container");
        assert_eq!(of('f'), Owner::NonPodContainer);
    }

    #[test]
    fn labels_of_reasons_are_distinct() {
        let reasons: std::collections::BTreeSet<_> =
            Unresolved::ALL.iter().map(|unresolved| unresolved.label()).collect();
        assert_eq!(reasons.len(), Unresolved::ALL.len());
    }

    proptest! {
        #[test]
        fn owner_is_always_a_pod_of_this_node(
            paths in prop::collection::vec((0_usize..5, prop::option::of(0_usize..6)), 1..4)
        ) {
            let uids = [TRAIN, SERVE, HASH, "00000000-0000-4000-8000-000000000000", MIRROR];
            let digits = ['a', 'b', 'c', 'd', 'e', 'f'];
            let paths: Vec<PodPath> =
                paths.iter().map(|(uid, id)| path(uids[*uid], id.map(|id| digits[id]))).collect();
            if let (Owner::Container(container), _) = owner(&paths) {
                prop_assert!(["train", "serve", "static"].contains(&&*container.pod.name));
                prop_assert_eq!(&*container.pod.namespace, "team");
            }
        }
    }
}
