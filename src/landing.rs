//! The web page at `/`: rendered here, and kept up to date by a script.

mod curve;
mod gpu;
mod partition;
mod pods;
mod sources;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use ring::digest::{SHA256, digest};

use crate::view::recent_use::RecentUse;
use crate::view::{HealthStatus, NodeView, Number};

const STYLE: &str = include_str!("landing/style.css");
const SCRIPT: &str = include_str!("landing/script.js");

/// The `Content-Security-Policy` of the web page: only its own inline style and script are allowed, and only
/// requests to the exporter.
pub static CONTENT_SECURITY_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    // The policy is visible ASCII, so the conversion does not fail.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// Renders the web page of a node.
#[must_use]
pub fn page(node: &NodeView, recent_use: &RecentUse) -> String {
    let title = if node.name().is_empty() { "nvml-exporter" } else { node.name() };
    document(title, &body(node, recent_use))
}

/// Renders the web page before the first sample.
#[must_use]
pub fn page_without_sample() -> String {
    let wait = html! {
        main data-timestamp="" data-interval="1" { p { "No sample yet: waiting for the driver." } }
    };
    document("nvml-exporter", &wait)
}

fn document(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                link rel="icon" href="data:,";
                title { (title) " - nvml-exporter" }
                style { (PreEscaped(STYLE)) }
                noscript { meta http-equiv="refresh" content="10"; }
            }
            body {
                header {
                    h1 { (title) }
                    span.muted { "nvml-exporter " (env!("CARGO_PKG_VERSION")) }
                    span #live.muted {}
                    nav aria-label="Other endpoints" {
                        a href="/metrics" { "metrics" } " "
                        a href="/readyz" { "readiness" } " "
                        a href="/api/v1/node" { "JSON" }
                    }
                }
                p #stale role="alert" hidden {}
                (body)
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

fn body(node: &NodeView, recent_use: &RecentUse) -> Markup {
    html! {
        main data-timestamp=(node.timestamp_seconds) data-interval=(node.interval_seconds) {
            (state(node))
            (summary(node))
            section aria-labelledby="gpus" {
                h2 #gpus { "GPUs" }
                @if node.gpus.is_empty() && node.unidentified.is_empty() {
                    p.muted { (no_gpus(node)) }
                } @else {
                    (gpu::column_heads())
                    @for gpu in gpus(node, recent_use).values() { (gpu) }
                }
            }
            (pods::section(&node.pods()))
            (sources::section(node))
        }
    }
}

/// Why there are no lines.
fn no_gpus(node: &NodeView) -> &'static str {
    match &node.no_gpu_reason {
        _ if node.stale => "No current data.",
        Some(_) => "No GPU.",
        None if node.driver.up => "The driver reports no GPU.",
        None => "No current data.",
    }
}

/// A line for each GPU: worst first, then by index.
fn gpus(node: &NodeView, recent_use: &RecentUse) -> BTreeMap<(Reverse<HealthStatus>, u32), Markup> {
    let identified = node.gpus.iter().map(|gpu| {
        let points = recent_use.get(gpu.uuid.as_str());
        ((Reverse(gpu.status), gpu.index), gpu::line(gpu, points))
    });
    let unidentified = node.unidentified.iter();
    let unidentified =
        unidentified.map(|gpu| ((Reverse(gpu.status), gpu.index), gpu::unidentified_line(gpu)));
    identified.chain(unidentified).collect()
}

fn state(node: &NodeView) -> Markup {
    let (readable, all) = node.readable_gpus();
    html! {
        @match &node.not_ready_reason {
            None if readable == all => {
                @if let Some(reason) = &node.no_gpu_reason { p { span.state.good { "Ready: " } (reason) } }
            },
            None => p role="alert" {
                span.state.warn { "Ready, but only " (readable) " of " (all) " GPUs can be read." }
            },
            Some(reason) => p role="alert" {
                span.state.bad { "Not ready: " }
                @for (n, line) in reason.lines().enumerate() { @if n > 0 { br; } (line) }
            },
        }
        @for warning in &node.warnings { p { span.state.warn { "Warning: " } (warning) } }
    }
}

/// The node in one line.
fn summary(node: &NodeView) -> Markup {
    let totals = &node.totals;
    let (_, all) = node.readable_gpus();
    let total = |name,
                 (used, whole, gpus): (&Number, &Number, usize),
                 text: fn(&Number) -> String| {
        html! {
            div {
                dt { (name) }
                dd {
                    strong { (text(used)) }
                    @if whole.known().is_some() { " of " (text(whole)) }
                    @if gpus > 0 && gpus < all { span.muted { " (" (gpus) " of " (all) " GPUs)" } }
                    @if let Some(percent) = used.percent_of(whole) { (meter(name, percent)) }
                }
            }
        }
    };
    html! {
        dl.summary {
            div {
                dt { "GPUs" }
                dd {
                    @for (n, count) in totals.gpus_by_status.iter().enumerate() {
                        @if n > 0 { ", " }
                        span class={ "state " (class(count.status)) } {
                            (count.gpu_count) " " (count.status.label())
                        }
                    }
                    @if totals.gpus_by_status.is_empty() { "none" }
                }
            }
            @if all > 0 {
            (total("Memory", (&totals.memory_used_mib, &totals.memory_total_mib, totals.memory_gpu_count), Number::gib))
            (total("Power", (&totals.power_watts, &totals.power_limit_watts, totals.power_gpu_count), |n| n.with_unit("W")))
            }
            @if let Some(version) = &node.driver.version { div { dt { "Driver" } dd { (version) } } }
            @if let Some(version) = &node.driver.cuda_version { div { dt { "CUDA" } dd { (version) } } }
        }
    }
}

/// A bar; its text is beside it.
fn meter(name: &str, percent: f64) -> Markup {
    html! { meter min="0" max="100" value=(format!("{percent:.0}")) aria-label=(name) {} }
}

/// A number as text, muted if it is absent.
fn number(number: &Number, text: &str) -> Markup {
    html! { @if number.known().is_some() { (text) } @else { span.muted { (text) } } }
}

/// The colour of a status.
fn class(status: HealthStatus) -> &'static str {
    match status {
        HealthStatus::Ok => "good",
        HealthStatus::Warning | HealthStatus::Unknown => "warn",
        HealthStatus::Failed | HealthStatus::Hung | HealthStatus::Lost => "bad",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AllocateMode;
    use crate::view::{
        Absence, ContainerView, DriverView, GpuView, NodeTotals, OwnerKind, PartitionView,
        ProblemView, ProcessView, SourceView, UnidentifiedView, VERSION,
    };

    const HOSTILE: &str = "\"'><script>alert(1)</script>&amp;";

    fn hostile() -> String {
        HOSTILE.to_owned()
    }

    fn absent() -> Number {
        Number::Absent { absent: Absence::Unread(hostile()) }
    }

    fn problem() -> ProblemView {
        ProblemView {
            status: HealthStatus::Failed,
            watch: Some(hostile()),
            code: Some(hostile()),
            message: hostile(),
            remedy: Some(hostile()),
            temporary: false,
        }
    }

    /// A node with malicious values in all texts.
    fn node() -> NodeView {
        let process = ProcessView {
            owner: OwnerKind::Unknown,
            reason: Some(hostile()),
            pid: Some(7),
            name: hostile(),
            kind: hostile(),
            sm_percent: Number::Known(0.0),
            memory_used_mib: absent(),
        };
        let container = ContainerView {
            namespace: hostile(),
            pod: hostile(),
            container: hostile(),
            mode: Some(AllocateMode::Share),
            memory_granted_mib: Some(absent()),
            compute_granted_ratio: Some(absent()),
            sm_percent: absent(),
            memory_used_mib: Number::Known(1.0),
            processes: vec![process.clone()],
        };
        let part = PartitionView {
            mig: None,
            utilization_percent: absent(),
            memory_used_mib: absent(),
            memory_total_mib: absent(),
            containers: vec![container],
            other_processes: vec![process],
            process_list_error: None,
        };
        let gpu = GpuView {
            index: 1,
            uuid: hostile(),
            model: hostile(),
            pci_bus_id: hostile(),
            readable: true,
            status: HealthStatus::Ok,
            problems: vec![problem()],
            throttled_by: Some(vec![hostile()]),
            recovery_action: Some(hostile()),
            utilization_percent: absent(),
            power_watts: Number::Known(300.0),
            power_limit_watts: Number::Known(700.0),
            temperature_celsius: absent(),
            temperature_limit_celsius: absent(),
            xids: Vec::new(),
            mig: false,
            mig_error: Some(hostile()),
            parts: vec![part],
        };
        NodeView {
            version: VERSION,
            exporter: hostile(),
            node: hostile(),
            hostname: hostile(),
            timestamp_seconds: 1.0,
            stale: false,
            ready: true,
            not_ready_reason: Some(hostile()),
            no_gpu_reason: Some(hostile()),
            warnings: vec![hostile()],
            driver: DriverView { library: Some(hostile()), ..DriverView::default() },
            gpus: vec![gpu],
            unidentified: vec![UnidentifiedView {
                index: 0,
                status: HealthStatus::Lost,
                problems: vec![problem()],
            }],
            interval_seconds: 5.0,
            totals: NodeTotals::of(&[], &[]),
            sources: vec![SourceView {
                name: hostile(),
                up: false,
                problem: Some(hostile()),
                age_seconds: Some(2.0),
                failures: Vec::new(),
            }],
            pod_source: Some(hostile()),
            abandoned_threads: 1,
        }
    }

    #[test]
    fn texts_are_escaped() {
        let page = page(&node(), &RecentUse::new());
        assert_eq!(page.matches("<script").count(), 1);
        assert!(!page.contains("alert(1)</script>"), "{page}");
        assert!(page.matches("&lt;script&gt;").count() > 20, "{page}");
    }

    #[test]
    fn absent_number_has_a_reason_and_no_meter() {
        let page = page(&node(), &RecentUse::new());
        assert!(page.contains("– "), "{page}");
        // No part of the totals is known.
        assert_eq!(page.matches("<meter").count(), 0, "{page}");
        assert!(page.contains("0 %"), "0 is not absent: {page}");
    }

    #[test]
    fn worst_gpu_is_first() {
        let page = page(&node(), &RecentUse::new());
        let at = |heading| page.find(heading).unwrap();
        assert!(at("GPU 0") < at("GPU 1"));
    }

    #[test]
    fn policy_allows_only_the_inline_style_and_script() {
        let policy = CONTENT_SECURITY_POLICY.to_str().unwrap();
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
