//! Shares and MIG devices that schedulers write into annotations, and annotations that are forged.

use crate::exporter::{Scenario, run_once, series, value};

const A: &str = "GPU-aaaaaaaa-0000-4000-8000-000000000000";
const B: &str = "GPU-bbbbbbbb-0000-4000-8000-000000000000";
const C: &str = "GPU-cccccccc-0000-4000-8000-000000000000";
/// MIG devices of A, by GPU instance.
const MIGS: [(u32, &str); 3] = [
    (1, "MIG-aaaaaaaa-0000-4000-8000-000000000001"),
    (9, "MIG-aaaaaaaa-0000-4000-8000-000000000009"),
    (11, "MIG-aaaaaaaa-0000-4000-8000-000000000011"),
];
const ILLEGAL: &str = "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_USED";
const ALLOCATED: &str = "DCGM_CUSTOM_DEV_FB_ALLOCATED";
const MEMORY: &str = "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED";

/// Three H100: A is partitioned, B is shared, and `owner` has C and one MIG device of A alone.
fn node() -> String {
    let [(_, first), (_, second), (_, third)] = MIGS;
    format!(
        r#"now = 60
[[gpu]]
model = "H100"
uuid = "{A}"
mig = [{{ instances = [
    {{ profile = "3g.40gb", gi = 1, start = 4, uuid = "{first}" }},
    {{ profile = "1g.10gb", gi = 9, start = 0, slot = 2, uuid = "{second}" }},
    {{ profile = "1g.10gb", gi = 11, start = 2, slot = 5, uuid = "{third}" }},
] }}]
[[gpu]]
model = "H100"
uuid = "{B}"
[[gpu]]
model = "H100"
uuid = "{C}"
[cluster]
node = "node-1"
[[pod]]
name = "owner"
containers = [{{ name = "main", devices = {{ "nvidia.com/gpu" = ["{C}", "{third}"] }}, limits = {{ "nvidia.com/gpu" = "2" }} }}]
"#
    )
}

/// A mode: its key in a scenario, and whether it allocates MIG devices.
#[derive(Clone, Copy)]
struct Mode {
    key: &'static str,
    mig: bool,
}

const MODES: [Mode; 9] = [
    Mode { key: "ack", mig: false },
    Mode { key: "ack, newer key", mig: false },
    Mode { key: "ack_v1", mig: false },
    Mode { key: "hami", mig: false },
    Mode { key: "hami_mig", mig: true },
    Mode { key: "hami_mig_index", mig: true },
    Mode { key: "volcano", mig: false },
    Mode { key: "volcano_mig", mig: true },
    Mode { key: "koordinator", mig: false },
];

impl Mode {
    /// An allocation of 30 GiB of a GPU, or of the `n`th MIG device of A.
    fn allocation(self, gpu: usize, n: usize) -> String {
        match self.key {
            "ack" | "ack, newer key" => format!("ack = {{ gpu = {gpu}, gib = 30, cores = 20 }}"),
            "ack_v1" => format!("ack_v1 = {{ gpu = {gpu}, gib = 30 }}"),
            key if self.mig => format!("{key} = [\"0/{}\"]", MIGS[n].0),
            key => format!("{key} = [{{ gpu = {gpu}, mib = 30720, cores = 20 }}]"),
        }
    }

    /// Annotations that claim `units` GiB or devices of the GPU `gpu`, or the `n`th MIG device of A.
    fn claim(self, gpu: usize, n: usize, units: usize) -> String {
        let (uuid, (gi, mig)) = ([A, B, C][gpu], MIGS[n]);
        let devices = |entry: String| entry.repeat(units) + ";";
        let hami = |list: String| format!("\"hami.io/vgpu-devices-allocated\" = '{list}'");
        let volcano = |list: String| format!("\"volcano.sh/vgpu-ids-new\" = '{list}'");
        let slot = ["0-0", "0-2", "0-5"][n];
        let template = if n == 0 { 40_960 } else { 10_240 };
        match self.key {
            "ack" => format!(
                r#""scheduler.framework.gpushare.allocation" = '{{"0":{{"{gpu}":{units}}}}}'"#
            ),
            "ack, newer key" => {
                format!(r#""gpushare.alibabacloud.com/gpumemory" = '{{"0":{{"{gpu}":{units}}}}}'"#)
            }
            "ack_v1" => format!(
                "ALIYUN_COM_GPU_MEM_IDX = \"{gpu}\", ALIYUN_COM_GPU_MEM_POD = \"{units}\", \
                 ALIYUN_COM_GPU_MEM_ASSIGNED = \"true\""
            ),
            "hami" => hami(devices(format!("{uuid},NVIDIA,30720,0:"))),
            "volcano" => volcano(devices(format!("{uuid},NVIDIA,30720,0:"))),
            "hami_mig_index" => hami(devices(format!("{A}[{slot}],NVIDIA,{template},0:"))),
            "volcano_mig" => volcano(devices(format!("{A}[{slot}],NVIDIA,{template},0:"))),
            "hami_mig" => {
                let list = hami(devices(format!("{A},NVIDIA,{template},0:")));
                let identity = format!(
                    r#"[{{"containerIndex":0,"deviceIndex":0,"gpuUUID":"{A}","profile":"x","placement":{{"start":0,"size":1}},"migUUID":"{mig}","gpuInstanceID":{gi},"computeInstanceID":0}}]"#
                );
                format!("{list}, \"hami.io/vgpu-mig-allocations\" = '{identity}'")
            }
            _ => format!(
                "\"scheduling.koordinator.sh/device-allocated\" = \
                 '{{\"gpu\":[{{\"minor\":{gpu},\"resources\":{{\"koordinator.sh/gpu-memory\":\"{units}Gi\"}}}}]}}'"
            ),
        }
    }

    /// Two pods that share B, or have a MIG device each; the first has a process.
    fn honest(self) -> String {
        let process = if self.mig { "gpus = [0]\ngi = 1" } else { "gpus = [1]" };
        let (busy, idle) = (self.allocation(1, 0), self.allocation(1, 1));
        format!(
            r#"[[pod]]
name = "busy"
containers = [{{ name = "main", {busy} }}]
[[pod]]
name = "idle"
containers = [{{ name = "side" }}, {{ name = "main", {idle} }}]
[[process]]
pid = 100
name = "busy"
pod = "default/busy"
memory = "5 GiB"
sm = 50
{process}
"#
        )
    }

    /// A younger pod with a process on the device of `busy`.
    fn forger(self, allocation: &str, annotations: &str) -> String {
        let process = if self.mig { "gpus = [0]\ngi = 1" } else { "gpus = [1]" };
        let comma = if allocation.is_empty() { "" } else { ", " };
        format!(
            r#"[[pod]]
name = "forger"
start = 10
annotations = {{ {annotations} }}
containers = [{{ name = "main"{comma}{allocation} }}]
[[process]]
pid = 900
name = "forger"
pod = "default/forger"
start = 12
memory = "2 GiB"
sm = 5
{process}
"#
        )
    }

    /// The exposition of a node with the honest pods and `more`.
    fn metrics(self, more: &str) -> String {
        let scenario = Scenario::new("forged", &format!("{}{}{more}", node(), self.honest()));
        run_once(&[&scenario.flag(), "--node-name=node-1", "--hostname=host-1"])
    }
}

/// Lines of the pods that forge nothing.
fn of_others(metrics: &str) -> Vec<&str> {
    let is_of = |line: &str| {
        ["busy", "idle", "owner"].iter().any(|pod| line.contains(&format!("PodName=\"{pod}\"")))
    };
    let mut lines: Vec<_> = metrics.lines().filter(|line| is_of(line)).collect();
    lines.sort_unstable();
    lines
}

/// Values of a family by pod.
fn by_pod<'a>(metrics: &'a str, family: &str) -> Vec<(&'a str, f64)> {
    let one = |line: &'a str| {
        let (_, rest) = line.split_once("PodName=\"").unwrap();
        (rest.split('"').next().unwrap(), rest.rsplit(' ').next().unwrap().parse().unwrap())
    };
    let mut all: Vec<_> = series(metrics, family).into_iter().map(one).collect();
    all.sort_by(|a: &(&str, f64), b| a.partial_cmp(b).unwrap());
    all
}

fn problems(metrics: &str) -> Vec<(&str, &str)> {
    let lines = series(metrics, "nvml_exporter_allocation_problems");
    lines
        .into_iter()
        .map(|line| {
            let (_, rest) = line.split_once("reason=\"").unwrap();
            (rest.split('"').next().unwrap(), rest.rsplit(' ').next().unwrap())
        })
        .filter(|(_, count)| *count != "0")
        .collect()
}

#[test]
fn each_mode_has_the_memory_and_the_use_of_its_device() {
    let mib = |metrics: &str, labels: &[&str]| {
        value(metrics, "DCGM_CUSTOM_DEV_FB_TOTAL", &[&["device=\"nvidia"], labels].concat())
    };
    for mode in MODES {
        let metrics = mode.metrics("");
        assert_eq!(problems(&metrics), [], "{}", mode.key);
        assert_eq!(series(&metrics, ILLEGAL).len(), 0, "{}", mode.key);
        let used = by_pod(&metrics, "DCGM_CUSTOM_PROCESS_MEM_USED");
        let expected = [("busy", 5120.0), ("idle", 0.0), ("owner", 0.0), ("owner", 0.0)];
        assert_eq!(used, expected, "{}", mode.key);
        let total = mib(&metrics, &["gpu=\"1\""]).unwrap();
        let instance =
            |gi: u32| mib(&metrics, &["gpu=\"0\"", &format!("GPU_I_ID=\"{gi}\"")]).unwrap();
        let [busy, idle] = match mode.key {
            _ if mode.mig => [instance(1), instance(9)],
            "ack" | "ack, newer key" | "ack_v1" => [30.0 / 79.0 * total; 2],
            _ => [30720.0; 2],
        };
        let memory = by_pod(&metrics, MEMORY);
        assert!((memory[0].1 - busy).abs() < 1e-6, "{}: {memory:?}", mode.key);
        assert!((memory[1].1 - idle).abs() < 1e-6, "{}: {memory:?}", mode.key);
        let compute = by_pod(&metrics, "DCGM_CUSTOM_CONTAINER_CP_ALLOCATED");
        let cores = if mode.mig || mode.key == "ack_v1" { 0.0 } else { 0.2 };
        assert_eq!((compute[0].1, compute[1].1), (cores, cores), "{}", mode.key);
        let allocated = |labels: &[&str]| value(&metrics, ALLOCATED, labels).unwrap();
        if mode.mig {
            assert_eq!(
                (allocated(&["GPU_I_ID=\"1\""]), allocated(&["GPU_I_ID=\"9\""])),
                (1.0, 1.0)
            );
        } else {
            let ratio = allocated(&["gpu=\"1\""]);
            assert!((ratio - (busy + idle) / total).abs() < 1e-6, "{}: {ratio}", mode.key);
        }
        let mode_of_busy = if mode.mig { "exclusive" } else { "share" };
        let lines = series(&metrics, MEMORY);
        let line = lines.iter().find(|line| line.contains("\"busy\"")).unwrap();
        assert!(line.contains(&format!("AllocateMode=\"{mode_of_busy}\"")), "{line}");
    }
}

#[test]
fn modes_of_volcano_are_attributed_alike() {
    let mode = |key: &str| *MODES.iter().find(|mode| mode.key == key).unwrap();
    for (key, named) in [("volcano", "hami-core"), ("volcano", "mps"), ("volcano_mig", "mig")] {
        let plain = mode(key).honest();
        let annotation = format!("annotations = {{ \"volcano.sh/vgpu-mode\" = \"{named}\" }}\n");
        let with_mode =
            plain.replace("name = \"busy\"\ncont", &format!("name = \"busy\"\n{annotation}cont"));
        assert_ne!(plain, with_mode);
        let metrics = |pods: &str| {
            let scenario = Scenario::new("volcano", &(node() + pods));
            run_once(&[&scenario.flag(), "--node-name=node-1", "--hostname=host-1"])
        };
        let expected = metrics(&plain);
        assert_eq!(of_others(&metrics(&with_mode)), of_others(&expected), "{named}");
    }
}

#[test]
fn annotation_of_a_container_without_units_changes_no_number() {
    for mode in MODES {
        let without = mode.metrics(&mode.forger("", ""));
        let forged = mode.metrics(&mode.forger("", &mode.claim(1, 0, 1)));
        assert_eq!(of_others(&forged), of_others(&without), "{}", mode.key);
        for family in [ALLOCATED, "DCGM_CUSTOM_ALLOCATE_MODE", MEMORY, ILLEGAL] {
            assert_eq!(series(&forged, family), series(&without, family), "{}", mode.key);
        }
        assert_eq!(by_pod(&forged, ILLEGAL), [("forger", 2048.0)], "{}", mode.key);
        assert_eq!(problems(&forged), [("unrequested_annotation", "1")], "{}", mode.key);
    }
}

/// The exposition without a claim, and with one of a pod that has units of another device. Checks that
/// the claim changes no series of another pod, and that the forger has none.
fn forged(mode: Mode, claim: &str) -> [String; 2] {
    let own = match mode.key {
        // Its annotations are not those of the newer key.
        "ack, newer key" => "ack_v1 = { gpu = 2, gib = 30 }".to_owned(),
        key if mode.mig => format!("{key} = [\"0/9\"]"),
        _ => mode.allocation(2, 2),
    };
    let without = mode.metrics(&mode.forger("", ""));
    let with = mode.metrics(&mode.forger(&own, claim));
    assert_eq!(of_others(&with), of_others(&without), "{}", mode.key);
    assert!(!with.contains("PodName=\"forger\""), "{}", mode.key);
    [without, with]
}

#[test]
fn annotation_that_claims_the_gpu_of_another_pod_changes_only_its_own_family() {
    for mode in MODES {
        let [without, with] =
            forged(mode, &mode.claim(2, 2, if mode.key.starts_with("ack") { 30 } else { 1 }));
        assert_eq!(problems(&with), [("contradicted_annotation", "1")], "{}", mode.key);
        for device in ["gpu=\"2\"", "GPU_I_ID=\"11\""] {
            let allocated = |metrics| value(metrics, ALLOCATED, &[device]);
            assert_eq!((allocated(&with), allocated(&without)), (Some(1.0), Some(1.0)));
        }
        assert_eq!(value(&with, ALLOCATED, &["gpu=\"1\""]), None, "{}", mode.key);
    }
}

#[test]
fn annotation_that_claims_more_than_the_units_of_its_container_is_not_accepted() {
    for mode in MODES.iter().filter(|mode| !["koordinator", "hami_mig"].contains(&mode.key)) {
        let units = if mode.key.starts_with("ack") { 79 } else { 2 };
        let [_, with] = forged(*mode, &mode.claim(1, 0, units));
        let reason = if mode.key == "ack_v1" { "invalid_annotation" } else { "invalid_amount" };
        assert_eq!(problems(&with), [(reason, "1")], "{}", mode.key);
    }
}

#[test]
fn newest_share_is_withheld_if_a_device_has_no_room_for_it() {
    // HAMi and Volcano oversubscribe memory.
    let strict = |mode: &&Mode| mode.mig || !["hami", "volcano"].contains(&mode.key);
    for mode in MODES.iter().filter(strict) {
        let units = if mode.mig { 1 } else { 30 };
        let [without, with] = forged(*mode, &mode.claim(1, 0, units));
        let (reason, device) = if mode.mig {
            ("contested_device", "GPU_I_ID=\"1\"")
        } else {
            ("overcommitted", "gpu=\"1\"")
        };
        assert_eq!(problems(&with), [(reason, "1")], "{}", mode.key);
        assert!(value(&without, ALLOCATED, &[device]).is_some());
        assert_eq!(value(&with, ALLOCATED, &[device]), None, "{}", mode.key);
        assert_eq!(value(&with, ALLOCATED, &["gpu=\"2\""]), Some(1.0), "{}", mode.key);
    }
}

#[test]
fn mig_device_that_does_not_agree_with_the_driver_is_withheld_on_its_gpu() {
    for (key, from, to) in [
        ("hami_mig", "\"gpuInstanceID\":9", "\"gpuInstanceID\":7"),
        ("hami_mig", MIGS[1].1, "MIG-aaaaaaaa-0000-4000-8000-000000000042"),
        ("hami_mig_index", "0-2", "0-3"),
        ("volcano_mig", ",10240,", ",20480,"),
    ] {
        let mode = *MODES.iter().find(|mode| mode.key == key).unwrap();
        let wrong = mode.claim(0, 1, 1).replace(from, to);
        let honest = mode.honest().replace(
            "name = \"idle\"\ncontainers = [{ name = \"side\" }, ",
            &format!("name = \"idle\"\nannotations = {{ {wrong} }}\ncontainers = ["),
        );
        let scenario = Scenario::new("wrong", &(node() + &honest));
        let metrics = run_once(&[&scenario.flag(), "--node-name=node-1"]);
        assert_eq!(problems(&metrics), [("unknown_device", "1")], "{key}: {wrong}");
        let memory = by_pod(&metrics, MEMORY);
        assert_eq!(
            memory.iter().map(|(pod, _)| *pod).collect::<Vec<_>>(),
            ["busy", "owner", "owner"]
        );
        let used = by_pod(&metrics, "DCGM_CUSTOM_PROCESS_MEM_USED");
        assert_eq!(used, [("busy", 5120.0), ("owner", 0.0), ("owner", 0.0)], "{key}: {wrong}");
        for (device, shown) in
            [("GPU_I_ID=\"9\"", None), ("gpu=\"2\"", Some(1.0)), ("gpu=\"1\"", Some(0.0))]
        {
            assert_eq!(value(&metrics, ALLOCATED, &[device]), shown, "{key}: {device}");
        }
    }
}
