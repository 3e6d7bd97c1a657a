//! The log directories of a node. The exporter reads pod names from the file names; the files are empty.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{
    cluster_servers::error::{Error, file_error},
    scenario::{cluster::Cluster, recorded::LoggedContainer},
};

/// Directory in place of `/var/log/pods`.
const POD_LOGS: &str = "pods-log";
/// Directory in place of `/var/log/containers`.
const CONTAINER_LOGS: &str = "containers-log";
/// Longest file name in bytes, without `.log`.
const MAX_NAME: usize = 251;

/// The expected files at `time`: path below the pod log directory, and name of the link to it in the
/// container log directory.
fn expected_files(cluster: &Cluster, time: f64) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for pod in cluster.pods.iter().filter(|pod| pod.lifetime.contains(time)) {
        let directory = format!("{}_{}_{}", pod.namespace, pod.name, pod.kubelet_uid());
        for container in &pod.containers {
            let started = container.runs.iter().enumerate();
            let Some((at, run)) = started.rev().find(|(_, run)| run.during.from <= time) else {
                continue;
            };
            let file = Path::new(&directory).join(&container.name).join(format!("{at}.log"));
            let link = format!("{}_{}_{}-{}", pod.name, pod.namespace, container.name, run.id);
            let end = (0..=link.len().min(MAX_NAME)).rev().find(|&end| link.is_char_boundary(end));
            let link = link.get(..end.unwrap_or_default()).unwrap_or_default();
            files.insert(file, format!("{link}.log"));
        }
    }
    files.extend(cluster.recorded.logs.iter().enumerate().map(|(at, one)| recorded_file(at, one)));
    files
}

/// The file of a recorded container. Names that are not those of the kubelet stand for what is not there.
fn recorded_file(at: usize, logged: &LoggedContainer) -> (PathBuf, String) {
    let LoggedContainer { namespace, pod, container, uid, id } = logged;
    let directory = match uid {
        Some(uid) => format!("{namespace}_{pod}_{uid}"),
        None => "other".to_owned(),
    };
    let file = Path::new(&directory).join(container).join(format!("{at}.log"));
    let link = match id {
        Some(id) => format!("{pod}_{namespace}_{container}-{id}.log"),
        None => format!("other-{at}.log"),
    };
    (file, link)
}

/// The two log directories of a mock environment, and the files written to them.
#[derive(Debug)]
pub(super) struct LogDirectories {
    home: PathBuf,
    /// `None`: unknown, so the directories are cleared first.
    written: Option<BTreeMap<PathBuf, String>>,
}

impl LogDirectories {
    /// `home` is the directory of the mock environment.
    pub(super) fn new(home: PathBuf) -> Self {
        Self { home, written: None }
    }

    /// Updates the directories to the containers that exist at `time`; removes them if there is no
    /// cluster.
    ///
    /// # Errors
    /// A file or directory cannot be written or removed.
    pub(super) fn sync(&mut self, cluster: Option<&Cluster>, time: f64) -> Result<(), Error> {
        let Some(cluster) = cluster else {
            self.written = None;
            return remove_directories(&self.home);
        };
        let expected = expected_files(cluster, time);
        if self.written.as_ref() == Some(&expected) {
            return Ok(());
        }
        if self.written.is_none() {
            remove_directories(&self.home)?;
        }
        let (pods, containers) = (self.home.join(POD_LOGS), self.home.join(CONTAINER_LOGS));
        fs::create_dir_all(&pods).map_err(file_error(&pods))?;
        fs::create_dir_all(&containers).map_err(file_error(&containers))?;
        let written = self.written.take().unwrap_or_default();
        for (file, link) in written.iter().filter(|(file, link)| expected.get(*file) != Some(link))
        {
            remove_file(&containers.join(link))?;
            remove_file(&pods.join(file))?;
            // A directory is removed with its last log file.
            for directory in file.ancestors().skip(1).take(2) {
                let _ = fs::remove_dir(pods.join(directory));
            }
        }
        for (file, link) in expected.iter().filter(|(file, link)| written.get(*file) != Some(link))
        {
            let path = pods.join(file);
            path.parent().map_or(Ok(()), fs::create_dir_all).map_err(file_error(&path))?;
            fs::write(&path, "").map_err(file_error(&path))?;
            let (target, link) = (Path::new("..").join(POD_LOGS).join(file), containers.join(link));
            remove_file(&link)?;
            symlink(target, &link).map_err(file_error(&link))?;
        }
        self.written = Some(expected);
        Ok(())
    }
}

/// Removes both directories.
pub(super) fn remove_directories(home: &Path) -> Result<(), Error> {
    for directory in [POD_LOGS, CONTAINER_LOGS].map(|name| home.join(name)) {
        ignore_not_found(fs::remove_dir_all(&directory)).map_err(file_error(&directory))?;
    }
    Ok(())
}

/// Removes a file, if it exists.
pub(super) fn remove_file(path: &Path) -> Result<(), Error> {
    ignore_not_found(fs::remove_file(path)).map_err(file_error(path))
}

/// Maps "not found" to success.
fn ignore_not_found(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{cluster, scenario};

    #[test]
    fn file_names_follow_pods_and_restarts() {
        let scenario = scenario(
            "[[pod]]\nname = \"p\"\nnamespace = \"n\"\nend = 90\n\
             uid = \"11111111-2222-4333-8444-555555555555\"\n\
             containers = [{ name = \"c\", start = 1, restarts = [50] }]\n",
        );
        let cluster = cluster(&scenario);
        assert!(expected_files(cluster, 0.5).is_empty());
        assert!(expected_files(cluster, 90.0).is_empty());
        let id = &cluster.pods[0].containers[0].runs[1].id;
        let file = PathBuf::from("n_p_11111111-2222-4333-8444-555555555555/c/1.log");
        let expected = BTreeMap::from([(file.clone(), format!("p_n_c-{id}.log"))]);
        assert_eq!(expected_files(cluster, 60.0), expected);

        let home = tempfile::TempDir::new().unwrap();
        let mut logs = LogDirectories::new(home.path().to_owned());
        logs.sync(Some(cluster), 10.0).unwrap();
        logs.sync(Some(cluster), 60.0).unwrap();
        let links = || -> Vec<_> {
            let found = fs::read_dir(home.path().join(CONTAINER_LOGS)).unwrap();
            found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        assert_eq!(links(), [format!("p_n_c-{id}.log")]);
        assert!(home.path().join(CONTAINER_LOGS).join(&links()[0]).is_file(), "the link resolves");
        assert!(!home.path().join(POD_LOGS).join(file.with_file_name("0.log")).exists());
        logs.sync(Some(cluster), 90.0).unwrap();
        assert_eq!(links().len(), 0);
        assert_eq!(fs::read_dir(home.path().join(POD_LOGS)).unwrap().count(), 0);
        logs.sync(None, 90.0).unwrap();
        assert!(!home.path().join(POD_LOGS).exists());
    }

    #[test]
    fn too_long_link_name_is_truncated() {
        let long = "n".repeat(200);
        let scenario =
            scenario(&format!("[[pod]]\nname = \"{long}\"\ncontainers = [{{ name = \"c\" }}]\n"));
        let files = expected_files(cluster(&scenario), 0.0);
        let link = files.values().next().unwrap();
        assert_eq!(link.len(), 255);
        assert!(link.starts_with(&long) && link.strip_suffix(".log").is_some());
    }
}
