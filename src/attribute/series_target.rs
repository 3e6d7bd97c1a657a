//! The GPU, GPU instance or container that a series describes, with the values of its labels.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::allocation_state::AllocationState;
use super::{AttributionContext, DevicePodLabels};
use crate::kube::pods::UidLookup;
use crate::labels::{DeviceLabelInput, HPC_JOB, LabelSchema, Labels, OwnerLabels};
use crate::model::{AllocateMode, ContainerIdentity, DeviceAllocation, Gpu, MigDevice, NO_CLAIM};
use crate::pod_labels::PodLabels;
use crate::sample::device::DeviceSample;
use crate::sample::partition::PartitionSample;

/// Labels of the series of a GPU or GPU instance: name and value, sorted by name. A value that is
/// missing has no label.
pub(super) type InfoLabels = Vec<(Arc<str>, Arc<str>)>;

/// What a series describes.
pub(super) struct SeriesTarget<'a> {
    gpu: &'a Gpu,
    mig: Option<&'a MigDevice>,
    info_labels: Cow<'a, InfoLabels>,
    owner: Option<OwnerLabels<'a>>,
    jobs: &'a [Arc<str>],
    /// Its pod is not known yet, and labels of the pod are enabled: series with other labels would
    /// follow.
    waits_for_pod: bool,
}

impl SeriesTarget<'_> {
    /// Whether it has no series until its pod is known.
    pub(super) fn waits_for_pod(&self) -> bool {
        self.waits_for_pod
    }

    /// Label sets with `more` labels: one, or one per HPC job on the device; none while its pod is not known.
    pub(super) fn label_sets(&self, schema: &LabelSchema, more: &[(&str, &str)]) -> Vec<Labels> {
        let set = |more: &[(&str, &str)]| {
            let input = DeviceLabelInput {
                info_labels: &self.info_labels,
                owner: self.owner.as_ref(),
                extra_labels: more,
            };
            schema.device(self.gpu, self.mig, &input)
        };
        if self.waits_for_pod {
            return Vec::new();
        }
        if self.jobs.is_empty() {
            return vec![set(more)];
        }
        let for_job = |job: &Arc<str>| set(&[more, &[(HPC_JOB, &**job)]].concat());
        self.jobs.iter().map(for_job).collect()
    }
}

/// Pod labels by pod UID, of the pods that devices are allocated to.
#[derive(Default)]
pub(super) struct PodLabelCache(BTreeMap<Arc<str>, PodLabels>);

impl PodLabelCache {
    /// The labels of the pods that the partitions of these GPUs are allocated to.
    pub(super) fn of<'s>(
        context: &AttributionContext<'_>,
        gpus: impl Iterator<Item = &'s DeviceSample>,
    ) -> Self {
        let mut cache = Self::default();
        gpus.for_each(|sample| cache.collect(context, &sample.gpu, &sample.partitions));
        cache
    }

    fn collect(
        &mut self,
        context: &AttributionContext<'_>,
        gpu: &Gpu,
        partitions: &[PartitionSample],
    ) {
        let allowed = context.device_pods.and_then(|pods| pods.labels.as_ref());
        let (Some(allowed), Some(pods)) = (allowed, context.owner_resolver.pods) else {
            return;
        };
        let allocations = partitions
            .iter()
            .flat_map(|partition| context.allocation.allocations_of(partition.device_uuid(gpu)));
        for uid in allocations.map(|allocation| &allocation.container.pod.uid) {
            if let UidLookup::Live(tracked) = pods.by_uid(uid) {
                let labels = || {
                    let labels = tracked.pod.labels.iter().map(|(key, value)| (&**key, &**value));
                    allowed.allowed_labels(labels, context.reserved)
                };
                self.0.entry(Arc::clone(uid)).or_insert_with(labels);
            }
        }
    }

    /// Number of pod labels that are not on the pod's device series, by reason.
    pub(super) fn dropped(&self) -> BTreeMap<&'static str, u64> {
        let dropped = self.0.values().flat_map(|labels| labels.dropped);
        let mut counts = BTreeMap::new();
        for (reason, n) in dropped.filter(|(_, n)| *n > 0) {
            *counts.entry(reason).or_default() += n;
        }
        counts
    }

    fn shown(&self, uid: &str) -> &InfoLabels {
        static NONE: InfoLabels = Vec::new();
        self.0.get(uid).map_or(&NONE, |labels| &labels.shown)
    }
}

/// The series targets of one GPU.
#[derive(Clone, Copy)]
pub(super) struct GpuTargets<'a> {
    pub(super) context: &'a AttributionContext<'a>,
    pub(super) pod_labels: &'a PodLabelCache,
    pub(super) info_labels: &'a InfoLabels,
    pub(super) sample: &'a DeviceSample,
}

impl<'a> GpuTargets<'a> {
    /// The GPU (`None`) or a partition, with the labels of the container that has it exclusively.
    pub(super) fn device(&self, partition: Option<&'a PartitionSample>) -> SeriesTarget<'a> {
        let instance = instance(partition);
        let exclusive = self.context.device_pods.and_then(|_| {
            let partitions = self.sample.partitions.iter();
            let devices: Vec<&str> = partitions
                .filter(|partition| self::instance(Some(*partition)) == instance)
                .map(|partition| partition.device_uuid(&self.sample.gpu))
                .collect();
            exclusive_allocation(self.context.allocation, &devices)
        });
        self.container(partition, exclusive)
    }

    /// The GPU or a partition, with the labels of the container of `allocation`.
    pub(super) fn container(
        &self,
        partition: Option<&'a PartitionSample>,
        allocation: Option<&'a DeviceAllocation>,
    ) -> SeriesTarget<'a> {
        let replicas = self.context.selection.scope.virtual_gpus;
        let pods = self.context.device_pods;
        let labels =
            allocation.map(|allocation| self.pod_labels.shown(&allocation.container.pod.uid));
        let info_labels = match labels {
            Some(labels) if !labels.is_empty() => {
                let mut all = [labels.as_slice(), self.info_labels].concat();
                all.sort();
                Cow::Owned(all)
            }
            _ => Cow::Borrowed(self.info_labels),
        };
        let jobs = self.context.jobs.get(&(self.sample.gpu.index, instance(partition)));
        SeriesTarget {
            gpu: &self.sample.gpu,
            mig: partition.and_then(|partition| partition.mig.as_deref()),
            info_labels,
            owner: pods.map(|pods| owner_labels(allocation, pods, replicas)),
            jobs: jobs.map_or(&[][..], Vec::as_slice),
            waits_for_pod: allocation
                .is_some_and(|allocation| self.waits_for(&allocation.container.pod.uid)),
        }
    }

    /// Whether the UID or labels of this pod are enabled and its object is not known yet.
    fn waits_for(&self, uid: &str) -> bool {
        let (Some(enabled), Some(pods)) =
            (self.context.device_pods, self.context.owner_resolver.pods)
        else {
            return false;
        };
        let is_known = || matches!(pods.by_uid(uid), UidLookup::Live(_));
        (enabled.uid || enabled.labels.is_some()) && pods.is_awaited() && !is_known()
    }
}

fn instance(partition: Option<&PartitionSample>) -> Option<u32> {
    Some(partition?.mig.as_deref()?.gpu_instance)
}

/// The exclusive allocation of the only device in `devices`; `None` if there is more than one
/// device, or if the device is shared, not allocated, or its allocations are unknown.
fn exclusive_allocation<'a>(
    state: AllocationState<'a>,
    devices: &[&str],
) -> Option<&'a DeviceAllocation> {
    let [device] = devices else { return None };
    match state.allocations_of(device) {
        [allocation] if allocation.mode == AllocateMode::Exclusive => Some(allocation),
        _ => None,
    }
}

/// Pod labels of a device series. They are empty without an allocation, not absent: otherwise a
/// scrape with `honor_labels` would add the labels of the exporter's own pod.
fn owner_labels<'a>(
    allocation: Option<&'a DeviceAllocation>,
    pods: &DevicePodLabels,
    replicas: bool,
) -> OwnerLabels<'a> {
    let identity = allocation.map(|allocation| &allocation.container);
    let (namespace, pod, container) = identity.map(ContainerIdentity::names).unwrap_or_default();
    let claim =
        || allocation.and_then(|allocation| allocation.claim.as_deref()).unwrap_or(&NO_CLAIM);
    let replica = || allocation.and_then(|allocation| allocation.replica);
    OwnerLabels {
        namespace,
        pod,
        container,
        uid: pods.uid.then(|| identity.map_or("", |identity| &*identity.pod.uid)),
        claim: pods.claims.then(claim),
        replica: replicas.then(|| replica().map(|n| n.to_string()).unwrap_or_default()),
    }
}
