//! The host: the PID namespace, the proc root, the processes on GPUs and their cgroups.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use super::{Finding, Topic, count_noun};
use crate::host::ProcRoot;
use crate::host::cgroup::version::CgroupVersion;
use crate::model::{CgroupLocation, Discard, OwnerKind, Unresolved};
use crate::sample::Sample;
use crate::snapshot::AttributionStats;

/// Maximum number of pod processes to read cgroups of; all use the same cgroup driver.
const CGROUPS_MAX: usize = 64;

/// The call that lists processes.
const LIST: &str = "nvmlDeviceGetComputeRunningProcesses";

/// Findings about the host, read through `root`. `needs_processes`: whether process series are selected.
#[must_use]
pub fn findings(
    root: &ProcRoot,
    needs_processes: bool,
    sample: &Sample,
    stats: &AttributionStats,
) -> Vec<Finding> {
    let path = root.path().display().to_string();
    let init = root.identify(1).map(|identity| identity.name.to_string());
    let mut findings = vec![
        namespace(&format!("{path}/self/ns/pid"), root.in_init_pid_namespace(), needs_processes),
        proc_root(&path, count_pids(root), &init),
    ];
    findings.push(match listed(sample) {
        _ if !needs_processes => {
            let message = "no process series are selected, so processes are not read";
            Finding::skipped(Topic::Processes, LIST, message)
        }
        None => Finding::skipped(Topic::Processes, LIST, "no GPU returned a process list"),
        Some(listed) => processes(&listed, stats),
    });
    findings.push(cgroups(root, sample));
    findings
}

fn namespace(path: &str, is_init: Option<bool>, needs_processes: bool) -> Finding {
    match (is_init, needs_processes) {
        (Some(true), _) => Finding::ok(Topic::Pids, path, "the host's PID namespace"),
        (Some(false), true) => {
            let message = "not the host's PID namespace: the driver hides the processes of other \
                           containers, so there are no process series and no container is reported idle";
            Finding::failure(Topic::Pids, path, message).with_remedy("set hostPID: true")
        }
        (Some(false), false) => {
            let message =
                "not the host's PID namespace; no process series are selected, so none are missing";
            Finding::note(Topic::Pids, path, message)
        }
        (None, _) => {
            let message = "the PID namespace cannot be determined";
            Finding::warning(Topic::Pids, path, message).with_remedy(
                "set --procfs to a proc root of the exporter's own PID namespace, such as /proc",
            )
        }
    }
}

/// The number of processes that the proc root shows.
fn count_pids(root: &ProcRoot) -> usize {
    let entries = fs::read_dir(root.path()).into_iter().flatten().filter_map(Result::ok);
    let is_pid = |entry: &fs::DirEntry| {
        entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())
    };
    entries.filter(is_pid).count()
}

fn proc_root(path: &str, pids: usize, init: &Result<String, Discard>) -> Finding {
    let visible = format!("{} visible", count_noun(pids, "process"));
    match init {
        Ok(name) => Finding::ok(Topic::Pids, path, format!("{visible}; pid 1 is {name}")),
        Err(Discard::Denied | Discard::Gone) if pids > 0 => {
            let message = format!(
                "{visible}, but pid 1 is hidden: processes of other users may be hidden, too"
            );
            Finding::warning(Topic::Pids, path, message)
                .with_remedy("run as root, or mount proc without hidepid")
        }
        Err(_) => Finding::failure(Topic::Pids, path, format!("{visible}; not a proc root"))
            .with_remedy("set --procfs to the directory that contains <pid>/stat"),
    }
}

/// The processes that the driver lists on all GPUs.
#[derive(Default)]
struct ListedProcesses {
    processes: usize,
    /// Pids of pod processes among them.
    pod_pids: Vec<u32>,
    /// Stale entries of the lists, by reason.
    stale: BTreeMap<&'static str, usize>,
}

/// None if no GPU returned a process list.
fn listed(sample: &Sample) -> Option<ListedProcesses> {
    let mut listed = ListedProcesses::default();
    let devices = sample.gpus.iter().filter_map(|gpu| gpu.latest.as_ref()?.as_deref().ok());
    let parts = devices.flat_map(|device| &device.partitions);
    let listings: Vec<_> = parts.filter_map(|part| part.listing.as_ref().ok()).collect();
    if listings.is_empty() {
        return None;
    }
    for listing in listings {
        for process in &listing.processes {
            listed.processes += 1;
            let placement = process.location.as_deref();
            if matches!(placement, Ok(CgroupLocation::Pod(_)))
                && !listed.pod_pids.contains(&process.id.pid)
            {
                listed.pod_pids.push(process.id.pid);
            }
        }
        for residue in &listing.stale_entries {
            *listed.stale.entry(residue.reason.reason()).or_default() += 1;
        }
    }
    Some(listed)
}

fn processes(listed: &ListedProcesses, stats: &AttributionStats) -> Finding {
    let stale: usize = listed.stale.values().sum();
    if listed.processes + stale == 0 {
        return Finding::ok(Topic::Processes, LIST, "no process on any GPU");
    }
    let mut owners = BTreeMap::<OwnerKind, u64>::new();
    for ((_, owner), n) in &stats.attributed {
        *owners.entry(*owner).or_default() += n;
    }
    let of = |owner| owners.get(&owner).copied().unwrap_or_default();
    let non_pod = of(OwnerKind::ContainerWithoutPod);
    let mut message = format!(
        "{} listed on GPUs: {} of pods, {} of other containers, {} of the host",
        count_noun(listed.processes, "process"),
        of(OwnerKind::Container),
        non_pod,
        of(OwnerKind::Host)
    );
    for (reason, n) in &listed.stale {
        // Writing to a string does not fail.
        let _ = write!(message, "; {n} not published ({reason})");
    }
    let unresolved = unresolved(stats, non_pod);
    for (reason, n) in &unresolved {
        let _ = write!(message, "; {n} of unknown owner ({})", reason.label());
    }
    match unresolved.first() {
        None => Finding::ok(Topic::Processes, LIST, message),
        Some((reason, _)) => {
            Finding::warning(Topic::Processes, LIST, message).with_remedy(remedy(*reason))
        }
    }
}

/// Processes of unknown owner, by reason. For a grace period that is longer than the check, a process of a
/// container without a pod counts as unresolved, too; those are subtracted.
fn unresolved(stats: &AttributionStats, non_pod: u64) -> Vec<(Unresolved, u64)> {
    let in_grace = |reason| if reason == Unresolved::NoPod { non_pod } else { 0 };
    let count = |reason: Unresolved| stats.unresolved.get(&reason).copied();
    let problems = Unresolved::ALL.into_iter().filter(|reason| *reason != Unresolved::MpsServer);
    let counts = problems.filter_map(|reason| {
        let n = count(reason)?.saturating_sub(in_grace(reason));
        (n > 0).then_some((reason, n))
    });
    let mut counts: Vec<_> = counts.collect();
    counts.sort_by_key(|(reason, _)| reason.label());
    counts
}

fn remedy(reason: Unresolved) -> &'static str {
    match reason {
        Unresolved::Denied | Unresolved::Unreadable => {
            "run as root, and mount proc without hidepid"
        }
        Unresolved::Allocation => "the device allocations are unknown: see kubelet below",
        Unresolved::MpsServer => "none: its clients are listed instead",
        Unresolved::Exited | Unresolved::Invalid => {
            "the driver lists processes that the proc root does not contain: set hostPID: true, or wait \
             until the driver drops them"
        }
        Unresolved::Conflict
        | Unresolved::NoPod
        | Unresolved::Deleted
        | Unresolved::Ambiguous
        | Unresolved::NoContainer => {
            "the pods of this node are unknown: see api, rights, node and logs below"
        }
    }
}

/// The cgroups of pod processes on GPUs; if there are none, the exporter's own.
fn cgroups(root: &ProcRoot, sample: &Sample) -> Finding {
    let pids = listed(sample).unwrap_or_default().pod_pids;
    let texts = pids.iter().take(CGROUPS_MAX).filter_map(|pid| root.cgroup_text(*pid).ok());
    let form = texts.map(|text| CgroupVersion::detect(&text)).reduce(CgroupVersion::union);
    if let (Some(form), Some(pid)) = (form, pids.first()) {
        return cgroup_finding(&format!("{}/{pid}/cgroup", root.path().display()), form);
    }
    let path = root.path().join("self/cgroup");
    let own = match fs::read(&path) {
        Ok(text) => version(CgroupVersion::detect(&text)).to_owned(),
        Err(error) => error.to_string(),
    };
    let message = format!("{own}; the cgroup driver is unknown: no pod process is on a GPU");
    Finding::note(Topic::Cgroups, path.display().to_string(), message)
}

fn cgroup_finding(path: &str, form: CgroupVersion) -> Finding {
    let driver = match (form.systemd, form.cgroupfs) {
        (true, false) => "systemd",
        (false, true) => "cgroupfs",
        _ => "both systemd and cgroupfs",
    };
    Finding::ok(Topic::Cgroups, path, format!("{}, driver {driver}", version(form)))
}

fn version(form: CgroupVersion) -> &'static str {
    match (form.v1, form.v2) {
        (true, true) => "versions 1 and 2 (hybrid)",
        (true, false) => "version 1",
        (false, true) => "version 2",
        (false, false) => "no cgroup",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use crate::model::OwnerEvidence;

    #[test]
    fn container_pid_namespace_fails_only_if_process_series_are_selected() {
        assert_eq!(namespace("p", Some(true), true).verdict, Outcome::Ok);
        let hidden = namespace("p", Some(false), true);
        assert_eq!(
            (hidden.verdict, hidden.remedy.as_deref()),
            (Outcome::Failure, Some("set hostPID: true"))
        );
        assert_eq!(namespace("p", Some(false), false).verdict, Outcome::Note);
        assert_eq!(namespace("p", None, true).verdict, Outcome::Warning);
    }

    #[test]
    fn proc_root_is_checked_by_pid_1() {
        let message = |pids, name: &str| proc_root("/proc", pids, &Ok(name.to_owned())).message;
        assert_eq!(message(12, "systemd"), "12 processes visible; pid 1 is systemd");
        assert_eq!(message(1, "x"), "1 process visible; pid 1 is x");
        assert_eq!(proc_root("/proc", 1, &Err(Discard::Denied)).verdict, Outcome::Warning);
        assert_eq!(proc_root("/tmp", 0, &Err(Discard::Gone)).verdict, Outcome::Failure);
    }

    #[test]
    fn processes_of_unknown_owner_are_a_warning() {
        let mut stats = AttributionStats::default();
        assert_eq!(processes(&ListedProcesses::default(), &stats).verdict, Outcome::Ok);
        let listed = ListedProcesses { processes: 3, ..ListedProcesses::default() };
        stats.attributed.insert((OwnerEvidence::Cgroup, OwnerKind::Container), 2);
        assert_eq!(processes(&listed, &stats).verdict, Outcome::Ok);
        stats.unresolved.insert(Unresolved::NoPod, 1);
        let finding = processes(&listed, &stats);
        assert_eq!(
            finding.message,
            "3 processes listed on GPUs: 2 of pods, 0 of other containers, 0 of the host; 1 of unknown \
             owner (no_pod)"
        );
        assert!(finding.remedy.unwrap().contains("rights"));
        stats.attributed.insert((OwnerEvidence::Cgroup, OwnerKind::ContainerWithoutPod), 1);
        assert_eq!(processes(&listed, &stats).verdict, Outcome::Ok, "a container without a pod");
    }

    #[test]
    fn cgroup_finding_names_version_and_driver() {
        let none = CgroupVersion::default();
        let message = |form| cgroup_finding("p", form).message;
        assert_eq!(
            message(CgroupVersion { v2: true, systemd: true, ..none }),
            "version 2, driver systemd"
        );
        assert_eq!(
            message(CgroupVersion { v1: true, cgroupfs: true, ..none }),
            "version 1, driver cgroupfs"
        );
        let mixed = CgroupVersion { v1: true, v2: true, systemd: true, cgroupfs: true };
        assert_eq!(message(mixed), "versions 1 and 2 (hybrid), driver both systemd and cgroupfs");
    }
}
