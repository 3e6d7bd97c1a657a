//! One kind of work, so many times and nothing else: what counts instructions from outside compares two
//! numbers of times. `COUNTED=render:20` says which and how often.

use std::time::Duration;

use nvml_exporter::publish::Published;
use nvml_exporter::render::Part;

use crate::allocations;
use crate::node::{Node, Size};

const NODE: Size = Size { gpus: 8, processes: 64, pods: 30 };

/// Does what the environment asks for, if it does, and prints how often that allocates each time.
pub(crate) fn run() -> bool {
    let Ok(asked) = std::env::var("COUNTED") else { return false };
    let (what, times) = asked.split_once(':').unwrap();
    let times: usize = times.parse().unwrap();
    let node = Node::new(NODE);
    let published = || Published::new(node.attribute(node.sample()));
    let page = |published: &Published, gzip| {
        published.page(Part::Whole, Duration::ZERO, Duration::MAX, gzip)
    };
    let fresh: Vec<Published> = (0..=times).map(|_| published()).collect();
    let mut fresh = fresh.iter();
    match what {
        "cycle" => allocations::repeat(what, times, published),
        "render" => allocations::repeat(what, times, || page(fresh.next().unwrap(), false)),
        "gzip" => allocations::repeat(what, times, || page(fresh.next().unwrap(), true)),
        _ => allocations::repeat("nothing", times, || ()),
    }
    true
}
