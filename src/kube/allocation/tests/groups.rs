//! GPU groups: reservation pods and their members.

use super::*;
use crate::kube::annotations::fixtures::grouped;
use crate::policy;

const KAI: &str = "kai-resource-reservation";
const HALF: (&str, &str) = ("gpu-fraction", "0.5");
/// Half of the framebuffer of a GPU, MiB.
const HALF_MIB: f64 = 11514.0;

/// A reservation pod of `group`, which is requesting a GPU.
fn reservation(name: &str, group: &str, annotations: &[(&str, &str)]) -> Pod {
    let mut pod = pod(name, annotations, &[("r", "nvidia.com/gpu=1")], &[]);
    pod.id.namespace = KAI.into();
    grouped(pod, &[group])
}

fn member(name: &str, groups: &[&str], annotations: &[(&str, &str)]) -> Pod {
    grouped(pod(name, annotations, &[("c", ""), ("d", "")], &[("i", "")]), groups)
}

/// A List in which reservation pods hold `ids`.
fn list(reservations: &[(&str, &str)]) -> Assignments {
    let mut list = assignments(vec![]);
    for (name, id) in reservations {
        let container = assigned(name, "r", "nvidia.com/gpu", &[id]);
        list.containers.push(ContainerAssignment { namespace: KAI.into(), ..container });
        list.pods.insert((KAI.into(), (*name).into()));
    }
    list
}

fn doubts<'a>(out: &'a AllocationResult, pod: &str) -> Vec<Option<&'a str>> {
    let doubts = out.completeness.doubts.get(&("demo".into(), pod.into()));
    let device = |doubt: &'a AllocationDoubt| match doubt {
        AllocationDoubt::Any => None,
        AllocationDoubt::Device(uuid) => Some(&**uuid),
    };
    doubts.into_iter().flatten().map(device).collect()
}

fn share<'a>(
    pod: &'a str,
    container: &'a str,
    device: &'a str,
    memory: Option<f64>,
) -> AllocationRow<'a> {
    (pod, container, device, AllocateMode::Share, memory, 0.0, true)
}

#[test]
fn members_share_the_gpu_of_the_reservation_pod_which_has_no_allocation() {
    let stated = [("run.ai/reserve_for_gpu_index", A)];
    let named = [("gpu-memory", "4000"), ("gpu-fraction-container-name", "d")];
    let pods = pods([
        reservation("r", "g", &stated),
        member("a", &["g"], &[HALF]),
        member("b", &["g"], &named),
        member("x", &[], &[HALF]),
    ]);
    let out = join(&list(&[("r", A)]), &pods);
    assert_eq!(rows(&out), [share("a", "c", A, Some(HALF_MIB)), share("b", "d", A, Some(4000.0))]);
    assert_eq!(uncertainty(&out), (vec![], false, vec![]));
    assert!(out.allocations.iter().all(|allocation| allocation.confirmed));
    let Coverage::Pods { known, unknown_holders } = &out.completeness.coverage else { panic!() };
    assert!(known.contains("uid-x") && known.contains("uid-a") && !unknown_holders);
    assert_eq!(doubts(&out, "x"), [], "it is in no group and has nothing");
    assert!(out.completeness.unreserved.is_empty());
    let own = &out.completeness.doubts[&(KAI.into(), "r".into())];
    assert_eq!(
        *own,
        [AllocationDoubt::Device(A.into())].into(),
        "its own processes are not illegal"
    );
}

#[test]
fn a_pod_of_several_groups_has_its_share_of_each_gpu() {
    let pods = pods([
        reservation("r", "g", &[]),
        reservation("s", "h", &[("run.ai/reserve_for_gpu_index", "1")]),
        member("a", &["g", "h"], &[HALF, ("gpu-fraction-num-devices", "2")]),
    ]);
    let out = join(&list(&[("r", A), ("s", B)]), &pods);
    let expected = [share("a", "c", A, Some(HALF_MIB)), share("a", "c", B, Some(HALF_MIB))];
    assert_eq!(rows(&out), expected);
    assert_eq!(uncertainty(&out), (vec![], false, vec![]));
    let one = pods_with_group_missing();
    let out = join(&list(&[("r", A)]), &one);
    assert_eq!(rows(&out), [share("a", "c", A, Some(HALF_MIB))]);
    assert_eq!(out.completeness.unreserved.len(), 1);
}

fn pods_with_group_missing() -> PodSnapshot {
    let annotations = [HALF, ("gpu-fraction-num-devices", "2")];
    pods([reservation("r", "g", &[]), member("a", &["g", "h"], &annotations)])
}

#[test]
fn a_reservation_pod_that_holds_no_known_gpu_leaves_its_members_unknown() {
    let of = |list: &Assignments, reservations: Vec<Pod>| {
        let members = [member("a", &["g"], &[HALF]), member("x", &[], &[])];
        join(list, &pods(reservations.into_iter().chain(members)))
    };
    // The kubelet's List is older than the reservation pod.
    let out = of(&assignments(vec![]), vec![reservation("r", "g", &[])]);
    assert_eq!((rows(&out), doubts(&out, "a"), doubts(&out, "x")), (vec![], vec![None], vec![]));
    let problems = vec![("no_reservation", 1), ("unlisted_pod", 1)];
    assert_eq!(uncertainty(&out), (vec![], false, problems));
    let coverage = &out.completeness.coverage;
    assert!(matches!(coverage, Coverage::Pods { unknown_holders: true, .. }), "{coverage:?}");
    // It states another GPU of the node.
    let other = reservation("r", "g", &[("run.ai/reserve_for_gpu_index", B)]);
    let out = of(&list(&[("r", A)]), vec![other]);
    assert_eq!((rows(&out), doubts(&out, "a")), (vec![], vec![Some(A), Some(B)]));
    let problems = vec![("invalid_reservation", 2), ("no_reservation", 1)];
    assert_eq!(uncertainty(&out), (vec![A, B], false, problems));
    // Two reservation pods.
    let two = vec![reservation("r", "g", &[]), reservation("s", "g", &[])];
    let out = of(&list(&[("r", A), ("s", B)]), two);
    assert_eq!((rows(&out), doubts(&out, "a")), (vec![], vec![Some(A), Some(B)]));
    // Replicas of time-slicing and MIG devices: the scheduler shares whole GPUs.
    for id in [format!("{A}::1"), MIG.to_owned()] {
        let out = of(&list(&[("r", &id)]), vec![reservation("r", "g", &[])]);
        let gpu = if id == MIG { MIG } else { A };
        assert_eq!((rows(&out), doubts(&out, "a")), (vec![], vec![Some(gpu)]), "{id}");
        assert_eq!(uncertainty(&out).0, [gpu]);
    }
    // A GPU that cannot be read.
    let unknown = "GPU-dddddddd-0000-0000-0000-000000000000";
    let out = of(&list(&[("r", unknown)]), vec![reservation("r", "g", &[])]);
    assert_eq!((rows(&out), doubts(&out, "a")), (vec![], vec![None]));
}

#[test]
fn a_gpu_that_is_stated_and_not_on_the_node_contradicts_nothing() {
    let stated = [("run.ai/reserve_for_gpu_index", "GPU-dddddddd-0000-0000-0000-000000000000")];
    let pods = pods([reservation("r", "g", &stated), member("a", &["g"], &[HALF])]);
    assert_eq!(rows(&join(&list(&[("r", A)]), &pods)), [share("a", "c", A, Some(HALF_MIB))]);
}

#[test]
fn a_group_without_a_reservation_pod_allocates_nothing_after_a_delay() {
    let pods = pods([member("a", &["g"], &[HALF]), reservation("r", "other", &[])]);
    let out = join(&list(&[("r", A)]), &pods);
    assert_eq!((rows(&out), doubts(&out, "a")), (vec![], vec![]));
    assert_eq!(
        out.completeness.unreserved,
        [(("demo".into(), "a".into()), policy::RESERVATION_DELAY)].into()
    );
    let problems = vec![("no_member", 1), ("no_reservation", 1)];
    assert_eq!(uncertainty(&out), (vec![A], false, problems));
}

#[test]
fn a_pod_in_another_namespace_reserves_nothing() {
    let impostor = grouped(plain_pod("b"), &["g"]);
    let pods = pods([impostor, member("a", &["g"], &[HALF])]);
    let out = join(&assignments(vec![assigned("b", "c", "nvidia.com/gpu", &[A])]), &pods);
    assert_eq!(rows(&out), [("b", "c", A, AllocateMode::Exclusive, Some(23028.0), 0.0, true)]);
    assert_eq!(out.completeness.unreserved.len(), 1);
    assert!(!uncertainty(&out).1);
}

#[test]
fn members_of_a_deleted_reservation_pod_are_unknown_until_they_can_have_ended() {
    let t = Duration::from_secs;
    let mut store = PodStore::new("test", "n1");
    let list_of = |store: &mut PodStore, pods: Vec<Pod>, now| {
        store.begin_list();
        for pod in pods {
            store.apply(pod, now);
        }
        store.end_list(now);
        store.health.record_success(now);
    };
    list_of(&mut store, vec![reservation("r", "g", &[]), member("a", &["g"], &[HALF])], t(0));
    // `b` claims the group after its reservation pod is gone.
    list_of(&mut store, vec![member("a", &["g"], &[HALF]), member("b", &[], &[HALF])], t(100));
    list_of(&mut store, vec![member("a", &["g"], &[HALF]), member("b", &["g"], &[HALF])], t(101));
    let out = join(&assignments(vec![]), &store.snapshot(t(101)));
    let known_from = |pod: &str| out.completeness.unreserved[&("demo".into(), pod.into())];
    assert_eq!(known_from("a"), t(100) + policy::POD_OUTLIVED_MAX);
    assert_eq!(known_from("b"), t(100) + policy::RESERVATION_DELAY);
    let lost_until = |out: &AllocationResult| out.completeness.reservation_lost_until;
    assert_eq!(lost_until(&out), known_from("a"));
    // A new pod of a group that never had a reservation pod holds nothing.
    list_of(&mut store, vec![member("b", &["h"], &[HALF])], t(102));
    let out = join(&assignments(vec![]), &store.snapshot(t(102)));
    assert_eq!((out.completeness.unreserved.len(), lost_until(&out)), (1, Duration::ZERO));
    // After a gap, its reservation pod may have come and gone.
    let late = t(103) + policy::PODS_GAP_MIN;
    list_of(&mut store, vec![member("b", &["i"], &[HALF])], late);
    let out = join(&assignments(vec![]), &store.snapshot(late));
    assert_eq!(lost_until(&out), t(100) + policy::RESERVATION_DELAY);
}

#[test]
fn forged_shares_withhold_the_newest_share_and_the_sum() {
    let t = Duration::from_secs;
    let mut store = PodStore::new("test", "n1");
    store.begin_list();
    // The forger is older than its victim, but its claim is newer.
    store.apply(reservation("r", "g", &[]), t(0));
    store.apply(member("b", &[], &[]), t(0));
    store.apply(member("a", &["g"], &[HALF]), t(5));
    store.end_list(t(5));
    store.health.record_success(t(5));
    store.apply(member("b", &["g"], &[("gpu-fraction", "0.9")]), t(9));
    let mut relabelled = member("a", &["g"], &[HALF]);
    relabelled.labels.insert("role".into(), "leader".into());
    store.apply(relabelled, t(10));
    let out = join(&list(&[("r", A)]), &store.snapshot(t(10)));
    assert_eq!(rows(&out), [share("a", "c", A, Some(HALF_MIB))]);
    assert_eq!((doubts(&out, "a"), doubts(&out, "b")), (vec![], vec![Some(A)]));
    assert_eq!(uncertainty(&out), (vec![A], false, vec![("overcommitted", 1)]));
}

#[test]
fn malformed_shares_are_unknown_on_their_gpu_only() {
    for (annotations, problem) in [
        (&[][..], "no_annotation"),
        (&[("gpu-fraction", "x")], "invalid_annotation"),
        (&[("gpu-memory", "23029")], "invalid_amount"),
        (&[HALF, ("gpu-fraction-container-name", "nope")], "no_container"),
        (&[HALF, ("gpu-fraction-num-devices", "2")], "invalid_annotation"),
    ] {
        let pods = pods([reservation("r", "g", &[]), member("a", &["g"], annotations)]);
        let out = join(&list(&[("r", A)]), &pods);
        assert_eq!((rows(&out), doubts(&out, "a")), (vec![], vec![Some(A)]), "{annotations:?}");
        assert_eq!(uncertainty(&out), (vec![A], false, vec![(problem, 1)]));
    }
}

#[test]
fn annotations_of_other_schedulers_do_not_change_the_share_of_a_member() {
    let foreign = ("scheduler.framework.gpushare.allocation", r#"{"0":{"0":8}}"#);
    let pods = pods([reservation("r", "g", &[]), member("a", &["g"], &[HALF, foreign])]);
    let out = join(&list(&[("r", A)]), &pods);
    assert_eq!(rows(&out), [share("a", "c", A, Some(HALF_MIB))]);
}

#[test]
fn a_pod_with_gpus_of_its_own_is_no_member() {
    let greedy = grouped(pod("a", &[HALF], &[("c", "nvidia.com/gpu=1")], &[]), &["g"]);
    let pods = pods([reservation("r", "g", &[]), greedy, member("b", &["g"], &[HALF])]);
    let mut list = list(&[("r", A)]);
    list.containers.push(assigned("a", "c", "nvidia.com/gpu", &[B]));
    let out = join(&list, &pods);
    let exclusive = ("a", "c", B, AllocateMode::Exclusive, Some(23028.0), 0.0, true);
    assert_eq!(rows(&out), [exclusive, share("b", "c", A, Some(HALF_MIB))]);
    assert_eq!(uncertainty(&out), (vec![], false, vec![("unrequested_annotation", 1)]));
}

#[test]
fn shares_of_pods_of_one_name_are_withheld() {
    let successor = || {
        let mut successor = member("a", &["g"], &[HALF]);
        successor.id.uid = "successor".into();
        successor
    };
    let all = [reservation("r", "g", &[]), member("a", &["g"], &[HALF]), successor()];
    let out = join(&list(&[("r", A)]), &pods(all));
    assert_eq!((rows(&out), doubts(&out, "a")), (vec![], vec![Some(A)]));
}

#[test]
fn a_member_may_use_claims_of_other_drivers() {
    for (driver, is_member) in [("net.example.com", true), ("gpu.nvidia.com", false)] {
        let mut pod = member("a", &["g"], &[HALF]);
        pod.containers[0].claims.push("claim".into());
        let pods = pods([reservation("r", "g", &[]), pod]);
        let mut list = list(&[("r", A)]);
        let mut claim = claims::claim("a", "claim", "gpu-0");
        claim.claims[0].driver = driver.into();
        list.containers.push(claim);
        let out = join(&list, &pods);
        let expected = is_member.then(|| share("a", "c", A, Some(HALF_MIB)));
        assert_eq!(rows(&out), expected.into_iter().collect::<Vec<_>>(), "{driver}");
    }
}

#[test]
fn any_listed_pod_may_be_a_member_while_the_pods_are_unknown() {
    let list = list(&[("r", A)]);
    for pods in [None, Some(PodStore::new("test", "n1").snapshot(T))] {
        let options = AllocationOptions::default();
        let out =
            resolve_allocations(&devices(), &list, pods.as_ref(), DraObjects::default(), &options);
        assert_eq!((rows(&out), doubts(&out, "a")), (vec![], vec![Some(A)]));
        assert_eq!(uncertainty(&out).0, [A]);
    }
}

#[test]
fn a_reservation_pod_that_cannot_be_identified_may_be_that_of_any_group() {
    let out = join(&list(&[("r", A)]), &pods([member("a", &["g"], &[HALF])]));
    assert_eq!((rows(&out), doubts(&out, "a")), (vec![], vec![None]));
    assert!(out.completeness.unreserved.is_empty());
    assert_eq!(uncertainty(&out).0, [A]);
}

#[test]
fn reservation_namespaces_are_configured() {
    let pods = pods([reservation("r", "g", &[]), member("a", &["g"], &[HALF])]);
    let out = |namespaces: &[&str]| {
        let reservation_namespaces = namespaces.iter().copied().map(Box::from).collect();
        let options = AllocationOptions { reservation_namespaces, ..AllocationOptions::default() };
        resolve_allocations(
            &devices(),
            &list(&[("r", A)]),
            Some(&pods),
            DraObjects::default(),
            &options,
        )
    };
    assert_eq!(rows(&out(&["x", KAI])), [share("a", "c", A, Some(HALF_MIB))]);
    let exclusive = ("r", "r", A, AllocateMode::Exclusive, Some(23028.0), 0.0, true);
    assert_eq!(rows(&out(&[])), [exclusive]);
}

proptest! {
    /// Whatever a pod writes into its labels and annotations, the allocations of the others and the
    /// known pods are the same, unless the shares add up to more than the GPU: then its own is not
    /// accepted.
    #[test]
    fn a_forger_changes_only_its_own_allocations(
        groups in prop::collection::btree_set("[gh]|x", 0..3),
        fraction in "0\\.[0-9]|[-0-9.eE]{0,4}",
        devices in prop::option::of("[0-3]"),
        container in prop::option::of("[cdiz]"),
        requests in prop::option::of(Just("nvidia.com/gpu=1")),
    ) {
        let t = Duration::from_secs;
        let mut annotations = vec![("gpu-fraction", fraction.as_str())];
        annotations.extend(devices.as_deref().map(|n| ("gpu-fraction-num-devices", n)));
        annotations.extend(container.as_deref().map(|c| ("gpu-fraction-container-name", c)));
        let groups: Vec<_> = groups.iter().map(String::as_str).collect();
        let forged = pod("x", &annotations, &[("c", requests.unwrap_or_default()), ("d", "")], &[]);
        let of = |forged: Option<Pod>| {
            let mut store = PodStore::new("test", "n1");
            store.begin_list();
            for pod in [
                reservation("r", "g", &[]),
                reservation("s", "h", &[]),
                member("a", &["g"], &[HALF]),
                member("b", &["g", "h"], &[HALF, ("gpu-fraction-num-devices", "2")]),
                plain_pod("p0"),
            ] {
                store.apply(pod, t(0));
            }
            store.end_list(t(0));
            store.health.record_success(t(0));
            forged.map(|pod| store.apply(pod, t(9)));
            let mut list = list(&[("r", A), ("s", B)]);
            list.containers.push(assigned("p0", "c", "nvidia.com/gpu", &[C]));
            join(&list, &store.snapshot(t(9)))
        };
        let (honest, out) = (of(None), of(Some(grouped(forged, &groups))));
        let others = |out: &AllocationResult| -> Vec<DeviceAllocation> {
            let others = out.allocations.iter().filter(|a| &*a.container.pod.name != "x");
            others.cloned().collect()
        };
        prop_assert_eq!(others(&out), others(&honest));
        let mut doubts = out.completeness.doubts.clone();
        doubts.remove(&("demo".into(), "x".into()));
        prop_assert_eq!(&doubts, &honest.completeness.doubts);
        prop_assert_eq!(out.completeness.node_uncertain, honest.completeness.node_uncertain);
        prop_assert!(out.completeness.unreserved.keys().all(|(_, name)| &**name == "x"));
    }
}
