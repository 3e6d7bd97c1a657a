//! Snapshot → [`NodeView`].

use super::{
    ContainerView, DriverView, FailureView, GpuView, MigView, NodeView, Number, PartView,
    ProcessView, SourceView, UnidentifiedView, VERSION, XidView,
};
use crate::catalog::{DeviceSource, glance, xid};
use crate::model::{CLOCK_EVENTS, Grant, MigDevice, Reading, Usage};
use crate::nvml::probe::mebibytes;
use crate::sample::DriverState;
use crate::selection::{Chosen, Selection};
use crate::snapshot::occupancy::{Occupancy, Part, Resident, Tenant, Whose};
use crate::snapshot::{GpuHealth, Snapshot, SourceHealth};

/// Reasons for lower clocks that slow no work down: nobody asks for more.
const HARMLESS: [&str; 2] = ["gpu_idle", "clocks_setting"];

/// What is not chosen is not read.
const NOT_CHOSEN: &str = "not_chosen";

impl NodeView {
    /// A node, as a snapshot has it; `stale`, if that is too old to tell of GPUs.
    #[must_use]
    pub fn of(snapshot: &Snapshot, stale: bool) -> Self {
        let health = &snapshot.health;
        let ready = if stale { Err(STALE.to_owned()) } else { snapshot.ready() };
        let seen = health.gpus.iter().zip(&snapshot.occupancy).filter(|_| !stale);
        let unidentified = |(index, why): (&u32, &crate::model::Missing)| UnidentifiedView {
            index: *index,
            reason: why.to_string(),
        };
        Self {
            version: VERSION,
            exporter: env!("CARGO_PKG_VERSION").to_owned(),
            node: snapshot.host.node.clone(),
            hostname: snapshot.host.name.clone(),
            timestamp_seconds: snapshot.at.unix_seconds(),
            stale,
            ready: ready.is_ok(),
            trouble: ready.err(),
            warnings: snapshot.warnings(),
            driver: (&health.driver).into(),
            gpus: seen.map(|(health, seen)| gpu(&snapshot.selection, health, seen)).collect(),
            unidentified: health.unidentified.iter().map(unidentified).collect(),
            sources: health.sources.iter().map(SourceView::from).collect(),
            abandoned_threads: health.abandoned,
        }
    }
}

const STALE: &str = "the newest sample is too old; the sampling thread does not go on";

impl From<&DriverState> for DriverView {
    fn from(state: &DriverState) -> Self {
        match state {
            DriverState::Up(driver) => Self {
                up: true,
                version: Some(driver.version.clone()),
                nvml_version: Some(driver.nvml_version.clone()),
                library: Some(driver.library.clone()),
                ..Self::default()
            },
            DriverState::Down { reason, detail } => Self {
                reason: Some((*reason).to_owned()),
                detail: Some(detail.clone()),
                ..Self::default()
            },
        }
    }
}

fn gpu(selection: &Selection, health: &GpuHealth, seen: &Occupancy) -> GpuView {
    let reading = |row| find(&selection.device, &health.readings, row);
    let limit = |reading: Reading| Number::from(health.state.and(reading));
    let utilization = reading(glance::UTILIZATION);
    let xid = |(code, count): (&u32, &u64)| XidView {
        xid: *code,
        name: xid::name(*code).to_owned(),
        count: *count,
    };
    GpuView {
        index: health.gpu.index,
        uuid: health.gpu.uuid.to_string(),
        model: health.gpu.name.to_string(),
        pci_bus_id: health.gpu.pci_bus_id.to_string(),
        state: health.state.err().map_or("ok".to_owned(), |missing| missing.to_string()),
        throttled_by: throttled_by(&reading(glance::CLOCK_EVENTS)),
        power_watts: reading(glance::POWER),
        power_limit_watts: limit(seen.limits.power),
        temperature_celsius: reading(glance::TEMPERATURE),
        temperature_limit_celsius: limit(seen.limits.temperature),
        xids: health.xids.iter().map(xid).collect(),
        mig: seen.parts.iter().any(|part| part.mig.is_some()),
        division: seen.division.err().map(|missing| missing.to_string()),
        parts: seen.parts.iter().map(|seen| part(selection, &utilization, seen)).collect(),
        utilization_percent: utilization,
    }
}

/// What a row says, if it is chosen.
fn find(chosen: &Chosen<DeviceSource>, readings: &[Reading], row: &str) -> Number {
    let families = chosen.families().iter();
    let mut found = families.zip(readings).filter(|(family, _)| family.metric.name == row);
    found.next().map_or_else(|| Number::absent(NOT_CHOSEN), |(_, reading)| (*reading).into())
}

fn throttled_by(bits: &Number) -> Option<Vec<String>> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mask of bits")]
    let bits = bits.known()? as u64;
    let there = CLOCK_EVENTS.iter().filter(|(_, bit)| bits & bit != 0);
    let reasons = there.map(|(reason, _)| *reason).filter(|reason| !HARMLESS.contains(reason));
    Some(reasons.map(str::to_owned).collect())
}

fn part(selection: &Selection, whole: &Number, part: &Part) -> PartView {
    let residents = part.residents.as_deref();
    let unlisted = if selection.wants_processes() {
        residents.err().map(ToString::to_string)
    } else {
        Some(NOT_CHOSEN.to_owned())
    };
    let residents = residents.unwrap_or_default();
    let others = residents.iter().filter(|resident| resident.whose.container().is_none());
    let active = || find(&selection.instance, &part.readings, glance::INSTANCE_ACTIVE);
    PartView {
        utilization_percent: if part.mig.is_some() {
            active().map(|ratio| ratio * 100.0)
        } else {
            whole.clone()
        },
        mig: part.mig.as_deref().map(MigView::from),
        memory_used_mib: part.framebuffer.map(|memory| mebibytes(memory.used)).into(),
        memory_total_mib: part.framebuffer.map(|memory| mebibytes(memory.total)).into(),
        containers: part.tenants.iter().map(|tenant| container(tenant, residents)).collect(),
        others: others.map(ProcessView::from).collect(),
        unlisted,
    }
}

fn container(tenant: &Tenant, residents: &[Resident]) -> ContainerView {
    let own = |resident: &&Resident| resident.whose.container() == Some(&tenant.container);
    // A share of 0 is no limit.
    let limited = |grant: &Grant| grant.compute != Ok(0.0);
    let pod = &tenant.container.pod;
    ContainerView {
        namespace: pod.namespace.to_string(),
        pod: pod.name.to_string(),
        container: tenant.container.name.to_string(),
        mode: tenant.mode.label().to_owned(),
        memory_granted_mib: tenant.grant.map(|grant| grant.memory.into()),
        compute_granted_ratio: tenant.grant.filter(limited).map(|grant| grant.compute.into()),
        sm_percent: tenant.usage.sm().into(),
        memory_used_mib: memory(&tenant.usage),
        processes: residents.iter().filter(own).map(ProcessView::from).collect(),
    }
}

fn memory(usage: &Usage) -> Number {
    usage.memory.map(mebibytes).into()
}

impl From<&MigDevice> for MigView {
    fn from(mig: &MigDevice) -> Self {
        Self {
            uuid: mig.uuid.to_string(),
            profile: mig.profile.to_string(),
            gpu_instance: mig.gpu_instance,
            compute_instance: mig.compute_instance,
        }
    }
}

impl From<&Resident> for ProcessView {
    fn from(resident: &Resident) -> Self {
        let (whose, reason) = match &resident.whose {
            Whose::Container(_) => ("container", None),
            Whose::Host => ("host", None),
            Whose::Stray => ("stray", None),
            Whose::Unknown(reason) => ("unknown", Some((*reason).to_owned())),
        };
        let process = resident.process.as_ref();
        Self {
            whose: whose.to_owned(),
            reason,
            pid: process.map(|process| process.pid),
            name: process.map_or_else(String::new, |process| process.name.to_string()),
            kind: process.map_or("", |process| process.kind.label()).to_owned(),
            sm_percent: resident.usage.sm().into(),
            memory_used_mib: memory(&resident.usage),
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
            age_seconds: source.age.map(|age| age.as_secs_f64()),
            failures: failures.map(failure).collect(),
        }
    }
}

impl From<Reading> for Number {
    fn from(reading: Reading) -> Self {
        reading.map_or_else(|missing| Self::absent(missing.reason()), Self::Known)
    }
}

impl Number {
    fn absent(reason: &str) -> Self {
        Self::Absent { absent: reason.to_owned() }
    }

    fn map(self, change: impl FnOnce(f64) -> f64) -> Self {
        match self {
            Self::Known(value) => Self::Known(change(value)),
            absent @ Self::Absent { .. } => absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::labels::Dialect;
    use crate::model::{Discards, Gpu, Limits, Missing, Moment};
    use crate::nvml::inventory::Driver;
    use crate::selection::{Frame, preset};
    use crate::snapshot::{Health, Host, Tables};

    /// A GPU of which every reading is `reading`.
    fn snapshot(reading: Reading) -> Snapshot {
        let selection = Selection::of(&preset(&Dialect::Ack), Frame::default());
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
            answered: true,
            sampled_at: at,
            took: None,
            missing: [0; Missing::REASONS.len()],
            discards: Discards::default(),
            xids: BTreeMap::new(),
            readings: vec![reading; selection.device.len()],
        };
        let occupancy = Occupancy {
            limits: Limits { power: Ok(70.0), temperature: Err(Missing::Unsupported) },
            division: Ok(()),
            parts: Vec::new(),
        };
        Snapshot {
            at,
            host: Host::default(),
            selection: Arc::new(selection),
            nodes: Vec::new(),
            tables: Tables::default(),
            occupancy: vec![occupancy],
            health: Health {
                driver: DriverState::Up(Driver::default()),
                gpus: vec![health],
                ..Health::default()
            },
        }
    }

    #[test]
    fn a_reading_is_a_number_or_says_why_it_is_none() {
        let view = |reading| NodeView::of(&snapshot(reading), false).gpus.remove(0);
        let known = view(Ok(0.0));
        assert_eq!(known.utilization_percent, Number::Known(0.0));
        assert_eq!(known.throttled_by, Some(Vec::new()));
        assert_eq!(known.power_limit_watts, Number::Known(70.0));
        assert_eq!(known.temperature_limit_celsius, Number::absent("unsupported"));
        assert_eq!(view(Err(Missing::Hung)).power_watts, Number::absent("hung"));
    }

    #[test]
    fn reasons_for_lower_clocks_are_told_if_they_slow_work_down() {
        // Idle, at its limit of power, and hot.
        let throttled = throttled_by(&Number::Known(f64::from(0x1_u32 | 0x4 | 0x40)));
        assert_eq!(throttled.unwrap(), ["power_cap", "hw_thermal"]);
        assert_eq!(throttled_by(&Number::absent("denied")), None, "unknown is not healthy");
    }

    #[test]
    fn nothing_old_is_told_of_gpus() {
        let snapshot = snapshot(Ok(50.0));
        assert!(NodeView::of(&snapshot, false).ready);
        let old = NodeView::of(&snapshot, true);
        assert!(old.stale && !old.ready && old.gpus.is_empty() && old.trouble.is_some());
    }
}
