//! Runs one kind of work a fixed number of times, for instruction counts (callgrind): `COUNTED=render:20` renders 20
//! times. The counts of `nothing` are the baseline, since setup is the same for all kinds.

use std::time::Duration;

use nvml_exporter::publish::{Published, ViewFormat};
use nvml_exporter::render::PageScope;

use crate::allocations;
use crate::node::{Node, Size};

const NODE: Size = Size { gpus: 8, processes: 64, pods: 30 };

/// Runs the work named by `COUNTED` and prints its allocations per run. False if the variable is not set.
pub(crate) fn run() -> bool {
    let Ok(request) = std::env::var("COUNTED") else { return false };
    let (work, times) = request.split_once(':').unwrap();
    let times: usize = times.parse().unwrap();
    let node = Node::new(NODE);
    let published = || Published::new(node.attribute(node.sample()));
    let render = |published: &Published, gzip| {
        published.exposition(PageScope::All, Duration::ZERO, Duration::MAX, gzip)
    };
    let page = |published: &Published| {
        published.view(ViewFormat::Html, Duration::ZERO, Duration::MAX, false)
    };
    let fresh: Vec<Published> = (0..=times).map(|_| published()).collect();
    let mut fresh = fresh.iter();
    match work {
        "cycle" => allocations::report_calls(work, times, published),
        "render" => allocations::report_calls(work, times, || render(fresh.next().unwrap(), false)),
        "gzip" => allocations::report_calls(work, times, || render(fresh.next().unwrap(), true)),
        "page" => allocations::report_calls(work, times, || page(fresh.next().unwrap())),
        "page-bytes" => report_bytes(&page(fresh.next().unwrap())),
        _ => allocations::report_calls("nothing", times, || ()),
    }
    true
}

#[expect(clippy::print_stdout, reason = "the result")]
fn report_bytes(body: &[u8]) {
    println!("page: {} bytes", body.len());
}
