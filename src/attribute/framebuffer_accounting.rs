//! Framebuffer use of a device by class of owner. The sum over all classes is the used framebuffer.

use crate::model::{Missing, OwnerClass};

/// Framebuffer use of one device by class of owner, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FramebufferByOwner {
    bytes: [u64; 4],
    /// The memory of a process is unknown.
    incomplete: bool,
}

/// Value of the `owner` label and bytes; the sum is the used framebuffer. The last entry is the
/// `unaccounted` rest.
pub type OwnerBytes = [(&'static str, i64); 5];

impl FramebufferByOwner {
    /// Adds the memory of one process.
    pub fn add(&mut self, owner: OwnerClass, memory: Result<u64, Missing>) {
        match (memory, self.bytes.get_mut(owner as usize)) {
            (Ok(more), Some(bytes)) => *bytes = bytes.saturating_add(more),
            _ => self.incomplete = true,
        }
    }

    /// Adds the use of another partition.
    pub fn merge(&mut self, other: Self) {
        for (bytes, more) in self.bytes.iter_mut().zip(other.bytes) {
            *bytes = bytes.saturating_add(more);
        }
        self.incomplete |= other.incomplete;
    }

    /// Use by owner, with the rest of `used` (the used framebuffer in bytes) as `unaccounted`. The
    /// rest is negative if the processes use more than that.
    ///
    /// `None` if the memory of a process is unknown.
    #[must_use]
    pub fn balance(&self, used: u64) -> Option<OwnerBytes> {
        let signed = |bytes: u64| i64::try_from(bytes).ok();
        let [container, host, mps_server, unknown] = self.bytes;
        let sum = self.bytes.iter().try_fold(0, |sum: u64, bytes| sum.checked_add(*bytes))?;
        let rest = signed(used)?.checked_sub(signed(sum)?)?;
        let balance = [
            ("container", signed(container)?),
            ("host", signed(host)?),
            ("mps_server", signed(mps_server)?),
            ("unknown", signed(unknown)?),
            ("unaccounted", rest),
        ];
        (!self.incomplete).then_some(balance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWNERS: [OwnerClass; 4] =
        [OwnerClass::Container, OwnerClass::Host, OwnerClass::MpsServer, OwnerClass::Unknown];

    #[test]
    fn each_owner_class_has_its_own_label() {
        for (position, owner) in OWNERS.into_iter().enumerate() {
            let mut by_owner = FramebufferByOwner::default();
            by_owner.add(owner, Ok(7));
            let balance = by_owner.balance(7).unwrap();
            assert_eq!(balance[position].1, 7, "{owner:?}");
            assert_eq!(balance.iter().filter(|(_, bytes)| *bytes != 0).count(), 1);
        }
    }

    #[test]
    fn no_balance_if_the_memory_of_a_process_is_unknown() {
        let mut by_owner = FramebufferByOwner::default();
        by_owner.add(OwnerClass::Container, Ok(7));
        by_owner.add(OwnerClass::Host, Err(Missing::Unsupported));
        assert_eq!(by_owner.balance(9), None);
    }

    proptest! {
        #[test]
        fn sum_over_all_owners_is_the_used_framebuffer(
            entries in prop::collection::vec((0_usize..4, 0_u64..1 << 40), 0..20),
            used in 0_u64..1 << 45,
        ) {
            let mut by_owner = FramebufferByOwner::default();
            for (owner, bytes) in entries {
                by_owner.add(OWNERS[owner], Ok(bytes));
            }
            let sum: i64 = by_owner.balance(used).unwrap().iter().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(u64::try_from(sum).unwrap(), used);
        }
    }
}
