//! The proc root of a stage.

mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::text::{BOOT, start_ticks};
use super::{Error, PROC, at};
use crate::{
    clock::Now,
    number::{float, floor_u64},
    scenario::{Process, Scenario},
};

/// The namespace file of the host's first pid namespace, a constant of the kernel.
const HOST_NAMESPACE: &str = "pid:[4026531836]";
/// That of some container.
const OTHER_NAMESPACE: &str = "pid:[4026532761]";

/// A proc root, and what has been written to it.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    /// The scenario for which the tree was last gone through completely.
    written_for: Option<Arc<Scenario>>,
    /// What is shown: for each pid, the process's index and whether it is a zombie.
    shown: BTreeMap<u32, (usize, bool)>,
    /// The second for which `uptime` was written.
    second: Option<u64>,
}

impl Tree {
    /// The tree in the directory `root`.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, written_for: None, shown: BTreeMap::new(), second: None }
    }

    /// The tree of the stage `home`, if it is one.
    pub(crate) fn beside(home: &Path) -> Option<Self> {
        let root = home.join(PROC);
        root.is_dir().then(|| Self::new(root))
    }

    /// Makes the tree show the processes that are alive now. Writes nothing if that is so already.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn sync(&mut self, scenario: &Arc<Scenario>, now: Now) -> Result<(), Error> {
        let same = self.written_for.as_ref().is_some_and(|last| Arc::ptr_eq(last, scenario));
        let wanted = wanted(scenario, now.world);
        self.uptime(now)?;
        if same && wanted == self.shown {
            return Ok(());
        }
        if !same {
            self.system(scenario, now)?;
        }
        for pid in self.present(same)? {
            if !wanted.contains_key(&pid) {
                self.remove(pid)?;
            }
        }
        for (pid, face) in &wanted {
            if !same || self.shown.get(pid) != Some(face) {
                let process = scenario.processes.get(face.0);
                process.map_or(Ok(()), |process| self.write(scenario, process, face.1))?;
            }
        }
        self.shown = wanted;
        self.written_for = Some(Arc::clone(scenario));
        Ok(())
    }

    /// The pids in the tree that are processes of scenarios: as remembered, or as found on the disk.
    fn present(&self, remembered: bool) -> Result<BTreeSet<u32>, Error> {
        if remembered {
            return Ok(self.shown.keys().copied().collect());
        }
        let entries = fs::read_dir(&self.root).map_err(at(&self.root))?;
        let names =
            entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.parse().ok()).filter(|pid| *pid > 2).collect())
    }

    fn write(&self, scenario: &Scenario, process: &Process, zombie: bool) -> Result<(), Error> {
        let directory = self.root.join(process.pid.to_string());
        let state = if zombie { 'Z' } else { 'S' };
        let name = process.name.as_str();
        let files = [
            ("stat", text::stat(process.pid, name, state, start_ticks(process.life.from))),
            ("comm", format!("{}\n", text::comm(name))),
            // The memory of a zombie is gone, and with it its arguments.
            ("cmdline", if zombie { String::new() } else { process.command.join("\0") + "\0" }),
            ("status", text::status(process.pid, name, state)),
            ("cgroup", format!("{}\n", process.cgroup)),
        ];
        self.directory(&directory, &files, scenario)
    }

    /// Brings a process's directory to hold these files. A new one appears with all of them.
    fn directory(
        &self,
        path: &Path,
        files: &[(&str, String)],
        scenario: &Scenario,
    ) -> Result<(), Error> {
        if path.is_dir() {
            return files.iter().try_for_each(|(name, text)| refresh(&path.join(name), text));
        }
        let fresh = self.root.join(".new");
        remove(&fresh)?;
        let namespaces = fresh.join("ns");
        fs::create_dir_all(&namespaces).map_err(at(&namespaces))?;
        let namespace = if scenario.in_container { OTHER_NAMESPACE } else { HOST_NAMESPACE };
        let link = namespaces.join("pid");
        symlink(namespace, &link).map_err(at(&link))?;
        for (name, text) in files {
            let path = fresh.join(name);
            fs::write(&path, text).map_err(at(&path))?;
        }
        fs::rename(&fresh, path).map_err(at(path))
    }

    /// Takes a process away, all of it at once.
    fn remove(&self, pid: u32) -> Result<(), Error> {
        let (path, gone) = (self.root.join(pid.to_string()), self.root.join(".gone"));
        remove(&gone)?;
        match fs::rename(&path, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(at(&path)(error)),
            Ok(()) => remove(&gone),
        }
    }

    /// What belongs to no process of the scenario.
    fn system(&self, scenario: &Scenario, now: Now) -> Result<(), Error> {
        let boot = float(now.wall) / 1e6 - now.world - BOOT;
        refresh(&self.root.join("stat"), &text::kernel(floor_u64(boot)))?;
        refresh(&self.root.join("meminfo"), text::MEMORY)?;
        refresh(&self.root.join("loadavg"), "1.00 1.00 1.00 1/512 4096\n")?;
        let kernel = self.root.join("sys/kernel");
        fs::create_dir_all(&kernel).map_err(at(&kernel))?;
        refresh(&kernel.join("pid_max"), "4194304\n")?;
        let first: &[_] = if scenario.in_container {
            &[(1, "nvml-exporter")]
        } else {
            &[(1, "systemd"), (2, "kthreadd")]
        };
        for pid in [1, 2] {
            self.remove(pid)?;
        }
        for (pid, name) in first {
            let files = [
                ("stat", text::stat(*pid, name, 'S', 1)),
                ("comm", format!("{name}\n")),
                ("cmdline", if *pid == 1 { format!("{name}\0") } else { String::new() }),
                ("status", text::status(*pid, name, 'S')),
                ("cgroup", "0::/\n".to_owned()),
            ];
            self.directory(&self.root.join(pid.to_string()), &files, scenario)?;
        }
        let own = self.root.join("self");
        match symlink("1", &own) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at(&own)(error)),
            _ => Ok(()),
        }
    }

    fn uptime(&mut self, now: Now) -> Result<(), Error> {
        let second = floor_u64(BOOT + now.world.max(0.0));
        if self.second != Some(second) {
            refresh(&self.root.join("uptime"), &format!("{second}.00 {second}.00\n"))?;
            self.second = Some(second);
        }
        Ok(())
    }
}

fn wanted(scenario: &Scenario, time: f64) -> BTreeMap<u32, (usize, bool)> {
    let shown = |(_, process): &(usize, &Process)| process.visible && process.life.contains(time);
    let processes = scenario.processes.iter().enumerate().filter(shown);
    processes.map(|(at, process)| (process.pid, (at, process.is_zombie(time)))).collect()
}

/// Writes a file unless it has that text, in one step.
fn refresh(path: &Path, text: &str) -> Result<(), Error> {
    if fs::read(path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    super::replace(path, text.as_bytes())
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}
