//! The invariants of every exposition.

use std::collections::BTreeMap;

use nvml_exporter::catalog::{
    ACCUMULATED, ALLOCATED_FRACTION, CONTAINER, DEVICE, EVENT, ILLEGAL, INSTANCE, NODE, PROCESS,
};

use crate::exposition::{self, Sample};
use crate::world::{Effect, Fault, READ, World};

/// A rate that dcgm-exporter declares a counter.
const RATE: &str = "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL";

/// Values that stand for "no data": all bits set, and the blank values of DCGM.
const SENTINELS: [f64; 8] = [
    4_294_967_295.0,
    18_446_744_073_709_551_615.0,
    9_223_372_036_854_775_807.0,
    2_147_483_647.0,
    2_147_483_632.0,
    9_223_372_036_854_775_792.0,
    -1.0,
    140_737_488_355_328.0,
];

/// Checks expositions, and remembers the values of counters.
pub(crate) struct Invariants {
    /// Units by family.
    units: BTreeMap<&'static str, &'static str>,
    /// NVML symbols by family.
    symbols: BTreeMap<&'static str, &'static str>,
    /// The last value of each counter, by family and labels.
    counters: BTreeMap<(String, BTreeMap<String, String>), f64>,
    /// Number of expositions of stable worlds.
    pub(crate) stable: usize,
    /// Number of those in which a healthy GPU did not respond in time: on a busy machine the program is too
    /// slow for the fast clock.
    pub(crate) stalled: usize,
}

impl Invariants {
    pub(crate) fn new() -> Self {
        let mut units = BTreeMap::new();
        units.extend(DEVICE.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(INSTANCE.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(NODE.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(EVENT.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(ALLOCATED_FRACTION.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(CONTAINER.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(PROCESS.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(ILLEGAL.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(ACCUMULATED.iter().map(|metric| (metric.name, metric.unit)));
        let symbols = DEVICE.iter().map(|metric| (metric.name, metric.symbol)).collect();
        Self { units, symbols, counters: BTreeMap::new(), stable: 0, stalled: 0 }
    }

    /// Allows all counters to restart.
    pub(crate) fn reset_counters(&mut self) {
        self.counters.clear();
    }

    /// Parses and checks an exposition, which may show any of `worlds`. If `stable`, it must show exactly
    /// the last one.
    ///
    /// # Errors
    /// The first violation.
    pub(crate) fn check(
        &mut self,
        text: &str,
        worlds: &[&World],
        stable: bool,
    ) -> Result<Vec<Sample>, String> {
        let samples = exposition::parse(text)?;
        let up = samples.iter().find(|sample| sample.name == "nvml_exporter_driver_up");
        if up.is_none_or(|up| up.value == 0.0) {
            self.reset_counters();
        }
        for sample in &samples {
            let violation = |why: &str| format!("{why}: {sample:?}");
            self.check_value(sample).map_err(|why| violation(&why))?;
            self.check_counter(sample).map_err(|why| violation(&why))?;
            check_labels(sample).map_err(|why| violation(&why))?;
            check_objects(sample, worlds).map_err(|why| violation(&why))?;
        }
        if let (true, Some(world)) = (stable, worlds.last()) {
            self.stable += 1;
            self.check_world(&samples, world)?;
        }
        Ok(samples)
    }

    /// The value is finite, not a sentinel, and within the range of its unit.
    fn check_value(&self, sample: &Sample) -> Result<(), String> {
        let Sample { name, value, .. } = sample;
        let unit = self.units.get(name.as_str()).copied().unwrap_or_default();
        if !value.is_finite() {
            return Err("not a number".to_owned());
        }
        let may_be_negative = unit == "C"
            || name == "nvml_exporter_framebuffer_bytes"
            || name == "nvml_exporter_driver_clock_offset_seconds";
        if *value < 0.0 && !may_be_negative {
            return Err("negative".to_owned());
        }
        if SENTINELS.contains(value) && !may_be_negative {
            return Err("a sentinel".to_owned());
        }
        let max = match unit {
            "%" => 100.0,
            "ratio" | "bool" => 1.0,
            "C" => 200.0,
            "P-state" => 15.0,
            "W" => 10_000.0,
            "MHz" => 100_000.0,
            "Hz" => 1e11,
            "lanes" | "gen" => 64.0,
            "MiB" | "MB/s" => 1e7,
            "pages" | "count" | "samples" => 1e9,
            _ => 1e17,
        };
        if *value > max { Err(format!("more than {max} {unit}")) } else { Ok(()) }
    }

    /// A counter does not decrease.
    fn check_counter(&mut self, sample: &Sample) -> Result<(), String> {
        // A count within a window is a gauge, although dcgm-exporter declares a counter.
        let windowed = sample.labels.contains_key("window_size_in_ms");
        if !sample.counter || sample.name == RATE || windowed {
            return Ok(());
        }
        let key = (sample.name.clone(), sample.labels.clone());
        match self.counters.insert(key, sample.value) {
            Some(before) if before > sample.value => Err(format!("{before} before")),
            Some(_) | None => Ok(()),
        }
    }

    /// The series of a stable world are complete, and none is left of what cannot be read.
    fn check_world(&mut self, samples: &[Sample], world: &World) -> Result<(), String> {
        for (index, gpu) in world.gpus.iter().enumerate() {
            let own = |sample: &&Sample| {
                sample.label("UUID") == Some(&gpu.uuid) && sample.name.starts_with("DCGM_FI_DEV_")
            };
            let is = |fault: &&Fault| fault.gpu.is_none_or(|only| only == index);
            let faults: Vec<&Fault> = world.faults.iter().filter(is).collect();
            let hung = faults.iter().any(|fault| fault.effect == Effect::Hang);
            let gone = !world.driver || gpu.lost || hung;
            let kept = |sample: &Sample| sample.name == "DCGM_FI_DEV_XID_ERRORS";
            if let Some(sample) = samples.iter().filter(own).find(|sample| gone && !kept(sample)) {
                return Err(format!("GPU {index} cannot be read: {sample:?}"));
            }
            for fault in faults.iter().filter(|fault| fault.hides_series()) {
                let hidden = |sample: &&Sample| {
                    READ.contains(&fault.function)
                        && self.symbols.get(sample.name.as_str()) == Some(&fault.function)
                };
                if let Some(sample) = samples.iter().filter(own).find(hidden) {
                    return Err(format!("{fault:?} of GPU {index}: {sample:?}"));
                }
            }
            let hangs = |sample: &&Sample| {
                sample.name == "nvml_exporter_gpu_missing_readings"
                    && sample.label("UUID") == Some(&gpu.uuid)
                    && sample.label("reason") == Some("hung")
            };
            let healthy = world.driver && !gpu.lost && world.faults.is_empty();
            // On a slow machine, a driver that is loaded again may not have been opened yet, or its GPUs have
            // not been identified.
            let down = |sample: &Sample| {
                sample.name == "nvml_exporter_driver_up" && sample.value == 0.0
                    || sample.name == "nvml_exporter_gpu_unidentified"
                        && sample.label("reason") == Some("pending")
            };
            let stalls = healthy && samples.iter().any(|sample| hangs(&sample) || down(sample));
            self.stalled += usize::from(stalls);
            let complete = healthy && !stalls;
            let has = |name: &str| samples.iter().filter(own).any(|sample| sample.name == name);
            if complete && !(has("DCGM_FI_DEV_FB_USED") && has("DCGM_FI_DEV_POWER_USAGE")) {
                return Err(format!("GPU {index} is healthy and has no series"));
            }
            let up = |sample: &&Sample| {
                sample.name == "nvml_exporter_gpu_up" && sample.label("UUID") == Some(&gpu.uuid)
            };
            let up: Vec<f64> = samples.iter().filter(up).map(|sample| sample.value).collect();
            if up.len() > 1 || complete && up != [1.0] || gone && up.contains(&1.0) {
                return Err(format!("GPU {index} is up: {up:?}"));
            }
        }
        Ok(())
    }
}

/// The labels of a pod are complete or absent; indices and UUIDs are valid.
fn check_labels(sample: &Sample) -> Result<(), String> {
    let names =
        ["PodName", "NamespaceName", "ContainerName"].map(|key| sample.label(key).is_some());
    let container = !sample.labels.contains_key("ContainerName");
    if names[0] != names[1] || (names[0] != names[2] && !container) {
        return Err("incomplete pod labels".to_owned());
    }
    for key in ["gpu", "device", "GPU_I_ID"] {
        let number = sample.label(key).map(|text| text.trim_start_matches("nvidia").parse::<u32>());
        if number.is_some_and(|number| number.is_ok_and(|number| number > 255)) {
            return Err(format!("no such {key}"));
        }
    }
    match sample.labels.get("UUID") {
        Some(uuid) if !uuid.starts_with("GPU-") && !uuid.starts_with("MIG-") => {
            Err("invalid UUID".to_owned())
        }
        Some(_) | None => Ok(()),
    }
}

/// GPUs, processes and pods in the labels exist in one of `worlds`, and the value is that of the process.
fn check_objects(sample: &Sample, worlds: &[&World]) -> Result<(), String> {
    let is_gpu = |uuid: &str| worlds.iter().flat_map(|w| &w.gpus).any(|gpu| gpu.uuid == uuid);
    if let Some(uuid) = sample.label("UUID").filter(|uuid| uuid.starts_with("GPU-"))
        && !is_gpu(uuid)
    {
        return Err("no such GPU".to_owned());
    }
    let Some(pid) = sample.label("ProcessId") else { return Ok(()) };
    if pid == "0" {
        // A container that is allocated the GPU and has no process on it.
        let mut processes = worlds.iter().flat_map(|world| world.processes.values());
        let exists = processes.any(|p| p.pod.as_ref().is_some_and(|pod| is_of(sample, pod)));
        return if exists && sample.value == 0.0 {
            Ok(())
        } else {
            Err("no such idle container".to_owned())
        };
    }
    let pid: u32 = pid.parse().map_err(|_| "no pid".to_owned())?;
    let process = worlds.iter().find_map(|world| world.processes.get(&pid));
    let process = process.ok_or("no such process")?;
    if process.zombie {
        return Err("a zombie".to_owned());
    }
    let is_its = |pod: &(String, String)| is_of(sample, pod);
    if sample.label("PodName").is_some() && !process.pod.as_ref().is_some_and(is_its) {
        return Err(format!("the process belongs to {:?}", process.pod));
    }
    let true_value = match sample.name.as_str() {
        "DCGM_CUSTOM_PROCESS_MEM_USED" | "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_USED" => process.mib,
        "DCGM_CUSTOM_PROCESS_SM_UTIL" | "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL" => process.sm,
        _ => return Ok(()),
    };
    let near = (sample.value - f64::from(true_value)).abs() < 1.0;
    // The window of the mean may include time before the process started.
    let partial = worlds.len() > 1 && sample.name.ends_with("SM_UTIL");
    if near || partial && sample.value < f64::from(true_value) {
        Ok(())
    } else {
        Err(format!("the true value is {true_value}"))
    }
}

fn is_of(sample: &Sample, (namespace, name): &(String, String)) -> bool {
    sample.label("PodName") == Some(name) && sample.label("NamespaceName") == Some(namespace)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::world::{Gpu, Process};

    fn the_world() -> World {
        let uuid = "GPU-1".to_owned();
        let gpu = Gpu { uuid, model: "T4", mig: false, lost: false };
        let pod = Some(("ns".to_owned(), "p".to_owned()));
        let process = Process { gpu: 0, mib: 100, sm: 7, pod, zombie: false };
        World {
            era: 0,
            driver: true,
            gpus: vec![gpu],
            processes: [(7, process)].into(),
            faults: Vec::new(),
            text: String::new(),
        }
    }

    fn exposition(lines: &[&str]) -> String {
        let mut text = "# HELP nvml_exporter_driver_up h\n# TYPE nvml_exporter_driver_up gauge\n\
                        nvml_exporter_driver_up 1\n"
            .to_owned();
        for line in lines {
            let (kind, line) = line.split_once(' ').unwrap();
            let name = line.split(['{', ' ']).next().unwrap();
            let _ = writeln!(text, "# HELP {name} h\n# TYPE {name} {kind}\n{line}");
        }
        text
    }

    #[test]
    fn violations_are_detected() {
        let good = [
            "gauge DCGM_FI_DEV_FB_USED{UUID=\"GPU-1\"} 5",
            "gauge DCGM_FI_DEV_POWER_USAGE{UUID=\"GPU-1\"} 5",
            "gauge nvml_exporter_gpu_up{UUID=\"GPU-1\"} 1",
        ];
        let pod = "PodName=\"p\",NamespaceName=\"ns\",ContainerName=\"main\"";
        let used = format!("gauge DCGM_CUSTOM_PROCESS_MEM_USED{{ProcessId=\"7\",{pod}}} 100");
        let world = the_world();
        let check =
            |lines: &[&str]| Invariants::new().check(&exposition(lines), &[&world], true).map(drop);
        check(&[&good[..], &[used.as_str()]].concat()).unwrap();
        for (line, why) in [
            ("gauge DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\"} NaN", "not a number"),
            ("gauge DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\"} +Inf", "not a number"),
            ("gauge DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\"} 101", "more than 100 %"),
            ("gauge DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\"} -2", "negative"),
            ("gauge x 4294967295", "a sentinel"),
            ("gauge DCGM_FI_DEV_GPU_TEMP{UUID=\"GPU-1\"} 4294967295", "more than 200 C"),
            ("gauge x{UUID=\"\"} 1", "invalid UUID"),
            ("gauge x{UUID=\"GPU-2\"} 1", "no such GPU"),
            ("gauge x{PodName=\"p\"} 1", "incomplete pod labels"),
            (
                "gauge x{PodName=\"p\",NamespaceName=\"n\",ContainerName=\"\"} 1",
                "incomplete pod labels",
            ),
            ("gauge x{ProcessId=\"8\"} 1", "no such process"),
            ("gauge x{device=\"nvidia4294967295\"} 1", "no such device"),
            ("gauge x{GPU_I_ID=\"4294967295\"} 1", "no such GPU_I_ID"),
            (
                "gauge x{ProcessId=\"0\",PodName=\"q\",NamespaceName=\"ns\"} 0",
                "no such idle container",
            ),
            (
                "gauge x{ProcessId=\"0\",PodName=\"p\",NamespaceName=\"ns\"} 1",
                "no such idle container",
            ),
            ("gauge DCGM_CUSTOM_PROCESS_MEM_USED{ProcessId=\"7\"} 90", "the true value is 100"),
            ("gauge DCGM_CUSTOM_PROCESS_SM_UTIL{ProcessId=\"7\"} 9", "the true value is 7"),
            (
                "gauge x{ProcessId=\"7\",PodName=\"q\",NamespaceName=\"ns\"} 1",
                "the process belongs to",
            ),
        ] {
            let error = check(&[&good[..], &[line]].concat()).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
        assert!(check(&good[..1]).unwrap_err().contains("healthy and has no series"));
        assert!(check(&good[..2]).unwrap_err().contains("is up: []"));
    }

    #[test]
    fn stale_series_are_detected() {
        let lines = [
            "gauge DCGM_FI_DEV_FB_USED{UUID=\"GPU-1\"} 5",
            "gauge DCGM_FI_DEV_POWER_USAGE{UUID=\"GPU-1\"} 5",
            "gauge nvml_exporter_gpu_up{UUID=\"GPU-1\"} 1",
        ];
        let text = exposition(&lines);
        let fault = |function, effect| Fault { function, gpu: Some(0), field: None, effect };
        let power = READ[0];
        for (faults, lost, driver) in [
            (vec![fault(power, Effect::Code("UNKNOWN"))], false, true),
            (vec![fault(power, Effect::AllBitsSet)], false, true),
            (vec![fault("*", Effect::Hang)], false, true),
            (Vec::new(), true, true),
            (Vec::new(), false, false),
        ] {
            let mut world = the_world();
            (world.faults, world.gpus[0].lost, world.driver) = (faults, lost, driver);
            assert!(Invariants::new().check(&text, &[&world], false).is_ok(), "not stable yet");
            assert!(Invariants::new().check(&text, &[&world], true).is_err(), "{world:?}");
        }
        let mut world = the_world();
        world.faults = vec![fault(power, Effect::Code("NOT_SUPPORTED"))];
        assert!(Invariants::new().check(&text, &[&world], true).is_ok(), "read by a fallback");
    }

    #[test]
    fn counters_may_decrease_only_after_a_driver_restart() {
        let world = the_world();
        let counter = |name: &str, value: u32| exposition(&[&format!("counter {name} {value}")]);
        for (name, may) in [("x_total", false), (RATE, true)] {
            let mut invariants = Invariants::new();
            invariants.check(&counter(name, 5), &[&world], false).unwrap();
            assert_eq!(
                invariants.check(&counter(name, 4), &[&world], false).is_ok(),
                may,
                "{name}"
            );
        }
        let mut invariants = Invariants::new();
        invariants.check(&counter("x_total", 5), &[&world], false).unwrap();
        let down = "# HELP nvml_exporter_driver_up h\n# TYPE nvml_exporter_driver_up gauge\n\
                    nvml_exporter_driver_up 0\n";
        invariants.check(down, &[&world], false).unwrap();
        invariants.check(&counter("x_total", 1), &[&world], false).unwrap();
    }
}
