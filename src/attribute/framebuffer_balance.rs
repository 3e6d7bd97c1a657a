//! Framebuffer balances of one GPU, from its partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::framebuffer_accounting::FramebufferByOwner;
use crate::model::Gpu;
use crate::sample::partition::PartitionSample;
use crate::snapshot::FramebufferBalance;

/// Framebuffer use of a GPU, or of each of its GPU instances while MIG is on: the compute instances
/// of a GPU instance share its framebuffer.
#[derive(Default)]
pub(super) struct InstanceBalances(BTreeMap<Option<u32>, InstanceFramebuffer>);

#[derive(Default)]
struct InstanceFramebuffer {
    by_owner: FramebufferByOwner,
    used: Option<u64>,
    /// The processes of a partition are unknown.
    incomplete: bool,
}

impl InstanceBalances {
    fn instance_of(&mut self, partition: &PartitionSample) -> &mut InstanceFramebuffer {
        let instance = partition.mig.as_deref().map(|mig| mig.gpu_instance);
        self.0.entry(instance).or_default()
    }

    /// Adds the use of a partition by class of owner.
    pub(super) fn add(&mut self, partition: &PartitionSample, by_owner: FramebufferByOwner) {
        let framebuffer = self.instance_of(partition);
        framebuffer.by_owner.merge(by_owner);
        framebuffer.used = partition.framebuffer.ok().map(|memory| memory.used);
    }

    /// Marks the GPU instance of a partition with an unknown process list. It has no balance.
    pub(super) fn mark_incomplete(&mut self, partition: &PartitionSample) {
        self.instance_of(partition).incomplete = true;
    }

    /// Balances of the complete GPU instances, each with its `unaccounted` rest.
    pub(super) fn into_balances(self, gpu: &Gpu) -> impl Iterator<Item = FramebufferBalance> {
        let complete = self.0.into_iter().filter(|(_, framebuffer)| !framebuffer.incomplete);
        complete.filter_map(move |(gpu_instance, framebuffer)| {
            let bytes_by_owner = framebuffer.by_owner.balance(framebuffer.used?)?;
            Some(FramebufferBalance {
                gpu_index: gpu.index,
                uuid: Arc::clone(&gpu.uuid),
                gpu_instance,
                bytes_by_owner,
            })
        })
    }
}
