//! The partitions of a GPU: the whole GPU, or its MIG devices while MIG is enabled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::mig_mode::MigMode;
use super::partition::{PartitionReader, PartitionSample, ReadContext};
use super::process_utilization::UtilizationWindow;
use super::unlisted_use::{DeviceUse, UnlistedUseDetector};
use crate::model::{MigDevice, Missing, Moment, Reading};
use crate::nvml::Session;
use crate::nvml::raw::Handle;

/// A reader of each partition.
#[derive(Default)]
pub(super) struct Partitions {
    readers: Vec<PartitionReader>,
    /// By GPU instance; `None` for the whole GPU.
    detectors: BTreeMap<Option<u32>, UnlistedUseDetector>,
}

impl Partitions {
    /// Drops all readers.
    pub(super) fn clear(&mut self) {
        self.readers.clear();
        self.detectors.clear();
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
            let known = |uuid: &str, handle| {
                self.readers.iter().find_map(|partition| partition.mig_device(uuid, handle))
            };
            let (found, complete) = session.mig_devices(gpu, known);
            self.update(found);
            complete
        } else {
            if self.readers.is_empty() {
                self.readers.push(PartitionReader::new(None, gpu));
            }
            self.readers.iter_mut().for_each(|partition| partition.set_handle(gpu, true));
            Ok(())
        }
    }

    /// Keeps the readers of MIG devices that still exist, drops those of removed ones and adds new
    /// ones.
    fn update(&mut self, found: Vec<(MigDevice, Handle)>) {
        let mut before = std::mem::take(&mut self.readers);
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
            self.readers.push(partition);
        }
    }

    /// Reads all partitions. `utilization` is that of the GPU.
    pub(super) fn sample(
        &mut self,
        now: Moment,
        window: Result<&UtilizationWindow, Missing>,
        utilization: Reading,
        context: &mut ReadContext<'_>,
    ) -> Vec<PartitionSample> {
        let sample = |partition: &mut PartitionReader| partition.sample(now, window, context);
        let mut samples: Vec<_> = self.readers.iter_mut().map(sample).collect();
        self.detect_unlisted_use(utilization, &mut samples);
        samples
    }

    /// The compute instances of a GPU instance share its framebuffer and are judged together.
    fn detect_unlisted_use(&mut self, utilization: Reading, samples: &mut [PartitionSample]) {
        let instance = |sample: &PartitionSample| sample.mig.as_deref().map(|mig| mig.gpu_instance);
        self.detectors.retain(|known, _| samples.iter().any(|sample| instance(sample) == *known));
        let found: BTreeMap<_, _> = (samples.iter().map(instance))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|of| {
                let members = || samples.iter().filter(|sample| instance(sample) == of);
                let device = DeviceUse {
                    utilization: if of.is_none() { utilization } else { Err(Missing::Unsupported) },
                    framebuffer: members()
                        .find_map(|sample| sample.framebuffer.ok())
                        .ok_or(Missing::Pending),
                    listings: members().map(|sample| &sample.listing).collect(),
                };
                (of, self.detectors.entry(of).or_default().add(&device))
            })
            .collect();
        for sample in samples {
            sample.unlisted_use = found.get(&instance(sample)).copied().flatten();
        }
    }
}
