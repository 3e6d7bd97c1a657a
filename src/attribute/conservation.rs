//! Where a device's framebuffer is: what is used is what somebody holds, and nothing is lost on the way.

use crate::model::Missing;

/// Who holds framebuffer, coarsely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// Containers of pods.
    Container,
    /// Processes of no pod: the host's, and those of other containers.
    Host,
    /// An MPS server, for itself. It is never spread over its clients.
    MpsServer,
    /// Processes of which it is not known whose they are.
    Unknown,
}

/// What was booked on one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    held: [u64; 4],
    untold: bool,
}

/// A closed ledger: whose, and how many bytes; in all, the framebuffer used.
pub type Balance = [(&'static str, i64); 5];

impl Ledger {
    /// Books what one process holds.
    pub fn book(&mut self, bucket: Bucket, memory: Result<u64, Missing>) {
        match (memory, self.held.get_mut(bucket as usize)) {
            (Ok(bytes), Some(held)) => *held = held.saturating_add(bytes),
            _ => self.untold = true,
        }
    }

    /// Adds what another ledger holds.
    pub fn merge(&mut self, other: Self) {
        for (held, more) in self.held.iter_mut().zip(other.held) {
            *held = held.saturating_add(more);
        }
        self.untold |= other.untold;
    }

    /// Compares with the framebuffer used, in bytes: the rest is accounted for by nobody, and is
    /// negative if more is held than used.
    ///
    /// There is no balance if a process's memory is not told.
    #[must_use]
    pub fn balance(&self, used: u64) -> Option<Balance> {
        let signed = |bytes: u64| i64::try_from(bytes).ok();
        let [container, host, mps_server, unknown] = self.held;
        let sum = self.held.iter().try_fold(0, |sum: u64, held| sum.checked_add(*held))?;
        let rest = signed(used)?.checked_sub(signed(sum)?)?;
        let balance = [
            ("container", signed(container)?),
            ("host", signed(host)?),
            ("mps_server", signed(mps_server)?),
            ("unknown", signed(unknown)?),
            ("unaccounted", rest),
        ];
        (!self.untold).then_some(balance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUCKETS: [Bucket; 4] =
        [Bucket::Container, Bucket::Host, Bucket::MpsServer, Bucket::Unknown];

    #[test]
    fn each_bucket_has_its_own_name() {
        for (position, bucket) in BUCKETS.into_iter().enumerate() {
            let mut ledger = Ledger::default();
            ledger.book(bucket, Ok(7));
            let balance = ledger.balance(7).unwrap();
            assert_eq!(balance[position].1, 7, "{bucket:?}");
            assert_eq!(balance.iter().filter(|(_, bytes)| *bytes != 0).count(), 1);
        }
    }

    #[test]
    fn memory_that_is_not_told_leaves_no_balance() {
        let mut ledger = Ledger::default();
        ledger.book(Bucket::Container, Ok(7));
        ledger.book(Bucket::Host, Err(Missing::Unsupported));
        assert_eq!(ledger.balance(9), None);
    }

    proptest! {
        #[test]
        fn what_is_booked_and_what_is_left_is_what_is_used(
            entries in prop::collection::vec((0_usize..4, 0_u64..1 << 40), 0..20),
            used in 0_u64..1 << 45,
        ) {
            let mut ledger = Ledger::default();
            for (bucket, bytes) in entries {
                ledger.book(BUCKETS[bucket], Ok(bytes));
            }
            let sum: i64 = ledger.balance(used).unwrap().iter().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(u64::try_from(sum).unwrap(), used);
        }
    }
}
