//! Times of flags that have milliseconds in dcgm-exporter.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::web_config::parse_duration;

/// Parses a number of milliseconds, or a duration with a unit.
pub(super) fn milliseconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().map(Duration::from_millis).ok();
    number.or_else(|| parse_duration(text)).ok_or_else(|| {
        "give a number of milliseconds, or a duration such as 5s, 1m30s or 500ms".to_owned()
    })
}

/// The time of a flag, moved into `range`: no time of a manifest prevents the start. A change is a remark.
pub(super) fn within(
    range: RangeInclusive<Duration>,
    time: Duration,
    flag: &str,
    remarks: &mut Vec<String>,
) -> Duration {
    let used = time.clamp(*range.start(), *range.end());
    if used != time {
        let (moved, limit) =
            if used > time { ("raised", "minimum") } else { ("lowered", "maximum") };
        let (time, used) = (time.as_millis(), used.as_millis());
        remarks.push(format!("{flag} {time}: {moved} to {used} ms, the {limit}"));
    }
    used
}
