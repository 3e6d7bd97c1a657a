//! Annotations of `HAMi`. Volcano's vGPU uses the same format.
//!
//! A GPU in MIG mode is allocated by MIG devices. Since `HAMi` 2.10 they are in an annotation of their
//! own ([`super::hami_mig`]). Before, and in Volcano, the UUID has a suffix `[template-index]`: the
//! scheduler's template of the layout (a number, in Volcano the name of a group), and the index of the
//! MIG device, with which the device plugin calls `nvmlDeviceGetMigDeviceHandleByIndex`.

use super::{
    AllocationProblem, AnnotationAllocation, Container, ContainerKind, ContainerPosition, GpuName,
    GpuShare, MemoryAmount, MigName, Pod, ShareResource, hami_mig, percent_to_fraction,
};

const ALLOCATED: &str = "hami.io/vgpu-devices-allocated";
const PHASE: &str = "hami.io/bind-phase";
const MIG: &str = "hami.io/vgpu-mig-allocations";

/// The annotations of a scheduler that uses the format.
pub(super) struct HamiKeys {
    /// Allocated devices.
    pub(super) allocated: &'static str,
    /// Phase of the bind.
    pub(super) phase: &'static str,
    /// MIG devices, if the scheduler has an annotation of them.
    pub(super) mig: Option<&'static str>,
    /// The resource at the kubelet.
    pub(super) resource: ShareResource,
}

const KEYS: HamiKeys =
    HamiKeys { allocated: ALLOCATED, phase: PHASE, mig: Some(MIG), resource: ShareResource::Hami };

/// Parses the annotations of `HAMi`.
///
/// # Errors
/// An annotation is malformed or does not match the pod's containers.
pub(super) fn parse(pod: &Pod) -> Result<AnnotationAllocation, AllocationProblem> {
    parse_keys(pod, &KEYS)
}

/// Parses the same format under other annotation keys.
pub(super) fn parse_keys(
    pod: &Pod,
    keys: &HamiKeys,
) -> Result<AnnotationAllocation, AllocationProblem> {
    let Some(text) = pod.annotation(keys.allocated) else {
        return Ok(AnnotationAllocation::Absent);
    };
    // Before the bind succeeds the scheduler may still choose other devices.
    if pod.annotation(keys.phase).is_some_and(|phase| phase != "success") {
        return Ok(AnnotationAllocation::Pending);
    }
    let mut entries = parse_entries(text)?;
    if let Some(text) = keys.mig.and_then(|key| pod.annotation(key)) {
        for ((container, device), gpu, mig) in hami_mig::parse(text)? {
            let entry = entries.get_mut(container).and_then(|entries| entries.get_mut(device));
            let entry = entry.ok_or(AllocationProblem::InvalidIndex)?;
            if entry.gpu != GpuName::Uuid(gpu.clone()) {
                return Err(AllocationProblem::InvalidAnnotation);
            }
            entry.gpu = GpuName::Mig { gpu, mig };
        }
    }
    let positions = positions(pod, &entries)?;
    let mut parts = Vec::new();
    for (position, devices) in positions.into_iter().zip(entries) {
        let Some(position) = position else { continue };
        for device in devices {
            parts.push(GpuShare {
                container: ContainerPosition::Index(position),
                gpu: device.gpu,
                memory: device.mib.map_or(MemoryAmount::Unknown, MemoryAmount::Mib),
                compute: percent_to_fraction(device.percent)?,
            });
        }
    }
    let resource = keys.resource;
    Ok(AnnotationAllocation::Allocated { resource, shares: parts, oversubscribes: true })
}

struct HamiDevice {
    gpu: GpuName,
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
        gpu: parse_gpu(uuid)?,
        // 0 means no limit.
        mib: (mib > 0.0).then_some(mib),
        percent: f64::from(number(percent)?),
    })
}

/// A UUID, with `[template-index]` if a MIG device is allocated.
fn parse_gpu(text: &str) -> Result<GpuName, AllocationProblem> {
    let Some((gpu, mig)) = text.split_once('[') else { return Ok(GpuName::Uuid(text.into())) };
    let index = mig.strip_suffix(']').and_then(|mig| mig.rsplit_once('-')?.1.parse().ok());
    let mig = MigName::Index(index.ok_or(AllocationProblem::InvalidAnnotation)?);
    Ok(GpuName::Mig { gpu: gpu.into(), mig })
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
    fn mig_devices_have_an_index_or_an_annotation_of_their_own() {
        let gpus = |annotations: &[(&str, &str)]| {
            let pod = pod("a", annotations, &[("x", ""), ("y", "")], &[]);
            let AnnotationAllocation::Allocated { shares, .. } = parse(&pod)? else {
                panic!("nothing allocated")
            };
            Ok(shares.into_iter().map(|share| share.gpu).collect::<Vec<_>>())
        };
        let plain = GpuName::Uuid("GPU-b".into());
        let mig = |mig| GpuName::Mig { gpu: "GPU-a".into(), mig };
        let older = "GPU-a[1-0],NVIDIA,5120,0:;GPU-b,NVIDIA,1000,0:;";
        assert_eq!(gpus(&[(ALLOCATED, older)]), Ok(vec![mig(MigName::Index(0)), plain.clone()]));

        let newer = (ALLOCATED, "GPU-b,NVIDIA,1000,0:;GPU-a,NVIDIA,4864,0:;");
        let pending = r#"[{"containerIndex":1,"deviceIndex":0,"gpuUUID":"GPU-a"}]"#;
        assert_eq!(gpus(&[newer, (MIG, pending)]), Ok(vec![plain, mig(MigName::Pending)]));
        for (text, problem) in [
            (pending.replace('1', "0"), AllocationProblem::InvalidAnnotation),
            (pending.replace('0', "1"), AllocationProblem::InvalidIndex),
            (pending.replace('1', "2"), AllocationProblem::InvalidIndex),
        ] {
            assert_eq!(gpus(&[newer, (MIG, &text)]), Err(problem), "{text}");
        }
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
            ("GPU-a[0,NVIDIA,1,0:;", AllocationProblem::InvalidAnnotation),
            ("GPU-a[0-x],NVIDIA,1,0:;", AllocationProblem::InvalidAnnotation),
            ("GPU-a[0-1]x,NVIDIA,1,0:;", AllocationProblem::InvalidAnnotation),
            ("GPU-a,NVIDIA,1,101:;", AllocationProblem::InvalidAmount),
            ("GPU-a,NVIDIA,1,0:;;;", AllocationProblem::InvalidIndex),
        ] {
            let pod = pod("a", &[(ALLOCATED, text)], &[("x", "")], &[]);
            assert_eq!(parse(&pod), Err(problem), "{text}");
        }
    }
}
