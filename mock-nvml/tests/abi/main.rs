//! The library as clients use it: loaded from a mock environment, called through nvml-wrapper and
//! raw symbols.
#![expect(unsafe_code, reason = "clients of a C ABI call it")]
#![expect(clippy::unwrap_used, reason = "test helpers panic like tests")]

/// Calls a raw symbol with this signature.
macro_rules! raw {
    ($library:expr, $name:literal ($($type:ty = $value:expr),*)) => {{
        // SAFETY: the signature is that of NVML's header.
        let symbol = unsafe { $library.get::<unsafe extern "C" fn($($type),*) -> c_uint>($name) };
        // SAFETY: the arguments are valid for the call.
        unsafe { symbol.unwrap()($($value),*) }
    }};
}

mod drivers;
mod events;
mod gpm;
mod hardware;
mod lists;
mod mig;
mod samples;

use std::{
    ffi::{CString, c_char, c_int, c_uint, c_void},
    fs,
    path::{Path, PathBuf},
    ptr,
    sync::mpsc,
    thread,
    time::Duration,
};

use libloading::Library;
use nvml_wrapper::{
    Nvml,
    bitmasks::device::ThrottleReasons,
    enum_wrappers::device::{Clock, PerformanceState, TemperatureSensor},
    enums::device::UsedGpuMemory,
    error::NvmlError,
    sys_exports::field_id,
};
use nvml_wrapper_sys::bindings::nvmlDevice_t;
use tempfile::TempDir;

const BUILT_IN: [&str; 22] = [
    "demo",
    "idle-t4",
    "shared-l20",
    "consumer-4090",
    "faulty",
    "blackwell",
    "old-driver",
    "mig-a100",
    "mig-h100",
    "bert-hpa",
    "abi-535",
    "huge",
    "hami",
    "hami-mig",
    "kai",
    "dra",
    "dra-sharing",
    "lifecycle",
    "gke",
    "gvisor",
    "jetson",
    "no-gpu",
];
const MIB: u64 = 1 << 20;

type SetUpFn = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_char, c_uint) -> c_int;

/// The library built by cargo, which does not build a cdylib for tests by itself.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("libmock_nvml.so");
    assert!(path.is_file(), "no {}: run cargo build --workspace first", path.display());
    path
}

/// Sets up a mock environment.
///
/// # Errors
/// The message of the library.
fn try_set_up(scenario: &str, dir: &Path) -> Result<(), String> {
    // SAFETY: loading the mock runs no code of its own.
    let library = unsafe { Library::new(library()) }.unwrap();
    // SAFETY: this is its signature.
    let set_up = unsafe { library.get::<SetUpFn>(b"mockNvmlEnvironment\0") }.unwrap();
    let scenario = CString::new(scenario).unwrap();
    let dir = CString::new(dir.to_str().unwrap()).unwrap();
    let mut error = vec![0_u8; 1_024];
    // SAFETY: two strings, and a buffer of the length passed.
    let code = unsafe { set_up(scenario.as_ptr(), dir.as_ptr(), error.as_mut_ptr().cast(), 1_024) };
    let text = error.split(|byte| *byte == 0).next().unwrap_or_default();
    if code == 0 { Ok(()) } else { Err(String::from_utf8(text.to_vec()).unwrap()) }
}

/// A mock environment in a temporary directory.
struct MockEnv {
    dir: TempDir,
}

impl MockEnv {
    fn built_in(scenario: &str) -> Self {
        let dir = TempDir::new().unwrap();
        try_set_up(scenario, dir.path()).unwrap();
        Self { dir }
    }

    /// A mock environment for the text of a scenario, which [`MockEnv::play`] can replace.
    fn with_scenario(text: &str) -> Self {
        let env = Self { dir: TempDir::new().unwrap() };
        env.write_scenario(text);
        try_set_up(env.scenario_path().to_str().unwrap(), env.dir.path()).unwrap();
        env
    }

    fn scenario_path(&self) -> PathBuf {
        self.dir.path().join("test.toml")
    }

    fn write_scenario(&self, text: &str) {
        let draft = self.dir.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.scenario_path()).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("libnvidia-ml.so.1")
    }

    fn nvml(&self) -> Nvml {
        self.try_nvml().unwrap()
    }

    fn try_nvml(&self) -> Result<Nvml, NvmlError> {
        Nvml::builder().lib_path(self.path().as_os_str()).init()
    }

    fn raw(&self) -> Library {
        // SAFETY: loading the mock runs no code of its own.
        unsafe { Library::new(self.path()) }.unwrap()
    }
}

/// The name of the error, or an empty string on success.
fn error<T>(result: Result<T, NvmlError>) -> String {
    result.err().map(|error| format!("{error:?}")).unwrap_or_default()
}

/// Waits up to 5 s until a condition holds.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let (_open, never) = mpsc::channel::<()>();
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        let _ = never.recv_timeout(Duration::from_millis(5));
    }
    assert!(condition(), "not within 5 s: {what}");
}

fn process(pid: u32, gpu: u32, rest: &str) -> String {
    format!(
        "[[process]]\npid = {pid}\nname = \"work\"\ngpus = [{gpu}]\nmemory = \"1 GiB\"\n{rest}\n"
    )
}

#[test]
fn built_in_scenarios_have_their_gpus() {
    let expected = [
        ("NVIDIA H100 80GB HBM3", 8, 81_559),
        ("Tesla T4", 1, 15_360),
        ("NVIDIA L20", 4, 46_068),
        ("NVIDIA GeForce RTX 4090", 1, 24_564),
        ("NVIDIA H100 80GB HBM3", 4, 81_559),
        ("NVIDIA B200", 2, 183_359),
        ("NVIDIA A100-SXM4-80GB", 2, 81_920),
        ("NVIDIA H100 80GB HBM3", 2, 81_559),
        ("Tesla T4", 2, 15_360),
        ("NVIDIA L20", 2, 46_068),
        ("NVIDIA A100-SXM4-80GB", 16, 81_920),
        ("NVIDIA L40S", 2, 46_068),
        ("NVIDIA H100 80GB HBM3", 2, 81_559),
        ("NVIDIA A100-SXM4-80GB", 2, 81_920),
        ("NVIDIA H100 80GB HBM3", 5, 81_559),
        ("NVIDIA H100 80GB HBM3", 4, 81_559),
        ("NVIDIA L20", 4, 46_068),
        ("Tesla T4", 2, 15_360),
        ("Tesla T4", 2, 15_360),
    ];
    // One driver is too old for some of these calls (see drivers.rs), and a Jetson supports fewer.
    let recent =
        BUILT_IN.iter().filter(|scenario| !["old-driver", "jetson", "no-gpu"].contains(*scenario));
    assert_eq!(recent.clone().count(), expected.len());
    for (scenario, (name, count, mib)) in recent.zip(expected) {
        let env = MockEnv::built_in(scenario);
        let nvml = env.nvml();
        assert_eq!(nvml.device_count().unwrap(), count, "{scenario}");
        let device = nvml.device_by_index(0).unwrap();
        assert_eq!(device.name().unwrap(), name);
        assert_eq!((device.index().unwrap(), device.minor_number().unwrap()), (0, 0));
        let memory = device.memory_info().unwrap();
        assert_eq!(memory.total, mib * MIB);
        assert_eq!(memory.free + memory.used + memory.reserved, memory.total);
        let pci = device.pci_info().unwrap();
        assert_eq!(pci.bus_id, "00000000:1B:00.0");
        let uuid = device.uuid().unwrap();
        assert_eq!((uuid.len(), uuid.get(..4)), (40, Some("GPU-")));
        assert_eq!(nvml.device_by_uuid(uuid).unwrap().index().unwrap(), 0);
        assert_eq!(nvml.device_by_pci_bus_id(pci.bus_id).unwrap().index().unwrap(), 0);
    }
}

#[test]
fn idle_gpu_reports_that_it_is_idle() {
    let env = MockEnv::built_in("idle-t4");
    let nvml = env.nvml();
    let device = nvml.device_by_index(0).unwrap();
    let utilization = device.utilization_rates().unwrap();
    assert_eq!((utilization.gpu, utilization.memory), (0, 0));
    assert_eq!(device.performance_state().unwrap(), PerformanceState::Eight);
    assert_eq!(device.clock_info(Clock::SM).unwrap(), 300);
    assert_eq!(device.current_throttle_reasons().unwrap(), ThrottleReasons::GPU_IDLE);
    assert!(device.running_compute_processes().unwrap().is_empty());
    assert_eq!(error(device.process_utilization_stats(None)), "NotFound");
    assert_eq!(error(device.fan_speed(0)), "NotSupported");
    assert_eq!(error(device.mig_mode()), "NotSupported");
    assert!(device.is_ecc_enabled().unwrap().currently_enabled);
}

#[test]
fn desktop_has_graphics_and_compute_lists() {
    let env = MockEnv::built_in("consumer-4090");
    let nvml = env.nvml();
    let device = nvml.device_by_index(0).unwrap();
    let pids = |list: Vec<nvml_wrapper::struct_wrappers::device::ProcessInfo>| {
        list.into_iter().map(|process| process.pid).collect::<Vec<_>>()
    };
    assert_eq!(pids(device.running_compute_processes().unwrap()), [9_120, 11_020]);
    assert_eq!(pids(device.running_graphics_processes().unwrap()), [1_873, 2_044, 9_120]);
    assert_eq!(pids(device.running_compute_processes_v2().unwrap()), [9_120, 11_020]);
    assert!(device.mps_running_compute_processes().unwrap().is_empty());
    let game = device.running_compute_processes().unwrap().remove(0);
    assert_eq!(game.used_gpu_memory, UsedGpuMemory::Used(9 * 1_024 * MIB));
    assert_eq!((game.gpu_instance_id, game.compute_instance_id), (None, None));
    assert_eq!(error(device.serial()), "NotSupported");
    assert_eq!(nvml.sys_process_name(11_020, 80).unwrap(), "python");
    assert_eq!(error(nvml.sys_process_name(1, 80)), "NotFound");
}

#[test]
fn fixed_world_time_gives_constant_values() {
    let text = "now = 60.0\n[[gpu]]\nmodel = \"H100\"\npcie_replays_per_hour = 3600.0\n".to_owned()
        + &process(7, 0, "sm = 100\nmem = 80\nenc = 30\ndec = 20");
    let env = MockEnv::with_scenario(&text);
    let nvml = env.nvml();
    let device = nvml.device_by_index(0).unwrap();
    assert_eq!(device.power_usage().unwrap(), 700_000);
    assert_eq!(device.total_energy_consumption().unwrap(), 42_000_000);
    assert_eq!(device.pcie_replay_counter().unwrap(), 60);
    assert_eq!(device.encoder_utilization().unwrap().utilization, 30);
    assert_eq!(device.decoder_utilization().unwrap().utilization, 20);
    assert_eq!(device.current_throttle_reasons().unwrap(), ThrottleReasons::SW_POWER_CAP);
    let rows = device.process_utilization_stats(None).unwrap();
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row.pid, row.sm_util, row.mem_util, row.enc_util, row.dec_util))
        .collect();
    assert_eq!(found, [(7, 100, 80, 30, 20)]);
    let seen = rows.first().unwrap().timestamp;
    eventually("the next sample is there", || {
        device
            .process_utilization_stats(seen)
            .is_ok_and(|rows| rows.iter().all(|row| row.timestamp > seen))
    });
}

#[test]
fn each_field_has_its_own_return_code() {
    let text = "[[gpu]]\nmodel = \"H100\"\n[[gpu]]\nmodel = \"T4\"\n\
                [[fault]]\nfunction = \"nvmlDeviceGetFieldValues\"\ngpu = 0\nfield = 94\ncode = \"UNKNOWN\"";
    let env = MockEnv::with_scenario(text);
    let nvml = env.nvml();
    let ids = [82, 83, 94, 60].map(nvml_wrapper::structs::device::FieldId);
    let codes = |gpu: u32| {
        let values = nvml.device_by_index(gpu).unwrap().field_values_for(&ids).unwrap();
        values.into_iter().map(|one| error(one.and_then(|one| one.value))).collect::<Vec<_>>()
    };
    assert_eq!(codes(0), ["", "", "Unknown", "NotSupported"]);
    assert_eq!(codes(1), ["NotSupported", "", "", "NotSupported"]);
    assert_eq!(field_id::NVML_FI_DEV_MEMORY_TEMP, 82);
}

#[test]
fn hung_gpu_does_not_block_others_and_a_new_scenario_ends_the_hang() {
    let gpus = "now = 1.0\n[[gpu]]\nmodel = \"T4\"\ncount = 2\n";
    let env = MockEnv::with_scenario(&format!(
        "{gpus}[[fault]]\nfunction = \"*\"\ngpu = 1\nhang = true\n"
    ));
    let nvml = env.nvml();
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        let stuck = nvml.device_by_index(1).unwrap();
        scope.spawn(move || sender.send(stuck.temperature(TemperatureSensor::Gpu)));
        let healthy = nvml.device_by_index(0).unwrap();
        for _ in 0..50 {
            assert_eq!(healthy.temperature(TemperatureSensor::Gpu).unwrap(), 33);
        }
        let waiting = receiver.recv_timeout(Duration::from_millis(100));
        assert_eq!(waiting.err(), Some(mpsc::RecvTimeoutError::Timeout));
        env.write_scenario(gpus);
        assert_eq!(receiver.recv_timeout(Duration::from_secs(10)).unwrap().unwrap(), 33);
    });
}

#[test]
fn faults_affect_only_their_gpu() {
    let env = MockEnv::built_in("faulty");
    let nvml = env.nvml();
    assert_eq!(nvml.device_count().unwrap(), 4);
    assert_eq!(error(nvml.device_by_index(1)), "GpuLost");
    let (healthy, faulty) = (nvml.device_by_index(0).unwrap(), nvml.device_by_index(3).unwrap());
    assert!(healthy.temperature(TemperatureSensor::Gpu).is_ok() && healthy.power_usage().is_ok());
    assert_eq!(error(faulty.temperature(TemperatureSensor::Gpu)), "Unknown");
    assert_eq!(error(faulty.power_usage()), "NoPermission");
    let rows = faulty.process_utilization_stats(None).unwrap();
    assert!(rows.iter().any(|row| row.pid == 3_004 && row.sm_util == 75));
    assert!(rows.iter().any(|row| row.pid == 0) && rows.iter().any(|row| row.sm_util > 100));
}

#[test]
fn missing_symbol_is_not_found() {
    let env = MockEnv::built_in("faulty");
    let nvml = env.nvml();
    let device = nvml.device_by_index(0).unwrap();
    assert!(matches!(device.bar1_memory_info(), Err(NvmlError::FailedToLoadSymbol(_))));
    assert!(device.memory_info().is_ok());
    let complete = MockEnv::built_in("idle-t4");
    let nvml = complete.nvml();
    assert_eq!(nvml.device_by_index(0).unwrap().bar1_memory_info().unwrap().total, 256 * MIB);
}

#[test]
fn reloaded_driver_requires_a_new_session_and_new_handles() {
    let at = |time: u32| {
        format!(
            "now = {time}\n[driver]\nreload = [{{ from = 10, to = 20 }}]\n[[gpu]]\nmodel = \"T4\"\n"
        )
    };
    let env = MockEnv::with_scenario(&at(9));
    let nvml = env.nvml();
    let old = nvml.device_by_index(0).unwrap();
    assert_eq!(old.total_energy_consumption().unwrap(), 85_500);
    env.write_scenario(&at(15));
    eventually("the driver is gone", || error(old.name()) == "DriverNotLoaded");
    assert_eq!(error(env.try_nvml()), "DriverNotLoaded");
    env.write_scenario(&at(22));
    eventually("the driver is back", || error(old.name()) == "Uninitialized");
    let reopened = env.nvml();
    assert_eq!(error(old.name()), "InvalidArg");
    let device = reopened.device_by_index(0).unwrap();
    assert_eq!(device.total_energy_consumption().unwrap(), 19_000);
}

#[test]
fn returned_gpu_requires_a_new_handle() {
    let at = |time: u32| {
        format!("now = {time}\n[[gpu]]\nmodel = \"T4\"\nlost = [{{ from = 10, to = 20 }}]\n")
    };
    let env = MockEnv::with_scenario(&at(5));
    let nvml = env.nvml();
    let old = nvml.device_by_index(0).unwrap();
    assert!(old.name().is_ok());
    env.write_scenario(&at(15));
    eventually("the GPU is lost", || error(old.name()) == "GpuLost");
    assert_eq!(error(nvml.device_by_index(0)), "GpuLost");
    assert_eq!(nvml.device_count().unwrap(), 1);
    env.write_scenario(&at(25));
    eventually("the GPU is back", || nvml.device_by_index(0).is_ok());
    assert_eq!(error(old.name()), "GpuLost");
    assert!(nvml.device_by_index(0).unwrap().name().is_ok());
}

#[test]
fn changed_scenario_is_read_and_an_invalid_one_ignored() {
    let gpu = "now = 3.0\n[[gpu]]\nmodel = \"T4\"\n";
    let env = MockEnv::with_scenario(gpu);
    let nvml = env.nvml();
    let device = nvml.device_by_index(0).unwrap();
    let load = || device.utilization_rates().unwrap().gpu;
    assert_eq!(load(), 0);
    env.write_scenario(&(gpu.to_owned() + &process(7, 0, "sm = 85")));
    eventually("the process runs", || load() == 85);
    assert!(env.dir.path().join("proc/7/stat").is_file());
    env.write_scenario("invalid");
    let reads = 20;
    let mut seen = 0;
    eventually("the load is unchanged in 20 reads", || {
        seen += 1;
        assert_eq!(load(), 85);
        seen > reads
    });
    env.write_scenario(gpu);
    eventually("the process is gone", || load() == 0);
    eventually("the process is removed from the proc tree", || {
        load();
        !env.dir.path().join("proc/7").exists()
    });
}

#[test]
fn state_is_kept_when_the_library_is_closed() {
    let env = MockEnv::with_scenario("[[gpu]]\nmodel = \"T4\"\n");
    let mut before = 0;
    let first = env.nvml();
    eventually("energy has been used", || {
        before = first.device_by_index(0).unwrap().total_energy_consumption().unwrap();
        before >= 3_000
    });
    drop(first);
    let after = env.nvml().device_by_index(0).unwrap().total_energy_consumption().unwrap();
    assert!(after >= before, "{after} is less than {before}");
}

#[test]
fn proc_tree_is_readable_by_procfs() {
    let at = |time: u32| {
        format!("now = {time}\n[[gpu]]\nmodel = \"T4\"\n")
            + &process(
                7,
                0,
                "start = 5\nzombie = { from = 20 }\nend = 30\ncgroup = \"0::/kubepods/x\"",
            )
            + &process(8, 0, "proc = false")
    };
    let env = MockEnv::with_scenario(&at(10));
    let root = env.dir.path().join("proc");
    let read = || procfs::process::Process::new_with_root(root.join("7")).unwrap();
    let stat = read().stat().unwrap();
    assert_eq!(
        (stat.pid, stat.comm.as_str(), stat.state, stat.starttime),
        (7, "work", 'S', 360_500)
    );
    assert_eq!(read().status().unwrap().nspid, Some(vec![7]));
    assert_eq!(read().cmdline().unwrap(), ["work"]);
    assert_eq!(fs::read_to_string(root.join("7/cgroup")).unwrap(), "0::/kubepods/x\n");
    assert!(!root.join("8").exists());
    assert!(fs::read_to_string(root.join("self/mountinfo")).unwrap().contains(" - cgroup2 "));
    assert!(procfs::process::Process::new_with_root(root.join("1")).unwrap().stat().is_ok());
    let boot = fs::read_to_string(root.join("stat")).unwrap();
    assert!(boot.lines().any(|line| line.starts_with("btime 1")));

    let nvml = env.nvml();
    env.write_scenario(&at(25));
    eventually("the process is a zombie", || {
        nvml.device_count().unwrap();
        read().stat().is_ok_and(|stat| stat.state == 'Z')
    });
    assert_eq!(nvml.device_by_index(0).unwrap().running_compute_processes().unwrap().len(), 2);
    env.write_scenario(&at(31));
    eventually("the process is removed", || {
        nvml.device_count().unwrap();
        !root.join("7").exists()
    });
}

#[test]
fn invalid_scenario_is_explained() {
    let dir = TempDir::new().unwrap();
    let near = try_set_up("dmeo", dir.path()).unwrap_err();
    assert!(near.starts_with("no scenario \"dmeo\", did you mean \"demo\""), "{near}");
    let path = dir.path().join("x.toml");
    fs::write(&path, "[[gpu]]\nmodel = \"T4\"\n[[process]]\nsn = 5\n").unwrap();
    let wrong = try_set_up(path.to_str().unwrap(), dir.path()).unwrap_err();
    let place = fs::canonicalize(&path).unwrap();
    let expected =
        format!("scenario {}:4: unknown key \"sn\", did you mean \"sm\"?", place.display());
    assert!(wrong.starts_with(&expected), "{wrong}");
    let nowhere = try_set_up("demo", &dir.path().join("absent")).unwrap_err();
    assert!(nowhere.starts_with("the directory ") && nowhere.contains("absent"), "{nowhere}");
}

#[test]
fn built_in_scenarios_are_listed() {
    let env = MockEnv::built_in("idle-t4");
    let library = env.raw();
    let mut names = [0_u8; 256];
    // SAFETY: this is the signature of the function.
    let list = unsafe {
        library.get::<unsafe extern "C" fn(*mut c_char, c_uint) -> c_uint>(b"mockNvmlScenarios\0")
    };
    // SAFETY: a buffer of 256 bytes.
    assert_eq!(unsafe { list.unwrap()(names.as_mut_ptr().cast(), 256) }, 0);
    let text = String::from_utf8(names.to_vec()).unwrap();
    assert_eq!(text.trim_end_matches('\0').lines().collect::<Vec<_>>(), BUILT_IN);
}

#[test]
fn calls_before_init_fail_and_an_extra_shutdown_succeeds() {
    let env = MockEnv::built_in("idle-t4");
    let lib = env.raw();
    let mut number: c_uint = 0;
    assert_eq!(raw!(lib, b"nvmlShutdown"()), 0);
    assert_eq!(raw!(lib, b"nvmlDeviceGetCount_v2"(*mut c_uint = &raw mut number)), 1);
    let mut text = [0_u8; 80];
    let out = text.as_mut_ptr().cast::<c_char>();
    assert_eq!(raw!(lib, b"nvmlSystemGetNVMLVersion"(*mut c_char = out, c_uint = 80)), 0);
    assert_eq!(raw!(lib, b"nvmlSystemGetDriverVersion"(*mut c_char = out, c_uint = 80)), 1);
    assert_eq!(raw!(lib, b"nvmlInit_v2"()), 0);
    assert_eq!(raw!(lib, b"nvmlSystemGetDriverVersion"(*mut c_char = out, c_uint = 9)), 7);
    assert_eq!(raw!(lib, b"nvmlSystemGetDriverVersion"(*mut c_char = out, c_uint = 10)), 0);
    assert_eq!(raw!(lib, b"nvmlDeviceGetCount_v2"(*mut c_uint = ptr::null_mut())), 2);
    let mut device: nvmlDevice_t = ptr::null_mut();
    let get = |index: c_uint, device: &mut nvmlDevice_t| raw!(lib, b"nvmlDeviceGetHandleByIndex_v2"(c_uint = index, *mut nvmlDevice_t = device));
    assert_eq!((get(1, &mut device), get(0, &mut device)), (2, 0));
    let minor = |device: nvmlDevice_t, number: &mut c_uint| raw!(lib, b"nvmlDeviceGetMinorNumber"(nvmlDevice_t = device, *mut c_uint = number));
    assert_eq!(minor(device, &mut number), 0);
    assert_eq!(minor(ptr::null_mut(), &mut number), 2);
    assert_eq!(minor(ptr::without_provenance_mut(4_096), &mut number), 2);
    assert_eq!(raw!(lib, b"nvmlShutdown"()), 0);
    assert_eq!(minor(device, &mut number), 1);
}

#[test]
fn counts_and_buffer_sizes_follow_nvml() {
    let text = "now = 5.0\n[[gpu]]\nmodel = \"T4\"\n".to_owned()
        + &process(7, 0, "sm = 20")
        + &process(8, 0, "sm = 30");
    let env = MockEnv::with_scenario(&text);
    let nvml = env.nvml();
    let lib = env.raw();
    // SAFETY: the handle is used while NVML is initialised.
    let device = unsafe { nvml.device_by_index(0).unwrap().handle() };

    let mut rows = [[0_u64; 4]; 4];
    let ring = |out: *mut [u64; 4], count: &mut c_uint| {
        raw!(lib, b"nvmlDeviceGetProcessUtilization"(
            nvmlDevice_t = device, *mut c_void = out.cast(), *mut c_uint = count, u64 = 0
        ))
    };
    for (out, capacity, code, count) in [
        (ptr::null_mut(), 0, 7, 100),
        (ptr::null_mut(), 50, 7, 100),
        (rows.as_mut_ptr(), 0, 7, 100),
        (rows.as_mut_ptr(), 1, 7, 2),
        (rows.as_mut_ptr(), 4, 0, 2),
    ] {
        let mut size = capacity;
        assert_eq!((ring(out, &mut size), size), (code, count), "capacity {capacity}");
    }
    let mut list = |capacity: c_uint| {
        let mut size = capacity;
        let out = if capacity == 0 { ptr::null_mut() } else { rows.as_mut_ptr() };
        let code = raw!(lib, b"nvmlDeviceGetComputeRunningProcesses_v3"(
            nvmlDevice_t = device, *mut c_uint = &raw mut size, *mut c_void = out.cast()
        ));
        (code, size)
    };
    assert_eq!([list(0), list(1), list(4)], [(7, 2), (7, 2), (0, 2)]);
    let mut none: c_uint = 0;
    let graphics = raw!(lib, b"nvmlDeviceGetGraphicsRunningProcesses_v3"(
        nvmlDevice_t = device, *mut c_uint = &raw mut none, *mut c_void = ptr::null_mut()
    ));
    assert_eq!((graphics, none), (0, 0));
}

#[test]
fn structs_are_written_in_the_callers_version() {
    let env = MockEnv::built_in("idle-t4");
    let nvml = env.nvml();
    let lib = env.raw();
    // SAFETY: the handle is used while NVML is initialised.
    let device = unsafe { nvml.device_by_index(0).unwrap().handle() };
    let mut old = [0_u64; 3];
    let v1 =
        raw!(lib, b"nvmlDeviceGetMemoryInfo"(nvmlDevice_t = device, *mut u64 = old.as_mut_ptr()));
    let v2 = nvml.device_by_index(0).unwrap().memory_info().unwrap();
    assert_eq!((v1, old), (0, [v2.total, v2.free, v2.used + v2.reserved]));
    let mut wrong = [(1_u64 << 24) | 0x28, 0, 0, 0, 0];
    let out = wrong.as_mut_ptr();
    assert_eq!(raw!(lib, b"nvmlDeviceGetMemoryInfo_v2"(nvmlDevice_t = device, *mut u64 = out)), 25);

    let mut pci = [0xAA_u8; 68];
    let out = pci.as_mut_ptr();
    assert_eq!(raw!(lib, b"nvmlDeviceGetPciInfo"(nvmlDevice_t = device, *mut u8 = out)), 0);
    assert_eq!((&pci[..13], pci[32]), (&b"0000:1B:00.0\0"[..], 0xAA));
    let out = pci.as_mut_ptr();
    assert_eq!(raw!(lib, b"nvmlDeviceGetPciInfo_v2"(nvmlDevice_t = device, *mut u8 = out)), 0);
    assert_eq!((pci[32], pci[52]), (0xDE, 0xAA));
}
