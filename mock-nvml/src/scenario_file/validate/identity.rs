//! Generated identities, which are the same in each run of the same scenario.

/// `prefix` and a UUID in the format of version 4, computed from `seed` and `index`.
pub(super) fn uuid(prefix: &str, seed: &str, index: usize) -> String {
    let (high, low) = (hash(seed, index, 0), hash(seed, index, 1));
    format!(
        "{prefix}{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        (low >> 48) & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff,
    )
}

/// Whether `text` is `prefix` and a UUID in lower case.
pub(super) fn is_uuid(prefix: &str, text: &str) -> bool {
    let Some(uuid) = text.strip_prefix(prefix) else { return false };
    let parts: Vec<_> = uuid.split('-').collect();
    let hex = |part: &str| part.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|part| hex(part))
}

/// FNV-1a with a final mix: FNV alone gives similar high bits for similar inputs.
pub(super) fn hash(seed: &str, index: usize, salt: u8) -> u64 {
    let bytes = seed.bytes().chain(index.to_le_bytes()).chain([salt]);
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    for _ in 0..2 {
        hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    }
    hash ^ (hash >> 32)
}
