//! The processes that the driver lists, as `/proc` has them.

use std::collections::BTreeSet;

use super::names::Names;
use super::toml::quoted;
use crate::host::{ProcRoot, ProcessIdentity};
use crate::model::Discard;
use crate::policy::PID_MAX;

/// A process.
pub struct ProcessRecord {
    /// Its PID.
    pub pid: u32,
    /// Its name and state, or why its files cannot be read.
    pub identity: Result<ProcessIdentity, Discard>,
    /// The content of its file `cgroup`.
    pub cgroup: Result<String, Discard>,
}

/// Reads the processes with these PIDs. Those that have exited are left out.
#[must_use]
pub fn read(root: &ProcRoot, pids: &BTreeSet<u32>) -> Vec<ProcessRecord> {
    let read = |pid| ProcessRecord {
        pid,
        identity: root.identify(pid),
        cgroup: root.cgroup_text(pid).map(|text| String::from_utf8_lossy(&text).into_owned()),
    };
    let exists = |process: &ProcessRecord| !matches!(process.identity, Err(Discard::Gone));
    pids.iter().copied().map(read).filter(exists).collect()
}

/// The PIDs in the answers of a driver: the first numbers of the rows of process lists.
#[must_use]
pub fn listed_pids(driver: &str) -> BTreeSet<u32> {
    let lists = driver.lines().filter_map(|line| line.split_once(" = "));
    let lists = lists.filter(|(function, _)| function.contains("Process"));
    let rows = lists.flat_map(|(_, rows)| rows.split('[').filter(|row| !row.is_empty()));
    let pid = |row: &str| row.split([',', ']']).next()?.parse().ok();
    rows.filter_map(pid).filter(|pid| (1..=PID_MAX).contains(pid)).collect()
}

impl ProcessRecord {
    /// The table of the process in a scenario.
    pub(super) fn to_toml(&self, names: &mut Names) -> Vec<String> {
        let name = self.identity.as_ref().map_or("unknown", |identity| &*identity.name);
        let mut lines = vec![
            "[[process]]".to_owned(),
            format!("pid = {}", self.pid),
            format!("name = {}", quoted(&names.process(name))),
            "gpus = []".to_owned(),
            "memory = \"unavailable\"".to_owned(),
        ];
        if let Ok(text) = &self.cgroup {
            lines.push(format!("cgroup = {}", quoted(&names.cgroup(text.trim_end()))));
        }
        if self.identity.as_ref().is_ok_and(|identity| identity.zombie) {
            lines.push("zombie = { from = 0 }".to_owned());
        }
        if self.identity.is_err() {
            lines.push("proc = \"unreadable\"".to_owned());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_are_those_of_process_lists() {
        let driver = "nvmlDeviceGetComputeRunningProcesses_v3 = [[7, 1, -1], [9, 2, -1]]\n\
                      nvmlDeviceGetProcessUtilization = [[8, 50]]\n\
                      nvmlDeviceGetMPSComputeRunningProcesses_v3 = []\n\
                      nvmlDeviceGetSamples = [[3]]\n";
        assert_eq!(listed_pids(driver), [7, 8, 9].into());
    }
}
