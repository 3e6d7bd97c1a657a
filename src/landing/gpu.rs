//! A GPU on the web page, with its containers and processes.

use maud::{Markup, html};

use crate::model::AllocateMode;
use crate::view::{
    Absence, ContainerView, GpuState, GpuView, Number, OwnerKind, PartitionView, ProcessView,
    UnidentifiedView,
};

/// The path of a number in the JSON, by which the script updates it, and the unit.
struct NumberRef {
    path: String,
    unit: Unit,
}

#[derive(Clone, Copy)]
enum Unit {
    Percent,
    Mib,
    Watts,
    Celsius,
}

impl Unit {
    /// The key of the formatter in the script.
    fn key(self) -> &'static str {
        match self {
            Self::Percent => "percent",
            Self::Mib => "mib",
            Self::Watts => "watts",
            Self::Celsius => "celsius",
        }
    }

    fn symbol(self) -> &'static str {
        match self {
            Self::Percent => "%",
            Self::Mib => "MiB",
            Self::Watts => "W",
            Self::Celsius => "°C",
        }
    }
}

/// Renders the GPU at index `position` of `gpus` in the JSON.
pub(super) fn card(position: usize, gpu: &GpuView) -> Markup {
    let path = format!("gpus.{position}");
    let heading = format!("gpu-{}", gpu.index);
    html! {
        article.gpu aria-labelledby=(heading) {
            header {
                h3 id=(heading) { "GPU " (gpu.index) " " span.muted { (gpu.model) } }
                (state(gpu))
            }
            p.muted { code { (gpu.uuid) } " " code { (gpu.pci_bus_id) } }
            @for (n, xid) in gpu.xids.iter().enumerate() {
                p {
                    span.state.warn { "XID " (xid.xid) } " " (xid.name) ", "
                    span data-at={ (path) ".xids." (n) ".count" } data-as="count" { (xid.count) }
                    " × since start"
                }
            }
            @if let Some(reason) = &gpu.mig_error {
                p { span.state.bad { "Not all MIG devices can be read: " } (reason) }
            }
            div.gauges {
                @if !gpu.mig {
                    (gauge("SM", &gpu.utilization_percent, &Number::Known(100.0), &number_ref(&path, "utilization_percent", Unit::Percent)))
                    @if let Some(part) = gpu.parts.first() { (memory(part, &format!("{path}.parts.0"))) }
                }
                (gauge("Power", &gpu.power_watts, &gpu.power_limit_watts, &number_ref(&path, "power_watts", Unit::Watts)))
                (gauge("Temperature", &gpu.temperature_celsius, &gpu.temperature_limit_celsius, &number_ref(&path, "temperature_celsius", Unit::Celsius)))
            }
            @for (n, part) in gpu.parts.iter().enumerate() { (partition(&format!("{path}.parts.{n}"), gpu, part)) }
        }
    }
}

pub(super) fn unidentified_card(gpu: &UnidentifiedView) -> Markup {
    let heading = format!("gpu-{}", gpu.index);
    html! {
        article.gpu aria-labelledby=(heading) {
            header {
                h3 id=(heading) { "GPU " (gpu.index) }
                span.state.bad { (gpu.reason) }
            }
            p.muted { "The driver counts this GPU, but it cannot be identified." }
        }
    }
}

fn state(gpu: &GpuView) -> Markup {
    html! {
        span {
            @match (&gpu.state, gpu.throttled_by.as_deref()) {
                (GpuState::Ok, None) => span.state.good { "ok" },
                (GpuState::Ok, Some([])) => span.state.good { "healthy" },
                (GpuState::Ok, Some(reasons)) => span.state.warn { "throttled: " (reasons.join(", ")) },
                (GpuState::Unreadable(reason), _) => span.state.bad { (reason) },
            }
            @if let Some(action) = &gpu.recovery_action { " " span.state.bad { "recovery: " (action) } }
            @if gpu.mig { ", MIG" }
        }
    }
}

fn partition(path: &str, gpu: &GpuView, part: &PartitionView) -> Markup {
    html! {
        @match &part.mig {
            None => (processes(path, &format!("GPU {}", gpu.index), part)),
            Some(mig) => {
                div.partition {
                    h4 { "MIG " (mig.profile) ", GPU instance " (mig.gpu_instance) ", compute instance " (mig.compute_instance) }
                    p.muted { code { (mig.uuid) } }
                    div.gauges {
                        (gauge("SM", &part.utilization_percent, &Number::Known(100.0), &number_ref(path, "utilization_percent", Unit::Percent)))
                        (memory(part, path))
                    }
                    (processes(path, &mig.uuid, part))
                }
            }
        }
    }
}

fn memory(part: &PartitionView, path: &str) -> Markup {
    let used = number_ref(path, "memory_used_mib", Unit::Mib);
    gauge("Memory", &part.memory_used_mib, &part.memory_total_mib, &used)
}

/// A number as text, and as a meter if its limit is known.
fn gauge(name: &str, number: &Number, limit: &Number, reference: &NumberRef) -> Markup {
    html! {
        div.gauge {
            span { (name) }
            span.n {
                (value(number, reference))
                @if let (Some(_), Some(limit), false) = (number.known(), limit.known(), matches!(reference.unit, Unit::Percent)) {
                    span.muted { " of " (format!("{limit:.0}")) }
                }
            }
            @if let (Some(value), Some(limit)) = (number.known(), limit.known()) {
                meter min="0" max=(limit) value=(value) data-at=(reference.path) aria-label=(name) {}
            }
        }
    }
}

fn value(number: &Number, reference: &NumberRef) -> Markup {
    html! {
        @match number {
            Number::Known(value) => {
                span data-at=(reference.path) data-as=(reference.unit.key()) {
                    (format!("{value:.0} {}", reference.unit.symbol()))
                }
            }
            Number::Absent { absent } => span.muted { (absence(absent)) },
        }
    }
}

fn absence(absence: &Absence) -> String {
    match absence {
        Absence::NotCollected => "not collected".to_owned(),
        Absence::Unread(reason) => format!("absent: {reason}"),
    }
}

fn number_ref(path: &str, field: &str, unit: Unit) -> NumberRef {
    NumberRef { path: format!("{path}.{field}"), unit }
}

/// The containers and processes of a device.
fn processes(path: &str, name: &str, part: &PartitionView) -> Markup {
    if let Some(reason) = &part.process_list_error {
        return html! {
            p.muted { "Processes " (absence(reason)) }
            @if !part.containers.is_empty() { (table(path, name, part)) }
        };
    }
    html! {
        @if part.containers.is_empty() && part.other_processes.is_empty() { p.muted { "No processes." } }
        @else { (table(path, name, part)) }
    }
}

fn table(path: &str, name: &str, part: &PartitionView) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label={ "Processes of " (name) } {
            table {
                thead { tr {
                    th scope="col" { "pod, container, process" } th scope="col" { "allocated" }
                    th.n scope="col" { "SM" } th.n scope="col" { "memory" }
                } }
                tbody {
                    @for (n, container) in part.containers.iter().enumerate() {
                        (container_rows(&format!("{path}.containers.{n}"), container))
                    }
                    @for (n, process) in part.other_processes.iter().enumerate() {
                        (process_row(&format!("{path}.other_processes.{n}"), process, ""))
                    }
                }
            }
        }
    }
}

fn container_rows(path: &str, container: &ContainerView) -> Markup {
    html! {
        tr {
            th scope="row" {
                bdi { (container.namespace) } "/" strong { bdi { (container.pod) } } " "
                bdi { (container.container) }
            }
            td { (allocation(container)) }
            td.n { (value(&container.sm_percent, &number_ref(path, "sm_percent", Unit::Percent))) }
            td.n { (value(&container.memory_used_mib, &number_ref(path, "memory_used_mib", Unit::Mib))) }
        }
        @for (n, process) in container.processes.iter().enumerate() {
            (process_row(&format!("{path}.processes.{n}"), process, "nested"))
        }
    }
}

fn allocation(container: &ContainerView) -> Markup {
    let compute = |number: &Number| match number {
        Number::Known(ratio) => format!("{:.0} % of the SMs", ratio * 100.0),
        Number::Absent { absent } => format!("compute absent: {absent}"),
    };
    let memory = |number: &Number| match number {
        Number::Known(mib) => format!("{mib:.0} MiB"),
        Number::Absent { absent } => format!("memory absent: {absent}"),
    };
    html! {
        @if container.mode == Some(AllocateMode::None) {
            span.state.warn { "not allocated" }
        } @else {
            (container.mode.map_or("allocation unknown", AllocateMode::label))
            @if let Some(mib) = &container.memory_granted_mib { ", " (memory(mib)) }
            @if let Some(ratio) = &container.compute_granted_ratio { ", " (compute(ratio)) }
        }
    }
}

fn process_row(path: &str, process: &ProcessView, class: &str) -> Markup {
    html! {
        tr class=(class) {
            th scope="row" {
                @match process.pid {
                    Some(pid) => { bdi { (process.name) } " " span.muted { (pid) " " (process.kind) } }
                    None => "stale entry",
                }
            }
            td { @if class.is_empty() { (owner(process)) } }
            td.n { (value(&process.sm_percent, &number_ref(path, "sm_percent", Unit::Percent))) }
            td.n { (value(&process.memory_used_mib, &number_ref(path, "memory_used_mib", Unit::Mib))) }
        }
    }
}

fn owner(process: &ProcessView) -> Markup {
    html! {
        @match (process.owner, &process.reason) {
            (OwnerKind::Host, _) => "host process",
            (OwnerKind::ContainerWithoutPod, _) => "container without a pod",
            (OwnerKind::Container | OwnerKind::Unknown, Some(reason)) => { span.state.warn { "unknown: " (reason) } }
            (OwnerKind::Container | OwnerKind::Unknown, None) => "unknown",
        }
    }
}
