//! Validation of GPUs and their identities.

use std::{collections::HashSet, ops::Range};

use toml::Spanned;

use crate::{
    models::{Model, table::models},
    numeric::clamp_u32,
    scenario::{Gpu, Pci, Platform, samples::SampleTiming},
    scenario_file::{
        error::{SpannedError, ValidationResult, ensure, suggestion},
        tables::{GpuTable, SamplesTable},
        validate::{
            hardware,
            identity::{hash, is_uuid, uuid},
            memory, mig,
            values::validate_text,
            windows::windows,
        },
    },
};

const MAX_GPUS: usize = 64;

/// PCI bus numbers of eight slots of a server; further GPUs are in further PCI domains.
const BUSES: [u32; 8] = [0x1B, 0x43, 0x52, 0x61, 0x9D, 0xC3, 0xD1, 0xDF];

/// A recording has its GPUs in its answers.
pub(super) fn check_none(tables: &[Spanned<GpuTable>]) -> ValidationResult<Vec<Gpu>> {
    let text = "the answers are those of all GPUs: remove the [[gpu]] table, or all [answers]";
    tables.first().map_or(Ok(vec![]), |table| Err(SpannedError::new(table.span(), text)))
}

/// The GPUs of the tables; `count` is expanded.
pub(super) fn check(
    seed: &str,
    tables: &[Spanned<GpuTable>],
    platform: Platform,
) -> ValidationResult<Vec<Gpu>> {
    let mut gpus = vec![];
    for table in tables {
        let spec = table.get_ref();
        let count = spec.count.as_ref().map_or(1, |count| *count.get_ref());
        let span = spec.count.as_ref().map_or_else(|| table.span(), Spanned::span);
        if count == 0 {
            return Err(SpannedError::new(span, "count = 0 is out of range: write 1 or more"));
        }
        for _ in 0..count {
            let gpu = gpu(seed, gpus.len(), spec, count)?;
            gpus.push(gpu);
            if gpus.len() > MAX_GPUS {
                let text = format!("the scenario has more than {MAX_GPUS} GPUs: remove some");
                return Err(SpannedError::new(span, text));
            }
        }
    }
    if platform == Platform::NoGpu {
        let text = "a node without GPUs has a GPU: remove the [[gpu]] table or the platform";
        return tables.first().map_or(Ok(gpus), |table| Err(SpannedError::new(table.span(), text)));
    }
    if gpus.is_empty() {
        let text = "the scenario has no GPU: add a [[gpu]] table with a model";
        return Err(SpannedError::new(Range::default(), text));
    }
    distinct(&gpus, tables)?;
    mig::distinct(&gpus, tables)?;
    Ok(gpus)
}

fn gpu(seed: &str, index: usize, table: &GpuTable, count: u32) -> ValidationResult<Gpu> {
    let model = model(&table.model)?;
    let ensure_single = |span: Range<usize>, key: &str| {
        let text = format!(
            "{key} must be unique, but count makes several GPUs: write one [[gpu]] table per GPU"
        );
        if count == 1 { Ok(()) } else { Err(SpannedError::new(span, text)) }
    };
    let uuid = match &table.uuid {
        None => uuid("GPU-", seed, index),
        Some(uuid) => {
            ensure_single(uuid.span(), "uuid")?;
            let text = uuid.get_ref();
            let remedy = "write GPU- and a UUID in lower-case hexadecimal";
            ensure(is_uuid("GPU-", text), uuid, || {
                format!("uuid = \"{text}\" is not a GPU UUID: {remedy}")
            })?;
            text.clone()
        }
    };
    let serial = match &table.serial {
        None => format!("132{:010}", hash(seed, index, 2) % 10_000_000_000),
        Some(serial) => {
            ensure_single(serial.span(), "serial")?;
            validate_text("serial", serial)?
        }
    };
    let minor = match &table.minor {
        None => clamp_u32(index),
        Some(minor) => {
            ensure_single(minor.span(), "minor")?;
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
        replays_per_hour: rate(table.pcie_replays_per_hour.as_ref())?,
        ambient: ambient(table.ambient.as_ref())?,
        power_limit: power_limit(table.power_limit.as_ref(), model)?,
        memory_total: table.memory_total.as_ref().map(memory::parse_total).transpose()?,
        memory_limits: table
            .memory_limits
            .iter()
            .map(memory::parse_limit)
            .collect::<ValidationResult<_>>()?,
        lost: windows("lost", &table.lost)?,
        hardware: hardware::check(table, model)?,
        samples: table.samples.as_ref().map_or_else(|| Ok(SampleTiming::default()), samples)?,
        mig: mig::check(seed, index, table, model)?.into(),
        exclusive_process: false,
        processes: vec![],
    })
}

fn samples(table: &Spanned<SamplesTable>) -> ValidationResult<SampleTiming> {
    let SamplesTable { period, delivery, clock } = table.get_ref();
    let in_range = |seconds: &Option<f64>, range: Range<f64>| {
        seconds.is_none_or(|seconds| range.contains(&seconds))
    };
    ensure(in_range(period, 0.01..60.0) && in_range(delivery, 0.0..60.0), table, || {
        "period or delivery is out of range: write seconds, from 0.01 and 0 to below 60".into()
    })?;
    let ascending = clock.is_sorted_by(|one, next| one.0 < next.0);
    ensure(ascending && clock.iter().all(|(_, offset)| offset.abs() <= 1e9), table, || {
        "clock is not [[from, offset], …] with ascending times: write seconds".into()
    })?;
    let delivery = delivery.unwrap_or_default();
    Ok(SampleTiming { period: *period, delivery, clock: clock.clone() })
}

fn model(value: &Spanned<String>) -> ValidationResult<&'static Model> {
    let key = value.get_ref();
    Model::find(key).ok_or_else(|| {
        let keys = || models().map(|model| model.key);
        let hint = suggestion(key, keys());
        let hint = if hint.is_empty() { ":" } else { hint.as_str() };
        let all = keys().collect::<Vec<_>>().join(", ");
        SpannedError::new(
            value.span(),
            format!("unknown model \"{key}\"{hint} the models are {all}"),
        )
    })
}

fn rate(value: Option<&Spanned<f64>>) -> ValidationResult<f64> {
    let Some(value) = value else { return Ok(0.0) };
    let rate = *value.get_ref();
    let error = || format!("pcie_replays_per_hour = {rate} is out of range: write 0 to 1000000");
    ensure((0.0..=1e6).contains(&rate), value, error)?;
    Ok(rate)
}

fn ambient(value: Option<&Spanned<f64>>) -> ValidationResult<f64> {
    let Some(value) = value else { return Ok(25.0) };
    let ambient = *value.get_ref();
    ensure((0.0..=60.0).contains(&ambient), value, || {
        format!("ambient = {ambient} is out of range: write 0 to 60 °C")
    })?;
    Ok(ambient)
}

fn power_limit(value: Option<&Spanned<f64>>, model: &Model) -> ValidationResult<Option<f64>> {
    let Some(value) = value else { return Ok(None) };
    let limit = *value.get_ref();
    let (least, most) = model.limit_range_watts;
    ensure((least..=most).contains(&limit), value, || {
        format!("power_limit = {limit} is out of range: write {least} to {most} W")
    })?;
    Ok(Some(limit))
}

/// Rejects GPUs with the same UUID or minor number.
fn distinct(gpus: &[Gpu], tables: &[Spanned<GpuTable>]) -> ValidationResult<()> {
    let (mut uuids, mut minors) = (HashSet::new(), HashSet::new());
    let span_of = |gpu: &Gpu| {
        let defines = |table: &&Spanned<GpuTable>| {
            let table = table.get_ref();
            table.uuid.as_ref().is_some_and(|uuid| *uuid.get_ref() == gpu.uuid)
                || table.minor.as_ref().is_some_and(|minor| *minor.get_ref() == gpu.minor)
        };
        let table = tables.iter().rfind(defines).map(Spanned::get_ref);
        let spans = table.map(|table| {
            let uuid = table.uuid.as_ref().map(Spanned::span);
            uuid.or(table.minor.as_ref().map(Spanned::span)).unwrap_or_default()
        });
        spans.unwrap_or_default()
    };
    for gpu in gpus {
        if !uuids.insert(&gpu.uuid) {
            let text = format!("the UUID {} belongs to another GPU: write a unique one", gpu.uuid);
            return Err(SpannedError::new(span_of(gpu), text));
        }
        if !minors.insert(gpu.minor) {
            let text = format!(
                "the minor number {} belongs to another GPU: write a unique one",
                gpu.minor
            );
            return Err(SpannedError::new(span_of(gpu), text));
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
    use super::*;
    use crate::scenario_file::validate::test_scenario::{GPU, error_of};

    #[test]
    fn generated_identities_are_valid_and_unique() {
        let all: HashSet<_> = (0..MAX_GPUS).map(|index| uuid("GPU-", "demo", index)).collect();
        assert_eq!(all.len(), MAX_GPUS);
        assert!(all.iter().all(|uuid| is_uuid("GPU-", uuid)));
        assert_ne!(uuid("GPU-", "demo", 0), uuid("GPU-", "other", 0));
        let addresses: HashSet<_> = (0..MAX_GPUS).map(|index| pci(index).id()).collect();
        assert_eq!(addresses.len(), MAX_GPUS);
    }

    #[test]
    fn duplicate_uuid_is_rejected() {
        let one = format!("{GPU}uuid = \"GPU-00000000-0000-4000-8000-000000000001\"\n");
        assert_eq!(
            error_of(&format!("{one}{one}")),
            "6: the UUID GPU-00000000-0000-4000-8000-000000000001 belongs to another GPU: write a \
             unique one"
        );
    }
}
