//! Error of the per-process utilization, by load, interval and period of the driver's samples, over all phases.
//!
//! Three estimators read the same driver, a model in virtual time:
//! - `tiled`: windows that end at the newest sample, as in the exporter;
//! - `difference`: two requests per read, a second apart; their difference has no overlap;
//! - `overlap`: one request that begins a second before the last read.
//!
//! `cargo bench --bench utilization` prints a table: the mean error in ten minutes, smallest and largest of all
//! phases, the largest error in a minute of which every window has a value, in percentage points, and the largest
//! number of windows without one in ten minutes, in percent. The driver rounds means down, which is an error of up to
//! -1.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]

#[path = "../../tests/utilization/driver.rs"]
mod driver;

use std::time::Duration;

use nvml_exporter::model::Discards;
use nvml_exporter::policy::ring_reads;
use nvml_exporter::sample::gpu_utilization::GpuUtilizationSampler;
use nvml_exporter::sample::process_utilization::UtilizationCursor;
use nvml_exporter::sample::utilization_source::UtilizationSource;

use self::driver::{Driver, Load, PID, SECOND, Samples, seconds};

const PHASES: u32 = 12;
const MINUTES: usize = 10;

/// Percent and length of the windows of one interval.
trait Estimator: Default {
    fn read(&mut self, driver: &mut Driver);
    /// Percent and covered seconds since the last call.
    fn finish(&mut self) -> Option<(f64, f64)>;
}

#[derive(Default)]
struct Tiled {
    cursor: UtilizationCursor,
    sampler: GpuUtilizationSampler,
}

impl Estimator for Tiled {
    fn read(&mut self, driver: &mut Driver) {
        self.cursor.read(driver, &mut self.sampler, &mut Discards::default());
    }

    fn finish(&mut self) -> Option<(f64, f64)> {
        let window = self.cursor.finish_window().ok()?;
        let span = window.summary(|_| true).ok()?.span.as_secs_f64();
        Some((window.utilization(PID).ok()?.sm, span))
    }
}

/// Percent × seconds since a time, up to now.
fn since(driver: &mut Driver, from_us: u64) -> f64 {
    let rows = driver.rows(from_us).unwrap();
    let span = seconds(driver.now().wall_us - from_us);
    rows.first().map_or(0.0, |row| f64::from(row.percent[0]) * span)
}

#[derive(Default)]
struct Difference {
    from_us: Option<u64>,
    sum: f64,
    span: f64,
}

impl Estimator for Difference {
    fn read(&mut self, driver: &mut Driver) {
        let to_us = driver.now().wall_us - SECOND;
        if let Some(from_us) = self.from_us.replace(to_us) {
            self.sum += since(driver, from_us) - since(driver, to_us);
            self.span += seconds(to_us - from_us);
        }
    }

    fn finish(&mut self) -> Option<(f64, f64)> {
        let (sum, span) = (std::mem::take(&mut self.sum), std::mem::take(&mut self.span));
        (span > 0.0).then(|| ((sum / span).clamp(0.0, 100.0), span))
    }
}

#[derive(Default)]
struct Overlap {
    last_us: Option<u64>,
    sum: f64,
    span: f64,
}

impl Estimator for Overlap {
    fn read(&mut self, driver: &mut Driver) {
        let now_us = driver.now().wall_us;
        if let Some(last_us) = self.last_us.replace(now_us) {
            let rows = driver.rows(last_us - SECOND).unwrap();
            let span = seconds(now_us - last_us);
            self.sum += rows.first().map_or(0.0, |row| f64::from(row.percent[0]) * span);
            self.span += span;
        }
    }

    fn finish(&mut self) -> Option<(f64, f64)> {
        let (sum, span) = (std::mem::take(&mut self.sum), std::mem::take(&mut self.span));
        (span > 0.0).then(|| (sum / span, span))
    }
}

/// Errors over all phases, in percentage points.
#[derive(Clone, Copy)]
struct Errors {
    /// Smallest and largest mean error in ten minutes.
    mean: (f64, f64),
    /// Largest error in a minute of which every window has a value.
    minute: f64,
    /// Largest part of the windows that have no value, in percent.
    absent: f64,
}

fn errors<E: Estimator>(driver: &Driver, interval_us: u64, period: f64) -> Errors {
    let mut found = Errors { mean: (f64::INFINITY, f64::NEG_INFINITY), minute: 0.0, absent: 0.0 };
    for phase in 0..PHASES {
        let phase = period * f64::from(phase) / f64::from(PHASES);
        let (mean, minute, absent) = run::<E>(Driver { phase, ..driver.clone() }, interval_us);
        found.mean = (found.mean.0.min(mean), found.mean.1.max(mean));
        found.minute = found.minute.max(minute);
        found.absent = found.absent.max(absent);
    }
    found
}

/// Mean error in ten minutes (not a number without a value), the largest error in one of them, and the percentage
/// of windows without a value.
fn run<E: Estimator>(mut driver: Driver, interval_us: u64) -> (f64, f64, f64) {
    let mut estimator = E::default();
    let mut cycle = |driver: &mut Driver| {
        let reads = u64::from(ring_reads(Duration::from_micros(interval_us)));
        let started = driver.now_us;
        for read in 1..=reads {
            driver.now_us = started + interval_us * read / reads;
            estimator.read(driver);
        }
        estimator.finish()
    };
    cycle(&mut driver);
    cycle(&mut driver);
    let begin = (driver.now_us, driver.done());
    let (mut sum, mut covered, mut worst) = (0.0, 0.0, 0.0_f64);
    let (mut published, mut all) = (0, 0);
    for _ in 0..MINUTES {
        let minute = (driver.now_us, driver.done());
        let count = usize::try_from(60 * SECOND / interval_us).unwrap();
        let windows: Vec<(f64, f64)> = (0..count).filter_map(|_| cycle(&mut driver)).collect();
        let values = windows.iter().map(|(value, _)| value).sum::<f64>();
        let mean = values / f64::from(u32::try_from(windows.len()).unwrap());
        (published, all) = (published + windows.len(), all + count);
        if windows.len() == count {
            worst = worst.max((mean - truth(&driver, minute)).abs());
        }
        sum += windows.iter().map(|(value, span)| value * span).sum::<f64>();
        covered += windows.iter().map(|(_, span)| span).sum::<f64>();
    }
    let absent = f64::from(u32::try_from(all - published).unwrap());
    let absent = 100.0 * absent / f64::from(u32::try_from(all).unwrap());
    (sum / covered - truth(&driver, begin), worst, absent)
}

/// Mean of the load since a time and its integral then.
fn truth(driver: &Driver, (from_us, done): (u64, f64)) -> f64 {
    (driver.done() - done) / seconds(driver.now_us - from_us)
}

fn main() {
    let drivers = [
        ("1/6 s", SECOND / 6, 0, Samples::Supported),
        ("1/6 s, delivered each s", SECOND / 6, SECOND, Samples::Supported),
        ("1 s", SECOND, 0, Samples::Supported),
        ("1/6 s, no GPU samples", SECOND / 6, 0, Samples::Unsupported),
        ("1 s, no GPU samples", SECOND, 0, Samples::Unsupported),
        ("1/6 s, GPU samples 3 s ahead", SECOND / 6, 0, Samples::WallClock),
    ];
    println!("| load | driver | interval | tiled | | | difference | | | overlap | | |");
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for (shape, period, load) in loads() {
        for (name, period_us, delivery_us, samples) in drivers {
            for interval in [1, 5, 15, 30, 60] {
                let mut driver = Driver { period_us, delivery_us, samples, ..Driver::new(load) };
                if samples == Samples::WallClock {
                    driver.offsets = vec![(0, -3_000_000)];
                }
                let cells = [
                    errors::<Tiled>(&driver, interval * SECOND, period),
                    errors::<Difference>(&driver, interval * SECOND, period),
                    errors::<Overlap>(&driver, interval * SECOND, period),
                ];
                let cell = |errors: Errors| {
                    let Errors { mean: (low, high), minute, absent } = errors;
                    format!("{low:+.1} … {high:+.1} | {minute:.1} | {absent:.0}")
                };
                let cells: Vec<String> = cells.into_iter().map(cell).collect();
                println!("| {shape} {period} s | {name} | {interval} s | {} |", cells.join(" | "));
            }
        }
    }
}

fn loads() -> impl Iterator<Item = (&'static str, f64, Load)> {
    let steady = ("constant", 1.0, Load::Constant(60.5));
    let moving = [0.3, 1.0, 5.0, 7.0, 30.0].into_iter().flat_map(|period| {
        [
            ("square", period, Load::Square { period, duty: 0.5 }),
            ("burst", period, Load::Square { period, duty: 0.1 }),
            ("saw", period, Load::Saw { period }),
        ]
    });
    std::iter::once(steady).chain(moving)
}
