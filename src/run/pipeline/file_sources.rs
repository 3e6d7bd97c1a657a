//! Health of the files that are read while the exporter runs.

use std::time::Duration;

use super::Pipeline;
use crate::snapshot::SourceHealth;

impl Pipeline {
    /// Health of these files at `now` (monotonic).
    pub(super) fn file_sources(&self, now: Duration) -> impl Iterator<Item = SourceHealth> {
        let counters = self.counters.as_ref();
        let counters = counters.map(|file| ("counters", file.is_up(), Some(file.age(now))));
        let jobs = self.jobs.as_ref().map(|jobs| ("hpc_jobs", jobs.is_up(), jobs.age(now)));
        let release = self.requests.file_health(now);
        let release = release.map(|(is_up, age)| ("release_file", is_up, age));
        let web = self
            .web_config_health
            .last()
            .map(|last| ("web_config", last.is_up, Some(now.saturating_sub(last.read_at))));
        let all = counters.into_iter().chain(jobs).chain(release).chain(web);
        all.map(|(name, up, age)| SourceHealth {
            name,
            up,
            settled: true,
            problem: None,
            age,
            failures: Vec::new(),
            skipped: Vec::new(),
        })
    }
}
