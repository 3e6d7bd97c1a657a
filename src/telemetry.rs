//! The exporter's own series, and log lines for state changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{info, warn};

use crate::catalog::exporter_metrics::{ExporterMetricId, ProcessMetric};
use crate::catalog::health_text::for_gpu;
use crate::catalog::xid;
use crate::model::{DownReason, Missing, OwnerEvidence, OwnerKind, Reading, Unresolved, ZeroDoubt};
use crate::nvml::inventory::DriverInfo;
use crate::sample::DriverState;
use crate::sample::unlisted_use::UnlistedUse;
use crate::selection::Selection;
use crate::snapshot::{
    ExporterHealth, FramebufferBalance, GpuHealth, HIDDEN_PROCESSES, REFUSED_ROWS, Snapshot,
    SourceHealth,
};

/// Label values of one sample, in the order of the label names of its catalog row, and its value.
pub type ExporterSample = (Vec<String>, f64);

/// The samples of one of the exporter's own series.
#[must_use]
pub fn samples(series: ExporterMetricId, snapshot: &Snapshot) -> Vec<ExporterSample> {
    let health = &snapshot.health;
    match series {
        ExporterMetricId::BuildInfo => build_info(),
        ExporterMetricId::DriverUp => driver_up(health).map_or_else(Vec::new, unlabelled),
        ExporterMetricId::NodeWithoutGpu => node_without_gpu(&health.driver),
        ExporterMetricId::Released => unlabelled(flag(health.driver.is_released())),
        ExporterMetricId::DriverInfo => driver_info(&health.driver),
        ExporterMetricId::DriverOpenFailures => by_reason(&health.open_failures, |reason| reason),
        ExporterMetricId::SnapshotTimestamp => unlabelled(snapshot.at.unix_seconds()),
        ExporterMetricId::CycleDuration => unlabelled(health.cycle_duration.as_secs_f64()),
        ExporterMetricId::Cycles => unlabelled(to_f64(health.cycles)),
        ExporterMetricId::SourceUp => source_up(health),
        ExporterMetricId::SourceDuration => source_duration(health),
        ExporterMetricId::GpuUp => per_gpu(health, |gpu| flag(gpu.state.is_ok())),
        ExporterMetricId::GpuTimestamp => per_gpu(health, |gpu| gpu.sampled_at.unix_seconds()),
        ExporterMetricId::GpuMissing => {
            let missing = |gpu: &GpuHealth| Missing::REASONS.into_iter().zip(gpu.missing).collect();
            per_gpu_and_reason(health, missing)
        }
        ExporterMetricId::Discarded => per_gpu_and_reason(health, |gpu| {
            gpu.discards.iter().map(|(reason, n)| (reason.reason(), n)).collect()
        }),
        ExporterMetricId::XidEvents => xid_events(health),
        ExporterMetricId::HostPidNamespace => {
            health.host_pid_namespace.map_or_else(Vec::new, |host_pids| unlabelled(flag(host_pids)))
        }
        ExporterMetricId::Attributed => attributed(health),
        ExporterMetricId::Unresolved => {
            by_reason(&health.attribution.unresolved, Unresolved::label)
        }
        ExporterMetricId::WithheldZeros => {
            by_reason(&health.attribution.withheld_zeros, ZeroDoubt::label)
        }
        ExporterMetricId::DriverClockOffset => {
            health.gpus.iter().filter_map(clock_offset).collect()
        }
        ExporterMetricId::UnlistedUse => health.gpus.iter().filter_map(unlisted_use).collect(),
        ExporterMetricId::Framebuffer => {
            health.attribution.framebuffer.iter().flat_map(framebuffer).collect()
        }
        ExporterMetricId::SourceContact => source_contact(snapshot),
        ExporterMetricId::SourceFailures => by_source(health, |source| &source.failures),
        ExporterMetricId::SourceSkipped => by_source(health, |source| &source.skipped),
        ExporterMetricId::Pods => health.pod_count.map_or_else(Vec::new, |n| unlabelled(to_f64(n))),
        ExporterMetricId::PodSource => {
            health.pod_source.map(|source| (vec![source.to_owned()], 1.0)).into_iter().collect()
        }
        ExporterMetricId::ProcessSeries => {
            let count = health.process_series_max.map(|_| to_f64(snapshot.process_series()));
            count.map_or_else(Vec::new, unlabelled)
        }
        ExporterMetricId::ProcessSeriesMax => {
            health.process_series_max.map_or_else(Vec::new, |max| unlabelled(to_f64(max)))
        }
        ExporterMetricId::AllocationProblems => {
            by_reason(&health.allocation_problems, |reason| reason)
        }
        ExporterMetricId::DroppedPodLabels => {
            by_reason(&health.dropped_pod_labels, |reason| reason)
        }
        ExporterMetricId::GpuUnidentified => health
            .unidentified
            .iter()
            .map(|(gpu, missing)| (vec![gpu.to_string(), missing.reason().to_owned()], 1.0))
            .collect(),
        ExporterMetricId::HttpRejected => rejections(health),
        ExporterMetricId::Process(metric) => process(metric, health),
        ExporterMetricId::ThreadsAbandoned => unlabelled(to_f64(health.abandoned_threads as u64)),
    }
}

/// Revision of the source, if the build was given one.
const REVISION: &str = match option_env!("NVML_EXPORTER_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

fn build_info() -> Vec<ExporterSample> {
    let features = [("manual", cfg!(feature = "manual")), ("top", cfg!(feature = "top"))];
    let features = features.into_iter().filter(|(_, is_enabled)| *is_enabled);
    let features: Vec<&str> = features.map(|(name, _)| name).collect();
    let labels = [env!("CARGO_PKG_VERSION"), REVISION, &features.join(",")];
    vec![(labels.map(str::to_owned).to_vec(), 1.0)]
}

fn process(metric: ProcessMetric, health: &ExporterHealth) -> Vec<ExporterSample> {
    let Some(process) = &health.process else { return Vec::new() };
    let value = match metric {
        ProcessMetric::CpuTime => Some(process.cpu_seconds),
        ProcessMetric::ResidentMemory => Some(to_f64(process.resident_bytes)),
        ProcessMetric::VirtualMemory => Some(to_f64(process.virtual_bytes)),
        ProcessMetric::StartTime => process.start_time,
        ProcessMetric::OpenFiles => process.open_fds.map(to_f64),
        ProcessMetric::MaxFiles => process.max_fds.map(to_f64),
    };
    value.map_or_else(Vec::new, unlabelled)
}

fn unlabelled(value: f64) -> Vec<ExporterSample> {
    vec![(Vec::new(), value)]
}

fn flag(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "an exported sample is an f64")]
fn to_f64(n: u64) -> f64 {
    n as f64
}

/// Whether there is a session; none on a node that needs no driver.
fn driver_up(health: &ExporterHealth) -> Option<f64> {
    let up = flag(matches!(health.driver, DriverState::Up(_)));
    health.driver.no_gpu().is_none().then_some(up)
}

fn node_without_gpu(driver: &DriverState) -> Vec<ExporterSample> {
    driver.no_gpu().map_or_else(Vec::new, |_| unlabelled(1.0))
}

fn driver_info(driver: &DriverState) -> Vec<ExporterSample> {
    match driver {
        DriverState::Up(DriverInfo { version, nvml_version, library, .. }) => {
            vec![(vec![version.clone(), nvml_version.clone(), library.clone()], 1.0)]
        }
        DriverState::Down(_) => Vec::new(),
    }
}

fn attributed(health: &ExporterHealth) -> Vec<ExporterSample> {
    let count = |((source, result), n): (&(OwnerEvidence, OwnerKind), &u64)| {
        (vec![source.label().to_owned(), result.label().to_owned()], to_f64(*n))
    };
    health.attribution.attributed.iter().map(count).collect()
}

fn by_reason<R: Copy>(
    counts: &BTreeMap<R, u64>,
    label: impl Fn(R) -> &'static str,
) -> Vec<ExporterSample> {
    counts.iter().map(|(reason, n)| (vec![label(*reason).to_owned()], to_f64(*n))).collect()
}

fn source_name(gpu: u32) -> String {
    format!("gpu{gpu}")
}

fn source_up(health: &ExporterHealth) -> Vec<ExporterSample> {
    let driver = driver_up(health).map(|up| ("driver".to_owned(), up));
    let known = health.gpus.iter().map(|gpu| (gpu.gpu.index, gpu.responded && gpu.state.is_ok()));
    let unknown = health.unidentified.keys().map(|gpu| (*gpu, false));
    let gpus: BTreeMap<u32, bool> = known.chain(unknown).collect();
    let cluster = health.sources.iter().map(|source| (source.name.to_owned(), source.up));
    let others = gpus.into_iter().map(|(gpu, up)| (source_name(gpu), up)).chain(cluster);
    driver
        .into_iter()
        .chain(others.map(|(name, up)| (name, flag(up))))
        .map(|(name, up)| (vec![name], up))
        .collect()
}

fn source_duration(health: &ExporterHealth) -> Vec<ExporterSample> {
    let took = health.driver_request_duration.filter(|_| health.driver.no_gpu().is_none());
    let driver = ("driver".to_owned(), took);
    let gpus = health.gpus.iter().map(|gpu| (source_name(gpu.gpu.index), gpu.request_duration));
    std::iter::once(driver)
        .chain(gpus)
        .filter_map(|(name, took)| Some((vec![name], took?.as_secs_f64())))
        .collect()
}

fn gpu_labels(gpu: &GpuHealth) -> Vec<String> {
    vec![gpu.gpu.index.to_string(), gpu.gpu.uuid.to_string()]
}

fn per_gpu(health: &ExporterHealth, value: impl Fn(&GpuHealth) -> f64) -> Vec<ExporterSample> {
    health.gpus.iter().map(|gpu| (gpu_labels(gpu), value(gpu))).collect()
}

fn per_gpu_and_reason(
    health: &ExporterHealth,
    counts: impl Fn(&GpuHealth) -> Vec<(&'static str, u64)>,
) -> Vec<ExporterSample> {
    let of = |gpu: &GpuHealth| {
        let labels = gpu_labels(gpu);
        counts(gpu).into_iter().filter(|(_, n)| *n > 0).map(move |(reason, n)| {
            let labels = labels.iter().cloned().chain([reason.to_owned()]);
            (labels.collect(), to_f64(n))
        })
    };
    health.gpus.iter().flat_map(of).collect()
}

#[expect(clippy::cast_precision_loss, reason = "no GPU has 2^53 bytes")]
fn framebuffer(balanced: &FramebufferBalance) -> Vec<ExporterSample> {
    let instance = balanced.gpu_instance.map(|gi| gi.to_string()).unwrap_or_default();
    let of = |(owner, bytes): &(&str, i64)| {
        let gpu = balanced.gpu_index.to_string();
        let labels = [gpu, balanced.uuid.to_string(), instance.clone(), (*owner).to_owned()];
        (labels.to_vec(), *bytes as f64)
    };
    balanced.bytes_by_owner.iter().map(of).collect()
}

fn source_contact(snapshot: &Snapshot) -> Vec<ExporterSample> {
    let sources = snapshot.health.sources.iter();
    let of = |source: &SourceHealth| {
        let at = snapshot.at.unix_seconds() - source.age?.as_secs_f64();
        Some((vec![source.name.to_owned()], at))
    };
    sources.filter_map(of).collect()
}

fn by_source(
    health: &ExporterHealth,
    counts: impl Fn(&SourceHealth) -> &[(&'static str, u64)],
) -> Vec<ExporterSample> {
    let of = |source: &SourceHealth| {
        let counted = counts(source).iter().filter(|(_, n)| *n > 0);
        let labels = |reason: &str| vec![source.name.to_owned(), reason.to_owned()];
        counted.map(|(reason, n)| (labels(reason), to_f64(*n))).collect::<Vec<_>>()
    };
    health.sources.iter().flat_map(of).collect()
}

fn xid_events(health: &ExporterHealth) -> Vec<ExporterSample> {
    let of = |gpu: &GpuHealth| -> Vec<ExporterSample> {
        let sample = |(xid, n): (&u32, &u64)| {
            let labels = gpu_labels(gpu).into_iter().chain([xid.to_string()]);
            (labels.collect(), to_f64(*n))
        };
        gpu.xids.counts.iter().map(sample).collect()
    };
    health.gpus.iter().flat_map(of).collect()
}

/// Logs state changes since the previous snapshot; an unchanged state is not logged again.
pub fn log_changes(before: Option<&Snapshot>, now: &Snapshot) {
    log_driver(before.map(|snapshot| &snapshot.health.driver), &now.health.driver);
    let hidden = |snapshot: &Snapshot| snapshot.health.host_pid_namespace == Some(false);
    if hidden(now) && !before.is_some_and(hidden) {
        warn!("{HIDDEN_PROCESSES}");
    }
    if now.has_many_process_series() && !before.is_some_and(Snapshot::has_many_process_series) {
        let (series, limit) = (now.process_series(), now.health.process_series_max);
        warn!(
            series,
            limit,
            "more series of processes than --max-process-series; --process-series container has one \
             per container and GPU"
        );
    }
    for gpu in &now.health.gpus {
        let was = before.and_then(|snapshot| {
            snapshot.health.gpus.iter().find(|was| was.gpu.uuid == gpu.gpu.uuid)
        });
        log_gpu(was.map(|was| was.state), gpu);
        log_unlisted_use(was.and_then(|was| was.unlisted_use), gpu);
        log_refused_rows(was.is_some_and(|was| was.refuses_all_rows), gpu);
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
            warn!(gpu, %reason, "GPU cannot be identified and has no series");
        }
    }
}

fn log_driver(before: Option<&DriverState>, now: &DriverState) {
    match (before, now) {
        (Some(DriverState::Up(was)), DriverState::Up(is)) if was == is => {}
        (_, DriverState::Up(DriverInfo { version, nvml_version, library, .. })) => {
            info!(version, nvml_version, library, "driver is up");
        }
        (Some(DriverState::Down(was)), DriverState::Down(is)) if was.reason() == is.reason() => {}
        // Until the driver is open, or does not open in time, nothing is wrong.
        (_, DriverState::Down(down)) if down.reason() == DownReason::Starting => {}
        (_, DriverState::Down(down)) if now.is_released() || now.no_gpu().is_some() => {
            info!("{}", down.problem());
        }
        (_, DriverState::Down(down)) => {
            warn!(reason = down.reason().label(), "driver is down: {}", down.problem());
        }
    }
}

fn rejections(health: &ExporterHealth) -> Vec<ExporterSample> {
    let sample = |(reason, n): &(&str, u64)| (vec![(*reason).to_owned()], to_f64(*n));
    health.rejections.iter().map(sample).collect()
}

fn clock_offset(gpu: &GpuHealth) -> Option<ExporterSample> {
    Some((gpu_labels(gpu), gpu.driver_clock_offset?))
}

fn unlisted_use(gpu: &GpuHealth) -> Option<(Vec<String>, f64)> {
    let kind = gpu.unlisted_use?.label().to_owned();
    Some((vec![gpu.gpu.index.to_string(), gpu.gpu.uuid.to_string(), kind], 1.0))
}

fn log_refused_rows(before: bool, now: &GpuHealth) {
    let gpu = now.gpu.index;
    match (before, now.refuses_all_rows) {
        (false, true) => warn!(gpu, "{REFUSED_ROWS}"),
        (true, false) => info!(gpu, "the driver returns valid utilization rows again"),
        _ => {}
    }
}

fn log_unlisted_use(before: Option<UnlistedUse>, now: &GpuHealth) {
    let gpu = now.gpu.index;
    match (before, now.unlisted_use) {
        (was, Some(kind)) if was != Some(kind) => warn!(
            gpu,
            "the GPU reports {} that no process in the driver's list accounts for; containers without a \
             process on it are not reported idle; compare with nvidia-smi on the host",
            kind.label()
        ),
        (Some(_), None) => {
            info!(gpu, "the driver's process list accounts for the use of the GPU again");
        }
        _ => {}
    }
}

fn log_gpu(before: Option<Result<(), Missing>>, now: &GpuHealth) {
    let (gpu, uuid) = (now.gpu.index, &*now.gpu.uuid);
    match (before, now.state) {
        (Some(was), is) if was == is => {}
        (_, Ok(())) => info!(gpu, uuid, model = &*now.gpu.name, "GPU is up"),
        (_, Err(Missing::Pending)) => {}
        (_, Err(reason)) => warn!(gpu, uuid, %reason, "GPU is down, its series are withheld"),
    }
}

/// Counts outlive a session, so a GPU without a previous snapshot is skipped: its counts may be
/// old.
fn log_xids(before: Option<&Snapshot>, now: &GpuHealth) {
    let was = before.and_then(|b| b.health.gpus.iter().find(|g| g.gpu.uuid == now.gpu.uuid));
    let Some(was) = was else { return };
    let (gpu, uuid) = (now.gpu.index, &*now.gpu.uuid);
    for (xid, count) in &now.xids.counts {
        if was.xids.counts.get(xid).is_none_or(|earlier| earlier < count) {
            let remedy = for_gpu(xid::remedy(*xid), now.gpu.selector());
            warn!(gpu, uuid, xid, count, "XID error: {}; remedy: {remedy}", xid::name(*xid));
        }
    }
}

fn log_readings(selection: &Selection, gpu: &GpuHealth, before: Option<&[Reading]>) {
    let families = selection.device.families().iter().zip(&gpu.readings);
    for (position, (family, reading)) in families.enumerate() {
        let was = before.and_then(|readings| readings.get(position)).copied();
        let (gpu, uuid, series) = (gpu.gpu.index, &*gpu.gpu.uuid, &*family.name);
        match (was.map(Result::err), reading.err()) {
            (Some(was), is) if was == is => {}
            (None | Some(Some(Missing::Unsupported | Missing::Pending)), None)
            | (_, Some(Missing::Unsupported | Missing::Pending)) => {}
            (_, Some(reason)) => {
                warn!(gpu, uuid, series, symbol = family.metric.symbol, %reason, "reading is missing");
            }
            (Some(_), None) => info!(gpu, uuid, series, "reading is available again"),
        }
    }
}
