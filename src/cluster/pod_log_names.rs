//! Pod and container names from the kubelet's log directories.

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task;
use tokio::time::timeout;

use super::Sources;
use super::channels::PodLogNames;
use crate::host::pod_logs::{self, PodLogsError};
use crate::policy;

fn read(sources: &Sources) -> Result<PodLogNames, PodLogsError> {
    Ok(PodLogNames {
        pods: pod_logs::read_pods(&sources.pod_logs)?,
        containers: pod_logs::read_containers(&sources.container_logs)?,
    })
}

/// Publishes the names periodically and when `refresh` is notified.
pub(super) async fn run(
    sources: Sources,
    publish: watch::Sender<Arc<PodLogNames>>,
    refresh: Arc<Notify>,
) {
    let sources = Arc::new(sources);
    let mut warned = false;
    while !publish.is_closed() {
        let directories = Arc::clone(&sources);
        // The directories may be on a mount that hangs: other sources do not wait for it.
        let mut reading = task::spawn_blocking(move || read(&directories));
        let read = if let Ok(read) = timeout(policy::SOURCE_DOWN_AFTER, &mut reading).await {
            read
        } else {
            tracing::warn!("the pod log directories do not respond; the last names stay in use");
            reading.await
        };
        match read {
            Ok(Ok(names)) => {
                warned = false;
                publish.send_replace(Arc::new(names));
            }
            Ok(Err(error)) => {
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!("cannot read the pod log directories: {error}");
                }
            }
            // The panic of the reading thread is on standard error.
            Err(_) => {}
        }
        tokio::time::sleep(policy::POD_LOGS_PAUSE).await;
        let _ = timeout(policy::POD_LOGS_EVERY, refresh.notified()).await;
    }
}
