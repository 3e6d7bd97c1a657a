//! Validation of the GPU allocation of a container.

use std::ops::Range;

use toml::Spanned;

use crate::{
    cluster::{resource_slices, resources::MigStrategy},
    scenario::{
        Gpu,
        claim::{ClaimSharing, ClaimedDevice, ResourceClaim},
        cluster::{GpuAllocation, GpuShare},
        mig::{ComputeInstance, GpuInstance, InstanceIds, MigForm, SchedulerMig},
    },
    scenario_file::{
        error::{SpannedError, ValidationResult},
        tables::{AckTable, ClaimTable, ContainerTable, GpuSelection, ShareTable, SlicesTable},
        validate::{
            identity::uuid,
            values::{unknown_gpu_error, validate_name},
        },
    },
};

/// Largest number of replicas of a GPU, and of GiB of a share.
const MAX_AMOUNT: u32 = 1_000;

/// The allocation of a container in the pod number `clone` of a `count`, and its position in the file.
pub(super) fn check(
    table: &Spanned<ContainerTable>,
    clone: usize,
    gpus: &[Gpu],
    mig: (MigStrategy, f64),
) -> ValidationResult<(GpuAllocation, Range<usize>)> {
    let spec = table.get_ref();
    let keys = [
        ("gpus", spec.gpus.as_ref().map(Spanned::span)),
        ("slices", spec.slices.as_ref().map(Spanned::span)),
        ("mig", spec.mig.as_ref().map(Spanned::span)),
        ("gke", spec.gke.as_ref().map(Spanned::span)),
        ("ack", spec.ack.as_ref().map(Spanned::span)),
        ("ack_v1", spec.ack_v1.as_ref().map(Spanned::span)),
        ("hami", spec.hami.as_ref().map(Spanned::span)),
        ("koordinator", spec.koordinator.as_ref().map(Spanned::span)),
        ("volcano", spec.volcano.as_ref().map(Spanned::span)),
        ("hami_mig", spec.hami_mig.as_ref().map(Spanned::span)),
        ("hami_mig_index", spec.hami_mig_index.as_ref().map(Spanned::span)),
        ("volcano_mig", spec.volcano_mig.as_ref().map(Spanned::span)),
        ("claim", spec.claim.as_ref().map(Spanned::span)),
    ];
    let present: Vec<_> =
        keys.iter().filter_map(|(key, span)| Some((*key, span.clone()?))).collect();
    if present.len() > 1 {
        let keys: Vec<_> = present.iter().map(|(key, _)| *key).collect();
        let text = format!(
            "a container is allocated GPUs in one way: write only one of {}",
            keys.join(", ")
        );
        return Err(SpannedError::new(table.span(), text));
    }
    if let Some(claim) = &spec.claim {
        validate_name("claim", &claim.get_ref().name, 253)?;
    }
    let span = present.first().map_or_else(|| table.span(), |(_, span)| span.clone());
    let allocation =
        allocation(spec, clone, gpus, mig).map_err(|text| SpannedError::new(span.clone(), text))?;
    Ok((allocation, span))
}

fn allocation(
    table: &ContainerTable,
    clone: usize,
    gpus: &[Gpu],
    mig: (MigStrategy, f64),
) -> Result<GpuAllocation, String> {
    let which = |which: &GpuSelection| self::which(which, clone, gpus.len());
    let shares = |tables: &Spanned<Vec<ShareTable>>| shares(tables.get_ref(), clone, gpus);
    if let Some(selection) = &table.gpus {
        which(selection.get_ref()).map(GpuAllocation::Whole)
    } else if let Some(table) = &table.slices {
        slices(table.get_ref(), which(&table.get_ref().gpus)?)
    } else if let Some(ids) = &table.mig {
        mig_devices(ids.get_ref(), gpus, mig)
    } else if let Some(ids) = &table.gke {
        ids.get_ref().iter().try_for_each(|id| gke(id, gpus))?;
        Ok(GpuAllocation::Gke(ids.get_ref().clone()))
    } else if let Some(ack) = &table.ack {
        let AckTable { gpu, gib, cores } = ack.get_ref();
        Ok(GpuAllocation::Ack(which(gpu)?, amount("gib", *gib, MAX_AMOUNT)?, percent(*cores)?))
    } else if let Some(ack) = &table.ack_v1 {
        ack_v1(ack.get_ref(), &which(&ack.get_ref().gpu)?)
    } else if let Some(tables) = &table.hami {
        shares(tables).map(GpuAllocation::Hami)
    } else if let Some(tables) = &table.koordinator {
        shares(tables).map(GpuAllocation::Koordinator)
    } else if let Some(tables) = &table.volcano {
        shares(tables).map(GpuAllocation::Volcano)
    } else if let Some(ids) = &table.hami_mig {
        scheduler_mig(MigForm::HamiIdentity, ids.get_ref(), gpus, mig.1)
    } else if let Some(ids) = &table.hami_mig_index {
        scheduler_mig(MigForm::HamiIndex, ids.get_ref(), gpus, mig.1)
    } else if let Some(ids) = &table.volcano_mig {
        scheduler_mig(MigForm::Volcano, ids.get_ref(), gpus, mig.1)
    } else if let Some(table) = &table.claim {
        let whole = table.get_ref().gpus.as_ref().map(which).transpose()?;
        claim(table.get_ref(), whole.unwrap_or_default(), gpus, mig.1)
    } else {
        Ok(GpuAllocation::Nothing)
    }
}

fn slices(table: &SlicesTable, gpus: Vec<usize>) -> Result<GpuAllocation, String> {
    let SlicesTable { replicas, mps, .. } = table;
    if !(1..=MAX_AMOUNT).contains(replicas) {
        return Err(format!("replicas = {replicas} is out of range: write 1 to {MAX_AMOUNT}"));
    }
    if *mps && gpus.len() > 1 {
        return Err("with MPS the plugin allocates a replica of one GPU only: write one GPU".into());
    }
    Ok(GpuAllocation::Slices(gpus, *replicas, *mps))
}

fn mig_devices(
    ids: &[String],
    gpus: &[Gpu],
    (strategy, start): (MigStrategy, f64),
) -> Result<GpuAllocation, String> {
    let device = |id: &String| {
        let (_, gi, ci) = mig_device(id, gpus, start)?;
        Ok((strategy.resource(&gi.device_profile(ci)), ci.uuid.clone()))
    };
    ids.iter().map(device).collect::<Result<_, String>>().map(GpuAllocation::Mig)
}

fn scheduler_mig(
    form: MigForm,
    ids: &[String],
    gpus: &[Gpu],
    start: f64,
) -> Result<GpuAllocation, String> {
    let device = |id: &String| {
        let (gpu, gi, ci) = mig_device(id, gpus, start)?;
        Ok(SchedulerMig {
            gpu: gpu.index,
            uuid: ci.uuid.clone(),
            index: ci.slot,
            ids: InstanceIds { gpu_instance: gi.id, compute_instance: ci.id },
            profile: gi.profile,
            start: gi.start,
        })
    };
    let devices = ids.iter().map(device).collect::<Result<_, String>>()?;
    Ok(GpuAllocation::SchedulerMig(form, devices))
}

fn ack_v1(table: &AckTable, gpus: &[usize]) -> Result<GpuAllocation, String> {
    let ([gpu], None) = (gpus, table.cores) else {
        return Err(
            "ACK version 1 allocates memory of one GPU: write one GPU and remove cores".into()
        );
    };
    Ok(GpuAllocation::AckV1(*gpu, amount("gib", table.gib, MAX_AMOUNT)?))
}

/// The claim of whole GPUs, of MIG devices that exist at world time `start`, or of devices of another
/// driver.
fn claim(
    table: &ClaimTable,
    whole: Vec<usize>,
    gpus: &[Gpu],
    start: f64,
) -> Result<GpuAllocation, String> {
    let name = table.name.get_ref();
    let device = |gpu, device: String| {
        // Each share has an id of its own.
        let share = table.share_mib.map(|_| uuid("", &format!("share {name} {device}"), 0));
        ClaimedDevice { gpu, name: device, share }
    };
    let of_gpu = |gpu| device(Some(gpu), resource_slices::gpu_device_name(gpu));
    let mut devices: Vec<_> = whole.into_iter().map(of_gpu).collect();
    for id in &table.mig {
        let (gpu, gi, ci) = mig_device(id, gpus, start)?;
        devices.push(device(None, resource_slices::mig_device_name(gpu, gi, ci)));
    }
    devices.extend(table.devices.iter().map(|name| device(None, name.clone())));
    if devices.is_empty() {
        return Err("claim has no devices: write gpus, mig or both".into());
    }
    let driver = table.driver.as_ref().map(Spanned::get_ref);
    if driver.is_some() == table.devices.is_empty() {
        return Err("claim: driver and devices belong together: write both or none".into());
    }
    let mps = table.mps.as_ref().map(|mps| {
        let threads = percent(mps.threads)?;
        let mib = mps.mib.map(|mib| amount("mib", mib, u32::MAX)).transpose()?;
        Ok::<_, String>(ClaimSharing::Mps { threads, mib })
    });
    let sharing = match (mps.transpose()?, table.time_slicing) {
        (Some(_), true) => {
            return Err("claim: time_slicing excludes mps: write one of them".into());
        }
        (None, true) => Some(ClaimSharing::TimeSlicing),
        (mps, false) => mps,
    };
    Ok(GpuAllocation::Claim(ResourceClaim {
        name: name.clone(),
        driver: driver.cloned().unwrap_or_else(|| resource_slices::DRIVER.to_owned()),
        devices,
        admin: table.admin,
        share_mib: table.share_mib,
        sharing,
        extended: table.extended,
    }))
}

fn which(selection: &GpuSelection, clone: usize, gpus: usize) -> Result<Vec<usize>, String> {
    let list = match selection {
        GpuSelection::Word(word) if word == "spread" => return Ok(vec![clone % gpus.max(1)]),
        GpuSelection::Word(word) => {
            return Err(format!(
                "\"{word}\" is unknown: write an index, an array of indexes or \"spread\""
            ));
        }
        GpuSelection::Indexes(list) => list,
    };
    if list.is_empty() {
        return Err("the list of GPUs is empty: write at least one index".into());
    }
    for (at, index) in list.iter().enumerate() {
        if *index >= gpus {
            return Err(unknown_gpu_error(*index, gpus));
        }
        if list.iter().take(at).any(|before| before == index) {
            return Err(format!("GPU {index} is listed twice: list it once"));
        }
    }
    Ok(list.clone())
}

fn shares(tables: &[ShareTable], clone: usize, gpus: &[Gpu]) -> Result<Vec<GpuShare>, String> {
    let mut shares = vec![];
    for table in tables {
        let cores = percent(Some(table.cores))?.unwrap_or_default();
        for gpu in which(&table.gpu, clone, gpus.len())? {
            let total = gpus.get(gpu).map(|gpu| gpu.model.total_mib).unwrap_or_default();
            let max = u32::try_from(total).unwrap_or(u32::MAX);
            shares.push(GpuShare { gpu, mib: amount("mib", table.mib, max)?, cores });
        }
    }
    if shares.is_empty() {
        Err("the list of shares is empty: write at least one".into())
    } else {
        Ok(shares)
    }
}

fn amount(key: &str, value: u32, max: u32) -> Result<u32, String> {
    let valid = (1..=max).contains(&value);
    if valid {
        Ok(value)
    } else {
        Err(format!("{key} = {value} is out of range: write 1 to {max}"))
    }
}

fn percent(cores: Option<u32>) -> Result<Option<u32>, String> {
    match cores {
        Some(cores) if cores > 100 => {
            Err(format!("cores = {cores} is out of range: write 0 to 100 percent"))
        }
        cores => Ok(cores),
    }
}

/// The MIG device `gpu/gi`, `gpu/gi/ci` or UUID at world time `start`.
fn mig_device<'a>(
    id: &str,
    gpus: &'a [Gpu],
    start: f64,
) -> Result<(&'a Gpu, &'a GpuInstance, &'a ComputeInstance), String> {
    let mut parts = id.split('/').map(str::parse::<u32>);
    let parts = (parts.next(), parts.next(), parts.next().unwrap_or(Ok(0)), parts.next());
    let found = gpus.iter().find_map(|gpu| {
        let mut devices = gpu.layout(start.max(0.0))?.devices();
        let (gi, ci) = devices.find(|(gi, ci)| match &parts {
            (Some(Ok(gpu_index)), Some(Ok(gi_id)), Ok(ci_id), None) => {
                usize::try_from(*gpu_index) == Ok(gpu.index) && *gi_id == gi.id && *ci_id == ci.id
            }
            _ => ci.uuid == id,
        })?;
        Some((gpu, gi, ci))
    });
    found.ok_or_else(|| {
        let remedy = "write gpu/gi, gpu/gi/ci or a UUID";
        format!("mig: \"{id}\" is not a MIG device at the start of the pod: {remedy}")
    })
}

/// Rejects ids that the GKE plugin does not have; it numbers GPUs by minor number.
fn gke(id: &str, gpus: &[Gpu]) -> Result<(), String> {
    let mut parts = id.split('/');
    let minor = parts.next().and_then(|part| part.strip_prefix("nvidia"));
    let minor: Option<u32> = minor.and_then(|minor| minor.parse().ok());
    let known = gpus.iter().any(|gpu| Some(gpu.minor) == minor);
    let number = |part: &str, prefix: &str| {
        part.strip_prefix(prefix).is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n < MAX_AMOUNT))
    };
    let rest: Vec<_> = parts.collect();
    let valid = match &rest[..] {
        [] => true,
        [part] => number(part, "gi") || number(part, "vgpu"),
        [gi, vgpu] => number(gi, "gi") && number(vgpu, "vgpu"),
        _ => false,
    };
    if known && valid {
        return Ok(());
    }
    Err(format!(
        "gke: \"{id}\" is not a device of this node: write nvidia0, nvidia0/vgpu1, nvidia0/gi3 or \
         nvidia0/gi3/vgpu0 with the minor number of a GPU"
    ))
}
