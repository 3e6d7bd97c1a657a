//! A GPU on the web page: one line, which opens.

use std::collections::VecDeque;

use maud::{Markup, html};

use super::curve::curve;
use super::partition;
use super::{class, number};
use crate::view::recent_use::UsePoint;
use crate::view::text::count;
use crate::view::{GpuView, HealthStatus, Number, ProblemView, UnidentifiedView};

/// The heads of the columns. The cells have texts of their own for screen readers.
pub(super) fn column_heads() -> Markup {
    html! {
        div.line.heads aria-hidden="true" {
            span { "GPU" } span { "status" } span.model { "model" }
            span { "SM" } span { "memory" } span.n { "power" } span.n { "temp." } span.n { "use" }
        }
    }
}

/// The line of a GPU.
pub(super) fn line(gpu: &GpuView, points: Option<&VecDeque<UsePoint>>) -> Markup {
    let (used, total) = gpu.memory();
    html! {
        details.gpu id={ "gpu-" (gpu.index) } data-gpu=(gpu.index) data-status=(gpu.status.label()) {
            summary.line {
                strong { "GPU " (gpu.index) }
                (status(gpu.status))
                span.model { (short_model(&gpu.model)) @if gpu.mig { ", MIG" } }
                span.use {
                    span.sr { "SM " } span.n { (sm(gpu)) }
                    (curve("SM", points, |point| point.sm))
                }
                span.use {
                    span.sr { "memory " }
                    span.n { (number(&used, &used.gib())) }
                    span.of { @if let Some(mib) = total.known() { " of " (format!("{:.0}", mib / 1024.0)) } }
                    (curve("memory", points, |point| point.memory))
                }
                span.n { (power(gpu)) }
                span.n { span.sr { "temperature " } (number(&gpu.temperature_celsius, &gpu.temperature_celsius.with_unit("°C"))) }
                span.n.users { (users(gpu)) }
                @if let Some(worst) = gpu.problems.first().filter(|problem| !problem.temporary) {
                    span.problem {
                        span class=(class(worst.status)) { (worst.message) }
                        @if gpu.problems.len() > 1 { " and " (count(gpu.problems.len() - 1, "other problem")) }
                        @if let Some(remedy) = &worst.remedy { ". Remedy: " (remedy) }
                    }
                }
            }
            (body(gpu))
        }
    }
}

/// The line of a GPU that cannot be identified.
pub(super) fn unidentified_line(gpu: &UnidentifiedView) -> Markup {
    html! {
        details.gpu id={ "gpu-" (gpu.index) } data-gpu=(gpu.index) data-status=(gpu.status.label()) {
            summary.line {
                strong { "GPU " (gpu.index) }
                (status(gpu.status))
                span.model.muted { "not identified" }
                @for problem in &gpu.problems {
                    span.problem {
                        span class=(class(problem.status)) { (problem.message) }
                        @if let Some(remedy) = &problem.remedy { ". Remedy: " (remedy) }
                    }
                }
            }
            div.body {
                (problems(&gpu.problems))
                p.muted { "The driver counts this GPU, but it cannot be identified." }
            }
        }
    }
}

fn body(gpu: &GpuView) -> Markup {
    html! {
        div.body {
            (problems(&gpu.problems))
            p.muted {
                (gpu.model) ", " code { (gpu.uuid) } ", PCI " code { (gpu.pci_bus_id) }
                @if gpu.temperature_limit_celsius.known().is_some() {
                    ", clocks are reduced at " (gpu.temperature_limit_celsius.with_unit("°C"))
                }
                @if let Some(reasons) = gpu.throttled_by.as_deref().filter(|reasons| !reasons.is_empty()) {
                    ", clocks are limited now by " (reasons.join(", "))
                }
            }
            @for xid in &gpu.xids {
                p { "XID " (xid.xid) " " (xid.name) ", " (xid.count) " × since start" }
            }
            @if let Some(reason) = &gpu.mig_error {
                p { span.state.bad { "Not all MIG devices can be read: " } (reason) }
            }
            @for (n, part) in gpu.parts.iter().enumerate() { (partition::section(gpu, n, part)) }
        }
    }
}

fn problems(problems: &[ProblemView]) -> Markup {
    html! {
        @for problem in problems {
            p {
                (status(problem.status)) ": " (problem.message)
                @if let Some(code) = &problem.code { " " code { (code) } }
                @if let Some(remedy) = &problem.remedy { br; "Remedy: " (remedy) }
            }
        }
    }
}

fn status(status: HealthStatus) -> Markup {
    html! { span class={ "state " (class(status)) } { (status.label()) } }
}

/// GPU utilization; with MIG, NVML has only that of the MIG devices.
fn sm(gpu: &GpuView) -> Markup {
    html! {
        @if gpu.mig && gpu.utilization_percent.known().is_none() {
            span.muted { (gpu.parts.len()) " MIG" }
        } @else {
            (number(&gpu.utilization_percent, &gpu.utilization_percent.with_unit("%")))
        }
    }
}

fn power(gpu: &GpuView) -> Markup {
    html! {
        span.sr { "power " } (number(&gpu.power_watts, &gpu.power_watts.with_unit("W")))
        @if let (Some(_), Some(limit)) = (gpu.power_watts.known(), gpu.power_limit_watts.known()) {
            span.of { " of " (format!("{limit:.0}")) }
        }
    }
}

/// `2 pods, 5 processes`.
fn users(gpu: &GpuView) -> Markup {
    if let Some(absence) = gpu.parts.iter().find_map(|part| part.process_list_error.as_ref()) {
        let absent = Number::Absent { absent: absence.clone() };
        return number(&absent, &absent.with_unit(""));
    }
    let containers = || gpu.parts.iter().flat_map(|part| &part.containers);
    let mut pods: Vec<(&str, &str)> =
        containers().map(|c| (c.namespace.as_str(), c.pod.as_str())).collect();
    pods.sort_unstable();
    pods.dedup();
    let processes = containers().map(|container| container.processes.len()).sum::<usize>()
        + gpu.parts.iter().map(|part| part.other_processes.len()).sum::<usize>();
    html! {
        @if !pods.is_empty() { (count(pods.len(), "pod")) ", " }
        (count(processes, "process"))
    }
}

/// The model without what all models have in common.
fn short_model(model: &str) -> &str {
    model.trim_start_matches("NVIDIA ")
}
