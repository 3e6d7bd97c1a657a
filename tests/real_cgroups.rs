//! Real processes in real cgroups, read through the real `/proc`.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a machine that allows no cgroups is told to the reader")]

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nvml_exporter::host::ProcRoot;
use nvml_exporter::model::{Discard, Placement, ProcessId};

const POD: &str = "3f6a1c58-90de-4b27-a1f4-0c9d5e7b2a63";
const STATIC: &str = "9c1185a5c5e9fc54612808977ee8f548";

/// Where hierarchies are mounted in which a process can be put without more ado: version 2's, or
/// one of version 1 whose cgroups need no set-up.
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

/// Cgroups of this test, removed with it. Children come after their parents.
struct Cgroups {
    root: PathBuf,
    made: Vec<PathBuf>,
}

impl Cgroups {
    fn new(hierarchy: &Path) -> io::Result<Self> {
        let name = format!("kubepods-test-{}.slice", std::process::id());
        let mut cgroups = Self { root: hierarchy.join(name), made: Vec::new() };
        let root = cgroups.root.clone();
        cgroups.make(&root)?;
        Ok(cgroups)
    }

    fn make(&mut self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)?;
        self.made.push(path.to_owned());
        Ok(())
    }

    /// Puts the process in the cgroup `path` below our own.
    fn hold(&mut self, path: &str, child: &Child) -> io::Result<()> {
        let mut cgroup = self.root.clone();
        for name in path.split('/') {
            cgroup.push(name);
            if !cgroup.is_dir() {
                self.make(&cgroup)?;
            }
        }
        let mut processes = fs::OpenOptions::new().write(true).open(cgroup.join("cgroup.procs"))?;
        processes.write_all(child.id().to_string().as_bytes())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for cgroup in self.made.iter().rev() {
            if let Err(error) = fs::remove_dir(cgroup) {
                eprintln!("{}: {error}", cgroup.display());
            }
        }
    }
}

/// A process that does nothing, killed with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the test needs a process to move about")]
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

/// `uid/id`, or the placement as it is.
fn innermost(placement: Result<Placement, Discard>) -> String {
    match placement {
        Ok(Placement::Pod(pods)) => {
            let pod = pods.first().expect("a pod");
            pod.container.as_ref().map_or(pod.uid.to_string(), |id| format!("{}/{id}", pod.uid))
        }
        Ok(Placement::Container(id)) => id.to_string(),
        other => format!("{other:?}"),
    }
}

fn follow(hierarchy: &Path) -> io::Result<()> {
    let proc = ProcRoot::new(Path::new("/proc"));
    // The cgroups have to be empty before they are removed, so they are declared first.
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
        cgroups.hold(&path, &sleeper.0)?;
        assert_eq!(innermost(proc.placement(id)), expected, "{}/{path}", hierarchy.display());
    }
    let stranger = ProcessId { started: id.started + 1, ..id };
    assert_eq!(proc.placement(stranger), Err(Discard::Gone));

    sleeper.0.kill()?;
    let zombie = loop {
        // It takes a moment to die, and stays a zombie until it is waited for.
        match proc.placement(id) {
            Ok(_) => std::thread::yield_now(),
            Err(reason) => break reason,
        }
    };
    assert_eq!(zombie, Discard::Zombie);
    sleeper.0.wait()?;
    assert_eq!(proc.placement(id), Err(Discard::Gone));
    Ok(())
}

#[test]
fn a_process_is_followed_through_real_cgroups() {
    let own = ProcRoot::new(Path::new("/proc")).identify(std::process::id()).unwrap().id;
    let placement = ProcRoot::new(Path::new("/proc")).placement(own);
    if placement != Ok(Placement::Host) {
        // Moved in one hierarchy, a process would still be with us in all others.
        eprintln!("we are in a container ourselves: {}", innermost(placement));
        return;
    }
    let mut followed = 0;
    for hierarchy in hierarchies() {
        match follow(&hierarchy) {
            Ok(()) => followed += 1,
            Err(error) => eprintln!("not followed in {}: {error}", hierarchy.display()),
        }
    }
    if followed == 0 {
        eprintln!("this machine lets us put no process in a cgroup of our own");
    }
}
