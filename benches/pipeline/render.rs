//! Rendering the exposition, plain and gzip-compressed.

use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use nvml_exporter::publish::Published;
use nvml_exporter::render::PageScope;

use crate::allocations;
use crate::node::{Node, Size};

/// Nodes with about a hundred, a thousand and ten thousand series.
const SIZES: [Size; 3] = [
    Size { gpus: 1, processes: 4, pods: 2 },
    Size { gpus: 8, processes: 96, pods: 30 },
    Size { gpus: 8, processes: 1600, pods: 110 },
];

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("render");
    for size in SIZES {
        let node = Node::new(size);
        let published = || Published::new(node.attribute(node.sample()));
        let series = series(&published());
        for (format, gzip) in [("plain", false), ("gzip", true)] {
            let render = |published: Published| {
                published.exposition(PageScope::All, Duration::ZERO, Duration::MAX, gzip)
            };
            let name = format!("{series} series");
            let fresh = std::cell::RefCell::new((0..12).map(|_| published()).collect::<Vec<_>>());
            allocations::report(&format!("render/{format}/{name}"), || {
                render(fresh.borrow_mut().pop().unwrap())
            });
            group.throughput(Throughput::Elements(u64::try_from(series).unwrap()));
            group.bench_function(BenchmarkId::new(format, name), |bencher| {
                bencher.iter_batched(published, render, BatchSize::LargeInput);
            });
        }
    }
    group.finish();
}

fn series(published: &Published) -> usize {
    let exposition = published.exposition(PageScope::All, Duration::ZERO, Duration::MAX, false);
    exposition
        .split(|byte| *byte == b'\n')
        .filter(|l| !l.is_empty() && !l.starts_with(b"#"))
        .count()
}
