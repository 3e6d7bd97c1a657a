//! Conversion of a [`Snapshot`] to a [`NodeView`].

use std::collections::BTreeMap;

use super::{
    Absence, ContainerView, DriverView, FailureView, GpuView, MigView, NodeTotals, NodeView,
    Number, PartitionView, ProblemView, ProcessView, SourceView, UnidentifiedView, VERSION,
    XidView,
};
use crate::catalog::headline::Headline;
use crate::catalog::{DeviceSource, xid};
use crate::model::{
    CLOCK_EVENTS, ContainerAllocation, MigDevice, Missing, Owner, Reading, RecoveryAction, Usage,
};
use crate::nvml::probe::mebibytes;
use crate::sample::DriverState;
use crate::sanitize::printable;
use crate::selection::{SelectedFamilies, Selection};
use crate::snapshot::device_usage::{ContainerUsage, DeviceUsage, PartitionUsage, ProcessUsage};
use crate::snapshot::{GpuHealth, GpuProblem, GpuVerdict, Snapshot, SourceHealth};

/// Reasons for reduced clocks that do not slow down work: no higher clocks are requested.
const HARMLESS: [&str; 2] = ["gpu_idle", "clocks_setting"];

impl NodeView {
    /// Converts a snapshot. GPUs are omitted if it is `stale`.
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot, stale: bool) -> Self {
        let health = &snapshot.health;
        let ready = if stale { Err(STALE.to_owned()) } else { snapshot.ready() };
        let mut verdicts = if stale { BTreeMap::new() } else { snapshot.gpu_verdicts() };
        let identified = health.gpus.iter().zip(&snapshot.device_usages);
        let gpus = identified.filter_map(|(health, usage)| {
            let verdict = verdicts.remove(&health.gpu.index)?;
            Some(gpu(&snapshot.selection, health, usage, &verdict))
        });
        let gpus: Vec<GpuView> = gpus.collect();
        let unidentified = |verdict: GpuVerdict| UnidentifiedView {
            index: verdict.index,
            status: verdict.status,
            problems: verdict.problems.iter().map(ProblemView::from).collect(),
        };
        let unidentified: Vec<_> = verdicts.into_values().map(unidentified).collect();
        Self {
            version: VERSION,
            exporter: env!("CARGO_PKG_VERSION").to_owned(),
            node: shown(&snapshot.identity.node_name),
            hostname: shown(&snapshot.identity.hostname),
            timestamp_seconds: snapshot.at.unix_seconds(),
            interval_seconds: health.interval.as_secs_f64(),
            stale,
            ready: ready.is_ok(),
            not_ready_reason: ready.err().map(|reason| shown(&reason)),
            no_gpu_reason: health.driver.no_gpu().map(|why| shown(&why.message)),
            warnings: snapshot.warnings(),
            driver: (&health.driver).into(),
            totals: NodeTotals::of(&gpus, &unidentified),
            gpus,
            unidentified,
            sources: health.sources.iter().map(SourceView::from).collect(),
            pod_source: health.pod_source.map(str::to_owned),
            abandoned_threads: health.abandoned_threads,
        }
    }
}

const STALE: &str = "the newest sample is too old: the sampling thread is stuck or has stopped";

impl From<&DriverState> for DriverView {
    fn from(state: &DriverState) -> Self {
        match state {
            DriverState::Up(driver) => Self {
                up: true,
                version: Some(shown(&driver.version)),
                nvml_version: Some(shown(&driver.nvml_version)),
                cuda_version: Some(shown(&driver.cuda_version)).filter(|v| !v.is_empty()),
                library: Some(shown(&driver.library)),
                ..Self::default()
            },
            DriverState::Down(down) => Self {
                reason: Some(down.reason().label().to_owned()),
                detail: Some(shown(&down.problem().to_string())),
                ..Self::default()
            },
        }
    }
}

/// A text of a process, a pod, a server or the driver, as all views show it.
fn shown(text: &str) -> String {
    printable(text).into_owned()
}

fn gpu(
    selection: &Selection,
    health: &GpuHealth,
    usage: &DeviceUsage,
    verdict: &GpuVerdict,
) -> GpuView {
    let reading = |headline| find(&selection.device, &health.readings, headline);
    let limit = |reading: Reading| Number::from(health.state.and(reading));
    let utilization = reading(Headline::Utilization);
    let xid = |(code, count): (&u32, &u64)| XidView {
        xid: *code,
        name: xid::name(*code).to_owned(),
        count: *count,
    };
    GpuView {
        index: health.gpu.index,
        uuid: shown(&health.gpu.uuid),
        model: shown(&health.gpu.name),
        pci_bus_id: shown(&health.gpu.pci_bus_id),
        readable: health.state.is_ok(),
        status: verdict.status,
        problems: verdict.problems.iter().map(ProblemView::from).collect(),
        throttled_by: throttled_by(&reading(Headline::ClockEvents)),
        recovery_action: recovery_action(health),
        power_watts: reading(Headline::Power),
        power_limit_watts: limit(usage.limits.power),
        temperature_celsius: reading(Headline::Temperature),
        temperature_limit_celsius: limit(usage.limits.temperature),
        xids: health.xids.counts.iter().map(xid).collect(),
        mig: usage.partitions.iter().any(|part| part.mig.is_some()),
        mig_error: mig_error(health, usage).map(|missing| missing.to_string()),
        parts: usage
            .partitions
            .iter()
            .map(|part| partition(selection, &utilization, part))
            .collect(),
        utilization_percent: utilization,
    }
}

impl GpuView {
    /// GPU utilization and used framebuffer of a GPU in percent, without the rest of the view.
    pub(super) fn use_percent(
        snapshot: &Snapshot,
        health: &GpuHealth,
        usage: &DeviceUsage,
    ) -> (Option<f64>, Option<f64>) {
        let headline = Headline::Utilization;
        let sm = find(&snapshot.selection.device, &health.readings, headline).known();
        let mut parts = usage.partitions.iter().map(|part| part.framebuffer.ok());
        // Compute instances of one GPU instance share its framebuffer, which does not change the ratio much.
        let sum = parts.try_fold((0, 0), |(used, total), framebuffer| {
            framebuffer.map(|memory| (used + memory.used, total + memory.total))
        });
        let ratio = |(used, total): (u64, u64)| mebibytes(used) / mebibytes(total) * 100.0;
        (sm, sum.filter(|(_, total)| *total > 0).map(ratio))
    }
}

/// Why not all MIG devices are listed. Of a GPU that cannot be read, nothing is listed anyway.
fn mig_error(health: &GpuHealth, usage: &DeviceUsage) -> Option<Missing> {
    health.state.ok().and(usage.partitions_complete.err())
}

impl From<&GpuProblem> for ProblemView {
    fn from(problem: &GpuProblem) -> Self {
        Self {
            status: problem.status,
            watch: problem.watch.map(str::to_owned),
            code: problem.code.map(str::to_owned),
            message: shown(&problem.message),
            remedy: Some(shown(&problem.remedy)).filter(|remedy| !remedy.is_empty()),
            temporary: problem.temporary,
        }
    }
}

/// The reading of the family that is `headline`, or absent if it is not selected.
fn find(
    selected: &SelectedFamilies<DeviceSource>,
    readings: &[Reading],
    headline: Headline,
) -> Number {
    let families = selected.families().iter();
    let mut found =
        families.zip(readings).filter(|(family, _)| family.metric.headline == Some(headline));
    found.next().map_or_else(
        || Number::Absent { absent: Absence::NotCollected },
        |(_, reading)| (*reading).into(),
    )
}

fn throttled_by(bits: &Number) -> Option<Vec<String>> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mask of bits")]
    let bits = bits.known()? as u64;
    let active = CLOCK_EVENTS.iter().filter(|(_, bit)| bits & bit != 0);
    let reasons = active.map(|(reason, _)| *reason).filter(|reason| !HARMLESS.contains(reason));
    Some(reasons.map(str::to_owned).collect())
}

/// Read with the health, whether its family is selected or not.
fn recovery_action(gpu: &GpuHealth) -> Option<String> {
    let health = gpu.state.and(gpu.health.as_deref().map_err(|missing| *missing)).ok()?;
    let action = health.sample.recovery_action.ok()?;
    RecoveryAction::of(action).words().map(str::to_owned)
}

fn partition(
    selection: &Selection,
    gpu_utilization: &Number,
    part: &PartitionUsage,
) -> PartitionView {
    let processes = part.processes.as_deref();
    let process_list_error = if selection.needs_processes() {
        processes.err().map(|missing| Absence::Unread(missing.to_string()))
    } else {
        Some(Absence::NotCollected)
    };
    let processes = processes.unwrap_or_default();
    let other = processes.iter().filter(|process| process.owner.container().is_none());
    let active = || find(&selection.instance, &part.readings, Headline::InstanceActive);
    PartitionView {
        utilization_percent: if part.mig.is_some() {
            active().map(|ratio| ratio * 100.0)
        } else {
            gpu_utilization.clone()
        },
        mig: part.mig.as_deref().map(MigView::from),
        memory_used_mib: part.framebuffer.map(|memory| mebibytes(memory.used)).into(),
        memory_total_mib: part.framebuffer.map(|memory| mebibytes(memory.total)).into(),
        containers: part.containers.iter().map(|entry| container(entry, processes)).collect(),
        other_processes: other.map(ProcessView::from).collect(),
        process_list_error,
    }
}

fn container(entry: &ContainerUsage, processes: &[ProcessUsage]) -> ContainerView {
    let own = |process: &&ProcessUsage| process.owner.container() == Some(&entry.container);
    // 0 means that compute is not limited.
    let limited = |allocation: &ContainerAllocation| allocation.compute != Ok(0.0);
    let pod = &entry.container.pod;
    ContainerView {
        namespace: shown(&pod.namespace),
        pod: shown(&pod.name),
        container: shown(&entry.container.name),
        mode: entry.mode,
        memory_granted_mib: entry.allocation.map(|allocation| allocation.memory.into()),
        compute_granted_ratio: entry
            .allocation
            .filter(limited)
            .map(|allocation| allocation.compute.into()),
        sm_percent: entry.usage.sm().into(),
        memory_used_mib: memory(&entry.usage),
        processes: processes.iter().filter(own).map(ProcessView::from).collect(),
    }
}

fn memory(usage: &Usage) -> Number {
    usage.memory.map(mebibytes).into()
}

impl From<&MigDevice> for MigView {
    fn from(mig: &MigDevice) -> Self {
        Self {
            uuid: shown(&mig.uuid),
            profile: shown(&mig.profile),
            gpu_instance: mig.gpu_instance,
            compute_instance: mig.compute_instance,
        }
    }
}

impl From<&ProcessUsage> for ProcessView {
    fn from(entry: &ProcessUsage) -> Self {
        let reason = match &entry.owner {
            Owner::Unknown(reason) => Some(reason.label().to_owned()),
            Owner::Container(_) | Owner::Host | Owner::NonPodContainer => None,
        };
        let process = entry.process.as_ref();
        Self {
            owner: entry.owner.kind(),
            reason,
            pid: process.map(|process| process.pid),
            name: process.map_or_else(String::new, |process| shown(&process.name)),
            kind: process.map_or("", |process| process.kind.label()).to_owned(),
            sm_percent: entry.usage.sm().into(),
            memory_used_mib: memory(&entry.usage),
        }
    }
}

impl From<&SourceHealth> for SourceView {
    fn from(source: &SourceHealth) -> Self {
        let failures = source.failures.iter().filter(|(_, count)| *count > 0);
        let failure = |(reason, count): &(&str, u64)| FailureView {
            reason: (*reason).to_owned(),
            count: *count,
        };
        Self {
            name: source.name.to_owned(),
            up: source.up,
            problem: source.problem.as_deref().filter(|_| !source.up).map(shown),
            age_seconds: source.age.map(|age| age.as_secs_f64()),
            failures: failures.map(failure).collect(),
        }
    }
}

impl From<Reading> for Number {
    fn from(reading: Reading) -> Self {
        reading.map_or_else(|missing| Self::Absent { absent: missing.into() }, Self::Known)
    }
}

impl From<Missing> for Absence {
    fn from(missing: Missing) -> Self {
        Self::Unread(missing.reason().to_owned())
    }
}

impl Number {
    fn map(self, change: impl FnOnce(f64) -> f64) -> Self {
        match self {
            Self::Known(value) => Self::Known(change(value)),
            absent @ Self::Absent { .. } => absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::labels::Dialect;
    use crate::model::{Discards, Gpu, Limits, Moment, XidState};
    use crate::nvml::inventory::DriverInfo;
    use crate::selection::{SelectionScope, preset};
    use crate::snapshot::{ExporterHealth, NodeIdentity, Tables};

    /// A snapshot of one GPU with `reading` for every family.
    fn snapshot(reading: Reading) -> Snapshot {
        let selection = Selection::of(&preset(&Dialect::Ack), SelectionScope::default());
        let at = Moment { mono: Duration::from_secs(9), wall_us: 1_700_000_000_500_000 };
        let gpu = Gpu {
            index: 0,
            minor: None,
            uuid: "GPU-0".into(),
            name: "T4".into(),
            pci_bus_id: "00000000:1B:00.0".into(),
        };
        let health = GpuHealth {
            gpu: Arc::new(gpu),
            state: Ok(()),
            responded: true,
            sampled_at: at,
            request_duration: None,
            missing: [0; Missing::REASONS.len()],
            discards: Discards::default(),
            driver_clock_offset: None,
            refuses_all_rows: false,
            unlisted_use: None,
            xids: XidState::default(),
            health: Err(Missing::Pending),
            readings: vec![reading; selection.device.len()],
        };
        let occupancy = DeviceUsage {
            limits: Limits { power: Ok(70.0), temperature: Err(Missing::Unsupported) },
            partitions_complete: Ok(()),
            partitions: Vec::new(),
        };
        Snapshot {
            at,
            identity: NodeIdentity::default(),
            selection: Arc::new(selection),
            nodes: Vec::new(),
            tables: Tables::default(),
            device_usages: vec![occupancy],
            health: ExporterHealth {
                driver: DriverState::Up(DriverInfo::default()),
                gpus: vec![health],
                ..ExporterHealth::default()
            },
        }
    }

    fn absent(missing: Missing) -> Number {
        Number::Absent { absent: missing.into() }
    }

    #[test]
    fn reading_is_a_number_or_an_absence_with_its_reason() {
        let view = |reading| NodeView::from_snapshot(&snapshot(reading), false).gpus.remove(0);
        let known = view(Ok(0.0));
        assert_eq!(known.utilization_percent, Number::Known(0.0));
        assert_eq!(known.throttled_by, Some(Vec::new()));
        assert_eq!(known.power_limit_watts, Number::Known(70.0));
        assert_eq!(known.temperature_limit_celsius, absent(Missing::Unsupported));
        assert_eq!(view(Err(Missing::Hung)).power_watts, absent(Missing::Hung));
    }

    #[test]
    fn throttling_reasons_exclude_harmless_ones() {
        // gpu_idle, power_cap and hw_thermal.
        let throttled = throttled_by(&Number::Known(f64::from(0x1_u32 | 0x4 | 0x40)));
        assert_eq!(throttled.unwrap(), ["power_cap", "hw_thermal"]);
        assert_eq!(throttled_by(&absent(Missing::Denied)), None, "unknown is not healthy");
    }

    #[test]
    fn stale_view_omits_gpus() {
        let snapshot = snapshot(Ok(50.0));
        assert!(NodeView::from_snapshot(&snapshot, false).ready);
        let stale = NodeView::from_snapshot(&snapshot, true);
        assert!(stale.stale && !stale.ready && stale.gpus.is_empty());
        assert!(stale.not_ready_reason.is_some());
    }
}
