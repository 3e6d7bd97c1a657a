//! MIG devices and instances.

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

use crate::{MIB, MockEnv, error, eventually};

/// Ids of the GPU instance and the compute instance of a MIG device, or the return codes.
fn ids(env: &MockEnv, device: &Device) -> (Result<c_uint, c_uint>, Result<c_uint, c_uint>) {
    let lib = env.raw();
    // SAFETY: the handle is used while NVML is initialised.
    let handle = unsafe { device.handle() };
    let (mut gi, mut ci) = (0, 0);
    let codes = (
        raw!(lib, b"nvmlDeviceGetGpuInstanceId"(nvmlDevice_t = handle, *mut c_uint = &raw mut gi)),
        raw!(lib, b"nvmlDeviceGetComputeInstanceId"(
            nvmlDevice_t = handle, *mut c_uint = &raw mut ci
        )),
    );
    let result = |code: c_uint, id: c_uint| if code == 0 { Ok(id) } else { Err(code) };
    (result(codes.0, gi), result(codes.1, ci))
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
fn mig_devices_have_indexes_with_gaps_and_names_and_ids() {
    let env = MockEnv::built_in("mig-a100");
    let nvml = env.nvml();
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
    let found: Vec<_> = all.iter().map(|(_, device)| ids(&env, device)).collect();
    let expected = [(1, 0), (1, 1), (5, 0), (13, 0)].map(|(gi, ci)| (Ok(gi), Ok(ci)));
    assert_eq!(found, expected);
    assert_eq!(ids(&env, &parent), (Err(3), Err(3)));
    for (slot, device) in &all {
        let uuid = device.uuid().unwrap();
        assert_eq!((uuid.len(), uuid.get(..4)), (40, Some("MIG-")));
        let same = nvml.device_by_uuid(uuid.as_str()).unwrap();
        assert_eq!((same.uuid().unwrap(), same.index().unwrap()), (uuid, *slot));
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
    let env = MockEnv::built_in("mig-a100");
    let nvml = env.nvml();
    let parent = nvml.device_by_index(0).unwrap();
    let small = parent.mig_device_by_index(0).unwrap().attributes().unwrap();
    assert_eq!((small.multiprocessor_count, small.shared_copy_engine_count), (14, 3));
    assert_eq!((small.gpu_instance_slice_count, small.compute_instance_slice_count), (3, 1));
    assert_eq!(small.memory_size_mb, 40_192);
    assert_eq!(error(parent.attributes()), "NotSupported");
}

#[test]
fn each_mig_device_has_its_own_processes_and_memory() {
    let env = MockEnv::built_in("mig-a100");
    let nvml = env.nvml();
    let parent = nvml.device_by_index(0).unwrap();
    let lists: Vec<_> = devices(&parent).iter().map(|(_, device)| pids(device)).collect();
    assert_eq!(lists, [vec![3_101], vec![3_110], vec![3_201, 3_202], vec![]]);
    let rows: Vec<_> = parent
        .running_compute_processes()
        .unwrap()
        .iter()
        .map(|row| (row.pid, row.gpu_instance_id, row.compute_instance_id))
        .collect();
    let at = |pid, gi, ci| (pid, Some(gi), Some(ci));
    assert_eq!(rows, [at(3_101, 1, 0), at(3_110, 1, 1), at(3_201, 5, 0), at(3_202, 5, 0)]);
    let used = |slot| parent.mig_device_by_index(slot).unwrap().memory_info().unwrap().used / MIB;
    // Compute instances of one GPU instance share its memory.
    assert_eq!([0, 1, 3, 5].map(used), [30_733, 30_733, 14_349, 13]);
    assert_eq!(parent.memory_info().unwrap().used / MIB, 4 + 30_733 + 14_349 + 13);
    let bar1 = parent.mig_device_by_index(5).unwrap().bar1_memory_info().unwrap();
    assert_eq!(bar1.total, parent.bar1_memory_info().unwrap().total / 8);
}

#[test]
fn unsupported_values_of_mig_devices_and_partitioned_gpus() {
    let env = MockEnv::built_in("mig-a100");
    let nvml = env.nvml();
    let parent = nvml.device_by_index(0).unwrap();
    let mig_device = parent.mig_device_by_index(3).unwrap();
    let unsupported_by_both = |device: &Device| {
        [
            error(device.utilization_rates()),
            error(device.encoder_utilization()),
            error(device.decoder_utilization()),
            error(device.process_utilization_stats(None)),
        ]
    };
    assert_eq!(unsupported_by_both(&parent), ["NotSupported"; 4]);
    assert_eq!(unsupported_by_both(&mig_device), ["NotSupported"; 4]);
    let unsupported_by_mig_device = |device: &Device| {
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
    assert_eq!(unsupported_by_mig_device(&mig_device), ["NotSupported"; 8]);
    assert_eq!(unsupported_by_mig_device(&parent), [""; 8]);
    assert!(mig_device.minor_number().is_ok() && mig_device.cuda_compute_capability().is_ok());
    let whole = nvml.device_by_index(1).unwrap();
    assert_eq!(whole.utilization_rates().unwrap().gpu, 92);
}

#[test]
fn instances_are_found_by_profile_and_by_id() {
    let env = MockEnv::built_in("mig-a100");
    let nvml = env.nvml();
    let lib = env.raw();
    // SAFETY: the handles are used while NVML is initialised.
    let [parent, whole] = [0, 1].map(|at| unsafe { nvml.device_by_index(at).unwrap().handle() });
    // SAFETY: the struct consists of numbers.
    let mut profile: nvmlGpuInstanceProfileInfo_t = unsafe { std::mem::zeroed() };
    let mut profile_info = |index: c_uint| {
        raw!(lib, b"nvmlDeviceGetGpuInstanceProfileInfo"(
            nvmlDevice_t = parent, c_uint = index, *mut nvmlGpuInstanceProfileInfo_t = &raw mut profile
        ))
    };
    assert_eq!([profile_info(5), profile_info(17), profile_info(2)], [3, 2, 0]);
    assert_eq!((profile.id, profile.sliceCount, profile.instanceCount), (9, 3, 2));
    // SAFETY: the struct consists of numbers.
    let mut named: nvmlGpuInstanceProfileInfo_v2_t = unsafe { std::mem::zeroed() };
    let mut profile_info_v = |version: c_uint| {
        named.version = version;
        raw!(lib, b"nvmlDeviceGetGpuInstanceProfileInfoV"(
            nvmlDevice_t = parent, c_uint = 2, *mut nvmlGpuInstanceProfileInfo_v2_t = &raw mut named
        ))
    };
    let size = c_uint::try_from(size_of::<nvmlGpuInstanceProfileInfo_v2_t>()).unwrap();
    assert_eq!([profile_info_v(2), profile_info_v((2 << 24) | size)], [25, 0]);
    let name: String = named.name.iter().take(11).map(|c| char::from(c.to_ne_bytes()[0])).collect();
    assert_eq!(name, "MIG 3g.40gb");

    let mut instances: [nvmlGpuInstance_t; 7] = [ptr::null_mut(); 7];
    let mut count: c_uint = 0;
    let mut list = |device: nvmlDevice_t, profile: c_uint| {
        let code = raw!(lib, b"nvmlDeviceGetGpuInstances"(
            nvmlDevice_t = device, c_uint = profile,
            *mut nvmlGpuInstance_t = instances.as_mut_ptr(), *mut c_uint = &raw mut count
        ));
        (code, count, instances[0])
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
    // SAFETY: the struct consists of numbers.
    let mut info: nvmlGpuInstanceInfo_t = unsafe { std::mem::zeroed() };
    let code = raw!(lib, b"nvmlGpuInstanceGetInfo"(
        nvmlGpuInstance_t = three, *mut nvmlGpuInstanceInfo_t = &raw mut info
    ));
    assert_eq!((code, info.device, info.id, info.profileId), (0, parent, 1, 9));
    assert_eq!((info.placement.start, info.placement.size), (0, 4));

    let mut compute: [nvmlComputeInstance_t; 7] = [ptr::null_mut(); 7];
    let code = raw!(lib, b"nvmlGpuInstanceGetComputeInstances"(
        nvmlGpuInstance_t = three, c_uint = 1,
        *mut nvmlComputeInstance_t = compute.as_mut_ptr(), *mut c_uint = &raw mut count
    ));
    assert_eq!((code, count), (0, 1));
    // SAFETY: the struct consists of numbers.
    let mut compute_info: nvmlComputeInstanceInfo_t = unsafe { std::mem::zeroed() };
    let code = raw!(lib, b"nvmlComputeInstanceGetInfo_v2"(
        nvmlComputeInstance_t = compute[0], *mut nvmlComputeInstanceInfo_t = &raw mut compute_info
    ));
    assert_eq!((code, compute_info.device, compute_info.gpuInstance), (0, parent, three));
    assert_eq!((compute_info.id, compute_info.profileId), (1, 1));
    assert_eq!((compute_info.placement.start, compute_info.placement.size), (1, 2));
    // A handle of one kind is invalid as another kind.
    let code = raw!(lib, b"nvmlGpuInstanceGetInfo"(
        nvmlGpuInstance_t = parent.cast(), *mut nvmlGpuInstanceInfo_t = &raw mut info
    ));
    assert_eq!(code, 2);
    let mut index: c_uint = 0;
    let code = raw!(lib, b"nvmlDeviceGetIndex"(
        nvmlDevice_t = three.cast(), *mut c_uint = &raw mut index
    ));
    assert_eq!(code, 2);
}

/// The built-in scenario at a fixed world time.
fn h100_at(time: f64) -> String {
    format!("now = {time}\n{}", include_str!("../../scenarios/mig-h100.toml"))
}

fn slots(nvml: &Nvml) -> Vec<u32> {
    devices(&nvml.device_by_index(0).unwrap()).iter().map(|(slot, _)| *slot).collect()
}

#[test]
fn new_layout_has_new_devices_and_invalidates_old_handles() {
    let env = MockEnv::with_scenario(&h100_at(59.0));
    let nvml = env.nvml();
    let parent = nvml.device_by_index(0).unwrap();
    let (old, kept) =
        (parent.mig_device_by_index(0).unwrap(), parent.mig_device_by_index(3).unwrap());
    let (old_uuid, kept_uuid) = (old.uuid().unwrap(), kept.uuid().unwrap());
    assert_eq!((ids(&env, &old).0, ids(&env, &kept).0), (Ok(1), Ok(4)));
    assert_eq!(slots(&nvml), [0, 1, 2, 3]);
    env.write_scenario(&h100_at(62.0));
    eventually("the layout has changed", || slots(&nvml) == [0, 3]);
    assert_eq!(
        (error(old.name()), error(old.memory_info())),
        ("InvalidArg".into(), "InvalidArg".into())
    );
    assert_eq!(error(nvml.device_by_uuid(old_uuid.as_str())), "NotFound");
    assert_eq!(kept.uuid().unwrap(), kept_uuid);
    assert_eq!(pids(&kept), [4_120]);
    let new = parent.mig_device_by_index(0).unwrap();
    assert_eq!(ids(&env, &new).0, Ok(1));
    assert_ne!(new.uuid().unwrap(), old_uuid);
    assert_eq!(pids(&new), [4_110]);
    env.write_scenario(&h100_at(121.0));
    eventually("all MIG devices are gone", || slots(&nvml).is_empty());
    assert_eq!((parent.mig_mode().unwrap().current, parent.mig_device_count().unwrap()), (1, 7));
    assert_eq!(error(kept.name()), "InvalidArg");
    assert!(parent.name().is_ok() && pids(&parent).is_empty());
}

#[test]
fn mig_devices_of_a_lost_gpu_are_lost() {
    let at = |time: u32| {
        format!(
            "now = {time}\n[[gpu]]\nmodel = \"A100\"\nlost = [{{ from = 10, to = 20 }}]\n\
             mig = [{{ instances = [{{ profile = \"7g.80gb\" }}] }}]\n"
        )
    };
    let env = MockEnv::with_scenario(&at(5));
    let nvml = env.nvml();
    let mig_device = nvml.device_by_index(0).unwrap().mig_device_by_index(0).unwrap();
    let uuid = mig_device.uuid().unwrap();
    assert_eq!(ids(&env, &mig_device), (Ok(0), Ok(0)));
    env.write_scenario(&at(15));
    eventually("the MIG device is lost", || error(mig_device.name()) == "GpuLost");
    assert_eq!(error(nvml.device_by_uuid(uuid.as_str())), "GpuLost");
    env.write_scenario(&at(25));
    eventually("the MIG device is back", || nvml.device_by_uuid(uuid.as_str()).is_ok());
    assert_eq!(error(mig_device.name()), "GpuLost");
}

/// Sets of instance profiles that fit on one board.
const LAYOUTS: [&[&str]; 5] = [
    &["7g.80gb"],
    &["4g.40gb", "3g.40gb"],
    &["3g.40gb", "2g.20gb", "1g.10gb"],
    &["2g.20gb", "2g.20gb", "2g.20gb", "1g.10gb"],
    &["1g.10gb", "1g.10gb", "1g.10gb+me", "1g.20gb"],
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn mig_devices_agree_with_their_gpu_and_handles_end_with_their_device(
        first in 0..LAYOUTS.len(),
        second in 0..LAYOUTS.len(),
        sizes in proptest::collection::vec((0..4_usize, 0..1_000_u64), 0..9),
    ) {
        let layout = |index: usize| {
            let instances: Vec<_> =
                LAYOUTS[index].iter().map(|name| format!("{{ profile = \"{name}\" }}")).collect();
            instances.join(", ")
        };
        let count = LAYOUTS[first].len();
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
        let env = MockEnv::with_scenario(&at(5));
        let nvml = env.nvml();
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
        env.write_scenario(&at(15));
        eventually("the layout has changed", || error(old[0].1.name()) == "InvalidArg");
        prop_assert!(old.iter().all(|(_, device)| error(device.memory_info()) == "InvalidArg"));
        for (_, device) in devices(&parent) {
            let new = device.uuid().unwrap();
            prop_assert!(!before.contains(&new));
        }
    }
}
