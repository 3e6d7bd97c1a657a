//! Partitioned GPUs.

use std::{ffi::c_uint, ptr};

use nvml_wrapper::{
    Device, Nvml,
    enum_wrappers::device::{Clock, TemperatureSensor},
};
use nvml_wrapper_sys::bindings::{
    nvmlComputeInstance_t, nvmlComputeInstanceInfo_t, nvmlDevice_t, nvmlGpuInstance_t,
    nvmlGpuInstanceInfo_t, nvmlGpuInstanceProfileInfo_t, nvmlGpuInstanceProfileInfo_v2_t,
};
use proptest::prelude::*;

use crate::{MIB, Stage, error, eventually};

/// Ids of the GPU instance and the compute instance of a MIG device, or the code.
fn ids(stage: &Stage, device: &Device) -> (Result<c_uint, c_uint>, Result<c_uint, c_uint>) {
    let lib = stage.raw();
    // SAFETY: the handle is used while NVML is initialised.
    let handle = unsafe { device.handle() };
    let (mut gi, mut ci) = (0, 0);
    let answers = (
        raw!(lib, b"nvmlDeviceGetGpuInstanceId"(nvmlDevice_t = handle, *mut c_uint = &raw mut gi)),
        raw!(lib, b"nvmlDeviceGetComputeInstanceId"(
            nvmlDevice_t = handle, *mut c_uint = &raw mut ci
        )),
    );
    let told = |code: c_uint, id: c_uint| if code == 0 { Ok(id) } else { Err(code) };
    (told(answers.0, gi), told(answers.1, ci))
}

/// The MIG devices of a GPU, with their slots.
fn devices<'a>(parent: &Device<'a>) -> Vec<(u32, Device<'a>)> {
    let count = parent.mig_device_count().unwrap();
    (0..count).filter_map(|slot| Some((slot, parent.mig_device_by_index(slot).ok()?))).collect()
}

fn pids(device: &Device) -> Vec<u32> {
    device.running_compute_processes().unwrap().iter().map(|row| row.pid).collect()
}

#[test]
fn mig_devices_stand_in_slots_with_gaps_and_tell_who_they_are() {
    let stage = Stage::of("mig-a100");
    let nvml = stage.nvml();
    let parent = nvml.device_by_index(0).unwrap();
    assert_eq!((parent.mig_mode().unwrap().current, parent.mig_mode().unwrap().pending), (1, 1));
    assert_eq!(parent.mig_device_count().unwrap(), 7);
    let all = devices(&parent);
    assert_eq!(all.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [0, 1, 3, 5]);
    assert_eq!(error(parent.mig_device_by_index(2)), "NotFound");
    assert_eq!(error(parent.mig_device_by_index(7)), "InvalidArg");
    let named = |at: usize| all[at].1.name().unwrap();
    assert_eq!(named(0), "NVIDIA A100-SXM4-80GB MIG 1c.3g.40gb");
    assert_eq!(named(2), "NVIDIA A100-SXM4-80GB MIG 2g.20gb");
    let known: Vec<_> = all.iter().map(|(_, device)| ids(&stage, device)).collect();
    let expected = [(1, 0), (1, 1), (5, 0), (13, 0)].map(|(gi, ci)| (Ok(gi), Ok(ci)));
    assert_eq!(known, expected);
    assert_eq!(ids(&stage, &parent), (Err(3), Err(3)));
    for (slot, device) in &all {
        let uuid = device.uuid().unwrap();
        assert_eq!((uuid.len(), uuid.get(..4)), (40, Some("MIG-")));
        let again = nvml.device_by_uuid(uuid.as_str()).unwrap();
        assert_eq!((again.uuid().unwrap(), again.index().unwrap()), (uuid, *slot));
        assert!(device.mig_is_mig_device_handle().unwrap());
        assert_eq!(device.mig_parent_device().unwrap().uuid().unwrap(), parent.uuid().unwrap());
    }
    assert!(!parent.mig_is_mig_device_handle().unwrap());
    assert_eq!(error(parent.mig_parent_device()), "InvalidArg");
    assert_eq!(error(nvml.device_by_uuid("MIG-00000000-0000-4000-8000-000000000000")), "NotFound");
    let whole = nvml.device_by_index(1).unwrap();
    assert_eq!((whole.mig_mode().unwrap().current, whole.mig_device_count().unwrap()), (0, 0));
    assert_eq!(error(whole.mig_device_by_index(0)), "NotSupported");
}

#[test]
fn attributes_are_those_of_the_profile() {
    let stage = Stage::of("mig-a100");
    let nvml = stage.nvml();
    let parent = nvml.device_by_index(0).unwrap();
    let small = parent.mig_device_by_index(0).unwrap().attributes().unwrap();
    assert_eq!((small.multiprocessor_count, small.shared_copy_engine_count), (14, 3));
    assert_eq!((small.gpu_instance_slice_count, small.compute_instance_slice_count), (3, 1));
    assert_eq!(small.memory_size_mb, 40_192);
    assert_eq!(error(parent.attributes()), "NotSupported");
}

#[test]
fn lists_and_memory_are_each_instances_own() {
    let stage = Stage::of("mig-a100");
    let nvml = stage.nvml();
    let parent = nvml.device_by_index(0).unwrap();
    let lists: Vec<_> = devices(&parent).iter().map(|(_, device)| pids(device)).collect();
    assert_eq!(lists, [vec![3_101], vec![3_110], vec![3_201, 3_202], vec![]]);
    let told: Vec<_> = parent
        .running_compute_processes()
        .unwrap()
        .iter()
        .map(|row| (row.pid, row.gpu_instance_id, row.compute_instance_id))
        .collect();
    let at = |pid, gi, ci| (pid, Some(gi), Some(ci));
    assert_eq!(told, [at(3_101, 1, 0), at(3_110, 1, 1), at(3_201, 5, 0), at(3_202, 5, 0)]);
    let used = |slot| parent.mig_device_by_index(slot).unwrap().memory_info().unwrap().used / MIB;
    // Compute instances of one GPU instance share its memory.
    assert_eq!([0, 1, 3, 5].map(used), [30_733, 30_733, 14_349, 13]);
    assert_eq!(parent.memory_info().unwrap().used / MIB, 4 + 30_733 + 14_349 + 13);
    let bar1 = parent.mig_device_by_index(5).unwrap().bar1_memory_info().unwrap();
    assert_eq!(bar1.total, parent.bar1_memory_info().unwrap().total / 8);
}

#[test]
fn what_is_not_told_of_parts_or_of_a_whole_in_parts_is_not_supported() {
    let stage = Stage::of("mig-a100");
    let nvml = stage.nvml();
    let parent = nvml.device_by_index(0).unwrap();
    let part = parent.mig_device_by_index(3).unwrap();
    let of_both = |device: &Device| {
        [
            error(device.utilization_rates()),
            error(device.encoder_utilization()),
            error(device.decoder_utilization()),
            error(device.process_utilization_stats(None)),
        ]
    };
    assert_eq!(of_both(&parent), ["NotSupported"; 4]);
    assert_eq!(of_both(&part), ["NotSupported"; 4]);
    let of_part = |device: &Device| {
        [
            error(device.clock_info(Clock::SM)),
            error(device.power_usage()),
            error(device.temperature(TemperatureSensor::Gpu)),
            error(device.total_energy_consumption()),
            error(device.is_ecc_enabled()),
            error(device.performance_state()),
            error(device.current_throttle_reasons()),
            error(device.pcie_replay_counter()),
        ]
    };
    assert_eq!(of_part(&part), ["NotSupported"; 8]);
    assert_eq!(of_part(&parent), [""; 8]);
    assert!(part.minor_number().is_ok() && part.cuda_compute_capability().is_ok());
    let whole = nvml.device_by_index(1).unwrap();
    assert_eq!(whole.utilization_rates().unwrap().gpu, 92);
}

#[test]
fn instances_are_found_by_profile_and_by_id() {
    let stage = Stage::of("mig-a100");
    let nvml = stage.nvml();
    let lib = stage.raw();
    // SAFETY: the handles are used while NVML is initialised.
    let [parent, whole] = [0, 1].map(|at| unsafe { nvml.device_by_index(at).unwrap().handle() });
    // SAFETY: a struct of numbers.
    let mut profile: nvmlGpuInstanceProfileInfo_t = unsafe { std::mem::zeroed() };
    let mut ask = |index: c_uint| {
        raw!(lib, b"nvmlDeviceGetGpuInstanceProfileInfo"(
            nvmlDevice_t = parent, c_uint = index, *mut nvmlGpuInstanceProfileInfo_t = &raw mut profile
        ))
    };
    assert_eq!([ask(5), ask(17), ask(2)], [3, 2, 0]);
    assert_eq!((profile.id, profile.sliceCount, profile.instanceCount), (9, 3, 2));
    // SAFETY: a struct of numbers.
    let mut named: nvmlGpuInstanceProfileInfo_v2_t = unsafe { std::mem::zeroed() };
    let mut ask = |version: c_uint| {
        named.version = version;
        raw!(lib, b"nvmlDeviceGetGpuInstanceProfileInfoV"(
            nvmlDevice_t = parent, c_uint = 2, *mut nvmlGpuInstanceProfileInfo_v2_t = &raw mut named
        ))
    };
    let size = c_uint::try_from(size_of::<nvmlGpuInstanceProfileInfo_v2_t>()).unwrap();
    assert_eq!([ask(2), ask((2 << 24) | size)], [25, 0]);
    let name: String = named.name.iter().take(11).map(|c| char::from(c.to_ne_bytes()[0])).collect();
    assert_eq!(name, "MIG 3g.40gb");

    let mut instances: [nvmlGpuInstance_t; 7] = [ptr::null_mut(); 7];
    let mut count: c_uint = 0;
    let mut list = |device: nvmlDevice_t, profile: c_uint| {
        let answer = raw!(lib, b"nvmlDeviceGetGpuInstances"(
            nvmlDevice_t = device, c_uint = profile,
            *mut nvmlGpuInstance_t = instances.as_mut_ptr(), *mut c_uint = &raw mut count
        ));
        (answer, count, instances[0])
    };
    assert_eq!((list(whole, 9).0, list(parent, 3).0, list(parent, 14).1), (3, 2, 1));
    let (_, _, three) = list(parent, 9);
    let mut by_id: nvmlGpuInstance_t = ptr::null_mut();
    let mut find = |id: c_uint| {
        raw!(lib, b"nvmlDeviceGetGpuInstanceById"(
            nvmlDevice_t = parent, c_uint = id, *mut nvmlGpuInstance_t = &raw mut by_id
        ))
    };
    assert_eq!((find(2), find(1)), (6, 0));
    assert_eq!(by_id, three);
    // SAFETY: a struct of numbers.
    let mut info: nvmlGpuInstanceInfo_t = unsafe { std::mem::zeroed() };
    let answer = raw!(lib, b"nvmlGpuInstanceGetInfo"(
        nvmlGpuInstance_t = three, *mut nvmlGpuInstanceInfo_t = &raw mut info
    ));
    assert_eq!((answer, info.device, info.id, info.profileId), (0, parent, 1, 9));
    assert_eq!((info.placement.start, info.placement.size), (0, 4));

    let mut parts: [nvmlComputeInstance_t; 7] = [ptr::null_mut(); 7];
    let answer = raw!(lib, b"nvmlGpuInstanceGetComputeInstances"(
        nvmlGpuInstance_t = three, c_uint = 1,
        *mut nvmlComputeInstance_t = parts.as_mut_ptr(), *mut c_uint = &raw mut count
    ));
    assert_eq!((answer, count), (0, 1));
    // SAFETY: a struct of numbers.
    let mut part: nvmlComputeInstanceInfo_t = unsafe { std::mem::zeroed() };
    let answer = raw!(lib, b"nvmlComputeInstanceGetInfo_v2"(
        nvmlComputeInstance_t = parts[0], *mut nvmlComputeInstanceInfo_t = &raw mut part
    ));
    assert_eq!((answer, part.device, part.gpuInstance), (0, parent, three));
    assert_eq!((part.id, part.profileId), (1, 1));
    assert_eq!((part.placement.start, part.placement.size), (1, 2));
    // A handle of one kind is none of another.
    let answer = raw!(lib, b"nvmlGpuInstanceGetInfo"(
        nvmlGpuInstance_t = parent.cast(), *mut nvmlGpuInstanceInfo_t = &raw mut info
    ));
    assert_eq!(answer, 2);
    let mut index: c_uint = 0;
    let answer = raw!(lib, b"nvmlDeviceGetIndex"(
        nvmlDevice_t = three.cast(), *mut c_uint = &raw mut index
    ));
    assert_eq!(answer, 2);
}

/// The built-in scenario, held at this time.
fn h100_at(time: f64) -> String {
    format!("now = {time}\n{}", include_str!("../../scenarios/mig-h100.toml"))
}

fn slots(nvml: &Nvml) -> Vec<u32> {
    devices(&nvml.device_by_index(0).unwrap()).iter().map(|(slot, _)| *slot).collect()
}

#[test]
fn a_new_layout_has_new_devices_and_the_old_handles_are_void() {
    let stage = Stage::playing(&h100_at(59.0));
    let nvml = stage.nvml();
    let parent = nvml.device_by_index(0).unwrap();
    let (old, kept) =
        (parent.mig_device_by_index(0).unwrap(), parent.mig_device_by_index(3).unwrap());
    let (old_uuid, kept_uuid) = (old.uuid().unwrap(), kept.uuid().unwrap());
    assert_eq!((ids(&stage, &old).0, ids(&stage, &kept).0), (Ok(1), Ok(4)));
    assert_eq!(slots(&nvml), [0, 1, 2, 3]);
    stage.play(&h100_at(62.0));
    eventually("the layout is another", || slots(&nvml) == [0, 3]);
    assert_eq!(
        (error(old.name()), error(old.memory_info())),
        ("InvalidArg".into(), "InvalidArg".into())
    );
    assert_eq!(error(nvml.device_by_uuid(old_uuid.as_str())), "NotFound");
    assert_eq!(kept.uuid().unwrap(), kept_uuid);
    assert_eq!(pids(&kept), [4_120]);
    let new = parent.mig_device_by_index(0).unwrap();
    assert_eq!(ids(&stage, &new).0, Ok(1));
    assert_ne!(new.uuid().unwrap(), old_uuid);
    assert_eq!(pids(&new), [4_110]);
    stage.play(&h100_at(121.0));
    eventually("all is gone", || slots(&nvml).is_empty());
    assert_eq!((parent.mig_mode().unwrap().current, parent.mig_device_count().unwrap()), (1, 7));
    assert_eq!(error(kept.name()), "InvalidArg");
    assert!(parent.name().is_ok() && pids(&parent).is_empty());
}

#[test]
fn a_lost_gpu_loses_its_parts() {
    let at = |time: u32| {
        format!(
            "now = {time}\n[[gpu]]\nmodel = \"A100\"\nlost = [{{ from = 10, to = 20 }}]\n\
             mig = [{{ instances = [{{ profile = \"7g.80gb\" }}] }}]\n"
        )
    };
    let stage = Stage::playing(&at(5));
    let nvml = stage.nvml();
    let part = nvml.device_by_index(0).unwrap().mig_device_by_index(0).unwrap();
    let uuid = part.uuid().unwrap();
    assert_eq!(ids(&stage, &part), (Ok(0), Ok(0)));
    stage.play(&at(15));
    eventually("it is lost", || error(part.name()) == "GpuLost");
    assert_eq!(error(nvml.device_by_uuid(uuid.as_str())), "GpuLost");
    stage.play(&at(25));
    eventually("it is back", || nvml.device_by_uuid(uuid.as_str()).is_ok());
    assert_eq!(error(part.name()), "GpuLost");
}

/// The sizes of instances that always fit together.
const CUTS: [&[&str]; 5] = [
    &["7g.80gb"],
    &["4g.40gb", "3g.40gb"],
    &["3g.40gb", "2g.20gb", "1g.10gb"],
    &["2g.20gb", "2g.20gb", "2g.20gb", "1g.10gb"],
    &["1g.10gb", "1g.10gb", "1g.10gb+me", "1g.20gb"],
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn instances_and_their_gpu_agree_and_no_handle_outlives_its_device(
        first in 0..CUTS.len(),
        second in 0..CUTS.len(),
        sizes in proptest::collection::vec((0..4_usize, 0..1_000_u64), 0..9),
    ) {
        let layout = |cut: usize| {
            let cuts: Vec<_> =
                CUTS[cut].iter().map(|name| format!("{{ profile = \"{name}\" }}")).collect();
            cuts.join(", ")
        };
        let count = CUTS[first].len();
        let gi = |at: usize| if first == 0 { 0 } else { at % count + 1 };
        let process = |(pid, (at, mib)): (u32, &(usize, u64))| {
            let place = format!("gpus = [0]\ngi = {}\nend = 10", gi(*at));
            format!("[[process]]\npid = {pid}\nname = \"p\"\n{place}\nmemory = \"{mib} MiB\"\n")
        };
        let processes = (1..).zip(&sizes).map(process).collect::<Vec<_>>().concat();
        let at = |time: u32| format!(
            "now = {time}\n[[gpu]]\nmodel = \"A100\"\nmig = [{{ to = 10, instances = [{}] }}, \
             {{ from = 10, instances = [{}] }}]\n{processes}",
            layout(first), layout(second)
        );
        let stage = Stage::playing(&at(5));
        let nvml = stage.nvml();
        let parent = nvml.device_by_index(0).unwrap();
        let old = devices(&parent);
        prop_assert_eq!(old.len(), count);
        let mut used = 4 * MIB;
        let mut listed = vec![];
        for (_, device) in &old {
            let memory = device.memory_info().unwrap();
            prop_assert_eq!(memory.total, memory.used + memory.free + memory.reserved);
            prop_assert_eq!(memory.total, device.attributes().unwrap().memory_size_mb * MIB);
            used += memory.used;
            listed.extend(pids(device));
        }
        let whole = parent.memory_info().unwrap();
        prop_assert_eq!(whole.used, used);
        prop_assert_eq!(whole.total, whole.used + whole.free + whole.reserved);
        listed.sort_unstable();
        prop_assert_eq!(listed, pids(&parent));
        let before: Vec<_> = old.iter().map(|(_, device)| device.uuid().unwrap()).collect();
        stage.play(&at(15));
        eventually("the layout is another", || error(old[0].1.name()) == "InvalidArg");
        prop_assert!(old.iter().all(|(_, device)| error(device.memory_info()) == "InvalidArg"));
        for (_, device) in devices(&parent) {
            let new = device.uuid().unwrap();
            prop_assert!(!before.contains(&new));
        }
    }
}
