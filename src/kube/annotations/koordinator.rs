//! koordinator, which gives to pods and not to containers.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Amount, Given, GpuName, Place, Pod, Problem, Told, percent};
use crate::kube::quantity;

const ALLOCATED: &str = "scheduling.koordinator.sh/device-allocated";

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    gpu: Option<Vec<Device>>,
}

#[derive(Deserialize)]
struct Device {
    minor: i64,
    #[serde(default)]
    resources: BTreeMap<String, Quantity>,
}

/// A quantity may be written as a string or as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Quantity {
    Text(String),
    Number(serde_json::Number),
}

/// What koordinator's annotation tells.
///
/// # Errors
/// It is broken.
pub fn told(pod: &Pod) -> Result<Told, Problem> {
    let Some(text) = pod.annotation(ALLOCATED) else { return Ok(Told::Nothing) };
    let wire: Wire = serde_json::from_str(text).map_err(|_| Problem::BrokenAnnotation)?;
    // It gives network cards the same way.
    let Some(devices) = wire.gpu.filter(|gpus| !gpus.is_empty()) else { return Ok(Told::Nothing) };
    let parts = devices.iter().map(given).collect::<Result<_, _>>()?;
    Ok(Told::Given { parts, oversubscribes: false })
}

fn given(device: &Device) -> Result<Given, Problem> {
    let minor = u32::try_from(device.minor).map_err(|_| Problem::AbsurdIndex)?;
    let memory = match (number(device, "gpu-memory")?, number(device, "gpu-memory-ratio")?) {
        (Some(bytes), _) if bytes > 0.0 => Amount::Mib(bytes / 1_048_576.0),
        (_, Some(ratio)) if ratio > 0.0 => Amount::Ratio(percent(ratio)?),
        _ => Amount::Unknown,
    };
    let compute = percent(number(device, "gpu-core")?.unwrap_or_default())?;
    Ok(Given { place: Place::Pod, gpu: GpuName::Minor(minor), memory, compute })
}

fn number(device: &Device, name: &str) -> Result<Option<f64>, Problem> {
    let named = |key: &str| key.strip_prefix("koordinator.sh/") == Some(name);
    let Some((_, quantity)) = device.resources.iter().find(|(key, _)| named(key)) else {
        return Ok(None);
    };
    let number = match quantity {
        Quantity::Text(text) => quantity::parse(text),
        Quantity::Number(number) => quantity::parse(&number.to_string()),
    };
    number.map(Some).ok_or(Problem::BrokenAnnotation)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::pod;
    use super::*;

    fn read(text: &str) -> Result<Told, Problem> {
        told(&pod("a", &[(ALLOCATED, text)], &[("x", "")], &[]))
    }

    #[test]
    fn memory_is_bytes_or_a_ratio() {
        let text = r#"{"gpu":[
            {"minor":1,"resources":{"koordinator.sh/gpu-core":"50","koordinator.sh/gpu-memory":"16Gi","koordinator.sh/gpu-memory-ratio":"20"}},
            {"minor":2,"resources":{"koordinator.sh/gpu-memory-ratio":25}},
            {"minor":3,"id":"x","resources":{}}
        ],"rdma":[{"minor":0}]}"#;
        let Ok(Told::Given { parts, .. }) = read(text) else { panic!("nothing given") };
        let parts: Vec<_> = parts.iter().map(|p| (&p.gpu, p.memory, p.compute)).collect();
        assert_eq!(
            parts,
            [
                (&GpuName::Minor(1), Amount::Mib(16384.0), 0.5),
                (&GpuName::Minor(2), Amount::Ratio(0.25), 0.0),
                (&GpuName::Minor(3), Amount::Unknown, 0.0),
            ]
        );
        assert_eq!(read(r#"{"rdma":[{"minor":0}]}"#), Ok(Told::Nothing));
    }

    #[test]
    fn broken_annotations_have_their_reason() {
        let core = |core: &str| {
            format!(
                r#"{{"gpu":[{{"minor":0,"resources":{{"koordinator.sh/gpu-core":"{core}"}}}}]}}"#
            )
        };
        for (text, problem) in [
            ("{".into(), Problem::BrokenAnnotation),
            (r#"{"gpu":{}}"#.into(), Problem::BrokenAnnotation),
            (r#"{"gpu":[{"minor":-1}]}"#.into(), Problem::AbsurdIndex),
            (r#"{"gpu":[{"minor":5000000000}]}"#.into(), Problem::AbsurdIndex),
            (core("x"), Problem::BrokenAnnotation),
            (core("-5"), Problem::BrokenAnnotation),
            (core("1000"), Problem::AbsurdAmount),
        ] {
            assert_eq!(read(&text), Err(problem), "{text}");
        }
    }
}
