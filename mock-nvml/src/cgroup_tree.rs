//! The cgroups (version 2) of a mock environment, and what clients see of them.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    cluster::cgroup,
    environment_dir::{FileError, file_error},
    scenario::{CgroupView, Scenario},
};

/// The cgroup of a client: of the container of an exporter.
pub(crate) const CLIENT: &str = "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod5f0c3f4e_2a41_4a3e_9a55_3c1c4d9f7b10.slice/nvml-exporter.scope";

/// Driver branch from which on clients look for cgroups.
const LIMITS_BRANCH: u32 = 615;

/// The directory of the node's cgroups.
#[derive(Debug)]
pub(crate) struct CgroupTree {
    root: PathBuf,
    /// The cgroups in the tree besides that of the client; `None` before the first.
    written: Option<BTreeSet<String>>,
}

impl CgroupTree {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, written: None }
    }

    /// Updates the tree to the containers that run at `time`.
    ///
    /// # Errors
    /// A directory cannot be written or removed.
    pub(crate) fn sync(&mut self, scenario: &Scenario, time: f64) -> Result<(), FileError> {
        let expected = containers(scenario, time);
        let written = match &self.written {
            Some(written) if *written == expected => return Ok(()),
            Some(written) => written.clone(),
            None => {
                self.write_client()?;
                BTreeSet::new()
            }
        };
        for path in expected.difference(&written) {
            let directory = self.directory(path);
            fs::create_dir_all(&directory).map_err(file_error(&directory))?;
        }
        for path in written.difference(&expected) {
            let directory = self.directory(path);
            match fs::remove_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file_error(&directory)(error));
                }
                _ => {}
            }
        }
        self.written = Some(expected);
        Ok(())
    }

    /// The root, and the cgroup of the client, which has a type as all others below the root.
    fn write_client(&self) -> Result<(), FileError> {
        let client = self.directory(CLIENT);
        fs::create_dir_all(&client).map_err(file_error(&client))?;
        let files = [
            (&self.root, "cgroup.controllers"),
            (&client, "cgroup.controllers"),
            (&client, "cgroup.type"),
        ];
        for (directory, name) in files {
            let path = directory.join(name);
            fs::write(&path, "").map_err(file_error(&path))?;
        }
        Ok(())
    }

    /// `/proc/self/mountinfo`.
    pub(crate) fn mountinfo(&self, view: CgroupView) -> String {
        let mount = |id: u32, root: &str, point: &Path| {
            format!(
                "{id} 22 0:27 {root} {} ro,nosuid,nodev,noexec - cgroup2 cgroup rw,nsdelegate\n",
                point.display()
            )
        };
        let own = || mount(31, "/", &self.directory(CLIENT));
        let mounts = match view {
            CgroupView::Host => mount(31, "/", &self.root),
            CgroupView::Private => own(),
            CgroupView::Mounted => own() + &mount(32, &seen_from_client("/"), &self.root),
        };
        format!("22 1 0:21 / /proc rw,nosuid,nodev,noexec - proc proc rw\n{mounts}")
    }

    fn directory(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// A file `cgroup` as clients see it, from that without a namespace.
pub(crate) fn seen(view: CgroupView, text: &str) -> String {
    let lines = text.lines().map(|line| match (view, line.strip_prefix("0::")) {
        (CgroupView::Private | CgroupView::Mounted, Some(path)) => {
            format!("0::{}", seen_from_client(path))
        }
        (CgroupView::Host, _) | (_, None) => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A path relative to the cgroup of the client, from the nearest common ancestor on.
fn seen_from_client(path: &str) -> String {
    let parts = |path: &str| -> Vec<String> {
        path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let (client, path) = (parts(CLIENT), parts(path));
    let common = client.iter().zip(&path).take_while(|(one, other)| one == other).count();
    let up = std::iter::repeat_n("..", client.len() - common);
    let down = path.iter().skip(common).map(String::as_str);
    format!("/{}", up.chain(down).collect::<Vec<_>>().join("/"))
}

/// The cgroups of the containers that run, where clients look for them.
fn containers(scenario: &Scenario, time: f64) -> BTreeSet<String> {
    let Some(cluster) =
        scenario.cluster.as_ref().filter(|_| scenario.driver.branch() >= LIMITS_BRANCH)
    else {
        return BTreeSet::new();
    };
    let mut paths = BTreeSet::new();
    for pod in &cluster.pods {
        let runs = pod.containers.iter().flat_map(|container| &container.runs);
        for run in runs.filter(|run| run.during.contains(time)) {
            let text = cgroup::text(cluster.cgroups, cluster.runtime, pod, &run.id);
            paths.extend(
                text.lines().filter_map(|line| line.strip_prefix("0::")).map(str::to_owned),
            );
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_namespace_of_the_client() {
        assert_eq!(seen_from_client(CLIENT), "/");
        assert_eq!(seen_from_client("/"), "/../../../..");
        assert_eq!(seen_from_client("/kubepods.slice/a.slice"), "/../../../a.slice");
        assert_eq!(seen_from_client("/system.slice"), "/../../../../system.slice");
        let text = "4:memory:/a\n0::/system.slice";
        assert_eq!(seen(CgroupView::Host, text), text);
        assert_eq!(seen(CgroupView::Private, text), "4:memory:/a\n0::/../../../../system.slice");
    }
}
