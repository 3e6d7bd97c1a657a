//! The id of a device as a device plugin writes it.

use nvml_exporter::kube::device_id::{DeviceId, Named, parse};

/// What was understood is in the id, and printed it is the id again.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(id) = std::str::from_utf8(bytes) else { return };
    match parse(id) {
        DeviceId::Real { named, replica } => {
            let name = match named {
                Named::Gpu(uuid) | Named::Mig(uuid) => uuid.to_owned(),
                Named::LegacyMig { gpu, gpu_instance, compute_instance } => {
                    format!("MIG-{gpu}/{gpu_instance}/{compute_instance}")
                }
                Named::Minor(minor) => format!("nvidia{minor}"),
                Named::MinorMig { minor, gpu_instance } => {
                    format!("nvidia{minor}/gi{gpu_instance}")
                }
            };
            let printed = match replica {
                None => vec![name],
                Some(n) => vec![format!("{name}::{n}"), format!("{name}/vgpu{n}")],
            };
            assert!(printed.iter().any(|printed| printed == id), "{id}: {printed:?}");
            for printed in printed.iter().filter(|printed| *printed == id) {
                assert_eq!(parse(printed), DeviceId::Real { named, replica });
            }
        }
        DeviceId::Fake { gpu } => assert!(id.starts_with(gpu) && id.len() > gpu.len()),
        DeviceId::Pci => assert!(id.len() <= 16, "{id}"),
        DeviceId::Unknown => {}
    }
}
