//! What a device id of the kubelet's `PodResources` says.
//!
//! Most plugins name the device by its UUID. Those that divide GPUs themselves offer ids that
//! only look so: the kubelet picks any of them, and the plugin then gives what the scheduler wrote
//! into an annotation. Such an id says that something was given, and not what.

/// A device id, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceId<'a> {
    /// It names the device that was given.
    Real {
        /// The device.
        named: Named<'a>,
        /// Which of several replicas of the device it is (time-slicing or MPS).
        replica: Option<u32>,
    },
    /// A unit of a divided GPU: only the number of such ids means something.
    Fake {
        /// The GPU that the id pretends to be of. Over all ids of a node, how many are of one GPU
        /// tells into how many units that GPU is divided.
        gpu: &'a str,
    },
    /// A PCI address: a device that is passed through to a virtual machine, where NVML is not.
    Pci,
    /// None of the forms that we know.
    Unknown,
}

/// How an id names its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// `GPU-<uuid>`.
    Gpu(&'a str),
    /// `MIG-<uuid>`.
    Mig(&'a str),
    /// `MIG-GPU-<uuid>/<GPU instance>/<compute instance>`, as drivers before 470 name them.
    LegacyMig {
        /// The parent, `GPU-<uuid>`.
        gpu: &'a str,
        /// Its GPU instance.
        gpu_instance: u32,
        /// The compute instance in that.
        compute_instance: u32,
    },
    /// `nvidia<minor>`, as GKE's plugin names them.
    Minor(u32),
    /// `nvidia<minor>/gi<GPU instance>`.
    MinorMig {
        /// Minor number of the parent.
        minor: u32,
        /// Its GPU instance.
        gpu_instance: u32,
    },
}

/// Understands an id.
#[must_use]
pub fn parse(id: &str) -> DeviceId<'_> {
    if let Some((named, replica)) = id.rsplit_once("::") {
        return match (named_by(named), number(replica)) {
            (Some(named), Some(replica)) => DeviceId::Real { named, replica: Some(replica) },
            _ => DeviceId::Unknown,
        };
    }
    if let Some(real) = gke(id) {
        return real;
    }
    if let Some(named) = named_by(id) {
        return DeviceId::Real { named, replica: None };
    }
    match fake(id) {
        Some(gpu) => DeviceId::Fake { gpu },
        None if is_pci(id) => DeviceId::Pci,
        None => DeviceId::Unknown,
    }
}

fn named_by(id: &str) -> Option<Named<'_>> {
    if is_uuid(id, "GPU-") {
        return Some(Named::Gpu(id));
    }
    if is_uuid(id, "MIG-") {
        return Some(Named::Mig(id));
    }
    let mut parts = id.strip_prefix("MIG-")?.split('/');
    let (gpu, gi, ci) = (parts.next()?, parts.next()?, parts.next()?);
    let (gpu_instance, compute_instance) = (number(gi)?, number(ci)?);
    let whole = is_uuid(gpu, "GPU-") && parts.next().is_none();
    whole.then_some(Named::LegacyMig { gpu, gpu_instance, compute_instance })
}

/// `nvidia0`, `nvidia0/gi3`, `nvidia0/vgpu1`, `nvidia0/gi0/vgpu1`.
fn gke(id: &str) -> Option<DeviceId<'_>> {
    let mut parts = id.strip_prefix("nvidia")?.split('/').peekable();
    let minor = number(parts.next()?)?;
    let mut named = Named::Minor(minor);
    if let Some(gi) = parts.peek().and_then(|part| part.strip_prefix("gi")) {
        named = Named::MinorMig { minor, gpu_instance: number(gi)? };
        parts.next();
    }
    let replica = parts.next().map(|part| part.strip_prefix("vgpu").and_then(number));
    match (replica, parts.next()) {
        (None, _) => Some(DeviceId::Real { named, replica: None }),
        (Some(Some(replica)), None) => Some(DeviceId::Real { named, replica: Some(replica) }),
        _ => None,
    }
}

/// `GPU-<uuid>-_-<n>` and `GPU-<uuid>-<n>`: the GPU.
fn fake(id: &str) -> Option<&str> {
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

/// As it is printed: neither `+1` nor `01` is a number here, so that no device has two ids.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GPU: &str = "GPU-11111111-2222-3333-4444-555555555555";
    const MIG: &str = "MIG-11111111-2222-3333-4444-555555555555";

    fn real(named: Named<'_>) -> DeviceId<'_> {
        DeviceId::Real { named, replica: None }
    }

    fn replica(named: Named<'_>, replica: u32) -> DeviceId<'_> {
        DeviceId::Real { named, replica: Some(replica) }
    }

    #[test]
    fn ids_that_name_their_device() {
        assert_eq!(parse(GPU), real(Named::Gpu(GPU)));
        assert_eq!(parse(MIG), real(Named::Mig(MIG)));
        assert_eq!(parse(&format!("{GPU}::3")), replica(Named::Gpu(GPU), 3));
        assert_eq!(parse(&format!("{MIG}::0")), replica(Named::Mig(MIG), 0));
        let legacy = Named::LegacyMig { gpu: GPU, gpu_instance: 7, compute_instance: 0 };
        assert_eq!(parse(&format!("MIG-{GPU}/7/0")), real(legacy));
        assert_eq!(parse("nvidia0"), real(Named::Minor(0)));
        assert_eq!(parse("nvidia12/vgpu1"), replica(Named::Minor(12), 1));
        let instance = Named::MinorMig { minor: 0, gpu_instance: 3 };
        assert_eq!(parse("nvidia0/gi3"), real(instance));
        assert_eq!(parse("nvidia0/gi3/vgpu1"), replica(instance, 1));
    }

    #[test]
    fn ids_that_name_nothing() {
        assert_eq!(parse(&format!("{GPU}-_-12")), DeviceId::Fake { gpu: GPU });
        assert_eq!(parse(&format!("{GPU}-0")), DeviceId::Fake { gpu: GPU });
        assert_eq!(parse("0000:1b:00.0"), DeviceId::Pci);
        assert_eq!(parse("00000000:1B:00.0"), DeviceId::Pci);
        assert_eq!(parse("1b:00.0"), DeviceId::Pci);
    }

    #[test]
    fn what_nobody_writes_is_unknown() {
        let odd = [
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
            "nvidia99999999999".into(),
            "::".into(),
            "1b:00.0.0".into(),
        ];
        for id in odd {
            assert_eq!(parse(&id), DeviceId::Unknown, "{id}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_understood_or_not(id in "\\PC{0,60}|(GPU-|MIG-|nvidia)[-0-9a-f/:_]{0,50}") {
            if let DeviceId::Real { named: Named::Gpu(gpu) | Named::Mig(gpu), .. } = parse(&id) {
                prop_assert!(id.starts_with(gpu) && gpu.len() == GPU.len());
            }
        }
    }
}
