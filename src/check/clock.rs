//! The clocks: the wall clock, the monotonic clock, and the driver's timestamps.

use k8s_openapi::jiff::Timestamp;

use super::{Finding, Topic, join_truncated};
use crate::model::{Discard, Moment};
use crate::policy;
use crate::snapshot::GpuHealth;

/// The wall clock.
const WALL: &str = "CLOCK_REALTIME";

/// Findings about two moments, one before and one after the driver was read, and about the timestamps of
/// the GPUs' process utilization samples.
#[must_use]
pub fn findings(began: Moment, ended: Moment, gpus: &[GpuHealth]) -> Vec<Finding> {
    vec![wall(ended), clock_step(began, ended), timestamps(gpus)]
}

fn wall(now: Moment) -> Finding {
    if now.wall_us < policy::WALL_MIN_US {
        let message =
            format!("{} s since 1970: the node's clock is not set", now.wall_us / 1_000_000);
        return Finding::failure(Topic::Clock, WALL, message)
            .with_remedy("set the node's clock and synchronize it (chrony, systemd-timesyncd)");
    }
    let seconds = i64::try_from(now.wall_us / 1_000_000).unwrap_or(i64::MAX);
    // Beyond the year 9999 there is no calendar date; the seconds are shown instead.
    let date = Timestamp::from_second(seconds).map(|date| date.to_string());
    Finding::ok(Topic::Clock, WALL, date.unwrap_or(seconds.to_string()))
}

fn clock_step(began: Moment, ended: Moment) -> Finding {
    let subject = "CLOCK_REALTIME against CLOCK_MONOTONIC";
    let micros = |moment: Moment| i128::try_from(moment.mono.as_micros()).unwrap_or(i128::MAX);
    let mono = micros(ended) - micros(began);
    let wall = i128::from(ended.wall_us) - i128::from(began.wall_us);
    let step = (wall - mono).unsigned_abs();
    if step <= policy::WALL_CLOCK_TOLERANCE.as_micros() {
        return Finding::ok(Topic::Clock, subject, "in step");
    }
    let direction = if wall > mono { "forward" } else { "back" };
    let message = format!("stepped {direction} by {} ms during the check", step / 1000);
    Finding::warning(Topic::Clock, subject, message).with_remedy(
        "slew the clock instead of stepping it: process utilization is read by wall clock timestamps",
    )
}

/// Implausible timestamps. The driver uses the same clock, so a healthy one produces none.
fn timestamps(gpus: &[GpuHealth]) -> Finding {
    let subject = "nvmlDeviceGetProcessUtilization";
    let is_timestamp = |why: Discard| matches!(why, Discard::FutureStamp | Discard::OldStamp);
    let affected =
        |gpu: &&GpuHealth| gpu.discards.iter().any(|(why, n)| is_timestamp(why) && n > 0);
    let affected: Vec<String> =
        gpus.iter().filter(affected).map(|gpu| format!("GPU {}", gpu.gpu.index)).collect();
    if gpus.is_empty() {
        return Finding::skipped(Topic::Clock, subject, "no GPU was read");
    }
    if affected.is_empty() {
        return Finding::ok(Topic::Clock, subject, "no implausible timestamps");
    }
    let message = format!(
        "rows with timestamps in the future or too far in the past were dropped: {}",
        join_truncated(&affected)
    );
    Finding::warning(Topic::Clock, subject, message).with_remedy(
        "if the node's clock was not set just now, this is a defect of the driver: upgrade it",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use std::time::Duration;

    const NOON: u64 = policy::WALL_MIN_US + 1_000_000_000;

    fn at(seconds: u64, wall_us: u64) -> Moment {
        Moment { mono: Duration::from_secs(seconds), wall_us }
    }

    #[test]
    fn clock_that_is_not_set_fails() {
        assert_eq!(wall(at(1, NOON)).verdict, Outcome::Ok);
        let message = |wall_us| wall(at(1, wall_us)).message;
        assert_eq!(message(1_796_083_200_000_000), "2026-12-01T00:00:00Z");
        assert_eq!(message(u64::MAX), "18446744073709");
        let finding = wall(at(1, 5_000_000));
        assert_eq!(finding.verdict, Outcome::Failure);
        assert!(finding.message.starts_with("5 s since 1970"));
    }

    #[test]
    fn clock_step_during_the_check_is_a_warning() {
        let result = |wall| {
            let finding = clock_step(at(1, NOON), at(3, wall));
            (finding.verdict, finding.message)
        };
        assert_eq!(result(NOON + 2_000_000).0, Outcome::Ok);
        let (verdict, message) = result(NOON + 9_000_000);
        assert_eq!(verdict, Outcome::Warning);
        assert_eq!(message, "stepped forward by 7000 ms during the check");
        assert!(result(NOON).1.contains("back by 2000 ms"));
    }

    #[test]
    fn timestamps_are_skipped_without_gpus() {
        assert_eq!(timestamps(&[]).verdict, Outcome::Skipped);
    }
}
