//! The proc root of a mock environment.

mod contents;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    cgroup_tree::{self, CgroupTree},
    clock::Now,
    environment_dir::{CGROUPS, FileError, PROC, file_error, replace_atomically},
    numeric::{float, floor_u64},
    procfs::contents::{INITIAL_UPTIME, start_ticks},
    scenario::{Process, Scenario},
};

/// Target of `/proc/<pid>/ns/pid` in the initial PID namespace, a constant of the kernel.
const HOST_NAMESPACE: &str = "pid:[4026531836]";
/// Target of `/proc/<pid>/ns/pid` in the PID namespace of a container.
const OTHER_NAMESPACE: &str = "pid:[4026532761]";

/// A proc root and the processes written to it.
#[derive(Debug)]
pub(crate) struct ProcTree {
    root: PathBuf,
    cgroups: CgroupTree,
    /// The scenario for which the whole tree was last written.
    written_for: Option<Arc<Scenario>>,
    /// The processes in the tree, by PID: index in the scenario, and whether it is a zombie.
    written: BTreeMap<u32, (usize, bool)>,
    /// The uptime in seconds in the file `uptime`.
    uptime: Option<u64>,
}

impl ProcTree {
    /// The proc root of the directory `home`, with the cgroups beside it.
    pub(crate) fn new(home: &Path) -> Self {
        Self {
            root: home.join(PROC),
            cgroups: CgroupTree::new(home.join(CGROUPS)),
            written_for: None,
            written: BTreeMap::new(),
            uptime: None,
        }
    }

    /// The proc root of the directory `home`; `None` if it is not a mock environment.
    pub(crate) fn open_existing(home: &Path) -> Option<Self> {
        home.join(PROC).is_dir().then(|| Self::new(home))
    }

    /// Whether the mock environment has not been removed.
    pub(crate) fn exists(&self) -> bool {
        self.root.is_dir()
    }

    /// Updates the tree to the processes that exist now. Writes nothing if it is up to date.
    ///
    /// # Errors
    /// A file cannot be written or removed.
    pub(crate) fn sync(&mut self, scenario: &Arc<Scenario>, now: Now) -> Result<(), FileError> {
        let same = self.written_for.as_ref().is_some_and(|last| Arc::ptr_eq(last, scenario));
        let expected = expected_processes(scenario, now.world);
        self.cgroups.sync(scenario, now.world)?;
        self.write_uptime(now)?;
        if same && expected == self.written {
            return Ok(());
        }
        if !same {
            self.write_system(scenario, now)?;
        }
        for pid in self.present(same)? {
            if !expected.contains_key(&pid) {
                self.remove(pid)?;
            }
        }
        for (pid, state) in &expected {
            if !same || self.written.get(pid) != Some(state) {
                let process = scenario.processes.get(state.0);
                process.map_or(Ok(()), |process| self.write(scenario, process, state.1))?;
            }
        }
        self.written = expected;
        self.written_for = Some(Arc::clone(scenario));
        Ok(())
    }

    /// The PIDs of scenario processes in the tree: as last written, or as found on disk.
    fn present(&self, use_written: bool) -> Result<BTreeSet<u32>, FileError> {
        if use_written {
            return Ok(self.written.keys().copied().collect());
        }
        let entries = fs::read_dir(&self.root).map_err(file_error(&self.root))?;
        let names =
            entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.parse().ok()).filter(|pid| *pid > 2).collect())
    }

    fn write(&self, scenario: &Scenario, process: &Process, zombie: bool) -> Result<(), FileError> {
        let directory = self.root.join(process.pid.to_string());
        let state = if zombie { 'Z' } else { 'S' };
        let name = process.name.as_str();
        let files = [
            (
                "stat",
                contents::pid_stat(process.pid, name, state, start_ticks(process.lifetime.from)),
            ),
            ("comm", format!("{}\n", contents::comm(name))),
            // A zombie has no memory, so no arguments either.
            ("cmdline", if zombie { String::new() } else { process.command.join("\0") + "\0" }),
            ("status", contents::pid_status(process.pid, name, state)),
            ("cgroup", cgroup_tree::seen(scenario.cgroup_view, &process.cgroup) + "\n"),
        ];
        if process.readable {
            // The files of another process that had the PID must not be mixed with those of this one.
            let [(_, stat), ..] = &files;
            let old = fs::read_to_string(directory.join("stat")).unwrap_or_default();
            if contents::start_in(&old) != contents::start_in(stat) {
                self.remove(process.pid)?;
            }
            return self.write_directory(&directory, &files, scenario);
        }
        if directory.join("stat").is_symlink() {
            return Ok(());
        }
        self.remove(process.pid)?;
        self.write_unreadable(&directory, &files.map(|(name, _)| name))
    }

    /// Writes a process directory with files that cannot be opened, as with the mount option `hidepid=1`.
    /// They are links to themselves, since a reader with root privileges ignores file modes.
    fn write_unreadable(&self, path: &Path, files: &[&str]) -> Result<(), FileError> {
        let temporary = self.root.join(".new");
        remove(&temporary)?;
        fs::create_dir_all(&temporary).map_err(file_error(&temporary))?;
        for name in files {
            let link = temporary.join(name);
            symlink(name, &link).map_err(file_error(&link))?;
        }
        fs::rename(&temporary, path).map_err(file_error(path))
    }

    /// Writes the files of a process directory. A new directory appears atomically with all files.
    fn write_directory(
        &self,
        path: &Path,
        files: &[(&str, String)],
        scenario: &Scenario,
    ) -> Result<(), FileError> {
        if path.is_dir() {
            return files.iter().try_for_each(|(name, text)| refresh(&path.join(name), text));
        }
        let temporary = self.root.join(".new");
        remove(&temporary)?;
        let namespaces = temporary.join("ns");
        fs::create_dir_all(&namespaces).map_err(file_error(&namespaces))?;
        let link = namespaces.join("pid");
        symlink(namespace(scenario), &link).map_err(file_error(&link))?;
        for (name, text) in files {
            let path = temporary.join(name);
            fs::write(&path, text).map_err(file_error(&path))?;
        }
        fs::rename(&temporary, path).map_err(file_error(path))
    }

    /// Removes a process directory atomically.
    fn remove(&self, pid: u32) -> Result<(), FileError> {
        let (path, removed) = (self.root.join(pid.to_string()), self.root.join(".gone"));
        remove(&removed)?;
        match fs::rename(&path, &removed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(file_error(&path)(error)),
            Ok(()) => remove(&removed),
        }
    }

    /// Writes the system-wide files and the first processes.
    fn write_system(&self, scenario: &Scenario, now: Now) -> Result<(), FileError> {
        let boot = float(now.wall) / 1e6 - now.world - INITIAL_UPTIME;
        refresh(&self.root.join("stat"), &contents::system_stat(floor_u64(boot)))?;
        refresh(&self.root.join("meminfo"), contents::MEMINFO)?;
        refresh(&self.root.join("loadavg"), "1.00 1.00 1.00 1/512 4096\n")?;
        let kernel = self.root.join("sys/kernel");
        fs::create_dir_all(&kernel).map_err(file_error(&kernel))?;
        refresh(&kernel.join("pid_max"), "4194304\n")?;
        let system_processes: &[_] = if scenario.in_container {
            &[(1, "nvml-exporter")]
        } else {
            &[(1, "systemd"), (2, "kthreadd")]
        };
        // Readers must not see them disappear, unless they belong to another PID namespace now.
        for pid in [1, 2] {
            let link = fs::read_link(self.root.join(format!("{pid}/ns/pid")));
            let is_current = link.is_ok_and(|link| link.as_os_str() == namespace(scenario));
            if !is_current || system_processes.iter().all(|(listed, _)| *listed != pid) {
                self.remove(pid)?;
            }
        }
        for (pid, name) in system_processes {
            let files = [
                ("stat", contents::pid_stat(*pid, name, 'S', 1)),
                ("comm", format!("{name}\n")),
                ("cmdline", if *pid == 1 { format!("{name}\0") } else { String::new() }),
                ("status", contents::pid_status(*pid, name, 'S')),
                ("cgroup", "0::/\n".to_owned()),
            ];
            self.write_directory(&self.root.join(pid.to_string()), &files, scenario)?;
        }
        self.write_self(scenario)
    }

    /// Writes the client itself.
    fn write_self(&self, scenario: &Scenario) -> Result<(), FileError> {
        let (name, view) = ("nvml-exporter", scenario.cgroup_view);
        let cgroup = cgroup_tree::seen(view, &format!("0::{}", cgroup_tree::CLIENT));
        let files = [
            ("stat", contents::pid_stat(1, name, 'S', 1)),
            ("comm", format!("{name}\n")),
            ("cmdline", format!("{name}\0")),
            ("status", contents::pid_status(1, name, 'S')),
            ("cgroup", cgroup + "\n"),
            ("mountinfo", self.cgroups.mountinfo(view)),
        ];
        let directory = self.root.join("self");
        let link = fs::read_link(directory.join("ns/pid"));
        if link.is_ok_and(|link| link.as_os_str() != namespace(scenario)) {
            remove(&directory)?;
        }
        self.write_directory(&directory, &files, scenario)
    }

    fn write_uptime(&mut self, now: Now) -> Result<(), FileError> {
        let uptime = floor_u64(INITIAL_UPTIME + now.world.max(0.0));
        if self.uptime != Some(uptime) {
            refresh(&self.root.join("uptime"), &format!("{uptime}.00 {uptime}.00\n"))?;
            self.uptime = Some(uptime);
        }
        Ok(())
    }
}

/// Target of the `ns/pid` link of every process.
fn namespace(scenario: &Scenario) -> &'static str {
    if scenario.in_container { OTHER_NAMESPACE } else { HOST_NAMESPACE }
}

/// The visible processes at `time`, by PID: index in the scenario, and whether it is a zombie.
fn expected_processes(scenario: &Scenario, time: f64) -> BTreeMap<u32, (usize, bool)> {
    let visible = |(_, process): &(usize, &Process)| {
        process.proc_lifetime().is_some_and(|shown| shown.contains(time))
    };
    let processes = scenario.processes.iter().enumerate().filter(visible);
    processes.map(|(at, process)| (process.pid, (at, process.is_zombie(time)))).collect()
}

/// Replaces a file atomically unless it already has that text.
fn refresh(path: &Path, text: &str) -> Result<(), FileError> {
    if fs::read(path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    replace_atomically(path, text.as_bytes())
}

fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "[[gpu]]\nmodel = \"T4\"\n";

    fn process(pid: u32, rest: &str) -> String {
        format!("[[process]]\npid = {pid}\nname = \"p\"\nmemory = \"1 MiB\"\n{rest}\n")
    }

    struct TestTree {
        dir: tempfile::TempDir,
        tree: ProcTree,
    }

    impl TestTree {
        fn new() -> Self {
            let dir = tempfile::TempDir::new().unwrap();
            let tree = ProcTree::new(dir.path());
            fs::create_dir(dir.path().join(PROC)).unwrap();
            Self { dir, tree }
        }

        fn sync(&mut self, scenario: &Arc<Scenario>, world: f64) {
            let now = Now { real: world, wall: 1_000_000_000_000, world, fixed: true };
            self.tree.sync(scenario, now).unwrap();
        }

        fn read(&self, file: &str) -> io::Result<String> {
            fs::read_to_string(self.dir.path().join(PROC).join(file))
        }
    }

    fn scenario(processes: &str) -> Arc<Scenario> {
        Arc::new(Scenario::parse("test", &format!("{NODE}{processes}")).unwrap())
    }

    #[test]
    fn files_of_an_unreadable_process_exist_and_cannot_be_opened() {
        let mut written = TestTree::new();
        written.sync(&scenario(&process(7, "gpus = [0]\nproc = \"unreadable\"")), 0.0);
        for file in ["stat", "comm", "cmdline", "status", "cgroup"] {
            let path = format!("7/{file}");
            let error = written.read(&path).unwrap_err();
            assert_ne!(error.kind(), io::ErrorKind::NotFound, "{file}");
            assert!(written.dir.path().join(PROC).join(&path).is_symlink(), "{file}");
        }
        written.sync(&scenario(&process(7, "gpus = [0]")), 0.0);
        assert!(written.read("7/stat").is_ok(), "readable again");
    }

    #[test]
    fn reused_pid_has_the_start_time_and_cgroup_of_the_new_process() {
        let text = process(7, "gpus = [0]\nend = 60\nproc = { to = 30 }\ncgroup = \"0::/old\"")
            + &process(7, "gpus = []\nstart = 40\ncgroup = \"0::/new\"");
        let scenario = scenario(&text);
        let mut written = TestTree::new();
        written.sync(&scenario, 29.0);
        let old = written.read("7/stat").unwrap();
        assert_eq!(written.read("7/cgroup").unwrap(), "0::/old\n");
        written.sync(&scenario, 35.0);
        assert_eq!(written.read("7/stat").unwrap_err().kind(), io::ErrorKind::NotFound);
        written.sync(&scenario, 40.0);
        assert_eq!(written.read("7/cgroup").unwrap(), "0::/new\n");
        assert_ne!(contents::start_in(&written.read("7/stat").unwrap()), contents::start_in(&old));
    }
}
