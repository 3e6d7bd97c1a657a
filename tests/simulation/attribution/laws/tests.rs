//! Each law is violated by an exposition that breaks it.

use std::fmt::Write as _;

use super::super::series::Received;
use super::super::timeline::{
    Access, Allocation, Claimed, Container, Device, Fault, FaultKind, Gpu, Kind, Mps, Ms, Owner,
    Pod, Process, ProcessKind, Run, Use, World,
};
use super::Reference;

const GPU: Device = Device { gpu: 0, instance: None };
const OTHER: Device = Device { gpu: 1, instance: None };
const FOREVER: Ms = 10_000_000;
const AT: Ms = 100_000;

fn gpu(index: u32) -> Gpu {
    Gpu {
        uuid: format!("GPU-{index}"),
        minor: index,
        total_mib: 1000,
        instances: Vec::new(),
        mps: Mps::Off,
    }
}

/// A running pod that is allocated a GPU.
fn pod(name: &str, device: Device) -> Pod {
    let allocation = Allocation {
        device,
        shared: false,
        memory: 1000.0,
        reserved: true,
        compute: 0.0,
        hidden: false,
    };
    let container = Container {
        name: "main".to_owned(),
        kind: Kind::App,
        runs: vec![Run { id: String::new(), start: 2_000, end: FOREVER }],
        foreign_id: None,
        network: None,
        requests: Vec::new(),
        listed: Vec::new(),
        claims: Vec::new(),
        allocations: vec![allocation],
    };
    Pod {
        uid: name.to_owned(),
        hash: None,
        namespace: "team".to_owned(),
        name: name.to_owned(),
        labels: Vec::new(),
        annotations: Vec::new(),
        forges: false,
        changes_amounts: false,
        sandboxed: false,
        runtime_class: None,
        reserves: false,
        created: 1_000,
        admitted: 1_500,
        deleted: None,
        gone: None,
        completed: None,
        lag: 1_000,
        status_held: None,
        containers: vec![container],
    }
}

fn process(pid: u32, pod: usize, device: Device) -> Process {
    Process {
        pid,
        name: "worker".to_owned(),
        kind: ProcessKind::Compute,
        owner: Owner::Run(pod, 0, 0),
        start: 3_000,
        end: FOREVER,
        listed_until: FOREVER,
        uses: vec![Use { device, mib: 100, sm: 7 }],
        forged: None,
    }
}

/// Pod `busy` has the processes 1 and 2 on GPU 0; pod `idle` has no process on GPU 1.
fn world() -> World {
    World {
        length: FOREVER,
        cgroup_v2: true,
        per_container: false,
        lists_ended: false,
        has_mps_replicas: false,
        has_dynamic_mig: false,
        has_logs: true,
        enforces_shares: false,
        proc_delay: 0,
        gpus: vec![gpu(0), gpu(1)],
        pods: vec![pod("busy", GPU), pod("idle", OTHER)],
        processes: vec![process(1, 0, GPU), process(2, 0, GPU)],
        faults: Vec::new(),
        starts: vec![0],
    }
}

fn received() -> Received {
    let read = vec![AT, AT - 5_000, AT - 10_000];
    Received { at: AT, started: 0, read: vec![read.clone(), read], pods: Some(AT), list: Some(AT) }
}

/// `metric pod gpu pid value` as a line of the exposition.
fn line(text: &str) -> String {
    let fields: Vec<&str> = text.split(' ').collect();
    let [metric, pod, gpu, pid, value] = fields.as_slice() else { panic!("{text}") };
    let (namespace, container) = if pod.is_empty() { ("", "") } else { ("team", "main") };
    let mode = if metric.starts_with("ILLEGAL") { "none" } else { "exclusive" };
    format!(
        "DCGM_CUSTOM_{metric}{{UUID=\"GPU-{gpu}\",AllocateMode=\"{mode}\",NamespaceName=\"{namespace}\",\
         PodName=\"{pod}\",ContainerName=\"{container}\",ProcessId=\"{pid}\",\
         ProcessName=\"worker\",ProcessType=\"C\"}} {value}"
    )
}

/// The expositon of `world` in the given order.
const COMPLETE: [&str; 13] = [
    "PROCESS_MEM_USED busy 0 1 100",
    "PROCESS_MEM_USED busy 0 2 100",
    "PROCESS_MEM_USED idle 1 0 0",
    "PROCESS_SM_UTIL busy 0 1 7",
    "PROCESS_SM_UTIL busy 0 2 7",
    "PROCESS_SM_UTIL idle 1 0 0",
    "CONTAINER_MEM_ALLOCATED busy 0  1000",
    "CONTAINER_MEM_ALLOCATED idle 1  1000",
    "CONTAINER_CP_ALLOCATED busy 0  0",
    "CONTAINER_CP_ALLOCATED idle 1  0",
    "DEV_FB_ALLOCATED  0  1",
    "DEV_FB_ALLOCATED  1  1",
    "ALLOCATE_MODE  0  1",
];

/// Kinds of violations of an exposition.
fn kinds(reference: &mut Reference, world: &World, lines: &[&str]) -> Vec<&'static str> {
    kinds_in_mode(reference, world, (lines, "", ""))
}

/// Kinds of violations of an exposition in which the series of a pod have another mode.
fn kinds_in_mode(
    reference: &mut Reference,
    world: &World,
    (lines, pod, mode): (&[&str], &str, &str),
) -> Vec<&'static str> {
    let mut lines = lines.to_vec();
    lines.sort_unstable();
    let mut text = String::new();
    let mut open = "";
    for entry in lines {
        let name = entry.split(' ').next().unwrap();
        if name != open {
            let _ = writeln!(text, "# HELP DCGM_CUSTOM_{name} h\n# TYPE DCGM_CUSTOM_{name} gauge");
        }
        open = name;
        let line = line(entry);
        let is_of_pod = !pod.is_empty() && entry.split(' ').nth(1) == Some(pod);
        let changed =
            if is_of_pod { line.replace("\"exclusive\"", &format!("\"{mode}\"")) } else { line };
        let _ = writeln!(text, "{changed}");
    }
    let mut kinds: Vec<&str> =
        reference.check(world, &received(), &text).iter().map(|violation| violation.kind).collect();
    kinds.dedup();
    kinds
}

/// The complete exposition without `without`, with `with`.
fn changed<'a>(without: &str, with: &[&'a str]) -> Vec<&'a str> {
    let kept = COMPLETE.iter().filter(|line| without.is_empty() || !line.contains(without));
    kept.chain(with).copied().collect()
}

#[test]
fn complete_exposition_has_no_violation() {
    assert_eq!(kinds(&mut Reference::default(), &world(), &COMPLETE), [""; 0]);
}

#[test]
fn violations_of_the_exposition_are_found() {
    let sums = ["PROCESS_MEM_USED busy 0  200", "PROCESS_SM_UTIL busy 0  14"];
    let alone = changed("busy 0 ", &["CONTAINER_MEM_ALLOCATED busy 0  1000", sums[0], sums[1]]);
    assert_eq!(kinds(&mut Reference::default(), &world(), &alone), [""; 0]);
    for (without, with, kind) in [
        ("", "PROCESS_MEM_USED busy 0 1 100", "8: exposition"),
        ("", "PROCESS_MEM_USED busy 7 1 100", "8: exposition"),
        ("", "PROCESS_MEM_USED busy 0 3 100", "1: no such process"),
        ("", "PROCESS_MEM_USED busy 1 1 100", "1: another device"),
        ("MEM_USED busy 0 1", "PROCESS_MEM_USED busy 0 1 101", "1: another value"),
        ("SM_UTIL busy 0 1", "PROCESS_SM_UTIL busy 0 1 8", "1: another value"),
        ("MEM_USED busy 0 1", "PROCESS_MEM_USED idle 0 1 100", "1: another owner"),
        ("MEM_USED busy 0 1", "PROCESS_MEM_USED  0 1 100", "1: PROCESS without pod labels"),
        (
            "MEM_USED busy 0 1",
            "ILLEGAL_PROCESS_MEM_USED busy 0 1 100",
            "2: ILLEGAL although allocated",
        ),
        ("", "PROCESS_MEM_USED busy 0 0 0", "3: 0 of a busy container"),
        ("", "PROCESS_MEM_USED busy 1 0 0", "3: 0 without an allocation"),
        ("idle 1 0 0", "PROCESS_MEM_USED idle 1 0 1", "3: no placeholder"),
        ("PROCESS_MEM_USED busy", "PROCESS_MEM_USED busy 0  100", "5: another sum"),
        ("PROCESS_MEM_USED busy", "PROCESS_MEM_USED busy 0  0", "5: another sum"),
        ("MEM_USED busy 0 1", "", "5: partial family"),
        ("FB_ALLOCATED  1", "DEV_FB_ALLOCATED  1  0", "6: FB_ALLOCATED"),
        ("ALLOCATE_MODE", "ALLOCATE_MODE  0  2", "6: ALLOCATE_MODE"),
        ("MEM_ALLOCATED busy", "CONTAINER_MEM_ALLOCATED busy 0  999", "6: CONTAINER_MEM_ALLOCATED"),
        ("CP_ALLOCATED busy", "CONTAINER_CP_ALLOCATED busy 0  1", "6: CONTAINER_CP_ALLOCATED"),
        ("PROCESS_MEM_USED busy", "", "7: no series of a process"),
        ("PROCESS_MEM_USED idle", "", "7: no 0"),
        ("FB_ALLOCATED  1", "", "7: no FB_ALLOCATED"),
        ("ALLOCATE_MODE", "", "7: no ALLOCATE_MODE"),
    ] {
        let with: Vec<&str> = [with].into_iter().filter(|line| !line.is_empty()).collect();
        let found = kinds(&mut Reference::default(), &world(), &changed(without, &with));
        assert!(found.contains(&kind), "{without:?}, {with:?}: {found:?} instead of {kind:?}");
    }
}

#[test]
fn changed_labels_are_found() {
    let mut reference = Reference::default();
    kinds(&mut reference, &world(), &COMPLETE);
    let illegal = changed("MEM_USED busy 0 1", &["ILLEGAL_PROCESS_MEM_USED busy 0 1 100"]);
    assert!(kinds(&mut reference, &world(), &illegal).contains(&"4: labels changed"));
}

#[test]
fn violations_of_other_worlds_are_found() {
    let mut all: Vec<(World, &str)> = Vec::new();
    let mut add = |change: &dyn Fn(&mut World), kind| {
        let mut world = world();
        change(&mut world);
        all.push((world, kind));
    };
    add(&|world| world.pods[0].gone = Some(60_000), "1: PROCESS of an ended pod");
    add(&|world| world.processes[0].owner = Owner::Host, "1: another owner");
    add(&|world| world.processes[0].name = "other".to_owned(), "1: another name");
    add(&|world| world.processes[0].kind = ProcessKind::Both, "1: another type");
    add(
        &|world| {
            world.enforces_shares = true;
            world.gpus[0].total_mib = 900;
        },
        "6: more than the device",
    );
    add(
        &|world| world.pods[0].containers[0].allocations.clear(),
        "1: PROCESS without an allocation",
    );
    add(&|world| world.pods[0].containers[0].allocations[0].shared = true, "1: another mode");
    add(
        &|world| world.pods[1].containers[0].runs[0].end = 50_000,
        "3: 0 of a container that is not running",
    );
    add(
        &|world| world.pods[1].containers[0].runs[0].start = AT + 1_000,
        "3: 0 of a container that is not running",
    );
    add(&|world| world.processes.push(process(3, 1, GPU)), "3: 0 while working elsewhere");
    for (kind, found) in [
        (FaultKind::MemoryUnknown(1), "1: unknown memory"),
        (FaultKind::RowInvalid(1), "1: unknown utilization"),
        (FaultKind::RowsFail(0), "1: unknown utilization"),
    ] {
        let fault = Fault { from: AT - 20_000, to: FOREVER, kind };
        add(&|world| world.faults.push(fault.clone()), found);
    }
    for (world, kind) in all {
        let found = kinds(&mut Reference::default(), &world, &COMPLETE);
        assert!(found.contains(&kind), "{found:?} instead of {kind:?}");
    }
}

#[test]
fn administrative_access_is_legal_use_without_an_allocation() {
    let mut world = world();
    let mut monitor = pod("monitor", GPU);
    monitor.containers[0].allocations.clear();
    let (claim, access) = ("all".to_owned(), Access::Admin);
    monitor.containers[0].claims = vec![Claimed { claim, device: GPU, access }];
    world.pods.push(monitor);
    world.processes.push(process(3, 2, GPU));
    let kinds = |family: &str, mode: &str| {
        let series = |metric: &str, value| format!("{metric} monitor 0 3 {value}");
        let own =
            [series("MEM_USED", 100), series("SM_UTIL", 7)].map(|own| format!("{family}_{own}"));
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        kinds_in_mode(&mut Reference::default(), &world, (&changed("", &own), "monitor", mode))
    };
    assert_eq!(kinds("PROCESS", "none"), [""; 0]);
    assert_eq!(kinds("PROCESS", "exclusive"), ["1: another mode"]);
    assert!(kinds("ILLEGAL_PROCESS", "none").contains(&"2: ILLEGAL although allocated"));
}

#[test]
fn a_forger_may_be_wrong_about_itself_only() {
    let mut world = world();
    world.pods[0].containers[0].allocations[0].device = OTHER;
    (world.pods[0].forges, world.pods[0].changes_amounts) = (true, true);
    let of = |lines: &[&str]| kinds(&mut Reference::default(), &world, lines);
    assert_eq!(of(&COMPLETE), [""; 0]);
    assert_eq!(of(&changed("busy", &[])), [""; 0]);
    assert_eq!(of(&changed("FB_ALLOCATED", &["DEV_FB_ALLOCATED  1  0.5"])), [""; 0]);
    assert!(of(&changed("PROCESS_MEM_USED idle", &[])).contains(&"7: no 0"));
    let other = changed("MEM_USED busy 0 1", &["PROCESS_MEM_USED idle 0 1 100"]);
    assert!(of(&other).contains(&"1: another owner"));
}

#[test]
fn too_many_idle_seconds_are_found() {
    let mut reference = Reference::default();
    let idle = |seconds: &'static str| changed("", &[seconds]);
    let first = idle("CONTAINER_IDLE_SECONDS_TOTAL idle 1  0");
    assert_eq!(kinds(&mut reference, &world(), &first), [""; 0]);
    let second = idle("CONTAINER_IDLE_SECONDS_TOTAL idle 1  5");
    assert_eq!(kinds(&mut reference, &world(), &second), ["9: idle seconds"]);
}

#[test]
fn stale_readings_are_found() {
    let text = |line: &str| {
        format!("# HELP {0} h\n# TYPE {0} gauge\n{line}\n", line.split('{').next().unwrap())
    };
    let check = |received: &Received, entry| {
        let violations = Reference::default().check(&world(), received, &text(&line(entry)));
        violations.iter().map(|violation| violation.kind).collect::<Vec<_>>()
    };
    let mut old = received();
    old.read = vec![vec![AT - 16_000]; 2];
    assert!(check(&old, "PROCESS_MEM_USED busy 0 1 100").contains(&"1: stale"));
    assert!(check(&old, "PROCESS_MEM_USED idle 1 0 0").contains(&"3: stale 0"));
    let before = Received { pods: None, ..received() };
    assert!(check(&before, "PROCESS_MEM_USED idle 1 0 0").contains(&"3: 0 without the pods"));
    let mut early = received();
    early.read = vec![vec![1_400]; 2];
    early.at = 8_000;
    assert!(
        check(&early, "PROCESS_MEM_USED idle 1 0 0").contains(&"3: 0 older than the container")
    );
}
