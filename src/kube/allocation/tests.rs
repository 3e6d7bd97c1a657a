mod trust;

use std::num::NonZeroU64;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::kube::annotations::fixtures::pod;
use crate::kube::assignments::ContainerAssignment;
use crate::kube::pod::container::ContainerKind;
use crate::kube::pod::{self, Pod};
use crate::kube::pods::store::PodStore;
use crate::kube::sharing::SharingStrategy::{self, Mps, TimeSlicing};

mod claims;

mod groups;

const A: &str = "GPU-aaaaaaaa-0000-0000-0000-000000000000";
const B: &str = "GPU-bbbbbbbb-0000-0000-0000-000000000000";
const C: &str = "GPU-cccccccc-0000-0000-0000-000000000000";
const MIG: &str = "MIG-cccccccc-0000-0000-0000-000000000000";
const T: Duration = Duration::from_secs(100);
const ACK: &str = "scheduler.framework.gpushare.allocation";
const HAMI: &str = "hami.io/vgpu-devices-allocated";
const KOORDINATOR: &str = "scheduling.koordinator.sh/device-allocated";

/// Two GPUs with minor numbers in another order, and one with a MIG device.
fn devices() -> Vec<AllocatableGpu> {
    let mig = AllocatableMig {
        uuid: MIG.into(),
        index: 0,
        gpu_instance: 3,
        compute_instance: 0,
        placement: Some(MigPlacement { profile_id: 19, start: 2 }),
        framebuffer_mib: Some(9728.0),
        compute: Some(0.25),
    };
    let gpu = |uuid: &str, minor, migs| AllocatableGpu {
        uuid: uuid.into(),
        minor: Some(minor),
        framebuffer_mib: Some(23028.0),
        is_only: false,
        sharing: SharingEvidence { exclusive_process: Some(false), ..SharingEvidence::default() },
        migs,
    };
    vec![gpu(A, 1, vec![]), gpu(B, 0, vec![]), gpu(C, 2, vec![mig])]
}

fn pods(pods: impl IntoIterator<Item = Pod>) -> PodSnapshot {
    let mut store = PodStore::new("test", "n1");
    store.begin_list();
    for pod in pods {
        store.apply(pod, Duration::ZERO);
    }
    store.end_list(Duration::ZERO);
    store.health.record_success(Duration::ZERO);
    store.snapshot(Duration::ZERO)
}

fn assigned(pod: &str, container: &str, resource: &str, ids: &[&str]) -> ContainerAssignment {
    let ids = ids.iter().map(|id| Box::from(*id)).collect();
    ContainerAssignment {
        namespace: "demo".into(),
        pod: pod.into(),
        container: container.into(),
        devices: vec![(resource.into(), ids)],
        claims: vec![],
    }
}

/// A container with `n` units of `aliyun.com/gpu-mem`.
fn ack_units(pod: &str, container: &str, n: u32) -> ContainerAssignment {
    let ids: Vec<_> = (0..n).map(|n| format!("{B}-_-{n}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    assigned(pod, container, "aliyun.com/gpu-mem", &ids)
}

fn assignments(containers: Vec<ContainerAssignment>) -> Assignments {
    // The List of a kubelet contains all of its pods.
    let names = ["a", "b", "x", "web-0"].map(str::to_owned);
    let pods = names.into_iter().chain((0..8).map(|n| format!("p{n}")));
    let pods = pods.map(|name| ("demo".into(), name.as_str().into())).collect();
    let (requested_at, requested_at_wall_us) = (T, u64::MAX);
    Assignments { pods, containers, requested_at, requested_at_wall_us, ..Assignments::default() }
}

fn join(assignments: &Assignments, pods: &PodSnapshot) -> AllocationResult {
    resolve_allocations(
        &devices(),
        assignments,
        Some(pods),
        DraObjects::default(),
        &AllocationOptions::default(),
    )
}

/// Pod, container, device, mode, memory, compute (-1 if it is unknown), reserved.
type AllocationRow<'a> = (&'a str, &'a str, &'a str, AllocateMode, Option<f64>, f64, bool);

fn rows(out: &AllocationResult) -> Vec<AllocationRow<'_>> {
    out.allocations.iter().map(row).collect()
}

fn row(s: &DeviceAllocation) -> AllocationRow<'_> {
    let compute = s.compute.unwrap_or(-1.0);
    (&s.container.pod.name, &s.container.name, &s.device, s.mode, s.memory, compute, s.reserved)
}

fn uncertainty(out: &AllocationResult) -> (Vec<&str>, bool, Vec<(&str, u64)>) {
    let devices = out.completeness.uncertain_devices.iter().map(|device| &**device).collect();
    (devices, out.completeness.node_uncertain, out.problems.iter().map(|(k, v)| (*k, *v)).collect())
}

/// Pods with doubts, and the devices; None for all devices.
fn doubted(out: &AllocationResult) -> Vec<(&str, Option<&str>)> {
    let doubts = out.completeness.doubts.iter();
    doubts
        .flat_map(|((_, pod), doubts)| doubts.iter().map(|doubt| (&**pod, doubt)))
        .map(|(pod, doubt)| match doubt {
            AllocationDoubt::Any => (pod, None),
            AllocationDoubt::Device(device) => (pod, Some(&**device)),
        })
        .collect()
}

fn plain_pod(name: &str) -> Pod {
    pod(name, &[], &[("c", "nvidia.com/gpu=1"), ("d", "")], &[])
}

#[test]
fn whole_gpus_and_mig_devices_are_exclusive() {
    let legacy = format!("MIG-{C}/3/0");
    for mig in [MIG, &legacy, "nvidia2/gi3"] {
        let assignments = assignments(vec![
            assigned("a", "c", "nvidia.com/gpu", &[A]),
            assigned("b", "c", "nvidia.com/mig-1g.10gb", &[mig]),
            assigned("b", "d", "rdma/hca", &["x"]),
        ]);
        let requests = [("c", "nvidia.com/mig-1g.10gb=1"), ("d", "")];
        let out = join(&assignments, &pods([plain_pod("a"), pod("b", &[], &requests, &[])]));
        assert_eq!(
            rows(&out),
            [
                ("a", "c", A, AllocateMode::Exclusive, Some(23028.0), 0.0, true),
                ("b", "c", MIG, AllocateMode::Exclusive, Some(9728.0), 0.0, true),
            ]
        );
        assert_eq!(uncertainty(&out), (vec![], false, vec![]));
    }
}

#[test]
fn replicas_of_one_gpu_are_one_allocation_without_limits() {
    let two = [format!("{A}::0"), format!("{A}::1")];
    let assignments = assignments(vec![
        assigned("a", "c", "nvidia.com/gpu", &[&two[0], &two[1]]),
        assigned("b", "c", "nvidia.com/gpu.shared", &["nvidia1/vgpu7"]),
    ]);
    let shared = pod("b", &[], &[("c", "nvidia.com/gpu.shared=1")], &[]);
    let out = join_shared(&assignments, &pods([plain_pod("a"), shared]), LABELLED(TimeSlicing));
    let allocation = |pod| (pod, "c", A, AllocateMode::Share, Some(23028.0), 0.0, false);
    assert_eq!(rows(&out), [allocation("a"), allocation("b")]);
    assert_eq!(uncertainty(&out), (vec![], false, vec![]));
}

const LABELLED: fn(SharingStrategy) -> SharingEvidence =
    |strategy| SharingEvidence { label: Some(strategy), ..SharingEvidence::default() };

fn join_shared(
    assignments: &Assignments,
    pods: &PodSnapshot,
    sharing: SharingEvidence,
) -> AllocationResult {
    let devices: Vec<_> =
        devices().into_iter().map(|gpu| AllocatableGpu { sharing, ..gpu }).collect();
    resolve_allocations(
        &devices,
        assignments,
        Some(pods),
        DraObjects::default(),
        &AllocationOptions::default(),
    )
}

/// Two pods with one and with two of four replicas of a GPU, in the format of the device plugin or
/// of GKE.
fn replicas_of_two_pods(gke: bool) -> Assignments {
    let id = |n: u32| if gke { format!("nvidia1/vgpu{n}") } else { format!("{A}::{n}") };
    let resource = "nvidia.com/gpu.shared";
    let mut assignments = assignments(vec![
        assigned("a", "c", resource, &[&id(2)]),
        assigned("b", "c", resource, &[&id(0), &id(3)]),
    ]);
    let others = [format!("{B}::0"), "nvidia0/vgpu0".to_owned(), A.to_owned()];
    let ids = (0..4).map(id).chain(others).map(Into::into).collect();
    assignments.allocatable.insert(resource.into(), ids);
    assignments
}

fn replica_pods() -> PodSnapshot {
    let requests = [("c", "nvidia.com/gpu.shared=2")];
    pods(["a", "b"].map(|name| pod(name, &[], &requests, &[])))
}

#[test]
fn replicas_with_mps_are_equal_parts_of_memory_and_compute() {
    let share = AllocateMode::Share;
    let clients = SharingEvidence {
        exclusive_process: Some(true),
        mps_clients: true,
        ..SharingEvidence::default()
    };
    for (gke, sharing) in [(false, clients), (false, LABELLED(Mps)), (true, LABELLED(Mps))] {
        let out = join_shared(&replicas_of_two_pods(gke), &replica_pods(), sharing);
        let expected = [
            ("a", "c", A, share, Some(5757.0), 0.25, true),
            ("b", "c", A, share, Some(11514.0), 0.5, true),
        ];
        assert_eq!(rows(&out), expected, "{gke} {sharing:?}");
        assert_eq!(uncertainty(&out), (vec![], false, vec![]));
        let replicas: Vec<_> = out.allocations.iter().map(|s| s.replica).collect();
        assert_eq!(replicas, [Some(2), Some(0)]);
    }
}

#[test]
fn amount_of_a_replica_is_unknown_if_the_strategy_or_the_number_is() {
    let exclusive = SharingEvidence { exclusive_process: Some(true), ..SharingEvidence::default() };
    let all = replicas_of_two_pods(false);
    let without = |id: &str| {
        let mut assignments = all.clone();
        assignments
            .allocatable
            .values_mut()
            .for_each(|ids| ids.retain(|other| !other.contains(id)));
        assignments
    };
    for (name, assignments, sharing) in [
        ("no MPS client yet", all.clone(), exclusive),
        ("unknown compute mode", all.clone(), SharingEvidence::default()),
        ("GKE without a label", replicas_of_two_pods(true), devices()[0].sharing),
        ("an unhealthy replica", without("::1"), LABELLED(Mps)),
        ("fewer replicas than are allocated", without("::3"), LABELLED(Mps)),
        ("no list of replicas", without("GPU"), LABELLED(Mps)),
    ] {
        let out = join_shared(&assignments, &replica_pods(), sharing);
        let unknown = |pod| {
            let found = out.allocations.iter().find(|s| &*s.container.pod.name == pod).unwrap();
            found.memory.is_none() && found.compute.is_none()
        };
        assert!(unknown("b"), "{name}");
        assert!(out.problems.contains_key("unknown_replica"), "{name}: {:?}", out.problems);
        assert_eq!(uncertainty(&out).0, [""; 0], "{name}: the allocation itself is certain");
    }
}

#[test]
fn id_of_the_only_gpu_is_that_gpu_if_there_is_one() {
    let assignments =
        |resource: &str, id: &str| assignments(vec![assigned("a", "c", resource, &[id])]);
    let pods = pods([pod("a", &[], &[("c", "nvidia.com/gpu=1 nvidia.com/orin=1")], &[])]);
    let join = |gpu: AllocatableGpu, is_only, assignments: &Assignments| {
        let gpu = AllocatableGpu { is_only, ..gpu };
        resolve_allocations(
            &[gpu],
            assignments,
            Some(&pods),
            DraObjects::default(),
            &AllocationOptions::default(),
        )
    };
    let [gpu, _, with_mig] = <[AllocatableGpu; 3]>::try_from(devices()).unwrap();
    for id in ["all", "tegra"] {
        let out = join(gpu.clone(), true, &assignments("nvidia.com/gpu", id));
        let expected = ("a", "c", A, AllocateMode::Exclusive, Some(23028.0), 0.0, true);
        assert_eq!(rows(&out), [expected], "{id}");
        assert_eq!(uncertainty(&out), (vec![], false, vec![]));
        let replica = assignments("nvidia.com/orin", &format!("{id}::1"));
        let expected = ("a", "c", A, AllocateMode::Share, Some(23028.0), 0.0, false);
        assert_eq!(rows(&join(gpu.clone(), true, &replica)), [expected], "{id}");
        let out = join(gpu.clone(), false, &assignments("nvidia.com/gpu", id));
        assert_eq!(rows(&out), []);
        assert_eq!(uncertainty(&out), (vec![], true, vec![("unknown_device", 1)]), "two GPUs");
        let out = join(with_mig.clone(), true, &assignments("nvidia.com/gpu", id));
        assert_eq!(uncertainty(&out), (vec![C, MIG], false, vec![("unknown_device", 1)]), "MIG");
        let out = join(gpu.clone(), true, &assignments("x.com/npu", id));
        assert_eq!((rows(&out), uncertainty(&out)), (vec![], (vec![], false, vec![])), "{id}");
    }
}

#[test]
fn resources_with_suffixes_and_configured_names_are_those_of_gpus() {
    for (resource, id, device, memory) in [
        ("nvidia.com/mig-1g.10gb.me", MIG, MIG, 9728.0),
        ("nvidia.com/mig-1g.10gb-me", MIG, MIG, 9728.0),
        ("nvidia.com/mig-1g.10gb.gfx", MIG, MIG, 9728.0),
        ("nvidia.com/mig-1c.3g.40gb.shared", "nvidia2/gi3/vgpu1", MIG, 9728.0),
        ("nvidia.com/a100-40g", A, A, 23028.0),
        ("nvidia.com/gpu.shared", A, A, 23028.0),
    ] {
        let assignments = assignments(vec![assigned("a", "c", resource, &[id])]);
        let requests = format!("{resource}=1");
        let requesting = pod("a", &[], &[("c", &requests)], &[]);
        assert!(requesting.requests_gpus(), "{resource}");
        let label = LABELLED(TimeSlicing);
        let out = join_shared(&assignments, &pods([requesting]), label);
        let found: Vec<_> = rows(&out).iter().map(|row| (row.2, row.4)).collect();
        assert_eq!(found, [(device, Some(memory))], "{resource}");
        let out = join_shared(&assignments, &pods([pod("a", &[], &[("c", "")], &[])]), label);
        assert_eq!(uncertainty(&out).2, [("ambiguous_pod", 1)], "{resource}: of another pod");
    }
}

#[test]
fn ack_units_are_fractions_of_the_gpu_in_the_annotation() {
    let annotations = [
        (ACK, r#"{"0":{"1":8},"1":{"1":3,"0":11}}"#),
        ("gpushare.alibabacloud.com/core-percentage", r#"{"1":{"1":30}}"#),
    ];
    let requests = [("c", "aliyun.com/gpu-mem=8"), ("d", "aliyun.com/gpu-mem=14")];
    let mut assignments = assignments(vec![ack_units("a", "c", 8), ack_units("a", "d", 14)]);
    let pods = pods([pod("a", &annotations, &requests, &[])]);
    let expected = |total: f64| {
        let memory = move |units: f64| Some(units / total * 23028.0);
        let share = AllocateMode::Share;
        [
            ("a", "c", A, share, memory(8.0), 0.0, true),
            ("a", "d", A, share, memory(3.0), 0.3, true),
            ("a", "d", B, share, Some(0.5 * 23028.0), 0.0, true),
        ]
    };
    let out = join(&assignments, &pods);
    assert_eq!(rows(&out), expected(22.0), "23028 MiB, rounded down to GiB");
    assert_eq!(uncertainty(&out), (vec![], false, vec![]));

    let ids = |gpu: &str, n| (0..n).map(|n| format!("{gpu}-_-{n}").into()).collect::<Vec<_>>();
    let ids = [ids(A, 20), ids(B, 22)].concat();
    assignments.allocatable.insert("aliyun.com/gpu-mem".into(), ids);
    assert_eq!(rows(&join(&assignments, &pods)), expected(20.0), "number of allocatable units");
}

#[test]
fn ack_units_may_be_mib() {
    let out = |unit, text| {
        let pod = pod("a", &[(ACK, text)], &[("c", "aliyun.com/gpu-mem=1")], &[]);
        let held = if text.contains("4096") { 4096 } else { 8 };
        let held = assignments(vec![ack_units("a", "c", held)]);
        let options = AllocationOptions { memory_unit: unit, ..AllocationOptions::default() };
        resolve_allocations(&devices(), &held, Some(&pods([pod])), DraObjects::default(), &options)
    };
    let mib = out(MemoryUnit::Auto, r#"{"0":{"1":4096}}"#);
    assert_eq!(mib.allocations[0].memory, Some(4096.0));
    let mib = out(MemoryUnit::Mib, r#"{"0":{"1":8}}"#);
    assert_eq!(mib.allocations[0].memory, Some(8.0));
    let too_many = out(MemoryUnit::Gib, r#"{"0":{"1":4096}}"#);
    assert_eq!(uncertainty(&too_many), (vec![A], false, vec![("invalid_amount", 1)]));
}

#[test]
fn hami_allocation_uses_the_annotated_uuid_not_the_kubelets_id() {
    let text = format!("{B},NVIDIA,3000,30:;{A},NVIDIA,1000,0:{A},NVIDIA,500,0:;");
    let requests = [("c", "nvidia.com/gpu=1"), ("d", "nvidia.com/gpu=2")];
    let assignments = assignments(vec![
        assigned("a", "c", "nvidia.com/gpu", &[&format!("{A}-0")]),
        assigned("a", "d", "nvidia.com/gpu", &[&format!("{B}-1"), &format!("{B}-2")]),
    ]);
    let out = join(&assignments, &pods([pod("a", &[(HAMI, &text)], &requests, &[])]));
    assert_eq!(
        rows(&out),
        [
            ("a", "c", B, AllocateMode::Share, Some(3000.0), 0.3, true),
            ("a", "d", A, AllocateMode::Share, Some(1500.0), 0.0, true),
        ]
    );
    assert_eq!(uncertainty(&out), (vec![], false, vec![]));
}

#[test]
fn koordinator_allocation_is_for_the_only_requesting_container() {
    let text = r#"{"gpu":[{"minor":1,"resources":{"koordinator.sh/gpu-core":"50","koordinator.sh/gpu-memory-ratio":"50"}}]}"#;
    let one = pod("a", &[(KOORDINATOR, text)], &[("log", ""), ("c", "koordinator.sh/gpu=50")], &[]);
    let out = join(&assignments(vec![]), &pods([one]));
    assert_eq!(rows(&out), [("a", "c", A, AllocateMode::Share, Some(11514.0), 0.5, true)]);

    let requests = [("c", "koordinator.sh/gpu=50"), ("d", "koordinator.sh/gpu=50")];
    let two = pod("a", &[(KOORDINATOR, text)], &requests, &[]);
    let out = join(&assignments(vec![]), &pods([two]));
    assert_eq!(rows(&out), []);
    assert_eq!(uncertainty(&out), (vec![A], false, vec![("no_container", 1)]));
}

#[test]
fn units_without_an_annotation_make_the_node_uncertain() {
    let fake = [format!("{A}-0"), format!("{A}-_-0")];
    for (resource, id) in [("nvidia.com/gpu", &*fake[0]), ("aliyun.com/gpu-mem", &fake[1])] {
        let assignments = assignments(vec![assigned("a", "c", resource, &[id])]);
        for pods in [Some(pods([plain_pod("a")])), None] {
            let out = resolve_allocations(
                &devices(),
                &assignments,
                pods.as_ref(),
                DraObjects::default(),
                &AllocationOptions::default(),
            );
            assert_eq!(rows(&out), []);
            assert_eq!(uncertainty(&out), (vec![], true, vec![("no_annotation", 1)]));
        }
    }
}

#[test]
fn kubelet_takes_precedence_over_annotations() {
    let forged = format!("{A},NVIDIA,20000,0:;");
    let forged_pod = pod("b", &[(HAMI, &forged)], &[("c", "nvidia.com/gpu=1")], &[]);
    let idle = pod("x", &[(HAMI, &forged)], &[("c", "")], &[]);
    let assignments = assignments(vec![assigned("a", "c", "nvidia.com/gpu", &[A])]);
    let out = join(&assignments, &pods([plain_pod("a"), forged_pod, idle]));
    assert_eq!(rows(&out), [("a", "c", A, AllocateMode::Exclusive, Some(23028.0), 0.0, true)]);
    let problems = vec![("unlisted_pod", 1), ("unrequested_annotation", 2)];
    assert_eq!(uncertainty(&out), (vec![], false, problems));
    let text = r#"{"0":{"1":12}}"#;
    let contradicted = pod("b", &[(ACK, text)], &[("c", "aliyun.com/gpu-mem=12")], &[]);
    let mut both = assignments.clone();
    both.containers.push(ack_units("b", "c", 12));
    let out = join(&both, &pods([plain_pod("a"), contradicted]));
    assert_eq!(out.allocations.len(), 1);
    assert_eq!(uncertainty(&out), (vec![], true, vec![("contradicted_annotation", 1)]));
    assert_eq!(doubted(&out), [("b", None)], "it holds units of some other GPU");

    let own = pod("a", &[(HAMI, &forged)], &[("c", "nvidia.com/gpu=1")], &[]);
    let other = format!(";{B},NVIDIA,20000,0:;");
    let requests = [("c", "nvidia.com/gpu=1"), ("d", "")];
    for annotation in [&*other, "invalid"] {
        let own = pod("a", &[(HAMI, annotation)], &requests, &[]);
        let out = join(&assignments, &pods([own]));
        assert_eq!(
            (out.allocations.len(), uncertainty(&out)),
            (1, (vec![], false, vec![])),
            "{annotation}"
        );
    }
    let waiting = pod("b", &[(HAMI, &other)], &requests, &[]);
    let out = join(&assignments, &pods([plain_pod("a"), waiting]));
    let problems = vec![("unlisted_pod", 1), ("unrequested_annotation", 1)];
    assert_eq!(uncertainty(&out), (vec![], false, problems));
    let known = ["uid-a".into()].into();
    assert_eq!(out.completeness.coverage, Coverage::Pods { known, unknown_holders: true });
    let out = join(&assignments, &pods([own]));
    assert_eq!(out.allocations.len(), 1, "ids of devices need no annotation");
    assert_eq!(uncertainty(&out), (vec![], false, vec![]));
}

#[test]
fn without_pods_allocations_have_the_kubelets_names() {
    let assignments = assignments(vec![assigned("a", "c", "nvidia.com/gpu", &[A])]);
    let out = resolve_allocations(
        &devices(),
        &assignments,
        None,
        DraObjects::default(),
        &AllocationOptions::default(),
    );
    assert_eq!((out.allocations.len(), &*out.allocations[0].container.pod.uid), (1, ""));
    assert!(!out.completeness.node_uncertain);
}

#[test]
fn allocations_of_unknown_pods_make_their_devices_uncertain() {
    let assignments = assignments(vec![assigned("a", "c", "nvidia.com/gpu", &[A])]);
    let out = join(&assignments, &pods([]));
    assert_eq!(uncertainty(&out), (vec![A], false, vec![("unknown_pod", 1)]));

    let mut duplicate = plain_pod("a");
    duplicate.id.uid = "other".into();
    let out = join(&assignments, &pods([plain_pod("a"), duplicate]));
    assert_eq!(rows(&out), []);
    assert_eq!(uncertainty(&out), (vec![A], false, vec![("ambiguous_pod", 1)]));

    let mut bare = plain_pod("a");
    bare.containers.clear();
    let out = join(&assignments, &pods([bare]));
    assert_eq!(uncertainty(&out), (vec![A], false, vec![("no_container", 1)]));

    let mut unsynced = PodStore::new("test", "n1");
    unsynced.apply(plain_pod("a"), T);
    let out = join(&assignments, &unsynced.snapshot(T));
    assert_eq!((out.allocations.len(), out.completeness.node_uncertain), (1, true));
}

#[test]
fn name_reused_after_the_request_is_ambiguous() {
    let assignments = assignments(vec![assigned("web-0", "c", "nvidia.com/gpu", &[A])]);
    let second = Duration::from_secs(1);
    let mut next = plain_pod("web-0");
    next.id.uid = "next".into();
    for (deleted_at, certain) in [(Duration::from_secs(99), true), (T + second, false)] {
        let mut store = PodStore::new("test", "n1");
        store.begin_list();
        store.end_list(Duration::ZERO);
        store.health.record_success(Duration::ZERO);
        store.apply(plain_pod("web-0"), second);
        store.delete("uid-web-0", deleted_at);
        let gone = join(&assignments, &store.snapshot(deleted_at));
        // Requested after the deletion: it must be a new pod that is not listed yet.
        assert_eq!(
            (gone.allocations.len(), gone.completeness.uncertain_devices.len()),
            (0, usize::from(certain))
        );
        store.apply(next.clone(), deleted_at);
        let out = join(&assignments, &store.snapshot(deleted_at));
        assert_eq!(
            (out.allocations.len() == 1, out.completeness.uncertain_devices.len() == 1),
            (certain, !certain)
        );
    }
}

#[test]
fn pod_keeps_its_allocations_until_it_has_ended() {
    let assignments = assignments(vec![assigned("a", "c", "nvidia.com/gpu", &[A])]);
    let text = format!("{B},NVIDIA,3000,30:;;");
    let annotated = pod("a", &[(HAMI, &text)], &[("c", "nvidia.com/gpu=1"), ("d", "")], &[]);
    let end = |mut pod: Pod| {
        pod.containers.iter_mut().for_each(|container| container.terminated = true);
        Pod { deleting: true, ..pod }
    };
    let ended = Pod { terminal: true, ..plain_pod("a") };
    let ended_annotated = Pod { terminal: true, ..annotated };
    for gone in [ended, end(plain_pod("a")), ended_annotated] {
        let out = join(&assignments, &pods([gone]));
        assert_eq!((out.allocations.len(), uncertainty(&out)), (0, (vec![], false, vec![])));
    }
    let deleting = Pod { deleting: true, ..plain_pod("a") };
    let out = join(&assignments, &pods([deleting]));
    assert_eq!(rows(&out), [("a", "c", A, AllocateMode::Exclusive, Some(23028.0), 0.0, true)]);
    assert_eq!(uncertainty(&out), (vec![], false, vec![]));
}

#[test]
fn memory_of_a_pod_being_deleted_may_be_allocated_again() {
    let share =
        |name| pod(name, &[(ACK, r#"{"0":{"1":12}}"#)], &[("c", "aliyun.com/gpu-mem=12")], &[]);
    let deleting = Pod { deleting: true, ..share("a") };
    let held = assignments(vec![ack_units("a", "c", 12), ack_units("b", "c", 12)]);
    let out = join(&held, &pods([deleting, share("b")]));
    assert_eq!((out.allocations.len(), uncertainty(&out)), (2, (vec![], false, vec![])));
}

#[test]
fn list_is_not_about_a_pod_that_is_much_younger_or_was_admitted_later() {
    let mut list = assignments(vec![assigned("a", "c", "nvidia.com/gpu", &[A])]);
    list.requested_at_wall_us = 5_900_000;
    let of_pod = |first_seen, admitted: Option<u64>| {
        let admitted = admitted.and_then(NonZeroU64::new);
        let mut store = PodStore::new("test", "n1");
        store.end_list(Duration::ZERO);
        store.health.record_success(Duration::ZERO);
        store.apply(Pod { admitted, ..plain_pod("a") }, first_seen);
        let out = join(&list, &store.snapshot(first_seen));
        (out.allocations.len(), out.problems.get("ambiguous_pod").copied())
    };
    let late = list.requested_at + crate::policy::ALLOCATION_MAX_AGE;
    assert_eq!(of_pod(late, None), (1, None));
    assert_eq!(of_pod(late + Duration::from_secs(1), None), (0, Some(1)));
    // The time of the status is to the second.
    assert_eq!(of_pod(late, Some(5)), (1, None));
    assert_eq!(of_pod(late, Some(6)), (0, Some(1)));
    // The clock was set back since then.
    assert_eq!(of_pod(list.requested_at, Some(6)), (1, None));
}

#[test]
fn list_may_be_about_a_pod_that_was_deleted_lately_or_before_this_one_started() {
    let list = assignments(vec![assigned("a", "c", "nvidia.com/gpu", &[A])]);
    let with_pod = |deleted_at, id: Option<&str>| {
        let mut store = PodStore::new("test", "n1");
        store.end_list(Duration::ZERO);
        store.health.record_success(Duration::ZERO);
        let mut predecessor = plain_pod("a");
        predecessor.id.uid = "old".into();
        store.apply(predecessor, Duration::ZERO);
        store.delete("old", deleted_at);
        let mut successor = plain_pod("a");
        successor.containers[0].ids.extend(id.map(Into::into));
        store.apply(successor, deleted_at);
        let out = join(&list, &store.snapshot(T));
        (out.allocations.len(), out.completeness.unlisted.into_values().next())
    };
    let (lately, before) = (Duration::from_secs(1), crate::policy::POD_END_MAX);
    assert_eq!(with_pod(T.saturating_sub(lately), Some("c1")), (1, Some(T)));
    assert_eq!(with_pod(T.saturating_sub(before), Some("c1")), (1, None));
    assert_eq!(with_pod(T.saturating_sub(before), None), (1, Some(T)));
}

#[test]
fn pods_with_gpu_requests_missing_in_the_list_are_not_covered() {
    let empty = Assignments { requested_at: T, ..Assignments::default() };
    let out = join(&empty, &pods([plain_pod("a"), pod("x", &[], &[("c", "")], &[])]));
    let known = ["uid-x".into()].into();
    assert_eq!(out.completeness.coverage, Coverage::Pods { known, unknown_holders: true });
    assert_eq!(uncertainty(&out), (vec![], false, vec![("unlisted_pod", 1)]));
    let retained = Assignments {
        containers: assignments(vec![assigned("a", "c", "r", &["x"])]).containers,
        ..empty
    };
    let out = join(&retained, &pods([plain_pod("a")]));
    let coverage = Coverage::Pods { known: BTreeSet::new(), unknown_holders: false };
    assert_eq!(out.completeness.coverage, coverage);
    assert_eq!(uncertainty(&out), (vec![], false, vec![]));
    let without_pods = resolve_allocations(
        &devices(),
        &assignments(vec![]),
        None,
        DraObjects::default(),
        &AllocationOptions::default(),
    );
    assert_eq!(without_pods.completeness.coverage, Coverage::Listed(assignments(vec![]).pods));
}

#[test]
fn an_init_container_can_have_the_devices_that_no_container_is_listed_with() {
    let mut list = assignments(vec![assigned("b", "c", "nvidia.com/gpu", &[A])]);
    list.pods.insert(("demo".into(), "a".into()));
    list.allocatable =
        [("nvidia.com/gpu".into(), [A, B].map(Box::from).into()), ("x".into(), vec![])].into();
    let init = |requests, app| {
        let mut pod = pod("a", &[], &[("main", app), ("init", requests)], &[]);
        pod.containers[1].kind = ContainerKind::Init { restartable: false };
        join(&list, &pods([pod, plain_pod("b")])).completeness
    };
    let completeness = init("nvidia.com/gpu=1", "");
    let candidates: BTreeMap<Arc<str>, _> = [(B.into(), AllocateMode::Exclusive)].into();
    let pod: PodName = ("demo".into(), "a".into());
    assert_eq!(completeness.init_candidates, [((pod, "init".into()), candidates)].into());
    let known = ["uid-b".into()].into();
    assert_eq!(completeness.coverage, Coverage::Pods { known, unknown_holders: true });
    let reused = init("nvidia.com/gpu=1", "nvidia.com/gpu=1");
    assert_eq!(reused.init_candidates, BTreeMap::new(), "the app container has the same device");
}

#[test]
fn an_init_container_has_no_mig_device_of_a_gpu_that_a_container_is_listed_with() {
    let allocatable = [("nvidia.com/gpu".into(), [MIG, B].map(Box::from).into())];
    let init = |listed| {
        let mut list = assignments(vec![assigned("b", "c", "nvidia.com/gpu", &[listed])]);
        list.pods.insert(("demo".into(), "a".into()));
        list.allocatable = allocatable.clone().into();
        let mut pod = pod("a", &[], &[("main", ""), ("init", "nvidia.com/gpu=1")], &[]);
        pod.containers[1].kind = ContainerKind::Init { restartable: false };
        let candidates = join(&list, &pods([pod, plain_pod("b")])).completeness.init_candidates;
        candidates.into_values().flat_map(BTreeMap::into_keys).collect::<Vec<_>>()
    };
    assert_eq!(init(C), [Arc::from(B)], "some MIG device of the GPU");
    assert_eq!(init(A), [Arc::from(B), Arc::from(MIG)]);
}

#[test]
fn unconfirmed_allocation_makes_its_device_uncertain() {
    let mut kept = assignments(vec![assigned("a", "c", "nvidia.com/gpu", &[A])]);
    kept.pods.clear();
    kept.unconfirmed.insert(("demo".into(), "a".into()));
    let out = resolve_allocations(
        &devices(),
        &kept,
        None,
        DraObjects::default(),
        &AllocationOptions::default(),
    );
    assert_eq!((out.allocations.len(), out.allocations[0].confirmed), (1, false));
    assert_eq!(uncertainty(&out), (vec![A], false, vec![("unlisted_pod", 1)]));
}

#[test]
fn retained_devices_of_a_name_do_not_make_its_present_pod_known() {
    let name: PodName = ("demo".into(), "a".into());
    let all = assignments(vec![assigned("a", "c", "nvidia.com/gpu", &[A])]);
    let unlisted = Assignments { unlisted: [(name.clone(), T)].into(), ..all };
    let unconfirmed = [name.clone()].into();
    // The newest List lacks the name, or has it for the predecessor.
    let lacking = Assignments { pods: BTreeSet::new(), unconfirmed, ..unlisted.clone() };
    let replaced = Assignments { ambiguous: [name].into(), ..unlisted };
    for kept in [lacking, replaced] {
        let coverage = join(&kept, &pods([plain_pod("a")])).completeness.coverage;
        assert_eq!(coverage, Coverage::Pods { known: BTreeSet::new(), unknown_holders: true });
    }
}

#[test]
fn an_assignment_that_the_pod_does_not_request_is_that_of_its_successor() {
    let list = assignments(vec![assigned("a", "c", "nvidia.com/gpu", &[A])]);
    let out = join(&list, &pods([pod("a", &[], &[("c", "")], &[])]));
    assert_eq!(rows(&out), []);
    assert_eq!(uncertainty(&out), (vec![A], false, vec![("ambiguous_pod", 1)]));
    // The List contains the old and the new pod.
    let pod_a: PodName = ("demo".into(), "a".into());
    let list = Assignments { ambiguous: [pod_a].into(), ..list };
    let out = join(&list, &pods([plain_pod("a")]));
    assert_eq!(uncertainty(&out), (vec![A], false, vec![("ambiguous_pod", 1)]));
}

#[test]
fn device_allocated_twice_is_contested() {
    let twice = assignments(vec![
        assigned("a", "c", "nvidia.com/gpu", &[A]),
        assigned("b", "c", "nvidia.com/gpu", &[A]),
    ]);
    let out = join(&twice, &pods([plain_pod("a"), plain_pod("b")]));
    assert_eq!(rows(&out), []);
    assert_eq!(uncertainty(&out), (vec![A], false, vec![("contested_device", 1)]));
}

#[test]
fn unknown_devices_are_uncertain() {
    let gone = A.replace('a', "f");
    for (id, node) in [
        (gone.as_str(), true),
        ("nvidia9", true),
        ("GPU-1", true),
        (&format!("MIG-{C}/9/0"), false),
        ("nvidia2/gi9", false),
        (C, false),
        (&format!("{C}::1"), false),
        ("nvidia2", false),
    ] {
        let assignments = assignments(vec![assigned("a", "c", "nvidia.com/gpu", &[id])]);
        let out = join(&assignments, &pods([plain_pod("a")]));
        // Of a GPU with MIG devices, the whole GPU and each of them.
        let devices = if node { vec![] } else { vec![C, MIG] };
        assert_eq!(uncertainty(&out), (devices.clone(), node, vec![("unknown_device", 1)]), "{id}");
        let doubts = &out.completeness.doubts;
        let doubt = |device: &&str| AllocationDoubt::Device((*device).into());
        let expected: BTreeSet<_> =
            if node { [AllocationDoubt::Any].into() } else { devices.iter().map(doubt).collect() };
        let doubts: Vec<_> = doubts.iter().map(|((_, pod), doubts)| (&**pod, doubts)).collect();
        assert_eq!(doubts, [("a", &expected)], "{id}");
    }
    let assignments =
        assignments(vec![assigned("a", "c", "nvidia.com/GA102GL_A10", &["0000:1b:00.0"])]);
    let out = join(&assignments, &pods([plain_pod("a")]));
    assert_eq!((out.allocations.len(), uncertainty(&out)), (0, (vec![], false, vec![])));
}

fn any_id() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            A,
            B,
            C,
            MIG,
            "nvidia0",
            "nvidia1/vgpu2",
            "nvidia2/gi3",
            "nvidia2/gi3/vgpu0",
            "all",
            "tegra::1",
            "x",
            ""
        ])
        .prop_map(str::to_owned),
        (prop::sample::select(vec![A, B, C, MIG]), "(::|-|-_-)[0-9]{1,3}")
            .prop_map(|(a, b)| a.to_owned() + &b),
    ]
}

fn any_pod() -> impl Strategy<Value = Pod> {
    let annotation = prop_oneof![
        "\\{\"[0-2]\":\\{\"[0-2]\":[0-9]{1,3}\\}\\}".prop_map(|text| (ACK, text)),
        (prop::sample::select(vec![A, B, C, "GPU-x"]), 0_u32..40_000, 0..120)
            .prop_map(|(gpu, mib, cores)| (HAMI, format!("{gpu},NVIDIA,{mib},{cores}:;;"))),
        (0..3, "[0-9]{1,3}(Gi|)?").prop_map(|(minor, memory)| {
            let resources = format!(r#"{{"koordinator.sh/gpu-memory":"{memory}"}}"#);
            (KOORDINATOR, format!(r#"{{"gpu":[{{"minor":{minor},"resources":{resources}}}]}}"#))
        }),
    ];
    let requests = prop::sample::select(vec!["", "nvidia.com/gpu=1", "aliyun.com/gpu-mem=4"]);
    (0..4, prop::option::of(annotation), requests, any::<(bool, bool)>()).prop_map(
        |(n, annotation, requests, (terminal, deleting))| {
            let annotations: Vec<_> = annotation.iter().map(|(k, v)| (*k, v.as_str())).collect();
            let pod = pod(&format!("p{n}"), &annotations, &[("c", requests), ("d", "")], &[]);
            Pod { terminal: terminal && deleting, deleting: deleting && !terminal, ..pod }
        },
    )
}

fn any_sharing() -> impl Strategy<Value = SharingEvidence> {
    let label = prop::sample::select(vec![None, Some(TimeSlicing), Some(Mps)]);
    (label, any::<Option<bool>>(), any::<bool>()).prop_map(
        |(label, exclusive_process, mps_clients)| SharingEvidence {
            label,
            exclusive_process,
            mps_clients,
        },
    )
}

proptest! {
    /// For any input: pods and containers exist and have not ended, numbers are in range, no entry
    /// is duplicated, and an exclusive device is allocated to one container.
    #[test]
    fn resolved_allocations_are_consistent(
        any_pods in prop::collection::vec(any_pod(), 0..6),
        assigned_ids in prop::collection::vec(
            (0..5, prop::sample::select(vec!["c", "d", "z"]),
             prop::sample::select(vec!["nvidia.com/gpu", "aliyun.com/gpu-mem"]),
             prop::collection::vec(any_id(), 0..3)),
            0..6,
        ),
        sharing in any_sharing(),
        allocatable in prop::collection::vec(any_id(), 0..8),
    ) {
        let pods = pods(any_pods);
        let containers = assigned_ids.iter().map(|(n, container, resource, ids)| {
            let ids: Vec<_> = ids.iter().map(String::as_str).collect();
            assigned(&format!("p{n}"), container, resource, &ids)
        });
        let mut assignments = assignments(containers.collect());
        let allocatable = allocatable.into_iter().map(String::into_boxed_str).collect();
        assignments.allocatable.insert("nvidia.com/gpu".into(), allocatable);
        let out = join_shared(&assignments, &pods, sharing);
        let mut seen = BTreeSet::new();
        let mut by_device = BTreeMap::<_, Vec<_>>::new();
        for allocation in &out.allocations {
            let tracked = pods.iter().find(|tracked| tracked.pod.id == allocation.container.pod);
            let tracked = tracked.expect("the pod of an allocation exists");
            prop_assert!(!tracked.pod.has_ended());
            prop_assert!(tracked.container(&allocation.container.name).is_some());
            prop_assert!(allocation.memory.is_none_or(|mib| mib.is_finite() && mib > 0.0));
            prop_assert!((0.0..=1.0).contains(&allocation.compute.unwrap_or_default()));
            prop_assert!(seen.insert((&allocation.container, &allocation.device)));
            by_device.entry(&allocation.device).or_default().push(allocation);
        }
        for (device, allocations) in by_device {
            let exclusive = allocations.iter().any(|s| s.mode == AllocateMode::Exclusive);
            prop_assert!(!exclusive || allocations.len() == 1);
            let hami = allocations.iter().any(|allocation| {
                let tracked = pods.iter().find(|tracked| tracked.pod.id == allocation.container.pod);
                tracked.is_some_and(|tracked| tracked.pod.annotation(HAMI).is_some())
            });
            let counts = |s: &&&DeviceAllocation| {
                let tracked = pods.iter().find(|tracked| tracked.pod.id == s.container.pod);
                s.reserved && tracked.is_some_and(|tracked| !tracked.pod.deleting)
            };
            let sum: f64 = allocations.iter().filter(counts).filter_map(|s| s.memory).sum();
            let fits = sum <= 23028.0 * (1.0 + 1e-6);
            prop_assert!(fits || hami || out.completeness.uncertain_devices.contains(device));
        }
        let counted: u64 = out.problems.values().sum();
        prop_assert!(out.completeness.uncertain_devices.is_empty() && !out.completeness.node_uncertain || counted > 0);
    }

    /// Shares that fit in a GPU add up to at most its memory.
    #[test]
    fn consistent_shares_fit_in_the_gpu(units in prop::collection::vec(1_u32..8, 0..8)) {
        let mut remaining = 22;
        let units: Vec<_> = units.into_iter().take_while(|n| {
            let fits = *n <= remaining;
            remaining = remaining.saturating_sub(*n);
            fits
        }).collect();
        let pods_with_shares = units.iter().enumerate().map(|(n, units)| {
            let text = format!(r#"{{"0":{{"1":{units}}}}}"#);
            let requests = format!("aliyun.com/gpu-mem={units}");
            pod(&format!("p{n}"), &[(ACK, &text)], &[("c", &requests)], &[])
        });
        let held = units.iter().enumerate().map(|(n, units)| ack_units(&format!("p{n}"), "c", *units));
        let out = join(&assignments(held.collect()), &pods(pods_with_shares));
        let sum: f64 = out.allocations.iter().filter_map(|allocation| allocation.memory).sum();
        prop_assert!(sum <= 23028.0 * (1.0 + 1e-6));
        prop_assert_eq!(out.allocations.len(), units.len());
        prop_assert_eq!(uncertainty(&out), (vec![], false, vec![]));
    }
}

/// Uses recorded responses of a real kubelet and API server, which are not in the repository.
#[test]
#[ignore = "needs NVML_EXPORTER_KUBELET_DATA, a folder of recorded responses"]
fn recorded_responses_are_resolved() {
    let root = std::env::var("NVML_EXPORTER_KUBELET_DATA").expect("NVML_EXPORTER_KUBELET_DATA");
    let mut folders = 0;
    for entry in std::fs::read_dir(&root).unwrap() {
        let folder = entry.unwrap().path();
        let (list, pods) = (folder.join("podresources-list.json"), folder.join("api-pods.json"));
        if !list.exists() || !pods.exists() {
            continue;
        }
        folders += 1;
        check_recorded(
            &std::fs::read_to_string(list).unwrap(),
            &std::fs::read_to_string(pods).unwrap(),
        );
    }
    assert!(folders > 0, "no recorded responses in {root}");
}

fn check_recorded(list: &str, api: &str) {
    use serde_json::Value;
    let (list, api): (Value, Value) =
        (serde_json::from_str(list).unwrap(), serde_json::from_str(api).unwrap());
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut store = PodStore::new("test", &text(&api["items"][0]["spec"]["nodeName"]));
    store.begin_list();
    for item in items(&api["items"]) {
        store.apply(pod::parse(item.to_string().as_bytes()).unwrap(), Duration::ZERO);
    }
    store.end_list(Duration::ZERO);
    store.health.record_success(Duration::ZERO);
    let (mut containers, mut expected) = (Vec::new(), BTreeSet::new());
    let mut units = false;
    for pod in items(&list["pod_resources"]) {
        for container in items(&pod["containers"]) {
            let (name, pod_name) = (text(&container["name"]), text(&pod["name"]));
            let mut devices = Vec::new();
            for entry in items(&container["devices"]) {
                let ids: Vec<_> = items(&entry["device_ids"]).iter().map(text).collect();
                for id in &ids {
                    units |= id.contains("-_-");
                    let gpu = id.split("::").next().unwrap_or_default().to_owned();
                    let share = id.contains("::");
                    if !id.contains("-_-") {
                        expected.insert((pod_name.clone(), name.clone(), gpu, share));
                    }
                }
                let ids = ids.into_iter().map(String::into_boxed_str).collect();
                devices.push((text(&entry["resource_name"]).into(), ids));
            }
            containers.push(ContainerAssignment {
                namespace: text(&pod["namespace"]).into(),
                pod: pod_name.into(),
                container: name.into(),
                devices,
                claims: vec![],
            });
        }
    }
    let gpus: BTreeSet<_> = expected.iter().map(|(_, _, gpu, _)| gpu.as_str()).collect();
    let allocatable = |gpu: &str| AllocatableGpu {
        uuid: gpu.into(),
        minor: None,
        framebuffer_mib: Some(23028.0),
        is_only: false,
        sharing: SharingEvidence { exclusive_process: Some(false), ..SharingEvidence::default() },
        migs: vec![],
    };
    let devices: Vec<_> = gpus.into_iter().map(allocatable).collect();
    let pods = store.snapshot(Duration::ZERO);
    let out = resolve_allocations(
        &devices,
        &assignments(containers),
        Some(&pods),
        DraObjects::default(),
        &AllocationOptions::default(),
    );
    let row = |s: &DeviceAllocation| {
        let share = s.mode == AllocateMode::Share;
        (
            s.container.pod.name.to_string(),
            s.container.name.to_string(),
            s.device.to_string(),
            share,
        )
    };
    let found: BTreeSet<_> = out.allocations.iter().map(row).collect();
    assert!(!expected.is_empty());
    assert_eq!(found, expected);
    assert!(out.completeness.uncertain_devices.is_empty(), "{out:?}");
    assert_eq!(
        out.completeness.node_uncertain,
        out.problems.contains_key("no_annotation"),
        "{out:?}"
    );
    assert!(units || !out.completeness.node_uncertain);
}
