//! Annotations of ACK GPU sharing: the scheduler framework (v2) and the older extender (v1).

use std::collections::BTreeMap;

use super::{
    AllocationProblem, AnnotationAllocation, ContainerPosition, GpuName, GpuShare, MemoryAmount,
    Pod, ShareResource, app_container, percent_to_fraction, requested,
};

/// `{"<container>":{"<minor>":units}}`; newer releases use the second key.
const ALLOCATION: [&str; 2] =
    ["scheduler.framework.gpushare.allocation", "gpushare.alibabacloud.com/gpumemory"];
const ASSIGNED: [&str; 2] =
    ["scheduler.framework.gpushare.assigned", "gpushare.alibabacloud.com/assigned"];
const COMPUTE: &str = "gpushare.alibabacloud.com/core-percentage";
const V1_GPU: &str = "ALIYUN_COM_GPU_MEM_IDX";
const V1_POD: &str = "ALIYUN_COM_GPU_MEM_POD";
const V1_ASSIGNED: &str = "ALIYUN_COM_GPU_MEM_ASSIGNED";
/// Units of one whole GPU.
const DEVICE: &str = "ALIYUN_COM_GPU_MEM_DEV";
const RESOURCE: &str = "aliyun.com/gpu-mem";

/// Container → minor number → amount.
type Matrix = BTreeMap<usize, BTreeMap<u32, f64>>;

/// Parses the annotations of ACK GPU sharing.
///
/// # Errors
/// An annotation is malformed or refers to a container that the pod does not have.
pub(super) fn parse(pod: &Pod) -> Result<AnnotationAllocation, AllocationProblem> {
    let unconfirmed = |name: &&'static str| pod.annotation(name).is_some_and(|text| text != "true");
    if let Some(text) = ALLOCATION.iter().find_map(|name| pod.annotation(name)) {
        if ASSIGNED.iter().any(&unconfirmed) {
            return Ok(AnnotationAllocation::Pending);
        }
        return Ok(AnnotationAllocation::Allocated {
            resource: ShareResource::Ack,
            shares: v2(pod, text)?,
            oversubscribes: false,
        });
    }
    let Some(gpu) = pod.annotation(V1_GPU) else { return Ok(AnnotationAllocation::Absent) };
    if unconfirmed(&V1_ASSIGNED) {
        return Ok(AnnotationAllocation::Pending);
    }
    let (resource, shares) = (ShareResource::Ack, v1(pod, gpu)?);
    Ok(AnnotationAllocation::Allocated { resource, shares, oversubscribes: false })
}

fn v2(pod: &Pod, text: &str) -> Result<Vec<GpuShare>, AllocationProblem> {
    let compute = pod.annotation(COMPUTE).map(matrix).transpose()?.unwrap_or_default();
    let total = gpu_units(pod)?;
    let mut parts = Vec::new();
    for (container, gpus) in matrix(text)? {
        let place = app_container(pod, container)?;
        for (minor, units) in gpus.into_iter().filter(|(_, units)| *units > 0.0) {
            let percentage = compute.get(&container).and_then(|gpus| gpus.get(&minor));
            parts.push(GpuShare {
                container: place,
                gpu: GpuName::Minor(minor),
                memory: amount(units, total)?,
                compute: percent_to_fraction(percentage.copied().unwrap_or_default())?,
            });
        }
    }
    Ok(parts)
}

/// One GPU for the whole pod; each container is allocated the units that it requests.
fn v1(pod: &Pod, gpu: &str) -> Result<Vec<GpuShare>, AllocationProblem> {
    let minor: u32 = gpu.parse().map_err(|_| AllocationProblem::InvalidIndex)?;
    let requests = requested(pod, RESOURCE)?;
    if let Some(text) = pod.annotation(V1_POD) {
        let pod_units: u32 = text.parse().map_err(|_| AllocationProblem::InvalidAnnotation)?;
        let sum: f64 = requests.iter().map(|(_, units)| units).sum();
        if (sum - f64::from(pod_units)).abs() > 1e-6 {
            return Err(AllocationProblem::InvalidAnnotation);
        }
    }
    let total = gpu_units(pod)?;
    let share = |(place, units): (ContainerPosition, f64)| {
        let memory = amount(units, total)?;
        Ok(GpuShare { container: place, gpu: GpuName::Minor(minor), memory, compute: 0.0 })
    };
    requests.into_iter().map(share).collect()
}

fn gpu_units(pod: &Pod) -> Result<Option<f64>, AllocationProblem> {
    let Some(text) = pod.annotation(DEVICE) else { return Ok(None) };
    let units: u32 = text.parse().map_err(|_| AllocationProblem::InvalidAnnotation)?;
    Ok(Some(f64::from(units)))
}

fn amount(units: f64, total: Option<f64>) -> Result<MemoryAmount, AllocationProblem> {
    match total {
        Some(total) if units > total => Err(AllocationProblem::InvalidAmount),
        _ => Ok(MemoryAmount::Units { units, total }),
    }
}

fn matrix(text: &str) -> Result<Matrix, AllocationProblem> {
    type RawMatrix = BTreeMap<String, BTreeMap<String, f64>>;
    let raw: RawMatrix =
        serde_json::from_str(text).map_err(|_| AllocationProblem::InvalidAnnotation)?;
    let mut matrix = Matrix::new();
    for (container, gpus) in raw {
        let container = container.parse().map_err(|_| AllocationProblem::InvalidIndex)?;
        let row = matrix.entry(container).or_default();
        for (gpu, amount) in gpus {
            let gpu = gpu.parse().map_err(|_| AllocationProblem::InvalidIndex)?;
            if !amount.is_finite() || amount < 0.0 {
                return Err(AllocationProblem::InvalidAmount);
            }
            row.insert(gpu, amount);
        }
    }
    Ok(matrix)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::pod;
    use super::*;

    const V2: &str = ALLOCATION[0];

    fn parts(pod: &Pod) -> Vec<(ContainerPosition, GpuName, MemoryAmount, f64)> {
        let Ok(AnnotationAllocation::Allocated { shares: parts, .. }) = parse(pod) else {
            panic!("{:?}", parse(pod))
        };
        parts.into_iter().map(|p| (p.container, p.gpu, p.memory, p.compute)).collect()
    }

    fn units(units: f64, total: Option<f64>) -> MemoryAmount {
        MemoryAmount::Units { units, total }
    }

    #[test]
    fn framework_allocates_by_container_and_minor_number() {
        let annotations = [
            (V2, r#"{"0":{"1":1},"1":{"1":7,"2":3}}"#),
            (COMPUTE, r#"{"1":{"1":50}}"#),
            (ASSIGNED[0], "true"),
        ];
        let pod = pod("a", &annotations, &[("x", ""), ("y", "")], &[]);
        let minor = GpuName::Minor;
        assert_eq!(
            parts(&pod),
            [
                (ContainerPosition::Index(0), minor(1), units(1.0, None), 0.0),
                (ContainerPosition::Index(1), minor(1), units(7.0, None), 0.5),
                (ContainerPosition::Index(1), minor(2), units(3.0, None), 0.0),
            ]
        );
    }

    #[test]
    fn extender_allocates_one_gpu_by_container_requests() {
        let annotations = [(V1_GPU, "3"), (V1_POD, "6"), (DEVICE, "15"), (V1_ASSIGNED, "true")];
        let containers =
            [("x", "aliyun.com/gpu-mem=2"), ("log", ""), ("y", "aliyun.com/gpu-mem=4")];
        let total = Some(15.0);
        assert_eq!(
            parts(&pod("a", &annotations, &containers, &[])),
            [
                (ContainerPosition::Index(0), GpuName::Minor(3), units(2.0, total), 0.0),
                (ContainerPosition::Index(2), GpuName::Minor(3), units(4.0, total), 0.0),
            ]
        );
    }

    #[test]
    fn unconfirmed_allocation_is_pending() {
        for annotations in [
            [(V2, r#"{"0":{"1":1}}"#), (ASSIGNED[0], "false")],
            [(V1_GPU, "-1"), (V1_ASSIGNED, "false")],
        ] {
            assert_eq!(
                parse(&pod("a", &annotations, &[("x", "")], &[])),
                Ok(AnnotationAllocation::Pending)
            );
        }
    }

    #[test]
    fn malformed_annotations_are_rejected_with_a_reason() {
        for (annotation, problem) in [
            ((V2, "{"), AllocationProblem::InvalidAnnotation),
            ((V2, "[]"), AllocationProblem::InvalidAnnotation),
            ((V2, r#"{"0":{"0":"4"}}"#), AllocationProblem::InvalidAnnotation),
            ((V2, r#"{"0":{"0":1e999}}"#), AllocationProblem::InvalidAnnotation),
            ((V2, r#"{"0":{"0":-4}}"#), AllocationProblem::InvalidAmount),
            ((V2, r#"{"7":{"0":4}}"#), AllocationProblem::InvalidIndex),
            ((V2, r#"{"0":{"99999999999":4}}"#), AllocationProblem::InvalidIndex),
            ((V1_GPU, "-1"), AllocationProblem::InvalidIndex),
        ] {
            let pod = pod("a", &[annotation], &[("x", "aliyun.com/gpu-mem=4")], &[]);
            assert_eq!(parse(&pod), Err(problem), "{annotation:?}");
        }
        let annotations = [(V1_GPU, "0"), (DEVICE, "3")];
        let above_total = pod("a", &annotations, &[("x", "aliyun.com/gpu-mem=4")], &[]);
        assert_eq!(parse(&above_total), Err(AllocationProblem::InvalidAmount));
        let annotations = [(V1_GPU, "0"), (V1_POD, "5")];
        let wrong_sum = pod("a", &annotations, &[("x", "aliyun.com/gpu-mem=4")], &[]);
        assert_eq!(parse(&wrong_sum), Err(AllocationProblem::InvalidAnnotation));
    }
}
