//! The exporter about itself: its own series, and log lines when something changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{info, warn};

use crate::catalog::own::OwnSeries;
use crate::model::{Missing, Reading};
use crate::nvml::inventory::Driver;
use crate::sample::DriverState;
use crate::selection::Selection;
use crate::snapshot::{Balanced, GpuHealth, HIDDEN_PROCESSES, Health, Snapshot, SourceHealth};

/// Label values of one sample, in the order of the row's keys, and its value.
pub type OwnSample = (Vec<String>, f64);

/// The samples of one of the exporter's own series.
#[must_use]
pub fn samples(series: OwnSeries, snapshot: &Snapshot) -> Vec<OwnSample> {
    let health = &snapshot.health;
    match series {
        OwnSeries::BuildInfo => vec![(vec![env!("CARGO_PKG_VERSION").to_owned()], 1.0)],
        OwnSeries::DriverUp => one(flag(matches!(health.driver, DriverState::Up(_)))),
        OwnSeries::Released => one(flag(health.driver.is_released())),
        OwnSeries::DriverInfo => driver_info(&health.driver),
        OwnSeries::DriverOpenFailures => by_reason(&health.open_failures),
        OwnSeries::SnapshotTimestamp => one(snapshot.at.unix_seconds()),
        OwnSeries::CycleDuration => one(health.cycle_took.as_secs_f64()),
        OwnSeries::Cycles => one(float(health.cycles)),
        OwnSeries::SourceUp => source_up(health),
        OwnSeries::SourceDuration => source_duration(health),
        OwnSeries::GpuUp => per_gpu(health, |gpu| flag(gpu.state.is_ok())),
        OwnSeries::GpuTimestamp => per_gpu(health, |gpu| gpu.sampled_at.unix_seconds()),
        OwnSeries::GpuMissing => {
            let missing = |gpu: &GpuHealth| Missing::REASONS.into_iter().zip(gpu.missing).collect();
            per_gpu_and_reason(health, missing)
        }
        OwnSeries::Discarded => per_gpu_and_reason(health, |gpu| {
            gpu.discards.iter().map(|(reason, n)| (reason.reason(), n)).collect()
        }),
        OwnSeries::XidEvents => xid_events(health),
        OwnSeries::HostPidNamespace => {
            health.host_pids.map_or_else(Vec::new, |host_pids| one(flag(host_pids)))
        }
        OwnSeries::Attributed => {
            let count = |((source, result), n): (&(&str, &str), &u64)| {
                (vec![(*source).to_owned(), (*result).to_owned()], float(*n))
            };
            health.census.attributed.iter().map(count).collect()
        }
        OwnSeries::Unresolved => by_reason(&health.census.unresolved),
        OwnSeries::Framebuffer => health.census.balances.iter().flat_map(framebuffer).collect(),
        OwnSeries::SourceContact => source_contact(snapshot),
        OwnSeries::SourceFailures => source_failures(health),
        OwnSeries::Pods => health.pods.map_or_else(Vec::new, |n| one(float(n))),
        OwnSeries::AllocationProblems => by_reason(&health.problems),
        OwnSeries::DroppedPodLabels => by_reason(&health.dropped_pod_labels),
        OwnSeries::GpuUnidentified => health
            .unidentified
            .iter()
            .map(|(gpu, missing)| (vec![gpu.to_string(), missing.reason().to_owned()], 1.0))
            .collect(),
        OwnSeries::HttpRefused => {
            let sample = |(reason, n): &(&str, u64)| (vec![(*reason).to_owned()], float(*n));
            health.refusals.iter().map(sample).collect()
        }
        OwnSeries::ThreadsAbandoned => one(float(health.abandoned as u64)),
    }
}

fn one(value: f64) -> Vec<OwnSample> {
    vec![(Vec::new(), value)]
}

fn flag(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "an exported sample is an f64")]
fn float(n: u64) -> f64 {
    n as f64
}

fn driver_info(driver: &DriverState) -> Vec<OwnSample> {
    match driver {
        DriverState::Up(Driver { version, nvml_version, library, .. }) => {
            vec![(vec![version.clone(), nvml_version.clone(), library.clone()], 1.0)]
        }
        DriverState::Down { .. } => Vec::new(),
    }
}

fn by_reason(counts: &BTreeMap<&'static str, u64>) -> Vec<OwnSample> {
    counts.iter().map(|(reason, n)| (vec![(*reason).to_owned()], float(*n))).collect()
}

fn source_name(gpu: u32) -> String {
    format!("gpu{gpu}")
}

fn source_up(health: &Health) -> Vec<OwnSample> {
    let driver = ("driver".to_owned(), matches!(health.driver, DriverState::Up(_)));
    let known = health.gpus.iter().map(|gpu| (gpu.gpu.index, gpu.answered && gpu.state.is_ok()));
    let unknown = health.unidentified.keys().map(|gpu| (*gpu, false));
    let gpus: BTreeMap<u32, bool> = known.chain(unknown).collect();
    let cluster = health.sources.iter().map(|source| (source.name.to_owned(), source.up));
    std::iter::once(driver)
        .chain(gpus.into_iter().map(|(gpu, up)| (source_name(gpu), up)))
        .chain(cluster)
        .map(|(name, up)| (vec![name], flag(up)))
        .collect()
}

fn source_duration(health: &Health) -> Vec<OwnSample> {
    let driver = ("driver".to_owned(), health.driver_took);
    let gpus = health.gpus.iter().map(|gpu| (source_name(gpu.gpu.index), gpu.took));
    std::iter::once(driver)
        .chain(gpus)
        .filter_map(|(name, took)| Some((vec![name], took?.as_secs_f64())))
        .collect()
}

fn gpu_labels(gpu: &GpuHealth) -> Vec<String> {
    vec![gpu.gpu.index.to_string(), gpu.gpu.uuid.to_string()]
}

fn per_gpu(health: &Health, value: impl Fn(&GpuHealth) -> f64) -> Vec<OwnSample> {
    health.gpus.iter().map(|gpu| (gpu_labels(gpu), value(gpu))).collect()
}

fn per_gpu_and_reason(
    health: &Health,
    counts: impl Fn(&GpuHealth) -> Vec<(&'static str, u64)>,
) -> Vec<OwnSample> {
    let of = |gpu: &GpuHealth| {
        let labels = gpu_labels(gpu);
        counts(gpu).into_iter().filter(|(_, n)| *n > 0).map(move |(reason, n)| {
            let labels = labels.iter().cloned().chain([reason.to_owned()]);
            (labels.collect(), float(n))
        })
    };
    health.gpus.iter().flat_map(of).collect()
}

#[expect(clippy::cast_precision_loss, reason = "no GPU has 2^53 bytes")]
fn framebuffer(balanced: &Balanced) -> Vec<OwnSample> {
    let instance = balanced.instance.map(|gi| gi.to_string()).unwrap_or_default();
    let of = |(owner, bytes): &(&str, i64)| {
        let gpu = balanced.gpu.to_string();
        let labels = [gpu, balanced.uuid.to_string(), instance.clone(), (*owner).to_owned()];
        (labels.to_vec(), *bytes as f64)
    };
    balanced.balance.iter().map(of).collect()
}

fn source_contact(snapshot: &Snapshot) -> Vec<OwnSample> {
    let sources = snapshot.health.sources.iter();
    let of = |source: &SourceHealth| {
        let at = snapshot.at.unix_seconds() - source.age?.as_secs_f64();
        Some((vec![source.name.to_owned()], at))
    };
    sources.filter_map(of).collect()
}

fn source_failures(health: &Health) -> Vec<OwnSample> {
    let of = |source: &SourceHealth| {
        let failed = source.failures.iter().filter(|(_, n)| *n > 0);
        let labels = |reason: &str| vec![source.name.to_owned(), reason.to_owned()];
        failed.map(|(reason, n)| (labels(reason), float(*n))).collect::<Vec<_>>()
    };
    health.sources.iter().flat_map(of).collect()
}

fn xid_events(health: &Health) -> Vec<OwnSample> {
    let of = |gpu: &GpuHealth| -> Vec<OwnSample> {
        let sample = |(xid, n): (&u32, &u64)| {
            let labels = gpu_labels(gpu).into_iter().chain([xid.to_string()]);
            (labels.collect(), float(*n))
        };
        gpu.xids.iter().map(sample).collect()
    };
    health.gpus.iter().flat_map(of).collect()
}

/// Logs what is different from the snapshot before; a state that lasts is logged once.
pub fn log_changes(before: Option<&Snapshot>, now: &Snapshot) {
    log_driver(before.map(|snapshot| &snapshot.health.driver), &now.health.driver);
    let hidden = |snapshot: &Snapshot| snapshot.health.host_pids == Some(false);
    if hidden(now) && !before.is_some_and(hidden) {
        warn!("{HIDDEN_PROCESSES}");
    }
    for gpu in &now.health.gpus {
        let was = before.and_then(|snapshot| {
            snapshot.health.gpus.iter().find(|was| was.gpu.uuid == gpu.gpu.uuid)
        });
        log_gpu(was.map(|was| was.state), gpu);
        log_xids(before, gpu);
        let same = before.is_some_and(|was| Arc::ptr_eq(&was.selection, &now.selection));
        let readings = was.filter(|_| same).map(|was| was.readings.as_slice());
        if gpu.state.is_ok() {
            log_readings(&now.selection, gpu, readings);
        }
    }
    for (gpu, reason) in &now.health.unidentified {
        let was = before.and_then(|snapshot| snapshot.health.unidentified.get(gpu));
        if was != Some(reason) && *reason != Missing::Pending {
            warn!(gpu, %reason, "GPU cannot be identified; it has no series");
        }
    }
}

fn log_driver(before: Option<&DriverState>, now: &DriverState) {
    match (before, now) {
        (Some(DriverState::Up(was)), DriverState::Up(is)) if was == is => {}
        (_, DriverState::Up(Driver { version, nvml_version, library, .. })) => {
            info!(version, nvml_version, library, "driver is up");
        }
        (Some(DriverState::Down { reason: was, .. }), DriverState::Down { reason, .. })
            if was == reason => {}
        (_, DriverState::Down { detail, .. }) if now.is_released() => info!("{detail}"),
        (_, DriverState::Down { reason, detail }) => warn!(reason, "driver is down: {detail}"),
    }
}

fn log_gpu(before: Option<Result<(), Missing>>, now: &GpuHealth) {
    let (gpu, uuid) = (now.gpu.index, &*now.gpu.uuid);
    match (before, now.state) {
        (Some(was), is) if was == is => {}
        (_, Ok(())) => info!(gpu, uuid, model = &*now.gpu.name, "GPU is up"),
        (_, Err(Missing::Pending)) => {}
        (_, Err(reason)) => warn!(gpu, uuid, %reason, "GPU is down; its series are withheld"),
    }
}

/// Counts outlive a session, so a GPU that was not there before is compared with nothing.
fn log_xids(before: Option<&Snapshot>, now: &GpuHealth) {
    let was = before.and_then(|b| b.health.gpus.iter().find(|g| g.gpu.uuid == now.gpu.uuid));
    let Some(was) = was else { return };
    let (gpu, uuid) = (now.gpu.index, &*now.gpu.uuid);
    for (xid, count) in &now.xids {
        if was.xids.get(xid).is_none_or(|earlier| earlier < count) {
            warn!(gpu, uuid, xid, count, "XID");
        }
    }
}

fn log_readings(selection: &Selection, gpu: &GpuHealth, before: Option<&[Reading]>) {
    let families = selection.device.families().iter().zip(&gpu.readings);
    for (position, (shown, reading)) in families.enumerate() {
        let was = before.and_then(|readings| readings.get(position)).copied();
        let (gpu, uuid, series) = (gpu.gpu.index, &*gpu.gpu.uuid, &*shown.name);
        match (was.map(Result::err), reading.err()) {
            (Some(was), is) if was == is => {}
            (None | Some(Some(Missing::Unsupported | Missing::Pending)), None)
            | (_, Some(Missing::Unsupported | Missing::Pending)) => {}
            (_, Some(reason)) => {
                warn!(gpu, uuid, series, symbol = shown.metric.symbol, %reason, "reading is missing");
            }
            (Some(_), None) => info!(gpu, uuid, series, "reading is back"),
        }
    }
}
