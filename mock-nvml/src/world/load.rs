//! The load of processes and of GPUs at a moment.

use std::ops::Add;

use super::traffic::Traffic;
use crate::scenario::{
    Gpu, Process, Scenario,
    mig::{Fraction, GpuInstance},
};

/// A GPU instance, or a GPU that is whole.
pub(super) type Part<'a> = Option<&'a GpuInstance>;

/// How busy the engines are, in percent.
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
    /// Optical flow accelerator.
    pub(crate) ofa: f64,
    /// What goes over its links meanwhile.
    pub(crate) traffic: Traffic,
}

impl Load {
    /// Whether any engine works.
    pub(crate) fn is_busy(self) -> bool {
        [self.sm, self.mem, self.enc, self.dec, self.jpg, self.ofa].iter().any(|load| *load > 0.0)
    }

    /// What a load in percent of a part is in percent of the GPU.
    pub(super) fn of_gpu(self, part: Part) -> Self {
        let Some(instance) = part else { return self };
        let Fraction { compute, memory } = instance.fraction();
        Self { mem: self.mem * memory, ..self.map(|load| load * compute) }
    }

    /// So many times as much of each engine; the traffic stays.
    pub(super) fn times(self, factor: f64) -> Self {
        self.map(|load| load * factor)
    }

    fn map(self, of: impl Fn(f64) -> f64) -> Self {
        self.with(self, |load, _| of(load))
    }

    /// Each engine's load made of its own and of `other`'s; the traffic stays.
    fn with(self, other: Self, of: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            sm: of(self.sm, other.sm),
            mem: of(self.mem, other.mem),
            enc: of(self.enc, other.enc),
            dec: of(self.dec, other.dec),
            jpg: of(self.jpg, other.jpg),
            ofa: of(self.ofa, other.ofa),
            traffic: self.traffic,
        }
    }
}

impl Add for Load {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let traffic = self.traffic + other.traffic;
        Self { traffic, ..self.with(other, |load, more| load + more) }
    }
}

/// What a process asks of each of its GPUs at `time`: nothing when it is not alive or a zombie.
pub(crate) fn wanted(process: &Process, time: f64) -> Load {
    if !process.life.contains(time) || process.is_zombie(time) {
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

/// The load of a GPU at `time`: the sum of what its processes ask, at most 100 % of each engine and
/// what each link carries.
pub(crate) fn total(scenario: &Scenario, gpu: &Gpu, time: f64) -> Load {
    let mut sum = Load::default();
    for part in parts(gpu, time) {
        let load = demand(scenario, gpu, part, time).map(|sum| sum.min(100.0));
        sum = sum + load.of_gpu(part);
    }
    let traffic = sum.traffic.carried(gpu.model);
    // Parts that add up to the whole may do so with a rounding error.
    Load { traffic, ..sum.map(|sum| sum.min(100.0)) }
}

/// Tells the pid and the share that each process gets of the GPU at `time`. An engine that is asked
/// for more than it has is sliced in proportion.
pub(crate) fn shares(scenario: &Scenario, gpu: &Gpu, time: f64, tell: &mut dyn FnMut(u32, Load)) {
    for part in parts(gpu, time) {
        within(scenario, gpu, part, time, &mut |process, load| {
            tell(process.pid, load.of_gpu(part));
        });
    }
}

/// Tells what each process that works in a part of the GPU gets of that part's engines.
pub(super) fn within(
    scenario: &Scenario,
    gpu: &Gpu,
    part: Part,
    time: f64,
    tell: &mut dyn FnMut(&Process, Load),
) {
    let demand = demand(scenario, gpu, part, time);
    let scale = demand.map(|sum| if sum > 100.0 { 100.0 / sum } else { 1.0 });
    for process in running(scenario, gpu, part) {
        let want = wanted(process, time);
        if want.is_busy() {
            tell(process, want.with(scale, |want, scale| want * scale));
        }
    }
}

/// The parts of a GPU that do not share their engines: its GPU instances, or all of it.
pub(super) fn parts(gpu: &Gpu, time: f64) -> impl Iterator<Item = Part<'_>> {
    let layout = gpu.layout(time);
    let instances = layout.into_iter().flat_map(|layout| &layout.instances);
    instances.map(Some).chain(layout.is_none().then_some(None))
}

fn running<'a>(
    scenario: &'a Scenario,
    gpu: &'a Gpu,
    part: Part<'a>,
) -> impl Iterator<Item = &'a Process> {
    let inside = move |process: &&Process| part.is_none_or(|instance| instance.holds(process));
    scenario.processes_of(gpu).filter(inside)
}

fn demand(scenario: &Scenario, gpu: &Gpu, part: Part, time: f64) -> Load {
    running(scenario, gpu, part)
        .map(|process| wanted(process, time))
        .fold(Load::default(), |sum, load| sum + load)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn world(processes: &str) -> Scenario {
        let text = format!("[[gpu]]\nmodel = \"T4\"\n{processes}");
        Scenario::parse("test", &text).unwrap()
    }

    fn process(pid: u32, rest: &str) -> String {
        format!("[[process]]\npid = {pid}\nname = \"p\"\ngpus = [0]\nmemory = \"1 MiB\"\n{rest}\n")
    }

    #[test]
    fn an_engine_asked_for_more_than_it_has_is_sliced() {
        let text = process(1, "sm = 90\nmem = 30") + &process(2, "sm = 60\nmem = 30");
        let scenario = world(&text);
        let gpu = scenario.gpus.first().unwrap();
        let mut found = vec![];
        shares(&scenario, gpu, 0.0, &mut |pid, load| found.push((pid, load.sm, load.mem)));
        assert_eq!(found.len(), 2);
        assert!((found[0].1 - 60.0).abs() < 1e-9 && (found[1].1 - 40.0).abs() < 1e-9);
        assert!((found[0].2 - 30.0).abs() < 1e-9);
        assert!((total(&scenario, gpu, 0.0).mem - 60.0).abs() < 1e-9);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these values are exact")]
    fn the_dead_and_the_zombies_do_nothing() {
        let text = process(1, "sm = 50\nstart = 5\nend = 10")
            + &process(2, "sm = 20\nzombie = { from = 8.0 }");
        let scenario = world(&text);
        let at = |time| total(&scenario, scenario.gpus.first().unwrap(), time).sm;
        assert_eq!([0.0, 5.0, 8.0, 10.0].map(at), [20.0, 70.0, 50.0, 0.0]);
    }

    #[test]
    fn instances_share_no_engine_and_add_up_to_the_gpu() {
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
        shares(&scenario, gpu, 5.0, &mut |pid, load| found.push((pid, load.sm)));
        let expected = [60.0 * 4.0 / 7.0, 40.0 * 4.0 / 7.0, 300.0 / 7.0];
        for ((pid, sm), expected) in found.iter().zip(expected) {
            assert!((sm - expected).abs() < 1e-9, "process {pid} has {sm}, not {expected}");
        }
        assert_eq!(found.len(), 3);
        assert!((total(&scenario, gpu, 10.0).sm - 100.0).abs() < 1e-9, "it is whole again");
    }

    proptest! {
        #[test]
        fn shares_sum_to_the_load_of_the_gpu_and_never_above_a_hundred(
            wants in proptest::collection::vec(0..=100_u32, 1..12)
        ) {
            let text: String = (1..).zip(&wants).map(|(pid, sm)| process(pid, &format!("sm = {sm}"))).collect();
            let scenario = world(&text);
            let gpu = scenario.gpus.first().unwrap();
            let mut sum = 0.0;
            shares(&scenario, gpu, 1.0, &mut |_, load| sum += load.sm);
            prop_assert!(sum <= 100.0 + 1e-9);
            prop_assert!((sum - total(&scenario, gpu, 1.0).sm).abs() < 1e-9);
        }
    }
}
