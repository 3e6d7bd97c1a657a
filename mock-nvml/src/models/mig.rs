//! MIG profiles as data, by model.
//!
//! Names, slices, instance counts, placements and ids are those of the real boards. Sizes and counts of
//! engines are near them, not measured: no test of a client may lean on them as facts.

use super::Model;

/// Compute slices of a board that can be partitioned.
pub(crate) const SLICES: u32 = 7;
/// Memory slices of such a board; placements count in these.
pub(crate) const MEMORY_SLICES: u32 = 8;

/// A way to cut a GPU instance from a board.
#[derive(Debug, PartialEq)]
pub(crate) struct Profile {
    /// How drivers and scenarios call it: `3g.40gb`.
    pub(crate) name: &'static str,
    /// `NVML_GPU_INSTANCE_PROFILE_…`, by which it is asked for.
    pub(crate) index: u32,
    /// The id that the driver gives it.
    pub(crate) id: u32,
    /// Compute slices.
    pub(crate) slices: u32,
    /// Memory slices.
    pub(crate) memory_slices: u32,
    /// Where it can begin, in memory slices.
    pub(crate) starts: &'static [u32],
    /// How many of them a board can have.
    pub(crate) most: u32,
    /// Framebuffer in MiB.
    pub(crate) mib: u64,
    /// Multiprocessors.
    pub(crate) multiprocessors: u32,
    /// Copy engines.
    pub(crate) copies: u32,
    /// Decoders.
    pub(crate) decoders: u32,
    /// Whether it has the JPEG decoder and the optical flow accelerator.
    pub(crate) media: bool,
}

/// How wide a compute instance is, its `NVML_COMPUTE_INSTANCE_PROFILE_…` and the driver's id of it,
/// which are the same number.
const COMPUTE: [(u32, u32); 5] = [(1, 0), (2, 1), (3, 2), (4, 3), (7, 4)];

/// The id of a compute instance's profile of so many slices.
pub(crate) fn compute_id(slices: u32) -> Option<u32> {
    COMPUTE.iter().find(|row| row.0 == slices).map(|row| row.1)
}

impl Model {
    /// The ways to partition it; none if it cannot be.
    pub(crate) fn mig(&self) -> &'static [Profile] {
        match self.key {
            "A100" => A100,
            "H100" => H100,
            "H200" => H200,
            "B200" => B200,
            _ => &[],
        }
    }
}

const ONES: &[u32] = &[0, 1, 2, 3, 4, 5, 6];
const WIDE_ONES: &[u32] = &[0, 2, 4, 6];
const TWOS: &[u32] = &[0, 2, 4];
const THREES: &[u32] = &[0, 4];
const FIRST: &[u32] = &[0];

/// The seven profiles that these boards have in common: names, MiB, multiprocessors, decoders.
macro_rules! profiles {
    ($($table:ident: [$($name:literal $mib:literal $sms:literal $decoders:literal),*];)*) => {
        $(static $table: &[Profile] = &build([$(($name, $mib, $sms, $decoders)),*]);)*
    };
}

const fn build(rows: [(&'static str, u64, u32, u32); 7]) -> [Profile; 7] {
    let [one, media, wide, two, three, four, seven] = rows;
    [
        profile(one, [0, 19, 1, 1, 7], ONES, false),
        profile(media, [7, 20, 1, 1, 1], ONES, true),
        profile(wide, [9, 15, 1, 2, 4], WIDE_ONES, false),
        profile(two, [1, 14, 2, 2, 3], TWOS, false),
        profile(three, [2, 9, 3, 4, 2], THREES, false),
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
        most,
        mib,
        multiprocessors,
        copies: slices,
        decoders,
        media,
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::MODELS;

    #[test]
    fn profiles_fit_their_boards() {
        for model in MODELS {
            for profile in model.mig() {
                let name = format!("{} {}", model.key, profile.name);
                assert!(profile.mib <= model.total_mib - model.reserved_mib, "{name}");
                assert!(
                    profile.slices <= SLICES && profile.memory_slices <= MEMORY_SLICES,
                    "{name}"
                );
                let end = profile.starts.iter().max().unwrap() + profile.memory_slices;
                assert!(end <= MEMORY_SLICES, "{name}");
                assert!(usize::try_from(profile.most).unwrap() <= profile.starts.len(), "{name}");
                assert!(profile.name.starts_with(&format!("{}g.", profile.slices)), "{name}");
                assert!(compute_id(profile.slices).is_some(), "{name}");
                // As many as the board can have still fit its framebuffer.
                let all = profile.mib * u64::from(profile.most);
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
