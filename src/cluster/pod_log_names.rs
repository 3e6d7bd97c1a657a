//! Pod and container names from the kubelet's log directories.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

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
    let mut warned = false;
    while !publish.is_closed() {
        match read(&sources) {
            Ok(names) => {
                warned = false;
                publish.send_replace(Arc::new(names));
            }
            Err(error) => {
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!("cannot read the pod log directories: {error}");
                }
            }
        }
        tokio::time::sleep(policy::POD_LOGS_PAUSE).await;
        let _ = tokio::time::timeout(policy::POD_LOGS_EVERY, refresh.notified()).await;
    }
}
