//! GPM metrics, computed from the loads between two samples.

use std::ffi::CStr;

use crate::{
    models::Model,
    numeric::{float, floor_u64},
    return_code::{NvmlResult, ReturnCode},
    scenario::{Gpu, Scenario, pipes::Pipes},
    world::{
        board::view::BoardView,
        gpm::SampleInterval,
        load::{self, EngineSet, Load},
    },
};

/// Seconds between two evaluations of the loads, unless the interval is long.
const STEP: f64 = 0.02;
/// Maximum number of evaluations for an interval.
const MAX_STEPS: u64 = 1_000;
/// `NVML_GPM_METRIC_MAX` of CUDA 13.5.
const METRICS: u32 = 477;
/// Number of decoders on boards that support GPM.
const DECODERS: u32 = 7;

/// The value of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Metric {
    /// In the unit of [`text`].
    pub(crate) value: f64,
}

/// Mean activity of a GPU or a GPU instance; loads are in percent of its own engines.
#[derive(Clone, Debug)]
pub(crate) struct Activity {
    model: &'static Model,
    /// Whether each link is up, by number.
    links: Vec<bool>,
    /// Whether it is the activity of a GPU instance.
    of_instance: bool,
    load: Load,
    /// In percent of the interval, not of the SM's busy time.
    pipes: Pipes,
}

/// The mean activity between two samples; NaN if they were taken at the same instant.
pub(crate) fn mean(span: &SampleInterval) -> NvmlResult<Activity> {
    let gpu = span.scenario.gpus.get(span.entry.gpu).ok_or(ReturnCode::GPU_IS_LOST)?;
    let seat =
        BoardView::of(gpu, span.entry.target, span.to.world).ok_or(ReturnCode::INVALID_ARGUMENT)?;
    let instance = seat.gpu_instance();
    let time = span.to.world - span.from.world;
    // With fixed world time the state is constant: one evaluation.
    let steps = floor_u64((time / STEP).ceil()).clamp(1, MAX_STEPS);
    let mut sum = (Load::default(), ZERO_PIPES);
    for step in 0..steps {
        let at = span.from.world + time * (float(step) + 0.5) / float(steps);
        add(&mut sum, &span.scenario, gpu, instance, at);
    }
    let elapsed = span.to.real > span.from.real;
    let share = if elapsed { 1.0 / float(steps) } else { f64::NAN };
    let faults = &gpu.hardware.nvlink;
    let count = gpu.model.nvlinks.map_or(0, |links| faults.count.unwrap_or(links.count));
    let traffic = sum.0.traffic.in_seconds(share).limited_to(gpu.model);
    Ok(Activity {
        model: gpu.model,
        links: (0..count).map(|link| !faults.down.contains(&link)).collect(),
        of_instance: instance.is_some(),
        load: Load { traffic, ..sum.0.scaled(share) },
        pipes: scaled(sum.1, share),
    })
}

const ZERO_PIPES: Pipes =
    Pipes { occupancy: 0.0, tensor: 0.0, fp64: 0.0, fp32: 0.0, fp16: 0.0, integer: 0.0 };

/// Adds the activity at one time.
fn add(sum: &mut (Load, Pipes), scenario: &Scenario, gpu: &Gpu, instance: EngineSet, time: f64) {
    let parts: Vec<EngineSet> = match instance {
        Some(_) => vec![instance],
        None => load::engine_sets(gpu, time).collect(),
    };
    for part in parts {
        load::for_each_load(scenario, gpu, part, time, &mut |process, load| {
            let load = if instance.is_some() { load } else { load.in_percent_of_gpu(part) };
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
    pub(crate) fn metric(&self, id: u32) -> NvmlResult<Metric> {
        let (load, pipes) = (self.load, self.pipes);
        let value = match id {
            1 | 2 => load.sm,
            3 => pipes.occupancy,
            4 => pipes.integer,
            // All tensor activity is HMMA. The others are 0, but NaN for an empty interval.
            5 | 7 => pipes.tensor,
            6 | 9 => pipes.tensor * 0.0,
            10 => load.mem,
            11 => pipes.fp64,
            12 => pipes.fp32,
            13 => pipes.fp16,
            0 | METRICS.. => return Err(ReturnCode::INVALID_ARGUMENT),
            // Engines shared by GPU instances have no metrics per instance.
            _ if self.of_instance => return Err(ReturnCode::NOT_SUPPORTED),
            20 => load.traffic.pcie_tx,
            21 => load.traffic.pcie_rx,
            30..=37 if id - 30 < DECODERS => load.dec,
            // Scenarios have no JPEG and optical flow activity in GPM.
            40..=47 | 50 => load.dec * 0.0,
            60 | 61 if self.model.nvlinks.is_some() => load.traffic.nvlink,
            _ => self.link(link_of(id).ok_or(ReturnCode::NOT_SUPPORTED)?)?,
        };
        Ok(Metric { value })
    }

    /// Throughput of one NVLink in each direction: the links that are up share the traffic.
    fn link(&self, link: u32) -> NvmlResult<f64> {
        let at = usize::try_from(link).unwrap_or(usize::MAX);
        let up = *self.links.get(at).ok_or(ReturnCode::NOT_SUPPORTED)?;
        let all = self.links.iter().filter(|up| **up).count();
        let share = float(u64::try_from(all).unwrap_or(u64::MAX).max(1));
        Ok(if up { self.load.traffic.nvlink / share } else { self.load.traffic.nvlink * 0.0 })
    }
}

/// The link of a metric, by the header of CUDA 13.5. Each link has two: received and sent.
fn link_of(id: u32) -> Option<u32> {
    match id {
        62..=97 => Some((id - 62) / 2),
        212..=247 => Some((id - 212) / 2 + 18),
        405..=476 => Some((id - 405) / 2 + 36),
        _ => None,
    }
}

/// Name and unit of a metric (`nvmlGpmMetric_t.metricInfo`).
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
        62..=97 | 212..=247 if id.is_multiple_of(2) => (c"NVLink RX", c"MiB/s"),
        405..=476 if !id.is_multiple_of(2) => (c"NVLink RX", c"MiB/s"),
        62..=97 | 212..=247 | 405..=476 => (c"NVLink TX", c"MiB/s"),
        _ => (c"", c""),
    }
}
