//! Device IDs of device plugins.

use nvml_exporter::kube::device_id::{DeviceId, DeviceName, parse};

/// A parsed ID, printed again, is the input.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(id) = std::str::from_utf8(bytes) else { return };
    match parse(id) {
        DeviceId::Device { name: named, replica } => {
            let name = match named {
                DeviceName::Gpu(uuid) | DeviceName::Mig(uuid) => uuid.to_owned(),
                DeviceName::LegacyMig { gpu, gpu_instance, compute_instance } => {
                    format!("MIG-{gpu}/{gpu_instance}/{compute_instance}")
                }
                DeviceName::Minor(minor) => format!("nvidia{minor}"),
                DeviceName::MinorMig { minor, gpu_instance } => {
                    format!("nvidia{minor}/gi{gpu_instance}")
                }
                DeviceName::OnlyGpu if id.starts_with("all") => "all".to_owned(),
                DeviceName::OnlyGpu => "tegra".to_owned(),
            };
            let printed = match replica {
                None => vec![name],
                Some(n) => vec![format!("{name}::{n}"), format!("{name}/vgpu{n}")],
            };
            assert!(printed.iter().any(|printed| printed == id), "{id}: {printed:?}");
            for printed in printed.iter().filter(|printed| *printed == id) {
                assert_eq!(parse(printed), DeviceId::Device { name: named, replica });
            }
        }
        DeviceId::SharedUnit { gpu } => assert!(id.starts_with(gpu) && id.len() > gpu.len()),
        DeviceId::Pci => assert!(id.len() <= 16, "{id}"),
        DeviceId::Unknown => {}
    }
}
