//! The host around us: the PID namespace, the proc root, the processes on GPUs and their cgroups.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use super::{Finding, Topic, counted};
use crate::attribute::owner::Unresolved;
use crate::host::ProcRoot;
use crate::host::cgroup::form::Form;
use crate::model::{Discard, Placement};
use crate::sample::Sample;
use crate::snapshot::Census;

/// Pods' processes whose cgroups are looked at; the others are named alike.
const CGROUPS_MAX: usize = 64;

/// The call that lists processes.
const LIST: &str = "nvmlDeviceGetComputeRunningProcesses";

/// Looks at the host through `root`. `wants_processes` says whether any series of processes is chosen.
#[must_use]
pub fn look(
    root: &ProcRoot,
    wants_processes: bool,
    sample: &Sample,
    census: &Census,
) -> Vec<Finding> {
    let place = root.path().display().to_string();
    let first = root.identify(1).map(|identity| identity.name.to_string());
    let mut findings = vec![
        namespace(&format!("{place}/self/ns/pid"), root.in_init_pid_namespace(), wants_processes),
        proc_root(&place, pids(root), &first),
    ];
    findings.push(match listed(sample) {
        _ if !wants_processes => {
            let said = "no series of processes is chosen, so nobody looks for them";
            Finding::skipped(Topic::Processes, LIST, said)
        }
        None => Finding::skipped(Topic::Processes, LIST, "no GPU has told who is on it"),
        Some(listed) => processes(&listed, census),
    });
    findings.push(cgroups(root, sample));
    findings
}

fn namespace(place: &str, is_first: Option<bool>, wants_processes: bool) -> Finding {
    match (is_first, wants_processes) {
        (Some(true), _) => Finding::ok(Topic::Pids, place, "the host's PID namespace"),
        (Some(false), true) => {
            let said = "not the host's PID namespace: the driver hides the processes of others, so there \
                        are no series of processes, and no container is called idle";
            Finding::failure(Topic::Pids, place, said).mended_by("set hostPID: true")
        }
        (Some(false), false) => {
            let said = "not the host's PID namespace; no series of processes is chosen, so none is missing";
            Finding::note(Topic::Pids, place, said)
        }
        (None, _) => {
            let said = "it does not tell in which PID namespace we are";
            Finding::warning(Topic::Pids, place, said)
                .mended_by("give --procfs a proc root of our own PID namespace, as /proc is")
        }
    }
}

/// How many processes the tree shows.
fn pids(root: &ProcRoot) -> usize {
    let entries = fs::read_dir(root.path()).into_iter().flatten().filter_map(Result::ok);
    let is_pid = |entry: &fs::DirEntry| {
        entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())
    };
    entries.filter(is_pid).count()
}

fn proc_root(place: &str, pids: usize, first: &Result<String, Discard>) -> Finding {
    let seen = format!("{} to be seen", counted(pids, "process"));
    match first {
        Ok(name) => Finding::ok(Topic::Pids, place, format!("{seen}; pid 1 is {name}")),
        Err(Discard::Denied | Discard::Gone) if pids > 0 => {
            let said = format!("{seen}, and pid 1 is hidden: those of other users may be, too");
            Finding::warning(Topic::Pids, place, said)
                .mended_by("run as root, or mount proc without hidepid")
        }
        Err(_) => Finding::failure(Topic::Pids, place, format!("{seen}; it is no proc root"))
            .mended_by("give --procfs the directory that holds <pid>/stat"),
    }
}

/// What the driver lists on GPUs.
#[derive(Default)]
struct Listed {
    processes: usize,
    /// Pods' processes among them.
    of_pods: Vec<u32>,
    /// What is listed and no process to be told of, by reason.
    residues: BTreeMap<&'static str, usize>,
}

/// None if no GPU has told.
fn listed(sample: &Sample) -> Option<Listed> {
    let mut listed = Listed::default();
    let answers = sample.gpus.iter().filter_map(|gpu| gpu.latest.as_ref()?.as_deref().ok());
    let parts = answers.flat_map(|answer| &answer.parts);
    let listings: Vec<_> = parts.filter_map(|part| part.listing.as_ref().ok()).collect();
    if listings.is_empty() {
        return None;
    }
    for listing in listings {
        for process in &listing.processes {
            listed.processes += 1;
            let placement = process.placement.as_deref();
            if matches!(placement, Ok(Placement::Pod(_)))
                && !listed.of_pods.contains(&process.id.pid)
            {
                listed.of_pods.push(process.id.pid);
            }
        }
        for residue in &listing.residues {
            *listed.residues.entry(residue.why.reason()).or_default() += 1;
        }
    }
    Some(listed)
}

fn processes(listed: &Listed, census: &Census) -> Finding {
    let residues: usize = listed.residues.values().sum();
    if listed.processes + residues == 0 {
        return Finding::ok(Topic::Processes, LIST, "no process on any GPU");
    }
    let mut owners = BTreeMap::<&str, u64>::new();
    for ((_, owner), n) in &census.attributed {
        *owners.entry(owner).or_default() += n;
    }
    let of = |owner: &str| owners.get(owner).copied().unwrap_or_default();
    let mut said = format!(
        "{} listed on GPUs: {} of pods, {} of other containers, {} of the host",
        counted(listed.processes, "process"),
        of("container"),
        of("stray"),
        of("host")
    );
    for (reason, n) in &listed.residues {
        // Writing to a string does not fail.
        let _ = write!(said, "; {n} listed and not told ({reason})");
    }
    let unresolved = unresolved(census, of("stray"));
    for (reason, n) in &unresolved {
        let _ = write!(said, "; {n} whose owner is not known ({reason})");
    }
    match unresolved.first() {
        None => Finding::ok(Topic::Processes, LIST, said),
        Some((reason, _)) => Finding::warning(Topic::Processes, LIST, said).mended_by(mend(reason)),
    }
}

/// Whose owner is not known. The exporter waits a while before it says of a container that it is in no
/// pod; that is longer than anybody looks here, so those are none.
fn unresolved(census: &Census, strays: u64) -> Vec<(&'static str, u64)> {
    let young = |reason| if reason == Unresolved::NoPod.reason() { strays } else { 0 };
    let counts = census.unresolved.iter();
    let counts = counts.map(|(reason, n)| (*reason, n.saturating_sub(young(*reason))));
    counts.filter(|(_, n)| *n > 0).collect()
}

fn mend(reason: &str) -> &'static str {
    match reason {
        "denied" | "unreadable" => "run as root, and read a proc root without hidepid",
        "allocation" => "what the kubelet gave to whom is not known: see kubelet below",
        "exited" | "invalid" => {
            "the driver lists processes that the proc root does not know: set hostPID: true, or wait for \
             them to be gone"
        }
        _ => "the pods of this node are not known: see api, rights, node and logs below",
    }
}

/// The cgroups of pods, else our own.
fn cgroups(root: &ProcRoot, sample: &Sample) -> Finding {
    let pids = listed(sample).unwrap_or_default().of_pods;
    let texts = pids.iter().take(CGROUPS_MAX).filter_map(|pid| root.cgroups(*pid).ok());
    let form = texts.map(|text| Form::of(&text)).reduce(Form::with);
    if let (Some(form), Some(pid)) = (form, pids.first()) {
        return seen(&format!("{}/{pid}/cgroup", root.path().display()), form);
    }
    let place = root.path().join("self/cgroup");
    let own = match fs::read(&place) {
        Ok(text) => version(Form::of(&text)).to_owned(),
        Err(error) => error.to_string(),
    };
    let said = format!("{own}; the driver is not seen: no process of a pod is on a GPU");
    Finding::note(Topic::Cgroups, place.display().to_string(), said)
}

fn seen(place: &str, form: Form) -> Finding {
    let driver = match (form.systemd, form.cgroupfs) {
        (true, false) => "systemd",
        (false, true) => "cgroupfs",
        _ => "both systemd and cgroupfs",
    };
    Finding::ok(Topic::Cgroups, place, format!("{}, driver {driver}", version(form)))
}

fn version(form: Form) -> &'static str {
    match (form.v1, form.v2) {
        (true, true) => "versions 1 and 2 (hybrid)",
        (true, false) => "version 1",
        (false, true) => "version 2",
        (false, false) => "no cgroup is told",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_hidden_namespace_fails_only_who_wants_processes() {
        assert_eq!(namespace("p", Some(true), true).verdict, Verdict::Ok);
        let hidden = namespace("p", Some(false), true);
        assert_eq!(
            (hidden.verdict, hidden.mend.as_deref()),
            (Verdict::Failure, Some("set hostPID: true"))
        );
        assert_eq!(namespace("p", Some(false), false).verdict, Verdict::Note);
        assert_eq!(namespace("p", None, true).verdict, Verdict::Warning);
    }

    #[test]
    fn a_proc_root_is_judged_by_its_first_process() {
        let said = proc_root("/proc", 12, &Ok("systemd".to_owned()));
        assert_eq!(&*said.said, "12 processes to be seen; pid 1 is systemd");
        assert_eq!(
            proc_root("/proc", 1, &Ok("x".to_owned())).said,
            "1 process to be seen; pid 1 is x"
        );
        assert_eq!(proc_root("/proc", 1, &Err(Discard::Denied)).verdict, Verdict::Warning);
        assert_eq!(proc_root("/tmp", 0, &Err(Discard::Gone)).verdict, Verdict::Failure);
    }

    #[test]
    fn processes_without_an_owner_are_a_warning() {
        let mut census = Census::default();
        assert_eq!(processes(&Listed::default(), &census).verdict, Verdict::Ok);
        let listed = Listed { processes: 3, ..Listed::default() };
        census.attributed.insert(("cgroup", "container"), 2);
        assert_eq!(processes(&listed, &census).verdict, Verdict::Ok);
        census.unresolved.insert("no_pod", 1);
        let finding = processes(&listed, &census);
        assert_eq!(
            finding.said,
            "3 processes listed on GPUs: 2 of pods, 0 of other containers, 0 of the host; 1 whose owner is \
             not known (no_pod)"
        );
        assert!(finding.mend.unwrap().contains("rights"));
        census.attributed.insert(("cgroup", "stray"), 1);
        assert_eq!(processes(&listed, &census).verdict, Verdict::Ok, "a plain container");
    }

    #[test]
    fn cgroups_are_told_by_version_and_driver() {
        let none = Form::default();
        let said = |form| seen("p", form).said;
        assert_eq!(said(Form { v2: true, systemd: true, ..none }), "version 2, driver systemd");
        assert_eq!(said(Form { v1: true, cgroupfs: true, ..none }), "version 1, driver cgroupfs");
        let mixed = Form { v1: true, v2: true, systemd: true, cgroupfs: true };
        assert_eq!(said(mixed), "versions 1 and 2 (hybrid), driver both systemd and cgroupfs");
    }
}
