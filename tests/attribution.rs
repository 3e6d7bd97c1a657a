//! Invariants of attribution over generated nodes: which processes have series, with the labels of
//! which container, and that no memory is lost or invented.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::attribute::allocation_state::AllocationState;
use nvml_exporter::attribute::allocation_table::AllocationTable;
use nvml_exporter::attribute::owner::OwnerResolver;
use nvml_exporter::attribute::{AttributionContext, DevicePodLabels, ProcessSeries, attribute};
use nvml_exporter::kube::allocation::{AllocationCompleteness, Coverage};
use nvml_exporter::kube::pod;
use nvml_exporter::kube::pods::PodSnapshot;
use nvml_exporter::kube::pods::store::PodStore;
use nvml_exporter::labels::{Compat, Dialect, LabelOptions, LabelSchema, Labels};
use nvml_exporter::model::{
    AllocateMode, CgroupLocation, Claim, ContainerId, ContainerIdentity, DeviceAllocation,
    DeviceProcesses, Discard, Discards, EngineUtilization, Gpu, Limits, Missing, Moment, PodPath,
    PodRef, PodUid, ProcessId, ProcessKind, ProcessSample, StaleProcessEntry, Usage,
};
use nvml_exporter::nvml::inventory::DriverInfo;
use nvml_exporter::nvml::raw::Handle;
use nvml_exporter::nvml::raw::memory::Memory;
use nvml_exporter::reserved_labels::ReservedLabels;
use nvml_exporter::sample::device::DeviceSample;
use nvml_exporter::sample::link_fields::LabeledReadings;
use nvml_exporter::sample::partition::PartitionSample;
use nvml_exporter::sample::process_utilization::WindowSummary;
use nvml_exporter::sample::{DriverState, Sample, SampledGpu};
use nvml_exporter::selection::{Selection, SelectionScope, preset};
use nvml_exporter::snapshot::Snapshot;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const NOW: Moment = Moment { mono: Duration::from_secs(1000), wall_us: 1_700_000_000_000_000 };
const GPU: &str = "GPU-0";

fn uid(pod: usize) -> String {
    format!("{pod:08x}-0000-4000-8000-000000000000")
}

fn container_id(pod: usize, container: usize) -> String {
    format!("{pod:032x}{container:032x}")
}

/// Pods `pod-0`, `pod-1`, … with the given number of containers. If the flag is set, the last
/// container has no id yet.
fn pods(containers: &[(usize, bool)]) -> PodSnapshot {
    pods_of_class("", containers)
}

fn pods_of_class(runtime_class: &str, containers: &[(usize, bool)]) -> PodSnapshot {
    let mut store = PodStore::new("api", "node-1");
    for (pod, (count, last_without_id)) in containers.iter().enumerate() {
        let names: Vec<String> = (0..*count).map(|c| format!(r#"{{"name":"c{c}"}}"#)).collect();
        let known = if *last_without_id { count - 1 } else { *count };
        let status = (0..known).map(|c| {
            let id = container_id(pod, c);
            format!(
                r#"{{"name":"c{c}","containerID":"containerd://{id}","state":{{"running":{{}}}}}}"#
            )
        });
        let text = format!(
            r#"{{"metadata":{{"uid":"{}","namespace":"ns-{}","name":"pod-{pod}"}},
                "spec":{{"nodeName":"node-1","runtimeClassName":"{runtime_class}","containers":[{}]}},
                "status":{{"phase":"Running","containerStatuses":[{}]}}}}"#,
            uid(pod),
            pod % 2,
            names.join(","),
            status.collect::<Vec<_>>().join(",")
        );
        store.apply(pod::parse(text.as_bytes()).unwrap(), Duration::ZERO);
    }
    store.end_list(Duration::ZERO);
    store.health.record_success(Duration::ZERO);
    store.snapshot(Duration::ZERO)
}

/// The allocations of all pods are known.
fn completeness(pods: &PodSnapshot) -> AllocationCompleteness {
    let known = pods.iter().map(|tracked| Arc::clone(&tracked.pod.id.uid)).collect();
    let coverage = Coverage::Pods { known, unknown_holders: false };
    AllocationCompleteness { coverage, ..AllocationCompleteness::default() }
}

fn container_identity(pod: usize, container: usize) -> ContainerIdentity {
    let pod = PodRef {
        uid: uid(pod).into(),
        namespace: format!("ns-{}", pod % 2).into(),
        name: format!("pod-{pod}").into(),
    };
    ContainerIdentity { pod, name: format!("c{container}").into() }
}

fn shared_allocation(pod: usize, container: usize) -> DeviceAllocation {
    DeviceAllocation {
        container: container_identity(pod, container),
        device: GPU.into(),
        mode: AllocateMode::Share,
        memory: Some(100.0),
        compute: Some(0.3),
        reserved: true,
        replica: None,
        claim: None,
        confirmed: true,
        running: true,
        known_since: Duration::ZERO,
    }
}

fn pod_location(pod: usize, container: usize) -> CgroupLocation {
    let id = ContainerId::parse(container_id(pod, container).as_bytes()).unwrap();
    let uid = PodUid::parse(uid(pod).as_bytes()).unwrap();
    CgroupLocation::Pod(vec![PodPath { uid, container: Some(id) }])
}

fn process(
    pid: u32,
    location: Result<CgroupLocation, Discard>,
    mib: u64,
    sm: f64,
) -> ProcessSample {
    ProcessSample {
        id: ProcessId { pid, started: 1 },
        name: "python".into(),
        kind: ProcessKind::Compute,
        first_seen: Duration::from_secs(900),
        location: location.map(Arc::new),
        usage: Usage {
            memory: Ok(mib * MIB),
            utilization: Ok(EngineUtilization { sm, ..EngineUtilization::default() }),
        },
    }
}

fn sample(listing: Result<DeviceProcesses, Missing>, used_mib: u64) -> Sample {
    let gpu = Gpu {
        index: 0,
        minor: Some(0),
        uuid: GPU.into(),
        name: "NVIDIA L20".into(),
        pci_bus_id: "00000000:1B:00.0".into(),
    };
    let framebuffer = Ok(Memory {
        total: 48 << 30,
        used: used_mib * MIB,
        free: (48 << 30) - used_mib * MIB,
        reserved: None,
    });
    let partition = PartitionSample {
        mig: None,
        readings: Vec::new(),
        activity: Vec::new(),
        reports_instance: true,
        framebuffer,
        listed_at: NOW.mono,
        listing,
        unlisted_use: None,
        memory_accounts: Vec::new(),
        utilization: Ok(WindowSummary { span: Duration::from_secs(5), unlisted_sm: 0.0 }),
    };
    let cached =
        nvml_exporter::sample::reading_cache::CachedReading { reading: Ok(1.0), at: NOW.mono };
    let device = DeviceSample {
        gpu: Arc::new(gpu),
        handle: Handle::none(),
        limits: Limits::default(),
        compute_mode: Ok(0.0),
        at: NOW,
        readings: vec![Some(cached); nvml_exporter::catalog::DEVICE.len()],
        mig_parent_readings: None,
        info_labels: Vec::new(),
        clock_event_reasons: None,
        peers: Vec::new(),
        links: None,
        labeled: LabeledReadings::default(),
        health: None,
        energy: None,
        partitions: vec![partition],
        partitions_complete: Ok(()),
        discards: Discards::default(),
        driver_clock_offset: None,
        refuses_all_rows: false,
    };
    Sample {
        at: NOW,
        duration: Duration::ZERO,
        driver: DriverState::Up(DriverInfo::default()),
        gpu_count: Some((Ok(1.0), NOW)),
        driver_request_duration: None,
        gpus: vec![SampledGpu { latest: Some(Ok(Arc::new(device))), ..SampledGpu::default() }],
        xids: BTreeMap::new(),
        clock_events: BTreeMap::new(),
        health: BTreeMap::new(),
        open_failures: BTreeMap::new(),
        cycles: 1,
        abandoned_threads: 0,
    }
}

/// The inputs of attribution other than the sample.
struct Node {
    dialect: Dialect,
    device_pods: Option<DevicePodLabels>,
    pods: PodSnapshot,
    allocations: AllocationTable,
    process_series: ProcessSeries,
    host_pids: Option<bool>,
    /// Current time of the owners (monotonic); at zero, all processes are new.
    now: Duration,
}

impl Node {
    fn new(pods: PodSnapshot, allocations: Vec<DeviceAllocation>) -> Self {
        let allocations =
            AllocationTable::new(allocations, completeness(&pods)).as_of(NOW.mono, true);
        Self {
            dialect: Dialect::Ack,
            device_pods: None,
            pods,
            allocations,
            process_series: ProcessSeries::PerProcess,
            host_pids: Some(true),
            now: Duration::ZERO,
        }
    }

    fn publish(&self, listing: DeviceProcesses, used_mib: u64) -> Snapshot {
        self.publish_listing(Ok(listing), used_mib)
    }

    fn publish_listing(
        &self,
        listing: Result<DeviceProcesses, Missing>,
        used_mib: u64,
    ) -> Snapshot {
        let schema = LabelSchema {
            dialect: self.dialect.clone(),
            hostname: "h".to_owned(),
            node_name: "node-1".to_owned(),
            extra: Vec::new(),
            options: LabelOptions::default(),
        };
        let selection = Arc::new(Selection::of(&preset(&self.dialect), SelectionScope::default()));
        let (problems, reserved) = (BTreeMap::new(), ReservedLabels::of(&self.dialect));
        let context = AttributionContext {
            selection: &selection,
            schema: &schema,
            device_pods: self.device_pods.as_ref(),
            jobs: &BTreeMap::new(),
            max_age: Duration::from_secs(15),
            process_series: self.process_series,
            reserved: &reserved,
            owner_resolver: OwnerResolver {
                pods: Some(&self.pods),
                now: self.now,
                ..OwnerResolver::default()
            },
            allocation: AllocationState::Known(&self.allocations),
            host_pids: self.host_pids,
            sources: &[],
            problems: &problems,
        };
        attribute(sample(listing, used_mib), &context).0
    }
}

fn listing(processes: Vec<ProcessSample>) -> DeviceProcesses {
    DeviceProcesses { processes, ..DeviceProcesses::default() }
}

fn label(labels: &Labels, key: &str) -> String {
    labels.value(key).unwrap()
}

/// `pod/container pid` and usage of each series of a table.
fn series(table: &[(Labels, Usage)]) -> Vec<(String, Usage)> {
    let name = |labels: &Labels| {
        let [pod, container, pid] =
            ["PodName", "ContainerName", "ProcessId"].map(|key| label(labels, key));
        format!("{pod}/{container} {pid}")
    };
    table.iter().map(|(labels, usage)| (name(labels), *usage)).collect()
}

fn names(table: &[(Labels, Usage)]) -> Vec<String> {
    series(table).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn claimed_device_has_claim_labels_if_enabled() {
    let claim = Claim { name: "llm".into(), namespace: "ns-0".into(), ..Claim::default() };
    let claimed = DeviceAllocation {
        mode: AllocateMode::Exclusive,
        claim: Some(Arc::new(claim)),
        ..shared_allocation(0, 0)
    };
    let mut node = Node::new(pods(&[(1, false)]), vec![claimed]);
    node.dialect = Dialect::DcgmExporter(vec![Compat::V4_8]);
    let claims = |node: &Node| {
        let snapshot = node.publish(listing(Vec::new()), 0);
        let labels = &snapshot.tables.devices[0].labels;
        ["dra_claim_name", "dra_claim_namespace", "dra_mig_profile"].map(|key| labels.value(key))
    };
    let value = |text: &str| Some(text.to_owned());
    node.device_pods = Some(DevicePodLabels { claims: true, ..DevicePodLabels::default() });
    assert_eq!(claims(&node), [value("llm"), value("ns-0"), value("")]);
    node.allocations = AllocationTable::default().as_of(NOW.mono, true);
    assert_eq!(claims(&node), [value(""), value(""), value("")], "empty without a claim");
    node.device_pods = Some(DevicePodLabels::default());
    assert_eq!(claims(&node), [None, None, None]);
}

#[test]
fn processes_have_their_container_and_idle_containers_are_zero() {
    let node = Node::new(
        pods(&[(2, false), (1, false)]),
        vec![shared_allocation(0, 0), shared_allocation(0, 1), shared_allocation(1, 0)],
    );
    let snapshot = node.publish(
        listing(vec![
            process(7, Ok(pod_location(0, 1)), 10, 20.0),
            process(8, Ok(pod_location(0, 1)), 5, 1.0),
        ]),
        15,
    );
    let series = series(&snapshot.tables.processes);
    let memory: Vec<_> = series.iter().map(|(name, usage)| (&**name, usage.memory)).collect();
    assert_eq!(
        memory,
        [
            ("pod-0/c1 7", Ok(10 * MIB)),
            ("pod-0/c1 8", Ok(5 * MIB)),
            ("pod-0/c0 0", Ok(0)),
            ("pod-1/c0 0", Ok(0)),
        ]
    );
    assert_eq!(series[2].1.utilization, Ok(EngineUtilization::default()));
    assert_eq!(label(&snapshot.tables.processes[0].0, "AllocateMode"), "share");
    assert_eq!(snapshot.tables.containers.len(), 3);
}

#[test]
fn no_container_is_idle_if_the_process_list_is_incomplete() {
    let node = Node::new(pods(&[(1, false)]), vec![shared_allocation(0, 0)]);
    let idle = |snapshot: &Snapshot| names(&snapshot.tables.processes);
    assert_eq!(idle(&node.publish(listing(Vec::new()), 0)), ["pod-0/c0 0"]);

    let failed = node.publish_listing(Err(Missing::Failed(999)), 0);
    assert_eq!(idle(&failed), Vec::<String>::new(), "the driver returned no process list");
    for location in [Ok(CgroupLocation::Conflict), Err(Discard::Denied), Ok(pod_location(9, 0))] {
        let unresolved = process(7, location, 1, 0.0);
        let snapshot = node.publish(listing(vec![unresolved]), 1);
        assert_eq!(idle(&snapshot), Vec::<String>::new(), "it may be a process of the container");
        assert_eq!(snapshot.health.attribution.unresolved.values().sum::<u64>(), 1);
    }
    for reason in [Discard::Gone, Discard::Pid, Discard::Zombie] {
        let entry = StaleProcessEntry { reason, location: None, memory: Ok(MIB) };
        let list = DeviceProcesses { stale_entries: vec![entry], ..DeviceProcesses::default() };
        assert_eq!(idle(&node.publish(list, 1)), Vec::<String>::new(), "{reason:?}");
    }
    let unnamed = StaleProcessEntry {
        reason: Discard::Denied,
        location: Some(CgroupLocation::Host.into()),
        memory: Ok(MIB),
    };
    let list = DeviceProcesses { stale_entries: vec![unnamed], ..DeviceProcesses::default() };
    assert_eq!(idle(&node.publish(list, 1)), Vec::<String>::new(), "it may be an MPS server");
    for host_pids in [Some(false), None] {
        let node =
            Node { host_pids, ..Node::new(pods(&[(1, false)]), vec![shared_allocation(0, 0)]) };
        let snapshot = node.publish(listing(Vec::new()), 0);
        assert_eq!(idle(&snapshot), Vec::<String>::new(), "the driver may hide its processes");
    }
}

#[test]
fn a_pod_with_a_process_in_the_cgroup_of_a_container_has_no_sandbox() {
    let mut node = Node::new(pods_of_class("crun", &[(2, false)]), vec![shared_allocation(0, 0)]);
    node.now = NOW.mono;
    let unknown = || process(7, Ok(pod_location(0, 9)), 10, 20.0);
    let snapshot = node.publish(listing(vec![unknown()]), 10);
    assert_eq!(names(&snapshot.tables.processes), ["pod-0/c0 7"], "the sandbox");
    let own = process(8, Ok(pod_location(0, 0)), 1, 0.0);
    let snapshot = node.publish(listing(vec![unknown(), own]), 11);
    assert_eq!(names(&snapshot.tables.processes), ["pod-0/c0 8"], "7 is of an earlier container");
}

#[test]
fn sum_of_a_container_is_withheld_if_a_process_is_unresolved() {
    let node = Node::new(pods(&[(1, false)]), vec![shared_allocation(0, 0)]);
    let partition = |processes: Vec<ProcessSample>| {
        let mut snapshot = node.publish(listing(processes), 12);
        snapshot.device_usages.remove(0).partitions.remove(0)
    };
    let own = || process(7, Ok(pod_location(0, 0)), 10, 20.0);
    let complete = partition(vec![own()]);
    assert_eq!(complete.containers.len(), 1);
    assert_eq!(complete.containers[0].usage.memory, Ok(10 * MIB));
    assert_eq!(complete.containers[0].usage.sm(), Ok(20.0));

    let incomplete = partition(vec![own(), process(8, Err(Discard::Denied), 1, 5.0)]);
    assert_eq!(incomplete.containers[0].usage.memory, Err(Missing::Pending));
    let processes = incomplete.processes.unwrap();
    let resolved: Vec<_> = processes.iter().map(|one| one.owner.container().is_some()).collect();
    assert_eq!(resolved, [true, false], "both processes are listed");
    assert_eq!(processes[0].usage.memory, Ok(10 * MIB));

    let failed = node.publish_listing(Err(Missing::Failed(999)), 12).device_usages.remove(0);
    assert_eq!(failed.partitions[0].processes.as_ref().unwrap_err(), &Missing::Failed(999));
    assert_eq!(failed.partitions[0].containers[0].usage.memory, Err(Missing::Failed(999)));
}

#[test]
fn memory_of_an_exited_process_stays_with_its_container() {
    let node = Node::new(
        pods(&[(1, false), (1, false)]),
        vec![shared_allocation(0, 0), shared_allocation(1, 0)],
    );
    let entry = StaleProcessEntry {
        reason: Discard::Gone,
        location: Some(Arc::new(pod_location(0, 0))),
        memory: Ok(7 * MIB),
    };
    let list = DeviceProcesses { stale_entries: vec![entry], ..DeviceProcesses::default() };
    let snapshot = node.publish(list, 7);
    // The exited process has no series. Its container is not idle while the memory is in use; the
    // other container is idle.
    assert_eq!(names(&snapshot.tables.processes), ["pod-1/c0 0"]);
    let balance = snapshot.health.attribution.framebuffer[0].bytes_by_owner;
    assert_eq!(balance[0], ("container", i64::try_from(7 * MIB).unwrap()));
}

#[test]
fn memory_of_an_mps_server_is_accounted_separately() {
    let node = Node::new(pods(&[(1, false)]), vec![shared_allocation(0, 0)]);
    let server = ProcessSample {
        name: "nvidia-cuda-mps".into(),
        ..process(6, Ok(CgroupLocation::Host), 30, 0.0)
    };
    let client =
        ProcessSample { kind: ProcessKind::Mps, ..process(7, Ok(pod_location(0, 0)), 100, 0.0) };
    let snapshot = node.publish(listing(vec![server, client]), 140);
    assert_eq!(names(&snapshot.tables.processes), ["pod-0/c0 7"]);
    assert_eq!(names(&snapshot.tables.illegal), Vec::<String>::new());
    let mib = |bytes: i64| bytes / i64::try_from(MIB).unwrap();
    let balance = snapshot.health.attribution.framebuffer[0]
        .bytes_by_owner
        .map(|(owner, bytes)| (owner, mib(bytes)));
    assert_eq!(
        balance,
        [("container", 100), ("host", 0), ("mps_server", 30), ("unknown", 0), ("unaccounted", 10)]
    );
}

#[test]
fn container_series_is_the_sum_of_its_processes_up_to_100_percent() {
    let node = Node {
        process_series: ProcessSeries::PerContainer,
        ..Node::new(
            pods(&[(1, false), (1, false)]),
            vec![shared_allocation(0, 0), shared_allocation(1, 0)],
        )
    };
    let workers = (7..11).map(|pid| process(pid, Ok(pod_location(0, 0)), 10, 20.0)).collect();
    let snapshot = node.publish(listing(workers), 40);
    let series = series(&snapshot.tables.processes);
    assert_eq!(series.len(), 2);
    assert_eq!((&*series[0].0, series[0].1.memory), ("pod-0/c0 ", Ok(40 * MIB)));
    assert!((series[0].1.utilization.unwrap().sm - 80.0).abs() < 1e-9);
    assert_eq!(&*series[1].0, "pod-1/c0 ", "idle and busy containers have the same labels");

    let saturated = (7..11).map(|pid| process(pid, Ok(pod_location(0, 0)), 10, 90.0)).collect();
    let snapshot = node.publish(listing(saturated), 40);
    assert!((snapshot.tables.processes[0].1.utilization.unwrap().sm - 100.0).abs() < 1e-9);

    let mut unknown = process(8, Ok(pod_location(0, 0)), 10, 0.0);
    unknown.usage.utilization = Err(Missing::Pending);
    let snapshot =
        node.publish(listing(vec![process(7, Ok(pod_location(0, 0)), 10, 20.0), unknown]), 20);
    let sum = snapshot.tables.processes[0].1;
    assert_eq!(sum.utilization, Err(Missing::Pending), "an incomplete sum is withheld");
    assert_eq!(sum.memory, Ok(20 * MIB));
}

#[test]
fn a_container_with_an_mps_server_is_not_idle() {
    let node = Node::new(
        pods(&[(1, false), (1, false)]),
        vec![shared_allocation(0, 0), shared_allocation(1, 0)],
    );
    let server = ProcessSample {
        name: "nvidia-cuda-mps".into(),
        ..process(7, Ok(pod_location(0, 0)), 30, 0.0)
    };
    let client =
        ProcessSample { kind: ProcessKind::Mps, ..process(8, Ok(pod_location(1, 0)), 10, 20.0) };
    let snapshot = node.publish(listing(vec![server, client]), 40);
    let found = names(&snapshot.tables.processes);
    assert_eq!(found, ["pod-1/c0 8"], "its use is that of the client");
}

#[test]
fn the_mode_of_a_container_is_unknown_while_its_allocation_is() {
    let node = Node::new(pods(&[(1, false)]), Vec::new());
    let user = |node: &Node| {
        let busy = process(7, Ok(pod_location(0, 0)), 30, 0.0);
        let snapshot = node.publish(listing(vec![busy]), 40);
        snapshot.device_usages[0].partitions[0].containers[0].mode
    };
    assert_eq!(user(&node), Some(AllocateMode::None));
    let unknown = AllocationTable::new([], AllocationCompleteness::default()).as_of(NOW.mono, true);
    assert_eq!(user(&Node { allocations: unknown, ..node }), None);
}

/// Cgroup of a generated process.
fn location() -> impl Strategy<Value = Result<CgroupLocation, Discard>> {
    prop_oneof![
        6 => (0_usize..6, 0_usize..4).prop_map(|(pod, container)| Ok(pod_location(pod, container))),
        1 => Just(Ok(CgroupLocation::Host)),
        1 => Just(Ok(CgroupLocation::Conflict)),
        1 => Just(Err(Discard::Denied)),
        1 => (0_usize..6, 0_usize..4).prop_map(|(pod, container)| {
            Ok(CgroupLocation::Container(
                ContainerId::parse(container_id(pod, container).as_bytes()).unwrap(),
            ))
        }),
    ]
}

proptest! {
    #[test]
    fn invariants_hold_for_any_node(
        pods_of in prop::collection::vec((1_usize..4, any::<bool>()), 0..5),
        allocated in prop::collection::btree_set((0_usize..5, 0_usize..3), 0..8),
        processes_of in prop::collection::vec((location(), 0_u64..64, 0.0..60.0_f64), 0..12),
        stale_memory in prop::collection::vec(0_u64..64, 0..2),
        unaccounted in 0_u64..64,
        process_series in prop_oneof![
            Just(ProcessSeries::PerProcess),
            Just(ProcessSeries::PerContainer),
        ],
    ) {
        let exists = |(pod, container): &(usize, usize)| {
            pods_of.get(*pod).is_some_and(|(count, _)| container < count)
        };
        let allocated: BTreeSet<_> = allocated.into_iter().filter(exists).collect();
        let allocations = allocated
            .iter()
            .map(|(pod, container)| shared_allocation(*pod, *container))
            .collect();
        let node = Node { process_series, ..Node::new(pods(&pods_of), allocations) };
        let listed: Vec<ProcessSample> = (1..)
            .zip(&processes_of)
            .map(|(pid, (location, mib, sm))| process(pid, location.clone(), *mib, *sm))
            .collect();
        let exited: Vec<StaleProcessEntry> = stale_memory
            .iter()
            .map(|mib| StaleProcessEntry { reason: Discard::Gone, location: None, memory: Ok(mib * MIB) })
            .collect();
        let used: u64 = processes_of.iter().map(|(_, mib, _)| mib).chain(&stale_memory).sum();
        let list = DeviceProcesses { processes: listed, stale_entries: exited, lists_mps_clients: true, ..DeviceProcesses::default() };
        let snapshot = node.publish(list, used + unaccounted);
        let (processes, illegal) = (&snapshot.tables.processes, &snapshot.tables.illegal);

        // No series occurs twice, and no process is in two families.
        let mut seen = BTreeSet::new();
        for (labels, _) in processes.iter().chain(illegal) {
            let key: Vec<_> = labels.pairs().into_iter().map(|(_, value)| value).collect();
            prop_assert!(seen.insert(key), "{labels:?} occurs twice");
        }
        let pids: Vec<String> = processes
            .iter()
            .chain(illegal)
            .map(|(labels, _)| label(labels, "ProcessId"))
            .filter(|pid| !matches!(pid.as_str(), "" | "0"))
            .collect();
        prop_assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), pids.len());

        for (labels, usage) in processes.iter().chain(illegal) {
            // All pod labels are set, or none.
            let is_set = ["PodName", "NamespaceName", "ContainerName"]
                .map(|key| !label(labels, key).is_empty());
            prop_assert!(is_set.iter().all(|is| *is) || is_set.iter().all(|is| !*is), "{labels:?}");
            // They are those of a pod of this node.
            if is_set[0] {
                let pod: usize = label(labels, "PodName")[4..].parse().unwrap();
                let container: usize = label(labels, "ContainerName")[1..].parse().unwrap();
                prop_assert!(exists(&(pod, container)), "{labels:?}");
                // All containers of a pod may use the devices of the pod.
                let is_allocated = allocated.iter().any(|(other, _)| *other == pod);
                let mode = label(labels, "AllocateMode");
                prop_assert_eq!(mode, if is_allocated { "share" } else { "none" });
            }
            // Withheld if a process with an unreadable entry may be of the same container.
            prop_assert!(usage.utilization.is_err() || (0.0..=100.0).contains(&usage.sm().unwrap()));
        }
        for (labels, _) in processes {
            prop_assert!(!label(labels, "PodName").is_empty(), "in a cluster every process series has a pod");
        }

        // The sum by owner is the used framebuffer.
        let balance = &snapshot.health.attribution.framebuffer[0].bytes_by_owner;
        let sum: i64 = balance.iter().map(|(_, bytes)| bytes).sum();
        prop_assert_eq!(sum, i64::try_from((used + unaccounted) * MIB).unwrap());
        prop_assert_eq!(balance[4].1, i64::try_from(unaccounted * MIB).unwrap());

        // A container is idle only if no process with an unknown owner may be of its pod.
        let ids = (0..6).flat_map(|pod| (0..4).map(move |container| (pod, container)));
        let known: Vec<_> = ids.filter(exists).map(|(pod, container)| container_id(pod, container)).collect();
        let may_be_anywhere = processes_of.iter().any(|(location, ..)| match location {
            Err(_) | Ok(CgroupLocation::Conflict) => true,
            Ok(CgroupLocation::Container(id)) => !known.iter().any(|known| known == id.as_str()),
            Ok(_) => false,
        });
        for (labels, _) in processes.iter().filter(|(labels, _)| label(labels, "ProcessId") == "0") {
            let pod: usize = label(labels, "PodName")[4..].parse().unwrap();
            let unknown = (0..4).filter(|container| !exists(&(pod, *container)));
            let unknown: Vec<_> = unknown.map(|container| Ok(pod_location(pod, container))).collect();
            let may_be_of_it = processes_of.iter().any(|(location, ..)| unknown.contains(location));
            prop_assert!(!may_be_anywhere && !may_be_of_it && stale_memory.is_empty(), "{labels:?}");
        }
    }
}
