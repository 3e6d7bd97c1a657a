//! The page at `/`: a node for people, drawn here, and kept up to date by a script of its own.

mod gpu;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use ring::digest::{SHA256, digest};

use crate::view::{NodeView, SourceView};

const STYLE: &str = include_str!("landing/style.css");
const SCRIPT: &str = include_str!("landing/script.js");

/// Nothing runs or is laid out by but what is on the page itself, and nobody is asked but the exporter.
pub static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    // It is visible ASCII, which every header may hold.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// The page of a node.
#[must_use]
pub fn page(node: &NodeView) -> String {
    let title = [&node.node, &node.hostname].into_iter().find(|name| !name.is_empty());
    frame(title.map_or("nvml-exporter", String::as_str), &body(node))
}

/// The page while there is nothing to tell of yet.
#[must_use]
pub fn empty() -> String {
    let wait = html! { main { p { "No sample yet: the driver has been asked." } } };
    frame("nvml-exporter", &wait)
}

fn frame(title: &str, body: &Markup) -> String {
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
                    span.quiet { "nvml-exporter " (env!("CARGO_PKG_VERSION")) }
                    span #live.quiet {}
                    nav aria-label="Other answers" {
                        a href="/metrics" { "metrics" } " "
                        a href="/readyz" { "ready?" } " "
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
            (verdict(node))
            section aria-labelledby="gpus" {
                h2 #gpus { "GPUs" }
                @for card in cards(node).values() { (card) }
                @if node.gpus.is_empty() && node.unidentified.is_empty() {
                    p.quiet { @if node.driver.up && !node.stale { "The driver names none." } @else { "Nothing is known of them now." } }
                }
            }
            section aria-labelledby="exporter" {
                h2 #exporter { "What the exporter knows it from" }
                (sources(node))
            }
        }
    }
}

/// The GPUs by their index.
fn cards(node: &NodeView) -> BTreeMap<u32, Markup> {
    let known = node.gpus.iter().enumerate();
    let known = known.map(|(position, gpu)| (gpu.index, gpu::card(position, gpu)));
    let unknown = node.unidentified.iter().map(|gpu| (gpu.index, gpu::nameless(gpu)));
    known.chain(unknown).collect()
}

fn verdict(node: &NodeView) -> Markup {
    let good = node.gpus.iter().filter(|gpu| gpu.state == "ok").count();
    let all = node.gpus.len() + node.unidentified.len();
    html! {
        @match &node.trouble {
            None if good == all => p { span.state.good { "Ready." } },
            None => p role="alert" {
                span.state.warn { "Ready, but only " (good) " of " (all) " GPUs can be read." }
            },
            Some(trouble) => p role="alert" { span.state.bad { "Not ready: " } (trouble) },
        }
        @for warning in &node.warnings { p { span.state.warn { "Warning: " } (warning) } }
    }
}

fn sources(node: &NodeView) -> Markup {
    let driver = &node.driver;
    html! {
        div.wide tabindex="0" role="region" aria-label="Sources" {
            table {
                thead { tr {
                    th scope="col" { "source" } th scope="col" { "state" }
                    th.n scope="col" { "last word" } th scope="col" { "in all" }
                } }
                tbody {
                    tr {
                        th scope="row" { "driver" }
                        td { (state(driver.up)) }
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
                    @for (position, source) in node.sources.iter().enumerate() { (row(position, source)) }
                    @if node.abandoned_threads > 0 {
                        tr {
                            th scope="row" { "threads left behind" }
                            td { span.state.warn { "waiting" } }
                            td.n {}
                            td {
                                span data-at="abandoned_threads" data-as="count" { (node.abandoned_threads) }
                                " wait for a driver that does not answer"
                            }
                        }
                    }
                }
            }
        }
    }
}

fn row(position: usize, source: &SourceView) -> Markup {
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
            td { @for (n, failure) in source.failures.iter().enumerate() {
                @if n > 0 { ", " }
                span data-at={ "sources." (position) ".failures." (n) ".count" } data-as="count" {
                    (failure.count)
                }
                " × " (failure.reason)
            } }
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
    use crate::view::{
        ContainerView, DriverView, FailureView, GpuView, Number, PartView, ProcessView,
        UnidentifiedView, VERSION, XidView,
    };

    const HOSTILE: &str = "\"'><script>alert(1)</script>&amp;";

    fn hostile() -> String {
        HOSTILE.to_owned()
    }

    fn absent() -> Number {
        Number::Absent { absent: hostile() }
    }

    /// A node all of whose texts were chosen by somebody who means ill.
    fn node() -> NodeView {
        let process = ProcessView {
            whose: "unknown".to_owned(),
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
            mode: hostile(),
            memory_granted_mib: Some(absent()),
            compute_granted_ratio: Some(absent()),
            sm_percent: absent(),
            memory_used_mib: Number::Known(1.0),
            processes: vec![process.clone()],
        };
        let part = PartView {
            mig: None,
            utilization_percent: absent(),
            memory_used_mib: absent(),
            memory_total_mib: absent(),
            containers: vec![container],
            others: vec![process],
            unlisted: None,
        };
        let gpu = GpuView {
            index: 1,
            uuid: hostile(),
            model: hostile(),
            pci_bus_id: hostile(),
            state: "ok".to_owned(),
            throttled_by: Some(vec![hostile()]),
            utilization_percent: absent(),
            power_watts: Number::Known(300.0),
            power_limit_watts: Number::Known(700.0),
            temperature_celsius: absent(),
            temperature_limit_celsius: absent(),
            xids: Vec::new(),
            mig: false,
            division: Some(hostile()),
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
            trouble: Some(hostile()),
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
            abandoned_threads: 1,
        }
    }

    #[test]
    fn nothing_on_the_page_is_markup_but_ours() {
        let page = page(&node());
        assert_eq!(page.matches("<script").count(), 1);
        assert!(!page.contains("alert(1)</script>"), "{page}");
        assert!(page.matches("&lt;script&gt;").count() > 20, "{page}");
    }

    #[test]
    fn what_is_absent_is_told_with_its_reason_and_has_no_bar() {
        let page = page(&node());
        assert!(page.contains("absent: "), "{page}");
        // Of what is measured by something, only the power is known.
        assert_eq!(page.matches("<meter").count(), 1, "{page}");
        assert!(page.contains("0 %"), "idle is a number: {page}");
    }

    #[test]
    fn gpus_stand_in_the_order_of_their_indices() {
        let page = page(&node());
        let at = |heading| page.find(heading).unwrap();
        assert!(at("GPU 0") < at("GPU 1"));
    }

    #[test]
    fn the_policy_lets_nothing_run_but_what_is_on_the_page() {
        let policy = POLICY.to_str().unwrap();
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    /// Every number of a JSON value, by its path.
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
    fn every_number_that_moves_has_a_place_to_move_in() {
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
        let (_, list) = SCRIPT.split_once("const moving = new Set([").unwrap();
        let (list, _) = list.split_once("])").unwrap();
        let mut moving: BTreeSet<&str> = list.split('\'').skip(1).step_by(2).collect();
        // It is written beside the name.
        assert!(moving.remove("timestamp_seconds"));
        let mut paths = Vec::new();
        numbers(&serde_json::to_value(&node).unwrap(), "", &mut paths);
        let mut seen = BTreeSet::new();
        for path in &paths {
            let key = path.rsplit('.').next().unwrap();
            if moving.contains(key) {
                assert!(page.contains(&format!("data-at=\"{path}\"")), "{path}");
                seen.insert(key);
            }
        }
        assert_eq!(seen, moving);
    }
}
