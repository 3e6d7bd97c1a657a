//! Collection cycles: reading NVML from the mock library, and attributing and publishing a prepared sample.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use nvml_exporter::clock::Clock;
use nvml_exporter::host::ProcRoot;
use nvml_exporter::labels::Dialect;
use nvml_exporter::nvml::mock::{MockEnv, MockFiles};
use nvml_exporter::publish::Published;
use nvml_exporter::sample::Sampler;
use nvml_exporter::sample::driver_source::DriverSource;
use nvml_exporter::selection::{Selection, SelectionScope, preset};

use crate::allocations;
use crate::node::{Node, Size};

/// From one GPU to a full node. From the second size on, one dimension grows at a time.
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
        allocations::report(&format!("attribute and publish/{size}"), || {
            Published::new(node.attribute(node.sample()))
        });
        group.throughput(Throughput::Elements(u64::try_from(size.processes).unwrap()));
        group.bench_with_input(BenchmarkId::from_parameter(size), &node, |bencher, node| {
            let publish = |sample| Published::new(node.attribute(sample));
            bencher.iter_batched(|| node.sample(), publish, BatchSize::SmallInput);
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("sample");
    for scenario in ["idle-t4", "demo", "shared-l20", "huge"] {
        let mock = MockEnv::set_up(scenario, &MockFiles::default()).unwrap();
        let proc_root = ProcRoot::new(&mock.procfs());
        let interval = Duration::from_secs(1);
        let libraries = vec![mock.library()];
        let source = DriverSource { libraries, proc_root, pci_bus: None };
        let mut sampler = Sampler::new(Clock::start(), interval, source).unwrap();
        let selection = Arc::new(Selection::of(&preset(&Dialect::Ack), SelectionScope::default()));
        group.bench_function(scenario, |bencher| bencher.iter(|| sampler.cycle(&selection)));
    }
    group.finish();
}
