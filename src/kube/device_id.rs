//! Parser of the device ids of the kubelet's `PodResources`.
//!
//! Most device plugins use the UUID of the device as its id. Plugins for GPU sharing advertise ids
//! that only look like UUIDs: the kubelet allocates any of them, and the plugin then uses the device
//! that the scheduler wrote into an annotation. Such an id shows that a share is allocated, but not
//! of which device.

/// A parsed device id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceId<'a> {
    /// The id of the allocated device.
    Device {
        /// The device.
        name: DeviceName<'a>,
        /// Index of the replica, if the device is shared by time-slicing or MPS.
        replica: Option<u32>,
    },
    /// A unit of a shared GPU. Only the number of such ids has a meaning.
    SharedUnit {
        /// The GPU in the id, which need not be the allocated one. The number of allocatable ids
        /// with this GPU is the number of units that the GPU is divided into.
        gpu: &'a str,
    },
    /// A PCI address: a device that is passed through to a virtual machine and not visible in NVML.
    Pci,
    /// No known format.
    Unknown,
}

/// How an id identifies its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceName<'a> {
    /// `GPU-<uuid>`.
    Gpu(&'a str),
    /// `MIG-<uuid>`.
    Mig(&'a str),
    /// `MIG-GPU-<uuid>/<GPU instance>/<compute instance>`, the format of drivers before 470.
    LegacyMig {
        /// UUID of the parent GPU, `GPU-<uuid>`.
        gpu: &'a str,
        /// Id of the GPU instance.
        gpu_instance: u32,
        /// Id of the compute instance in the GPU instance.
        compute_instance: u32,
    },
    /// `nvidia<minor>`, the format of GKE's device plugin.
    Minor(u32),
    /// `nvidia<minor>/gi<GPU instance>`.
    MinorMig {
        /// Minor number of the parent GPU.
        minor: u32,
        /// Id of the GPU instance.
        gpu_instance: u32,
    },
    /// `tegra` (Jetson, Thor) or `all` (WSL): the device plugin advertises all that there is as one
    /// device. Plugins of other vendors may use these words, too.
    OnlyGpu,
}

/// Parses an id.
#[must_use]
pub fn parse(id: &str) -> DeviceId<'_> {
    if let Some((name, replica)) = id.rsplit_once("::") {
        return match (device_name(name), number(replica)) {
            (Some(named), Some(replica)) => {
                DeviceId::Device { name: named, replica: Some(replica) }
            }
            _ => DeviceId::Unknown,
        };
    }
    if let Some(device) = gke(id) {
        return device;
    }
    if let Some(named) = device_name(id) {
        return DeviceId::Device { name: named, replica: None };
    }
    match unit_of_gpu(id) {
        Some(gpu) => DeviceId::SharedUnit { gpu },
        None if is_pci(id) => DeviceId::Pci,
        None => DeviceId::Unknown,
    }
}

fn device_name(id: &str) -> Option<DeviceName<'_>> {
    if matches!(id, "tegra" | "all") {
        return Some(DeviceName::OnlyGpu);
    }
    if is_uuid(id, "GPU-") {
        return Some(DeviceName::Gpu(id));
    }
    if is_uuid(id, "MIG-") {
        return Some(DeviceName::Mig(id));
    }
    let mut parts = id.strip_prefix("MIG-")?.split('/');
    let (gpu, gi, ci) = (parts.next()?, parts.next()?, parts.next()?);
    let (gpu_instance, compute_instance) = (number(gi)?, number(ci)?);
    let valid = is_uuid(gpu, "GPU-") && parts.next().is_none();
    valid.then_some(DeviceName::LegacyMig { gpu, gpu_instance, compute_instance })
}

/// `nvidia0`, `nvidia0/gi3`, `nvidia0/vgpu1`, `nvidia0/gi0/vgpu1`.
fn gke(id: &str) -> Option<DeviceId<'_>> {
    let mut parts = id.strip_prefix("nvidia")?.split('/').peekable();
    let minor = number(parts.next()?)?;
    let mut named = DeviceName::Minor(minor);
    if let Some(gi) = parts.peek().and_then(|part| part.strip_prefix("gi")) {
        named = DeviceName::MinorMig { minor, gpu_instance: number(gi)? };
        parts.next();
    }
    let replica = parts.next().map(|part| part.strip_prefix("vgpu").and_then(number));
    match (replica, parts.next()) {
        (None, _) => Some(DeviceId::Device { name: named, replica: None }),
        (Some(Some(replica)), None) => {
            Some(DeviceId::Device { name: named, replica: Some(replica) })
        }
        _ => None,
    }
}

/// The GPU of `GPU-<uuid>-_-<n>` or `GPU-<uuid>-<n>`.
fn unit_of_gpu(id: &str) -> Option<&str> {
    let (gpu, unit) = id.rsplit_once('-')?;
    number(unit)?;
    let gpu = gpu.strip_suffix("-_").unwrap_or(gpu);
    is_uuid(gpu, "GPU-").then_some(gpu)
}

fn is_uuid(text: &str, prefix: &str) -> bool {
    let Some(uuid) = text.strip_prefix(prefix) else { return false };
    let groups = uuid.split('-').map(str::len);
    groups.eq([8, 4, 4, 4, 12]) && uuid.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// `0000:1b:00.0`, with or without its domain.
fn is_pci(id: &str) -> bool {
    let hex = |text: &str, lengths: &[usize]| {
        lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let Some((address, function)) = id.rsplit_once('.') else { return false };
    let parts: Vec<_> = address.splitn(4, ':').collect();
    hex(function, &[1])
        && match parts.as_slice() {
            [bus, device] => hex(bus, &[2]) && hex(device, &[2]),
            [domain, bus, device] => hex(domain, &[4, 8]) && hex(bus, &[2]) && hex(device, &[2]),
            _ => false,
        }
}

/// Only the canonical form: `+1` and `01` are rejected, so that no device has two ids.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GPU: &str = "GPU-11111111-2222-3333-4444-555555555555";
    const MIG: &str = "MIG-11111111-2222-3333-4444-555555555555";

    fn real(named: DeviceName<'_>) -> DeviceId<'_> {
        DeviceId::Device { name: named, replica: None }
    }

    fn replica(named: DeviceName<'_>, replica: u32) -> DeviceId<'_> {
        DeviceId::Device { name: named, replica: Some(replica) }
    }

    #[test]
    fn ids_of_devices() {
        assert_eq!(parse(GPU), real(DeviceName::Gpu(GPU)));
        assert_eq!(parse(MIG), real(DeviceName::Mig(MIG)));
        assert_eq!(parse(&format!("{GPU}::3")), replica(DeviceName::Gpu(GPU), 3));
        assert_eq!(parse(&format!("{MIG}::0")), replica(DeviceName::Mig(MIG), 0));
        let legacy = DeviceName::LegacyMig { gpu: GPU, gpu_instance: 7, compute_instance: 0 };
        assert_eq!(parse(&format!("MIG-{GPU}/7/0")), real(legacy));
        assert_eq!(parse("nvidia0"), real(DeviceName::Minor(0)));
        assert_eq!(parse("nvidia12/vgpu1"), replica(DeviceName::Minor(12), 1));
        let instance = DeviceName::MinorMig { minor: 0, gpu_instance: 3 };
        assert_eq!(parse("nvidia0/gi3"), real(instance));
        assert_eq!(parse("nvidia0/gi3/vgpu1"), replica(instance, 1));
        for only in ["tegra", "all"] {
            assert_eq!(parse(only), real(DeviceName::OnlyGpu));
            assert_eq!(parse(&format!("{only}::2")), replica(DeviceName::OnlyGpu, 2));
        }
    }

    #[test]
    fn ids_of_units_and_pci_addresses() {
        assert_eq!(parse(&format!("{GPU}-_-12")), DeviceId::SharedUnit { gpu: GPU });
        assert_eq!(parse(&format!("{GPU}-0")), DeviceId::SharedUnit { gpu: GPU });
        assert_eq!(parse("0000:1b:00.0"), DeviceId::Pci);
        assert_eq!(parse("00000000:1B:00.0"), DeviceId::Pci);
        assert_eq!(parse("1b:00.0"), DeviceId::Pci);
    }

    #[test]
    fn malformed_ids_are_unknown() {
        let malformed = [
            String::new(),
            "GPU-1".into(),
            format!("{GPU}::"),
            format!("{GPU}::x"),
            format!("{GPU}-"),
            format!("{GPU}-_-"),
            format!("{GPU}-+1"),
            format!("{GPU}-01"),
            format!("{GPU}::00"),
            "nvidia0/gi03".into(),
            format!("{GPU}-99999999999"),
            format!("MIG-{GPU}/7"),
            format!("MIG-{GPU}/7/0/1"),
            "nvidia".into(),
            "nvidiactl".into(),
            "nvidia0/".into(),
            "nvidia0/gi".into(),
            "nvidia0/vgpu1/gi0".into(),
            "nvidia0/gi0/vgpu1/vgpu2".into(),
            "nvidia0/gi0/vgpu".into(),
            "nvidia0/gi0/vgpu1::0".into(),
            "all::".into(),
            "tegra::x".into(),
            "tegra0".into(),
            "tegra-0".into(),
            "tegra/vgpu0".into(),
            "All".into(),
            "nvidia99999999999".into(),
            "::".into(),
            "1b:00.0.0".into(),
        ];
        for id in malformed {
            assert_eq!(parse(&id), DeviceId::Unknown, "{id}");
        }
    }

    proptest! {
        #[test]
        fn only_the_canonical_form_of_an_id_is_accepted(
            id in "(nvidia|tegra|all|MIG-)?[0-9/a-z:+]{0,12}(gi|vgpu|::)?[0-9]{0,3}"
        ) {
            let text = |name| match name {
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
            if let DeviceId::Device { name, replica } = parse(&id) {
                let name = text(name);
                let forms = match replica {
                    None => vec![name],
                    Some(n) => vec![format!("{name}::{n}"), format!("{name}/vgpu{n}")],
                };
                prop_assert!(forms.contains(&id), "{id}: {forms:?}");
            }
        }

        #[test]
        fn uuid_of_any_id_is_its_prefix(id in "\\PC{0,60}|(GPU-|MIG-|nvidia)[-0-9a-f/:_]{0,50}") {
            if let DeviceId::Device { name: DeviceName::Gpu(gpu) | DeviceName::Mig(gpu), .. } = parse(&id) {
                prop_assert!(id.starts_with(gpu) && gpu.len() == GPU.len());
            }
        }
    }
}
