//! Annotations of `HAMi`. Volcano's vGPU uses the same format.

use super::{
    AllocationProblem, AnnotationAllocation, Container, ContainerKind, ContainerPosition, GpuName,
    GpuShare, MemoryAmount, Pod, percent_to_fraction,
};

const ALLOCATED: &str = "hami.io/vgpu-devices-allocated";
const PHASE: &str = "hami.io/bind-phase";

/// Parses the annotation of `HAMi`.
///
/// # Errors
/// The annotation is malformed or does not match the pod's containers.
pub fn parse(pod: &Pod) -> Result<AnnotationAllocation, AllocationProblem> {
    parse_keys(pod, ALLOCATED, PHASE)
}

/// Parses the same format under other annotation keys.
pub(super) fn parse_keys(
    pod: &Pod,
    allocated: &str,
    phase: &str,
) -> Result<AnnotationAllocation, AllocationProblem> {
    let Some(text) = pod.annotation(allocated) else { return Ok(AnnotationAllocation::Absent) };
    // Before the bind succeeds the scheduler may still choose other devices.
    if pod.annotation(phase).is_some_and(|phase| phase != "success") {
        return Ok(AnnotationAllocation::Pending);
    }
    let entries = parse_entries(text)?;
    let positions = positions(pod, &entries)?;
    let mut parts = Vec::new();
    for (position, devices) in positions.into_iter().zip(entries) {
        let Some(position) = position else { continue };
        for device in devices {
            parts.push(GpuShare {
                container: ContainerPosition::Index(position),
                gpu: GpuName::Uuid(device.uuid),
                memory: device.mib.map_or(MemoryAmount::Unknown, MemoryAmount::Mib),
                compute: percent_to_fraction(device.percent)?,
            });
        }
    }
    Ok(AnnotationAllocation::Allocated { shares: parts, oversubscribes: true })
}

struct HamiDevice {
    uuid: Box<str>,
    mib: Option<f64>,
    percent: f64,
}

/// `UUID,type,MiB,percent` per device; devices end in `:`, containers in `;`. A container without
/// devices has an empty entry.
fn parse_entries(text: &str) -> Result<Vec<Vec<HamiDevice>>, AllocationProblem> {
    let text = text.strip_suffix(';').unwrap_or(text);
    let devices = |text: &str| {
        let devices = text.split(':').filter(|device| !device.is_empty());
        devices.map(parse_device).collect::<Result<Vec<_>, _>>()
    };
    text.split(';').map(devices).collect()
}

fn parse_device(text: &str) -> Result<HamiDevice, AllocationProblem> {
    let fields: Vec<_> = text.split(',').collect();
    let [uuid, _kind, mib, percent] = fields.as_slice() else {
        return Err(AllocationProblem::InvalidAnnotation);
    };
    let number = |text: &str| text.parse::<u32>().map_err(|_| AllocationProblem::InvalidAnnotation);
    let mib = f64::from(number(mib)?);
    Ok(HamiDevice {
        uuid: (*uuid).into(),
        // 0 means no limit.
        mib: (mib > 0.0).then_some(mib),
        percent: f64::from(number(percent)?),
    })
}

/// The position in [`Pod::containers`] of each entry; none for an init container that has ended.
/// Releases differ in whether init containers have entries (then first). The number of entries
/// decides which applies.
fn positions(
    pod: &Pod,
    entries: &[Vec<HamiDevice>],
) -> Result<Vec<Option<usize>>, AllocationProblem> {
    let of = |selects: fn(&Container) -> bool| -> Vec<Option<usize>> {
        let all = pod.containers.iter().enumerate();
        all.filter(|(_, c)| selects(c)).map(|(n, c)| (!ended(c)).then_some(n)).collect()
    };
    let apps = of(|container| container.kind == ContainerKind::App);
    let inits = of(|container| matches!(container.kind, ContainerKind::Init { .. }));
    if entries.len() == apps.len() {
        return Ok(apps);
    }
    if entries.len() == inits.len() + apps.len() {
        return Ok(inits.into_iter().chain(apps).collect());
    }
    Err(AllocationProblem::InvalidIndex)
}

fn ended(container: &Container) -> bool {
    container.terminated && container.kind == ContainerKind::Init { restartable: false }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::pod;
    use super::*;

    const TWO: &str = "GPU-a,NVIDIA,3000,30:GPU-b,NVIDIA,0,0:;;GPU-a,NVIDIA,1000,0:;";

    fn parts(pod: &Pod) -> Vec<(usize, String, MemoryAmount, f64)> {
        let Ok(AnnotationAllocation::Allocated { shares: parts, .. }) = parse(pod) else {
            panic!("{:?}", parse(pod))
        };
        let part = |part: GpuShare| {
            let (ContainerPosition::Index(n), GpuName::Uuid(uuid)) = (part.container, part.gpu)
            else {
                panic!("position or UUID missing")
            };
            (n, uuid.into(), part.memory, part.compute)
        };
        parts.into_iter().map(part).collect()
    }

    #[test]
    fn empty_entries_keep_their_position() {
        let pod = pod("a", &[(ALLOCATED, TWO)], &[("x", ""), ("y", ""), ("z", "")], &[]);
        assert_eq!(
            parts(&pod),
            [
                (0, "GPU-a".into(), MemoryAmount::Mib(3000.0), 0.3),
                (0, "GPU-b".into(), MemoryAmount::Unknown, 0.0),
                (2, "GPU-a".into(), MemoryAmount::Mib(1000.0), 0.0),
            ]
        );
    }

    #[test]
    fn init_containers_are_counted_if_the_number_of_entries_matches() {
        let mut pod = pod("a", &[(ALLOCATED, TWO)], &[("x", ""), ("y", "")], &[("i", "")]);
        let indexes = |pod: &Pod| parts(pod).iter().map(|part| part.0).collect::<Vec<_>>();
        assert_eq!(indexes(&pod), [2, 2, 1], "the first entry is the init container's");
        pod.containers[2].terminated = true;
        assert_eq!(indexes(&pod), [1], "the init container has ended");
        pod.containers.truncate(2);
        assert_eq!(parse(&pod), Err(AllocationProblem::InvalidIndex));
    }

    #[test]
    fn allocation_is_pending_until_the_bind_succeeds() {
        for (phase, pending) in [("allocating", true), ("failed", true), ("success", false)] {
            let annotations = [(ALLOCATED, "GPU-a,NVIDIA,1,0:;"), (PHASE, phase)];
            let pod = pod("a", &annotations, &[("x", "")], &[]);
            assert_eq!(parse(&pod) == Ok(AnnotationAllocation::Pending), pending, "{phase}");
        }
    }

    #[test]
    fn malformed_annotations_are_rejected_with_a_reason() {
        for (text, problem) in [
            ("GPU-a", AllocationProblem::InvalidAnnotation),
            ("GPU-a,NVIDIA,1000:;", AllocationProblem::InvalidAnnotation),
            ("GPU-a,NVIDIA,-1,0:;", AllocationProblem::InvalidAnnotation),
            ("GPU-a,NVIDIA,99999999999,0:;", AllocationProblem::InvalidAnnotation),
            ("GPU-a,NVIDIA,1,101:;", AllocationProblem::InvalidAmount),
            ("GPU-a,NVIDIA,1,0:;;;", AllocationProblem::InvalidIndex),
        ] {
            let pod = pod("a", &[(ALLOCATED, text)], &[("x", "")], &[]);
            assert_eq!(parse(&pod), Err(problem), "{text}");
        }
    }
}
