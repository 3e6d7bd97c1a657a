//! Annotations of Volcano: vGPU, in `HAMi`'s format, and the older sharing by memory.

use super::{
    AllocationProblem, AnnotationAllocation, GpuName, GpuShare, MemoryAmount, Pod, hami, requested,
};

const VGPU: &str = "volcano.sh/vgpu-ids-new";
const PHASE: &str = "volcano.sh/bind-phase";
const GPU: &str = "volcano.sh/gpu-index";
/// Resource in MiB that a container requests in the older form.
const MEMORY: &str = "volcano.sh/gpu-memory";

/// Parses the annotations of Volcano.
///
/// # Errors
/// An annotation is malformed or does not match the pod's containers.
pub fn parse(pod: &Pod) -> Result<AnnotationAllocation, AllocationProblem> {
    match hami::parse_keys(pod, VGPU, PHASE)? {
        AnnotationAllocation::Absent => {}
        allocation @ (AnnotationAllocation::Pending | AnnotationAllocation::Allocated { .. }) => {
            return Ok(allocation);
        }
    }
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
    let parts = requested(pod, MEMORY)?.into_iter().map(share).collect();
    Ok(AnnotationAllocation::Allocated { shares: parts, oversubscribes: false })
}

#[cfg(test)]
mod tests {
    use super::super::ContainerPosition;
    use super::super::fixtures::pod;
    use super::*;

    #[test]
    fn both_formats_are_parsed() {
        let new = pod("a", &[(VGPU, "GPU-a,NVIDIA,2000,25:;")], &[("x", "")], &[]);
        let Ok(AnnotationAllocation::Allocated { shares: parts, .. }) = parse(&new) else {
            panic!("nothing allocated")
        };
        assert_eq!((&parts[0].memory, parts[0].compute), (&MemoryAmount::Mib(2000.0), 0.25));

        let requests = [("log", ""), ("x", "volcano.sh/gpu-memory=1024")];
        let old = pod("a", &[(GPU, "2")], &requests, &[]);
        let Ok(AnnotationAllocation::Allocated { shares: parts, .. }) = parse(&old) else {
            panic!("nothing allocated")
        };
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].container, ContainerPosition::Index(1));
        assert_eq!(parts[0].gpu, GpuName::Minor(2));
        assert_eq!(parts[0].memory, MemoryAmount::Mib(1024.0));
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
            assert_eq!(parse(&pod), Err(problem), "{text}");
        }
    }
}
