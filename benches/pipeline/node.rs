//! A node of any size: a sample of its GPUs and the cluster state, as read from NVML and the kubelet.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::attribute::allocation_state::AllocationState;
use nvml_exporter::attribute::allocation_table::AllocationTable;
use nvml_exporter::attribute::owner::OwnerResolver;
use nvml_exporter::attribute::{AttributionContext, ProcessSeries, attribute};
use nvml_exporter::catalog::{DEVICE, INSTANCE};
use nvml_exporter::kube::allocation::AllocationCompleteness;
use nvml_exporter::kube::pod;
use nvml_exporter::kube::pods::PodSnapshot;
use nvml_exporter::kube::pods::store::PodStore;
use nvml_exporter::labels::{Dialect, LabelOptions, LabelSchema};
use nvml_exporter::model::{
    AllocateMode, CgroupLocation, ContainerId, ContainerIdentity, DeviceAllocation,
    DeviceProcesses, Discards, EngineUtilization, Gpu, Limits, Moment, PodPath, PodRef, PodUid,
    ProcessId, ProcessKind, ProcessSample, Usage,
};
use nvml_exporter::nvml::inventory::DriverInfo;
use nvml_exporter::nvml::raw::Handle;
use nvml_exporter::nvml::raw::memory::Memory;
use nvml_exporter::reserved_labels::ReservedLabels;
use nvml_exporter::sample::device::DeviceSample;
use nvml_exporter::sample::link_fields::LabeledReadings;
use nvml_exporter::sample::partition::PartitionSample;
use nvml_exporter::sample::process_utilization::WindowSummary;
use nvml_exporter::sample::reading_cache::CachedReading;
use nvml_exporter::sample::{DriverState, Sample, SampledGpu};
use nvml_exporter::selection::{Selection, SelectionScope, preset};
use nvml_exporter::snapshot::Snapshot;

const NOW: Moment = Moment { mono: Duration::from_secs(1000), wall_us: 1_700_000_000_000_000 };
const GIB: u64 = 1 << 30;

/// Size of the node. `processes` and `pods` are totals over all GPUs.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) gpus: usize,
    pub(crate) processes: usize,
    pub(crate) pods: usize,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} GPUs {} processes {} pods", self.gpus, self.processes, self.pods)
    }
}

/// A node on which every process belongs to a pod, and every pod is allocated a share of one GPU.
pub(crate) struct Node {
    sample: Sample,
    selection: Arc<Selection>,
    schema: LabelSchema,
    pods: PodSnapshot,
    allocations: AllocationTable,
    reserved: ReservedLabels,
}

impl Node {
    pub(crate) fn new(size: Size) -> Self {
        let share = |pod: usize| DeviceAllocation {
            container: container_ref(pod),
            device: uuid(pod % size.gpus),
            mode: AllocateMode::Share,
            memory: Some(4096.0),
            compute: Some(0.25),
            reserved: true,
            replica: None,
            claim: None,
            confirmed: true,
            running: true,
            known_since: Duration::ZERO,
        };
        let allocations =
            AllocationTable::new((0..size.pods).map(share), AllocationCompleteness::default());
        Self {
            sample: sample(size),
            selection: Arc::new(Selection::of(&preset(&Dialect::Ack), SelectionScope::default())),
            schema: LabelSchema {
                dialect: Dialect::Ack,
                hostname: "node-1".to_owned(),
                node_name: "node-1".to_owned(),
                extra: Vec::new(),
                options: LabelOptions::default(),
            },
            pods: pods(size.pods),
            allocations: allocations.as_of(NOW.mono, true),
            reserved: ReservedLabels::of(&Dialect::Ack),
        }
    }

    /// A copy of the sample.
    pub(crate) fn sample(&self) -> Sample {
        self.sample.clone()
    }

    /// Attributes a sample.
    pub(crate) fn attribute(&self, sample: Sample) -> Snapshot {
        let context = AttributionContext {
            selection: &self.selection,
            schema: &self.schema,
            device_pods: None,
            jobs: &BTreeMap::new(),
            max_age: Duration::from_secs(15),
            process_series: ProcessSeries::PerProcess,
            reserved: &self.reserved,
            owner_resolver: OwnerResolver { pods: Some(&self.pods), ..OwnerResolver::default() },
            allocation: AllocationState::Known(&self.allocations),
            host_pids: Some(true),
            sources: &[],
            problems: &BTreeMap::new(),
        };
        attribute(sample, &context).0
    }
}

fn uuid(gpu: usize) -> Arc<str> {
    format!("GPU-aaaaaaaa-0000-0000-0000-{gpu:012}").into()
}

fn uid(pod: usize) -> String {
    format!("bbbbbbbb-0000-0000-0000-{pod:012}")
}

fn container_id(pod: usize) -> String {
    format!("{pod:064x}")
}

fn container_ref(pod: usize) -> ContainerIdentity {
    let pod_ref = PodRef {
        uid: uid(pod).into(),
        namespace: "inference".into(),
        name: format!("server-{pod}").into(),
    };
    ContainerIdentity { pod: pod_ref, name: "main".into() }
}

fn pods(count: usize) -> PodSnapshot {
    let mut map = PodStore::new("api", "node-1");
    map.begin_list();
    for n in 0..count {
        let (uid, id) = (uid(n), container_id(n));
        let text = format!(
            r#"{{"metadata": {{"uid": "{uid}", "name": "server-{n}", "namespace": "inference"}},
                "spec": {{"nodeName": "node-1", "containers": [{{"name": "main"}}]}},
                "status": {{"phase": "Running", "containerStatuses": [
                    {{"name": "main", "containerID": "containerd://{id}"}}]}}}}"#
        );
        map.apply(pod::parse(text.as_bytes()).unwrap(), Duration::ZERO);
    }
    map.end_list(Duration::ZERO);
    map.health.record_success(Duration::ZERO);
    map.snapshot(Duration::ZERO)
}

fn sample(size: Size) -> Sample {
    let gpu = |index: usize| {
        let on_gpu = (0..size.processes).filter(|process| process % size.gpus == index);
        let processes = on_gpu.map(|n| process(n, n % size.pods.max(1))).collect();
        SampledGpu { latest: Some(Ok(Arc::new(gpu(index, processes)))), ..SampledGpu::default() }
    };
    let gpus: Vec<SampledGpu> = (0..size.gpus).map(gpu).collect();
    Sample {
        at: NOW,
        duration: Duration::ZERO,
        driver: DriverState::Up(DriverInfo::default()),
        gpu_count: Some((Ok(8.0), NOW)),
        driver_request_duration: None,
        gpus,
        xids: BTreeMap::new(),
        clock_events: BTreeMap::new(),
        health: BTreeMap::new(),
        open_failures: BTreeMap::new(),
        cycles: 1,
        abandoned_threads: 0,
    }
}

fn process(number: usize, pod: usize) -> ProcessSample {
    let uid = PodUid::parse(uid(pod).as_bytes()).unwrap();
    let container = ContainerId::parse(container_id(pod).as_bytes());
    ProcessSample {
        id: ProcessId { pid: u32::try_from(number + 100).unwrap(), started: 1 },
        name: "python".into(),
        kind: ProcessKind::Compute,
        first_seen: Duration::from_secs(900),
        location: Ok(Arc::new(CgroupLocation::Pod(vec![PodPath { uid, container }]))),
        usage: Usage {
            memory: Ok(GIB),
            utilization: Ok(EngineUtilization { sm: 12.5, ..EngineUtilization::default() }),
        },
    }
}

fn gpu(index: usize, processes: Vec<ProcessSample>) -> DeviceSample {
    let cell = Some(CachedReading { reading: Ok(42.0), at: NOW.mono });
    let part = PartitionSample {
        mig: None,
        readings: vec![cell; INSTANCE.len()],
        activity: Vec::new(),
        reports_instance: true,
        framebuffer: Ok(Memory { total: 80 * GIB, used: 60 * GIB, free: 20 * GIB, reserved: None }),
        listed_at: NOW.mono,
        listing: Ok(DeviceProcesses { processes, ..DeviceProcesses::default() }),
        unlisted_use: None,
        memory_accounts: Vec::new(),
        utilization: Ok(WindowSummary { span: Duration::from_secs(1), unlisted_sm: 0.0 }),
    };
    let number = u32::try_from(index).unwrap();
    DeviceSample {
        gpu: Arc::new(Gpu {
            index: number,
            minor: Some(number),
            uuid: uuid(index),
            name: "NVIDIA H100 80GB HBM3".into(),
            pci_bus_id: format!("00000000:{index:02X}:00.0").into(),
        }),
        handle: Handle::none(),
        limits: Limits::default(),
        compute_mode: Ok(0.0),
        at: NOW,
        readings: vec![cell; DEVICE.len()],
        mig_parent_readings: None,
        info_labels: Vec::new(),
        clock_event_reasons: None,
        peers: Vec::new(),
        links: None,
        labeled: LabeledReadings::default(),
        health: None,
        energy: None,
        partitions: vec![part],
        partitions_complete: Ok(()),
        discards: Discards::default(),
        driver_clock_offset: Some(0.0),
        refuses_all_rows: false,
    }
}
