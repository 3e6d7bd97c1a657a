//! Moves a real process through real cgroups and reads it through `/proc`.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "names a cgroup that could not be removed")]

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nvml_exporter::host::ProcRoot;
use nvml_exporter::model::{CgroupLocation, Discard, ProcessId};

const POD: &str = "3f6a1c58-90de-4b27-a1f4-0c9d5e7b2a63";
const STATIC: &str = "9c1185a5c5e9fc54612808977ee8f548";

/// Mount points of hierarchies in which a new cgroup accepts a process without setup: version 2, and
/// some of version 1.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc/self/mounts");
    let usable = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let simple = options.split(',').any(|o| ["name=systemd", "freezer", "pids"].contains(&o));
        (kind == "cgroup2" || (kind == "cgroup" && simple)).then(|| place.into())
    });
    usable.collect()
}

/// Cgroups of this test, removed on drop. Children are after their parents.
struct Cgroups {
    root: PathBuf,
    created: Vec<PathBuf>,
}

impl Cgroups {
    fn new(hierarchy: &Path) -> io::Result<Self> {
        let name = format!("kubepods-test-{}.slice", std::process::id());
        let mut cgroups = Self { root: hierarchy.join(name), created: Vec::new() };
        let root = cgroups.root.clone();
        cgroups.create(&root)?;
        Ok(cgroups)
    }

    fn create(&mut self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)?;
        self.created.push(path.to_owned());
        Ok(())
    }

    /// Moves the process to the cgroup `path` below the root.
    fn move_process(&mut self, path: &str, child: &Child) -> io::Result<()> {
        let mut cgroup = self.root.clone();
        for name in path.split('/') {
            cgroup.push(name);
            if !cgroup.is_dir() {
                self.create(&cgroup)?;
            }
        }
        let mut processes = fs::OpenOptions::new().write(true).open(cgroup.join("cgroup.procs"))?;
        processes.write_all(child.id().to_string().as_bytes())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for cgroup in self.created.iter().rev() {
            if let Err(error) = fs::remove_dir(cgroup) {
                eprintln!("{}: {error}", cgroup.display());
            }
        }
    }
}

/// A sleeping process, killed on drop.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the test needs a process to move")]
        let child = Command::new("sleep").arg("600").spawn().expect("sleep");
        Self(child)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `uid/id` of the innermost pod, the container id, or the placement in debug format.
fn innermost(placement: Result<CgroupLocation, Discard>) -> String {
    match placement {
        Ok(CgroupLocation::Pod(pods)) => {
            let pod = pods.first().expect("a pod");
            pod.container.as_ref().map_or(pod.uid.to_string(), |id| format!("{}/{id}", pod.uid))
        }
        Ok(CgroupLocation::Container(id)) => id.to_string(),
        other => format!("{other:?}"),
    }
}

fn check_hierarchy(hierarchy: &Path) -> io::Result<()> {
    let proc = ProcRoot::new(Path::new("/proc"));
    // Declared first and dropped last: a cgroup has to be empty when it is removed.
    let mut cgroups = Cgroups::new(hierarchy)?;
    let mut sleeper = Sleeper::start();
    let id = proc.identify(sleeper.0.id()).expect("a living process").id;
    let (a, b) = ("a1".repeat(32), "b2".repeat(32));
    let systemd = format!("kubepods-test-pod{}.slice", POD.replace('-', "_"));
    let moves = [
        (format!("burstable/pod{POD}/{a}"), format!("{POD}/{a}")),
        (format!("pod{STATIC}/{b}"), format!("{STATIC}/{b}")),
        (format!("burstable/pod{POD}/{a}/docker/{b}"), format!("{POD}/{a}")),
        (format!("{systemd}/cri-containerd-{b}.scope"), format!("{POD}/{b}")),
        (format!("{systemd}/crio-{a}.scope/container"), format!("{POD}/{a}")),
        (format!("{systemd}/crio-conmon-{a}.scope"), POD.to_owned()),
        (
            format!("x.service/kubepods-pod{STATIC}.slice:cri-containerd:{a}"),
            format!("{STATIC}/{a}"),
        ),
        (format!("docker-{a}.scope/init.scope"), a.clone()),
    ];
    for (path, expected) in moves {
        cgroups.move_process(&path, &sleeper.0)?;
        assert_eq!(innermost(proc.cgroup_location(id)), expected, "{}/{path}", hierarchy.display());
    }
    let other_process = ProcessId { started: id.started + 1, ..id };
    assert_eq!(proc.cgroup_location(other_process), Err(Discard::Gone));

    sleeper.0.kill()?;
    let zombie = loop {
        // It does not exit at once, and stays a zombie until it is waited for.
        match proc.cgroup_location(id) {
            Ok(_) => std::thread::yield_now(),
            Err(reason) => break reason,
        }
    };
    assert_eq!(zombie, Discard::Zombie);
    sleeper.0.wait()?;
    assert_eq!(proc.cgroup_location(id), Err(Discard::Gone));
    Ok(())
}

/// Reports what cannot be tested; not by `eprintln!`, which the test harness would hide.
fn skip(reason: &str) {
    io::stderr()
        .write_all(format!("skipped: real cgroups: {reason}\n").as_bytes())
        .expect("standard error");
}

#[test]
fn placement_follows_the_cgroup_of_a_process() {
    let own = ProcRoot::new(Path::new("/proc")).identify(std::process::id()).unwrap().id;
    let placement = ProcRoot::new(Path::new("/proc")).cgroup_location(own);
    if placement != Ok(CgroupLocation::Host) {
        // A process that is moved in one hierarchy stays in this container in all others.
        skip(&format!("the test runs in a container: {}", innermost(placement)));
        return;
    }
    for hierarchy in hierarchies() {
        if let Err(error) = check_hierarchy(&hierarchy) {
            skip(&format!("{}: {error}", hierarchy.display()));
        }
    }
}
