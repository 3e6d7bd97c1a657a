//! MIG profiles as data, by model.
//!
//! Names, slices, instance counts, placements and ids are those of the real boards. Sizes and
//! engine counts are approximate, not measured: tests of clients must not rely on them.

use crate::models::Model;

/// Compute slices of a MIG-capable board.
pub(crate) const SLICES: u32 = 7;
/// Memory slices of a MIG-capable board, the unit of placements.
pub(crate) const MEMORY_SLICES: u32 = 8;

/// A GPU instance profile.
#[derive(Debug, PartialEq)]
pub(crate) struct Profile {
    /// Its name in drivers and scenarios, such as `3g.40gb`.
    pub(crate) name: &'static str,
    /// `NVML_GPU_INSTANCE_PROFILE_…`, the argument of queries.
    pub(crate) index: u32,
    /// The profile id that the driver assigns.
    pub(crate) id: u32,
    /// Compute slices.
    pub(crate) slices: u32,
    /// Memory slices.
    pub(crate) memory_slices: u32,
    /// Possible placement starts, in memory slices.
    pub(crate) starts: &'static [u32],
    /// Maximum number of instances on a board.
    pub(crate) max_instances: u32,
    /// Framebuffer in MiB.
    pub(crate) mib: u64,
    /// Multiprocessors.
    pub(crate) multiprocessors: u32,
    /// Copy engines.
    pub(crate) copy_engines: u32,
    /// Decoders.
    pub(crate) decoders: u32,
    /// Whether it has the JPEG decoder and the optical flow engine.
    pub(crate) media_engines: bool,
}

/// Slices of each compute instance profile, and its `NVML_COMPUTE_INSTANCE_PROFILE_…`, which is
/// also the driver's id of it.
const COMPUTE: [(u32, u32); 5] = [(1, 0), (2, 1), (3, 2), (4, 3), (7, 4)];

/// The id of the compute instance profile with this number of slices.
pub(crate) fn compute_id(slices: u32) -> Option<u32> {
    COMPUTE.iter().find(|row| row.0 == slices).map(|row| row.1)
}

impl Model {
    /// Its GPU instance profiles; empty if it is not MIG-capable.
    pub(crate) fn mig(&self) -> &'static [Profile] {
        match self.key {
            "A100" => A100,
            "H100" => H100,
            "H200" => H200,
            "B200" => B200,
            "H20" => H20,
            "GB200" => GB200,
            "GB300" => GB300,
            _ => &[],
        }
    }
}

const ONE_SLICE: &[u32] = &[0, 1, 2, 3, 4, 5, 6];
const ONE_SLICE_WIDE: &[u32] = &[0, 2, 4, 6];
const TWO_SLICES: &[u32] = &[0, 2, 4];
const THREE_SLICES: &[u32] = &[0, 4];
const FIRST: &[u32] = &[0];

/// The seven profiles of all these boards: name, MiB, multiprocessors, decoders.
macro_rules! profiles {
    ($($table:ident: [$($name:literal $mib:literal $sms:literal $decoders:literal),*];)*) => {
        $(static $table: &[Profile] = &build([$(($name, $mib, $sms, $decoders)),*]);)*
    };
}

const fn build(rows: [(&'static str, u64, u32, u32); 7]) -> [Profile; 7] {
    let [one, media, wide, two, three, four, seven] = rows;
    [
        profile(one, [0, 19, 1, 1, 7], ONE_SLICE, false),
        profile(media, [7, 20, 1, 1, 1], ONE_SLICE, true),
        profile(wide, [9, 15, 1, 2, 4], ONE_SLICE_WIDE, false),
        profile(two, [1, 14, 2, 2, 3], TWO_SLICES, false),
        profile(three, [2, 9, 3, 4, 2], THREE_SLICES, false),
        profile(four, [3, 5, 4, 4, 1], FIRST, false),
        profile(seven, [4, 0, 7, 8, 1], FIRST, true),
    ]
}

const fn profile(
    (name, mib, multiprocessors, decoders): (&'static str, u64, u32, u32),
    [index, id, slices, memory_slices, most]: [u32; 5],
    starts: &'static [u32],
    media: bool,
) -> Profile {
    Profile {
        name,
        index,
        id,
        slices,
        memory_slices,
        starts,
        max_instances: most,
        mib,
        multiprocessors,
        copy_engines: slices,
        decoders,
        media_engines: media,
    }
}

profiles! {
    A100: ["1g.10gb" 9_728 14 0, "1g.10gb+me" 9_728 14 1, "1g.20gb" 19_968 14 1, "2g.20gb" 19_968 28 1,
        "3g.40gb" 40_192 42 2, "4g.40gb" 40_192 56 2, "7g.80gb" 80_640 98 5];
    H100: ["1g.10gb" 9_856 16 1, "1g.10gb+me" 9_856 16 1, "1g.20gb" 19_968 26 1, "2g.20gb" 19_968 32 2,
        "3g.40gb" 40_192 60 3, "4g.40gb" 40_192 64 4, "7g.80gb" 80_512 132 7];
    H200: ["1g.18gb" 16_384 16 1, "1g.18gb+me" 16_384 16 1, "1g.35gb" 33_280 26 1, "2g.35gb" 33_280 32 2,
        "3g.71gb" 71_168 60 3, "4g.71gb" 71_168 64 4, "7g.141gb" 142_848 132 7];
    B200: ["1g.23gb" 22_016 18 1, "1g.23gb+me" 22_016 18 1, "1g.45gb" 44_800 30 1, "2g.45gb" 44_800 36 2,
        "3g.90gb" 90_368 70 3, "4g.90gb" 90_368 72 4, "7g.180gb" 181_760 148 7];
    H20: ["1g.12gb" 11_776 8 1, "1g.12gb+me" 11_776 8 1, "1g.24gb" 23_808 16 1, "2g.24gb" 23_808 16 2,
        "3g.48gb" 47_872 32 3, "4g.48gb" 47_872 32 4, "7g.96gb" 96_256 78 7];
    GB200: ["1g.23gb" 22_528 18 1, "1g.23gb+me" 22_528 18 1, "1g.47gb" 46_080 30 1, "2g.47gb" 46_080 36 2,
        "3g.93gb" 93_184 70 3, "4g.93gb" 93_184 72 4, "7g.186gb" 187_392 148 7];
    GB300: ["1g.35gb" 34_816 18 1, "1g.35gb+me" 34_816 18 1, "1g.70gb" 69_632 30 1, "2g.70gb" 69_632 36 2,
        "3g.139gb" 140_288 70 3, "4g.139gb" 140_288 72 4, "7g.278gb" 281_600 148 7];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::table::models;

    #[test]
    fn profiles_fit_their_boards() {
        for model in models() {
            for profile in model.mig() {
                let name = format!("{} {}", model.key, profile.name);
                assert!(profile.mib <= model.total_mib - model.reserved_mib, "{name}");
                assert!(
                    profile.slices <= SLICES && profile.memory_slices <= MEMORY_SLICES,
                    "{name}"
                );
                let end = profile.starts.iter().max().unwrap() + profile.memory_slices;
                assert!(end <= MEMORY_SLICES, "{name}");
                assert!(
                    usize::try_from(profile.max_instances).unwrap() <= profile.starts.len(),
                    "{name}"
                );
                assert!(profile.name.starts_with(&format!("{}g.", profile.slices)), "{name}");
                assert!(compute_id(profile.slices).is_some(), "{name}");
                // The maximum number of instances fits the framebuffer.
                let all = profile.mib * u64::from(profile.max_instances);
                assert!(all <= model.total_mib - model.reserved_mib - model.base_mib, "{name}");
                let same = model.mig().iter().filter(|other| {
                    other.name == profile.name
                        || other.id == profile.id
                        || other.index == profile.index
                });
                assert_eq!(same.count(), 1, "{name}");
            }
        }
    }
}
