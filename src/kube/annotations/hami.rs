//! `HAMi`, and the text form that Volcano's vGPU shares with it.

use super::{Amount, Container, ContainerKind, Given, GpuName, Place, Pod, Problem, Told, percent};

const ALLOCATED: &str = "hami.io/vgpu-devices-allocated";
const PHASE: &str = "hami.io/bind-phase";

/// What `HAMi`'s annotation tells.
///
/// # Errors
/// It is broken, or speaks of other containers than the pod has.
pub fn told(pod: &Pod) -> Result<Told, Problem> {
    by_names(pod, ALLOCATED, PHASE)
}

/// The same form under other names.
pub(super) fn by_names(pod: &Pod, allocated: &str, phase: &str) -> Result<Told, Problem> {
    let Some(text) = pod.annotation(allocated) else { return Ok(Told::Nothing) };
    // Until then the scheduler may still choose again.
    if pod.annotation(phase).is_some_and(|phase| phase != "success") {
        return Ok(Told::Pending);
    }
    let entries = parse(text)?;
    let positions = positions(pod, &entries)?;
    let mut parts = Vec::new();
    for (place, devices) in positions.into_iter().zip(entries) {
        let Some(position) = place else { continue };
        for device in devices {
            parts.push(Given {
                place: Place::Position(position),
                gpu: GpuName::Uuid(device.uuid),
                memory: device.mib.map_or(Amount::Unknown, Amount::Mib),
                compute: percent(device.percent)?,
            });
        }
    }
    Ok(Told::Given { parts, oversubscribes: true })
}

struct Device {
    uuid: Box<str>,
    mib: Option<f64>,
    percent: f64,
}

/// `UUID,type,MiB,percent` per device; devices end in `:`, containers in `;`, and one that was
/// given nothing keeps its empty place.
fn parse(text: &str) -> Result<Vec<Vec<Device>>, Problem> {
    let text = text.strip_suffix(';').unwrap_or(text);
    let devices = |text: &str| {
        let devices = text.split(':').filter(|device| !device.is_empty());
        devices.map(device).collect::<Result<Vec<_>, _>>()
    };
    text.split(';').map(devices).collect()
}

fn device(text: &str) -> Result<Device, Problem> {
    let fields: Vec<_> = text.split(',').collect();
    let [uuid, _kind, mib, percent] = fields.as_slice() else {
        return Err(Problem::BrokenAnnotation);
    };
    let number = |text: &str| text.parse::<u32>().map_err(|_| Problem::BrokenAnnotation);
    let mib = f64::from(number(mib)?);
    Ok(Device {
        uuid: (*uuid).into(),
        // A limit of nothing is how it writes no limit.
        mib: (mib > 0.0).then_some(mib),
        percent: f64::from(number(percent)?),
    })
}

/// The position in [`Pod::containers`] of each entry; none for an init container that has ended.
/// Releases differ in whether init containers are counted (then first): how many entries there
/// are tells.
fn positions(pod: &Pod, entries: &[Vec<Device>]) -> Result<Vec<Option<usize>>, Problem> {
    let of = |wanted: fn(&Container) -> bool| -> Vec<Option<usize>> {
        let all = pod.containers.iter().enumerate();
        all.filter(|(_, c)| wanted(c)).map(|(n, c)| (!gone(c)).then_some(n)).collect()
    };
    let apps = of(|container| container.kind == ContainerKind::App);
    let inits = of(|container| matches!(container.kind, ContainerKind::Init { .. }));
    if entries.len() == apps.len() {
        return Ok(apps);
    }
    if entries.len() == inits.len() + apps.len() {
        return Ok(inits.into_iter().chain(apps).collect());
    }
    Err(Problem::AbsurdIndex)
}

fn gone(container: &Container) -> bool {
    container.terminated && container.kind == ContainerKind::Init { restartable: false }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::pod;
    use super::*;

    const TWO: &str = "GPU-a,NVIDIA,3000,30:GPU-b,NVIDIA,0,0:;;GPU-a,NVIDIA,1000,0:;";

    fn parts(pod: &Pod) -> Vec<(usize, String, Amount, f64)> {
        let Ok(Told::Given { parts, .. }) = told(pod) else { panic!("{:?}", told(pod)) };
        let part = |part: Given| {
            let (Place::Position(n), GpuName::Uuid(uuid)) = (part.place, part.gpu) else {
                panic!("no position or UUID")
            };
            (n, uuid.into(), part.memory, part.compute)
        };
        parts.into_iter().map(part).collect()
    }

    #[test]
    fn empty_entries_keep_their_place() {
        let pod = pod("a", &[(ALLOCATED, TWO)], &[("x", ""), ("y", ""), ("z", "")], &[]);
        assert_eq!(
            parts(&pod),
            [
                (0, "GPU-a".into(), Amount::Mib(3000.0), 0.3),
                (0, "GPU-b".into(), Amount::Unknown, 0.0),
                (2, "GPU-a".into(), Amount::Mib(1000.0), 0.0),
            ]
        );
    }

    #[test]
    fn init_containers_are_counted_if_the_numbers_say_so() {
        let mut pod = pod("a", &[(ALLOCATED, TWO)], &[("x", ""), ("y", "")], &[("i", "")]);
        let places = |pod: &Pod| parts(pod).iter().map(|part| part.0).collect::<Vec<_>>();
        assert_eq!(places(&pod), [2, 2, 1], "the first entry is the init container's");
        pod.containers[2].terminated = true;
        assert_eq!(places(&pod), [1], "which has ended");
        pod.containers.truncate(2);
        assert_eq!(told(&pod), Err(Problem::AbsurdIndex));
    }

    #[test]
    fn until_it_is_bound_nothing_is_given() {
        for (phase, pending) in [("allocating", true), ("failed", true), ("success", false)] {
            let annotations = [(ALLOCATED, "GPU-a,NVIDIA,1,0:;"), (PHASE, phase)];
            let pod = pod("a", &annotations, &[("x", "")], &[]);
            assert_eq!(told(&pod) == Ok(Told::Pending), pending, "{phase}");
        }
    }

    #[test]
    fn broken_annotations_have_their_reason() {
        for (text, problem) in [
            ("GPU-a", Problem::BrokenAnnotation),
            ("GPU-a,NVIDIA,1000:;", Problem::BrokenAnnotation),
            ("GPU-a,NVIDIA,-1,0:;", Problem::BrokenAnnotation),
            ("GPU-a,NVIDIA,99999999999,0:;", Problem::BrokenAnnotation),
            ("GPU-a,NVIDIA,1,101:;", Problem::AbsurdAmount),
            ("GPU-a,NVIDIA,1,0:;;;", Problem::AbsurdIndex),
        ] {
            let pod = pod("a", &[(ALLOCATED, text)], &[("x", "")], &[]);
            assert_eq!(told(&pod), Err(problem), "{text}");
        }
    }
}
