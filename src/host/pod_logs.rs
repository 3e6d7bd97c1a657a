//! Names of pods and containers from the log directories of the kubelet (`/var/log/pods` and
//! `/var/log/containers`).
//!
//! The directories exist before the API server has the status of a container, and while the API
//! server is unreachable. Only file names are read, never log contents.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use thiserror::Error;

use crate::model::{ContainerId, PodUid, Problem};
use crate::policy::LOG_ENTRIES_MAX;

/// Why a log directory cannot be used.
#[derive(Debug, Error)]
#[error("{}", self.problem())]
pub enum PodLogsError {
    /// It exists but cannot be listed.
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// The OS error.
        error: io::Error,
    },
    /// It has more entries than any kubelet writes.
    TooManyEntries {
        /// The directory.
        path: PathBuf,
    },
}

impl PodLogsError {
    /// Message and remedy.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Unreadable { path, error } => Problem::new(
                format!("{}: {error}", path.display()),
                "mount it readable, or do not mount it",
            ),
            Self::TooManyEntries { path } => Problem::new(
                format!("{}: more than {LOG_ENTRIES_MAX} entries", path.display()),
                "point --pod-logs and --container-logs at the log directories of the kubelet",
            ),
        }
    }
}

/// A pod from a directory name in `/var/log/pods`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedPod {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Names of its containers (init and ephemeral ones included) that were started so far, sorted.
    pub containers: Vec<Arc<str>>,
}

/// Pods by the UID in their cgroup paths.
pub type LoggedPods = HashMap<PodUid, LoggedPod>;

/// A container from a link name in `/var/log/containers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedContainer {
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's name.
    pub pod: Arc<str>,
    /// The container's name.
    pub name: Arc<str>,
}

/// Containers by id. Long link names contain only a prefix of the id.
#[derive(Debug, Default)]
pub struct LoggedContainers {
    by_id: HashMap<ContainerId, Option<LoggedContainer>>,
    truncated: Vec<(String, LoggedContainer)>,
}

/// Maximum length of a file name; the kubelet truncates its links to it, which cuts the id.
const NAME_MAX: usize = 255;
/// Minimum length of an id prefix, to distinguish it from a part of the container name: the length
/// of the short ids that container runtimes print.
const ID_PREFIX_MIN: usize = 12;

impl LoggedContainers {
    /// The containers of the names of links; other names are skipped.
    #[must_use]
    pub fn from_links<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut containers = Self::default();
        for (id, container) in names.filter_map(container_link) {
            containers.add(id, container);
        }
        containers
    }

    /// The container with this id; `None` if links with different names match.
    #[must_use]
    pub fn find(&self, id: &ContainerId) -> Option<&LoggedContainer> {
        if let Some(found) = self.by_id.get(id) {
            return found.as_ref();
        }
        let mut matching =
            self.truncated.iter().filter(|(prefix, _)| id.as_str().starts_with(prefix));
        let (_, found) = matching.next()?;
        matching.all(|(_, other)| other == found).then_some(found)
    }

    /// The containers with a full id that is not ambiguous, in arbitrary order.
    pub fn iter(&self) -> impl Iterator<Item = (&ContainerId, &LoggedContainer)> {
        self.by_id.iter().filter_map(|(id, container)| Some((id, container.as_ref()?)))
    }

    /// Number of parsed links.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len() + self.truncated.len()
    }

    /// Whether there are no parsed links.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn add(&mut self, id: LinkId, container: LoggedContainer) {
        match id {
            LinkId::Truncated(prefix) => self.truncated.push((prefix, container)),
            LinkId::Full(id) => match self.by_id.entry(id) {
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

/// Pods of a directory like `/var/log/pods`; `None` if it does not exist.
///
/// # Errors
/// Returns an error if the directory exists but cannot be listed or has too many entries.
pub fn read_pods(directory: &Path) -> Result<Option<LoggedPods>, PodLogsError> {
    let Some(names) = entry_names(directory, is_directory)? else { return Ok(None) };
    let mut pods = LoggedPods::new();
    let mut ambiguous = Vec::new();
    let mut entries = names.len();
    for name in names {
        let Some((uid, namespace, pod)) = pod_directory(&name) else { continue };
        // A pod directory that is removed during the read is skipped.
        let Some(inside) = entry_names(&directory.join(&name), is_directory)? else { continue };
        entries += inside.len();
        if entries > LOG_ENTRIES_MAX {
            return Err(PodLogsError::TooManyEntries { path: directory.to_owned() });
        }
        let mut containers: Vec<Arc<str>> =
            inside.iter().filter(|name| is_label(name)).map(|name| name.as_str().into()).collect();
        containers.sort_unstable();
        let pod = LoggedPod { namespace: namespace.into(), name: pod.into(), containers };
        if pods.insert(uid.clone(), pod).is_some() {
            ambiguous.push(uid);
        }
    }
    // Two names with one UID: neither is certain.
    for uid in ambiguous {
        pods.remove(&uid);
    }
    Ok(Some(pods))
}

/// Containers of a directory like `/var/log/containers`; `None` if it does not exist.
///
/// # Errors
/// Returns an error if the directory exists but cannot be listed or has too many entries.
pub fn read_containers(directory: &Path) -> Result<Option<LoggedContainers>, PodLogsError> {
    let Some(names) = entry_names(directory, |_| true)? else { return Ok(None) };
    Ok(Some(LoggedContainers::from_links(names.iter().map(String::as_str))))
}

fn is_directory(entry: &fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// Names of the entries that match `filter`, without names that are not UTF-8.
fn entry_names(
    directory: &Path,
    filter: impl Fn(&fs::DirEntry) -> bool,
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
            return Err(PodLogsError::TooManyEntries { path: directory.to_owned() });
        }
        let entry = entry.map_err(unreadable)?;
        if filter(&entry) {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(Some(names))
}

/// Parses UID, namespace and pod name from `<namespace>_<pod>_<uid>`.
fn pod_directory(name: &str) -> Option<(PodUid, &str, &str)> {
    let mut fields = name.splitn(3, '_');
    let (namespace, pod, uid) = (fields.next()?, fields.next()?, fields.next()?);
    let uid = PodUid::parse(uid.as_bytes()).filter(|parsed| parsed.as_str() == uid)?;
    (is_label(namespace) && is_subdomain(pod)).then_some((uid, namespace, pod))
}

/// The container id in a link name.
#[derive(Debug, PartialEq, Eq)]
enum LinkId {
    Full(ContainerId),
    Truncated(String),
}

/// Parses id and names from `<pod>_<namespace>_<container>-<id>.log`, which the kubelet truncates
/// before `.log` to a total of [`NAME_MAX`] bytes.
fn container_link(name: &str) -> Option<(LinkId, LoggedContainer)> {
    let mut fields = name.strip_suffix(".log")?.splitn(3, '_');
    let (pod, namespace, rest) = (fields.next()?, fields.next()?, fields.next()?);
    let (container, id) = rest.rsplit_once('-')?;
    let names_are_legal = is_subdomain(pod) && is_label(namespace) && is_label(container);
    let id = match ContainerId::parse(id.as_bytes()) {
        Some(id) => LinkId::Full(id),
        None if name.len() == NAME_MAX && is_id_prefix(id) => LinkId::Truncated(id.to_owned()),
        None => return None,
    };
    let container =
        LoggedContainer { namespace: namespace.into(), pod: pod.into(), name: container.into() };
    names_are_legal.then_some((id, container))
}

fn is_id_prefix(id: &str) -> bool {
    let digits = id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (ID_PREFIX_MIN..ContainerId::LEN).contains(&id.len()) && digits
}

/// Whether this is a valid namespace or container name (RFC 1123 label).
fn is_label(text: &str) -> bool {
    text.len() <= 63 && !text.contains('.') && is_subdomain(text)
}

/// Whether this is a valid pod name (RFC 1123 subdomain).
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

    /// A directory that contains empty directories with these names.
    fn directory(names: &[String]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir_all(root.path().join(name)).unwrap();
        }
        root
    }

    /// The link name that the kubelet writes.
    fn link(namespace: &str, pod: &str, container: &str, id: &str) -> String {
        let mut name = format!("{pod}_{namespace}_{container}-{id}");
        name.truncate(NAME_MAX - ".log".len());
        name + ".log"
    }

    #[test]
    fn pod_is_parsed_from_directory_name() {
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
        for invalid in [
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
            assert_eq!(pod_directory(&invalid), None, "{invalid}");
        }
    }

    #[test]
    fn pods_and_containers_are_read() {
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
        assert!(pods[STATIC].containers.is_empty(), "no container has started yet");
    }

    #[test]
    fn pods_with_the_same_uid_are_dropped() {
        let names = [format!("a_x_{POD}"), format!("b_x_{POD}"), format!("c_x_{POD}")];
        assert!(read_pods(directory(&names).path()).unwrap().unwrap().is_empty());
    }

    #[test]
    fn missing_directory_is_none() {
        let root = tempfile::tempdir().unwrap();
        let missing = root.path().join("pods");
        assert!(read_pods(&missing).unwrap().is_none());
        assert!(read_containers(&missing).unwrap().is_none());
        fs::write(&missing, "").unwrap();
        let error = read_pods(&missing).unwrap_err().to_string();
        assert!(error.starts_with(&missing.display().to_string()), "{error}");
        assert!(matches!(read_containers(&missing), Err(PodLogsError::Unreadable { .. })));
    }

    #[test]
    fn directory_with_too_many_entries_is_rejected() {
        let root = directory(&[format!("ml_train-0_{POD}/worker")]);
        let pod = root.path().join(format!("ml_train-0_{POD}"));
        for n in 1..LOG_ENTRIES_MAX {
            fs::write(pod.join(n.to_string()), "").unwrap();
        }
        assert_eq!(read_pods(root.path()).unwrap().unwrap()[POD].containers.len(), 1);
        fs::write(pod.join("one-more"), "").unwrap();
        for result in [read_pods(root.path()).map(drop), read_containers(&pod).map(drop)] {
            let error = result.unwrap_err();
            assert!(matches!(error, PodLogsError::TooManyEntries { .. }), "{error}");
        }
    }

    #[test]
    fn container_is_parsed_from_link_name() {
        let name = link("ml", "train-0", "side-car", &id('a'));
        let found = container_link(&name).unwrap();
        assert_eq!(found, (LinkId::Full(parsed('a')), container("ml", "train-0", "side-car")));
        for invalid in [
            link("ml", "train-0", "worker", &id('a')[1..]),
            link("ml", "train-0", "", &id('a')),
            link("", "train-0", "worker", &id('a')),
            link("ml", "train-0", "worker", &id('g')),
            format!("train-0_ml_worker-{}", id('a')),
            "train-0_ml.log".to_owned(),
        ] {
            assert_eq!(container_link(&invalid), None, "{invalid}");
        }
    }

    #[test]
    fn long_link_name_contains_an_id_prefix() {
        let pod = "p".repeat(200);
        let name = link("ml", &pod, "worker", &id('a'));
        let (found, names) = container_link(&name).unwrap();
        assert_eq!(
            (found, names),
            (LinkId::Truncated("a".repeat(40)), container("ml", &pod, "worker"))
        );
        // The prefix must be long enough to be distinct from a part of the container name.
        let longer_pod = "p".repeat(200 + 40 - ID_PREFIX_MIN);
        let kept = container_link(&link("ml", &longer_pod, "worker", &id('a')));
        assert!(matches!(kept, Some((LinkId::Truncated(_), _))), "{kept:?}");
        assert_eq!(container_link(&link("ml", &(longer_pod + "p"), "worker", &id('a'))), None);
        // A name of exactly the maximum length is not truncated.
        let fits = link("ml", &"p".repeat(176), "worker", &id('a'));
        assert_eq!(fits.len(), NAME_MAX);
        assert!(matches!(container_link(&fits), Some((LinkId::Full(_), _))));
    }

    #[test]
    fn containers_are_found_by_id() {
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
        fn generated_names_round_trip(
            namespace in "[a-z]([a-z0-9-]{0,10}[a-z0-9])?",
            pod in "[a-z]([a-z0-9.-]{0,235}[a-z0-9])?",
            name in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?",
            id in "[0-9a-f]{64}",
        ) {
            let link = link(&namespace, &pod, &name, &id);
            let whole = link.len() < NAME_MAX;
            match container_link(&link) {
                // A name cut within the container name may yield a prefix that matches no id.
                Some((LinkId::Truncated(prefix), found)) if id.starts_with(&prefix) => {
                    prop_assert!(!whole);
                    prop_assert_eq!(found, container(&namespace, &pod, &name));
                }
                Some((LinkId::Full(found), names)) => {
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
        fn any_name_is_parsed_without_panic(name in ".{0,300}") {
            let _ = pod_directory(&name);
            let _ = container_link(&name);
        }
    }
}
