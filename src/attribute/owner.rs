//! Whose process it is: from where a process runs to the pod and the container it belongs to.

use std::sync::Arc;
use std::time::Duration;

use crate::host::pod_logs::{LoggedContainers, LoggedPods};
use crate::kube::pods::{ByUid, Known, Pods};
use crate::kube::source::State;
use crate::model::{ContainerId, Discard, Placement, PodPath, PodRef};
use crate::policy::POD_OUTLIVED_MAX;
use crate::snapshot::occupancy::{ContainerRef, Whose};

/// Whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A container of a pod of this node.
    Container(Holder),
    /// No container.
    Host,
    /// A container that belongs to no pod.
    Stray,
    /// That is not known, or not yet.
    Unknown(Unresolved),
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    /// The pod.
    pub pod: PodRef,
    /// The container's name.
    pub container: Arc<str>,
}

impl Holder {
    /// Whether both are the same container. A kubelet names pods without their UIDs: where nobody
    /// else knows the pods, names have to do.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.container == other.container && self.is_in_pod_of(other)
    }

    /// Whether both are of the same pod, likewise.
    #[must_use]
    pub fn is_in_pod_of(&self, other: &Self) -> bool {
        let (one, two) = (&self.pod, &other.pod);
        let uids_differ = one.uid != two.uid && !one.uid.is_empty() && !two.uid.is_empty();
        !uids_differ && one.namespace == two.namespace && one.name == two.name
    }

    /// Namespace, pod and container.
    #[must_use]
    pub fn names(&self) -> (&str, &str, &str) {
        (&self.pod.namespace, &self.pod.name, &self.container)
    }
}

/// Why it is not known whose a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unresolved {
    /// Its cgroup lines name different pods.
    Conflict,
    /// Nobody knows the pod (yet).
    NoPod,
    /// The pod has ended or been deleted, not long ago; its processes are about to end.
    Deleted,
    /// Two pods lay claim to the UID.
    Ambiguous,
    /// The pod is known, and which of its containers it is is not (yet).
    NoContainer,
    /// Its `/proc` entry may not be read.
    Denied,
    /// Its `/proc` entry cannot be read or parsed.
    Unreadable,
    /// The driver lists it and `/proc` does not know it, or knows it as dead.
    Exited,
    /// The driver lists something that cannot be a process.
    Invalid,
    /// Whether its container was given the device is not known (yet).
    Allocation,
}

impl Owner {
    /// What it is, as a fixed label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Container(_) => "container",
            Self::Host => "host",
            Self::Stray => "stray",
            Self::Unknown(_) => "unknown",
        }
    }
}

impl From<&Holder> for ContainerRef {
    fn from(holder: &Holder) -> Self {
        Self { pod: holder.pod.clone(), name: Arc::clone(&holder.container) }
    }
}

impl From<&Owner> for Whose {
    fn from(owner: &Owner) -> Self {
        match owner {
            Owner::Container(holder) => Self::Container(holder.into()),
            Owner::Host => Self::Host,
            Owner::Stray => Self::Stray,
            Owner::Unknown(why) => Self::Unknown(why.reason()),
        }
    }
}

impl Unresolved {
    /// Every reason.
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

    /// The fixed label.
    #[must_use]
    pub fn reason(self) -> &'static str {
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

/// How an owner was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// The cgroup alone: the host, or a container of no pod.
    Cgroup,
    /// The pod's status names the container's id.
    Status,
    /// No other container of the pod can be meant.
    Inferred,
    /// The names of the kubelet's logs.
    Logs,
}

impl Evidence {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Cgroup, Self::Status, Self::Inferred, Self::Logs];

    /// The fixed label.
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

/// Who lives on this node, as far as anybody tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct Directory<'a> {
    /// What the API server (or the kubelet) says, if it is asked.
    pub pods: Option<&'a Pods>,
    /// Pods by the names of their logs.
    pub logged_pods: Option<&'a LoggedPods>,
    /// Containers by the names of their logs.
    pub logged_containers: Option<&'a LoggedContainers>,
    /// The present (monotonic).
    pub now: Duration,
}

impl Directory<'_> {
    /// The owner of a process that runs at `placement` and was first seen at `seen` (monotonic), and
    /// how that is known. A process that has outlived its pod for long is of no pod.
    #[must_use]
    pub fn owner(&self, placement: &Placement, seen: Duration) -> (Owner, Option<Evidence>) {
        let found = match placement {
            Placement::Host => return (Owner::Host, Some(Evidence::Cgroup)),
            Placement::Conflict => Err(Unresolved::Conflict),
            Placement::Container(id) => return self.of_container(id),
            Placement::Pod(paths) => match self.of_pod(paths, seen) {
                Err(NotOwned::Outlived) => return (Owner::Stray, Some(Evidence::Cgroup)),
                Err(NotOwned::Unresolved(why)) => Err(why),
                Ok(found) => Ok(found),
            },
        };
        match found {
            Ok((holder, evidence)) => (Owner::Container(holder), Some(evidence)),
            Err(unresolved) => (Owner::Unknown(unresolved), None),
        }
    }

    /// A container of which the cgroup tells no pod: it is a pod's if somebody knows its id.
    fn of_container(&self, id: &ContainerId) -> (Owner, Option<Evidence>) {
        if let Some((known, container)) = self.pods.and_then(|pods| pods.by_container(id.as_str()))
        {
            return (Owner::Container(holder(known, container)), Some(Evidence::Status));
        }
        (Owner::Stray, Some(Evidence::Cgroup))
    }

    /// The outermost pod that is known: a workload can make cgroups below its own and call them what
    /// it likes, but none around it.
    fn of_pod(&self, paths: &[PodPath], seen: Duration) -> Result<(Holder, Evidence), NotOwned> {
        let mut ended = None;
        for path in paths.iter().rev() {
            let uid = path.uid.as_str();
            match self.pods.map_or(ByUid::Unknown, |pods| pods.by_uid(uid)) {
                ByUid::Live(known) if known.ended.is_none() => {
                    return Ok(self.of_known(known, path.container.as_ref())?);
                }
                ByUid::Ambiguous => return Err(Unresolved::Ambiguous.into()),
                ByUid::Live(_) | ByUid::Deleted(_) => {
                    ended = ended.max(self.pods.and_then(|pods| pods.ended(uid)));
                }
                ByUid::Unknown => {}
            }
        }
        let outlives = |since| self.now.saturating_sub(since) >= POD_OUTLIVED_MAX;
        match ended {
            Some(ended) if outlives(ended) => Err(NotOwned::Outlived),
            Some(_) => Err(Unresolved::Deleted.into()),
            None => match self.of_logs(paths) {
                Err(Unresolved::NoPod) if self.knows_all_pods() && outlives(seen) => {
                    Err(NotOwned::Outlived)
                }
                found => Ok(found?),
            },
        }
    }

    /// Whether a pod that is not known does not exist.
    fn knows_all_pods(&self) -> bool {
        self.pods.is_some_and(|pods| pods.synced && pods.health.state == State::Up)
    }

    fn of_known(
        &self,
        known: &Known,
        id: Option<&ContainerId>,
    ) -> Result<(Holder, Evidence), Unresolved> {
        let named = id.and_then(|id| self.pods?.by_container(id.as_str()));
        if let Some((of, container)) = named {
            // One pod's cgroup around another one's container: somebody is lying.
            let same = of.pod.id.uid == known.pod.id.uid;
            let found = (holder(known, container), Evidence::Status);
            return if same { Ok(found) } else { Err(Unresolved::Conflict) };
        }
        let logged = id.and_then(|id| self.logged_containers?.find(id));
        let ours = logged.filter(|logged| {
            logged.namespace == known.pod.id.namespace && logged.pod == known.pod.id.name
        });
        if let Some(logged) = ours {
            return Ok((holder(known, &logged.name), Evidence::Logs));
        }
        let container = only_container(known).ok_or(Unresolved::NoContainer)?;
        Ok((holder(known, container), Evidence::Inferred))
    }

    /// While nobody who should know speaks, names of logs stand in.
    fn of_logs(&self, paths: &[PodPath]) -> Result<(Holder, Evidence), Unresolved> {
        if self.knows_all_pods() {
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
        Ok((Holder { pod, container: Arc::clone(&container.name) }, Evidence::Logs))
    }
}

/// Why no pod owns a process.
enum NotOwned {
    Unresolved(Unresolved),
    /// Its pod ended so long ago that it is of no pod.
    Outlived,
}

impl From<Unresolved> for NotOwned {
    fn from(why: Unresolved) -> Self {
        Self::Unresolved(why)
    }
}

fn holder(known: &Known, container: &Arc<str>) -> Holder {
    Holder { pod: known.pod.id.clone(), container: Arc::clone(container) }
}

/// The pod's only container of any kind. Where there are more, an id that nobody knows may be any
/// one's next run, whatever the status says of the runs before.
fn only_container(known: &Known) -> Option<&Arc<str>> {
    match known.pod.containers.as_slice() {
        [only] => Some(&only.name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::pod;
    use crate::kube::pods::PodMap;
    use crate::model::PodUid;
    use proptest::prelude::*;

    const TRAIN: &str = "3f6a1c58-90de-4b27-a1f4-0c9d5e7b2a63";
    const SERVE: &str = "b81d9f40-1111-4c2a-8d3e-0a0b0c0d0e0f";
    const MIRROR: &str = "77777777-2222-4c2a-8d3e-0a0b0c0d0e0f";
    const HASH: &str = "9c1185a5c5e9fc54612808977ee8f548";

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    /// A pod with containers and, where known, their ids.
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

    fn pods(synced: bool) -> Pods {
        let mut map = PodMap::new("api", "n");
        let hash = format!(
            r#","annotations":{{"kubernetes.io/config.hash":"{HASH}",
                "kubernetes.io/config.mirror":"{HASH}"}}"#
        );
        map.apply(pod(TRAIN, "train", &[("main", Some('a'))], ""), Duration::ZERO);
        map.apply(pod(SERVE, "serve", &[("web", Some('b')), ("log", None)], ""), Duration::ZERO);
        map.apply(pod(MIRROR, "static", &[("main", None)], &hash), Duration::ZERO);
        if synced {
            map.complete(Duration::ZERO);
            map.health.answered(Duration::ZERO);
        }
        map.picture(Duration::ZERO)
    }

    fn path(uid: &str, digit: Option<char>) -> PodPath {
        let container = digit.map(|digit| ContainerId::parse(id(digit).as_bytes()).unwrap());
        PodPath { uid: PodUid::parse(uid.as_bytes()).unwrap(), container }
    }

    fn owner(paths: &[PodPath]) -> (Owner, Option<Evidence>) {
        let pods = pods(true);
        let directory = Directory { pods: Some(&pods), ..Directory::default() };
        directory.owner(&Placement::Pod(paths.to_vec()), Duration::ZERO)
    }

    fn found(paths: &[PodPath]) -> (String, Option<Evidence>) {
        match owner(paths) {
            (Owner::Container(holder), evidence) => {
                (format!("{}/{}", holder.pod.name, holder.container), evidence)
            }
            (other, evidence) => (format!("{other:?}"), evidence),
        }
    }

    #[test]
    fn a_container_is_found_by_its_id() {
        let (name, evidence) = found(&[path(SERVE, Some('b'))]);
        assert_eq!((&*name, evidence), ("serve/web", Some(Evidence::Status)));
    }

    #[test]
    fn the_only_container_is_meant_before_its_status_is_there() {
        let (name, evidence) = found(&[path(TRAIN, Some('f'))]);
        assert_eq!((&*name, evidence), ("train/main", Some(Evidence::Inferred)));
        assert_eq!(found(&[path(TRAIN, None)]).0, "train/main");
    }

    #[test]
    fn one_of_several_containers_is_not_guessed() {
        let waits = "Unknown(NoContainer)";
        assert_eq!(found(&[path(SERVE, Some('f'))]).0, waits, "it may be either one's next run");
        assert_eq!(found(&[path(SERVE, None)]).0, waits);
    }

    #[test]
    fn a_static_pod_is_found_by_its_hash() {
        assert_eq!(found(&[path(HASH, Some('c'))]).0, "static/main");
    }

    #[test]
    fn a_cgroup_that_a_workload_made_does_not_make_it_somebody_else() {
        // Below its own cgroup a privileged container can call one after another pod.
        let forged = [path(TRAIN, Some('a')), path(SERVE, Some('b'))];
        assert_eq!(found(&forged).0, "serve/web");
        // A node that is a container itself: only the inner pod is of this node.
        let outer = path("00000000-0000-4000-8000-000000000000", Some('d'));
        assert_eq!(found(&[path(TRAIN, Some('a')), outer]).0, "train/main");
    }

    #[test]
    fn an_id_of_another_pod_is_a_conflict() {
        assert_eq!(found(&[path(TRAIN, Some('b'))]).0, "Unknown(Conflict)");
    }

    #[test]
    fn a_deleted_pod_is_told_from_an_unknown_one() {
        let mut map = PodMap::new("api", "n");
        map.apply(pod(TRAIN, "train", &[("main", Some('a'))], ""), Duration::ZERO);
        map.delete(TRAIN, Duration::ZERO);
        map.complete(Duration::ZERO);
        let pods = map.picture(Duration::ZERO);
        let directory = Directory { pods: Some(&pods), ..Directory::default() };
        let of =
            |uid| directory.owner(&Placement::Pod(vec![path(uid, Some('a'))]), Duration::ZERO).0;
        assert_eq!(of(TRAIN), Owner::Unknown(Unresolved::Deleted));
        assert_eq!(of(SERVE), Owner::Unknown(Unresolved::NoPod));
    }

    #[test]
    fn a_process_that_outlives_its_pod_for_long_is_of_no_pod() {
        let ended = |phase: &str| {
            let mut pod = pod(TRAIN, "train", &[("main", Some('a'))], "");
            pod.terminal = phase != "Running";
            pod
        };
        let at = |map: &mut PodMap, now: Duration, seen: Duration| {
            let pods = map.picture(now);
            let directory = Directory { pods: Some(&pods), now, ..Directory::default() };
            let placed = |uid| Placement::Pod(vec![path(uid, Some('a'))]);
            let of = |uid| directory.owner(&placed(uid), seen).0;
            (of(TRAIN), of(SERVE))
        };
        let (deleted, unknown) =
            (Owner::Unknown(Unresolved::Deleted), Owner::Unknown(Unresolved::NoPod));
        let second = Duration::from_secs(1);
        for delete in [false, true] {
            let mut map = PodMap::new("api", "n");
            map.complete(Duration::ZERO);
            map.health.answered(Duration::ZERO);
            map.apply(ended("Running"), Duration::ZERO);
            map.apply(ended("Failed"), 50 * second);
            if delete {
                map.delete(TRAIN, 60 * second);
            }
            let (early, late) = (49 * second + POD_OUTLIVED_MAX, 50 * second + POD_OUTLIVED_MAX);
            let first = at(&mut map, early, 60 * second);
            assert_eq!(first, (deleted.clone(), unknown.clone()), "{delete}");
            assert_eq!(at(&mut map, late, 60 * second), (Owner::Stray, unknown.clone()));
            assert_eq!(at(&mut map, late + 10 * second, 60 * second).1, Owner::Stray);
            map.health.failed(crate::kube::source::Failure::Connection, "gone");
            let down = at(&mut map, 2 * late, 60 * second);
            assert_eq!(down.1, unknown, "a source that is down does not know all pods");
        }
    }

    #[test]
    fn logs_stand_in_only_while_nobody_else_speaks() {
        let tree = tempfile::tempdir().unwrap();
        let (logs, links) = (tree.path().join("pods"), tree.path().join("containers"));
        let uid = "12121212-2222-4c2a-8d3e-0a0b0c0d0e0f";
        std::fs::create_dir_all(logs.join(format!("team_late_{uid}/main"))).unwrap();
        std::fs::create_dir_all(&links).unwrap();
        let link = links.join(format!("late_team_main-{}.log", id('e')));
        std::os::unix::fs::symlink("/nowhere", link).unwrap();
        let logged_pods = crate::host::pod_logs::read_pods(&logs).unwrap();
        let logged_containers = crate::host::pod_logs::read_containers(&links).unwrap();
        let of = |pods: Option<&Pods>| {
            let directory = Directory {
                pods,
                logged_pods: logged_pods.as_ref(),
                logged_containers: logged_containers.as_ref(),
                now: Duration::ZERO,
            };
            directory.owner(&Placement::Pod(vec![path(uid, Some('e'))]), Duration::ZERO)
        };
        let (found, evidence) = of(None);
        assert_eq!((found.label(), evidence), ("container", Some(Evidence::Logs)));
        assert_eq!(of(Some(&pods(false))).1, Some(Evidence::Logs), "the API has not spoken yet");
        let silent = Owner::Unknown(Unresolved::NoPod);
        assert_eq!(of(Some(&pods(true))).0, silent, "the API knows all pods, and not this one");
    }

    #[test]
    fn a_plain_container_is_nobodys_unless_a_pod_knows_it() {
        let pods = pods(true);
        let directory = Directory { pods: Some(&pods), ..Directory::default() };
        let of = |digit| {
            let id = ContainerId::parse(id(digit).as_bytes()).unwrap();
            directory.owner(&Placement::Container(id), Duration::ZERO).0
        };
        assert_eq!(of('a').label(), "container");
        assert_eq!(of('f'), Owner::Stray);
    }

    #[test]
    fn every_reason_is_its_own() {
        let reasons: std::collections::BTreeSet<_> =
            Unresolved::ALL.iter().map(|unresolved| unresolved.reason()).collect();
        assert_eq!(reasons.len(), Unresolved::ALL.len());
    }

    proptest! {
        #[test]
        fn nobody_is_attributed_to_a_pod_that_is_not_of_this_node(
            paths in prop::collection::vec((0_usize..5, prop::option::of(0_usize..6)), 1..4)
        ) {
            let uids = [TRAIN, SERVE, HASH, "00000000-0000-4000-8000-000000000000", MIRROR];
            let digits = ['a', 'b', 'c', 'd', 'e', 'f'];
            let paths: Vec<PodPath> =
                paths.iter().map(|(uid, id)| path(uids[*uid], id.map(|id| digits[id]))).collect();
            if let (Owner::Container(holder), _) = owner(&paths) {
                prop_assert!(["train", "serve", "static"].contains(&&*holder.pod.name));
                prop_assert_eq!(&*holder.pod.namespace, "team");
            }
        }
    }
}
