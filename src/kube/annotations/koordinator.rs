//! Annotation of koordinator, which allocates to pods and not to containers.

use serde::Deserialize;

use super::{
    AllocationProblem, AnnotationAllocation, ContainerPosition, GpuName, GpuShare, MemoryAmount,
    Pod, ShareResource, percent_to_fraction,
};
use crate::kube::quantity::{self, JsonQuantity};

const ALLOCATED: &str = "scheduling.koordinator.sh/device-allocated";

#[derive(Deserialize)]
struct RawAllocation {
    #[serde(default)]
    gpu: Option<Vec<KoordinatorDevice>>,
}

#[derive(Deserialize)]
struct KoordinatorDevice {
    minor: i64,
    #[serde(default)]
    resources: KoordinatorResources,
}

/// Without the resources of other devices.
#[derive(Default, Deserialize)]
#[serde(default)]
struct KoordinatorResources {
    #[serde(rename = "koordinator.sh/gpu-core")]
    core: Option<JsonQuantity>,
    #[serde(rename = "koordinator.sh/gpu-memory")]
    memory: Option<JsonQuantity>,
    #[serde(rename = "koordinator.sh/gpu-memory-ratio")]
    memory_ratio: Option<JsonQuantity>,
}

/// Parses the annotation of koordinator.
///
/// # Errors
/// The annotation is malformed.
pub(super) fn parse(pod: &Pod) -> Result<AnnotationAllocation, AllocationProblem> {
    let Some(text) = pod.annotation(ALLOCATED) else { return Ok(AnnotationAllocation::Absent) };
    let raw: RawAllocation =
        serde_json::from_str(text).map_err(|_| AllocationProblem::InvalidAnnotation)?;
    // The same annotation also allocates network cards.
    let Some(devices) = raw.gpu.filter(|gpus| !gpus.is_empty()) else {
        return Ok(AnnotationAllocation::Absent);
    };
    let shares = devices.into_iter().map(share).collect::<Result<_, _>>()?;
    let resource = ShareResource::Koordinator;
    Ok(AnnotationAllocation::Allocated { resource, shares, oversubscribes: false })
}

fn share(device: KoordinatorDevice) -> Result<GpuShare, AllocationProblem> {
    let minor = u32::try_from(device.minor).map_err(|_| AllocationProblem::InvalidIndex)?;
    let KoordinatorResources { core, memory, memory_ratio } = device.resources;
    let memory = match (number(memory)?, number(memory_ratio)?) {
        (Some(bytes), _) if bytes > 0.0 => MemoryAmount::Mib(bytes / 1_048_576.0),
        (_, Some(ratio)) if ratio > 0.0 => MemoryAmount::Ratio(percent_to_fraction(ratio)?),
        _ => MemoryAmount::Unknown,
    };
    let compute = percent_to_fraction(number(core)?.unwrap_or_default())?;
    Ok(GpuShare {
        container: ContainerPosition::WholePod,
        gpu: GpuName::Minor(minor),
        memory,
        compute,
    })
}

fn number(quantity: Option<JsonQuantity>) -> Result<Option<f64>, AllocationProblem> {
    let Some(quantity) = quantity else { return Ok(None) };
    let number = quantity::parse(&quantity.into_text());
    number.map(Some).ok_or(AllocationProblem::InvalidAnnotation)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::pod;
    use super::*;

    fn read(text: &str) -> Result<AnnotationAllocation, AllocationProblem> {
        parse(&pod("a", &[(ALLOCATED, text)], &[("x", "")], &[]))
    }

    #[test]
    fn memory_is_bytes_or_a_ratio() {
        let text = r#"{"gpu":[
            {"minor":1,"resources":{"koordinator.sh/gpu-core":"50","koordinator.sh/gpu-memory":"16Gi","koordinator.sh/gpu-memory-ratio":"20"}},
            {"minor":2,"resources":{"koordinator.sh/gpu-memory-ratio":25}},
            {"minor":3,"id":"x","resources":{}}
        ],"rdma":[{"minor":0}]}"#;
        let Ok(AnnotationAllocation::Allocated { shares: parts, .. }) = read(text) else {
            panic!("nothing allocated")
        };
        let parts: Vec<_> = parts.iter().map(|p| (&p.gpu, p.memory, p.compute)).collect();
        assert_eq!(
            parts,
            [
                (&GpuName::Minor(1), MemoryAmount::Mib(16384.0), 0.5),
                (&GpuName::Minor(2), MemoryAmount::Ratio(0.25), 0.0),
                (&GpuName::Minor(3), MemoryAmount::Unknown, 0.0),
            ]
        );
        assert_eq!(read(r#"{"rdma":[{"minor":0}]}"#), Ok(AnnotationAllocation::Absent));
    }

    #[test]
    fn malformed_annotations_are_rejected_with_a_reason() {
        let core = |core: &str| {
            format!(
                r#"{{"gpu":[{{"minor":0,"resources":{{"koordinator.sh/gpu-core":"{core}"}}}}]}}"#
            )
        };
        for (text, problem) in [
            ("{".into(), AllocationProblem::InvalidAnnotation),
            (r#"{"gpu":{}}"#.into(), AllocationProblem::InvalidAnnotation),
            (r#"{"gpu":[{"minor":-1}]}"#.into(), AllocationProblem::InvalidIndex),
            (r#"{"gpu":[{"minor":5000000000}]}"#.into(), AllocationProblem::InvalidIndex),
            (core("x"), AllocationProblem::InvalidAnnotation),
            (core("-5"), AllocationProblem::InvalidAnnotation),
            (core("1000"), AllocationProblem::InvalidAmount),
        ] {
            assert_eq!(read(&text), Err(problem), "{text}");
        }
    }
}
