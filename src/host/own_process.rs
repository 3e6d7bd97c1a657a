//! Resources of the exporter's own process, from `/proc/self`.

use procfs::process::{LimitValue, Process};
use procfs::{boot_time_secs, page_size, ticks_per_second};

/// Resources of the exporter's own process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OwnProcessStats {
    /// CPU time, user and system, seconds.
    pub cpu_seconds: f64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Virtual memory, bytes.
    pub virtual_bytes: u64,
    /// Start time, seconds since the Unix epoch.
    pub start_time: Option<f64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Maximum number of open file descriptors; none without a limit.
    pub max_fds: Option<u64>,
}

/// Reads the resources of the exporter's own process.
#[derive(Debug)]
pub struct OwnProcessReader {
    /// Time at which the machine started, seconds since the Unix epoch.
    boot_time: Option<u64>,
}

impl OwnProcessReader {
    /// Reads what does not change.
    #[must_use]
    pub fn new() -> Self {
        Self { boot_time: boot_time_secs().ok() }
    }

    /// The present resources; `None` if `/proc/self` cannot be read.
    #[must_use]
    pub fn read(&self) -> Option<OwnProcessStats> {
        let process = Process::myself().ok()?;
        let stat = process.stat().ok()?;
        let seconds = |ticks: u64| to_f64(ticks) / to_f64(ticks_per_second());
        let max_fds = process.limits().ok().map(|limits| limits.max_open_files.soft_limit);
        Some(OwnProcessStats {
            cpu_seconds: seconds(stat.utime + stat.stime),
            resident_bytes: stat.rss.saturating_mul(page_size()),
            virtual_bytes: stat.vsize,
            start_time: self.boot_time.map(|boot| to_f64(boot) + seconds(stat.starttime)),
            open_fds: process.fd_count().ok().and_then(|count| u64::try_from(count).ok()),
            max_fds: max_fds.and_then(|limit| match limit {
                LimitValue::Value(count) => Some(count),
                LimitValue::Unlimited => None,
            }),
        })
    }
}

impl Default for OwnProcessReader {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(clippy::cast_precision_loss, reason = "an exported sample is an f64")]
fn to_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_read() {
        let stats = OwnProcessReader::new().read().unwrap();
        assert!(stats.resident_bytes > 100_000 && stats.virtual_bytes >= stats.resident_bytes);
        assert!(stats.open_fds.unwrap() >= 3, "{stats:?}");
        assert!(stats.start_time.unwrap() > 1e9, "{stats:?}");
        assert!(stats.max_fds.is_none_or(|limit| limit >= 3), "{stats:?}");
    }
}
