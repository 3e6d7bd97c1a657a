//! Watches pods and device allocations on a dedicated thread.
//!
//! Each source is a task that publishes its state, and keeps the last one while the source is down.
//! The sampling thread only reads the newest state: no cycle waits for the cluster.

mod allocation_cache;
pub mod channels;
mod pod_log_names;
mod running_sources;
pub mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use self::allocation_cache::{AllocationCache, AllocationInputs};
pub use self::channels::{DraChannels, PodLogNames, SourceChannels};
pub use self::sources::Sources;
use crate::attribute::absent_pods::AbsentPods;
use crate::attribute::allocation_state::AllocationState;
use crate::attribute::allocation_table::AllocationTable;
use crate::attribute::owner::OwnerResolver;
use crate::clock::Clock;
use crate::kube::allocation::{AllocatableGpu, AllocatableMig, AllocationOptions};
use crate::kube::assignments::SliceTable;
use crate::kube::pod_resources::PodResourcesState;
use crate::kube::pods::PodSnapshot;
use crate::kube::problem::AllocationProblem;
use crate::kube::resource_claims::table::ClaimTable;
use crate::kube::sharing::{SharingEvidence, SharingStrategy};
use crate::kube::source::{FailureReason, HealthTracker, SourceState};
use crate::model::CgroupLocation;
use crate::nvml::probe::{EXCLUSIVE_PROCESS, mebibytes};
use crate::policy;
use crate::sample::Sample;
use crate::sample::device::DeviceSample;
use crate::sample::partition::PartitionSample;
use crate::snapshot::SourceHealth;

/// The sources of one node, and the allocations that result from them.
pub struct Cluster {
    channels: SourceChannels,
    cache: AllocationCache,
    /// UUIDs of the GPUs that have had MPS clients since their compute mode is "exclusive process".
    mps_gpus: BTreeSet<Arc<str>>,
    absent_pods: AbsentPods,
}

/// State of the cluster in one cycle.
pub struct ClusterState {
    pods: Option<PodSnapshot>,
    absent_pods: AbsentPods,
    logs: Arc<PodLogNames>,
    allocations: LatestAllocations,
    /// Health of the sources.
    pub sources: Vec<SourceHealth>,
    /// Number of allocations that were not accepted, by [`AllocationProblem::label`].
    ///
    /// [`AllocationProblem::label`]: crate::kube::problem::AllocationProblem::label
    pub problems: BTreeMap<&'static str, u64>,
}

/// What the sources returned last.
pub struct SourcesRecord {
    /// The pods; `None` if no source is configured.
    pub pods: Option<PodSnapshot>,
    /// The device assignments; `None` if no kubelet is configured.
    pub pod_resources: Option<PodResourcesState>,
    /// The devices of DRA drivers, if they were read.
    pub slices: Option<Arc<SliceTable>>,
    /// The resource claims, if there is an API server.
    pub claims: Option<Arc<ClaimTable>>,
    /// How the GPUs are shared, according to the labels of the node.
    pub sharing: Option<SharingStrategy>,
    /// Names from the log directories.
    pub logs: Arc<PodLogNames>,
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
    pub fn start(sources: Sources, options: AllocationOptions, clock: Clock) -> io::Result<Self> {
        Ok(Self::new(running_sources::start(sources, clock)?, options))
    }

    /// Joins what `channels` receive.
    #[must_use]
    pub fn new(channels: SourceChannels, options: AllocationOptions) -> Self {
        Self {
            channels,
            cache: AllocationCache::new(options),
            mps_gpus: BTreeSet::new(),
            absent_pods: AbsentPods::default(),
        }
    }

    /// The newest state at `now` (monotonic), with the allocations of the devices of `sample`, which were
    /// read before. `needs_containers`: whether series of containers or processes are selected, and
    /// not only pod labels of devices.
    pub fn state(
        &mut self,
        sample: &Sample,
        now: Duration,
        needs_containers: bool,
    ) -> ClusterState {
        let mut devices = allocatable_devices(sample);
        self.complete_evidence(&mut devices);
        let channels = &self.channels;
        let pods = channels.pods.as_ref().map(|pods| pods.borrow().clone());
        let pod_resources = channels.pod_resources.as_ref().map(|state| state.borrow().clone());
        let slices = channels.dra.as_ref().map(|dra| dra.slices.borrow().clone());
        let claims = channels.dra.as_ref().map(|dra| dra.claims.borrow().clone());
        let label = channels.label.as_ref().map(|(_, state)| state.borrow().health.clone());
        let standby = channels.pods_api.as_ref().and_then(|standby| standby.borrow().clone());
        if let Some(pods) = &pods {
            self.absent_pods.update(process_locations(sample), pods, now);
        }
        // Not every cluster has these sources: they are reported once they were used.
        let dra = channels.dra.as_ref().into_iter().flat_map(DraChannels::used_sources);
        let used = |health: Option<HealthTracker>| health.filter(|one| one.last_success.is_some());
        let (label, standby) = (used(label), used(standby));
        let logs_health = channels.logs_health.as_ref().and_then(|health| health.borrow().clone());
        let sources = (pods.iter().map(|pods| &pods.health))
            .chain(pod_resources.iter().map(|state| &state.health))
            .map(|health| source_health(health, now))
            .chain(
                dra.chain(label)
                    .chain(standby)
                    .chain(logs_health)
                    .map(|health| source_health(&health, now)),
            )
            .collect();
        let logs = Arc::clone(&channels.logs.borrow());
        let mut problems = BTreeMap::new();
        let allocations = match pod_resources {
            None => LatestAllocations::NoSource,
            Some(PodResourcesState { assignments: Some(assignments), .. }) => {
                let slices = slices.and_then(|state| state.slices);
                let claims = claims.map(|state| state.claims);
                let as_of = assignments.requested_at;
                let is_fresh = now.saturating_sub(as_of) <= policy::ALLOCATION_MAX_AGE;
                let pods = pods.clone().filter(|pods| needs_containers || !is_denied(pods));
                let inputs = AllocationInputs { pods, assignments, slices, claims, devices };
                let resolved = self.cache.resolve(inputs, now);
                channels.dra.iter().for_each(|dra| dra.request(&resolved.requests));
                let table = resolved.table;
                problems = resolved.problems;
                if !needs_containers {
                    // Amounts are not exported, and their evidence is not read.
                    problems.remove(AllocationProblem::UnknownReplica.label());
                }
                LatestAllocations::Table(table.as_of(as_of, is_fresh))
            }
            Some(PodResourcesState { assignments: None, .. }) => LatestAllocations::Pending,
        };
        let absent_pods = self.absent_pods.clone();
        ClusterState { pods, absent_pods, logs, allocations, sources, problems }
    }

    /// What the sources returned last, for a recording.
    #[must_use]
    pub fn record(&self) -> SourcesRecord {
        let channels = &self.channels;
        let dra = channels.dra.as_ref();
        SourcesRecord {
            pods: channels.pods.as_ref().map(|pods| pods.borrow().clone()),
            pod_resources: channels.pod_resources.as_ref().map(|state| state.borrow().clone()),
            slices: dra.and_then(|dra| dra.slices.borrow().slices.clone()),
            claims: dra.map(|dra| Arc::clone(&dra.claims.borrow().claims)),
            sharing: channels.label.as_ref().and_then(|(_, state)| state.borrow().sharing),
            logs: Arc::clone(&channels.logs.borrow()),
        }
    }

    /// Adds to what the driver reports now how the GPUs are shared: what the node's labels state, and
    /// MPS clients of earlier cycles.
    fn complete_evidence(&mut self, devices: &mut [AllocatableGpu]) {
        let label = self.channels.label.as_ref().and_then(|(_, state)| state.borrow().sharing);
        for AllocatableGpu { uuid, sharing, .. } in devices {
            sharing.label = label;
            match sharing.exclusive_process {
                Some(true) if sharing.mps_clients => {
                    self.mps_gpus.insert(Arc::clone(uuid));
                }
                Some(false) => {
                    self.mps_gpus.remove(uuid);
                }
                Some(true) | None => {}
            }
            sharing.mps_clients = self.mps_gpus.contains(uuid);
        }
    }

    /// The watched label (`KEY=VALUE`), if the node has it at `now` (monotonic).
    #[must_use]
    pub fn release_label(&self, now: Duration) -> Option<Arc<str>> {
        let (label, state) = self.channels.label.as_ref()?;
        state.borrow().is_set(now).then(|| Arc::clone(&label.text))
    }

    /// Requests an early poll of the sources if an owner or allocation was `unresolved` in the last
    /// cycle, and an early List if the last one is older than a pod.
    pub fn request_refresh(&self, unresolved: bool) {
        if unresolved || self.cache.awaits_list() {
            self.channels.refresh.notify_one();
        }
        if unresolved {
            self.channels.refresh_logs.notify_one();
        }
    }
}

impl ClusterState {
    /// Resolves owners at `now` (monotonic).
    #[must_use]
    pub fn owner_resolver(&self, now: Duration) -> OwnerResolver<'_> {
        OwnerResolver {
            now,
            node_pods: &[],
            absent_pods: Some(&self.absent_pods),
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

/// Whether the API server denies access and no list was ever received. Pod labels of devices then
/// use the names from the kubelet, as without an API server.
fn is_denied(pods: &PodSnapshot) -> bool {
    !pods.synced && pods.health.state == SourceState::Down(FailureReason::Denied)
}

fn source_health(health: &HealthTracker, now: Duration) -> SourceHealth {
    SourceHealth {
        name: health.source,
        up: health.is_up(),
        settled: health.is_settled(),
        problem: health.last_problem.clone(),
        age: health.age(now),
        failures: health.failures().map(|(failure, n)| (failure.label(), n)).collect(),
        skipped: health.skipped.by_reason().to_vec(),
    }
}

/// Whether the driver lists MPS clients.
fn has_mps_clients(partition: &PartitionSample) -> bool {
    partition.listing.as_ref().is_ok_and(|listing| listing.has_mps_clients)
}

/// Where the listed processes of a sample are.
fn process_locations(sample: &Sample) -> impl Iterator<Item = &CgroupLocation> {
    let latest = sample.gpus.iter().filter_map(|gpu| gpu.latest.as_ref()?.as_deref().ok());
    let listings =
        latest.flat_map(|latest| &latest.partitions).filter_map(|one| one.listing.as_ref().ok());
    let processes = listings.flat_map(|listing| &listing.processes);
    processes.filter_map(|process| process.location.as_deref().ok())
}

/// The allocatable devices of a sample, from the latest sample of each GPU. GPUs without one are
/// left out.
fn allocatable_devices(sample: &Sample) -> Vec<AllocatableGpu> {
    let samples = sample.gpus.iter().filter_map(|gpu| gpu.latest.as_ref()?.as_deref().ok());
    let count = sample.gpu_count.and_then(|(count, _)| count.ok());
    let is_only = sample.gpus.len() == 1 && count.is_none_or(|count| count <= 1.0);
    let allocatable = |latest: &DeviceSample| {
        let total =
            |partition: &PartitionSample| partition.framebuffer.ok().map(|m| mebibytes(m.total));
        let mig = |partition: &PartitionSample| {
            let mig = partition.mig.as_deref()?;
            Some(AllocatableMig {
                uuid: Arc::clone(&mig.uuid),
                index: mig.index,
                gpu_instance: mig.gpu_instance,
                compute_instance: mig.compute_instance,
                placement: mig.placement,
                framebuffer_mib: total(partition),
                compute: None,
            })
        };
        let whole = latest.partitions.iter().find(|partition| partition.mig.is_none());
        AllocatableGpu {
            uuid: Arc::clone(&latest.gpu.uuid),
            minor: latest.gpu.minor,
            framebuffer_mib: whole.and_then(total),
            is_only: is_only && latest.partitions_complete.is_ok(),
            sharing: SharingEvidence {
                label: None,
                exclusive_process: latest.compute_mode.ok().map(|mode| mode == EXCLUSIVE_PROCESS),
                mps_clients: whole.is_some_and(has_mps_clients),
            },
            migs: latest.partitions.iter().filter_map(mig).collect(),
        }
    };
    samples.map(allocatable).collect()
}
