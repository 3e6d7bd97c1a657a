//! Per-process utilization on a model of the driver, in virtual time: the value is the mean of its window,
//! whatever the clocks, the phase of the load and the interval are.
//!
//! `cargo bench --bench utilization` prints the errors of all loads, intervals and phases.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod driver;

use nvml_exporter::model::{Discards, Missing};
use nvml_exporter::policy::ring_reads;
use nvml_exporter::sample::gpu_utilization::GpuUtilizationSampler;
use nvml_exporter::sample::process_utilization::UtilizationCursor;

use self::driver::{Driver, Load, PID, SECOND, Samples, seconds};

/// A cursor that reads a driver.
struct Reader {
    driver: Driver,
    interval_us: u64,
    cursor: UtilizationCursor,
    sampler: GpuUtilizationSampler,
    discards: Discards,
}

/// The published value, and the new time that it covers, in seconds.
type Window = Result<(f64, f64), Missing>;

impl Reader {
    fn new(driver: Driver, interval_us: u64) -> Self {
        let (cursor, sampler) = (UtilizationCursor::default(), GpuUtilizationSampler::default());
        Self { driver, interval_us, cursor, sampler, discards: Discards::default() }
    }

    /// One interval, with the reads that the pipeline makes in it.
    fn cycle(&mut self) -> Window {
        let reads = u64::from(ring_reads(std::time::Duration::from_micros(self.interval_us)));
        let started = self.driver.now_us;
        for read in 1..=reads {
            let at = started + self.interval_us * read / reads;
            self.driver.now_us = self.driver.now_us.max(at);
            self.cursor.read(&mut self.driver, &mut self.sampler, &mut self.discards);
        }
        let window = self.cursor.finish_window()?;
        let span = window.summary(|_| true)?.span.as_secs_f64();
        Ok((window.utilization(PID)?.sm, span))
    }

    fn cycles(&mut self, count: usize) -> Vec<Window> {
        (0..count).map(|_| self.cycle()).collect()
    }
}

fn is_near(window: Window, percent: f64) -> bool {
    window.is_ok_and(|(value, _)| (value - percent).abs() <= 1.0)
}

/// The first window may be absent, and nothing is ever reported idle.
fn assert_never_idle(windows: &[Window], driver: &Driver) {
    let idle = windows.iter().filter(|window| window.is_ok_and(|(value, _)| value < 1.0));
    assert_eq!(idle.count(), 0, "{windows:?}\n{driver:?}");
}

#[test]
fn means_are_unbiased_at_any_phase() {
    for interval_us in [SECOND, 5 * SECOND, 15 * SECOND, 30 * SECOND, 60 * SECOND] {
        for (period_us, delivery_us) in [(SECOND / 6, 0), (SECOND / 6, SECOND), (SECOND, 0)] {
            for load in [
                Load::Square { period: 5.0, duty: 0.5 },
                Load::Square { period: 0.7, duty: 0.2 },
                Load::Saw { period: 30.0 },
            ] {
                for phase in 0..5 {
                    let phase = f64::from(phase) * 1.03;
                    let driver = Driver { phase, period_us, delivery_us, ..Driver::new(load) };
                    assert_unbiased(Reader::new(driver, interval_us));
                }
            }
        }
    }
}

/// Ten minutes within one percentage point and the truncation, each minute within three and the truncation.
fn assert_unbiased(mut reader: Reader) {
    let _first = reader.cycle();
    let (mut percent_seconds, mut covered) = (0.0, 0.0);
    let begin = (reader.driver.now_us, reader.driver.done());
    for _ in 0..10 {
        let (minute_begin, minute_done) = (reader.driver.now_us, reader.driver.done());
        let count = 60 * SECOND / reader.interval_us;
        let windows = reader.cycles(usize::try_from(count).unwrap());
        let values: Vec<f64> = windows.iter().map(|window| window.unwrap().0).collect();
        let mean = values.iter().sum::<f64>() / f64::from(u32::try_from(count).unwrap());
        let passed = seconds(reader.driver.now_us - minute_begin);
        let error = mean - (reader.driver.done() - minute_done) / passed;
        assert!((-4.0..=3.0).contains(&error), "{error} in a minute\n{:?}", reader.driver);
        for (value, span) in windows.into_iter().map(Result::unwrap) {
            percent_seconds += value * span;
            covered += span;
        }
    }
    let passed = seconds(reader.driver.now_us - begin.0);
    let error = percent_seconds / covered - (reader.driver.done() - begin.1) / passed;
    assert!((-2.0..=1.0).contains(&error), "{error} in ten minutes\n{:?}", reader.driver);
    assert!((covered - passed).abs() <= 2.0, "{covered} s of {passed} s\n{:?}", reader.driver);
    assert_eq!(reader.discards, Discards::default());
}

#[test]
fn offset_of_the_driver_clock_does_not_matter() {
    for offset in [-8.0, -3.0, -1.0, 1.5, 3600.0] {
        for samples in [Samples::Supported, Samples::Unsupported, Samples::WallClock] {
            for interval_us in [SECOND, 5 * SECOND, 15 * SECOND] {
                let us = micros(offset);
                let driver =
                    Driver { offsets: vec![(0, us)], samples, ..Driver::new(Load::Constant(60.0)) };
                let mut reader = Reader::new(driver, interval_us);
                let windows = reader.cycles(12);
                assert_never_idle(&windows, &reader.driver);
                assert!(
                    windows[3..].iter().all(|window| is_near(*window, 60.0)),
                    "{windows:?}\n{:?}",
                    reader.driver
                );
                let learnt = reader.cursor.clock_offset().unwrap();
                assert!((offset - 2.0..=offset + 0.01).contains(&learnt), "{learnt} of {offset}");
            }
        }
    }
}

#[test]
fn idle_and_then_busy_without_a_known_clock_never_reads_idle_while_busy() {
    for offset in [-8.0, -3.0, 1.5] {
        for samples in [Samples::Supported, Samples::Unsupported, Samples::WallClock] {
            let mut driver = Driver::new(Load::Constant(0.0));
            (driver.offsets, driver.samples) = (vec![(0, micros(offset))], samples);
            let mut reader = Reader::new(driver, 5 * SECOND);
            let idle = reader.cycles(10);
            assert!(
                idle[2..].iter().all(|window| is_near(*window, 0.0)),
                "{idle:?}\n{:?}",
                reader.driver
            );
            reader.driver.load = Load::Constant(60.0);
            let busy = reader.cycles(10);
            assert_never_idle(&busy, &reader.driver);
            assert!(
                busy[3..].iter().all(|window| is_near(*window, 60.0)),
                "{busy:?}\n{:?}",
                reader.driver
            );
        }
    }
}

#[test]
fn step_of_the_driver_clock_during_a_late_answer_costs_at_most_two_windows() {
    for step in [-3600.0, -8.0, 8.0, 3600.0] {
        let driver = Driver { rows_late_us: 1_500_000, ..Driver::new(Load::Constant(60.0)) };
        let mut reader = Reader::new(driver, 5 * SECOND);
        reader.cycles(10);
        // The next call begins after 5 s, and ends after 6.5 s.
        reader.driver.offsets.push((reader.driver.now_us + 5_700_000, micros(step)));
        let windows = reader.cycles(8);
        let wrong = windows.iter().filter(|window| !is_near(**window, 60.0));
        assert!(wrong.count() <= 2, "{windows:?}\n{:?}", reader.driver);
        assert_never_idle(&windows, &reader.driver);
    }
}

#[test]
fn load_that_no_read_coincides_with_is_absent_and_not_idle() {
    // Busy for 3 of 30 s, in step with the reads.
    let load = Load::Square { period: 30.0, duty: 0.1 };
    let driver = Driver { samples: Samples::Unsupported, ..Driver::new(load) };
    let mut reader = Reader::new(driver, 5 * SECOND);
    reader.cycles(12);
    let windows = reader.cycles(120);
    assert!(windows.iter().all(Result::is_err), "{windows:?}");
    // Its end is seen.
    reader.driver.load = Load::Constant(0.0);
    let windows = reader.cycles(60);
    assert!(windows[48..].iter().all(|window| is_near(*window, 0.0)), "{windows:?}");
    // As soon as a read coincides with it, every window has a value.
    reader.driver.load = load;
    reader.driver.phase += 27.0;
    reader.cycles(12);
    let windows = reader.cycles(12);
    let sum: f64 = windows.iter().map(|window| window.unwrap().0).sum();
    assert!((sum / 12.0 - 10.0).abs() <= 1.0, "{windows:?}");
}

#[test]
fn samples_with_a_clock_of_their_own_give_the_mean_of_any_load() {
    for offset in [-8.0, -3.0, 3.0] {
        for interval_us in [SECOND, 5 * SECOND, 15 * SECOND] {
            for step in 0..6_u8 {
                let load = Load::Square { period: 30.0, duty: 0.1 };
                let mut driver = Driver { samples: Samples::WallClock, ..Driver::new(load) };
                (driver.offsets, driver.phase) = (vec![(0, micros(offset))], 5.0 * f64::from(step));
                let mut reader = Reader::new(driver, interval_us);
                // Two bursts show the difference of the clocks.
                reader.cycles(usize::try_from(90 * SECOND / interval_us).unwrap());
                let windows = reader.cycles(usize::try_from(60 * SECOND / interval_us).unwrap());
                let sum: f64 = windows.iter().map(|window| window.unwrap().0).sum();
                let mean = sum / f64::from(u32::try_from(windows.len()).unwrap());
                assert!((mean - 10.0).abs() <= 1.0, "{windows:?}\n{:?}", reader.driver);
            }
        }
    }
}

#[test]
fn step_of_a_clock_costs_at_most_one_window() {
    for step in [-3600.0, -8.0, -1.5, 1.5, 8.0, 3600.0] {
        for samples in [Samples::Supported, Samples::Unsupported] {
            for host in [false, true] {
                let driver = Driver { samples, ..Driver::new(Load::Constant(60.0)) };
                let mut reader = Reader::new(driver, 5 * SECOND);
                reader.cycles(10);
                reader.driver.now_us += 2_300_000;
                if host {
                    reader.driver.wall_step_us = micros(step);
                } else {
                    reader.driver.offsets.push((reader.driver.now_us, micros(step)));
                }
                let windows = reader.cycles(8);
                let wrong = windows.iter().filter(|window| !is_near(**window, 60.0));
                assert!(wrong.count() <= 1, "{windows:?}\n{:?}", reader.driver);
                assert_never_idle(&windows, &reader.driver);
            }
        }
    }
}

#[test]
fn late_answers_do_not_change_the_mean() {
    for (rows_late_us, samples_late_us) in [(1_500_000, 0), (0, 1_500_000)] {
        for phase in 0..5 {
            let load = Load::Square { period: 5.0, duty: 0.5 };
            let phase = f64::from(phase);
            let driver = Driver { phase, rows_late_us, samples_late_us, ..Driver::new(load) };
            let mut reader = Reader::new(driver, 5 * SECOND);
            reader.cycle().unwrap_err();
            let windows = reader.cycles(60);
            assert!(windows.iter().all(Result::is_ok), "{windows:?}\n{:?}", reader.driver);
            let sum: f64 = windows.iter().map(|window| window.unwrap().0).sum();
            assert!((sum / 60.0 - 50.0).abs() <= 2.0, "{windows:?}");
        }
    }
}

#[test]
fn what_was_not_seen_is_a_gap() {
    for (interval, hang) in [(5, 40), (15, 40), (60, 200), (5, 7)] {
        let mut reader = Reader::new(Driver::new(Load::Constant(60.0)), interval * SECOND);
        reader.cycles(4);
        // The driver does not answer for longer than the buffer lasts.
        reader.driver.now_us += hang * SECOND;
        let windows = reader.cycles(4);
        assert!(windows.iter().all(|window| is_near(*window, 60.0)), "{windows:?}");
        let covered = windows[0].unwrap().1;
        let seen = f64::from(u32::try_from(hang.min(12) + interval).unwrap());
        assert!(covered <= seen + 0.5, "{covered} s of {seen} s that were seen");
    }
}

#[test]
fn failed_reads_lose_nothing() {
    let mut reader = Reader::new(Driver::new(Load::Constant(60.0)), 5 * SECOND);
    reader.cycles(3);
    reader.driver.rows_fail = true;
    assert_eq!(reader.cycle(), Err(Missing::Failed(999)));
    reader.driver.rows_fail = false;
    let (value, span) = reader.cycle().unwrap();
    assert!((value - 60.0).abs() < 1e-9 && (9.5..=10.5).contains(&span), "{value} for {span} s");
}

#[test]
fn refused_rows_are_reported_and_never_idle() {
    for samples in [Samples::Supported, Samples::Unsupported] {
        let driver = Driver { refused: true, samples, ..Driver::new(Load::Constant(60.0)) };
        let mut reader = Reader::new(driver, 5 * SECOND);
        let windows = reader.cycles(6);
        assert!(windows.iter().all(Result::is_err), "{windows:?}");
        assert!(reader.cursor.refuses_all_rows(), "{:?}", reader.driver);
        reader.driver.refused = false;
        let windows = reader.cycles(4);
        assert!(is_near(windows[3], 60.0), "{windows:?}");
        assert!(!reader.cursor.refuses_all_rows());
    }
}

#[test]
fn driver_that_stops_sampling_while_idle_reads_idle() {
    let mut reader = Reader::new(Driver::new(Load::Constant(60.0)), 5 * SECOND);
    reader.cycles(5);
    reader.driver.load = Load::Constant(0.0);
    reader.cycles(3);
    reader.driver.stopped_us = Some(reader.driver.now_us);
    let windows = reader.cycles(10);
    assert!(windows[2..].iter().all(|window| is_near(*window, 0.0)), "{windows:?}");
    reader.driver.stopped_us = None;
    reader.driver.load = Load::Constant(60.0);
    let windows = reader.cycles(10);
    assert!(windows[3..].iter().all(|window| is_near(*window, 60.0)), "{windows:?}");
}

#[test]
fn window_without_a_new_sample_is_the_last_one_and_counts_once() {
    let driver =
        Driver { delivery_us: SECOND, ..Driver::new(Load::Square { period: 5.0, duty: 0.5 }) };
    let mut reader = Reader::new(driver, 200_000);
    reader.cycles(10);
    let windows = reader.cycles(100);
    let spans: f64 = windows.iter().map(|window| window.unwrap().1).sum();
    assert!((19.0..=21.0).contains(&spans), "{spans} of 20 s");
    let sum: f64 =
        windows.iter().map(|window| window.unwrap()).map(|(value, span)| value * span).sum();
    assert!((sum / spans - 50.0).abs() < 5.0, "{sum}");
}

#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
fn micros(seconds: f64) -> i64 {
    (seconds * 1e6) as i64
}
