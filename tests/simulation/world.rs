//! Random worlds from a seed: the GPUs, processes and pods of a node, and its faults.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fastrand::Rng;
use nvml_exporter::catalog::{DEVICE, INSTANCE};

use crate::flags::POD_LABELS;

/// The number of successive worlds with the same GPUs.
const ERA: usize = 10;

/// Functions that are called in every cycle and are the only source of their series.
pub(crate) const READ: [&str; 10] = [
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetBAR1MemoryInfo",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetEncoderUtilization",
    "nvmlDeviceGetDecoderUtilization",
    "nvmlDeviceGetPerformanceState",
    "nvmlDeviceGetCurrentClocksEventReasons",
];
/// Other functions with faults, in addition to those in the catalog.
const OTHERS: [&str; 23] = [
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    "nvmlDeviceGetProcessesUtilizationInfo",
    "nvmlDeviceGetProcessUtilization",
    "nvmlDeviceGetRetiredPages",
    "nvmlDeviceRegisterEvents",
    "nvmlEventSetWait_v2",
    "nvmlGpmSampleGet",
    "nvmlGpmMetricsGet",
];
const CODES: [&str; 14] = [
    "UNKNOWN",
    "NO_PERMISSION",
    "NOT_SUPPORTED",
    "NOT_FOUND",
    "TIMEOUT",
    "GPU_IS_LOST",
    "RESET_REQUIRED",
    "MEMORY",
    "INSUFFICIENT_SIZE",
    "INVALID_ARGUMENT",
    "FUNCTION_NOT_FOUND",
    "UNINITIALIZED",
    "DRIVER_NOT_LOADED",
    "ARGUMENT_VERSION_MISMATCH",
];
/// Codes after which the exporter may fall back to another function.
const FALLBACK_CODES: [&str; 6] = [
    "NOT_SUPPORTED",
    "FUNCTION_NOT_FOUND",
    "INVALID_ARGUMENT",
    "ARGUMENT_VERSION_MISMATCH",
    "INSUFFICIENT_SIZE",
    "NOT_FOUND",
];
/// Ids of fields (`nvmlDeviceGetFieldValues`) with series.
const FIELDS: [u32; 14] = [1, 3, 4, 5, 6, 74, 75, 82, 94, 138, 142, 143, 193, 203];

/// The effect of a fault.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// The function returns this `nvmlReturn_t`.
    Code(&'static str),
    /// The function returns data with all bits set.
    AllBitsSet,
    Hang,
    Delay,
}

#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) function: &'static str,
    pub(crate) gpu: Option<usize>,
    pub(crate) field: Option<u32>,
    pub(crate) effect: Effect,
}

impl Fault {
    /// Whether the series of `function` must be absent while the fault is active.
    pub(crate) fn hides_series(&self) -> bool {
        match &self.effect {
            Effect::Code(code) => !FALLBACK_CODES.contains(code),
            // The fault does not apply to functions that return these structs.
            Effect::AllBitsSet => !["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetBAR1MemoryInfo"]
                .contains(&self.function),
            Effect::Hang | Effect::Delay => false,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Gpu {
    pub(crate) uuid: String,
    pub(crate) model: &'static str,
    pub(crate) mig: bool,
    pub(crate) lost: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) gpu: usize,
    pub(crate) mib: u32,
    pub(crate) sm: u32,
    /// Namespace, name and container.
    pub(crate) pod: Option<(String, String)>,
    pub(crate) zombie: bool,
}

/// The state of a node, constant for [`WORLD_DURATION`](crate::WORLD_DURATION).
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) era: usize,
    pub(crate) driver: bool,
    pub(crate) gpus: Vec<Gpu>,
    /// By pid.
    pub(crate) processes: BTreeMap<u32, Process>,
    pub(crate) faults: Vec<Fault>,
    /// The TOML scenario for the mock.
    pub(crate) text: String,
}

/// The world number `step` of a seed.
pub(crate) fn world(seed: u64, step: usize) -> World {
    let era = step / ERA;
    let gpus = gpus(&mut Rng::with_seed(seed ^ (era as u64) << 32), era);
    let mut rng = Rng::with_seed(seed ^ 1 << 63 ^ step as u64);
    let gpus: Vec<Gpu> = gpus.into_iter().map(|gpu| Gpu { lost: rng.u8(..) < 20, ..gpu }).collect();
    let processes = processes(&mut rng, step, &gpus);
    let faults = (0..rng.usize(0..6)).map(|_| fault(&mut rng, gpus.len())).collect();
    // GPUs are replaced only while the driver is unloaded.
    let driver = rng.u8(..) >= 12 && step % ERA != ERA - 1;
    let mut world = World { era, driver, gpus, processes, faults, text: String::new() };
    world.text = text(&world, &mut rng, step);
    world
}

fn gpus(rng: &mut Rng, era: usize) -> Vec<Gpu> {
    let count = 1 + rng.usize(0..3);
    let gpu = |index: usize| {
        let model = ["T4", "L20", "A100", "H100", "B200"][rng.usize(0..5)];
        let uuid = format!("GPU-{era:08x}-0000-4000-8000-{index:012x}");
        let mig = ["A100", "H100"].contains(&model) && rng.bool();
        Gpu { uuid, model, mig, lost: false }
    };
    (0..count).map(gpu).collect()
}

fn processes(rng: &mut Rng, step: usize, gpus: &[Gpu]) -> BTreeMap<u32, Process> {
    let mut all = BTreeMap::new();
    for (gpu, properties) in gpus.iter().enumerate() {
        for n in 0..rng.usize(0..4) {
            // No pid is reused.
            let pid = 1000 + u32::try_from(step * 16 + gpu * 4 + n).unwrap() % 4_000_000;
            let pod = (!properties.mig && rng.u8(..) < 180)
                .then(|| (format!("ns-{}", step % 3), format!("pod-{step}-{gpu}-{n}")));
            let zombie = rng.u8(..) < 20;
            let (mib, sm) = (64 + rng.u32(0..1000), rng.u32(0..=30));
            all.insert(pid, Process { gpu, mib, sm, pod, zombie });
        }
    }
    all
}

fn fault(rng: &mut Rng, gpus: usize) -> Fault {
    let gpu = Some(rng.usize(0..gpus));
    let effect = match rng.u8(0..10) {
        0..=5 => Effect::Code(CODES[rng.usize(0..CODES.len())]),
        6..=8 => Effect::AllBitsSet,
        _ => Effect::Delay,
    };
    match rng.u8(0..20) {
        0 => Fault { function: "*", gpu, field: None, effect: Effect::Hang },
        1..=3 => {
            let field = Some(FIELDS[rng.usize(0..FIELDS.len())]);
            let effect = if effect == Effect::Delay { Effect::AllBitsSet } else { effect };
            Fault { function: "nvmlDeviceGetFieldValues", gpu, field, effect }
        }
        4..=8 => {
            let symbols = DEVICE.iter().chain(INSTANCE).map(|metric| metric.symbol);
            let symbols = symbols.filter(|symbol| symbol.starts_with("nvmlDevice"));
            let all: Vec<&str> = OTHERS.into_iter().chain(symbols).collect();
            let function = all[rng.usize(0..all.len())];
            let is_of_gpu =
                !["Count", "EventSet", "MetricsGet"].iter().any(|f| function.contains(f));
            Fault { function, gpu: gpu.filter(|_| is_of_gpu), field: None, effect }
        }
        _ => {
            let gpu = gpu.filter(|_| rng.u8(..) < 200);
            Fault { function: READ[rng.usize(0..READ.len())], gpu, field: None, effect }
        }
    }
}

fn text(world: &World, rng: &mut Rng, step: usize) -> String {
    let now = 100 + 7 * step;
    let mut text = format!("now = {now}\n");
    if !world.driver {
        text += "[driver]\nreload = [{ from = 0, to = 100000000 }]\n";
    }
    text += "[cluster]\nnode = \"node-1\"\n";
    for (index, gpu) in world.gpus.iter().enumerate() {
        let _ = writeln!(text, "[[gpu]]\nmodel = \"{}\"\nuuid = \"{}\"", gpu.model, gpu.uuid);
        if gpu.lost {
            let _ = writeln!(text, "lost = [{{ from = {now}, to = {} }}]", now + 7);
        }
        if gpu.mig {
            text += "mig = [{ from = 0, instances = [{ profile = \"3g.40gb\", count = 2 }] }]\n";
        }
        if rng.u8(..) < 40 {
            let _ = writeln!(text, "[[xid]]\ngpu = {index}\nat = {now}\ncode = {}", 13 + index);
        }
        if rng.u8(..) < 60 {
            let _ = writeln!(
                text,
                "[[garbage]]\ngpu = {index}\nrows = [\n{{ pid = 0, sm = 12, age = 0.5 }},\n\
                 {{ pid = {}, sm = 2147483632, mem = 4294967295, age = 0.2 }},\n\
                 {{ pid = 3999999, sm = 40, age = 86400.0 }}, {{ pid = 3999998, sm = 9, age = -3600.0 }}]",
                world.processes.keys().next().copied().unwrap_or(5),
            );
        }
    }
    for (pid, process) in &world.processes {
        let Process { gpu, mib, sm, pod, zombie } = process;
        let _ = writeln!(
            text,
            "[[process]]\npid = {pid}\nname = \"worker-{pid}\"\ngpus = [{gpu}]\nsm = {sm}\n\
             memory = \"{mib} MiB\"",
        );
        if world.gpus[*gpu].mig {
            let _ = writeln!(text, "gi = {}", 1 + pid % 2);
        }
        if *zombie {
            let _ = writeln!(text, "zombie = {{ from = {}, to = 1000000 }}", now - 1);
        }
        if let Some((namespace, name)) = pod {
            let allocation = allocation(world, *pid, *gpu);
            let _ = writeln!(
                text,
                "pod = \"{namespace}/{name}\"\n[[pod]]\nname = \"{name}\"\n\
                 namespace = \"{namespace}\"\nlabels = {{ {} }}\ncontainers = [{{ name = \"main\", {allocation} }}]",
                labels(*pid),
            );
        }
    }
    for Fault { function, gpu, field, effect } in &world.faults {
        let _ = writeln!(text, "[[fault]]\nfunction = \"{function}\"");
        if let Some(gpu) = gpu {
            let _ = writeln!(text, "gpu = {gpu}");
        }
        if let Some(field) = field {
            let _ = writeln!(text, "field = {field}");
        }
        let _ = match effect {
            Effect::Code(code) => writeln!(text, "code = \"{code}\""),
            Effect::AllBitsSet => writeln!(text, "ones = true"),
            Effect::Hang => writeln!(text, "hang = true"),
            Effect::Delay => writeln!(text, "delay = 0.003"),
        };
    }
    text
}

/// How a container is allocated a GPU: alone if no other pod is on it, else a share.
fn allocation(world: &World, pid: u32, gpu: usize) -> String {
    let is_on = |process: &&Process| process.gpu == gpu && process.pod.is_some();
    let is_alone = world.processes.values().filter(is_on).count() == 1;
    match (is_alone, pid % 3) {
        (true, 0) => format!("gpus = [{gpu}]"),
        (true, 1) => format!("claim = {{ name = \"claim-{pid}\", gpus = [{gpu}] }}"),
        _ => format!("ack = {{ gpu = {gpu}, gib = 1 }}"),
    }
}

/// Labels of a pod, with the names of other labels.
fn labels(pid: u32) -> String {
    let mut rng = Rng::with_seed(pid.into());
    let keys = POD_LABELS.iter().filter(|_| rng.bool());
    keys.map(|key| format!("\"{key}\" = \"f\"")).collect::<Vec<_>>().join(", ")
}

#[test]
fn seed_reproduces_its_worlds() {
    for step in 0..50 {
        assert_eq!(world(7, step).text, world(7, step).text);
    }
    assert_ne!(world(7, 3).text, world(8, 3).text);
}
