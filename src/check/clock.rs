//! The clocks: that of the wall, the monotonic one, and that of the driver's time stamps.

use k8s_openapi::jiff::Timestamp;

use super::{Finding, Topic, some_of};
use crate::model::{Discard, Moment};
use crate::policy;
use crate::snapshot::GpuHealth;

/// The clock of the wall.
const WALL: &str = "CLOCK_REALTIME";

/// Looks at two moments, one before and one after the driver was read, and at what GPUs stamped.
#[must_use]
pub fn look(began: Moment, ended: Moment, gpus: &[GpuHealth]) -> Vec<Finding> {
    vec![wall(ended), steady(began, ended), stamps(gpus)]
}

fn wall(now: Moment) -> Finding {
    if now.wall_us < policy::WALL_MIN_US {
        let said = format!("{} s since 1970, which has long been over", now.wall_us / 1_000_000);
        return Finding::failure(Topic::Clock, WALL, said)
            .mended_by("set the node's clock, and keep it set (chrony, systemd-timesyncd)");
    }
    let seconds = i64::try_from(now.wall_us / 1_000_000).unwrap_or(i64::MAX);
    // Of a clock that is set beyond the year 9999, the seconds have to do.
    let date = Timestamp::from_second(seconds).map(|date| date.to_string());
    Finding::ok(Topic::Clock, WALL, format!("it says {}", date.unwrap_or(seconds.to_string())))
}

fn steady(began: Moment, ended: Moment) -> Finding {
    let subject = "CLOCK_REALTIME against CLOCK_MONOTONIC";
    let micros = |moment: Moment| i128::try_from(moment.mono.as_micros()).unwrap_or(i128::MAX);
    let mono = micros(ended) - micros(began);
    let wall = i128::from(ended.wall_us) - i128::from(began.wall_us);
    let apart = (wall - mono).unsigned_abs();
    if apart <= policy::WALL_TOLERANCE.as_micros() {
        return Finding::ok(Topic::Clock, subject, "they pass alike");
    }
    let way = if wall > mono { "forward" } else { "back" };
    let said = format!("it was set {way} by {} ms while it was looked at", apart / 1000);
    Finding::warning(Topic::Clock, subject, said).mended_by(
        "have the clock slewed, not stepped: utilization of processes is read by its time stamps",
    )
}

/// Time stamps that cannot be true. The driver stamps by the same clock, so there are none.
fn stamps(gpus: &[GpuHealth]) -> Finding {
    let subject = "nvmlDeviceGetProcessUtilization";
    let is_stamp = |why: Discard| matches!(why, Discard::FutureStamp | Discard::OldStamp);
    let odd = |gpu: &&GpuHealth| gpu.discards.iter().any(|(why, n)| is_stamp(why) && n > 0);
    let odd: Vec<String> =
        gpus.iter().filter(odd).map(|gpu| format!("GPU {}", gpu.gpu.index)).collect();
    if gpus.is_empty() {
        return Finding::skipped(Topic::Clock, subject, "no GPU has answered");
    }
    if odd.is_empty() {
        return Finding::ok(Topic::Clock, subject, "no time stamp is before or after its time");
    }
    let said = format!(
        "rows stamped before or after their time, which are not believed: {}",
        some_of(&odd)
    );
    Finding::warning(Topic::Clock, subject, said)
        .mended_by("if the node's clock was not set just now, the driver is at fault: upgrade it")
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use std::time::Duration;

    const NOON: u64 = policy::WALL_MIN_US + 1_000_000_000;

    fn at(seconds: u64, wall_us: u64) -> Moment {
        Moment { mono: Duration::from_secs(seconds), wall_us }
    }

    #[test]
    fn a_clock_of_1970_fails() {
        assert_eq!(wall(at(1, NOON)).verdict, Verdict::Ok);
        let said = |wall_us| wall(at(1, wall_us)).said;
        assert_eq!(said(1_796_083_200_000_000), "it says 2026-12-01T00:00:00Z");
        assert_eq!(said(u64::MAX), "it says 18446744073709");
        let finding = wall(at(1, 5_000_000));
        assert_eq!(finding.verdict, Verdict::Failure);
        assert!(finding.said.starts_with("5 s since 1970"));
    }

    #[test]
    fn a_clock_that_is_set_meanwhile_is_told() {
        let judged = |wall| {
            let finding = steady(at(1, NOON), at(3, wall));
            (finding.verdict, finding.said)
        };
        assert_eq!(judged(NOON + 2_000_000).0, Verdict::Ok);
        let (verdict, said) = judged(NOON + 9_000_000);
        assert_eq!(verdict, Verdict::Warning);
        assert_eq!(said, "it was set forward by 7000 ms while it was looked at");
        assert!(judged(NOON).1.contains("back by 2000 ms"));
    }

    #[test]
    fn without_gpus_nothing_is_stamped() {
        assert_eq!(stamps(&[]).verdict, Verdict::Skipped);
    }
}
