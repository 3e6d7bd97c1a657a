//! A GPU without MIG, or a MIG device, on the web page: its containers and processes.

use maud::{Markup, html};

use super::{meter, number};
use crate::view::text::count;
use crate::view::{
    Allocation, ContainerView, GpuView, Number, OwnerKind, PartitionView, ProcessView,
};

/// Processes of one container, or of one device without a container, that are listed; the others are counted.
/// `/api/v1/node` has all.
const PROCESSES_MAX: usize = 10;

/// The containers and processes of a GPU, or a line for its MIG device number `n`, which opens.
pub(super) fn section(gpu: &GpuView, n: usize, part: &PartitionView) -> Markup {
    let Some(mig) = &part.mig else {
        return users(&format!("GPU {}", gpu.index), part);
    };
    html! {
        details.partition id={ "gpu-" (gpu.index) "-" (n) } {
            summary.line.mig {
                strong { "MIG " (mig.profile) }
                span.muted { "GI " (mig.gpu_instance) " CI " (mig.compute_instance) }
                span.use { span.sr { "SM " } (use_of("SM", &part.utilization_percent, &Number::Known(100.0), |n| n.with_unit("%"))) }
                span.use { span.sr { "memory " } (use_of("memory", &part.memory_used_mib, &part.memory_total_mib, Number::gib)) }
                span { (names(part)) }
            }
            div.body {
                p.muted { code { (mig.uuid) } ", " (part.memory_total_mib.gib()) }
                (users(&mig.uuid, part))
            }
        }
    }
}

fn use_of(name: &str, used: &Number, whole: &Number, text: fn(&Number) -> String) -> Markup {
    html! {
        span.n { (number(used, &text(used))) }
        @if let Some(percent) = used.percent_of(whole) { (meter(name, percent)) }
    }
}

/// The pods of a MIG device, and the number of its processes.
fn names(part: &PartitionView) -> Markup {
    let processes = part.other_processes.len()
        + part.containers.iter().map(|container| container.processes.len()).sum::<usize>();
    html! {
        @for (n, container) in part.containers.iter().take(2).enumerate() {
            @if n > 0 { ", " }
            bdi { (container.namespace) } "/" bdi { (container.pod) }
        }
        @if part.containers.len() > 2 { " and " (part.containers.len() - 2) " more" }
        @if !part.containers.is_empty() { ", " }
        @if part.process_list_error.is_none() { (count(processes, "process")) }
    }
}

/// The containers and processes of a device.
fn users(name: &str, part: &PartitionView) -> Markup {
    let error = part.process_list_error.as_ref().map(|absence| {
        let absent = Number::Absent { absent: absence.clone() };
        html! { p.muted { "Processes: " (absent.with_unit("")) } }
    });
    let is_empty = part.containers.is_empty() && part.other_processes.is_empty();
    html! {
        @if let Some(error) = &error { (error) }
        @if !is_empty { (table(name, part)) } @else if error.is_none() { p.muted { "No processes." } }
    }
}

fn table(name: &str, part: &PartitionView) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label={ "Processes of " (name) } {
            table.users {
                thead { tr {
                    th scope="col" { "pod, container, process" } th scope="col" { "allocated" }
                    th.n scope="col" { "SM" } th.n scope="col" { "memory" }
                } }
                tbody {
                    @for container in &part.containers { (container_rows(container)) }
                    (process_rows(&part.other_processes, ""))
                }
            }
        }
    }
}

fn container_rows(container: &ContainerView) -> Markup {
    html! {
        tr {
            th scope="row" {
                bdi { (container.namespace) } "/" strong { bdi { (container.pod) } } " "
                bdi { (container.container) }
            }
            td { (allocation(container)) }
            td.n { (number(&container.sm_percent, &container.sm_percent.with_unit("%"))) }
            td.n { (number(&container.memory_used_mib, &container.memory_used_mib.gib())) }
        }
        (process_rows(&container.processes, "nested"))
    }
}

fn allocation(container: &ContainerView) -> Markup {
    let compute = |number: &Number| match number {
        Number::Known(ratio) => format!("{:.0} % of the SMs", ratio * 100.0),
        Number::Absent { absent } => format!("compute – {absent}"),
    };
    let memory = |number: &Number| match number {
        Number::Known(_) => number.gib(),
        Number::Absent { absent } => format!("memory – {absent}"),
    };
    let label = Allocation::of(container).label();
    html! {
        @match Allocation::of(container) {
            Allocation::None => span.state.warn { (label) },
            Allocation::Unknown => { "allocation unknown" },
            Allocation::Exclusive | Allocation::Share => (label),
        }
        @if container.mode.is_some() {
            @if let Some(mib) = &container.memory_granted_mib { ", " (memory(mib)) }
            @if let Some(ratio) = &container.compute_granted_ratio { ", " (compute(ratio)) }
        }
    }
}

fn process_rows(processes: &[ProcessView], class: &str) -> Markup {
    let more = processes.len().saturating_sub(PROCESSES_MAX);
    html! {
        @for process in processes.iter().take(PROCESSES_MAX) { (process_row(process, class)) }
        @if more > 0 {
            tr class=(class) { th.muted colspan="4" scope="row" { "and " (count(more, "process")) " more: see " a href="/api/v1/node" { "JSON" } } }
        }
    }
}

fn process_row(process: &ProcessView, class: &str) -> Markup {
    html! {
        tr class=(class) {
            th scope="row" {
                @match process.pid {
                    Some(pid) => { bdi { (process.name) } " " span.muted { (pid) " " (process.kind) } }
                    None => "stale entry",
                }
            }
            td { @if class.is_empty() { (owner(process)) } }
            td.n { (number(&process.sm_percent, &process.sm_percent.with_unit("%"))) }
            td.n { (number(&process.memory_used_mib, &process.memory_used_mib.gib())) }
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
