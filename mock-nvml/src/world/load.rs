//! The load of processes and GPUs at one time.

use std::ops::Add;

use crate::{
    scenario::{
        Gpu, Process, Scenario,
        mig::{EngineFraction, GpuInstance},
    },
    world::traffic::Traffic,
};

/// A set of engines: those of a GPU instance, or `None` for those of an unpartitioned GPU.
pub(super) type EngineSet<'a> = Option<&'a GpuInstance>;

/// Load of the engines in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Load {
    /// Streaming multiprocessors.
    pub(crate) sm: f64,
    /// Memory controller.
    pub(crate) mem: f64,
    /// Encoder.
    pub(crate) enc: f64,
    /// Decoder.
    pub(crate) dec: f64,
    /// JPEG decoder.
    pub(crate) jpg: f64,
    /// Optical flow engine.
    pub(crate) ofa: f64,
    /// Traffic on the links.
    pub(crate) traffic: Traffic,
}

impl Load {
    /// Whether any engine is busy.
    pub(crate) fn is_busy(self) -> bool {
        [self.sm, self.mem, self.enc, self.dec, self.jpg, self.ofa].iter().any(|load| *load > 0.0)
    }

    /// Converts a load in percent of `part` to percent of the GPU.
    pub(super) fn in_percent_of_gpu(self, part: EngineSet) -> Self {
        let Some(instance) = part else { return self };
        let EngineFraction { compute, memory } = instance.fraction();
        Self { mem: self.mem * memory, ..self.map(|load| load * compute) }
    }

    /// The load of each engine times `factor`; the traffic is unchanged.
    pub(super) fn scaled(self, factor: f64) -> Self {
        self.map(|load| load * factor)
    }

    fn map(self, apply: impl Fn(f64) -> f64) -> Self {
        self.zip_with(self, |load, _| apply(load))
    }

    /// Combines the load of each engine with that of `other`; the traffic is unchanged.
    fn zip_with(self, other: Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            sm: combine(self.sm, other.sm),
            mem: combine(self.mem, other.mem),
            enc: combine(self.enc, other.enc),
            dec: combine(self.dec, other.dec),
            jpg: combine(self.jpg, other.jpg),
            ofa: combine(self.ofa, other.ofa),
            traffic: self.traffic,
        }
    }
}

impl Add for Load {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let traffic = self.traffic + other.traffic;
        Self { traffic, ..self.zip_with(other, |load, other| load + other) }
    }
}

/// The load that a process requests of each of its GPUs at `time`; zero if it does not run or is a
/// zombie.
pub(crate) fn requested(process: &Process, time: f64) -> Load {
    if !process.lifetime.contains(time) || process.is_zombie(time) {
        return Load::default();
    }
    Load {
        sm: process.sm.at(time),
        mem: process.mem.at(time),
        enc: process.enc.at(time),
        dec: process.dec.at(time),
        jpg: process.jpg.at(time),
        ofa: process.ofa.at(time),
        traffic: Traffic::of(process, time),
    }
}

/// The load of a GPU at `time`: the sum of the loads that its processes request, limited to 100 %
/// of each engine and to the bandwidth of the links.
pub(crate) fn total(scenario: &Scenario, gpu: &Gpu, time: f64) -> Load {
    let mut sum = Load::default();
    for part in engine_sets(gpu, time) {
        let load = demand(scenario, gpu, part, time).map(|sum| sum.min(100.0));
        sum = sum + load.in_percent_of_gpu(part);
    }
    let traffic = sum.traffic.limited_to(gpu.model);
    // The sum over instances may exceed 100 by a rounding error.
    Load { traffic, ..sum.map(|sum| sum.min(100.0)) }
}

/// Passes each process's pid and its share of the GPU at `time` to `emit`. An engine with more than
/// 100 % requested is divided in proportion.
pub(crate) fn for_each_share(
    scenario: &Scenario,
    gpu: &Gpu,
    time: f64,
    emit: &mut dyn FnMut(u32, Load),
) {
    for part in engine_sets(gpu, time) {
        for_each_load(scenario, gpu, part, time, &mut |process, load| {
            emit(process.pid, load.in_percent_of_gpu(part));
        });
    }
}

/// Passes each busy process of `part` and its share of that part's engines to `emit`.
pub(super) fn for_each_load(
    scenario: &Scenario,
    gpu: &Gpu,
    part: EngineSet,
    time: f64,
    emit: &mut dyn FnMut(&Process, Load),
) {
    let demand = demand(scenario, gpu, part, time);
    let scale = demand.map(|sum| if sum > 100.0 { 100.0 / sum } else { 1.0 });
    for process in processes_of(scenario, gpu, part) {
        let load = requested(process, time);
        if load.is_busy() {
            emit(process, load.zip_with(scale, |load, scale| load * scale));
        }
    }
}

/// The engine sets of a GPU: its GPU instances, or the whole GPU.
pub(super) fn engine_sets(gpu: &Gpu, time: f64) -> impl Iterator<Item = EngineSet<'_>> {
    let layout = gpu.layout(time);
    let instances = layout.into_iter().flat_map(|layout| &layout.instances);
    instances.map(Some).chain(layout.is_none().then_some(None))
}

fn processes_of<'a>(
    scenario: &'a Scenario,
    gpu: &'a Gpu,
    part: EngineSet<'a>,
) -> impl Iterator<Item = &'a Process> {
    let in_part = move |process: &&Process| part.is_none_or(|instance| process.runs_in(instance));
    scenario.processes_of(gpu).filter(in_part)
}

fn demand(scenario: &Scenario, gpu: &Gpu, part: EngineSet, time: f64) -> Load {
    processes_of(scenario, gpu, part)
        .map(|process| requested(process, time))
        .fold(Load::default(), |sum, load| sum + load)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scenario_of(processes: &str) -> Scenario {
        let text = format!("[[gpu]]\nmodel = \"T4\"\n{processes}");
        Scenario::parse("test", &text).unwrap()
    }

    fn process(pid: u32, rest: &str) -> String {
        format!("[[process]]\npid = {pid}\nname = \"p\"\ngpus = [0]\nmemory = \"1 MiB\"\n{rest}\n")
    }

    #[test]
    fn overcommitted_engine_is_divided_in_proportion() {
        let text = process(1, "sm = 90\nmem = 30") + &process(2, "sm = 60\nmem = 30");
        let scenario = scenario_of(&text);
        let gpu = scenario.gpus.first().unwrap();
        let mut found = vec![];
        for_each_share(&scenario, gpu, 0.0, &mut |pid, load| found.push((pid, load.sm, load.mem)));
        assert_eq!(found.len(), 2);
        assert!((found[0].1 - 60.0).abs() < 1e-9 && (found[1].1 - 40.0).abs() < 1e-9);
        assert!((found[0].2 - 30.0).abs() < 1e-9);
        assert!((total(&scenario, gpu, 0.0).mem - 60.0).abs() < 1e-9);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these values are exact")]
    fn ended_processes_and_zombies_have_no_load() {
        let text = process(1, "sm = 50\nstart = 5\nend = 10")
            + &process(2, "sm = 20\nzombie = { from = 8.0 }");
        let scenario = scenario_of(&text);
        let at = |time| total(&scenario, scenario.gpus.first().unwrap(), time).sm;
        assert_eq!([0.0, 5.0, 8.0, 10.0].map(at), [20.0, 70.0, 50.0, 0.0]);
    }

    #[test]
    fn instances_share_no_engine_and_sum_to_the_gpu() {
        let text = "[[gpu]]\nmodel = \"A100\"\nmig = [{ to = 10, instances = [\
                    { profile = \"4g.40gb\" }, { profile = \"3g.40gb\" }] }]\n"
            .to_owned()
            + &process(1, "gi = 1\nend = 10\nsm = 90\nmem = 50")
            + &process(2, "gi = 1\nend = 10\nsm = 60\nmem = 10")
            + &process(3, "gi = 2\nend = 10\nsm = 100\nmem = 100")
            + &process(4, "start = 10\nsm = 100");
        let scenario = Scenario::parse("test", &text).unwrap();
        let gpu = scenario.gpus.first().unwrap();
        let load = total(&scenario, gpu, 5.0);
        assert!((load.sm - 100.0).abs() < 1e-9 && (load.mem - 80.0).abs() < 1e-9, "{load:?}");
        let mut found = vec![];
        for_each_share(&scenario, gpu, 5.0, &mut |pid, load| found.push((pid, load.sm)));
        let expected = [60.0 * 4.0 / 7.0, 40.0 * 4.0 / 7.0, 300.0 / 7.0];
        for ((pid, sm), expected) in found.iter().zip(expected) {
            assert!((sm - expected).abs() < 1e-9, "process {pid} has {sm}, not {expected}");
        }
        assert_eq!(found.len(), 3);
        assert!((total(&scenario, gpu, 10.0).sm - 100.0).abs() < 1e-9, "MIG mode is off again");
    }

    proptest! {
        #[test]
        fn shares_sum_to_the_load_of_the_gpu_and_at_most_100_percent(
            requested in proptest::collection::vec(0..=100_u32, 1..12)
        ) {
            let text: String = (1..).zip(&requested).map(|(pid, sm)| process(pid, &format!("sm = {sm}"))).collect();
            let scenario = scenario_of(&text);
            let gpu = scenario.gpus.first().unwrap();
            let mut sum = 0.0;
            for_each_share(&scenario, gpu, 1.0, &mut |_, load| sum += load.sm);
            prop_assert!(sum <= 100.0 + 1e-9);
            prop_assert!((sum - total(&scenario, gpu, 1.0).sm).abs() < 1e-9);
        }
    }
}
