//! The tasks of the sources.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{self, Runtime};
use tokio::sync::{Notify, watch};

use super::Sources;
use super::channels::{DraChannels, SourceChannels};
use super::pod_log_names;
use crate::clock::Clock;
use crate::kube::address::Address;
use crate::kube::kubelet_pods::{self, KubeletPodPoller};
use crate::kube::node_label::{LabelRequirement, NodeLabelState, NodeLabelWatch};
use crate::kube::pod_resources::{PodResourcesPoller, PodResourcesState, PollTimings};
use crate::kube::pods::PodSnapshot;
use crate::kube::resource_claims::{ResourceClaimReader, ResourceClaimsState};
use crate::kube::resource_slices::{ResourceSlicePoller, ResourceSlicesState};
use crate::kube::watch::{self as pod_watch, PodWatch};
use crate::policy;

/// Starts a task for each of `sources`, and the thread that runs them.
///
/// # Errors
/// The OS error, if the runtime or its thread cannot be created.
pub(super) fn start(sources: Sources, clock: Clock) -> io::Result<SourceChannels> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let refresh = Arc::<Notify>::default();
    let refresh_logs = Arc::<Notify>::default();
    let (publish, logs) = watch::channel(Arc::default());
    let channels = SourceChannels {
        pods: start_pods(&runtime, &sources, clock, &refresh),
        pod_resources: start_pod_resources(&runtime, &sources, clock, &refresh),
        dra: start_dra(&runtime, &sources, clock),
        label: start_label(&runtime, &sources, clock),
        logs,
        refresh,
        refresh_logs,
    };
    runtime.spawn(pod_log_names::run(sources, publish, Arc::clone(&channels.refresh_logs)));
    thread::Builder::new().name("cluster".to_owned()).spawn(move || {
        // The tasks do not end; the thread ends with the process.
        runtime.block_on(std::future::pending::<()>());
    })?;
    Ok(channels)
}

/// Reads the pods from the API server or the kubelet. `changed` is notified when they change.
fn start_pods(
    runtime: &Runtime,
    sources: &Sources,
    clock: Clock,
    changed: &Arc<Notify>,
) -> Option<watch::Receiver<PodSnapshot>> {
    let (address, node) = sources.pods.clone()?;
    let (timings, changed) = (sources.timings.clone(), Arc::clone(changed));
    if let Address::Kubelet(kubelet) = address {
        let (publish, pods) = watch::channel(PodSnapshot::unknown(kubelet_pods::SOURCE));
        let interval = policy::KUBELET_PODS_EVERY;
        let poller = KubeletPodPoller { kubelet, node, interval, timings, clock };
        runtime.spawn(poller.run(publish, changed));
        return Some(pods);
    }
    let (publish, pods) = watch::channel(PodSnapshot::unknown(pod_watch::SOURCE));
    let startup_timeout = sources.startup_timeout;
    runtime.spawn(async move {
        wait_for_kubeconfig(&address, startup_timeout).await;
        PodWatch { address, node, timings, clock }.run(publish, changed).await;
    });
    Some(pods)
}

fn start_pod_resources(
    runtime: &Runtime,
    sources: &Sources,
    clock: Clock,
    refresh: &Arc<Notify>,
) -> Option<watch::Receiver<PodResourcesState>> {
    let socket = sources.pod_resources.clone()?;
    let (publish, state) = watch::channel(PodResourcesState::unknown());
    let (refresh, startup_timeout) = (Arc::clone(refresh), sources.startup_timeout);
    runtime.spawn(async move {
        wait_for_file(&socket, startup_timeout).await;
        let timings = PollTimings::default();
        PodResourcesPoller { socket, timings, clock }.run(publish, refresh).await;
    });
    Some(state)
}

/// Reads resource slices and claims, which only an API server has.
fn start_dra(runtime: &Runtime, sources: &Sources, clock: Clock) -> Option<DraChannels> {
    let (address, node) = sources.pods.clone()?;
    if let Address::Kubelet(_) = address {
        return None;
    }
    let (publish_slices, slices) = watch::channel(ResourceSlicesState::unknown());
    let (publish_claims, claims) = watch::channel(ResourceClaimsState::unknown());
    let (needed_devices, devices) = watch::channel(Arc::default());
    let (needed_claims, claim_requests) = watch::channel(Arc::default());
    let timings = sources.timings.clone();
    let reader = ResourceClaimReader {
        address: address.clone(),
        refused_backoff_max: policy::RESOURCE_CLAIM_REFUSED_BACKOFF_MAX,
        timings: timings.clone(),
        clock,
    };
    let (interval, min_interval) = (policy::RESOURCE_SLICES_EVERY, policy::RESOURCE_SLICES_PAUSE);
    let poller = ResourceSlicePoller { address, node, interval, min_interval, timings, clock };
    runtime.spawn(poller.run(publish_slices, devices));
    runtime.spawn(reader.run(publish_claims, claim_requests));
    Some(DraChannels { slices, claims, needed_devices, needed_claims })
}

/// Watches the label of the node, which only an API server has.
fn start_label(
    runtime: &Runtime,
    sources: &Sources,
    clock: Clock,
) -> Option<(LabelRequirement, watch::Receiver<NodeLabelState>)> {
    let (address, node) = sources.pods.clone()?;
    if let Address::Kubelet(_) = address {
        return None;
    }
    let required = sources.release_label.clone()?;
    let (publish, state) = watch::channel(NodeLabelState::unknown());
    let (label, timings) = (required.clone(), sources.timings.clone());
    let startup_timeout = sources.startup_timeout;
    runtime.spawn(async move {
        wait_for_kubeconfig(&address, startup_timeout).await;
        NodeLabelWatch { address, node, label, timings, clock }.run(publish).await;
    });
    Some((required, state))
}

/// Waits for the kubeconfig file of a mock cluster, which appears once its API server listens.
async fn wait_for_kubeconfig(address: &Address, timeout: Duration) {
    if let Address::Kubeconfig(file) = address {
        wait_for_file(file, timeout).await;
    }
}

/// Waits until a file exists, at most for `timeout`.
async fn wait_for_file(file: &Path, timeout: Duration) {
    let _ = tokio::time::timeout(timeout, async {
        while !file.exists() {
            tokio::time::sleep(policy::MOCK_STARTUP_POLL).await;
        }
    })
    .await;
}
