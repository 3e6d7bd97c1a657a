//! Laws of attribution, over worlds that nobody would think of: who is told, under whose name, and
//! that nothing is lost or made up on the way.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::attribute::family::Allocation;
use nvml_exporter::attribute::holdings::{Holdings, Share};
use nvml_exporter::attribute::owner::{Directory, Holder};
use nvml_exporter::attribute::{DevicePods, Grain, Terms, attribute};
use nvml_exporter::kube::allocation::Coverage;
use nvml_exporter::kube::pod;
use nvml_exporter::kube::pods::{PodMap, Pods};
use nvml_exporter::labels::{Compat, Dialect, Labels, Schema, Style};
use nvml_exporter::model::{
    AllocateMode, Claim, ContainerId, Discard, Discards, EngineShares, Gpu, Limits, Listing,
    Missing, Moment, Placement, PodPath, PodRef, PodUid, ProcessId, ProcessKind, ProcessSample,
    Residue, Usage,
};
use nvml_exporter::nvml::inventory::Driver;
use nvml_exporter::nvml::raw::Handle;
use nvml_exporter::nvml::raw::memory::Memory;
use nvml_exporter::reserved_labels::ReservedLabels;
use nvml_exporter::sample::device::DeviceSample;
use nvml_exporter::sample::part::PartSample;
use nvml_exporter::sample::ring::Watched;
use nvml_exporter::sample::{DriverState, Sample, SampledGpu};
use nvml_exporter::selection::{Frame, Selection, preset};
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

/// Pods `pod-0`, `pod-1`, … with as many containers each, of which the last may have no id yet.
fn pods(containers: &[(usize, bool)]) -> Pods {
    let mut map = PodMap::new("api", "node-1");
    for (pod, (count, last_is_new)) in containers.iter().enumerate() {
        let names: Vec<String> = (0..*count).map(|c| format!(r#"{{"name":"c{c}"}}"#)).collect();
        let known = if *last_is_new { count - 1 } else { *count };
        let status = (0..known).map(|c| {
            let id = container_id(pod, c);
            format!(
                r#"{{"name":"c{c}","containerID":"containerd://{id}","state":{{"running":{{}}}}}}"#
            )
        });
        let text = format!(
            r#"{{"metadata":{{"uid":"{}","namespace":"ns-{}","name":"pod-{pod}"}},
                "spec":{{"nodeName":"node-1","containers":[{}]}},
                "status":{{"phase":"Running","containerStatuses":[{}]}}}}"#,
            uid(pod),
            pod % 2,
            names.join(","),
            status.collect::<Vec<_>>().join(",")
        );
        map.apply(pod::parse(text.as_bytes()).unwrap(), Duration::ZERO);
    }
    map.complete(Duration::ZERO);
    map.health.answered(Duration::ZERO);
    map.picture(Duration::ZERO)
}

fn holder(pod: usize, container: usize) -> Holder {
    let pod = PodRef {
        uid: uid(pod).into(),
        namespace: format!("ns-{}", pod % 2).into(),
        name: format!("pod-{pod}").into(),
    };
    Holder { pod, container: format!("c{container}").into() }
}

fn share(pod: usize, container: usize) -> Share {
    Share {
        holder: holder(pod, container),
        device: GPU.into(),
        mode: AllocateMode::Share,
        memory: Some(100.0),
        compute: 0.3,
        replica: "".into(),
        claim: None,
        confirmed: true,
        running: true,
    }
}

fn placed(pod: usize, container: usize) -> Placement {
    let id = ContainerId::parse(container_id(pod, container).as_bytes()).unwrap();
    let uid = PodUid::parse(uid(pod).as_bytes()).unwrap();
    Placement::Pod(vec![PodPath { uid, container: Some(id) }])
}

fn process(pid: u32, placement: Result<Placement, Discard>, mib: u64, sm: f64) -> ProcessSample {
    ProcessSample {
        id: ProcessId { pid, started: 1 },
        name: "python".into(),
        kind: ProcessKind::Compute,
        seen: Duration::from_secs(900),
        placement: placement.map(Arc::new),
        usage: Usage {
            memory: Ok(mib * MIB),
            utilization: Ok(EngineShares { sm, ..EngineShares::default() }),
        },
    }
}

fn sample(listing: Result<Listing, Missing>, used_mib: u64) -> Sample {
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
    let part = PartSample {
        mig: None,
        cells: Vec::new(),
        tells_of_instance: true,
        framebuffer,
        listing,
        utilization: Ok(Watched { span: Duration::from_secs(5), unlisted_sm: 0.0 }),
    };
    let cell = nvml_exporter::sample::cells::Cell { reading: Ok(1.0), at: NOW.mono };
    let answer = DeviceSample {
        gpu: Arc::new(gpu),
        handle: Handle::none(),
        limits: Limits::default(),
        at: NOW,
        cells: vec![Some(cell); nvml_exporter::catalog::DEVICE.len()],
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
    };
    Sample {
        at: NOW,
        took: Duration::ZERO,
        driver: DriverState::Up(Driver::default()),
        gpu_count: Some((Ok(1.0), NOW)),
        node_took: None,
        gpus: vec![SampledGpu { latest: Some(Ok(Arc::new(answer))), ..SampledGpu::default() }],
        xids: BTreeMap::new(),
        clocks: BTreeMap::new(),
        vitals: BTreeMap::new(),
        open_failures: BTreeMap::new(),
        cycles: 1,
        abandoned: 0,
    }
}

/// Everything but the sample.
struct World {
    dialect: Dialect,
    device_pods: Option<DevicePods>,
    pods: Pods,
    holdings: Holdings,
    grain: Grain,
    host_pids: Option<bool>,
}

impl World {
    fn new(pods: Pods, shares: Vec<Share>) -> Self {
        let holdings = Holdings::new(shares, BTreeSet::new(), false, Coverage::default())
            .as_of(NOW.mono, true);
        Self {
            dialect: Dialect::Ack,
            device_pods: None,
            pods,
            holdings,
            grain: Grain::Process,
            host_pids: Some(true),
        }
    }

    fn publish(&self, listing: Listing, used_mib: u64) -> Snapshot {
        self.publish_answer(Ok(listing), used_mib)
    }

    fn publish_answer(&self, listing: Result<Listing, Missing>, used_mib: u64) -> Snapshot {
        let schema = Schema {
            dialect: self.dialect.clone(),
            hostname: "h".to_owned(),
            node_name: "node-1".to_owned(),
            extra: Vec::new(),
            style: Style::default(),
        };
        let selection = Arc::new(Selection::of(&preset(&self.dialect), Frame::default()));
        let (problems, reserved) = (BTreeMap::new(), ReservedLabels::of(&self.dialect));
        let terms = Terms {
            selection: &selection,
            schema: &schema,
            device_pods: self.device_pods.as_ref(),
            jobs: &BTreeMap::new(),
            max_age: Duration::from_secs(15),
            grain: self.grain,
            reserved: &reserved,
            directory: Directory { pods: Some(&self.pods), ..Directory::default() },
            allocation: Allocation::Known(&self.holdings),
            host_pids: self.host_pids,
            sources: &[],
            problems: &problems,
        };
        attribute(sample(listing, used_mib), &terms).0
    }
}

fn listing(processes: Vec<ProcessSample>) -> Listing {
    Listing { processes, residues: Vec::new() }
}

fn label(labels: &Labels, key: &str) -> String {
    labels.value(key).unwrap()
}

/// `pod/container pid` of each series of a table, with what it uses.
fn told(table: &[(Labels, Usage)]) -> Vec<(String, Usage)> {
    let name = |labels: &Labels| {
        let [pod, container, pid] =
            ["PodName", "ContainerName", "ProcessId"].map(|key| label(labels, key));
        format!("{pod}/{container} {pid}")
    };
    table.iter().map(|(labels, usage)| (name(labels), *usage)).collect()
}

fn names(table: &[(Labels, Usage)]) -> Vec<String> {
    told(table).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_device_that_was_claimed_names_its_claim_if_asked() {
    let claim = Claim { name: "llm".into(), namespace: "ns-0".into(), ..Claim::default() };
    let claimed =
        Share { mode: AllocateMode::Exclusive, claim: Some(Arc::new(claim)), ..share(0, 0) };
    let mut world = World::new(pods(&[(1, false)]), vec![claimed]);
    world.dialect = Dialect::DcgmExporter(vec![Compat::V4_8]);
    let claims = |world: &World| {
        let snapshot = world.publish(listing(Vec::new()), 0);
        let labels = &snapshot.tables.devices[0].labels;
        ["dra_claim_name", "dra_claim_namespace", "dra_mig_profile"].map(|key| labels.value(key))
    };
    let told = |text: &str| Some(text.to_owned());
    world.device_pods = Some(DevicePods { claims: true, ..DevicePods::default() });
    assert_eq!(claims(&world), [told("llm"), told("ns-0"), told("")]);
    world.holdings = Holdings::default().as_of(NOW.mono, true);
    assert_eq!(claims(&world), [told(""), told(""), told("")], "nobody's has them empty");
    world.device_pods = Some(DevicePods::default());
    assert_eq!(claims(&world), [None, None, None]);
}

#[test]
fn each_process_is_told_under_its_own_container_and_the_idle_at_zero() {
    let world =
        World::new(pods(&[(2, false), (1, false)]), vec![share(0, 0), share(0, 1), share(1, 0)]);
    let snapshot = world.publish(
        listing(vec![process(7, Ok(placed(0, 1)), 10, 20.0), process(8, Ok(placed(0, 1)), 5, 1.0)]),
        15,
    );
    let told = told(&snapshot.tables.processes);
    let memory: Vec<_> = told.iter().map(|(name, usage)| (&**name, usage.memory)).collect();
    assert_eq!(
        memory,
        [
            ("pod-0/c1 7", Ok(10 * MIB)),
            ("pod-0/c1 8", Ok(5 * MIB)),
            ("pod-0/c0 0", Ok(0)),
            ("pod-1/c0 0", Ok(0)),
        ]
    );
    assert_eq!(told[2].1.utilization, Ok(EngineShares::default()));
    assert_eq!(label(&snapshot.tables.processes[0].0, "AllocateMode"), "share");
    assert_eq!(snapshot.tables.containers.len(), 3);
}

#[test]
fn nobody_is_called_idle_on_any_doubt() {
    let world = World::new(pods(&[(1, false)]), vec![share(0, 0)]);
    let idle = |snapshot: &Snapshot| names(&snapshot.tables.processes);
    assert_eq!(idle(&world.publish(listing(Vec::new()), 0)), ["pod-0/c0 0"]);

    let failed = world.publish_answer(Err(Missing::Failed(999)), 0);
    assert_eq!(idle(&failed), Vec::<String>::new(), "the driver did not list anybody");
    for placement in [Ok(Placement::Conflict), Err(Discard::Denied), Ok(placed(9, 0))] {
        let stranger = process(7, placement, 1, 0.0);
        let snapshot = world.publish(listing(vec![stranger]), 1);
        assert_eq!(idle(&snapshot), Vec::<String>::new(), "the stranger may be its process");
        assert_eq!(snapshot.health.census.unresolved.values().sum::<u64>(), 1);
    }
    for why in [Discard::Gone, Discard::Pid, Discard::Zombie] {
        let residue = Residue { why, placement: None, memory: Ok(MIB) };
        let list = Listing { processes: Vec::new(), residues: vec![residue] };
        assert_eq!(idle(&world.publish(list, 1)), Vec::<String>::new(), "{why:?}");
    }
    for host_pids in [Some(false), None] {
        let world = World { host_pids, ..World::new(pods(&[(1, false)]), vec![share(0, 0)]) };
        let snapshot = world.publish(listing(Vec::new()), 0);
        assert_eq!(idle(&snapshot), Vec::<String>::new(), "the driver may hide its processes");
    }
}

#[test]
fn people_see_no_sum_that_somebody_may_be_missing_from() {
    let world = World::new(pods(&[(1, false)]), vec![share(0, 0)]);
    let seen = |processes: Vec<ProcessSample>| {
        let mut snapshot = world.publish(listing(processes), 12);
        snapshot.occupancy.remove(0).parts.remove(0)
    };
    let own = || process(7, Ok(placed(0, 0)), 10, 20.0);
    let known = seen(vec![own()]);
    assert_eq!(known.tenants.len(), 1);
    assert_eq!(known.tenants[0].usage.memory, Ok(10 * MIB));
    assert_eq!(known.tenants[0].usage.sm(), Ok(20.0));

    let doubtful = seen(vec![own(), process(8, Err(Discard::Denied), 1, 5.0)]);
    assert_eq!(doubtful.tenants[0].usage.memory, Err(Missing::Pending));
    let residents = doubtful.residents.unwrap();
    let whose: Vec<_> = residents.iter().map(|one| one.whose.container().is_some()).collect();
    assert_eq!(whose, [true, false], "each of them is there, with what it uses");
    assert_eq!(residents[0].usage.memory, Ok(10 * MIB));

    let failed = world.publish_answer(Err(Missing::Failed(999)), 12).occupancy.remove(0);
    assert_eq!(failed.parts[0].residents.as_ref().unwrap_err(), &Missing::Failed(999));
    assert_eq!(failed.parts[0].tenants[0].usage.memory, Err(Missing::Failed(999)));
}

#[test]
fn one_that_died_a_moment_ago_was_its_containers() {
    let world = World::new(pods(&[(1, false), (1, false)]), vec![share(0, 0), share(1, 0)]);
    let residue = Residue {
        why: Discard::Gone,
        placement: Some(Arc::new(placed(0, 0))),
        memory: Ok(7 * MIB),
    };
    let list = Listing { processes: Vec::new(), residues: vec![residue] };
    let snapshot = world.publish(list, 7);
    // Its series is gone with it, its container is not idle while its memory is there, and the
    // other one is.
    assert_eq!(names(&snapshot.tables.processes), ["pod-1/c0 0"]);
    let balance = snapshot.health.census.balances[0].balance;
    assert_eq!(balance[0], ("container", i64::try_from(7 * MIB).unwrap()));
}

#[test]
fn an_mps_server_is_in_a_bucket_of_its_own() {
    let world = World::new(pods(&[(1, false)]), vec![share(0, 0)]);
    let server = ProcessSample {
        name: "nvidia-cuda-mps".into(),
        ..process(6, Ok(Placement::Host), 30, 0.0)
    };
    let client = ProcessSample { kind: ProcessKind::Mps, ..process(7, Ok(placed(0, 0)), 100, 0.0) };
    let snapshot = world.publish(listing(vec![server, client]), 140);
    assert_eq!(names(&snapshot.tables.processes), ["pod-0/c0 7"]);
    assert_eq!(names(&snapshot.tables.illegal), Vec::<String>::new());
    let mib = |bytes: i64| bytes / i64::try_from(MIB).unwrap();
    let balance = snapshot.health.census.balances[0].balance.map(|(who, bytes)| (who, mib(bytes)));
    assert_eq!(
        balance,
        [("container", 100), ("host", 0), ("mps_server", 30), ("unknown", 0), ("unaccounted", 10)]
    );
}

#[test]
fn the_series_of_a_container_is_the_sum_of_its_processes_and_never_above_all_of_it() {
    let world = World {
        grain: Grain::Container,
        ..World::new(pods(&[(1, false), (1, false)]), vec![share(0, 0), share(1, 0)])
    };
    let workers = (7..11).map(|pid| process(pid, Ok(placed(0, 0)), 10, 20.0)).collect();
    let snapshot = world.publish(listing(workers), 40);
    let told = told(&snapshot.tables.processes);
    assert_eq!(told.len(), 2);
    assert_eq!((&*told[0].0, told[0].1.memory), ("pod-0/c0 ", Ok(40 * MIB)));
    assert!((told[0].1.utilization.unwrap().sm - 80.0).abs() < 1e-9);
    assert_eq!(&*told[1].0, "pod-1/c0 ", "idle and busy have the same labels");

    let greedy = (7..11).map(|pid| process(pid, Ok(placed(0, 0)), 10, 90.0)).collect();
    let snapshot = world.publish(listing(greedy), 40);
    assert!((snapshot.tables.processes[0].1.utilization.unwrap().sm - 100.0).abs() < 1e-9);

    let mut unknown = process(8, Ok(placed(0, 0)), 10, 0.0);
    unknown.usage.utilization = Err(Missing::Pending);
    let snapshot =
        world.publish(listing(vec![process(7, Ok(placed(0, 0)), 10, 20.0), unknown]), 20);
    let sum = snapshot.tables.processes[0].1;
    assert_eq!(sum.utilization, Err(Missing::Pending), "half of a sum is no sum");
    assert_eq!(sum.memory, Ok(20 * MIB));
}

/// Where a process of a random world runs.
fn placement() -> impl Strategy<Value = Result<Placement, Discard>> {
    prop_oneof![
        6 => (0_usize..6, 0_usize..4).prop_map(|(pod, container)| Ok(placed(pod, container))),
        1 => Just(Ok(Placement::Host)),
        1 => Just(Ok(Placement::Conflict)),
        1 => Just(Err(Discard::Denied)),
        1 => (0_usize..6, 0_usize..4).prop_map(|(pod, container)| {
            Ok(Placement::Container(
                ContainerId::parse(container_id(pod, container).as_bytes()).unwrap(),
            ))
        }),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_laws_hold(
        pods_of in prop::collection::vec((1_usize..4, any::<bool>()), 0..5),
        given in prop::collection::btree_set((0_usize..5, 0_usize..3), 0..8),
        people in prop::collection::vec((placement(), 0_u64..64, 0.0..60.0_f64), 0..12),
        residues in prop::collection::vec(0_u64..64, 0..2),
        unaccounted in 0_u64..64,
        grain in prop_oneof![Just(Grain::Process), Just(Grain::Container)],
    ) {
        let exists = |(pod, container): &(usize, usize)| {
            pods_of.get(*pod).is_some_and(|(count, _)| container < count)
        };
        let given: BTreeSet<_> = given.into_iter().filter(exists).collect();
        let shares = given.iter().map(|(pod, container)| share(*pod, *container)).collect();
        let world = World { grain, ..World::new(pods(&pods_of), shares) };
        let listed: Vec<ProcessSample> = (1..)
            .zip(&people)
            .map(|(pid, (placement, mib, sm))| process(pid, placement.clone(), *mib, *sm))
            .collect();
        let gone: Vec<Residue> = residues
            .iter()
            .map(|mib| Residue { why: Discard::Gone, placement: None, memory: Ok(mib * MIB) })
            .collect();
        let held: u64 = people.iter().map(|(_, mib, _)| mib).chain(&residues).sum();
        let list = Listing { processes: listed, residues: gone };
        let snapshot = world.publish(list, held + unaccounted);
        let (processes, illegal) = (&snapshot.tables.processes, &snapshot.tables.illegal);

        // Nobody is told twice, and nobody in two families.
        let mut seen = BTreeSet::new();
        for (labels, _) in processes.iter().chain(illegal) {
            let key: Vec<_> = labels.pairs().into_iter().map(|(_, value)| value).collect();
            prop_assert!(seen.insert(key), "{labels:?} stands twice");
        }
        let pids: Vec<String> = processes
            .iter()
            .chain(illegal)
            .map(|(labels, _)| label(labels, "ProcessId"))
            .filter(|pid| !matches!(pid.as_str(), "" | "0"))
            .collect();
        prop_assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), pids.len());

        for (labels, usage) in processes.iter().chain(illegal) {
            // Pod labels are all there, or none is.
            let named = ["PodName", "NamespaceName", "ContainerName"]
                .map(|key| !label(labels, key).is_empty());
            prop_assert!(named.iter().all(|is| *is) || named.iter().all(|is| !*is), "{labels:?}");
            // And they are those of a pod of this node.
            if named[0] {
                let pod: usize = label(labels, "PodName")[4..].parse().unwrap();
                let container: usize = label(labels, "ContainerName")[1..].parse().unwrap();
                prop_assert!(exists(&(pod, container)), "{labels:?}");
                // What a pod holds, all of its containers may use.
                let legal = given.iter().any(|(holder, _)| *holder == pod);
                let mode = label(labels, "AllocateMode");
                prop_assert_eq!(mode, if legal { "share" } else { "none" });
            }
            prop_assert!((0.0..=100.0).contains(&usage.utilization.unwrap().sm));
        }
        for (labels, _) in processes {
            prop_assert!(!label(labels, "PodName").is_empty(), "in a cluster nobody is nameless");
        }

        // What is used is what somebody holds.
        let balance = &snapshot.health.census.balances[0].balance;
        let sum: i64 = balance.iter().map(|(_, bytes)| bytes).sum();
        prop_assert_eq!(sum, i64::try_from((held + unaccounted) * MIB).unwrap());
        prop_assert_eq!(balance[4].1, i64::try_from(unaccounted * MIB).unwrap());

        // A container is idle only if everybody is known.
        let doubt = !snapshot.health.census.unresolved.is_empty();
        let idle = processes.iter().filter(|(labels, _)| label(labels, "ProcessId") == "0").count();
        prop_assert!(!doubt || idle == 0);
    }
}
