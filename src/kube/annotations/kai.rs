//! Labels and annotations of KAI Scheduler and Run:ai: the share that a pod has of the GPU of each
//! of its groups.
//!
//! The scheduler writes the labels before it binds the pod. The GPU of a group is in none of them: a
//! reservation pod holds it.

use std::num::NonZeroUsize;

use super::{
    AllocationProblem, Container, ContainerKind, ContainerPosition, MemoryAmount, Pod,
    app_container,
};

const FRACTION: &str = "gpu-fraction";
const MEMORY: &str = "gpu-memory";
const DEVICES: &str = "gpu-fraction-num-devices";
const CONTAINER: &str = "gpu-fraction-container-name";
const RESERVED: &str = "run.ai/reserve_for_gpu_index";

/// The share that a pod has of the GPU of each of its groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupShare {
    /// The container that gets the GPUs.
    pub container: ContainerPosition,
    /// Allocated memory of each GPU.
    pub memory: MemoryAmount,
}

/// Parses the share of a pod that is in a GPU group.
///
/// # Errors
/// The annotations contain no share, or a malformed one, or refer to a container that the pod does
/// not have, or their number of GPUs is not that of the groups.
pub fn parse(pod: &Pod) -> Result<GroupShare, AllocationProblem> {
    let memory = match (pod.annotation(FRACTION), pod.annotation(MEMORY)) {
        (Some(text), None) => MemoryAmount::Ratio(fraction(text)?),
        (None, Some(text)) => MemoryAmount::Mib(mib(text)?),
        (None, None) => return Err(AllocationProblem::NoAnnotation),
        (Some(_), Some(_)) => return Err(AllocationProblem::InvalidAnnotation),
    };
    let devices = pod.annotation(DEVICES).unwrap_or("1").parse::<NonZeroUsize>();
    if !devices.is_ok_and(|devices| devices.get() == pod.gpu_groups().len()) {
        return Err(AllocationProblem::InvalidAnnotation);
    }
    Ok(GroupShare { container: container(pod)?, memory })
}

/// UUID of the GPU that a reservation pod states to hold; None if it states none, or an index, which
/// older releases write.
#[must_use]
pub fn reserved_gpu(pod: &Pod) -> Option<&str> {
    pod.annotation(RESERVED).filter(|gpu| gpu.starts_with("GPU-"))
}

fn fraction(text: &str) -> Result<f64, AllocationProblem> {
    let fraction: f64 = text.parse().map_err(|_| AllocationProblem::InvalidAnnotation)?;
    if fraction > 0.0 && fraction <= 1.0 {
        Ok(fraction)
    } else {
        Err(AllocationProblem::InvalidAmount)
    }
}

fn mib(text: &str) -> Result<f64, AllocationProblem> {
    let mib: u32 = text.parse().map_err(|_| AllocationProblem::InvalidAnnotation)?;
    if mib > 0 { Ok(f64::from(mib)) } else { Err(AllocationProblem::InvalidAmount) }
}

/// The container that the annotation names, which may be an init container; else the first one.
fn container(pod: &Pod) -> Result<ContainerPosition, AllocationProblem> {
    let Some(name) = pod.annotation(CONTAINER) else { return app_container(pod, 0) };
    let is_named = |c: &Container| c.kind != ContainerKind::Ephemeral && *c.name == *name;
    let position = pod.containers.iter().position(is_named);
    position.map(ContainerPosition::Index).ok_or(AllocationProblem::NoContainer)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{grouped, pod};
    use super::*;

    fn share(annotations: &[(&str, &str)]) -> Result<GroupShare, AllocationProblem> {
        let containers = [("x", ""), ("y", "")];
        parse(&grouped(pod("a", annotations, &containers, &[("i", "")]), &["g"]))
    }

    #[test]
    fn share_is_a_fraction_or_an_amount_of_the_first_or_the_named_container() {
        let of =
            |index, memory| Ok(GroupShare { container: ContainerPosition::Index(index), memory });
        assert_eq!(share(&[(FRACTION, "0.5")]), of(0, MemoryAmount::Ratio(0.5)));
        assert_eq!(share(&[(MEMORY, "20000")]), of(0, MemoryAmount::Mib(20000.0)));
        let named = |name| share(&[(FRACTION, "0.25"), (CONTAINER, name)]);
        assert_eq!(named("y"), of(1, MemoryAmount::Ratio(0.25)));
        assert_eq!(named("i"), of(2, MemoryAmount::Ratio(0.25)));
        assert_eq!(named("z"), Err(AllocationProblem::NoContainer));
    }

    #[test]
    fn number_of_gpus_is_that_of_the_groups() {
        let of = |groups: &[&str], devices: &str| {
            let annotations = [(FRACTION, "0.5"), (DEVICES, devices)];
            parse(&grouped(pod("a", &annotations, &[("x", "")], &[]), groups)).is_ok()
        };
        assert!(of(&["g"], "1") && of(&["g", "h"], "2"));
        assert!(!of(&["g"], "2") && !of(&["g", "h"], "1") && !of(&[], "1") && !of(&[], "0"));
        assert!(!of(&["g"], "") && !of(&["g"], "-1") && !of(&["g"], "one"));
    }

    #[test]
    fn malformed_shares_are_rejected_with_a_reason() {
        use AllocationProblem::{InvalidAmount, InvalidAnnotation, NoAnnotation};
        for (annotations, problem) in [
            (&[][..], NoAnnotation),
            (&[(FRACTION, "0.5"), (MEMORY, "1")], InvalidAnnotation),
            (&[(FRACTION, "")], InvalidAnnotation),
            (&[(FRACTION, "half")], InvalidAnnotation),
            (&[(FRACTION, "0")], InvalidAmount),
            (&[(FRACTION, "-0.5")], InvalidAmount),
            (&[(FRACTION, "1.5")], InvalidAmount),
            (&[(FRACTION, "NaN")], InvalidAmount),
            (&[(FRACTION, "inf")], InvalidAmount),
            (&[(MEMORY, "0")], InvalidAmount),
            (&[(MEMORY, "1.5")], InvalidAnnotation),
            (&[(MEMORY, "4Gi")], InvalidAnnotation),
            (&[(MEMORY, "99999999999")], InvalidAnnotation),
        ] {
            assert_eq!(share(annotations), Err(problem), "{annotations:?}");
        }
    }

    #[test]
    fn reserved_gpu_is_a_uuid_not_an_index() {
        let gpu = |value| {
            let pod = pod("a", &[(RESERVED, value)], &[], &[]);
            reserved_gpu(&pod).map(str::to_owned)
        };
        assert_eq!(gpu("GPU-1"), Some("GPU-1".to_owned()));
        assert_eq!((gpu("0"), gpu("-1"), gpu("")), (None, None, None));
    }
}
