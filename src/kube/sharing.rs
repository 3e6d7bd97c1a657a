//! How the replicas of a GPU are shared: by time-slicing, or by MPS with a limit for each replica.
//!
//! The kubelet's device ids are the same for both. NVIDIA's device plugin sets the GPUs that its MPS
//! daemon serves to the compute mode "exclusive process" before it offers their replicas, and back
//! to the default mode when the daemon ends. A pod cannot change the mode, but it can run an MPS
//! server of its own on a time-sliced GPU: MPS clients alone are no evidence.

use std::collections::BTreeMap;

use super::device_id::DeviceName;

/// Labels of the node with its sharing strategy: of GPU feature discovery, and of GKE.
const LABELS: [&str; 2] =
    ["nvidia.com/gpu.sharing-strategy", "cloud.google.com/gke-gpu-sharing-strategy"];

/// A sharing strategy of a device plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharingStrategy {
    /// Processes run in turns; nothing is limited.
    TimeSlicing,
    /// Processes are clients of an MPS server, which limits the memory and the compute of each
    /// replica to an equal fraction of the GPU.
    Mps,
}

/// Evidence of the strategy of a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharingEvidence {
    /// The strategy that the node's labels state.
    pub label: Option<SharingStrategy>,
    /// Whether the compute mode is "exclusive process"; `None` if it is unknown.
    pub exclusive_process: Option<bool>,
    /// Whether the driver has listed MPS clients since the compute mode is "exclusive process".
    pub mps_clients: bool,
}

impl SharingStrategy {
    /// The value of the label of GPU feature discovery.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::TimeSlicing => "time-slicing",
            Self::Mps => "mps",
        }
    }

    /// The strategy in the labels of a node.
    #[must_use]
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Option<Self> {
        let values = LABELS.iter().filter_map(|label| labels.get(*label));
        let mut strategies = values.filter_map(|value| match value.as_str() {
            "mps" => Some(Self::Mps),
            "time-slicing" | "time-sharing" => Some(Self::TimeSlicing),
            _ => None,
        });
        strategies.next()
    }
}

impl SharingEvidence {
    /// The strategy by which replicas with this name are shared; `None` if it is not certain.
    #[must_use]
    pub fn strategy(self, name: DeviceName<'_>) -> Option<SharingStrategy> {
        match (name, self.label) {
            // The device plugin has MPS for whole GPUs only.
            (
                DeviceName::Mig(_) | DeviceName::LegacyMig { .. } | DeviceName::OnlyGpu,
                Some(SharingStrategy::Mps),
            ) => None,
            (DeviceName::Mig(_) | DeviceName::LegacyMig { .. } | DeviceName::OnlyGpu, _) => {
                Some(SharingStrategy::TimeSlicing)
            }
            // GKE's plugin does not set the compute mode.
            (DeviceName::Minor(_) | DeviceName::MinorMig { .. }, label) => label,
            (DeviceName::Gpu(_), Some(label)) => Some(label),
            (DeviceName::Gpu(_), None) => match self.exclusive_process {
                Some(false) => Some(SharingStrategy::TimeSlicing),
                Some(true) if self.mps_clients => Some(SharingStrategy::Mps),
                Some(true) | None => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SharingStrategy::{Mps, TimeSlicing};

    const GPU: DeviceName<'_> = DeviceName::Gpu("GPU-0");

    #[test]
    fn labels_of_gpu_feature_discovery_and_gke_state_the_strategy() {
        let of = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            SharingStrategy::from_labels(&labels.collect())
        };
        assert_eq!(of(&[(LABELS[0], "mps")]), Some(Mps));
        assert_eq!(of(&[(LABELS[0], "time-slicing")]), Some(TimeSlicing));
        assert_eq!(of(&[(LABELS[1], "time-sharing")]), Some(TimeSlicing));
        assert_eq!(of(&[(LABELS[0], "none"), (LABELS[1], "mps")]), Some(Mps));
        for other in [&[(LABELS[0], "none")][..], &[(LABELS[0], "")], &[("strategy", "mps")], &[]] {
            assert_eq!(of(other), None, "{other:?}");
        }
    }

    #[test]
    fn nvml_is_evidence_only_of_the_device_plugin() {
        let nvml = |exclusive_process, mps_clients| SharingEvidence {
            label: None,
            exclusive_process,
            mps_clients,
        };
        assert_eq!(nvml(Some(false), false).strategy(GPU), Some(TimeSlicing));
        assert_eq!(nvml(Some(false), true).strategy(GPU), Some(TimeSlicing), "a server of a pod");
        assert_eq!(nvml(Some(true), true).strategy(GPU), Some(Mps));
        assert_eq!(nvml(Some(true), false).strategy(GPU), None, "set by an administrator?");
        assert_eq!(nvml(None, true).strategy(GPU), None);
        assert_eq!(nvml(Some(false), false).strategy(DeviceName::Minor(0)), None);
        assert_eq!(nvml(None, false).strategy(DeviceName::Mig("MIG-0")), Some(TimeSlicing));
        assert_eq!(nvml(None, false).strategy(DeviceName::OnlyGpu), Some(TimeSlicing));
    }

    #[test]
    fn label_takes_precedence() {
        let labelled = |label| SharingEvidence {
            label: Some(label),
            exclusive_process: Some(label == TimeSlicing),
            mps_clients: label == TimeSlicing,
        };
        for strategy in [Mps, TimeSlicing] {
            for name in [GPU, DeviceName::Minor(0)] {
                assert_eq!(labelled(strategy).strategy(name), Some(strategy));
            }
        }
        let mig = DeviceName::Mig("MIG-0");
        assert_eq!(labelled(TimeSlicing).strategy(mig), Some(TimeSlicing));
        assert_eq!(labelled(Mps).strategy(mig), None, "MIG devices have no MPS");
    }
}
