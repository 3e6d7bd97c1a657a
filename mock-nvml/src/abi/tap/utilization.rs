//! The buffers of utilization samples: what is recorded of them, and how it is played.
//!
//! Their rows have time stamps, and a caller requests those after a cursor. Recorded are the rows of one
//! request. Each request of the player's caller gets all of them, with stamps after its cursor: the state of
//! the node lasts.

/// Time between two samples, µs.
const PERIOD_US: u64 = 200_000;
/// Samples in the buffer.
const SAMPLES_MAX: u64 = 120;
/// Rows that are later than the newest sample by less than this are of that sample, µs.
const TOLERANCE_US: u64 = 1_000_000;

/// Layout of `nvmlSample_t`.
pub(super) const SAMPLE: &str = "QQ";

/// How a function returns utilization by process: the layout of a row, and the positions of PID and stamp.
pub(super) struct RowFormat {
    pub(super) layout: &'static str,
    pid: usize,
    stamp: usize,
}

/// `nvmlDeviceGetProcessUtilization`.
pub(super) const OLD_ROW: RowFormat = RowFormat { layout: "IQIIII", pid: 0, stamp: 1 };
/// `nvmlDeviceGetProcessesUtilizationInfo`.
pub(super) const NEW_ROW: RowFormat = RowFormat { layout: "QIIIIIII", pid: 1, stamp: 0 };

/// The percentages of the samples after the cursor, one per row, and the stamp of the newest sample.
pub(super) fn recorded_samples(rows: &[Vec<i64>], cursor_us: u64) -> (Vec<Vec<i64>>, Option<u64>) {
    let stamp = |row: &Vec<i64>| row.first().map(|stamp| stamp.cast_unsigned());
    // Clients request the sample of their cursor again.
    let is_new = |row: &&Vec<i64>| stamp(row).is_some_and(|stamp| stamp > cursor_us + 1);
    let percent = |row: &Vec<i64>| vec![row.get(1).copied().unwrap_or_default() & 0xFFFF_FFFF];
    let new: Vec<Vec<i64>> = rows.iter().filter(is_new).map(percent).collect();
    (new, rows.last().and_then(stamp))
}

/// The rows without stamps: PID and percentages; and the age in µs of a row that is not of the window between
/// the cursor and the newest sample.
pub(super) fn recorded_rows(
    rows: &[Vec<i64>],
    format: &RowFormat,
    cursor_us: u64,
    newest_us: u64,
) -> Vec<Vec<i64>> {
    let without_stamp = |row: &Vec<i64>| {
        let number = |at: usize| row.get(at).copied().unwrap_or_default();
        let stamp_us = number(format.stamp).cast_unsigned();
        let mut recorded = vec![number(format.pid)];
        let is_percent = |at: &usize| *at != format.stamp && *at != format.pid;
        recorded.extend((0..row.len()).filter(is_percent).map(number));
        if stamp_us <= cursor_us || stamp_us > newest_us.saturating_add(TOLERANCE_US) {
            recorded.push(newest_us.wrapping_sub(stamp_us).cast_signed());
        }
        recorded
    };
    rows.iter().map(without_stamp).collect()
}

/// Samples with the recorded percentages, again and again up to the time `now_us`; those after the cursor.
pub(super) fn played_samples(percents: &[i64], cursor_us: u64, now_us: u64) -> Vec<Vec<i64>> {
    let Some(count) = u64::try_from(percents.len()).ok().filter(|count| *count > 0) else {
        return Vec::new();
    };
    let from_us = cursor_us.max(now_us.saturating_sub(SAMPLES_MAX * PERIOD_US));
    let span_us = now_us.saturating_sub(from_us);
    let rounds = (span_us / PERIOD_US).div_ceil(count).clamp(1, (SAMPLES_MAX / count).max(1));
    let total = rounds * count;
    let stamp = |at: u64| from_us + span_us * (at + 1) / total;
    let rows = (0..total).zip(percents.iter().cycle());
    rows.map(|(at, percent)| vec![stamp(at).cast_signed(), *percent]).collect()
}

/// Stamp of the last busy sample, or of the last one.
pub(super) fn last_busy_us(samples: &[Vec<i64>]) -> Option<u64> {
    let is_busy = |row: &&Vec<i64>| row.get(1).is_some_and(|percent| *percent > 0);
    let row = samples.iter().rfind(is_busy).or(samples.last())?;
    row.first().map(|stamp| stamp.cast_unsigned())
}

/// The recorded rows with stamps: that of the last busy sample, or by their age; those after the cursor.
pub(super) fn played_rows(
    rows: &[Vec<i64>],
    format: &RowFormat,
    cursor_us: u64,
    busy_us: u64,
) -> Vec<Vec<i64>> {
    let width = format.layout.len();
    let stamped = |row: &Vec<i64>| {
        let (pid, rest) = row.split_first()?;
        let percents = rest.get(..rest.len().min(width - 2)).unwrap_or_default();
        let age_us = rest.get(width - 2).copied();
        let stamp_us = age_us.map_or(busy_us, |age| busy_us.wrapping_sub(age.cast_unsigned()));
        let stamp = stamp_us.cast_signed();
        let (first, second) = if format.pid == 0 { (*pid, stamp) } else { (stamp, *pid) };
        let row = [first, second].into_iter().chain(percents.iter().copied()).collect();
        (stamp_us > cursor_us || age_us.is_some()).then_some(row)
    };
    rows.iter().filter_map(stamped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_played_in_whole_rounds_after_the_cursor() {
        let played = played_samples(&[10, 90], 1_000_000, 2_000_000);
        let percents: Vec<i64> = played.iter().map(|row| row[1]).collect();
        assert_eq!(percents, [10, 90, 10, 90, 10, 90]);
        assert!(played.iter().all(|row| row[0] > 1_000_000));
        assert_eq!(played.last().map(|row| row[0]), Some(2_000_000));
        assert_eq!(last_busy_us(&[vec![5, 10], vec![6, 0]]), Some(5));
        assert!(played_samples(&[], 0, 5).is_empty());
    }

    #[test]
    fn rows_keep_only_unusual_ages() {
        let rows = vec![vec![7, 900, 1, 2, 3, 4], vec![8, 100, 0, 0, 0, 0]];
        let recorded = recorded_rows(&rows, &OLD_ROW, 500, 1_000);
        assert_eq!(recorded, [vec![7, 1, 2, 3, 4], vec![8, 0, 0, 0, 0, 900]]);
        let played = played_rows(&recorded, &OLD_ROW, 5_000, 6_000);
        assert_eq!(played, [vec![7, 6_000, 1, 2, 3, 4], vec![8, 5_100, 0, 0, 0, 0]]);
        assert_eq!(played_rows(&recorded[..1], &OLD_ROW, 6_000, 6_000), Vec::<Vec<i64>>::new());
        let new = recorded_rows(&[vec![900, 7, 1, 2, 3, 4, 5, 6]], &NEW_ROW, 500, 1_000);
        assert_eq!(new, [vec![7, 1, 2, 3, 4, 5, 6]]);
        assert_eq!(played_rows(&new, &NEW_ROW, 1, 2), [vec![2, 7, 1, 2, 3, 4, 5, 6]]);
    }
}
