//! A cycle: all of it on the mock library, and what comes after NVML by itself.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use nvml_exporter::clock::Clock;
use nvml_exporter::host::ProcRoot;
use nvml_exporter::labels::Dialect;
use nvml_exporter::nvml::mock::Stage;
use nvml_exporter::publish::Published;
use nvml_exporter::sample::Sampler;
use nvml_exporter::selection::{Frame, Selection, preset};

use crate::allocations;
use crate::node::{Node, Size};

/// From one GPU to a full node, and one direction at a time from the second to the fourth.
const SIZES: [Size; 7] = [
    Size { gpus: 1, processes: 8, pods: 4 },
    Size { gpus: 8, processes: 64, pods: 30 },
    Size { gpus: 8, processes: 256, pods: 30 },
    Size { gpus: 8, processes: 1024, pods: 30 },
    Size { gpus: 8, processes: 64, pods: 110 },
    Size { gpus: 16, processes: 64, pods: 30 },
    Size { gpus: 16, processes: 1000, pods: 110 },
];

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attribute and publish");
    for size in SIZES {
        let node = Node::new(size);
        allocations::tell(&format!("attribute and publish/{size}"), || {
            Published::new(node.attribute(node.sample()))
        });
        group.throughput(Throughput::Elements(u64::try_from(size.processes).unwrap()));
        group.bench_with_input(BenchmarkId::from_parameter(size), &node, |bencher, node| {
            let work = |sample| Published::new(node.attribute(sample));
            bencher.iter_batched(|| node.sample(), work, BatchSize::SmallInput);
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("sample");
    for scenario in ["idle-t4", "demo", "shared-l20", "huge"] {
        let stage = Stage::set_up(scenario).unwrap();
        let proc_root = ProcRoot::new(&stage.procfs());
        let interval = Duration::from_secs(1);
        let libraries = vec![stage.library()];
        let mut sampler = Sampler::new(Clock::start(), interval, libraries, proc_root).unwrap();
        let selection = Arc::new(Selection::of(&preset(&Dialect::Ack), Frame::default()));
        group.bench_function(scenario, |bencher| bencher.iter(|| sampler.cycle(&selection)));
    }
    group.finish();
}
