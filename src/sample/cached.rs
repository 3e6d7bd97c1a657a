//! A cached value and when it was read.

use std::time::Duration;

use crate::policy::Tier;

/// A cached value and when it was read (monotonic).
pub(super) struct Cached<T>(Option<(Duration, T)>);

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Cached<T> {
    /// Returns the cached value, or reads it if `is_fresh` (given the value and its age) is false.
    pub(super) fn get_or_read(
        &mut self,
        now: Duration,
        is_fresh: impl Fn(&T, Duration) -> bool,
        read: impl FnOnce() -> T,
    ) -> T {
        let cached = self.0.take().filter(|(at, value)| is_fresh(value, now.saturating_sub(*at)));
        self.0.insert(cached.unwrap_or_else(|| (now, read()))).1.clone()
    }
}

/// Whether a value of this age is fresh in the slow tier.
pub(super) fn is_fresh_slow<T>(_: &T, age: Duration) -> bool {
    !Tier::Slow.due(Some(Duration::ZERO), age)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::SLOW_TIER;

    #[test]
    fn cached_value_is_reused_while_fresh() {
        let mut cached = Cached::default();
        let start = Duration::from_secs(100);
        assert_eq!(cached.get_or_read(start, is_fresh_slow, || 1), 1);
        assert_eq!(cached.get_or_read(start + SLOW_TIER / 2, is_fresh_slow, || 2), 1);
        assert_eq!(cached.get_or_read(start + SLOW_TIER, is_fresh_slow, || 3), 3);
    }
}
