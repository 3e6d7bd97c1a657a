//! ACK GPU sharing, by its scheduler framework (v2) and by the older extender (v1).

use std::collections::BTreeMap;

use super::{Amount, Given, GpuName, Place, Pod, Problem, Told, app_position, asked, percent};

/// `{"<container>":{"<minor>":units}}`; the later generation writes the same under another name.
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

/// What ACK's annotations tell.
///
/// # Errors
/// One is broken, or speaks of a container that is not.
pub fn told(pod: &Pod) -> Result<Told, Problem> {
    let unconfirmed = |name: &&'static str| pod.annotation(name).is_some_and(|told| told != "true");
    if let Some(text) = ALLOCATION.iter().find_map(|name| pod.annotation(name)) {
        if ASSIGNED.iter().any(&unconfirmed) {
            return Ok(Told::Pending);
        }
        return Ok(Told::Given { parts: v2(pod, text)?, oversubscribes: false });
    }
    let Some(gpu) = pod.annotation(V1_GPU) else { return Ok(Told::Nothing) };
    if unconfirmed(&V1_ASSIGNED) {
        return Ok(Told::Pending);
    }
    Ok(Told::Given { parts: v1(pod, gpu)?, oversubscribes: false })
}

fn v2(pod: &Pod, text: &str) -> Result<Vec<Given>, Problem> {
    let compute = pod.annotation(COMPUTE).map(matrix).transpose()?.unwrap_or_default();
    let of = whole(pod)?;
    let mut parts = Vec::new();
    for (container, gpus) in matrix(text)? {
        let place = app_position(pod, container)?;
        for (minor, units) in gpus.into_iter().filter(|(_, units)| *units > 0.0) {
            let percents = compute.get(&container).and_then(|gpus| gpus.get(&minor));
            parts.push(Given {
                place,
                gpu: GpuName::Minor(minor),
                memory: amount(units, of)?,
                compute: percent(percents.copied().unwrap_or_default())?,
            });
        }
    }
    Ok(parts)
}

/// One GPU for the whole pod, and each container has of it what it asked for.
fn v1(pod: &Pod, gpu: &str) -> Result<Vec<Given>, Problem> {
    let minor: u32 = gpu.parse().map_err(|_| Problem::AbsurdIndex)?;
    let asked = asked(pod, RESOURCE)?;
    if let Some(told) = pod.annotation(V1_POD) {
        let told: u32 = told.parse().map_err(|_| Problem::BrokenAnnotation)?;
        let sum: f64 = asked.iter().map(|(_, units)| units).sum();
        if (sum - f64::from(told)).abs() > 1e-6 {
            return Err(Problem::BrokenAnnotation);
        }
    }
    let of = whole(pod)?;
    let part = |(place, units): (Place, f64)| {
        let memory = amount(units, of)?;
        Ok(Given { place, gpu: GpuName::Minor(minor), memory, compute: 0.0 })
    };
    asked.into_iter().map(part).collect()
}

fn whole(pod: &Pod) -> Result<Option<f64>, Problem> {
    let Some(text) = pod.annotation(DEVICE) else { return Ok(None) };
    let units: u32 = text.parse().map_err(|_| Problem::BrokenAnnotation)?;
    Ok(Some(f64::from(units)))
}

fn amount(units: f64, of: Option<f64>) -> Result<Amount, Problem> {
    match of {
        Some(whole) if units > whole => Err(Problem::AbsurdAmount),
        _ => Ok(Amount::Units { units, of }),
    }
}

fn matrix(text: &str) -> Result<Matrix, Problem> {
    type Wire = BTreeMap<String, BTreeMap<String, f64>>;
    let wire: Wire = serde_json::from_str(text).map_err(|_| Problem::BrokenAnnotation)?;
    let mut matrix = Matrix::new();
    for (container, gpus) in wire {
        let container = container.parse().map_err(|_| Problem::AbsurdIndex)?;
        let row = matrix.entry(container).or_default();
        for (gpu, amount) in gpus {
            let gpu = gpu.parse().map_err(|_| Problem::AbsurdIndex)?;
            if !amount.is_finite() || amount < 0.0 {
                return Err(Problem::AbsurdAmount);
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

    fn parts(pod: &Pod) -> Vec<(Place, GpuName, Amount, f64)> {
        let Ok(Told::Given { parts, .. }) = told(pod) else { panic!("{:?}", told(pod)) };
        parts.into_iter().map(|p| (p.place, p.gpu, p.memory, p.compute)).collect()
    }

    fn units(units: f64, of: Option<f64>) -> Amount {
        Amount::Units { units, of }
    }

    #[test]
    fn the_framework_gives_by_container_and_minor_number() {
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
                (Place::Position(0), minor(1), units(1.0, None), 0.0),
                (Place::Position(1), minor(1), units(7.0, None), 0.5),
                (Place::Position(1), minor(2), units(3.0, None), 0.0),
            ]
        );
    }

    #[test]
    fn the_extender_gives_one_gpu_and_containers_what_they_asked_for() {
        let annotations = [(V1_GPU, "3"), (V1_POD, "6"), (DEVICE, "15"), (V1_ASSIGNED, "true")];
        let containers =
            [("x", "aliyun.com/gpu-mem=2"), ("log", ""), ("y", "aliyun.com/gpu-mem=4")];
        let of = Some(15.0);
        assert_eq!(
            parts(&pod("a", &annotations, &containers, &[])),
            [
                (Place::Position(0), GpuName::Minor(3), units(2.0, of), 0.0),
                (Place::Position(2), GpuName::Minor(3), units(4.0, of), 0.0),
            ]
        );
    }

    #[test]
    fn what_is_not_confirmed_is_pending() {
        for annotations in [
            [(V2, r#"{"0":{"1":1}}"#), (ASSIGNED[0], "false")],
            [(V1_GPU, "-1"), (V1_ASSIGNED, "false")],
        ] {
            assert_eq!(told(&pod("a", &annotations, &[("x", "")], &[])), Ok(Told::Pending));
        }
    }

    #[test]
    fn broken_annotations_have_their_reason() {
        for (annotation, problem) in [
            ((V2, "{"), Problem::BrokenAnnotation),
            ((V2, "[]"), Problem::BrokenAnnotation),
            ((V2, r#"{"0":{"0":"4"}}"#), Problem::BrokenAnnotation),
            ((V2, r#"{"0":{"0":1e999}}"#), Problem::BrokenAnnotation),
            ((V2, r#"{"0":{"0":-4}}"#), Problem::AbsurdAmount),
            ((V2, r#"{"7":{"0":4}}"#), Problem::AbsurdIndex),
            ((V2, r#"{"0":{"99999999999":4}}"#), Problem::AbsurdIndex),
            ((V1_GPU, "-1"), Problem::AbsurdIndex),
        ] {
            let pod = pod("a", &[annotation], &[("x", "aliyun.com/gpu-mem=4")], &[]);
            assert_eq!(told(&pod), Err(problem), "{annotation:?}");
        }
        let more = [(V1_GPU, "0"), (DEVICE, "3")];
        let of = pod("a", &more, &[("x", "aliyun.com/gpu-mem=4")], &[]);
        assert_eq!(told(&of), Err(Problem::AbsurdAmount));
        let other = [(V1_GPU, "0"), (V1_POD, "5")];
        let sum = pod("a", &other, &[("x", "aliyun.com/gpu-mem=4")], &[]);
        assert_eq!(told(&sum), Err(Problem::BrokenAnnotation));
    }
}
