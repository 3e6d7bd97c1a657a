//! GPU allocations in pod annotations, as GPU sharing schedulers write them.
//!
//! Every client that may create a pod may write its annotations. This module only parses them;
//! [`super::allocation`] decides whether an annotation is accepted.

use super::pod::Pod;
use super::pod::container::{Container, ContainerKind};
use super::problem::AllocationProblem;

mod ack;
mod hami;
mod hami_mig;
pub mod kai;
mod koordinator;
mod volcano;

/// A share of a GPU that an annotation allocates.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuShare {
    /// The container that it is allocated to.
    pub container: ContainerPosition,
    /// The GPU.
    pub gpu: GpuName,
    /// Allocated memory.
    pub memory: MemoryAmount,
    /// Allocated fraction of the GPU's compute, 0 to 1; 0 is unlimited.
    pub compute: f64,
}

/// How an annotation identifies a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerPosition {
    /// By its position in [`Pod::containers`] (those of `spec.containers` come first).
    Index(usize),
    /// The annotation is about the pod and names no container.
    WholePod,
}

/// How an annotation identifies a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuName {
    /// By the minor number of its device file.
    Minor(u32),
    /// By its UUID.
    Uuid(Box<str>),
    /// A MIG device.
    Mig {
        /// UUID of its GPU.
        gpu: Box<str>,
        /// Which of its MIG devices.
        mig: MigName,
    },
}

/// How an annotation identifies a MIG device of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MigName {
    /// The scheduler has chosen a place on the GPU, and the device plugin has not created it yet.
    Pending,
    /// By its UUID and the ids of its instances, which have to agree.
    Identity {
        /// UUID of the MIG device.
        uuid: Box<str>,
        /// Id of its GPU instance.
        gpu_instance: u32,
        /// Id of its compute instance.
        compute_instance: u32,
    },
    /// By its index on the GPU. Its memory has to agree with the allocated amount.
    Index(u32),
}

/// An amount of memory as an annotation writes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryAmount {
    /// In units; how many units the whole GPU has, if the annotation contains it.
    Units {
        /// Allocated units.
        units: f64,
        /// Units of the whole GPU.
        total: Option<f64>,
    },
    /// In MiB.
    Mib(f64),
    /// As a fraction of the GPU's memory, 0 to 1.
    Ratio(f64),
    /// The annotation contains no amount.
    Unknown,
}

/// The resource at the kubelet of a mode of GPU sharing: a container with a share in this mode holds
/// units of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareResource {
    /// Memory units of ACK GPU sharing, both versions.
    Ack,
    /// Devices of `HAMi`, one per share. Their name can be configured, and is that of whole GPUs.
    Hami,
    /// Devices of Volcano's vGPU, one per share.
    VolcanoVgpu,
    /// Memory units of the older sharing of Volcano.
    VolcanoMemory,
    /// Resources of koordinator. Its scheduler reports them to the API server without a device
    /// plugin, unless the node has one.
    Koordinator,
}

impl ShareResource {
    /// The mode of a resource of which the kubelet allocates units of shared GPUs.
    #[must_use]
    pub fn of(resource: &str) -> Option<Self> {
        match resource.split_once('/').unwrap_or_default() {
            ("aliyun.com", "gpu-mem") => Some(Self::Ack),
            ("volcano.sh", "vgpu-number") => Some(Self::VolcanoVgpu),
            ("volcano.sh", "gpu-memory") => Some(Self::VolcanoMemory),
            ("koordinator.sh", name) if name.contains("gpu") => Some(Self::Koordinator),
            ("aliyun.com" | "volcano.sh" | "koordinator.sh", _) => None,
            _ => Some(Self::Hami),
        }
    }

    /// The number of units at the kubelet that a share takes; `None` if the annotation does not state it.
    #[must_use]
    pub fn units_of(self, share: &GpuShare) -> Option<f64> {
        match (self, share.memory) {
            (Self::Ack, MemoryAmount::Units { units, .. }) => Some(units),
            (Self::Hami | Self::VolcanoVgpu, _) => Some(1.0),
            _ => None,
        }
    }
}

/// GPU allocation in a pod's annotations.
#[derive(Clone, Debug, PartialEq)]
pub enum AnnotationAllocation {
    /// No annotation of a supported scheduler.
    Absent,
    /// The scheduler has chosen a GPU and the device plugin has not confirmed it yet.
    Pending,
    /// Shares of GPUs are allocated.
    Allocated {
        /// The resource at the kubelet.
        resource: ShareResource,
        /// The shares.
        shares: Vec<GpuShare>,
        /// The sum of all shares of a GPU may exceed its memory.
        oversubscribes: bool,
    },
}

type Parser = fn(&Pod) -> Result<AnnotationAllocation, AllocationProblem>;

const PARSERS: [(ShareResource, Parser); 5] = [
    (ShareResource::Hami, hami::parse),
    (ShareResource::VolcanoVgpu, volcano::parse_vgpu),
    (ShareResource::VolcanoMemory, volcano::parse_memory),
    (ShareResource::Ack, ack::parse),
    (ShareResource::Koordinator, koordinator::parse),
];

/// Parses the annotations of the scheduler that allocated this pod's devices: those of the first mode
/// of which the pod `holds` a resource.
///
/// # Errors
/// An annotation is malformed or refers to containers that the pod does not have.
pub fn parse(
    pod: &Pod,
    holds: impl Fn(ShareResource) -> bool,
) -> Result<AnnotationAllocation, AllocationProblem> {
    for (_, read) in PARSERS.iter().filter(|(resource, _)| holds(*resource)) {
        match read(pod)? {
            AnnotationAllocation::Absent => {}
            allocation @ (AnnotationAllocation::Pending
            | AnnotationAllocation::Allocated { .. }) => return Ok(allocation),
        }
    }
    Ok(AnnotationAllocation::Absent)
}

/// The position of the `n`th of `spec.containers`.
fn app_container(pod: &Pod, n: usize) -> Result<ContainerPosition, AllocationProblem> {
    match pod.containers.get(n).map(|container| container.kind) {
        Some(ContainerKind::App) => Ok(ContainerPosition::Index(n)),
        _ => Err(AllocationProblem::InvalidIndex),
    }
}

/// Containers of `spec.containers` that request `resource`, by position, and the requested amount.
fn requested(
    pod: &Pod,
    resource: &str,
) -> Result<Vec<(ContainerPosition, f64)>, AllocationProblem> {
    let request = |container: &Container| container.resources.get(resource).cloned();
    let apps = pod.app_containers();
    let mut requests = Vec::new();
    for (n, text) in apps.into_iter().enumerate().filter_map(|(n, c)| Some((n, request(c)?))) {
        let units = super::quantity::parse(&text).ok_or(AllocationProblem::InvalidAnnotation)?;
        if units > 0.0 {
            requests.push((ContainerPosition::Index(n), units));
        }
    }
    Ok(requests)
}

/// Percent of one GPU as a fraction, 0 to 1.
fn percent_to_fraction(percent: f64) -> Result<f64, AllocationProblem> {
    if (0.0..=100.0).contains(&percent) {
        Ok(percent / 100.0)
    } else {
        Err(AllocationProblem::InvalidAmount)
    }
}

#[cfg(test)]
pub(in crate::kube) mod fixtures {
    use super::super::pod::{self, Pod};

    /// A running pod of `demo`. `containers` and `inits` are `(name, "resource=quantity ...")`.
    pub(in crate::kube) fn pod(
        name: &str,
        annotations: &[(&str, &str)],
        containers: &[(&str, &str)],
        inits: &[(&str, &str)],
    ) -> Pod {
        let list = |containers: &[(&str, &str)]| -> serde_json::Value {
            let one = |(name, requests): &(&str, &str)| {
                let limits: serde_json::Map<_, _> = requests
                    .split_whitespace()
                    .filter_map(|request| request.split_once('='))
                    .map(|(resource, quantity)| (resource.to_owned(), quantity.into()))
                    .collect();
                serde_json::json!({"name": name, "resources": {"limits": limits}})
            };
            containers.iter().map(one).collect()
        };
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        let json = serde_json::json!({
            "metadata": {
                "uid": format!("uid-{name}"), "namespace": "demo", "name": name,
                "annotations": annotations,
            },
            "spec": {
                "nodeName": "n1",
                "containers": list(containers), "initContainers": list(inits),
            },
        });
        pod::parse(json.to_string().as_bytes()).unwrap()
    }

    /// The pod with the labels of GPU groups.
    pub(in crate::kube) fn grouped(mut pod: Pod, groups: &[&str]) -> Pod {
        for group in groups {
            let key = match groups {
                [_] => "runai-gpu-group".to_owned(),
                _ => format!("runai-gpu-group/{group}"),
            };
            pod.labels.insert(key.into(), (*group).into());
        }
        pod
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::fixtures::pod;
    use super::*;
    use crate::kube::pod::ANNOTATIONS;

    #[test]
    fn pod_without_annotations_has_no_allocation() {
        let pod = pod("a", &[("hami.io/bind-phase", "success")], &[("c", "nvidia.com/gpu=1")], &[]);
        assert_eq!(parse(&pod, |_| true), Ok(AnnotationAllocation::Absent));
    }

    #[test]
    fn annotation_of_the_mode_that_the_pod_holds_is_parsed() {
        let koordinator = r#"{"gpu":[{"minor":1,"resources":{"koordinator.sh/gpu-core":"50"}}]}"#;
        let annotations = [
            ("scheduling.koordinator.sh/device-allocated", koordinator),
            ("scheduler.framework.gpushare.allocation", r#"{"0":{"0":4}}"#),
        ];
        let pod = pod("a", &annotations, &[("c", "aliyun.com/gpu-mem=4")], &[]);
        for (held, minor) in [(ShareResource::Ack, 0), (ShareResource::Koordinator, 1)] {
            let parsed = parse(&pod, |resource| resource == held);
            let Ok(AnnotationAllocation::Allocated { shares, resource, .. }) = parsed else {
                panic!("nothing allocated")
            };
            assert_eq!((&shares[0].gpu, resource), (&GpuName::Minor(minor), held));
        }
        assert_eq!(parse(&pod, |_| false), Ok(AnnotationAllocation::Absent));
        let forged = [annotations[1], ("hami.io/vgpu-devices-allocated", "x")];
        let pod = fixtures::pod("a", &forged, &[("c", "aliyun.com/gpu-mem=4")], &[]);
        assert!(parse(&pod, |resource| resource == ShareResource::Ack).is_ok());
        assert_eq!(parse(&pod, |_| true), Err(AllocationProblem::InvalidAnnotation));
    }

    #[test]
    fn resources_belong_to_one_mode() {
        for (resource, mode) in [
            ("aliyun.com/gpu-mem", Some(ShareResource::Ack)),
            ("aliyun.com/gpu-core.percentage", None),
            ("nvidia.com/gpu", Some(ShareResource::Hami)),
            ("volcano.sh/vgpu-number", Some(ShareResource::VolcanoVgpu)),
            ("volcano.sh/vgpu-memory", None),
            ("volcano.sh/gpu-memory", Some(ShareResource::VolcanoMemory)),
            ("koordinator.sh/gpu-core", Some(ShareResource::Koordinator)),
        ] {
            assert_eq!(ShareResource::of(resource), mode, "{resource}");
        }
    }

    proptest! {
        /// For any text, shares have finite amounts and refer to existing containers.
        #[test]
        fn any_annotation_text_gives_valid_shares_or_an_error(
            values in prop::collection::vec(
                "\\PC{0,30}|[-0-9.,:;{}\"eEGPUNVIDA]{0,40}|GPU-a\\[[0-9a-]{1,3}-[0-9]{1,11}\\],NVIDIA,[0-9]{1,5},0:;;|\\[\\{\"containerIndex\":[0-3],\"deviceIndex\":[0-2],\"gpuUUID\":\"GPU-a\"\\}\\]|\\{\"[0-9]{1,2}\":\\{\"[0-9]{1,2}\":[-0-9.e]{1,9}\\}\\}",
                ANNOTATIONS.len(),
            ),
            skip in prop::collection::vec(any::<bool>(), ANNOTATIONS.len()),
            quantity in "[-0-9.eGim]{0,8}",
            mode in 0..PARSERS.len(),
        ) {
            let annotations: Vec<_> = (ANNOTATIONS.iter().zip(&values).zip(&skip))
                .filter(|(_, skip)| !**skip)
                .map(|((name, value), _)| (*name, value.as_str()))
                .collect();
            let requests =
                format!("aliyun.com/gpu-mem={quantity} volcano.sh/gpu-memory={quantity}");
            let pod = pod("a", &annotations, &[("c", &requests), ("d", "")], &[("i", "")]);
            let mode = PARSERS[mode].0;
            if let Ok(AnnotationAllocation::Allocated { shares, .. }) =
                parse(&pod, |resource| resource == mode)
            {
                for share in shares {
                    prop_assert!((0.0..=1.0).contains(&share.compute));
                    if let ContainerPosition::Index(n) = share.container {
                        prop_assert!(n < pod.containers.len());
                    }
                    match share.memory {
                        MemoryAmount::Units { units, total } => {
                            prop_assert!(units.is_finite() && units > 0.0);
                            prop_assert!(total.is_none_or(|total| total.is_finite() && total >= units));
                        }
                        MemoryAmount::Mib(n) => prop_assert!(n.is_finite() && n > 0.0),
                        MemoryAmount::Ratio(n) => prop_assert!(n > 0.0 && n <= 1.0),
                        MemoryAmount::Unknown => {}
                    }
                }
            }
        }
    }
}
