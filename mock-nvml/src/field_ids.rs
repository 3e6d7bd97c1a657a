//! Field ids of `nvmlDeviceGetFieldValues`, by driver version.
//!
//! By the headers of CUDA 12.4, 12.8, 12.9, 13.0, 13.0 Update 1 and 13.1 to 13.5. The branches of fields
//! that came between CUDA 11.4 and 12.4 are not verified.

/// The first id of each group of fields, and the branch that it came with, sorted by id. Ids are those of
/// the newest header.
const SINCE: [(u32, u32); 13] = [
    (161, 510),
    (185, 530),
    (193, 535),
    (197, 545),
    (201, 565),
    (231, 575),
    (235, 570),
    (269, 575),
    (274, 590),
    (289, 595),
    (296, 610),
    (301, 595),
    (303, 615),
];
/// One more than the highest id.
const END: u32 = 310;

/// The id in the newest header of the field that a driver of this version knows as `field`; `None` if it
/// has no such field.
#[must_use]
pub fn canonical(driver_version: &str, field: u32) -> Option<u32> {
    let (branch, release) = numbers(driver_version);
    let field = match field {
        // Between CUDA 12.9 and 13.0 Update 1, clock events came before power smoothing.
        251..=255 if is_reordered(branch, release) => field + 18,
        256..=273 if is_reordered(branch, release) => field - 5,
        _ => field,
    };
    let groups = SINCE.iter().take_while(|(first, _)| *first <= field);
    let since = groups.last().map_or(0, |(_, since)| *since);
    (field > 0 && field < END && branch >= since).then_some(field)
}

fn is_reordered(branch: u32, release: u32) -> bool {
    (575..580).contains(&branch) || (branch == 580 && release < 82)
}

fn numbers(driver_version: &str) -> (u32, u32) {
    let mut numbers = driver_version.split('.').map(|number| number.parse().unwrap_or(u32::MAX));
    (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_header_of_each_driver() {
        for (version, field, expected) in [
            ("470.256.02", 186, None),
            ("550.54.15", 197, Some(197)),
            ("550.54.15", 230, None),
            ("570.148.08", 251, Some(251)),
            ("570.148.08", 231, None),
            ("570.148.08", 269, None),
            ("575.57.08", 251, Some(269)),
            ("580.65.06", 256, Some(251)),
            ("580.82.07", 251, Some(251)),
            ("580.82.07", 269, Some(269)),
            ("590.44.01", 274, Some(274)),
            ("590.44.01", 289, None),
            ("595.91.07", 301, Some(301)),
            ("595.91.07", 297, None),
            ("615.10", 309, Some(309)),
            ("615.10", 310, None),
            ("615.10", 0, None),
        ] {
            assert_eq!(canonical(version, field), expected, "{version} {field}");
        }
    }
}
