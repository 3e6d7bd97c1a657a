//! What no page may break.

use std::collections::BTreeMap;

use nvml_exporter::catalog::{
    ACCOUNT, ALLOTTED, CONTAINER, DEVICE, EVENT, ILLEGAL, INSTANCE, NODE, PROCESS,
};

use crate::page::{self, Sample};
use crate::world::{Effect, Fault, READ, World};

/// What upstream calls a counter, and is a rate.
const RATE: &str = "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL";

/// Numbers that say that nothing is known: all bits set, and DCGM's blanks.
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

/// Units by family, and what was counted so far.
pub(crate) struct Laws {
    units: BTreeMap<&'static str, &'static str>,
    symbols: BTreeMap<&'static str, &'static str>,
    counted: BTreeMap<(String, BTreeMap<String, String>), f64>,
    /// Settled pages, and those on which a GPU that is well did not answer in time: on a machine that has
    /// other things to do, a clock that runs fast runs away from it.
    pub(crate) settled: usize,
    pub(crate) stalled: usize,
}

impl Laws {
    pub(crate) fn new() -> Self {
        let mut units = BTreeMap::new();
        units.extend(DEVICE.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(INSTANCE.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(NODE.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(EVENT.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(ALLOTTED.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(CONTAINER.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(PROCESS.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(ILLEGAL.iter().map(|metric| (metric.name, metric.unit)));
        units.extend(ACCOUNT.iter().map(|metric| (metric.name, metric.unit)));
        let symbols = DEVICE.iter().map(|metric| (metric.name, metric.symbol)).collect();
        Self { units, symbols, counted: BTreeMap::new(), settled: 0, stalled: 0 }
    }

    /// Counters may begin anew.
    pub(crate) fn begin_anew(&mut self) {
        self.counted.clear();
    }

    /// Reads a page that is about one of these worlds, the last of which has been so for long if
    /// `settled`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(
        &mut self,
        text: &str,
        worlds: &[&World],
        settled: bool,
    ) -> Result<Vec<Sample>, String> {
        let samples = page::read(text)?;
        let up = samples.iter().find(|sample| sample.name == "nvml_exporter_driver_up");
        if up.is_none_or(|up| up.value == 0.0) {
            self.begin_anew();
        }
        for sample in &samples {
            let wrong = |why: &str| format!("{why}: {sample:?}");
            self.number(sample).map_err(|why| wrong(&why))?;
            self.grows(sample).map_err(|why| wrong(&why))?;
            whole(sample).map_err(|why| wrong(&why))?;
            known(sample, worlds).map_err(|why| wrong(&why))?;
        }
        if let (true, Some(world)) = (settled, worlds.last()) {
            self.settled += 1;
            self.truth(&samples, world)?;
        }
        Ok(samples)
    }

    fn number(&self, sample: &Sample) -> Result<(), String> {
        let Sample { name, value, .. } = sample;
        let unit = self.units.get(name.as_str()).copied().unwrap_or_default();
        if !value.is_finite() {
            return Err("not a number".to_owned());
        }
        let may_be_negative = unit == "C" || name == "nvml_exporter_framebuffer_bytes";
        if *value < 0.0 && !may_be_negative {
            return Err("negative".to_owned());
        }
        if SENTINELS.contains(value) && !may_be_negative {
            return Err("a sentinel".to_owned());
        }
        let most = match unit {
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
        if *value > most { Err(format!("more than {most} {unit}")) } else { Ok(()) }
    }

    fn grows(&mut self, sample: &Sample) -> Result<(), String> {
        // A count within a window is a gauge, whatever upstream calls it.
        let windowed = sample.labels.contains_key("window_size_in_ms");
        if !sample.counter || sample.name == RATE || windowed {
            return Ok(());
        }
        let key = (sample.name.clone(), sample.labels.clone());
        match self.counted.insert(key, sample.value) {
            Some(before) if before > sample.value => Err(format!("{before} before")),
            Some(_) | None => Ok(()),
        }
    }

    /// What has to be there, and what must not be, when nothing has changed for long.
    fn truth(&mut self, samples: &[Sample], world: &World) -> Result<(), String> {
        for (index, gpu) in world.gpus.iter().enumerate() {
            let own = |sample: &&Sample| {
                sample.label("UUID") == Some(&gpu.uuid) && sample.name.starts_with("DCGM_FI_DEV_")
            };
            let is = |fault: &&Fault| fault.gpu.is_none_or(|only| only == index);
            let faults: Vec<&Fault> = world.faults.iter().filter(is).collect();
            let hung = faults.iter().any(|fault| fault.effect == Effect::Hang);
            let gone = !world.driver || gpu.lost || hung;
            let stays = |sample: &Sample| sample.name == "DCGM_FI_DEV_XID_ERRORS";
            if let Some(sample) = samples.iter().filter(own).find(|sample| gone && !stays(sample)) {
                return Err(format!("GPU {index} cannot be read: {sample:?}"));
            }
            for fault in faults.iter().filter(|fault| fault.blinds()) {
                let told = |sample: &&Sample| {
                    READ.contains(&fault.function)
                        && self.symbols.get(sample.name.as_str()) == Some(&fault.function)
                };
                if let Some(sample) = samples.iter().filter(own).find(told) {
                    return Err(format!("{fault:?} of GPU {index}: {sample:?}"));
                }
            }
            let hangs = |sample: &&Sample| {
                sample.name == "nvml_exporter_gpu_missing_readings"
                    && sample.label("UUID") == Some(&gpu.uuid)
                    && sample.label("reason") == Some("hung")
            };
            let well = world.driver && !gpu.lost && world.faults.is_empty();
            // Where the machine is slow, a driver that is back may not have been asked again yet.
            let away =
                |sample: &Sample| sample.name == "nvml_exporter_driver_up" && sample.value == 0.0;
            let stalls = well && samples.iter().any(|sample| hangs(&sample) || away(sample));
            self.stalled += usize::from(stalls);
            let clean = well && !stalls;
            let told = |name: &str| samples.iter().filter(own).any(|sample| sample.name == name);
            if clean && !(told("DCGM_FI_DEV_FB_USED") && told("DCGM_FI_DEV_POWER_USAGE")) {
                return Err(format!("GPU {index} is well and has no series"));
            }
            let up = |sample: &&Sample| {
                sample.name == "nvml_exporter_gpu_up" && sample.label("UUID") == Some(&gpu.uuid)
            };
            let up: Vec<f64> = samples.iter().filter(up).map(|sample| sample.value).collect();
            if up.len() > 1 || clean && up != [1.0] || gone && up.contains(&1.0) {
                return Err(format!("GPU {index} is up: {up:?}"));
            }
        }
        Ok(())
    }
}

/// Names of a pod stand together or not at all.
fn whole(sample: &Sample) -> Result<(), String> {
    let names =
        ["PodName", "NamespaceName", "ContainerName"].map(|key| sample.label(key).is_some());
    let container = !sample.labels.contains_key("ContainerName");
    if names[0] != names[1] || (names[0] != names[2] && !container) {
        return Err("half of a pod".to_owned());
    }
    for key in ["gpu", "device", "GPU_I_ID"] {
        let number = sample.label(key).map(|text| text.trim_start_matches("nvidia").parse::<u32>());
        if number.is_some_and(|number| number.is_ok_and(|number| number > 255)) {
            return Err(format!("no such {key}"));
        }
    }
    match sample.labels.get("UUID") {
        Some(uuid) if !uuid.starts_with("GPU-") && !uuid.starts_with("MIG-") => {
            Err("nobody's UUID".to_owned())
        }
        Some(_) | None => Ok(()),
    }
}

/// Whatever is named is there, and is what it is said to be.
fn known(sample: &Sample, worlds: &[&World]) -> Result<(), String> {
    let is_gpu = |uuid: &str| worlds.iter().flat_map(|w| &w.gpus).any(|gpu| gpu.uuid == uuid);
    if let Some(uuid) = sample.label("UUID").filter(|uuid| uuid.starts_with("GPU-"))
        && !is_gpu(uuid)
    {
        return Err("no such GPU".to_owned());
    }
    let Some(pid) = sample.label("ProcessId") else { return Ok(()) };
    if pid == "0" {
        // A container that holds something of the GPU and has no process on it.
        let mut processes = worlds.iter().flat_map(|world| world.processes.values());
        let holds = processes.any(|p| p.pod.as_ref().is_some_and(|pod| is_of(sample, pod)));
        return if holds && sample.value == 0.0 {
            Ok(())
        } else {
            Err("nobody idles so".to_owned())
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
        return Err(format!("it is of {:?}", process.pod));
    }
    let true_value = match sample.name.as_str() {
        "DCGM_CUSTOM_PROCESS_MEM_USED" | "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_USED" => process.mib,
        "DCGM_CUSTOM_PROCESS_SM_UTIL" | "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL" => process.sm,
        _ => return Ok(()),
    };
    let near = (sample.value - f64::from(true_value)).abs() < 1.0;
    // The mean over a window in which it was only part of the time.
    let begun = worlds.len() > 1 && sample.name.ends_with("SM_UTIL");
    if near || begun && sample.value < f64::from(true_value) {
        Ok(())
    } else {
        Err(format!("it is {true_value}"))
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

    fn page(lines: &[&str]) -> String {
        let mut page = "# HELP nvml_exporter_driver_up h\n# TYPE nvml_exporter_driver_up gauge\n\
                        nvml_exporter_driver_up 1\n"
            .to_owned();
        for line in lines {
            let (kind, line) = line.split_once(' ').unwrap();
            let name = line.split(['{', ' ']).next().unwrap();
            let _ = writeln!(page, "# HELP {name} h\n# TYPE {name} {kind}\n{line}");
        }
        page
    }

    #[test]
    fn every_law_can_be_broken() {
        let good = [
            "gauge DCGM_FI_DEV_FB_USED{UUID=\"GPU-1\"} 5",
            "gauge DCGM_FI_DEV_POWER_USAGE{UUID=\"GPU-1\"} 5",
            "gauge nvml_exporter_gpu_up{UUID=\"GPU-1\"} 1",
        ];
        let pod = "PodName=\"p\",NamespaceName=\"ns\",ContainerName=\"main\"";
        let used = format!("gauge DCGM_CUSTOM_PROCESS_MEM_USED{{ProcessId=\"7\",{pod}}} 100");
        let world = the_world();
        let check = |lines: &[&str]| Laws::new().check(&page(lines), &[&world], true).map(drop);
        check(&[&good[..], &[used.as_str()]].concat()).unwrap();
        for (line, why) in [
            ("gauge DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\"} NaN", "not a number"),
            ("gauge DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\"} +Inf", "not a number"),
            ("gauge DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\"} 101", "more than 100 %"),
            ("gauge DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\"} -2", "negative"),
            ("gauge x 4294967295", "a sentinel"),
            ("gauge DCGM_FI_DEV_GPU_TEMP{UUID=\"GPU-1\"} 4294967295", "more than 200 C"),
            ("gauge x{UUID=\"\"} 1", "nobody's UUID"),
            ("gauge x{UUID=\"GPU-2\"} 1", "no such GPU"),
            ("gauge x{PodName=\"p\"} 1", "half of a pod"),
            ("gauge x{PodName=\"p\",NamespaceName=\"n\",ContainerName=\"\"} 1", "half of a pod"),
            ("gauge x{ProcessId=\"8\"} 1", "no such process"),
            ("gauge x{device=\"nvidia4294967295\"} 1", "no such device"),
            ("gauge x{GPU_I_ID=\"4294967295\"} 1", "no such GPU_I_ID"),
            ("gauge x{ProcessId=\"0\",PodName=\"q\",NamespaceName=\"ns\"} 0", "nobody idles"),
            ("gauge x{ProcessId=\"0\",PodName=\"p\",NamespaceName=\"ns\"} 1", "nobody idles"),
            ("gauge DCGM_CUSTOM_PROCESS_MEM_USED{ProcessId=\"7\"} 90", "it is 100"),
            ("gauge DCGM_CUSTOM_PROCESS_SM_UTIL{ProcessId=\"7\"} 9", "it is 7"),
            ("gauge x{ProcessId=\"7\",PodName=\"q\",NamespaceName=\"ns\"} 1", "it is of"),
        ] {
            let error = check(&[&good[..], &[line]].concat()).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
        assert!(check(&good[..1]).unwrap_err().contains("well and has no series"));
        assert!(check(&good[..2]).unwrap_err().contains("is up: []"));
    }

    #[test]
    fn what_cannot_be_read_must_not_be_told() {
        let lines = [
            "gauge DCGM_FI_DEV_FB_USED{UUID=\"GPU-1\"} 5",
            "gauge DCGM_FI_DEV_POWER_USAGE{UUID=\"GPU-1\"} 5",
            "gauge nvml_exporter_gpu_up{UUID=\"GPU-1\"} 1",
        ];
        let fault = |function, effect| Fault { function, gpu: Some(0), field: None, effect };
        let power = READ[0];
        for (faults, lost, driver) in [
            (vec![fault(power, Effect::Code("UNKNOWN"))], false, true),
            (vec![fault(power, Effect::Ones)], false, true),
            (vec![fault("*", Effect::Hang)], false, true),
            (Vec::new(), true, true),
            (Vec::new(), false, false),
        ] {
            let mut world = the_world();
            (world.faults, world.gpus[0].lost, world.driver) = (faults, lost, driver);
            assert!(Laws::new().check(&page(&lines), &[&world], false).is_ok(), "not for long");
            assert!(Laws::new().check(&page(&lines), &[&world], true).is_err(), "{world:?}");
        }
        let mut world = the_world();
        world.faults = vec![fault(power, Effect::Code("NOT_SUPPORTED"))];
        assert!(Laws::new().check(&page(&lines), &[&world], true).is_ok(), "asked in another way");
    }

    #[test]
    fn counters_never_go_back_but_for_the_rate_and_a_driver_that_was_away() {
        let world = the_world();
        let counter = |name: &str, value: u32| page(&[&format!("counter {name} {value}")]);
        for (name, may) in [("x_total", false), (RATE, true)] {
            let mut laws = Laws::new();
            laws.check(&counter(name, 5), &[&world], false).unwrap();
            assert_eq!(laws.check(&counter(name, 4), &[&world], false).is_ok(), may, "{name}");
        }
        let mut laws = Laws::new();
        laws.check(&counter("x_total", 5), &[&world], false).unwrap();
        let down = "# HELP nvml_exporter_driver_up h\n# TYPE nvml_exporter_driver_up gauge\n\
                    nvml_exporter_driver_up 0\n";
        laws.check(down, &[&world], false).unwrap();
        laws.check(&counter("x_total", 1), &[&world], false).unwrap();
    }
}
