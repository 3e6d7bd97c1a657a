//! Volcano: vGPU, whose text is `HAMi`'s, and the older sharing by memory.

use super::{Amount, Given, GpuName, Pod, Problem, Told, asked, hami};

const VGPU: &str = "volcano.sh/vgpu-ids-new";
const PHASE: &str = "volcano.sh/bind-phase";
const GPU: &str = "volcano.sh/gpu-index";
/// MiB that a container asks for, in the older form.
const MEMORY: &str = "volcano.sh/gpu-memory";

/// What Volcano's annotations tell.
///
/// # Errors
/// One is broken, or speaks of other containers than the pod has.
pub fn told(pod: &Pod) -> Result<Told, Problem> {
    match hami::by_names(pod, VGPU, PHASE)? {
        Told::Nothing => {}
        told @ (Told::Pending | Told::Given { .. }) => return Ok(told),
    }
    let Some(text) = pod.annotation(GPU) else { return Ok(Told::Nothing) };
    let minors: Vec<u32> = text
        .split(',')
        .map(|minor| minor.trim().parse().map_err(|_| Problem::AbsurdIndex))
        .collect::<Result<_, _>>()?;
    // Several GPUs are whole ones, and nothing says which container has which.
    let [minor] = minors.as_slice() else { return Err(Problem::NoContainer) };
    let part = |(place, mib)| Given {
        place,
        gpu: GpuName::Minor(*minor),
        memory: Amount::Mib(mib),
        compute: 0.0,
    };
    let parts = asked(pod, MEMORY)?.into_iter().map(part).collect();
    Ok(Told::Given { parts, oversubscribes: false })
}

#[cfg(test)]
mod tests {
    use super::super::Place;
    use super::super::fixtures::pod;
    use super::*;

    #[test]
    fn both_generations_are_read() {
        let new = pod("a", &[(VGPU, "GPU-a,NVIDIA,2000,25:;")], &[("x", "")], &[]);
        let Ok(Told::Given { parts, .. }) = told(&new) else { panic!("nothing given") };
        assert_eq!((&parts[0].memory, parts[0].compute), (&Amount::Mib(2000.0), 0.25));

        let asks = [("log", ""), ("x", "volcano.sh/gpu-memory=1024")];
        let old = pod("a", &[(GPU, "2")], &asks, &[]);
        let Ok(Told::Given { parts, .. }) = told(&old) else { panic!("nothing given") };
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].place, Place::Position(1));
        assert_eq!(parts[0].gpu, GpuName::Minor(2));
        assert_eq!(parts[0].memory, Amount::Mib(1024.0));
    }

    #[test]
    fn broken_annotations_have_their_reason() {
        for (text, problem) in [
            ("", Problem::AbsurdIndex),
            ("-1", Problem::AbsurdIndex),
            ("0,x", Problem::AbsurdIndex),
            ("0,1", Problem::NoContainer),
        ] {
            let pod = pod("a", &[(GPU, text)], &[("x", "volcano.sh/gpu-memory=1")], &[]);
            assert_eq!(told(&pod), Err(problem), "{text}");
        }
    }
}
