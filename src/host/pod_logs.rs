//! Names of pods and containers from the directories in which the kubelet keeps their logs.
//!
//! They are there before the API server has heard of a container, and while it cannot be reached.
//! Only names are read, never a log.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use thiserror::Error;

use crate::model::{ContainerId, PodUid};
use crate::policy::LOG_ENTRIES_MAX;

/// Why a directory of logs gives no names.
#[derive(Debug, Error)]
pub enum PodLogsError {
    /// It is there and cannot be listed.
    #[error("{path}: {error}; mount it readable, or leave it out")]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// It holds more than a kubelet writes.
    #[error("{path}: more than {LOG_ENTRIES_MAX} entries; is that the kubelet's directory?")]
    TooLong {
        /// The directory.
        path: PathBuf,
    },
}

/// A pod as `/var/log/pods` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedPod {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its containers that have been started so far, of every kind, sorted. Others may follow.
    pub containers: Vec<Arc<str>>,
}

/// Pods by the UID that their cgroups bear.
pub type LoggedPods = HashMap<PodUid, LoggedPod>;

/// A container as a link of `/var/log/containers` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedContainer {
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's name.
    pub pod: Arc<str>,
    /// The container's name.
    pub name: Arc<str>,
}

/// Containers by their ids, of which long names leave the beginning only.
#[derive(Debug, Default)]
pub struct LoggedContainers {
    whole: HashMap<ContainerId, Option<LoggedContainer>>,
    cut: Vec<(String, LoggedContainer)>,
}

/// The longest name of a file; the kubelet cuts its links to it, in the middle of an id.
const NAME_MAX: usize = 255;
/// The beginning of an id has to be this long to be told from a container's name: as many digits
/// as a runtime prints for people.
const ID_PREFIX_MIN: usize = 12;

impl LoggedContainers {
    /// The container with this id, unless two names lay claim to it.
    #[must_use]
    pub fn find(&self, id: &ContainerId) -> Option<&LoggedContainer> {
        if let Some(found) = self.whole.get(id) {
            return found.as_ref();
        }
        let mut matching = self.cut.iter().filter(|(head, _)| id.as_str().starts_with(head));
        let (_, found) = matching.next()?;
        matching.all(|(_, other)| other == found).then_some(found)
    }

    /// How many links were understood.
    #[must_use]
    pub fn len(&self) -> usize {
        self.whole.len() + self.cut.len()
    }

    /// Whether no link was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn add(&mut self, id: LinkId, container: LoggedContainer) {
        match id {
            LinkId::Cut(head) => self.cut.push((head, container)),
            LinkId::Whole(id) => match self.whole.entry(id) {
                Entry::Vacant(entry) => {
                    entry.insert(Some(container));
                }
                Entry::Occupied(mut entry) => {
                    if entry.get().as_ref() != Some(&container) {
                        entry.insert(None);
                    }
                }
            },
        }
    }
}

/// What a directory like `/var/log/pods` names; nothing where there is no such directory.
///
/// # Errors
/// It is there, and cannot be listed or is too long to be true.
pub fn read_pods(directory: &Path) -> Result<Option<LoggedPods>, PodLogsError> {
    let Some(names) = list(directory, is_directory)? else { return Ok(None) };
    let mut pods = LoggedPods::new();
    let mut ambiguous = Vec::new();
    let mut entries = names.len();
    for name in names {
        let Some((uid, namespace, pod)) = pod_directory(&name) else { continue };
        // A pod that is removed right now has no containers to speak of.
        let Some(inside) = list(&directory.join(&name), is_directory)? else { continue };
        entries += inside.len();
        if entries > LOG_ENTRIES_MAX {
            return Err(PodLogsError::TooLong { path: directory.to_owned() });
        }
        let mut containers: Vec<Arc<str>> =
            inside.iter().filter(|name| is_label(name)).map(|name| name.as_str().into()).collect();
        containers.sort_unstable();
        let pod = LoggedPod { namespace: namespace.into(), name: pod.into(), containers };
        if pods.insert(uid.clone(), pod).is_some() {
            ambiguous.push(uid);
        }
    }
    // Two names with one UID: neither is the pod's for sure.
    for uid in ambiguous {
        pods.remove(&uid);
    }
    Ok(Some(pods))
}

/// What a directory like `/var/log/containers` names; nothing where there is no such directory.
///
/// # Errors
/// It is there, and cannot be listed or is too long to be true.
pub fn read_containers(directory: &Path) -> Result<Option<LoggedContainers>, PodLogsError> {
    let Some(names) = list(directory, |_| true)? else { return Ok(None) };
    let mut containers = LoggedContainers::default();
    for name in names {
        if let Some((id, container)) = container_link(&name) {
            containers.add(id, container);
        }
    }
    Ok(Some(containers))
}

fn is_directory(entry: &fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// The names of the wanted entries of a directory, without those that are no text.
fn list(
    directory: &Path,
    wanted: impl Fn(&fs::DirEntry) -> bool,
) -> Result<Option<Vec<String>>, PodLogsError> {
    let unreadable = |error| PodLogsError::Unreadable { path: directory.to_owned(), error };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut names = Vec::new();
    for (count, entry) in entries.enumerate() {
        if count >= LOG_ENTRIES_MAX {
            return Err(PodLogsError::TooLong { path: directory.to_owned() });
        }
        let entry = entry.map_err(unreadable)?;
        if wanted(&entry) {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(Some(names))
}

/// The UID, the namespace and the pod's name in `<namespace>_<pod>_<uid>`.
fn pod_directory(name: &str) -> Option<(PodUid, &str, &str)> {
    let mut fields = name.splitn(3, '_');
    let (namespace, pod, uid) = (fields.next()?, fields.next()?, fields.next()?);
    let uid = PodUid::parse(uid.as_bytes()).filter(|parsed| parsed.as_str() == uid)?;
    (is_label(namespace) && is_subdomain(pod)).then_some((uid, namespace, pod))
}

/// What a link's name leaves of an id.
#[derive(Debug, PartialEq, Eq)]
enum LinkId {
    Whole(ContainerId),
    Cut(String),
}

/// The id and the names in `<pod>_<namespace>_<container>-<id>.log`, cut before `.log` to
/// [`NAME_MAX`].
fn container_link(name: &str) -> Option<(LinkId, LoggedContainer)> {
    let mut fields = name.strip_suffix(".log")?.splitn(3, '_');
    let (pod, namespace, rest) = (fields.next()?, fields.next()?, fields.next()?);
    let (container, id) = rest.rsplit_once('-')?;
    let names_are_legal = is_subdomain(pod) && is_label(namespace) && is_label(container);
    let id = match ContainerId::parse(id.as_bytes()) {
        Some(id) => LinkId::Whole(id),
        None if name.len() == NAME_MAX && is_head(id) => LinkId::Cut(id.to_owned()),
        None => return None,
    };
    let container =
        LoggedContainer { namespace: namespace.into(), pod: pod.into(), name: container.into() };
    names_are_legal.then_some((id, container))
}

fn is_head(id: &str) -> bool {
    let digits = id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (ID_PREFIX_MIN..ContainerId::LEN).contains(&id.len()) && digits
}

/// The name of a namespace or a container (RFC 1123 label).
fn is_label(text: &str) -> bool {
    text.len() <= 63 && !text.contains('.') && is_subdomain(text)
}

/// The name of a pod (RFC 1123 subdomain).
fn is_subdomain(text: &str) -> bool {
    let letter = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'-' | b'.');
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(letter)
        && !text.starts_with(['.', '-'])
        && !text.ends_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POD: &str = "3f6a1c58-90de-4b27-a1f4-0c9d5e7b2a63";
    const STATIC: &str = "9c1185a5c5e9fc54612808977ee8f548";

    fn id(digit: char) -> String {
        digit.to_string().repeat(ContainerId::LEN)
    }

    fn parsed(digit: char) -> ContainerId {
        ContainerId::parse(id(digit).as_bytes()).unwrap()
    }

    fn container(namespace: &str, pod: &str, name: &str) -> LoggedContainer {
        LoggedContainer { namespace: namespace.into(), pod: pod.into(), name: name.into() }
    }

    /// A directory of empty directories with these names.
    fn directory(names: &[String]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir_all(root.path().join(name)).unwrap();
        }
        root
    }

    /// As the kubelet names a link.
    fn link(namespace: &str, pod: &str, container: &str, id: &str) -> String {
        let mut name = format!("{pod}_{namespace}_{container}-{id}");
        name.truncate(NAME_MAX - ".log".len());
        name + ".log"
    }

    #[test]
    fn a_directory_names_a_pod() {
        for (name, namespace, pod, uid) in [
            (format!("ml_train-0_{POD}"), "ml", "train-0", POD),
            (
                format!("kube-system_proxy-node.a.example_{STATIC}"),
                "kube-system",
                "proxy-node.a.example",
                STATIC,
            ),
        ] {
            let found = pod_directory(&name).unwrap();
            assert_eq!((found.0.as_str(), found.1, found.2), (uid, namespace, pod));
        }
        for wrong in [
            POD.to_owned(),
            format!("ml_{POD}"),
            format!("ml__{POD}"),
            format!("ML_train_{POD}"),
            format!("ml_train_0_{POD}"),
            format!("ml_train_{}", POD.replace('-', "_")),
            format!("../x_train_{POD}"),
            format!("ml_-train_{POD}"),
            format!("{}_train_{POD}", "a".repeat(64)),
            "ml_train_uid".to_owned(),
        ] {
            assert_eq!(pod_directory(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn pods_and_their_containers_are_read() {
        let root = directory(&[
            format!("ml_train-0_{POD}/worker"),
            format!("ml_train-0_{POD}/init"),
            format!("ml_train-0_{POD}/No.Container"),
            format!("kube-system_proxy_{STATIC}"),
            "lost+found".to_owned(),
        ]);
        fs::write(root.path().join(format!("a_file_{POD}")), "").unwrap();
        fs::write(root.path().join(format!("ml_train-0_{POD}/file")), "").unwrap();
        let pods = read_pods(root.path()).unwrap().unwrap();
        assert_eq!(pods.len(), 2);
        let train = &pods[POD];
        assert_eq!((&*train.namespace, &*train.name), ("ml", "train-0"));
        assert_eq!(train.containers, ["init".into(), "worker".into()]);
        assert!(pods[STATIC].containers.is_empty(), "its first container is yet to start");
    }

    #[test]
    fn two_pods_with_one_uid_are_neither() {
        let names = [format!("a_x_{POD}"), format!("b_x_{POD}"), format!("c_x_{POD}")];
        assert!(read_pods(directory(&names).path()).unwrap().unwrap().is_empty());
    }

    #[test]
    fn no_directory_is_no_source_and_no_error() {
        let root = tempfile::tempdir().unwrap();
        let nowhere = root.path().join("pods");
        assert!(read_pods(&nowhere).unwrap().is_none());
        assert!(read_containers(&nowhere).unwrap().is_none());
        fs::write(&nowhere, "").unwrap();
        let error = read_pods(&nowhere).unwrap_err().to_string();
        assert!(error.starts_with(&nowhere.display().to_string()), "{error}");
        assert!(matches!(read_containers(&nowhere), Err(PodLogsError::Unreadable { .. })));
    }

    #[test]
    fn a_directory_without_end_is_refused() {
        let root = directory(&[format!("ml_train-0_{POD}/worker")]);
        let pod = root.path().join(format!("ml_train-0_{POD}"));
        for n in 1..LOG_ENTRIES_MAX {
            fs::write(pod.join(n.to_string()), "").unwrap();
        }
        assert_eq!(read_pods(root.path()).unwrap().unwrap()[POD].containers.len(), 1);
        fs::write(pod.join("one-more"), "").unwrap();
        for result in [read_pods(root.path()).map(drop), read_containers(&pod).map(drop)] {
            let error = result.unwrap_err();
            assert!(matches!(error, PodLogsError::TooLong { .. }), "{error}");
        }
    }

    #[test]
    fn a_link_names_a_container() {
        let name = link("ml", "train-0", "side-car", &id('a'));
        let found = container_link(&name).unwrap();
        assert_eq!(found, (LinkId::Whole(parsed('a')), container("ml", "train-0", "side-car")));
        for wrong in [
            link("ml", "train-0", "worker", &id('a')[1..]),
            link("ml", "train-0", "", &id('a')),
            link("", "train-0", "worker", &id('a')),
            link("ml", "train-0", "worker", &id('g')),
            format!("train-0_ml_worker-{}", id('a')),
            "train-0_ml.log".to_owned(),
        ] {
            assert_eq!(container_link(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_long_name_leaves_the_beginning_of_an_id() {
        let pod = "p".repeat(200);
        let name = link("ml", &pod, "worker", &id('a'));
        let (found, names) = container_link(&name).unwrap();
        assert_eq!((found, names), (LinkId::Cut("a".repeat(40)), container("ml", &pod, "worker")));
        // So much of it has to be left that it is no part of the container's name.
        let longer = "p".repeat(200 + 40 - ID_PREFIX_MIN);
        let kept = container_link(&link("ml", &longer, "worker", &id('a')));
        assert!(matches!(kept, Some((LinkId::Cut(_), _))), "{kept:?}");
        assert_eq!(container_link(&link("ml", &(longer + "p"), "worker", &id('a'))), None);
        // A name that just fits is whole.
        let fits = link("ml", &"p".repeat(176), "worker", &id('a'));
        assert_eq!(fits.len(), NAME_MAX);
        assert!(matches!(container_link(&fits), Some((LinkId::Whole(_), _))));
    }

    #[test]
    fn containers_are_found_by_their_ids() {
        let pod = "p".repeat(200);
        let root = directory(&[
            link("ml", "train-0", "worker", &id('a')),
            link("ml", &pod, "worker", &id('b')),
            link("ml", &pod, "first", &id('c')),
            link("ml", &pod, "other", &id('c')),
            link("ml", "x", "first", &id('d')),
            link("ml", "x", "other", &id('d')),
            "README".to_owned(),
        ]);
        let containers = read_containers(root.path()).unwrap().unwrap();
        let find = |digit| containers.find(&parsed(digit)).cloned();
        assert_eq!(find('a'), Some(container("ml", "train-0", "worker")));
        assert_eq!(find('b'), Some(container("ml", &pod, "worker")));
        assert_eq!((find('c'), find('d')), (None, None), "two names for one id");
        assert_eq!(find('e'), None);
        assert!(!containers.is_empty());
    }

    proptest! {
        #[test]
        fn names_are_taken_apart_without_loss(
            namespace in "[a-z]([a-z0-9-]{0,10}[a-z0-9])?",
            pod in "[a-z]([a-z0-9.-]{0,235}[a-z0-9])?",
            name in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?",
            id in "[0-9a-f]{64}",
        ) {
            let link = link(&namespace, &pod, &name, &id);
            let whole = link.len() < NAME_MAX;
            match container_link(&link) {
                // A cut name may end in the middle of the container's, which is no match for any id.
                Some((LinkId::Cut(head), found)) if id.starts_with(&head) => {
                    prop_assert!(!whole);
                    prop_assert_eq!(found, container(&namespace, &pod, &name));
                }
                Some((LinkId::Whole(found), names)) => {
                    prop_assert_eq!(found.as_str(), id);
                    prop_assert_eq!(names, container(&namespace, &pod, &name));
                }
                _ => prop_assert!(!whole),
            }
            let directory = format!("{namespace}_{pod}_{POD}");
            let uid = PodUid::parse(POD.as_bytes()).unwrap();
            prop_assert_eq!(pod_directory(&directory), Some((uid, &*namespace, &*pod)));
        }

        #[test]
        fn no_name_is_too_strange(name in ".{0,300}") {
            let _ = pod_directory(&name);
            let _ = container_link(&name);
        }
    }
}
