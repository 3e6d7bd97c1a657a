//! Annotation of `HAMi`'s dynamic MIG: the MIG devices that were created for a pod.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{AllocationProblem, MigName};

/// The scheduler writes the indexes and the GPU; the device plugin adds the rest when it has created
/// the MIG device.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MigAllocation {
    container_index: usize,
    device_index: usize,
    #[serde(rename = "gpuUUID")]
    gpu: Box<str>,
    #[serde(rename = "migUUID", default)]
    mig: Option<Box<str>>,
    #[serde(rename = "gpuInstanceID", default)]
    gpu_instance: Option<u32>,
    #[serde(rename = "computeInstanceID", default)]
    compute_instance: Option<u32>,
}

/// Position of an entry in the annotation of all devices: container, and device of the container.
type Position = (usize, usize);

/// Parses the annotation: position, UUID of the GPU, and MIG device.
///
/// # Errors
/// It is malformed, has a part of an identity, or two entries of one position.
pub(super) fn parse(text: &str) -> Result<Vec<(Position, Box<str>, MigName)>, AllocationProblem> {
    let raw: Vec<MigAllocation> =
        serde_json::from_str(text).map_err(|_| AllocationProblem::InvalidAnnotation)?;
    let mut positions = BTreeSet::new();
    let parsed = raw.into_iter().map(|entry| {
        let position = (entry.container_index, entry.device_index);
        let mig = match (entry.mig, entry.gpu_instance, entry.compute_instance) {
            (None, None, None) => MigName::Pending,
            (Some(uuid), Some(gpu_instance), Some(compute_instance)) => {
                MigName::Identity { uuid, gpu_instance, compute_instance }
            }
            _ => return Err(AllocationProblem::InvalidAnnotation),
        };
        if positions.insert(position) {
            Ok((position, entry.gpu, mig))
        } else {
            Err(AllocationProblem::InvalidAnnotation)
        }
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"{"containerIndex":0,"deviceIndex":1,"gpuUUID":"GPU-a","profile":"1g.10gb","placement":{"start":6,"size":1},"migUUID":"MIG-b","gpuInstanceID":9,"computeInstanceID":0}"#;

    #[test]
    fn identity_is_complete_or_pending() {
        let identity =
            MigName::Identity { uuid: "MIG-b".into(), gpu_instance: 9, compute_instance: 0 };
        assert_eq!(parse(&format!("[{ENTRY}]")), Ok(vec![((0, 1), "GPU-a".into(), identity)]));
        let identity = r#","migUUID":"MIG-b","gpuInstanceID":9,"computeInstanceID":0"#;
        let pending = ENTRY.replace(identity, "");
        let expected = vec![((0, 1), "GPU-a".into(), MigName::Pending)];
        assert_eq!(parse(&format!("[{pending}]")), Ok(expected));
        assert_eq!(parse("[]"), Ok(vec![]));
    }

    #[test]
    fn malformed_annotations_are_rejected() {
        for text in [
            "",
            "{}",
            &format!("[{ENTRY},{ENTRY}]"),
            &format!("[{}]", ENTRY.replace(r#","gpuInstanceID":9"#, "")),
            &format!("[{}]", ENTRY.replace("\"deviceIndex\":1", "\"deviceIndex\":-1")),
            &format!("[{}]", ENTRY.replace("\"gpuInstanceID\":9", "\"gpuInstanceID\":5000000000")),
        ] {
            assert_eq!(parse(text), Err(AllocationProblem::InvalidAnnotation), "{text}");
        }
    }
}
