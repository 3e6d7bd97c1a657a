//! The partitions of a GPU: the whole GPU, or its MIG devices while MIG is enabled.

use std::sync::Arc;

use super::mig_mode::MigMode;
use super::partition::{PartitionReader, PartitionSample, ReadContext};
use super::process_utilization::UtilizationWindow;
use crate::model::{MigDevice, Missing, Moment};
use crate::nvml::Session;
use crate::nvml::raw::Handle;

/// A reader of each partition.
#[derive(Default)]
pub(super) struct Partitions(Vec<PartitionReader>);

impl Partitions {
    /// Drops all readers.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Enumerates the partitions of a GPU in this MIG mode.
    ///
    /// # Errors
    /// Some partitions could not be enumerated.
    pub(super) fn enumerate(
        &mut self,
        session: &Session,
        gpu: Handle,
        mode: MigMode,
    ) -> Result<(), Missing> {
        if mode == MigMode::On {
            let known = |uuid: &str| self.0.iter().find_map(|partition| partition.mig_device(uuid));
            let (found, complete) = session.mig_devices(gpu, known);
            self.update(found);
            complete
        } else {
            if self.0.is_empty() {
                self.0.push(PartitionReader::new(None, gpu));
            }
            self.0.iter_mut().for_each(|partition| partition.set_handle(gpu, true));
            Ok(())
        }
    }

    /// Keeps the readers of MIG devices that still exist, drops those of removed ones and adds new
    /// ones.
    fn update(&mut self, found: Vec<(MigDevice, Handle)>) {
        let mut before = std::mem::take(&mut self.0);
        let mut instances = Vec::new();
        for (mig, handle) in found {
            let known = before.iter().position(|partition| partition.is_for(Some(&mig)));
            let first = !instances.contains(&mig.gpu_instance);
            instances.push(mig.gpu_instance);
            let mut partition = known.map_or_else(
                || PartitionReader::new(Some(Arc::new(mig)), handle),
                |at| before.swap_remove(at),
            );
            partition.set_handle(handle, first);
            self.0.push(partition);
        }
    }

    /// Reads all partitions.
    pub(super) fn sample(
        &mut self,
        now: Moment,
        window: Result<&UtilizationWindow, Missing>,
        context: &mut ReadContext<'_>,
    ) -> Vec<PartitionSample> {
        let sample = |partition: &mut PartitionReader| partition.sample(now, window, context);
        self.0.iter_mut().map(sample).collect()
    }
}
