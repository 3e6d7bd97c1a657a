//! Resolves the cgroup of a process to its owner: a container of a pod, the host, or a container
//! without a pod.

use std::sync::Arc;
use std::time::Duration;

use super::absent_pods::AbsentPods;
use crate::host::pod_logs::{LoggedContainers, LoggedPod, LoggedPods};
use crate::kube::pod::container::{Container, ContainerKind};
use crate::kube::pods::{ContainerLookup, NameLookup, PodSnapshot, TrackedPod, UidLookup};
use crate::model::{
    CgroupLocation, ContainerId, ContainerIdentity, Owner, OwnerEvidence, PodPath, PodRef, PodUid,
    Unresolved,
};
use crate::policy::POD_OUTLIVED_MAX;

/// Resolves processes to pods and containers, with the sources that are available.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnerResolver<'a> {
    /// Pods from the API server or the kubelet, if one is configured.
    pub pods: Option<&'a PodSnapshot>,
    /// Pods from the names of their log directories.
    pub logged_pods: Option<&'a LoggedPods>,
    /// Containers from the names of their log links.
    pub logged_containers: Option<&'a LoggedContainers>,
    /// Pods that the node itself runs in, if it is a container. They are in the cgroup paths of all
    /// its processes.
    pub node_pods: &'a [PodUid],
    /// Since when pods of processes have not existed.
    pub absent_pods: Option<&'a AbsentPods>,
    /// Current time (monotonic).
    pub now: Duration,
}

impl OwnerResolver<'_> {
    /// Owner of a process in the cgroup `location`, with the evidence. If a process outlives its pod by
    /// [`POD_OUTLIVED_MAX`], it belongs to no pod.
    #[must_use]
    pub fn resolve(&self, location: &CgroupLocation) -> (Owner, Option<OwnerEvidence>) {
        let found = match location {
            CgroupLocation::Host => return (Owner::Host, Some(OwnerEvidence::Cgroup)),
            CgroupLocation::Conflict => Err(Unresolved::Conflict),
            CgroupLocation::Container(id) => return self.container_owner(id),
            CgroupLocation::Pod(paths) => match self.pod_owner(paths) {
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

    /// Owner of a container with a cgroup that names no pod: a pod's container if the status of exactly
    /// one contains its id.
    fn container_owner(&self, id: &ContainerId) -> (Owner, Option<OwnerEvidence>) {
        match self.container_by_id(id) {
            ContainerLookup::One(tracked, container) => {
                (Owner::Container(identity(tracked, container)), Some(OwnerEvidence::Status))
            }
            ContainerLookup::Ambiguous => (Owner::Unknown(Unresolved::Conflict), None),
            ContainerLookup::Unknown => (Owner::NonPodContainer, Some(OwnerEvidence::Cgroup)),
        }
    }

    fn container_by_id(&self, id: &ContainerId) -> ContainerLookup<'_> {
        self.pods.map_or(ContainerLookup::Unknown, |pods| pods.by_container(id.as_str()))
    }

    /// Container in the outermost pod below the node.
    fn pod_owner(&self, paths: &[PodPath]) -> Result<(ContainerIdentity, OwnerEvidence), NotOwned> {
        let path = self.outermost(paths).ok_or(Unresolved::NoPod)?;
        let uid = path.uid.as_str();
        let outlives = |since: Option<_>| {
            since.is_some_and(|at| self.now.saturating_sub(at) >= POD_OUTLIVED_MAX)
        };
        match self.pods.map_or(UidLookup::Unknown, |pods| pods.by_uid(uid)) {
            UidLookup::Live(tracked) if tracked.ended.is_none() => {
                Ok(self.container_in(tracked, path.container.as_ref())?)
            }
            UidLookup::Ambiguous => Err(Unresolved::Ambiguous.into()),
            UidLookup::Live(_) | UidLookup::Deleted(_) => {
                let is_over = outlives(self.pods.and_then(|pods| pods.ended(uid)));
                Err(if is_over { NotOwned::Outlived } else { Unresolved::Deleted.into() })
            }
            UidLookup::Unknown if self.has_all_pods() => {
                let is_over = outlives(self.absent_pods.and_then(|absent| absent.since(&path.uid)));
                Err(if is_over { NotOwned::Outlived } else { Unresolved::NoPod.into() })
            }
            UidLookup::Unknown => Ok(self.pod_owner_from_logs(path)?),
        }
    }

    /// UID of the pod of a cgroup as the identity of its containers has it.
    pub(super) fn pod_uid<'s>(&'s self, location: &'s CgroupLocation) -> Option<&'s str> {
        let CgroupLocation::Pod(paths) = location else { return None };
        let uid = self.outermost(paths)?.uid.as_str();
        match self.pods.map_or(UidLookup::Unknown, |pods| pods.by_uid(uid)) {
            UidLookup::Live(tracked) => Some(&tracked.pod.id.uid),
            // Known from the names of logs only.
            UidLookup::Unknown => Some(uid),
            UidLookup::Ambiguous | UidLookup::Deleted(_) => None,
        }
    }

    /// The pod of a process without a known container, if the process can be the sandbox of the pod,
    /// which works for all of its containers: the pod has a runtime class, all of its containers that
    /// are still to end run, and none of them has the id in the cgroup. While the status of a
    /// container is late, this holds for a process of any runtime, too.
    pub(super) fn sandboxed_pod(&self, location: &CgroupLocation) -> Option<&TrackedPod> {
        let CgroupLocation::Pod(paths) = location else { return None };
        let path = self.outermost(paths)?;
        let UidLookup::Live(tracked) = self.pods?.by_uid(path.uid.as_str()) else { return None };
        let runs = |c: &Container| match c.kind {
            ContainerKind::App | ContainerKind::Init { restartable: true } => c.running,
            ContainerKind::Init { restartable: false } => c.terminated,
            ContainerKind::Ephemeral => true,
        };
        let is_sandboxed = tracked.ended.is_none()
            && tracked.pod.may_be_sandboxed()
            && tracked.pod.containers.iter().all(runs)
            && self.has_all_pods();
        is_sandboxed.then_some(tracked)
    }

    /// The outermost pod below the node. A workload can create cgroups with any name below its own,
    /// but none above it.
    fn outermost<'p>(&self, paths: &'p [PodPath]) -> Option<&'p PodPath> {
        paths.iter().rev().find(|path| !self.node_pods.contains(&path.uid))
    }

    /// Whether the pod list is complete and current, so that a missing pod does not exist.
    pub(super) fn has_all_pods(&self) -> bool {
        self.pods.is_some_and(PodSnapshot::is_current)
    }

    /// Container of a pod with this id. Its own status decides, whatever those of other pods state.
    fn container_in(
        &self,
        tracked: &TrackedPod,
        id: Option<&ContainerId>,
    ) -> Result<(ContainerIdentity, OwnerEvidence), Unresolved> {
        match id.map_or(ContainerLookup::Unknown, |id| tracked.by_container(id.as_str())) {
            ContainerLookup::One(_, container) => {
                return Ok((identity(tracked, container), OwnerEvidence::Status));
            }
            ContainerLookup::Ambiguous => return Err(Unresolved::Conflict),
            ContainerLookup::Unknown => {}
        }
        // A container of another pod in the cgroup of this pod: one of them is forged.
        if id.is_some_and(|id| self.container_by_id(id) != ContainerLookup::Unknown) {
            return Err(Unresolved::Conflict);
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
        path: &PodPath,
    ) -> Result<(ContainerIdentity, OwnerEvidence), Unresolved> {
        let logged = self.logged_pods.ok_or(Unresolved::NoPod)?;
        let pod = logged.get(&path.uid).ok_or(Unresolved::NoPod)?;
        // The kubelet lists allocations by name: of a pod and its successor, it may mean either.
        let same_name =
            |other: &&LoggedPod| (&other.namespace, &other.name) == (&pod.namespace, &pod.name);
        let known =
            self.pods.map_or(NameLookup::Unknown, |pods| pods.by_name(&pod.namespace, &pod.name));
        let is_known = matches!(known, NameLookup::One(_) | NameLookup::Ambiguous);
        if is_known || logged.values().filter(same_name).count() > 1 {
            return Err(Unresolved::Ambiguous);
        }
        let container = path.container.as_ref().and_then(|id| self.logged_containers?.find(id));
        let container = container.filter(|c| c.namespace == pod.namespace && c.pod == pod.name);
        let container = container.ok_or(Unresolved::NoContainer)?;
        let pod = PodRef {
            uid: path.uid.as_str().into(),
            namespace: Arc::clone(&pod.namespace),
            name: Arc::clone(&pod.name),
        };
        Ok((ContainerIdentity { pod, name: Arc::clone(&container.name) }, OwnerEvidence::Logs))
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
    ContainerIdentity { pod: tracked.pod.id.clone(), name: Arc::clone(container) }
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
        resolver.resolve(&CgroupLocation::Pod(paths.to_vec()))
    }

    fn found(paths: &[PodPath]) -> (String, Option<OwnerEvidence>) {
        match owner(paths) {
            (Owner::Container(container), evidence) => {
                (format!("{}/{}", container.pod.name, container.name), evidence)
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
    fn sandboxed_pod_has_a_runtime_class_and_containers_that_all_run() {
        let sandboxed = |class: &str, change: fn(&mut pod::Pod), synced: bool, id: char| {
            let mut pod = pod(SERVE, "serve", &[("web", Some('b')), ("log", Some('c'))], "");
            pod.runtime_class = class.into();
            change(&mut pod);
            let mut store = PodStore::new("api", "n");
            store.apply(pod, Duration::ZERO);
            if synced {
                store.end_list(Duration::ZERO);
                store.health.record_success(Duration::ZERO);
            }
            let pods = store.snapshot(Duration::ZERO);
            let resolver = OwnerResolver { pods: Some(&pods), ..OwnerResolver::default() };
            let location = CgroupLocation::Pod(vec![path(SERVE, Some(id))]);
            let unresolved = Owner::Unknown(Unresolved::NoContainer);
            resolver.resolve(&location).0 == unresolved
                && resolver.sandboxed_pod(&location).is_some()
        };
        let init = |running, terminated| Container {
            name: "init".into(),
            kind: ContainerKind::Init { restartable: false },
            resources: std::collections::BTreeMap::new(),
            claims: vec![],
            ids: vec![],
            terminated,
            running,
        };
        assert!(sandboxed("gvisor", |_| (), true, 'f'));
        assert!(!sandboxed("gvisor", |_| (), true, 'c'), "the id of a container");
        assert!(!sandboxed("gvisor", |_| (), false, 'f'), "the pod list is not complete");
        assert!(!sandboxed("gvisor", |pod| pod.containers[1].running = false, true, 'f'));
        for class in ["", "nvidia", "nvidia-cdi", "nvidia-legacy"] {
            assert!(!sandboxed(class, |_| (), true, 'f'), "{class:?}");
        }
        let mut pod = pod(SERVE, "serve", &[("web", Some('b'))], "");
        pod.runtime_class = "gvisor".into();
        for (running, terminated) in [(true, false), (false, false), (false, true)] {
            pod.containers.truncate(1);
            pod.containers.push(init(running, terminated));
            let mut store = PodStore::new("api", "n");
            store.apply(pod.clone(), Duration::ZERO);
            store.end_list(Duration::ZERO);
            store.health.record_success(Duration::ZERO);
            let pods = store.snapshot(Duration::ZERO);
            let resolver = OwnerResolver { pods: Some(&pods), ..OwnerResolver::default() };
            let location = CgroupLocation::Pod(vec![path(SERVE, None)]);
            assert_eq!(resolver.sandboxed_pod(&location).is_some(), terminated, "{running}");
        }
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
        // The outer pod may be listed soon.
        let outer = path("00000000-0000-4000-8000-000000000000", Some('d'));
        let nested = [path(TRAIN, Some('a')), outer.clone()];
        assert_eq!(found(&nested).0, "Unknown(NoPod)");
        // The node itself is a container of the outer pod.
        let (pods, node_pods) = (pods(true), [outer.uid]);
        let resolver =
            OwnerResolver { pods: Some(&pods), node_pods: &node_pods, ..OwnerResolver::default() };
        let owner = resolver.resolve(&CgroupLocation::Pod(nested.to_vec())).0;
        assert_eq!(&*owner.container().unwrap().pod.name, "train");
    }

    #[test]
    fn container_id_of_another_pod_is_a_conflict() {
        assert_eq!(found(&[path(TRAIN, Some('b'))]).0, "Unknown(Conflict)");
    }

    #[test]
    fn status_of_another_pod_does_not_change_the_owner() {
        let mut store = PodStore::new("api", "n");
        store.apply(pod(TRAIN, "train", &[("main", Some('a'))], ""), Duration::ZERO);
        let forged = [("web", Some('a')), ("log", Some('c')), ("init", Some('c'))];
        store.apply(pod(SERVE, "serve", &forged, ""), Duration::ZERO);
        let pods = store.snapshot(Duration::ZERO);
        let resolver = OwnerResolver { pods: Some(&pods), ..OwnerResolver::default() };
        let of = |location| resolver.resolve(&location).0;
        let in_pod = |uid, digit| CgroupLocation::Pod(vec![path(uid, Some(digit))]);
        let owner = of(in_pod(TRAIN, 'a'));
        let container = owner.container().unwrap();
        assert_eq!((&*container.pod.name, &*container.name), ("train", "main"));
        let conflict = Owner::Unknown(Unresolved::Conflict);
        assert_eq!(of(in_pod(SERVE, 'c')), conflict, "two containers of one pod");
        // Of a cgroup that names no pod, it may be either.
        let without_pod =
            |digit| CgroupLocation::Container(ContainerId::parse(id(digit).as_bytes()).unwrap());
        assert_eq!([of(without_pod('a')), of(without_pod('c'))], [conflict.clone(), conflict]);
    }

    #[test]
    fn deleted_pod_differs_from_an_unknown_one() {
        let mut store = PodStore::new("api", "n");
        store.apply(pod(TRAIN, "train", &[("main", Some('a'))], ""), Duration::ZERO);
        store.delete(TRAIN, Duration::ZERO);
        store.end_list(Duration::ZERO);
        let pods = store.snapshot(Duration::ZERO);
        let resolver = OwnerResolver { pods: Some(&pods), ..OwnerResolver::default() };
        let of = |uid| resolver.resolve(&CgroupLocation::Pod(vec![path(uid, Some('a'))])).0;
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
        let mut absent = AbsentPods::default();
        let mut at = |store: &mut PodStore, now: Duration| {
            let pods = store.snapshot(now);
            let locations =
                [TRAIN, SERVE].map(|uid| CgroupLocation::Pod(vec![path(uid, Some('a'))]));
            absent.update(locations.iter(), &pods, now);
            let absent_pods = Some(&absent);
            let resolver =
                OwnerResolver { pods: Some(&pods), absent_pods, now, ..OwnerResolver::default() };
            let [train, serve] = locations.map(|location| resolver.resolve(&location).0);
            (train, serve)
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
            at(&mut store, 60 * second);
            let first = at(&mut store, early);
            assert_eq!(first, (deleted.clone(), unknown.clone()), "{delete}");
            assert_eq!(at(&mut store, late), (Owner::NonPodContainer, unknown.clone()));
            let outlived = (Owner::NonPodContainer, Owner::NonPodContainer);
            assert_eq!(at(&mut store, late + 10 * second), outlived);
            let gone = crate::model::Problem::without_remedy("gone");
            store.health.record_failure(
                crate::kube::source::FailureReason::Connection,
                &gone,
                2 * late,
            );
            let down = at(&mut store, 2 * late);
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
                node_pods: &[],
                absent_pods: None,
                pods,
                logged_pods: logged_pods.as_ref(),
                logged_containers: logged_containers.as_ref(),
                now: Duration::ZERO,
            };
            resolver.resolve(&CgroupLocation::Pod(vec![path(uid, Some('e'))]))
        };
        let (found, evidence) = of(None);
        assert_eq!((found.kind().label(), evidence), ("container", Some(OwnerEvidence::Logs)));
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
            resolver.resolve(&CgroupLocation::Container(id)).0
        };
        assert_eq!(of('a').kind().label(), "container");
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
