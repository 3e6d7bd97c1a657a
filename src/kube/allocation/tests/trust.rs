//! What annotations can claim: MIG devices, forged devices and amounts.

use super::*;

const MIG_2: &str = "MIG-cccccccc-0000-0000-0000-000000000002";

/// A mode, with the annotations of a pod that has 8 units or 1 device on GPU A or on a MIG device of C.
struct Mode {
    name: &'static str,
    resource: &'static str,
    units: u32,
    annotations: Vec<(&'static str, String)>,
    device: &'static str,
}

fn modes() -> Vec<Mode> {
    let text = |key, text: &str| (key, text.to_owned());
    let v2 = r#"{"0":{"1":8}}"#;
    let share = format!("{A},NVIDIA,3000,0:;");
    let slot = format!("{C}[1-0],NVIDIA,10240,0:;");
    let of_c = format!("{C},NVIDIA,9728,0:;");
    let identity = format!(
        r#"[{{"containerIndex":0,"deviceIndex":0,"gpuUUID":"{C}","profile":"1g.10gb","placement":{{"start":0,"size":1}},"migUUID":"{MIG}","gpuInstanceID":3,"computeInstanceID":0}}]"#
    );
    let koordinator = r#"{"gpu":[{"minor":1,"resources":{"koordinator.sh/gpu-memory":"8Gi"}}]}"#;
    let v1 = vec![text("ALIYUN_COM_GPU_MEM_IDX", "1"), text("ALIYUN_COM_GPU_MEM_POD", "8")];
    let mode = |name, resource, units, annotations, device| Mode {
        name,
        resource,
        units,
        annotations,
        device,
    };
    let (ack, hami, volcano) = ("aliyun.com/gpu-mem", "nvidia.com/gpu", "volcano.sh/vgpu-number");
    let mig = "hami.io/vgpu-mig-allocations";
    let vgpu = "volcano.sh/vgpu-ids-new";
    vec![
        mode("ack v1", ack, 8, v1, A),
        mode("ack v2", ack, 8, vec![text(ACK, v2)], A),
        mode("ack v2, new key", ack, 8, vec![text("gpushare.alibabacloud.com/gpumemory", v2)], A),
        mode("hami", hami, 1, vec![text(HAMI, &share)], A),
        mode("hami mig, older", hami, 1, vec![text(HAMI, &slot)], MIG),
        mode("hami mig", hami, 1, vec![text(HAMI, &of_c), text(mig, &identity)], MIG),
        mode("volcano", volcano, 1, vec![text(vgpu, &share)], A),
        mode("volcano mig", volcano, 1, vec![text(vgpu, &slot.replace("[1-", "[group2-"))], MIG),
        mode(
            "volcano memory",
            "volcano.sh/gpu-memory",
            8,
            vec![text("volcano.sh/gpu-index", "1")],
            A,
        ),
        mode(
            "koordinator",
            "koordinator.sh/gpu-memory",
            1,
            vec![text(KOORDINATOR, koordinator)],
            A,
        ),
    ]
}

impl Mode {
    /// A pod with the annotations, which requests `quantity` units.
    fn pod(&self, name: &str, quantity: u32) -> Pod {
        let annotations: Vec<_> = self.annotations.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let requests = format!("{}={quantity}", self.resource);
        pod(name, &annotations, &[("c", if quantity == 0 { "" } else { &requests })], &[])
    }

    fn held(&self, pod: &str, units: u32) -> ContainerAssignment {
        let id = |n| match self.resource {
            "aliyun.com/gpu-mem" => format!("{B}-_-{n}"),
            _ => format!("{B}-{n}"),
        };
        let ids: Vec<_> = (0..units).map(id).collect();
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        assigned(pod, "c", self.resource, &ids)
    }
}

fn devices_of(out: &AllocationResult) -> Vec<(&str, &str)> {
    out.allocations.iter().map(|a| (&*a.container.pod.name, &*a.device)).collect()
}

#[test]
fn each_mode_is_accepted_with_its_units_at_the_kubelet() {
    for mode in modes() {
        let held = assignments(vec![mode.held("a", mode.units)]);
        let out = join(&held, &pods([mode.pod("a", mode.units)]));
        assert_eq!(devices_of(&out), [("a", mode.device)], "{}", mode.name);
        assert_eq!(uncertainty(&out), (vec![], false, vec![]), "{}", mode.name);
        let expected = match mode.device {
            MIG => (AllocateMode::Exclusive, Some(9728.0), 0.0),
            _ => (AllocateMode::Share, out.allocations[0].memory, 0.0),
        };
        let DeviceAllocation { mode: found, memory, compute, .. } = out.allocations[0];
        assert_eq!(
            (found, memory, compute),
            (expected.0, expected.1, Some(expected.2)),
            "{}",
            mode.name
        );
    }
}

#[test]
fn annotation_without_the_resource_at_the_kubelet_is_ignored() {
    for mode in modes() {
        let victim = assigned("x", "c", "nvidia.com/gpu", &[A]);
        // Units of another mode do not confirm it.
        let other = if mode.resource == "aliyun.com/gpu-mem" {
            "volcano.sh/vgpu-number"
        } else {
            "aliyun.com/gpu-mem"
        };
        for held in [None, Some(assigned("a", "c", other, &["u-1"]))] {
            let has_units = held.is_some();
            let list = assignments([Some(victim.clone()), held].into_iter().flatten().collect());
            let out = join(&list, &pods([plain_pod("x"), mode.pod("a", 0)]));
            assert_eq!(devices_of(&out), [("x", A)], "{}", mode.name);
            if has_units {
                assert_eq!(doubted(&out), [("a", None)], "{}", mode.name);
                continue;
            }
            assert_eq!(
                uncertainty(&out),
                (vec![], false, vec![("unrequested_annotation", 1)]),
                "{}",
                mode.name
            );
            let known = ["uid-a".into(), "uid-x".into()].into();
            let coverage = Coverage::Pods { known, unknown_holders: false };
            assert_eq!(out.completeness.coverage, coverage, "{}: its use is illegal", mode.name);
        }
    }
}

#[test]
fn request_in_the_spec_does_not_confirm_an_annotation() {
    for mode in modes().iter().filter(|mode| mode.name != "koordinator") {
        for is_listed in [true, false] {
            let mut list = assignments(vec![]);
            if !is_listed {
                list.pods.clear();
            }
            let out = join(&list, &pods([mode.pod("a", mode.units)]));
            assert_eq!(devices_of(&out), [], "{}", mode.name);
            let coverage = Coverage::Pods { known: BTreeSet::new(), unknown_holders: true };
            assert_eq!(out.completeness.coverage, coverage, "{}", mode.name);
        }
    }
    // The kubelet does not list koordinator's resources, unless they have a device plugin.
    let koordinator = modes().pop().unwrap();
    let mut list = assignments(vec![]);
    let out = join(&list, &pods([koordinator.pod("a", 1)]));
    assert_eq!(devices_of(&out), [("a", A)]);
    list.allocatable.insert("koordinator.sh/gpu-memory".into(), vec!["0".into()]);
    let out = join(&list, &pods([koordinator.pod("a", 1)]));
    assert_eq!(devices_of(&out), []);
}

#[test]
fn annotation_cannot_claim_the_device_of_another_pod() {
    for mode in modes() {
        let requests = [("c", "nvidia.com/gpu=1")];
        let victim = pod("x", &[], &requests, &[]);
        let owned = assigned("x", "c", "nvidia.com/gpu", &[mode.device]);
        let list = assignments(vec![owned, mode.held("a", mode.units)]);
        let out = join(&list, &pods([victim, mode.pod("a", mode.units)]));
        assert_eq!(devices_of(&out), [("x", mode.device)], "{}", mode.name);
        assert_eq!(doubted(&out), [("a", None)], "{}", mode.name);
        assert_eq!(
            uncertainty(&out),
            (vec![], true, vec![("contradicted_annotation", 1)]),
            "{}",
            mode.name
        );
    }
}

#[test]
fn container_without_units_cannot_make_the_device_of_another_pod_uncertain() {
    let text = format!("{B},NVIDIA,3000,0:;{A},NVIDIA,3000,0:;");
    let requests = [("c", "nvidia.com/gpu=1"), ("d", "")];
    let forger = pod("a", &[(HAMI, &text)], &requests, &[]);
    let list = assignments(vec![
        assigned("a", "c", "nvidia.com/gpu", &[&format!("{B}-0")]),
        assigned("x", "c", "nvidia.com/gpu", &[A]),
    ]);
    let out = join(&list, &pods([plain_pod("x"), forger]));
    assert_eq!(devices_of(&out), [("a", B), ("x", A)]);
    assert_eq!(doubted(&out), [("a", Some(A))]);
    assert_eq!(uncertainty(&out), (vec![], false, vec![("unrequested_annotation", 1)]));
}

#[test]
fn amount_has_to_be_that_of_the_kubelet() {
    let more = r#"{"0":{"1":22}}"#;
    let two = format!("{A},NVIDIA,3000,0:{B},NVIDIA,3000,0:;");
    for (resource, id, key, text) in [
        ("aliyun.com/gpu-mem", "_-1", ACK, more),
        ("nvidia.com/gpu", "1", HAMI, &two),
        ("volcano.sh/vgpu-number", "1", "volcano.sh/vgpu-ids-new", &two),
    ] {
        let forger = pod("a", &[(key, text)], &[("c", &format!("{resource}=1"))], &[]);
        let honest = pod("b", &[(ACK, r#"{"0":{"1":8}}"#)], &[("c", "aliyun.com/gpu-mem=8")], &[]);
        let units = assigned("a", "c", resource, &[&format!("{A}-{id}")]);
        let list = assignments(vec![units, ack_units("b", "c", 8)]);
        let out = join(&list, &pods([forger, honest]));
        assert_eq!(devices_of(&out), [("b", A)], "{resource}");
        assert_eq!(doubted(&out), [("a", None)], "{resource}");
        assert_eq!(uncertainty(&out), (vec![], true, vec![("invalid_amount", 1)]), "{resource}");
    }
    // Version 1 has no amount of its own: it is that of the spec, which cannot be changed.
    let v1 = modes().remove(0);
    let out = join(&assignments(vec![v1.held("a", 1)]), &pods([v1.pod("a", 8)]));
    assert_eq!(uncertainty(&out), (vec![], true, vec![("invalid_amount", 1)]));
}

/// Pods with 12 units each of GPU A: name, creation, and when the annotation was last changed.
fn competing(all: &[(&str, u64, u64)]) -> AllocationResult {
    let share = |name: &str, created: u64, gpu: u32| {
        let text = format!(r#"{{"0":{{"{gpu}":12}}}}"#);
        let pod = pod(name, &[(ACK, &text)], &[("c", "aliyun.com/gpu-mem=12")], &[]);
        Pod { created: NonZeroU64::new(created), ..pod }
    };
    let mut store = PodStore::new("test", "n1");
    store.begin_list();
    for (name, created, changed) in all {
        store.apply(share(name, *created, u32::from(*changed == 0)), Duration::ZERO);
    }
    store.end_list(Duration::ZERO);
    store.health.record_success(Duration::ZERO);
    for (name, created, changed) in all {
        store.apply(share(name, *created, 1), Duration::from_secs(*changed));
    }
    let held = all.iter().map(|(name, ..)| ack_units(name, "c", 12)).collect();
    join(&assignments(held), &store.snapshot(Duration::from_secs(60)))
}

#[test]
fn newest_share_is_withheld_if_a_gpu_has_no_memory_for_it() {
    let (early, late) = (1, 2);
    for (pods, kept, withheld) in [
        // Created later.
        ([("a", late, 0), ("b", early, 0)], "b", "a"),
        ([("a", early, 0), ("b", late, 0)], "a", "b"),
        // The older pod changed its annotation to the GPU of the younger one.
        ([("a", early, 9), ("b", late, 0)], "b", "a"),
    ] {
        let out = competing(&pods);
        assert_eq!(devices_of(&out), [(kept, A)]);
        assert_eq!(doubted(&out), [(withheld, Some(A))]);
        assert_eq!(uncertainty(&out), (vec![A], false, vec![("overcommitted", 1)]));
    }
}

#[test]
fn mig_device_of_two_annotations_is_that_of_the_first_pod() {
    for mode in modes().iter().filter(|mode| mode.device == MIG) {
        let created =
            |name, created| Pod { created: NonZeroU64::new(created), ..mode.pod(name, 1) };
        let pair = [created("a", 2), created("b", 1)];
        let list = assignments(vec![mode.held("a", 1), mode.held("b", 1)]);
        let out = join(&list, &pods(pair));
        assert_eq!(devices_of(&out), [("b", MIG)], "{}", mode.name);
        assert_eq!(doubted(&out), [("a", Some(MIG))], "{}", mode.name);
        assert_eq!(uncertainty(&out), (vec![MIG], false, vec![("contested_device", 1)]));
    }
}

#[test]
fn containers_of_a_pod_may_share_a_mig_device() {
    let text = format!("{C}[0-0],NVIDIA,10240,0:;{C}[0-0],NVIDIA,10240,0:;");
    let requests = [("c", "nvidia.com/gpu=1"), ("d", "nvidia.com/gpu=1")];
    let units = |c| assigned("a", c, "nvidia.com/gpu", &[&format!("{C}-0")]);
    let out = join(
        &assignments(vec![units("c"), units("d")]),
        &pods([pod("a", &[(HAMI, &text)], &requests, &[])]),
    );
    let share = |c| ("a", c, MIG, AllocateMode::Share, Some(9728.0), 0.0, false);
    assert_eq!(rows(&out), [share("c"), share("d")]);
}

/// The result of a pod with one device of `HAMi` and these annotations; GPU C has two MIG devices.
fn with_two_migs(annotations: &[(&str, &str)]) -> AllocationResult {
    let mut devices = devices();
    let first = devices[2].migs[0].clone();
    let second = AllocatableMig {
        uuid: MIG_2.into(),
        index: 2,
        gpu_instance: 5,
        framebuffer_mib: Some(19968.0),
        ..first
    };
    devices[2].migs.push(second);
    let units = assigned("a", "c", "nvidia.com/gpu", &[&format!("{C}-0")]);
    let pods = pods([pod("a", annotations, &[("c", "nvidia.com/gpu=1")], &[])]);
    resolve_allocations(
        &devices,
        &assignments(vec![units]),
        Some(&pods),
        DraObjects::default(),
        &AllocationOptions::default(),
    )
}

#[test]
fn mig_device_of_an_annotation_has_to_agree_with_the_driver() {
    let of_c = format!("{C},NVIDIA,9728,0:;");
    let identity = |gpu: &str, mig: &str, gi: u32, ci: u32| {
        format!(
            r#"[{{"containerIndex":0,"deviceIndex":0,"gpuUUID":"{gpu}","migUUID":"{mig}","gpuInstanceID":{gi},"computeInstanceID":{ci}}}]"#
        )
    };
    let newer =
        |text: &str| with_two_migs(&[(HAMI, &of_c), ("hami.io/vgpu-mig-allocations", text)]);
    let older =
        |slot: &str, mib: u32| with_two_migs(&[(HAMI, &format!("{C}[{slot}],NVIDIA,{mib},0:;"))]);
    assert_eq!(devices_of(&newer(&identity(C, MIG_2, 5, 0))), [("a", MIG_2)]);
    assert_eq!(devices_of(&older("0-2", 20480)), [("a", MIG_2)]);
    let pending = format!(r#"[{{"containerIndex":0,"deviceIndex":0,"gpuUUID":"{C}"}}]"#);
    for (out, problem) in [
        (newer(&identity(C, MIG_2, 3, 0)), "unknown_device"),
        (newer(&identity(C, MIG_2, 5, 1)), "unknown_device"),
        (newer(&identity(C, &MIG.replace('c', "d"), 3, 0)), "unknown_device"),
        (newer(&pending), "no_annotation"),
        // No MIG device has this index, or it has another size.
        (older("0-1", 10240), "unknown_device"),
        (older("0-2", 10240), "unknown_device"),
        (older("0-0", 0), "unknown_device"),
    ] {
        assert_eq!(devices_of(&out), []);
        assert_eq!(uncertainty(&out), (vec![C, MIG, MIG_2], false, vec![(problem, 1)]));
        let doubts = [("a", Some(C)), ("a", Some(MIG)), ("a", Some(MIG_2))];
        assert_eq!(doubted(&out), doubts, "of this GPU only");
    }
    let other = newer(&identity(A, MIG, 3, 0));
    assert_eq!(uncertainty(&other), (vec![], true, vec![("invalid_annotation", 1)]));
}
