//! Watches pods and device allocations on a dedicated thread.
//!
//! Each source is a task that publishes its state, and keeps the last one while the source is down.
//! The sampling thread only reads the newest state: no cycle waits for the cluster.

pub mod channels;
pub mod sources;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{Notify, watch};

pub use self::channels::{PodLogNames, SourceChannels};
pub use self::sources::Sources;
use crate::attribute::allocation_table::{AllocationTable, DeviceAllocation};
use crate::attribute::family::AllocationState;
use crate::attribute::owner::{ContainerIdentity, OwnerResolver};
use crate::clock::Clock;
use crate::host::pod_logs;
use crate::kube;
use crate::kube::allocation::{
    AllocatableGpu, AllocatableMig, AllocationResult, MemoryUnit, resolve_allocations,
};
use crate::kube::api::Address;
use crate::kube::assignments::{Assignments, SliceTable};
use crate::kube::kubelet_pods::KubeletPodPoller;
use crate::kube::node_label::{self, NodeLabelWatch};
use crate::kube::pod_resources::{self, PodResourcesPoller, PodResourcesState};
use crate::kube::pods::PodSnapshot;
use crate::kube::resource_slices::{self, ResourceSlicePoller};
use crate::kube::retention::AllocationRetention;
use crate::kube::source::{FailureReason, HealthTracker, SourceState};
use crate::kube::watch::PodWatch;
use crate::nvml::probe::mebibytes;
use crate::policy;
use crate::sample::Sample;
use crate::sample::device::DeviceSample;
use crate::sample::partition::PartitionSample;
use crate::snapshot::SourceHealth;

/// Joins the newest states of all sources.
pub struct Cluster {
    channels: SourceChannels,
    started_at: Duration,
    memory_unit: MemoryUnit,
    retention: AllocationRetention,
    cache: Option<AllocationCache>,
}

/// The allocation table and its inputs. It is resolved again when an input changes.
struct AllocationCache {
    pods: Option<PodSnapshot>,
    assignments: Arc<Assignments>,
    slices: Option<Arc<SliceTable>>,
    devices: Vec<AllocatableGpu>,
    /// Whether it contains unconfirmed allocations, which expire: it is then resolved every cycle.
    expires: bool,
    table: AllocationTable,
    problems: BTreeMap<&'static str, u64>,
}

/// State of the cluster in one cycle.
pub struct ClusterState {
    pods: Option<PodSnapshot>,
    logs: Arc<PodLogNames>,
    allocations: LatestAllocations,
    /// Health of the sources.
    pub sources: Vec<SourceHealth>,
    /// Number of allocations that were not accepted, by [`AllocationProblem::label`].
    ///
    /// [`AllocationProblem::label`]: crate::kube::problem::AllocationProblem::label
    pub problems: BTreeMap<&'static str, u64>,
}

enum LatestAllocations {
    NoSource,
    Pending,
    Table(AllocationTable),
}

impl Cluster {
    /// Starts the tasks and the thread of `sources`.
    ///
    /// # Errors
    /// The OS error, if the runtime or its thread cannot be created.
    pub fn start(sources: Sources, clock: Clock) -> io::Result<Self> {
        let (refresh, refresh_logs, refresh_slices) =
            (Arc::<Notify>::default(), Arc::<Notify>::default(), Arc::<Notify>::default());
        let memory_unit = sources.memory_unit;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| runtime.spawn(task);

        let startup_timeout = sources.startup_timeout;
        let pods = sources.pods.clone().map(|(address, node)| {
            let source = match &address {
                Address::Kubelet { .. } => kube::kubelet_pods::SOURCE,
                Address::InCluster
                | Address::Kubeconfig(_)
                | Address::Url(_)
                | Address::Exporter { .. } => kube::watch::SOURCE,
            };
            let (publish, pods) = watch::channel(PodSnapshot::unknown(source));
            let (timings, changed) = (sources.timings.clone(), Arc::clone(&refresh));
            spawn(if let Address::Kubelet { .. } = address {
                let interval = policy::KUBELET_PODS_EVERY;
                Box::pin(
                    KubeletPodPoller { address, node, interval, timings, clock }
                        .run(publish, changed),
                )
            } else {
                Box::pin(async move {
                    if let Address::Kubeconfig(file) = &address {
                        wait_for_file(file, startup_timeout).await;
                    }
                    PodWatch { address, node, timings, clock }.run(publish, changed).await;
                })
            });
            pods
        });
        let pod_resources = sources.pod_resources.clone().map(|socket| {
            let (publish, state) = watch::channel(PodResourcesState::unknown());
            let (timings, refresh) = (pod_resources::PollTimings::default(), Arc::clone(&refresh));
            spawn(Box::pin(async move {
                wait_for_file(&socket, startup_timeout).await;
                PodResourcesPoller { socket, timings, clock }.run(publish, refresh).await;
            }));
            state
        });
        let slices = sources.pods.clone().map(|(address, node)| {
            let (publish, slices) = watch::channel(resource_slices::ResourceSlicesState::unknown());
            let timings = sources.timings.clone();
            let refresh = Arc::clone(&refresh_slices);
            let (interval, min_interval) =
                (policy::RESOURCE_SLICES_EVERY, policy::RESOURCE_SLICES_PAUSE);
            let poller =
                ResourceSlicePoller { address, node, interval, min_interval, timings, clock };
            spawn(Box::pin(poller.run(publish, refresh)));
            slices
        });
        let label = sources.pods.clone().zip(sources.release_label.clone());
        let label = label.filter(|((address, _), _)| !matches!(address, Address::Kubelet { .. }));
        let label = label.map(|((address, node), label)| {
            let (publish, state) = watch::channel(node_label::NodeLabelState::unknown());
            let (timings, required) = (sources.timings.clone(), label.clone());
            spawn(Box::pin(async move {
                if let Address::Kubeconfig(file) = &address {
                    wait_for_file(file, startup_timeout).await;
                }
                NodeLabelWatch { address, node, label: required, timings, clock }
                    .run(publish)
                    .await;
            }));
            (label, state)
        });
        let (publish, logs) = watch::channel(Arc::new(PodLogNames::default()));
        spawn(Box::pin(read_logs(sources, publish, Arc::clone(&refresh_logs))));

        thread::Builder::new().name("cluster".to_owned()).spawn(move || {
            // The tasks do not end; the thread ends with the process.
            runtime.block_on(std::future::pending::<()>());
        })?;
        let channels = SourceChannels {
            pods,
            pod_resources,
            slices,
            label,
            logs,
            refresh,
            refresh_logs,
            refresh_slices,
        };
        Ok(Self::new(channels, memory_unit, clock.now().mono))
    }
}

impl Cluster {
    /// Joins what `channels` receive. `memory_unit` is the unit of `aliyun.com/gpu-mem`; the sources
    /// were started at `started_at` (monotonic).
    #[must_use]
    pub fn new(channels: SourceChannels, memory_unit: MemoryUnit, started_at: Duration) -> Self {
        let retention = AllocationRetention::default();
        Self { channels, started_at, memory_unit, retention, cache: None }
    }

    /// The newest state, with the allocations of `devices`, for a cycle that began at `now`
    /// (monotonic). `needs_containers`: whether series of containers or processes are selected, and
    /// not only pod labels of devices.
    pub fn state(
        &mut self,
        devices: Vec<AllocatableGpu>,
        now: Duration,
        needs_containers: bool,
    ) -> ClusterState {
        let pods = self.channels.pods.as_ref().map(|pods| pods.borrow().clone());
        let pod_resources =
            self.channels.pod_resources.as_ref().map(|state| state.borrow().clone());
        let slices = self.channels.slices.as_ref().map(|slices| slices.borrow().clone());
        let label = self.channels.label.as_ref().map(|(_, state)| state.borrow().health.clone());
        // Not every cluster has these sources: they are reported after their first success.
        let optional = slices.as_ref().map(|state| state.health.clone()).into_iter().chain(label);
        let sources = (pods.iter().map(|pods| &pods.health))
            .chain(pod_resources.iter().map(|state| &state.health))
            .map(|health| source_health(health, now))
            .chain(optional.filter(|h| h.last_success.is_some()).map(|h| source_health(&h, now)))
            .collect();
        let allocations = match pod_resources {
            None => LatestAllocations::NoSource,
            Some(PodResourcesState { assignments: Some(assignments), .. }) => {
                let slices = slices.and_then(|state| state.slices);
                self.request_slices(&assignments, slices.as_deref());
                let as_of = assignments.requested_at;
                let is_fresh = now.saturating_sub(as_of) <= policy::ALLOCATION_MAX_AGE;
                let usable_pods = pods.clone().filter(|pods| needs_containers || !is_denied(pods));
                let table = self.allocation_table(usable_pods, assignments, slices, devices);
                LatestAllocations::Table(table.as_of(as_of, is_fresh))
            }
            // A kubelet that has not responded for this long is unavailable.
            Some(PodResourcesState { assignments: None, .. })
                if now.saturating_sub(self.started_at) > policy::KUBELET_STARTUP_TIMEOUT =>
            {
                LatestAllocations::NoSource
            }
            Some(PodResourcesState { assignments: None, .. }) => LatestAllocations::Pending,
        };
        let problems = match (&allocations, &self.cache) {
            (LatestAllocations::Table(_), Some(cache)) => cache.problems.clone(),
            _ => BTreeMap::new(),
        };
        let logs = Arc::clone(&self.channels.logs.borrow());
        ClusterState { pods, logs, allocations, sources, problems }
    }

    /// The watched label (`KEY=VALUE`), if the node has it at `now` (monotonic).
    #[must_use]
    pub fn release_label(&self, now: Duration) -> Option<Arc<str>> {
        let (label, state) = self.channels.label.as_ref()?;
        state.borrow().is_set(now).then(|| Arc::clone(&label.text))
    }

    /// Requests an early poll of the sources if an owner or allocation was `unresolved` in the last
    /// cycle.
    pub fn request_refresh(&self, unresolved: bool) {
        if unresolved {
            self.channels.refresh.notify_one();
            self.channels.refresh_logs.notify_one();
        }
    }

    /// Requests the resource slices if a claimed device is in none. Most clusters have no claims.
    fn request_slices(&self, assignments: &Assignments, slices: Option<&SliceTable>) {
        let mut claims = assignments.containers.iter().flat_map(|container| &container.claims);
        if claims.any(|claim| slices.is_none_or(|slices| slices.get(claim).is_none())) {
            self.channels.refresh_slices.notify_one();
        }
    }

    /// The allocation table, resolved again only if an input has changed.
    fn allocation_table(
        &mut self,
        pods: Option<PodSnapshot>,
        assignments: Arc<Assignments>,
        slices: Option<Arc<SliceTable>>,
        devices: Vec<AllocatableGpu>,
    ) -> AllocationTable {
        let is_current = |cache: &&AllocationCache| {
            let same_pods = match (&cache.pods, &pods) {
                (Some(cached), Some(current)) => cached.same_as(current),
                (cached, current) => cached.is_none() && current.is_none(),
            };
            same_pods
                && cache.assignments.same_content(&assignments)
                && cache.slices.as_ref().map(Arc::as_ptr) == slices.as_ref().map(Arc::as_ptr)
                && cache.devices == devices
                && !cache.expires
        };
        if let Some(cache) = self.cache.as_ref().filter(is_current) {
            return cache.table.clone();
        }
        let merged = self.retention.apply(&assignments, pods.as_ref());
        let expires = !merged.unconfirmed.is_empty();
        let result = resolve_allocations(
            &devices,
            &merged,
            pods.as_ref(),
            slices.as_deref(),
            self.memory_unit,
        );
        let problems = result.problems.clone();
        let table = build_table(result);
        self.cache = Some(AllocationCache {
            pods,
            assignments,
            slices,
            devices,
            expires,
            table: table.clone(),
            problems,
        });
        table
    }
}

impl ClusterState {
    /// Resolves owners at `now` (monotonic).
    #[must_use]
    pub fn owner_resolver(&self, now: Duration) -> OwnerResolver<'_> {
        OwnerResolver {
            now,
            pods: self.pods.as_ref(),
            logged_pods: self.logs.pods.as_ref(),
            logged_containers: self.logs.containers.as_ref(),
        }
    }

    /// The state of the allocations.
    #[must_use]
    pub fn allocation(&self) -> AllocationState<'_> {
        match &self.allocations {
            LatestAllocations::NoSource => {
                AllocationState::NoSource { in_cluster: self.pods.is_some() }
            }
            LatestAllocations::Pending => AllocationState::Pending,
            LatestAllocations::Table(table) => AllocationState::Known(table),
        }
    }
}

fn build_table(result: AllocationResult) -> AllocationTable {
    let allocations = result.allocations.into_iter().map(|allocation| DeviceAllocation {
        container: ContainerIdentity { pod: allocation.pod, container: allocation.container },
        device: allocation.device,
        mode: allocation.mode,
        memory: allocation.memory,
        compute: allocation.compute,
        replica: allocation.replica.map(|n| n.to_string()).unwrap_or_default().into(),
        claim: allocation.claim,
        confirmed: allocation.confirmed,
        running: allocation.running,
    });
    AllocationTable::new(
        allocations,
        result.uncertain_devices,
        result.node_uncertain,
        result.coverage,
    )
}

/// Whether the API server denies access and no list was ever received. Pod labels of devices then
/// use the names from the kubelet, as without an API server.
fn is_denied(pods: &PodSnapshot) -> bool {
    !pods.synced && pods.health.state == SourceState::Down(FailureReason::Denied)
}

fn source_health(health: &HealthTracker, now: Duration) -> SourceHealth {
    SourceHealth {
        name: health.source,
        up: health.state == SourceState::Up,
        age: health.age(now),
        failures: health.failures().map(|(failure, n)| (failure.label(), n)).collect(),
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

/// Publishes the names of the log directories, periodically and when `refresh` is notified.
async fn read_logs(
    sources: Sources,
    publish: watch::Sender<Arc<PodLogNames>>,
    refresh: Arc<Notify>,
) {
    let mut warned = false;
    while !publish.is_closed() {
        let read = pod_logs::read_pods(&sources.pod_logs).and_then(|pods| {
            let containers = pod_logs::read_containers(&sources.container_logs)?;
            Ok(PodLogNames { pods, containers })
        });
        match read {
            Ok(logs) => {
                warned = false;
                publish.send_replace(Arc::new(logs));
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

/// The allocatable devices of a sample, from the latest sample of each GPU. GPUs without one are
/// left out.
#[must_use]
pub fn allocatable_devices(sample: &Sample) -> Vec<AllocatableGpu> {
    let samples = sample.gpus.iter().filter_map(|gpu| gpu.latest.as_ref()?.as_deref().ok());
    let allocatable = |latest: &DeviceSample| {
        let total =
            |partition: &PartitionSample| partition.framebuffer.ok().map(|m| mebibytes(m.total));
        let mig = |partition: &PartitionSample| {
            let mig = partition.mig.as_deref()?;
            Some(AllocatableMig {
                uuid: Arc::clone(&mig.uuid),
                gpu_instance: mig.gpu_instance,
                compute_instance: mig.compute_instance,
                framebuffer_mib: total(partition),
                compute: None,
            })
        };
        let whole = latest.partitions.iter().find(|partition| partition.mig.is_none());
        AllocatableGpu {
            uuid: Arc::clone(&latest.gpu.uuid),
            minor: latest.gpu.minor,
            framebuffer_mib: whole.and_then(total),
            migs: latest.partitions.iter().filter_map(mig).collect(),
        }
    };
    samples.map(allocatable).collect()
}
