//! Annotations of Volcano: vGPU, in `HAMi`'s format, and the older sharing by memory.
//!
//! vGPU has three modes (`volcano.sh/vgpu-mode`). They need not be distinguished: `hami-core` and
//! `mps` allocate memory and compute of a GPU, and `mig` a MIG device, which the annotation identifies
//! by its index.

use super::{
    AllocationProblem, AnnotationAllocation, GpuName, GpuShare, MemoryAmount, Pod, ShareResource,
    hami, requested,
};

const VGPU: &str = "volcano.sh/vgpu-ids-new";
const PHASE: &str = "volcano.sh/bind-phase";
const GPU: &str = "volcano.sh/gpu-index";
/// Resource in MiB that a container requests in the older form.
const MEMORY: &str = "volcano.sh/gpu-memory";

const VGPU_KEYS: hami::HamiKeys = hami::HamiKeys {
    allocated: VGPU,
    phase: PHASE,
    mig: None,
    resource: ShareResource::VolcanoVgpu,
};

/// Parses the annotation of vGPU, in all modes.
///
/// # Errors
/// The annotation is malformed or does not match the pod's containers.
pub(super) fn parse_vgpu(pod: &Pod) -> Result<AnnotationAllocation, AllocationProblem> {
    hami::parse_keys(pod, &VGPU_KEYS)
}

/// Parses the annotation of the older sharing by memory.
///
/// # Errors
/// The annotation is malformed or does not match the pod's containers.
pub(super) fn parse_memory(pod: &Pod) -> Result<AnnotationAllocation, AllocationProblem> {
    let Some(text) = pod.annotation(GPU) else { return Ok(AnnotationAllocation::Absent) };
    let minors: Vec<u32> = text
        .split(',')
        .map(|minor| minor.trim().parse().map_err(|_| AllocationProblem::InvalidIndex))
        .collect::<Result<_, _>>()?;
    // Several GPUs are allocated whole; the annotation does not assign them to containers.
    let [minor] = minors.as_slice() else { return Err(AllocationProblem::NoContainer) };
    let share = |(place, mib)| GpuShare {
        container: place,
        gpu: GpuName::Minor(*minor),
        memory: MemoryAmount::Mib(mib),
        compute: 0.0,
    };
    let shares = requested(pod, MEMORY)?.into_iter().map(share).collect();
    let resource = ShareResource::VolcanoMemory;
    Ok(AnnotationAllocation::Allocated { resource, shares, oversubscribes: false })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::pod;
    use super::super::{ContainerPosition, MigName};
    use super::*;

    #[test]
    fn both_formats_are_parsed() {
        let new = pod("a", &[(VGPU, "GPU-a,NVIDIA,2000,25:;")], &[("x", "")], &[]);
        let Ok(AnnotationAllocation::Allocated { shares: parts, .. }) = parse_vgpu(&new) else {
            panic!("nothing allocated")
        };
        assert_eq!((&parts[0].memory, parts[0].compute), (&MemoryAmount::Mib(2000.0), 0.25));

        let requests = [("log", ""), ("x", "volcano.sh/gpu-memory=1024")];
        let old = pod("a", &[(GPU, "2")], &requests, &[]);
        let Ok(AnnotationAllocation::Allocated { shares: parts, .. }) = parse_memory(&old) else {
            panic!("nothing allocated")
        };
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].container, ContainerPosition::Index(1));
        assert_eq!(parts[0].gpu, GpuName::Minor(2));
        assert_eq!(parts[0].memory, MemoryAmount::Mib(1024.0));
    }

    #[test]
    fn mig_mode_names_the_group_and_the_index_of_a_mig_device() {
        let text = "GPU-a[group2-3],NVIDIA,10240,0:;";
        let pod = pod("a", &[(VGPU, text)], &[("x", "")], &[]);
        let Ok(AnnotationAllocation::Allocated { shares, .. }) = parse_vgpu(&pod) else {
            panic!("nothing allocated")
        };
        let mig = MigName::Index(3);
        assert_eq!(shares[0].gpu, GpuName::Mig { gpu: "GPU-a".into(), mig });
    }

    #[test]
    fn malformed_annotations_are_rejected_with_a_reason() {
        for (text, problem) in [
            ("", AllocationProblem::InvalidIndex),
            ("-1", AllocationProblem::InvalidIndex),
            ("0,x", AllocationProblem::InvalidIndex),
            ("0,1", AllocationProblem::NoContainer),
        ] {
            let pod = pod("a", &[(GPU, text)], &[("x", "volcano.sh/gpu-memory=1")], &[]);
            assert_eq!(parse_memory(&pod), Err(problem), "{text}");
        }
    }
}
