//! Contents of the files of a proc root, in the format of the kernel.

use crate::numeric::floor_u64;

/// Uptime of the machine at world time 0, in seconds.
pub(super) const INITIAL_UPTIME: f64 = 3_600.0;
/// Age in seconds at world time 0 of processes without a start time.
const INITIAL_AGE: f64 = 600.0;
/// Clock ticks per second.
const USER_HZ: f64 = 100.0;
/// Longest process name that the kernel keeps, in bytes.
const MAX_NAME: usize = 15;

/// Start time of a process that starts at world time `start`, in clock ticks since boot.
pub(super) fn start_ticks(start: f64) -> u64 {
    floor_u64((INITIAL_UPTIME + start.max(-INITIAL_AGE)) * USER_HZ)
}

/// The process name, truncated as the kernel does it.
pub(super) fn comm(name: &str) -> &str {
    let end = (0..=MAX_NAME.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
    name.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// `/proc/<pid>/stat`, 52 fields; `start` is in clock ticks since boot.
pub(super) fn pid_stat(pid: u32, name: &str, state: char, start: u64) -> String {
    let (size, resident) = if state == 'Z' { (0, 0) } else { (8_589_934_592_u64, 262_144_u64) };
    let comm = comm(name);
    let identity = format!("{pid} ({comm}) {state} 1 {pid} {pid} 0 -1 4194560");
    let times = "1000 0 0 0 100 50 0 0 20 0 1 0";
    let memory = format!("{size} {resident} 18446744073709551615 1 1 0 0 0");
    format!(
        "{identity} {times} {start} {memory} 0 0 4096 17442 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    )
}

/// The start time in the text of a `/proc/<pid>/stat`.
pub(super) fn start_in(stat: &str) -> Option<&str> {
    stat.rsplit_once(") ")?.1.split(' ').nth(19)
}

/// `/proc/<pid>/status`.
pub(super) fn pid_status(pid: u32, name: &str, state: char) -> String {
    let comm = comm(name);
    let state_name = if state == 'Z' { "zombie" } else { "sleeping" };
    let head = format!(
        "Name:\t{comm}\nUmask:\t0022\nState:\t{state} ({state_name})\nTgid:\t{pid}\nNgid:\t0\nPid:\t{pid}\n\
         PPid:\t1\nTracerPid:\t0\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t64\nGroups:\t0 \n\
         NStgid:\t{pid}\nNSpid:\t{pid}\nNSpgid:\t{pid}\nNSsid:\t{pid}\n"
    );
    let memory = "VmPeak:\t 8388608 kB\nVmSize:\t 8388608 kB\nVmLck:\t       0 kB\n\
                  VmPin:\t       0 kB\nVmHWM:\t 1048576 kB\nVmRSS:\t 1048576 kB\n\
                  RssAnon:\t 1048576 kB\nRssFile:\t       0 kB\nRssShmem:\t       0 kB\n\
                  VmData:\t 1048576 kB\nVmStk:\t     132 kB\nVmExe:\t       4 kB\n\
                  VmLib:\t   16384 kB\nVmPTE:\t    2048 kB\nVmSwap:\t       0 kB\n";
    let tail = "Threads:\t1\nSigQ:\t0/127000\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n\
                SigBlk:\t0000000000000000\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000000\n\
                CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
                CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t0\n\
                Cpus_allowed:\tff\nCpus_allowed_list:\t0-7\nMems_allowed:\t1\n\
                Mems_allowed_list:\t0\nvoluntary_ctxt_switches:\t100\n\
                nonvoluntary_ctxt_switches:\t10\n";
    let memory = if state == 'Z' { "" } else { memory };
    format!("{head}{memory}{tail}")
}

/// `/proc/stat`; `boot` is the boot time in seconds since the Unix epoch.
pub(super) fn system_stat(boot: u64) -> String {
    let cpu = "1000 0 1000 1000000 100 0 10 0 0 0";
    format!(
        "cpu  {cpu}\ncpu0 {cpu}\nintr 1000\nctxt 100000\nbtime {boot}\nprocesses 5000\n\
         procs_running 1\nprocs_blocked 0\nsoftirq 1000 1 1 1 1 1 1 1 1 1 1\n"
    )
}

/// `/proc/meminfo`.
pub(super) const MEMINFO: &str = "\
MemTotal:       1056763904 kB
MemFree:        901775360 kB
MemAvailable:   968884224 kB
Buffers:          524288 kB
Cached:         67108864 kB
SwapCached:            0 kB
Active:         33554432 kB
Inactive:       50331648 kB
SwapTotal:             0 kB
SwapFree:              0 kB
Dirty:               128 kB
Writeback:             0 kB
AnonPages:      16777216 kB
Mapped:          1048576 kB
Shmem:            131072 kB
Slab:            4194304 kB
SReclaimable:    3145728 kB
SUnreclaim:      1048576 kB
KernelStack:       32768 kB
PageTables:       131072 kB
CommitLimit:    528381952 kB
Committed_AS:   33554432 kB
VmallocTotal:   34359738367 kB
VmallocUsed:      262144 kB
VmallocChunk:          0 kB
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_stat_has_52_fields() {
        let stat = pid_stat(42, "a name (with) parens", 'S', 360_500);
        let (head, tail) = stat.rsplit_once(')').unwrap();
        assert_eq!(head, "42 (a name (with) p");
        let fields: Vec<_> = tail.split_whitespace().collect();
        assert_eq!(fields.len(), 50);
        assert_eq!((fields[0], start_in(&stat)), ("S", Some("360500")));
    }

    #[test]
    fn start_ticks_are_relative_to_boot() {
        assert_eq!(start_ticks(5.0), 360_500);
        assert_eq!(start_ticks(f64::NEG_INFINITY), 300_000);
    }

    #[test]
    fn long_name_is_truncated_at_a_character_boundary() {
        assert_eq!(comm("tritonserver-with-a-long-name"), "tritonserver-wi");
        assert_eq!(comm("ααααααααα"), "ααααααα");
    }
}
