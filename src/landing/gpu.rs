//! A GPU on the page, and who is on it.

use maud::{Markup, html};

use crate::view::{ContainerView, GpuView, Number, PartView, ProcessView, UnidentifiedView};

/// Where a number stands in the JSON, and its unit as the script knows it.
struct Place {
    at: String,
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
    fn key(self) -> &'static str {
        match self {
            Self::Percent => "percent",
            Self::Mib => "mib",
            Self::Watts => "watts",
            Self::Celsius => "celsius",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Percent => "%",
            Self::Mib => "MiB",
            Self::Watts => "W",
            Self::Celsius => "°C",
        }
    }
}

/// A GPU, at this position among those of the node.
pub(super) fn card(position: usize, gpu: &GpuView) -> Markup {
    let at = format!("gpus.{position}");
    let heading = format!("gpu-{}", gpu.index);
    html! {
        article.gpu aria-labelledby=(heading) {
            header {
                h3 id=(heading) { "GPU " (gpu.index) " " span.quiet { (gpu.model) } }
                (state(gpu))
            }
            p.quiet { code { (gpu.uuid) } " " code { (gpu.pci_bus_id) } }
            @for (n, xid) in gpu.xids.iter().enumerate() {
                p {
                    span.state.warn { "XID " (xid.xid) } " " (xid.name) ", "
                    span data-at={ (at) ".xids." (n) ".count" } data-as="count" { (xid.count) }
                    " × since start"
                }
            }
            @if let Some(reason) = &gpu.division {
                p { span.state.bad { "Not all MIG devices can be read: " } (reason) }
            }
            div.gauges {
                @if !gpu.mig {
                    (gauge("SM", &gpu.utilization_percent, &Number::Known(100.0), &place(&at, "utilization_percent", Unit::Percent)))
                    @if let Some(part) = gpu.parts.first() { (memory(part, &format!("{at}.parts.0"))) }
                }
                (gauge("Power", &gpu.power_watts, &gpu.power_limit_watts, &place(&at, "power_watts", Unit::Watts)))
                (gauge("Temperature", &gpu.temperature_celsius, &gpu.temperature_limit_celsius, &place(&at, "temperature_celsius", Unit::Celsius)))
            }
            @for (n, part) in gpu.parts.iter().enumerate() { (of_part(&format!("{at}.parts.{n}"), gpu, part)) }
        }
    }
}

/// A GPU of which no more is known than that it is there.
pub(super) fn nameless(gpu: &UnidentifiedView) -> Markup {
    let heading = format!("gpu-{}", gpu.index);
    html! {
        article.gpu aria-labelledby=(heading) {
            header {
                h3 id=(heading) { "GPU " (gpu.index) }
                span.state.bad { (gpu.reason) }
            }
            p.quiet { "The driver counts it, and does not say which one it is." }
        }
    }
}

fn state(gpu: &GpuView) -> Markup {
    html! {
        span {
            @match (&*gpu.state, gpu.throttled_by.as_deref()) {
                ("ok", None) => span.state.good { "ok" },
                ("ok", Some([])) => span.state.good { "healthy" },
                ("ok", Some(reasons)) => span.state.warn { "throttled: " (reasons.join(", ")) },
                (state, _) => span.state.bad { (state) },
            }
            @if gpu.mig { ", MIG" }
        }
    }
}

fn of_part(at: &str, gpu: &GpuView, part: &PartView) -> Markup {
    html! {
        @match &part.mig {
            None => (people(at, &format!("GPU {}", gpu.index), part)),
            Some(mig) => {
                div.part {
                    h4 { "MIG " (mig.profile) ", GPU instance " (mig.gpu_instance) ", compute instance " (mig.compute_instance) }
                    p.quiet { code { (mig.uuid) } }
                    div.gauges {
                        (gauge("SM", &part.utilization_percent, &Number::Known(100.0), &place(at, "utilization_percent", Unit::Percent)))
                        (memory(part, at))
                    }
                    (people(at, &mig.uuid, part))
                }
            }
        }
    }
}

fn memory(part: &PartView, at: &str) -> Markup {
    let place = place(at, "memory_used_mib", Unit::Mib);
    gauge("Memory", &part.memory_used_mib, &part.memory_total_mib, &place)
}

/// A number as text, and as a bar where it is known what it is measured by.
fn gauge(name: &str, number: &Number, limit: &Number, place: &Place) -> Markup {
    html! {
        div.gauge {
            span { (name) }
            span.n {
                (value(number, place))
                @if let (Some(_), Some(limit), false) = (number.known(), limit.known(), matches!(place.unit, Unit::Percent)) {
                    span.quiet { " of " (format!("{limit:.0}")) }
                }
            }
            @if let (Some(value), Some(limit)) = (number.known(), limit.known()) {
                meter min="0" max=(limit) value=(value) data-at=(place.at) aria-label=(name) {}
            }
        }
    }
}

fn value(number: &Number, place: &Place) -> Markup {
    html! {
        @match number {
            Number::Known(value) => {
                span data-at=(place.at) data-as=(place.unit.key()) {
                    (format!("{value:.0} {}", place.unit.sign()))
                }
            }
            Number::Absent { absent } => span.quiet { "absent: " (absent) },
        }
    }
}

fn place(at: &str, field: &str, unit: Unit) -> Place {
    Place { at: format!("{at}.{field}"), unit }
}

/// Who is on a part.
fn people(at: &str, name: &str, part: &PartView) -> Markup {
    if let Some(reason) = &part.unlisted {
        return html! {
            p.quiet { "Who is on it is not known: " (reason) }
            @if !part.containers.is_empty() { (table(at, name, part)) }
        };
    }
    html! {
        @if part.containers.is_empty() && part.others.is_empty() { p.quiet { "Nobody is on it." } }
        @else { (table(at, name, part)) }
    }
}

fn table(at: &str, name: &str, part: &PartView) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label={ "Who is on " (name) } {
            table {
                thead { tr {
                    th scope="col" { "pod, container, process" } th scope="col" { "given" }
                    th.n scope="col" { "SM" } th.n scope="col" { "memory" }
                } }
                tbody {
                    @for (n, container) in part.containers.iter().enumerate() {
                        (of_container(&format!("{at}.containers.{n}"), container))
                    }
                    @for (n, process) in part.others.iter().enumerate() {
                        (of_process(&format!("{at}.others.{n}"), process, ""))
                    }
                }
            }
        }
    }
}

fn of_container(at: &str, container: &ContainerView) -> Markup {
    html! {
        tr {
            th scope="row" { (container.namespace) "/" strong { (container.pod) } " " (container.container) }
            td { (given(container)) }
            td.n { (value(&container.sm_percent, &place(at, "sm_percent", Unit::Percent))) }
            td.n { (value(&container.memory_used_mib, &place(at, "memory_used_mib", Unit::Mib))) }
        }
        @for (n, process) in container.processes.iter().enumerate() {
            (of_process(&format!("{at}.processes.{n}"), process, "of"))
        }
    }
}

fn given(container: &ContainerView) -> Markup {
    let share = |number: &Number| match number {
        Number::Known(ratio) => format!("{:.0} % of the SMs", ratio * 100.0),
        Number::Absent { absent } => format!("share absent: {absent}"),
    };
    let memory = |number: &Number| match number {
        Number::Known(mib) => format!("{mib:.0} MiB"),
        Number::Absent { absent } => format!("memory absent: {absent}"),
    };
    html! {
        @if container.mode == "none" { span.state.warn { "nothing" } }
        @else {
            (container.mode)
            @if let Some(mib) = &container.memory_granted_mib { ", " (memory(mib)) }
            @if let Some(ratio) = &container.compute_granted_ratio { ", " (share(ratio)) }
        }
    }
}

fn of_process(at: &str, process: &ProcessView, class: &str) -> Markup {
    html! {
        tr class=(class) {
            th scope="row" {
                @match process.pid {
                    Some(pid) => { (process.name) " " span.quiet { (pid) " " (process.kind) } }
                    None => "no process any more",
                }
            }
            td { @if class.is_empty() { (whose(process)) } }
            td.n { (value(&process.sm_percent, &place(at, "sm_percent", Unit::Percent))) }
            td.n { (value(&process.memory_used_mib, &place(at, "memory_used_mib", Unit::Mib))) }
        }
    }
}

fn whose(process: &ProcessView) -> Markup {
    html! {
        @match (&*process.whose, &process.reason) {
            ("host", _) => "of the host",
            ("stray", _) => "of a container without a pod",
            (_, Some(reason)) => { span.state.warn { "unknown: " (reason) } }
            (_, None) => "unknown",
        }
    }
}
