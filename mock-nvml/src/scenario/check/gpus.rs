//! Validation of GPUs, and what identifies them.

use std::{collections::HashSet, ops::Range};

use toml::Spanned;

use super::{
    hardware,
    identity::{hash, is_uuid, uuid},
    mig, windows,
};
use crate::{
    models::{MODELS, Model},
    number::clamp_u32,
    scenario::{
        Gpu, Pci,
        complaint::{Checked, Flaw, ensure, suggestion},
        file::GpuTable,
    },
};

const MOST: usize = 64;

/// Bus numbers of the eight slots of a common server; further GPUs sit in further domains.
const BUSES: [u32; 8] = [0x1B, 0x43, 0x52, 0x61, 0x9D, 0xC3, 0xD1, 0xDF];

/// The GPUs of the tables, clones written out.
pub(super) fn check(seed: &str, tables: &[Spanned<GpuTable>]) -> Checked<Vec<Gpu>> {
    let mut gpus = vec![];
    for table in tables {
        let said = table.get_ref();
        let count = said.count.as_ref().map_or(1, |count| *count.get_ref());
        let at = said.count.as_ref().map_or_else(|| table.span(), Spanned::span);
        if count == 0 {
            return Err(Flaw::new(at, "count = 0: give 1 or more"));
        }
        for _ in 0..count {
            let gpu = gpu(seed, gpus.len(), said, count)?;
            gpus.push(gpu);
            if gpus.len() > MOST {
                return Err(Flaw::new(at, format!("more than {MOST} GPUs: leave some out")));
            }
        }
    }
    if gpus.is_empty() {
        return Err(Flaw::new(Range::default(), "no GPU: add a [[gpu]] with a model"));
    }
    distinct(&gpus, tables)?;
    mig::distinct(&gpus, tables)?;
    Ok(gpus)
}

fn gpu(seed: &str, index: usize, said: &GpuTable, count: u32) -> Checked<Gpu> {
    let model = model(&said.model)?;
    let alone = |at: Range<usize>, key: &str| {
        let text = format!("{key} is one GPU's own: leave out count, and write each GPU out");
        if count == 1 { Ok(()) } else { Err(Flaw::new(at, text)) }
    };
    let uuid = match &said.uuid {
        None => uuid("GPU-", seed, index),
        Some(uuid) => {
            alone(uuid.span(), "uuid")?;
            let text = uuid.get_ref();
            let mend = "write GPU- and a UUID in lower case hexadecimal";
            ensure(is_uuid("GPU-", text), uuid, || format!("uuid = \"{text}\": {mend}"))?;
            text.clone()
        }
    };
    let serial = match &said.serial {
        None => format!("132{:010}", hash(seed, index, 2) % 10_000_000_000),
        Some(serial) => {
            alone(serial.span(), "serial")?;
            super::text("serial", serial)?
        }
    };
    let minor = match &said.minor {
        None => clamp_u32(index),
        Some(minor) => {
            alone(minor.span(), "minor")?;
            *minor.get_ref()
        }
    };
    Ok(Gpu {
        index,
        model,
        uuid,
        serial,
        minor,
        pci: pci(index),
        replays_per_hour: rate(said.pcie_replays_per_hour.as_ref())?,
        ambient: ambient(said.ambient.as_ref())?,
        lost: windows("lost", &said.lost)?,
        hardware: hardware::check(said, model)?,
        mig: mig::check(seed, index, said, model)?.into(),
        processes: vec![],
    })
}

fn model(said: &Spanned<String>) -> Checked<&'static Model> {
    let key = said.get_ref();
    Model::find(key).ok_or_else(|| {
        let keys = || MODELS.iter().map(|model| model.key);
        let near = suggestion(key, keys());
        let near = if near.is_empty() { ":" } else { near.as_str() };
        let all = keys().collect::<Vec<_>>().join(", ");
        Flaw::new(said.span(), format!("no model \"{key}\"{near} the models are {all}"))
    })
}

fn rate(said: Option<&Spanned<f64>>) -> Checked<f64> {
    let Some(said) = said else { return Ok(0.0) };
    let rate = *said.get_ref();
    let mend = || format!("pcie_replays_per_hour = {rate}: give 0 to 1000000");
    ensure((0.0..=1e6).contains(&rate), said, mend)?;
    Ok(rate)
}

fn ambient(said: Option<&Spanned<f64>>) -> Checked<f64> {
    let Some(said) = said else { return Ok(25.0) };
    let ambient = *said.get_ref();
    ensure((0.0..=60.0).contains(&ambient), said, || {
        format!("ambient = {ambient}: give 0 to 60 °C")
    })?;
    Ok(ambient)
}

fn distinct(gpus: &[Gpu], tables: &[Spanned<GpuTable>]) -> Checked<()> {
    let (mut uuids, mut minors) = (HashSet::new(), HashSet::new());
    let place = |gpu: &Gpu| {
        let said = |table: &&Spanned<GpuTable>| {
            let table = table.get_ref();
            table.uuid.as_ref().is_some_and(|uuid| *uuid.get_ref() == gpu.uuid)
                || table.minor.as_ref().is_some_and(|minor| *minor.get_ref() == gpu.minor)
        };
        let table = tables.iter().rfind(said).map(Spanned::get_ref);
        let spans = table.map(|table| {
            let uuid = table.uuid.as_ref().map(Spanned::span);
            uuid.or(table.minor.as_ref().map(Spanned::span)).unwrap_or_default()
        });
        spans.unwrap_or_default()
    };
    for gpu in gpus {
        if !uuids.insert(&gpu.uuid) {
            let text = format!("another GPU has the UUID {}: give each its own", gpu.uuid);
            return Err(Flaw::new(place(gpu), text));
        }
        if !minors.insert(gpu.minor) {
            let text = format!("another GPU has the minor number {}: give each its own", gpu.minor);
            return Err(Flaw::new(place(gpu), text));
        }
    }
    Ok(())
}

fn pci(index: usize) -> Pci {
    let bus = BUSES.get(index % BUSES.len()).copied().unwrap_or_default();
    Pci { domain: clamp_u32(index / BUSES.len()), bus, device: 0 }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{GPU, complaint},
        *,
    };

    #[test]
    fn identities_are_proper_distinct_and_always_the_same() {
        let all: HashSet<_> = (0..MOST).map(|index| uuid("GPU-", "demo", index)).collect();
        assert_eq!(all.len(), MOST);
        assert!(all.iter().all(|uuid| is_uuid("GPU-", uuid)));
        assert_ne!(uuid("GPU-", "demo", 0), uuid("GPU-", "other", 0));
        let places: HashSet<_> = (0..MOST).map(|index| pci(index).id()).collect();
        assert_eq!(places.len(), MOST);
    }

    #[test]
    fn a_duplicate_uuid_is_refused() {
        let one = format!("{GPU}uuid = \"GPU-00000000-0000-4000-8000-000000000001\"\n");
        assert_eq!(
            complaint(&format!("{one}{one}")),
            "6: another GPU has the UUID GPU-00000000-0000-4000-8000-000000000001: give each its own"
        );
    }
}
