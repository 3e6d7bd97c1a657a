//! The web page at `/`: rendered here, and kept up to date by a script.

mod gpu;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use ring::digest::{SHA256, digest};

use crate::view::{GpuState, NodeView, SourceView};

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
pub fn page(node: &NodeView) -> String {
    let title = [&node.node, &node.hostname].into_iter().find(|name| !name.is_empty());
    document(title.map_or("nvml-exporter", String::as_str), &body(node))
}

/// Renders the web page before the first sample.
#[must_use]
pub fn page_without_sample() -> String {
    let wait = html! { main { p { "No sample yet: waiting for the driver." } } };
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
                (body)
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

fn body(node: &NodeView) -> Markup {
    html! {
        main data-timestamp=(node.timestamp_seconds) {
            (status(node))
            section aria-labelledby="gpus" {
                h2 #gpus { "GPUs" }
                @for card in cards(node).values() { (card) }
                @if node.gpus.is_empty() && node.unidentified.is_empty() {
                    p.muted { (no_gpus(node)) }
                }
            }
            section aria-labelledby="exporter" {
                h2 #exporter { "Data sources" }
                (sources(node))
            }
        }
    }
}

/// Why there are no cards.
fn no_gpus(node: &NodeView) -> &str {
    match &node.no_gpu_reason {
        _ if node.stale => "No current data.",
        Some(reason) => reason,
        None if node.driver.up => "The driver reports no GPU.",
        None => "No current data.",
    }
}

/// A card for each GPU, by index.
fn cards(node: &NodeView) -> BTreeMap<u32, Markup> {
    let gpus = node.gpus.iter().enumerate();
    let gpus = gpus.map(|(position, gpu)| (gpu.index, gpu::card(position, gpu)));
    let unidentified = node.unidentified.iter();
    let unidentified = unidentified.map(|gpu| (gpu.index, gpu::unidentified_card(gpu)));
    gpus.chain(unidentified).collect()
}

fn status(node: &NodeView) -> Markup {
    let good = node.gpus.iter().filter(|gpu| gpu.state == GpuState::Ok).count();
    let all = node.gpus.len() + node.unidentified.len();
    html! {
        @match &node.not_ready_reason {
            None if good == all => p { span.state.good { "Ready." } },
            None => p role="alert" {
                span.state.warn { "Ready, but only " (good) " of " (all) " GPUs can be read." }
            },
            Some(reason) => p role="alert" { span.state.bad { "Not ready: " } (reason) },
        }
        @for warning in &node.warnings { p { span.state.warn { "Warning: " } (warning) } }
    }
}

fn sources(node: &NodeView) -> Markup {
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
                            @if let (Some(reason), Some(detail)) = (&driver.reason, &driver.detail) {
                                (reason) ": " (detail)
                            }
                        }
                    }
                    @for (position, source) in node.sources.iter().enumerate() {
                        (source_row(position, source, node.pod_source.as_deref()))
                    }
                    @if node.abandoned_threads > 0 {
                        tr {
                            th scope="row" { "abandoned threads" }
                            td { span.state.warn { "blocked" } }
                            td.n {}
                            td {
                                span data-at="abandoned_threads" data-as="count" { (node.abandoned_threads) }
                                " blocked in a driver call"
                            }
                        }
                    }
                }
            }
        }
    }
}

fn source_row(position: usize, source: &SourceView, pod_source: Option<&str>) -> Markup {
    html! {
        tr {
            th scope="row" { (source.name) }
            td { (state(source.up)) }
            td.n { @if let Some(age) = source.age_seconds {
                span data-at={ "sources." (position) ".age_seconds" } data-as="seconds" {
                    (format!("{age:.0} s"))
                }
                " ago"
            } }
            td {
                @let of_pods = pod_source == Some(&*source.name);
                @if of_pods { "source of the pods" }
                @for (n, failure) in source.failures.iter().enumerate() {
                    @if n > 0 || of_pods { ", " }
                    span data-at={ "sources." (position) ".failures." (n) ".count" } data-as="count" {
                        (failure.count)
                    }
                    " × " (failure.reason)
                }
            }
        }
    }
}

fn state(up: bool) -> Markup {
    html! { @if up { span.state.good { "up" } } @else { span.state.bad { "down" } } }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::model::AllocateMode;
    use crate::view::{
        Absence, ContainerView, DriverView, FailureView, GpuView, Number, OwnerKind, PartitionView,
        ProcessView, UnidentifiedView, VERSION, XidView,
    };

    const HOSTILE: &str = "\"'><script>alert(1)</script>&amp;";

    fn hostile() -> String {
        HOSTILE.to_owned()
    }

    fn absent() -> Number {
        Number::Absent { absent: Absence::Unread(hostile()) }
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
            state: GpuState::Ok,
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
            unidentified: vec![UnidentifiedView { index: 0, reason: hostile() }],
            sources: vec![SourceView {
                name: hostile(),
                up: false,
                age_seconds: Some(2.0),
                failures: Vec::new(),
            }],
            pod_source: Some(hostile()),
            abandoned_threads: 1,
        }
    }

    #[test]
    fn texts_are_escaped() {
        let page = page(&node());
        assert_eq!(page.matches("<script").count(), 1);
        assert!(!page.contains("alert(1)</script>"), "{page}");
        assert!(page.matches("&lt;script&gt;").count() > 20, "{page}");
    }

    #[test]
    fn absent_number_has_a_reason_and_no_meter() {
        let page = page(&node());
        assert!(page.contains("absent: "), "{page}");
        // Of the numbers with a limit, only the power is known.
        assert_eq!(page.matches("<meter").count(), 1, "{page}");
        assert!(page.contains("0 %"), "0 is not absent: {page}");
    }

    #[test]
    fn gpus_are_sorted_by_index() {
        let page = page(&node());
        let at = |heading| page.find(heading).unwrap();
        assert!(at("GPU 0") < at("GPU 1"));
    }

    #[test]
    fn policy_allows_only_the_inline_style_and_script() {
        let policy = CONTENT_SECURITY_POLICY.to_str().unwrap();
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    /// The path of every number of a JSON value.
    fn numbers(value: &Value, path: &str, found: &mut Vec<String>) {
        let below =
            |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match value {
            Value::Number(_) => found.push(path.to_owned()),
            Value::Object(fields) => {
                fields.iter().for_each(|(key, value)| numbers(value, &below(key), found));
            }
            Value::Array(values) => {
                let indexed = values.iter().enumerate();
                indexed.for_each(|(at, value)| numbers(value, &below(&at.to_string()), found));
            }
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_live_number_has_an_element_with_its_path() {
        let mut node = node();
        let gpu = &mut node.gpus[0];
        gpu.xids = vec![XidView { xid: 31, name: String::new(), count: 2 }];
        for number in [&mut gpu.utilization_percent, &mut gpu.temperature_celsius] {
            *number = Number::Known(5.0);
        }
        let part = &mut gpu.parts[0];
        part.memory_used_mib = Number::Known(5.0);
        part.containers[0].sm_percent = Number::Known(5.0);
        part.containers[0].processes[0].memory_used_mib = Number::Known(5.0);
        node.sources[0].failures = vec![FailureView { reason: String::new(), count: 3 }];
        let page = page(&node);
        let (_, list) = SCRIPT.split_once("const liveKeys = new Set([").unwrap();
        let (list, _) = list.split_once("])").unwrap();
        let mut live: BTreeSet<&str> = list.split('\'').skip(1).step_by(2).collect();
        // The header of the page shows the timestamp.
        assert!(live.remove("timestamp_seconds"));
        let mut paths = Vec::new();
        numbers(&serde_json::to_value(&node).unwrap(), "", &mut paths);
        let mut seen = BTreeSet::new();
        for path in &paths {
            let key = path.rsplit('.').next().unwrap();
            if live.contains(key) {
                assert!(page.contains(&format!("data-at=\"{path}\"")), "{path}");
                seen.insert(key);
            }
        }
        assert_eq!(seen, live);
    }
}
