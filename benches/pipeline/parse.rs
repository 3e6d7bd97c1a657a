//! Parsers of cgroup files and kubelet responses, and label sets.

use criterion::{BenchmarkId, Criterion, Throughput};
use nvml_exporter::host::cgroup;
use nvml_exporter::kube::pod_resources::messages::{
    ContainerDevices, ContainerResources, ListPodResourcesResponse, PodResources,
};
use nvml_exporter::labels::Labels;
use prost::Message;

use crate::allocations;

const CGROUP: &[u8] = b"0::/kubepods.slice/kubepods-burstable.slice/\
    kubepods-burstable-podaaaaaaaa_0000_0000_0000_000000000001.slice/\
    cri-containerd-0000000000000000000000000000000000000000000000000000000000000001.scope\n";

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cgroup");
    allocations::report("cgroup/one line", || cgroup::parse(CGROUP));
    group.bench_function("one line", |bencher| bencher.iter(|| cgroup::parse(CGROUP)));
    let many = [CGROUP; 16].concat();
    group.bench_function("sixteen lines", |bencher| bencher.iter(|| cgroup::parse(&many)));
    group.finish();

    let mut group = criterion.benchmark_group("pod resources");
    for pods in [10, 110, 1000] {
        let bytes = response(pods);
        let read = || {
            let response = ListPodResourcesResponse::decode(bytes.clone());
            response.unwrap().into_list().unwrap().containers
        };
        let name = format!("{pods} pods, {} bytes", bytes.len());
        allocations::report(&format!("pod resources/{name}"), read);
        group.throughput(Throughput::Bytes(u64::try_from(bytes.len()).unwrap()));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(read));
    }
    group.finish();

    // New processes in every cycle: no label set can be reused.
    let mut group = criterion.benchmark_group("labels under churn");
    for sets in [100_u32, 1000, 10_000] {
        let make = || (0..sets).map(|pid| labels(&pid.to_string())).collect::<Vec<_>>();
        allocations::report(&format!("labels under churn/{sets} sets"), make);
        group.throughput(Throughput::Elements(u64::from(sets)));
        group.bench_function(BenchmarkId::from_parameter(sets), |bencher| bencher.iter(make));
    }
    group.finish();
}

/// A kubelet response in which each pod is allocated 140 units (device ids) of one GPU: 6.7 MB for 1,000 pods.
fn response(pods: usize) -> bytes::Bytes {
    let unit = |pod: usize, n: usize| format!("GPU-aaaaaaaa-0000-0000-0000-{pod:012}-_-{n}");
    let pod = |n: usize| {
        let device_ids = (0..140).map(|unit_number| unit(n, unit_number)).collect();
        let devices =
            ContainerDevices { resource_name: "aliyun.com/gpu-mem".to_owned(), device_ids };
        let container = ContainerResources {
            name: "main".to_owned(),
            devices: vec![devices],
            dynamic_resources: Vec::new(),
        };
        PodResources {
            name: format!("server-{n}"),
            namespace: "inference".to_owned(),
            containers: vec![container],
        }
    };
    let pod_resources = (0..pods).map(|n| pod(n).encode_to_vec().into()).collect();
    ListPodResourcesResponse { pod_resources }.encode_to_vec().into()
}

fn labels(pid: &str) -> Labels {
    let pairs = [
        ("AllocateMode", "share"),
        ("ContainerName", "main"),
        ("NamespaceName", "inference"),
        ("NodeName", "node-1"),
        ("PodName", "server-0"),
        ("ProcessId", pid),
        ("ProcessName", "python"),
        ("ProcessType", "C"),
        ("UUID", "GPU-aaaaaaaa-0000-0000-0000-000000000000"),
        ("device", "nvidia0"),
        ("gpu", "0"),
        ("modelName", "NVIDIA H100 80GB HBM3"),
    ];
    Labels::from_pairs(pairs.into_iter())
}
