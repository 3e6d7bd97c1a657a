//! Names of pods and containers from the log directories.

use std::io;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task;
use tokio::time::timeout;

use super::Sources;
use super::channels::PodLogNames;
use crate::clock::Clock;
use crate::host::pod_logs::{self, PodLogsError};
use crate::kube::source::{FailureReason, HealthTracker, SourceState};
use crate::model::Problem;
use crate::policy;

/// The name of this source in logs and labels.
pub(super) const SOURCE: &str = "pod_logs";

/// Reads the log directories, and publishes the names and the health of this source. It has no health if the
/// directories, which are optional, were not there when they were first read.
pub(super) struct PodLogReader {
    pub(super) sources: Arc<Sources>,
    pub(super) clock: Clock,
    pub(super) names: watch::Sender<Arc<PodLogNames>>,
    pub(super) health: watch::Sender<Option<HealthTracker>>,
}

impl PodLogReader {
    /// Reads the names periodically and when `refresh` is notified.
    pub(super) async fn run(self, refresh: Arc<Notify>) {
        let mut health = HealthTracker::new(SOURCE);
        while !self.names.is_closed() {
            let read = self.read(&mut health).await;
            let now = self.clock.now().mono;
            match read {
                Some(Ok(names)) => {
                    if names.pods.is_some() || names.containers.is_some() {
                        health.record_success(now);
                    } else if health.last_success.is_some() {
                        let problem = Problem::without_remedy("the log directories were removed");
                        health.record_failure(FailureReason::Absent, &problem, now);
                    }
                    self.names.send_replace(Arc::new(names));
                }
                Some(Err(error)) => health.record_failure(failure(&error), &error.problem(), now),
                None => {}
            }
            self.publish(&health);
            tokio::time::sleep(policy::POD_LOGS_PAUSE).await;
            let _ = timeout(policy::POD_LOGS_EVERY, refresh.notified()).await;
        }
    }

    /// One read, however long it takes; `None` if the reading thread panicked, which is on standard error.
    async fn read(&self, health: &mut HealthTracker) -> Option<Result<PodLogNames, PodLogsError>> {
        let sources = Arc::clone(&self.sources);
        // The directories may be on a mount that hangs: other sources do not wait for it.
        let mut reading = task::spawn_blocking(move || read(&sources));
        loop {
            if let Ok(read) = timeout(policy::SOURCE_DOWN_AFTER, &mut reading).await {
                return read.ok();
            }
            let problem = Problem::new(
                "the file system of the log directories does not respond",
                "check the mounts of --pod-logs and --container-logs",
            );
            health.record_failure(FailureReason::Timeout, &problem, self.clock.now().mono);
            self.publish(health);
        }
    }

    fn publish(&self, health: &HealthTracker) {
        let is_used = health.state != SourceState::Starting;
        self.health.send_replace(is_used.then(|| health.clone()));
    }
}

fn read(sources: &Sources) -> Result<PodLogNames, PodLogsError> {
    Ok(PodLogNames {
        pods: pod_logs::read_pods(&sources.pod_logs)?,
        containers: pod_logs::read_containers(&sources.container_logs)?,
    })
}

fn failure(error: &PodLogsError) -> FailureReason {
    match error {
        PodLogsError::Unreadable { error, .. }
            if error.kind() == io::ErrorKind::PermissionDenied =>
        {
            FailureReason::Denied
        }
        PodLogsError::Unreadable { .. } => FailureReason::Config,
        PodLogsError::TooManyEntries { .. } => FailureReason::TooLarge,
    }
}
