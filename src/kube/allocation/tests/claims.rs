//! Allocations by resource claims.

use super::*;
use crate::kube::assignments::{ClaimedDevice, SliceDevice, SliceKey};
use crate::kube::resource_claims::table::tests::{request, table};
use crate::model::Claim;

pub(super) fn claim(pod: &str, claim: &str, device: &str) -> ContainerAssignment {
    let claimed = ClaimedDevice {
        claim_namespace: "demo".into(),
        claim_name: claim.into(),
        driver: "gpu.nvidia.com".into(),
        pool: "n1".into(),
        device: device.into(),
        share: None,
    };
    ContainerAssignment { claims: vec![claimed], devices: vec![], ..assigned(pod, "c", "", &[]) }
}

/// The allocations where no claim can be read.
fn run_without_claims(containers: Vec<ContainerAssignment>) -> AllocationResult {
    let pods = pods([plain_pod("a"), plain_pod("b")]);
    let dra = DraObjects { slices: Some(&slices()), claims: None };
    resolve_allocations(
        &devices(),
        &assignments(containers),
        Some(&pods),
        dra,
        &AllocationOptions::default(),
    )
}

#[test]
fn claims_are_resolved_by_slices() {
    let run = run_without_claims;
    let out = run(vec![claim("a", "x", "gpu-1"), claim("b", "y", "gpu-2-mig-1g10gb-19-2")]);
    assert_eq!(
        rows(&out),
        [
            ("a", "c", A, AllocateMode::Exclusive, Some(23028.0), 0.0, true),
            ("b", "c", MIG, AllocateMode::Exclusive, Some(9728.0), 0.0, true),
        ]
    );
    let found_claims: Vec<_> =
        out.allocations.iter().map(|allocation| allocation.claim.as_deref().unwrap()).collect();
    let whole = Claim {
        name: "x".into(),
        namespace: "demo".into(),
        driver: "gpu.nvidia.com".into(),
        pool: "n1".into(),
        device: "gpu-1".into(),
        ..Claim::default()
    };
    let mig = Claim {
        name: "y".into(),
        device: "gpu-2-mig-1g10gb-19-2".into(),
        mig_profile: "1g.10gb".into(),
        mig_uuid: MIG.into(),
        ..whole.clone()
    };
    assert_eq!(found_claims, [&whole, &mig]);
    let shared = run(vec![claim("a", "x", "gpu-1"), claim("b", "x", "gpu-1")]);
    let share = |pod| (pod, "c", A, AllocateMode::Share, Some(23028.0), 0.0, false);
    assert_eq!(rows(&shared), [share("a"), share("b")]);

    let contested = run(vec![claim("a", "x", "gpu-1"), claim("b", "admin", "gpu-1")]);
    assert_eq!(rows(&contested), []);
    assert_eq!(uncertainty(&contested), (vec![A], false, vec![("contested_device", 2)]));

    let on_demand = run(vec![claim("a", "x", "gpu-2-mig-1g10gb-19-3")]);
    let problems = vec![("unknown_device", 1), ("unlisted_pod", 1)];
    assert_eq!(uncertainty(&on_demand), (vec![C, MIG], false, problems));
    let unknown = run(vec![claim("a", "x", "gpu-7")]);
    let problems = vec![("no_slice", 1), ("unlisted_pod", 1)];
    assert_eq!(uncertainty(&unknown), (vec![], true, problems));
}

fn key(driver: &str, device: &str) -> SliceKey {
    SliceKey { driver: driver.into(), pool: "n1".into(), device: device.into() }
}

/// GPU A as `gpu-1`, B as `gpu-0`, and C with MIG devices that are created for claims.
fn slices() -> SliceTable {
    let device = |uuid: Option<&str>, parent: Option<&str>| SliceDevice {
        uuid: uuid.map(Box::from),
        parent: parent.map(Box::from),
        kind: Some(if parent.is_some() { "mig" } else { "gpu" }.into()),
        profile: parent.map(|_| "1g.10gb".into()),
    };
    let nvidia = |name: &str| key("gpu.nvidia.com", name);
    SliceTable {
        devices: [
            (nvidia("gpu-1"), device(Some(A), None)),
            (nvidia("gpu-0"), device(Some(B), None)),
            (nvidia("gpu-2"), device(Some(C), None)),
            (nvidia("gpu-2-mig-1g10gb-19-2"), device(None, Some(C))),
            (nvidia("gpu-2-mig-1g10gb-19-3"), device(None, Some(C))),
            (nvidia("gpu-2-mig-1g20gb-15-2"), device(None, Some(C))),
            (key("gpu.example.com", "gpu-1"), device(Some(A), None)),
            (key("gpu.example.com", "gpu-9"), device(Some("AMD-1"), None)),
        ]
        .into(),
    }
}

fn run(containers: Vec<ContainerAssignment>, claims: &ClaimTable) -> AllocationResult {
    let pods = pods(["a", "b", "x"].map(|name| pod(name, &[], &[("c", ""), ("d", "")], &[])));
    let dra = DraObjects { slices: Some(&slices()), claims: Some(claims) };
    resolve_allocations(
        &devices(),
        &assignments(containers),
        Some(&pods),
        dra,
        &AllocationOptions::default(),
    )
}

fn share(pod: &str, claim_name: &str, device: &str) -> ContainerAssignment {
    let mut assigned = claim(pod, claim_name, device);
    assigned.claims[0].share = Some(format!("share-{claim_name}").into());
    assigned
}

/// A result of a claim: a device, and further fields.
fn result(device: &str, rest: &str) -> String {
    format!(r#"{{"request":"r","driver":"gpu.nvidia.com","pool":"n1","device":"{device}"{rest}}}"#)
}

fn share_result(claim: &str, device: &str, memory: &str) -> String {
    let rest = format!(r#","shareID":"share-{claim}","consumedCapacity":{{{memory}}}"#);
    result(device, &rest)
}

fn doubts(out: &AllocationResult) -> Vec<(&str, Vec<AllocationDoubt>)> {
    let doubts = out.completeness.doubts.iter();
    doubts.map(|((_, pod), doubts)| (&**pod, doubts.iter().cloned().collect())).collect()
}

const ADMIN: &str = r#","adminAccess":true"#;

#[test]
fn administrative_access_changes_nothing_for_others() {
    let whole = result("gpu-1", "");
    let admin = [result("gpu-1", ADMIN), result("gpu-2", ADMIN), result("gpu-7", ADMIN)].join(",");
    let monitor = |device: &str| claim("x", "all", device);
    let mut containers = vec![claim("a", "train", "gpu-1"), monitor("gpu-1")];
    containers.extend([monitor("gpu-2"), monitor("gpu-7")]);
    let claims = table(&[("train", &["uid-a"], &whole), ("all", &["uid-x"], &admin)], &[]);
    let out = run(containers.clone(), &claims);
    let exclusive = [("a", "c", A, AllocateMode::Exclusive, Some(23028.0), 0.0, true)];
    assert_eq!(rows(&out), exclusive);
    assert_eq!(uncertainty(&out), (vec![], false, vec![("no_slice", 1)]));
    assert_eq!(doubts(&out), [("x", vec![AllocationDoubt::Any])]);
    let devices = [A, C, MIG].map(Arc::from).into();
    assert_eq!(out.completeness.admin_access, [("uid-x".into(), devices)].into());

    // Before it was read, the device stays that of the claim that was read.
    let out = run(containers[..2].to_vec(), &table(&[("train", &["uid-a"], &whole)], &[]));
    assert_eq!(rows(&out), exclusive);
    assert_eq!(uncertainty(&out), (vec![], false, vec![("unread_claim", 1)]));
    assert_eq!(doubts(&out), [("x", vec![AllocationDoubt::Device(A.into())])]);

    let none = run(containers[..2].to_vec(), &ClaimTable::default());
    assert_eq!(
        (rows(&none), uncertainty(&none)),
        (vec![], (vec![A], false, vec![("contested_device", 2)]))
    );
    let claims = table(&[("train", &["uid-a"], &whole), ("all", &["uid-x"], &whole)], &[]);
    let both = run(containers[..2].to_vec(), &claims);
    assert_eq!(uncertainty(&both), (vec![A], false, vec![("contested_device", 2)]));
}

#[test]
fn shares_have_the_size_in_their_claim() {
    let gib = |claim| share_result(claim, "gpu-1", r#""memory":"4Gi""#);
    let unlimited = share_result("y", "gpu-1", r#""memory":"0""#);
    let other = share_result("z", "gpu-1", r#""shares":"1""#);
    let claims: &[(&str, &[&str], &str)] =
        &[("x", &["uid-a"], &gib("x")), ("y", &["uid-b"], &unlimited), ("z", &["uid-x"], &other)];
    let containers = ["x", "y", "z"].into_iter().zip(["a", "b", "x"]);
    let containers = containers.map(|(claim, pod)| share(pod, claim, "gpu-1")).collect();
    let out = run(containers, &table(claims, &[]));
    let row = |pod, memory, reserved| (pod, "c", A, AllocateMode::Share, memory, 0.0, reserved);
    assert_eq!(
        rows(&out),
        [row("a", Some(4096.0), true), row("b", Some(23028.0), false), row("x", None, false)]
    );
    assert_eq!(uncertainty(&out), (vec![], false, vec![]));

    // Two shares of one container add up, as listed once or twice.
    let mut two = share("a", "x", "gpu-1");
    two.claims.extend(share("a", "w", "gpu-1").claims);
    two.claims.extend(share("a", "w", "gpu-1").claims);
    let claims: &[(&str, &[&str], &str)] =
        &[("x", &["uid-a"], &gib("x")), ("w", &["uid-a"], &gib("w"))];
    assert_eq!(rows(&run(vec![two], &table(claims, &[]))), [row("a", Some(8192.0), true)]);

    // The containers of one share have its memory together.
    let second = ContainerAssignment { container: "d".into(), ..share("a", "x", "gpu-1") };
    let out = run(vec![share("a", "x", "gpu-1"), second], &table(claims, &[]));
    assert_eq!(rows(&out)[0], row("a", None, true));
}

#[test]
fn allocation_of_a_pod_with_claims_is_known_once_the_kubelet_lists_them() {
    let known = |containers: Vec<ContainerAssignment>| {
        let mut claiming = pod("a", &[], &[("c", ""), ("d", "")], &[]);
        claiming.containers[0].claims = vec!["gpu".into()];
        let mut list = assignments(containers);
        list.pods.insert(("demo".into(), "a".into()));
        let Coverage::Pods { known, .. } = join(&list, &pods([claiming])).completeness.coverage
        else {
            panic!("the pods are known")
        };
        known.contains("uid-a")
    };
    assert!(!known(vec![]), "as that of a successor without claims");
    assert!(!known(vec![assigned("a", "c", "nvidia.com/gpu", &[A])]));
    assert!(known(vec![claim("a", "x", "gpu-1")]));
}

#[test]
fn shares_above_the_size_of_the_device_have_no_sum() {
    let claims = |memory: &str| {
        let of = |claim| share_result(claim, "gpu-1", &format!(r#""memory":"{memory}""#));
        let (x, y) = (of("x"), of("y"));
        table(&[("x", &["uid-a"], &x), ("y", &["uid-b"], &y)], &[])
    };
    let containers = || vec![share("a", "x", "gpu-1"), share("b", "y", "gpu-1")];
    let row = |pod, memory| (pod, "c", A, AllocateMode::Share, Some(memory), 0.0, true);
    let all = run(containers(), &claims("11514Mi"));
    assert_eq!(rows(&all), [row("a", 11514.0), row("b", 11514.0)]);
    assert_eq!(uncertainty(&all), (vec![], false, vec![]));
    let more = run(containers(), &claims("11515Mi"));
    assert_eq!(rows(&more), [row("a", 11515.0), row("b", 11515.0)]);
    assert_eq!(uncertainty(&more), (vec![A], false, vec![("overcommitted", 1)]));
}

#[test]
fn unread_claim_withholds_its_device_and_a_denied_one_its_size() {
    let out = run(vec![claim("a", "x", "gpu-1"), share("b", "y", "gpu-0")], &ClaimTable::default());
    assert_eq!(rows(&out), []);
    assert_eq!(uncertainty(&out), (vec![A, B], false, vec![("unread_claim", 2)]));
    assert_eq!(
        doubts(&out),
        [
            ("a", vec![AllocationDoubt::Device(A.into())]),
            ("b", vec![AllocationDoubt::Device(B.into())])
        ]
    );
    let requests = &out.requests;
    assert_eq!(requests.claims, [request("x", "uid-a"), request("y", "uid-b")].into());
    assert_eq!(requests.devices.len(), 2);
    let denied = table(&[], &["x", "y"]);
    let out = run(vec![claim("a", "x", "gpu-1"), share("b", "y", "gpu-0")], &denied);
    assert_eq!(
        rows(&out),
        [
            ("a", "c", A, AllocateMode::Exclusive, Some(23028.0), 0.0, true),
            ("b", "c", B, AllocateMode::Share, None, 0.0, false)
        ]
    );
    assert_eq!(uncertainty(&out), (vec![], false, vec![("unread_claim", 2)]));
    // A claim of the same name that is reserved for another pod is that of its predecessor.
    let earlier = table(&[("x", &["uid-earlier"], &result("gpu-1", ""))], &[]);
    let out = run(vec![claim("a", "x", "gpu-1")], &earlier);
    assert_eq!(uncertainty(&out), (vec![A], false, vec![("unread_claim", 1)]));
}

#[test]
fn configured_sharing_makes_a_share_with_its_limits() {
    let sharing = |sharing: &str, device: &str| {
        let kind = if device.contains("mig") { "MigDeviceConfig" } else { "GpuConfig" };
        let config = format!(
            r#"{{"opaque":{{"driver":"gpu.nvidia.com","parameters":{{"kind":"{kind}","sharing":{sharing}}}}}}}"#
        );
        let results = format!(r#"{}],"config":[{config}"#, result(device, ""));
        let out = run(vec![claim("a", "x", device)], &table(&[("x", &["uid-a"], &results)], &[]));
        assert_eq!(uncertainty(&out), (vec![], false, vec![]));
        let [allocation] = &out.allocations[..] else { panic!("{out:?}") };
        assert_eq!((allocation.mode, allocation.reserved), (AllocateMode::Share, false));
        (allocation.memory, allocation.compute)
    };
    let mps = r#"{"strategy":"MPS","mpsConfig":{"defaultActiveThreadPercentage":25,"defaultPinnedDeviceMemoryLimit":"8Gi"}}"#;
    let (whole, mig) = ("gpu-1", "gpu-2-mig-1g10gb-19-2");
    assert_eq!(sharing(mps, whole), (Some(8192.0), Some(0.25)));
    assert_eq!(sharing(mps, mig), (Some(8192.0), Some(0.25)));
    assert_eq!(sharing(&mps.replace("8Gi", "800Gi"), whole), (Some(23028.0), Some(0.25)));
    assert_eq!(sharing(r#"{"strategy":"MPS"}"#, whole), (Some(23028.0), Some(0.0)));
    assert_eq!(sharing(r#"{"strategy":"TimeSlicing"}"#, whole), (Some(23028.0), Some(0.0)));
    assert_eq!(sharing(r#"{"strategy":"Other"}"#, whole), (None, None));
}

#[test]
fn mig_device_without_uuid_is_found_by_its_placement() {
    let found = |device: &str| {
        let claims = table(&[("x", &["uid-a"], &result(device, ""))], &[]);
        run(vec![claim("a", "x", device)], &claims)
    };
    let out = found("gpu-2-mig-1g10gb-19-2");
    assert_eq!(rows(&out), [("a", "c", MIG, AllocateMode::Exclusive, Some(9728.0), 0.0, true)]);
    let of_mig = out.allocations[0].claim.as_deref().unwrap();
    assert_eq!((&*of_mig.mig_uuid, &*of_mig.mig_profile), (MIG, "1g.10gb"));
    for elsewhere in ["gpu-2-mig-1g10gb-19-3", "gpu-2-mig-1g20gb-15-2", "gpu-2"] {
        let out = found(elsewhere);
        assert_eq!(uncertainty(&out), (vec![C, MIG], false, vec![("unknown_device", 1)]));
        let devices = [C, MIG].map(|device| AllocationDoubt::Device(device.into()));
        assert_eq!(doubts(&out), [("a", devices.to_vec())], "{elsewhere}");
    }
    let two_in_one = {
        let mut devices = devices();
        let mig = devices[2].migs[0].clone();
        devices[2].migs.push(AllocatableMig { uuid: "MIG-2".into(), compute_instance: 1, ..mig });
        devices
    };
    let pods = pods([pod("a", &[], &[("c", "")], &[])]);
    let dra = DraObjects { slices: Some(&slices()), claims: None };
    let containers = vec![claim("a", "x", "gpu-2-mig-1g10gb-19-2")];
    let out = resolve_allocations(
        &two_in_one,
        &assignments(containers),
        Some(&pods),
        dra,
        &AllocationOptions::default(),
    );
    assert_eq!(rows(&out), [], "two compute instances");
}

#[test]
fn claims_of_other_drivers_are_gpus_only_if_their_slices_say_so() {
    let of = |driver: &str, device: &str| {
        let mut assigned = claim("a", "x", device);
        assigned.claims[0].driver = driver.into();
        let text = result(device, "").replace("gpu.nvidia.com", driver);
        run(vec![assigned], &table(&[("x", &["uid-a"], &text)], &[]))
    };
    let out = of("gpu.example.com", "gpu-1");
    assert_eq!(rows(&out), [("a", "c", A, AllocateMode::Exclusive, Some(23028.0), 0.0, true)]);
    let out = of("gpu.example.com", "gpu-9");
    assert_eq!((rows(&out), uncertainty(&out)), (vec![], (vec![], false, vec![])));
    let out = of("gpu.example.com", "gpu-5");
    assert_eq!(uncertainty(&out), (vec![], false, vec![("no_slice", 1)]), "of another vendor");
    assert_eq!(doubts(&out), [("a", vec![AllocationDoubt::Any])]);
    let out = of("dra.net", "eth0");
    assert_eq!((uncertainty(&out), doubts(&out)), ((vec![], false, vec![]), vec![]));
    assert_eq!(out.requests, DraRequests::default(), "nothing is read for it");
}
