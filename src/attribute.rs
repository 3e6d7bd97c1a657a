//! Joins a sample with the cluster state into a snapshot: sets labels and owners, and drops stale
//! readings and processes without a certain owner.

pub mod absent_pods;
pub mod activity;
pub mod allocation_state;
pub mod allocation_table;
pub mod current_sample;
pub mod framebuffer_accounting;
pub mod owner;
pub mod verdict;

mod container_summary;
mod device;
mod framebuffer_balance;
mod gpu;
mod info_labels;
mod memory_account;
mod missing_counts;
mod partition;
mod partition_processes;
mod partition_usage;
mod process_series;
mod series_target;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use self::activity::DeviceActivity;
use self::allocation_state::AllocationState;
use self::current_sample::CurrentSample;
use self::device::DeviceAttribution;
use self::gpu::AttributedGpu;
use self::owner::OwnerResolver;
use self::partition_processes::PartitionProcesses;
use self::series_target::PodLabelCache;
use crate::catalog::NodeSource;
use crate::host::hpc_jobs::Jobs;
use crate::kube::pods::PodSnapshot;
use crate::labels::{Dialect, LabelSchema};
use crate::model::{AllocateMode, ContainerIdentity, Missing, NodeSample, Reading};
use crate::nvml::inventory::DriverInfo;
use crate::pod_labels::Allowlist;
use crate::reserved_labels::ReservedLabels;
use crate::sample::{DriverState, Sample};
use crate::selection::{SelectedFamilies, Selection};
use crate::snapshot::{Entity, ExporterHealth, NodeIdentity, Snapshot, SourceHealth};

/// The inputs of attribution other than the sample.
#[derive(Clone, Copy, Debug)]
pub struct AttributionContext<'a> {
    /// Families to publish.
    pub selection: &'a Arc<Selection>,
    /// Label names, and the label values that all series have in common.
    pub schema: &'a LabelSchema,
    /// Pod labels of device series; `None` if device series do not name their pod.
    pub device_pods: Option<&'a DevicePodLabels>,
    /// Label names that pod labels may not use.
    pub reserved: &'a ReservedLabels,
    /// HPC jobs by device.
    pub jobs: &'a Jobs,
    /// Maximum age of a reading while the driver does not respond.
    pub max_age: Duration,
    /// Whether there is one series per process or per container.
    pub process_series: ProcessSeries,
    /// Resolves the cgroup of a process to its owner.
    pub owner_resolver: OwnerResolver<'a>,
    /// Device allocations of the node.
    pub allocation: AllocationState<'a>,
    /// Whether the exporter runs in the host PID namespace, where the driver lists all processes;
    /// `None` if unknown.
    pub host_pids: Option<bool>,
    /// Health of the cluster sources (kubelet, API server, …).
    pub sources: &'a [SourceHealth],
    /// Allocations that could not be parsed, by reason.
    pub problems: &'a BTreeMap<&'static str, u64>,
}

/// Optional labels of device series for the pod that the device is allocated to.
#[derive(Clone, Debug, Default)]
pub struct DevicePodLabels {
    /// Add the pod UID.
    pub uid: bool,
    /// Add the labels of the pod that the allowlist matches.
    pub labels: Option<Allowlist>,
    /// Add the resource claim that allocated the device.
    pub claims: bool,
}

/// Granularity of the process series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProcessSeries {
    /// One series per process.
    #[default]
    PerProcess,
    /// One series per container: the sum over its processes.
    PerContainer,
}

/// Attributes a sample. Returns the snapshot to publish, and the activity of each device as input
/// of the accumulators.
#[must_use]
pub fn attribute(
    sample: Sample,
    context: &AttributionContext<'_>,
) -> (Snapshot, Vec<DeviceActivity>) {
    let driver = match &sample.driver {
        DriverState::Up(driver) => driver.clone(),
        DriverState::Down(_) => DriverInfo::default(),
    };
    let node = node(&sample, context);
    let (gpus, unidentified) = attributed_gpus(&sample, context);
    let users = gpus.iter().flat_map(|gpu| gpu.processes.iter().flatten());
    let unallocated_users: BTreeSet<ContainerIdentity> =
        users.flat_map(PartitionProcesses::unallocated_users).cloned().collect();
    let pod_labels = PodLabelCache::of(context, gpus.iter().map(|gpu| gpu.current.sample));
    let mut devices =
        DeviceAttribution::new(context, &driver, &node, &unallocated_users, &pod_labels);
    for gpu in &gpus {
        devices.add(gpu, &sample);
    }
    let dropped_pod_labels = pod_labels.dropped();
    let snapshot = Snapshot {
        at: sample.at,
        identity: NodeIdentity {
            node_name: context.schema.node_name.clone(),
            hostname: context.schema.hostname.clone(),
            exporter_label: context.schema.exporter_label(),
        },
        selection: Arc::clone(context.selection),
        nodes: match context.schema.dialect {
            Dialect::Ack => {
                let readings = node_readings(&context.selection.node, &node);
                vec![Entity { labels: context.schema.node(), readings }]
            }
            Dialect::DcgmExporter(_) => devices.nodes,
        },
        tables: devices.tables,
        device_usages: devices.device_usages,
        health: ExporterHealth {
            driver: sample.driver,
            driver_request_duration: sample.driver_request_duration,
            cycle_duration: sample.duration,
            cycles: sample.cycles,
            gpus: devices.health,
            unidentified,
            open_failures: sample.open_failures,
            abandoned_threads: sample.abandoned_threads,
            attribution: devices.stats,
            host_pid_namespace: context.host_pids,
            sources: context.sources.to_vec(),
            pod_count: pod_count(context),
            pod_source: synced_pods(context).map(|pods| pods.health.source),
            dropped_pod_labels,
            allocation_problems: context.problems.clone(),
            // What the pipeline sets.
            ..ExporterHealth::default()
        },
    };
    (snapshot, devices.activity)
}

/// The identified GPUs with their processes, and why others are not identified, by index.
fn attributed_gpus<'a>(
    sample: &'a Sample,
    context: &AttributionContext<'_>,
) -> (Vec<AttributedGpu<'a>>, BTreeMap<u32, Missing>) {
    let (mut gpus, mut unidentified) = (Vec::new(), BTreeMap::new());
    for (index, sampled) in (0..).zip(&sample.gpus) {
        match CurrentSample::new(sampled, sample.at, context.max_age) {
            Ok(current) => {
                let gpu = &current.sample.gpu;
                let processes = |partition| {
                    let listing = current.process_list(partition)?;
                    Ok(PartitionProcesses::new(context, gpu, partition, listing))
                };
                let processes = current.sample.partitions.iter().map(processes).collect();
                gpus.push(AttributedGpu { current, processes });
            }
            Err(missing) => {
                unidentified.insert(index, missing);
            }
        }
    }
    (gpus, unidentified)
}

/// Number of pods on the node, if all are known.
fn pod_count(context: &AttributionContext<'_>) -> Option<u64> {
    u64::try_from(synced_pods(context)?.len()).ok()
}

fn synced_pods<'a>(context: &AttributionContext<'a>) -> Option<&'a PodSnapshot> {
    context.owner_resolver.pods.filter(|pods| pods.synced)
}

fn node(sample: &Sample, context: &AttributionContext<'_>) -> NodeSample {
    let gpu_count = match (sample.gpu_count, &sample.driver) {
        (None, driver) if driver.no_gpu().is_some() => Ok(0.0),
        (None, DriverState::Down(_)) => Err(Missing::DriverGone),
        (None, DriverState::Up(_)) => Err(Missing::Pending),
        (Some((_, read_at)), _)
            if sample.at.mono.saturating_sub(read_at.mono) > context.max_age =>
        {
            Err(Missing::Hung)
        }
        (Some((count, _)), _) => count,
    };
    let allocate_mode = match context.allocation {
        AllocationState::NoSource { .. } => Err(Missing::Unsupported),
        AllocationState::Pending => Err(Missing::Pending),
        AllocationState::Known(table) => {
            table.mode().map(AllocateMode::value).ok_or(Missing::Pending)
        }
    };
    NodeSample { gpu_count, allocate_mode }
}

fn node_readings(selected: &SelectedFamilies<NodeSource>, node: &NodeSample) -> Vec<Reading> {
    selected.families().iter().map(|family| (family.metric.source)(node)).collect()
}
