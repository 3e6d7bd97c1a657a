//! A node of any size, as it is after NVML and the cluster have answered.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::attribute::family::Allocation;
use nvml_exporter::attribute::holdings::{Holdings, Share};
use nvml_exporter::attribute::owner::{Directory, Holder};
use nvml_exporter::attribute::{Grain, Terms, attribute};
use nvml_exporter::catalog::{DEVICE, INSTANCE};
use nvml_exporter::kube::allocation::Coverage;
use nvml_exporter::kube::pod;
use nvml_exporter::kube::pods::{PodMap, Pods};
use nvml_exporter::labels::{Dialect, Schema, Style};
use nvml_exporter::model::{
    AllocateMode, ContainerId, Discards, EngineShares, Gpu, Limits, Listing, Moment, Placement,
    PodPath, PodRef, PodUid, ProcessId, ProcessKind, ProcessSample, Usage,
};
use nvml_exporter::nvml::inventory::Driver;
use nvml_exporter::nvml::raw::Handle;
use nvml_exporter::nvml::raw::memory::Memory;
use nvml_exporter::reserved_labels::ReservedLabels;
use nvml_exporter::sample::cells::Cell;
use nvml_exporter::sample::device::DeviceSample;
use nvml_exporter::sample::part::PartSample;
use nvml_exporter::sample::ring::Watched;
use nvml_exporter::sample::{DriverState, Sample, SampledGpu};
use nvml_exporter::selection::{Frame, Selection, preset};
use nvml_exporter::snapshot::Snapshot;

const NOW: Moment = Moment { mono: Duration::from_secs(1000), wall_us: 1_700_000_000_000_000 };
const GIB: u64 = 1 << 30;

/// How large it is.
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

/// A node in which every process is of some pod, and every pod holds a share of some GPU.
pub(crate) struct Node {
    sample: Sample,
    selection: Arc<Selection>,
    schema: Schema,
    pods: Pods,
    holdings: Holdings,
    reserved: ReservedLabels,
}

impl Node {
    pub(crate) fn new(size: Size) -> Self {
        let share = |pod: usize| Share {
            holder: holder(pod),
            device: uuid(pod % size.gpus),
            mode: AllocateMode::Share,
            memory: Some(4096.0),
            compute: 0.25,
            replica: "".into(),
            claim: None,
            confirmed: true,
            running: true,
        };
        let holdings =
            Holdings::new((0..size.pods).map(share), BTreeSet::new(), false, Coverage::default());
        Self {
            sample: sample(size),
            selection: Arc::new(Selection::of(&preset(&Dialect::Ack), Frame::default())),
            schema: Schema {
                dialect: Dialect::Ack,
                hostname: "node-1".to_owned(),
                node_name: "node-1".to_owned(),
                extra: Vec::new(),
                style: Style::default(),
            },
            pods: pods(size.pods),
            holdings: holdings.as_of(NOW.mono, true),
            reserved: ReservedLabels::of(&Dialect::Ack),
        }
    }

    /// A fresh sample of it, as the sampler hands it over.
    pub(crate) fn sample(&self) -> Sample {
        self.sample.clone()
    }

    /// What is published of a sample.
    pub(crate) fn attribute(&self, sample: Sample) -> Snapshot {
        let terms = Terms {
            selection: &self.selection,
            schema: &self.schema,
            device_pods: None,
            jobs: &BTreeMap::new(),
            max_age: Duration::from_secs(15),
            grain: Grain::Process,
            reserved: &self.reserved,
            directory: Directory { pods: Some(&self.pods), ..Directory::default() },
            allocation: Allocation::Known(&self.holdings),
            host_pids: Some(true),
            sources: &[],
            problems: &BTreeMap::new(),
        };
        attribute(sample, &terms).0
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

fn holder(pod: usize) -> Holder {
    let pod_ref = PodRef {
        uid: uid(pod).into(),
        namespace: "inference".into(),
        name: format!("server-{pod}").into(),
    };
    Holder { pod: pod_ref, container: "main".into() }
}

fn pods(count: usize) -> Pods {
    let mut map = PodMap::new("api", "node-1");
    map.begin();
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
    map.complete(Duration::ZERO);
    map.health.answered(Duration::ZERO);
    map.picture(Duration::ZERO)
}

fn sample(size: Size) -> Sample {
    let gpu = |index: usize| {
        let own = (0..size.processes).filter(|process| process % size.gpus == index);
        let processes = own.map(|n| process(n, n % size.pods.max(1))).collect();
        SampledGpu { latest: Some(Ok(Arc::new(gpu(index, processes)))), ..SampledGpu::default() }
    };
    let gpus: Vec<SampledGpu> = (0..size.gpus).map(gpu).collect();
    Sample {
        at: NOW,
        took: Duration::ZERO,
        driver: DriverState::Up(Driver::default()),
        gpu_count: Some((Ok(8.0), NOW)),
        node_took: None,
        gpus,
        xids: BTreeMap::new(),
        clocks: BTreeMap::new(),
        vitals: BTreeMap::new(),
        open_failures: BTreeMap::new(),
        cycles: 1,
        abandoned: 0,
    }
}

fn process(number: usize, pod: usize) -> ProcessSample {
    let uid = PodUid::parse(uid(pod).as_bytes()).unwrap();
    let container = ContainerId::parse(container_id(pod).as_bytes());
    ProcessSample {
        id: ProcessId { pid: u32::try_from(number + 100).unwrap(), started: 1 },
        name: "python".into(),
        kind: ProcessKind::Compute,
        seen: Duration::from_secs(900),
        placement: Ok(Arc::new(Placement::Pod(vec![PodPath { uid, container }]))),
        usage: Usage {
            memory: Ok(GIB),
            utilization: Ok(EngineShares { sm: 12.5, ..EngineShares::default() }),
        },
    }
}

fn gpu(index: usize, processes: Vec<ProcessSample>) -> DeviceSample {
    let cell = Some(Cell { reading: Ok(42.0), at: NOW.mono });
    let part = PartSample {
        mig: None,
        cells: vec![cell; INSTANCE.len()],
        tells_of_instance: true,
        framebuffer: Ok(Memory { total: 80 * GIB, used: 60 * GIB, free: 20 * GIB, reserved: None }),
        listing: Ok(Listing { processes, residues: Vec::new() }),
        utilization: Ok(Watched { span: Duration::from_secs(1), unlisted_sm: 0.0 }),
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
        at: NOW,
        cells: vec![cell; DEVICE.len()],
        undivided: None,
        texts: Vec::new(),
        clock_event_reasons: None,
        peers: Vec::new(),
        links: None,
        signs: None,
        energy: None,
        parts: vec![part],
        division: Ok(()),
        discards: Discards::default(),
    }
}
