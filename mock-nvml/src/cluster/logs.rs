//! The names under which a node keeps its containers' logs.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::scenario::cluster::Cluster;

/// Stands for `/var/log/pods`.
const PODS: &str = "pods-log";
/// Stands for `/var/log/containers`.
const CONTAINERS: &str = "containers-log";
/// The longest name that a file system takes, without `.log`.
const LONGEST: usize = 251;

/// What the two directories have to hold at `time`: for each log file, its path in the first and
/// the name of the link to it in the second.
fn wanted(cluster: &Cluster, time: f64) -> BTreeMap<PathBuf, String> {
    let mut wanted = BTreeMap::new();
    for pod in cluster.pods.iter().filter(|pod| pod.life.contains(time)) {
        let directory = format!("{}_{}_{}", pod.namespace, pod.name, pod.kubelet_uid());
        for container in &pod.containers {
            let started = container.runs.iter().enumerate();
            let Some((at, run)) = started.rev().find(|(_, run)| run.during.from <= time) else {
                continue;
            };
            let file = Path::new(&directory).join(&container.name).join(format!("{at}.log"));
            let link = format!("{}_{}_{}-{}", pod.name, pod.namespace, container.name, run.id);
            let end = (0..=link.len().min(LONGEST)).rev().find(|&end| link.is_char_boundary(end));
            let link = link.get(..end.unwrap_or_default()).unwrap_or_default();
            wanted.insert(file, format!("{link}.log"));
        }
    }
    wanted
}

/// The two directories of a stage, and what has been written to them.
#[derive(Debug)]
pub(super) struct Logs {
    home: PathBuf,
    shown: Option<BTreeMap<PathBuf, String>>,
}

impl Logs {
    /// Those of the stage `home`.
    pub(super) fn new(home: PathBuf) -> Self {
        Self { home, shown: None }
    }

    /// Makes them show the containers there are at `time`; without a cluster they are not there.
    ///
    /// # Errors
    /// When something cannot be written.
    pub(super) fn sync(&mut self, cluster: Option<&Cluster>, time: f64) -> io::Result<()> {
        let Some(cluster) = cluster else {
            self.shown = None;
            return clear(&self.home);
        };
        let wanted = wanted(cluster, time);
        if self.shown.as_ref() == Some(&wanted) {
            return Ok(());
        }
        if self.shown.is_none() {
            clear(&self.home)?;
        }
        let (pods, containers) = (self.home.join(PODS), self.home.join(CONTAINERS));
        fs::create_dir_all(&pods)?;
        fs::create_dir_all(&containers)?;
        let shown = self.shown.take().unwrap_or_default();
        for (file, link) in shown.iter().filter(|(file, link)| wanted.get(*file) != Some(link)) {
            gone(fs::remove_file(containers.join(link)))?;
            gone(fs::remove_file(pods.join(file)))?;
            // Directories go with the last log in them.
            for directory in file.ancestors().skip(1).take(2) {
                let _ = fs::remove_dir(pods.join(directory));
            }
        }
        for (file, link) in wanted.iter().filter(|(file, link)| shown.get(*file) != Some(link)) {
            let path = pods.join(file);
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&path, "")?;
            let target = Path::new("..").join(PODS).join(file);
            gone(fs::remove_file(containers.join(link)))?;
            symlink(target, containers.join(link))?;
        }
        self.shown = Some(wanted);
        Ok(())
    }
}

/// Takes both directories away.
pub(super) fn clear(home: &Path) -> io::Result<()> {
    gone(fs::remove_dir_all(home.join(PODS)))?;
    gone(fs::remove_dir_all(home.join(CONTAINERS)))
}

/// What is not there need not be removed.
pub(super) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, scenario};
    use super::*;

    #[test]
    fn the_names_follow_pods_and_restarts() {
        let scenario = scenario(
            "[[pod]]\nname = \"p\"\nnamespace = \"n\"\nend = 90\n\
             uid = \"11111111-2222-4333-8444-555555555555\"\n\
             containers = [{ name = \"c\", start = 1, restarts = [50] }]\n",
        );
        let cluster = cluster(&scenario);
        assert!(wanted(cluster, 0.5).is_empty() && wanted(cluster, 90.0).is_empty());
        let id = &cluster.pods[0].containers[0].runs[1].id;
        let file = PathBuf::from("n_p_11111111-2222-4333-8444-555555555555/c/1.log");
        let expected = BTreeMap::from([(file.clone(), format!("p_n_c-{id}.log"))]);
        assert_eq!(wanted(cluster, 60.0), expected);

        let home = tempfile::TempDir::new().unwrap();
        let mut logs = Logs::new(home.path().to_owned());
        logs.sync(Some(cluster), 10.0).unwrap();
        logs.sync(Some(cluster), 60.0).unwrap();
        let links = || -> Vec<_> {
            let found = fs::read_dir(home.path().join(CONTAINERS)).unwrap();
            found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        assert_eq!(links(), [format!("p_n_c-{id}.log")]);
        assert!(home.path().join(CONTAINERS).join(&links()[0]).is_file(), "it leads to the file");
        assert!(!home.path().join(PODS).join(file.with_file_name("0.log")).exists());
        logs.sync(Some(cluster), 90.0).unwrap();
        assert_eq!(links().len(), 0);
        assert_eq!(fs::read_dir(home.path().join(PODS)).unwrap().count(), 0);
        logs.sync(None, 90.0).unwrap();
        assert!(!home.path().join(PODS).exists());
    }

    #[test]
    fn a_name_that_no_file_system_takes_is_cut() {
        let long = "n".repeat(200);
        let scenario =
            scenario(&format!("[[pod]]\nname = \"{long}\"\ncontainers = [{{ name = \"c\" }}]\n"));
        let wanted = wanted(cluster(&scenario), 0.0);
        let link = wanted.values().next().unwrap();
        assert_eq!(link.len(), 255);
        assert!(link.starts_with(&long) && link.strip_suffix(".log").is_some());
    }
}
