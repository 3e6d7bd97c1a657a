//! The data sources on the web page.

use maud::{Markup, html};

use crate::view::{NodeView, SourceView};

/// The driver and the sources of the cluster: open if one of them is down.
pub(super) fn section(node: &NodeView) -> Markup {
    let down = node.sources.iter().filter(|source| !source.up).count();
    let lacks_driver = !node.driver.up && node.no_gpu_reason.is_none();
    let is_open = down > 0 || lacks_driver || node.abandoned_threads > 0;
    html! {
        section aria-labelledby="sources" {
            details #source-list open[is_open] {
                summary { h2 #sources { "Data sources" } " "
                    @if is_open { span.state.bad { "not all are up" } } @else { span.muted { "all are up" } }
                }
                (table(node))
            }
        }
    }
}

fn table(node: &NodeView) -> Markup {
    let driver = &node.driver;
    html! {
        div.wide tabindex="0" role="region" aria-label="Table of data sources" {
            table {
                thead { tr {
                    th scope="col" { "source" } th scope="col" { "state" }
                    th.n scope="col" { "last update" } th scope="col" { "details" }
                } }
                tbody {
                    tr {
                        th scope="row" { "driver" }
                        td { @if node.no_gpu_reason.is_some() { span.muted { "not needed" } } @else { (state(driver.up)) } }
                        td.n {}
                        td {
                            @if let Some(version) = &driver.version { (version) }
                            @if let Some(version) = &driver.nvml_version { ", NVML " (version) }
                            @if let Some(library) = &driver.library { ", " code { (library) } }
                            @if let Some(reason) = &driver.reason { (reason) }
                        }
                    }
                    @for source in &node.sources { (row(source, node.pod_source.as_deref())) }
                    @if node.abandoned_threads > 0 {
                        tr {
                            th scope="row" { "abandoned threads" }
                            td { span.state.warn { "blocked" } }
                            td.n {}
                            td { (node.abandoned_threads) " blocked in a driver call" }
                        }
                    }
                }
            }
        }
    }
}

fn row(source: &SourceView, pod_source: Option<&str>) -> Markup {
    let of_pods = pod_source == Some(&*source.name);
    html! {
        tr {
            th scope="row" { (source.name) }
            td { (state(source.up)) }
            td.n { @if let Some(age) = source.age_seconds { (format!("{age:.0} s ago")) } }
            td {
                @if let Some(problem) = &source.problem { (problem) br; }
                @if of_pods { "source of the pods" }
                @for (n, failure) in source.failures.iter().enumerate() {
                    @if n > 0 || of_pods { ", " }
                    (failure.count) " × " (failure.reason)
                }
            }
        }
    }
}

fn state(up: bool) -> Markup {
    html! { @if up { span.state.good { "up" } } @else { span.state.bad { "down" } } }
}
