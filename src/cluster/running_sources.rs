//! The tasks of the sources.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{self, Runtime};
use tokio::sync::{Notify, watch};

use super::Sources;
use super::channels::{DraChannels, SourceChannels};
use super::pod_log_names::{self, PodLogReader};
use crate::clock::Clock;
use crate::kube::address::Address;
use crate::kube::kubelet_pods::KubeletPodPoller;
use crate::kube::node_label::{LabelRequirement, NodeLabelState, NodeLabelWatch};
use crate::kube::pod_resources::{PodResourcesPoller, PodResourcesState, PollTimings};
use crate::kube::pod_sources::{OtherPodSource, PodSources};
use crate::kube::pods::PodSnapshot;
use crate::kube::pods_api::PodsApi;
use crate::kube::resource_claims::{ResourceClaimReader, ResourceClaimsState};
use crate::kube::resource_slices::{ResourceSlicePoller, ResourceSlicesState};
use crate::kube::source::HealthTracker;
use crate::kube::watch::PodWatch;
use crate::policy;
use crate::worker;

/// Starts a task for each of `sources`, and the thread that runs them.
///
/// # Errors
/// The OS error, if the runtime or its thread cannot be created.
pub(super) fn start(sources: Sources, clock: Clock) -> io::Result<SourceChannels> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let refresh = Arc::<Notify>::default();
    let refresh_logs = Arc::<Notify>::default();
    let (names, logs) = watch::channel(Arc::default());
    let (health, logs_health) = watch::channel(Some(HealthTracker::new(pod_log_names::SOURCE)));
    let (pods, pods_api) = start_pods(&runtime, &sources, clock, &refresh).unzip();
    let channels = SourceChannels {
        pods,
        pods_api,
        pod_resources: start_pod_resources(&runtime, &sources, clock, &refresh),
        dra: start_dra(&runtime, &sources, clock),
        label: start_label(&runtime, &sources, clock),
        logs,
        logs_health: Some(logs_health),
        refresh,
        refresh_logs,
    };
    let (logs, startup_timeout) = (sources.pod_logs.clone(), sources.startup_timeout);
    let reader = PodLogReader { sources: Arc::new(sources), clock, names, health };
    let refresh = Arc::clone(&channels.refresh_logs);
    runtime.spawn(async move {
        // A mock cluster creates the directories when it starts.
        wait_for_any(&[logs], startup_timeout).await;
        reader.run(refresh).await;
    });
    worker::spawn("cluster".to_owned(), move || {
        // The tasks do not end; the thread ends with the process.
        runtime.block_on(std::future::pending::<()>());
    })?;
    Ok(channels)
}

type PodReceivers = (watch::Receiver<PodSnapshot>, watch::Receiver<Option<HealthTracker>>);

/// Reads the pods from the first source that responds. `changed` is notified when they change.
fn start_pods(
    runtime: &Runtime,
    sources: &Sources,
    clock: Clock,
    changed: &Arc<Notify>,
) -> Option<PodReceivers> {
    let timings = sources.timings.clone();
    let (mut files, mut other, mut node, mut api) = (Vec::new(), None, None, None);
    if let Some((address, name)) = sources.pods.clone() {
        node = Some(name.clone());
        if let Address::Kubeconfig(file) = &address {
            files.push(file.clone());
            api = Some(address.clone());
        }
        let timings = timings.clone();
        other = Some(match address {
            Address::Kubelet(kubelet) => {
                let interval = policy::KUBELET_PODS_EVERY;
                OtherPodSource::Kubelet(KubeletPodPoller { kubelet, interval, timings })
            }
            address @ (Address::InCluster | Address::Kubeconfig(_)) => {
                OtherPodSource::Api(PodWatch { address, node: name, timings })
            }
        });
    }
    let pods_api = sources.pods_api.clone().map(|socket| {
        files.push(socket.clone());
        PodsApi { socket, timings, intervals: sources.intervals }
    });
    let sources_of_pods = PodSources { node, pods_api, other, clock };
    let (publish, pods) = watch::channel(PodSnapshot::unknown(sources_of_pods.first()?));
    let (publish_standby, standby) = watch::channel(None);
    let (changed, startup_timeout) = (Arc::clone(changed), sources.startup_timeout);
    runtime.spawn(async move {
        // The servers of a mock cluster start one after the other, the Pods API first.
        wait_for_any(&files, startup_timeout).await;
        if let Some(address) = api {
            let timeout = startup_timeout.min(policy::MOCK_API_STARTUP_TIMEOUT);
            wait_for_kubeconfig(&address, timeout).await;
        }
        sources_of_pods.run(publish, publish_standby, changed).await;
    });
    Some((pods, standby))
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
        wait_for_any(std::slice::from_ref(&socket), startup_timeout).await;
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
        wait_for_any(std::slice::from_ref(file), timeout).await;
    }
}

/// Waits until one of the files exists, at most for `timeout`; only those of a mock cluster are waited for.
async fn wait_for_any(files: &[PathBuf], timeout: Duration) {
    if timeout.is_zero() {
        return;
    }
    let _ = tokio::time::timeout(timeout, async {
        while !files.iter().any(|file| file.exists()) {
            tokio::time::sleep(policy::MOCK_STARTUP_POLL).await;
        }
    })
    .await;
}
