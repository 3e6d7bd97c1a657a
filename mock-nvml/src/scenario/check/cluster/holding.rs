//! Validation of what a container holds.

use std::ops::Range;

use toml::Spanned;

use super::{super::no_gpu, name};
use crate::cluster::{devices::Strategy, slices};
use crate::scenario::{
    Gpu,
    cluster::{Claimed, Holding, Share},
    complaint::{Checked, Flaw},
    file::{AckTable, ClaimTable, ContainerTable, ShareTable, SlicesTable, Which},
    mig::{ComputeInstance, GpuInstance},
};

/// The most replicas of a GPU, and the most GiB of a share.
const MOST: u32 = 1_000;

/// What the container of the `clone`th pod holds, and where that is said.
pub(super) fn check(
    table: &Spanned<ContainerTable>,
    clone: usize,
    gpus: &[Gpu],
    mig: (Strategy, f64),
) -> Checked<(Holding, Range<usize>)> {
    let said = table.get_ref();
    let ways = [
        ("gpus", said.gpus.as_ref().map(Spanned::span)),
        ("slices", said.slices.as_ref().map(Spanned::span)),
        ("mig", said.mig.as_ref().map(Spanned::span)),
        ("gke", said.gke.as_ref().map(Spanned::span)),
        ("ack", said.ack.as_ref().map(Spanned::span)),
        ("ack_v1", said.ack_v1.as_ref().map(Spanned::span)),
        ("hami", said.hami.as_ref().map(Spanned::span)),
        ("koordinator", said.koordinator.as_ref().map(Spanned::span)),
        ("volcano", said.volcano.as_ref().map(Spanned::span)),
        ("claim", said.claim.as_ref().map(Spanned::span)),
    ];
    let given: Vec<_> = ways.iter().filter_map(|(way, at)| Some((*way, at.clone()?))).collect();
    if given.len() > 1 {
        let ways: Vec<_> = given.iter().map(|(way, _)| *way).collect();
        let text = format!("a container holds GPUs in one way: give one of {}", ways.join(", "));
        return Err(Flaw::new(table.span(), text));
    }
    if let Some(claim) = &said.claim {
        name("claim", &claim.get_ref().name, 253)?;
    }
    let at = given.first().map_or_else(|| table.span(), |(_, at)| at.clone());
    let holding = way(said, clone, gpus, mig).map_err(|text| Flaw::new(at.clone(), text))?;
    Ok((holding, at))
}

fn way(
    said: &ContainerTable,
    clone: usize,
    gpus: &[Gpu],
    (strategy, start): (Strategy, f64),
) -> Result<Holding, String> {
    let which = |which: &Which| self::which(which, clone, gpus.len());
    let shares = |tables: &Spanned<Vec<ShareTable>>| shares(tables.get_ref(), clone, gpus);
    if let Some(held) = &said.gpus {
        Ok(Holding::Whole(which(held.get_ref())?))
    } else if let Some(slices) = &said.slices {
        let SlicesTable { gpus, replicas, mps } = slices.get_ref();
        let held = which(gpus)?;
        if !(1..=MOST).contains(replicas) {
            return Err(format!("replicas = {replicas}: give 1 to {MOST}"));
        }
        if *mps && held.len() > 1 {
            return Err("the plugin gives one replica of one GPU under MPS: name one GPU".into());
        }
        Ok(Holding::Slices(held, *replicas))
    } else if let Some(ids) = &said.mig {
        let device = |id: &String| {
            let (_, gi, ci) = mig_device(id, gpus, start)?;
            Ok((strategy.resource(&gi.device_profile(ci)), ci.uuid.clone()))
        };
        let ids: Result<_, String> = ids.get_ref().iter().map(device).collect();
        ids.map(Holding::Mig)
    } else if let Some(ids) = &said.gke {
        ids.get_ref().iter().try_for_each(|id| gke(id, gpus))?;
        Ok(Holding::Gke(ids.get_ref().clone()))
    } else if let Some(ack) = &said.ack {
        let AckTable { gpu, gib, cores } = ack.get_ref();
        Ok(Holding::Ack(which(gpu)?, amount("gib", *gib, MOST)?, percent(*cores)?))
    } else if let Some(ack) = &said.ack_v1 {
        let AckTable { gpu, gib, cores } = ack.get_ref();
        let held = which(gpu)?;
        let ([gpu], None) = (&held[..], cores) else {
            return Err("version 1 gives memory of one GPU: name one, and leave out cores".into());
        };
        Ok(Holding::AckV1(*gpu, amount("gib", *gib, MOST)?))
    } else if let Some(tables) = &said.hami {
        shares(tables).map(Holding::Hami)
    } else if let Some(tables) = &said.koordinator {
        shares(tables).map(Holding::Koordinator)
    } else if let Some(tables) = &said.volcano {
        shares(tables).map(Holding::Volcano)
    } else if let Some(claim) = &said.claim {
        let ClaimTable { name, gpus: wanted, mig } = claim.get_ref();
        let wholes = wanted.as_ref().map(which).transpose()?.unwrap_or_default();
        let whole = |gpu| Claimed { whole: Some(gpu), name: slices::whole(gpu) };
        let mut devices: Vec<_> = wholes.into_iter().map(whole).collect();
        for said in mig {
            let (gpu, gi, ci) = mig_device(said, gpus, start)?;
            devices.push(Claimed { whole: None, name: slices::part(gpu, gi, ci) });
        }
        if devices.is_empty() {
            return Err("claim: name gpus, mig devices, or both".into());
        }
        Ok(Holding::Claimed(name.get_ref().clone(), devices))
    } else {
        Ok(Holding::Nothing)
    }
}

fn which(said: &Which, clone: usize, gpus: usize) -> Result<Vec<usize>, String> {
    let list = match said {
        Which::Word(word) if word == "spread" => return Ok(vec![clone % gpus.max(1)]),
        Which::Word(word) => {
            return Err(format!("\"{word}\": give an index, an array of them or \"spread\""));
        }
        Which::These(list) => list,
    };
    if list.is_empty() {
        return Err("no GPUs: name at least one".into());
    }
    for (at, index) in list.iter().enumerate() {
        if *index >= gpus {
            return Err(no_gpu(*index, gpus));
        }
        if list.iter().take(at).any(|before| before == index) {
            return Err(format!("GPU {index} is named twice: name each once"));
        }
    }
    Ok(list.clone())
}

fn shares(tables: &[ShareTable], clone: usize, gpus: &[Gpu]) -> Result<Vec<Share>, String> {
    let mut shares = vec![];
    for table in tables {
        let cores = percent(Some(table.cores))?.unwrap_or_default();
        for gpu in which(&table.gpu, clone, gpus.len())? {
            let total = gpus.get(gpu).map(|gpu| gpu.model.total_mib).unwrap_or_default();
            let most = u32::try_from(total).unwrap_or(u32::MAX);
            shares.push(Share { gpu, mib: amount("mib", table.mib, most)?, cores });
        }
    }
    if shares.is_empty() { Err("no shares: give at least one".into()) } else { Ok(shares) }
}

fn amount(key: &str, said: u32, most: u32) -> Result<u32, String> {
    let fine = (1..=most).contains(&said);
    if fine { Ok(said) } else { Err(format!("{key} = {said}: give 1 to {most}")) }
}

fn percent(cores: Option<u32>) -> Result<Option<u32>, String> {
    match cores {
        Some(cores) if cores > 100 => Err(format!("cores = {cores}: give 0 to 100 percent")),
        cores => Ok(cores),
    }
}

/// A MIG device that is there at world time `start`.
fn mig_device<'a>(
    said: &str,
    gpus: &'a [Gpu],
    start: f64,
) -> Result<(&'a Gpu, &'a GpuInstance, &'a ComputeInstance), String> {
    let mut place = said.split('/').map(str::parse::<u32>);
    let place = (place.next(), place.next(), place.next().unwrap_or(Ok(0)), place.next());
    let found = gpus.iter().find_map(|gpu| {
        let mut devices = gpu.layout(start.max(0.0))?.devices();
        let (gi, ci) = devices.find(|(gi, ci)| match &place {
            (Some(Ok(index)), Some(Ok(instance)), Ok(part), None) => {
                usize::try_from(*index) == Ok(gpu.index) && *instance == gi.id && *part == ci.id
            }
            _ => ci.uuid == said,
        })?;
        Some((gpu, gi, ci))
    });
    found.ok_or_else(|| {
        let mend = "write gpu/gi, gpu/gi/ci or a UUID";
        format!("mig: \"{said}\" is no MIG device when the pod starts: {mend}")
    })
}

/// GKE's plugin names GPUs by their minor number.
fn gke(said: &str, gpus: &[Gpu]) -> Result<(), String> {
    let mut parts = said.split('/');
    let minor = parts.next().and_then(|part| part.strip_prefix("nvidia"));
    let minor: Option<u32> = minor.and_then(|minor| minor.parse().ok());
    let known = gpus.iter().any(|gpu| Some(gpu.minor) == minor);
    let number = |part: &str, prefix: &str| {
        part.strip_prefix(prefix).is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n < MOST))
    };
    let rest: Vec<_> = parts.collect();
    let fine = match &rest[..] {
        [] => true,
        [part] => number(part, "gi") || number(part, "vgpu"),
        [gi, vgpu] => number(gi, "gi") && number(vgpu, "vgpu"),
        _ => false,
    };
    if known && fine {
        return Ok(());
    }
    Err(format!(
        "gke: \"{said}\" is no device of this node: write nvidia0, nvidia0/vgpu1, \
                 nvidia0/gi3 or nvidia0/gi3/vgpu0 with a minor number that there is"
    ))
}
