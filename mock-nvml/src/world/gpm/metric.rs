//! The metrics, and what they are made of.

use std::ffi::CStr;

use super::Span;
use crate::{
    code::{Answer, Code},
    models::Model,
    number::{float, floor_u64},
    scenario::{Gpu, Pipes, Scenario},
    world::{
        board::Seat,
        load::{self, Load, Part},
    },
};

/// Seconds between two looks at the loads, unless the time is long.
const STEP: f64 = 0.02;
/// So many looks are enough for any time.
const MOST_STEPS: u64 = 1_000;
/// Decoders of the boards that have such monitoring.
const DECODERS: u32 = 7;

/// The value of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Metric {
    /// In its unit.
    pub(crate) value: f64,
}

/// What a GPU or a GPU instance did, as a mean over time; the loads are in percent of its own engines.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    model: &'static Model,
    /// Links that are up, by number.
    links: Vec<bool>,
    /// Whether it is that of a GPU instance.
    of_instance: bool,
    load: Load,
    /// In percent of all time, not of the SM's.
    pipes: Pipes,
}

/// The mean of what was between two samples. Between two of the same instant it is not a number.
pub(super) fn mean(span: &Span) -> Answer<Activity> {
    let gpu = span.scenario.gpus.get(span.held.gpu).ok_or(Code::GPU_IS_LOST)?;
    let seat = Seat::of(gpu, span.held.part, span.to.world).ok_or(Code::INVALID_ARGUMENT)?;
    let instance = seat.gpu_instance();
    let time = span.to.world - span.from.world;
    // A held world has had its present state for ever.
    let steps = floor_u64((time / STEP).ceil()).clamp(1, MOST_STEPS);
    let mut sum = (Load::default(), NOTHING);
    for step in 0..steps {
        let at = span.from.world + time * (float(step) + 0.5) / float(steps);
        add(&mut sum, &span.scenario, gpu, instance, at);
    }
    let elapsed = span.to.real > span.from.real;
    let share = if elapsed { 1.0 / float(steps) } else { f64::NAN };
    let count = gpu.model.nvlinks.map_or(0, |links| links.count);
    let down = &gpu.hardware.nvlink.down;
    let traffic = sum.0.traffic.over(share).carried(gpu.model);
    Ok(Activity {
        model: gpu.model,
        links: (0..count).map(|link| !down.contains(&link)).collect(),
        of_instance: instance.is_some(),
        load: Load { traffic, ..sum.0.times(share) },
        pipes: scaled(sum.1, share),
    })
}

const NOTHING: Pipes =
    Pipes { occupancy: 0.0, tensor: 0.0, fp64: 0.0, fp32: 0.0, fp16: 0.0, integer: 0.0 };

/// Adds what is at one moment.
fn add(sum: &mut (Load, Pipes), scenario: &Scenario, gpu: &Gpu, instance: Part, time: f64) {
    let parts: Vec<Part> = match instance {
        Some(_) => vec![instance],
        None => load::parts(gpu, time).collect(),
    };
    for part in parts {
        load::within(scenario, gpu, part, time, &mut |process, load| {
            let load = if instance.is_some() { load } else { load.of_gpu(part) };
            let pipes = scaled(process.pipes, load.sm);
            *sum = (sum.0 + load, plus(sum.1, pipes));
        });
    }
}

fn scaled(pipes: Pipes, by: f64) -> Pipes {
    Pipes {
        occupancy: pipes.occupancy * by,
        tensor: pipes.tensor * by,
        fp64: pipes.fp64 * by,
        fp32: pipes.fp32 * by,
        fp16: pipes.fp16 * by,
        integer: pipes.integer * by,
    }
}

fn plus(a: Pipes, b: Pipes) -> Pipes {
    Pipes {
        occupancy: a.occupancy + b.occupancy,
        tensor: a.tensor + b.tensor,
        fp64: a.fp64 + b.fp64,
        fp32: a.fp32 + b.fp32,
        fp16: a.fp16 + b.fp16,
        integer: a.integer + b.integer,
    }
}

impl Activity {
    /// The metric of an id (`nvmlGpmMetricId_t`).
    pub(super) fn metric(&self, id: u32) -> Answer<Metric> {
        let (load, pipes) = (self.load, self.pipes);
        let value = match id {
            1 | 2 => load.sm,
            3 => pipes.occupancy,
            4 => pipes.integer,
            // All that the tensor cores do here is of half precision. Nothing of it is still not a
            // number where there was no time.
            5 | 7 => pipes.tensor,
            6 | 9 => pipes.tensor * 0.0,
            10 => load.mem,
            11 => pipes.fp64,
            12 => pipes.fp32,
            13 => pipes.fp16,
            0 | 210.. => return Err(Code::INVALID_ARGUMENT),
            // What the parts of a GPU share is not told of one of them.
            _ if self.of_instance => return Err(Code::NOT_SUPPORTED),
            20 => load.traffic.pcie_tx,
            21 => load.traffic.pcie_rx,
            30..=37 if id - 30 < DECODERS => load.dec,
            // Nothing in a scenario decodes pictures or looks at how they flow.
            40..=47 | 50 => load.dec * 0.0,
            60 | 61 if self.model.nvlinks.is_some() => load.traffic.nvlink,
            // Each link has two: received, and sent.
            62..=97 => self.link((id - 62) / 2)?,
            _ => return Err(Code::NOT_SUPPORTED),
        };
        Ok(Metric { value })
    }

    /// What one NVLink carried in each direction: those that are up share the traffic.
    fn link(&self, link: u32) -> Answer<f64> {
        let at = usize::try_from(link).unwrap_or(usize::MAX);
        let up = *self.links.get(at).ok_or(Code::NOT_SUPPORTED)?;
        let all = self.links.iter().filter(|up| **up).count();
        let share = float(u64::try_from(all).unwrap_or(u64::MAX).max(1));
        Ok(if up { self.load.traffic.nvlink / share } else { self.load.traffic.nvlink * 0.0 })
    }
}

/// The name and the unit of a metric as NVML tells them.
pub(crate) fn text(id: u32) -> (&'static CStr, &'static CStr) {
    match id {
        1 => (c"Graphics Util", c"%"),
        2 => (c"SM Util", c"%"),
        3 => (c"SM Occupancy", c"%"),
        4 => (c"Integer Util", c"%"),
        5 => (c"Any Tensor Util", c"%"),
        6 => (c"DFMA Tensor Util", c"%"),
        7 => (c"HMMA Tensor Util", c"%"),
        9 => (c"IMMA Tensor Util", c"%"),
        10 => (c"DRAM BW Util", c"%"),
        11 => (c"FP64 Util", c"%"),
        12 => (c"FP32 Util", c"%"),
        13 => (c"FP16 Util", c"%"),
        20 => (c"PCIe TX", c"MiB/s"),
        21 => (c"PCIe RX", c"MiB/s"),
        30..=37 => (c"NVDEC Util", c"%"),
        40..=47 => (c"NVJPG Util", c"%"),
        50 => (c"NVOFA Util", c"%"),
        60 => (c"NVLink Total RX", c"MiB/s"),
        61 => (c"NVLink Total TX", c"MiB/s"),
        62..=97 if id.is_multiple_of(2) => (c"NVLink RX", c"MiB/s"),
        62..=97 => (c"NVLink TX", c"MiB/s"),
        _ => (c"", c""),
    }
}
